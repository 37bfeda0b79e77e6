"""Evaluation: agents and rivals on the same held-out days, against the ruler, as table and pictures."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents import RIVALS, is_rival, make_rival
from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.files import report_lines
from qevgrid.envs.v2g.params import PRICE_KINDS, SESSION_KINDS, V2GParams
from qevgrid.envs.v2g.viewer import day_figure
from qevgrid.runner import config as yaml_config
from qevgrid.runner import log, metrics
from qevgrid.runner.cli import format_table, progress
from qevgrid.runner.folder import RunFolder, read_run
from qevgrid.runner.parallel import Player, play_spread
from qevgrid.runner.plots import cost_figure, learning_figure, save_figure, score_figure
from qevgrid.runner.rollout import Episodes
from qevgrid.runner.schema import RunConfig

MAX_SEED = 2**32
RULER = ("idle", "optimum")
OFF_SCALE = ("idle", "cheap", "llf")
"""Rivals that would squeeze the learning curves."""
SHOWN = {
    "agent": "agent",
    "cost_usd_mean": "USD/day",
    "cost_usd_lo": "lo",
    "cost_usd_hi": "hi",
    "score": "score",
    "score_lo": "lo",
    "score_hi": "hi",
    "unserved_critical_kwh_mean": "unserved kWh",
    "cvar95_usd": "CVaR95 USD",
    "ms_per_decision": "ms",
    "parameters": "parameters",
    "gap_share": "gap",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What to evaluate and where to put it.

    The agent section of ``config`` is how every agent of its kind plays here, rival or run folder.
    """

    names: Sequence[str]
    config: RunConfig
    episodes: int
    seed: int
    out: Path
    overwrite: bool = False
    ruler: bool = True
    jobs: int | None = None


def evaluate(request: Request) -> list[dict[str, Any]]:
    """Play, measure, write ``table.csv``, ``episodes.csv``, their JSON and PNGs; returns the table.

    Raises ``UserError`` before anything is played for an unknown name, a folder in the way, a
    model of other spaces or seeds that training uses.
    """
    _check(request)
    params = held_out(request.config.env)
    core = V2GCore(params)
    for line in report_lines(core.files.report):
        print(f"  {line}")
    runs = _labels(request.names)
    players = _players(request, runs)
    for run in runs:
        players[run].agent(core)  # may fail, so before anything is played
    seeds = list(range(request.seed, request.seed + request.episodes))
    keep = _shown_days(core, seeds)
    played = _play_all(request, core, players, seeds, keep)
    agents = [played[name] for name in request.names]
    rows = metrics.table(agents, played.get("idle"), played.get("optimum"), params.id)
    folder = _fresh(request)
    _write(folder, request, rows, agents, played)
    _pictures(folder, rows, agents, {shown: Path(run) for run, shown in runs.items()}, keep)
    _tensorboard(folder, rows, agents, _trained_steps(request.config, runs))
    return rows


def held_out(params: V2GParams) -> V2GParams:
    """The same world on the days that training never sees."""
    from_files = params.sessions not in SESSION_KINDS or params.prices not in PRICE_KINDS
    return dataclasses.replace(params, split="held_out") if from_files and params.split == "train" else params


def _check(request: Request) -> None:
    if not request.names:
        raise UserError(f"no agent named; pass run folders or rivals: {', '.join(RIVALS)}")
    for name in request.names:
        if is_rival(name):
            make_rival(name, request.config.agent)
        else:
            read_run(name)
    same = [name if is_rival(name) else str(Path(name).resolve()) for name in request.names]
    repeated = {name for name, one in zip(request.names, same, strict=True) if same.count(one) > 1}
    if repeated:
        raise UserError(f"{', '.join(sorted(repeated))}: named more than once; name each agent once")
    if request.episodes < 1:
        raise UserError(f"--episodes {request.episodes}: at least 1")
    if not 0 <= request.seed <= MAX_SEED - request.episodes:
        raise UserError(
            f"--seed {request.seed}: must lie in 0 to {MAX_SEED - request.episodes}; training uses the seeds beyond"
        )
    if request.jobs is not None and request.jobs < 1:
        raise UserError(f"--jobs {request.jobs}: at least 1; leave it out for all cores")
    _check_out(request)


def _check_out(request: Request) -> None:
    """Only a new or empty folder is written to, only earlier results are replaced."""
    out = request.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: this is a file, not a folder; pass --out OTHER")
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if names and not request.overwrite:
        raise UserError(f"{out}: exists and is not empty; pass --overwrite, --out OTHER, or delete it")
    if names and "evaluation.json" not in names:
        raise UserError(f"{out}: holds no earlier evaluation, and --overwrite deletes nothing else; pass --out OTHER")


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Run folders and what the table calls them: the folder's name, or its path where that is not unique."""
    runs = [name for name in names if not is_rival(name)]
    short = [Path(run).name for run in runs]
    unique = [bool(s) and s not in RIVALS and short.count(s) == 1 for s in short]
    return {run: s if u else str(Path(run)) for run, s, u in zip(runs, short, unique, strict=True)}


def _players(request: Request, runs: dict[str, str]) -> dict[str, Player]:
    """Everybody who plays, by the name given: those asked for, then the ruler."""
    names = dict.fromkeys([*request.names, *(RULER if request.ruler else ())])
    settings = request.config.agent
    return {name: Player(runs.get(name, name), Path(name) if name in runs else None, settings) for name in names}


def _shown_days(core: V2GCore, seeds: list[int]) -> list[int]:
    """Positions of the first day with an outage and the first without."""
    scenario = core.sampler.sample([np.random.default_rng(seed) for seed in seeds[:64]])
    dark = scenario.outage.any((1, 2))
    return sorted({int(np.argmax(dark)), int(np.argmax(~dark))})


def _play_all(
    request: Request, core: V2GCore, players: dict[str, Player], seeds: list[int], keep: list[int]
) -> dict[str, Episodes]:
    played = {}
    with progress(len(players) * len(seeds), "evaluating", "day") as bar:
        for name, player in players.items():
            bar.set_postfix_str(name)
            played[name] = play_spread(player, core, seeds, keep, jobs=request.jobs, advance=bar.update)
    return played


def _fresh(request: Request) -> RunFolder:
    if request.overwrite and request.out.is_dir():
        shutil.rmtree(request.out)
    return RunFolder(request.out)


def _write(
    folder: RunFolder, request: Request, rows: list[dict[str, Any]], agents: list[Episodes], played: dict[str, Episodes]
) -> None:
    episodes = metrics.episode_rows(agents, request.config.env.id)
    reference = min((e for e in agents if e.agent not in RULER), key=lambda e: e.total_usd.mean(), default=agents[0])
    folder.write_csv(Path("table.csv"), [{c: row[c] for c in metrics.TABLE_COLUMNS} for row in rows])
    folder.write_csv(Path("episodes.csv"), episodes)
    folder.write_json(
        Path("evaluation.json"),
        {
            "table": rows, "differences": metrics.differences(agents, reference), "episodes": episodes,
            "seed": request.seed, "config": yaml_config.dump(request.config),
            "days": {e.agent: {k: t.to_dict() for k, t in e.traces.items()} for e in agents},
        },
    )  # fmt: skip


def _pictures(
    folder: RunFolder, rows: list[dict[str, Any]], agents: list[Episodes], runs: dict[str, Path], keep: list[int]
) -> None:
    figures = {"costs": cost_figure(rows), "scores": score_figure(rows)}
    for k in keep:
        dark = agents[0].traces[k].outage.any()
        figures[f"day_{'outage' if dark else 'calm'}"] = day_figure([e.traces[k] for e in agents])
    curves = {name: curve for name, run in runs.items() if (curve := _curve(run)) is not None}
    if curves:
        figures["learning"] = learning_figure(curves | _validation_lines(next(iter(runs.values()))))
    for name, figure in figures.items():
        save_figure(figure, folder.path / f"{name}.png")


def _curve(run: Path) -> dict[str, Any] | None:
    file = RunFolder(run).evaluations_csv
    if not file.is_file():
        return None
    data = np.genfromtxt(file, delimiter=",", names=True, ndmin=1)
    return {"steps": data["step"], "cost_usd": data["cost_usd"]}


def _validation_lines(run: Path) -> dict[str, Any]:
    """What the rivals cost on the days of a run's learning curve."""
    file = RunFolder(run).metrics_json
    known = json.loads(file.read_text(encoding="utf-8")).get("rivals_cost_usd", {}) if file.is_file() else {}
    return {name: {"cost_usd": cost} for name, cost in known.items() if name not in OFF_SCALE}


def _trained_steps(config: RunConfig, runs: Iterable[str]) -> int:
    """Length of the x axis: the longest training among the runs, else the configuration's."""
    curves = [curve for run in runs if (curve := _curve(Path(run))) is not None]
    return max((int(curve["steps"][-1]) for curve in curves), default=config.total_steps)


def _tensorboard(folder: RunFolder, rows: list[dict[str, Any]], agents: list[Episodes], steps: int) -> None:
    """One line an agent over the x axis of the training, so that all stand in the same charts."""
    from torch.utils.tensorboard import SummaryWriter

    for row, episodes in zip(rows, agents, strict=True):
        writer = SummaryWriter(str(folder.path / "tensorboard" / episodes.agent))
        for tag, value in metrics.scalars(row, episodes).items():
            if value is not None:
                log.flat_line(writer, tag, value, [0, steps])
        writer.close()


def terminal_table(rows: list[dict[str, Any]]) -> str:
    """The table for people, best first."""
    ordered = sorted(rows, key=lambda row: row["cost_usd_mean"])
    return format_table([{key: row[key] for key in SHOWN} for row in ordered], SHOWN)
