"""Masked PPO (Huang and Ontañón 2022) of sb3-contrib on the sequential form of Mobile CSP, with a scorer as policy."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.acting import ScorerAgent
from qevgrid.agents.mobile_csp.config import MaskedPPOConfig
from qevgrid.agents.mobile_csp.features import check_features
from qevgrid.agents.mobile_csp.imitate import Course, imitate
from qevgrid.agents.mobile_csp.scorer import ScorerPolicy, check_spaces
from qevgrid.agents.sb3_learner import ROWS_PER_RUN, TRAINING_SEEDS, SB3Learner, check_batch, check_warm_start, unzipped
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.kernel import N_SITE
from qevgrid.envs.mobile_csp.params import MobileCSPParams

WARM_SEEDS = ROWS_PER_RUN // 2
"""The rival's example is of storms in the second half of a run's seeds."""


def build(config: MaskedPPOConfig, params: MobileCSPParams, seed: int) -> "MaskedPPOLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return MaskedPPOLearner(config, params, seed)


class MaskedPPOLearner(SB3Learner):
    """PPO that chooses for one idle unit after another, whichever form the configuration names."""

    algorithm = MaskablePPO
    config: MaskedPPOConfig

    def __init__(self, config: MaskedPPOConfig, params: MobileCSPParams, seed: int) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.params, self.seed = config, params, seed
        check_batch(config)
        check_features(config.features)
        if config.warm_start is not None:
            check_warm_start(config.warm_start, params.id, "rolling")
        self.model = self._model()
        self.report = _circuit_report(config, self.model.policy)

    def environment(self) -> VecEnv:
        """Storms in the sequential form."""
        params = dataclasses.replace(self.params, form="sequential")
        venv = gym.make_vec(params.id, num_envs=self.config.n_envs, params=params, autoreset_mode="SameStep")
        return SB3VecEnv(venv)

    def policy(self) -> tuple[type[ScorerPolicy], dict[str, Any]]:
        """`ScorerPolicy` and what it is made of."""
        return ScorerPolicy, policy_arguments(self.config, self.params, self.seed)

    def prepare(self) -> None:
        """First weights from a rival's example, if the configuration names one."""
        c = self.config
        if c.warm_start is None:
            return
        first = TRAINING_SEEDS + ROWS_PER_RUN * self.seed + WARM_SEEDS
        core = MobileCore(dataclasses.replace(self.params, form="joint"))
        rival = make_rival(c.warm_start, problem_id=self.params.id)
        course = Course(c.warm_storms, c.warm_rounds, c.warm_epochs, c.warm_lr, c.vf_coef)
        imitate(self.model, rival, core, course, first, self.seed)

    def record(self, logger: Logger) -> None:
        """The circuit, if there is one."""
        if self.report is not None:
            logger.record("vqc/parameters", self.parameters)
            self.report.record(logger)

    def agent(self, name: str, core: MobileCore) -> Agent:
        """The present policy, not a copy."""
        return ScorerAgent(self.model.policy, name, core)

    def state(self) -> dict[str, Any]:
        """Circuits run, too."""
        return super().state() | {"circuits": [layer.executor.circuits for layer in self.model.policy.circuits()]}

    def set_state(self, rest: dict[str, Any]) -> None:
        """Circuits run, too."""
        super().set_state(rest)
        for layer, count in zip(self.model.policy.circuits(), rest["circuits"], strict=True):
            layer.executor.circuits = count


class MaskedPPOAgent(ScorerAgent):
    """A scorer from its file."""

    @classmethod
    def load(cls, path: Path, name: str, core: MobileCore, config: MaskedPPOConfig | None = None) -> "MaskedPPOAgent":
        """The policy saved at ``path``, for the sizes of ``core``; ``config`` says who runs its circuit.

        Raises ``UserError`` for a model of another body, of other power levels, or with another charging service.
        """
        data, weights = unzipped(path)
        kwargs = dict(data["policy_kwargs"])
        if data["policy_class"] is not ScorerPolicy:
            raise UserError(f"{path}: holds no scorer of sites; evaluate it with its own config.yaml")
        if kwargs["n_levels"] != len(core.levels):
            raise UserError(
                f"{path}: trained with {kwargs['n_levels']} power levels, but this environment has {len(core.levels)}; "
                "evaluate with the env.* keys of its config.yaml or train anew"
            )
        serves = check_spaces(data["observation_space"], data["action_space"], kwargs["n_levels"])[1] > N_SITE
        if serves != (core.n_serving > 0):
            raise UserError(
                f"{path}: trained with{'' if serves else 'out'} the charging service, but this environment has "
                f"{'none' if serves else 'it'}; set env.service.enabled={str(serves).lower()} or train anew"
            )
        if config is not None:
            kwargs = _fitting(path, kwargs, policy_arguments(config, core.params, 0))
        obs = gym.spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)
        policy = ScorerPolicy(obs, gym.spaces.Discrete(core.n_choices), lambda _: 0.0, **kwargs)
        policy.load_state_dict(weights["policy"])
        policy.set_training_mode(False)
        return cls(policy, name, core)


def policy_arguments(config: MaskedPPOConfig, params: MobileCSPParams, seed: int) -> dict[str, Any]:
    """Keyword arguments of `ScorerPolicy`."""
    c = config
    found: dict[str, Any] = {
        "hidden": list(c.hidden),
        "critic_hidden": list(c.critic_hidden),
        "features": c.features,
        "n_levels": params.n_levels if params.power == "levels" else 0,
    }
    if c.body == "mlp":
        return found
    from qevgrid.agents.vqc.build import circuit, execution

    return found | {
        "circuit": circuit(c),
        "uploads": c.uploads,
        "scale_init": c.scale_init,
        "lr_scales": (c.lr_inputs, c.lr_angles, c.lr_head),
        "execution": execution(c, seed),
    }


def _circuit_report(config: MaskedPPOConfig, policy: ScorerPolicy) -> Any:
    if config.body == "mlp":
        return None
    from qevgrid.agents.vqc.report import CircuitReport

    return CircuitReport(policy.circuits(), policy.own["circuit"])


def _fitting(path: Path, trained: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The trained arguments with the given execution; the rest must describe the same actor."""
    for key in ("circuit", "uploads", "hidden", "features"):
        if key == "hidden" and trained.get("circuit") is not None:
            continue
        if trained.get(key) != given.get(key):
            raise UserError(
                f"{path}: was trained with {key}={trained.get(key)}, not {given.get(key)}; evaluate with the agent.* keys "
                "of its config.yaml"
            )
    return trained | {key: given[key] for key in ("execution",) if key in given}
