"""Every cost term and every rule of the projection on days short enough to be computed by hand.

The base world: one 10 kW socket (three phases: 0.69 kW an ampere, 4.14 kW at least), half-hour
stages, efficiencies 0.9 and 0.8, no feeder, a vehicle with 30 of 60 kWh and a floor of 6.
"""

from typing import Any

import numpy as np
import pytest

from qevgrid.envs.grid import Feeder
from qevgrid.envs.v2g import plant as plant_module
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.scenario import Scenario
from worlds import Car, begin, by_hand, cost_usd

CHARGER = {"power_kw": (10.0,), "eta_charge": 0.9, "eta_discharge": 0.8}
SITE = {
    "critical_blocks": 4,
    "other_blocks": 2,
    "generator_kw": 0.0,
    "pv_kw": 200.0,
    "connection_kw": 1000.0,
}
CAR = Car(departure=20)


def world(**changes: Any) -> V2GCore:
    """The base world; ``charger`` and ``site`` add to its own."""
    kinds = {"charger": CHARGER, "site": SITE}
    nested = {key: kinds[key] | changes.pop(key, {}) for key in kinds}
    base = {"n_sockets": 1, "dt_h": 0.5, "grid": {"feeder": "none"}}
    return V2GCore(V2GParams(**(base | nested | changes)))


def usd(core: V2GCore, scenario: Scenario, actions: Any, stages: int = 1) -> dict[str, list[float]]:
    """Cost by term and stage; terms that are 0 throughout are left out."""
    found = cost_usd(core, scenario, actions, stages)
    return {term: pytest.approx(list(x)) for term, x in found.items() if np.any(np.abs(x) > 1e-12)}


def step(core: V2GCore, scenario: Scenario, *actions: Any) -> Any:
    """The batch after the given actions."""
    batch = begin(core, scenario)
    for action in actions:
        batch.step(np.reshape(np.asarray(action, float), (1, core.n_sockets)))
    return batch


# -- energy (1) and wear -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "action", "energy"),
    [
        ({"buy": 0.2}, 1.0, 0.2 * 10 * 0.5),
        ({"buy": 0.2, "critical": 4.0, "other": 2.0}, 1.0, 0.2 * 10 * 0.5),
        ({"buy": 0.2, "sell": 0.1}, -1.0, -0.1 * 10 * 0.5),
        ({"buy": 0.2, "sell": 0.1, "critical": 6.0}, -1.0, -0.1 * 4 * 0.5 - 0.2 * 6 * 0.5),
        ({"buy": 0.2, "sell": 0.1, "pv": 4.0}, 1.0, 0.2 * 6 * 0.5 + 0.1 * 4 * 0.5),
        ({"buy": -0.1, "sell": -0.1}, 1.0, -0.1 * 10 * 0.5),
        ({"buy": -0.1, "sell": -0.15}, -1.0, 0.15 * 10 * 0.5),
        ({"buy": -0.1, "sell": -0.15, "pv": 4.0}, 1.0, -0.1 * 6 * 0.5 - 0.15 * 4 * 0.5),
        ({"buy": 0.2, "sell": 0.1, "pv": 50.0}, 0.5, 0.1 * 5 * 0.5),
    ],
)
def test_energy(series: dict[str, Any], action: float, energy: float) -> None:
    core = world()
    found = usd(core, by_hand(core, (CAR,), **series), [action])
    power = 10.0 * abs(action)
    assert found == {"energy": [pytest.approx(energy)], "wear": [pytest.approx(0.05 * power * 0.5)]}


def test_two_stages_are_priced_apart() -> None:
    core = world()
    found = usd(core, by_hand(core, (CAR,), buy=[0.1, 0.5]), [1.0, -1.0], stages=2)
    assert found == {"energy": [0.5, -2.5], "wear": [0.25, 0.25]}


def test_a_day_without_vehicles_costs_nothing_to_control() -> None:
    """The cost is minus the bill that loads and sun run up alone."""
    core = world()
    scenario = by_hand(core, buy=0.3, sell=0.1, critical=20.0, other=9.0, pv=[0.0, 50.0, 7.0])
    assert usd(core, scenario, np.ones(core.n_stages), core.n_stages) == {}


def test_batteries_follow_the_efficiencies_and_the_stage_length() -> None:
    """30 + 0.5 h * 0.9 * 10 kW = 34.5; then 34.5 - 0.5 h * 10 kW / 0.8 = 28.25."""
    core = world()
    batch = begin(core, by_hand(core, (CAR,)))
    for action, energy in ((1.0, 34.5), (-1.0, 28.25), (0.0, 28.25), (-0.6, 28.25 - 3 / 0.8)):
        batch.step(np.full((1, 1), action))
        assert batch.state.energy_kwh[0, 0] == pytest.approx(energy, abs=1e-12)


def test_fifty_tiny_discharges_leave_the_battery() -> None:
    """48 half hours of 5 W served take 48 * 0.5 * 0.005 / 0.8 = 0.15 kWh; nothing is rounded."""
    core = world(site={"critical_blocks": 1})
    scenario = by_hand(core, (CAR._replace(departure=48, stays=True),), critical=0.005, dark=np.ones(48))
    found = cost_usd(core, scenario, -np.ones(48), 48)
    assert not found["unserved_critical"].any()
    assert found["terminal"][-1] == pytest.approx(-0.12 * (30 - 0.15), abs=1e-12)
    assert found["wear"].sum() == pytest.approx(0.05 * 48 * 0.5 * 0.005, abs=1e-12)


def test_the_callers_actions_stay_as_they_are() -> None:
    core = world()
    batch, action = begin(core, by_hand(core)), np.full((1, 1), 7.0)
    batch.step(action)
    assert action == 7.0


def test_full_and_empty_batteries_bound_the_power() -> None:
    """2.25 kWh of room take 2.25 / (0.9 * 0.5) = 5 kW; 5 kWh above the floor give 5 * 0.8 / 0.5 = 8."""
    core = world()
    assert step(core, by_hand(core, (CAR._replace(energy=57.75),)), 1).outcome.charge_kw == pytest.approx(5.0)
    batch = step(core, by_hand(core, (CAR._replace(energy=11.0),)), -1)
    assert batch.outcome.discharge_kw == pytest.approx(8.0)
    assert batch.state.energy_kwh == pytest.approx(6.0)


# -- shortfall and terminal ----------------------------------------------------------------------


@pytest.mark.parametrize(("target", "shortfall"), [(42.0, 3.0 * 1.5), (39.0, 0.0), (20.0, 0.0), (30.0, 0.0)])
def test_shortfall_at_departure(target: float, shortfall: float) -> None:
    """Two full stages bring 30 to 39 kWh; each missing kWh costs 1.50; surplus earns nothing."""
    core = world(cost={"shortfall_usd_kwh": 1.5, "wear_usd_kwh": 0.0})
    scenario = by_hand(core, (Car(departure=2, target=target),))
    expected = {"shortfall": [0.0, shortfall, 0.0]} if shortfall else {}
    assert usd(core, scenario, [1, 1, 1], stages=3) == expected


def test_a_driver_who_leaves_early_is_missed_at_the_true_departure() -> None:
    core = world(cost={"shortfall_usd_kwh": 1.0, "wear_usd_kwh": 0.0})
    scenario = by_hand(core, (Car(departure=1, declared=5, target=40.0),))
    assert usd(core, scenario, [1, 1], stages=2) == {"shortfall": [5.5, 0.0]}


def test_terminal_value_of_vehicles_that_stay() -> None:
    """What is left at the horizon is worth 0.20 per kWh: 34.5 kWh after one stage of charging."""
    core = world(cost={"terminal_usd_kwh": 0.2, "wear_usd_kwh": 0.0})
    t = core.n_stages
    stays, leaves = Car(departure=t, stays=True), Car(departure=t)
    actions = np.eye(1, t)[0]
    found = cost_usd(core, by_hand(core, (stays,)), actions, t)["terminal"]
    assert found[-1] == pytest.approx(-0.2 * 34.5)
    assert not found[:-1].any()
    assert usd(core, by_hand(core, (leaves,)), actions, t) == {}


# -- islands (7)(10) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "unserved"),
    [
        ({"critical": 20.0}, (20, 0)),
        ({"other": 12.0}, (0, 12)),
        ({"critical": 20.0, "other": 12.0, "pv": 7.0}, (15, 12)),  # one critical block of 5
        ({"critical": 20.0, "other": 12.0, "pv": 27.0}, (0, 6)),  # all critical, one other of 6
        ({"critical": 20.0, "other": 12.0, "pv": 25.9}, (0, 12)),  # 0.1 short of another block
        ({"critical": 20.0, "other": 12.0, "pv": 100.0}, (0, 0)),  # sun in plenty earns nothing
        ({"critical": 0.0, "other": 0.0, "pv": 100.0}, (0, 0)),
    ],
)
def test_unserved_load(series: dict[str, float], unserved: tuple[float, float]) -> None:
    core = world()
    found = cost_usd(core, by_hand(core, (), buy=0.3, dark=[1], **series), [0], 1)
    assert found["unserved_critical"] == pytest.approx(20 * 0.5 * unserved[0])
    assert found["unserved_other"] == pytest.approx(5 * 0.5 * unserved[1])
    assert found["energy"] == 0.0


def test_blocks_go_by_value_not_by_tier_or_size() -> None:
    """6 kW carry a critical block (5 kW at 5.5 USD) or an other one (6 kW at 5): 27.5 < 30."""
    core = world(cost={"voll_critical_usd_kwh": 5.5})
    scenario = by_hand(core, critical=20.0, other=12.0, pv=6.0, dark=[1])
    out = step(core, scenario, 0).outcome
    assert (out.served_critical_kw, out.served_other_kw) == (0.0, 6.0)
    dearer = world(cost={"voll_critical_usd_kwh": 6.1})  # 30.5 > 30
    out = step(dearer, scenario, 0).outcome
    assert (out.served_critical_kw, out.served_other_kw) == (5.0, 0.0)


def test_small_critical_blocks_before_large_other_ones() -> None:
    """12 kW: two critical blocks (10 kW, 200 USD/h) rather than one other of 12 kW (60 USD/h)."""
    core = world(site={"other_blocks": 1})
    out = step(core, by_hand(core, critical=20.0, other=12.0, pv=12.0, dark=[1]), 0).outcome
    assert (out.served_critical_kw, out.served_other_kw) == (10.0, 0.0)


def test_sun_then_discharge_then_generator() -> None:
    """20 kW: 7 from the sun, 10 from the vehicle, 3 from the generator at 0.40."""
    core = world(site={"generator_kw": 4.0})
    scenario = by_hand(core, (CAR,), critical=20.0, pv=7.0, dark=[1])
    found = usd(core, scenario, [-1])
    assert found == {"generator": [0.4 * 3 * 0.5], "wear": [0.05 * 10 * 0.5]}


def test_discharge_follows_the_load_below_the_minimum_power() -> None:
    """10 kW less 7 from the sun: 3 kW, below 4.14, and no fuel although there is a generator."""
    core = world(site={"generator_kw": 4.0})
    scenario = by_hand(core, (CAR,), critical=10.0, pv=7.0, dark=[1])
    batch = step(core, scenario, -1)
    assert batch.outcome.discharge_kw == pytest.approx(3.0)
    assert usd(core, scenario, [-1]) == {"wear": [0.05 * 3 * 0.5]}
    assert batch.outcome.curtailed_kwh == pytest.approx((10 - 3) * 0.5)


def test_generator_stops_at_what_whole_blocks_need() -> None:
    """7 + 4 kW of supply carry two blocks of 5: 3 kW of fuel, 10 kW unserved."""
    core = world(site={"generator_kw": 4.0})
    found = usd(core, by_hand(core, critical=20.0, pv=7.0, dark=[1]), [0])
    assert found == {"generator": [0.4 * 3 * 0.5], "unserved_critical": [20 * 10 * 0.5]}


@pytest.mark.parametrize(
    ("pv", "critical", "charged"),
    [
        (12.0, 5.0, 7.0),  # what the load leaves
        (12.0, 20.0, 0.0),  # two blocks of 5 are served, two are not: 2 kW are turned down
        (9.0, 5.0, 0.0),  # 4 kW are below the minimum
        (40.0, 20.0, 10.0),
    ],
)
def test_charging_in_an_island_comes_last(pv: float, critical: float, charged: float) -> None:
    core = world()
    batch = step(core, by_hand(core, (CAR,), critical=critical, pv=pv, dark=[1]), 1)
    assert batch.outcome.charge_kw == pytest.approx(charged)


def test_one_site_in_the_dark_leaves_the_other_alone() -> None:
    """Site 0 is dark and served by its vehicle; site 1 buys 10 kW for its own."""
    core = world(n_sockets=2, site={"bus": (1, 2)})
    scenario = by_hand(core, (CAR, CAR._replace(socket=1)), buy=0.2, critical=[[8.0], [30.0]], dark=[[1], [0]])
    batch = step(core, scenario, [-1, 1])
    np.testing.assert_allclose(batch.outcome.discharge_kw, [[8.0, 0.0]])
    np.testing.assert_allclose(batch.outcome.import_kw, [[0.0, 40.0]])
    assert usd(core, scenario, [[-1, 1]]) == {"energy": [1.0], "wear": [0.05 * 18 * 0.5]}


# -- reserve (7) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("risk", "dark", "energy", "critical", "hours", "missing_kw"),
    [
        (0.6, 0, 9.0, 20.0, 1.0, 10 - 2 - 2.4),  # 3 kWh above the floor hold 2.4 kW for an hour
        (0.6, 0, 9.0, 20.0, 2.0, 10 - 2 - 1.2),
        (0.5, 0, 9.0, 20.0, 1.0, 10 - 2 - 2.4),  # the threshold itself calls for it
        (0.49, 0, 9.0, 20.0, 1.0, 0.0),
        (0.6, 1, 9.0, 20.0, 1.0, 0.0),  # an island has other worries
        (0.6, 0, 30.0, 30.0, 1.0, 15 - 2 - 10),  # the charger bounds what 24 kWh could give
        (0.6, 0, 30.0, 20.0, 1.0, 0.0),  # more than asked for earns nothing
    ],
)
def test_reserve(risk: float, dark: int, energy: float, critical: float, hours: float, missing_kw: float) -> None:
    core = world(site={"generator_kw": 2.0}, reserve={"hours_h": hours})
    scenario = by_hand(core, (CAR._replace(energy=energy),), risk=risk, critical=critical, dark=[dark])
    assert cost_usd(core, scenario, [0], 1)["reserve"] == pytest.approx(0.1 * missing_kw * 0.5)


def test_reserve_counts_the_energy_after_the_stage() -> None:
    """Discharging 10 kW leaves 30 - 6.25 = 23.75 kWh; 5.75 above the floor hold 4.6 kW."""
    core = world()
    scenario = by_hand(core, (CAR._replace(floor=18.0),), risk=1.0, critical=20.0)
    assert cost_usd(core, scenario, [-1], 1)["reserve"] == pytest.approx(0.1 * (10 - 4.6) * 0.5)


# -- limits (9) ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "action", "power", "beyond"),
    [
        ({"critical": 30.0}, 0.0, 0.0, 5.0),  # loads alone are 5 kW beyond 25
        ({"critical": 30.0}, 1.0, 0.0, 5.0),  # charging never adds to it
        ({"critical": 30.0}, -1.0, -10.0, 0.0),
        ({"critical": 30.0}, -0.42, -4.2, 0.8),
        ({"critical": 18.0}, 1.0, 7.0, 0.0),  # charging takes what is left
        ({"critical": 22.0}, 1.0, 0.0, 0.0),  # 3 kW are below the minimum
        ({"pv": 40.0}, 0.0, 0.0, 15.0),
        ({"pv": 40.0}, -1.0, 0.0, 15.0),
        ({"pv": 40.0}, 1.0, 10.0, 5.0),
        ({"pv": 18.0}, -1.0, -7.0, 0.0),
    ],
)
def test_connection_limit(series: dict[str, float], action: float, power: float, beyond: float) -> None:
    core = world(site={"connection_kw": 25.0})
    scenario = by_hand(core, (CAR,), **series)
    out = step(core, scenario, action).outcome
    assert (out.charge_kw - out.discharge_kw) == pytest.approx(power)
    assert out.violation_kw == pytest.approx(beyond)
    assert out.cost_usd[0, COST_TERMS.index("violation")] == pytest.approx(2.0 * beyond * 0.5)
    assert out.curtailed_kwh == pytest.approx((10 * abs(action) - abs(power)) * 0.5)


@pytest.mark.parametrize(
    ("load", "powers"),
    [
        (4.0, [7.0, 7.0, 7.0]),  # 21 of 30 kW
        (12.0, [13 / 3, 13 / 3, 13 / 3]),
        (17.0, [0.0, 16 / 3, 0.0]),  # 8 / 3 each: the first cannot, the second takes its share
        (13.0, [0.0, 8.0, 0.0]),  # 4 each; the third is left with 4
        (21.0, [0.0, 0.0, 0.0]),  # 4 / 3, 8 / 3, 4: below 4.14 to the last
    ],
)
def test_curtailment_passes_on_what_falls_below_the_minimum(load: float, powers: list[float]) -> None:
    core = world(n_sockets=3, site={"connection_kw": 25.0})
    scenario = by_hand(core, tuple(CAR._replace(socket=i) for i in range(3)), critical=load)
    np.testing.assert_allclose(step(core, scenario, [1, 1, 1]).outcome.charge_kw, [powers], atol=1e-9)


def test_vehicles_may_feed_each_other_behind_a_full_connection() -> None:
    """No kW is left at the meter: what one vehicle gives the other may take."""
    core = world(n_sockets=2, site={"connection_kw": 25.0})
    scenario = by_hand(core, (CAR, CAR._replace(socket=1)), critical=25.0)
    out = step(core, scenario, [-0.6, 1]).outcome
    np.testing.assert_allclose(out.charge_kw - out.discharge_kw, [[-6.0, 6.0]])


# -- chargers (2)(3) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "power"), [(0.2, 0.0), (0.2071, 4.14), (0.3, 4.14), (0.5, 5.0), (2.0, 10.0), (-0.2, 0.0)]
)
def test_off_or_at_least_the_minimum(wish: float, power: float) -> None:
    """Wishes below half of 4.14 kW are off, from half on they are raised to it."""
    core = world()
    out = step(core, by_hand(core, (CAR,)), wish).outcome
    assert (out.charge_kw + out.discharge_kw) == pytest.approx(power)


@pytest.mark.parametrize(("wish", "amperes"), [(0.8, 11), (0.759, 11), (0.758, 10), (0.25, 6), (1.0, 14)])
def test_whole_amperes(wish: float, amperes: int) -> None:
    """0.69 kW an ampere; 8 kW are 11.6 A, so 11."""
    core = world(charger={"integer_amperes": True})
    assert step(core, by_hand(core, (CAR,)), wish).outcome.charge_kw == pytest.approx(0.69 * amperes)


@pytest.mark.parametrize(("energy", "power"), [(47.0, 10.0), (48.0, 10.0), (54.0, 5.0), (58.0, 0.0)])
def test_taper(energy: float, power: float) -> None:
    """From 80 % of 60 kWh on the power falls to 0 when full: 5 kW at 90 %; 1.7 kW are too few."""
    core = world(charger={"taper_soc": 0.8})
    batch = step(core, by_hand(core, (CAR._replace(energy=energy),)), 1)
    assert batch.outcome.charge_kw == pytest.approx(power)


def test_vehicle_limits_both_directions() -> None:
    core = world()
    scenario = by_hand(core, (CAR._replace(limit=6.0),))
    assert step(core, scenario, 1).outcome.charge_kw == pytest.approx(6.0)
    assert step(core, scenario, -1).outcome.discharge_kw == pytest.approx(6.0)


def test_presence() -> None:
    """Plugged in from its arrival on, gone at its departure, with the energy it came with."""
    core = world()
    batch = begin(core, by_hand(core, (Car(arrival=1, departure=3, energy=20.0),)))
    held = [0.0, 20.0, 24.5, 0.0, 0.0]
    for t, charged in enumerate((0.0, 10.0, 10.0, 0.0)):
        assert batch.state.energy_kwh == pytest.approx(held[t])
        batch.step(np.ones((1, 1)))
        assert batch.outcome.charge_kw == pytest.approx(charged)


def test_a_socket_that_cannot_discharge() -> None:
    core = world(n_sockets=2, charger={"v2g_share": 0.5})
    scenario = by_hand(core, (CAR, CAR._replace(socket=1)))
    np.testing.assert_allclose(step(core, scenario, [-1, -1]).outcome.discharge_kw, [[0.0, 10.0]])


# -- the total (11) ------------------------------------------------------------------------------


def test_weights_and_reward_scale() -> None:
    """w1 = 2 on energy and wear, w2 = 3 on what the outage costs, reward = minus a tenth of it."""
    core = world(n_sockets=2, site={"bus": (1, 2), "generator_kw": 4.0}, cost={"w1": 2.0, "w2": 3.0},
                 reward_scale=0.1)  # fmt: skip
    scenario = by_hand(core, (CAR._replace(socket=1),), buy=0.2, critical=[[20.0], [0.0]], dark=[[1], [0]])
    out = step(core, scenario, [0, 1]).outcome
    generator, unserved, energy, wear = 0.0, 20 * 20 * 0.5, 1.0, 0.25
    assert out.cost_usd[0].sum() == pytest.approx(generator + unserved + energy + wear)
    assert out.total_usd == pytest.approx(3 * unserved + 2 * (energy + wear))
    assert out.reward == pytest.approx(-0.1 * (3 * unserved + 2 * (energy + wear)))


# -- the feeder (9) ------------------------------------------------------------------------------


def feeder_world(
    monkeypatch: pytest.MonkeyPatch, rating_a: float, r_ohm: float, load: tuple[float, float], **changes: Any
) -> V2GCore:
    """Substation - bus 1 - bus 2 at 1 kV, a site on each bus, the second line without resistance."""
    bus = [0.0, load[0], 0.0], [0.0, load[1], 0.0]
    feeder = Feeder("by hand", 1.0, [0, 1], [1, 2], [r_ohm, 1e-9], [r_ohm / 2, 0.0], *bus, [rating_a, 1e9])
    monkeypatch.setattr(plant_module, "load_feeder", lambda name: feeder)
    plant_module.build_plant.cache_clear()
    core = world(n_sockets=2, site={"bus": (1, 2), "tan_phi": 0.3}, grid={"load_scale": 1.0}, **changes)
    plant_module.build_plant.cache_clear()
    return core


def test_line_limits_active_and_reactive(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 kVA hold 90 kW and 43.589 kvar. Load: 20 kW, 25 kvar, sites 26 kW each with 0.3 kvar/kW.

    Reactive: 25 + 0.3 * 52 = 40.6, which leaves 2.989 kvar, at 0.25 kvar/kW 11.956 kW of 20.
    """
    charger = {"tan_phi": 0.25}
    core = feeder_world(monkeypatch, 100 / np.sqrt(3), 0.0, (20.0, 25.0), charger=charger)
    scenario = by_hand(core, (CAR, CAR._replace(socket=1)), critical=26.0, feeder_scale=1.0)
    out = step(core, scenario, [1, 1]).outcome
    left = (100 * np.sqrt(1 - 0.9**2) - 25 - 0.3 * 52) / 0.25
    np.testing.assert_allclose(out.charge_kw, [[left / 2, left / 2]], rtol=1e-6)
    heavier = scenario._replace(critical_kw=scenario.critical_kw + 13.0)  # P: 20 + 78 = 98 > 90
    out = step(core, heavier, [1, 1]).outcome
    assert not out.charge_kw.any()
    beyond = 20 + 78 - 90 + 25 + 0.3 * 78 - 100 * np.sqrt(1 - 0.9**2)
    assert out.violation_kw == pytest.approx(beyond)


def test_a_dead_line_takes_its_load_off_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With line 1 open only site 0 draws: 20 kW and 0.3 kvar/kW of its 90 kW stay within 90 + 20."""
    core = feeder_world(monkeypatch, 100 / np.sqrt(3), 0.0, (20.0, 0.0))
    fault = int(np.flatnonzero((core.plant.fault_site == [False, True]).all(1))[0])
    scenario = by_hand(
        core, (CAR, CAR._replace(socket=1)), critical=65.0, feeder_scale=1.0, fault=[fault], dark=[[0], [1]]
    )
    out = step(core, scenario, [1, 0]).outcome
    assert out.charge_kw[0, 0] == pytest.approx(90 - 20 - 65)
    assert out.violation_kw == 0.0


def test_voltage_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """v2 falls by 2 (4 P + 2 Q) / 1000: 0.0084 per kW of charging, 0.0092 per kW of load.

    1 - 0.91^2 = 0.1719 less 10 kW of load: 0.0799, which is 9.512 kW of the 20 wished for.
    """
    core = feeder_world(monkeypatch, 1e9, 4.0, (0.0, 0.0))
    scenario = by_hand(core, (CAR, CAR._replace(socket=1)), critical=5.0)
    out = step(core, scenario, [1, 1]).outcome
    most = (1 - 0.91**2 - 10 * 0.0092) / 0.0084
    np.testing.assert_allclose(out.charge_kw, [[most / 2, most / 2]], rtol=1e-6)
    heavy = by_hand(core, critical=10.0)
    beyond = (20 * 0.0092 - 0.1719) / 0.0084  # kW of charging that would move it as far
    out = step(core, heavy, [0, 0]).outcome
    assert out.violation_kw == pytest.approx(2 * beyond)  # at bus 1 and at bus 2
