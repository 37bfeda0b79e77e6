"""Charging sessions of a file: arrays by vehicle, and what was dropped or mended on the way."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.data.reading import read_text
from qevgrid.envs.data.session_rows import RawSession, read_sessions
from qevgrid.envs.errors import UserError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
StrArray = NDArray[np.str_]

SHORTEST_STAY_S = 60.0
DAY_S = 86_400.0
USUAL_MAX_KW = 50.0  # a session without `max_kw` is measured against a usual DC charger


@dataclass(frozen=True, eq=False)
class SessionTable:
    """Charging sessions, sorted by local arrival; every array is read-only and has n entries.

    Local time is the wall clock of the row's own offset; stays are true elapsed hours, also in
    the nights when the clock changes.
    """

    day: IntArray  # (n,) local calendar day of the arrival, as date.toordinal()
    arrival_h: FloatArray  # (n,) local wall-clock hours since that day's midnight, [0, 24)
    stay_h: FloatArray  # (n,) elapsed hours from arrival to departure, > 0
    declared_stay_h: FloatArray  # (n,) the same to the declared departure, > 0
    energy_kwh: FloatArray  # (n,) requested energy (delivered where nothing was requested), > 0
    delivered_kwh: FloatArray  # (n,) delivered energy, NaN where unknown
    battery_kwh: FloatArray  # (n,) battery capacity, NaN where unknown
    arrival_soc: FloatArray  # (n,) state of charge at arrival, 0..1, NaN where unknown
    max_kw: FloatArray  # (n,) largest charging power, NaN where unknown
    socket: StrArray  # (n,) name of the socket, "" where unknown
    source: str  # the file
    report: dict[str, int]  # "rows", "kept", then every rule that applied and how often

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __len__(self) -> int:
        """Return the number of sessions n."""
        return len(self.day)


def load_sessions(path: str | Path) -> SessionTable:
    """Load charging sessions: ACN-Data (CSV or the API's JSON) or a plain CSV, also gzipped.

    The rules and the report's keys are in docs/data.md. Returns a `SessionTable` with at least
    one session. Raises `UserError` (one line: file, row, column, value, remedy) for a missing
    column, an unreadable number or time, a departure before the arrival, a negative energy, or
    a file from which no session remains.
    """
    raw, ignored = read_sessions(path, read_text(path))
    kept, dropped = _drop(raw)
    if not kept:
        why = ", ".join(f"{key} {count}" for key, count in dropped.items())
        raise UserError(f"{path}: none of {len(raw)} rows is usable ({why}); give another file")
    kept.sort(key=lambda s: (s.arrival.local, s.arrival.instant_s))
    report = {"rows": len(raw), "kept": len(kept), **dropped, **_count_kept(kept)}
    report |= {"columns_ignored": ignored} if ignored else {}
    return SessionTable(
        day=np.array([s.arrival.local.toordinal() for s in kept], dtype=np.int64),
        arrival_h=_column(kept, _hour_of_day),
        stay_h=_column(kept, lambda s: _stay_s(s) / 3600.0),
        declared_stay_h=_column(kept, _declared_stay_h),
        energy_kwh=_column(kept, _energy_kwh),
        delivered_kwh=_column(kept, lambda s: s.delivered_kwh),
        battery_kwh=_column(kept, lambda s: s.battery_kwh),
        arrival_soc=_column(kept, lambda s: s.arrival_soc),
        max_kw=_column(kept, lambda s: s.max_kw),
        socket=np.array([s.socket for s in kept], dtype=np.str_),
        source=str(path),
        report=report,
    )


def presence_by_hour(table: SessionTable) -> FloatArray:
    """Return (24,) the mean number of vehicles present during each local hour of the day.

    The mean is over all calendar days from the first to the last arrival, days without sessions
    included; a vehicle that stays half an hour counts one half. The hour with the smallest entry
    suits as an episode's start: fewest vehicles are cut in two.
    """
    days = int(table.day.max() - table.day.min()) + 1
    hours = np.arange(24.0)
    start_h = table.arrival_h[:, None]
    end_h = start_h + table.stay_h[:, None]
    present_h = _hours_until(end_h, hours) - _hours_until(start_h, hours)  # (n, 24)
    return present_h.sum(axis=0) / days


def _hours_until(time_h: FloatArray, hour: FloatArray) -> FloatArray:
    """Return the time since 0 h that lay between `hour` and `hour` + 1 of any day."""
    return np.floor(time_h / 24.0) + np.clip(time_h % 24.0 - hour, 0.0, 1.0)


def _column(kept: Sequence[RawSession], value: Callable[[RawSession], float]) -> FloatArray:
    return np.array([value(session) for session in kept], dtype=np.float64)


def _hour_of_day(session: RawSession) -> float:
    time = session.arrival.local
    return time.hour + (time.minute * 60 + time.second + time.microsecond * 1e-6) / 3600.0


def _stay_s(session: RawSession) -> float:
    return session.departure.instant_s - session.arrival.instant_s


def _declared_stay_h(session: RawSession) -> float:
    if session.declared is None or _declared_too_early(session):
        return _stay_s(session) / 3600.0
    return (session.declared.instant_s - session.arrival.instant_s) / 3600.0


def _declared_too_early(session: RawSession) -> bool:
    declared = session.declared
    return declared is not None and declared.instant_s <= session.arrival.instant_s


def _energy_kwh(session: RawSession) -> float:
    requested_kwh = session.requested_kwh
    return session.delivered_kwh if math.isnan(requested_kwh) else requested_kwh


def _drop(raw: Sequence[RawSession]) -> tuple[list[RawSession], dict[str, int]]:
    """Return the usable sessions and why the others are not; the first reason counts."""
    kept: list[RawSession] = []
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    for session in raw:
        repeated = session.session_id in seen
        seen |= {session.session_id} - {""}
        if repeated:
            dropped["dropped_duplicate_session"] += 1
        elif _stay_s(session) < SHORTEST_STAY_S:
            dropped["dropped_short_stay"] += 1
        elif _energy_kwh(session) == 0.0:
            dropped["dropped_zero_energy"] += 1
        else:
            kept.append(session)
    return kept, dict(sorted(dropped.items()))


def _count_kept(kept: Sequence[RawSession]) -> dict[str, int]:
    """Count what is unusual, or mended, in the sessions that are kept."""
    tests: dict[str, Callable[[RawSession], bool]] = {
        "longer_than_a_day": lambda s: _stay_s(s) > DAY_S,
        "requests_beyond_power": _beyond_power,
        "requests_beyond_battery": _beyond_battery,
        "delivered_beyond_request": lambda s: s.delivered_kwh > s.requested_kwh,
        "request_missing": lambda s: math.isnan(s.requested_kwh),
        "declared_missing": lambda s: s.declared is None,
        "declared_before_arrival": _declared_too_early,
        "unclaimed": lambda s: not s.claimed,
        "inputs_revised": lambda s: s.revised,
    }
    counts = {name: sum(map(test, kept)) for name, test in tests.items()}
    counts["overlaps_on_socket"] = _overlaps(kept)
    return {name: count for name, count in counts.items() if count}


def _beyond_power(session: RawSession) -> bool:
    max_kw = USUAL_MAX_KW if math.isnan(session.max_kw) else session.max_kw
    return _energy_kwh(session) > max_kw * _stay_s(session) / 3600.0


def _beyond_battery(session: RawSession) -> bool:
    empty = 1.0 if math.isnan(session.arrival_soc) else 1.0 - session.arrival_soc
    return _energy_kwh(session) > session.battery_kwh * empty * (1.0 + 1e-9)


def _overlaps(kept: Sequence[RawSession]) -> int:
    """Count sessions that begin while an earlier one is still on the same socket."""
    free_s: dict[str, float] = {}
    overlaps = 0
    for session in sorted(kept, key=lambda s: s.arrival.instant_s):
        if session.socket:
            until_s = free_s.get(session.socket, -math.inf)
            overlaps += session.arrival.instant_s < until_s
            free_s[session.socket] = max(until_s, session.departure.instant_s)
    return overlaps
