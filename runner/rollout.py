"""Episodes of one agent on given scenarios, and what is recorded of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.env import stage_record, trace
from qevgrid.envs.v2g.exact import solve_feeder
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.trace import DayTrace

KPIS = (
    "unserved_critical_kwh", "unserved_other_kwh", "shortfall_kwh", "charged_kwh", "discharged_kwh",
    "curtailed_kwh", "generator_kwh", "peak_import_kw", "violation_kwh", "loss_kwh", "v_min_pu",
)  # fmt: skip
"""Quantities recorded for each episode, in this order."""


@dataclass
class Episodes:
    """E episodes of one agent."""

    agent: str
    seeds: list[int]
    fingerprints: list[str]
    cost_usd: FloatArray  # (E, terms) unweighted
    total_usd: FloatArray  # (E,) weighted
    kpi: FloatArray  # (E, len(KPIS))
    outage: FloatArray  # (E,) hours without supply, mean over sites
    ms_per_decision: float
    parameters: int
    report: dict[str, FloatArray] = field(default_factory=dict)  # each (E,)
    traces: dict[int, DayTrace] = field(default_factory=dict)  # by position

    @staticmethod
    def join(parts: Sequence["Episodes"]) -> "Episodes":
        """The same agent's episodes from several processes, in order."""
        first, traces, offset = parts[0], {}, 0
        for part in parts:
            traces |= {offset + k: t for k, t in part.traces.items()}
            offset += len(part.seeds)

        def stacked(name: str) -> Any:
            return np.concatenate([getattr(p, name) for p in parts])

        weights = [len(p.seeds) for p in parts]
        return Episodes(
            first.agent, [x for p in parts for x in p.seeds], [x for p in parts for x in p.fingerprints],
            stacked("cost_usd"), stacked("total_usd"), stacked("kpi"), stacked("outage"),
            float(np.average([p.ms_per_decision for p in parts], weights=weights)), first.parameters,
            {k: np.concatenate([p.report[k] for p in parts]) for k in first.report}, traces,
        )  # fmt: skip


def play(core: V2GCore, agent: Agent, seeds: Sequence[int], keep: Sequence[int] = ()) -> Episodes:
    """Play one episode a seed, all at once; ``keep`` lists the positions whose day is traced.

    Row i sees the same world as the scalar environment reset with ``seeds[i]``.
    """
    batch = Batch(core, len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    clock = _Clock()
    with clock:
        agent.begin(_info(batch, agent))
    cost, kpi = np.zeros((len(seeds), len(COST_TERMS))), _KpiSums(core, batch)
    stages: dict[int, list[dict[str, Any]]] = {k: [] for k in keep}
    while not batch.over.all():
        obs, info = batch.observe(), _info(batch, agent)
        with clock:
            action = agent.act(obs, info)
        kpi.before(batch)
        batch.step(action)
        cost += batch.outcome.cost_usd
        kpi.after(batch)
        for k in keep:
            stages[k].append(stage_record(batch, k))
    report = agent.report()  # before the agent begins another day
    ms = 1e3 * clock.seconds / (len(seeds) * core.n_stages) if agent.slow else _single_ms(core, agent, seeds[0])
    return Episodes(
        agent.name, list(seeds), [batch.scenario.fingerprint(b) for b in range(len(seeds))], cost,
        cost @ core.weights, kpi.result(cost), batch.scenario.outage.mean(2).sum(1) * core.params.dt_h,
        ms, agent.parameters, report, {k: trace(core, stages[k], agent.name) for k in keep},
    )  # fmt: skip


class _Clock:
    """Adds up the time inside its ``with`` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


def _single_ms(core: V2GCore, agent: Agent, seed: int) -> float:
    """Median time of one decision for one episode alone, as in a control room."""
    batch = Batch(core, 1)
    batch.start(np.arange(1), [np.random.default_rng(seed)])
    agent.begin(_info(batch, agent))
    times = []
    while not batch.over.all():
        obs, info = batch.observe(), _info(batch, agent)
        start = time.perf_counter()
        action = agent.act(obs, info)
        times.append(time.perf_counter() - start)
        batch.step(action)
    return 1e3 * float(np.median(times))


def _info(batch: Batch, agent: Agent) -> dict[str, Any]:
    info: dict[str, Any] = {"view": batch.view()}
    return info | {"scenario": batch.scenario} if agent.needs_scenario else info


class _KpiSums:
    """Quantities added up stage by stage; voltages and losses by the exact sweep of the feeder."""

    def __init__(self, core: V2GCore, batch: Batch) -> None:
        self.core, self.dt = core, core.params.dt_h
        self.sums = {name: np.zeros(batch.size) for name in KPIS}
        self.sums["v_min_pu"] += np.inf

    def before(self, batch: Batch) -> None:
        self.stage = batch.state.stage.copy()

    def after(self, batch: Batch) -> None:
        out, s, row = batch.outcome, batch.scenario, np.arange(batch.size)
        t, dt, sums = self.stage, self.dt, self.sums
        sums["unserved_critical_kwh"] += dt * (s.critical_kw[row, t] - out.served_critical_kw).sum(1)
        sums["unserved_other_kwh"] += dt * (s.other_kw[row, t] - out.served_other_kw).sum(1)
        for name, power in (
            ("charged", out.charge_kw),
            ("discharged", out.discharge_kw),
            ("generator", out.generator_kw),
        ):
            sums[f"{name}_kwh"] += dt * power.sum(1)
        sums["curtailed_kwh"] += out.curtailed_kwh
        sums["violation_kwh"] += dt * out.violation_kw
        np.maximum(sums["peak_import_kw"], out.import_kw.sum(1), out=sums["peak_import_kw"])
        self._sweep(batch)

    def _sweep(self, batch: Batch) -> None:
        plant, s, t = self.core.plant, batch.scenario, self.stage
        if plant.feeder is None:
            return
        result = solve_feeder(plant, s, t, batch.outcome)
        self.sums["loss_kwh"] += self.dt * result.loss_kw
        lowest = np.where(result.v_pu > 0, result.v_pu, np.inf).min(1)
        np.minimum(self.sums["v_min_pu"], lowest, out=self.sums["v_min_pu"])

    def result(self, cost: FloatArray) -> FloatArray:
        price = self.core.params.cost.shortfall_usd_kwh
        self.sums["shortfall_kwh"] = (
            cost[:, COST_TERMS.index("shortfall")] / price if price > 0 else np.zeros(len(cost))
        )
        return np.stack([np.where(np.isfinite(self.sums[k]), self.sums[k], np.nan) for k in KPIS], 1)
