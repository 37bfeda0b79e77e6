"""Who runs the circuit: our compiled plan (``fast``) or any PennyLane device.

The rest of the agent calls ``expectations`` and does not know which one answers. Both count the circuits
that they ran, the honest unit of cost on hardware.
"""

import difflib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pennylane as qml
import torch
from torch import Tensor

from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.agents.vqc.plan import Frozen, Plan
from qevgrid.agents.vqc.trace import Steps, UntraceableError, trace
from qevgrid.envs.errors import UserError

COMMON_DEVICES = ("default.qubit", "default.mixed", "lightning.qubit")
BATCH_LIMIT = 2**15
"""Circuits that PennyLane is given at once."""


@dataclass(frozen=True)
class Execution:
    """Where the circuit runs. Shots, noise and device belong to the ``pennylane`` executor."""

    executor: Literal["fast", "pennylane"] = "fast"
    device: str = "default.qubit"
    shots: int | None = None
    depolarizing: tuple[float, float] = (0.0, 0.0)
    """After each one-qubit gate, and on both wires of each two-qubit gate."""
    readout_error: float = 0.0
    seed: int | None = None
    device_options: Mapping[str, Any] = field(default_factory=dict)
    """More keyword arguments of ``qml.device``."""

    def __post_init__(self) -> None:
        noisy = self.readout_error > 0 or max(self.depolarizing) > 0
        if self.executor == "fast" and self.shots is not None:
            raise UserError(f"shots={self.shots} with executor=fast, which is exact; set executor=pennylane")
        if self.executor == "fast" and noisy:
            raise UserError("noise with executor=fast, which is exact; set executor=pennylane device=default.mixed")
        if noisy and self.device != "default.mixed":
            raise UserError(f"device={self.device}: simulates no noise; set device=default.mixed or leave noise out")


class Executor(ABC):
    """Runs one circuit with many weights and batches."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.circuits = 0
        """Circuits asked for so far, without those that a hardware gradient would add."""

    def expectations(self, data: Tensor, weights: Tensor) -> Tensor:
        """Expectation values (B, R) for data angles (B, E) and weights (V,)."""
        self.circuits += len(data)
        return self._run(data, weights)

    @abstractmethod
    def _run(self, data: Tensor, weights: Tensor) -> Tensor: ...


class FastExecutor(Executor):
    """The circuit traced once and compiled; exact. Matrices are kept while the weights rest."""

    def __init__(self, circuit: Circuit, steps: Steps) -> None:
        super().__init__(circuit)
        sizes = circuit.n_data, circuit.n_weights
        self.plans = {dtype: Plan(steps, *sizes, dtype) for dtype in (torch.float32, torch.float64)}
        self._rested: tuple[Any, Frozen] | None = None

    def _run(self, data: Tensor, weights: Tensor) -> Tensor:
        plan = self.plans[weights.dtype]
        if torch.is_grad_enabled():
            return plan.run(plan.program(weights), data)
        return torch.from_numpy(plan.evaluate(self._frozen(plan, weights), data.numpy()))

    def _frozen(self, plan: Plan, weights: Tensor) -> Frozen:
        state = (weights.data_ptr(), weights._version, weights.dtype)
        if self._rested is None or self._rested[0] != state:
            self._rested = state, plan.freeze(plan.program(weights))
        return self._rested[1]


class PennyLaneExecutor(Executor):
    """Any PennyLane device; with ``shots`` the expectation values are estimates."""

    def __init__(self, circuit: Circuit, execution: Execution) -> None:
        super().__init__(circuit)
        node: Any = qml.QNode(
            _read_badly(circuit, execution.readout_error), _device(circuit.n_qubits, execution), interface="torch"
        )
        if max(execution.depolarizing) > 0:
            node = qml.add_noise(node, _noise(*execution.depolarizing))
        self.exact = execution.shots is None
        self.node: Any = node if self.exact else qml.set_shots(node, shots=execution.shots)

    def _run(self, data: Tensor, weights: Tensor) -> Tensor:
        if self.exact and not torch.is_grad_enabled():  # empty sockets ask for the same circuit
            different, which = torch.unique(data, dim=0, return_inverse=True)
            return self._all(different, weights)[which]
        return self._all(data, weights)

    def _all(self, data: Tensor, weights: Tensor) -> Tensor:
        parts = [self._part(part, weights) for part in data.split(BATCH_LIMIT)]
        return torch.cat(parts).to(data.dtype)

    def _part(self, data: Tensor, weights: Tensor) -> Tensor:
        found = [torch.as_tensor(x) for x in self.node(data.T, weights)]
        return torch.stack([x.expand(len(data)) for x in found], -1)


def build_executor(circuit: Circuit, execution: Execution) -> Executor:
    """The executor asked for; a circuit that cannot be traced runs on PennyLane, with a warning."""
    if execution.executor == "pennylane":
        return PennyLaneExecutor(circuit, execution)
    try:
        return FastExecutor(circuit, trace(circuit, circuit.n_qubits, circuit.n_data, circuit.n_weights))
    except UntraceableError as unknown:
        warnings.warn(f"executor=fast does not know {unknown}: PennyLane's {execution.device} runs it", stacklevel=2)
        return PennyLaneExecutor(circuit, execution)


def check_memory(n_qubits: int, batch: int, execution: Execution) -> None:
    """``UserError`` if states of ``batch`` circuits would not fit into this machine's memory."""
    mixed = execution.executor == "pennylane" and execution.device == "default.mixed"
    bytes_each = 16 * 4**n_qubits if mixed else (8 if execution.executor == "fast" else 16) * 2**n_qubits
    at_once = batch if execution.executor == "fast" else min(batch, BATCH_LIMIT)
    need, have = bytes_each * at_once / 2**30, _memory_gib()
    if need > have:
        raise UserError(
            f"qubits={n_qubits}: {at_once:,} circuits at once need about {need:,.1f} GiB for their states, this machine "
            f"has {have:,.1f}; set fewer qubits or a smaller batch_size"
        )


def _memory_gib() -> float:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError):  # not on this system
        return float("inf")


def _device(n_qubits: int, execution: Execution) -> Any:
    options: dict[str, Any] = dict(execution.device_options)
    if execution.seed is not None and execution.device.startswith(("default.", "lightning.")):
        options.setdefault("seed", execution.seed)
    if execution.device == "default.mixed":
        options.pop("seed", None)
    try:
        return qml.device(execution.device, wires=n_qubits, **options)
    except (qml.exceptions.DeviceError, TypeError, ValueError, ImportError) as error:
        near = difflib.get_close_matches(execution.device, COMMON_DEVICES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "install its plug-in, or use default.qubit"
        raise UserError(f"device={execution.device!r}: PennyLane cannot make it ({error}); {hint}") from None


def _read_badly(circuit: Circuit, chance: float) -> Callable[..., Any]:
    """The circuit with each wire flipped by ``chance`` before it is measured."""
    if chance == 0:
        return circuit

    def flipped(data: Any, weights: Any) -> list[Any]:
        circuit.gates(data, weights)
        for wire in range(circuit.n_qubits):
            qml.BitFlip(chance, wires=wire)
        return circuit.measurements()

    return flipped


def _noise(one: float, two: float) -> Any:
    """Depolarising channels after every gate of the circuit."""

    def after_one(op: Any, **_: Any) -> None:
        qml.DepolarizingChannel(one, wires=op.wires)

    def after_two(op: Any, **_: Any) -> None:
        for wire in op.wires:
            qml.DepolarizingChannel(two, wires=wire)

    single = qml.BooleanFn(lambda op: len(op.wires) == 1 and not isinstance(op, qml.operation.Channel))
    double = qml.BooleanFn(lambda op: len(op.wires) == 2)
    return qml.NoiseModel({single: after_one, double: after_two})
