"""The quantum approximate optimisation algorithm in PennyLane, for small models.

Depth p: from the even superposition, p times the phases of the model's energies (angle gamma) and a
rotation of every qubit (angle beta). The angles of depth 1 come from a grid with a seeded offset, a
further layer starts from doing nothing, and Nelder and Mead's simplex refines them. They are judged by the
mean of the best ``TAIL`` of the outcomes (CVaR), since the best sample is what counts. That search
runs on the exact state in numpy; what is sampled is a PennyLane circuit of one- and two-qubit gates.
"""

from collections.abc import Callable
from typing import Any

import dimod
import numpy as np
from numpy.typing import NDArray

from qevgrid.agents.hybrid.encoding import ising
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray

MOST_BITS = 16
GRID = 8
"""Angles tried a side at depth 1."""
REFINEMENTS = 80
"""Circuits that refine the angles of a depth."""
WIDEST = 2.0
"""Largest gamma of the grid, over the spread of the energies."""
TAIL = 0.1
AT_ONCE = 4


def sample_qaoa(bqm: dimod.BinaryQuadraticModel, *, reads: int, seed: int, depth: int = 2) -> dimod.SampleSet:
    """``reads`` measurements of the circuit with the best angles found. BINARY models only."""
    n = bqm.num_variables
    if n > MOST_BITS:
        raise UserError(
            f"agent.sampler=qaoa simulates at most {MOST_BITS} qubits, this decision has {n} bits: "
            "set agent.sampler=structured, or have fewer vehicles or agent.levels"
        )
    energies = all_energies(bqm)
    spread = float(energies.std()) or 1.0
    angles = find_angles((energies - energies.mean()) / spread, depth, np.random.default_rng(seed))
    bits = measure(bqm, spread, angles, reads, seed)
    return dimod.SampleSet.from_samples_bqm((bits, list(bqm.variables)), bqm, info={"angles": angles.tolist()})


def all_energies(bqm: dimod.BinaryQuadraticModel) -> FloatArray:
    """Energy of each of the 2^n patterns, the first variable being the most significant bit."""
    n = bqm.num_variables
    patterns = (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1
    return np.asarray(bqm.energies((patterns.astype(np.int8), list(bqm.variables))), float)


def find_angles(phases: FloatArray, depth: int, rng: np.random.Generator) -> FloatArray:
    """Angles (2, depth), gammas and betas, for standardised energies (2^n,)."""
    from scipy.optimize import minimize

    worth, shift = tail_mean(phases), rng.uniform(0, 1, 2)
    gammas, betas = (span * (np.arange(GRID) + by) / GRID for span, by in zip((WIDEST, np.pi), shift, strict=True))
    angles = min((np.array([[gamma], [beta]]) for gamma in gammas for beta in betas), key=worth)
    for p in range(1, depth + 1):
        if p > 1:  # the longer circuit begins as the shorter one
            angles = np.concatenate([angles, [[angles[0, -1]], [0.0]]], 1)
        options = {"maxfev": REFINEMENTS, "initial_simplex": _simplex(angles.ravel())}
        found = minimize(lambda x, p=p: worth(x.reshape(2, p)), angles.ravel(), method="Nelder-Mead", options=options)
        angles = found.x.reshape(2, p)
    return angles


def _simplex(start: FloatArray) -> FloatArray:
    """``start`` and a step along each axis."""
    return start + 0.15 * np.concatenate([np.zeros((1, len(start))), np.eye(len(start))])


def tail_mean(phases: FloatArray) -> Callable[[FloatArray], float]:
    """By angles: the mean of the best ``TAIL`` of the circuit's outcomes."""
    order = np.argsort(phases, kind="stable")
    rising = phases[order]

    def worth(angles: FloatArray) -> float:
        share = probabilities(phases, angles)[order]
        before = np.concatenate([[0.0], np.cumsum(share)[:-1]])
        return float(np.clip(TAIL - before, 0.0, share) @ rising / TAIL)

    return worth


def probabilities(phases: FloatArray, angles: FloatArray) -> FloatArray:
    """Of each of the 2^n patterns after the circuit with ``angles`` (2, depth)."""
    state: NDArray[np.complex128] = np.full(len(phases), len(phases) ** -0.5, complex)
    for gamma, beta in angles.T:
        state = _mix(state * np.exp(-1j * gamma * phases), beta)
    return np.abs(state) ** 2


def _mix(state: NDArray[np.complex128], beta: float) -> NDArray[np.complex128]:
    """Turn every qubit by 2 beta about x, ``AT_ONCE`` of them a matrix product; each goes to the back when done."""
    turn, left = np.array([[np.cos(beta), -1j * np.sin(beta)], [-1j * np.sin(beta), np.cos(beta)]]), len(state)
    while left > 1:
        block = turn
        for _ in range(1, min(AT_ONCE, left.bit_length() - 1)):
            block = np.kron(block, turn)
        state = (block @ state.reshape(len(block), -1)).T.ravel()
        left //= len(block)
    return state


def measure(bqm: dimod.BinaryQuadraticModel, spread: float, angles: FloatArray, reads: int, seed: int) -> IntArray:
    """Bits (reads, n) of the circuit on PennyLane's ``default.qubit``."""
    import pennylane as qml

    n = bqm.num_variables
    device = qml.device("default.qubit", wires=n, seed=seed % 2**32)

    @qml.qnode(device, diff_method=None)
    def sampled() -> Any:
        apply_circuit(bqm, spread, angles)
        return qml.sample(wires=range(n))

    return np.asarray(qml.set_shots(sampled, shots=reads)(), np.int64).reshape(reads, n)


def apply_circuit(bqm: dimod.BinaryQuadraticModel, spread: float, angles: FloatArray) -> None:
    """The gates, as a machine would run them; spin +1 is bit 1, which Z calls -1."""
    import pennylane as qml

    n = bqm.num_variables
    field, row, column, value = ising(bqm)
    couplers = list(zip(row.tolist(), column.tolist(), value.tolist(), strict=True))
    for wire in range(n):
        qml.Hadamard(wire)
    for gamma, beta in angles.T / (spread, 1.0):
        for wire in range(n):
            qml.RZ(-2 * gamma * float(field[wire]), wires=wire)
        for i, j, coupling in couplers:
            qml.IsingZZ(2 * gamma * coupling, wires=[i, j])
        for wire in range(n):
            qml.RX(2 * beta, wires=wire)
