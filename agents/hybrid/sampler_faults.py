"""Answers from elsewhere: in time, whole and true, or a ``MachineError`` that says why not."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import dimod
import numpy as np

from qevgrid.envs.types import BoolArray, FloatArray


class MachineError(Exception):
    """Why a machine gave no usable answer."""


class Reads(NamedTuple):
    """What came back for a model of n variables."""

    bits: BoolArray  # (reads, n)
    chain_break_share: float


class Machine(Protocol):
    """Something that solves binary models, and may fail to."""

    @property
    def used(self) -> str:
        """What it is, for people."""
        ...

    @property
    def rho_share(self) -> float:
        """Share of the configured ``rho`` that suits it."""
        ...

    def sample(self, bqm: dimod.BinaryQuadraticModel, reads: int, seed: int) -> dimod.SampleSet:
        """Samples of ``bqm``, with ``chain_break_fraction`` if there were chains."""
        ...

    def limit_s(self, bqm: dimod.BinaryQuadraticModel) -> float:
        """How long to wait for them."""
        ...

    def check_size(self, variables: int) -> None:
        """Raise ``UserError`` if no model of that many variables fits."""
        ...


def ask(machine: Machine, bqm: dimod.BinaryQuadraticModel, reads: int, seed: int) -> Reads:
    """The machine's checked answer; ``MachineError`` whatever goes wrong."""

    def call() -> Any:
        found: Any = machine.sample(bqm, reads, seed)
        if isinstance(found, dimod.SampleSet):
            found.resolve()  # the clients of the cloud answer at once and wait here
        return found

    return checked(within(call, machine.limit_s(bqm)), bqm)


def within(call: Callable[[], Any], limit_s: float) -> Any:
    """Result of ``call``, or ``MachineError`` if it raises or runs out of time (its thread is then left behind)."""
    results: list[Any] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:  # a machine may fail in any way
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="qevgrid-machine")
    thread.start()
    thread.join(limit_s)
    if errors:
        raise MachineError(first_line(errors[0])) from errors[0]
    if not results:
        raise MachineError(f"no answer within {limit_s:g} s")
    return results[0]


def checked(sampleset: Any, bqm: dimod.BinaryQuadraticModel) -> Reads:
    """The reads in the order of the model's variables; ``MachineError`` unless they are whole and true."""
    if not isinstance(sampleset, dimod.SampleSet):
        raise MachineError(f"the answer is {type(sampleset).__name__}, not a sample set")
    if not len(sampleset):
        raise MachineError("the answer holds no samples")
    if set(sampleset.variables) != set(bqm.variables):
        raise MachineError(
            f"the answer's {len(sampleset.variables)} variables are not the {bqm.num_variables} asked for"
        )
    record = sampleset.record
    spin = sampleset.vartype is dimod.SPIN
    values = np.asarray(record.sample)[:, [sampleset.variables.index(v) for v in bqm.variables]]
    if not np.isin(values, (-1, 1) if spin else (0, 1)).all():
        raise MachineError("the answer holds other values than its two")
    bits = values > 0
    _check_energies(np.asarray(record.energy, float), bqm.energies((bits.astype(np.int8), list(bqm.variables))))
    breaks = record.chain_break_fraction if "chain_break_fraction" in record.dtype.names else np.zeros(len(bits))
    times = record.num_occurrences
    return Reads(np.repeat(bits, times, axis=0), float(np.average(breaks, weights=times)))


def _check_energies(said: FloatArray, true: FloatArray) -> None:
    if not np.isfinite(said).all():
        raise MachineError("the answer's energies are not finite")
    if not np.allclose(said, true, rtol=1e-3, atol=1e-3 * (1e-9 + np.abs(true).max())):
        raise MachineError("the answer's energies are not those of its samples")


def first_line(error: Exception) -> str:
    """Kind and first line of an error."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
