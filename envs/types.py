"""Names for the arrays that pass between the rooms, and what the adapter expects of a problem."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


class Outcome(Protocol):
    """What one stage did to each of B episodes; overwritten by the next stage."""

    @property
    def cost_usd(self) -> FloatArray:
        """(B, terms), unweighted."""
        ...

    @property
    def curtailed_kwh(self) -> FloatArray:
        """(B,) what the projection took off the wishes."""
        ...

    @property
    def reward(self) -> FloatArray:
        """(B,)."""
        ...


class Batch(Protocol):
    """B running episodes of one problem. Rows that are over stay as they are when stepped."""

    scenario: Any
    outcome: Any  # an Outcome

    def start(self, rows: IntArray, rngs: list[np.random.Generator]) -> None:
        """Draw a new world for each of ``rows`` from its own generator."""
        ...

    def load(self, rows: IntArray, scenario: Any) -> None:
        """Put given worlds (batch axis = ``rows``) at their beginning."""
        ...

    def step(self, action: Any, out: Float32Array | None = None) -> None:
        """One stage; ``action`` is what ``Core.decode`` returns. Observations go to ``out``."""
        ...

    def observe(self, out: Float32Array | None = None) -> Float32Array:
        """Observations (B, O)."""
        ...

    @property
    def over(self) -> BoolArray:
        """(B,) episodes at their end."""
        ...

    def view(self) -> Any:
        """All that a controller may know now."""
        ...

    def mask(self) -> BoolArray:
        """(B, A, L) choices that can be followed as they are."""
        ...


class Core(Protocol):
    """The constant part of a problem."""

    @property
    def params(self) -> Any:
        """What it was built from; their ``id`` names the problem."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Name of each of the O entries of an observation."""
        ...

    @property
    def n_actions(self) -> int:
        """A, entries of an action."""
        ...

    @property
    def n_choices(self) -> int | None:
        """L, choices of each entry; ``None`` for a number in [-1, 1]."""
        ...

    @property
    def single_choice(self) -> bool:
        """Whether an action is one choice alone (A = 1): a number, not an array."""
        ...

    @property
    def cost_terms(self) -> Sequence[str]:
        """Names of the entries of ``Outcome.cost_usd``."""
        ...

    @property
    def reported(self) -> Sequence[str]:
        """Names of further fields (B,) of the outcome, for the info of every step."""
        ...

    @property
    def weights(self) -> FloatArray:
        """Weight of each cost term in the total."""
        ...

    def decode(self, choice: IntArray) -> Any:
        """Choices (B, A) as ``Batch.step`` wants them."""
        ...

    def notes(self) -> dict[str, Any]:
        """Facts for the info of every reset."""
        ...

    def check(self, scenario: Any, size: int) -> None:
        """Raise ``UserError`` unless ``scenario`` holds ``size`` episodes of this problem."""
        ...

    def batch(self, size: int) -> Batch:
        """Room for ``size`` episodes."""
        ...
