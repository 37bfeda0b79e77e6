"""Compiled functions called again and again with arguments of the same types."""

from typing import Any

import numba
import numpy as np

SMALL = 2**31
"""Whole numbers below are of one type for Numba."""


class Direct:
    """A function of Numba's whose version for some types of arguments is looked up once, not at every call.

    The look costs about 0.3 µs an array: with the sixty of a step kernel in their named tuples it is most of the
    step of a single episode. Arguments must be those of the last look or alike: contiguous arrays of the same type,
    numbers of the same class, tuples of such; for anything else the look is taken anew.

    >>> add = Direct(numba.njit(lambda x, y: x[0] + y[0]))
    >>> [float(add(np.array([k]), np.array([0.5]))) for k in range(3)]
    [0.5, 1.5, 2.5]
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._code: Any = None
        self._seen: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> Any:
        """As the function itself."""
        if self._code is not None and len(args) == len(self._seen):
            for new, old in zip(args, self._seen, strict=True):
                if new is not old and not _alike(new, old):
                    break
            else:
                self._seen = args
                return self._code(*args)
        result = self._function(*args)  # compiles it, if need be
        self._remember(args)
        return result

    def _remember(self, args: tuple[Any, ...]) -> None:
        self._code = None
        if hasattr(self._function, "get_overload"):  # not with NUMBA_DISABLE_JIT
            self._code, self._seen = self._function.get_overload(tuple(map(numba.typeof, args))), args

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles look for themselves: machine code cannot be pickled."""
        return Direct, (self._function,)


def _alike(new: Any, old: Any) -> bool:
    """Whether two arguments certainly are of one type for Numba."""
    if type(new) is not type(old):
        return False
    if type(new) is np.ndarray:
        return new.dtype == old.dtype and new.ndim == old.ndim and new.flags.carray and old.flags.carray
    if isinstance(new, tuple):
        return len(new) == len(old) and all(x is y or _alike(x, y) for x, y in zip(new, old, strict=True))
    return type(new) in (bool, float, np.int64, np.float64) or (type(new) is int and max(abs(new), abs(old)) < SMALL)
