"""Classical PPO (Schulman et al. 2017) by Stable-Baselines3 on the native vector environment."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.agents.regimes import Regimes
from qevgrid.agents.sb3_learner import SB3Learner, acting_parameters, check_batch, check_warm_start, unzipped
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.agents.shaping import ShapedVecEnv
from qevgrid.agents.shared_policy import SharedPolicy
from qevgrid.agents.warm_start import imitate
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.observe import N_SOCKET
from qevgrid.envs.v2g.params import V2GParams


def build(config: PPOConfig, params: V2GParams, seed: int) -> "PPOLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return PPOLearner(config, params, seed)


class PPOLearner(SB3Learner):
    """PPO on V2G.

    A learner that is PPO on something else overrides ``environment``, ``policy``, ``normalise`` and
    ``prepare``, its agent's ``agent``, ``save`` and ``parameters``, and adds what it keeps besides to
    ``state`` and ``set_state``. Whatever those need must be set before the model is made.
    """

    algorithm = PPO

    def __init__(self, config: PPOConfig, params: V2GParams, seed: int) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.params, self.seed = config, params, seed
        _check_warm_start(config, params)
        check_batch(config)
        self.model = self._model()

    def environment(self) -> VecEnv:
        """The vector environment that PPO learns on, not seeded yet; it can be pickled."""
        c = self.config
        venv = gym.make_vec(self.params.id, num_envs=c.n_envs, params=self.params, autoreset_mode="SameStep")
        env = SB3VecEnv(venv)
        return env if c.shaping_usd_kwh is None else ShapedVecEnv(env, self.params, c.gamma, c.shaping_usd_kwh)

    def policy(self) -> tuple[str | type[ActorCriticPolicy], dict[str, Any]]:
        """SB3's policy and its keyword arguments."""
        c, box = self.config, self.params.action == "box"
        if c.policy == "shared" and not box:
            raise UserError("agent.policy=shared acts in a Box; set agent.policy=mlp or env.action=box")
        actor, critic = list(c.actor), list(c.critic)
        noise = {"log_std_init": c.log_std_init} if box else {}
        if c.policy == "shared":
            return SharedPolicy, {"n_features": N_SOCKET, "actor": actor, "critic": critic} | noise
        return "MlpPolicy", {"net_arch": {"pi": actor, "vf": critic}} | noise

    def normalise(self, buffer: RolloutBuffer) -> None:
        """Bring the advantages of a round to scale, in place."""
        Regimes(self.params).normalise(buffer)

    def prepare(self) -> None:
        """First weights from a rival's example, if the configuration names one."""
        c = self.config
        if c.warm_start is not None:
            rival = make_rival(c.warm_start, problem_id=self.params.id)
            imitate(self.model, rival, Regimes(self.params), c.warm_days, c.warm_epochs, self.seed, c.warm_lr)

    def agent(self, name: str, core: V2GCore) -> Agent:
        """The present policy, not a copy."""
        return PPOAgent(self.model.policy, name, _levels(core))


def _check_warm_start(config: PPOConfig, params: V2GParams) -> None:
    if config.warm_start is None:
        return
    check_warm_start(config.warm_start, params.id, "tou")
    if params.action != "box":
        raise UserError("agent.warm_start needs env.action=box; set agent.warm_start=null")


class PPOAgent(Agent):
    """A trained policy, acting by its mean (``Box``) or its likeliest level."""

    def __init__(self, policy: Any, name: str, levels: FloatArray | None = None) -> None:
        self.policy, self.name, self.levels = policy, name, levels
        self.parameters = acting_parameters(policy)

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """The policy's mean or likeliest action."""
        action, _ = self.policy.predict(obs, deterministic=True)
        return np.asarray(action, float) if self.levels is None else self.levels[action]

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore, config: PPOConfig | None = None) -> "PPOAgent":
        """The policy saved at ``path``, for the sizes of ``core`` if it is a shared one; nothing in ``config`` matters."""
        data, weights = unzipped(path)
        trained_obs, trained_act = data["observation_space"], data["action_space"]
        obs_space = gym.spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)
        act_space = action_space(core)
        shared = data["policy_class"] is SharedPolicy
        same_known = (
            trained_obs.shape[0] - N_SOCKET * trained_act.shape[0] == len(core.labels) - N_SOCKET * core.n_sockets
        )
        fits = (
            same_known
            if shared and core.params.action == "box"
            else (trained_obs == obs_space and trained_act == act_space)
        )
        if not fits:
            raise UserError(
                f"{path}: trained on observations {trained_obs.shape} and actions {trained_act}, but this environment has "
                f"{obs_space.shape} and {act_space}; evaluate with the env.* keys of its config.yaml or train anew"
            )
        policy = data["policy_class"](obs_space, act_space, lambda _: 0.0, **data["policy_kwargs"])
        policy.load_state_dict(weights["policy"])
        policy.set_training_mode(False)
        return cls(policy, name, _levels(core))


def _levels(core: V2GCore) -> FloatArray | None:
    """What the discrete actions stand for; None where they are continuous."""
    return core.levels if core.params.action == "levels" else None


def action_space(core: V2GCore) -> gym.Space[Any]:
    """The actions that a policy for ``core`` emits."""
    if core.params.action == "levels":
        return gym.spaces.MultiDiscrete(np.full(core.n_sockets, core.params.n_levels))
    return gym.spaces.Box(-1.0, 1.0, (core.n_sockets,), np.float32)
