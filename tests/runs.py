"""Small training runs and command lines for the tests."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qevgrid import evaluate, train
from qevgrid.agents.ppo import PPOConfig
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner.config import fields_of
from qevgrid.runner.schema import RunConfig

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "v2g_ppo.yaml"
TINY_ENV = {"n_sockets": 3, "dt_h": 1.0}
TINY_AGENT = {
    "n_envs": 4,
    "n_steps": 24,
    "batch_size": 96,
    "n_epochs": 2,
    "threads": 1,
    "warm_days": 4,
    "warm_epochs": 1,
}
TINY_RUN = {"total_steps": 192, "eval_every": 96, "eval_episodes": 2, "ruler": True}


class Told(NamedTuple):
    """What a command line answered."""

    code: int
    out: str
    err: str


def known_agent_keys(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``changes`` that PPO has."""
    return {key: value for key, value in changes.items() if key in fields_of(PPOConfig)}


def tiny_config(env: Mapping[str, Any] | None = None, agent: Mapping[str, Any] | None = None, **run: Any) -> RunConfig:
    """A run of a few hundred steps; ``env``, ``agent`` and ``run`` change its keys."""
    params = V2GParams(**(TINY_ENV | dict(env or {})))
    learner = PPOConfig(**(known_agent_keys(TINY_AGENT) | dict(agent or {})))
    return RunConfig(env=params, agent=learner, **(TINY_RUN | run))


def tiny_overrides(**run: Any) -> list[str]:
    """The same for the command line."""
    keys = {f"env.{key}": value for key, value in TINY_ENV.items()}
    keys |= {f"agent.{key}": value for key, value in known_agent_keys(TINY_AGENT).items()}
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
