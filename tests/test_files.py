"""Days from files: windows, split, sockets and reports, checked by hand and on the real files."""

import os
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.envs.data import load_sessions, price_days
from qevgrid.envs.data.prices import load_prices
from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g import files
from qevgrid.envs.v2g.files import FileDays, load_days, report_lines
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.plant import build_plant
from qevgrid.envs.v2g.scenario import Sampler
from qevgrid.envs.v2g.sentences import SENTENCES

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
CALTECH, JPL = (f"acn_{site}_2019-09_2019-12.csv.gz" for site in ("caltech", "jpl"))
NL = "day_ahead_nl_2019_2022.csv"
HEADER = "arrival,departure,energy_kwh,declared_departure,battery_kwh,arrival_soc,max_kw"
MAY = date(2024, 5, 1)
PLAIN = {
    "dt_h": 1.0,
    "n_sockets": 2,
    "start_h": 0.0,
    "split": "all",
    "prices": "tou",
    "sessions": "residential",
    "charger": {"power_kw": (10.0,)},
    "session": {"battery_kwh": (50.0,), "arrival_soc": (0.4, 0.0), "soc_min": 0.1},
    "grid": {"feeder": "none"},
}
"""Hours, sockets of 10 kW (at least 4.14), batteries of 50 kWh that arrive with 20 kWh."""


def real(name: str) -> str:
    if not (SHARED / name).exists():
        pytest.skip(f"the real file {SHARED / name} is not on this machine")
    return str(SHARED / name)


def days_of(**changes: Any) -> FileDays:
    return load_days(build_plant(V2GParams(**(PLAIN | changes))))


def when(day: int, hour: float) -> str:
    """``hour`` of the ``day``-th of May 2024 (may run on into the next days)."""
    time = datetime(MAY.year, MAY.month, 1) + timedelta(days=day - 1, hours=hour)
    return time.isoformat(sep=" ", timespec="seconds")


def car(day: int, from_h: float, to_h: float, kwh: float, **known: Any) -> str:
    declared = when(day, known["declared_h"]) if "declared_h" in known else ""
    cells = [declared, *(known.get(name, "") for name in ("battery", "soc", "max_kw"))]
    return ",".join(map(str, [when(day, from_h), when(day, to_h), kwh, *cells]))


FRAME = [car(1, 12, 13, 1), car(6, 12, 13, 1)]
"""First and last day of a file that offers six windows from midnight."""


def cars_file(folder: Path, *rows: str, frame: list[str] = FRAME) -> str:
    path = folder / "cars.csv"
    path.write_text("\n".join([HEADER, *frame, *rows]) + "\n", encoding="utf-8")
    return str(path)


def prices_file(
    folder: Path,
    first: int,
    last: int,
    price: Callable[[int, int], float] = lambda d, h: d + h / 100,
) -> str:
    """Hourly prices from the ``first`` to the ``last`` of May, by default day + hour / 100."""
    rows = [f"{when(d, h)},{price(d, h)}" for d in range(first, last + 1) for h in range(24)]
    path = folder / f"prices_{first}_{last}.csv"
    path.write_text("\n".join(["time,price_usd_kwh", *rows]) + "\n", encoding="utf-8")
    return str(path)


def of_may(days: FileDays) -> list[int]:
    return [int(d) - MAY.toordinal() + 1 for d in days.day]


def visits(days: FileDays, day: int) -> list[dict[str, Any]]:
    """Sessions of the window of the ``day``-th of May, by arrival, then socket."""
    assert days.sessions is not None
    row, stages = of_may(days).index(day), 24
    arrays = days.sessions._asdict()
    found = [
        {"socket": n} | {name: array[row, n, k].item() for name, array in arrays.items()}
        for n, k in np.argwhere(days.sessions.arrival[row] < stages)
    ]
    return sorted(found, key=lambda visit: (visit["arrival"], visit["socket"]))


def counts(days: FileDays) -> dict[str, int]:
    """What was counted here, without the loaders' keys and the totals."""
    keys = list(days.report)
    own = keys[keys.index("sessions.sockets") + 1 :]
    return {k.removeprefix("sessions."): days.report[k] for k in own if k.startswith("sessions.")}


# ---------------------------------------------------------------- names and errors


def test_synthetic_kinds_need_no_file() -> None:
    assert days_of(start_h=None).start_h == 12.0
    days = days_of(start_h=7.5)
    assert (days.start_h, days.sessions, days.prices, days.report) == (7.5, None, None, {})


def error_of(**changes: Any) -> str:
    with pytest.raises(UserError) as error:
        days_of(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("sessions", "residental", ["env.sessions='residental'", "mean 'residential'?", "fleet"]),
        ("sessions", "no/such.csv", ["env.sessions='no/such.csv'", "mixed", "CSV or JSON"]),
        ("sessions", ".", ["env.sessions='.'", "neither a kind nor a file"]),
        ("prices", "day_ahed", ["env.prices='day_ahed'", "mean 'day_ahead'?", "tou", "CSV"]),
        ("prices", "no\nfile", ["env.prices='no\\nfile'"]),
    ],
)  # fmt: skip
def test_a_name_that_is_neither_kind_nor_file(key: str, value: str, parts: list[str]) -> None:
    message = error_of(**{key: value})
    assert all(part in message for part in parts), message


Setting = Callable[[Path], dict[str, Any]]
TOO_LITTLE: dict[str, tuple[Setting, list[str]]] = {
    "no complete window": (
        lambda f: {"sessions": cars_file(f, frame=[car(1, 8, 9, 1)]), "start_h": 6.0},
        ["cars.csv", "no complete window of 24 h from 6 h", "2024-05-01 to 2024-05-01", "2 days"],
    ),
    "three days of sessions": (
        lambda f: {"sessions": cars_file(f, frame=[car(1, 8, 9, 1), car(3, 8, 9, 1)])},
        ["env.sessions=", "only 3 different days", "at least 4"],
    ),
    "three days of prices": (
        lambda f: {"prices": prices_file(f, 1, 3)},
        ["env.prices=", "only 3 different days"],
    ),
    "an episode longer than the prices": (
        lambda f: {"prices": prices_file(f, 1, 6), "days": 7},
        ["env.prices=", "none of 6 days"],
    ),
    "no common date": (
        lambda f: {"sessions": cars_file(f), "prices": prices_file(f, 10, 20)},
        ["env.sessions=", "env.prices=", "2024-05-01 to 2024-05-06", "2024-05-10 to 2024-05-20",
         "overlap in time"],
    ),
    "prices for three of six days": (
        lambda f: {"sessions": cars_file(f), "prices": prices_file(f, 4, 9)},
        ["env.sessions=", "env.prices=", "only 3 different days"],
    ),
    "nothing left to train on": (
        lambda f: {"prices": prices_file(f, 1, 12), "days": 9},
        ["env.prices=", "every window of 9 days", "2024-05-04", "env.days"],
    ),
    "an empty file": (lambda f: {"sessions": cars_file(f, frame=[])}, ["cars.csv"]),
    "prices taken for sessions": (lambda f: {"sessions": prices_file(f, 1, 6)}, ["arrival"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LITTLE)
def test_too_little_is_one_line_with_the_reason(name: str, tmp_path: Path) -> None:
    setting, parts = TOO_LITTLE[name]
    message = error_of(**setting(tmp_path))
    assert all(part in message for part in parts), message


def test_a_table_picked_from_without_a_file_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="sessions"):
        days_of().pick_sessions(np.zeros(1))
    with pytest.raises(RuntimeError, match="prices"):
        days_of().pick_prices(np.zeros(1))


# ---------------------------------------------------------------- windows and split


def test_start_hour_is_the_emptiest_unless_set(tmp_path: Path) -> None:
    path = cars_file(tmp_path, car(2, 0, 5, 1), car(2, 6, 24, 1))
    assert days_of(sessions=path, start_h=None).start_h == 5.0
    assert days_of(sessions=path, start_h=3.25).start_h == 3.25
    assert days_of(prices=prices_file(tmp_path, 1, 6), start_h=None).start_h == 12.0


def test_windows_of_sessions_end_within_the_file(tmp_path: Path) -> None:
    path = cars_file(tmp_path)
    assert of_may(days_of(sessions=path)) == [1, 2, 3, 4, 5, 6]
    assert of_may(days_of(sessions=path, start_h=0.5)) == [1, 2, 3, 4, 5]
    assert of_may(days_of(sessions=path, days=2, held_out_share=0.1)) == [1, 2, 3, 5]  # 4 straddles
    assert visits(days_of(sessions=path), 3) == []  # a day without sessions is a day


def test_prices_run_on_across_midnight(tmp_path: Path) -> None:
    days = days_of(prices=prices_file(tmp_path, 1, 6), start_h=18.0)
    assert of_may(days) == [1, 2, 3, 4, 5]
    assert days.prices is not None and days.prices.shape == (5, 24)
    np.testing.assert_allclose(days.prices[1, [0, 5, 6, 23]], [2.18, 2.23, 3.0, 3.17])


def test_prices_convert_and_fill_as_the_keys_say(tmp_path: Path) -> None:
    path = tmp_path / "eur.csv"
    rows = [f"{when(1, h)},100" for h in range(120) if h not in (30, 31, 32, 33)]
    path.write_text("\n".join(["time,price_eur_mwh", *rows]), encoding="utf-8")
    assert "env.price_fill_h=4" in error_of(prices=str(path))
    days = days_of(prices=str(path), price_fill_h=4.0, usd_per_eur=1.5)
    assert days.prices is not None and days.prices == pytest.approx(np.full((5, 24), 0.15))
    assert days.report["prices.filled_steps"] == 4


def test_split_is_by_date(tmp_path: Path) -> None:
    path = prices_file(tmp_path, 1, 12)
    parts = {s: days_of(prices=path, split=s) for s in ("train", "held_out", "all")}
    assert of_may(parts["train"]) == list(range(1, 10))
    assert of_may(parts["held_out"]) == [10, 11, 12]
    assert of_may(parts["all"]) == list(range(1, 13))
    for days in parts.values():
        assert days.prices is not None and days.prices[:, 0].tolist() == of_may(days)
        assert list(days.report.items())[:2] == [("days_train", 9), ("days_held_out", 3)]
    assert of_may(days_of(prices=path, split="held_out", held_out_share=0.5)) == list(range(7, 13))


@pytest.mark.parametrize("start_h", [0.0, 7.0])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_train_and_held_out_share_no_hour(length: int, start_h: float, tmp_path: Path) -> None:
    path = prices_file(tmp_path, 1, 20)
    keys = {"prices": path, "days": length, "start_h": start_h}
    train, held_out, both = (days_of(**keys, split=s) for s in ("train", "held_out", "all"))
    assert train.prices is not None and held_out.prices is not None
    assert not np.intersect1d(train.prices, held_out.prices).size  # each hour has its own price
    assert train.report.get("days_straddling", 0) == length - 1
    assert of_may(train)[-1] + length == of_may(held_out)[0]
    assert of_may(train) + of_may(held_out) == of_may(both)


def test_price_scale_is_that_of_training_in_every_split(tmp_path: Path) -> None:
    path = prices_file(tmp_path, 1, 8, lambda d, h: 9.0 if d > 6 else -0.5)
    assert [days_of(prices=path, split=s).high_usd_kwh for s in ("train", "held_out", "all")] == [0.5] * 3
    free = prices_file(tmp_path, 1, 4, lambda d, h: 0.0)
    assert days_of(prices=free).high_usd_kwh > 0.0  # something to divide by


def test_both_files_meet_on_common_dates(tmp_path: Path) -> None:
    frame = [car(3, 12, 13, 1), car(11, 12, 13, 1)]
    days = days_of(sessions=cars_file(tmp_path, frame=frame), prices=prices_file(tmp_path, 1, 8))
    assert of_may(days) == [3, 4, 5, 6, 7, 8]
    assert days.prices is not None and days.prices[:, 0].tolist() == of_may(days)
    assert (days.report["days_without_prices"], days.report["days_without_sessions"]) == (3, 2)


def dated_files(folder: Path) -> dict[str, str]:
    """Twelve days on which the price at midnight and the one request are the day of May."""
    rows = [car(d, 8, 20, d) for d in range(1, 13)]
    return {"sessions": cars_file(folder, *rows, frame=[]), "prices": prices_file(folder, 1, 12)}


@pytest.mark.parametrize("split", ["train", "held_out", "all"])
def test_the_same_number_picks_the_same_date(split: str, tmp_path: Path) -> None:
    days = days_of(**dated_files(tmp_path), split=split)
    n = len(days.day)
    u = np.concatenate([(np.arange(n) + 0.5) / n, [0.0, np.nextafter(1.0, 0.0)]])
    sessions, prices = days.pick_sessions(u), days.pick_prices(u)
    wanted = [*of_may(days), of_may(days)[0], of_may(days)[-1]]
    assert prices[:, 0].tolist() == wanted
    request = (sessions.target_kwh - sessions.energy_kwh).sum((1, 2))
    assert request.tolist() == pytest.approx(wanted)
    prices[:] = 0.0  # a copy: the next pick is whole
    assert days.pick_prices(u)[:, 0].tolist() == wanted


def test_scenarios_take_sessions_and_prices_of_one_date(tmp_path: Path) -> None:
    plant = build_plant(V2GParams(**(PLAIN | dated_files(tmp_path))))
    rngs = [np.random.default_rng(k) for k in range(40)]
    scenario = Sampler(plant, load_days(plant)).sample(rngs)
    s = scenario.sessions
    request = (s.target_kwh - s.energy_kwh).sum((1, 2))
    np.testing.assert_allclose(scenario.buy_usd_kwh[:, 0], request)
    assert len(set(scenario.buy_usd_kwh[:, 0].tolist())) > 8
    assert not scenario.price_dev.any()  # published


# ---------------------------------------------------------------- sessions on sockets


def test_a_session_arrives_as_the_file_says(tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 8.5, 12.2, 10, declared_h=14.5)))
    assert visits(days, 3) == [
        {
            "socket": 0, "arrival": 8, "departure": 12, "declared": 14, "energy_kwh": 20.0,
            "target_kwh": 30.0, "capacity_kwh": 50.0, "floor_kwh": 5.0, "limit_kw": 10.0,
            "stays": False,
        }
    ]  # fmt: skip
    assert counts(days) == {"placed": 3}


def test_a_session_across_the_start_keeps_what_is_left_of_it(tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(2, 20, 32, 12)))  # 4 h, then 8 h of 12
    (before,), (after,) = visits(days, 2), visits(days, 3)
    assert (before["arrival"], before["departure"], before["stays"]) == (20, 24, True)
    assert (before["energy_kwh"], before["target_kwh"]) == (20.0, 20.0)  # the rest can come later
    assert (after["arrival"], after["departure"], after["stays"]) == (0, 8, False)
    assert after["energy_kwh"] == pytest.approx(20 + 12 * 4 / 12)
    assert after["target_kwh"] == pytest.approx(32.0)
    assert counts(days) == {"placed": 4, "cut_at_start": 1, "cut_at_end": 1}


def test_a_session_that_fills_the_window_is_not_cut(tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 0, 24, 10)))
    (visit,) = visits(days, 3)
    assert (visit["arrival"], visit["departure"], visit["stays"]) == (0, 24, False)
    assert (visit["energy_kwh"], visit["target_kwh"]) == (20.0, 30.0)
    assert visits(days, 4) == [] and counts(days) == {"placed": 3}


def test_a_stay_of_days_is_in_every_window_it_meets(tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(2, 12, 12 + 72, 18)))  # to the 5th, noon
    energy = [visits(days, d)[0]["energy_kwh"] for d in (2, 3, 4, 5)]
    assert energy == pytest.approx([20, 20 + 18 / 6, 20 + 18 / 2, 20 + 18 * 5 / 6])
    assert counts(days) == {"placed": 6, "cut_at_start": 3, "cut_at_end": 3}


def test_less_than_a_stage_left_at_the_start_is_gone(tmp_path: Path) -> None:
    assert visits(days_of(sessions=cars_file(tmp_path, car(2, 20, 24.9, 1))), 3) == []
    assert len(visits(days_of(sessions=cars_file(tmp_path, car(2, 20, 25, 1))), 3)) == 1


@pytest.mark.parametrize(
    ("night", "before", "after", "hours"),
    [("2024-11-03", "-07:00", "-08:00", 5), ("2024-03-10", "-08:00", "-07:00", 3)],
)
def test_a_stay_through_a_clock_change_keeps_its_true_length(
    night: str, before: str, after: str, hours: int, tmp_path: Path
) -> None:
    middle = date.fromisoformat(night)
    first, last = (middle + timedelta(days=k) for k in (-3, 3))
    frame = [f"{d} 12:00{z},{d} 13:00{z},1,,,," for d, z in ((first, before), (last, after))]
    row = f"{night} 00:00{before},{night} 04:00{after},8,,,,"
    days = days_of(sessions=cars_file(tmp_path, row, frame=frame))
    assert days.sessions is not None and len(days.day) == 7
    assert (days.sessions.arrival[3, 0, 0], days.sessions.departure[3, 0, 0]) == (0, hours)


def test_first_come_first_served(tmp_path: Path) -> None:
    rows = [car(3, 8, 10, 1), car(3, 9, 20, 2), car(3, 9.1, 11, 3), car(3, 10.5, 12, 4)]
    days = days_of(sessions=cars_file(tmp_path, *rows))
    wish = [(v["socket"], v["arrival"], v["target_kwh"] - 20.0) for v in visits(days, 3)]
    assert wish == [(0, 8, 1.0), (1, 9, 2.0), (0, 10, 4.0)]  # the third found both taken
    assert counts(days) == {"placed": 5, "turned_away": 1}
    wider = days_of(sessions=cars_file(tmp_path, *rows), n_sockets=3)
    assert [v["socket"] for v in visits(wider, 3)] == [0, 1, 2, 0]
    assert counts(wider) == {"placed": 6}


def test_counts_are_those_of_the_split(tmp_path: Path) -> None:
    path = cars_file(tmp_path, *[car(2, 8, 10, 1)] * 3, *[car(6, 18, 19, 1)] * 4)
    train, held_out = (counts(days_of(sessions=path, split=s)) for s in ("train", "held_out"))
    assert train == {"placed": 3, "turned_away": 1}
    assert held_out == {"placed": 3, "turned_away": 2}
    slots = {days_of(sessions=path, split=s).slots for s in ("train", "held_out", "all")}
    assert slots == {2}  # of all days, so that a scenario of one split fits the other


def test_sessions_are_shared_out_to_sockets_and_sites(tmp_path: Path) -> None:
    path = cars_file(tmp_path, *[car(3, 1 + 2 * k, 2 + 2 * k, 1) for k in range(8)])
    days = days_of(sessions=path, n_sockets=4, site={"bus": (1, 2)})
    assert [v["socket"] for v in visits(days, 3)] == [0, 1, 2, 3, 0, 1, 2, 3]  # sites 0, 1, 0, 1
    assert days.slots == 2


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"battery": 80}, (80.0, 32.0, 42.0)),
        ({"battery": 80, "soc": 0.25}, (80.0, 20.0, 30.0)),
        ({"soc": 0.5}, (50.0, 25.0, 35.0)),
        ({"battery": 12}, (12.0, 2.0, 12.0)),  # 0.4 x 12 would leave no room for 10 kWh
        ({"battery": 10.5}, (10.5, 0.5, 10.5)),  # below soc_min, but it fits
    ],
)
def test_what_the_file_knows_of_the_vehicle_counts(
    known: dict[str, float], expected: tuple[float, ...], tmp_path: Path
) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 8, 20, 10, **known)))
    (visit,) = visits(days, 3)
    found = [visit[f"{name}_kwh"] for name in ("capacity", "energy", "target")]
    assert found == pytest.approx(expected)
    assert visit["floor_kwh"] == pytest.approx(min(0.1 * expected[0], expected[1]))
    assert counts(days) == {"placed": 3}


@pytest.mark.parametrize(
    ("known", "expected"),
    [({"battery": 8}, (8.0, 0.0, 8.0)), ({"battery": 40, "soc": 0.9}, (40.0, 36.0, 40.0))],
)
def test_a_request_beyond_a_known_battery_ends_at_full(
    known: dict[str, float], expected: tuple[float, ...], tmp_path: Path
) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 8, 20, 10, **known)))
    (visit,) = visits(days, 3)
    assert [visit[f"{n}_kwh"] for n in ("capacity", "energy", "target")] == pytest.approx(expected)
    assert counts(days) == {"placed": 3, "targets_at_full": 1}


def test_unknown_batteries_are_of_the_sizes_that_hold_the_request(tmp_path: Path) -> None:
    session = {"battery_kwh": (80.0, 20.0, 40.0), "arrival_soc": (0.9, 0.0), "soc_min": 0.1}
    frame = [car(d, 2 * k, 2 * k + 1, 30) for d in range(1, 8) for k in range(12)]
    days = days_of(sessions=cars_file(tmp_path, frame=frame), session=session)
    cars = [v for d in range(1, 8) for v in visits(days, d)]
    sizes = [v["capacity_kwh"] for v in cars]
    assert set(sizes) == {40.0, 80.0}  # 0.9 x 20 kWh above soc_min hold no 30
    assert 0.3 < np.mean([size == 40.0 for size in sizes]) < 0.7
    assert {v["capacity_kwh"]: v["energy_kwh"] for v in cars} == pytest.approx({40: 10, 80: 50})


def test_a_larger_battery_where_none_holds_the_request(tmp_path: Path) -> None:
    rows = [car(3, 0, 23, 75), car(4, 0, 23, 20, soc=0.99)]
    days = days_of(sessions=cars_file(tmp_path, *rows))
    (large,), (full,) = visits(days, 3), visits(days, 4)
    assert large["capacity_kwh"] == pytest.approx(75 / 0.9)
    assert (large["energy_kwh"], large["target_kwh"]) == pytest.approx((75 / 9, 75 + 75 / 9))
    assert (full["capacity_kwh"], full["target_kwh"]) == pytest.approx((200, 200))  # no more than x10
    assert counts(days) == {"placed": 4, "battery_enlarged": 2, "targets_at_full": 1}


def test_arrival_charge_is_spread_but_never_below_the_floor(tmp_path: Path) -> None:
    session = {"battery_kwh": (50.0,), "arrival_soc": (0.4, 0.3), "soc_min": 0.1}
    frame = [car(d, 2 * k, 2 * k + 1, 5) for d in range(1, 8) for k in range(12)]
    days = days_of(sessions=cars_file(tmp_path, frame=frame), session=session)
    soc = np.array([v["energy_kwh"] for d in range(1, 8) for v in visits(days, d)]) / 50
    assert soc.min() == pytest.approx(0.1) and soc.max() == pytest.approx(0.9)  # 0.9 + 5 kWh is full
    assert 0.33 < np.median(soc) < 0.47 and len(set(soc.tolist())) > 60


@pytest.mark.parametrize(("max_kw", "limit", "raised"), [(5, 5, 0), (99, 10, 0), (2, 4.14, 1)])
def test_power_is_limited_by_vehicle_and_charger(max_kw: float, limit: float, raised: int, tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 8, 20, 1, max_kw=max_kw)))
    assert visits(days, 3)[0]["limit_kw"] == pytest.approx(limit)
    assert counts(days).get("limits_raised", 0) == raised


def test_targets_beyond_the_declared_stay_are_capped(tmp_path: Path) -> None:
    days = days_of(sessions=cars_file(tmp_path, car(3, 8, 20, 25, declared_h=10), car(3, 12, 20, 25)))
    early, late = visits(days, 3)
    assert early["target_kwh"] == pytest.approx(20 + 0.8 * 0.95 * 10 * 2)  # two declared hours
    assert late["target_kwh"] == pytest.approx(45.0)
    assert counts(days) == {"placed": 4, "targets_capped": 1}


# ---------------------------------------------------------------- no socket is booked twice


def random_cars(seed: int) -> list[str]:
    """Up to 40 arrivals a day on eight days; stays from minutes to days."""
    rng = np.random.default_rng(seed)
    many = rng.integers(1, 40)
    days = np.repeat(np.arange(1, 9), many)
    from_h, stay_h = rng.uniform(0, 24, len(days)), 0.02 + rng.lognormal(1.0, 1.2, len(days))
    return [car(int(d), h, h + stay, 5) for d, h, stay in zip(days, from_h, stay_h, strict=True)]


def assert_no_socket_is_booked_twice(days: FileDays, stages: int) -> None:
    s = days.sessions
    assert s is not None
    here = s.arrival < stages
    assert (s.arrival[here] < s.departure[here]).all() and (s.departure <= stages).all()
    assert (s.arrival[..., 1:] >= s.departure[..., :-1])[here[..., 1:]].all()
    assert (here[..., 1:] <= here[..., :-1]).all()  # empty slots come last
    assert (s.capacity_kwh > 0).all() and (s.energy_kwh <= s.capacity_kwh * (1 + 1e-12)).all()
    assert (s.floor_kwh <= s.energy_kwh).all() and (s.energy_kwh <= s.target_kwh).all()
    assert here.sum() == days.report["sessions.placed"]  # nobody waited or was lost


def places(path: str, p: V2GParams, day: int, start_h: float) -> tuple[int, int]:
    """Sessions served and turned away in one window, by counting the cars that are there."""
    table, leaving, served, away = load_sessions(path), [], 0, 0
    begin = (table.day - day) * 24 + table.arrival_h - start_h
    for from_h, to_h in zip(begin, begin + table.stay_h, strict=True):
        first, gone = (int(np.floor(h / p.dt_h + 1e-9)) for h in (from_h, to_h))
        gone = max(gone, first + 1)
        if gone <= 0 or first >= p.n_stages:
            continue
        leaving = [g for g in leaving if g > max(first, 0)]
        free = len(leaving) < p.n_sockets
        served, away = served + free, away + (not free)
        leaving += [gone] * free
    return served, away


@pytest.mark.parametrize("seed", range(12))
def test_random_files_fill_the_sockets_and_never_twice(seed: int, tmp_path: Path) -> None:
    path = cars_file(tmp_path, frame=random_cars(seed))
    keys = {"n_sockets": 1 + seed % 7, "dt_h": (0.25, 0.5, 1.0)[seed % 3], "days": 1 + seed % 2}
    p = V2GParams(**(PLAIN | keys | {"sessions": path, "start_h": 2.5 * seed % 24}))
    days = load_days(build_plant(p))
    assert_no_socket_is_booked_twice(days, p.n_stages)
    expected = [places(path, p, int(d), days.start_h) for d in days.day]
    found = (days.report["sessions.placed"], days.report.get("sessions.turned_away", 0))
    assert found == tuple(map(sum, zip(*expected, strict=True)))
    assert days.sessions is not None
    assert (days.sessions.arrival < p.n_stages).sum((1, 2)).tolist() == [s for s, _ in expected]


# ---------------------------------------------------------------- again and again


def arrays(days: FileDays) -> list[np.ndarray]:
    return [x for x in (*(days.sessions or ()), days.prices, days.day) if x is not None]


def test_days_are_read_once_and_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = dated_files(tmp_path)
    train, held_out = days_of(**keys, split="train"), days_of(**keys, split="held_out")
    assert not any(x.flags.writeable for x in arrays(train) + arrays(held_out))
    with monkeypatch.context() as patch:
        patch.setattr(files, "_read", None)  # whatever is read now fails
        again = days_of(**keys, split="train", reward_scale=0.5)
    assert again.prices is not None and np.shares_memory(again.prices, train.prices)
    assert len(days_of(**keys, n_sockets=3).pick_sessions(np.zeros(1)).arrival[0]) == 3
    for n in range(4, 4 + files.CACHED):
        days_of(**keys, n_sockets=n)
    assert len(files._cache) == files.CACHED


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = Path(cars_file(tmp_path, car(3, 8, 12, 10)))
    assert visits(days_of(sessions=str(path)), 3)[0]["target_kwh"] == 30.0
    path.write_text(path.read_text().replace(",10,", ",15,"))  # the same size
    os.utime(path, ns=(1, 1))
    assert visits(days_of(sessions=str(path)), 3)[0]["target_kwh"] == 35.0


CHANGES = {
    "sessions": "fleet", "prices": "day_ahead", "start_h": 1.0, "days": 2, "dt_h": 0.5,
    "n_sockets": 7, "held_out_share": 0.3, "usd_per_eur": 2.0, "price_fill_h": 1.0,
    "charger": {"power_kw": (22.0,)}, "session": {"soc_min": 0.2},
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_days_are_read_again_for_other(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = dated_files(tmp_path)
    days_of(**keys)
    monkeypatch.setattr(files, "_read", None)
    with pytest.raises(TypeError, match="not callable"):
        days_of(**(keys | {key: CHANGES[key]}))


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cars_file(tmp_path, car(3, 8, 12, 10))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert days_of(sessions="~/cars.csv").report["sessions.placed"] == 3


def test_vehicles_depend_on_their_day_alone(tmp_path: Path) -> None:
    session = {"battery_kwh": tuple(range(40, 90)), "arrival_soc": (0.4, 0.2)}
    day = [car(3, h, h + 1, 5) for h in range(1, 20)]
    first = visits(days_of(sessions=cars_file(tmp_path, *day), session=session), 3)
    more = cars_file(tmp_path, *day, *[car(d, 5, 9, 7) for d in (2, 2, 4)])
    files._cache.clear()
    second = visits(days_of(sessions=more, session=session), 3)
    np.random.seed(1)  # no global state is read
    files._cache.clear()
    assert first == second == visits(days_of(sessions=more, session=session), 3)
    assert len({v["energy_kwh"] for v in first}) > 15
    moved = cars_file(tmp_path, *[row.replace("05-03", "05-04") for row in day])
    others = visits(days_of(sessions=moved, session=session), 4)
    assert [v["energy_kwh"] for v in others] != [v["energy_kwh"] for v in first]


# ---------------------------------------------------------------- reports


def test_report_is_in_order_and_says_what_to_do(tmp_path: Path) -> None:
    path = cars_file(tmp_path, *[car(3, 8, 10, 1)] * 5, car(4, 8, 8, 1))
    days = days_of(sessions=path, prices=prices_file(tmp_path, 1, 6))
    assert days.report == {
        "days_train": 4, "days_held_out": 2, "sessions.rows": 8, "sessions.kept": 7,
        "sessions.dropped_short_stay": 1, "sessions.declared_missing": 7, "sessions.sockets": 2,
        "sessions.placed": 4, "sessions.turned_away": 3, "prices.rows": 144, "prices.days": 6,
    }  # fmt: skip
    lines = report_lines(days.report)
    assert len(lines) == len(days.report) and lines[0] == "4 days for training"
    assert "3 sessions turned away: all 2 sockets were taken; raise env.n_sockets" in lines
    assert "1 session dropped: shorter than a minute" in lines
    assert report_lines({"prices.something_new": 3}) == ["prices.something_new: 3"]


def test_handbook_and_sentences_know_the_same_counts() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| key \| rule \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    rows = [line.split("|")[1] for table in tables for line in table.splitlines()]
    keys = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    totals = {"rows", "kept", "days"}
    assert len(tables) == 3 and keys | totals == {key.rpartition(".")[2] for key in SENTENCES}


# ---------------------------------------------------------------- episodes


@pytest.mark.parametrize("which", [("sessions",), ("prices",), ("sessions", "prices")])
def test_an_environment_runs_to_the_end_on_files(which: tuple[str, ...], tmp_path: Path) -> None:
    found = dated_files(tmp_path)
    keys = PLAIN | {key: found[key] for key in which} | {"charger": {"taper_soc": 0.7}}
    env = gym.make("qevgrid/V2G-v0", **keys)
    worlds = set()
    for seed in range(3):
        obs, info = env.reset(seed=seed)
        worlds.add(info["fingerprint"])
        over, steps = False, 0
        while not over:
            obs, reward, over, _, info = env.step(env.action_space.sample())
            assert env.observation_space.contains(obs) and np.isfinite(reward)
            steps += 1
        assert steps == 24
    assert len(worlds) == 3


# ---------------------------------------------------------------- the real files

REAL = {"grid": {"feeder": "none"}}


def real_days(split: str, **keys: Any) -> FileDays:
    return load_days(build_plant(V2GParams(split=split, **REAL, **keys)))


@pytest.mark.parametrize(
    ("name", "start_h", "train", "held_out"),
    [
        (
            CALTECH,
            6.0,
            {"placed": 2599, "cut_at_start": 70, "cut_at_end": 71, "battery_enlarged": 49,
             "targets_capped": 671},
            {"placed": 653, "turned_away": 2, "cut_at_start": 14, "cut_at_end": 14,
             "battery_enlarged": 15, "targets_capped": 195},
        ),
        (
            JPL,
            2.0,
            {"placed": 3063, "turned_away": 1397, "cut_at_start": 14, "cut_at_end": 14,
             "battery_enlarged": 76, "targets_capped": 1006},
            {"placed": 911, "turned_away": 390, "battery_enlarged": 39, "targets_capped": 283},
        ),
    ],
)  # fmt: skip
def test_real_sessions_and_prices_have_known_counts(
    name: str, start_h: float, train: dict[str, int], held_out: dict[str, int]
) -> None:
    keys = {"sessions": real(name), "prices": real(NL)}
    for split, n_days, expected in (("train", 91, train), ("held_out", 30, held_out)):
        days = real_days(split, **keys)
        assert (days.start_h, len(days.day), counts(days)) == (start_h, n_days, expected)
        assert (days.report["days_train"], days.report["days_held_out"]) == (91, 30)
        assert_no_socket_is_booked_twice(days, 96)


@pytest.mark.parametrize(("name", "start_h"), [(CALTECH, 6.0), (JPL, 2.0)])
def test_real_sessions_are_served_as_counting_says(name: str, start_h: float) -> None:
    path = real(name)
    days = real_days("all", sessions=path)
    assert days.sessions is not None
    served = (days.sessions.arrival < 96).sum((1, 2))
    for row in range(0, len(days.day), 20):
        assert places(path, V2GParams(), int(days.day[row]), start_h)[0] == served[row]


def test_real_sockets_enough_for_all_turn_nobody_away() -> None:
    days = real_days("all", sessions=real(JPL), n_sockets=60)
    assert "sessions.turned_away" not in days.report
    table = load_sessions(real(JPL))
    s = days.sessions
    assert s is not None
    arrivals = ((s.arrival > 0) & (s.arrival < 96)).sum()
    hour = (table.day - days.day[0]) * 24 + table.arrival_h - 2.0
    inside = (hour >= 0.25) & (hour < 24 * len(days.day))
    late = np.floor(hour / 0.25) % 96 == 0  # in a window's very first stage
    assert arrivals == (inside & ~late).sum()


def test_real_prices_are_negative_in_both_splits() -> None:
    train, held_out = (real_days(split, prices=real(NL)) for split in ("train", "held_out"))
    assert (len(train.day), len(held_out.day)) == (546, 182)
    assert date.fromordinal(int(held_out.day[0])) == date(2022, 7, 2)
    for days, hours in ((train, 63), (held_out, 25)):
        assert days.prices is not None and (days.prices < 0).sum() / 4 == hours
    assert train.high_usd_kwh == held_out.high_usd_kwh == pytest.approx(0.442, abs=5e-4)


def test_real_nights_of_clock_change_are_whole_days() -> None:
    days = real_days("all", prices=real(NL), start_h=0.0)
    table = load_prices(real(NL))
    for night in (date(2019, 3, 31), date(2019, 10, 27), date(2022, 3, 27), date(2022, 10, 30)):
        row = days.day.tolist().index(night.toordinal())
        assert days.prices is not None and np.isfinite(days.prices[row]).all()
        np.testing.assert_allclose(days.prices[row], table.price_usd_kwh[table.day == night.toordinal()][0])


def test_real_dates_of_prices_and_sessions_agree() -> None:
    days = real_days("held_out", sessions=real(CALTECH), prices=real(NL))
    day, price = price_days(load_prices(real(NL)), 6.0, 0.25, 96)
    assert days.prices is not None and days.sessions is not None
    np.testing.assert_array_equal(days.prices, price[np.isin(day, days.day)])
    table = load_sessions(real(CALTECH))
    for row, d in enumerate(days.day.tolist()):
        hour = (table.day - d) * 24 + table.arrival_h - 6.0
        new = days.sessions.arrival[row][(days.sessions.arrival[row] > 0)]
        stages = np.floor(hour[(hour >= 0.25) & (hour < 24)] / 0.25 + 1e-9)
        assert np.isin(new[new < 96], stages).all()


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_real_days_are_played(split: str) -> None:
    keys = {"sessions": real(CALTECH), "prices": real(NL), "split": split}
    envs = gym.make_vec("qevgrid/V2G-v0", num_envs=8, **keys)
    obs, info = envs.reset(seed=3)
    assert len(set(info["fingerprint"])) > 5 and set(info["start_h"]) == {6.0}
    plugged = list(envs.unwrapped.core.labels).index("plugged_share")
    charge = np.ones(envs.action_space.shape, np.float32)
    most = np.zeros(8)
    for _ in range(96):
        obs, reward, terminated, _, info = envs.step(charge)
        assert np.isfinite(obs).all() and np.isfinite(reward).all()
        most = np.maximum(most, obs[:, plugged])
    assert terminated.all() and most.max() > 0.3
