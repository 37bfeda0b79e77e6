"""What decides. Rivals are known by name, learned agents by their run folder; all are loaded lazily."""

import difflib
import importlib
from pathlib import Path
from typing import Any

from qevgrid.agents.base import Agent
from qevgrid.envs.errors import UserError

RIVALS = {
    "idle": "qevgrid.agents.heuristics:Idle",
    "cheap": "qevgrid.agents.heuristics:Cheap",
    "llf": "qevgrid.agents.heuristics:LeastLaxityFirst",
    "tou": "qevgrid.agents.heuristics:TimeOfUse",
    "serve": "qevgrid.agents.heuristics:ChargeAndServe",
    "rolling": "qevgrid.agents.rolling:Rolling",
    "rolling_reserve": "qevgrid.agents.rolling:rolling_reserve",
    "optimum": "qevgrid.agents.optimum:Optimum",
}
"""Rivals by name: idle is the ruler's 0, optimum its 1."""

LEARNERS = {"ppo": "qevgrid.agents.ppo:PPOAgent"}
"""Learned agents by the ``kind`` of their configuration; each has ``load(folder, core)``."""


def load_object(path: str) -> Any:
    """The object that a "module:name" string stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def make_rival(name: str) -> Agent:
    """A rival by name; an unknown one is a ``UserError`` that names the nearest."""
    if name not in RIVALS:
        near = difflib.get_close_matches(name, RIVALS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{name!r} is neither a rival nor a run folder; {hint}rivals: {', '.join(RIVALS)}")
    return load_object(RIVALS[name])()


def is_rival(name: str) -> bool:
    """Whether ``name`` is a rival's; a folder of that name in the way does not count."""
    return name in RIVALS or not Path(name).exists()
