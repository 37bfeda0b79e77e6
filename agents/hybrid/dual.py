"""Shadow prices of the shared resources, a proven lower bound and a good first choice, by price decomposition.

    L(price) = constant + sum_i min_j (cost_j + price . use_j) - sum_r f*_r(price_r)  <=  min energy

At given prices every unit decides alone. L is concave with kinks everywhere, and subgradients crawl where
resources overlap (a site within a feeder). So the minima are softened by a temperature that falls from
step to step, and each step maximises a quadratic model (``ascent.py``). The bound is L itself, unsoftened,
at the best prices met. The softened shares, in the end those of the linear relaxation, are rounded.
"""

from dataclasses import dataclass

import numpy as np

from qevgrid.agents.hybrid.ascent import clipped, conjugate, gradient, maximise_model, turned_back
from qevgrid.agents.hybrid.polish import arrays, copied, piece, respond, typical_changes
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

COLD, WARM = 2.0, 0.3
"""First heat, from default and from given prices, where kinks matter as much as own costs."""
LAST = 5e-4
"""Last heat. A unit's temperature is the heat times what its options differ by in cost."""
HOLD = 6
"""One in so many steps is at the last heat: the softened usage then is where f has these slopes."""
REACH = 100.0
"""A price moves in a step by at most this many times heat times cost per use."""
RIDGE = 1e-5
"""Curvature added where no unit is in doubt, as a share of that of all units, each unsure of one option."""
RETRIES = 3
"""Most times that a step is taken back in part."""
PASSES = 10
"""Rounds of best responses on a choice."""
LIKELY = 0.01
"""Least share of an option that rounding may choose."""
NEGLIGIBLE = 36.0
VECTORS = 15
"""Vectors of R numbers that a climb works with."""


@dataclass(frozen=True)
class Dual:
    """What the climb found."""

    price_usd: FloatArray  # (R,) USD per unit of each resource, within the slopes of its function
    bound_usd: float  # no choice costs less
    usage: FloatArray  # (R,) of the linear relaxation, nearly: units in doubt count in shares
    choice: IntArray  # (M,) the shares rounded, after best responses: a good start
    energy_usd: float  # of choice


def dual_ascent(problem: AggregateQUBO, *, steps: int = 30, price: FloatArray | None = None) -> Dual:
    """Climb for ``steps`` from ``price`` (R,), by default from the prices next to 0 that can be optimal.

    From prices of a similar problem half as many steps do.
    """
    r, m = problem.n_resources, problem.n_units
    width = int(np.diff(problem.first).max(initial=1))
    now = np.zeros(r) if price is None else np.array(price, float)
    best, usage, choice = np.empty(r), np.empty(r), np.empty(m, np.int64)
    room = np.empty(m, np.int64), np.empty((VECTORS, r)), np.empty((r, r)), np.empty(width), np.empty(m)
    warm = COLD if price is None else WARM
    bound, energy = _climb(*arrays(problem), steps, warm, now, best, usage, choice, *room)
    return Dual(best, bound + problem.constant_usd, usage, choice, energy + problem.constant_usd)


@compiled
def soften(
    begin: IntArray,
    end: IntArray,
    cost: FloatArray,
    use: FloatArray,
    price: FloatArray,
    heat: float,
    scale: FloatArray,
    usage: FloatArray,
    mean: FloatArray,
    curvature: FloatArray,
    weight: FloatArray,
) -> float:  # pragma: no cover
    """Write the softened usage and minus its derivative by price; sum of the exact minima.

    Unit i has the options ``begin[i]`` to ``end[i]`` - 1 and the temperature ``heat * scale[i]``.
    """
    n_resources, total = len(price), 0.0
    for r in range(n_resources):
        usage[r] = 0.0
        for s in range(n_resources):
            curvature[r, s] = 0.0
    for i in range(len(begin)):
        least, mass = _weigh(cost, use, price, begin[i], end[i], heat * scale[i], weight)
        total += least
        for r in range(n_resources):
            mean[r] = 0.0
        steepness = 1.0 / (heat * scale[i])
        for j in range(begin[i], end[i]):
            share = weight[j - begin[i]] / mass
            if share == 0.0:
                continue
            for r in range(n_resources):
                if use[j, r] != 0.0:
                    mean[r] += share * use[j, r]
                    for s in range(r + 1 if share < 1.0 else 0):
                        curvature[r, s] += steepness * share * use[j, r] * use[j, s]
        for r in range(n_resources):
            usage[r] += mean[r]
            for s in range(r + 1 if mass > 1.0 else 0):
                curvature[r, s] -= steepness * mean[r] * mean[s]
    for r in range(n_resources):
        for s in range(r):
            curvature[s, r] = curvature[r, s]
    return total


@compiled
def _weigh(
    cost: FloatArray,
    use: FloatArray,
    price: FloatArray,
    begin: int,
    end: int,
    temperature: float,
    weight: FloatArray,
) -> tuple[float, float]:  # pragma: no cover
    """Write the options' Boltzmann weights, the cheapest's 1; its cost at these prices, and their sum."""
    least, mass = np.inf, 0.0
    for j in range(begin, end):
        value = cost[j]
        for r in range(len(price)):
            value += price[r] * use[j, r]
        weight[j - begin] = value
        least = min(least, value)
    for j in range(end - begin):
        far = (weight[j] - least) / temperature
        weight[j] = np.exp(-far) if far < NEGLIGIBLE else 0.0
        mass += weight[j]
    return least, mass


@compiled
def _choose(
    first: IntArray, cost: FloatArray, use: FloatArray, price: FloatArray, choice: IntArray
) -> None:  # pragma: no cover
    """Each unit's best option at these prices."""
    for i in range(len(choice)):
        least = np.inf
        for j in range(first[i], first[i + 1]):
            value = cost[j]
            for r in range(len(price)):
                value += price[r] * use[j, r]
            if value < least:
                choice[i], least = j - first[i], value


@compiled
def _round(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    price: FloatArray,
    heat: float,
    scale: FloatArray,
    typical: FloatArray,
    choice: IntArray,
    weight: FloatArray,
    mean: FloatArray,
    astray: FloatArray,
) -> None:  # pragma: no cover
    """Write a choice of likely options whose usage strays little from the softened one.

    Units choose in turn, twice, so as to make good for what those before them are off their means.
    """
    for r in range(len(price)):
        astray[r] = 0.0
    for turn in range(2):
        for i in range(len(choice)):
            begin, end, nearest = first[i], first[i + 1], np.inf
            _, mass = _weigh(cost, use, price, begin, end, heat * scale[i], weight)
            for r in range(len(price)):
                mean[r] = 0.0
                for j in range(begin, end):
                    mean[r] += weight[j - begin] / mass * use[j, r]
                if turn > 0:
                    astray[r] -= use[begin + choice[i], r] - mean[r]
            for j in range(begin, end):
                if weight[j - begin] < LIKELY * mass:
                    continue
                distance = 0.0
                for r in range(len(price)):
                    distance += ((astray[r] + use[j, r] - mean[r]) / typical[r]) ** 2
                if distance < nearest:
                    choice[i], nearest = j - begin, distance
            for r in range(len(price)):
                astray[r] += use[begin + choice[i], r] - mean[r]


@compiled
def _scales(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    scale: FloatArray,
    usual: FloatArray,
    typical: FloatArray,
    ridge: FloatArray,
) -> None:  # pragma: no cover
    """Write what a unit's options differ by in cost (M,), that per use, a typical use and a curvature (R,)."""
    total, count = 0.0, 0
    for i in range(len(scale)):
        scale[i] = 0.0
        for j in range(first[i] + 1, first[i + 1]):
            scale[i] += abs(cost[j] - cost[first[i]]) / (first[i + 1] - first[i] - 1)
        total += scale[i]
        count += scale[i] > 0.0
    for i in range(len(scale)):
        if scale[i] <= 0.0:
            scale[i] = total / count if count > 0 else 1.0
    for r in range(len(typical)):
        square, used, paid, curve = 0.0, 0.0, 0.0, 0.0
        for i in range(len(scale)):
            most = 0.0
            for j in range(first[i], first[i + 1]):
                square += use[j, r] * use[j, r]
                most = max(most, abs(use[j, r] - use[first[i], r]))
            if most > 0.0:
                used += most
                paid += scale[i]
                curve += most * most / scale[i]
        typical[r] = np.sqrt(square / len(use)) if square > 0.0 else 1.0
        usual[r] = paid / used if used > 0.0 else 1.0
        ridge[r] = RIDGE * curve if curve > 0.0 else 1.0


@compiled
def _climb(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    steps: int,
    warm: float,
    price: FloatArray,
    best: FloatArray,
    shares: FloatArray,
    choice: IntArray,
    trial: IntArray,
    scratch: FloatArray,
    curvature: FloatArray,
    weight: FloatArray,
    scale: FloatArray,
) -> tuple[float, float]:  # pragma: no cover
    """Prices to ``best``, softened usage to ``shares``, the choice to ``choice``; bound and the choice's energy."""
    usage, mean, reach, new, found = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    usual, typical, ridge, base, base_found = scratch[5], scratch[6], scratch[7], scratch[8], scratch[9]
    settled = scratch[14]
    _scales(first, cost, use, scale, usual, typical, ridge)
    own, joint = typical_changes(first, cost, use, rise)
    heat = warm * np.sqrt(max(joint / own, 1.0)) if own > 0.0 else warm
    bound, closest, retries, hold = -np.inf, np.inf, RETRIES, steps // HOLD
    clipped(slope, rise, price)
    for step in range(steps + 1):
        value = soften(first[:-1], first[1:], cost, use, price, heat, scale, usage, mean, curvature, weight)
        mismatch = 0.0
        for r in range(len(price)):
            attained = conjugate(slope, at, rise, r, price[r])
            value -= attained
            mismatch += attained + piece(slope, at, rise, r, usage[r]) - price[r] * usage[r]
            curvature[r, r] += ridge[r] / max(heat, 1.0)
            reach[r] = REACH * heat * usual[r]
        if value > bound:
            bound = value
            copied(price, best)
        if step >= steps - hold and mismatch < closest:
            closest = mismatch
            copied(price, settled)
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
    _choose(first, cost, use, best, choice)
    energy = respond(first, cost, use, slope, at, rise, choice, usage, PASSES)
    _round(first, cost, use, settled, heat, scale, typical, trial, weight, mean, found)
    rounded = respond(first, cost, use, slope, at, rise, trial, usage, PASSES)
    if rounded < energy:
        copied(trial, choice)
    return bound, min(energy, rounded)
