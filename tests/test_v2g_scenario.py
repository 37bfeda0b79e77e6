"""What chance draws: reproducible, one stream a factor, sessions that can be served, loads in bounds."""

from typing import Any

import numpy as np
import pytest

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g import constraints
from qevgrid.envs.v2g import plant as plant_module
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import SESSION_KINDS, V2GParams
from qevgrid.envs.v2g.plant import LOAD_CEILING, Plant
from qevgrid.envs.v2g.scenario import Scenario
from qevgrid.envs.v2g.sessions import Sessions
from worlds import WORLDS, begin, core_of, drawn, play

ALL = set(Scenario._fields)
WEATHER = {"pv_kw", "pv_profile", "pv_dev"}
PRICE = {"buy_usd_kwh", "sell_usd_kwh", "price_profile", "price_dev"}
LOAD = {"critical_kw", "other_kw", "feeder_scale", "critical_profile", "other_profile", "load_dev"}
OUTAGE = {"fault", "outage", "risk", "window_open", "window_close"}
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"site": {"pv_kw": 200.0}}, {"pv_kw"}),
    ({"site": {"critical_kw": 10.0, "other_kw": 10.0}}, {"critical_kw", "other_kw"}),
    ({"site": {"connection_kw": 20.0, "generator_kw": 0.0}}, set()),
    ({"grid": {"load_scale": 0.1}}, {"feeder_scale"}),
    ({"action": "levels", "n_levels": 7, "reward_scale": 1.0}, set()),
    ({"cost": {"wear_usd_kwh": 0.3, "w2": 0.5}}, set()),
    ({"reserve": {"share": 0.0}}, set()),
    ({"prices": "day_ahead"}, PRICE),
    ({"price_sigma": 0.0}, PRICE),
    ({"sell_ratio": 0.5}, {"sell_usd_kwh"}),
    ({"outage": {"share": 0.9, "median_h": 2.0}}, OUTAGE),
    ({"sessions": "workplace"}, {"sessions"}),
    ({"session": {"arrival_soc": (0.2, 0.1)}}, {"sessions"}),
    ({"charger": {"v2g_share": 0.0, "min_current_a": 0.0}}, set()),
    ({"n_sockets": 9}, {"sessions"}),
]
"""Keys changed, and the factors that may notice."""


def parts(value: Any) -> list[np.ndarray]:
    return list(value) if isinstance(value, Sessions) else [value]


def changed(one: Scenario, two: Scenario) -> set[str]:
    """Names of the fields that differ."""
    pairs = zip(Scenario._fields, one, two, strict=True)
    return {
        name for name, a, b in pairs if any(not np.array_equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))
    }


def scenario_of(seed: int = 0, size: int = 4, **changes: Any) -> Scenario:
    return drawn(V2GCore(V2GParams(**({"n_sockets": 6, "outage": {"share": 0.6}} | changes))), size, seed)


# -- reproducible --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORLDS)
def test_same_seed_same_fingerprint(name: str) -> None:
    core = core_of(name)
    prints = [drawn(core, 3, seed).fingerprint(b) for seed, b in ((5, 0), (5, 0), (4, 1), (3, 2))]
    assert len(set(prints)) == 1
    many = drawn(core, 20)
    assert len({many.fingerprint(b) for b in range(20)}) == 20


def test_fingerprint_sees_every_array() -> None:
    scenario = scenario_of(size=1)
    before = scenario.fingerprint(0)
    for array in [x for field in scenario for x in parts(field)]:
        changed_array = np.array(array)
        kept, flat = array, changed_array.reshape(-1)
        flat[-1] = 1 - flat[-1]
        twin = _swap(scenario, kept, changed_array)
        assert twin.fingerprint(0) != before


def _swap(scenario: Scenario, old: np.ndarray, new: np.ndarray) -> Scenario:
    def one(x: Any) -> Any:
        if isinstance(x, Sessions):
            return Sessions(*map(one, x))
        return new if x is old else x

    return Scenario(*map(one, scenario))


def test_a_row_alone_is_that_row() -> None:
    scenario = scenario_of(size=3)
    assert scenario.row(1).fingerprint(0) == scenario.fingerprint(1) == scenario_of(1, 1).fingerprint(0)


@pytest.mark.parametrize(("changes", "may_notice"), CHANGES)
def test_each_factor_has_its_own_stream(changes: dict[str, Any], may_notice: set[str]) -> None:
    found = changed(scenario_of(), scenario_of(**changes))
    assert found <= may_notice
    assert not may_notice or found


def test_another_site_leaves_prices_and_sessions_alone() -> None:
    one, two = scenario_of(), scenario_of(site={"bus": (17, 24)})
    assert changed(one, two) <= {"pv_kw", "critical_kw", "other_kw", "fault", "outage"}
    np.testing.assert_array_equal(one.pv_kw[..., 0], two.pv_kw[..., 0])
    np.testing.assert_array_equal(one.critical_kw[..., 0], two.critical_kw[..., 0])
    assert two.outage.shape[-1] == 2


def test_more_days_begin_with_other_days_of_the_same_kind() -> None:
    """Two days are two draws, not one day twice."""
    scenario = scenario_of(days=2, size=20)
    half = scenario.risk.shape[1] // 2
    assert not np.array_equal(scenario.buy_usd_kwh[:, :half], scenario.buy_usd_kwh[:, half:])
    assert not np.array_equal(scenario.outage[:, :half], scenario.outage[:, half:])


# -- prices, sun, loads --------------------------------------------------------------------------


def test_prices_are_the_tariff_times_a_deviation() -> None:
    scenario = scenario_of(size=300, start_h=0.0, dt_h=1.0, price_sigma=0.1)
    median = np.median(scenario.buy_usd_kwh, axis=0)
    expected = np.select([np.arange(24) < 9, np.arange(24) < 16, np.arange(24) < 21], [0.09, 0.22, 0.58], 0.09)
    np.testing.assert_allclose(median, expected, rtol=0.05)
    spread = np.log(scenario.buy_usd_kwh / expected).std(0)
    np.testing.assert_allclose(spread, 0.1, atol=0.02)


def test_day_ahead_prices_go_below_zero_and_sell_stays_below_buy() -> None:
    scenario = scenario_of(size=100, prices="day_ahead", sell_ratio=0.6)
    buy, sell = scenario.buy_usd_kwh, scenario.sell_usd_kwh
    assert (buy < 0).any()
    assert np.all(sell < buy)
    np.testing.assert_allclose(sell[buy > 0], 0.6 * buy[buy > 0])
    np.testing.assert_allclose(sell[buy < 0], 1.4 * buy[buy < 0])


def test_sun_and_loads_stay_in_their_bounds() -> None:
    scenario = scenario_of(size=500, site={"pv_kw": 50.0, "critical_kw": 30.0, "other_kw": 40.0})
    assert scenario.pv_kw.min() == 0.0
    assert 45.0 < scenario.pv_kw.max() <= 50.0
    for name, peak in (("critical_kw", 30.0), ("other_kw", 40.0), ("feeder_scale", 0.75)):
        load = getattr(scenario, name)
        assert load.min() > 0.0
        assert 1.2 * peak < load.max() <= LOAD_CEILING * peak


def test_outages_have_the_stated_length_and_window() -> None:
    """Median 5 h; starts from 3 to 15 h after stage 0 (noon)."""
    scenario = scenario_of(size=1500, outage={"share": 1.0}, n_sockets=1)
    dark = scenario.outage[..., 0]
    hours = dark.sum(1) * 0.25
    assert dark.any(1).all()
    assert np.median(hours) == pytest.approx(5.0, abs=0.3)
    first = dark.argmax(1) * 0.25
    assert first.min() >= 3.0
    assert first.max() <= 15.25
    assert np.all(np.abs(np.diff(dark.astype(int), axis=1)).sum(1) <= 2)


# -- sessions ------------------------------------------------------------------------------------


@pytest.fixture(params=[(kind, days) for kind in SESSION_KINDS for days in (1, 2)], ids=str)
def visits(request: pytest.FixtureRequest) -> tuple[V2GCore, Sessions]:
    kind, days = request.param
    core = V2GCore(V2GParams(n_sockets=20, sessions=kind, days=days, dt_h=0.5))
    return core, drawn(core, 20).sessions


def test_sessions_never_overlap_on_a_socket(visits: tuple[V2GCore, Sessions]) -> None:
    core, x = visits
    real = x.arrival < core.n_stages
    assert np.all(x.arrival[..., 1:] >= x.departure[..., :-1])
    assert np.all(x.departure[real] > x.arrival[real])
    assert np.all(x.departure <= core.n_stages)
    assert np.all(x.declared[real] > x.arrival[real])
    assert np.all(x.departure[~real] == core.n_stages)
    assert real.mean() > 0.5


def test_energies_are_in_order(visits: tuple[V2GCore, Sessions]) -> None:
    core, x = visits
    assert np.all(x.floor_kwh > 0)
    assert np.all(x.floor_kwh <= x.energy_kwh)
    assert np.all(x.energy_kwh <= x.target_kwh)
    assert np.all(x.target_kwh <= x.capacity_kwh)
    assert np.all(x.stays <= (x.departure == core.n_stages))
    assert set(np.unique(x.capacity_kwh)) <= set(core.params.session.battery_kwh)


def test_targets_can_be_reached_in_the_declared_stay(visits: tuple[V2GCore, Sessions]) -> None:
    """At full power; what those who stay can still get beyond the horizon is not asked for here."""
    core, x = visits
    hours = core.params.dt_h * (np.where(x.stays, core.n_stages, x.declared) - x.arrival)
    most = core.params.charger.eta_charge * np.minimum(x.limit_kw, core.plant.charge_kw[:, None]) * hours
    real = x.arrival < core.n_stages
    assert np.all(x.target_kwh[real] <= (x.energy_kwh + most)[real] + 1e-9)


def test_shares_of_the_sessions() -> None:
    """Who comes, who leaves early: the keys that say so."""
    kinds = {"sessions": "residential", "n_sockets": 50}
    one = scenario_of(size=40, session={"show_up_share": 0.7, "early_share": 0.3}, **kinds).sessions
    real = one.arrival < 96
    assert real.mean() == pytest.approx(0.7, abs=0.04)
    early = (one.departure < np.minimum(one.declared, 96))[real].mean()
    assert early == pytest.approx(0.3, abs=0.04)
    punctual = scenario_of(size=10, session={"early_share": 0.0}, **kinds).sessions
    assert np.all(punctual.departure == np.minimum(punctual.declared, 96))


def test_a_scenario_of_other_parameters_is_refused() -> None:
    core = core_of("default")
    with pytest.raises(UserError, match="shapes"):
        core.check(drawn(core_of("sites"), 2), 2)
    with pytest.raises(UserError, match="V2G Scenario"):
        core.check(object(), 2)  # type: ignore[arg-type]
    core.check(drawn(core, 2), 2)


# -- presolve ------------------------------------------------------------------------------------


def unpresolved(params: V2GParams, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """The plant with all rows of (9)."""
    with monkeypatch.context() as patch:
        patch.setattr(plant_module, "_presolved", lambda plant: plant)
        return plant_module.build_plant.__wrapped__(params)


def at_the_extremes(core: V2GCore, scenario: Scenario) -> Scenario:
    """Loads, sun and feeder where no draw can exceed them; every other episode without sun or load."""
    p, b = core.params, np.arange(len(scenario.risk))[:, None, None]
    sunny = b % 2 == 0
    shape = scenario.pv_kw.shape

    def full(name: str, on: FloatArray) -> FloatArray:
        return np.broadcast_to(p.site.per_site(name), shape) * on

    loads = {name: full(name, LOAD_CEILING * ~sunny) for name in ("critical_kw", "other_kw")}
    feeder = np.where(sunny[..., 0], 0.0, LOAD_CEILING * p.grid.load_scale) * np.ones(shape[:2])
    fault = np.where(scenario.fault > 0, scenario.fault, 0)
    return scenario._replace(pv_kw=full("pv_kw", 1.0 * sunny), feeder_scale=feeder, fault=fault, **loads)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("name", WORLDS)
def test_presolved_rows_never_bind(name: str, extreme: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows, those left out too, hold where every socket does its utmost and cost nothing."""
    core = core_of(name)
    plant = unpresolved(core.params, monkeypatch)
    assert set(core.plant.rows.name) < set(plant.rows.name)
    scenario = drawn(core, 32, seed=100)
    scenario = at_the_extremes(core, scenario) if extreme else scenario
    for action in (1.0, -1.0):
        wish = np.full((32, core.n_sockets), action)
        for s in play(begin(core, scenario), lambda b, wish=wish: wish):
            found = constraints.residuals(core.plant, scenario, s.before, s.out, s.after, plant.rows)
            assert not constraints.violated(found)
