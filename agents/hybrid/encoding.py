"""A decision as a binary quadratic model, and the way back from bits."""

from dataclasses import dataclass
from typing import NamedTuple

import dimod
import numpy as np

from qevgrid.agents.hybrid.centring import Quadratic, bit_use, centre
from qevgrid.agents.hybrid.penalty import MARGIN, worth_usd
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, FloatArray, IntArray

__all__ = ["Quadratic", "Report", "centre", "decode", "describe", "encode", "ising", "low_rank", "to_bqm"]

MOST_BITS = 5_000
"""A dense QUBO of that many bits takes 200 MB."""

ROUNDING = 1e-12
"""Coefficients below this share of the largest are rounding errors, not couplers."""


@dataclass(frozen=True)
class Report:
    """Size of a QUBO, and how finely a machine must tell its Ising coefficients apart."""

    variables: int
    couplers: int
    range_bits: float  # log2 of the largest over the smallest nonzero |h| or |J|


class Ising(NamedTuple):
    """Fields and couplings of a model in its variables' order, spin +1 being bit 1."""

    field: FloatArray  # (n,)
    row: IntArray  # (couplers,)
    column: IntArray
    coupling: FloatArray


def ising(bqm: dimod.BinaryQuadraticModel) -> Ising:
    """A model in spins, whatever it was in."""
    vectors = bqm.spin.to_numpy_vectors(list(bqm.variables))
    row, column, coupling = vectors[1]
    return Ising(
        np.asarray(vectors[0], float),
        np.asarray(row, np.int64),
        np.asarray(column, np.int64),
        np.asarray(coupling, float),
    )


def describe(bqm: dimod.BinaryQuadraticModel) -> Report:
    """Size and dynamic range of a model."""
    h, _, _, j = ising(bqm)
    found = np.abs(np.concatenate([h, j]))
    found = found[found > ROUNDING * found.max(initial=0.0)]
    return Report(len(h), len(j), float(np.log2(found.max() / found.min())) if len(found) else 0.0)


def low_rank(problem: AggregateQUBO, quadratic: Quadratic) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """The form on bits x without penalties: ``linear @ x + x P diag(W) P' x / 2 + offset`` as (linear, P, W, offset)."""
    reduced, use = quadratic.reduced_usd(problem), bit_use(problem)
    reference = problem.first[:-1]
    off = problem.use[reference].sum(0) - quadratic.at
    linear = reduced[problem.bit] - reduced[problem.parent[problem.bit]] + use @ (quadratic.weight_usd * off)
    offset = quadratic.base_usd() + reduced[reference].sum() + quadratic.bend_usd(off)
    return linear, use, quadratic.weight_usd, float(offset)


def to_bqm(problem: AggregateQUBO, quadratic: Quadratic, margin: float = MARGIN) -> dimod.BinaryQuadraticModel:
    """The quadratic form on the bits ``problem.bit``, with penalties on patterns that are no option.

    On valid patterns the model's energy is the form's value. Variable k is the k-th bit.
    """
    n = len(problem.bit)
    if n > MOST_BITS:
        raise UserError(
            f"a QUBO of {n} bits is too large to write out (at most {MOST_BITS}): "
            "set agent.sampler=structured, or lower agent.levels or agent.candidates"
        )
    linear, use, weight, offset = low_rank(problem, quadratic)
    coupling = (use * weight) @ use.T
    linear = linear + np.diagonal(coupling) / 2
    _add_penalties(problem, margin * np.maximum(worth_usd(problem, quadratic), 0.0), linear, coupling)
    row, column = np.triu_indices(n, 1)
    value = coupling[row, column]
    kept = np.abs(value) > ROUNDING * np.abs(value).max(initial=0.0)
    quadratics = (row[kept], column[kept], value[kept])
    return dimod.BinaryQuadraticModel.from_numpy_vectors(linear, quadratics, offset, dimod.BINARY)


def _add_penalties(problem: AggregateQUBO, penalty: FloatArray, linear: FloatArray, coupling: FloatArray) -> None:
    """``min(p_a, p_b) x_a x_b`` for siblings, ``p_b x_b (1 - x_parent)``: into the upper triangle."""
    parent = problem.parent[problem.bit]
    position = np.full(problem.n_options, -1)
    position[problem.bit] = np.arange(len(problem.bit))
    coupling += np.where(parent[:, None] == parent, np.minimum(penalty[:, None], penalty), 0.0)
    child = np.flatnonzero(position[parent] >= 0)
    above = position[parent[child]]
    linear[child] += penalty[child]
    coupling[child, above] -= penalty[child]
    coupling[above, child] -= penalty[child]


def encode(problem: AggregateQUBO, choice: IntArray) -> BoolArray:
    """Bits (..., n - M) of choices (..., M)."""
    option = problem.first[:-1] + choice
    found = np.zeros((*option.shape[:-1], problem.n_options), bool)
    for _ in range(depths(problem).max(initial=0)):
        np.put_along_axis(found, option, True, -1)
        option = problem.parent[option]
    return found[..., problem.bit]


def depths(problem: AggregateQUBO) -> IntArray:
    """Bits that each option sets, (n,)."""
    at, depth = np.arange(problem.n_options), np.zeros(problem.n_options, np.int64)
    while (below := problem.parent[at] != at).any():
        depth += below
        at = problem.parent[at]
    return depth


def decode(problem: AggregateQUBO, bits: BoolArray) -> tuple[IntArray, BoolArray]:
    """Choices (..., M) of patterns (..., n - M), and whether each pattern was valid, (...).

    A unit without a valid pattern gets, among the options whose bits are all set, the one of least
    exact energy given the other units; of these the repaired ones come in turn, the rest stay at
    the deepest such option.
    """
    depth, n = depths(problem), problem.n_options
    flat = np.asarray(bits, bool).reshape(-1, len(problem.bit))
    held = np.ones((len(flat), n), bool)
    held[:, problem.bit] = flat
    count = np.add.reduceat(held.astype(np.int64), problem.first[:-1], -1) - 1
    for _ in range(depth.max(initial=0)):
        held &= held[:, problem.parent]
    order = np.lexsort((-np.arange(n), -problem.cost_usd, depth))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    option = order[np.maximum.reduceat(np.where(held, rank, -1), problem.first[:-1], -1)]
    valid = depth[option] == count
    choice = option - problem.first[:-1]
    _repair(problem, choice, held, valid)
    shape = bits.shape[:-1]
    return choice.reshape(*shape, problem.n_units), valid.all(-1).reshape(shape)


def _repair(problem: AggregateQUBO, choice: IntArray, held: BoolArray, valid: BoolArray) -> None:
    """Best held option of the invalid units, one unit after another, in all rows at once."""
    if valid.all():
        return
    usage = problem.usage(choice)
    for i in np.flatnonzero(~valid.all(0)):
        rows, options = np.flatnonzero(~valid[:, i]), np.arange(problem.first[i], problem.first[i + 1])
        others = usage[rows] - problem.use[options[choice[rows, i]]]
        energy = problem.cost_usd[options] + problem.pieces(others[:, None] + problem.use[options])
        best = np.where(held[np.ix_(rows, options)], energy, np.inf).argmin(1)
        usage[rows], choice[rows, i] = others + problem.use[options[best]], best
