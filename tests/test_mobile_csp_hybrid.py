"""The hybrid of Mobile CSP: its objective is the kernel's, its plan never worse than the rolling one, its bytes the same."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qevgrid.agents import make_rival
from qevgrid.agents.mobile_csp.candidates import Search, ascend
from qevgrid.agents.mobile_csp.decision import Decision, decide, resources, tabulate
from qevgrid.agents.mobile_csp.hybrid import Decider, MobileHybridAgent, sampler_of
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.mobile_csp.hybrid_learner import MobileHybridLearner, build
from qevgrid.agents.mobile_csp.outlook import HOURS, INPUTS, Outlook, fit
from qevgrid.agents.mobile_csp.planning import planner_of
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, Fleet, Sites, Tariff, Units, World
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.forecast import estimated_h
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.respond import Joint
from qevgrid.envs.mobile_csp.search import Planner, first_plan, make_problem

ID = "qevgrid/MobileCSP-v0"
SMALL = MobileHybridConfig(rounds=3, dual_steps=3, reads=1, sweeps=20)


def hand_made() -> Planner:
    """Three units, a hub, two sites of one island and one apart; a level is 10 kWh at the plug, full power 5 of them."""
    n_periods, n_sites = 8, 4
    island = np.tile([SUPPLIED, 1, 1, 3], (n_periods, 1))
    island[6:, 3] = SUPPLIED
    need, pv = np.zeros((2, n_periods, n_sites))
    need[:, 1], need[:, 2], need[:6, 3] = 30.0, 40.0, 50.0
    pv[2:5, 2] = 20.0
    travel = np.ones((n_periods, n_sites, n_sites), np.int16)
    travel[:, np.arange(n_sites), np.arange(n_sites)] = 0
    limit = np.where(island == SUPPLIED, 50.0, 0.0)
    world = World(*(x[None] for x in (island, need, pv, np.zeros_like(need), limit, travel)))
    fleet = Fleet(3, 200.0, 0.0, 50.0, 1.0, 1.0)
    tariff = Tariff(1.0, 10.0, 0.05, 0.2, 0.4, 0.1)
    units = Units(np.zeros((1, 3), int), np.zeros((1, 3), int), np.array([[200.0, 100.0, 50.0]]))
    sites = Sites(np.array([0.0, 5.0, 2.0, 3.0]), np.array([2, 1, 1, 1]))
    return Planner(make_problem(world, units, 0, fleet, sites, tariff, count=20))


def random_pool(planner: Planner, rounds: int = 6, seed: int = 0) -> list[Joint]:
    """The rolling plan's routes and others."""
    weight = np.ones(planner.problem.world.need_kw.shape)
    plan = first_plan(planner, 4)
    _, met = Search(planner, weight, np.random.default_rng(seed)).around(plan, rounds)
    return [plan.joint, *met]


def overfull(decision: Decision, planner: Planner, choice: np.ndarray) -> bool:
    joint, n_sites = decision.joint(choice), len(planner.problem.sites.slots)
    busy = (joint.stay[:, :, None] == np.arange(n_sites)) & (joint.level != 0)[:, :, None]
    return bool((busy.sum(0) > planner.problem.sites.slots).any())


@pytest.fixture(scope="module")
def storm() -> Batch:
    """Mini storms in their first period."""
    batch = MobileCore(MobileCSPParams(preset="mini")).batch(2)
    batch.start(np.arange(2), [np.random.default_rng(seed) for seed in (3, 4)])
    return batch


def test_the_objective_is_what_the_step_kernel_charges() -> None:
    """Every combination of candidate routes that keeps slots and charging limits costs what playing it costs.

    Left out: units that rest where all slots are taken, for the kernel connects whoever has most energy.
    """
    planner = hand_made()
    found = resources(planner.problem)
    decision = decide(planner.problem, found, random_pool(planner))
    sizes = np.diff(decision.problem.first)
    compared = 0
    for choice in itertools.product(*(range(n) for n in sizes)):
        joint = decision.joint(np.array(choice))
        _, use = tabulate(planner.problem, found, np.arange(3), *joint)
        total = use.sum(0)
        bound = len(found.pieces.slope) - int((found.charge >= 0).sum()) - int((found.slot >= 0).sum())
        present = (joint.stay[:, :, None] == np.arange(4)).sum(0)
        if (total[bound:] > found.pieces.at[bound:, 0]).any() or (present > planner.problem.sites.slots).any():
            continue
        asked = float(decision.problem.energy_usd(np.array(choice)))
        assert planner.judge(joint).cost_usd == pytest.approx(asked, abs=1e-6)
        compared += 1
    assert compared > 20


def test_a_broken_limit_costs_more_than_it_can_earn() -> None:
    planner = hand_made()
    decision = decide(planner.problem, resources(planner.problem), random_pool(planner))
    choices = np.array(list(itertools.product(*(range(n) for n in np.diff(decision.problem.first)))))
    usd = decision.problem.energy_usd(choices)
    broken = np.array([overfull(decision, planner, choice) for choice in choices])
    assert broken.any()
    assert usd[broken].min() > usd[~broken].min()


def test_weights_count_needs_as_the_search_does(storm: Batch) -> None:
    planner = planner_of(storm.view(), storm.view().forecast(), 0)
    shape = planner.problem.world.need_kw.shape
    weight = np.repeat(np.exp(-np.arange(shape[0]) / 5.0)[:, None], shape[1], 1)
    search = Search(planner, weight, np.random.default_rng(0))
    plan = first_plan(planner, 4)
    decision = decide(planner.problem, resources(planner.problem, weight), [plan.joint])
    asked = float(decision.problem.energy_usd(np.zeros(len(plan.joint.stay), int)))
    assert asked == pytest.approx(search.value(plan), rel=2e-3)
    assert search.value(plan) < plan.cost_usd


@pytest.mark.parametrize("name", ["structured", "exact", "highs"])
def test_samplers_find_the_best_of_the_candidates(name: str) -> None:
    """Against all combinations; ``exact`` solves the binary model, whose best read is judged by the exact form."""
    planner = hand_made()
    decision = decide(planner.problem, resources(planner.problem), random_pool(planner, 3), most=4)
    choices = np.array(list(itertools.product(*(range(n) for n in np.diff(decision.problem.first)))))
    least = float(decision.problem.energy_usd(choices).min())
    config = MobileHybridConfig(sampler=name, reads=20, sweeps=200)  # type: ignore[arg-type]
    found = sampler_of(config).solve(decision.problem, 0)
    tolerance = 0.05 if name == "exact" else 1e-9
    assert found.raw_choice_energy_usd <= least + tolerance * abs(least) + 1e-6


def test_the_rolling_plan_is_a_candidate_and_the_decision_never_worse(storm: Batch) -> None:
    view = storm.view()
    for b in range(2):
        planner = planner_of(view, view.forecast(), b)
        rolling = first_plan(planner_of(view, view.forecast(), b), 4)
        plan, step = Decider(SMALL).decide(planner, None, np.ones(view.plant.n_periods))
        assert plan.cost_usd <= rolling.cost_usd and step.decided_usd <= 0
        idle, _ = Decider(replace(SMALL, sampler="idle", rounds=0, polish=False)).decide(
            planner_of(view, view.forecast(), b), None, np.ones(view.plant.n_periods)
        )
        assert idle.cost_usd == rolling.cost_usd


def test_the_bound_is_below_every_plan() -> None:
    planner = hand_made()
    found, plan = resources(planner.problem), first_plan(hand_made(), 4)
    priced = ascend(planner, found, plan.joint, plan.cost_usd, 60)
    decision = decide(planner.problem, found, [plan.joint, *random_pool(planner), *priced.joints])
    choices = np.array(list(itertools.product(*(range(n) for n in np.diff(decision.problem.first)))))
    assert priced.bound_usd <= decision.problem.energy_usd(choices).min() + 1e-6
    assert priced.bound_usd > ascend(planner, found, plan.joint, plan.cost_usd, 1).bound_usd


def test_same_settings_same_bytes(storm: Batch) -> None:
    acts = []
    for _ in range(2):
        agent = MobileHybridAgent(config=SMALL)
        action = agent.act(None, {"view": storm.view()})
        acts.append(action.site.tobytes() + action.share.tobytes())
        assert set(agent.report()) >= {"qubo/raw_usd", "qubo/repaired_usd", "qubo/polished_usd"}
    assert acts[0] == acts[1]


def test_an_episode_does_not_depend_on_its_neighbours(storm: Batch) -> None:
    both = MobileHybridAgent(config=SMALL).act(None, {"view": storm.view()})
    one = storm.core.batch(1)
    one.start(np.arange(1), [np.random.default_rng(4)])
    alone = MobileHybridAgent(config=SMALL).act(None, {"view": one.view()})
    assert np.array_equal(both.site[1], alone.site[0]) and np.array_equal(both.share[1], alone.share[0])


def as_it_is(**changes: float) -> Outlook:
    """An outlook that corrects nothing."""
    coefficient = np.zeros((3, len(HOURS), len(INPUTS)))
    coefficient[:, :, INPUTS.index("log_estimate")] = 1.0
    return Outlook(coefficient, np.full((3, len(HOURS)), 0.6), **changes)


def test_an_outlook_that_corrects_nothing_changes_nothing(storm: Batch) -> None:
    view = storm.view()
    for mine, plain in zip(view.forecast(as_it_is()), view.forecast(), strict=True):
        assert np.array_equal(mine, plain)
    assert (as_it_is().weight(view.plant, 0) == 1).all()


def test_a_shift_moves_what_remains_by_spreads(storm: Batch) -> None:
    view = storm.view()
    lines, station, roads = estimated_h(view.plant, storm.scenario, view.stage)
    moved, _, _ = as_it_is(shift=0.5)(view.plant, view.stage, lines, station, roads)
    broken = lines > 0
    assert broken.any()
    assert moved[broken] == pytest.approx(lines[broken] * np.exp(0.5 * 0.6))
    assert (moved[~broken] == lines[~broken]).all()


def test_fitted_times_are_nearer_to_the_truth() -> None:
    core = MobileCore(MobileCSPParams(preset="mini"))
    draw = [core.sampler.sample([np.random.default_rng(s) for s in range(a, a + 60)]) for a in (0, 1000)]
    outlook, fresh, stage = fit(core.plant, draw[0]), draw[1], np.zeros(60, int)
    before = estimated_h(core.plant, fresh, stage)[0]
    after = outlook(core.plant, stage, before, *estimated_h(core.plant, fresh, stage)[1:])[0]
    broken = fresh.line_h > 0
    error = [np.square(np.log(x[broken] / fresh.line_h[broken])).mean() for x in (before, after)]
    assert error[1] < 0.8 * error[0]


def test_an_outlook_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    as_it_is(shift=0.25, fade_h=30.0).save(path)
    back = Outlook.load(path)
    assert (back.shift, back.fade_h) == (0.25, 30.0) and np.array_equal(back.coefficient, as_it_is().coefficient)
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match="train anew"):
        Outlook.load(path)


def learner(**keys: object) -> MobileHybridLearner:
    config = MobileHybridConfig(storms=12, population=4, batch=2, **keys)  # type: ignore[arg-type]
    return build(config, MobileCSPParams(preset="mini", n_periods=8), 0)


def test_a_restored_learner_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole = learner()
    whole.prepare()
    whole.learn(2 * 4 * 2 * 8, lambda _: None)
    half = learner()
    half.prepare()
    half.learn(4 * 2 * 8, lambda _: None)
    half.checkpoint(tmp_path / "checkpoint")
    again = learner()
    again.restore(tmp_path / "checkpoint")
    again.learn(2 * 4 * 2 * 8, lambda _: None)
    assert again.outlook.shift == whole.outlook.shift and again.outlook.fade_h == whole.outlook.fade_h
    assert whole.steps == again.steps == 128


def test_what_cannot_be_trained_says_so() -> None:
    with pytest.raises(UserError, match=r"agent\.outlook=false"):
        learner(outlook=False)
    with pytest.raises(UserError, match=r"agent\.sampler=qpu"):
        learner(sampler="qpu")


def test_the_rival_takes_settings_of_its_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent = make_rival("hybrid", SMALL, ID)
    assert isinstance(agent, MobileHybridAgent) and agent.config == SMALL
    (tmp_path / "empty.conf").write_text("", encoding="utf-8")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(tmp_path / "empty.conf"))
    monkeypatch.delenv("DWAVE_API_TOKEN", raising=False)
    with pytest.raises(UserError, match="DWAVE_API_TOKEN"):
        make_rival("hybrid", replace(SMALL, sampler="qpu"), ID)
