"""Candidate routes: what a plan, its best responses at shaken prices and the ascent of shadow prices propose.

At given prices all units face the same tables, so one dynamic program prices the routes of a whole fleet. The
prices climb by subgradients with Polyak's step towards the cost of a plan that is known.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from qevgrid.agents.mobile_csp.decision import Resources, tabulate
from qevgrid.envs.direct import Direct
from qevgrid.envs.mobile_csp.respond import Joint
from qevgrid.envs.mobile_csp.routes import NOWHERE, Route, trace, value_states
from qevgrid.envs.mobile_csp.search import NOISE, Plan, Planner, copy
from qevgrid.envs.types import FloatArray

INERTIA = 0.5
"""Share of the last direction in a step of the ascent."""
PATIENCE, SHORTER = 4, 1.6
"""Steps without a better bound after which the step length is divided."""


@dataclass(frozen=True)
class Priced:
    """What the ascent found."""

    price_usd: FloatArray  # (R,) of the best bound
    bound_usd: float  # no plan on whole energy levels costs less
    joints: list[Joint]
    """The units' own choices at the prices met."""


def ascend(
    planner: Planner, found: Resources, start: Joint, target_usd: float, steps: int, price: FloatArray | None = None
) -> Priced:
    """Climb for ``steps`` from ``price`` (R,), by default the marginal worth in the plan ``start``."""
    p, pieces = planner.problem, found.pieces
    units = np.arange(len(p.start.site))
    now = pieces.clip(_marginal(found, tabulate(p, found, units, *start)[1].sum(0)) if price is None else price)
    best, best_usd, joints, length, stuck = now, -np.inf, [], 1.0, 0
    direction = np.zeros(len(now))
    for _ in range(steps):
        joint = own_choices(planner, found, now)
        cost, use = tabulate(p, found, units, *joint)
        conjugate, where = pieces.conjugate(now)
        usd = found.constant_usd + float(cost.sum() + use.sum(0) @ now - conjugate.sum())
        joints.append(joint)
        if usd > best_usd:
            best, best_usd, stuck = now, usd, 0
        else:
            stuck += 1
            if stuck >= PATIENCE:
                length, stuck, now, direction = length / SHORTER, 0, best, np.zeros(len(now))
        direction = INERTIA * direction + use.sum(0) - where
        square = float(direction @ direction)
        if square <= 0.0 or usd >= target_usd:
            break
        now = pieces.clip(now + length * (target_usd - usd) / square * direction)
    return Priced(best, best_usd, joints)


def _marginal(found: Resources, usage: FloatArray) -> FloatArray:
    """Slopes (R,) at a usage."""
    return found.pieces.slope + np.where(usage[:, None] > found.pieces.at - 1e-9, found.pieces.rise, 0.0).sum(-1)


def own_choices(planner: Planner, found: Resources, price: FloatArray) -> Joint:
    """The route of each unit that is best at these prices, whatever the others do."""
    p, tables = planner.problem, planner.tables
    gain, tables.place_usd[:], tables.charge_usd[:] = found.prices(p, price)
    tables.gain_usd[:] = gain[:, :, None] * np.arange(p.grid.discharge + 1)
    tables.useful[:] = np.where(gain > 0, p.grid.discharge, 0)
    room = p.world.charge_limit_kw * p.tariff.dt_h / p.grid.step_charge_kwh
    tables.charge[:] = np.minimum((room + 1e-6).astype(np.int64), p.grid.charge)
    shape = (len(p.start.site), len(gain))
    joint = Joint(np.full(shape, NOWHERE), np.repeat(p.start.site[:, None], shape[1], 1), np.zeros(shape, np.int64))
    _PLAN_ALONE(p, tables, planner.value, joint)
    tables.charge_usd[:] = 0.0
    return joint


@njit(cache=True)
def _plan_alone(p: Any, tables: Any, value: Any, joint: Any) -> None:  # pragma: no cover
    """Routes at the tables' prices."""
    anywhere = np.zeros(p.world.need_kw.shape[1], np.int64)
    value_states(p.world, p.stage, p.grid, p.tariff, tables, value, anywhere)
    for i in range(len(p.start.site)):
        if p.start.period[i] < len(p.world.need_kw):
            route = Route(joint.stay[i], joint.target[i], joint.level[i])
            trace(p.world, p.grid, p.tariff, tables, value, p.start.period[i], p.start.site[i], p.start.level[i], route)


_PLAN_ALONE = Direct(_plan_alone)


class Search:
    """Plans around the best one known: a few units answer at shaken prices, then in turn at the true ones."""

    def __init__(self, planner: Planner, weight: FloatArray, rng: np.random.Generator) -> None:
        self.planner, self.weight, self.rng = planner, weight, rng

    def value(self, plan: Plan) -> float:
        """Cost in the step kernel, needs counted by their weight (T,)."""
        return plan.cost_usd - float(((1.0 - self.weight[:, 0]) * plan.unserved_usd).sum())

    def best(self, plans: list[Plan]) -> Plan:
        """The cheapest; of equals the first."""
        return min(plans, key=self.value)

    def answered(self, joint: Joint, rounds: int) -> Plan:
        """All units answer in turn."""
        self.planner.respond(joint, np.arange(len(joint.stay)), rounds, self.weight)
        return self.planner.judge(joint)

    def around(self, plan: Plan, rounds: int) -> tuple[Plan, list[Joint]]:
        """The best plan met, and all that were met, the best last."""
        best, met = plan, []
        for _ in range(rounds):
            joint = self._shaken(best.joint)
            met.append(copy(joint))
            m = len(joint.stay)
            self.planner.respond(joint, self.rng.permutation(m), 1, self.weight)
            met.append(joint)
            best = self.best([best, self.planner.judge(joint)])
        return best, met

    def _shaken(self, joint: Joint) -> Joint:
        """Routes of up to three units anew."""
        joint, rng = copy(joint), self.rng
        who = rng.permutation(len(joint.stay))[: rng.integers(1, min(3, len(joint.stay)) + 1)]
        joint.stay[who], joint.level[who] = NOWHERE, 0
        spread = NOISE * np.exp(rng.uniform(-1, 1))
        noise = np.exp(spread * rng.standard_normal((1, self.weight.shape[1])))
        noise = noise * np.exp(spread * rng.standard_normal(self.weight.shape))
        self.planner.respond(joint, who, 1, self.weight * noise)
        return joint
