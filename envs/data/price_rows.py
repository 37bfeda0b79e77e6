"""The formats of electricity prices, each turned into the same rows of time and price."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.data.reading import Csv, Fields, Moment, moment, read_csv, read_text, same_clock
from qevgrid.envs.errors import UserError

UTC_COLUMN, LOCAL_COLUMN, EUR_MWH_COLUMN = (
    "Datetime (UTC)",
    "Datetime (Local)",
    "Price (EUR/MWhe)",
)
PLAIN_UNITS = {  # column: (in EUR, MWh per unit of its denominator)
    "price_usd_kwh": (False, 1.0),
    "price_usd_mwh": (False, 1000.0),
    "price_eur_kwh": (True, 1.0),
    "price_eur_mwh": (True, 1000.0),
}


@dataclass(frozen=True)
class PriceRows:
    """The rows of a price file in the file's order, n of them."""

    path: str
    time_column: str
    rows: list[Fields]
    wall_min: NDArray[np.int64]  # (n,) local wall clock, minutes since 0001-01-01 00:00
    true_min: NDArray[np.int64]  # (n,) minutes on a line without jumps; wall_min if not has_offset
    price_usd_kwh: NDArray[np.float64]  # (n,)
    has_offset: bool  # the file tells UTC; False: only the wall clock is known

    def take(self, index: NDArray[np.int64]) -> "PriceRows":
        """Return the rows at `index`, in that order."""
        return PriceRows(
            self.path,
            self.time_column,
            [self.rows[i] for i in index],
            self.wall_min[index],
            self.true_min[index],
            self.price_usd_kwh[index],
            self.has_offset,
        )

    def error(self, i: int, problem: str, remedy: str) -> UserError:
        """Return the one-line error for the time of row i."""
        return self.rows[i].error(self.time_column, problem, remedy)


def read_price_rows(path: str | Path, usd_per_eur: float) -> PriceRows:
    """Read a price file; UserError for anything that cannot be read."""
    table = read_csv(path, read_text(path))
    if UTC_COLUMN in table.columns or EUR_MWH_COLUMN in table.columns:
        table.require((UTC_COLUMN, LOCAL_COLUMN, EUR_MWH_COLUMN))
        _check_one_country(table)
        times = [_utc_and_local(row) for row in table.rows]
        price = _prices(table, EUR_MWH_COLUMN, usd_per_eur / 1000.0)
        return _price_rows(table, UTC_COLUMN, times, price)
    table.require(("time",))
    column = _price_column(table)
    in_eur, units_per_kwh = PLAIN_UNITS[column]
    times = [row.time("time") for row in table.rows]
    same_clock((row, "time", time) for row, time in zip(table.rows, times, strict=True))
    price = _prices(table, column, (usd_per_eur if in_eur else 1.0) / units_per_kwh)
    return _price_rows(table, "time", times, price)


def _price_rows(table: Csv, column: str, times: Sequence[Moment], price: NDArray[np.float64]) -> PriceRows:
    has_offset = times[0].has_offset
    wall_min = np.array(list(_whole_minutes(table, column, times)), dtype=np.int64)
    true_min = np.array([round(time.instant_s / 60.0) for time in times], dtype=np.int64)
    true_min = true_min if has_offset else wall_min
    return PriceRows(table.path, column, table.rows, wall_min, true_min, price, has_offset)


def _whole_minutes(table: Csv, column: str, times: Sequence[Moment]) -> Iterator[int]:
    for row, (local, instant_s, _) in zip(table.rows, times, strict=True):
        if local.minute % 15 or local.second or local.microsecond or instant_s % 900.0:
            raise row.error(column, "is not on a quarter of an hour", "correct the time")
        yield (local.toordinal() * 24 + local.hour) * 60 + local.minute


def _utc_and_local(row: Fields) -> Moment:
    """Combine the UTC and the local column of a row."""
    utc, local = row.time(UTC_COLUMN), row.time(LOCAL_COLUMN).local
    ahead_h = (moment(local).instant_s - utc.instant_s) / 3600.0
    if not -12.0 <= ahead_h <= 14.0:
        raise row.error(
            LOCAL_COLUMN,
            f"is {ahead_h:+g} h from UTC {row.text(UTC_COLUMN)!r}",
            "correct the two times (the offset is -12 to +14 h)",
        )
    return Moment(local, utc.instant_s, has_offset=True)


def _check_one_country(table: Csv) -> None:
    for row in table.rows if "Country" in table.columns else ():
        if row.text("Country") != table.rows[0].text("Country"):
            raise row.error(
                "Country",
                f"differs from {table.rows[0].text('Country')!r} in {table.rows[0].where}",
                "keep the rows of one country",
            )


def _price_column(table: Csv) -> str:
    names = [name for name in PLAIN_UNITS if name in table.columns]
    if len(names) != 1:
        found = f"{len(names)} price columns" if names else "no price column"
        raise UserError(
            f"{table.path}: row 1: {found} in {table.columns!r:.200}; give exactly one of {', '.join(PLAIN_UNITS)}"
        )
    return names[0]


def _prices(table: Csv, column: str, usd_kwh_per_unit: float) -> NDArray[np.float64]:
    values = [row.number(column) for row in table.rows]
    for row, value in zip(table.rows, values, strict=True):
        if math.isnan(value):
            remedy = "write the price, or delete the row so that the gap is filled"
            raise row.error(column, "is empty", remedy)
    return np.array(values) * usd_kwh_per_unit


def minute_text(minutes: int) -> str:
    """Return minutes since 0001-01-01 00:00 (day 1 as in date.toordinal) as a time."""
    time = datetime(1, 1, 1, tzinfo=UTC) + timedelta(minutes=int(minutes) - 1440)
    return f"{time:%Y-%m-%d %H:%M}"
