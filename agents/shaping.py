"""Potential-based reward shaping (Ng, Harada and Russell 1999): faster credit, same best policy.

The learner sees ``r + gamma * potential(next) - potential(now)``; returns that are reported and
every evaluation stay unshaped. The potential is a rough worth of the parked batteries: energy that
a driver still needs counts at the shortfall's price, energy in store at a price of energy.
"""

import inspect
from typing import Any, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.observe import N_SOCKET, SOCKET
from qevgrid.envs.v2g.params import V2GParams

SOC, NEEDED = SOCKET.index("soc"), SOCKET.index("needed_soc")


class ShapedVecEnv(VecEnvWrapper):
    """Adds the shaping term to the rewards of a V2G vector environment."""

    def __init__(self, venv: VecEnv, params: V2GParams, gamma: float, energy_usd_kwh: float) -> None:
        super().__init__(venv)
        capacity_kwh = float(np.mean(params.session.battery_kwh))
        self.gamma, self.n_sockets = gamma, params.n_sockets
        self.weight = np.zeros(N_SOCKET)
        self.weight[NEEDED] = -params.cost.shortfall_usd_kwh
        self.weight[SOC] = energy_usd_kwh
        self.weight *= capacity_kwh * params.reward_scale
        self._now = np.zeros(venv.num_envs)

    def __getstate__(self) -> dict[str, Any]:
        """Without the base class's list of class members, which cannot be pickled."""
        return {key: value for key, value in self.__dict__.items() if key != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))

    def potential(self, obs: Float32Array) -> FloatArray:
        """Worth of the batteries (B,), in units of reward."""
        sockets = obs[:, -self.n_sockets * N_SOCKET :].reshape(len(obs), self.n_sockets, N_SOCKET)
        return sockets.sum(1, dtype=np.float64) @ self.weight

    def reset(self) -> Any:
        """Begin every episode, whose potential counts as paid already."""
        obs = cast(Float32Array, self.venv.reset())
        self._now = self.potential(obs)
        return obs

    def step_wait(self) -> Any:
        """One stage of every row, its reward shaped."""
        obs, reward, done, infos = self.venv.step_wait()
        later = self.potential(cast(Float32Array, obs))
        shaped = reward + self.gamma * np.where(done, 0.0, later) - self._now
        self._now = later
        return obs, shaped.astype(np.float32), done, infos
