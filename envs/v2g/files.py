"""Days from the user's files: sessions and prices, split by date into training and held out.

Rules and the report's keys: docs/data.md, "From files to days".
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.envs.data import (
    PriceTable,
    SessionTable,
    common_days,
    load_prices,
    load_sessions,
    presence_by_hour,
    price_days,
    split_days,
)
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.params import PRICE_KINDS, SESSION_KINDS, V2GParams
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.sentences import report_lines
from qevgrid.envs.v2g.sessions import Sessions
from qevgrid.envs.v2g.sockets import complete, on_sockets

__all__ = ["FileDays", "load_days", "report_lines"]

NOON_H = 12.0
HIGH_QUANTILE, LEAST_HIGH = 0.995, 0.01
CACHED = 8
KEYS = (
    "sessions", "prices", "start_h", "days", "dt_h", "n_sockets", "held_out_share", "usd_per_eur",
    "price_fill_h", "charger", "session",
)  # fmt: skip
"""Parameters that the days depend on, apart from ``split``."""


@dataclass(frozen=True, eq=False)
class FileDays:
    """Days ready to be drawn, arrays read-only; ``None`` where a synthetic generator is used."""

    start_h: float = NOON_H  # clock hour of stage 0
    sessions: Sessions | None = None  # (days, N, S)
    prices: FloatArray | None = None  # (days, T) USD/kWh
    day: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # (days,) toordinal()
    report: dict[str, int] = field(default_factory=dict)
    high_usd_kwh: float = 0.0  # of the training days, whatever the split: a scale for prices

    @property
    def slots(self) -> int:
        """Sessions that a socket may see in a window, S."""
        return 0 if self.sessions is None else self.sessions.arrival.shape[-1]

    def pick(self, u: FloatArray) -> IntArray:
        """Row of the day that each number of ``u`` (B,), uniform in [0, 1), chooses."""
        return (np.asarray(u) * len(self.day)).astype(np.int64)

    def pick_sessions(self, u: FloatArray) -> Sessions:
        """Sessions (B, N, S) of the days that ``u`` (B,) chooses; the same u, the same date."""
        if self.sessions is None:
            raise RuntimeError("sessions come from no file")
        row = self.pick(u)
        return Sessions._make(x[row] for x in self.sessions)

    def pick_prices(self, u: FloatArray) -> FloatArray:
        """Prices (B, T) in USD/kWh of the days that ``u`` (B,) chooses."""
        if self.prices is None:
            raise RuntimeError("prices come from no file")
        return self.prices[self.pick(u)]


@dataclass(frozen=True, eq=False)
class _AllDays:
    """What the files hold, training days first; W windows."""

    start_h: float
    day: IntArray  # (W,) ascending
    n_train: int
    sessions: Sessions | None  # (W, N, S)
    prices: FloatArray | None  # (W, T)
    counts: dict[str, IntArray]  # (W,) each
    days_report: dict[str, int]
    sessions_report: dict[str, int]
    prices_report: dict[str, int]


_cache: dict[Any, _AllDays] = {}


def load_days(plant: Plant) -> FileDays:
    """Days of the files that ``sessions`` and ``prices`` name, those of ``split``.

    Read once for the same parameters and files unchanged. ``UserError``: a name that is neither
    kind nor file, what the loaders refuse, no complete window, no common date, too few days.
    """
    p = plant.params
    cars = _path("env.sessions", p.sessions, SESSION_KINDS, "CSV or JSON")
    prices = _path("env.prices", p.prices, PRICE_KINDS, "CSV")
    if cars is None and prices is None:
        return FileDays(_start_h(p, None))
    key = (*(getattr(p, name) for name in KEYS), _stamp(cars), _stamp(prices))
    if key not in _cache:
        days = _read(plant, cars, prices)
        while len(_cache) >= CACHED:
            _cache.pop(next(iter(_cache)))
        _cache[key] = days
    return _chosen(_cache[key], p.split)


def _path(key: str, value: str, kinds: tuple[str, ...], formats: str) -> Path | None:
    """The file that ``value`` names; ``None`` for a kind."""
    if value in kinds:
        return None
    path = Path(value).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(value, kinds, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"{key}={value!r} is neither a kind nor a file; {hint}give one of {', '.join(kinds)}, "
        f"or the path of a {formats} file (seen from {Path.cwd()})"
    )


def _stamp(path: Path | None) -> tuple[str, int, int] | None:
    """What tells that a file is still the same."""
    if path is None:
        return None
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size


def _start_h(p: V2GParams, cars: SessionTable | None) -> float:
    """Clock hour of stage 0: as set, else the emptiest of the sessions, else noon."""
    if p.start_h is not None:
        return p.start_h
    return NOON_H if cars is None else float(presence_by_hour(cars).argmin())


def _read(plant: Plant, cars_path: Path | None, prices_path: Path | None) -> _AllDays:
    p = plant.params
    cars = load_sessions(cars_path) if cars_path else None
    table = load_prices(prices_path, p.usd_per_eur, p.price_fill_h) if prices_path else None
    start_h = _start_h(p, cars)
    with _naming(p, cars, table):
        day, price, outside = _windows(p, start_h, cars, table)
        train, held_out = split_days(day, p.held_out_share)
        inside = train[train + p.days <= held_out[0]]
        if not inside.size:
            raise UserError(
                f"every window of {p.days} days that starts before {_date(held_out[0])} runs into "
                "the days held out; give more days, or lower env.days or env.held_out_share"
            )
    keep = np.isin(day, np.concatenate([inside, held_out]))
    report = {"days_train": len(inside), "days_held_out": len(held_out)}
    report |= _nonzero({"days_straddling": len(train) - len(inside)} | outside)
    sessions, counts, cars_report = None, {}, {}
    if cars is not None:
        vehicles = complete(cars, p.session)
        sessions, counts = on_sockets(plant, vehicles, day[keep], start_h)
        cars_report = cars.report | {"sockets": p.n_sockets}
    price = None if price is None else _frozen(price[keep])
    price_report = {} if table is None else table.report
    found = (_frozen(day[keep]), len(inside), sessions, price, counts)
    return _AllDays(start_h, *found, report, cars_report, price_report)


@contextmanager
def _naming(p: V2GParams, cars: SessionTable | None, table: PriceTable | None) -> Iterator[None]:
    """Put the keys in front of what is wrong with the dates."""
    keys = [f"env.sessions={p.sessions!r}"] * (cars is not None)
    keys += [f"env.prices={p.prices!r}"] * (table is not None)
    try:
        yield
    except UserError as error:
        raise UserError(f"{', '.join(keys)}: {error}") from None


def _windows(
    p: V2GParams, start_h: float, cars: SessionTable | None, table: PriceTable | None
) -> tuple[IntArray, FloatArray | None, dict[str, int]]:
    """First day (W,) and prices (W, T) of the complete windows, and how many only one file has."""
    if cars is not None and table is None:
        return _session_days(p, start_h, cars), None, {}
    assert table is not None  # load_days needs no windows without a file
    day, price = price_days(table, start_h, p.dt_h, p.n_stages)
    if cars is None:
        return day, price, {}
    present = _session_days(p, start_h, cars)
    both = common_days(present, day)
    outside = {
        "days_without_prices": len(present) - len(both),
        "days_without_sessions": len(day) - len(both),
    }
    return both, price[np.isin(day, both)], outside


def _session_days(p: V2GParams, start_h: float, cars: SessionTable) -> IntArray:
    """Days whose window ends by the last day with an arrival, those without sessions included."""
    first, last = int(cars.day[0]), int(cars.day[-1])
    span = math.ceil(start_h / 24.0 + p.days)
    if last - first + 1 < span:
        raise UserError(
            f"no complete window of {24 * p.days} h from {start_h:g} h: arrivals are from "
            f"{_date(first)} to {_date(last)}, {span} days are needed; give more days"
        )
    return np.arange(first, last - span + 2, dtype=np.int64)


def _chosen(days: _AllDays, split: str) -> FileDays:
    """The windows of one split, and their counts."""
    train, held_out = slice(0, days.n_train), slice(days.n_train, None)
    rows = {"train": train, "held_out": held_out, "all": slice(None)}[split]
    counts = {name: int(count[rows].sum()) for name, count in days.counts.items()}
    cars = days.sessions_report | {k: n for k, n in counts.items() if n or k == "placed"}
    report = days.days_report | {f"sessions.{k}": n for k, n in cars.items()}
    report |= {f"prices.{k}": n for k, n in days.prices_report.items()}
    sessions, prices, high = None, None, 0.0
    if days.sessions is not None:
        sessions = Sessions._make(x[rows] for x in days.sessions)
    if days.prices is not None:
        prices = days.prices[rows]
        high = max(float(np.quantile(np.abs(days.prices[train]), HIGH_QUANTILE)), LEAST_HIGH)
    return FileDays(days.start_h, sessions, prices, days.day[rows], report, high)


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: count for key, count in counts.items() if count}


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array


def _date(day: int) -> str:
    return date.fromordinal(int(day)).isoformat()
