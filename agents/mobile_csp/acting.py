"""How a scorer decides for whole periods: unit after unit, with the observation it was trained on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qevgrid.agents.base import Agent
from qevgrid.agents.sb3_learner import acting_parameters
from qevgrid.envs.mobile_csp.arrays import Action
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.sequential import Turns
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

_NEVER = -1e9


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (B, L) in which what may not be chosen is out of the question."""
    return logits.masked_fill(~mask, _NEVER)


def choose(policy: Any, obs: Float32Array, mask: BoolArray) -> IntArray:
    """Likeliest choices (B,) for observations of the sequential form; the critic is not asked."""
    with torch.no_grad():
        return masked(policy.actor(torch.as_tensor(obs)), torch.as_tensor(mask)).argmax(1).numpy()


class ScorerAgent(Agent):
    """A trained scorer; in the joint form it gives every idle unit its turn, in the sequential form it takes one."""

    def __init__(self, policy: Any, name: str, core: MobileCore) -> None:
        self.policy, self.name, self.core = policy, name, core
        self.parameters = acting_parameters(policy)

    def begin(self, info: dict[str, Any]) -> None:
        """Count circuits from here on."""
        self._rows = len(info["view"].stage)
        self._before = self._circuits()

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:
        """What ``Batch.step`` takes: (B, M), or (B, 1) in the sequential form."""
        core, view = self.core, info["view"]
        if core.single_choice:
            return core.decode(choose(self.policy, obs, view.mask[:, 0])[:, None])
        turns = Turns(core, view)
        while turns.left:
            turns.choose(core.decode(choose(self.policy, *turns.look())[:, None]))
        return turns.chosen

    def report(self) -> dict[str, FloatArray]:
        """Circuits an episode."""
        if not self.policy.circuits():
            return {}
        return {"vqc/circuits_a_storm": np.full(self._rows, (self._circuits() - self._before) / self._rows)}

    def _circuits(self) -> int:
        return sum(layer.executor.circuits for layer in self.policy.circuits())
