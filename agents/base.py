"""What every controller looks like to the runner."""

from abc import ABC, abstractmethod
from typing import Any

from qevgrid.envs.types import Float32Array, FloatArray


class Agent(ABC):
    """Decides for B running episodes at once.

    ``info["view"]`` is the core's ``View``: all that may be known now, with forecasts.
    ``info["scenario"]`` is the whole truth and is handed over only if ``needs_scenario``.
    """

    name: str
    needs_scenario = False
    slow = False
    """Decides episode by episode: worth spreading over processes."""
    parameters = 0
    """Number of learned numbers that its decisions depend on."""

    def begin(self, info: dict[str, Any]) -> None:  # noqa: B027 - most agents have nothing to prepare
        """Called once when the B episodes start."""

    @abstractmethod
    def act(self, obs: Float32Array, info: dict[str, Any]) -> Any:
        """What ``Batch.step`` of the problem takes, for observations (B, O); in V2G (B, N) in [-1, 1]."""

    def report(self) -> dict[str, FloatArray]:
        """What the agent found out about itself, one value an episode (B,), e.g. a solver's bound."""
        return {}
