"""From a PennyLane function to steps that the kernel runs: traced once, gates merged.

The function is called with two random points. Every gate's angle must be affine in data and weights; the
coefficients are read off by automatic differentiation. Gates that are not known by name are decomposed by
PennyLane; what remains unknown raises ``UntraceableError``, and the caller lets PennyLane run the circuit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
import torch
from pennylane.queuing import AnnotatedQueue
from pennylane.tape import QuantumScript
from torch import Tensor

from qevgrid.envs.types import FloatArray

ComplexArray = np.ndarray[Any, np.dtype[np.complex128]]

H = np.array([[1, 1], [1, -1]], complex) / np.sqrt(2)
BASIS = {"X": H, "Y": np.diag([1, 1j]) @ H}
"""``R_P(t) = B RZ(t) B^dagger``."""
ROTATIONS = {"RX": "X", "RY": "Y", "RZ": "Z", "PhaseShift": "Z", "U1": "Z", "IsingXX": "X", "IsingZZ": "Z"}
ROTATIONS |= {"MultiRZ": "Z"}
"""Gates exp(-i t P...P / 2), up to a phase that no expectation value sees."""
NOTHING = {"Identity", "Barrier", "GlobalPhase", "WireCut"}
DEEPEST = 12


class UntraceableError(Exception):
    """Names the operation or the measurement that the tracer does not know."""


class Affine(NamedTuple):
    """``data @ angles + weights @ angles + constant``."""

    data: FloatArray  # (E,)
    weights: FloatArray  # (V,)
    constant: float


class Turn(NamedTuple):
    """A 2 x 2 matrix on one wire: fixed, or a rotation about ``axis`` X or Y by an angle of the weights."""

    matrix: ComplexArray | None
    axis: str = ""
    angle: Affine | None = None


@dataclass
class Phases:
    """A diagonal: shared phases (K,), affine in the weights, and rotations by data angles, by wires."""

    constant: FloatArray  # (K,)
    weights: FloatArray  # (K, V)
    data: dict[int, FloatArray] = field(default_factory=dict)  # wires as bits of k -> (E,)


class Steps(NamedTuple):
    """What was traced: even layers turn wires, odd layers are diagonal; ``signs`` (R, K) is measured."""

    n_qubits: int
    layers: list[dict[int, list[Turn]] | Phases]
    signs: FloatArray


def trace(function: Callable[[Tensor, Tensor], Sequence[Any]], n_qubits: int, n_data: int, n_weights: int) -> Steps:
    """Trace ``function(data (E,), weights (V,))``. Raises ``UntraceableError``."""
    generator = torch.Generator().manual_seed(0)
    points = [[torch.rand(n, generator=generator, dtype=torch.float64) for n in (n_data, n_weights)] for _ in range(2)]
    with torch.enable_grad():  # whatever the caller is doing: slopes of the angles are derivatives
        tapes = [_Tape(function, *point) for point in points]
        first, second = (tape.gates() for tape in tapes)
    if [(name, wires) for name, wires, _, _ in first] != [(name, wires) for name, wires, _, _ in second]:
        raise UntraceableError("gates that depend on the data")
    builder = _Builder(n_qubits, n_data, n_weights)
    for (name, wires, matrix, angle), (_, _, again, other) in zip(first, second, strict=True):
        if not _same(angle, other) or not _same_matrix(matrix, again):
            raise UntraceableError(f"{name} with an angle that is not affine in data and weights")
        builder.add(name, wires, matrix, angle)
    return Steps(n_qubits, builder.layers(), np.stack([_signs(m, n_qubits) for m in tapes[0].measurements]))


Gate = tuple[str, tuple[int, ...], ComplexArray | None, Affine | None]


class _Tape:
    """The operations of one call at one point."""

    def __init__(self, function: Callable[..., Sequence[Any]], data: Tensor, weights: Tensor) -> None:
        self.point = [data.requires_grad_(), weights.requires_grad_()]
        with AnnotatedQueue() as queue:
            function(*self.point)
        tape = QuantumScript.from_queue(queue)
        self.operations, self.measurements = tape.operations, tape.measurements

    def gates(self) -> list[Gate]:
        """Every operation as gates that are known."""
        with qml.QueuingManager.stop_recording():
            return [gate for op in self.operations for gate in self._known(op, DEEPEST)]

    def _known(self, op: Any, depth: int) -> list[Gate]:
        wires = tuple(int(w) for w in op.wires)
        if op.name in NOTHING:
            return []
        if op.name in ROTATIONS:
            return [(op.name, wires, None, self._affine(op.data[0]))]
        if op.name == "CNOT":
            turn = ("H", wires[1:], H, None)
            return [turn, ("CZ", wires, np.diag([1, 1, 1, -1]).astype(complex), None), turn]
        if not self._moves(op) and (matrix := _fixed(op)) is not None:
            return [(op.name, wires, matrix, None)]
        if depth == 0 or not getattr(op, "has_decomposition", False):
            raise UntraceableError(op.name)
        return [gate for part in op.decomposition() for gate in self._known(part, depth - 1)]

    def _moves(self, op: Any) -> bool:
        return any(isinstance(x, Tensor) and x.requires_grad for x in op.data)

    def _affine(self, angle: Any) -> Affine:
        if not (isinstance(angle, Tensor) and angle.requires_grad):
            return Affine(np.zeros(len(self.point[0])), np.zeros(len(self.point[1])), float(angle))
        if angle.ndim:
            raise UntraceableError("a gate with more than one angle a sample")
        found = torch.autograd.grad(angle, self.point, retain_graph=True, allow_unused=True)
        slopes = [np.zeros(len(x)) if g is None else g.numpy() for g, x in zip(found, self.point, strict=True)]
        rest = angle.item() - sum(float(g @ x.detach().numpy()) for g, x in zip(slopes, self.point, strict=True))
        return Affine(slopes[0], slopes[1], rest)


def _fixed(op: Any) -> ComplexArray | None:
    """Matrix of a gate on one wire or of a diagonal one; None for any other."""
    if not getattr(op, "has_matrix", False) or len(op.wires) > DEEPEST:
        return None
    found = np.asarray(torch.as_tensor(qml.matrix(op, wire_order=op.wires)).detach().numpy(), complex)
    return found if len(op.wires) == 1 or np.allclose(found, np.diag(np.diag(found))) else None


def _same(a: Affine | None, b: Affine | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(np.allclose(x, y, atol=1e-9) for x, y in zip(a, b, strict=True))


def _same_matrix(a: ComplexArray | None, b: ComplexArray | None) -> bool:
    return a is b if a is None or b is None else np.allclose(a, b, atol=1e-12)


def _bits(n: int, wire: int) -> FloatArray:
    """+1 where ``wire`` is 0, -1 where it is 1 (K,)."""
    return 1.0 - 2.0 * ((np.arange(2**n) >> (n - 1 - wire)) & 1)


def _signs(measurement: Any, n: int) -> FloatArray:
    """Diagonal (K,) of an expectation value of Z words."""
    observable = getattr(measurement, "obs", None)
    word = getattr(observable, "pauli_rep", None)
    if type(measurement).__name__ != "ExpectationMP" or word is None:
        raise UntraceableError(f"the measurement {measurement}")
    total = np.zeros(2**n)
    for paulis, weight in word.items():
        if any(p != "Z" for p in paulis.values()):
            raise UntraceableError(f"the observable {observable}")
        total += np.real(complex(weight)) * np.prod([_bits(n, int(w)) for w in paulis] or [np.ones(2**n)], axis=0)
    return total


class _Builder:
    """Puts each gate into the earliest layer that its wires allow."""

    def __init__(self, n: int, n_data: int, n_weights: int) -> None:
        self.n, self.n_data, self.n_weights = n, n_data, n_weights
        self.front = [0] * n
        self.turns: dict[int, dict[int, list[Turn]]] = {}
        self.phases: dict[int, Phases] = {}

    def add(self, name: str, wires: tuple[int, ...], matrix: ComplexArray | None, angle: Affine | None) -> None:
        if angle is not None:
            self._rotation(ROTATIONS[name], wires, angle)
        elif matrix is not None and len(wires) == 1:
            self._turn(wires[0], Turn(matrix))
        else:
            assert matrix is not None
            self._diagonal(wires).constant += self._spread(np.angle(np.diag(matrix)), wires)

    def _rotation(self, axis: str, wires: tuple[int, ...], angle: Affine) -> None:
        if axis != "Z" and len(wires) == 1 and not angle.data.any():
            self._turn(wires[0], Turn(None, axis, angle))
            return
        basis = BASIS.get(axis)
        if basis is not None:
            self._turns(wires, basis.conj().T)
        self._phase(wires, angle)
        if basis is not None:
            self._turns(wires, basis)

    def _phase(self, wires: tuple[int, ...], angle: Affine) -> None:
        phases = self._diagonal(wires)
        sign = -0.5 * np.prod([_bits(self.n, w) for w in wires], axis=0)
        phases.constant += sign * angle.constant
        phases.weights += np.outer(sign, angle.weights)
        if angle.data.any():
            mask = sum(1 << (self.n - 1 - w) for w in wires)
            phases.data[mask] = phases.data.get(mask, np.zeros(self.n_data)) + angle.data

    def _turns(self, wires: tuple[int, ...], matrix: ComplexArray) -> None:
        for w in wires:
            self._turn(w, Turn(matrix))

    def _turn(self, wire: int, turn: Turn) -> None:
        self.front[wire] += self.front[wire] % 2
        chain = self.turns.setdefault(self.front[wire], {}).setdefault(wire, [])
        if chain and turn.matrix is not None and chain[-1].matrix is not None:
            chain[-1] = Turn(turn.matrix @ chain[-1].matrix)
        else:
            chain.append(turn)

    def _diagonal(self, wires: tuple[int, ...]) -> Phases:
        layer = max(self.front[w] + (self.front[w] + 1) % 2 for w in wires)
        for w in wires:
            self.front[w] = layer
        size = 2**self.n
        return self.phases.setdefault(layer, Phases(np.zeros(size), np.zeros((size, self.n_weights))))

    def _spread(self, phase: FloatArray, wires: tuple[int, ...]) -> FloatArray:
        """Phases of the states of ``wires`` on all states."""
        k, at = np.arange(2**self.n), np.zeros(2**self.n, int)
        for w in wires:
            at = 2 * at + ((k >> (self.n - 1 - w)) & 1)
        return phase[at]

    def layers(self) -> list[dict[int, list[Turn]] | Phases]:
        """In order; diagonals behind the last turn do not change what is measured."""
        found = {**self.turns, **self.phases}
        ordered = [found[layer] for layer in sorted(found)]
        while ordered and isinstance(ordered[-1], Phases):
            ordered.pop()
        return ordered
