"""Small training runs and command lines for the tests."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qevgrid import evaluate, train
from qevgrid.runner.config import build
from qevgrid.runner.schema import RunConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "v2g_ppo.yaml"
TINY_ENV = {"n_sockets": 3, "dt_h": 1.0}
TINY_ROUND = {"n_envs": 4, "n_steps": 24, "batch_size": 96, "n_epochs": 2, "threads": 1}
TINY_AGENTS = {
    "ppo": TINY_ROUND | {"warm_days": 4, "warm_epochs": 1},
    "hybrid": TINY_ROUND | {"days": 2, "stages_per_day": 2, "hidden": 4, "critic_epochs": 1, "reads": 1, "sweeps": 5},
    "vqc": TINY_ROUND | {"warm_days": 4, "warm_epochs": 1, "qubits": 3},
    "mobile_hybrid": {"population": 4, "batch": 2, "storms": 12, "rounds": 1, "reads": 1, "sweeps": 5},
    "masked_ppo": TINY_ROUND
    | {"warm_start": "greedy", "warm_storms": 4, "warm_epochs": 1, "qubits": 3, "layers": 3, "uploads": 3},
}
"""By kind; a round of each has 96 steps."""
TINY_WORLDS: dict[str, dict[str, Any]] = {
    "masked_ppo": {"id": "qevgrid/MobileCSP-v0", "preset": "mini", "n_periods": 10, "n_units": 2},
    "mobile_hybrid": {"id": "qevgrid/MobileCSP-v0", "preset": "mini", "n_periods": 12, "n_units": 2},
}
"""What a kind plays in, if not in ``TINY_ENV``."""
TINY_RUN = {"total_steps": 192, "eval_every": 96, "eval_episodes": 2, "ruler": True}


class Told(NamedTuple):
    """What a command line answered."""

    code: int
    out: str
    err: str


def tiny_config(
    env: Mapping[str, Any] | None = None, agent: Mapping[str, Any] | None = None, kind: str = "ppo", **run: Any
) -> RunConfig:
    """A run of a few hundred steps; ``env``, ``agent`` and ``run`` change its keys."""
    sections = {
        "env": TINY_WORLDS.get(kind, TINY_ENV) | dict(env or {}),
        "agent": {"kind": kind} | TINY_AGENTS[kind] | dict(agent or {}),
    }
    return build(RunConfig, sections | TINY_RUN | run, "tiny")


def tiny_overrides(kind: str = "ppo", **run: Any) -> list[str]:
    """The same for the command line."""
    keys = {f"env.{key}": value for key, value in TINY_WORLDS.get(kind, TINY_ENV).items()}
    keys |= {f"agent.{key}": value for key, value in TINY_AGENTS[kind].items()}
    return [f"{key}={value}" for key, value in (keys | TINY_RUN | run).items()]


def call(program: Any, arguments: Sequence[object], capsys: Any) -> Told:
    """Run ``train`` or ``evaluate`` in this process."""
    capsys.readouterr()
    try:
        code = program.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's way
        code = int(stop.code or 0)
    return Told(code, *capsys.readouterr())


def run_train(capsys: Any, out: Path, *more: object, config: Path = CONFIG) -> Told:
    """``train.py`` with the small settings, then ``more``."""
    return call(train, ["--config", config, "--out", out, *tiny_overrides(), *more], capsys)


def run_evaluate(capsys: Any, out: Path, *more: object, config: Path = CONFIG) -> Told:
    """``evaluate.py`` on two days with the small settings, in one process, then ``more``."""
    fixed = ["--config", config, "--out", out, "--episodes", 2, "--jobs", 1]
    return call(evaluate, [*fixed, *tiny_overrides(), *more], capsys)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by its relative name; nothing where it does not exist."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
