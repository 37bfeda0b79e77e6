"""A learner's first weights from a rival's example: imitate its actions, predict its returns.

PPO starts from there instead of from noise. The rival plays the learner's own training days; the
actor is fitted to its actions (behaviour cloning), the critic to the discounted rewards that follow.
"""

from typing import NamedTuple

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor
from torch.nn.functional import mse_loss

from qevgrid.agents.base import Agent
from qevgrid.agents.regimes import Regimes
from qevgrid.envs.adapter import CoreVectorEnv
from qevgrid.envs.types import FloatArray

BATCH = 1024
DARK_WEIGHT = 8.0
DARK_OVERSHOOT = 0.2
"""In the dark the example asks for a little more: what a site does not need it does not take, but a
network's small error the other way loses a whole load block."""


class Examples(NamedTuple):
    """K stages played by the rival."""

    obs: Tensor  # (K, O)
    action: Tensor  # (K, N)
    weight: Tensor  # (K,) dark stages are rare and dear: they count for more
    future: Tensor  # (K,) discounted rewards from here to the episode's end


def imitate(model: PPO, rival: Agent, regimes: Regimes, days: int, epochs: int, seed: int, lr: float = 1e-3) -> None:
    """Fit a fresh learner to ``days`` days of ``rival``, half of them played by the learner itself.

    The second half are the learner's own days with the rival's answers beside them (DAgger, Ross et
    al. 2011), so that it also knows the way back from its own mistakes. ``epochs`` passes a half.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = _optimizer(model, lr)
    examples: Examples | None = None
    for learner_plays in (False, True):
        new = play_examples(model, rival, regimes, days // 2, learner_plays)
        examples = new if examples is None else Examples(*(torch.cat(pair) for pair in zip(examples, new, strict=True)))
        model.policy.set_training_mode(True)
        for _ in range(epochs):
            for rows in torch.randperm(len(examples.obs), generator=generator).split(BATCH):
                loss = _loss(model, Examples(*(x[rows] for x in examples)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def _optimizer(model: PPO, lr: float) -> torch.optim.Optimizer:
    """A fresh Adam on the policy's groups of parameters, each with its share of the rate."""
    policy = model.policy
    groups = [
        {key: group[key] for key in group if key in ("params", "lr_scale")} for group in policy.optimizer.param_groups
    ]
    return policy.optimizer_class(groups, lr=lr)  # type: ignore[call-arg]


def _loss(model: PPO, part: Examples) -> Tensor:
    features = model.policy.extract_features(part.obs)
    assert isinstance(features, Tensor)
    actor, critic = model.policy.mlp_extractor(features)
    missed = (model.policy.action_net(actor) - part.action).square().mean(1)
    return (part.weight * missed).mean() + mse_loss(model.policy.value_net(critic).squeeze(-1), part.future)


def play_examples(model: PPO, rival: Agent, regimes: Regimes, days: int, learner_plays: bool) -> Examples:
    """Days of the learner's vector environment with the rival's action at each stage."""
    env = model.env
    assert env is not None
    venv = env.unwrapped.venv  # type: ignore[attr-defined]
    assert isinstance(venv, CoreVectorEnv)
    rounds = -(-days // env.num_envs)
    obs, played = env.reset(), []
    rival.begin({"view": venv.view()})
    for _ in range(rounds * venv.core.n_stages):  # type: ignore[attr-defined]
        assert isinstance(obs, np.ndarray)
        action = rival.act(obs, {"view": venv.view()})
        done_now = model.policy.predict(obs, deterministic=True)[0] if learner_plays else action.astype(np.float32)
        later, reward, done, _ = env.step(done_now)
        played.append((obs, action, reward, done))
        obs = later
    seen, actions, rewards, dones = (np.stack(x) for x in zip(*played, strict=True))
    future = _discounted(rewards.astype(float), dones, model.gamma)
    dark = regimes.of(seen)[0]
    weight = np.where(dark, DARK_WEIGHT, 1.0)
    actions = np.where(dark[..., None] & (actions < 0), np.maximum((1 + DARK_OVERSHOOT) * actions, -1.0), actions)
    flat = (x.reshape(-1, *x.shape[2:]).astype(np.float32) for x in (seen, actions, weight, future))
    return Examples(*map(torch.as_tensor, flat))


def _discounted(reward: FloatArray, done: FloatArray, gamma: float) -> FloatArray:
    """Sum of discounted rewards to the end of each episode; all (K, B)."""
    future, total = np.zeros_like(reward), np.zeros(reward.shape[1])
    for t in reversed(range(len(reward))):
        total = reward[t] + gamma * np.where(done[t], 0.0, total)
        future[t] = total
    return future
