"""Penalties that keep bit patterns valid: as small as a bound on ground states allows.

Let ``off = A - at``. The energy of a pattern is at least the sum of the units' least reduced costs
plus ``w/2 off^2``, and that of a ground state at most that of any valid choice at hand. So
``w/2 off^2 <= slack`` in a ground state, ``slack`` being the difference. Taking away a bit, and the
bits below it, that together use D and have the reduced cost c then changes the energy by at most
``-c + sqrt(2 slack) |D| + |D|^2 / 2`` with ``|D|^2 = sum_r w_r D_r^2`` (Cauchy and Schwarz). A
penalty above that makes every ground state a valid pattern: its deepest offending bit would go.
"""

from itertools import pairwise

import numpy as np

from qevgrid.agents.hybrid.centring import Quadratic
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

MARGIN = 1.1
"""Penalties over their bound: near-ground states are then valid as well."""
TIE = 0.02
"""What is added to the bound, as a share of a bit's mean reduced cost: equally good patterns are told apart."""


def worth_usd(problem: AggregateQUBO, quadratic: Quadratic) -> FloatArray:
    """Most that taking away each bit with those below it can cost a ground state, and a little more, (n - M,)."""
    reduced = quadratic.reduced_usd(problem)
    reach = np.sqrt(2 * slack_usd(problem, quadratic))
    most = np.full(problem.n_options, -np.inf)
    last, bit = problem.bit, problem.bit
    while len(last):  # each option of ``last`` goes with all of its path down to ``bit``
        under = problem.parent[bit]
        norm = np.sqrt((problem.use[last] - problem.use[under]) ** 2 @ quadratic.weight_usd)
        np.maximum.at(most, bit, reduced[under] - reduced[last] + reach * norm + norm**2 / 2)
        deeper = problem.parent[under] != under
        last, bit = last[deeper], under[deeper]
    tie = TIE * np.abs(reduced[problem.bit] - reduced[problem.parent[problem.bit]]).mean() if len(problem.bit) else 0.0
    return most[problem.bit] + tie


def slack_usd(problem: AggregateQUBO, quadratic: Quadratic) -> float:
    """Quadratic form of a good valid choice less its bound by reduced costs: no ground state bends more."""
    reduced, first = quadratic.reduced_usd(problem), problem.first
    least = np.minimum.reduceat(reduced, first[:-1])
    choice = np.array([reduced[a:b].argmin() for a, b in pairwise(first)])
    _descend(first, reduced, problem.use, quadratic.weight_usd, problem.usage(choice) - quadratic.at, choice)
    option = first[:-1] + choice
    return float((reduced[option] - least).sum() + quadratic.bend_usd(problem.usage(choice) - quadratic.at))


@compiled
def _descend(
    first: IntArray, reduced: FloatArray, use: FloatArray, weight: FloatArray, off: FloatArray, choice: IntArray
) -> None:  # pragma: no cover
    """Best responses of the units on the quadratic form until nobody moves; changes ``off`` and ``choice``."""
    for _ in range(100):
        moved = False
        for i in range(len(choice)):
            old, best, least = first[i] + choice[i], first[i] + choice[i], -1e-12
            for new in range(first[i], first[i + 1]):
                rise = reduced[new] - reduced[old]
                for r in range(len(off)):
                    by = use[new, r] - use[old, r]
                    rise += weight[r] * by * (off[r] + 0.5 * by)
                if rise < least:
                    best, least = new, rise
            if best != old:
                for r in range(len(off)):
                    off[r] += use[best, r] - use[old, r]
                choice[i] = best - first[i]
                moved = True
        if not moved:
            return
