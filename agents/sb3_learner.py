"""Learners that are PPO of Stable-Baselines3, or its masked form, whatever their world: rounds, checkpoints, files."""

import pickle
import zipfile
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

from qevgrid.agents import RIVALS, make_rival
from qevgrid.agents.learner import Hook, Learner
from qevgrid.envs.errors import UserError

TRAINING_SEEDS = 2**40
"""Training episodes start from seeds beyond every evaluation seed."""
ROWS_PER_RUN = 2**20


class SB3Learner(Learner):
    """PPO on an environment of ours.

    A kind says ``environment``, ``policy``, ``normalise``, ``prepare``, ``agent``, and another ``algorithm`` than
    PPO; it adds what it keeps besides to ``state`` and ``set_state``. Whatever those need must be set before
    ``_model`` is called.
    """

    algorithm: Any = PPO
    config: Any  # its RoundKeys
    params: Any
    seed: int
    model: Any  # a PPO

    @abstractmethod
    def environment(self) -> VecEnv:
        """The vector environment that PPO learns on, not seeded yet; it can be pickled."""

    @abstractmethod
    def policy(self) -> tuple[str | type[BasePolicy], dict[str, Any]]:
        """SB3's policy and its keyword arguments."""

    def normalise(self, buffer: RolloutBuffer) -> None:
        """Bring the advantages of a round to scale, in place."""
        buffer.advantages = (buffer.advantages - buffer.advantages.mean()) / (buffer.advantages.std() + 1e-8)

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

    def record(self, logger: Logger) -> None:
        """Add scalars to those of SB3, before each round."""

    def learn(self, total_steps: int, hook: Hook) -> None:
        """Rounds of ``n_envs * n_steps`` stages and an update each."""
        fresh = self.model._last_obs is None  # a checkpoint of step 0 has begun its episodes
        left = total_steps - self.steps
        if left > 0:
            self.model.learn(left, callback=_Rounds(self, hook), reset_num_timesteps=fresh, log_interval=1)

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

    def _model(self) -> Any:
        c, (policy, arguments) = self.config, self.policy()
        model = self.algorithm(
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

    def __init__(self, learner: SB3Learner, hook: Hook) -> None:
        super().__init__()
        self.learner, self.hook = learner, hook

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.learner.record(self.learner.model.logger)
        self.hook(self.learner)

    def _on_rollout_end(self) -> None:
        self.learner.normalise(self.learner.model.rollout_buffer)


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


def acting_parameters(policy: torch.nn.Module) -> int:
    """Weights that an action depends on: all but the critic's and the exploration noise."""
    learning = ("value_net", "critic", "log_std")
    return sum(p.numel() for name, p in policy.named_parameters() if not any(word in name for word in learning))


def unzipped(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and weights of a saved policy."""
    try:
        data, weights, _ = load_from_zip_file(path, device="cpu")
    except (OSError, ValueError, AssertionError, zipfile.BadZipFile) as err:
        raise UserError(f"{path}: is not a readable model ({err}); train anew") from None
    if data is None or "policy_class" not in data or "policy" not in weights:
        raise UserError(f"{path}: is not a model that train.py saved; train anew")
    return data, weights


def check_warm_start(name: str, problem_id: str, instead: str) -> None:
    """``UserError`` unless ``name`` is a rival that a policy can imitate; ``instead`` is one."""
    rivals = RIVALS[problem_id].paths
    if name not in rivals:
        raise UserError(f"agent.warm_start={name!r}: not a rival; rivals: {', '.join(rivals)}")
    if make_rival(name, problem_id=problem_id).needs_scenario:
        raise UserError(f"agent.warm_start={name}: sees the future, which no policy can imitate; try {instead}")
