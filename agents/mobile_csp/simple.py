"""Rivals of Mobile CSP that do not look ahead. All but ``optimum`` read the ``View`` only."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, Action
from qevgrid.envs.mobile_csp.core import MobileCore, View
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.types import BoolArray, Float32Array, IntArray

STATIC_SEED, STATIC_STORMS = 900_000, 30
"""Training storms of ``static``, far from those of any evaluation."""


def stay(view: View) -> Action:
    """Everybody stays, the sites decide the powers."""
    return Action(np.full(view.units.site.shape, STAY), np.full(view.units.site.shape, AUTO))


@dataclass
class Idle(Agent):
    """The naive controller, score 0: units stay where they begin."""

    name: str = "idle"

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """Stay."""
        return stay(info["view"])


@dataclass
class Random(Agent):
    """Now and then a trip to any site that can be reached and has a free slot."""

    name: str = "random"
    move_share: float = 0.15
    seed: int = 0

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """A trip with probability ``move_share`` for each idle unit; the same storm gets the same trips."""
        view: View = info["view"]
        action, free = stay(view), can_go(view)
        for b, t in enumerate(view.stage):
            storm = hashlib.blake2b(view.gust_mph[b].tobytes(), digest_size=8).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(storm, "little"), int(t) + 1])
            for i in range(free.shape[1]):
                moves, pick = rng.random() < self.move_share, rng.random()
                choices = np.flatnonzero(free[b, i])
                if moves and len(choices):
                    action.site[b, i] = choices[int(pick * len(choices))]
        return action


def can_go(view: View) -> BoolArray:
    """Sites (B, M, D) to which an idle unit can set out: a road is open and a slot is not spoken for."""
    return view.mask[:, :, : len(view.sites.slots)]


@dataclass
class Static(Agent):
    """Every unit drives to a site chosen beforehand, and stays: the best sites of 30 training storms."""

    name: str = "static"

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """Go to the chosen site as soon as a road is open."""
        view: View = info["view"]
        action = stay(view)
        action.site[:] = static_sites(view.plant.params)
        return action


@functools.lru_cache(maxsize=16)
def static_sites(params: MobileCSPParams) -> IntArray:
    """Sites (M,), chosen one after another, each the best beside those before it on the training storms."""
    core = MobileCore(params)
    scenario = core.sampler.sample([np.random.default_rng(STATIC_SEED + k) for k in range(STATIC_STORMS)])
    chosen = np.full(core.n_units, core.plant.start_site)
    best = _mean_usd(core, scenario, chosen)
    for i in range(core.n_units):
        for d in range(core.n_sites):
            if (chosen[:i] == d).sum() >= core.plant.sites.slots[d]:
                continue
            trial = chosen.copy()
            trial[i] = d
            usd = _mean_usd(core, scenario, trial)
            if usd < best:
                best, chosen = usd, trial
    chosen.setflags(write=False)
    return chosen


def _mean_usd(core: MobileCore, scenario: Any, sites: IntArray) -> float:
    """Mean cost of driving to ``sites`` (M,) and staying there."""
    batch, total = core.batch(STATIC_STORMS), 0.0
    batch.load(np.arange(STATIC_STORMS), scenario)
    shape = batch.state.site.shape
    action = Action(np.broadcast_to(sites, shape).copy(), np.full(shape, AUTO))
    while not batch.over.all():
        batch.step(action)
        total += float(batch.outcome.total_usd.mean())
    return total
