"""The learned part: small networks that give the worth of stored energy, for the fleet and for a vehicle."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from qevgrid.agents.hybrid.features import FLEET, VEHICLE
from qevgrid.envs.types import FloatArray

HABITS = ("arriving_kwh", "arriving_need_kwh", "arriving_kw", "charged_kwh")
"""Usable energy, missing energy and charging power that arrive, and what the controller itself puts into the batteries."""


@dataclass
class Net:
    """Two hidden layers of tanh and one output, in plain NumPy: a decision needs microseconds, not a framework."""

    mean: FloatArray  # (I,) of the inputs
    scale: FloatArray  # (I,)
    weights: tuple[FloatArray, ...]  # (I, h), (h, h), (h, 1)
    biases: tuple[FloatArray, ...]

    def __call__(self, x: FloatArray) -> FloatArray:
        """Outputs (K,) for inputs (K, I)."""
        hidden = (x - self.mean) / self.scale
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight + bias)
        return (hidden @ self.weights[-1] + self.biases[-1])[:, 0]

    @property
    def parameters(self) -> int:
        """Number of learned numbers."""
        return sum(x.size for x in (*self.weights, *self.biases))


@dataclass
class Critic:
    """Worth of one more kWh in the batteries, USD, on a day without (further) outage."""

    fleet: Net  # fleet features -> mean over the vehicles
    vehicle: Net  # fleet and vehicle features -> that vehicle's difference to the mean
    habits: FloatArray  # (24, len(HABITS)) what comes and goes in each clock hour, per kW of all chargers

    @property
    def parameters(self) -> int:
        """Number of learned numbers."""
        return self.fleet.parameters + self.vehicle.parameters + self.habits.size

    def arrays(self) -> dict[str, Any]:
        """Everything, by name."""
        found: dict[str, Any] = {"habits": self.habits}
        for name in ("fleet", "vehicle"):
            net: Net = getattr(self, name)
            found |= {f"{name}_mean": net.mean, f"{name}_scale": net.scale}
            for k, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
                found |= {f"{name}_weight{k}": weight, f"{name}_bias{k}": bias}
        return found

    @classmethod
    def from_arrays(cls, data: dict[str, Any]) -> "Critic":
        """The inverse of ``arrays``; ``ValueError`` if its features are not this version's."""
        fleet, vehicle = _read_net(data, "fleet"), _read_net(data, "vehicle")
        if (len(fleet.mean), len(vehicle.mean)) != (len(FLEET), len(FLEET) + len(VEHICLE)):
            raise ValueError(f"{len(fleet.mean)} and {len(vehicle.mean)} features")
        return cls(fleet, vehicle, data["habits"])


def _read_net(data: dict[str, Any], name: str) -> Net:
    weights, biases = (tuple(data[f"{name}_{part}{k}"] for k in range(3)) for part in ("weight", "bias"))
    return Net(data[f"{name}_mean"], data[f"{name}_scale"], weights, biases)


def fit_net(x: FloatArray, y: FloatArray, *, hidden: int, epochs: int, lr: float, seed: int) -> Net:
    """Least squares by Adam: the mean of the labels is what an uncertain future is worth."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    inputs, labels = torch.tensor((x - mean) / scale), torch.tensor(y)
    sizes = (x.shape[1], hidden, hidden, 1)
    weights = [
        (torch.randn(a, b, generator=generator, dtype=torch.float64) / a**0.5).requires_grad_()
        for a, b in itertools.pairwise(sizes)
    ]
    biases = [torch.zeros(b, dtype=torch.float64, requires_grad=True) for b in sizes[1:]]
    batch = min(512, len(y))
    steps = epochs * -(-len(y) // batch)
    optimiser = torch.optim.Adam([*weights, *biases], lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        for chunk in order.split(batch):
            hidden_layer = inputs[chunk]
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                hidden_layer = torch.tanh(hidden_layer @ weight + bias)
            error = (hidden_layer @ weights[-1] + biases[-1])[:, 0] - labels[chunk]
            optimiser.zero_grad()
            (error**2).mean().backward()
            optimiser.step()
            decay.step()
    arrays = [tuple(part.detach().numpy() for part in parts) for parts in (weights, biases)]
    return Net(mean, scale, *arrays)
