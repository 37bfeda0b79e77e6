"""Agents that plan routes: with estimates, anew in each period; and in hindsight, once."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.simple import stay
from qevgrid.agents.mobile_csp.stochastic import Beliefs, chosen
from qevgrid.envs.mobile_csp.arrays import AUTO, Action, Units, World
from qevgrid.envs.mobile_csp.bound import lower_bound
from qevgrid.envs.mobile_csp.core import View
from qevgrid.envs.mobile_csp.forecast import Outlook
from qevgrid.envs.mobile_csp.powers import best_powers
from qevgrid.envs.mobile_csp.respond import Joint
from qevgrid.envs.mobile_csp.search import Plan, Planner, copy, first_plan, improve, make_problem, place
from qevgrid.envs.types import Float32Array, FloatArray

BELIEF_SEED = 2125
"""Of the worlds that may come true."""


def row(arrays: Any, b: int) -> Any:
    """Episode ``b`` of a ``World`` or of ``Units``, batch axis kept."""
    return type(arrays)(*(x[b : b + 1] for x in arrays))


def planner_of(
    view: View,
    world: World,
    b: int,
    stage: int | None = None,
    units: Units | None = None,
    levels: int | None = None,
) -> Planner:
    """Room to plan episode ``b`` of ``world`` from its present stage on, in ``levels`` steps of energy."""
    begin: Units = row(view.units, b) if units is None else units
    stage = int(view.stage[b]) if stage is None else stage
    sizes = view.fleet, view.sites, view.tariff, levels
    waiting = view.plant.service, view.backlog_kwh[b : b + 1]
    return Planner(make_problem(row(world, b), begin, stage, *sizes, *waiting))


def placed(view: View, world: World, b: int) -> Planner:
    """The same before the storm, with each unit at the site where its first plan begins."""
    units = Units(*(x.copy() for x in row(view.units, b)))
    planner = planner_of(view, world, b, 0, units._replace(arrival=np.zeros_like(units.arrival)))
    place(planner, view.whole_travel)
    return planner


def beliefs_of(
    view: View, b: int, size: int, cvar_weight: float, cvar_share: float, outlook: Outlook | None = None
) -> Beliefs | None:
    """``size`` worlds that may come true for episode ``b``, the same for all agents that ask; None for 0."""
    if not size:
        return None
    rng = np.random.default_rng([BELIEF_SEED, int(view.stage[b]) + 1])
    return Beliefs(view.scenarios(size, rng, outlook, slice(b, b + 1)), cvar_weight, cvar_share)


@dataclass
class Rolling(Agent):
    """Plan the rest of the episode on what is expected now, carry out the first period, look again.

    The plan of the period before, brought up to date by best responses, competes with a fresh one: plans do not
    flip without cause. ``powers``: discharge as planned times ``offer`` ("plan"), or let the sites decide ("auto").
    ``scenarios`` worlds that may come true propose plans as well, and all are judged by their mean cost in these
    worlds and, by ``cvar_weight``, the mean of the worst ``cvar_share`` of them; 0: by what is expected.
    """

    name: str = "rolling"
    sweeps: int = 4
    powers: str = "plan"
    offer: float = 1.15
    scenarios: int = 0
    cvar_weight: float = 0.0
    cvar_share: float = 0.25
    slow = True
    _last: dict[int, Joint] = field(default_factory=dict)

    def begin(self, info: dict[str, Any]) -> None:
        """Forget the plans of other episodes."""
        self._last = {}

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """First period of a new plan for every episode."""
        view: View = info["view"]
        action, world = stay(view), view.forecast()
        for b, t in enumerate(view.stage):
            if t < 0:
                action.site[b] = placed(view, world, b).problem.start.site
            elif t < view.plant.n_periods:
                beliefs = beliefs_of(view, b, self.scenarios, self.cvar_weight, self.cvar_share)
                plan = self._plan(planner_of(view, world, b), b, beliefs)
                action.site[b], action.share[b] = plan.site[t], self._share(plan, int(t))
        return action

    def _plan(self, planner: Planner, b: int, beliefs: Beliefs | None) -> Plan:
        """The best of a fresh plan, the last one brought up to date and what other worlds propose."""
        plans = [first_plan(planner, self.sweeps)]
        if b in self._last:
            joint = copy(self._last[b])
            planner.respond(joint, np.arange(len(joint.stay)), 2)
            plans.append(planner.judge(joint))
        if beliefs is not None:
            plans += [planner.judge(joint) for joint in beliefs.proposals(planner.problem)]
        best = chosen(plans, beliefs)
        self._last[b] = best.joint
        return best

    def _share(self, plan: Plan, t: int) -> FloatArray:
        """Shares (M,) of one period."""
        if self.powers == "auto":
            return np.full(plan.share.shape[1], AUTO)
        share = plan.share[t]
        return np.where(share > 0, np.minimum(share * self.offer, 1.0), np.where(share < 0, -1.0, 0.0))


def rolling_scenarios() -> Rolling:
    """``rolling`` against eight worlds that may come true."""
    return Rolling("rolling_scenarios", scenarios=8)


class Optimum(Agent):
    """The best plan known in hindsight: not proven to be the best, so a proven bound is reported beside it."""

    name = "optimum"
    needs_scenario = True
    slow = True

    def __init__(self, iterations: int = 600, bound_iterations: int = 400, seed: int = 0) -> None:
        self.iterations, self.bound_iterations, self.seed = iterations, bound_iterations, seed
        self.plans: list[Plan] = []
        self.bounds: list[float] = []

    def begin(self, info: dict[str, Any]) -> None:
        """Search the plan of every episode."""
        view, world = info["view"], info["scenario"].world
        self.plans, self.bounds = [], []
        for b in range(len(view.stage)):
            before = view.stage[b] < 0
            planner = placed(view, world, b) if before else planner_of(view, world, b)
            plan = improve(first_plan(planner, 4), np.random.default_rng(self.seed), self.iterations)
            self.plans.append(best_powers(plan))
            self.bounds.append(np.nan if before else lower_bound(self.plans[-1], self.bound_iterations))

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """What the plans say of the present period."""
        view: View = info["view"]
        action = stay(view)
        for b, (plan, t) in enumerate(zip(self.plans, view.stage, strict=True)):
            if t < 0:
                action.site[b] = plan.problem.start.site
            elif t < view.plant.n_periods:
                action.site[b], action.share[b] = plan.site[t], plan.share[t]
        return action

    def report(self) -> dict[str, FloatArray]:
        """USD of each episode (B,): the plan, a proven lower bound (NaN: none), the plan's routes with AUTO."""
        return {
            "best_known_usd": np.array([plan.cost_usd for plan in self.plans]),
            "bound_usd": np.array(self.bounds),
            "auto_usd": np.array([plan.auto_usd for plan in self.plans]),
        }
