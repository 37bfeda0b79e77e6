"""From the facts of a storm to the world, period by period: islands, needs, charging room, travel times."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE, World
from qevgrid.envs.mobile_csp.plant import Ground
from qevgrid.envs.mobile_csp.roads import spread
from qevgrid.envs.types import FloatArray, IntArray

SLACK = 1e-9
NEVER_H = 1e9


class Facts(NamedTuple):
    """What decides a world; hours count from period 0. B episodes, T periods, D sites, L lines, R roads."""

    line_h: FloatArray  # (B, L) mended; 0: never broken
    substation_h: FloatArray  # (B,) back; 0: never out
    road_h: FloatArray  # (B, R) clear again; 0: never closed
    generator_h: FloatArray  # (B, D) the backup generator fails; NEVER_H; 0: there is none
    load_kw: FloatArray  # (B, T, D) critical load
    pv_kw: FloatArray  # (B, T, D) what PV could give


def empty_world(n: int, periods: int, sites: int, serving: int = 0) -> World:
    """Room for ``n`` episodes, vehicles charging at ``serving`` sites."""
    shape = (n, periods, sites)
    numbers = (np.zeros(shape) for _ in range(4))
    travel, vehicles = np.zeros((*shape, sites), np.int16), np.zeros((n, periods, serving, 2))
    return World._make((np.full(shape, SUPPLIED, np.int64), *numbers, travel, vehicles))


def unfold(ground: Ground, load_shape: FloatArray, facts: Facts, world: World, begin: IntArray) -> None:
    """Write the entries of ``world`` from period ``begin`` (B,) on; those before it are the past and are kept.

    Arrivals of vehicles follow from nothing else and are left as they are.

    The past tells how much of the backups is used up. ``load_shape`` (T,): the feeder's load over its peak.
    """
    _unfold(ground, load_shape, facts, world, begin)


@njit(cache=True)
def _unfold(
    ground: Ground, load_shape: FloatArray, facts: Facts, world: World, begin: IntArray
) -> None:  # pragma: no cover - compiled
    n_bus, sites, periods = len(ground.base_kw), len(ground.bus), world.island.shape[1]
    component, lowest = np.empty(n_bus, np.int64), np.empty(n_bus, np.int64)
    flow, used_h = np.empty((3, n_bus)), np.empty(sites)
    for b in range(len(begin)):
        now_h, last_h = 0.0, -1.0
        _used(ground, world, b, begin[b], used_h)
        for t in range(begin[b], periods):
            now_h = t * ground.dt_h + SLACK
            if t == begin[b] or _changed(facts.line_h[b], last_h, now_h):
                _connect(ground, facts.line_h[b], now_h, component)
            last_h = now_h
            powered = facts.substation_h[b] <= now_h
            _islands(ground, component, powered, lowest, world.island[b, t])
            _needs(ground, facts, world, b, t, used_h)
            _room(ground, component, powered, load_shape[t], flow, world.island[b, t], world.charge_limit_kw[b, t])
        _travel(ground, facts.road_h[b], begin[b], world.travel[b])


@njit(cache=True)
def _changed(hours: FloatArray, before_h: float, now_h: float) -> bool:  # pragma: no cover - compiled
    """Whether something came back since ``before_h``."""
    for x in hours:
        if before_h < x <= now_h:
            return True
    return False


@njit(cache=True)
def _connect(ground: Ground, line_h: FloatArray, now_h: float, component: IntArray) -> None:  # pragma: no cover
    """Number of the connected part of each bus; 0 has the substation. One pass: lines stand in order."""
    component[0] = 0
    for k in range(len(line_h)):
        bus = ground.to_bus[k]
        component[bus] = component[ground.from_bus[k]] if line_h[k] <= now_h else bus


@njit(cache=True)
def _islands(
    ground: Ground, component: IntArray, powered: bool, lowest: IntArray, island: IntArray
) -> None:  # pragma: no cover - compiled
    """Islands are numbered by their first site."""
    lowest[:] = -1
    for d in range(len(island)):
        bus = ground.bus[d]
        if bus < 0 or (powered and component[bus] == 0):
            island[d] = SUPPLIED
            continue
        if lowest[component[bus]] < 0:
            lowest[component[bus]] = d
        island[d] = lowest[component[bus]]


@njit(cache=True)
def _used(ground: Ground, world: World, b: int, begin: int, used_h: FloatArray) -> None:  # pragma: no cover
    """Hours of backup that each site has used before ``begin``."""
    used_h[:] = 0.0
    for t in range(begin):
        for d in range(len(used_h)):
            if world.island[b, t, d] != SUPPLIED and world.generator_kw[b, t, d] == 0.0:
                used_h[d] += ground.dt_h


@njit(cache=True)
def _needs(
    ground: Ground, facts: Facts, world: World, b: int, t: int, used_h: FloatArray
) -> None:  # pragma: no cover - compiled
    """Need, PV and generator of each site: the generator first, then the backup, then the load is in need."""
    for d in range(len(used_h)):
        need, pv, generator = 0.0, 0.0, 0.0
        if world.island[b, t, d] != SUPPLIED:
            pv = facts.pv_kw[b, t, d]
            if ground.critical[d]:
                if t * ground.dt_h < facts.generator_h[b, d]:
                    generator = facts.load_kw[b, t, d]
                else:
                    used_h[d] += ground.dt_h
                    need = facts.load_kw[b, t, d] if used_h[d] > ground.backup_h[d] + SLACK else 0.0
        world.need_kw[b, t, d] = need
        world.pv_kw[b, t, d] = pv
        world.generator_kw[b, t, d] = generator


@njit(cache=True)
def _room(
    ground: Ground,
    component: IntArray,
    powered: bool,
    scale: float,
    flow: FloatArray,
    island: IntArray,
    limit_kw: FloatArray,
) -> None:  # pragma: no cover - compiled
    """Power at which each supplied site alone may charge: its connection, line limits and voltage (LinDistFlow)."""
    on_feeder = False
    for d in range(len(island)):
        limit_kw[d] = ground.connection_kw[d] if island[d] == SUPPLIED else 0.0
        on_feeder |= (island[d] == SUPPLIED) and ground.bus[d] > 0
    if not (powered and on_feeder):
        return
    kw, kvar, v2 = flow[0], flow[1], flow[2]
    for bus in range(len(component)):
        lit = scale if component[bus] == 0 else 0.0
        kw[bus], kvar[bus] = lit * ground.base_kw[bus], lit * ground.base_kvar[bus]
    lines = len(ground.to_bus)
    for k in range(lines - 1, -1, -1):
        if component[ground.to_bus[k]] == 0:
            kw[ground.from_bus[k]] += kw[ground.to_bus[k]]
            kvar[ground.from_bus[k]] += kvar[ground.to_bus[k]]
    v2[0] = 1.0
    for k in range(lines):
        bus = ground.to_bus[k]
        v2[bus] = v2[ground.from_bus[k]] - ground.drop_r[k] * kw[bus] - ground.drop_x[k] * kvar[bus]
    for d in range(len(island)):
        if island[d] == SUPPLIED and ground.bus[d] > 0:
            limit_kw[d] = max(min(limit_kw[d], _headroom(ground, component, kw, v2, d)), 0.0)


@njit(cache=True)
def _headroom(ground: Ground, component: IntArray, kw: FloatArray, v2: FloatArray, d: int) -> float:  # pragma: no cover
    """What site ``d`` may draw before a line or a voltage is at its limit."""
    room = np.inf
    for k in range(len(ground.to_bus)):
        bus = ground.to_bus[k]
        if component[bus] != 0:
            continue
        if ground.carries[k, d]:
            room = min(room, ground.limit_kw[k] - kw[bus])
        if ground.drop_site[bus, d] > 0.0:
            room = min(room, (v2[bus] - ground.v2_min) / ground.drop_site[bus, d])
    return room


@njit(cache=True)
def _travel(ground: Ground, road_h: FloatArray, begin: int, travel: Any) -> None:  # pragma: no cover - compiled
    """Periods between all sites from ``begin`` on; a road that reopens only improves what it touches."""
    sites, nodes = len(ground.node), len(ground.first) - 1
    is_open, queue = np.zeros(len(road_h), np.bool_), np.empty(nodes + 1, np.int64)
    dist = np.full((sites, nodes), np.inf)
    for t in range(begin, len(travel)):
        now_h, news = t * ground.dt_h + SLACK, t == begin
        for r in range(len(road_h)):
            if is_open[r] or road_h[r] > now_h:
                continue
            is_open[r] = True
            news = True
            if t > begin:
                _reopen(ground, is_open, r, dist, queue)
        if t == begin:
            for i in range(sites):
                dist[i, ground.node[i]] = 0.0
                _spread(ground, is_open, ground.node[i], dist[i], queue)
        for i in range(sites):
            for j in range(sites):
                travel[t, i, j] = _periods(ground, dist[i, ground.node[j]], i == j) if news else travel[t - 1, i, j]


@njit(cache=True)
def _reopen(ground: Ground, is_open: Any, r: int, dist: FloatArray, queue: IntArray) -> None:  # pragma: no cover
    a, b, time = ground.tail[r], ground.head[r], ground.road_periods[r]
    for i in range(len(dist)):
        if dist[i, a] + time < dist[i, b]:
            dist[i, b] = dist[i, a] + time
            _spread(ground, is_open, b, dist[i], queue)
        elif dist[i, b] + time < dist[i, a]:
            dist[i, a] = dist[i, b] + time
            _spread(ground, is_open, a, dist[i], queue)


@njit(cache=True)
def _spread(ground: Ground, is_open: Any, node: int, dist: FloatArray, queue: IntArray) -> None:  # pragma: no cover
    spread(ground.first, ground.road, ground.tail, ground.head, ground.road_periods, is_open, node, dist, queue)


@njit(cache=True)
def _periods(ground: Ground, time: float, same: bool) -> int:  # pragma: no cover - compiled
    """Driving time (20) rounded up, and the set-up."""
    if same:
        return 0
    if time == np.inf:
        return UNREACHABLE
    return min(int(np.ceil(time - SLACK)) + ground.setup_periods, UNREACHABLE - 1)
