"""Rivals of Mobile CSP on storms of the mini world."""

import numpy as np
import pytest

from qevgrid.agents.mobile_csp.greedy import Greedy, tuned
from qevgrid.agents.mobile_csp.planning import Optimum, Rolling
from qevgrid.agents.mobile_csp.simple import Idle, Random, Static, static_sites
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams

SEEDS = range(100, 106)
MAKERS = {
    "idle": Idle,
    "random": Random,
    "static": Static,
    "greedy": Greedy,
    "tuned": tuned,
    "rolling": Rolling,
    "rolling_scenarios": lambda: Rolling("rolling_scenarios", scenarios=4, cvar_weight=0.5),
    "rolling_auto": lambda: Rolling("rolling_auto", powers="auto"),
    "optimum": lambda: Optimum(60),
}


def play(core, agent, seeds=SEEDS):
    """Cost of each episode (E,), and the agent's sites of every stage."""
    batch, total, sites = core.batch(len(seeds)), np.zeros(len(seeds)), []
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])

    def info():
        return {"view": batch.view()} | ({"scenario": batch.scenario} if agent.needs_scenario else {})

    agent.begin(info())
    obs = np.zeros((len(seeds), 0), np.float32)
    while not batch.over.all():
        action = agent.act(obs, info())
        sites.append(action.site.copy())
        batch.step(action)
        total += batch.outcome.total_usd
    return total, np.array(sites)


@pytest.fixture(scope="module")
def played():
    core = MobileCore(MobileCSPParams(preset="mini"))
    agents = {name: make() for name, make in MAKERS.items()}
    return core, agents, {name: play(core, agent) for name, agent in agents.items()}


def test_optimum_costs_what_its_plan_says_and_lies_between_bound_and_rivals(played):
    _, agents, found = played
    report, best = agents["optimum"].report(), found["optimum"][0]
    np.testing.assert_allclose(best, report["best_known_usd"], atol=1e-6)
    assert np.all(report["bound_usd"] <= best + 1e-6)
    assert np.all(report["auto_usd"] >= report["bound_usd"] - 1e-6)
    for name, (usd, _) in found.items():
        assert np.all(usd >= report["bound_usd"] - 1e-6), name
        assert usd.sum() >= best.sum() - 1e-6, name


def test_rivals_rank_by_how_far_they_look(played):
    mean = {name: usd.mean() for name, (usd, _) in played[2].items()}
    assert mean["rolling"] < mean["greedy"] < mean["idle"]
    assert mean["rolling_auto"] < mean["greedy"]


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_storm_gets_the_same_choices(name, played):
    core, _, found = played
    usd, sites = play(core, MAKERS[name](), SEEDS[1:3])  # other rows beside it, another agent
    assert np.array_equal(usd, found[name][0][1:3])
    assert np.array_equal(sites, found[name][1][:, 1:3])


def test_static_sites_respect_slots():
    params = MobileCSPParams(preset="mini")
    sites = static_sites(params)
    slots = [site.slots for site in params.sites]
    assert np.all(np.bincount(sites, minlength=len(slots)) <= slots)
    assert not sites.flags.writeable


def test_plans_before_the_storm_begin_where_units_are_put():
    core = MobileCore(MobileCSPParams(preset="mini", preposition=True))
    for make in (Idle, Random, Static, Greedy, Rolling, lambda: Optimum(20)):
        agent = make()
        usd, sites = play(core, agent, SEEDS[2:4])
        assert np.all(np.isfinite(usd)) and len(sites) == core.n_periods + 1
    assert np.any(sites[0] != core.plant.start_site)  # hindsight puts somebody elsewhere
