"""Simulated annealing of an ``AggregateQUBO`` on its exact energy: the piecewise-linear terms as they are.

The aggregates are kept up to date, so that a proposal costs O(R) whatever the number of units. No
penalties: a unit always holds exactly one option (a Potts model).
"""

from typing import Any

import numpy as np

from qevgrid.agents.hybrid.polish import arrays, copied, energy, piece, references, typical_changes
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

HOT_SHARE, WARM_SHARE, COLD_SHARE = 0.03, 0.1, 0.01
"""Default temperatures. Hot: from the references, as a share of a typical change across kinks; warm: from a
given start, of a typical change of own cost; cold: likewise."""
OWN_SCALE = -1.0
"""A temperature that the kernel derives from the problem."""
FROZEN = 36.0
"""A rise of this many temperatures is refused without drawing: it has odds of 1e-16."""
LOOK = 16
"""Copying the best state may cost as much as this share (1/16 unit a proposal) of the units."""
SMALLEST = 1e-12
SPREAD, MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S7, S9, S11, S27, S30, S31, S32 = (np.uint64(s) for s in (7, 9, 11, 27, 30, 31, 32))
ONE, UNIT = np.uint64(1), 2.0**-53


def anneal(
    problem: AggregateQUBO,
    *,
    reads: int,
    sweeps: int,
    seed: int,
    start: IntArray | None = None,
    hot_usd: float | None = None,
    cold_usd: float | None = None,
) -> tuple[IntArray, FloatArray]:
    """Choices (reads, M) and their exact energies (reads,), each the best state of its read.

    A sweep proposes as many changes as the problem has bits (options less units). Half of them move
    two units at once, which alone can trade one resource's use between units at a kink. The temperature
    falls geometrically from ``hot_usd`` to ``cold_usd``. Every read begins at ``start`` (M,), by
    default at the references. Much the best start is ``dual_ascent(problem).choice``: the default
    temperatures then only refine it (a start of references wants ``hot_usd`` far higher).
    """
    m, r = len(problem.first) - 1, problem.use.shape[1]
    begin = references(problem) if start is None else np.asarray(start, np.int64)
    choices, energies = np.empty((reads, m), np.int64), np.empty(reads)
    _anneal(
        *arrays(problem),
        begin,
        sweeps,
        np.uint64(seed & 0xFFFFFFFFFFFFFFFF),
        OWN_SCALE if hot_usd is None else float(hot_usd),
        start is not None,
        OWN_SCALE if cold_usd is None else float(cold_usd),
        choices,
        energies,
        np.empty(m, np.int64),
        np.empty(m, np.int64),
        np.empty((4, r)),
    )
    energies += problem.constant_usd
    return choices, energies


@compiled
def seeded(seed: int, stream: int) -> Any:  # pragma: no cover
    """First state of a generator: splitmix64 of the seed and the stream, never 0."""
    x = np.uint64(seed) + SPREAD * (np.uint64(stream) + ONE)
    x = (x ^ (x >> S30)) * MIX_1
    x = (x ^ (x >> S27)) * MIX_2
    return (x ^ (x >> S31)) | ONE


@compiled
def following(x: Any) -> Any:  # pragma: no cover
    """Next state of the generator (xorshift64)."""
    x ^= x << S7
    return x ^ (x >> S9)


@compiled
def below(x: Any, n: int) -> Any:  # pragma: no cover
    """Whole number from 0 to n - 1 out of a state's upper half."""
    return np.int64(((x >> S32) * np.uint64(n)) >> S32)


@compiled
def uniform(x: int) -> float:  # pragma: no cover
    """Number in [0, 1) out of a state."""
    return np.float64(x >> S11) * UNIT


@compiled
def accepted(rise_usd: float, temperature_usd: float, x: int) -> bool:  # pragma: no cover
    """Metropolis's rule."""
    if rise_usd <= 0.0:
        return True
    share = rise_usd / temperature_usd
    return share < FROZEN and uniform(x) < np.exp(-share)


@compiled
def _temperatures(
    first: IntArray, cost: FloatArray, use: FloatArray, rise: FloatArray, hot: float, warm: bool, cold: float
) -> tuple[float, float]:  # pragma: no cover
    """The given ones, or shares of the typical changes."""
    own, joint = typical_changes(first, cost, use, rise)
    own, joint = own if own > 0.0 else joint, max(own, joint)
    if hot <= 0.0:
        hot = max(WARM_SHARE * own if warm else HOT_SHARE * joint, SMALLEST)
    if cold <= 0.0:
        cold = max(min(COLD_SHARE * own, hot), SMALLEST)
    return hot, cold


@compiled
def _another(x: int, first: IntArray, i: int, old: int) -> int:  # pragma: no cover
    """One of unit i's other options, out of a state of the generator."""
    found = first[i] + below(x, first[i + 1] - first[i] - 1)
    return found + 1 if found >= old else found


@compiled
def _anneal(
    first: IntArray,
    cost: FloatArray,
    use: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    start: IntArray,
    sweeps: int,
    seed: int,
    hot: float,
    warm: bool,
    cold: float,
    choices: IntArray,
    energies: FloatArray,
    free: IntArray,
    now: IntArray,
    scratch: FloatArray,
) -> None:  # pragma: no cover
    """All reads. ``free`` (M,), ``now`` (M,) and ``scratch`` (4, R) are room to work."""
    usage, value, trial, worth = scratch[0], scratch[1], scratch[2], scratch[3]
    n_free, n_bits, n_resources = 0, 0, use.shape[1]
    for i in range(len(start)):
        if first[i + 1] - first[i] > 1:
            free[n_free] = i
            n_free += 1
            n_bits += first[i + 1] - first[i] - 1
    hot, cold = _temperatures(first, cost, use, rise, hot, warm, cold)
    pairs = n_free > 1 and rise.size > 0
    pause = len(start) // LOOK
    cooling = (cold / hot) ** (1.0 / max(sweeps - 1, 1))
    for read in range(len(choices)):
        best = choices[read]
        copied(start, now)
        copied(start, best)
        state = energy(first, cost, use, slope, at, rise, now, usage)
        for r in range(n_resources):
            value[r] = piece(slope, at, rise, r, usage[r])
        least, since, temperature, x = state, 0, hot if sweeps > 1 else cold, seeded(seed, read)
        for _ in range(sweeps if n_free > 0 else 0):
            for _ in range(n_bits):
                x = following(x)
                one = free[below(x, n_free)]
                old_one = first[one] + now[one]
                x = following(x)
                new_one = _another(x, first, one, old_one)
                other, old_two, new_two = -1, 0, 0
                if pairs and x & ONE:
                    x = following(x)
                    other = free[below(x, n_free)]
                    old_two = first[other] + now[other]
                    x = following(x)
                    new_two = _another(x, first, other, old_two)
                    if other == one:
                        other = -1
                step = cost[new_one] - cost[old_one]
                if other >= 0:
                    step += cost[new_two] - cost[old_two]
                for r in range(n_resources):
                    by = use[new_one, r] - use[old_one, r]
                    if other >= 0:
                        by += use[new_two, r] - use[old_two, r]
                    trial[r] = usage[r] + by
                    worth[r] = piece(slope, at, rise, r, trial[r]) if by != 0.0 else value[r]
                    step += worth[r] - value[r]
                x = following(x)
                if accepted(step, temperature, x):
                    now[one] = new_one - first[one]
                    if other >= 0:
                        now[other] = new_two - first[other]
                    for r in range(n_resources):
                        usage[r], value[r] = trial[r], worth[r]
                    state += step
                since += 1
                if state < least - SMALLEST and since >= pause:
                    least, since = state, 0
                    copied(now, best)
            temperature *= cooling
        if state < least:
            copied(now, best)
        energies[read] = energy(first, cost, use, slope, at, rise, best, usage)
