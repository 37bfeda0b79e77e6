"""Plans of Mobile CSP against worlds that may come true."""

from dataclasses import replace

import numpy as np
import pytest

from qevgrid.agents.mobile_csp.hybrid import Decider
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.mobile_csp.outlook import Outlook, fit
from qevgrid.agents.mobile_csp.planning import beliefs_of, planner_of
from qevgrid.agents.mobile_csp.stochastic import Beliefs, chosen, different
from qevgrid.envs.mobile_csp.core import Batch, MobileCore, View
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.mobile_csp.search import first_plan


@pytest.fixture(scope="module")
def core() -> MobileCore:
    return MobileCore(MobileCSPParams(preset="mini"))


def begun(core: MobileCore, seeds: list[int]) -> Batch:
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    return batch


def beliefs(view: View, **keys: float) -> Beliefs:
    found = beliefs_of(view, 0, 6, keys.get("weight", 0.0), keys.get("share", 0.25))
    assert found is not None
    return found


def test_risk_mixes_mean_and_worst_share(core: MobileCore) -> None:
    found = beliefs(begun(core, [3]).view(), weight=0.25, share=0.5)
    usd = np.array([[6.0, 1.0, 3.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    assert found.risk_usd(usd).tolist() == [0.75 * 3.0 + 0.25 * 4.5, 3.0]


def test_worlds_judge_plans_as_the_kernel_plays_them(core: MobileCore) -> None:
    """In a world that is the expected one a plan costs what it is expected to; elsewhere something else."""
    view = begun(core, [3]).view()
    world = view.forecast()
    planner = planner_of(view, world, 0)
    plans = [first_plan(planner, 4), planner.judge(at_rest(planner.problem))]
    same = Beliefs(type(world)(*(np.repeat(x, 2, 0) for x in world)))
    expected = [plan.cost_usd for plan in plans]
    np.testing.assert_allclose(same.costs_usd(plans), np.repeat(np.array(expected)[:, None], 2, 1))
    assert np.ptp(beliefs(view).costs_usd(plans), 1).min() > 0


def test_the_risk_decides_and_without_beliefs_what_is_expected(core: MobileCore) -> None:
    view = begun(core, [3]).view()
    planner = planner_of(view, view.forecast(), 0)
    plans = [planner.judge(at_rest(planner.problem)), first_plan(planner, 1), first_plan(planner, 4)]
    assert chosen(plans, None).cost_usd == min(plan.cost_usd for plan in plans)
    for weight in (0.0, 1.0):
        found = beliefs(view, weight=weight)
        costs = found.costs_usd(plans)
        mean, worst = costs.mean(1), np.sort(costs, 1)[:, -2:].mean(1)
        assert chosen(plans, found) is plans[int((worst if weight else mean).argmin())]


def test_plans_that_act_alike_count_once(core: MobileCore) -> None:
    view = begun(core, [3]).view()
    planner = planner_of(view, view.forecast(), 0)
    plan, rest = first_plan(planner, 4), planner.judge(at_rest(planner.problem))
    assert different([plan, replace(plan), rest, plan]) == [plan, rest]


def test_worlds_of_an_episode_do_not_depend_on_those_beside_it(core: MobileCore) -> None:
    alone, beside = (beliefs_of(begun(core, seeds).view(), k, 3, 0.0, 0.25) for seeds, k in (([5], 0), ([9, 5], 1)))
    assert alone is not None and beside is not None
    for mine, other in zip(alone.worlds, beside.worlds, strict=True):
        assert np.array_equal(mine, other)


def test_an_outlook_moves_the_worlds(core: MobileCore) -> None:
    batch = begun(core, list(range(40)))
    outlook: Outlook = replace(fit(core.plant, batch.scenario), shift=1.5)
    view = begun(core, [5]).view()
    plain, late = (view.scenarios(20, np.random.default_rng(0), o).island for o in (None, outlook))
    assert (late >= 0).sum() > (plain >= 0).sum()  # more is thought to be without supply


def test_the_hybrid_asks_its_worlds(core: MobileCore) -> None:
    view = begun(core, [3]).view()
    decider = Decider(MobileHybridConfig(scenarios=6))
    found = beliefs(view)
    planner = planner_of(view, view.forecast(), 0)
    plan, step = decider.decide(planner, None, np.ones(view.plant.n_periods), found)
    own, _ = decider.decide(planner_of(view, view.forecast(), 0), None, np.ones(view.plant.n_periods))
    usd = found.risk_usd(found.costs_usd([plan, own]))
    assert usd[0] <= usd[1] and step.proposed_usd <= 0
