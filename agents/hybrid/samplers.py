"""Who solves a decision: one contract for our annealer, others' samplers, exact solvers and machines.

``structured``, ``highs``, ``greedy`` and ``idle`` read the decision as it is. All others see only the
binary model of its augmented Lagrangian, and their reads are judged by the exact energy.
"""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dimod
import numpy as np

from qevgrid.agents.hybrid.anneal import anneal
from qevgrid.agents.hybrid.centring import centre
from qevgrid.agents.hybrid.dual import Dual, dual_ascent
from qevgrid.agents.hybrid.encoding import decode, describe, to_bqm
from qevgrid.agents.hybrid.polish import greedy
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.agents.hybrid.sampler_dimod import StructuredSampler
from qevgrid.agents.hybrid.sampler_faults import Machine, MachineError, Reads, ask, checked
from qevgrid.agents.hybrid.sampler_linear import optimum, relaxed_dual
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray

__all__ = ["DecisionSampler", "Sampled", "StructuredSampler", "make_sampler"]

MOST_ENUMERATED = 18
SEEDS = 2**31
"""The samplers' generators take seeds below this."""


@dataclass(frozen=True)
class Sampled:
    """A solved decision, before any polish."""

    choice: IntArray  # (M,) the read of least exact energy
    raw_choice_energy_usd: float  # its exact energy
    valid_energy_usd: float  # that of the best read that needed no repair; inf if none
    energies_usd: FloatArray  # (reads,) exact, after repair
    feasible_share: float  # of reads that needed no repair
    chain_break_share: float
    variables: int
    couplers: int
    range_bits: float
    seconds: float
    used: str
    fallbacks: int = 0  # 1 if the local sampler stood in


class DecisionSampler(ABC):
    """Solves decisions one by one."""

    fallbacks = 0
    """Decisions so far in which the local sampler stood in."""

    @abstractmethod
    def solve(self, problem: AggregateQUBO, seed: int, dual: Dual | None = None) -> Sampled:
        """A choice for ``problem``; ``dual`` saves those who need one to find it. Same seed, same answer."""


class Direct(DecisionSampler):
    """Solves the decision as it is. ``find`` gives choices (reads, M)."""

    def __init__(self, used: str, find: Callable[[AggregateQUBO, int, Dual | None], IntArray]) -> None:
        self._used, self._find = used, find

    def solve(self, problem: AggregateQUBO, seed: int, dual: Dual | None = None) -> Sampled:
        """The best of the choices found."""
        start = time.perf_counter()
        found = np.atleast_2d(self._find(problem, seed, dual))
        energies, size = problem.energy_usd(found), _Size(len(problem.bit), 0, 0.0)
        return _sampled(found, np.ones(len(found), bool), energies, 0.0, size, start, self._used)


class _Size(NamedTuple):
    variables: int
    couplers: int
    range_bits: float


class Modelled(DecisionSampler):
    """Solves the binary model of the decision's augmented Lagrangian. ``draw`` answers (model, seed) with reads."""

    def __init__(self, used: str, draw: Callable[[dimod.BinaryQuadraticModel, int], Reads], rho: float) -> None:
        self._used, self._draw, self._rho = used, draw, rho

    def solve(self, problem: AggregateQUBO, seed: int, dual: Dual | None = None) -> Sampled:
        """The best read by exact energy, repaired where it was no choice."""
        start = time.perf_counter()
        if not len(problem.bit):  # nothing to decide
            return Direct(self._used, lambda p, *_: np.zeros(p.n_units, np.int64)).solve(problem, seed)
        bqm = to_bqm(problem, centre(problem, relaxed_dual(problem) if dual is None else dual, self._rho))
        bits, broken = self._draw(bqm, seed)
        choices, valid = decode(problem, bits)
        size = describe(bqm)
        return _sampled(choices, valid, problem.energy_usd(choices), broken, size, start, self._used)


class Guarded(DecisionSampler):
    """A machine that may fail, and the local sampler that stands in for it then."""

    def __init__(self, machine: Machine, local: DecisionSampler, reads: int, rho: float) -> None:
        self._machine, self._local, self._warned = machine, local, False
        self._modelled = Modelled(
            machine.used, lambda bqm, seed: ask(machine, bqm, reads, seed), rho * machine.rho_share
        )

    def solve(self, problem: AggregateQUBO, seed: int, dual: Dual | None = None) -> Sampled:
        """The machine's answer, or the local sampler's."""
        start = time.perf_counter()
        try:
            return self._modelled.solve(problem, seed, dual)
        except MachineError as failure:
            self._report(failure)
        found = self._local.solve(problem, seed, dual)
        used = f"{found.used} in place of {self._machine.used}"
        return replace(found, used=used, fallbacks=1, seconds=time.perf_counter() - start)

    def _report(self, failure: MachineError) -> None:
        self.fallbacks += 1
        if not self._warned:
            text = f"{self._machine.used}: {failure}; the local sampler stands in for such decisions"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            self._warned = True


def _sampled(
    choices: IntArray,
    valid: Any,
    energies: FloatArray,
    broken: float,
    size: Any,
    start: float,
    used: str,
) -> Sampled:
    best = int(energies.argmin())
    return Sampled(
        choice=choices[best],
        raw_choice_energy_usd=float(energies[best]),
        valid_energy_usd=float(energies[valid].min(initial=np.inf)),
        energies_usd=energies,
        feasible_share=float(valid.mean()),
        chain_break_share=broken,
        variables=size.variables,
        couplers=size.couplers,
        range_bits=size.range_bits,
        seconds=time.perf_counter() - start,
        used=used,
    )


def make_sampler(
    name: str,
    *,
    reads: int = 2,
    sweeps: int = 60,
    time_limit_s: float = 5.0,
    rho: float = 0.1,
    topology: str = "pegasus",
    max_variables: int | None = None,
    machine: Machine | None = None,
) -> DecisionSampler:
    """The sampler of that name (``HybridConfig.sampler``).

    ``topology`` (pegasus, zephyr) is the mock's. ``max_variables``: the largest model that will come, if
    known; one that cannot fit is then a ``UserError`` now. ``machine`` replaces the one of ``qpu``,
    ``mock_qpu`` or ``leap_hybrid``.
    """
    if name in ("qpu", "mock_qpu", "leap_hybrid"):
        found = machine or _machine(name, time_limit_s, topology)
        if max_variables is not None:
            found.check_size(max_variables)
        return Guarded(found, _structured(reads, sweeps), reads, rho)
    if max_variables is not None:
        _check_enumerable(name, max_variables)
    if name == "structured":
        return _structured(reads, sweeps)
    if name == "highs":
        return Direct("highs (exact)", lambda problem, *_: optimum(problem, time_limit_s))
    if name == "prices":
        return Direct("prices (each unit's own choice, then best responses)", _own_choices)
    if name == "greedy":
        return Direct("greedy", lambda problem, *_: greedy(problem))
    if name == "idle":
        return Direct("idle", lambda problem, *_: np.zeros(problem.n_units, np.int64))
    if name not in MODELLED:
        raise UserError(f"agent.sampler={name!r} is unknown: use one of {', '.join(NAMES)}")
    used, draw = MODELLED[name]
    effort = _Effort(reads, sweeps, time_limit_s)
    return Modelled(used, lambda bqm, seed: checked(draw(bqm, seed % SEEDS, effort), bqm), rho)


class _Effort(NamedTuple):
    reads: int
    sweeps: int
    time_limit_s: float


def _own_choices(problem: AggregateQUBO, seed: int, dual: Dual | None) -> IntArray:
    """No annealing at all: what the shadow prices alone would do."""
    return (dual_ascent(problem) if dual is None else dual).choice


def _structured(reads: int, sweeps: int) -> Direct:
    """Our annealer, from the units' own choices at the shadow prices where these are known."""

    def find(problem: AggregateQUBO, seed: int, dual: Dual | None) -> IntArray:
        start = None if dual is None else dual.choice
        return anneal(problem, reads=reads, sweeps=sweeps, seed=seed, start=start)[0]

    return Direct("structured (simulated annealing)", find)


def _machine(name: str, time_limit_s: float, topology: str) -> Machine:
    from qevgrid.agents.hybrid import qpu

    if name == "mock_qpu":
        return qpu.mock_chip(topology, time_limit_s)
    return qpu.real_chip(time_limit_s) if name == "qpu" else qpu.leap(time_limit_s)


def _neal(bqm: dimod.BinaryQuadraticModel, seed: int, effort: _Effort) -> dimod.SampleSet:
    from neal import SimulatedAnnealingSampler

    return SimulatedAnnealingSampler().sample(bqm, num_reads=effort.reads, num_sweeps=effort.sweeps, seed=seed)


def _sqa(bqm: dimod.BinaryQuadraticModel, seed: int, effort: _Effort) -> dimod.SampleSet:
    from dwave.samplers import PathIntegralAnnealingSampler

    return PathIntegralAnnealingSampler().sample(bqm, num_reads=effort.reads, num_sweeps=effort.sweeps, seed=seed)


def _tabu(bqm: dimod.BinaryQuadraticModel, seed: int, effort: _Effort) -> dimod.SampleSet:
    """Simple tabu search of as many flips as sweeps would try; the clock is a last resort, for it makes chance."""
    from dwave.samplers import TabuSampler

    return TabuSampler().sample(
        bqm,
        num_reads=effort.reads,
        seed=seed,
        num_restarts=0,
        coefficient_z_first=effort.sweeps,
        lower_bound_z=1,
        timeout=max(int(1e3 * effort.time_limit_s / effort.reads), 1),
    )


def _exact(bqm: dimod.BinaryQuadraticModel, seed: int, effort: _Effort) -> dimod.SampleSet:
    """The model's ground state, which is not always the decision's optimum."""
    _check_enumerable("exact", bqm.num_variables)
    return dimod.ExactSolver().sample(bqm).truncate(1)


def _qaoa(bqm: dimod.BinaryQuadraticModel, seed: int, effort: _Effort) -> dimod.SampleSet:
    from qevgrid.agents.hybrid.qaoa import sample_qaoa

    return sample_qaoa(bqm, reads=effort.reads, seed=seed)


def _check_enumerable(name: str, variables: int) -> None:
    from qevgrid.agents.hybrid.qaoa import MOST_BITS

    most = {"exact": MOST_ENUMERATED, "qaoa": MOST_BITS}.get(name)
    if most is not None and variables > most:
        raise UserError(
            f"agent.sampler={name} takes at most {most} bits, this problem has {variables}: "
            "set agent.sampler=highs or structured, or have fewer vehicles or agent.levels"
        )


MODELLED: dict[str, tuple[str, Callable[[dimod.BinaryQuadraticModel, int, _Effort], dimod.SampleSet]]] = {
    "neal": ("neal (simulated annealing, dwave-samplers)", _neal),
    "sqa": ("sqa (path-integral annealing, dwave-samplers)", _sqa),
    "tabu": ("tabu (dwave-samplers)", _tabu),
    "exact": ("exact (all states of the model)", _exact),
    "qaoa": ("qaoa (PennyLane default.qubit)", _qaoa),
}
NAMES = ("structured", *MODELLED, "highs", "mock_qpu", "qpu", "leap_hybrid", "prices", "greedy", "idle")
