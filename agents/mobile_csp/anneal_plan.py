"""A joint plan by search and annealing in turn: search proposes routes, the annealer combines them, units answer."""

import numpy as np

from qevgrid.agents.hybrid.anneal import anneal
from qevgrid.agents.mobile_csp.candidates import ascend
from qevgrid.agents.mobile_csp.decision import decide, resources
from qevgrid.agents.mobile_csp.hybrid import COLD_SHARE, HOT_SHARE, typical_rise
from qevgrid.envs.mobile_csp.respond import Joint
from qevgrid.envs.mobile_csp.search import Plan, Planner, copy, improve

EVERY = 100
"""Plans of the search between two combinations."""
ROUTES, DUAL_STEPS = 60, 20
"""Most candidate routes of a unit; steps of the ascent of prices, once, which propose routes too."""
READS, SWEEPS = 1, 100


class Combiner:
    """Combines the routes of plans of one problem."""

    def __init__(self, planner: Planner, seed: int, reads: int = READS, sweeps: int = SWEEPS) -> None:
        self.planner, self.seed, self.reads, self.sweeps = planner, seed, reads, sweeps
        self.found = resources(planner.problem)
        self.priced: list[Joint] | None = None

    def __call__(self, best: Plan, met: list[Plan]) -> Plan:
        """The cheaper of the annealed combination as it is and after the units' answers."""
        raw = self.raw(best, met)
        return min(raw, self.answered(raw), key=lambda plan: plan.cost_usd)

    def raw(self, best: Plan, met: list[Plan]) -> Plan:
        """The annealed combination of routes, those of cheaper plans first."""
        p = self.planner.problem
        if self.priced is None:
            self.priced = ascend(self.planner, self.found, best.joint, best.cost_usd, DUAL_STEPS).joints[::-1]
        near = [plan.joint for plan in sorted(met, key=lambda plan: plan.cost_usd)]
        decision = decide(p, self.found, [best.joint, *near, *self.priced], ROUTES)
        hot = HOT_SHARE * typical_rise(decision.problem)
        self.seed += 1
        choices, usd = anneal(
            decision.problem,
            reads=self.reads,
            sweeps=self.sweeps,
            seed=self.seed,
            hot_usd=hot,
            cold_usd=COLD_SHARE * hot,
        )
        return self.planner.judge(decision.joint(choices[int(np.argmin(usd))]))

    def answered(self, plan: Plan) -> Plan:
        """All units answer in turn."""
        joint = copy(plan.joint)
        self.planner.respond(joint, np.arange(len(joint.stay)), 2)
        return self.planner.judge(joint)


def anneal_plan(plan: Plan, seed: int, iterations: int = 300, seconds: float | None = None) -> Plan:
    """A plan no dearer than ``plan``: ``improve`` that combines what it has tried every so often."""
    combiner = Combiner(Planner(plan.problem), seed)
    return improve(plan, np.random.default_rng(seed), iterations, seconds, combiner, EVERY)
