"""Time of the perfect-foresight optimum and of one rolling decision, by size, on one core.

    python benchmarks/program.py                         all sizes
    python benchmarks/program.py --sockets 30 --days 1   the default size alone

Medians over ``--scenarios`` days that have an outage. ``columns``: of the whole program.
``relaxation``: the linear relaxation, built and solved, whose cost is the proven bound.
``optimum``: everything, until the bits are whole. ``gap``: what stays unproven, in USD and as a
share of the ruler (cost of ``idle`` less the optimum's). ``decision``: one decision of
``rolling_reserve``, at every 8th stage of a day. Sizes above ``--whole-up-to`` (sockets times
stages) get the relaxation and the decision only.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

from qevgrid.agents.heuristics import ChargeAndServe, Idle
from qevgrid.agents.optimum import all_vehicles, truth
from qevgrid.agents.rolling import rolling_reserve
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.program import V2GProgram
from qevgrid.envs.v2g.scenario import Scenario

SOCKETS, DAYS = (10, 30, 50, 100, 200), (1, 2)
FIRST_SEED = 40_000
EVERY = 8
"""Stages between two timed decisions."""


def outage_seeds(core: V2GCore, count: int) -> list[int]:
    """The first seeds whose days have an outage."""
    found: list[int] = []
    seed = FIRST_SEED
    while len(found) < count:
        if draw(core, seed).outage.any():
            found.append(seed)
        seed += 1
    return found


def draw(core: V2GCore, seed: int) -> Scenario:
    """The scenario of one seed."""
    return core.sampler.sample([np.random.default_rng(seed)])


def begin(core: V2GCore, scenario: Scenario) -> Batch:
    """A batch of one that plays ``scenario``."""
    batch = core.batch(1)
    batch.load(np.arange(1), scenario)
    return batch


def idle_usd(core: V2GCore, scenario: Scenario) -> float:
    """Cost of the ruler's 0."""
    batch, agent, total = begin(core, scenario), Idle(), 0.0
    while not batch.over.all():
        batch.step(agent.act(batch.observe(), {"view": batch.view()}))
        total += float(batch.outcome.total_usd[0])
    return total


def build(core: V2GCore, scenario: Scenario) -> V2GProgram:
    """The program of a day that is known."""
    return V2GProgram(core.plant, truth(core.plant, scenario, 0), all_vehicles(core.plant, scenario, 0))


def measure_relaxation(core: V2GCore, scenario: Scenario) -> dict[str, float]:
    """Build and relax."""
    start = time.perf_counter()
    program = build(core, scenario)
    built = time.perf_counter()
    program.lp.solve(relax=True)
    end = time.perf_counter()
    return {"columns": program.lp.n_columns, "build_s": built - start, "relaxation_s": end - start}


def measure_optimum(core: V2GCore, scenario: Scenario, time_limit_s: float) -> dict[str, float]:
    """Build and solve, and what stays unproven."""
    start = time.perf_counter()
    plan = build(core, scenario).solve(time_limit_s=time_limit_s)
    seconds = time.perf_counter() - start
    gap = plan.cost_usd - plan.bound_usd
    ruler = max(idle_usd(core, scenario) - plan.cost_usd, 1e-9)
    return {"optimum_s": seconds, "gap_usd": gap, "gap_percent": 100 * gap / ruler}


def measure_decision(core: V2GCore, scenario: Scenario) -> dict[str, float]:
    """Milliseconds of the rolling plan's decisions along a day that a heuristic plays."""
    batch, steer, agent = begin(core, scenario), ChargeAndServe(), rolling_reserve()
    times = []
    while not batch.over.all():
        obs, info = batch.observe(), {"view": batch.view()}
        if batch.state.stage[0] % EVERY == 0:
            start = time.perf_counter()
            agent.act(obs, info)
            times.append(1e3 * (time.perf_counter() - start))
        batch.step(steer.act(obs, info))
    return {"decision_ms": statistics.median(times), "decision_max_ms": max(times)}


def measure(sockets: int, days: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One size: medians over the scenarios; the decisions along the first of them."""
    core = V2GCore(V2GParams(n_sockets=sockets, days=days))
    scenarios = [draw(core, seed) for seed in outage_seeds(core, arguments.scenarios)]
    row: dict[str, Any] = {"sockets": sockets, "stages": core.n_stages}
    row |= common.median(measure_relaxation(core, scenario) for scenario in scenarios)
    if sockets * core.n_stages <= arguments.whole_up_to:
        row |= common.median(measure_optimum(core, scenario, arguments.time_limit) for scenario in scenarios)
    return row | measure_decision(core, scenarios[0])


def table(rows: list[dict[str, Any]]) -> str:
    """All sizes."""
    header = (
        "sockets",
        "stages",
        "columns",
        "build s",
        "relaxation s",
        "optimum s",
        "gap USD",
        "gap %",
        "decision ms",
        "worst ms",
    )
    keys = (("build_s", 3), ("relaxation_s", 2), ("optimum_s", 2), ("gap_usd", 3), ("gap_percent", 3))
    keys += (("decision_ms", 0), ("decision_max_ms", 0))

    def cells(row: dict[str, Any]) -> list[str]:
        sizes = [str(row["sockets"]), str(row["stages"]), common.number(row["columns"])]
        return sizes + [common.number(row.get(key), digits) for key, digits in keys]

    return common.markdown(header, map(cells, rows))


def targets(rows: list[dict[str, Any]]) -> str:
    """Measured against what was to be reached; sizes that were not measured are left out."""
    wanted = (
        ((50, 192), "relaxation_s", "relaxation, 50 sockets, 192 stages, s", 1.0),
        ((30, 96), "optimum_s", "optimum, default size, s", 30.0),
        ((30, 96), "gap_percent", "its gap, % of the ruler", 0.5),
    )
    found = {(row["sockets"], row["stages"]): row for row in rows}
    lines = []
    for size, key, name, most in wanted:
        if (value := found.get(size, {}).get(key)) is not None:
            verdict = common.verdict(value, most, least=False)
            lines.append((name, common.number(value, 3), f"< {most:g}", verdict))
    return common.markdown(("target", "measured", "wanted", "met"), lines)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, nargs="+", default=SOCKETS)
    parser.add_argument("--days", type=int, nargs="+", default=DAYS)
    parser.add_argument("--scenarios", type=int, default=3, help="days a size, each with an outage (default 3)")
    parser.add_argument("--time-limit", type=float, default=30.0, help="seconds an optimum (default 30)")
    parser.add_argument(
        "--whole-up-to", type=int, default=10_000, help="largest sockets x stages that is solved to the end"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    common.use_one_core()
    where = common.machine("highspy", "numpy")
    rows = []
    for days in arguments.days:
        for sockets in arguments.sockets:
            print(f"{sockets} sockets, {days} day(s)", file=sys.stderr, flush=True)
            rows.append(measure(sockets, days, arguments))
    print(f"{where}. One core, medians of {arguments.scenarios} days with an outage.\n")
    print(table(rows), "", targets(rows), sep="\n")
    common.write_json(arguments.json, {"machine": where, "sizes": rows})


if __name__ == "__main__":
    main()
