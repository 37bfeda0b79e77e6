"""What a trained hybrid agent is: one small file with the critic, the corrections and their policy."""

import io
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents.hybrid.corrections import TUNED, Actor, Corrections
from qevgrid.agents.hybrid.critic import Critic
from qevgrid.envs.errors import UserError

FORMAT = "qevgrid-hybrid-1"
SHIPPED = Path(__file__).with_name("default_day.npz")
"""A run folder's model.zip of ``configs/v2g_hybrid.yaml`` under this name; docs/hybrid.md says from when."""


@dataclass(frozen=True)
class Model:
    """Critic of stages 1 and 2, policy of stage 3 (``None``: the critic as it is)."""

    critic: Critic
    base: Corrections = TUNED
    actor: Actor | None = None

    @property
    def parameters(self) -> int:
        """Number of learned numbers."""
        return self.critic.parameters + (self.actor.parameters if self.actor else 0)

    def save(self, path: Path) -> None:
        """Write a small file."""
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "base": np.array(astuple(self.base)),
        } | self.critic.arrays()
        if self.actor is not None:
            for k, (weight, bias) in enumerate(zip(self.actor.weights, self.actor.biases, strict=True)):
                arrays |= {f"actor_weight{k}": weight, f"actor_bias{k}": bias}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        path.write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read what ``save`` wrote; ``UserError`` for anything else."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                data = dict(file)
            if str(data["format"]) != FORMAT:
                raise KeyError("format")
            return cls(Critic.from_arrays(data), Corrections(*data["base"].tolist()), _read_actor(data))
        except Exception as err:  # a damaged file can fail in any way
            raise UserError(f"{path}: is not a hybrid model that this version saved ({err}); train anew") from None


def _read_actor(data: dict[str, Any]) -> Actor | None:
    layers = sum(key.startswith("actor_weight") for key in data)
    if not layers:
        return None
    weights, biases = (tuple(data[f"actor_{part}{k}"] for k in range(layers)) for part in ("weight", "bias"))
    return Actor(weights, biases)
