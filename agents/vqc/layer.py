"""The circuit as a torch module: features in [-1, 1] become angles, expectation values come out."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.agents.vqc.executors import Execution, build_executor
from qevgrid.envs.errors import UserError


class CircuitLayer(nn.Module):
    """(B, F) -> (B, R) by one circuit.

    Upload k, of ``n_data * uploads`` in order of the circuit, carries feature k modulo F; ``uploads`` of them
    add up to an angle: ``angle = sum(scale * feature) + bias``. So every feature is read at least once, and
    again and again (re-uploaded) while there is room. Raises ``UserError`` where there is none.

    ``scale`` (n_data, uploads) and ``bias`` (n_data,) are the inputs' parameters, ``weights`` (V,) the circuit's.
    """

    where: Tensor

    def __init__(
        self, circuit: Circuit, n_features: int, execution: Execution, uploads: int = 1, scale_init: float = 1.0
    ) -> None:
        super().__init__()
        check_capacity(circuit, n_features, uploads)
        self.circuit, self.executor = circuit, build_executor(circuit, execution)
        shape = circuit.n_data, uploads
        feature = torch.arange(circuit.n_data * uploads).reshape(shape) % n_features
        self.register_buffer(
            "where", feature * circuit.n_data + torch.arange(circuit.n_data)[:, None], persistent=False
        )
        self.n_features = n_features
        self._rested: tuple[Any, Tensor] | None = None
        self.scale = nn.Parameter(torch.full(shape, scale_init / math.sqrt(uploads)))
        self.bias = nn.Parameter(torch.zeros(circuit.n_data))
        self.weights = nn.Parameter((2 * torch.rand(circuit.n_weights) - 1) * math.pi)

    def angles(self, x: Tensor) -> Tensor:
        """Data angles (B, E) of features (B, F)."""
        return torch.addmm(self.bias, x, self._mixing() if torch.is_grad_enabled() else self._rested_mixing())

    def _mixing(self) -> Tensor:
        """What each feature adds to each angle, (F, E)."""
        flat = torch.zeros(self.n_features * self.circuit.n_data, dtype=self.scale.dtype)
        return flat.index_add(0, self.where.flatten(), self.scale.flatten()).view(self.n_features, -1)

    def _rested_mixing(self) -> Tensor:
        """The same, made once while the scales rest."""
        scale = self.scale
        state = scale.data_ptr(), scale._version, scale.dtype
        if self._rested is None or self._rested[0] != state:
            self._rested = state, self._mixing()
        return self._rested[1]

    def forward(self, x: Tensor) -> Tensor:
        """Expectation values (B, R)."""
        return self.executor.expectations(self.angles(x), self.weights)

    def by_layer(self, values: Tensor) -> Tensor:
        """Values of ``weights``' or ``scale``'s shape, (layers, numbers a layer)."""
        return values.reshape(self.circuit.n_layers, -1)


def check_capacity(circuit: Circuit, n_features: int, uploads: int) -> None:
    """``UserError`` unless every feature finds a gate."""
    room = circuit.n_data * uploads
    if n_features > room:
        enough = -(-n_features // circuit.n_data)
        raise UserError(
            f"{n_features} features: the encoding holds {room} ({circuit.n_layers} layers x {circuit.data_per_layer} data "
            f"angles x uploads={uploads}); set uploads={enough}, more qubits or layers, or fewer features"
        )
