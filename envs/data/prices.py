"""Electricity prices of a file: whole local days in quarter-hours, and windows across them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.data.price_days import QUARTERS, wall_days
from qevgrid.envs.data.price_rows import read_price_rows
from qevgrid.envs.errors import UserError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

SLIVER = 1e-9  # of a quarter: what rounding leaves at a border


@dataclass(frozen=True, eq=False)
class PriceTable:
    """Complete local days of prices, ascending; the arrays are read-only.

    The days are consecutive except where a week or more was missing (`days_without_price` in
    the report). Every day has 96 wall-clock quarters, also when the clock changes.
    """

    day: IntArray  # (m,) local calendar day, as date.toordinal()
    price_usd_kwh: FloatArray  # (m, 96) price held over each quarter from 00:00 local, may be < 0
    source: str  # the file
    report: dict[str, int]  # "rows", "days", then every rule that applied and how often

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        self.day.setflags(write=False)
        self.price_usd_kwh.setflags(write=False)

    def __len__(self) -> int:
        """Return the number of days m."""
        return len(self.day)


def load_prices(path: str | Path, usd_per_eur: float = 1.08, fill_h: float = 3.0) -> PriceTable:
    """Load prices in steps of 15, 30 or 60 min: ENTSO-E by Ember, or a plain CSV, also gzipped.

    `usd_per_eur` (USD/EUR) converts prices in EUR; gaps up to `fill_h` hours of true time are
    interpolated. The rules and the report's keys are in docs/data.md. Returns a `PriceTable` of
    at least one day. Raises `UserError` (one line: file, row, column, value, remedy) for a
    missing column, an unreadable time or price, two prices for one time, or a longer gap.
    """
    if not (math.isfinite(usd_per_eur) and usd_per_eur > 0.0):
        raise UserError(f"usd_per_eur={usd_per_eur!r} is no exchange rate; give one such as 1.08")
    if not fill_h >= 0.0:
        raise UserError(f"env.price_fill_h={fill_h!r} is no length of time; give hours >= 0")
    rows = read_price_rows(path, usd_per_eur)
    days = wall_days(rows, fill_h)
    report = {"rows": len(rows.rows), "days": len(days.day), **days.counts}
    return PriceTable(days.day, days.price_usd_kwh, str(path), report)


def price_days(table: PriceTable, start_h: float, dt_h: float, stages: int) -> tuple[IntArray, FloatArray]:
    """Return the windows of `stages` steps of `dt_h` hours from local hour `start_h` of each day.

    Returns day (k,), the day on which each window starts, and price (k, stages) in USD/kWh, the
    mean over each step. Windows run on across midnight; only those are returned whose every day
    is in the table. Raises `UserError` for a window that is impossible or longer than the table.
    """
    if not (0.0 <= start_h < 24.0 and 0.0 < dt_h < math.inf and stages >= 1):
        raise UserError(
            f"price window start_h={start_h!r}, dt_h={dt_h!r}, stages={stages!r} is impossible; "
            "give 0 <= start_h < 24, dt_h > 0 and stages >= 1"
        )
    weight = _weights(start_h, dt_h, stages)
    span = weight.shape[1] // QUARTERS
    start = np.flatnonzero(_has_days(table.day, span))
    if not start.size:
        raise UserError(
            f"{table.source}: none of {len(table)} days starts a window of {stages} x {dt_h:g} h "
            f"from {start_h:g} h; give more consecutive days or a shorter episode"
        )
    quarters = table.price_usd_kwh[start[:, None] + np.arange(span)].reshape(len(start), -1)
    return table.day[start], quarters @ weight.T


def _has_days(day: IntArray, span: int) -> NDArray[np.bool_]:
    """Tell for each day whether the `span` - 1 days after it follow without a hole."""
    found = np.zeros(len(day), dtype=bool)
    last = len(day) - span + 1
    if last > 0:
        found[:last] = day[span - 1 :] - day[:last] == span - 1
    return found


def _weights(start_h: float, dt_h: float, stages: int) -> FloatArray:
    """Return (stages, whole days of quarters) the share of each step in each quarter."""
    begin = (start_h + dt_h * np.arange(stages)) * 4.0
    end = (start_h + dt_h * np.arange(1, stages + 1)) * 4.0
    days = math.ceil((end[-1] - SLIVER) / QUARTERS)
    quarter = np.arange(days * QUARTERS)
    overlap = np.minimum(end[:, None], quarter + 1) - np.maximum(begin[:, None], quarter)
    overlap = np.where(overlap > SLIVER, overlap, 0.0)
    return overlap / overlap.sum(axis=1, keepdims=True)
