"""Reading user files: text, CSV rows and single cells, each failure one line for the user."""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from qevgrid.envs.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIME_REMEDY = "write ISO 8601, such as 2019-09-01 09:56:18-07:00"


class Moment(NamedTuple):
    """A point in time, as the clock on the wall shows it and on a line without jumps."""

    local: datetime  # naive
    instant_s: float  # seconds since 1970 UTC; of the wall clock itself where no offset is known
    has_offset: bool


def moment(time: datetime) -> Moment:
    """Split a datetime into wall clock and instant; a naive one counts as if it were UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    # Through UTC: Python subtracts two times of one zone by the wall clock, wrong in DST nights.
    instant_s = (aware.astimezone(UTC) - EPOCH).total_seconds()
    return Moment(time.replace(tzinfo=None, fold=0), instant_s, time.tzinfo is not None)


def parse_iso(text: str) -> Moment:
    """Parse ISO 8601; ValueError where it is none."""
    try:
        return moment(datetime.fromisoformat(text))
    except OverflowError as error:  # the year 1 or 9999, moved out of range by its offset
        raise ValueError(str(error)) from error


def show(value: object, limit: int = 60) -> str:
    """Return a value on one line, cut short."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True)
class Fields:
    """One row of a table (or item of a list) with parsers that name file, row and column."""

    path: str
    where: str  # "row 7" (a CSV's header is row 1) or "item 7"
    values: Mapping[str, object]

    def error(self, column: str, problem: str, remedy: str) -> UserError:
        """Return the one-line error for a cell."""
        value = show(self.values.get(column))
        return UserError(f"{self.path}: {self.where}, column '{column}': {value} {problem}; {remedy}")

    def text(self, column: str) -> str:
        """Return the stripped cell, "" where it is empty, null or has no column."""
        value = self.values.get(column)
        return "" if value is None else str(value).strip()

    def number(self, column: str, low: float = -math.inf, high: float = math.inf, above: bool = False) -> float:
        """Return a finite number within [low, high], or (low, high] if `above`; NaN where empty."""
        if not self.text(column):
            return math.nan
        try:
            number = self._finite(column)
        except (ValueError, OverflowError):
            raise self.error(column, "is not a number", "write a number such as 7.5") from None
        if number < low or number > high or (above and number == low):
            limits = f"{'greater than' if above else 'at least'} {low:g}"
            limits += "" if math.isinf(high) else f" and at most {high:g}"
            raise self.error(column, f"is out of range: {limits}", "correct it or delete the row")
        return number

    def _finite(self, column: str) -> float:
        """Return the cell as float; ValueError for NaN, infinity and 1_000."""
        if "_" in self.text(column):
            raise ValueError
        number = float(self.text(column))
        if not math.isfinite(number):
            raise ValueError
        return number

    def time(self, column: str) -> Moment:
        """Return a point in time; an empty cell is an error."""
        if not self.text(column):
            raise self.error(column, "is empty", f"{TIME_REMEDY}, or delete the row")
        try:
            return parse_iso(self.text(column))
        except ValueError:
            raise self.error(column, "is not a time", TIME_REMEDY) from None

    def optional_time(self, column: str) -> Moment | None:
        """Return a point in time, None where the cell is empty."""
        return self.time(column) if self.text(column) else None


def read_text(path: str | Path) -> str:
    """Return a file's text (UTF-8, with or without a mark, gzipped or not)."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise UserError(f"{path}: cannot be read ({reason}); check the path") from None
    try:
        data = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error):
        raise UserError(f"{path}: the gzip data is damaged; fetch or compress it again") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save it as UTF-8 CSV or JSON") from None
    if not text.strip():
        raise UserError(f"{path}: is empty; give a file with data")
    return text


@dataclass(frozen=True)
class Csv:
    """A CSV file: the header's names and the rows below it, split when first asked for."""

    path: str
    columns: list[str]
    lines: list[tuple[int, list[str]]]  # (row in the file, cells)

    @cached_property
    def rows(self) -> list[Fields]:
        """The rows, at least one; UserError where one does not fit the header."""
        if not self.lines:
            raise UserError(f"{self.path}: has a header (row 1) but no rows; give data")
        return [self._row(number, cells) for number, cells in self.lines]

    def _row(self, number: int, cells: list[str]) -> Fields:
        if len(cells) != len(self.columns):
            raise UserError(
                f"{self.path}: row {number}: {len(cells)} cells where the header has "
                f"{len(self.columns)}; repair the row"
            )
        return Fields(self.path, f"row {number}", dict(zip(self.columns, cells, strict=True)))

    def require(self, columns: Sequence[str]) -> None:
        """Raise UserError unless every one of `columns` is in the header."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise UserError(
                f"{self.path}: row 1: missing column {', '.join(map(repr, missing))}, found "
                f"{show(self.columns, 200)}; add it, or rename a column and separate by commas"
            )


def read_csv(path: str | Path, text: str) -> Csv:
    """Split comma-separated text; blank lines are skipped."""
    try:
        lines = list(_lines(text))
    except csv.Error as error:
        raise UserError(f"{path}: is not readable as CSV ({error}); repair the file") from None
    columns = [name.strip() for name in lines[0][1]]
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise UserError(f"{path}: row 1: column {show(min(twice))} occurs twice; keep one")
    return Csv(str(path), columns, lines[1:])


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for cells in reader:
        if cells:
            yield reader.line_num, cells


def same_clock(cells: Iterable[tuple[Fields, str, Moment | None]]) -> None:
    """Raise UserError where one time of a file has an offset and another has none."""
    known = [(row, column, time) for row, column, time in cells if time is not None]
    for row, column, time in known:
        if time.has_offset != known[0][2].has_offset:
            has = "has" if time.has_offset else "lacks"
            raise row.error(
                column,
                f"{has} a UTC offset, unlike the time in {known[0][0].where}",
                "give every time an offset, or none",
            )
