"""Deterministic descent on the exact energy: units answer in turn, or the best single change is taken.

Also home of the compiled helpers that every solver of an ``AggregateQUBO`` shares.
"""

from typing import Any, TypeAlias

import numpy as np

from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

LEAST_GAIN = 1e-10
"""Improvements below this share of the energy are rounding."""

ProblemArrays: TypeAlias = tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


def arrays(problem: AggregateQUBO) -> ProblemArrays:
    """What the compiled functions read of a problem: first, cost, use, slope, at, rise."""
    p = problem.pieces
    return problem.first, problem.cost_usd, problem.use, p.slope, p.at, p.rise


def references(problem: AggregateQUBO) -> IntArray:
    """The choice of all references."""
    return np.zeros(len(problem.first) - 1, np.int64)


def best_response(problem: AggregateQUBO, choice: IntArray, passes: int = 10) -> IntArray:
    """Each unit in turn takes its best option given the others', until nobody changes; never worse than ``choice``."""
    found = choice.astype(np.int64)
    respond(*arrays(problem), found, np.empty(problem.n_resources), passes)
    return found


def greedy(problem: AggregateQUBO, start: IntArray | None = None) -> IntArray:
    """The plain rival of annealing: steepest descent by single changes from ``start`` (default: references).

    Of all options of all units the one that lowers the exact energy most is taken, again and again,
    until none lowers it.
    """
    found = references(problem) if start is None else start.astype(np.int64)
    _steepest(*arrays(problem), found, np.empty(problem.n_resources))
    return found


@compiled
def piece(slope: FloatArray, at: FloatArray, rise: FloatArray, r: int, x: float) -> float:  # pragma: no cover
    """``f_r(x)``."""
    value = slope[r] * x
    for k in range(at.shape[1]):
        if x <= at[r, k]:
            break
        value += rise[r, k] * (x - at[r, k])
    return value


@compiled
def copied(source: IntArray, target: IntArray) -> None:  # pragma: no cover
    """Write one array over another (slices would allocate)."""
    for i in range(len(source)):
        target[i] = source[i]


@compiled
def total_usage(first: IntArray, use: FloatArray, choice: IntArray, usage: FloatArray) -> None:  # pragma: no cover
    """Write the aggregates of a choice to ``usage``."""
    for r in range(len(usage)):
        usage[r] = 0.0
    for i in range(len(choice)):
        for r in range(len(usage)):
            usage[r] += use[first[i] + choice[i], r]


@compiled
def energy(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    choice: IntArray,
    usage: FloatArray,
) -> Any:  # pragma: no cover
    """Exact energy of a choice less the constant; leaves its aggregates in ``usage``."""
    total_usage(first, use, choice, usage)
    value = 0.0
    for i in range(len(choice)):
        value += cost[first[i] + choice[i]]
    for r in range(len(usage)):
        value += piece(slope, at, rise, r, usage[r])
    return value


@compiled
def change(
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    usage: FloatArray,
    old: int,
    new: int,
) -> float:  # pragma: no cover
    """Rise of the energy when option ``old`` gives way to ``new``."""
    value = cost[new] - cost[old]
    for r in range(len(usage)):
        step = use[new, r] - use[old, r]
        if step != 0.0:
            value += piece(slope, at, rise, r, usage[r] + step) - piece(slope, at, rise, r, usage[r])
    return value


@compiled
def typical_changes(
    first: IntArray, cost: FloatArray, use: FloatArray, rise: FloatArray
) -> tuple[float, float]:  # pragma: no cover
    """Geometric means over the options of what each changes by its own cost and, at most, across kinks."""
    own, joint, n_own, n_joint = 0.0, 0.0, 0, 0
    for i in range(len(first) - 1):
        for j in range(first[i] + 1, first[i + 1]):
            step = abs(cost[j] - cost[first[i]])
            if step > 0.0:
                own += np.log(step)
                n_own += 1
            kinks = 0.0
            for r in range(use.shape[1]):
                total = 0.0
                for k in range(rise.shape[1]):
                    total += rise[r, k]
                kinks += total * abs(use[j, r] - use[first[i], r])
            if kinks > 0.0:
                joint += np.log(kinks)
                n_joint += 1
    return np.exp(own / n_own) if n_own > 0 else 0.0, np.exp(joint / n_joint) if n_joint > 0 else 0.0


@compiled
def respond(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    choice: IntArray,
    usage: FloatArray,
    passes: int,
) -> float:  # pragma: no cover
    """Best responses on ``choice``; leaves its aggregates in ``usage``, returns its energy less the constant."""
    value = energy(first, cost, use, slope, at, rise, choice, usage)
    for _ in range(passes):
        moved = False
        for i in range(len(choice)):
            old = first[i] + choice[i]
            best, least = old, -LEAST_GAIN * (1.0 + abs(value))
            for new in range(first[i], first[i + 1]):
                if new != old:
                    gain = change(cost, use, slope, at, rise, usage, old, new)
                    if gain < least:
                        best, least = new, gain
            if best != old:
                moved = True
                choice[i] = best - first[i]
                value += least
                for r in range(len(usage)):
                    usage[r] += use[best, r] - use[old, r]
        if not moved:
            break
    return value


@compiled
def _steepest(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    choice: IntArray,
    usage: FloatArray,
) -> None:  # pragma: no cover
    """Take the best single change until none is left."""
    value = energy(first, cost, use, slope, at, rise, choice, usage)
    while True:
        unit, best, least = -1, 0, -LEAST_GAIN * (1.0 + abs(value))
        for i in range(len(choice)):
            old = first[i] + choice[i]
            for new in range(first[i], first[i + 1]):
                if new != old:
                    gain = change(cost, use, slope, at, rise, usage, old, new)
                    if gain < least:
                        unit, best, least = i, new, gain
        if unit < 0:
            break
        old = first[unit] + choice[unit]
        choice[unit] = best - first[unit]
        value += least
        for r in range(len(usage)):
            usage[r] += use[best, r] - use[old, r]
