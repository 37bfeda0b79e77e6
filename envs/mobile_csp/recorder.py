"""Collects the trace of a running episode."""

from typing import Any

import numpy as np

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.forecast import estimated_h
from qevgrid.envs.mobile_csp.trace import StormTrace, way_done
from qevgrid.envs.types import BoolArray, IntArray


class Recorder:
    """``begin`` at a reset, ``add`` after every period; looks at row 0."""

    def __init__(self, core: MobileCore) -> None:
        self._core = core
        self._moments: list[dict[str, Any]] = []
        self._origin = self._departure = np.zeros(core.n_units, np.int64)

    def begin(self, batch: Batch) -> None:
        """The moment after a reset."""
        self._moments = []
        self._origin = batch.state.site[0].copy()
        self._departure = batch.state.arrival[0].copy()
        zero = np.zeros(len(model.COST_TERMS)), np.zeros(self._core.n_sites), np.zeros(self._core.n_units)
        self._keep(batch, *zero)

    def add(self, batch: Batch) -> None:
        """The moment after a period."""
        moved = batch.state.site[0] != self._moments[-1]["unit_site"]
        self._origin = np.where(moved, self._moments[-1]["unit_site"], self._origin)
        self._departure = np.where(moved, batch.state.stage[0] - 1, self._departure)
        out = batch.outcome
        self._keep(batch, out.cost_usd[0].copy(), out.served_kw[0].copy(), out.discharge_kw[0] - out.charge_kw[0])

    def trace(self, agent: str = "") -> StormTrace:
        """The episode so far."""
        p, plant = self._core.params, self._core.plant
        columns = {name: np.stack([m[name] for m in self._moments]) for name in self._moments[0]}
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
            **columns,
        )

    def _keep(self, batch: Batch, cost_usd: Any, served_kw: Any, unit_kw: Any) -> None:
        stage = int(batch.state.stage[0])
        first = len(self._moments) == 0
        flows = max(stage - 1, 0)  # needs and supply of the period that was played
        before = stage < 0 or (stage == 0 and not first)
        now = min(max(stage, 0), self._core.n_periods - 1)
        w, s = batch.world, batch.scenario
        roads_h = estimated_h(self._core.plant, s.row(0), np.array([now]))[2][0]
        live, whole = self._grid(batch, now)
        arrival, sites = batch.state.arrival[0], self._core.n_sites
        self._moments.append({
            "stage": np.int64(stage),
            "supplied": np.ones(sites, bool) if before else w.island[0, flows] == SUPPLIED,
            "need_kw": np.zeros(sites) if before else w.need_kw[0, flows].copy(),
            "served_kw": served_kw,
            "road_left_h": np.maximum(roads_h - now * self._core.params.dt_h, 0.0) * (stage >= 0),
            "bus_live": live | (stage < 0),
            "line_whole": whole | (stage < 0),
            "unit_site": batch.state.site[0].copy(),
            "unit_origin": self._origin,
            "unit_done": way_done(stage, arrival, self._departure),
            "unit_kwh": batch.state.energy_kwh[0].copy(),
            "unit_kw": unit_kw,
            "cost_usd": cost_usd,
        })  # fmt: skip

    def _grid(self, batch: Batch, now: int) -> tuple[BoolArray, BoolArray]:
        """Live buses and whole lines at a period."""
        ground, hour = self._core.plant.ground, now * self._core.params.dt_h
        whole = batch.scenario.line_h[0] <= hour
        live = np.zeros(len(ground.base_kw), bool)
        live[0] = batch.scenario.substation_h[0] <= hour
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
