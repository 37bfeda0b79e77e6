"""Evaluation: agents and rivals on the same held-out episodes, against the ruler, as table and pictures."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qevgrid.agents import RIVALS, Rivals, is_rival, make_rival
from qevgrid.envs.errors import UserError
from qevgrid.envs.problem import Problem, problem_of
from qevgrid.envs.types import Core
from qevgrid.runner import config as yaml_config
from qevgrid.runner import log, metrics
from qevgrid.runner.cli import format_table, progress
from qevgrid.runner.folder import RunFolder, read_run
from qevgrid.runner.parallel import Player, play_spread
from qevgrid.runner.plots import cost_figure, learning_figure, save_figure, score_figure
from qevgrid.runner.rollout import Episodes, begin
from qevgrid.runner.schema import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SEED = 2**32
LOOKED_AT = 64
"""Episodes among which those worth a picture are sought."""


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
    problem = problem_of(request.config.env)
    core = problem.core(problem.held_out(request.config.env))
    for line in problem.report_lines(core):
        print(f"  {line}")
    rivals = RIVALS[problem.id]
    runs = _labels(request.names, problem.id)
    players = _players(request, runs, rivals)
    for run in runs:
        players[run].agent(core)  # may fail, so before anything is played
    seeds = list(range(request.seed, request.seed + request.episodes))
    shown = problem.shown(begin(core, seeds[:LOOKED_AT]).scenario)
    played = _play_all(request, core, players, seeds, sorted(set(shown.values())))
    agents = [played[name] for name in request.names]
    rows = metrics.table(agents, played.get(rivals.naive), played.get(rivals.best), problem)
    folder = _fresh(request)
    _write(folder, request, rows, agents)
    figures = _comparison(problem, rows, agents, shown) | _learning(
        {label: Path(run) for run, label in runs.items()}, rivals
    )
    for name, figure in figures.items():
        save_figure(figure, folder.path / f"{name}.png")
    _tensorboard(folder, problem, rows, agents, _trained_steps(request.config, runs))
    return rows


def _check(request: Request) -> None:
    env = request.config.env.id
    if not request.names:
        raise UserError(f"no agent named; pass run folders or rivals: {', '.join(RIVALS[env].paths)}")
    for name in request.names:
        if is_rival(name, env):
            make_rival(name, request.config.agent, env)
        else:
            read_run(name)
    same = [name if is_rival(name, env) else str(Path(name).resolve()) for name in request.names]
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


def _labels(names: Sequence[str], env: str) -> dict[str, str]:
    """Run folders and what the table calls them: the folder's name, or its path where that is not unique."""
    runs = [name for name in names if not is_rival(name, env)]
    short = [Path(run).name for run in runs]
    unique = [bool(s) and s not in RIVALS[env].paths and short.count(s) == 1 for s in short]
    return {run: s if u else str(Path(run)) for run, s, u in zip(runs, short, unique, strict=True)}


def _players(request: Request, runs: dict[str, str], rivals: Rivals) -> dict[str, Player]:
    """Everybody who plays, by the name given: those asked for, then the ruler."""
    names = dict.fromkeys([*request.names, *(rivals.ruler if request.ruler else ())])
    settings = request.config.agent
    return {name: Player(runs.get(name, name), Path(name) if name in runs else None, settings) for name in names}


def _play_all(
    request: Request, core: Core, players: dict[str, Player], seeds: list[int], keep: list[int]
) -> dict[str, Episodes]:
    played = {}
    with progress(len(players) * len(seeds), "evaluating", problem_of(core.params).episode) as bar:
        for name, player in players.items():
            bar.set_postfix_str(name)
            played[name] = play_spread(player, core, seeds, keep, jobs=request.jobs, advance=bar.update)
    return played


def _fresh(request: Request) -> RunFolder:
    if request.overwrite and request.out.is_dir():
        shutil.rmtree(request.out)
    return RunFolder(request.out)


def _write(folder: RunFolder, request: Request, rows: list[dict[str, Any]], agents: list[Episodes]) -> None:
    problem = problem_of(request.config.env)
    ruler = RIVALS[problem.id].ruler
    episodes = metrics.episode_rows(agents, problem)
    reference = min((e for e in agents if e.agent not in ruler), key=lambda e: e.total_usd.mean(), default=agents[0])
    folder.write_csv(Path("table.csv"), [{c: row[c] for c in metrics.table_columns(problem)} for row in rows])
    folder.write_csv(Path("episodes.csv"), episodes)
    folder.write_json(
        Path("evaluation.json"),
        {
            "table": rows, "differences": metrics.differences(agents, reference, problem), "episodes": episodes,
            "seed": request.seed, "config": yaml_config.dump(request.config),
            f"{problem.episode}s": {e.agent: {k: t.to_dict() for k, t in e.traces.items()} for e in agents},
        },
    )  # fmt: skip


def _comparison(
    problem: Problem, rows: list[dict[str, Any]], agents: list[Episodes], shown: dict[str, int]
) -> dict[str, "Figure"]:
    """Costs, scores, and all agents on each of the episodes ``shown``, by the name of the file."""
    best = RIVALS[problem.id].best.replace("_", " ")
    episodes = {f"{problem.episode}_{name}": problem.figure([e.traces[k] for e in agents]) for name, k in shown.items()}
    return {"costs": cost_figure(rows, problem.term_colors), "scores": score_figure(rows, best)} | episodes


def _learning(runs: dict[str, Path], rivals: Rivals) -> dict[str, "Figure"]:
    """The runs' learning curves over the rivals of the first; nothing where no run has one."""
    curves = {name: curve for name, run in runs.items() if (curve := _curve(run)) is not None}
    if not curves:
        return {}
    lines = _validation_lines(next(iter(runs.values())), rivals)
    return {"learning": learning_figure(curves | lines)}


def _curve(run: Path) -> dict[str, Any] | None:
    file = RunFolder(run).evaluations_csv
    if not file.is_file():
        return None
    data = np.genfromtxt(file, delimiter=",", names=True, ndmin=1)
    return {"steps": data["step"], "cost_usd": data["cost_usd"]}


def _validation_lines(run: Path, rivals: Rivals) -> dict[str, Any]:
    """What the rivals cost on the episodes of a run's learning curve."""
    file = RunFolder(run).metrics_json
    known = json.loads(file.read_text(encoding="utf-8")).get("rivals_cost_usd", {}) if file.is_file() else {}
    return {name: {"cost_usd": cost} for name, cost in known.items() if name not in rivals.off_scale}


def _trained_steps(config: RunConfig, runs: Iterable[str]) -> int:
    """Length of the x axis: the longest training among the runs, else the configuration's."""
    curves = [curve for run in runs if (curve := _curve(Path(run))) is not None]
    return max((int(curve["steps"][-1]) for curve in curves), default=config.total_steps)


def _tensorboard(
    folder: RunFolder, problem: Problem, rows: list[dict[str, Any]], agents: list[Episodes], steps: int
) -> None:
    """One line an agent over the x axis of the training, so that all stand in the same charts."""
    from torch.utils.tensorboard import SummaryWriter

    for row, episodes in zip(rows, agents, strict=True):
        writer = SummaryWriter(str(folder.path / "tensorboard" / episodes.agent))
        for tag, value in metrics.scalars(row, episodes, problem).items():
            if value is not None:
                log.flat_line(writer, tag, value, [0, steps])
        writer.close()


def terminal_table(rows: list[dict[str, Any]], problem: Problem) -> str:
    """The table for people, best first."""
    shown = {
        "agent": "agent",
        "cost_usd_mean": f"USD/{problem.episode}",
        "cost_usd_lo": "lo",
        "cost_usd_hi": "hi",
        "score": "score",
        "score_lo": "lo",
        "score_hi": "hi",
        metrics.kpi_column(problem): problem.shown_kpi[1],
        "cvar95_usd": "CVaR95 USD",
        "ms_per_decision": "ms",
        "parameters": "parameters",
        "gap_share": "gap",
    }
    ordered = sorted(rows, key=lambda row: row["cost_usd_mean"])
    return format_table([{key: row[key] for key in shown} for row in ordered], shown)
