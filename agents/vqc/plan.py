"""Traced steps as arrays, the matrices that the weights give them, and the batch that runs through."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qevgrid.agents.vqc import kernel
from qevgrid.agents.vqc.trace import Phases, Steps, Turn

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class Program(NamedTuple):
    """What a set of weights makes of the plan; valid for every batch until they change."""

    matrices: Tensor  # (turns, n, 2, 2) complex
    phases: Tensor  # (phase steps, K)
    first: Tensor  # (K,) complex: the state behind the first turns


class Frozen(NamedTuple):
    """A program as the kernel reads it: real and imaginary parts."""

    m_re: Any  # (turns, n, 2, 2)
    m_im: Any
    s_re: Any  # (phase steps, K)
    s_im: Any
    i_re: Any  # (K,)
    i_im: Any


class Plan:
    """A traced circuit for one precision. ``program(weights)`` once, then ``run`` with any batch."""

    def __init__(self, steps: Steps, n_data: int, n_weights: int, dtype: torch.dtype) -> None:
        self.n, self.dtype, self.complex = steps.n_qubits, dtype, COMPLEX[dtype]
        self.real = np.dtype(str(dtype).removeprefix("torch."))
        layers = list(steps.layers)
        first = layers.pop(0) if layers and isinstance(layers[0], dict) else {}
        assert isinstance(first, dict)
        turns = [first, *(layer for layer in layers if isinstance(layer, dict))]
        phases = [layer for layer in layers if isinstance(layer, Phases)]
        self.order = _order(layers)
        self.signs = np.ascontiguousarray(steps.signs, self.real)
        self._number_turns(turns, n_weights)
        self._number_phases(phases, n_data, n_weights)
        self._constant_first: Tensor | None = None

    def _number_turns(self, turns: list[dict[int, list[Turn]]], n_weights: int) -> None:
        """Which matrices each wire's chain multiplies: 0 is the identity, then fixed ones, then rotations."""
        chains = [[layer.get(w, []) for w in range(self.n)] for layer in turns]
        items = [turn for layer in chains for chain in layer for turn in chain]
        fixed = [turn for turn in items if turn.matrix is not None]
        rotating = [turn for turn in items if turn.matrix is None]
        number = {id(turn): 1 + k for k, turn in enumerate([*fixed, *rotating])}
        depth = max((len(chain) for layer in chains for chain in layer), default=1) or 1
        index = np.zeros((depth, len(turns), self.n), np.int64)
        for t, layer in enumerate(chains):
            for w, chain in enumerate(layer):
                index[: len(chain), t, w] = [number[id(turn)] for turn in chain]
        self.index = torch.as_tensor(index)
        pool = [np.eye(2, dtype=complex), *(turn.matrix for turn in fixed)]
        self.fixed = torch.as_tensor(np.stack(pool)).to(self.complex)
        slopes = np.array([turn.angle.weights for turn in rotating if turn.angle]).reshape(-1, n_weights)
        self.slopes = torch.as_tensor(slopes / 2).to(self.dtype)
        self.offsets = torch.as_tensor(np.array([turn.angle.constant / 2 for turn in rotating if turn.angle])).to(
            self.dtype
        )
        self.about_y = torch.as_tensor(np.array([turn.axis == "Y" for turn in rotating], float)).to(self.dtype)
        kinds = np.array([[_kind(chain) for chain in layer] for layer in chains], np.int64).reshape(-1, self.n)
        learned = np.array([[_learned(chain) for chain in layer] for layer in chains], bool).reshape(-1, self.n)
        self.kinds, self.learned, self.first_learned = kinds[1:], learned[1:], bool(learned[0].any())

    def _number_phases(self, phases: list[Phases], n_data: int, n_weights: int) -> None:
        size = 2**self.n
        gates = [(mask, slope) for step in phases for mask, slope in step.data.items()]
        self.masks = np.array([mask for mask, _ in gates], np.int64)
        ends = np.cumsum([0, *(len(step.data) for step in phases)])
        self.span = np.stack([ends[:-1], ends[1:]], 1).astype(np.int64)
        self.by_wire = np.full((len(phases), self.n), -1, np.int64)
        for j, (first, last) in enumerate(self.span):
            for gate in range(first, last):
                for w in range(self.n):
                    if self.masks[gate] == 1 << (self.n - 1 - w):
                        self.by_wire[j, w] = gate
        slopes = np.array([slope for _, slope in gates]).reshape(-1, n_data)
        same = slopes.shape == (n_data, n_data) and np.array_equal(slopes, np.eye(n_data))
        self.data_slopes = None if same else torch.as_tensor(slopes).to(self.dtype)
        constant = np.array([step.constant for step in phases]).reshape(-1, size)
        weights = np.array([step.weights for step in phases]).reshape(len(phases), size, n_weights)
        self.phase_constant = torch.as_tensor(constant).to(self.dtype)
        self.phase_weights = torch.as_tensor(weights).to(self.dtype) if weights.any() else None
        self.wanted = weights.any((1, 2)) if len(phases) else np.zeros(0, bool)
        nothing = (np.abs(np.exp(1j * constant) - 1) < 1e-12).all(1)
        self.shared = np.where(self.wanted | ~nothing, kernel.PHASE, kernel.NO_PHASE).astype(np.int64)

    def program(self, weights: Tensor) -> Program:
        """Matrices and phases of these weights (V,), differentiable."""
        half = self.slopes @ weights + self.offsets
        c, s = torch.cos(half), torch.sin(half)
        turned, zero = s * self.about_y, torch.zeros_like(s)
        crossed = turned - s
        real = torch.stack([c, -turned, turned, c], -1)
        imaginary = torch.stack([zero, crossed, crossed, zero], -1)
        pool = torch.cat([self.fixed, torch.complex(real, imaginary).unflatten(-1, (2, 2))])
        matrices = pool[self.index[0]]
        for link in self.index[1:]:
            matrices = pool[link] @ matrices
        phases = self.phase_constant
        if self.phase_weights is not None:
            phases = phases + self.phase_weights @ weights
        return Program(matrices[1:], phases, self._first(matrices[0]))

    def _first(self, matrices: Tensor) -> Tensor:
        """Product of every wire's first column."""
        if self._constant_first is not None:
            return self._constant_first
        state = matrices[0, :, 0]
        for column in matrices[1:, :, 0]:
            state = (state[:, None] * column).flatten()
        if not self.first_learned:
            self._constant_first = state = state.detach()
        return state

    def freeze(self, program: Program) -> Frozen:
        """The program for `evaluate`, made once while the weights rest."""
        matrices, phases, first = (x.detach().numpy() for x in program)
        return Frozen(*_parts(matrices), np.cos(phases), np.sin(phases), *_parts(first))

    def run(self, program: Program, data: Tensor) -> Tensor:
        """Expectation values (B, R) for data angles (B, E), differentiable."""
        angles = data if self.data_slopes is None else data @ self.data_slopes.T
        return _Run.apply(self, *program, angles)  # type: ignore[no-any-return]

    def evaluate(self, frozen: Frozen, data: Any) -> Any:
        """The same without gradients, on arrays."""
        angles = data if self.data_slopes is None else data @ self.data_slopes.numpy().T
        out = kernel.evaluate(
            self.order, self.kinds, frozen.m_re, frozen.m_im, self.shared, frozen.s_re, frozen.s_im, self.span,
            self.masks, self.by_wire, frozen.i_re, frozen.i_im, angles, self.signs, _lanes(len(angles)),
        )  # fmt: skip
        return out[:, : len(data)].T


class _Run(torch.autograd.Function):
    """The kernel, both ways."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, matrices: Tensor, phases: Tensor, first: Tensor, angles: Tensor) -> Tensor:
        frozen = plan.freeze(Program(matrices, phases, first))
        lanes = _lanes(len(angles))
        cos, sin = kernel.waves(angles.detach().numpy(), lanes)
        kept = np.empty((cos.shape[1] // lanes, 2, 2**plan.n, lanes), plan.real)
        out = np.empty((len(plan.signs), cos.shape[1]), plan.real)
        kernel.forward(
            plan.order, plan.kinds, frozen.m_re, frozen.m_im, plan.shared, frozen.s_re, frozen.s_im, plan.span,
            plan.masks, plan.by_wire, frozen.i_re, frozen.i_im, cos, sin, plan.signs, out, kept,
        )  # fmt: skip
        ctx.plan, ctx.kept, ctx.frozen, ctx.waves = plan, kept, frozen, (cos, sin)
        return torch.from_numpy(out).T[: len(angles)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        plan, kept, (cos, sin) = ctx.plan, ctx.kept, ctx.waves
        m_re, m_im, s_re, s_im = ctx.frozen[:4]
        if kept is None:
            raise RuntimeError("a batch can be differentiated once; run it again")
        ctx.kept = None  # the kernel walks the states back in place
        g_out = np.zeros((len(plan.signs), cos.shape[1]), plan.real)
        g_out[:, : len(grad)] = grad.T.numpy()
        g_matrix, g_phase = np.zeros((*m_re.shape[:2], 2, 2, 2)), np.zeros(s_re.shape)
        g_first, g_angle = np.zeros((2, 2**plan.n)), np.empty(cos.shape, plan.real)
        kernel.backward(
            plan.order, plan.kinds, m_re, m_im, plan.shared, s_re, s_im, plan.span, plan.masks, plan.by_wire,
            cos, sin, plan.signs, kept, plan.learned, plan.wanted, g_out, g_matrix, g_phase, g_first, g_angle,
        )  # fmt: skip
        return (
            None,
            torch.from_numpy(g_matrix[:, :, 0] + 1j * g_matrix[:, :, 1]).to(plan.complex),
            torch.from_numpy(g_phase).to(plan.dtype),
            torch.from_numpy(g_first[0] + 1j * g_first[1]).to(plan.complex),
            torch.from_numpy(g_angle).T[: len(grad)],
        )


def _lanes(batch: int) -> int:
    """Samples a block."""
    return max(min(batch, kernel.LANES), 1)


def _parts(values: Any) -> tuple[Any, Any]:
    """Real and imaginary part as contiguous arrays."""
    return np.ascontiguousarray(values.real), np.ascontiguousarray(values.imag)


def _order(layers: list[dict[int, list[Turn]] | Phases]) -> Any:
    """Steps behind the first turns: index of a turn, or -1 - index of a phase step."""
    found, turns, phases = [], 0, 0
    for layer in layers:
        if isinstance(layer, Phases):
            found.append(-1 - phases)
            phases += 1
        else:
            found.append(turns)
            turns += 1
    return np.array(found, np.int64)


def _kind(chain: list[Turn]) -> int:
    if not chain:
        return kernel.IDENTITY
    real = all(t.axis == "Y" if t.matrix is None else np.allclose(t.matrix.imag, 0) for t in chain)
    return kernel.REAL if real else kernel.COMPLEX


def _learned(chain: list[Turn]) -> bool:
    return any(turn.angle is not None and turn.angle.weights.any() for turn in chain)
