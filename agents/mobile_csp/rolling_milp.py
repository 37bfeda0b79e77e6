"""The classical rival: every period a mixed-integer program of the hours ahead, from nothing, by HiGHS in limited time."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.planning import Rolling, placed, row
from qevgrid.agents.mobile_csp.simple import stay
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import Action, World
from qevgrid.envs.mobile_csp.core import View
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.search import Plan, make_problem
from qevgrid.envs.types import Float32Array, FloatArray


@dataclass
class RollingMILP(Agent):
    """Solves ``MobileProgram`` on the next ``horizon`` periods of what is expected, carries out the first of them.

    HiGHS stops at the relative ``gap`` or after ``time_limit_s`` of wall time with the best that it has. Where it has
    nothing the last plan goes on, and where that has ended units stay. Beyond the horizon energy is worth what it is
    at the end of an episode. A busy or slower machine may decide otherwise: time limits are no seeds.
    """

    name: str = "rolling_milp"
    horizon: int = 12
    gap: float = 0.02
    time_limit_s: float = 10.0
    slow = True
    _last: dict[int, Plan] = field(default_factory=dict)
    _count: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))  # (B, 3) decisions, proven, without a plan

    def begin(self, info: dict[str, Any]) -> None:
        """Forget the plans of other episodes."""
        self._last, self._count = {}, np.zeros((len(info["view"].stage), 3))

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """First period of a new plan for every episode."""
        view: View = info["view"]
        if len(self._count) != len(view.stage):
            self.begin(info)
        action, world = stay(view), view.forecast()
        for b, t in enumerate(view.stage):
            if t < 0:
                action.site[b] = placed(view, world, b).problem.start.site
            elif t < view.plant.n_periods:
                plan = self._plan(view, world, b)
                if plan is not None and t < len(plan.site):
                    action.site[b], action.share[b] = plan.site[t], Rolling()._share(plan, int(t))
        return action

    def _plan(self, view: View, world: World, b: int) -> Plan | None:
        """What HiGHS finds, else the plan before."""
        t = int(view.stage[b])
        ahead = World(*(x[:, : t + self.horizon] for x in row(world, b)))
        problem = make_problem(ahead, row(view.units, b), t, view.fleet, view.sites, view.tariff)
        self._count[b, 0] += 1
        try:
            found = MobileProgram(problem).solve(self.time_limit_s, self.gap)
        except UserError:  # nothing in time
            self._count[b, 2] += 1
            return self._last.get(b)
        self._count[b, 1] += found.status == "Optimal"
        self._last[b] = found.plan
        return found.plan

    def report(self) -> dict[str, FloatArray]:
        """Shares of each episode's decisions (B,): closed to the gap; without a plan."""
        n = np.maximum(self._count[:, 0], 1)
        return {"milp/proven_share": self._count[:, 1] / n, "milp/no_plan_share": self._count[:, 2] / n}
