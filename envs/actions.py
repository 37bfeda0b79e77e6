"""What a caller hands over as an action, checked and translated. The caller's array stays as it is."""

from typing import Any

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, Core, FloatArray, IntArray


class ActionReader:
    """Reads actions of a fixed shape: numbers in [-1, 1] (clipped) or choices 0 to L - 1.

    A core with a ``single_choice`` has no axis for the entries in its shape.
    """

    def __init__(self, core: Core, shape: tuple[int, ...]) -> None:
        self._core, self._shape, self._choices = core, shape, core.n_choices

    def __call__(self, action: Any, ignored: BoolArray | None = None) -> Any:
        """Action (B, A) for ``Batch.step``. What stands in ``ignored`` rows does not matter."""
        if self._choices is None:
            return self._numbers(action, ignored)
        return self._core.decode(self._indices(action, self._choices, ignored))

    def _numbers(self, action: Any, ignored: BoolArray | None) -> FloatArray:
        values = self._shaped(action, np.float64)
        finite = np.isfinite(values)
        if not finite.all() and (bad := _first(~finite, ignored)) is not None:
            raise UserError(
                f"action{list(bad)} is {values[bad]}: every entry must be a finite number in [-1, 1]; "
                "check the policy's output for NaN"
            )
        return values.reshape(-1, self._core.n_actions)

    def _indices(self, action: Any, choices: int, ignored: BoolArray | None) -> IntArray:
        if isinstance(action, np.ndarray) and action.dtype == np.int64 and action.shape == self._shape:
            if _within(action, choices):  # the common cases, without the detours
                return action.reshape(-1, self._core.n_actions).copy()
        elif isinstance(action, int | np.integer) and self._shape == () and 0 <= action < choices:
            return np.array([[action]], np.int64)
        values = self._shaped(action, np.float64)
        wrong = ~((values >= 0) & (values < choices) & (values == np.floor(values)))
        if wrong.any() and (bad := _first(wrong, ignored)) is not None:
            raise UserError(
                f"action{list(bad) or ''} is {values[bad]:g}: every entry must be a whole number from 0 to "
                f"{choices - 1} (a level); use action='box' for continuous actions"
            )
        return np.where(wrong, 0, values).astype(np.int64).reshape(-1, self._core.n_actions)

    def _shaped(self, action: Any, dtype: type) -> FloatArray:
        try:
            raw = np.asarray(action)
            values = raw.astype(dtype, casting="same_kind") if raw.dtype.kind in "biuf" else None
        except (TypeError, ValueError):
            values = None
        if values is None:
            raise UserError(
                f"an action of type {type(action).__name__} is not an array of numbers; give one of shape {self._shape}"
            )
        if values.shape != self._shape:
            raise UserError(f"the action has shape {values.shape}, but must have {self._shape}; see env.action_space")
        return values


def _within(action: IntArray, choices: int) -> bool:
    """Whether all entries are from 0 to ``choices`` - 1."""
    if action.size > 64:
        return bool(action.min() >= 0 and action.max() < choices)
    values = action.ravel().tolist()  # of few numbers Python finds the least sooner
    return min(values) >= 0 and max(values) < choices


def _first(wrong: BoolArray, ignored: BoolArray | None) -> tuple[int, ...] | None:
    """Index of the first wrong entry in a row that matters; ``None`` where there is none."""
    if ignored is not None:
        wrong = wrong & ~ignored.reshape(-1, *(1,) * (wrong.ndim - 1))
    found = np.argwhere(wrong)
    return tuple(int(k) for k in found[0]) if len(found) else None
