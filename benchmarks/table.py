"""The README's table: every rival and the given run folders on 100 held-out days.

    python benchmarks/table.py runs/v2g_ppo          about ten minutes on two cores
    python benchmarks/table.py --show                print what results/table holds already

Runs ``evaluate.py`` (which prints for terminals and draws the pictures), then prints the table in
Markdown and the paired differences, day by day, of the better rolling plan against each heuristic.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import common
import numpy as np

from qevgrid.agents import RIVALS
from qevgrid.evaluate import main as evaluate
from qevgrid.runner.metrics import bootstrap
from qevgrid.runner.stats import paired_difference

CONFIG = common.ROOT / "configs/v2g_ppo.yaml"
PLANS = ("rolling", "rolling_reserve")
HEURISTICS = ("idle", "cheap", "llf", "tou", "serve")


def play(arguments: argparse.Namespace) -> None:
    """Evaluate everything; stop where ``evaluate.py`` reports an error."""
    options = {"config": arguments.config, "episodes": arguments.episodes, "seed": arguments.seed, "out": arguments.out}
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    code = evaluate([*RIVALS["qevgrid/V2G-v0"].paths, *arguments.runs, *flags, "--overwrite"])
    if code:
        sys.exit(code)


def score_table(rows: list[dict[str, Any]]) -> str:
    """Cheapest first, with 95 % intervals."""
    header = (
        "agent",
        "USD/day",
        "95 %",
        "score",
        "95 %",
        "unserved critical kWh/day",
        "CVaR 95 USD",
        "ms/decision",
        "gap",
    )
    return common.markdown(header, (_score_row(row) for row in sorted(rows, key=lambda row: row["cost_usd_mean"])))


def _score_row(row: dict[str, Any]) -> list[str]:
    gap = None if row["gap_share"] is None else 100 * row["gap_share"]
    return [
        row["agent"],
        common.number(row["cost_usd_mean"]),
        interval(row["cost_usd_lo"], row["cost_usd_hi"], 0),
        common.number(row["score"], 3),
        interval(row["score_lo"], row["score_hi"], 3),
        common.number(row["unserved_critical_kwh_mean"], 1),
        common.number(row["cvar95_usd"]),
        common.number(row["ms_per_decision"], 1),
        "" if gap is None else f"{gap:.3f} %",
    ]


def interval(low: float | None, high: float | None, digits: int) -> str:
    """Two ends, if there are any."""
    return "–" if low is None else f"{common.number(low, digits)} to {common.number(high, digits)}"


def costs(episodes: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Cost of each day, (episodes,), by agent."""
    found: dict[str, list[float]] = {}
    for row in sorted(episodes, key=lambda row: row["episode"]):
        found.setdefault(row["agent"], []).append(row["cost_usd"])
    return {agent: np.array(usd) for agent, usd in found.items()}


def difference_table(episodes: list[dict[str, Any]]) -> str:
    """What each heuristic costs more than the better rolling plan, on the same days."""
    usd = costs(episodes)
    plan = min(PLANS, key=lambda name: usd[name].mean())
    days = {row["episode"]: row["outage_h"] > 0 for row in episodes}
    strata = np.array([days[k] for k in sorted(days)]).astype(int)
    rows = []
    for name in HEURISTICS:
        d = paired_difference(usd[name], usd[plan], bootstrap(), strata=strata)
        clear = "yes" if d.lo > 0 else "NO"
        rows.append([name, common.number(d.value, 1), interval(d.lo, d.hi, 1), clear])
    return common.markdown((f"heuristic less {plan}", "USD/day", "95 %", "clearly dearer"), rows)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="run folders of learned agents")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/table"), help="replaced if it exists")
    parser.add_argument("--show", action="store_true", help="play nothing, print what --out holds")
    return parser.parse_args()


def main() -> None:
    """Play and print."""
    arguments = parse_arguments()
    if not arguments.show:
        play(arguments)
    found = json.loads((arguments.out / "evaluation.json").read_text(encoding="utf-8"))
    days = len({row["episode"] for row in found["episodes"]})
    print(f"\n{days} held-out days from seed {found['seed']}. {common.machine('highspy')}.\n")
    print(score_table(found["table"]), "", difference_table(found["episodes"]), sep="\n")


if __name__ == "__main__":
    main()
