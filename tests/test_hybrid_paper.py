"""The review's encoding: each fault by itself, and the corrected form against brute force and HiGHS.

The base fleet: 8 kW either way, 20 of 40 kWh, floor 4, half-hour stages, no losses. With wear 0.05 and a
worth of 0.12 USD/kWh, 1 kWh discharged at 0.5 USD earns 0.33, 1 kWh charged at 0.1 USD loses 0.03.
"""

import dataclasses
import itertools
from typing import Any

import dimod
import numpy as np
import pytest

from qevgrid.agents.hybrid.paper import (
    ALL_FIXES,
    NO_FIX,
    Evaluation,
    Fix,
    Fleet,
    Penalties,
    build,
    decode,
    decode_fixed,
    decode_paper,
    decode_soc,
    evaluate,
    legal,
    optimum,
    paper,
    paper_fixed,
)
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.params import CostParams
from worlds import Car, begin, by_hand, core_of, drawn

UNIT = {"charge_kw": 8.0, "discharge_kw": 8.0, "energy_kwh": 20.0, "floor_kwh": 4.0, "full_kwh": 40.0}
EARN, LOSE = 0.5, 0.1
"""Prices at which discharging pays, and at which nothing does."""


def fleet(n: int = 1, buy: Any = (EARN,), critical: Any = None, **changes: Any) -> Fleet:
    """N units like the base one, but for ``changes``; ``critical`` > 0 makes a stage dark, without a price."""
    unit = {key: np.broadcast_to(np.asarray(changes.pop(key, x), float), (n,)).copy() for key, x in UNIT.items()}
    load = np.zeros(len(buy)) if critical is None else np.asarray(critical, float)
    price = np.where(load > 0, 0.0, np.asarray(buy, float))
    fixed = {"capacity": n, "dt_h": 0.5, "eta_charge": 1.0, "eta_discharge": 1.0, "cost": CostParams()}
    stages = {"buy_usd_kwh": price, "sell_usd_kwh": price, "critical_kw": load, "dark": load > 0}
    return Fleet(**(unit | stages | fixed | changes))


def ground_state(bqm: dimod.BinaryQuadraticModel) -> dict[Any, int]:
    return dict(dimod.ExactSolver().sample(bqm).first.sample)


def ground_states(bqm: dimod.BinaryQuadraticModel) -> int:
    """How many samples have the least energy."""
    energy = dimod.ExactSolver().sample(bqm).record.energy
    return int((energy < energy.min() + 1e-9).sum())


def best(f: Fleet, fixes: Fix = ALL_FIXES, levels: int = 2, **options: Any) -> Evaluation:
    """The ground state's powers, carried out."""
    sample = ground_state(build(f, fixes, levels, **options))
    return evaluate(f, decode(f, sample, fixes, levels))


def set_to(bqm: dimod.BinaryQuadraticModel, *labels: Any) -> dict[Any, int]:
    """The sample with these bits only."""
    assert set(labels) <= set(bqm.variables)
    return {label: int(label in labels) for label in bqm.variables}


# -- each fault by itself: everything else corrected --------------------------------------------------


def test_13_the_highest_level_is_the_maximum() -> None:
    """K = 3 levels: as printed 16/3 of 8 kW, so a third of what discharging earns is lost."""
    f = fleet()
    top = {("discharge", 0, 0, 2): 1}
    assert decode_paper(f, top) == pytest.approx(-16 / 3)
    assert decode_fixed(f, top) == pytest.approx(-8)
    assert best(f, levels=3).cost_usd == pytest.approx(-0.33 * 4)
    assert best(f, ALL_FIXES ^ Fix.STEP, levels=3).cost_usd == pytest.approx(-0.33 * 4 * 2 / 3)


def test_15_the_highest_soc_level_is_full() -> None:
    f = fleet()
    top = {("soc", 0, 0, 15): 1}
    assert decode_soc(f, top) == pytest.approx(4 + 36 * 15 / 16)
    assert decode_soc(f, top, Fix.STEP) == pytest.approx(40)


def test_14_rest_is_written_in_one_way_only() -> None:
    """As printed: no bit, the idle bit of either direction, or both."""
    f, faulty = fleet(buy=[LOSE]), ALL_FIXES ^ Fix.ONE_BIT
    assert [len(build(f, fixes)) for fixes in (ALL_FIXES, faulty)] == [4, 6]
    assert [ground_states(build(f, fixes)) for fixes in (ALL_FIXES, faulty)] == [1, 4]
    idle = {("charge", 0, 0, 0): 1, ("discharge", 0, 0, 0): 1}
    assert legal(idle)
    assert not decode_paper(f, idle).any()


def test_16_the_lowest_energy_is_written_in_one_way_only() -> None:
    f = fleet()
    assert decode_soc(f, {("soc", 0, 0, 0): 1}) == decode_soc(f, {}) == 4.0
    assert ("soc", 0, 0, 0) in paper(f).variables
    assert ("soc", 0, 0, 0) not in build(f, Fix.ONE_BIT).variables


@pytest.mark.parametrize("fixes", [NO_FIX, ALL_FIXES])
def test_two_bits_of_a_stage_cost_more_than_they_earn(fixes: Fix) -> None:
    f = fleet(cost=CostParams(wear_usd_kwh=0.0, terminal_usd_kwh=0.0), capacity=0)
    bqm = build(f, fixes, penalties=Penalties(balance_usd_kwh2=0.0, capacity_usd=0.0))
    one, other, back = (("discharge", 0, 0, 1), ("discharge", 0, 0, 2), ("charge", 0, 0, 1))
    for pair in ([one, other], [one, back]):
        both = set_to(bqm, *pair)
        assert not legal(both)
        assert bqm.energy(both) > max(bqm.energy(set_to(bqm, label)) for label in pair)
    assert legal(set_to(bqm, one))


def test_17_needs_the_stage_length() -> None:
    """8 kW take 4 kWh in half an hour. As printed they take 8, and the truth is fined (8 - 4)^2."""
    f = fleet(floor_kwh=0.0, full_kwh=64.0)
    penalties = Penalties(balance_usd_kwh2=3.0, capacity_usd=0.0)
    truth = (("discharge", 0, 0, 1), ("soc", 0, 0, 4))  # 4 of 16 steps of 4 kWh
    for fixes, fine in ((Fix.STEP, 3 * 4**2), (Fix.STEP | Fix.STAGE_LENGTH, 0)):
        bqm = build(f, fixes, 2, 17, penalties)
        sample = set_to(bqm, *truth)
        done = evaluate(f, decode(f, sample, fixes, 2))
        assert done.energy_kwh[:, 1:] == pytest.approx(decode_soc(f, sample, fixes, 17)) == 16
        assert bqm.energy(sample) == pytest.approx(done.cost_usd + fine)


def test_4_without_the_stage_length_forbids_what_the_battery_has() -> None:
    """8 kW for a quarter of an hour need 2 kWh; as printed 8, of which there are 5."""
    f, faulty = fleet(buy=[2.0], dt_h=0.25, energy_kwh=9.0), ALL_FIXES ^ Fix.STAGE_LENGTH
    assert best(f).cost_usd == pytest.approx(-(2.0 - 0.05 - 0.12) * 2)
    assert best(f, faulty).cost_usd == 0.0
    assert best(dataclasses.replace(f, energy_kwh=np.array([20.0])), faulty).cost_usd < 0


@pytest.mark.parametrize("balance", [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0])
def test_17_freezes_or_fakes_energy_on_a_coarse_grid(balance: float) -> None:
    """Free energy, worth 0.12 less 0.05 of wear: 2 kWh a stage, but the grid has steps of 12."""
    f, faulty = fleet(buy=[0.0], dt_h=0.25, energy_kwh=16.0), ALL_FIXES ^ Fix.NO_SOC_BITS
    assert best(f).cost_usd == pytest.approx(-0.07 * 2)
    sample = ground_state(build(f, faulty, 2, 4, Penalties(balance_usd_kwh2=balance)))
    done = evaluate(f, decode(f, sample, faulty, 2))
    frozen = not done.powers_kw.any()
    faked = np.abs(decode_soc(f, sample, faulty, 4) - done.energy_kwh[:, 1:]).max() > 1.0
    assert frozen if balance >= 0.1 else faked


def test_22_forces_units_to_run_at_a_loss() -> None:
    f = fleet(2, buy=[LOSE])
    assert not best(f).powers_kw.any()
    forced = best(f, ALL_FIXES ^ Fix.CAPACITY, penalties=Penalties(capacity_usd=1.0))
    assert (forced.powers_kw == 8.0).all()
    assert forced.cost_usd == pytest.approx(2 * 0.03 * 4)


def test_22_counts_bits_and_not_units() -> None:
    """Rest costs 4 or nothing by how it is written; one unit cannot be the three that a site has room for."""
    weight = Penalties(bits_usd=10.0, balance_usd_kwh2=0.0, capacity_usd=1.0)
    f = fleet(2, buy=[0.0], cost=CostParams(terminal_usd_kwh=0.0))
    bqm = paper(f, penalties=weight)
    idle = [("charge", 0, 0, 0), ("discharge", 0, 0, 0)]
    assert [bqm.energy(set_to(bqm, *idle[:k])) for k in range(3)] == [4.0, 1.0, 0.0]
    alone = paper(fleet(buy=[0.0], capacity=3, cost=f.cost), levels=2, soc_levels=2, penalties=weight)
    assert dimod.ExactSolver().sample(alone).first.energy >= 1.0


def test_19_holds_where_more_would_pay() -> None:
    f = fleet(3, capacity=2)
    done = best(f)
    assert done.raw_feasible
    assert (done.powers_kw < 0).sum() == 2
    assert best(dataclasses.replace(f, capacity=3)).cost_usd == pytest.approx(-0.33 * 4 * 3)


def test_10_pays_for_oversupply() -> None:
    """8 kW of load, two units: the second discharges for nothing, 4 kWh at 0.05 of wear and 0.12 of worth."""
    f, faulty = fleet(2, critical=[8.0]), ALL_FIXES ^ Fix.HINGE
    assert best(f).cost_usd == pytest.approx(0.17 * 4)
    assert best(f, faulty).cost_usd == pytest.approx(0.17 * 8)
    believed = dimod.ExactSolver().sample(build(f, faulty, 2)).first.energy
    assert believed == pytest.approx(0.17 * 8 - 20 * 4)


def test_10_lets_islands_charge_from_nowhere() -> None:
    """An empty vehicle takes 8 kW from a load of 8 kW that nothing serves."""
    f = fleet(critical=[8.0], energy_kwh=4.0)
    assert best(f).cost_usd == pytest.approx(20 * 4)
    assert best(f, ALL_FIXES ^ Fix.HINGE).cost_usd == pytest.approx(2 * 20 * 4 - 0.07 * 4)


FAULTS = {
    "step": fleet(),
    "stage_length": fleet(buy=[2.0], dt_h=0.25, energy_kwh=9.0),
    "soc_grid": fleet(buy=[0.0], dt_h=0.25, energy_kwh=16.0),
    "capacity": fleet(2, buy=[LOSE]),
    "oversupply": fleet(3, critical=[8.0], charge_kw=0.0),
    "islands": fleet(critical=[8.0], energy_kwh=4.0),
}


@pytest.mark.parametrize("name", FAULTS)
def test_corrected_costs_the_optimum_and_printed_never_less(name: str) -> None:
    f = FAULTS[name]
    least = evaluate(f, optimum(f, levels=2)).cost_usd
    assert best(f).cost_usd == pytest.approx(least)
    for balance in (0.01, 1.0):
        printed = best(f, NO_FIX, soc_levels=2 if f.n_units > 2 else 4, penalties=Penalties(balance_usd_kwh2=balance))
        assert printed.cost_usd >= least - 1e-9


@pytest.mark.parametrize("name", ["step", "stage_length", "soc_grid", "oversupply"])
def test_printed_misses_the_optimum_at_every_weight(name: str) -> None:
    f = FAULTS[name]
    for balance in (0.001, 0.01, 0.1, 1.0, 10.0):
        printed = best(f, NO_FIX, soc_levels=2 if f.n_units > 2 else 4, penalties=Penalties(balance_usd_kwh2=balance))
        assert printed.cost_usd > best(f).cost_usd + 0.01


# -- the corrected form is exact ---------------------------------------------------------------------

LOSSY = {"eta_charge": 0.8, "eta_discharge": 0.8}
TINY = {
    "nothing_binds": (fleet(2, buy=(LOSE, EARN)), 2),
    "both_limits_bind": (fleet(2, buy=(LOSE, EARN), energy_kwh=(20.0, 6.0), full_kwh=(22.0, 40.0)), 2),
    "losses_at_the_floor": (fleet(buy=(0.0, EARN), energy_kwh=6.0, charge_kw=10.0, **LOSSY), 2),
    "charge_to_sell_later": (fleet(buy=(0.0, EARN), energy_kwh=4.0), 3),
    "capacity": (fleet(3, capacity=2, charge_kw=(8.0, 4.0, 2.0), discharge_kw=(8.0, 4.0, 2.0)), 3),
    "load_between_levels": (fleet(2, buy=(LOSE, 0.0), critical=(0.0, 11.0), energy_kwh=(20.0, 6.0)), 2),
    "unlike_units_in_the_dark": (fleet(2, critical=(7.0,), charge_kw=(3.0, 8.0), discharge_kw=(3.0, 8.0)), 2),
    "dark_with_capacity": (fleet(2, critical=(8.0, 20.0), capacity=1), 2),
    "everything": (fleet(2, critical=(9.0,), capacity=1, energy_kwh=(20.0, 5.0), charge_kw=(8.0, 0.0)), 2),
    "a_bit_too_many_would_pay_later": (fleet(buy=(LOSE, EARN), energy_kwh=4.0, charge_kw=4.0, discharge_kw=12.0), 3),
    "only_charges": (fleet(2, buy=(0.0, LOSE), discharge_kw=0.0, full_kwh=(25.0, 40.0)), 2),
}


def schedules(f: Fleet, levels: int) -> list[FloatArray]:
    """Every discrete schedule (N, H), feasible or not."""
    share = np.arange(1 - levels, levels) / (levels - 1)
    shape = (f.n_units, f.horizon)
    found = {}
    for shares in itertools.product(share, repeat=f.n_units * f.horizon):
        x = np.reshape(shares, shape)
        powers = np.where(x > 0, x * f.charge_kw[:, None], x * f.discharge_kw[:, None]) + 0.0  # no -0
        found[powers.tobytes()] = powers
    return list(found.values())


def least_energies(f: Fleet, levels: int) -> list[tuple[dict[Any, int], float]]:
    """Power bits and their energy with the best slack, for all of them."""
    found = dimod.ExactSolver().sample(paper_fixed(f, levels))
    labels = list(found.variables)
    power = [j for j, label in enumerate(labels) if label[0] != "slack"]
    least: dict[bytes, tuple[Any, float]] = {}
    for row, energy in zip(found.record.sample[:, power], found.record.energy, strict=True):
        if energy < least.get(row.tobytes(), (None, np.inf))[1]:
            least[row.tobytes()] = (row, float(energy))
    return [({labels[j]: int(x) for j, x in zip(power, row, strict=True)}, usd) for row, usd in least.values()]


@pytest.mark.parametrize("name", TINY)
def test_brute_force_milp_and_ground_state_agree(name: str) -> None:
    """And the least energy over the slack bits is the true cost, schedule by schedule."""
    f, levels = TINY[name]
    assert len(paper_fixed(f, levels)) <= 14
    every = [evaluate(f, powers) for powers in schedules(f, levels)]
    brute = min(x.cost_usd for x in every if x.raw_feasible)
    exact = evaluate(f, optimum(f, levels))
    assert exact.raw_feasible
    assert exact.cost_usd == pytest.approx(brute, abs=1e-6)
    done = best(f, levels=levels)
    assert done.raw_feasible
    assert done.cost_usd == pytest.approx(brute, abs=1e-9)
    feasible = 0
    for sample, energy in least_energies(f, levels):
        said = evaluate(f, decode_fixed(f, sample, levels))
        if legal(sample) and said.raw_feasible:
            feasible += 1
            assert energy == pytest.approx(said.cost_usd, abs=1e-9)
        else:
            assert energy > brute + 1e-3
    assert feasible == sum(x.raw_feasible for x in every)


def test_tiny_fleets_use_every_kind_of_slack() -> None:
    purposes = {v[1] for f, levels in TINY.values() for v in paper_fixed(f, levels).variables if v[0] == "slack"}
    assert purposes == {"energy_0", "energy_1", "capacity", "served", "rest", "surplus"}


@pytest.mark.parametrize("seed", range(6))
def test_random_fleets_agree_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    energy = rng.integers(4, 13, 2)
    f = fleet(
        2,
        buy=rng.uniform(-0.1, 0.6, 2),
        critical=(0.0, rng.integers(1, 20)) if seed % 2 else None,
        charge_kw=rng.choice([0.0, 4.0, 8.0], 2),
        energy_kwh=energy,
        full_kwh=energy + rng.integers(0, 9, 2),
    )
    assert len(paper_fixed(f, 2)) <= 18
    brute = min(x.cost_usd for x in map(lambda p: evaluate(f, p), schedules(f, 2)) if x.raw_feasible)
    assert evaluate(f, optimum(f, 2)).cost_usd == pytest.approx(brute, abs=1e-6)
    assert best(f).cost_usd == pytest.approx(brute, abs=1e-9)
    assert evaluate(f, optimum(f)).cost_usd <= brute + 1e-6


# -- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "h", "levels"), [(5, 1, 2), (5, 4, 3), (20, 8, 2), (20, 8, 3)])
def test_variables_are_counted_by_the_formulae(n: int, h: int, levels: int) -> None:
    """Room enough: no slack."""
    f = fleet(n, buy=(EARN,) * h, energy_kwh=100.0, full_kwh=200.0)
    assert len(paper(f, levels)) == n * h * (2 * levels + 16)
    fixed = paper_fixed(f, levels)
    assert len(fixed) == 2 * n * h * (levels - 1)
    assert fixed.num_interactions == n * h * (levels - 1) * (2 * levels - 3)


def test_the_size_that_the_design_quotes() -> None:
    f = fleet(20, buy=(EARN,) * 8, energy_kwh=100.0, full_kwh=200.0)
    assert [len(paper(f, levels)) for levels in (2, 3)] == [3200, 3520]
    assert [len(paper_fixed(f, levels)) for levels in (2, 3)] == [320, 640]


@pytest.mark.parametrize(
    ("f", "slack"),
    [
        (fleet(2, energy_kwh=8.0), 0),  # exactly enough
        (fleet(2, energy_kwh=7.9), 2),  # one bit a unit: rest or charge
        (fleet(4, capacity=3), 2),  # 0 to 3
        (fleet(4, capacity=4), 0),
        (fleet(2, critical=[16.0]), 0),  # never too much
        (fleet(2, critical=[12.0]), 2 + 1),  # 0 to 3 quanta and the rest
        (fleet(2, critical=[8.0]), 2 + 1),  # 0 to 3 quanta, one too much
    ],
)
def test_slack_only_where_a_limit_can_bind(f: Fleet, slack: int) -> None:
    assert sum(label[0] == "slack" for label in paper_fixed(f, 2).variables) == slack


# -- evaluation --------------------------------------------------------------------------------------


def test_clipping_is_reported() -> None:
    f = fleet(2, buy=(EARN, EARN), energy_kwh=(20.0, 6.0), capacity=1)
    over = evaluate(f, np.array([[-9.0, 0.0], [0.0, -8.0]]))
    assert not over.raw_feasible
    assert over.powers_kw == pytest.approx(np.array([[-8.0, 0.0], [0.0, -4.0]]))  # rating; 2 kWh left
    assert over.energy_kwh == pytest.approx(np.array([[20.0, 16.0, 16.0], [6.0, 6.0, 4.0]]))
    assert evaluate(f, over.powers_kw).raw_feasible
    assert evaluate(f, over.powers_kw).cost_usd == over.cost_usd == pytest.approx(-0.33 * 6)
    crowded = evaluate(f, np.array([[-8.0, 0.0], [-1.0, 0.0]]))
    assert not crowded.raw_feasible
    assert crowded.powers_kw[1, 0] == 0.0  # the smaller gives way


@pytest.mark.parametrize("dark", [0, 1])
def test_evaluation_agrees_with_the_environment(dark: int) -> None:
    """Stage by stage, wherever nothing is charged or supplied in vain in the dark."""
    site = {"critical_blocks": 16, "generator_kw": 0.0, "pv_kw": 0.0, "connection_kw": 1000.0}
    charger = {"power_kw": (8.0,), "min_current_a": 0.0, "eta_charge": 0.9, "eta_discharge": 0.8}
    core = core_of("no_feeder", n_sockets=3, dt_h=0.5, charger=charger, site=site)
    cars = tuple(Car(socket=i, departure=48, energy=20.0 + i, stays=True) for i in range(3))
    load, price = 32.0, [0.1, 0.4, 0.3]
    scenario = by_hand(core, cars, buy=price, critical=[load] * 3, dark=[0, dark, dark])
    batch = begin(core, scenario)
    view = batch.view()
    f = Fleet.from_view(view, view.forecast(3), 3)
    f = dataclasses.replace(
        f,
        buy_usd_kwh=np.where([0, dark, dark], 0.0, price),
        sell_usd_kwh=np.where([0, dark, dark], 0.0, price),
        critical_kw=load * np.array([0, dark, dark]),
        dark=np.array([0, dark, dark], bool),
    )
    powers = np.array([[8.0, -8.0, 0.0], [-4.0, -8.0, -8.0], [4.0, 0.0, -4.0]])
    cost = 0.0
    for t in range(3):
        batch.step(powers[None, :, t] / 8.0)
        assert (batch.outcome.charge_kw - batch.outcome.discharge_kw)[0] == pytest.approx(powers[:, t])
        cost += float(batch.outcome.total_usd[0])
    done = evaluate(f, powers)
    assert done.raw_feasible
    assert batch.state.energy_kwh[0] == pytest.approx(done.energy_kwh[:, -1])
    gained = (done.energy_kwh[:, -1] - done.energy_kwh[:, 0]).sum()
    assert done.cost_usd + 0.12 * gained == pytest.approx(cost)


# -- where the numbers come from ---------------------------------------------------------------------


def test_a_fleet_is_what_the_view_shows() -> None:
    core = core_of("sites")
    batch = begin(core, drawn(core, 3))
    for _ in range(8):
        batch.step(np.zeros((3, core.n_sockets)))
    view = batch.view()
    forecast = view.forecast(5)
    for b, d in itertools.product(range(3), range(2)):
        here = np.flatnonzero(view.plugged[b] & (view.plant.site == d))
        f = Fleet.from_view(view, forecast, 4, b, d)
        assert (f.n_units, f.horizon, f.capacity) == (len(here), 4, 3)
        assert (f.energy_kwh == view.energy_kwh[b, here]).all()
        assert (f.full_kwh == view.capacity_kwh[b, here]).all()
        assert (f.charge_kw == view.charge_kw[b, here]).all()
        assert (f.buy_usd_kwh == np.where(f.dark, 0, forecast.buy_usd_kwh[b, :4])).all()
        assert (f.dark <= view.outage[b, d]).all()
        assert (f.critical_kw <= forecast.critical_kw[b, :4, d]).all()
        assert not f.critical_kw[~f.dark].any()


def test_an_outage_is_seen() -> None:
    core = core_of("no_feeder", n_sockets=2, site={"critical_kw": 20.0, "generator_kw": 5.0, "pv_kw": 0.0})
    car = Car(departure=24, stays=True)
    view = begin(core, by_hand(core, (car,), critical=[20.0] * 8, dark=[1] * 8)).view()
    known = view.forecast(4)
    known = known._replace(critical_kw=np.full_like(known.critical_kw, 20.0))
    f = Fleet.from_view(view, known, 4)
    assert f.dark[0]
    assert f.critical_kw[0] == 15.0
    assert not f.buy_usd_kwh[f.dark].any()


def test_coefficients_are_those_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    before = paper_fixed(fleet(dt_h=0.5))

    def doubled(charge_kw: Any, discharge_kw: Any, dt_h: float) -> Any:
        return 2 * dt_h * (charge_kw + discharge_kw)

    monkeypatch.setattr(model, "throughput_kwh", doubled)
    after = paper_fixed(fleet(dt_h=0.5))
    for way, k in itertools.product(("charge", "discharge"), (1, 2)):
        more = after.get_linear((way, 0, 0, k)) - before.get_linear((way, 0, 0, k))
        assert more == pytest.approx(0.05 * 0.5 * 4 * k)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: fleet(energy_kwh=3.0), "between floor_kwh and full_kwh"),
        (lambda: fleet(charge_kw=-1.0), "not be negative"),
        (lambda: fleet(dark=np.zeros(3, bool)), "one number a unit"),
        (lambda: fleet(0), "at least one unit"),
        (lambda: paper_fixed(fleet(), levels=1), "at least 2"),
        (lambda: paper(fleet(), soc_levels=1), "at least 2"),
        (lambda: evaluate(fleet(), np.zeros((2, 1))), "shape"),
        (lambda: paper_fixed(fleet(energy_kwh=5.0, eta_charge=0.8673519)), "common measure"),
        (lambda: paper_fixed(fleet(energy_kwh=5.0, charge_kw=4.0004)), "common measure"),
    ],
)
def test_bad_input_is_named(call: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        call()


def test_a_view_without_what_is_asked_for() -> None:
    core = core_of("no_feeder", n_sockets=2)
    view = begin(core, by_hand(core)).view()
    known = view.forecast(4)
    for arguments, match in (((4,), "no vehicle"), ((5,), "forecast has 4"), ((4, 0, 7), "sites 0 to 1")):
        with pytest.raises(UserError, match=match):
            Fleet.from_view(view, known, *arguments)
