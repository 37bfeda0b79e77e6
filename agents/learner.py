"""What the training loop drives: any agent that learns from environment steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qevgrid.agents.base import Agent
from qevgrid.envs.types import Core

if TYPE_CHECKING:
    from stable_baselines3.common.logger import Logger

Hook = Callable[["Learner"], None]


class Learner(ABC):
    """One training, from fresh weights or a checkpoint to ``total_steps`` environment steps.

    A kind of learned agent is a module with ``build(config, params, seed) -> Learner`` and an
    ``Agent`` class whose ``load(path, name, core, config)`` reads what ``save`` wrote. ``config`` is the
    agent section to play by: the run's own, or an evaluation's of the same kind.

    The loop calls ``build``, then ``restore`` or ``prepare``, then ``learn``. Equal seeds must give
    equal weights, and a restored learner those of one that was never stopped.
    """

    @property
    @abstractmethod
    def steps(self) -> int:
        """Environment steps done so far."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of learned numbers."""

    def set_logger(self, logger: "Logger") -> None:  # noqa: B027 - not everybody has something to say
        """Where scalars may be recorded from now on, by environment step."""

    def prepare(self) -> None:  # noqa: B027 - most start from what ``build`` gave
        """What happens once, before the first validation; a run that goes on from a checkpoint skips it."""

    @abstractmethod
    def learn(self, total_steps: int, hook: Hook) -> None:
        """Run rounds until ``steps`` reaches ``total_steps``, with ``hook(self)`` before each, when all is at rest."""

    @abstractmethod
    def agent(self, name: str, core: Core) -> Agent:
        """What has been learned so far, to be validated; valid until the next round."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write what the agent needs to act."""

    @abstractmethod
    def checkpoint(self, path: Path) -> None:
        """Write everything that the next round depends on."""

    @abstractmethod
    def restore(self, path: Path) -> None:
        """Put a learner fresh from ``build`` where the checkpoint left off."""
