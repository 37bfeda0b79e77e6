"""Collects the trace of a running episode."""

from typing import Any

import numpy as np

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.forecast import estimated_h
from qevgrid.envs.mobile_csp.trace import StormTrace, way_done
from qevgrid.envs.types import BoolArray, FloatArray, IntArray


class Recorder:
    """``begin`` at a reset, ``add`` after every period; looks at row 0."""

    def __init__(self, core: MobileCore) -> None:
        self._core = core
        self._moments: list[dict[str, Any]] = []

    def begin(self, batch: Batch) -> None:
        """The moment after a reset."""
        self._moments = [beginning(batch, 0)]

    def add(self, batch: Batch) -> None:
        """The moment after a period."""
        self._moments.append(moment(batch, 0))

    def trace(self, agent: str = "") -> StormTrace:
        """The episode so far."""
        return assemble(self._core, self._moments, agent)


def assemble(core: MobileCore, moments: list[dict[str, Any]], agent: str) -> StormTrace:
    """Moments of one episode, from its ``beginning`` on, put together."""
    p, plant = core.params, core.plant
    columns = {name: np.stack([m[name] for m in moments]) for name in moments[0]}
    origin, done = _ways(columns["stage"], columns["unit_site"], columns.pop("unit_arrival"))
    return StormTrace(
        agent=agent,
        periods=p.n_periods,
        dt_h=p.dt_h,
        start_h=p.start_h,
        capacity_kwh=plant.fleet.capacity_kwh,
        site_name=[site.name for site in p.sites],
        site_node=plant.ground.node,
        site_bus=plant.ground.bus,
        peak_kw=plant.mean_kw.max(0),
        voll_usd_kwh=plant.sites.voll_usd_kwh,
        node_xy=plant.roads.layout(),
        road=np.stack([plant.roads.tail, plant.roads.head], 1),
        line=np.stack([plant.feeder.from_bus, plant.feeder.to_bus], 1),
        term=list(model.COST_TERMS),
        unit_origin=origin,
        unit_done=done,
        **columns,
    )


def _ways(stage: IntArray, site: IntArray, arrival: IntArray) -> tuple[IntArray, FloatArray]:
    """Where each unit came from and the share of its way that is done, (K, M)."""
    origin, departure = site.copy(), arrival.copy()
    for k in range(1, len(stage)):
        moved = site[k] != site[k - 1]
        origin[k] = np.where(moved, site[k - 1], origin[k - 1])
        departure[k] = np.where(moved, stage[k] - 1, departure[k - 1])
    return origin, np.stack([way_done(int(t), a, d) for t, a, d in zip(stage, arrival, departure, strict=True)])


def beginning(batch: Batch, row: int) -> dict[str, Any]:
    """The moment at which the episode of ``row`` began; it may have gone on since."""
    core = batch.core
    m, d = core.n_units, core.n_sites
    units = np.full(m, core.plant.start_site), np.full(m, core.first_stage), np.full(m, core.plant.start_kwh)
    return _keep(batch, row, core.first_stage, units, np.zeros(len(model.COST_TERMS)), np.zeros(d), np.zeros(m))


def moment(batch: Batch, row: int) -> dict[str, Any]:
    """The moment after the period that ``row`` has just played."""
    state, out = batch.state, batch.outcome
    units = state.site[row].copy(), state.arrival[row].copy(), state.energy_kwh[row].copy()
    flows = out.cost_usd[row].copy(), out.served_kw[row].copy(), out.discharge_kw[row] - out.charge_kw[row]
    return _keep(batch, row, int(state.stage[row]), units, *flows)


def _keep(
    batch: Batch, row: int, stage: int, units: Any, cost_usd: Any, served_kw: Any, unit_kw: Any
) -> dict[str, Any]:
    core = batch.core
    flows = max(stage - 1, 0)  # needs and supply of the period that was played
    before = stage < 0 or (stage == 0 and core.first_stage < 0)
    now = min(max(stage, 0), core.n_periods - 1)
    w, s = batch.world, batch.scenario
    roads_h = estimated_h(core.plant, s.row(row), np.array([now]))[2][0]
    live, whole = _grid(batch, row, now)
    return {
        "stage": np.int64(stage),
        "supplied": np.ones(core.n_sites, bool) if before else w.island[row, flows] == SUPPLIED,
        "need_kw": np.zeros(core.n_sites) if before else w.need_kw[row, flows].copy(),
        "served_kw": served_kw,
        "road_left_h": np.maximum(roads_h - now * core.params.dt_h, 0.0) * (stage >= 0),
        "bus_live": live | (stage < 0),
        "line_whole": whole | (stage < 0),
        "unit_site": units[0],
        "unit_arrival": units[1],
        "unit_kwh": units[2],
        "unit_kw": unit_kw,
        "cost_usd": cost_usd,
    }


def _grid(batch: Batch, row: int, now: int) -> tuple[BoolArray, BoolArray]:
    """Live buses and whole lines at a period."""
    ground, hour = batch.core.plant.ground, now * batch.core.params.dt_h
    whole = batch.scenario.line_h[row] <= hour
    live = np.zeros(len(ground.base_kw), bool)
    live[0] = batch.scenario.substation_h[row] <= hour
    for k, (tail, head) in enumerate(zip(ground.from_bus, ground.to_bus, strict=True)):
        live[head] = live[tail] and whole[k]
    return live, whole


def tree_layout(line: IntArray) -> Any:
    """Places (N, 2) of a feeder's buses: depth to the right, the longest branch straight on, others below."""
    n_bus = len(line) + 1
    children: list[list[int]] = [[] for _ in range(n_bus)]
    for tail, head in line:
        children[tail].append(int(head))
    depth, length = np.zeros(n_bus), np.zeros(n_bus)
    for tail, head in line:
        depth[head] = depth[tail] + 1
    for tail, head in line[::-1]:
        length[tail] = max(length[tail], length[head] + 1)
    row, rows, stack = np.zeros(n_bus), 0, [0]
    while stack:
        bus = stack.pop()
        order = sorted(children[bus], key=lambda c: (length[c], c))
        for k, child in enumerate(reversed(order)):
            rows += k > 0
            row[child] = row[bus] if k == 0 else rows
        stack += order
    return np.stack([depth, -row], 1)
