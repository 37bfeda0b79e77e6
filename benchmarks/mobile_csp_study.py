"""Mobile CSP by fleet size: every agent on the same storms, against idle = 0 and the best known = 1.

    python benchmarks/mobile_csp_study.py                       M = 2, 4, 8, 20; hours, most of them for rolling_milp
    python benchmarks/mobile_csp_study.py --quick               two sizes, four storms, cheap agents; a minute
    python benchmarks/mobile_csp_study.py greedy hybrid runs/csp_ppo --units 4 8 --episodes 32
    python benchmarks/mobile_csp_study.py --show                print and draw again what --out holds

Agents are names of rivals, of the scenario set (rolling_scenarios, rolling_scenarios_cvar, hybrid_scenarios,
hybrid_scenarios_cvar) or run folders: a scorer shares its weights over units and so plays any fleet. idle, rolling
and optimum always play: the others are measured by them. All are played on the same seeds, one storm at a time.

What changes with M: the number of units, each with the same battery and power, so the fleet grows; and slots and
connection of the first site, where all begin (4 x 250 kW up to M = 4, then M x 250 kW). All else is the preset.

rolling_milp takes up to 10 s a decision: it plays the first --milp-episodes storms at --milp-units only, and is
compared on those. Where annealing overtakes the program at equal time is another command:
benchmarks/mobile_csp_annealing.py.

Each storm is kept under --out when it is over and not played again, unless the agent's settings or model are others
(changed code is not noticed: delete the file of the agent). Ctrl-C and the same command go on.
"""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
from mobile_csp_play import ID, VARIANTS, Seat, play_storm, settings, who, world
from mobile_csp_tables import ALWAYS, Parts, picture, report, same, summary

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.runner.cli import progress
from qevgrid.runner.evaluation import MAX_SEED
from qevgrid.runner.folder import RunFolder
from qevgrid.runner.plots import save_figure

AGENTS = ("idle", "random", "static", "greedy", "tuned", "rolling", "hybrid", "rolling_milp", "optimum")
QUICK = ("idle", "static", "greedy", "tuned", "rolling", "hybrid", "optimum")
FEW_STORMS, FEW_FROM = 12, 20
"""Storms of fleets of so many units and more, where nothing else is said."""
ROUNDS, ROUNDS_A_UNIT = 300, 30
"""Of the optimum's search: at least, and for each unit."""
Todo = list[tuple[Seat, list[int]]]


def seats(a: argparse.Namespace) -> Todo:
    """Who plays which seeds; the slowest agent last."""
    names = [*ALWAYS, *(a.agents or (QUICK if a.quick else AGENTS))]
    todo: Todo = []
    for n_units in dict.fromkeys(a.units):
        extra = VARIANTS if not (a.agents or a.quick) and n_units in a.scenario_units else ()
        rounds = a.rounds or max(ROUNDS, ROUNDS_A_UNIT * n_units)
        storms = a.episodes or (FEW_STORMS if n_units >= FEW_FROM else 32)
        for name in dict.fromkeys([*names, *extra]):
            if name == "rolling_milp" and n_units not in a.milp_units:
                continue
            count = min(storms, a.milp_episodes) if name == "rolling_milp" else storms
            todo.append((Seat(name, a.preset, n_units, rounds), list(range(a.seed, a.seed + count))))
    return sorted(todo, key=lambda one: one[0].name == "rolling_milp")


def check(a: argparse.Namespace) -> None:
    """``UserError`` for what cannot be played."""
    least = {"--episodes": a.episodes, "--milp-episodes": a.milp_episodes, "--jobs": a.jobs, "--rounds": a.rounds}
    for key, value in least.items():
        if value is not None and value < 1:
            raise UserError(f"{key} {value}: must be at least 1")
    for n_units in a.units:
        if n_units < 1:
            raise UserError(f"--units {n_units}: a fleet has at least 1 unit")
    if not 0 <= a.seed <= MAX_SEED - (a.episodes or 32):
        raise UserError(f"--seed {a.seed}: must lie in 0 to {MAX_SEED - (a.episodes or 32)}")
    if a.out.exists() and not a.out.is_dir():
        raise UserError(f"--out {a.out}: this is a file, not a folder; pass another")


def part_path(out: Path, seat: Seat) -> Path:
    """Where an agent's storms at one fleet size are kept."""
    return out / "parts" / f"{seat.preset}_m{seat.n_units:03d}" / f"{seat.label}.json"


def kept(path: Path, seat: Seat, agent_settings: str, description: str) -> dict[str, Any]:
    """What is kept of a seat, or the beginning of it."""
    part = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if part.get("settings") == agent_settings:
        return part
    return {"agent": seat.label, "preset": seat.preset, "n_units": seat.n_units, "who": description,
            "settings": agent_settings, "storms": {}}  # fmt: skip


Map = Callable[[Callable[[Any], Any], list[Any]], Iterator[Any]]


@contextmanager
def mapper(jobs: int) -> Iterator[Map]:
    """``map`` in this process, or over several."""
    if jobs == 1:
        yield map
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def study(a: argparse.Namespace) -> None:
    """Play what is not kept."""
    cores = {m: MobileCore(world(a.preset, m)) for m in dict.fromkeys(a.units)}
    found, taken = [], set()
    for seat, seeds in seats(a):
        agent = seat.agent(cores[seat.n_units])  # may fail, so before anything is played
        path = part_path(a.out, seat)
        if path in taken:
            raise UserError(f"{seat.name}: another agent is called {seat.label!r} as well; rename its folder")
        taken.add(path)
        part = kept(path, seat, settings(seat, agent), who(seat, agent))
        found.append((seat, path, part, [seed for seed in seeds if str(seed) not in part["storms"]]))
    folder = RunFolder(a.out)
    with progress(sum(len(left) for *_, left in found), "storms", "storm") as bar, mapper(a.jobs) as run:
        for seat, path, part, left in found:
            bar.set_postfix_str(f"{seat.label}, M = {seat.n_units}")
            for seed, storm in zip(left, run(play_storm, [(seat, seed) for seed in left]), strict=True):
                part["storms"][str(seed)] = storm
                folder.write_json(path, part)
                bar.update(1)


def load(out: Path) -> Parts:
    """What is kept, by fleet size and agent: those that share storms with the ones that always play."""
    parts: Parts = {}
    for file in sorted(out.glob("parts/*/*.json")):
        part = json.loads(file.read_text(encoding="utf-8"))
        parts.setdefault((part["preset"], part["n_units"]), {})[part["agent"]] = part
    whole: Parts = {}
    for key, agents in parts.items():
        ruler = [agents[name] for name in ALWAYS if name in agents]
        if len(ruler) == len(ALWAYS) and (met := {n: p for n, p in agents.items() if same(p, *ruler)}):
            whole[key] = met
    if not whole:
        raise UserError(f"--out {out}: holds no storm of {', '.join(ALWAYS)}; leave out --show to play")
    return whole


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agents", nargs="*", help=f"rivals, variants, run folders (default: {' '.join(AGENTS)})")
    parser.add_argument("--units", type=int, nargs="+", help="fleet sizes M (default 2 4 8 20; quick 2 4)")
    parser.add_argument("--episodes", type=int, help="storms (default 32, from M = 20 on 12; quick 4)")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first storm")
    parser.add_argument("--preset", choices=["base", "mini", "full"], default="base")
    parser.add_argument("--milp-units", type=int, nargs="*", default=[2, 4], help="sizes that rolling_milp plays")
    parser.add_argument("--milp-episodes", type=int, default=3, help="storms that rolling_milp plays, the first ones")
    parser.add_argument("--scenario-units", type=int, nargs="*", default=[4], help="sizes of the scenario set")
    parser.add_argument("--rounds", type=int, help="of the optimum's search (default max(300, 30 M); quick 100)")
    parser.add_argument("--jobs", type=int, default=1, help="processes; times are CPU times of one each")
    parser.add_argument("--out", type=Path, help="default results/mobile_csp_study, with _quick if --quick")
    parser.add_argument("--quick", action="store_true", help="M = 2 and 4, 4 storms, cheap agents")
    parser.add_argument("--show", action="store_true", help="play nothing, print and draw what --out holds")
    a = parser.parse_args(argv)
    a.units = a.units or ([2, 4] if a.quick else [2, 4, 8, 20])
    a.out = a.out or Path("results/mobile_csp_study_quick" if a.quick else "results/mobile_csp_study")
    if a.quick:
        a.episodes, a.rounds = a.episodes or 4, a.rounds or 100
    return a


def main(argv: list[str] | None = None) -> int:
    """Play, print, draw; 2 for what cannot be done."""
    a = parse_arguments(argv)
    try:
        check(a)
        if not a.show:
            if a.jobs == 1:
                common.use_one_core()
            study(a)
        parts = load(a.out)
        RunFolder(a.out).write_json(Path("study.json"), summary(parts))
        drawn = save_figure(picture(parts), a.out / "study.png")
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    print(f"\n{ID}. {common.machine('numpy', 'numba', 'highspy')}.\n")
    print(f"{report(parts)}\n\ndrawn: {drawn}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
