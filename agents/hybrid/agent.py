"""The hybrid agent: a learned critic prices stored energy, an annealer decides, physics repairs."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.controller import Controller, Step
from qevgrid.agents.hybrid.corrections import correction_state
from qevgrid.agents.hybrid.model import SHIPPED, Model
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import V2GCore, View

QUBO = tuple(f"qubo/{field.name}" for field in fields(Step))
"""What ``report`` has: means over an episode's decisions, and sums of fallbacks."""


class HybridAgent(Agent):
    """Decides episode by episode; same model, same settings, same bytes (a machine's answers aside)."""

    slow = True

    def __init__(self, model: Model, core: V2GCore, config: HybridConfig | None = None, name: str = "hybrid") -> None:
        self.name, self.model, self.core = name, model, core
        self.config = config or HybridConfig()
        self.controller = Controller(model.critic, core, self.config)
        self.parameters = model.parameters
        self.steps: list[list[Step]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return HybridAgent, (self.model, self.core, self.config, self.name)

    def begin(self, info: dict[str, Any]) -> None:
        """Forget the last episodes' records."""
        self.steps = [[] for _ in info["view"].stage]

    def act(self, obs: Float32Array | None, info: dict[str, Any]) -> FloatArray:
        """One action step for every episode."""
        view: View = info["view"]
        if len(self.steps) != len(view.stage):
            self.begin(info)
        forecast = self.controller.forecast(view)
        fixes = [self.model.base] * len(view.stage)
        if self.model.actor is not None:
            fixes = [self.model.base.moved(row) for row in self.model.actor(correction_state(view))]
        return np.stack([self._one(view, forecast, b, fixes[b]) for b in range(len(view.stage))])

    def _one(self, view: View, forecast: Any, b: int, fix: Any) -> FloatArray:
        action, step = self.controller.act(view, forecast, b, fix)
        if step is not None:
            self.steps[b].append(step)
        return action

    def report(self) -> dict[str, FloatArray]:
        """Means over each episode's decisions (``fallbacks``: sums), (B,) each."""
        return {name: np.array([_mean(steps, name.partition("/")[2]) for steps in self.steps]) for name in QUBO}

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore, config: HybridConfig | None = None) -> "HybridAgent":
        """The agent saved at ``path``, for any fleet; ``config`` says who solves its decisions."""
        return cls(Model.load(path), core, config, name)


def _mean(steps: Sequence[Step], name: str) -> float:
    """Mean of the finite values; a sum where counts are kept."""
    values = np.array([getattr(step, name) for step in steps] or [0.0], float)
    if name == "fallbacks":
        return float(values.sum())
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def shipped(config: HybridConfig | None = None) -> Agent:
    """The agent with the model that the package ships for the default day."""
    return _Shipped(config)


class _Shipped(Agent):
    """``hybrid`` by name: knows its world once the episodes begin."""

    name = "hybrid"
    slow = True

    def __init__(self, config: HybridConfig | None) -> None:
        self.config, self.model = config, Model.load(SHIPPED)
        self.parameters = self.model.parameters
        self.agent: HybridAgent | None = None
        if config is not None:  # a sampler that cannot run says so now
            from qevgrid.agents.hybrid.samplers import make_sampler

            make_sampler(config.sampler, reads=config.reads, sweeps=config.sweeps, time_limit_s=config.time_limit_s)

    def begin(self, info: dict[str, Any]) -> None:
        """Make the agent for this world."""
        self.agent = HybridAgent(self.model, V2GCore(info["view"].plant.params), self.config)
        self.agent.begin(info)

    def act(self, obs: Float32Array | None, info: dict[str, Any]) -> FloatArray:
        """As the agent."""
        if self.agent is None:
            self.begin(info)
        assert self.agent is not None
        return self.agent.act(obs, info)

    def report(self) -> dict[str, FloatArray]:
        """As the agent."""
        return {} if self.agent is None else self.agent.report()
