"""Training in three stages: critic from duals, again on its own states, then PPO over the corrections."""

import sys
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid import dataset
from qevgrid.agents.hybrid.agent import HybridAgent
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.corrections import Actor, Corrections
from qevgrid.agents.hybrid.critic import Critic
from qevgrid.agents.hybrid.dataset import Examples
from qevgrid.agents.hybrid.hybrid_env import HybridEnv
from qevgrid.agents.hybrid.model import Model
from qevgrid.agents.ppo import PPOLearner
from qevgrid.agents.sb3_learner import ROWS_PER_RUN, TRAINING_SEEDS, check_batch
from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams

__all__ = ["HybridAgent", "HybridLearner", "build"]

EXAMPLE = "tou"
"""The rival whose states stage 1 labels."""
HABIT_DAYS = 100
STAGE_SEEDS = ROWS_PER_RUN // 2
"""Stage 1 and 2 draw days from the second half of a run's seeds."""
HIDDEN = [32, 32]


def build(config: HybridConfig, params: V2GParams, seed: int) -> "HybridLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return HybridLearner(config, params, seed)


class HybridLearner(PPOLearner):
    """PPO over the corrections, once the critic is there."""

    config: HybridConfig  # type: ignore[assignment]

    def __init__(self, config: HybridConfig, params: V2GParams, seed: int) -> None:
        torch.set_num_threads(config.threads)
        _check(config, params)
        self.config, self.params, self.seed = config, params, seed
        self.core, self.base = V2GCore(params), Corrections()
        self.critic: Critic | None = None
        self.model = self._model()

    def environment(self) -> VecEnv:
        """Days whose actions are corrections."""
        return HybridEnv(self.core, self.config, self.base)

    def policy(self) -> tuple[str | type[ActorCriticPolicy], dict[str, Any]]:
        """A small network that starts at zero corrections."""
        return "MlpPolicy", {"net_arch": {"pi": HIDDEN, "vf": HIDDEN}, "log_std_init": self.config.log_std_init}

    def normalise(self, buffer: RolloutBuffer) -> None:
        """Advantages to unit spread: the twins have taken out what the day brings."""
        buffer.advantages /= buffer.advantages.std() + 1e-8

    def prepare(self) -> None:
        """Stages 1 and 2: labels for a rival's states, then for the states of what was learned from them."""
        rival = make_rival(EXAMPLE)
        examples = self._label(rival, 0)
        self._take(self._fit(examples, rival))
        own = self.agent("stage 1", self.core)
        examples = Examples.join([examples, self._label(own, 1)])
        self._take(self._fit(examples, own))

    def agent(self, name: str, core: V2GCore) -> Agent:
        """What has been learned so far."""
        return HybridAgent(self._trained(), core, self.config, name)

    def save(self, path: Path) -> None:
        """One small file."""
        self._trained().save(path)

    @property
    def parameters(self) -> int:
        """Critic and policy, without PPO's own value network."""
        return self._trained().parameters

    def state(self) -> dict[str, Any]:
        """The critic too."""
        return super().state() | {"critic": self.critic}

    def set_state(self, rest: dict[str, Any]) -> None:
        """The critic too."""
        super().set_state(rest)
        self.critic = rest["critic"]

    def _days(self, stage: int) -> range:
        """Seeds of a stage's training days."""
        first = TRAINING_SEEDS + ROWS_PER_RUN * self.seed + STAGE_SEEDS + stage * self.config.days
        return range(first, first + self.config.days)

    def _label(self, agent: Agent, stage: int) -> Examples:
        """Duals for states of ``agent``'s days."""
        c, days = self.config, self._days(stage)
        print(f"  stage {stage + 1}: shadow prices of {c.days} days of {agent.name}", flush=True)
        with tqdm(total=len(days), desc=f"stage {stage + 1}", unit="day", disable=not sys.stderr.isatty()) as bar:
            return dataset.collect_parallel(self.core, agent, days, c.stages_per_day, stage, c.threads, bar.update)

    def _fit(self, examples: Examples, agent: Agent) -> Critic:
        """Networks for the examples, habits of ``agent``."""
        c = self.config
        habits = dataset.habits(self.core, agent, self._days(0)[:HABIT_DAYS])
        return dataset.fit(examples, habits, hidden=c.hidden, epochs=c.critic_epochs, lr=c.critic_lr, seed=self.seed)

    def _take(self, critic: Critic) -> None:
        """Use this critic from now on."""
        self.critic = critic
        assert isinstance(self.model.env, HybridEnv)
        self.model.env.use(critic)

    def _trained(self) -> Model:
        """Critic and the policy's mean; a policy that has not learned yet changes nothing."""
        if self.critic is None:
            raise UserError("the critic is not trained yet; call prepare() first")
        return Model(self.critic, self.base, _actor(self.model.policy) if self.steps > 0 else None)


def _actor(policy: Any) -> Actor:
    """The mean of SB3's policy as arrays."""
    layers = [m for m in policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)] + [policy.action_net]
    arrays = [[x.detach().numpy().astype(float).copy() for x in (m.weight.T, m.bias)] for m in layers]
    return Actor(*(tuple(part) for part in zip(*arrays, strict=True)))


def _check(config: HybridConfig, params: V2GParams) -> None:
    """Settings that do not go together."""
    check_batch(config)
    if params.action != "box":
        raise UserError("agent.kind=hybrid sets powers itself; set env.action=box")
    if not config.critic:
        raise UserError(
            "agent.critic=false is an ablation for evaluate.py: there is nothing to train; set agent.critic=true"
        )
    if config.sampler in ("qpu", "leap_hybrid"):
        raise UserError(
            f"agent.sampler={config.sampler}: too slow to train with; train with structured, evaluate with it"
        )
