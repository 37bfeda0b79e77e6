"""Training of the outlook: least squares on training storms, then a search for the two numbers that only play tells.

Stage 1 reads restoration times off training storms. Stage 2 is the cross-entropy method over ``shift`` and the rate
``1 / fade_h``: a round plays the same storms with each of ``population`` settings by plain rolling plans, whose cost
moves as the agent's does, and keeps the better half. Every round's numbers come from the seed and the round alone.
"""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.learner import Hook, Learner
from qevgrid.agents.mobile_csp.hybrid import MobileHybridAgent
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.mobile_csp.outlook import Outlook, fit
from qevgrid.agents.mobile_csp.planning import planner_of
from qevgrid.agents.mobile_csp.simple import stay
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.types import FloatArray, IntArray

__all__ = ["MobileHybridAgent", "MobileHybridLearner", "build"]

TRAINING_SEEDS = 10_000_000
"""Training storms: their seeds begin here, a million a run apart."""
ROWS_PER_RUN, STAGE_SEEDS = 1_000_000, 500_000
MEAN, SPREAD = (0.0, 0.02), (0.3, 0.02)
"""First guess of shift and rate (1/h), and how far the search looks."""
LEAST = (0.05, 0.003)
"""The search looks at least this far."""
KEEP = 0.5
"""How much of the last round's mean and spread remains."""


def build(config: MobileHybridConfig, params: MobileCSPParams, seed: int) -> "MobileHybridLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return MobileHybridLearner(config, params, seed)


class MobileHybridLearner(Learner):
    """Learns an ``Outlook``."""

    def __init__(self, config: MobileHybridConfig, params: MobileCSPParams, seed: int) -> None:
        if not config.outlook:
            raise UserError("agent.outlook=false is an ablation for evaluate.py; set agent.outlook=true to train")
        if config.sampler in ("qpu", "leap_hybrid"):
            raise UserError(f"agent.sampler={config.sampler}: train with structured, evaluate with it")
        self.config, self.seed, self.core = config, seed, MobileCore(params)
        self.fitted: Outlook | None = None
        self.mean, self.spread = np.array(MEAN), np.array(SPREAD)
        self.rounds, self._steps = 0, 0

    @property
    def steps(self) -> int:
        """Environment steps of the search."""
        return self._steps

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return self.outlook.parameters

    @property
    def outlook(self) -> Outlook:
        """What has been learned so far."""
        if self.fitted is None:
            raise UserError("the outlook is not trained yet; call prepare() first")
        return _with(self.fitted, self.mean)

    def prepare(self) -> None:
        """Stage 1."""
        seeds = self._seeds(0, self.config.storms)
        self.fitted = fit(self.core.plant, self.core.sampler.sample([np.random.default_rng(s) for s in seeds]))

    def learn(self, total_steps: int, hook: Hook) -> None:
        """Rounds of stage 2."""
        while self._steps < total_steps:
            hook(self)
            self._round()
        hook(self)

    def _round(self) -> None:
        """One generation."""
        c, fitted = self.config, self.outlook
        rng = np.random.default_rng([self.seed, self.rounds])
        tried = self.mean + self.spread * rng.standard_normal((c.population, 2))
        tried[0] = self.mean
        tried[:, 1] = np.maximum(tried[:, 1], 0.0)
        seeds = self._seeds(STAGE_SEEDS + self.rounds * c.batch, c.batch)
        cost = np.array([storms_usd(self.core, _with(fitted, row), seeds, c.levels).mean() for row in tried])
        best = tried[np.argsort(cost, kind="stable")[: c.population // 2]]
        self.mean = KEEP * self.mean + (1 - KEEP) * best.mean(0)
        self.spread = np.maximum(KEEP * self.spread + (1 - KEEP) * best.std(0), LEAST)
        self.rounds += 1
        self._steps += c.population * c.batch * self.core.n_stages

    def _seeds(self, first: int, count: int) -> IntArray:
        """Seeds of training storms."""
        return TRAINING_SEEDS + ROWS_PER_RUN * self.seed + first + np.arange(count)

    def agent(self, name: str, core: Any) -> Agent:
        """The agent with what has been learned so far."""
        return MobileHybridAgent(self.outlook, self.config, name)

    def save(self, path: Path) -> None:
        """One small file."""
        self.outlook.save(path)

    def checkpoint(self, path: Path) -> None:
        """Everything that the next round depends on."""
        fitted, buffer = self.outlook, io.BytesIO()
        np.savez(
            buffer,
            coefficient=fitted.coefficient,
            fit_spread=fitted.spread,
            mean=self.mean,
            spread=self.spread,
            count=np.array([self.rounds, self._steps]),
        )
        path.write_bytes(buffer.getvalue())

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                data = dict(file)
            self.fitted = Outlook(data["coefficient"], data["fit_spread"])
            self.mean, self.spread = data["mean"], data["spread"]
            self.rounds, self._steps = (int(x) for x in data["count"])
        except Exception as err:  # a damaged file can fail in any way
            raise UserError(f"{path}: is no checkpoint of this version ({err}); train anew") from None


def _with(fitted: Outlook, numbers: FloatArray) -> Outlook:
    """The outlook with this shift and rate."""
    return replace(fitted, shift=float(numbers[0]), fade_h=float(1 / max(numbers[1], 1e-6)))


def storms_usd(core: MobileCore, outlook: Outlook, seeds: IntArray, levels: int) -> FloatArray:
    """Cost (B,) of rolling plans with this outlook, sites deciding the powers."""
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(s) for s in seeds])
    total = np.zeros(len(seeds))
    for _ in range(core.n_stages):
        view = batch.view()
        action, world = stay(view), view.forecast(outlook)
        for b, t in enumerate(view.stage):
            if t >= 0:
                planner = planner_of(view, world, b, levels=levels)
                joint, weight = at_rest(planner.problem), outlook.weight(view.plant, int(t))
                even = np.repeat(weight[:, None], core.n_sites, 1)
                planner.respond(joint, np.arange(core.n_units), 3, even)
                action.site[b] = joint.target[:, t]
        batch.step(action)
        total += batch.outcome.total_usd
    return total
