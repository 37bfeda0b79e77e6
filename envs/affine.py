"""Coefficients of affine formulas, found by calling them: a program reads them off the model itself."""

from collections.abc import Callable
from typing import Any


def coefficients(function: Callable[..., Any], *names: str, **fixed: Any) -> tuple[Any, ...]:
    """Coefficient of each named argument of a function that is affine in them."""
    zero = dict.fromkeys(names, 0.0)
    base = function(**zero, **fixed)
    return tuple(function(**{**zero, name: 1.0}, **fixed) - base for name in names)
