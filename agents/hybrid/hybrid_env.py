"""Stage 3's environment: an action is four corrections of the critic, the annealer does the rest.

A day's cost varies by hundreds of dollars with its outage, a correction moves it by a few. So the reward
is what the corrected agent saves against the uncorrected one on the same day, stage by stage: every
episode has a twin that plays with zero corrections. The twin does not depend on the actions, so the
best policy is the same; what the day brings to both cancels.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.controller import Controller
from qevgrid.agents.hybrid.corrections import NAMES, STATE, TUNED, Corrections, correction_state
from qevgrid.agents.hybrid.critic import Critic
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import Batch, V2GCore


class HybridEnv(VecEnv):
    """B days side by side, each with its twin; resets a row as its day ends. Zero actions earn exactly 0."""

    render_mode: str | None = None

    def __init__(self, core: V2GCore, config: HybridConfig, base: Corrections = TUNED) -> None:
        self.core, self.config, self.base = core, config, base
        self.controller: Controller | None = None
        self.batch, self.twin = Batch(core, config.n_envs), Batch(core, config.n_envs)
        self._return = np.zeros(config.n_envs)
        self._next_seed: list[int] = []
        self._actions = np.zeros((config.n_envs, len(NAMES)))
        state = gym.spaces.Box(-1.0, 1.0, (len(STATE),), np.float32)
        super().__init__(config.n_envs, state, gym.spaces.Box(-1.0, 1.0, (len(NAMES),), np.float32))

    def use(self, critic: Critic) -> None:
        """The critic that prices energy from now on."""
        self.controller = Controller(critic, self.core, self.config)

    def reset(self) -> Float32Array:
        """Begin every day; ``seed`` says which."""
        if any(s is None for s in self._seeds):
            raise UserError("HybridEnv needs seeds before its first reset")
        self._next_seed = [int(s) for s in self._seeds if s is not None]
        self._begin(np.arange(self.num_envs))
        return self._state()

    def _begin(self, rows: np.ndarray) -> None:
        """New days for ``rows``, the same for their twins; a row's next day has the seed ``num_envs`` further."""
        seeds = [self._next_seed[i] for i in rows]
        for batch in (self.batch, self.twin):
            batch.start(rows, [np.random.default_rng(seed) for seed in seeds])
        for i in rows:
            self._next_seed[i] += self.num_envs
        self._return[rows] = 0.0

    def _state(self) -> Float32Array:
        return correction_state(self.batch.view()).astype(np.float32)

    def _play(self, batch: Batch, actions: FloatArray) -> FloatArray:
        """Cost (B,) of one stage with these corrections."""
        assert self.controller is not None, "use() must give a critic first"
        view = batch.view()
        forecast = self.controller.forecast(view)
        fixes = [self.base.moved(a) for a in actions]
        batch.step(np.stack([self.controller.act(view, forecast, b, fix)[0] for b, fix in enumerate(fixes)]))
        return batch.outcome.total_usd.copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the corrections for ``step_wait``."""
        self._actions = np.asarray(actions, float)

    def step_wait(self) -> tuple[Float32Array, Float32Array, np.ndarray, list[dict[str, Any]]]:
        """One stage of every day and of its twin."""
        usual = self._play(self.twin, np.zeros_like(self._actions))
        reward = (usual - self._play(self.batch, self._actions)) * self.core.params.reward_scale
        self._return += reward
        done, infos = self.batch.over, [{} for _ in range(self.num_envs)]
        if done.any():
            last = self._state()
            for i in np.flatnonzero(done):
                episode = {"r": float(self._return[i]), "l": self.core.n_stages, "t": 0.0}
                infos[i] = {"terminal_observation": last[i], "TimeLimit.truncated": False, "episode": episode}
            self._begin(np.flatnonzero(done))
        return self._state(), reward.astype(np.float32), done, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Row i's days have the seeds ``seed + i``, ``seed + i + num_envs``, ..."""
        self._seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        return self._seeds

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of this environment, the same for every row."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute; rows cannot differ."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method once for all rows."""
        result = getattr(self, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No row is."""
        return [False for _ in self._get_indices(indices)]
