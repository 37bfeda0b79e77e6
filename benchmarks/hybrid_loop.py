"""The hybrid agent in closed loop: what the critic, the look-ahead and the annealer are each worth.

    python benchmarks/hybrid_loop.py                      100 held-out days, about forty minutes on two cores
    python benchmarks/hybrid_loop.py --quick              six days of the rows that matter most
    python benchmarks/hybrid_loop.py --only hybrid tou    some rows
    python benchmarks/hybrid_loop.py --show               print what --out holds already

Every row plays the same days with the same forecasts. ``less``: cost of the row less that of the better
rolling MILP, day by day, with a 95 % bootstrap interval over the days with and without outage. The last table
times one decision of the hybrid agent and of the rolling MILP in turn, in one process on one core.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import numpy as np

from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid.agent import HybridAgent
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.corrections import Corrections
from qevgrid.agents.hybrid.model import SHIPPED, Model
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner.metrics import bootstrap
from qevgrid.runner.rollout import play
from qevgrid.runner.stats import paired_difference

PLANS = ("rolling_reserve", "rolling")
CHUNK = 5
NEUTRAL = Corrections(premium=1.0, calm_usd_kwh=0.0, dark=1.0, spread=1.0)
FEWER = {"exact step": 10}
"""Percent of the days that a row plays, the first ones: HiGHS takes up to seconds a step."""
RAW = {"reads": 20, "sweeps": 200, "polish": False}

ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "hybrid": ("all three stages", {}, "learned"),
    "stage 2": ("critic, no reinforcement", {}, "stage 2"),
    "critic alone": ("stage 2 without the tuned factors", {}, "neutral"),
    "no critic": ("H = 1", {"critic": False}, "stage 2"),
    "no critic, H = 8": ("plans over two hours", {"critic": False, "horizon": 8}, "stage 2"),
    "H = 2": ("stage 2", {"horizon": 2}, "stage 2"),
    "H = 4": ("stage 2", {"horizon": 4}, "stage 2"),
    "H = 8": ("stage 2", {"horizon": 8}, "stage 2"),
    "exact step": (
        "HiGHS in place of the annealer, a tenth of the days",
        {"sampler": "highs", "time_limit_s": 2.0},
        "stage 2",
    ),
    "neal, raw": ("dwave-samplers on the QUBO, 20 x 200, no polish", {"sampler": "neal"} | RAW, "stage 2"),
    "neal, polished": ("the same, polished", {"sampler": "neal", "reads": 20, "sweeps": 200}, "stage 2"),
    "tabu, raw": ("20 reads, no polish", {"sampler": "tabu"} | RAW, "stage 2"),
    "structured, raw": ("our annealer, no polish", {"polish": False}, "stage 2"),
    "shadow prices only": (
        "no annealer: own choices at the dual prices, best responses",
        {"sampler": "prices"},
        "stage 2",
    ),
    "greedy": ("no annealer: best single improvements", {"sampler": "greedy"}, "stage 2"),
    "idle start": ("no annealer: polish from rest", {"sampler": "idle"}, "stage 2"),
}
"""Name -> what it is, settings, corrections."""
RIVALS = ("optimum", "rolling_reserve", "rolling", "tou", "serve", "llf")
QUICK = ("hybrid", "stage 2", "no critic", "exact step", "shadow prices only", "greedy")


def agent(name: str, core: V2GCore, model: Path) -> Agent:
    """The agent of a row."""
    if name in RIVALS:
        return make_rival(name)
    _, settings, corrections = ROWS[name]
    loaded = Model.load(model)
    if corrections != "learned":
        loaded = replace(loaded, actor=None)
    if corrections == "neutral":
        loaded = replace(loaded, base=NEUTRAL)
    return HybridAgent(loaded, core, HybridConfig(**settings), name)


def play_chunk(task: tuple[str, list[int], Path]) -> dict[str, list[float]]:
    """Cost and outage of each day, and what the sampler reports of it."""
    name, seeds, model = task
    core = V2GCore(V2GParams())
    found = play(core, agent(name, core, model), seeds)
    unserved = found.kpi[:, 0]
    result = {"usd": found.total_usd, "outage_h": found.stress, "unserved_critical_kwh": unserved}
    qubo = {key: value for key, value in found.report.items() if key.startswith("qubo/")}
    ms = {"ms": np.full(len(seeds), found.ms_per_decision)}
    return {key: np.asarray(value).tolist() for key, value in (result | qubo | ms).items()}


def measure(names: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """All rows; slow and quick ones share the processes."""
    found: dict[str, dict[str, list[float]]] = {}
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        for name in names:
            episodes = max(arguments.episodes * FEWER.get(name, 100) // 100, 1)
            days = range(arguments.seed, arguments.seed + episodes)
            chunks = [list(days[a : a + CHUNK]) for a in range(0, episodes, CHUNK)]
            parts = list(pool.map(play_chunk, [(name, chunk, arguments.model) for chunk in chunks]))
            found[name] = {key: [x for part in parts for x in part[key]] for key in parts[0]}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
            print(f"{name}: {statistics.fmean(found[name]['usd']):.1f} USD/day", file=sys.stderr, flush=True)
    return found


def loop_table(found: dict[str, dict[str, list[float]]]) -> str:
    """Cheapest first, with the paired differences to the better rolling plan."""
    plans = [name for name in PLANS if name in found]
    plan = min(plans, key=lambda name: statistics.fmean(found[name]["usd"])) if plans else None
    rows = []
    for name, row in sorted(found.items(), key=lambda item: statistics.fmean(item[1]["usd"])):
        what = ROWS[name][0] if name in ROWS else "rival"
        rows.append(
            [name, what, *_costs(row), *_less(row, found[plan] if plan and name != plan else None), *_step(row)]
        )
    head = (
        "agent",
        "what",
        "USD/day",
        "95 %",
        f"less {plan}",
        "95 %",
        "unserved critical kWh",
        "ms",
        "above the dual bound",
    )
    return common.markdown(head, rows)


def _costs(row: dict[str, list[float]]) -> list[str]:
    usd = np.array(row["usd"])
    d = paired_difference(usd, np.zeros(len(usd)), bootstrap(), strata=_strata(row))
    return [common.number(d.value), f"{common.number(d.lo)} to {common.number(d.hi)}"]


def _less(row: dict[str, list[float]], plan: dict[str, list[float]] | None) -> list[str]:
    if plan is None:
        return ["", ""]
    same = min(len(row["usd"]), len(plan["usd"]))  # the first days
    ours, theirs = (np.array(x["usd"][:same]) for x in (row, plan))
    d = paired_difference(ours, theirs, bootstrap(), strata=_strata(row)[:same])
    return [common.number(d.value, 1), f"{common.number(d.lo, 1)} to {common.number(d.hi, 1)}"]


def _strata(row: dict[str, list[float]]) -> np.ndarray:
    return (np.array(row["outage_h"]) > 0).astype(int)


def _step(row: dict[str, list[float]]) -> list[str]:
    above = row.get("qubo/polished_usd")
    shown = "" if above is None else f"{statistics.fmean(above):.3f} USD"
    return [
        common.number(statistics.fmean(row["unserved_critical_kwh"]), 1),
        f"{statistics.fmean(row['ms']):.1f}",
        shown,
    ]


def pairs_table(found: dict[str, dict[str, list[float]]]) -> str:
    """The comparisons that the design asks for."""
    asked = (
        ("hybrid", "stage 2"), ("stage 2", "no critic"), ("stage 2", "critic alone"), ("neal, raw", "exact step"),
        ("stage 2", "exact step"), ("stage 2", "shadow prices only"), ("stage 2", "greedy"), ("hybrid", "tou"),
        ("hybrid", "serve"), ("hybrid", "llf"), ("hybrid", "rolling"), ("hybrid", "rolling_reserve"),
    )  # fmt: skip
    rows = []
    for a, b in asked:
        if a in found and b in found:
            value, interval = _less(found[a], found[b])
            same = min(len(found[a]["usd"]), len(found[b]["usd"]))
            first, second = (statistics.fmean(found[x]["usd"][:same]) for x in (a, b))
            share = 100 * (first / second - 1)
            rows.append([f"{a} less {b}", value, interval, f"{share:.1f} %"])
    return common.markdown(("difference", "USD/day", "95 %", "of the second"), rows)


def timing_table(model: Path, days: int) -> str:
    """Milliseconds a decision, in turn, one core."""
    names, times = ("hybrid", "rolling_reserve"), {"hybrid": [], "rolling_reserve": []}
    core = V2GCore(V2GParams())
    for day in range(days):
        for name in names:
            batch, player = Batch(core, 1), agent(name, core, model)
            batch.start(np.arange(1), [np.random.default_rng(1000 + day)])
            player.begin({"view": batch.view()})
            while not batch.over.all():
                view, obs = batch.view(), batch.observe()
                start = time.perf_counter()
                action = player.act(obs, {"view": view})
                if day and view.plugged.any():  # the first day compiles
                    times[name].append(1e3 * (time.perf_counter() - start))
                batch.step(action)
    ratio = statistics.fmean(times["rolling_reserve"]) / statistics.fmean(times["hybrid"])
    rows = [[n, f"{statistics.median(t):.2f}", f"{statistics.fmean(t):.2f}", f"{max(t):.1f}"] for n, t in times.items()]
    table = common.markdown(("agent", "ms, median", "mean", "most"), rows)
    return f"{table}\n\nrolling_reserve takes {ratio:.1f} x the hybrid's time (means over decisions with a vehicle present)."


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--model", type=Path, default=SHIPPED, help="a run folder's model.zip (default: the shipped one)"
    )
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *RIVALS], help="rows to play")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/hybrid_loop.json"))
    parser.add_argument("--show", action="store_true", help="play nothing, print what --out holds")
    return parser.parse_args()


def main() -> None:
    """Play and print."""
    arguments = parse_arguments()
    if not arguments.show:
        if arguments.quick:
            arguments.episodes = 6
        names = arguments.only or [*(QUICK if arguments.quick else ROWS), *RIVALS]
        measure(list(names), arguments)
    found = json.loads(arguments.out.read_text(encoding="utf-8"))
    days = max(len(row["usd"]) for row in found.values())
    print(f"\n{days} held-out days. {common.machine('dwave-samplers', 'highspy')}.\n")
    print(loop_table(found), "", pairs_table(found), sep="\n")
    if not arguments.show:
        common.use_one_core()
        print("", timing_table(arguments.model, 3 if arguments.quick else 6), sep="\n")


if __name__ == "__main__":
    main()
