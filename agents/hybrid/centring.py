"""The quadratic stand-in of a decision: an augmented Lagrangian centred on the dual.

Each shared cost ``f_r`` becomes ``price_r (A_r - at_r) + weight_r / 2 (A_r - at_r)^2``. A price that
clears the resource leaves little for the square to do: no slack bits, no large penalty.
"""

from dataclasses import dataclass

import numpy as np

from qevgrid.agents.hybrid.dual import Dual
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.envs.types import FloatArray, IntArray

FLATTEST = 0.1
"""Least weight, as a share of the mean of both sides."""
LEAN = 0.35
"""Steps that the vertex stands to the cheap side of a one-sided kink."""
REACH = 10.0
"""Windows from which a price in the middle of a kink pulls the centre to it."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Quadratic:
    """``constant + sum_i cost[x_i] + sum_r price_r (A_r - at_r) + weight_r / 2 (A_r - at_r)^2``."""

    price_usd: FloatArray  # (R,)
    at: FloatArray  # (R,)
    weight_usd: FloatArray  # (R,), >= 0
    constant_usd: float = 0.0

    def energy_usd(self, problem: AggregateQUBO, choice: IntArray) -> FloatArray:
        """Value of choices (..., M) -> (...)."""
        option = problem.first[:-1] + choice
        off = problem.use[option].sum(-2) - self.at
        return self.constant_usd + problem.cost_usd[option].sum(-1) + off @ self.price_usd + self.bend_usd(off)

    def bend_usd(self, off: FloatArray) -> FloatArray:
        """The square terms at ``off`` (..., R) -> (...)."""
        return 0.5 * off**2 @ self.weight_usd

    def reduced_usd(self, problem: AggregateQUBO) -> FloatArray:
        """Cost of each option with its use paid at the prices, (n,)."""
        return problem.cost_usd + problem.use @ self.price_usd

    def base_usd(self) -> float:
        """What remains where nothing is used."""
        return self.constant_usd - float(self.price_usd @ self.at)


def centre(problem: AggregateQUBO, dual: Dual, rho: float) -> Quadratic:
    """The quadratic form that stands for the exact one near the dual's choice.

    *Where*: the proximal point of ``f_r`` less the price's plane, seen from the choice's usage. That is
    the kink where the price holds one, a point between kinks where it does not, and never a far kink
    that an inexact price has just passed.

    *Weight*: let ``right`` and ``left`` be what ``f_r`` rises by, beyond the price's plane, per unit over
    a window of ``step / rho`` to either side, ``step`` being what a bit typically moves ``A_r`` by. The
    square costs their geometric mean there (but at least ``FLATTEST`` of the arithmetic one): the sum,
    which is ``rho rise / step`` at a kink, lets a dear side forbid the free use of a cheap one.
    *Lean*: the vertex stands up to ``LEAN`` steps to the cheap side, so that rounding falls there.
    """
    pieces, price, step = problem.pieces, dual.price_usd, typical_step(problem)
    window, total = step / rho, pieces.rise.sum(-1)
    give = REACH * np.divide(window, total, where=total > 0, out=window.copy())
    at = _proximal(pieces, price, problem.usage(dual.choice), give)
    value = each_usd(pieces, at)
    right = np.maximum((each_usd(pieces, at + window) - value) / window - price, 0.0)
    left = np.maximum((each_usd(pieces, at - window) - value) / window + price, 0.0)
    mean = (left + right) / 2
    mean[mean < ROUNDING * (1.0 + np.abs(price))] = 0.0
    weight = np.where(mean > 0, 2 * np.maximum(np.sqrt(left * right), FLATTEST * mean) / window, 0.0)
    lean = np.divide(right - left, 2 * mean, where=mean > 0, out=np.zeros_like(mean))
    constant = problem.constant_usd + float((value - price * LEAN * step * lean).sum())
    return Quadratic(price, at - LEAN * step * lean, weight, constant)


def typical_step(problem: AggregateQUBO) -> FloatArray:
    """Mean size of a bit's nonzero effect on each resource, (R,); 1 where nothing touches it."""
    delta = np.abs(bit_use(problem))
    count = (delta > 0).sum(0)
    return np.where(count > 0, delta.sum(0) / np.maximum(count, 1), 1.0)


def bit_use(problem: AggregateQUBO) -> FloatArray:
    """What each bit adds to the resources, (n - M, R)."""
    return problem.use[problem.bit] - problem.use[problem.parent[problem.bit]]


def each_usd(pieces: Pieces, at: FloatArray) -> FloatArray:
    """``f_r(at_r)``, (R,)."""
    return pieces.slope * at + (np.maximum(at[:, None] - pieces.at, 0.0) * pieces.rise).sum(-1)


def _proximal(pieces: Pieces, price: FloatArray, near: FloatArray, give: FloatArray) -> FloatArray:
    """``argmin_A f_r(A) - price_r A + (A - near_r)^2 / (2 give_r)`` of each resource.

    The point is ``near + give (price - g)`` with ``g`` a slope of ``f_r`` there: one candidate a
    segment, and the kinks. The least value wins.
    """
    slopes = np.concatenate([pieces.slope[:, None], pieces.slope[:, None] + np.cumsum(pieces.rise, -1)], 1)
    inside = near[:, None] + give[:, None] * (price[:, None] - slopes)
    kinks = np.where(np.isfinite(pieces.at), pieces.at, near[:, None])
    points = np.concatenate([inside, kinks], 1)  # (R, 2K + 1)
    beyond = np.maximum(points[:, :, None] - pieces.at[:, None, :], 0.0)
    value = (pieces.slope - price)[:, None] * points + (beyond * pieces.rise[:, None, :]).sum(-1)
    value += (points - near[:, None]) ** 2 / (2 * give[:, None])
    return points[np.arange(len(near)), value.argmin(1)]
