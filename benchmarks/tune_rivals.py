"""Search the parameters of the rivals on days of their own, far from those of any evaluation.

    python benchmarks/tune_rivals.py --agent tou --trials 300 --days 300
    python benchmarks/tune_rivals.py --agent rolling_reserve --trials 20 --days 10 --jobs 2

Trial 0 is the shipped default; a third of the trials are drawn over the whole box, the others
around the best so far, closer and closer. All trials play the same days (seeds from 20,000). The
default and the winner then play as many other days (seeds from 30,000): a winner that is no better
there has learned the first days by heart.
"""

import argparse
import functools
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import common
import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.heuristics import ChargeAndServe, Cheap, LeastLaxityFirst, TimeOfUse
from qevgrid.agents.rolling import Rolling, rolling_reserve
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams

TRAIN_SEED, CHECK_SEED = 20_000, 30_000
CHUNK = {"rolling_reserve": 2}
"""Days that one job plays together, where few are best."""
Values = dict[str, float]

BOXES: dict[str, dict[str, tuple[float, float]]] = {
    "tou": {
        "low": (0.05, 0.7), "high": (0.6, 1.0), "floor": (0.1, 0.8), "floor_risk": (0.0, 2.0),
        "laxity_h": (0.25, 8.0), "hours_h": (0.5, 8.0), "soc": (0.1, 1.0),
    },
    "serve": {"soc": (0.2, 1.0), "hours_h": (0.5, 8.0)},
    "cheap": {"margin": (1.0, 2.0), "laxity_h": (0.0, 8.0)},
    "llf": {"connection_share": (0.1, 1.0)},
    "rolling_reserve": {
        "reserve_h": (2.0, 100.0), "reserve_usd_kwh": (0.05, 4.0), "dark_probability": (0.1, 0.8),
        "delay_usd_kwh": (0.0, 0.05),
    },
}  # fmt: skip
MAKERS = {
    "tou": TimeOfUse,
    "serve": ChargeAndServe,
    "cheap": Cheap,
    "llf": LeastLaxityFirst,
    "rolling_reserve": functools.partial(Rolling, "rolling_reserve"),
}


def make(name: str, values: Values) -> Agent:
    """The rival with these parameters."""
    return MAKERS[name](**values)


def default(name: str) -> Values:
    """The shipped parameters."""
    agent = rolling_reserve() if name == "rolling_reserve" else MAKERS[name]()
    return {key: float(getattr(agent, key)) for key in BOXES[name]}


def play(name: str, values: Values, seeds: Sequence[int]) -> list[float]:
    """Cost of each day."""
    core = V2GCore(V2GParams())
    batch, agent = core.batch(len(seeds)), make(name, values)
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    total = np.zeros(len(seeds))
    while not batch.over.all():
        batch.step(agent.act(batch.observe(), {"view": batch.view()}))
        total += batch.outcome.total_usd
    return total.tolist()


def mean_usd(pool: ProcessPoolExecutor, name: str, values: Values, first: int, days: int) -> float:
    """Mean cost of the ``days`` days that follow the seed ``first``."""
    size = CHUNK.get(name, 100)
    chunks = [range(a, min(a + size, first + days)) for a in range(first, first + days, size)]
    parts = pool.map(functools.partial(play, name, values), chunks)
    return statistics.fmean(usd for part in parts for usd in part)


def propose(name: str, best: Values, progress: float, rng: np.random.Generator) -> Values:
    """A point of the whole box, or one around the best so far, in steps that shrink."""
    box = BOXES[name]
    low, high = np.array(list(box.values())).T
    if rng.random() < 1 / 3:
        point = rng.uniform(low, high)
    else:
        spread = (0.25 * (1 - progress) + 0.02) * (high - low)
        moved = rng.random(len(low)) < 0.5
        moved[rng.integers(len(low))] = True
        point = np.array(list(best.values())) + moved * rng.normal(size=len(low)) * spread
    return dict(zip(box, np.clip(point, low, high).round(3).tolist(), strict=True))


def search(pool: ProcessPoolExecutor, name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All trials, best first."""
    rng, trials = np.random.default_rng(arguments.seed), []
    for k in range(arguments.trials):
        best = min(trials, key=lambda trial: trial["usd"])["values"] if trials else default(name)
        values = propose(name, best, k / arguments.trials, rng) if k else best
        usd = mean_usd(pool, name, values, TRAIN_SEED, arguments.days)
        trials.append({"trial": k, "usd": usd, "values": values})
        if usd <= min(trial["usd"] for trial in trials):
            print(f"{name} trial {k}: {usd:.1f} USD/day {values}", file=sys.stderr, flush=True)
    return sorted(trials, key=lambda trial: trial["usd"])


def report(pool: ProcessPoolExecutor, name: str, trials: list[dict[str, Any]], days: int) -> str:
    """The default and the best three trials, on the days of the search and on others."""
    shipped = next(trial for trial in trials if trial["trial"] == 0)
    rows = []
    for trial in [shipped, *(t for t in trials[:3] if t is not shipped)]:
        other = mean_usd(pool, name, trial["values"], CHECK_SEED, days)
        label = "shipped" if trial is shipped else f"trial {trial['trial']}"
        rows.append([label, f"{trial['usd']:.1f}", f"{other:.1f}", *(f"{x:g}" for x in trial["values"].values())])
    return common.markdown((name, "USD/day", "on other days", *BOXES[name]), rows)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", choices=list(BOXES), nargs="+", default=["serve", "cheap", "llf"])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--days", type=int, default=100, help="days a trial (default 100)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0, help="of the search itself")
    return parser.parse_args()


def main() -> None:
    """Search each rival and print."""
    arguments = parse_arguments()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for name in arguments.agent:
            trials = search(pool, name, arguments)
            print(report(pool, name, trials, arguments.days), flush=True)
            print(f"\nbest: {name} {trials[0]['values']} {trials[0]['usd']:.1f} USD/day\n", flush=True)


if __name__ == "__main__":
    main()
