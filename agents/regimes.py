"""Advantages normalised within regimes: dark, at risk, calm.

An hour without supply costs a hundred times an hour of arbitrage. With one scale for both, PPO's
normalised advantages are all outage and the calm hours drown in its noise. Dividing within a regime
that the observation itself shows rescales how fast each state learns, not what it learns.
"""

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer

from qevgrid.envs.types import BoolArray, Float32Array
from qevgrid.envs.v2g.observe import known_labels
from qevgrid.envs.v2g.params import V2GParams

RISKY = 0.02
FEWEST = 16


class Regimes:
    """Finds the regime of each observation and normalises a buffer's advantages in place."""

    def __init__(self, params: V2GParams) -> None:
        names = known_labels(params)
        self.risk = names.index("risk")
        self.outage = [names.index(f"site{d}_outage") for d in range(params.site.count)]

    def of(self, obs: Float32Array) -> list[BoolArray]:
        """Masks (...,) of dark, risky and calm observations (..., O)."""
        dark: BoolArray = np.asarray((obs[..., self.outage] > 0.5).any(-1))
        risky = ~dark & (obs[..., self.risk] >= RISKY)
        return [dark, risky, ~dark & ~risky]

    def normalise(self, buffer: RolloutBuffer) -> None:
        """Zero mean and unit deviation of the advantages within each regime."""
        for mask in self.of(buffer.observations):
            chosen = buffer.advantages[mask]
            if len(chosen) >= FEWEST:
                buffer.advantages[mask] = (chosen - chosen.mean()) / (np.std(chosen) + 1e-8)
