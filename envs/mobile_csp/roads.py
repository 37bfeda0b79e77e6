"""Road networks: the Sioux Falls roads, networks from files, and travel times while roads reopen."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray

# LeBlanc, Morlok and Pierskalla, "An efficient approach to solving the road network equilibrium traffic
# assignment problem", Transportation Research 9, 1975: 38 two-way roads, free-flow time. The paper's unit,
# 0.01 h, is commonly read as minutes, and is here. Columns: node, node, minutes.
_SIOUX_FALLS = (
    (1, 2, 6), (1, 3, 4), (2, 6, 5), (3, 4, 4), (3, 12, 4), (4, 5, 2), (4, 11, 6), (5, 6, 4), (5, 9, 5), (6, 8, 2),
    (7, 8, 3), (7, 18, 2), (8, 9, 10), (8, 16, 5), (9, 10, 3), (10, 11, 5), (10, 15, 6), (10, 16, 4), (10, 17, 8),
    (11, 12, 6), (11, 14, 4), (12, 13, 3), (13, 24, 4), (14, 15, 5), (14, 23, 4), (15, 19, 3), (15, 22, 3),
    (16, 17, 2), (16, 18, 3), (17, 19, 2), (18, 20, 4), (19, 20, 4), (20, 21, 6), (20, 22, 5), (21, 22, 2),
    (21, 24, 3), (22, 23, 4), (23, 24, 2),
)  # fmt: skip
# Where the picture puts node 1, 2, ...: columns and rows of our own, in the usual arrangement of the network.
_SIOUX_FALLS_XY = (
    (0, 9), (4, 9), (0, 7.8), (1.2, 7.8), (2.6, 7.8), (4, 7.8), (5.6, 6.4), (4, 6.4), (2.6, 6.4), (2.6, 5.2),
    (1.2, 5.2), (0, 5.2), (0, 0), (1.2, 3.2), (2.6, 3.2), (4, 5.2), (4, 4.2), (5.6, 5.2), (4, 3.2), (4, 0),
    (2.6, 0), (2.6, 1.6), (1.2, 1.6), (1.2, 0),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Roads:
    """Two-way roads between V nodes, R of them."""

    name: str
    node: tuple[str, ...]  # (V,) names
    tail: IntArray  # (R,)
    head: IntArray  # (R,)
    minutes: FloatArray  # (R,) free-flow travel time
    first: IntArray  # (V + 1,) roads of node v are road[first[v]:first[v + 1]]
    road: IntArray  # (2R,)
    xy: FloatArray | None = None  # (V, 2) where pictures put the nodes

    def index(self, name: int | str) -> int:
        """Number of the node with this name; ``UserError`` if there is none."""
        try:
            return self.node.index(str(name))
        except ValueError:
            some = ", ".join(self.node[:6])
            raise UserError(f"no node {name!r} in the roads of {self.name!r}; its nodes are {some}, ...") from None

    def layout(self) -> FloatArray:
        """Coordinates for pictures, (V, 2) in [0, 1]: the network's own, else by Kamada and Kawai."""
        xy = _spring(self) if self.xy is None else self.xy
        low, span = xy.min(0), np.maximum(np.ptp(xy, axis=0), 1e-9)
        return (xy - low) / span


@functools.lru_cache(maxsize=8)
def load_roads(network: str) -> Roads:
    """``sioux_falls``, or a file: GraphML, or lines "node node minutes" (or ``{'minutes': 4}``) as networkx reads.

    Raises ``UserError`` for a missing or unreadable file, a road without time or with a negative one, or a network
    in which not every node reaches every other.
    """
    if network == "sioux_falls":
        xy = np.array(_SIOUX_FALLS_XY, float)
        return make_roads(network, ((str(a), str(b), m) for a, b, m in _SIOUX_FALLS), xy=xy)
    if not Path(network).expanduser().is_file():
        raise UserError(
            f"roads.network={network!r} is neither 'sioux_falls' nor a file; give the path of a GraphML file"
        )
    graph = _read(network)
    edges = []
    for a, b, data in graph.edges(data=True):
        if (minutes := data.get("minutes", data.get("weight"))) is None:
            raise UserError(f"{network}: the road {a}-{b} has no 'minutes'; add the edge attribute")
        edges.append((str(a), str(b), minutes))
    x, y = (dict(graph.nodes(data=key)) for key in ("x", "y"))
    placed = all(isinstance(at, int | float) for at in (*x.values(), *y.values()))
    xy = {str(n): (x[n], y[n]) for n in graph} if placed else None
    return make_roads(network, edges, xy=xy)


def make_roads(name: str, edges: Iterable[tuple[str, str, Any]], xy: Any = None) -> Roads:
    """Roads from (node, node, minutes); two between the same nodes become the faster one."""
    fastest: dict[tuple[str, str], float] = {}
    for a, b, minutes in edges:
        fastest |= {key: min(value, fastest.get(key, value)) for key, value in [_checked(name, a, b, minutes)]}
    fastest = {key: value for key, value in fastest.items() if key[0] != key[1]}
    names = dict.fromkeys(n for pair in fastest for n in pair)
    order = sorted(names, key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))
    if not order:
        raise UserError(f"roads.network={name!r} has no roads; give at least one between two nodes")
    number = {n: k for k, n in enumerate(order)}
    tail, head = (np.array([number[pair[k]] for pair in fastest], np.int64) for k in (0, 1))
    ends = np.concatenate([tail, head])
    road = np.tile(np.arange(len(tail)), 2)[np.argsort(ends, kind="stable")]
    first = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=len(order)))])
    where = np.array([xy[n] for n in order], float) if isinstance(xy, dict) else xy
    roads = Roads(name, tuple(order), tail, head, np.array(list(fastest.values())), first, road, where)
    _check_connected(roads)
    return roads


def _read(network: str) -> Any:
    """The file as an undirected networkx graph."""
    import networkx as nx

    path = Path(network).expanduser()
    try:
        if path.suffix.lower() in (".graphml", ".xml"):
            return nx.Graph(nx.read_graphml(path))
        try:
            return nx.read_weighted_edgelist(path)
        except (TypeError, ValueError, IndexError):
            return nx.read_edgelist(path)
    except Exception as error:  # networkx raises whatever its parser does
        raise UserError(f"roads.network={network!r} cannot be read as GraphML or an edge list: {error}") from None


def _checked(name: str, a: str, b: str, minutes: Any) -> tuple[tuple[str, str], float]:
    try:
        value = float(minutes)
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value >= 0):
        raise UserError(f"{name}: the road {a}-{b} takes {minutes!r} minutes; give a number that is not negative")
    return (min(a, b), max(a, b)), value


def _check_connected(roads: Roads) -> None:
    minutes = travel_minutes(roads, np.zeros(1, np.int64))[0]
    if np.isinf(minutes).any():
        lost = roads.node[int(np.argmax(np.isinf(minutes)))]
        raise UserError(
            f"roads.network={roads.name!r}: no road leads from node {roads.node[0]} to node {lost}; "
            "join the parts or leave one out"
        )


def _spring(roads: Roads) -> FloatArray:
    """A layout by networkx from the travel times."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(roads.tail, roads.head, np.maximum(roads.minutes, 1e-3), strict=True))
    found = nx.kamada_kawai_layout(graph)
    return np.array([found[k] for k in range(len(roads.node))])


def travel_minutes(roads: Roads, source: IntArray, is_open: Any = None) -> FloatArray:
    """Shortest free-flow times (S, V) from the nodes ``source`` over open roads ((R,), default all); inf: no way."""
    every = np.ones(len(roads.tail), bool)
    is_open = every if is_open is None else np.asarray(is_open, bool)
    out, queue = np.full((len(source), len(roads.node)), np.inf), np.empty(len(roads.node) + 1, np.int64)
    for k, node in enumerate(source):
        out[k, node] = 0.0
        spread(roads.first, roads.road, roads.tail, roads.head, roads.minutes, is_open, int(node), out[k], queue)
    return out


@njit(cache=True)
def spread(
    first: IntArray,
    road: IntArray,
    tail: IntArray,
    head: IntArray,
    minutes: FloatArray,
    is_open: Any,
    start: int,
    dist: FloatArray,
    queue: IntArray,
) -> None:  # pragma: no cover - compiled
    """Let the time of node ``start`` improve all others, in place (label correcting, first in first out).

    Called for a source it finds all times; called for the ends of a road that reopens it mends what that changes.
    ``queue`` is a ring of V + 1 entries: a node waits in it at most once.
    """
    size = len(queue)
    waiting = np.zeros(len(dist), np.bool_)
    at, end = 0, 1
    queue[0] = start
    waiting[start] = True
    while at != end:
        node = queue[at]
        at = (at + 1) % size
        waiting[node] = False
        for k in range(first[node], first[node + 1]):
            r = road[k]
            if not is_open[r]:
                continue
            other = head[r] if tail[r] == node else tail[r]
            time = dist[node] + minutes[r]
            if time < dist[other]:
                dist[other] = time
                if not waiting[other]:
                    waiting[other] = True
                    queue[end] = other
                    end = (end + 1) % size
