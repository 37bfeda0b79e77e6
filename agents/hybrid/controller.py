"""One action step: critic, problem, sampler, polish, repair. Each part's share is recorded."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qevgrid.agents.hybrid import decision, features, value
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.corrections import Corrections
from qevgrid.agents.hybrid.critic import Critic
from qevgrid.agents.hybrid.dual import dual_ascent
from qevgrid.agents.hybrid.polish import best_response
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.agents.hybrid.samplers import DecisionSampler, make_sampler
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.core import V2GCore, View
from qevgrid.envs.v2g.forecast import Forecast

DUAL_STEPS = 30


@dataclass(frozen=True)
class Step:
    """What one action step did, as recorded under ``qubo/``."""

    variables: float
    couplers: float
    range_bits: float
    feasible_share: float
    raw_usd: float  # best valid read (inf: none), above the dual bound
    repaired_usd: float  # best read after decoding, above the dual bound
    polished_usd: float  # after best responses, above the dual bound
    chain_break_share: float
    fallbacks: float
    seconds: float  # of the sampler


class Controller:
    """Decides for one episode at a time. The same controller serves evaluation and stage 3 of the training."""

    def __init__(
        self, critic: Critic | None, core: V2GCore, config: HybridConfig, sampler: DecisionSampler | None = None
    ) -> None:
        self.critic, self.core, self.config = critic, core, config
        self.sampler = sampler or make_sampler(
            config.sampler, reads=config.reads, sweeps=config.sweeps, time_limit_s=config.time_limit_s, rho=config.rho
        )
        share = np.linspace(-1.0, 1.0, config.levels)
        self.shares = share[np.argsort(np.abs(share), kind="stable")]

    def __reduce__(self) -> tuple[Any, ...]:
        return Controller, (self.critic, self.core, self.config)

    def forecast(self, view: View) -> Forecast:
        """As far ahead as a decision looks."""
        dt_h = self.core.params.dt_h
        return view.forecast(features.horizon(dt_h, value.leads(dt_h, self.config.horizon)))

    def act(self, view: View, forecast: Forecast, b: int, fix: Corrections) -> tuple[FloatArray, Step | None]:
        """Action (N,) of episode ``b``, and what the step did (``None`` where nobody is there to decide for)."""
        action = np.zeros(view.plugged.shape[1])
        if not view.plugged[b].any():
            return action, None
        found = self.decision(view, forecast, b, fix)
        choice, step = self.solve(found.problem, int(view.stage[b]))
        power = decision.repaired(view, forecast, b, found, choice)
        limit = np.where(power > 0, view.charge_kw[b, found.socket], view.discharge_kw[b, found.socket])
        action[found.socket] = np.clip(power / np.maximum(limit, 1e-9), -1.0, 1.0)
        return action, step

    def decision(self, view: View, forecast: Forecast, b: int, fix: Corrections) -> decision.Decision:
        """The problem of episode ``b``."""
        if self.config.horizon > 1:
            from qevgrid.agents.hybrid import ahead

            return ahead.decide(self, view, forecast, b, fix)
        worth = self.worth(view, forecast, b, fix)
        return decision.decide(view, forecast, b, worth, self.shares)

    def worth(self, view: View, forecast: Forecast, b: int, fix: Corrections) -> value.FleetValue | None:
        """The critic's view of the end of the step, unless the configuration leaves it out."""
        if self.critic is None or not self.config.critic:
            return None
        clock_h = self.core.sampler.clock_h
        return value.FleetValue(self.critic, view, forecast, b, self.config.horizon, clock_h, fix)

    def solve(self, problem: AggregateQUBO, seed: int) -> tuple[IntArray, Step]:
        """Sample, then polish if configured."""
        dual = dual_ascent(problem, steps=DUAL_STEPS)
        sampled = self.sampler.solve(problem, seed, dual)
        choice = best_response(problem, sampled.choice) if self.config.polish else sampled.choice
        bound = dual.bound_usd
        return choice, Step(
            sampled.variables, sampled.couplers, sampled.range_bits, sampled.feasible_share,
            sampled.valid_energy_usd - bound, sampled.raw_choice_energy_usd - bound,
            float(problem.energy_usd(choice)) - bound, sampled.chain_break_share, sampled.fallbacks, sampled.seconds,
        )  # fmt: skip
