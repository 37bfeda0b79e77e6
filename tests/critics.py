"""Critics that were never trained: worth by rule or by chance."""

from typing import Any

import numpy as np

from qevgrid.agents.hybrid.critic import HABITS, Critic, Net
from qevgrid.agents.hybrid.features import FLEET, VEHICLE
from qevgrid.envs.types import FloatArray

INPUTS = len(FLEET), len(FLEET) + len(VEHICLE)


def flat(fleet_usd: float, apart_usd: float = 0.0) -> Critic:
    """Every kWh is worth the same, in every vehicle."""
    return Critic(constant(INPUTS[0], fleet_usd), constant(INPUTS[1], apart_usd), no_habits())


def constant(inputs: int, usd: float) -> Net:
    """Gives ``usd`` whatever it reads."""
    shapes = ((inputs, 2), (2, 2), (2, 1))
    return Net(
        np.zeros(inputs), np.ones(inputs), tuple(map(np.zeros, shapes)), (*map(np.zeros, (2, 2)), np.full(1, usd))
    )


def falling(usd: float = 0.4, by: float = 0.2) -> Critic:
    """Worth ``usd`` less ``by`` times (tanh of) the spare energy, in hours of the fleet's power."""
    net = constant(INPUTS[0], usd)
    net.weights[0][FLEET.index("spare"), 0] = net.weights[1][0, 0] = 1.0
    net.weights[2][0, 0] = -by
    return Critic(net, constant(INPUTS[1], 0.0), no_habits())


def random(seed: int = 0, hidden: int = 4) -> Critic:
    """Nets of chance around 0.3 USD, and habits of chance."""
    rng = np.random.default_rng(seed)

    def net(inputs: int, usd: float) -> Net:
        shapes: Any = ((inputs, hidden), (hidden, hidden), (hidden, 1))
        weights = tuple(rng.normal(0.0, s[0] ** -0.5, s) for s in shapes)
        biases = (rng.normal(0.0, 0.3, hidden), rng.normal(0.0, 0.3, hidden), np.full(1, usd))
        return Net(np.zeros(inputs), np.ones(inputs), (*weights[:2], 0.3 * weights[2]), biases)

    return Critic(net(INPUTS[0], 0.3), net(INPUTS[1], 0.0), rng.uniform(0.0, 0.05, (24, len(HABITS))))


def no_habits() -> FloatArray:
    """Nothing comes and nothing is charged."""
    return np.zeros((24, len(HABITS)))
