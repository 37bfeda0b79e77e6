"""Classical PPO (Schulman et al. 2017) by Stable-Baselines3 on the native vector environment."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import RIVALS, make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.regimes import Regimes
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.agents.shaping import ShapedVecEnv
from qevgrid.agents.shared_policy import SharedPolicy
from qevgrid.agents.warm_start import imitate
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.observe import N_SOCKET
from qevgrid.envs.v2g.params import STRICT, V2GParams

TRAINING_SEEDS = 2**40
"""Training episodes start from seeds beyond every evaluation seed."""
ROWS_PER_RUN = 2**20

Hidden = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PPOConfig:
    """PPO. The learning rate falls linearly to ``lr_end_share`` of its start."""

    kind: Literal["ppo"] = "ppo"
    policy: Annotated[
        Literal["shared", "mlp"], Field(description="one network for every socket, or one for the whole fleet")
    ] = "shared"
    actor: Annotated[Hidden, Field(description="hidden layers of the actor")] = (32, 32)
    critic: Annotated[Hidden, Field(description="hidden layers of the critic")] = (64, 64)
    lr: Annotated[float, Field(gt=0, le=1, description="learning rate")] = 6e-4
    lr_end_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    n_envs: Annotated[int, Field(ge=1, description="episodes side by side")] = 128
    n_steps: Annotated[int, Field(ge=2, description="stages of each between updates")] = 96
    batch_size: Annotated[int, Field(ge=2)] = 2048
    n_epochs: Annotated[int, Field(ge=1)] = 4
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.999
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    clip_range: Annotated[float, Field(gt=0, le=1)] = 0.2
    ent_coef: Annotated[float, Field(ge=0)] = 0.0
    vf_coef: Annotated[float, Field(ge=0)] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    log_std_init: Annotated[float, Field(ge=-5, le=1, description="log of the first exploration noise")] = -1.2
    shaping_usd_kwh: Annotated[
        float | None, Field(ge=0, description="worth of stored energy in the learner's shaped reward; null: no shaping")
    ] = 0.2
    warm_start: Annotated[
        str | None, Field(description="rival whose example gives the first weights (Box actions); null: from noise")
    ] = "tou"
    warm_days: Annotated[int, Field(ge=2, description="days of that example")] = 768
    warm_epochs: Annotated[int, Field(ge=1)] = 10
    threads: Annotated[int, Field(ge=1, description="threads of torch")] = 2


def training_env(config: PPOConfig, params: V2GParams) -> VecEnv:
    """The vector environment that PPO learns on, not seeded yet."""
    venv = gym.make_vec(params.id, num_envs=config.n_envs, params=params, autoreset_mode="SameStep")
    env = SB3VecEnv(venv)
    return env if config.shaping_usd_kwh is None else ShapedVecEnv(env, params, config.gamma, config.shaping_usd_kwh)


def warm_start(model: PPO, config: PPOConfig, params: V2GParams, seed: int) -> None:
    """First weights from a rival's example, if the configuration names one."""
    if config.warm_start is not None:
        imitate(model, make_rival(config.warm_start), Regimes(params), config.warm_days, config.warm_epochs, seed)


def build(config: PPOConfig, params: V2GParams, seed: int) -> PPO:
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    torch.set_num_threads(config.threads)
    if config.warm_start is not None:
        if config.warm_start not in RIVALS:
            raise UserError(f"agent.warm_start={config.warm_start!r}: not a rival; rivals: {', '.join(RIVALS)}")
        rival = make_rival(config.warm_start)
        if rival.needs_scenario:
            raise UserError(
                f"agent.warm_start={config.warm_start}: sees the future, which no policy can imitate; try tou"
            )
        if params.action != "box":
            raise UserError("agent.warm_start needs env.action=box; set agent.warm_start=null")
    start, end = config.lr, config.lr * config.lr_end_share
    batch = config.n_envs * config.n_steps
    if batch % config.batch_size:
        raise UserError(
            f"agent.batch_size={config.batch_size}: must divide n_envs * n_steps = {batch}; try {_divisor(batch, config.batch_size)}"
        )
    model = PPO(
        SharedPolicy if _is_shared(config, params) else "MlpPolicy",
        training_env(config, params),
        learning_rate=lambda left: end + (start - end) * left,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        normalize_advantage=False,  # Regimes does it
        policy_kwargs=_policy_arguments(config, params),
        seed=seed,
        device="cpu",
    )
    assert model.env is not None
    model.env.seed(TRAINING_SEEDS + ROWS_PER_RUN * seed)  # PPO has seeded it with the bare seed, an evaluation's
    return model


def _is_shared(config: PPOConfig, params: V2GParams) -> bool:
    if config.policy == "shared" and params.action == "levels":
        raise UserError("agent.policy=shared acts in a Box; set agent.policy=mlp or env.action=box")
    return config.policy == "shared"


def _policy_arguments(config: PPOConfig, params: V2GParams) -> dict[str, Any]:
    actor, critic = list(config.actor), list(config.critic)
    if _is_shared(config, params):
        return {"n_features": N_SOCKET, "actor": actor, "critic": critic, "log_std_init": config.log_std_init}
    arguments: dict[str, Any] = {"net_arch": {"pi": actor, "vf": critic}}
    if params.action == "box":
        arguments["log_std_init"] = config.log_std_init
    return arguments


def _divisor(batch: int, wanted: int) -> int:
    return min((k for k in range(2, batch + 1) if batch % k == 0), key=lambda k: abs(k - wanted))


class RoundCallback(BaseCallback):
    """Calls ``hook(model)`` between two rounds, when weights, optimiser and episodes are at rest."""

    def __init__(self, hook: Callable[[PPO], None], regimes: Regimes) -> None:
        super().__init__()
        self.hook, self.regimes = hook, regimes

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        assert isinstance(self.model, PPO)
        self.hook(self.model)

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, PPO)
        self.regimes.normalise(self.model.rollout_buffer)


def save_checkpoint(model: PPO, path: Path) -> None:
    """Everything that the next round depends on, so that a resumed run equals an uninterrupted one."""
    rest = {
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
    path.write_bytes(pickle.dumps(rest))


def load_checkpoint(model: PPO, path: Path) -> None:
    """Put a fresh learner where the checkpoint left off."""
    rest = pickle.loads(path.read_bytes())
    model.policy.load_state_dict(rest["policy"])
    model.policy.optimizer.load_state_dict(rest["optimizer"])
    model.env = rest["env"]
    model.num_timesteps, model._n_updates = rest["num_timesteps"], rest["n_updates"]
    model._last_obs, model._last_episode_starts = rest["last_obs"], rest["last_episode_starts"]
    model.ep_info_buffer, model.ep_success_buffer = rest["ep_info_buffer"], rest["ep_success_buffer"]
    torch.set_rng_state(rest["torch"])
    np.random.set_state(rest["numpy"])


def learn(model: PPO, params: V2GParams, total_steps: int, hook: Callable[[PPO], None]) -> None:
    """Run rounds until ``total_steps`` environment steps, ``hook`` before each."""
    fresh = model._last_obs is None  # a checkpoint of step 0 has begun its episodes
    left = total_steps - model.num_timesteps
    if left > 0:
        model.learn(left, callback=RoundCallback(hook, Regimes(params)), reset_num_timesteps=fresh, log_interval=1)


class PPOAgent(Agent):
    """A trained policy, acting by its mean (``Box``) or its likeliest level."""

    def __init__(self, policy: Any, name: str, levels: FloatArray | None = None) -> None:
        self.policy, self.name, self.levels = policy, name, levels
        self.parameters = sum(p.numel() for p in policy.parameters())

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """The policy's mean or likeliest action."""
        action, _ = self.policy.predict(obs, deterministic=True)
        return np.asarray(action, float) if self.levels is None else self.levels[action]

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore) -> "PPOAgent":
        """The policy saved at ``path``, for the sizes of ``core`` if it is a shared one."""
        data, weights = _unzipped(path)
        trained_obs, trained_act = data["observation_space"], data["action_space"]
        obs_space = gym.spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)
        act_space = _action_space(core)
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
        return cls(policy, name, core.levels if core.params.action == "levels" else None)


def _unzipped(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and weights of a saved policy."""
    try:
        data, weights, _ = load_from_zip_file(path, device="cpu")
    except (OSError, ValueError, AssertionError, zipfile.BadZipFile) as err:
        raise UserError(f"{path}: is not a readable model ({err}); train anew") from None
    if data is None or "policy_class" not in data or "policy" not in weights:
        raise UserError(f"{path}: is not a model that train.py saved; train anew")
    return data, weights


def _action_space(core: V2GCore) -> gym.Space[Any]:
    if core.params.action == "levels":
        return gym.spaces.MultiDiscrete(np.full(core.n_sockets, core.params.n_levels))
    return gym.spaces.Box(-1.0, 1.0, (core.n_sockets,), np.float32)
