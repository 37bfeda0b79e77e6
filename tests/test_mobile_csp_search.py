"""Parts of the search for plans of Mobile CSP: unit values, rounds of answers, replays, annealing in turn with search."""

import numpy as np
import pytest
from test_mobile_csp_plan import TARIFF, tiny

from qevgrid.agents.mobile_csp.anneal_plan import Combiner, anneal_plan
from qevgrid.agents.mobile_csp.planning import planner_of
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import at_rest, respond
from qevgrid.envs.mobile_csp.routes import NOWHERE, reach, value_states
from qevgrid.envs.mobile_csp.search import (
    Plan,
    Planner,
    actions,
    changed,
    copy,
    first_plan,
    improve,
    make_problem,
    play,
    stand_in,
)


@pytest.fixture(scope="module")
def planner() -> Planner:
    """A storm of the mini world from its beginning."""
    batch = MobileCore(MobileCSPParams(preset="mini")).batch(1)
    batch.start(np.arange(1), [np.random.default_rng(3)])
    return planner_of(batch.view(), batch.world, 0)


def plain_values(planner: Planner) -> np.ndarray:
    """Values by the definition: every choice at every state."""
    p, tables = planner.problem, planner.tables
    n_periods, n_sites = p.world.need_kw.shape
    value = np.zeros_like(planner.value)
    value[n_periods] = p.grid.terminal_usd * np.arange(p.grid.count + 1)
    for t in range(n_periods - 1, -1, -1):
        for d in range(n_sites):
            for e in range(p.grid.count + 1):
                found, place = [value[t + 1, d, e]], tables.place_usd[t, d]
                supplied = p.world.island[t, d] == SUPPLIED
                most = min(tables.charge[t, d], p.grid.count - e) if supplied else min(tables.useful[t, d], e)
                for k in range(most + 1):
                    usd = p.grid.charge_usd + tables.charge_usd[t, d] if supplied else p.grid.discharge_usd
                    gain = 0.0 if supplied else tables.gain_usd[t, d, k]
                    found.append(value[t + 1, d, e + k if supplied else e - k] + gain - k * usd - place)
                for to in range(n_sites):
                    trip = int(p.world.travel[t, d, to])
                    if to != d and trip < UNREACHABLE and t + max(trip, 1) < n_periods:
                        cost = TARIFF.transport_usd_h * trip * TARIFF.dt_h
                        found.append(value[t + max(trip, 1), to, e] - cost)
                value[t, d, e] = max(found)
    return value


@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_every_choice(seed: int) -> None:
    """Concave gains with kinks, places that cost or pay, rooms that bind: against the definition."""
    world, units, fleet, sites = tiny(seed, 1, (1, 1, 1))
    planner = Planner(make_problem(world, units, 0, fleet, sites, TARIFF, 24))
    tables, rng = planner.tables, np.random.default_rng(seed)
    steps = -np.sort(-rng.integers(0, 4, tables.gain_usd[:, :, 1:].shape), -1)
    tables.gain_usd[:, :, 1:] = np.cumsum(steps, -1)
    tables.useful[:] = rng.integers(0, planner.problem.grid.discharge + 1, tables.useful.shape)
    tables.charge[:] = rng.integers(0, planner.problem.grid.charge + 1, tables.charge.shape)
    tables.place_usd[:] = rng.choice([0.0, 1.0, -1.0, np.inf], tables.place_usd.shape)
    np.testing.assert_allclose(planner.worth()[:], plain_values(planner), atol=1e-9)


def test_unreached_states_are_left_out_and_no_others(planner: Planner) -> None:
    p, n_sites = planner.problem, planner.problem.world.need_kw.shape[1]
    planner.respond(at_rest(p), np.array([0]), 1)
    whole = planner.worth().copy()
    since = np.zeros(n_sites, np.int64)
    reach(p.world, 2, 1, since)
    hops = np.where(p.world.travel[2:, 1] < UNREACHABLE, p.world.travel[2:, 1] + np.arange(2, 24)[:, None], 24)
    assert since[1] == 2 and np.all(since <= hops.min(0))
    planner.value[:] = np.nan
    value_states(p.world, 2, p.grid, p.tariff, planner.tables, planner.value, since)
    reached = np.arange(25)[:, None] >= since
    np.testing.assert_array_equal(planner.value[reached], whole[reached])
    assert np.isnan(planner.value[:24][~reached[:24]]).all()


def test_rounds_of_answers_end_where_asking_everybody_again_would(planner: Planner) -> None:
    rng, plan = np.random.default_rng(0), first_plan(planner, 1)
    for _ in range(5):
        begin = changed(planner, plan.joint, rng)
        once, again = copy(begin), copy(begin)
        planner.respond(once, np.arange(2), 4)
        for _ in range(4):
            for i in range(2):
                respond(planner.problem, again, planner.tables, planner.value, i, planner.even)
        assert all(np.array_equal(x, y) for x, y in zip(once, again, strict=True))


def test_a_planner_replays_plans_as_if_each_were_the_first(planner: Planner) -> None:
    rng, plan = np.random.default_rng(1), first_plan(planner, 1)
    for _ in range(3):
        joint = changed(planner, plan.joint, rng)
        used, fresh = planner.judge(joint), play(planner.problem, joint, *actions(planner.problem, joint))
        assert used.cost_usd == fresh.cost_usd and np.array_equal(used.unserved_usd, fresh.unserved_usd)


def test_units_at_an_overfull_site_are_told_what_the_busiest_does() -> None:
    stay = np.array([[0, 1], [0, 1], [0, NOWHERE], [1, 1]])
    share = np.array([[0.0, -0.25, 0.5, 0.75], [0.5, 0.0, 1.0, -0.5]])
    stand_in(stay, np.array([2, 3]), share)
    assert share.tolist() == [[0.5, 0.5, 0.5, 0.75], [0.5, 0.0, 1.0, -0.5]]


def test_barred_sites_find_what_shaken_prices_do_not() -> None:
    """Two units at one slot must take turns at it: on this storm shaken prices alone end 2 % or more above."""
    batch = MobileCore(MobileCSPParams(preset="mini")).batch(1)
    batch.start(np.arange(1), [np.random.default_rng(108)])
    first = first_plan(planner_of(batch.view(), batch.world, 0), 4)
    found = improve(first, np.random.default_rng(0), 300)
    assert found.cost_usd < 0.97 * 10_923  # what shaken prices alone find, even in 1,500 rounds


def test_annealing_in_turn_with_search_repeats_itself_and_never_loses(planner: Planner) -> None:
    first = first_plan(planner, 1)
    one, two = (anneal_plan(first, 5, 60) for _ in range(2))
    assert one.cost_usd <= first.cost_usd
    assert one.site.tobytes() == two.site.tobytes() and one.share.tobytes() == two.share.tobytes()


def test_a_combination_is_no_dearer_than_the_best_plan_it_is_made_of(planner: Planner) -> None:
    """On whole energy levels the annealer's reference is the best plan itself, so its best read cannot be worse."""
    rng, first = np.random.default_rng(2), first_plan(planner, 1)
    met = [planner.judge(changed(planner, first.joint, rng)) for _ in range(20)]
    best = min([first, *met], key=lambda plan: plan.cost_usd)
    combined = Combiner(planner, 0, reads=2)(best, met)
    assert combined.cost_usd <= best.cost_usd * (1 + 1e-3)


def test_search_hands_what_it_tried_to_the_combiner_and_takes_what_it_makes(planner: Planner) -> None:
    first, sizes = first_plan(planner, 1), []
    target = improve(first, np.random.default_rng(7), 40)

    def combine(best: Plan, tried: list[Plan]) -> Plan:
        sizes.append(len(tried))
        return target

    assert improve(first, np.random.default_rng(0), 12, None, combine, 5).cost_usd <= target.cost_usd
    assert sizes == [5, 5]


def test_where_no_plan_is_found_the_remedy_is_one_of_this_problem(planner: Planner) -> None:
    with pytest.raises(UserError, match="units, sites or periods"):
        MobileProgram(planner.problem).solve(0.0)
