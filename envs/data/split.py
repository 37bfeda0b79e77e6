"""Days for training and days held out, by date."""

import math
from datetime import date

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.errors import UserError

IntArray = NDArray[np.int64]

FEWEST_DAYS = 4


def split_days(days: IntArray, held_out_share: float = 0.25) -> tuple[IntArray, IntArray]:
    """Return (train, held_out): the last share of the days is held out.

    `days` (n,) ordinals in any order; both results are ascending, disjoint, without repeats and
    not empty, and every training day is before every day held out. An episode of at most 24 h
    that starts on a training day therefore shares no hour with one that starts on a day held out.
    Raises `UserError` for fewer than 4 days or a share outside (0, 1).
    """
    unique = np.unique(np.asarray(days, dtype=np.int64))
    if not 0.0 < held_out_share < 1.0:
        raise UserError(f"held_out_share={held_out_share!r} leaves no days; give one between 0 and 1")
    if len(unique) < FEWEST_DAYS:
        raise UserError(
            f"only {len(unique)} different days to split into training and held out; "
            f"give data of at least {FEWEST_DAYS} days"
        )
    held = math.floor(len(unique) * held_out_share + 0.5)
    cut = len(unique) - min(max(held, 1), len(unique) - 1)
    return unique[:cut], unique[cut:]


def common_days(a: IntArray, b: IntArray) -> IntArray:
    """Return (k,) the days that are in both `a` and `b`, ascending, k >= 1.

    Raises `UserError` naming both ranges of dates where there is none.
    """
    both = np.intersect1d(a, b).astype(np.int64)
    if not both.size:
        raise UserError(
            f"no day is in both files: one has {_range(a)}, the other {_range(b)}; give files that overlap in time"
        )
    return both


def _range(days: IntArray) -> str:
    if not len(days):
        return "no days"
    first, last = (date.fromordinal(int(day)) for day in (np.min(days), np.max(days)))
    return f"{len(np.unique(days))} days from {first} to {last}"
