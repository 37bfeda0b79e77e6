"""One decision of a fleet as an optimisation over options that meet in shared resources.

    min  sum_i cost[x_i]  +  sum_r f_r(A_r),      A = sum_i use[x_i],      x_i one option of unit i

A unit is whatever decides for itself (a vehicle, a load, a mobile station, a price board), a resource
whatever they share (a meter, an island's balance, energy in store, a site's capacity). ``f_r`` is convex
and piecewise linear. Nothing here knows V2G: every problem fills the same structure, every solver reads it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qevgrid.envs.types import FloatArray, IntArray


@dataclass(frozen=True)
class Pieces:
    """R convex functions ``f_r(A) = slope_r A + sum_k rise_rk max(A - at_rk, 0)``, ``at`` rising along k.

    Unused kinks have rise 0 and ``at`` = inf.
    """

    slope: FloatArray  # (R,)
    at: FloatArray  # (R, K)
    rise: FloatArray  # (R, K), >= 0

    @classmethod
    def of(cls, functions: list[tuple[float, list[tuple[float, float]]]]) -> "Pieces":
        """From ``(slope, [(at, rise), ...])`` a resource."""
        width = max((len(kinks) for _, kinks in functions), default=0)
        at, rise = np.full((len(functions), width), np.inf), np.zeros((len(functions), width))
        for r, (_, kinks) in enumerate(functions):
            for k, (where, by) in enumerate(sorted(kink for kink in kinks if kink[1] > 0)):
                at[r, k], rise[r, k] = where, by
        return cls(np.array([slope for slope, _ in functions], float), at, rise)

    def __call__(self, usage: FloatArray) -> FloatArray:
        """Sum of all functions at ``usage`` (..., R) -> (...)."""
        beyond = np.maximum(usage[..., None] - self.at, 0.0)
        return usage @ self.slope + (beyond * self.rise).sum((-2, -1))

    def steepest(self) -> FloatArray:
        """Slope beyond the last kink, (R,)."""
        return self.slope + self.rise.sum(-1)

    def clip(self, price: FloatArray) -> FloatArray:
        """Prices (R,) moved into the range of the slopes, where the conjugates are finite."""
        return np.clip(price, self.slope, self.steepest())

    def conjugate(self, price: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``max_A price A - f(A)`` of each resource and where it is attained, (R,) each.

        ``price`` must lie between the first and the last slope. A resource without kinks has the
        attained point 0.
        """
        slopes = self.slope[:, None] + np.cumsum(self.rise, -1)
        kink = (slopes < price[:, None] - 1e-12).sum(-1)
        padded = np.concatenate([np.where(np.isfinite(self.at), self.at, 0.0), np.zeros((len(self.slope), 1))], 1)
        last = np.maximum((self.rise > 0).sum(-1) - 1, 0)
        where = padded[np.arange(len(self.slope)), np.minimum(kink, last)]
        value = self.slope * where + (np.maximum(where[:, None] - self.at, 0.0) * self.rise).sum(-1)
        return price * where - value, where


@dataclass(frozen=True)
class AggregateQUBO:
    """M units with n options in all, R resources. The first option of a unit is its reference (no bit).

    ``parent`` shapes the binary encoding: option j takes bit j and the bits of its parents up to the
    reference. All parents = reference is one-hot without the idle bit; chains are unary levels.
    """

    first: IntArray  # (M + 1,) where each unit's options begin
    cost_usd: FloatArray  # (n,)
    use: FloatArray  # (n, R)
    pieces: Pieces
    parent: IntArray  # (n,) of the same unit; the reference is its own
    constant_usd: float = 0.0

    @classmethod
    def one_hot(
        cls, first: IntArray, cost_usd: FloatArray, use: FloatArray, pieces: Pieces, constant_usd: float = 0.0
    ) -> "AggregateQUBO":
        """Options exclude each other."""
        parent = np.repeat(first[:-1], np.diff(first))
        return cls(first, cost_usd, use, pieces, parent, constant_usd)

    @property
    def n_units(self) -> int:
        """M."""
        return len(self.first) - 1

    @property
    def n_options(self) -> int:
        """n."""
        return len(self.cost_usd)

    @property
    def n_resources(self) -> int:
        """R."""
        return self.use.shape[1]

    @cached_property
    def unit(self) -> IntArray:
        """Unit of each option, (n,)."""
        return np.repeat(np.arange(self.n_units), np.diff(self.first))

    @cached_property
    def bit(self) -> IntArray:
        """Options that have a bit (all but the references), (n - M,)."""
        keep = np.ones(self.n_options, bool)
        keep[self.first[:-1]] = False
        return np.flatnonzero(keep)

    def usage(self, choice: IntArray) -> FloatArray:
        """A (..., R) of choices (..., M), each the position of an option within its unit."""
        return self.use[self.first[:-1] + choice].sum(-2)

    def energy_usd(self, choice: IntArray) -> FloatArray:
        """Exact objective of choices (..., M) -> (...)."""
        option = self.first[:-1] + choice
        linear = self.cost_usd[option].sum(-1)
        return self.constant_usd + linear + self.pieces(self.use[option].sum(-2))
