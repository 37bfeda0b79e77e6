"""Look-ahead over H stages: storage units choose among plans, and plans meet in what is shared at each stage.

Shadow prices come from all plans that are possible, by exact dynamic programming: each step prices
the cheapest plan of every unit, keeps it, and moves the prices as ``dual.py`` does, over the plans kept.
The plans kept are then the options of an ``AggregateQUBO``.
"""

from dataclasses import dataclass

import numpy as np

from qevgrid.agents.hybrid.ascent import clipped, conjugate, gradient, maximise_model, turned_back
from qevgrid.agents.hybrid.dual import COLD, HOLD, LAST, REACH, RETRIES, RIDGE, VECTORS, WARM, Dual, dual_ascent, soften
from qevgrid.agents.hybrid.lattice import Lattice, StorageUnits, cheapest, reachable
from qevgrid.agents.hybrid.polish import copied, piece
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

MOST_PLANS = 24
"""Plans kept a unit; later ones are not."""


@dataclass(frozen=True)
class PlanDual:
    """Prices, the bound over all possible plans, and the plans that were cheapest at some prices on the way."""

    price_usd: FloatArray  # (H * S,) resource h * S + s
    bound_usd: float
    usage: FloatArray  # (H * S,) of the linear relaxation, nearly
    count: IntArray  # (M,) plans kept
    given: IntArray  # (M,) of them not found but given: off, then the previous plan
    level: IntArray  # (M, C, H) columns of power_kw, off first
    cost_usd: FloatArray  # (M, C)
    use: FloatArray  # (M, C, H * S)


@dataclass(frozen=True)
class Lookahead:
    """A problem whose options are plans; option 0 of every unit is to stay off."""

    problem: AggregateQUBO
    level: IntArray  # (n, H) columns of power_kw of each option
    plans: PlanDual
    """Bound and prices over all plans."""
    dual: Dual
    """Of ``problem`` alone; its choice is a good start."""
    lattice: Lattice

    def levels(self, choice: IntArray) -> IntArray:
        """Plans (M, H) of a choice (M,)."""
        return self.level[self.problem.first[:-1] + choice]


def lookahead(
    units: StorageUnits,
    pieces: Pieces,
    *,
    count: int,
    steps: int = 30,
    price: FloatArray | None = None,
    previous: IntArray | None = None,
    constant_usd: float = 0.0,
) -> Lookahead:
    """Prices, then up to ``count`` plans a unit. ``pieces`` has H * S functions, stage by stage.

    ``price`` (H * S,) and ``previous`` (M, H), the last decision's moved on by a stage, save steps.
    """
    lattice = reachable(units)
    plans = price_plans(units, lattice, pieces, steps=steps, price=price, previous=previous, constant_usd=constant_usd)
    chosen = candidate_plans(plans, count)
    first = np.concatenate([[0], np.cumsum(chosen.sum(1))])
    problem = AggregateQUBO.one_hot(first, plans.cost_usd[chosen], plans.use[chosen], pieces, constant_usd)
    start = dual_ascent(problem, steps=max(steps * 2 // 3, 1), price=plans.price_usd)
    return Lookahead(problem, plans.level[chosen], plans, start, lattice)


def price_plans(
    units: StorageUnits,
    lattice: Lattice,
    pieces: Pieces,
    *,
    steps: int = 30,
    price: FloatArray | None = None,
    previous: IntArray | None = None,
    constant_usd: float = 0.0,
) -> PlanDual:
    """Climb the dual over all plans for ``steps``."""
    m, n_stages, n_levels = units.allowed.shape
    r, c = n_stages * units.n_shared, MOST_PLANS
    level, cost, use = np.empty((m, c, n_stages), np.int64), np.zeros((m, c)), np.zeros((m, c, r))
    given = _first_plans(units, lattice, previous, level, cost, use)
    count = given.copy()
    now = np.zeros(r) if price is None else np.array(price, float)
    best, usage = np.empty(r), np.empty(r)
    bound = _climb(
        lattice,
        units.cost_usd,
        units.power_kw,
        units.coupling,
        pieces.slope,
        pieces.at,
        pieces.rise,
        steps,
        COLD if price is None else WARM,
        now,
        best,
        usage,
        count,
        level,
        cost.reshape(-1),
        use.reshape(m * c, r),
        np.empty((VECTORS, r)),
        np.empty((r, r)),
        np.empty(m),
        np.empty(max(c, lattice.widest)),
        np.empty((n_stages, n_levels)),
        np.empty(n_stages),
        np.empty(n_stages, np.int64),
        np.arange(m) * c,
        np.empty(m, np.int64),
    )
    return PlanDual(best, bound + constant_usd, usage, count, given, level, cost, use)


def candidate_plans(dual: PlanDual, count: int) -> np.ndarray:
    """Which kept plans (M, C) become options: those given, and those that cost least at the prices."""
    reduced, plan = dual.cost_usd + dual.use @ dual.price_usd, np.arange(dual.level.shape[1])
    kept = plan < dual.count[:, None]
    reduced[~kept] = np.inf
    reduced[plan < dual.given[:, None]] = -np.inf
    rank = np.argsort(np.argsort(reduced, 1, kind="stable"), 1, kind="stable")
    return kept & (rank < count)


def is_possible(units: StorageUnits, lattice: Lattice, level: IntArray) -> np.ndarray:
    """Units (M,) that can follow their plans (M, H)."""
    dead = lattice.stage[:, -1]
    state = np.zeros(units.n_units, np.int64)
    for t in range(units.n_stages):
        here = lattice.begin[:-1] + state
        state = lattice.following[here, level[:, t]].astype(np.int64)
    return state != dead


def _first_plans(
    units: StorageUnits,
    lattice: Lattice,
    previous: IntArray | None,
    level: IntArray,
    cost: FloatArray,
    use: FloatArray,
) -> IntArray:
    """Keep off and, where it is possible and another, the previous plan; how many that are, (M,)."""
    off = np.full((units.n_units, units.n_stages), units.off)
    level[:, 0], cost[:, 0], use[:, 0] = off, units.plan_usd(off), units.plan_use(off)
    count = np.ones(units.n_units, np.int64)
    if previous is not None:
        kept = is_possible(units, lattice, previous) & (previous != off).any(1)
        level[kept, 1], cost[kept, 1] = previous[kept], units.plan_usd(previous)[kept]
        use[kept, 1] = units.plan_use(previous)[kept]
        count += kept
    return count


@compiled
def _keep(
    level: IntArray,
    cost: FloatArray,
    use: FloatArray,
    power: FloatArray,
    coupling: FloatArray,
    i: int,
    plan: IntArray,
    own: float,
    count: IntArray,
) -> None:  # pragma: no cover
    """Add a plan to unit i's unless it is there or there are enough."""
    for c in range(count[i]):
        same = True
        for t in range(len(plan)):
            if level[i, c, t] != plan[t]:
                same = False
                break
        if same:
            return
    c = count[i]
    if c == level.shape[1]:
        return
    j, n_shared = i * level.shape[1] + c, coupling.shape[1]
    cost[j] = own
    for t in range(len(plan)):
        level[i, c, t] = plan[t]
        for s in range(n_shared):
            use[j, t * n_shared + s] = coupling[i, s] * power[i, plan[t]]
    count[i] += 1


@compiled
def _scales(
    power: FloatArray,
    coupling: FloatArray,
    cost: FloatArray,
    rise: FloatArray,
    scale: FloatArray,
    usual: FloatArray,
    ridge: FloatArray,
) -> float:  # pragma: no cover
    """Write what a level more costs a unit (M,), that per use and a curvature (R,); what kinks cost in these terms."""
    n_units, n_stages, n_levels = cost.shape
    n_shared, total, kinks = coupling.shape[1], 0.0, 0.0
    for i in range(n_units):
        scale[i] = 0.0
        for t in range(n_stages):
            for k in range(n_levels - 1):
                scale[i] += abs(cost[i, t, k + 1] - cost[i, t, k]) / (n_stages * (n_levels - 1))
        total += scale[i] / n_units
    for i in range(n_units):
        if scale[i] <= 0.0:
            scale[i] = total if total > 0.0 else 1.0
    for r in range(n_stages * n_shared):
        used, paid, curve, steepest = 0.0, 0.0, 0.0, 0.0
        for k in range(rise.shape[1]):
            steepest += rise[r, k]
        for i in range(n_units):
            most = (power[i, n_levels - 1] - power[i, 0]) / (n_levels - 1) * abs(coupling[i, r % n_shared])
            if most > 0.0:
                used += most
                paid += scale[i]
                curve += most * most / scale[i]
        kinks += steepest * used / (n_units * n_stages)
        usual[r] = paid / used if used > 0.0 else 1.0
        ridge[r] = RIDGE * curve if curve > 0.0 else 1.0
    return max(kinks / total, 1.0) if total > 0.0 else 1.0


@compiled
def _best_plans(
    lattice: Lattice,
    own_cost: FloatArray,
    power: FloatArray,
    coupling: FloatArray,
    price: FloatArray,
    weight: FloatArray,
    value: FloatArray,
    stage_usd: FloatArray,
    plan: IntArray,
    level: IntArray,
    cost: FloatArray,
    use: FloatArray,
    count: IntArray,
) -> float:  # pragma: no cover
    """Keep every unit's cheapest plan at these prices; sum of what they cost."""
    total, n_shared = 0.0, coupling.shape[1]
    for i in range(len(power)):
        for t in range(len(weight)):
            weight[t] = 0.0
            for s in range(n_shared):
                weight[t] += price[t * n_shared + s] * coupling[i, s]
        least, own = cheapest(lattice, own_cost, power, weight, i, value, stage_usd, plan)
        total += least
        _keep(level, cost, use, power, coupling, i, plan, own, count)
    return total


@compiled
def _climb(
    lattice: Lattice,
    own_cost: FloatArray,
    power: FloatArray,
    coupling: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    steps: int,
    warm: float,
    price: FloatArray,
    best: FloatArray,
    shares: FloatArray,
    count: IntArray,
    level: IntArray,
    cost: FloatArray,
    use: FloatArray,
    scratch: FloatArray,
    curvature: FloatArray,
    scale: FloatArray,
    value: FloatArray,
    stage_usd: FloatArray,
    weight: FloatArray,
    plan: IntArray,
    begin: IntArray,
    end: IntArray,
) -> float:  # pragma: no cover
    """Prices to ``best``, softened usage to ``shares``, plans to ``level``, ``cost``, ``use``; the bound."""
    usage, mean, reach, new, found = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    usual, ridge, base, base_found = scratch[5], scratch[6], scratch[7], scratch[8]
    heat = warm * np.sqrt(_scales(power, coupling, own_cost, rise, scale, usual, ridge))
    bound, closest, retries, hold = -np.inf, np.inf, RETRIES, steps // HOLD
    clipped(slope, rise, price)
    for step in range(steps + 1):
        total = _best_plans(
            lattice, own_cost, power, coupling, price, weight, value, stage_usd, plan, level, cost, use, count
        )
        for i in range(len(begin)):
            end[i] = begin[i] + count[i]
        soften(begin, end, cost, use, price, heat, scale, usage, mean, curvature, value)
        mismatch = 0.0
        for r in range(len(price)):
            attained = conjugate(slope, at, rise, r, price[r])
            total -= attained
            mismatch += attained + piece(slope, at, rise, r, usage[r]) - price[r] * usage[r]
            curvature[r, r] += ridge[r] / max(heat, 1.0)
            reach[r] = REACH * heat * usual[r]
        if total > bound:
            bound = total
            copied(price, best)
        if step >= steps - hold and mismatch < closest:
            closest = mismatch
            copied(usage, shares)
        if step == steps:
            break
        gradient(slope, at, rise, price, usage, found)
        if retries < RETRIES and turned_back(base, base_found, found, price):
            retries += 1
            continue
        retries = 0
        copied(price, base)
        copied(found, base_found)
        maximise_model(slope, at, rise, usage, curvature, reach, price, new, scratch[10:14])
        copied(new, price)
        if step < steps - hold:
            heat *= (LAST / heat) ** (1.0 / (steps - hold - step))
    return bound
