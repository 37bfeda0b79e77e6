"""Plans against a set of worlds that may come true: expected cost and its worst share, (11) and (21) of the review.

    min over plans   (1 - weight) E_w[cost(plan, w)] + weight CVaR_share[cost(plan, w)]

Plans are carried out as they are in every world: the next period plans anew anyway. Worlds are equally likely.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qevgrid.envs.mobile_csp.arrays import World
from qevgrid.envs.mobile_csp.respond import Joint, Problem
from qevgrid.envs.mobile_csp.search import Plan, Planner, first_plan, play
from qevgrid.envs.mobile_csp.simulate import episode
from qevgrid.envs.types import FloatArray

SWEEPS = 2
"""Rounds of a world's own plan."""
Value = Callable[[Plan], float]


def cost_usd(plan: Plan) -> float:
    """What the step kernel says."""
    return plan.cost_usd


@dataclass(frozen=True)
class Beliefs:
    """Worlds of one episode, and how their costs count."""

    worlds: World  # (S, T, ...)
    cvar_weight: float = 0.0
    cvar_share: float = 0.25

    def problems(self, problem: Problem) -> Iterator[Problem]:
        """The same decision in each world."""
        for s in range(len(self.worlds.need_kw)):
            yield problem.within(episode(self.worlds, s))

    def proposals(self, problem: Problem) -> list[Joint]:
        """The best plan of each world."""
        return [first_plan(Planner(world), SWEEPS).joint for world in self.problems(problem)]

    def costs_usd(self, plans: Sequence[Plan], value: Value = cost_usd) -> FloatArray:
        """``value`` of each plan in each world, (len(plans), S)."""
        worlds = list(self.problems(plans[0].problem))
        return np.array([[value(play(w, plan.joint, plan.site, plan.share)) for w in worlds] for plan in plans])

    def risk_usd(self, costs_usd: FloatArray) -> FloatArray:
        """(..., S) -> (...): mean and CVaR by their weights."""
        worst = max(1, round(self.cvar_share * costs_usd.shape[-1]))
        tail = np.sort(costs_usd, -1)[..., -worst:].mean(-1)
        return (1 - self.cvar_weight) * costs_usd.mean(-1) + self.cvar_weight * tail


def chosen(plans: Sequence[Plan], beliefs: Beliefs | None, value: Value = cost_usd) -> Plan:
    """The plan of the least risk, or without beliefs the cheapest in the expected world; of equals the first."""
    if beliefs is None:
        return min(plans, key=value)
    plans = different(plans)
    return plans[int(np.argmin(beliefs.risk_usd(beliefs.costs_usd(plans, value))))]


def different(plans: Sequence[Plan]) -> list[Plan]:
    """Each way to act once, the first of each."""
    found: dict[bytes, Plan] = {}
    for plan in plans:
        found.setdefault(plan.site.tobytes() + plan.share.tobytes(), plan)
    return list(found.values())
