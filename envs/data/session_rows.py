"""The three formats of charging sessions, each turned into the same raw sessions."""

import email.utils
import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from qevgrid.envs.data.reading import Fields, Moment, moment, read_csv, same_clock
from qevgrid.envs.errors import UserError

ACN_REQUIRED = (
    "arrival",
    "departure",
    "requested_energy (kWh)",
    "delivered_energy (kWh)",
    "station_id",
    "session_id",
)
ACN_OPTIONAL = ("estimated_departure", "claimed")
PLAIN_REQUIRED = ("arrival", "departure", "energy_kwh")
PLAIN_OPTIONAL = ("socket", "declared_departure", "battery_kwh", "arrival_soc", "max_kw")


@dataclass(frozen=True)
class RawSession:
    """One session as the file has it, before any rule; NaN, None and "" where it is silent."""

    fields: Fields
    arrival: Moment
    departure: Moment
    declared: Moment | None
    requested_kwh: float
    delivered_kwh: float
    battery_kwh: float = math.nan
    arrival_soc: float = math.nan
    max_kw: float = math.nan
    socket: str = ""
    session_id: str = ""
    claimed: bool = True  # False: the driver entered neither energy nor departure
    revised: bool = False  # the driver changed the inputs later; the first ones count


def read_sessions(path: str | Path, text: str) -> tuple[list[RawSession], int]:
    """Return the raw sessions of a file and the number of columns that nobody reads."""
    sessions, ignored = _read_any(path, text)
    for session in sessions:
        if session.departure.instant_s < session.arrival.instant_s:
            raise session.fields.error(
                "disconnectTime" if "disconnectTime" in session.fields.values else "departure",
                f"is before the arrival at {session.arrival.local} local time",
                "correct or delete the row",
            )
    return sessions, ignored


def _read_any(path: str | Path, text: str) -> tuple[list[RawSession], int]:
    if text.lstrip()[0] in "{[" or Path(path).name.endswith((".json", ".json.gz")):
        return _read_json(str(path), text), 0
    table = read_csv(path, text)
    acn = any(name in table.columns for name in ACN_REQUIRED[2:])
    required = ACN_REQUIRED if acn else PLAIN_REQUIRED
    optional = ACN_OPTIONAL if acn else PLAIN_OPTIONAL
    table.require(required)
    sessions = [(_acn_row if acn else _plain_row)(row) for row in table.rows]
    declared = optional[0] if acn else optional[1]
    same_clock(cell for session in sessions for cell in _times(session, declared))
    return sessions, len(set(table.columns) - set(required) - set(optional))


def _times(session: RawSession, declared: str) -> list[tuple[Fields, str, Moment | None]]:
    row = session.fields
    return [
        (row, "arrival", session.arrival),
        (row, "departure", session.departure),
        (row, declared, session.declared),
    ]


def _acn_row(row: Fields) -> RawSession:
    return RawSession(
        fields=row,
        arrival=row.time("arrival"),
        departure=row.time("departure"),
        declared=row.optional_time("estimated_departure"),
        requested_kwh=row.number("requested_energy (kWh)", 0.0),
        delivered_kwh=_delivered(row, "requested_energy (kWh)", "delivered_energy (kWh)"),
        socket=row.text("station_id"),
        session_id=row.text("session_id"),
        claimed=row.text("claimed").lower() != "false",
    )


def _plain_row(row: Fields) -> RawSession:
    if not row.text("energy_kwh"):
        raise row.error("energy_kwh", "is empty", "write the energy in kWh or delete the row")
    return RawSession(
        fields=row,
        arrival=row.time("arrival"),
        departure=row.time("departure"),
        declared=row.optional_time("declared_departure"),
        requested_kwh=row.number("energy_kwh", 0.0),
        delivered_kwh=math.nan,
        battery_kwh=row.number("battery_kwh", 0.0, above=True),
        arrival_soc=row.number("arrival_soc", 0.0, 1.0),
        max_kw=row.number("max_kw", 0.0, above=True),
        socket=row.text("socket"),
    )


def _delivered(row: Fields, requested: str, delivered: str) -> float:
    """Return the delivered energy (NaN if absent); one of both energies must be there."""
    delivered_kwh = row.number(delivered, 0.0)
    if math.isnan(delivered_kwh) and not row.text(requested):
        raise row.error(
            requested,
            f"is empty, and so is '{delivered}'",
            "write one of them in kWh or delete the row",
        )
    return delivered_kwh


def _read_json(path: str, text: str) -> list[RawSession]:
    """Read the ACN-Data API's answer, or the bare list of its items."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); repair or fetch it again") from None
    items = data.get("_items") if isinstance(data, dict) else data
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path}: has no '_items' list of sessions; give ACN-Data's API answer")
    if not items:
        raise UserError(f"{path}: '_items' is empty; give a file with data")
    return [_json_item(path, number, item) for number, item in enumerate(items, 1)]


def _json_item(path: str, number: int, item: dict[str, object]) -> RawSession:
    inputs = item.get("userInputs") or []
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        row = Fields(path, f"item {number}", item)
        raise row.error("userInputs", "is not a list of inputs", "repair or fetch it again")
    # The first input: what was known soonest after the arrival, as in the published CSV.
    row = Fields(path, f"item {number}", {**(inputs[0] if inputs else {}), **item})
    zone = _zone(row)
    has_declared = bool(row.text("requestedDeparture"))
    return RawSession(
        fields=row,
        arrival=_zoned_time(row, "connectionTime", zone),
        departure=_zoned_time(row, "disconnectTime", zone),
        declared=_zoned_time(row, "requestedDeparture", zone) if has_declared else None,
        requested_kwh=row.number("kWhRequested", 0.0),
        delivered_kwh=_delivered(row, "kWhRequested", "kWhDelivered"),
        socket=row.text("stationID"),
        session_id=row.text("sessionID"),
        claimed=bool(inputs),
        revised=len(inputs) > 1,
    )


def _zone(row: Fields) -> ZoneInfo:
    try:
        return ZoneInfo(row.text("timezone"))
    except (KeyError, ValueError, OSError):
        raise row.error(
            "timezone",
            "is not a known time zone",
            "write one such as America/Los_Angeles (where all fail: pip install tzdata)",
        ) from None


def _zoned_time(row: Fields, column: str, zone: ZoneInfo) -> Moment:
    """Parse "Wed, 25 Apr 2018 11:08:04 GMT" (or ISO 8601 with offset) into the zone's time."""
    try:
        time = _iso_or_http(row.text(column))
        if time.tzinfo is not None:
            return moment(time.astimezone(zone))
    except (ValueError, TypeError, OverflowError):
        pass
    raise row.error(column, "is not a time with offset", "write a time such as Wed, 25 Apr 2018 11:08:04 GMT")


def _iso_or_http(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return email.utils.parsedate_to_datetime(text)
