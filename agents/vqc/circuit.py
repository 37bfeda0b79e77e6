"""The circuits, defined in PennyLane: data re-uploading with trainable rotations between.

This is their only definition; both executors, the drawing and the parameter counts come from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import pennylane as qml
from pennylane.drawer import tape_mpl
from pennylane.queuing import AnnotatedQueue
from pennylane.tape import QuantumScript

from qevgrid.envs.errors import UserError

Ansatz = Literal["diag", "rx_ry_rz", "two_axis"]
Entangler = Literal["ring", "line", "all", "none"]
Readout = Literal["z", "zz"]
Angles = Any
"""A row an angle, each a number or one number a sample: (E,) or (E, B), of any array library."""


@dataclass(frozen=True)
class Circuit:
    """A parametrised circuit; call it inside a QNode with (data angles, weight angles).

    Data angle ``(layer * per_layer + k)`` belongs to ``layer``, and so does a weight.

    - ``diag``: H on every wire, then layers of RZ(data), entangler, RY(weight). All data are diagonal.
    - ``rx_ry_rz``: layers of RX(data), RY(weight), RZ(weight), entangler (Skolik et al. 2022).
    - ``two_axis``: layers of RY(data), RZ(data), RZ(weight), RY(weight), entangler; twice the data.

    The entangler is CZ on neighbours (``line``), also last with first (``ring``), on every pair (``all``) or
    nothing (``none``: the ablation). ``readout`` ``z`` measures Z on each wire, ``zz`` Z Z of neighbours too.

    >>> circuit = Circuit(n_qubits=2, n_layers=1)
    >>> circuit.n_data, circuit.n_weights, circuit.n_outputs
    (2, 2, 2)
    """

    n_qubits: int
    n_layers: int
    ansatz: Ansatz = "diag"
    entangler: Entangler = "ring"
    readout: Readout = "z"

    def __post_init__(self) -> None:
        for name, kind in (("ansatz", Ansatz), ("entangler", Entangler), ("readout", Readout)):
            if getattr(self, name) not in get_args(kind):
                raise UserError(f"{name}={getattr(self, name)!r}: unknown; choose one of {', '.join(get_args(kind))}")
        for name in ("n_qubits", "n_layers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: at least 1")

    @property
    def data_per_layer(self) -> int:
        """Data angles of a layer."""
        return self.n_qubits * (2 if self.ansatz == "two_axis" else 1)

    @property
    def weights_per_layer(self) -> int:
        """Trainable rotations of a layer."""
        return self.n_qubits * (1 if self.ansatz == "diag" else 2)

    @property
    def n_data(self) -> int:
        """Data angles E."""
        return self.n_layers * self.data_per_layer

    @property
    def n_weights(self) -> int:
        """Weight angles V."""
        return self.n_layers * self.weights_per_layer

    @property
    def n_outputs(self) -> int:
        """Expectation values R."""
        return self.n_qubits + (len(self._neighbours()) if self.readout == "zz" else 0)

    def __call__(self, data: Angles, weights: Angles) -> list[Any]:
        """Apply the gates and return the measurements."""
        self.gates(data, weights)
        return self.measurements()

    def gates(self, data: Angles, weights: Angles) -> None:
        """All that comes before the measurement."""
        _LAYERS[self.ansatz](self, data, weights)

    def measurements(self) -> list[Any]:
        """Expectation values in [-1, 1]."""
        found = [qml.expval(qml.PauliZ(w)) for w in range(self.n_qubits)]
        if self.readout == "zz":
            found += [qml.expval(qml.PauliZ(a) @ qml.PauliZ(b)) for a, b in self._neighbours()]
        return found

    def entangle(self) -> None:
        """CZ on the pairs that the entangler names."""
        for pair in self.pairs():
            qml.CZ(wires=pair)

    def pairs(self) -> list[tuple[int, int]]:
        """Wires that the entangler couples. Two wires have one pair: CZ twice would be nothing."""
        every = list(combinations(range(self.n_qubits), 2))
        return {"none": [], "all": every, "line": self._line(), "ring": self._neighbours()}[self.entangler]

    def _line(self) -> list[tuple[int, int]]:
        return [(w, w + 1) for w in range(self.n_qubits - 1)]

    def _neighbours(self) -> list[tuple[int, int]]:
        closing = [(self.n_qubits - 1, 0)] if self.n_qubits > 2 else []
        return self._line() + closing


def _diag(c: Circuit, data: Angles, weights: Angles) -> None:
    n = c.n_qubits
    for w in range(n):
        qml.Hadamard(w)
    for layer in range(c.n_layers):
        for w in range(n):
            qml.RZ(data[layer * n + w], wires=w)
        c.entangle()
        for w in range(n):
            qml.RY(weights[layer * n + w], wires=w)


def _rx_ry_rz(c: Circuit, data: Angles, weights: Angles) -> None:
    n = c.n_qubits
    for layer in range(c.n_layers):
        for w in range(n):
            qml.RX(data[layer * n + w], wires=w)
            qml.RY(weights[2 * layer * n + w], wires=w)
            qml.RZ(weights[2 * layer * n + n + w], wires=w)
        c.entangle()


def _two_axis(c: Circuit, data: Angles, weights: Angles) -> None:
    n = c.n_qubits
    for layer in range(c.n_layers):
        for w in range(n):
            at = 2 * layer * n + w
            qml.RY(data[at], wires=w)
            qml.RZ(data[at + n], wires=w)
            qml.RZ(weights[at], wires=w)
            qml.RY(weights[at + n], wires=w)
        c.entangle()


_LAYERS: dict[str, Callable[[Circuit, Angles, Angles], None]] = {
    "diag": _diag,
    "rx_ry_rz": _rx_ry_rz,
    "two_axis": _two_axis,
}


def draw(circuit: Circuit) -> Any:
    """The circuit as a matplotlib figure, drawn by PennyLane."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with AnnotatedQueue() as queue:
        circuit([f"d{k}" for k in range(circuit.n_data)], [f"w{k}" for k in range(circuit.n_weights)])
    tape = QuantumScript.from_queue(queue)
    figure = Figure()
    FigureCanvasAgg(figure)  # PennyLane measures its labels with it
    tape_mpl(tape, wire_order=range(circuit.n_qubits), fig=figure)
    return figure
