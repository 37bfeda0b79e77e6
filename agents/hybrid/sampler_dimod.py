"""Our annealer for any binary quadratic model, behind dimod's sampler interface."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import dimod
import numpy as np
from numpy.typing import NDArray

from qevgrid.agents.hybrid.anneal import accepted, following, seeded
from qevgrid.agents.hybrid.encoding import ising
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

WARMEST, COLDEST = np.log(2.0), np.log(100.0)
"""Default schedule: from odds of 1/2 for the greatest possible rise to 1/100 for the least coefficient."""
DENSE, MOST_DENSE = 0.25, 4_000
"""Least share of couplers, and most variables, for which the whole matrix is written out."""
HALF = np.uint64(1 << 63)


class StructuredSampler(dimod.Sampler):
    """Simulated annealing by single flips, in compiled code, reproducible by ``seed``.

    A flip costs as many steps as its variable has couplers. For problems with shared resources the
    decision sampler ``structured`` is the better one: it needs no couplers at all.
    """

    parameters: ClassVar[dict[str, list[str]]] = {"num_reads": [], "num_sweeps": [], "beta_range": [], "seed": []}  # pyright: ignore[reportIncompatibleMethodOverride]
    properties: ClassVar[dict[str, Any]] = {"description": "simulated annealing by single flips"}  # pyright: ignore[reportIncompatibleMethodOverride]

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int = 1,
        num_sweeps: int = 1000,
        beta_range: Sequence[float] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> dimod.SampleSet:
        """``num_reads`` samples, each the last state of ``num_sweeps`` sweeps from a random state.

        ``beta_range``: inverse temperature at the beginning and at the end, geometric in between.
        """
        self.remove_unknown_kwargs(**kwargs)
        labels = list(bqm.variables)
        model = dimod.BQM(bqm, dtype=float)
        field, row, column, value = ising(model)
        couplings = neighbours(len(field), row, column, value)
        hot, cold = beta_range if beta_range is not None else default_betas(field, couplings)
        betas = np.geomspace(hot, cold, num_sweeps) if num_sweeps > 1 else np.full(num_sweeps, float(cold))
        start = seed if seed is not None else int(np.random.default_rng().integers(2**63))
        spins = np.empty((num_reads, len(field)), np.int8)
        anneal_spins(field, couplings, betas, start, spins)
        info = {"beta_range": [float(hot), float(cold)], "seed": start}
        found = dimod.SampleSet.from_samples_bqm((spins, labels), model.spin, info=info)
        return found.change_vartype(bqm.vartype, inplace=False)


class Couplings(NamedTuple):
    """Couplers by variable: those of k are ``begin[k]`` to ``begin[k + 1]``."""

    begin: IntArray  # (n + 1,)
    other: IntArray  # (2 couplers,)
    value: FloatArray  # (2 couplers,)


def neighbours(n: int, row: IntArray, column: IntArray, value: FloatArray) -> Couplings:
    """Each coupler at both of its ends."""
    ends = np.concatenate([row, column]).astype(np.int64)
    order = np.argsort(ends, kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))]).astype(np.int64)
    other = np.concatenate([column, row]).astype(np.int64)[order]
    return Couplings(begin, other, np.tile(np.asarray(value, float), 2)[order])


def default_betas(field: FloatArray, couplings: Couplings) -> tuple[float, float]:
    """From hot enough for the greatest rise to cold enough for the least coefficient."""
    sizes = np.abs(np.concatenate([field, couplings.value]))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 1.0, 1.0
    total = np.concatenate([[0.0], np.cumsum(np.abs(couplings.value))])
    greatest = 2 * (np.abs(field) + total[couplings.begin[1:]] - total[couplings.begin[:-1]]).max()
    return float(WARMEST / greatest), float(COLDEST / (2 * sizes.min()))


def anneal_spins(
    field: FloatArray, couplings: Couplings, betas: FloatArray, seed: int, spins: NDArray[np.int8]
) -> None:
    """Fill ``spins`` (reads, n). Densely coupled models get the whole matrix: its rows add up faster."""
    n, (begin, other, value) = len(field), couplings
    matrix = np.empty((0, 0))
    if DENSE * n * n <= len(other) and n <= MOST_DENSE:
        matrix = np.zeros((n, n))
        matrix[np.repeat(np.arange(n), np.diff(begin)), other] = value
    _anneal_spins(field, begin, other, value, matrix, betas, np.uint64(seed % 2**64), spins, np.empty(n))


@compiled
def _anneal_spins(
    field: FloatArray,
    begin: IntArray,
    other: IntArray,
    value: FloatArray,
    matrix: FloatArray,
    betas: FloatArray,
    seed: int,
    spins: NDArray[np.int8],
    pull: FloatArray,
) -> None:  # pragma: no cover
    """All reads. ``pull`` (n,) is room for what each spin feels: its field and its neighbours."""
    n = len(field)
    dense = len(matrix) > 0
    for read in range(len(spins)):
        x = seeded(seed, read)
        for i in range(n):
            x = following(x)
            spins[read, i] = 1 if x < HALF else -1
        for i in range(n):
            pull[i] = field[i]
            for k in range(begin[i], begin[i + 1]):
                pull[i] += value[k] * spins[read, other[k]]
        for step in range(len(betas)):
            temperature = 1.0 / betas[step]
            for i in range(n):
                x = following(x)
                if accepted(-2.0 * spins[read, i] * pull[i], temperature, x):
                    spins[read, i] = -spins[read, i]
                    turn = 2.0 * spins[read, i]
                    if dense:
                        for k in range(n):
                            pull[k] += turn * matrix[i, k]
                    else:
                        for k in range(begin[i], begin[i + 1]):
                            pull[other[k]] += turn * value[k]
