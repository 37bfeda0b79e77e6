"""Classical PPO (Schulman et al. 2017) by Stable-Baselines3 on the native vector environment."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import RIVALS, make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.learner import Hook, Learner
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.agents.regimes import Regimes
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.agents.shaping import ShapedVecEnv
from qevgrid.agents.shared_policy import SharedPolicy
from qevgrid.agents.warm_start import imitate
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.observe import N_SOCKET
from qevgrid.envs.v2g.params import V2GParams

TRAINING_SEEDS = 2**40
"""Training episodes start from seeds beyond every evaluation seed."""
ROWS_PER_RUN = 2**20


def build(config: PPOConfig, params: V2GParams, seed: int) -> "PPOLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return PPOLearner(config, params, seed)


class PPOLearner(Learner):
    """PPO on the configured environment.

    A learner that is PPO on something else overrides ``environment``, ``policy``, ``normalise`` and
    ``prepare``, its agent's ``agent``, ``save`` and ``parameters``, and adds what it keeps besides to
    ``state`` and ``set_state``. Whatever those need must be set before the model is made.
    """

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

    def state(self) -> dict[str, Any]:
        """Everything that the next round depends on; it is pickled as one, so shared objects stay shared."""
        model = self.model
        return {
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "env": model.env,
            "num_timesteps": model.num_timesteps,
            "n_updates": model._n_updates,
            "last_obs": model._last_obs,
            "last_episode_starts": model._last_episode_starts,
            "ep_info_buffer": model.ep_info_buffer,
            "ep_success_buffer": model.ep_success_buffer,
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state(),
        }

    def set_state(self, rest: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        model = self.model
        model.policy.load_state_dict(rest["policy"])
        model.policy.optimizer.load_state_dict(rest["optimizer"])
        model.env = rest["env"]
        model.num_timesteps, model._n_updates = rest["num_timesteps"], rest["n_updates"]
        model._last_obs, model._last_episode_starts = rest["last_obs"], rest["last_episode_starts"]
        model.ep_info_buffer, model.ep_success_buffer = rest["ep_info_buffer"], rest["ep_success_buffer"]
        torch.set_rng_state(rest["torch"])
        np.random.set_state(rest["numpy"])

    # --- the contract ---

    @property
    def steps(self) -> int:
        """Environment steps done so far."""
        return self.model.num_timesteps

    @property
    def parameters(self) -> int:
        """Weights that an action depends on."""
        return acting_parameters(self.model.policy)

    def set_logger(self, logger: Logger) -> None:
        """SB3's own scalars go there."""
        self.model.set_logger(logger)

    def prepare(self) -> None:
        """First weights from a rival's example, if the configuration names one."""
        c = self.config
        if c.warm_start is not None:
            rival = make_rival(c.warm_start, problem_id=self.params.id)
            imitate(self.model, rival, Regimes(self.params), c.warm_days, c.warm_epochs, self.seed, c.warm_lr)

    def record(self, logger: Logger) -> None:
        """Add scalars to those of SB3, before each round."""

    def learn(self, total_steps: int, hook: Hook) -> None:
        """Rounds of ``n_envs * n_steps`` stages and an update each."""
        fresh = self.model._last_obs is None  # a checkpoint of step 0 has begun its episodes
        left = total_steps - self.steps
        if left > 0:
            self.model.learn(left, callback=_Rounds(self, hook), reset_num_timesteps=fresh, log_interval=1)

    def agent(self, name: str, core: V2GCore) -> Agent:
        """The present policy, not a copy."""
        return PPOAgent(self.model.policy, name, _levels(core))

    def save(self, path: Path) -> None:
        """SB3's zip file."""
        self.model.save(path)

    def checkpoint(self, path: Path) -> None:
        """Pickle ``state``."""
        path.write_bytes(pickle.dumps(self.state()))

    def restore(self, path: Path) -> None:
        """Unpickle what ``checkpoint`` wrote."""
        self.set_state(pickle.loads(path.read_bytes()))

    # --- inside ---

    def _model(self) -> PPO:
        c, (policy, arguments) = self.config, self.policy()
        model = PPO(
            policy,
            self.environment(),
            learning_rate=_falling(c.lr, c.lr * c.lr_end_share),
            n_steps=c.n_steps,
            batch_size=c.batch_size,
            n_epochs=c.n_epochs,
            gamma=c.gamma,
            gae_lambda=c.gae_lambda,
            clip_range=c.clip_range,
            ent_coef=c.ent_coef,
            vf_coef=c.vf_coef,
            max_grad_norm=c.max_grad_norm,
            normalize_advantage=False,  # ``normalise`` does it
            policy_kwargs=arguments,
            seed=self.seed,
            device="cpu",
        )
        assert model.env is not None
        first = TRAINING_SEEDS + ROWS_PER_RUN * self.seed
        model.env.seed(first)  # PPO has seeded it with the bare seed, an evaluation's
        return model


class _Rounds(BaseCallback):
    """Calls the hook between two rounds, when weights, optimiser and episodes are at rest."""

    def __init__(self, learner: PPOLearner, hook: Hook) -> None:
        super().__init__()
        self.learner, self.hook = learner, hook

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.learner.record(self.learner.model.logger)
        self.hook(self.learner)

    def _on_rollout_end(self) -> None:
        self.learner.normalise(self.learner.model.rollout_buffer)


def _check_warm_start(config: PPOConfig, params: V2GParams) -> None:
    name = config.warm_start
    if name is None:
        return
    rivals = RIVALS[params.id].paths
    if name not in rivals:
        raise UserError(f"agent.warm_start={name!r}: not a rival; rivals: {', '.join(rivals)}")
    if make_rival(name, problem_id=params.id).needs_scenario:
        raise UserError(f"agent.warm_start={name}: sees the future, which no policy can imitate; try tou")
    if params.action != "box":
        raise UserError("agent.warm_start needs env.action=box; set agent.warm_start=null")


def check_batch(config: Any) -> None:
    """``UserError`` unless the rounds divide into batches."""
    stages = config.n_envs * config.n_steps
    if stages % config.batch_size:
        divisors = [k for k in range(2, stages + 1) if stages % k == 0]
        near = min(divisors, key=lambda k: abs(k - config.batch_size))
        raise UserError(f"agent.batch_size={config.batch_size}: must divide n_envs * n_steps = {stages}; try {near}")


def _falling(start: float, end: float) -> Callable[[float], float]:
    """Linear schedule over the share of training that is left; saved by value with every model."""
    return lambda left: end + (start - end) * left


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


def acting_parameters(policy: torch.nn.Module) -> int:
    """Weights that an action depends on: all but the critic's and the exploration noise."""
    learning = ("value_net", "critic", "log_std")
    return sum(p.numel() for name, p in policy.named_parameters() if not any(word in name for word in learning))


def _levels(core: V2GCore) -> FloatArray | None:
    """What the discrete actions stand for; None where they are continuous."""
    return core.levels if core.params.action == "levels" else None


def unzipped(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and weights of a saved policy."""
    try:
        data, weights, _ = load_from_zip_file(path, device="cpu")
    except (OSError, ValueError, AssertionError, zipfile.BadZipFile) as err:
        raise UserError(f"{path}: is not a readable model ({err}); train anew") from None
    if data is None or "policy_class" not in data or "policy" not in weights:
        raise UserError(f"{path}: is not a model that train.py saved; train anew")
    return data, weights


def action_space(core: V2GCore) -> gym.Space[Any]:
    """The actions that a policy for ``core`` emits."""
    if core.params.action == "levels":
        return gym.spaces.MultiDiscrete(np.full(core.n_sockets, core.params.n_levels))
    return gym.spaces.Box(-1.0, 1.0, (core.n_sockets,), np.float32)
