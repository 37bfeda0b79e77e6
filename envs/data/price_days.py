"""From price rows to wall-clock days of 96 quarters: order, gaps and the nights of clock change."""

from calendar import monthrange
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.data.price_rows import PriceRows, minute_text
from qevgrid.envs.errors import UserError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

QUARTERS = 96  # per day
DAY_MIN = 1440
STEPS_MIN = (15, 30, 60)
LONG_GAP_H = 168.0  # from a week on, a gap parts the file into periods
MIXED_SHARE = 0.05  # of a file's steps; more of another regular step is no accident

# Without offsets, a clock change shows only by its date: (month, which Sunday, hours at which
# the missing or repeated hour begins). Which Sunday: 0 first, 1 second, -1 last of the month.
Rules = tuple[tuple[int, int, tuple[int, ...]], ...]
SPRING: Rules = ((3, -1, (1, 2, 3)), (3, 1, (2,)))  # Europe, North America
AUTUMN: Rules = ((10, -1, (1, 2, 3)), (11, 0, (1,)))


@dataclass(frozen=True)
class WallDays:
    """Complete local days, ascending, and what was counted on the way."""

    day: IntArray  # (m,) as date.toordinal()
    price_usd_kwh: FloatArray  # (m, 96)
    counts: dict[str, int]


def wall_days(rows: PriceRows, fill_h: float) -> WallDays:
    """Return the complete local days of a file; UserError for what no rule covers."""
    counts: Counter[str] = Counter()
    counts["negative_prices"] = int((rows.price_usd_kwh < 0.0).sum())
    rows = _without_duplicates(_in_order(rows, counts), counts)
    step_min = _step_min(rows)
    rows = rows if rows.has_offset else _with_true_time(rows, step_min)
    parts = [_part(part, step_min, fill_h, counts) for part in _periods(rows, step_min, fill_h)]
    day = np.concatenate([part_day for part_day, _ in parts])
    counts["days_without_price"] = int(day[-1] - day[0]) + 1 - len(day)
    price = np.concatenate([part_price for _, part_price in parts])
    return WallDays(day, price, {key: count for key, count in counts.items() if count})


def _is_change(wall_min: int, rules: Rules) -> bool:
    """Tell whether the hour of a local time is one that a clock change may remove or repeat."""
    time = date.fromordinal(wall_min // DAY_MIN)
    hour = wall_min % DAY_MIN // 60
    is_last = time.day + 7 > monthrange(time.year, time.month)[1]
    sundays = {(time.day - 1) // 7, -1 if is_last else (time.day - 1) // 7}
    return time.weekday() == 6 and any(
        time.month == month and sunday in sundays and hour in hours for month, sunday, hours in rules
    )


def _in_order(rows: PriceRows, counts: Counter[str]) -> PriceRows:
    """Sort by time and count the rows that came too late."""
    back_min = -np.diff(rows.true_min)
    for i in np.flatnonzero(back_min > 0):
        repeats = not rows.has_offset and back_min[i] < 60
        if not (repeats and _is_change(int(rows.wall_min[i + 1]), AUTUMN)):
            counts["unsorted_rows"] += 1
    return rows.take(np.argsort(rows.true_min, kind="stable"))


def _without_duplicates(rows: PriceRows, counts: Counter[str]) -> PriceRows:
    """Drop rows that say the same twice; two prices for one time are an error.

    Without offsets, the second row of an autumn night's repeated hour is no duplicate.
    """
    keep = np.ones(len(rows.rows), dtype=bool)
    for i in np.flatnonzero(np.diff(rows.true_min) == 0) + 1:
        third = i >= 2 and rows.true_min[i - 2] == rows.true_min[i]
        if not rows.has_offset and not third and _is_change(int(rows.wall_min[i]), AUTUMN):
            continue
        if rows.price_usd_kwh[i] != rows.price_usd_kwh[i - 1]:
            raise rows.error(
                int(i),
                f"has another price in {rows.rows[i - 1].where}",
                "delete one of the two rows",
            )
        keep[i] = False
    counts["duplicate_rows"] = int((~keep).sum())
    return rows.take(np.flatnonzero(keep))


def _step_min(rows: PriceRows) -> int:
    """Return the one step of a file in minutes: 15, 30 or 60."""
    diff_min = np.diff(rows.true_min)
    values, numbers = np.unique(diff_min[diff_min > 0], return_counts=True)
    step_min = int(values[numbers.argmax()]) if values.size else 0
    if step_min not in STEPS_MIN:
        found = f"{step_min} min" if step_min else "none, there is a single time"
        raise UserError(f"{rows.path}: the usual step between rows is {found}; give steps of 15, 30 or 60 min")
    off = diff_min % step_min != 0
    coarse = np.isin(diff_min, STEPS_MIN) & (diff_min > step_min)
    off |= coarse & (coarse.sum() > MIXED_SHARE * diff_min.size)
    if off.any():
        i = int(off.argmax())
        raise rows.error(
            i + 1,
            f"is {diff_min[i]} min after {rows.rows[i].where} in a file of {step_min}-min steps",
            "give a file of one step, or repair the row",
        )
    return step_min


def _with_true_time(rows: PriceRows, step_min: int) -> PriceRows:
    """Give rows that know only the wall clock a time without jumps, by the dates of DST."""
    wall_min = rows.wall_min
    diff_min = np.diff(wall_min, prepend=wall_min[0] - step_min)
    skipped = diff_min == step_min + 60
    for i in np.flatnonzero(skipped):
        skipped[i] = _is_change(int(wall_min[i]) - 60, SPRING)
    second = diff_min == 0
    ends_min = np.unique(wall_min[second] // 60 * 60 + 60)
    hours = second + np.searchsorted(ends_min, wall_min, side="right") - np.cumsum(skipped)
    true_min = wall_min + 60 * hours
    return replace(rows, true_min=true_min).take(np.argsort(true_min, kind="stable"))


def _periods(rows: PriceRows, step_min: int, fill_h: float) -> Iterator[PriceRows]:
    """Part the rows where a week or more is missing that is not to be filled."""
    gap_h = (np.diff(rows.true_min) - step_min) / 60.0
    cuts = np.flatnonzero((gap_h >= LONG_GAP_H) & (gap_h > fill_h)) + 1
    for index in np.split(np.arange(len(rows.rows)), cuts):
        yield rows.take(index)


def _part(rows: PriceRows, step_min: int, fill_h: float, counts: Counter[str]) -> tuple[IntArray, FloatArray]:
    """Return day (m,) and price (m, 96) of one period, m >= 1."""
    _check_gaps(rows, step_min, fill_h)
    _check_clock(rows)
    grid_min = np.arange(rows.true_min[0], rows.true_min[-1] + step_min, step_min)
    price = np.interp(grid_min, rows.true_min, rows.price_usd_kwh)
    before = np.searchsorted(rows.true_min, grid_min, side="right") - 1
    wall_min = grid_min + (rows.wall_min - rows.true_min)[before]
    counts["filled_steps"] += len(grid_min) - len(rows.rows)
    counts["filled_gaps"] += int((np.diff(rows.true_min) > step_min).sum())
    first, quarters = _wall_quarters(wall_min, price, step_min, counts)
    day, day_price = _whole_days(first, quarters, counts)
    if not day.size:
        number = len(rows.rows)
        raise rows.error(
            0,
            f"begins a period of {number} rows without a complete local day",
            "give prices from midnight to midnight, without a gap of a week",
        )
    return day, day_price


def _check_gaps(rows: PriceRows, step_min: int, fill_h: float) -> None:
    gap_h = (np.diff(rows.true_min) - step_min) / 60.0
    if (gap_h > fill_h).any():
        i = int((gap_h > fill_h).argmax())
        start = minute_text(int(rows.wall_min[i]) + step_min)
        raise rows.error(
            i + 1,
            f"follows a gap of {gap_h[i]:g} h that begins at {start} local time",
            f"repair the file, or set env.price_fill_h={gap_h[i]:g} to interpolate",
        )


def _check_clock(rows: PriceRows) -> None:
    change_min = np.abs(np.diff(rows.wall_min - rows.true_min))
    if (change_min > 60).any():
        i = int((change_min > 60).argmax())
        raise rows.error(
            i + 1,
            f"changes the UTC offset by {change_min[i] / 60:g} h from {rows.rows[i].where}",
            "correct the local time (a clock change is at most 1 h)",
        )


def _wall_quarters(
    wall_min: IntArray, price: FloatArray, step_min: int, counts: Counter[str]
) -> tuple[int, FloatArray]:
    """Return the first wall-clock quarter and all prices from there, without a hole.

    A repeated hour is averaged, a missing one takes the price before it.
    """
    per_step = step_min // 15
    quarter = (wall_min[:, None] // 15 + np.arange(per_step)).ravel()
    first = int(quarter.min())
    number = np.bincount(quarter - first)
    total = np.bincount(quarter - first, weights=np.repeat(price, per_step))
    counts["dst_repeated_hours"] += -(-int((number > 1).sum()) // 4)
    counts["dst_missing_hours"] += -(-int((number == 0).sum()) // 4)
    known = np.maximum.accumulate(np.where(number > 0, np.arange(len(number)), 0))
    return first, (total / np.maximum(number, 1))[known]


def _whole_days(first: int, quarters: FloatArray, counts: Counter[str]) -> tuple[IntArray, FloatArray]:
    """Cut off the incomplete days at both ends."""
    end = first + len(quarters)
    start_day, end_day = -(-first // QUARTERS), end // QUARTERS
    touched = -(-end // QUARTERS) - first // QUARTERS
    day = np.arange(start_day, max(start_day, end_day), dtype=np.int64)
    counts["incomplete_edge_days"] += touched - len(day)
    begin = start_day * QUARTERS - first
    return day, quarters[begin : begin + len(day) * QUARTERS].reshape(len(day), QUARTERS)
