"""First weights of a scorer from a rival's example: its choices by cross-entropy, its costs by the critic.

The first share of the storms is played by the rival, the others by the learner itself, as far as it has come, with the
rival's answers beside it (DAgger, Ross et al. 2011), so that it also knows the way back from its own mistakes.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.acting import choose, masked
from qevgrid.envs.mobile_csp.arrays import STAY
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.sequential import NOBODY, Turns
from qevgrid.envs.types import BoolArray, FloatArray, IntArray

BATCH = 256
LARGEST = 64
"""Storms played side by side."""


class Examples(NamedTuple):
    """K choices of the rival."""

    obs: Tensor  # (K, O)
    mask: Tensor  # (K, L)
    choice: Tensor  # (K,)
    future: Tensor  # (K,) rewards from here to the end


class Course(NamedTuple):
    """How to imitate."""

    storms: int
    rounds: int
    """Shares of the storms; after each the policy is fitted to all examples so far."""
    epochs: int
    lr: float
    """Falls linearly to 0 in each round."""
    vf_coef: float


def imitate(model: Any, rival: Agent, core: MobileCore, course: Course, first_seed: int, seed: int) -> None:
    """Fit a fresh model to ``rival`` on the storms of the seeds from ``first_seed`` on."""
    generator = torch.Generator().manual_seed(seed)
    policy = model.policy
    found: list[Examples] = []
    for number, part in enumerate(np.array_split(np.arange(first_seed, first_seed + course.storms), course.rounds)):
        for k in range(0, len(part), LARGEST):
            found.append(play_examples(policy, rival, core, part[k : k + LARGEST].tolist(), learner_plays=number > 0))
        examples = Examples(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        fit(policy, examples, course, generator)


def fit(policy: Any, examples: Examples, course: Course, generator: torch.Generator) -> None:
    """``course.epochs`` passes over the examples."""
    optimizer = _optimizer(policy, course.lr)
    policy.set_training_mode(True)
    with torch.no_grad():
        seen = policy.actor.features(examples.obs)
    for epoch in range(course.epochs):
        for group in optimizer.param_groups:
            group["lr"] = course.lr * (1 - epoch / course.epochs)
        for rows in torch.randperm(len(examples.obs), generator=generator).split(BATCH):
            part = Examples(*(x[rows] for x in examples))
            loss = _loss(policy, part, [x[rows] for x in seen], course.vf_coef)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _optimizer(policy: Any, lr: float) -> torch.optim.Optimizer:
    """A fresh optimiser on the policy's groups of parameters, each with its share of the rate."""
    groups = [{k: group[k] for k in group if k in ("params", "lr_scale")} for group in policy.optimizer.param_groups]
    return policy.optimizer_class(groups, lr=lr)


def _loss(policy: Any, part: Examples, seen: list[Tensor], vf_coef: float) -> Tensor:
    logits, value = policy.actor.score(*seen), policy.predict_values(part.obs).squeeze(-1)
    return cross_entropy(masked(logits, part.mask), part.choice) + vf_coef * mse_loss(value, part.future)


def play_examples(policy: Any, rival: Agent, core: MobileCore, seeds: list[int], learner_plays: bool) -> Examples:
    """One episode a seed, in the joint form, each period's choices turn by turn.

    Choices that the masks forbid (a rival may count on a slot that is freed later) are played but not learned. Powers
    are those of the learner's form.
    """
    size = len(seeds)
    batch = core.batch(size)
    batch.start(np.arange(size), [np.random.default_rng(seed) for seed in seeds])
    rival.begin({"view": batch.view()})
    kept, rewards, period = [], [], 0
    while not batch.over.all():
        view = batch.view()
        answer = rival.act(batch.observe(), {"view": view})
        turns = Turns(core, view)
        while turns.left:
            row = np.flatnonzero(turns.acting != NOBODY)
            obs, mask = turns.look()
            wanted = _label(core, view, answer, turns.acting)
            follows = row[mask[row, wanted[row]]]
            kept.append((period, follows, obs[follows], mask[follows], wanted[follows]))
            turns.choose(core.decode((choose(policy, obs, mask) if learner_plays else wanted)[:, None]))
        batch.step(turns.chosen)
        rewards.append(batch.outcome.reward.copy())
        period += 1
    return _examples(kept, np.cumsum(np.array(rewards)[::-1], 0)[::-1])


def _label(core: MobileCore, view: Any, answer: Any, acting: IntArray) -> IntArray:
    """The rival's choice (B,) for each acting unit, as a number of the discrete form."""
    row, unit = np.arange(len(acting)), np.maximum(acting, 0)
    site, share = np.asarray(answer.site)[row, unit], np.asarray(answer.share)[row, unit]
    here = view.units.site[row, unit]
    stays = (site == STAY) | (site == here)
    choice = np.where(stays, here, site)
    if len(core.levels):
        level = np.abs(core.levels - share[:, None]).argmin(1)
        choice = np.where(stays & (np.abs(share) <= 1), core.n_sites + level, choice)
    return choice


def _examples(kept: list[tuple[int, IntArray, FloatArray, BoolArray, IntArray]], future: FloatArray) -> Examples:
    """Choices in one table; a choice's future is that of its period."""
    later = [future[period, row] for period, row, *_ in kept]
    obs, mask, choice = (np.concatenate(part) for part in list(zip(*kept, strict=True))[2:])
    return Examples(*map(torch.as_tensor, (obs, mask, choice, np.concatenate(later).astype(np.float32))))
