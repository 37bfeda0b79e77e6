"""What decides. Rivals are known by name, learned agents by their run folder; all are loaded lazily."""

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qevgrid.agents.base import Agent
from qevgrid.envs.errors import UserError

if TYPE_CHECKING:
    from qevgrid.agents.learner import Learner

RIVALS = {
    "idle": "qevgrid.agents.heuristics:Idle",
    "cheap": "qevgrid.agents.heuristics:Cheap",
    "llf": "qevgrid.agents.heuristics:LeastLaxityFirst",
    "tou": "qevgrid.agents.heuristics:TimeOfUse",
    "serve": "qevgrid.agents.heuristics:ChargeAndServe",
    "rolling": "qevgrid.agents.rolling:Rolling",
    "rolling_reserve": "qevgrid.agents.rolling:rolling_reserve",
    "optimum": "qevgrid.agents.optimum:Optimum",
    "hybrid": "qevgrid.agents.hybrid.agent:shipped",
}
"""Rivals by name: idle is the ruler's 0, optimum its 1. One of a learned kind's name takes its settings."""

LEARNERS = {
    "ppo": "qevgrid.agents.ppo:PPOAgent",
    "hybrid": "qevgrid.agents.hybrid.learner:HybridAgent",
    "vqc": "qevgrid.agents.vqc.learner:VQCAgent",
}
"""Learned agents by the ``kind`` of their configuration; `Learner` says what stands beside each in its module."""


def load_object(path: str) -> Any:
    """The object that a "module:name" string stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def make_rival(name: str, settings: Any = None) -> Agent:
    """A rival by name; an unknown one is a ``UserError`` that names the nearest.

    ``settings`` (an agent section) are for the rival of their kind and nobody else.
    """
    if name not in RIVALS:
        near = difflib.get_close_matches(name, RIVALS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{name!r} is neither a rival nor a run folder; {hint}rivals: {', '.join(RIVALS)}")
    make = load_object(RIVALS[name])
    return make(settings) if settings is not None and settings.kind == name else make()


def build_learner(config: Any, params: Any, seed: int) -> "Learner":
    """A fresh learner of the kind of ``config``."""
    module = LEARNERS[config.kind].partition(":")[0]
    return load_object(f"{module}:build")(config, params, seed)


def load_learned(path: Path, name: str, core: Any, config: Any) -> Agent:
    """The agent of ``config``'s kind that was saved at ``path``."""
    return load_object(LEARNERS[config.kind]).load(path, name, core, config)


def is_rival(name: str) -> bool:
    """Whether ``name`` is a rival's; a folder of that name in the way does not count."""
    return name in RIVALS or not Path(name).exists()
