"""A native vector environment as Stable-Baselines3 wants it, without a wrapper a row."""

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from qevgrid.envs.adapter import CoreVectorEnv
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, Float32Array

Info = dict[str, Any]
StepResult = tuple[Float32Array, Float32Array, BoolArray, list[Info]]


class SB3VecEnv(VecEnv):
    """View of a vector environment that resets in the same step.

    At an episode's end the row's info holds ``terminal_observation``, ``TimeLimit.truncated``,
    ``episode`` (return, length and time, as ``Monitor`` writes them) and ``cost`` (term -> USD
    of the whole episode). The other rows share empty infos, so do not write to them.

    >>> import gymnasium as gym, qevgrid
    >>> options = {"n_sockets": 4, "dt_h": 1.0, "autoreset_mode": "SameStep"}
    >>> env = SB3VecEnv(gym.make_vec("qevgrid/V2G-v0", num_envs=2, **options))
    >>> env.reset().shape == (2, *env.observation_space.shape)
    True
    """

    def __init__(self, venv: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        core_venv = venv.unwrapped
        if not isinstance(core_venv, CoreVectorEnv) or venv is not core_venv:
            raise UserError(f"{venv} is not a bare qevgrid vector environment; see gymnasium.make_vec")
        if core_venv.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise UserError(
                f"SB3 resets in the same step, but autoreset_mode={core_venv.autoreset_mode.value!r}; "
                "make the vector environment with autoreset_mode='SameStep'"
            )
        self.venv: CoreVectorEnv = core_venv
        self._terms = tuple(core_venv.core.cost_terms)
        self._began_s = time.time()
        self._return = np.zeros(core_venv.num_envs)
        self._length = np.zeros(core_venv.num_envs, np.int64)
        self._cost_usd = np.zeros((core_venv.num_envs, len(self._terms)))
        self._quiet: list[Info] = [{} for _ in range(core_venv.num_envs)]
        self._actions: Any = None
        super().__init__(core_venv.num_envs, core_venv.single_observation_space, core_venv.single_action_space)

    def reset(self) -> Float32Array:
        """Begin every episode, with the seeds given to ``seed`` since the last reset."""
        if any(self._options):
            raise UserError("SB3VecEnv takes no reset options; reset its .venv with them")
        obs, info = self.venv.reset(seed=self._seeds)
        self._reset_seeds()
        self._forget(np.ones(self.num_envs, bool))
        self.reset_infos = [_row(info, i) for i in range(self.num_envs)]
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> StepResult:
        """One stage of every row."""
        obs, reward, terminated, truncated, info = self.venv.step(self._actions)
        self._return += reward
        self._length += 1
        if "cost_usd_by_term" in info:
            self._cost_usd += info["cost_usd_by_term"]
        done = terminated | truncated
        infos = self._quiet.copy()
        if done.any():
            self._cost_usd += info["final_info"]["cost_usd_by_term"]
            for i in np.flatnonzero(done):
                infos[i] = self._news(int(i), info, bool(truncated[i] and not terminated[i]))
                self.reset_infos[i] = _row(info, int(i))
            self._forget(done)
        return obs, reward.astype(np.float32), done, infos

    def _news(self, i: int, info: Info, cut: bool) -> Info:
        """Info of a row whose episode ended."""
        episode = {
            "r": round(float(self._return[i]), 6),
            "l": int(self._length[i]),
            "t": round(time.time() - self._began_s, 6),
        }
        return {
            "episode": episode,
            "cost": dict(zip(self._terms, self._cost_usd[i].tolist(), strict=True)),
            "terminal_observation": info["final_obs"][i],
            "TimeLimit.truncated": cut,
        }

    def _forget(self, rows: BoolArray) -> None:
        for total in (self._return, self._length, self._cost_usd):
            total[rows] = 0

    def close(self) -> None:
        """Close the vector environment."""
        self.venv.close()

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds for the next reset: ``seed + i`` for row i; without one, drawn afresh."""
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        return super().seed(seed)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of the vector environment, the same for every row."""
        value = getattr(self.venv, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment; rows cannot differ."""
        if indices is not None and len(set(self._get_indices(indices))) < self.num_envs:
            raise UserError(f"all rows share {attr_name!r}; leave out indices to set it for all")
        setattr(self.venv, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call the vector environment once; an array with a row an episode is dealt out."""
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        by_row = isinstance(result, np.ndarray) and result.shape[:1] == (self.num_envs,)
        return [result[i] if by_row else result for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for ``Monitor``, whose work this class does; there are no wrappers."""
        does = issubclass(wrapper_class, Monitor)
        return [does for _ in self._get_indices(indices)]


def _row(info: Info, i: int) -> Info:
    """What a reset told of row ``i``."""
    keys = [key for key in info if f"_{key}" in info and info[f"_{key}"][i]]
    named = [key for key in keys if not key.startswith(("final_", "cost_usd", "curtailed"))]
    return {key: info[key][i] if isinstance(info[key], np.ndarray) else info[key] for key in named}
