"""Simulated annealing of a binary quadratic form whose dense part has low rank.

    offset + linear . x + 1/2 sum_r weight_r (use_r . x)^2 + sum of sparse links x_a x_b

A QUBO of shared resources couples every bit with every other, so that a sampler which walks the couplers
pays O(n) for a flip. Here the R sums ``use_r . x`` are kept up to date: O(R) for a proposal or a flip.
"""

from dataclasses import dataclass

import numpy as np

from qevgrid.agents.hybrid.anneal import FROZEN, SMALLEST, following, seeded, uniform
from qevgrid.agents.hybrid.centring import Quadratic
from qevgrid.agents.hybrid.encoding import low_rank
from qevgrid.agents.hybrid.penalty import MARGIN, worth_usd
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

HOT_SHARE, COLD_SHARE = 0.4, 0.015
"""Default temperatures, as shares of what a flip typically changes by its square and links."""


@dataclass(frozen=True)
class LowRank:
    """n bits, R sums. ``links`` of bit j: ``other[begin[j]:begin[j + 1]]``, each link at both of its ends."""

    linear_usd: FloatArray  # (n,)
    use: FloatArray  # (n, R)
    weight_usd: FloatArray  # (R,)
    begin: IntArray  # (n + 1,)
    other: IntArray  # (links,)
    link_usd: FloatArray  # (links,)
    offset_usd: float

    def energy_usd(self, bits: BoolArray) -> FloatArray:
        """Value of patterns (..., n) -> (...)."""
        x = np.asarray(bits, float)
        bit = np.repeat(np.arange(len(self.linear_usd)), np.diff(self.begin))
        linked = (x[..., bit] * x[..., self.other]) @ self.link_usd
        return self.offset_usd + x @ self.linear_usd + 0.5 * (x @ self.use) ** 2 @ self.weight_usd + 0.5 * linked


def form(problem: AggregateQUBO, quadratic: Quadratic, margin: float = MARGIN) -> LowRank:
    """The same function as ``encoding.to_bqm``'s model, not multiplied out."""
    linear, use, weight, offset = low_rank(problem, quadratic)
    penalty = margin * np.maximum(worth_usd(problem, quadratic), 0.0)
    a, b, link, extra = _penalties(problem, penalty)
    bit, other, value = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([link, link])
    order = np.lexsort((other, bit))
    begin = np.concatenate([[0], np.cumsum(np.bincount(bit, minlength=len(linear)))])
    return LowRank(linear + extra, use, weight, begin, other[order], value[order], offset)


def sample(
    model: LowRank,
    *,
    reads: int,
    sweeps: int,
    seed: int,
    start: BoolArray | None = None,
    hot_usd: float | None = None,
    cold_usd: float | None = None,
) -> tuple[BoolArray, FloatArray]:
    """Patterns (reads, n) and their energies (reads,): the best of each read among the ends of its sweeps.

    A sweep proposes to flip each bit in turn. Every read begins at ``start`` (n,), by default at zeros.
    """
    n, r = model.use.shape
    scale = _scale(model)
    hot = HOT_SHARE * scale if hot_usd is None else float(hot_usd)
    cold = min(COLD_SHARE * scale, hot) if cold_usd is None else float(cold_usd)
    bits = np.zeros((reads, n), bool)
    if start is not None:
        bits[:] = start
    square = 0.5 * model.use**2 @ model.weight_usd
    _sample(
        model.linear_usd,
        model.use,
        model.weight_usd,
        square,
        model.begin,
        model.other,
        model.link_usd,
        sweeps,
        np.uint64(seed & 0xFFFFFFFFFFFFFFFF),
        max(hot, SMALLEST),
        max(cold, SMALLEST),
        bits,
        np.empty(n, bool),
        np.empty(r),
    )
    return bits, model.energy_usd(bits)


def _scale(model: LowRank) -> float:
    """Mean over the bits of what a flip changes by its square and, at most, by its links."""
    square = 0.5 * model.use**2 @ model.weight_usd
    linked = np.abs(model.link_usd).sum() / max(len(square), 1)
    return float(square.mean() + linked) if len(square) else 1.0


def _penalties(problem: AggregateQUBO, penalty: FloatArray) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Links (a, b, value) and linear terms that keep siblings apart and children with their parents."""
    parent = problem.parent[problem.bit]
    position = np.full(problem.n_options, -1)
    position[problem.bit] = np.arange(len(problem.bit))
    order = np.argsort(parent, kind="stable")
    pairs_a, pairs_b = [], []
    for apart in range(1, int(np.bincount(parent).max(initial=0))):
        same = parent[order[:-apart]] == parent[order[apart:]]
        pairs_a.append(order[:-apart][same])
        pairs_b.append(order[apart:][same])
    child = np.flatnonzero(position[parent] >= 0)
    a = np.concatenate([*pairs_a, child]).astype(np.int64)
    b = np.concatenate([*pairs_b, position[parent[child]]]).astype(np.int64)
    siblings = len(a) - len(child)
    link = np.minimum(penalty[a], penalty[b])
    link[siblings:] = -penalty[child]
    extra = np.zeros(len(parent))
    extra[child] = penalty[child]
    return a, b, link, extra


@compiled
def _sample(
    linear: FloatArray,
    use: FloatArray,
    weight: FloatArray,
    square: FloatArray,
    begin: IntArray,
    other: IntArray,
    link: FloatArray,
    sweeps: int,
    seed: int,
    hot: float,
    cold: float,
    bits: BoolArray,
    now: BoolArray,
    pull: FloatArray,
) -> None:  # pragma: no cover
    """Anneal each row of ``bits``. ``pull`` is what the sums add to a bit's cost per unit of its use."""
    n, n_sums = use.shape
    cooling = (cold / hot) ** (1.0 / max(sweeps - 1, 1))
    for read in range(len(bits)):
        x, temperature, change, least = seeded(seed, read), hot if sweeps > 1 else cold, 0.0, 0.0
        for r in range(n_sums):
            pull[r] = 0.0
        for j in range(n):
            now[j] = bits[read, j]
            for r in range(n_sums if now[j] else 0):
                pull[r] += weight[r] * use[j, r]
        for _ in range(sweeps):
            for j in range(n):
                rise = linear[j]
                for r in range(n_sums):
                    rise += pull[r] * use[j, r]
                for k in range(begin[j], begin[j + 1]):
                    if now[other[k]]:
                        rise += link[k]
                rise = square[j] - rise if now[j] else square[j] + rise
                if rise > 0.0:
                    share = rise / temperature
                    if share > FROZEN:
                        continue
                    x = following(x)
                    if uniform(x) >= np.exp(-share):
                        continue
                sign = -1.0 if now[j] else 1.0
                for r in range(n_sums):
                    pull[r] += sign * weight[r] * use[j, r]
                now[j] = not now[j]
                change += rise
            if change < least - SMALLEST:
                least = change
                for j in range(n):
                    bits[read, j] = now[j]
            temperature *= cooling
