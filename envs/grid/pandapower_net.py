"""Read a feeder: by name, or from any radial pandapower net."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid.feeder import Feeder, case33bw

if TYPE_CHECKING:
    import pandas as pd
    from pandapower.auxiliary import pandapowerNet

DEFAULT_RATING_A = 400.0
"""Rating of a line whose max_i_ka is missing or 99999 (pandapower's "no limit")."""

_UNLIMITED_KA = 99_999.0
_MODELLED = {"bus", "line", "trafo", "load", "ext_grid"}
_HARMLESS = {"measurement", "controller"}
_NAMED = {"case33bw": case33bw}


class _Branch(NamedTuple):
    label: str
    from_bus: int  # pandapower's bus, a fused one by its representative
    to_bus: int
    r_ohm: float  # at base_kv, as are the other two
    x_ohm: float
    rating_a: float


def load_feeder(name: str) -> Feeder:
    """Return a feeder by its name (case33bw) or from the path of a pandapower JSON file.

    Raises UserError if there is no such name or file, or as `feeder_from_pandapower` does.
    """
    if name in _NAMED:
        return _NAMED[name]()
    if not Path(name).is_file():
        known = ", ".join(_NAMED)
        raise UserError(
            f"feeder {name!r} is not known and no such file exists; "
            f"use one of: {known}, or the path of a pandapower JSON file"
        )
    return feeder_from_pandapower(name)


def feeder_from_pandapower(net_or_path: "pandapowerNet | str | Path") -> Feeder:
    """Convert a radial pandapower net, an object or a JSON file, to a `Feeder`.

    Closed bus-bus switches fuse their buses. Lines, transformers and buses out of service, or
    behind an open switch, are left out. The substation becomes bus 0, the others follow in the
    order of their pandapower index (`Feeder.bus_lookup` translates). A transformer becomes a line
    with its short-circuit impedance; taps, iron losses, line charging, the ext_grid's voltage
    and the voltage dependence of loads are left out. Impedances and ratings are referred to the
    voltage that most buses have. max_i_ka missing or 99999 becomes DEFAULT_RATING_A.
    Raises UserError if the file or pandapower is missing, or the net is meshed, disconnected,
    without exactly one ext_grid, or has elements in service that a Feeder cannot hold.
    """
    is_path = isinstance(net_or_path, str | Path)
    net = _read(Path(net_or_path)) if is_path else net_or_path
    _refuse_unmodelled(net)
    node = _fuse(net)
    root = _root(net, node)
    base_kv = _base_kv(net)
    branches = [*_lines(net, node, base_kv), *_trafos(net, node, base_kv)]
    ordered = _orient(root, branches)
    nodes = sorted(set(node.values()))
    _require_connected(root, nodes, ordered)
    name = Path(net_or_path).stem if is_path else str(net.get("name") or "pandapower net")
    return _assemble(name, net, node, [root, *(n for n in nodes if n != root)], ordered, base_kv)


def _read(path: Path) -> "pandapowerNet":
    if not path.is_file():
        raise UserError(f"feeder file {str(path)!r} does not exist; check the path")
    try:
        import pandapower
    except ImportError as error:
        raise UserError(
            f"feeder file {str(path)!r} needs pandapower, which is not installed; run: pip install pandapower"
        ) from error
    try:
        net = pandapower.from_json(str(path))
        if isinstance(net, pandapower.pandapowerNet):
            return net
        cause = TypeError(type(net).__name__)
    except Exception as error:  # whatever its decoder trips over
        cause = error
    raise UserError(
        f"feeder file {str(path)!r} is not a pandapower net; write one with pandapower.to_json(net, path)"
    ) from cause


def _live(net: "pandapowerNet", table: str) -> "pd.DataFrame":
    rows = net[table]
    return rows[rows["in_service"].astype(bool)]


def _refuse_unmodelled(net: "pandapowerNet") -> None:
    for name, table in net.items():
        known = name in _MODELLED | _HARMLESS or name.startswith(("_", "res_"))
        if known or "in_service" not in getattr(table, "columns", ()):
            continue
        live = _live(net, name)
        if len(live):
            raise UserError(
                f"the feeder has {name} {live.index[0]} in service, which a feeder here cannot "
                f"hold; set net.{name}.in_service = False (PV and storage belong to the sites)"
            )


def _open(net: "pandapowerNet", kind: str) -> set[int]:
    rows = net["switch"]
    return set(rows.loc[(rows["et"] == kind) & ~rows["closed"].astype(bool), "element"])


def _fuse(net: "pandapowerNet") -> dict[int, int]:
    """Map each bus in service to the lowest bus that closed switches join it to."""
    node = {int(bus): int(bus) for bus in _live(net, "bus").index}
    rows = net["switch"]
    joined = rows[(rows["et"] == "b") & rows["closed"].astype(bool)]
    for a, b in zip(joined["bus"], joined["element"], strict=True):
        if a in node and b in node:
            keep, drop = sorted((node[a], node[b]))
            node = {bus: keep if rep == drop else rep for bus, rep in node.items()}
    return node


def _root(net: "pandapowerNet", node: dict[int, int]) -> int:
    buses = sorted({node[bus] for bus in _live(net, "ext_grid")["bus"] if bus in node})
    if not buses:
        raise UserError("the feeder has no ext_grid in service; add one at the substation bus")
    if len(buses) > 1:
        raise UserError(f"the feeder has ext_grids at buses {buses}; keep one in service, at the substation")
    return buses[0]


def _base_kv(net: "pandapowerNet") -> float:
    count = Counter(float(kv) for kv in _live(net, "bus")["vn_kv"])
    return max(count, key=lambda kv: (count[kv], kv))


def _lines(net: "pandapowerNet", node: dict[int, int], base_kv: float) -> Iterator[_Branch]:
    opened = _open(net, "l")
    for index, row in _live(net, "line").iterrows():
        a, b = int(row["from_bus"]), int(row["to_bus"])
        if index in opened or a not in node or b not in node:
            continue
        ratio = base_kv / float(net["bus"].at[a, "vn_kv"])
        ohm = float(row["length_km"]) / _or_one(row, "parallel") * ratio**2
        yield _Branch(
            label=f"line {index}",
            from_bus=node[a],
            to_bus=node[b],
            r_ohm=float(row["r_ohm_per_km"]) * ohm,
            x_ohm=float(row["x_ohm_per_km"]) * ohm,
            rating_a=_rating_a(row) / ratio,
        )


def _rating_a(row: "pd.Series") -> float:
    limit_ka = float(row["max_i_ka"]) if "max_i_ka" in row else np.nan
    if not limit_ka < _UNLIMITED_KA:
        return DEFAULT_RATING_A
    return 1000.0 * limit_ka * _or_one(row, "df") * _or_one(row, "parallel")


def _or_one(row: "pd.Series", column: str) -> float:
    """A factor that a net may leave out."""
    return float(row[column]) if column in row else 1.0


def _trafos(net: "pandapowerNet", node: dict[int, int], base_kv: float) -> Iterator[_Branch]:
    opened = _open(net, "t")
    for index, row in _live(net, "trafo").iterrows():
        a, b = int(row["hv_bus"]), int(row["lv_bus"])
        if index in opened or a not in node or b not in node:
            continue
        sn_mva = float(row["sn_mva"]) * _or_one(row, "parallel")
        ratio = float(row["vn_lv_kv"]) / float(net["bus"].at[b, "vn_kv"]) * base_kv
        percent_ohm = ratio**2 / sn_mva / 100.0
        r_percent, z_percent = float(row["vkr_percent"]), float(row["vk_percent"])
        yield _Branch(
            label=f"trafo {index}",
            from_bus=node[a],
            to_bus=node[b],
            r_ohm=r_percent * percent_ohm,
            x_ohm=np.sqrt(z_percent**2 - r_percent**2) * percent_ohm,
            rating_a=1000.0 * sn_mva * _or_one(row, "df") / (np.sqrt(3.0) * base_kv),
        )


def _orient(root: int, branches: list[_Branch]) -> list[_Branch]:
    """Branches pointing away from the root, parents first, otherwise in the order given."""
    at_bus = defaultdict(list)
    for order, branch in enumerate(branches):
        at_bus[branch.from_bus].append(order)
        at_bus[branch.to_bus].append(order)
    reached, used, ready = {root}, set(), list(at_bus[root])
    heapq.heapify(ready)
    ordered = []
    while ready:
        order = heapq.heappop(ready)
        if order in used:
            continue
        used.add(order)
        branch = branches[order]
        if branch.from_bus in reached and branch.to_bus in reached:
            raise UserError(
                f"the feeder is meshed: {branch.label} (bus {branch.from_bus} to bus "
                f"{branch.to_bus}) closes a loop; set its in_service to False"
            )
        if branch.to_bus in reached:
            branch = branch._replace(from_bus=branch.to_bus, to_bus=branch.from_bus)
        reached.add(branch.to_bus)
        ordered.append(branch)
        for order_next in at_bus[branch.to_bus]:
            if order_next not in used:
                heapq.heappush(ready, order_next)
    return ordered


def _require_connected(root: int, nodes: list[int], ordered: list[_Branch]) -> None:
    lost = sorted(set(nodes) - {root} - {branch.to_bus for branch in ordered})
    if lost:
        raise UserError(
            f"the feeder is disconnected: bus {lost[0]} ({len(lost)} such) has no line in service "
            f"to the ext_grid at bus {root}; connect it or set its in_service to False"
        )


def _assemble(
    name: str,
    net: "pandapowerNet",
    node: dict[int, int],
    numbering: list[int],
    ordered: list[_Branch],
    base_kv: float,
) -> Feeder:
    number = {rep: here for here, rep in enumerate(numbering)}
    load_kw, load_kvar = np.zeros((2, len(numbering)))
    for _, row in _live(net, "load").iterrows():
        bus = int(row["bus"])
        if bus in node:
            here = number[node[bus]]
            load_kw[here] += 1000.0 * row["p_mw"] * row["scaling"]
            load_kvar[here] += 1000.0 * row["q_mvar"] * row["scaling"]
    return Feeder(
        name=name,
        base_kv=base_kv,
        from_bus=np.array([number[branch.from_bus] for branch in ordered], dtype=np.int64),
        to_bus=np.array([number[branch.to_bus] for branch in ordered], dtype=np.int64),
        r_ohm=np.array([branch.r_ohm for branch in ordered]),
        x_ohm=np.array([branch.x_ohm for branch in ordered]),
        load_kw=load_kw,
        load_kvar=load_kvar,
        rating_a=np.array([branch.rating_a for branch in ordered]),
        bus_lookup={bus: number[rep] for bus, rep in node.items()},
    )
