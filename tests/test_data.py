"""Sessions and prices from files: every rule, every error, and the real files of ../shared/data."""

import ast
import csv
import gzip
import json
import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

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

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

ACN_HEADER = (
    "arrival,departure,requested_energy (kWh),delivered_energy (kWh),station_id,session_id,estimated_departure,claimed"
)
PLAIN_HEADER = "arrival,departure,energy_kwh"
ALL_HEADER = f"{PLAIN_HEADER},socket,declared_departure,battery_kwh,arrival_soc,max_kw"
EMBER_HEADER = "Country,Datetime (UTC),Datetime (Local),Price (EUR/MWhe)"


def real_file(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real file {path} is not on this machine")
    return path


def write(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def sessions(folder: Path, header: str, *rows: str) -> SessionTable:
    return load_sessions(write(folder, "\n".join([header, *rows]) + "\n"))


def acn_row(
    arrival: str = "2019-09-02 08:00:00-07:00",
    departure: str = "2019-09-02 10:00:00-07:00",
    requested: str = "10",
    delivered: str = "9",
    station: str = "A",
    session: str = "s1",
    declared: str = "2019-09-02 11:00:00-07:00",
    claimed: str = "True",
) -> str:
    return ",".join((arrival, departure, requested, delivered, station, session, declared, claimed))


def acn_item(**changes: object) -> dict[str, object]:
    item = {
        "connectionTime": "Wed, 25 Apr 2018 11:08:04 GMT",
        "disconnectTime": "Wed, 25 Apr 2018 13:20:10 GMT",
        "doneChargingTime": None,
        "kWhDelivered": 7.932,
        "stationID": "2-39-79-378",
        "sessionID": "2_39_79_378_1",
        "timezone": "America/Los_Angeles",
        "userInputs": [{"kWhRequested": 12.5, "requestedDeparture": "Wed, 25 Apr 2018 14:08:04 GMT"}],
    }
    return item | changes


def acn_json(folder: Path, *items: dict[str, object]) -> Path:
    return write(folder, json.dumps({"_items": items, "_meta": {}}), "sessions.json")


def counted(report: dict[str, int]) -> dict[str, int]:
    """The report without its two totals."""
    return dict(list(report.items())[2:])


# ---------------------------------------------------------------- sessions: formats


def test_acn_csv_columns_arrive_in_the_table(tmp_path: Path) -> None:
    table = sessions(tmp_path, ACN_HEADER, acn_row())
    assert table.day.tolist() == [date(2019, 9, 2).toordinal()]
    assert table.arrival_h.tolist() == [8.0]  # the row's own wall clock, not UTC
    assert table.stay_h.tolist() == [2.0]
    assert table.declared_stay_h.tolist() == [3.0]
    assert (table.energy_kwh[0], table.delivered_kwh[0]) == (10.0, 9.0)
    assert table.socket.tolist() == ["A"]
    assert np.isnan([table.battery_kwh[0], table.arrival_soc[0], table.max_kw[0]]).all()
    assert table.report == {"rows": 1, "kept": 1}
    assert table.source.endswith("data.csv")
    assert table.day.dtype == np.int64 and len(table) == 1


def test_acn_json_is_local_time_of_its_zone(tmp_path: Path) -> None:
    table = load_sessions(acn_json(tmp_path, acn_item()))
    assert table.day.tolist() == [date(2018, 4, 25).toordinal()]
    assert table.arrival_h[0] == pytest.approx(4 + 8 / 60 + 4 / 3600, abs=1e-12)  # UTC-7
    assert table.stay_h[0] == pytest.approx(2 + 12 / 60 + 6 / 3600, abs=1e-12)
    assert table.declared_stay_h[0] == pytest.approx(3.0, abs=1e-12)
    assert (table.energy_kwh[0], table.delivered_kwh[0]) == (12.5, 7.932)
    assert table.socket.tolist() == ["2-39-79-378"]
    assert counted(table.report) == {}


def test_acn_json_without_inputs_uses_what_happened(tmp_path: Path) -> None:
    table = load_sessions(acn_json(tmp_path, acn_item(userInputs=None)))
    assert table.energy_kwh[0] == table.delivered_kwh[0] == 7.932
    assert table.declared_stay_h[0] == table.stay_h[0]
    assert counted(table.report) == {"request_missing": 1, "declared_missing": 1, "unclaimed": 1}


def test_acn_json_takes_the_first_of_revised_inputs(tmp_path: Path) -> None:
    inputs = [{"kWhRequested": 20.0}, {"kWhRequested": 5.0}]
    table = load_sessions(acn_json(tmp_path, acn_item(userInputs=inputs)))
    assert table.energy_kwh.tolist() == [20.0]
    assert table.report["inputs_revised"] == 1


def test_bare_list_of_items_and_iso_times_are_read(tmp_path: Path) -> None:
    item = acn_item(connectionTime="2018-04-25T11:08:04+00:00")
    table = load_sessions(write(tmp_path, json.dumps([item]), "items.json"))
    assert table.arrival_h[0] == pytest.approx(4 + 8 / 60 + 4 / 3600, abs=1e-12)


def test_json_stay_across_clock_change_is_elapsed_time(tmp_path: Path) -> None:
    item = acn_item(  # 22:00 PDT to 06:00 PST, the clock goes back at 02:00
        connectionTime="Sun, 04 Nov 2018 05:00:00 GMT",
        disconnectTime="Sun, 04 Nov 2018 14:00:00 GMT",
        userInputs=None,
    )
    table = load_sessions(acn_json(tmp_path, item))
    assert table.day.tolist() == [date(2018, 11, 3).toordinal()]
    assert (table.arrival_h[0], table.stay_h[0]) == (22.0, 9.0)


def test_plain_csv_with_every_column(tmp_path: Path) -> None:
    row = "2024-05-01T18:30,2024-05-02T07:00,22,S1,2024-05-02T08:00,60,0.25,11"
    table = sessions(tmp_path, ALL_HEADER, row)
    assert (table.arrival_h[0], table.stay_h[0], table.declared_stay_h[0]) == (18.5, 12.5, 13.5)
    assert (table.battery_kwh[0], table.arrival_soc[0], table.max_kw[0]) == (60.0, 0.25, 11.0)
    assert table.socket.tolist() == ["S1"] and math.isnan(table.delivered_kwh[0])
    assert counted(table.report) == {}


def test_plain_csv_with_required_columns_only(tmp_path: Path) -> None:
    table = sessions(tmp_path, PLAIN_HEADER, "2024-05-01 18:30,2024-05-01 20:30,5")
    assert table.declared_stay_h.tolist() == [2.0] and table.socket.tolist() == [""]
    assert np.isnan([table.battery_kwh[0], table.arrival_soc[0], table.max_kw[0]]).all()
    assert counted(table.report) == {"declared_missing": 1}


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".dat"])
def test_gzipped_sessions_are_known_by_content(tmp_path: Path, ending: str) -> None:
    text = f"{ACN_HEADER}\n{acn_row()}\n"
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(text.encode()))
    assert load_sessions(path).energy_kwh.tolist() == [10.0]


def test_gzipped_json_and_prices(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"_items": [acn_item()]}).encode()))
    assert load_sessions(str(path)).energy_kwh.tolist() == [12.5]
    path = tmp_path / "p.csv.gz"
    path.write_bytes(gzip.compress(plain_prices(naive_hours("2024-05-01", 24)).encode()))
    assert len(load_prices(path)) == 1


def test_byte_order_mark_blank_lines_and_spaced_header_are_read(tmp_path: Path) -> None:
    text = "\ufeffarrival, departure ,energy_kwh\r\n\r\n2024-05-01 18:00,2024-05-01 19:00, 5 \r\n"
    assert load_sessions(write(tmp_path, text)).energy_kwh.tolist() == [5.0]


def test_sessions_are_sorted_by_local_arrival(tmp_path: Path) -> None:
    rows = [
        f"2024-05-0{day} {hour}:00,2024-05-09 10:00,{energy}"
        for day, hour, energy in ((2, "07", 3), (1, "19", 2), (1, "18", 1))
    ]
    table = sessions(tmp_path, PLAIN_HEADER, *rows)
    assert table.energy_kwh.tolist() == [1.0, 2.0, 3.0]
    assert np.diff(table.day).tolist() == [0, 1]


def test_the_table_cannot_be_changed(tmp_path: Path) -> None:
    table = sessions(tmp_path, ACN_HEADER, acn_row())
    with pytest.raises(ValueError, match="read-only"):
        table.energy_kwh[0] = 1.0


# ---------------------------------------------------------------- sessions: counted rules

GOOD = acn_row(session="good", station="other")


@pytest.mark.parametrize(
    ("row", "report"),
    [
        (acn_row(requested="0"), {"dropped_zero_energy": 1}),
        (acn_row(departure="2019-09-02 08:00:00-07:00"), {"dropped_short_stay": 1}),
        (acn_row(departure="2019-09-02 08:00:59-07:00"), {"dropped_short_stay": 1}),
        (acn_row(session="good"), {"dropped_duplicate_session": 1}),
    ],
)
def test_dirt_is_dropped_and_counted(tmp_path: Path, row: str, report: dict[str, int]) -> None:
    table = sessions(tmp_path, ACN_HEADER, GOOD, row)
    assert table.report == {"rows": 2, "kept": 1} | report
    assert table.socket.tolist() == ["other"]


@pytest.mark.parametrize(
    ("row", "report"),
    [
        (acn_row(departure="2019-09-03 08:00:01-07:00"), {"longer_than_a_day": 1}),
        (acn_row(departure="2019-09-03 08:00:00-07:00"), {}),
        (acn_row(departure="2019-09-02 08:01:00-07:00", requested="0.8", delivered="0.5"), {}),
        (acn_row(requested="100.1", delivered="9"), {"requests_beyond_power": 1}),
        (acn_row(requested="100", delivered="9"), {}),
        (acn_row(delivered="10.5"), {"delivered_beyond_request": 1}),
        (acn_row(requested=""), {"request_missing": 1}),
        (acn_row(delivered=""), {}),
        (acn_row(declared=""), {"declared_missing": 1}),
        (acn_row(declared="2019-09-02 07:59:59-07:00"), {"declared_before_arrival": 1}),
        (acn_row(declared="2019-09-02 08:00:00-07:00"), {"declared_before_arrival": 1}),
        (acn_row(claimed="False"), {"unclaimed": 1}),
        (acn_row(session="", station=""), {}),
    ],
)
def test_unusual_sessions_are_kept_and_counted(tmp_path: Path, row: str, report: dict[str, int]) -> None:
    table = sessions(tmp_path, ACN_HEADER, GOOD, row)
    assert table.report == {"rows": 2, "kept": 2} | report


def test_a_replaced_declared_departure_is_the_true_one(tmp_path: Path) -> None:
    table = sessions(tmp_path, ACN_HEADER, acn_row(declared="2019-09-02 07:00:00-07:00"))
    assert table.declared_stay_h.tolist() == table.stay_h.tolist() == [2.0]


def test_missing_request_falls_back_to_delivered(tmp_path: Path) -> None:
    assert sessions(tmp_path, ACN_HEADER, acn_row(requested="")).energy_kwh.tolist() == [9.0]


@pytest.mark.parametrize(("second", "overlaps"), [("09:59", 1), ("10:00", 0)], ids=["inside", "at the end"])
def test_overlaps_on_one_socket_are_counted(tmp_path: Path, second: str, overlaps: int) -> None:
    later = acn_row(f"2019-09-02 {second}:00-07:00", "2019-09-02 12:00:00-07:00", session="s2")
    table = sessions(tmp_path, ACN_HEADER, later, acn_row())
    assert len(table) == 2 and table.report.get("overlaps_on_socket", 0) == overlaps


def test_overlap_is_seen_behind_a_short_session(tmp_path: Path) -> None:
    rows = [
        "2024-05-01 08:00,2024-05-01 20:00,5,A",
        "2024-05-01 09:00,2024-05-01 10:00,5,A",
        "2024-05-01 11:00,2024-05-01 12:00,5,A",  # only the first is still there
        "2024-05-01 11:00,2024-05-01 12:00,5,B",
        "2024-05-01 08:00,2024-05-01 20:00,5,",
        "2024-05-01 09:00,2024-05-01 20:00,5,",
    ]
    table = sessions(tmp_path, f"{PLAIN_HEADER},socket", *rows)
    assert table.report["overlaps_on_socket"] == 2


@pytest.mark.parametrize(
    ("cells", "key"),
    [
        ("22.1,S,,,,11", "requests_beyond_power"),
        ("46,S,,60,0.25,", "requests_beyond_battery"),
        ("61,S,,60,,", "requests_beyond_battery"),
    ],
)
def test_the_cars_own_limits_are_compared(tmp_path: Path, cells: str, key: str) -> None:
    table = sessions(tmp_path, ALL_HEADER, f"2024-05-01 18:00,2024-05-01 20:00,{cells}")
    assert counted(table.report) == {key: 1, "declared_missing": 1}


def test_columns_nobody_reads_are_counted(tmp_path: Path) -> None:
    header = f"{PLAIN_HEADER},note,max_kW"
    table = sessions(tmp_path, header, "2024-05-01 18:00,2024-05-01 20:00,5,x,7")
    assert table.report["columns_ignored"] == 2 and math.isnan(table.max_kw[0])


def test_rows_are_kept_or_dropped_once(tmp_path: Path) -> None:
    both = acn_row(departure="2019-09-02 08:00:00-07:00", requested="0", session="good")
    table = sessions(tmp_path, ACN_HEADER, GOOD, both)
    dropped = sum(n for key, n in table.report.items() if key.startswith("dropped_"))
    assert table.report["rows"] == table.report["kept"] + dropped == 2


# ---------------------------------------------------------------- sessions: errors

BAD_ACN = [
    (acn_row(departure="2019-09-02 07:59:59-07:00"), "departure", "is before the arrival"),
    (acn_row(requested="-1"), "requested_energy (kWh)", "at least 0; correct it or delete"),
    (acn_row(delivered="-0.1"), "delivered_energy (kWh)", "at least 0; correct it or delete"),
    (acn_row(requested="nan"), "requested_energy (kWh)", "is not a number; write a number"),
    (acn_row(requested="inf"), "requested_energy (kWh)", "is not a number; write a number"),
    (acn_row(requested="1_000"), "requested_energy (kWh)", "is not a number; write a number"),
    (acn_row(requested="ten"), "requested_energy (kWh)", "'ten' is not a number; write"),
    (acn_row(requested="", delivered=""), "requested_energy (kWh)", "write one of them in kWh"),
    (acn_row(arrival="yesterday"), "arrival", "'yesterday' is not a time; write ISO 8601"),
    (acn_row(departure=""), "departure", "is empty; write ISO 8601"),
    (acn_row(declared="soon"), "estimated_departure", "is not a time; write ISO 8601"),
    (acn_row(arrival="0001-01-01 00:00:00+07:00"), "arrival", "is not a time; write ISO"),
    (acn_row(departure="2019-09-02 10:00:00"), "departure", "give every time an offset, or none"),
    (acn_row(declared="2019-09-02 10:00:00"), "estimated_departure", "give every time an offset"),
]


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(("row", "column", "text"), BAD_ACN)
def test_a_bad_cell_is_one_line(tmp_path: Path, row: str, column: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        sessions(tmp_path, ACN_HEADER, GOOD, row)
    message = one_line(error)
    assert f"{tmp_path / 'data.csv'}: row 3, column '{column}'" in message
    assert text in message


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("energy_kwh", "", "is empty; write the energy in kWh"),
        ("energy_kwh", "-3", "at least 0"),
        ("arrival_soc", "35", "at least 0 and at most 1"),
        ("battery_kwh", "0", "greater than 0"),
        ("max_kw", "-7", "greater than 0"),
        ("declared_departure", "tonight", "is not a time"),
        ("arrival", "2024-05-01 18:00Z", "give every time an offset, or none"),
    ],
)
def test_a_bad_plain_cell_is_one_line(tmp_path: Path, column: str, value: str, text: str) -> None:
    cells = {"arrival": "2024-05-01 18:00", "departure": "2024-05-01 20:00", "energy_kwh": "5"}
    good = ",".join(cells.get(name, "") for name in ALL_HEADER.split(","))
    bad = ",".join((cells | {column: value}).get(name, "") for name in ALL_HEADER.split(","))
    with pytest.raises(UserError) as error:
        sessions(tmp_path, ALL_HEADER, good, bad)
    message = one_line(error)
    assert "data.csv: row 3, column " in message and text in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; give a file"),
        (" \n\n", "is empty; give a file"),
        (f"{ACN_HEADER}\n", "no rows; give data"),
        (ACN_HEADER.replace("session_id,", "") + "\n1\n", "row 1: missing column 'session_id'"),
        ("arrival,departure\n1,2\n", "row 1: missing column 'energy_kwh'"),
        ("arrival;departure;energy_kwh\n1;2;3\n", "separate by commas"),
        ("arrival,arrival,departure\n1,2,3\n", "'arrival' occurs twice; keep one"),
        (f"{PLAIN_HEADER}\n2024-05-01 18:00,5\n", "row 2: 2 cells where the header has 3; repair"),
        (f'{PLAIN_HEADER}\n"2024-05-01,2,3\n', "is not readable as CSV"),
        (f"{ACN_HEADER}\n{acn_row(requested='0')}\n", "none of 1 rows is usable (dropped_zero"),
        ("{]", "is not JSON"),
        ("{}", "has no '_items' list of sessions; give"),
        ('{"_items": [3]}', "has no '_items' list of sessions; give"),
        ("[]", "'_items' is empty; give"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_sessions(path)
    message = one_line(error)
    assert message.startswith(f"{path}: ") and words in message


@pytest.mark.parametrize(
    ("changes", "column", "text"),
    [
        ({"connectionTime": None}, "connectionTime", "is not a time with offset; write"),
        ({"connectionTime": "2018-04-25 11:08"}, "connectionTime", "is not a time with offset"),
        ({"disconnectTime": "Wed, 25 Apr 2018 11:08:03 GMT"}, "disconnectTime", "is before"),
        ({"timezone": "Mars/Base"}, "timezone", "write one such as America/Los_Angeles"),
        ({"timezone": None}, "timezone", "write one such as America/Los_Angeles"),
        ({"kWhDelivered": -1.0}, "kWhDelivered", "at least 0"),
        ({"kWhDelivered": float("nan")}, "kWhDelivered", "is not a number"),
        ({"kWhDelivered": True}, "kWhDelivered", "is not a number"),
        ({"kWhDelivered": None, "userInputs": None}, "kWhRequested", "write one of them"),
        ({"userInputs": [{"kWhRequested": "many"}]}, "kWhRequested", "'many' is not a number"),
        ({"userInputs": "none"}, "userInputs", "is not a list of inputs; repair"),
    ],
)
def test_a_bad_json_item_is_one_line(tmp_path: Path, changes: dict[str, object], column: str, text: str) -> None:
    path = acn_json(tmp_path, acn_item(), acn_item(sessionID="2", **changes))
    with pytest.raises(UserError) as error:
        load_sessions(path)
    message = one_line(error)
    assert f"{path}: item 2, column '{column}'" in message and text in message


def test_a_json_ending_means_json(tmp_path: Path) -> None:
    path = write(tmp_path, "oops, a page of the proxy", "sessions.json")
    with pytest.raises(UserError, match=r"sessions\.json: is not JSON"):
        load_sessions(path)


@pytest.mark.parametrize("load", [load_sessions, load_prices])
def test_unreadable_files_name_the_path(tmp_path: Path, load: Callable[[Path], SessionTable | PriceTable]) -> None:
    damaged, binary = tmp_path / "damaged.gz", tmp_path / "binary.csv"
    damaged.write_bytes(gzip.compress(b"arrival,departure\n" * 99)[:-9])
    binary.write_bytes(b"arrival\xff\xfe,departure")
    reasons = {
        tmp_path / "absent.csv": "cannot be read (No such file or directory); check the path",
        tmp_path: "cannot be read",
        damaged: "the gzip data is damaged; fetch",
        binary: "byte 7 is not UTF-8 text; save it as UTF-8",
    }
    for path, words in reasons.items():
        with pytest.raises(UserError) as error:
            load(path)
        assert f"{path}: " in one_line(error) and words in str(error.value)


# ---------------------------------------------------------------- sessions: presence


def test_presence_is_the_mean_over_all_days(tmp_path: Path) -> None:
    table = sessions(
        tmp_path,
        PLAIN_HEADER,
        "2024-05-01 22:30,2024-05-02 01:00,5",
        "2024-05-04 22:00,2024-05-06 22:00,5",  # two whole days; 2 and 3 May are empty
    )
    expected = np.full(24, 2 / 4)
    expected[22] += 0.5 / 4
    expected[[23, 0]] += 1 / 4
    np.testing.assert_allclose(presence_by_hour(table), expected, atol=1e-12)
    assert presence_by_hour(table).sum() == pytest.approx(table.stay_h.sum() / 4)


# ---------------------------------------------------------------- prices: helpers


def naive_hours(start: str, hours: int, step_min: int = 60) -> list[str]:
    first = datetime.fromisoformat(start)
    count = hours * 60 // step_min
    return [str(first + timedelta(minutes=step_min * i)) for i in range(count)]


def plain_prices(times: list[str], prices: list[float] | None = None, column: str = "price_usd_kwh") -> str:
    values = prices if prices is not None else [float(i) for i in range(len(times))]
    rows = [f"{time},{value!r}" for time, value in zip(times, values, strict=True)]
    return "\n".join([f"time,{column}", *rows]) + "\n"


def zoned(start: str, hours: int, zone: str = "Europe/Amsterdam", step_min: int = 60) -> list[str]:
    """Times with offsets from local midnight on, in steps of true time."""
    first = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo("UTC"))
    count = hours * 60 // step_min
    steps = (first + timedelta(minutes=step_min * i) for i in range(count))
    return [str(time.astimezone(ZoneInfo(zone))) for time in steps]


def ember(times: list[str], prices: list[float]) -> str:
    rows = []
    for time, value in zip(times, prices, strict=True):
        local = datetime.fromisoformat(time)
        utc = local.astimezone(ZoneInfo("UTC")).replace(tzinfo=None)
        rows.append(f"Netherlands,{utc},{local.replace(tzinfo=None)},{value!r}")
    return "\n".join([EMBER_HEADER, *rows]) + "\n"


def prices(folder: Path, text: str, **options: float) -> PriceTable:
    return load_prices(write(folder, text, "price.csv"), **options)


def hourly(table: PriceTable, row: int = 0) -> list[float]:
    """One day's 24 prices; fails where a quarter differs from its hour."""
    day = table.price_usd_kwh[row].reshape(24, 4)
    assert (day == day[:, :1]).all()
    return day[:, 0].tolist()


# ---------------------------------------------------------------- prices: formats, units, steps


@pytest.mark.parametrize(
    ("column", "usd_kwh"),
    [
        ("price_usd_kwh", 50.0),
        ("price_usd_mwh", 0.05),
        ("price_eur_kwh", 100.0),
        ("price_eur_mwh", 0.1),
    ],
)
def test_units_become_usd_per_kwh(tmp_path: Path, column: str, usd_kwh: float) -> None:
    text = plain_prices(naive_hours("2024-05-01", 24), [50.0] * 24, column)
    table = prices(tmp_path, text, usd_per_eur=2.0)
    np.testing.assert_allclose(table.price_usd_kwh, usd_kwh, rtol=1e-15)
    assert table.day.tolist() == [date(2024, 5, 1).toordinal()]
    assert table.report == {"rows": 24, "days": 1}


def test_ember_format_is_local_days(tmp_path: Path) -> None:
    text = ember(zoned("2022-05-01", 48), [float(i) for i in range(48)])
    table = prices(tmp_path, text)
    assert table.day.tolist() == [date(2022, 5, 1).toordinal(), date(2022, 5, 2).toordinal()]
    expected = np.arange(48.0).reshape(2, 24).repeat(4, axis=1) * 1.08 / 1000
    np.testing.assert_allclose(table.price_usd_kwh, expected, rtol=1e-15)
    assert table.report == {"rows": 48, "days": 2}


@pytest.mark.parametrize("step_min", [15, 30, 60])
def test_steps_are_held_over_their_quarters(tmp_path: Path, step_min: int) -> None:
    times = naive_hours("2024-05-01", 24, step_min)
    table = prices(tmp_path, plain_prices(times))
    expected = np.arange(float(len(times))).repeat(step_min // 15)
    assert table.price_usd_kwh[0].tolist() == expected.tolist()


def test_half_hour_zones_keep_their_quarters(tmp_path: Path) -> None:
    times = [f"2024-05-01 {h:02d}:30:00+05:30" for h in range(24)]
    times.insert(0, "2024-04-30 23:30:00+05:30")
    table = prices(tmp_path, plain_prices(times))
    assert table.price_usd_kwh[0, :7].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 2.0]


def test_negative_prices_are_kept_and_counted(tmp_path: Path) -> None:
    values = [-0.2, -0.1] + [0.1] * 22
    table = prices(tmp_path, plain_prices(naive_hours("2024-05-01", 24), values))
    assert hourly(table) == values
    assert counted(table.report) == {"negative_prices": 2}


def test_unsorted_rows_are_sorted_and_counted(tmp_path: Path) -> None:
    times, values = naive_hours("2024-05-01", 24), [float(i) for i in range(24)]
    times[3], times[4], values[3], values[4] = times[4], times[3], values[4], values[3]
    table = prices(tmp_path, plain_prices(times, values))
    assert hourly(table) == [float(i) for i in range(24)]
    assert counted(table.report) == {"unsorted_rows": 1}


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    times, values = naive_hours("2024-05-01", 24), [float(i) for i in range(24)]
    table = prices(tmp_path, plain_prices([*times, times[5]], [*values, 5.0]))
    assert hourly(table) == values
    assert counted(table.report) == {"unsorted_rows": 1, "duplicate_rows": 1}


def test_incomplete_edge_days_are_dropped_and_counted(tmp_path: Path) -> None:
    table = prices(tmp_path, plain_prices(naive_hours("2024-05-01 23:00", 26)))
    assert table.day.tolist() == [date(2024, 5, 2).toordinal()]
    assert hourly(table) == [float(i) for i in range(1, 25)]
    assert counted(table.report) == {"incomplete_edge_days": 2}


# ---------------------------------------------------------------- prices: gaps


@pytest.mark.parametrize("missing", [1, 3])
def test_short_gaps_are_interpolated_and_counted(tmp_path: Path, missing: int) -> None:
    times, values = naive_hours("2024-05-01", 24), [float(i) for i in range(24)]
    values[10:] = [100.0 + i for i in range(14)]
    text = plain_prices(times[: 10 - missing] + times[10:], values[: 10 - missing] + values[10:])
    table = prices(tmp_path, text)
    last = 9 - missing
    expected = [last + (100.0 - last) * i / (missing + 1) for i in range(missing + 2)]
    np.testing.assert_allclose(hourly(table)[last:11], expected, rtol=1e-12)
    assert counted(table.report) == {"filled_steps": missing, "filled_gaps": 1}


def test_a_gap_across_the_clock_change_is_measured_in_true_time(tmp_path: Path) -> None:
    times, values = zoned("2022-03-27", 23), [float(i) for i in range(23)]
    text = plain_prices(times[:1] + times[4:], values[:1] + values[4:])  # 01:00 to 04:00 summer
    table = prices(tmp_path, text, fill_h=3.0)  # 4 h on the wall, 3 h in truth
    assert counted(table.report) == {
        "filled_steps": 3, "filled_gaps": 1, "dst_missing_hours": 1
    }  # fmt: skip
    assert hourly(table)[:2] == [0.0, 1.0] and hourly(table)[5:7] == [4.0, 5.0]


def test_a_longer_gap_names_row_start_length_and_remedy(tmp_path: Path) -> None:
    times = naive_hours("2024-05-01", 24)
    text = plain_prices(times[:6] + times[10:])
    with pytest.raises(UserError) as error:
        prices(tmp_path, text)
    message = one_line(error)
    assert "price.csv: row 8, column 'time': '2024-05-01 10:00:00'" in message
    assert "gap of 4 h that begins at 2024-05-01 06:00 local time" in message
    assert "env.price_fill_h=4 " in message
    assert counted(prices(tmp_path, text, fill_h=4.0).report)["filled_steps"] == 4


def test_a_missing_week_parts_the_file_into_periods(tmp_path: Path) -> None:
    first, second = naive_hours("2024-05-01", 25), naive_hours("2024-05-09 01:00", 47)
    table = prices(tmp_path, plain_prices(first + second))
    days = [date(2024, 5, 1).toordinal(), date(2024, 5, 10).toordinal()]
    assert table.day.tolist() == days
    assert counted(table.report) == {"incomplete_edge_days": 2, "days_without_price": 8}
    filled = prices(tmp_path, plain_prices(first + second), fill_h=168.0)
    assert len(filled) == 10 and filled.report["filled_steps"] == 168
    with pytest.raises(UserError, match=r"gap of 167 h"):
        prices(tmp_path, plain_prices(first + naive_hours("2024-05-09 00:00", 48)))


# ---------------------------------------------------------------- prices: clock changes


@pytest.mark.parametrize("form", ["ember", "offset", "naive"])
@pytest.mark.parametrize("step_min", [15, 30, 60])
@pytest.mark.parametrize(
    ("day", "hours", "hour", "zone"),
    [
        ("2022-03-27", 23, 2, "Europe/Amsterdam"),
        ("2022-03-27", 23, 1, "Europe/London"),
        ("2022-03-13", 23, 2, "America/New_York"),
        ("2022-10-30", 25, 2, "Europe/Amsterdam"),
        ("2022-11-06", 25, 1, "America/New_York"),
    ],
)
def test_clock_changes_leave_days_of_96_quarters(
    tmp_path: Path, form: str, step_min: int, day: str, hours: int, hour: int, zone: str
) -> None:
    times = zoned(day, hours + 24, zone, step_min)
    per_hour = 60 // step_min
    values = [float(i // per_hour) for i in range(len(times))]
    if form == "ember":
        table = prices(tmp_path, ember(times, values), usd_per_eur=1000.0)
    else:
        times = [time[:19] for time in times] if form == "naive" else times
        table = prices(tmp_path, plain_prices(times, values))
    expected = [float(i) for i in range(hours)]
    if hours == 23:
        expected.insert(hour, hour - 1.0)
    else:
        expected[hour : hour + 2] = [hour + 0.5]
    assert hourly(table) == expected
    assert hourly(table, 1) == [float(hours + i) for i in range(24)]
    key = "dst_missing_hours" if hours == 23 else "dst_repeated_hours"
    assert counted(table.report) == {key: 1}


def test_naive_repeated_quarters_may_be_interleaved(tmp_path: Path) -> None:
    times = sorted(time[:19] for time in zoned("2022-10-30", 25, step_min=15))
    values = [float(i) for i in range(100)]
    table = prices(tmp_path, plain_prices(times, values))
    assert table.price_usd_kwh[0, 7:13].tolist() == [7.0, 8.5, 10.5, 12.5, 14.5, 16.0]
    assert counted(table.report) == {"dst_repeated_hours": 1}


def test_naive_hour_three_times_is_a_duplicate(tmp_path: Path) -> None:
    times = [time[:19] for time in zoned("2022-10-30", 25)]
    times, values = [*times[:3], times[2], *times[3:]], [1.0] * 26
    report = prices(tmp_path, plain_prices(times, values)).report
    assert counted(report) == {"duplicate_rows": 1, "dst_repeated_hours": 1}
    values[4] = 2.0
    with pytest.raises(UserError, match=r"row 6, .* another price in row 5; delete one"):
        prices(tmp_path, plain_prices(times, values))


@pytest.mark.parametrize("day", ["2022-03-20", "2022-03-28"], ids=["third Sunday", "Monday"])
def test_naive_missing_hour_on_another_day_is_a_gap(tmp_path: Path, day: str) -> None:
    times = naive_hours(day, 24)
    table = prices(tmp_path, plain_prices(times[:2] + times[3:]))
    assert counted(table.report) == {"filled_steps": 1, "filled_gaps": 1}


def test_naive_file_without_clock_changes_is_taken_as_it_is(tmp_path: Path) -> None:
    table = prices(tmp_path, plain_prices(naive_hours("2022-10-30", 24)))
    assert hourly(table) == [float(i) for i in range(24)] and counted(table.report) == {}


# ---------------------------------------------------------------- prices: errors


def change_price(i: int, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:i], f"{lines[i].split(',')[0]},{new}", *lines[i + 1 :]]


def change_time(i: int, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:i], f"{new},1.0", *lines[i + 1 :]]


@pytest.mark.parametrize(
    ("edit", "where", "text"),
    [
        (change_price(4, "n/e"), "row 5, column 'price_usd_kwh'", "'n/e' is not a number; write"),
        (change_price(4, "nan"), "row 5, column 'price_usd_kwh'", "'nan' is not a number; write"),
        (change_price(4, ""), "row 5, column 'price_usd_kwh'", "is empty; write the price, or"),
        (change_time(4, "noon"), "row 5, column 'time'", "'noon' is not a time; write ISO"),
        (change_time(4, ""), "row 5, column 'time'", "is empty; write ISO"),
        (change_time(4, "2024-05-01 03:07"), "row 5, column 'time'", "quarter of an hour; correct"),
        (change_time(4, "2024-05-01 03:15"), "row 5, column 'time'", "is 75 min after row 4"),
        (change_time(4, "2024-05-01 02:00"), "row 5, column 'time'", "another price in row 4; del"),
        (change_time(4, "2024-05-01 03:00Z"), "row 5, column 'time'", "give every time an offset"),
        (lambda lines: ["when,price_usd_kwh", *lines[1:]], "row 1", "missing column 'time'"),
        (lambda lines: ["time,cost", *lines[1:]], "row 1", "no price column"),
        (lambda lines: lines[:1], "price.csv", "no rows; give"),
        (lambda lines: lines[:2], "price.csv", "single time; give steps of 15, 30 or 60"),
        (
            lambda lines: lines[:20],
            "row 2, column 'time'",
            "19 rows without a complete local day; give",
        ),
        (lambda lines: lines[:1] + lines[1::2], "price.csv", "is 120 min; give steps of 15"),
    ],
)
def test_a_bad_price_file_is_one_line(
    tmp_path: Path, edit: Callable[[list[str]], list[str]], where: str, text: str
) -> None:
    lines = plain_prices(naive_hours("2024-05-01", 24)).splitlines()
    with pytest.raises(UserError) as error:
        prices(tmp_path, "\n".join(edit(lines)) + "\n")
    message = one_line(error)
    assert message.startswith(str(tmp_path / "price.csv"))
    assert where in message and text in message


def test_a_mistyped_year_is_no_period_of_its_own(tmp_path: Path) -> None:
    times = naive_hours("2024-05-01", 48)
    times[30] = "2042" + times[30][4:]
    with pytest.raises(UserError, match=r"row 32, .* period of 1 rows without a complete"):
        prices(tmp_path, plain_prices(times))


def test_two_price_columns_are_ambiguous(tmp_path: Path) -> None:
    text = "time,price_usd_kwh,price_eur_kwh\n2024-05-01 00:00,1,1\n"
    with pytest.raises(UserError, match=r"row 1: 2 price columns .* give exactly one of"):
        prices(tmp_path, text)


def test_mixed_steps_are_refused(tmp_path: Path) -> None:
    times = naive_hours("2024-05-01", 24) + naive_hours("2024-05-02", 24, 15)
    with pytest.raises(UserError, match=r"row 3.* 60 min after row 2 in a file of 15-min steps"):
        prices(tmp_path, plain_prices(times))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("Netherlands,2022-05-01 01", "Belgium,2022-05-01 01", "row 5, column 'Country'"),
        ("01:00:00,2022-05-01 03", "01:00:00,2022-05-04 03", "row 5, column 'Datetime (Local)'"),
        ("01:00:00,2022-05-01 03", "01:00:00,2022-05-01 06", "changes the UTC offset by 3 h"),
        ("01:00:00,2022-05-01 03:00", "01:00:00,2022-05-01 03:07", "on a quarter of an hour"),
        ("Price (EUR/MWhe)", "Price", "missing column 'Price (EUR/MWhe)'"),
        ("Datetime (UTC)", "Datetime", "missing column 'Datetime (UTC)'"),
    ],
)
def test_a_bad_ember_file_is_one_line(tmp_path: Path, old: str, new: str, text: str) -> None:
    good = ember(zoned("2022-05-01", 24), [1.0] * 24)
    assert good.count(old) == 1
    with pytest.raises(UserError) as error:
        prices(tmp_path, good.replace(old, new))
    assert text in one_line(error) and "price.csv: row " in str(error.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"usd_per_eur": 0.0}, "usd_per_eur=0.0"),
        ({"usd_per_eur": math.nan}, "usd_per_eur=nan"),
        ({"usd_per_eur": math.inf}, "usd_per_eur=inf"),
        ({"fill_h": -1.0}, "env.price_fill_h=-1.0"),
        ({"fill_h": math.nan}, "env.price_fill_h=nan"),
    ],
)
def test_bad_price_options_are_refused(tmp_path: Path, options: dict[str, float], text: str) -> None:
    with pytest.raises(UserError, match=text):
        prices(tmp_path, plain_prices(naive_hours("2024-05-01", 24)), **options)


# ---------------------------------------------------------------- windows


def table_of(days: list[int]) -> PriceTable:
    price = np.arange(96.0 * len(days)).reshape(len(days), 96)
    return PriceTable(np.array(days, dtype=np.int64), price, "made up", {})


def test_windows_run_across_midnight(tmp_path: Path) -> None:
    times = naive_hours("2024-05-01", 72)
    table = prices(tmp_path, plain_prices(times))
    days, window = price_days(table, start_h=18.0, dt_h=1.0, stages=24)
    assert days.tolist() == table.day[:2].tolist()
    assert window.tolist() == [[18.0 + d * 24 + i for i in range(24)] for d in range(2)]


def test_windows_that_end_at_midnight_need_no_further_day() -> None:
    days, window = price_days(table_of([5, 6]), start_h=12.0, dt_h=0.25, stages=48)
    assert days.tolist() == [5, 6]
    assert window[1].tolist() == [144.0 + i for i in range(48)]


def test_windows_average_or_hold_the_quarters() -> None:
    table = table_of([5])
    assert price_days(table, 0.0, 0.5, 2)[1].tolist() == [[0.5, 2.5]]
    assert price_days(table, 0.25, 1 / 12, 4)[1].tolist() == [[1.0, 1.0, 1.0, 2.0]]
    np.testing.assert_allclose(price_days(table, 0.125, 0.25, 1)[1], [[0.5]])


def test_windows_skip_holes_between_days() -> None:
    table = table_of([5, 6, 8, 9, 10])
    assert price_days(table, 12.0, 1.0, 24)[0].tolist() == [5, 8, 9]
    assert price_days(table, 12.0, 1.0, 48)[0].tolist() == [8]


@pytest.mark.parametrize(
    ("window", "text"),
    [
        ((24.0, 1.0, 24), "start_h=24.0"),
        ((-1.0, 1.0, 24), "start_h=-1.0"),
        ((0.0, 0.0, 24), "dt_h=0.0"),
        ((0.0, 1.0, 0), "stages=0"),
        ((0.0, 1.0, 49), "made up: none of 2 days starts a window of 49 x 1 h"),
    ],
)
def test_impossible_windows_are_refused(window: tuple[float, float, int], text: str) -> None:
    with pytest.raises(UserError, match=text):
        price_days(table_of([5, 6]), *window)


# ---------------------------------------------------------------- split


@pytest.mark.parametrize(("number", "share", "held"), [(4, 0.25, 1), (10, 0.25, 3), (4, 0.01, 1), (4, 0.99, 3)])
def test_split_is_by_date_and_disjoint(number: int, share: float, held: int) -> None:
    days = np.random.default_rng(3).permutation(np.arange(100, 100 + number))
    train, held_out = split_days(np.concatenate([days, days]), share)
    assert len(held_out) == held
    assert np.concatenate([train, held_out]).tolist() == list(range(100, 100 + number))


@pytest.mark.parametrize(
    ("days", "share", "text"),
    [
        ([1, 2, 3, 3], 0.25, "only 3 different days .* give data of at least 4"),
        ([1, 2, 3, 4], 0.0, "held_out_share=0.0 .* give one between 0 and 1"),
        ([1, 2, 3, 4], 1.0, "held_out_share=1.0"),
        ([1, 2, 3, 4], math.nan, "held_out_share=nan"),
    ],
)
def test_impossible_splits_are_refused(days: list[int], share: float, text: str) -> None:
    with pytest.raises(UserError, match=text):
        split_days(np.array(days), share)


def test_common_days_are_in_both() -> None:
    both = common_days(np.array([7, 3, 5, 5]), np.array([5, 8, 7]))
    assert both.tolist() == [5, 7]


def test_no_common_day_names_both_ranges() -> None:
    a = np.arange(date(2019, 9, 1).toordinal(), date(2019, 9, 5).toordinal())
    with pytest.raises(UserError) as error:
        common_days(a, a + 365)
    message = one_line(error)
    assert "4 days from 2019-09-01 to 2019-09-04" in message
    assert "4 days from 2020-08-31 to 2020-09-03" in message and "overlap in time" in message
    with pytest.raises(UserError, match="no days"):
        common_days(a, a[:0])


# ---------------------------------------------------------------- the real files


@pytest.mark.parametrize(
    ("site", "report", "sockets"),
    [
        (
            "caltech",
            {
                "rows": 3177, "kept": 3177, "longer_than_a_day": 15, "requests_beyond_power": 34,
                "delivered_beyond_request": 62, "unclaimed": 541,
            },
            51,
        ),
        (
            "jpl",
            {
                "rows": 5804, "kept": 5804, "requests_beyond_power": 25,
                "delivered_beyond_request": 654, "unclaimed": 188,
            },
            52,
        ),
    ],
)  # fmt: skip
def test_real_sessions_load_with_known_counts(site: str, report: dict[str, int], sockets: int) -> None:
    path = real_file(f"acn_{site}_2019-09_2019-12.csv.gz")
    table = load_sessions(path)
    assert table.report == report
    assert len(set(table.socket.tolist())) == sockets
    with gzip.open(path, "rt", newline="") as file:  # the same, by another way
        rows = list(csv.DictReader(file))
    assert table.arrival_h[0] == pytest.approx(clock_h(rows[0]["arrival"]), abs=1e-9)
    assert table.arrival_h[-1] == pytest.approx(clock_h(rows[-1]["arrival"]), abs=1e-9)
    assert table.energy_kwh.sum() == pytest.approx(sum(float(row["requested_energy (kWh)"]) for row in rows))
    stays = [
        datetime.fromisoformat(row["departure"]).timestamp() - datetime.fromisoformat(row["arrival"]).timestamp()
        for row in rows
    ]
    assert table.stay_h.sum() == pytest.approx(sum(stays) / 3600)


def clock_h(text: str) -> float:
    return int(text[11:13]) + int(text[14:16]) / 60 + int(text[17:19]) / 3600


def test_real_sites_are_empty_at_night() -> None:
    table = load_sessions(real_file("acn_caltech_2019-09_2019-12.csv.gz"))
    presence = presence_by_hour(table)
    assert presence.argmin() in range(7) and 12 < presence.argmax() < 16
    assert presence.sum() == pytest.approx(table.stay_h.sum() / 122)  # September to December


def test_real_prices_load_with_known_counts() -> None:
    table = load_prices(real_file("day_ahead_nl_2019_2022.csv"))
    assert table.report == {
        "rows": 17522, "days": 730, "negative_prices": 89, "dst_repeated_hours": 2,
        "dst_missing_hours": 2, "incomplete_edge_days": 2, "days_without_price": 731,
    }  # fmt: skip
    starts = [date(2019, 1, 1).toordinal(), date(2022, 1, 1).toordinal()]
    assert table.day.tolist() == [start + i for start in starts for i in range(365)]
    assert table.price_usd_kwh[0, 0] == pytest.approx(68.92 * 1.08e-3)
    nights = {date(2022, 3, 27): [221.93, 221.93, 214.02], date(2022, 10, 30): [100.49, 100.065]}
    for night, eur_mwh in nights.items():  # from 01:00 on, read off the file
        row = table.price_usd_kwh[table.day == night.toordinal()][0, 4::4]
        np.testing.assert_allclose(row[: len(eur_mwh)], np.array(eur_mwh) * 1.08e-3, rtol=1e-12)


def test_real_sessions_and_prices_share_the_autumn_of_2019() -> None:
    prices_nl = load_prices(real_file("day_ahead_nl_2019_2022.csv"))
    cars = load_sessions(real_file("acn_jpl_2019-09_2019-12.csv.gz"))
    both = common_days(price_days(prices_nl, 3.0, 0.25, 96)[0], cars.day)
    assert len(both) == len({d for d in cars.day.tolist() if d < date(2019, 12, 31).toordinal()})
    train, held_out = split_days(both)
    assert train[-1] < held_out[0] and len(train) + len(held_out) == len(both)


# ---------------------------------------------------------------- the room itself


def test_only_numpy_and_the_standard_library_are_imported() -> None:
    allowed = {"numpy", "qevgrid"}
    for path in (ROOT / "envs" / "data").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] in allowed | STANDARD, f"{path.name} imports {name}"
                assert not name.startswith("qevgrid.") or name.startswith("qevgrid.envs.")


STANDARD = set(
    "calendar collections csv dataclasses datetime email functools gzip io json "
    "math pathlib typing zlib zoneinfo".split()
)
