"""The step of Mobile CSP: numbers by hand, conservation, and what masks promise."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, SUPPLIED, UNREACHABLE, Action
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams, Site
from qevgrid.envs.mobile_csp.sequential import SequentialCore

CSP = "qevgrid/MobileCSP-v0"
DEPOT, DEAR, CHEAP, FAR = range(4)
SITES = (
    Site(name="depot", bus=None, node=1, slots=2),
    Site(name="dear", bus=17, node=2, critical_kw=100.0, voll_usd_kwh=10.0, slots=1),
    Site(name="cheap", bus=16, node=3, critical_kw=100.0, voll_usd_kwh=1.0, slots=2),
    Site(name="far", bus=21, node=13, critical_kw=50.0, voll_usd_kwh=5.0, slots=1),
)
UNIT: dict[str, Any] = {"capacity_kwh": 100.0, "power_kw": 50.0, "eta_charge": 0.8, "eta_discharge": 0.5}


def hand_made(n_units: int = 2, **changes: Any) -> Batch:
    """Four periods of an hour: dear and cheap share an island, far is alone, depot charges 60 kW in all."""
    p = MobileCSPParams(sites=SITES, n_units=n_units, n_periods=4, dt_h=1.0, unit=UNIT, power="levels", **changes)
    batch = MobileCore(p).batch(1)
    batch.start(np.zeros(1, np.int64), [np.random.default_rng(0)])
    w = batch.world
    w.island[:] = [SUPPLIED, 1, 1, 3]
    w.need_kw[:] = [0.0, 60.0, 60.0, 20.0]
    w.pv_kw[:] = [0.0, 0.0, 30.0, 0.0]
    w.generator_kw[:] = [0.0, 0.0, 0.0, 10.0]
    w.charge_limit_kw[:] = [60.0, 0.0, 0.0, 0.0]
    w.travel[:] = np.where(np.eye(4), 0, 2)
    w.travel[:, 0, DEPOT, FAR] = UNREACHABLE
    return batch


def place(batch: Batch, sites: list[int], energy_kwh: list[float]) -> None:
    batch.state.site[0], batch.state.energy_kwh[0] = sites, energy_kwh


def act(batch: Batch, site: Any, share: Any = AUTO) -> None:
    m = batch.core.n_units
    batch.step(Action(np.broadcast_to(site, (1, m)).astype(np.int64), np.broadcast_to(share, (1, m)).astype(float)))


def cost(batch: Batch) -> dict[str, float]:
    return dict(zip(model.COST_TERMS, batch.outcome.cost_usd[0], strict=True))


def test_island_serves_by_value_and_takes_pro_rata() -> None:
    """Needs 60 + 60, PV 30; offers 50 kW and 20 kW (20 = (50 - 10) kWh * 0.5 / 1 h): 100 kW in all."""
    batch = hand_made()
    place(batch, [DEAR, CHEAP], [110.0 - 10.0, 50.0])
    act(batch, STAY)
    out = batch.outcome
    offered = np.array([45.0, 20.0])  # (100 - 10) * 0.5 = 45 < 50 kW
    assert out.served_kw[0].tolist() == [0.0, 60.0, 35.0, 0.0]
    assert np.allclose(out.discharge_kw[0], offered)
    assert np.allclose(batch.state.energy_kwh[0], [10.0, 10.0])
    assert cost(batch) == pytest.approx(
        {"unserved": 25.0 * 1.0 + 20.0 * 5.0, "generator": 4.0, "wear": 0.05 * 65.0, "transport": 0.0,
         "energy": 0.0, "terminal": 0.0, "service": 0.0}
    )  # fmt: skip
    assert out.total_usd[0] == pytest.approx(125.0 + 4.0 + 3.25)
    assert out.reward[0] == pytest.approx(-132.25e-4)


def test_what_is_not_needed_stays_in_the_batteries() -> None:
    """Needs 60 + 60 but for 90 of PV: 30 kW from offers of 25 and 20 (half power is 25 kW)."""
    batch = hand_made()
    batch.world.pv_kw[0, :, CHEAP] = 90.0
    place(batch, [DEAR, CHEAP], [100.0, 50.0])
    act(batch, STAY, [[0.5, AUTO]])
    assert np.allclose(batch.outcome.discharge_kw[0], 30.0 * np.array([25.0, 20.0]) / 45.0)
    assert np.allclose(batch.state.energy_kwh[0], [100.0 - 2 * 30 * 25 / 45, 50.0 - 2 * 30 * 20 / 45])
    assert cost(batch)["unserved"] == pytest.approx(100.0)
    assert batch.outcome.curtailed_kwh[0] == pytest.approx(25.0 - 30.0 * 25.0 / 45.0)


def test_charging_shares_the_limit_most_energy_first() -> None:
    """Limit 60 kW, room of unit 1: (100 - 80) / 0.8 = 25 kW; unit 0 takes the other 35."""
    batch = hand_made()
    place(batch, [DEPOT, DEPOT], [40.0, 80.0])
    act(batch, STAY)
    assert np.allclose(batch.outcome.charge_kw[0], [35.0, 25.0])
    assert np.allclose(batch.state.energy_kwh[0], [68.0, 100.0])
    assert cost(batch)["energy"] == pytest.approx(0.15 * 60.0)
    assert cost(batch)["wear"] == pytest.approx(0.05 * 60.0)


def test_levels_do_nothing_where_they_make_no_sense() -> None:
    batch = hand_made()
    place(batch, [DEPOT, DEAR], [50.0, 50.0])
    act(batch, STAY, [[1.0, -1.0]])
    assert not batch.outcome.charge_kw.any()
    assert not batch.outcome.discharge_kw.any()
    assert batch.outcome.curtailed_kwh[0] == pytest.approx(100.0)
    assert np.allclose(batch.state.energy_kwh[0], 50.0)


def test_slots_go_to_most_energy_then_to_the_lower_number() -> None:
    batch = hand_made(n_units=3)
    place(batch, [DEAR, DEAR, DEPOT], [60.0, 70.0, 100.0])
    act(batch, STAY)
    assert batch.outcome.connected[0].tolist() == [False, True, True]
    place(batch, [DEAR, DEAR, DEPOT], [60.0, 60.0, 100.0])
    act(batch, STAY)
    assert batch.outcome.connected[0].tolist() == [True, False, True]


def test_trips_take_their_time_and_are_paid_at_departure() -> None:
    batch = hand_made()
    act(batch, [[DEAR, DEPOT]])
    assert batch.state.arrival[0].tolist() == [2, 0]
    assert cost(batch)["transport"] == pytest.approx(2 * 90.9)
    act(batch, [[CHEAP, DEPOT]])  # under way: goes on
    assert batch.state.site[0].tolist() == [DEAR, DEPOT]
    assert cost(batch)["transport"] == 0.0
    assert batch.outcome.discharge_kw[0, 0] == 0.0
    act(batch, STAY)  # period 2: connected
    assert batch.outcome.discharge_kw[0, 0] == pytest.approx(45.0)
    act(batch, [[DEAR, FAR]])  # period 3: one period of the trip counts; what is left in unit 1 is worth money
    assert cost(batch)["transport"] == pytest.approx(90.9)
    assert cost(batch)["terminal"] == pytest.approx(-0.15 * (0.0 + 90.0))
    assert batch.over.all()


def test_unreachable_means_stay_and_is_reported() -> None:
    batch = hand_made()
    place(batch, [DEPOT, DEPOT], [20.0, 100.0])
    act(batch, [[FAR, DEPOT]], 0.0)
    assert batch.outcome.refused[0] == 1
    assert batch.state.site[0].tolist() == [DEPOT, DEPOT]
    assert batch.outcome.charge_kw[0].tolist() == [50.0, 0.0]  # the one that could not go charges by itself


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_info_tells_of_refused_trips(mode: str) -> None:
    """In the scalar and in the vector environment, in every row, to the end."""
    one: Any = gym.make(CSP, preset="mini").unwrapped
    many: Any = gym.make_vec(CSP, num_envs=3, preset="mini", autoreset_mode=mode)
    many.reset(seed=0)
    rng, told = np.random.default_rng(0), np.zeros(3, int)
    plan = rng.integers(0, 6, (24, 3, 2))
    for choice in plan:
        info = many.step(choice)[-1]
        told += info.get("refused", 0) + info.get("final_info", {}).get("refused", 0)
    wanted = np.zeros(3, int)
    for b in range(3):
        one.reset(seed=b)
        for choice in plan[:, b]:
            refused = one.step(choice)[-1]["refused"]
            assert isinstance(refused, int)
            wanted[b] += refused
    assert wanted.sum() > 0
    assert told.tolist() == wanted.tolist()


def test_masks_of_the_hand_made_world() -> None:
    batch = hand_made()
    place(batch, [DEPOT, DEAR], [100.0, 10.0])
    mask = batch.mask()[0]
    assert mask[0].tolist() == [*[True, False, True, False], *[False, False, True, False, False]]  # full battery
    assert mask[1].tolist() == [*[True] * 4, *[False, False, True, False, False]]  # at the floor
    place(batch, [DEPOT, CHEAP], [50.0, 50.0])
    mask = batch.mask()[0]
    assert mask[0, 4:].tolist() == [True, True, True, False, False]
    assert mask[1, 4:].tolist() == [False, False, True, True, True]
    act(batch, [[CHEAP, CHEAP]])  # two inbound or there: full for a third, and a unit under way can only go on
    mask = batch.mask()[0]
    assert mask[0].tolist() == [False, False, True, False] + [False] * 5


@pytest.mark.parametrize("power", ["auto", "levels"])
def test_energy_and_islands_are_in_balance(power: str) -> None:
    """Random play of whole storms: batteries, islands, slots, trips and costs add up."""
    env: Any = gym.make_vec(CSP, num_envs=16, power=power)
    env.reset(seed=3)
    batch, plant, rng = env._batch, env.core.plant, np.random.default_rng(0)
    fleet, dt = plant.fleet, plant.tariff.dt_h
    served_kwh = 0.0
    for t in range(plant.n_periods):
        before = batch.view()
        pick = (rng.random(before.mask.shape) * before.mask).argmax(-1)
        env.step(pick)
        w, out, now = batch.world, batch.outcome, batch.view().units
        gain = model.energy_next_kwh(0.0, out.charge_kw, out.discharge_kw, dt, fleet.eta_charge, fleet.eta_discharge)
        assert np.abs(now.energy_kwh - before.units.energy_kwh - gain).max() < 1e-9
        assert now.energy_kwh.min() >= fleet.floor_kwh - 1e-9
        assert now.energy_kwh.max() <= fleet.capacity_kwh + 1e-9
        assert not (out.charge_kw * out.discharge_kw).any()
        assert not (out.charge_kw + out.discharge_kw)[~out.connected].any()
        assert not out.refused.any()
        for b in range(16):
            island, site = w.island[b, t], now.site[b]
            for k in set(island[island != SUPPLIED]):
                here = island == k
                given = out.discharge_kw[b, here[site]].sum()
                served, pv = out.served_kw[b, here].sum(), w.pv_kw[b, t, here].sum()
                assert given == pytest.approx(max(served - pv, 0.0), abs=1e-9)
                served_kwh += given * dt
            charge = np.bincount(site, out.charge_kw[b], plant.n_sites)
            assert (charge <= w.charge_limit_kw[b, t] + 1e-9).all()
            used = np.bincount(site[out.connected[b]], minlength=plant.n_sites)
            assert (used <= plant.sites.slots).all()
        lost = ((w.need_kw[:, t] - out.served_kw) * plant.sites.voll_usd_kwh).sum(1) * dt
        assert np.allclose(lost, out.cost_usd[:, model.UNSERVED])
    assert served_kwh > 1000.0


def test_forms_agree() -> None:
    """The same choices, one by one or at once, lead to the same end and cost."""
    p = MobileCSPParams(preset="mini", n_units=3, power="levels", preposition=True)
    joint, single = MobileCore(p).batch(4), SequentialCore(p).batch(4)
    rngs = [np.random.default_rng(k) for k in range(8)]
    joint.start(np.arange(4), rngs[:4])
    single.load(np.arange(4), joint.scenario)
    rng, total = np.random.default_rng(1), np.zeros((4, len(model.COST_TERMS)))
    plan = rng.integers(0, joint.core.n_choices, (joint.core.n_stages, 4, 3))
    for choice in plan:
        joint.step(joint.core.decode(choice))
        total += joint.outcome.cost_usd
    paid, rows = np.zeros_like(total), np.arange(4)
    while not single.over.all():
        at = np.minimum(single.state.stage - joint.core.first_stage, len(plan) - 1)
        single.step(single.core.decode(plan[at, rows, np.maximum(single.acting, 0)][:, None]))
        paid += single.outcome.cost_usd
    assert np.allclose(paid, total)
    for mine, other in zip(joint.state, single.state, strict=True):
        assert np.array_equal(mine, other)


def test_sequential_shows_what_was_chosen_before() -> None:
    """A site with one slot that the first unit leaves for is closed to the second."""
    p = MobileCSPParams(preset="mini", form="sequential", roads={"closed_share": 0.0})
    batch = SequentialCore(p).batch(1)
    batch.start(np.zeros(1, np.int64), [np.random.default_rng(0)])
    water = [site.name for site in p.sites].index("water")
    assert batch.mask()[0, 0, water]
    batch.step(batch.core.decode(np.array([[water]])))
    assert batch.acting[0] == 1
    assert not batch.mask()[0, 0, water]
    view, labels = batch.view(), batch.core.labels
    assert view.units.site[0, 0] == water
    assert view.units.arrival[0, 0] > view.stage[0]
    obs = dict(zip(labels, batch.observe()[0].tolist(), strict=True))
    assert (obs["unit0_acts"], obs["unit1_acts"], obs["unit0_idle"]) == (0.0, 1.0, 0.0)
    assert (obs["water_units_inbound"], obs["unit0_at_water"]) == (1.0, 1.0)


def test_before_the_storm_units_may_be_anywhere() -> None:
    p = MobileCSPParams(preset="mini", preposition=True)
    batch = MobileCore(p).batch(1)
    batch.start(np.zeros(1, np.int64), [np.random.default_rng(0)])
    assert batch.view().stage[0] == -1
    assert batch.mask().all()
    batch.step(Action(np.array([[2, 3]]), np.full((1, 2), AUTO)))
    assert batch.state.stage[0] == 0
    assert batch.state.site[0].tolist() == [2, 3]
    assert (batch.state.arrival[0] <= 0).all()
    trips = batch.view().whole_travel[0, [2, 3]].sum()
    assert batch.outcome.total_usd[0] == pytest.approx(90.9 * trips * p.dt_h)


BAD = [
    ({"sites": ()}, "sites"),
    ({"n_units": 0}, "n_units"),
    ({"n_units": 30}, "n_units=30: the sites have 16 slots in all"),
    ({"unit": {"start": "nowhere"}}, "unit.start='nowhere': no such site"),
    ({"roads": {"network": "nowhere.graphml"}}, "neither 'sioux_falls' nor a file"),
    ({"sites": (Site(name="a", bus=40, node=1, slots=9),)}, "site 'a': bus=40 is not on feeder 'case33bw'"),
    ({"sites": (Site(name="a", bus=4, node=99, slots=9),)}, "no node 99 in the roads"),
    ({"storm": {"gust": 1}}, "did you mean 'gust_mph'"),
    ({"preset": "minni"}, "preset='minni'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        gym.make(CSP, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
