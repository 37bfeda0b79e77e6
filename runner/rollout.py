"""Episodes of one agent on given scenarios, and what is recorded of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.problem import Trace, problem_of
from qevgrid.envs.types import Batch, Core, FloatArray


@dataclass
class Episodes:
    """E episodes of one agent."""

    agent: str
    seeds: list[int]
    fingerprints: list[str]
    cost_usd: FloatArray  # (E, terms) unweighted
    total_usd: FloatArray  # (E,) weighted
    kpi: FloatArray  # (E, len(Problem.kpis))
    stress: FloatArray  # (E,) how hard the world is, in the problem's own unit
    ms_per_decision: float
    parameters: int
    report: dict[str, FloatArray] = field(default_factory=dict)  # each (E,)
    traces: dict[int, Trace] = field(default_factory=dict)  # by position

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
            stacked("cost_usd"), stacked("total_usd"), stacked("kpi"), stacked("stress"),
            float(np.average([p.ms_per_decision for p in parts], weights=weights)), first.parameters,
            {k: np.concatenate([p.report[k] for p in parts]) for k in first.report}, traces,
        )  # fmt: skip


def begin(core: Core, seeds: Sequence[int]) -> Batch:
    """The worlds of these seeds at their beginning. Row i is the scalar environment's, reset with ``seeds[i]``."""
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    return batch


def play(core: Core, agent: Agent, seeds: Sequence[int], keep: Sequence[int] = ()) -> Episodes:
    """Play one episode a seed, all at once; ``keep`` lists the positions whose episode is traced."""
    problem, batch, clock, decisions = problem_of(core.params), begin(core, seeds), _Clock(), 0
    with clock:
        agent.begin(_info(batch, agent))
    cost, kpi = np.zeros((len(seeds), len(problem.cost_terms))), problem.kpi_sums(core, batch)
    stages: dict[int, list[Any]] = {k: [] for k in keep}
    while not batch.over.all():
        obs, info, live = batch.observe(), _info(batch, agent), ~batch.over
        with clock:
            action = agent.act(obs, info)
        kpi.before(batch)
        batch.step(action)
        cost[live] += batch.outcome.cost_usd[live]
        kpi.after(batch)
        decisions += int(live.sum())
        for k in keep:
            if live[k]:
                stages[k].append(problem.stage_record(batch, k))
    report = agent.report()  # before the agent begins another episode
    ms = 1e3 * clock.seconds / decisions if agent.slow else _single_ms(core, agent, seeds[0])
    return Episodes(
        agent.name, list(seeds), [batch.scenario.fingerprint(b) for b in range(len(seeds))], cost,
        cost @ core.weights, kpi.result(cost), problem.stress(core, batch.scenario),
        ms, agent.parameters, report, {k: problem.trace(core, stages[k], agent.name) for k in keep},
    )  # fmt: skip


class _Clock:
    """Adds up the time inside its ``with`` blocks."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


def _single_ms(core: Core, agent: Agent, seed: int) -> float:
    """Median time of one decision for one episode alone, as in a control room."""
    batch = begin(core, [seed])
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
