"""How large and how noisy a circuit's gradients are, layer by layer: a barren plateau would show here."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qevgrid.agents.vqc.layer import CircuitLayer


class GradientStatistics:
    """Sums over the minibatches since the last ``collect``, before any clipping."""

    def __init__(self, circuits: Sequence[CircuitLayer]) -> None:
        self.names = ["input", "angle"]
        self.sums: dict[str, list[Tensor]] = {}
        for layer in circuits:
            for name, parameter in zip(self.names, (layer.scale, layer.weights), strict=True):
                parameter.register_hook(lambda grad, n=name, c=layer: self._add(n, c.by_layer(grad.detach())))

    def _add(self, name: str, grad: Tensor) -> None:
        values = torch.stack([torch.ones_like(grad), grad, grad.square()]).double()
        seen = self.sums.get(name)
        self.sums[name] = [values] if seen is None else [seen[0] + values]

    def collect(self) -> dict[str, float]:
        """Root mean square norm and variance over the minibatches, by tag; then start again."""
        found: dict[str, float] = {}
        for name, (total,) in self.sums.items():
            count, first, second = total
            variance = (second / count - (first / count).square()).mean(1)
            norm = (second / count).sum(1).sqrt()
            for layer in range(len(norm)):
                found[f"vqc/{name}_gradient_norm/layer{layer + 1}"] = float(norm[layer])
                found[f"vqc/{name}_gradient_variance/layer{layer + 1}"] = float(variance[layer])
        self.sums.clear()
        return found
