"""What decides. Rivals are known by name, learned agents by their run folder; all are loaded lazily."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qevgrid.agents.base import Agent
from qevgrid.envs.errors import UserError
from qevgrid.envs.problem import DEFAULT_ID, load_object

if TYPE_CHECKING:
    from qevgrid.agents.learner import Learner

__all__ = [
    "LEARNERS", "RIVALS", "Rivals", "build_learner", "check_fits", "is_rival", "load_learned", "load_object", "make_rival",
]  # fmt: skip


@dataclass(frozen=True)
class Rivals:
    """Who needs no training in one problem, and the part that each plays in a comparison."""

    paths: dict[str, str]
    """"module:name" of what makes each, by name. One of a learned kind's name takes its settings."""
    naive: str
    """The ruler's 0."""
    best: str
    """The ruler's 1."""
    beside_training: tuple[str, ...]
    """Lines beside a learner's curve."""
    off_scale: tuple[str, ...]
    """Those that would squeeze a picture of learning curves."""
    to_beat: tuple[str, ...]
    """Whom ``train.py`` proposes to compare with."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Kind of the settings that a rival takes, where it is not its name."""

    @property
    def ruler(self) -> tuple[str, str]:
        """Those whose costs make a score of a cost."""
        return self.naive, self.best


RIVALS = {
    "qevgrid/V2G-v0": Rivals(
        paths={
            "idle": "qevgrid.agents.heuristics:Idle",
            "cheap": "qevgrid.agents.heuristics:Cheap",
            "llf": "qevgrid.agents.heuristics:LeastLaxityFirst",
            "tou": "qevgrid.agents.heuristics:TimeOfUse",
            "serve": "qevgrid.agents.heuristics:ChargeAndServe",
            "rolling": "qevgrid.agents.rolling:Rolling",
            "rolling_reserve": "qevgrid.agents.rolling:rolling_reserve",
            "optimum": "qevgrid.agents.optimum:Optimum",
            "hybrid": "qevgrid.agents.hybrid.agent:shipped",
        },
        naive="idle",
        best="optimum",
        beside_training=("idle", "serve", "tou", "optimum"),
        off_scale=("idle", "cheap", "llf"),
        to_beat=("idle", "tou", "rolling_reserve", "optimum"),
    ),
    "qevgrid/MobileCSP-v0": Rivals(
        paths={
            "idle": "qevgrid.agents.mobile_csp.simple:Idle",
            "random": "qevgrid.agents.mobile_csp.simple:Random",
            "static": "qevgrid.agents.mobile_csp.simple:Static",
            "greedy": "qevgrid.agents.mobile_csp.greedy:Greedy",
            "tuned": "qevgrid.agents.mobile_csp.greedy:tuned",
            "rolling": "qevgrid.agents.mobile_csp.planning:Rolling",
            "rolling_scenarios": "qevgrid.agents.mobile_csp.planning:rolling_scenarios",
            "rolling_milp": "qevgrid.agents.mobile_csp.rolling_milp:RollingMILP",
            "hybrid": "qevgrid.agents.mobile_csp.hybrid:hybrid",
            "optimum": "qevgrid.agents.mobile_csp.planning:Optimum",
        },
        naive="idle",
        best="optimum",
        beside_training=("idle", "tuned", "rolling", "optimum"),
        off_scale=("idle", "random", "static"),
        to_beat=("idle", "tuned", "rolling", "optimum"),
        kinds={"hybrid": "mobile_hybrid"},
    ),
}
"""Rivals by the id of their problem."""

LEARNERS = {
    "ppo": "qevgrid.agents.ppo:PPOAgent",
    "hybrid": "qevgrid.agents.hybrid.learner:HybridAgent",
    "vqc": "qevgrid.agents.vqc.learner:VQCAgent",
    "masked_ppo": "qevgrid.agents.mobile_csp.learner:MaskedPPOAgent",
    "mobile_hybrid": "qevgrid.agents.mobile_csp.hybrid_learner:MobileHybridAgent",
}
"""Learned agents by the ``kind`` of their configuration; `Learner` says what stands beside each in its module."""

LEARNS = {
    "ppo": ("qevgrid/V2G-v0",),
    "hybrid": ("qevgrid/V2G-v0",),
    "vqc": ("qevgrid/V2G-v0",),
    "masked_ppo": ("qevgrid/MobileCSP-v0",),
    "mobile_hybrid": ("qevgrid/MobileCSP-v0",),
}
"""Ids of the problems that each kind can learn."""


def make_rival(name: str, settings: Any = None, problem_id: str = DEFAULT_ID) -> Agent:
    """A problem's rival by name; an unknown one is a ``UserError`` that names the nearest.

    ``settings`` (an agent section) are for the rival of their kind and nobody else.
    """
    paths = RIVALS[problem_id].paths
    if name not in paths:
        near = difflib.get_close_matches(name, paths, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{name!r} is neither a rival nor a run folder; {hint}rivals: {', '.join(paths)}")
    make = load_object(paths[name])
    return (
        make(settings) if settings is not None and settings.kind == RIVALS[problem_id].kinds.get(name, name) else make()
    )


def check_fits(kind: str, problem_id: str) -> None:
    """``UserError`` unless agents of that kind can learn that problem."""
    if problem_id in LEARNS[kind]:
        return
    kinds = [other for other, problems in LEARNS.items() if problem_id in problems]
    remedy = f"choose agent.kind={' or '.join(kinds)}" if kinds else "nobody learns it yet; evaluate its rivals"
    raise UserError(f"agent.kind={kind}: cannot act in env.id={problem_id}; {remedy}")


def build_learner(config: Any, params: Any, seed: int) -> "Learner":
    """A fresh learner of the kind of ``config``; ``UserError`` where it does not fit the problem."""
    check_fits(config.kind, params.id)
    module = LEARNERS[config.kind].partition(":")[0]
    return load_object(f"{module}:build")(config, params, seed)


def load_learned(path: Path, name: str, core: Any, config: Any) -> Agent:
    """The agent of ``config``'s kind that was saved at ``path``; ``UserError`` where it does not fit ``core``."""
    check_fits(config.kind, core.params.id)
    return load_object(LEARNERS[config.kind]).load(path, name, core, config)


def is_rival(name: str, problem_id: str = DEFAULT_ID) -> bool:
    """Whether ``name`` is a rival's in that problem; a folder of that name in the way does not count."""
    return name in RIVALS[problem_id].paths or not Path(name).exists()
