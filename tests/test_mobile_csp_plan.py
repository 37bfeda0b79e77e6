"""Plans of Mobile CSP against the enumeration of all that units can do in tiny worlds of whole kWh."""

import functools
import itertools

import numpy as np
import pytest

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE, Fleet, Sites, Tariff, Units, World
from qevgrid.envs.mobile_csp.bound import lower_bound
from qevgrid.envs.mobile_csp.powers import best_powers, solve_powers
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import at_rest, fill_tables, start_of
from qevgrid.envs.mobile_csp.routes import NOWHERE, levels
from qevgrid.envs.mobile_csp.search import Planner, first_plan, improve, make_problem, plan
from qevgrid.envs.mobile_csp.simulate import simulate

T, D, CAPACITY, POWER = 5, 3, 4, 2
TARIFF = Tariff(1.0, 1.5, 0.25, 0.5, 0.0, 0.125)


def tiny(seed, n_units, slots):
    """A hub and two sites; needs, PV and energies are whole numbers, so that whole powers are best."""
    rng = np.random.default_rng(seed)
    island = np.full((T, D), SUPPLIED)
    back = rng.integers(2, T + 1, D)
    together = rng.random() < 0.5
    for d in (1, 2):
        island[: back[d], d] = d
    if together:
        island[:, 2] = np.where((island[:, 1] == 1) & (island[:, 2] == 2), 1, island[:, 2])
    dark = island != SUPPLIED
    need = np.where(dark, rng.integers(0, 4, (T, D)), 0).astype(float)
    pv = np.where(dark, rng.integers(0, 2, (T, D)), 0).astype(float)
    travel = rng.integers(1, 3, (T, D, D))
    travel[rng.random((T, D, D)) < 0.1] = UNREACHABLE
    travel[:, range(D), range(D)] = 0
    limit = np.where(dark, 0.0, 3.0)
    world = World(island[None], need[None], pv[None], np.zeros((1, T, D)), limit[None], travel[None].astype(np.int16))
    start = rng.integers(0, CAPACITY + 1, (1, n_units)).astype(float)
    units = Units(rng.integers(0, D, (1, n_units)), rng.integers(0, 2, (1, n_units)), start)
    sites = Sites(np.array([0.0, *rng.choice([3.0, 5.0, 9.0], 2, replace=False)]), np.array(slots))
    return world, units, Fleet(n_units, float(CAPACITY), 0.0, float(POWER), 1.0, 1.0), sites


def brute_force(world, units, sites):
    """The least cost over all choices of whole powers, by plain code of its own."""
    w = World(*(x[0] for x in world))
    n_units = units.site.shape[1]
    everything = list(itertools.product([*range(D), "power"], range(-POWER, POWER + 1)))

    def choices(t, unit):
        site, arrival, _ = unit
        if arrival > t:
            return [None]
        trips = [(d, 0) for d in range(D) if d != site and w.travel[t, site, d] < UNREACHABLE]
        return trips + [("power", k) for what, k in everything if what == "power"]

    def step(t, state, choice):
        usd, after, on = 0.0, [list(unit) for unit in state], []
        for i in sorted(range(n_units), key=lambda i: (-state[i][2], i)):
            if choice[i] is None:
                continue
            site = state[i][0]
            if choice[i][0] == "power":
                if sum(state[j][0] == site for j in on) < sites.slots[site]:
                    on.append(i)
            else:
                periods = int(w.travel[t, site, choice[i][0]])
                usd += TARIFF.transport_usd_h * min(periods, T - t)
                after[i][:2] = [choice[i][0], t + periods]
        left = w.charge_limit_kw[t].copy()
        for i in on:
            site, k = state[i][0], choice[i][1]
            if k < 0 and w.island[t, site] == SUPPLIED:
                power = min(-k, CAPACITY - state[i][2], left[site])
                left[site] -= power
                after[i][2] += power
                usd += power * (TARIFF.wear_usd_kwh + TARIFF.energy_usd_kwh)
        for g in set(w.island[t].tolist()) - {SUPPLIED}:
            offers = {
                i: min(choice[i][1], state[i][2]) for i in on if w.island[t, state[i][0]] == g and choice[i][1] > 0
            }
            members = [d for d in range(D) if w.island[t, d] == g]
            pv = sum(w.pv_kw[t, d] for d in members)
            supply = pv + sum(offers.values())
            for d in sorted(members, key=lambda d: -sites.voll_usd_kwh[d]):
                part = min(w.need_kw[t, d], supply)
                supply -= part
                usd += sites.voll_usd_kwh[d] * (w.need_kw[t, d] - part)
            unused = min(supply, sum(offers.values()))
            if unused > 0:
                return None  # whole numbers only: the same with smaller offers is another choice
            for i, power in offers.items():
                after[i][2] -= power
                usd += power * TARIFF.wear_usd_kwh
        return usd, tuple(map(tuple, after))

    @functools.cache
    def best(t, state):
        if t == T:
            return -TARIFF.terminal_usd_kwh * sum(unit[2] for unit in state)
        found = []
        for choice in itertools.product(*(choices(t, unit) for unit in state)):
            done = step(t, state, choice)
            if done is not None:
                found.append(done[0] + best(t + 1, done[1]))
        return min(found)

    return best(
        0, tuple(zip(units.site[0].tolist(), units.arrival[0].tolist(), units.energy_kwh[0].tolist(), strict=True))
    )


@pytest.mark.parametrize("seed", range(12))
def test_one_unit_is_planned_as_by_enumeration(seed):
    world, units, fleet, sites = tiny(seed, 1, (1, 1, 1))
    found = first_plan(Planner(make_problem(world, units, 0, fleet, sites, TARIFF, CAPACITY)), 1)
    assert found.cost_usd == pytest.approx(brute_force(world, units, sites), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_program_is_enumeration_and_bound_and_search_enclose_it(seed):
    world, units, fleet, sites = tiny(seed, 2, (2, 2, 2))
    least = brute_force(world, units, sites)
    found = plan(world, units, 0, fleet, sites, TARIFF)
    optimum = MobileProgram(found.problem).solve(30.0, gap=0.0)
    assert optimum.solver_usd == pytest.approx(least, abs=1e-6)
    assert optimum.plan.cost_usd == pytest.approx(least, abs=1e-6)  # played in the step kernel
    better = best_powers(improve(found, np.random.default_rng(0), 60))
    assert lower_bound(better) <= least + 1e-9
    assert least <= better.cost_usd + 1e-9 and better.cost_usd <= found.cost_usd
    assert better.cost_usd <= least + 0.1 * abs(least) + 1.0


@pytest.mark.parametrize("seed", range(6, 10))
def test_bounds_hold_where_units_must_share_a_slot(seed):
    world, units, fleet, sites = tiny(seed, 2, (1, 1, 1))
    least = brute_force(world, units, sites)
    found = best_powers(improve(plan(world, units, 0, fleet, sites, TARIFF), np.random.default_rng(0), 60))
    assert found.cost_usd >= least - 1e-9
    assert lower_bound(found) <= least + 1e-9
    assert MobileProgram(found.problem).solve(30.0, gap=0.0, start=found).bound_usd <= least + 1e-6


def test_bound_counts_energy_that_is_no_whole_number_of_levels():
    """Powers, energy and capacity off the grid: the bound must lie below the best continuous powers."""
    for seed in range(8):
        world, units, _, sites = tiny(seed, 1, (1, 1, 1))
        fleet = Fleet(1, 4.37, 0.41, 1.83, 0.93, 0.89)
        units = units._replace(energy_kwh=np.array([[3.333]]))
        found = plan(world, units, 0, fleet, sites, TARIFF)
        optimum = MobileProgram(found.problem).solve(30.0, gap=0.0)
        assert lower_bound(optimum.plan) <= optimum.plan.cost_usd
        assert optimum.plan.cost_usd == pytest.approx(optimum.solver_usd, abs=1e-6)
        assert optimum.plan.cost_usd <= found.cost_usd + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_powers_cost_what_the_solver_says_and_plans_keep_the_limits(seed):
    world, units, fleet, sites = tiny(seed, 2, (2, 1, 1))
    found = improve(plan(world, units, 0, fleet, sites, TARIFF), np.random.default_rng(1), 30)
    better = best_powers(found)
    transport = better.terms_usd[3]
    _, _, usd = solve_powers(found.problem, found.joint, 10.0)
    assert usd + transport <= better.cost_usd + 1e-9
    p = better.problem
    replay = simulate(p.world, units, 0, fleet, sites, TARIFF, better.site, better.share)
    assert replay.cost_usd.sum() == better.cost_usd
    assert replay.energy_kwh.min() >= fleet.floor_kwh and replay.energy_kwh.max() <= fleet.capacity_kwh
    for t in range(T):
        busy = (replay.charge_kw[t] + replay.discharge_kw[t]) > 0
        assert np.all(np.bincount(better.joint.stay[busy, t], minlength=D) <= sites.slots)
        assert not np.any(better.joint.stay[busy, t] == NOWHERE)


def test_plan_from_a_later_period_reads_nothing_before_it():
    world, units, fleet, sites = tiny(3, 2, (2, 2, 2))
    units = units._replace(arrival=np.array([[2, 3]]))
    other = world._replace(need_kw=world.need_kw.copy())
    other.need_kw[:, :2] = 99.0
    first, second = (plan(w, units, 2, fleet, sites, TARIFF) for w in (world, other))
    assert first.cost_usd == second.cost_usd
    assert np.array_equal(first.site[2:], second.site[2:]) and np.array_equal(first.share[2:], second.share[2:])


def test_levels_round_against_a_plan_and_in_favour_of_a_bound():
    fleet, tariff = Fleet(1, 600.0, 60.0, 250.0, 0.95, 0.95), TARIFF._replace(dt_h=0.5)
    low, high = levels(fleet, tariff), levels(fleet, tariff, optimistic=True)
    assert low.step_discharge_kwh * low.discharge <= 125.0 <= high.step_discharge_kwh * high.discharge
    assert low.step_charge_kwh * low.charge <= 125.0 <= high.step_charge_kwh * high.charge
    assert low.step_kwh * low.count == pytest.approx(540.0)
    # charging 4 kWh at the plug puts 3.8 in the battery; wear and energy are paid at the plug
    assert low.charge_usd == pytest.approx(low.step_kwh / 0.95 * (TARIFF.wear_usd_kwh + TARIFF.energy_usd_kwh))


def test_a_plan_is_for_one_episode_and_begins_within_it():
    world, units, fleet, sites = tiny(0, 1, (1, 1, 1))
    two = World(*(np.repeat(x, 2, 0) for x in world))
    with pytest.raises(UserError, match="one episode"):
        plan(two, units, 0, fleet, sites, TARIFF)
    with pytest.raises(UserError, match=f"stage={T}"):
        plan(world, units, T, fleet, sites, TARIFF)


def test_start_energy_is_rounded_down_for_a_plan_and_up_for_a_bound():
    fleet = Fleet(2, 4.0, 0.0, 2.0, 1.0, 1.0)
    grid = levels(fleet, TARIFF, count=4)
    units = Units(np.array([[0, 1]]), np.array([[0, 3]]), np.array([[2.6, 3.0]]))
    assert start_of(units, 1, fleet, grid).level.tolist() == [2, 3]
    assert start_of(units, 1, fleet, grid, optimistic=True).level.tolist() == [3, 3]
    assert start_of(units, 1, fleet, grid).period.tolist() == [1, 3]


def test_a_site_is_full_when_others_with_power_hold_its_slots():
    world, units, fleet, sites = tiny(0, 2, (2, 1, 1))
    planner = Planner(make_problem(world, units, 0, fleet, sites, TARIFF, CAPACITY))
    joint = at_rest(planner.problem)
    joint.stay[1], joint.level[1, :2] = 1, [-1, 0]  # works, then rests
    fill_tables(planner.problem, joint, planner.tables, 0, 0, planner.even)
    assert planner.tables.place_usd[:2, 1].tolist() == [np.inf, 0.0]
    assert planner.tables.place_usd[0, 2] == 0.0
