"""How good plans of Mobile CSP are, and how long they take, on one core.

    python benchmarks/mobile_csp_planning.py            20 storms of mini, 3 large decisions, HiGHS 60 s each
    python benchmarks/mobile_csp_planning.py --quick    4 storms, 1 decision, HiGHS 20 s

``mini``: search against the program, which begins with the search's plan and proves its bound. ``large``: one
decision, M = 20 units, D = 12 sites, H = 12 periods, in the middle of a storm, units anywhere with any energy:
search for 3 s, HiGHS alone and a long search, in USD. ``lost``: cost above the best of these, as a share of what that
saves over units that rest. (Costs of the large decisions can be near 0 or, by the worth of energy left, below it:
a share of the cost itself would say nothing.) In ``mini`` the program begins with the search's plan, so that
``search over`` says something only where ``unproven`` is small.
"""

import argparse
import sys
import time

import common
import numpy as np

from qevgrid.agents.mobile_csp.planning import planner_of, row
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import Units
from qevgrid.envs.mobile_csp.bound import lower_bound
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import BASE_SITES, MobileCSPParams, Site
from qevgrid.envs.mobile_csp.powers import best_powers
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.mobile_csp.search import Plan, Planner, first_plan, improve, make_problem

FIRST_SEED = 120
ITERATIONS = 1000
"""Of the search in ``mini``."""
UNITS, PERIODS = 20, 12
MORE_SITES = (
    Site(name="dialysis", bus=10, node=12, critical_kw=90.0, voll_usd_kwh=60.0, backup_h=2.0, slots=2),
    Site(name="fuel", bus=27, node=19, critical_kw=60.0, voll_usd_kwh=35.0, slots=2),
)


def searched(planner: Planner, seed: int, iterations: int, seconds: float | None = None) -> tuple[Plan, float]:
    """Best plan found and the seconds that it took."""
    start = time.process_time()
    plan = improve(first_plan(planner, 4), np.random.default_rng(seed), iterations, seconds)
    return best_powers(plan), time.process_time() - start


def mini(storms: int, limit_s: float) -> str:
    """Search, bounds and program, storm by storm."""
    core, rows = MobileCore(MobileCSPParams(preset="mini")), []
    batch = core.batch(storms)
    batch.start(np.arange(storms), [np.random.default_rng(FIRST_SEED + k) for k in range(storms)])
    view, world = batch.view(), batch.world
    for b in range(storms):
        planner = planner_of(view, world, b)
        plan, search_s = searched(planner, 0, ITERATIONS)
        priced = lower_bound(plan)
        best = MobileProgram(planner.problem).solve(limit_s, start=plan)
        proven = max(best.bound_usd, priced)
        over, above = (plan.cost_usd / usd - 1 for usd in (best.plan.cost_usd, proven))
        usd = (plan.cost_usd, best.plan.cost_usd, best.bound_usd, priced)
        cells = [*(common.number(x) for x in usd), f"{over:.2%}", f"{above:.2%}"]
        rows.append([str(FIRST_SEED + b), *cells, f"{search_s:.1f}", f"{best.seconds:.1f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    header = ("storm", "search", "program", "proven", "priced", "over program", "over bound", "search s", "HiGHS s")
    return common.markdown(header, rows)


def large_problem(seed: int, n_units: int = UNITS) -> Planner:
    """One large decision."""
    sites = (Site(**(vars(BASE_SITES[0]) | {"slots": n_units, "connection_kw": 5000.0})), *BASE_SITES[1:], *MORE_SITES)
    core = MobileCore(MobileCSPParams(sites=sites, n_units=n_units, n_periods=2 * PERIODS))
    batch, rng = core.batch(1), np.random.default_rng(seed)
    batch.start(np.arange(1), [rng])
    p, shape = core.plant, (1, n_units)
    arrival = np.full(shape, PERIODS)
    energy = rng.uniform(p.fleet.floor_kwh, p.fleet.capacity_kwh, shape)
    units = Units(rng.integers(0, core.n_sites, shape), arrival, energy)
    return Planner(make_problem(row(batch.world, 0), units, PERIODS, p.fleet, p.sites, p.tariff))


def large(decisions: int, limit_s: float) -> str:
    """Search for 3 s against HiGHS alone and a long search."""
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + decisions):
        planner = large_problem(seed)
        first_plan(planner, 4)
        start = time.perf_counter()
        first = first_plan(planner, 4)
        first_s = time.perf_counter() - start
        short, _ = searched(planner, 0, 10**6, 2.8)
        long, _ = searched(planner, 1, 10**6, limit_s)
        try:
            highs: float | None = MobileProgram(planner.problem).solve(limit_s).plan.cost_usd
        except UserError:
            highs = None
        idle = planner.judge(at_rest(planner.problem)).cost_usd
        usd = [first.cost_usd, short.cost_usd, long.cost_usd, highs]
        best = min(x for x in usd if x is not None)
        lost = ["–" if x is None else f"{(x - best) / (idle - best):.1%}" for x in usd]
        cells = [common.number(x) for x in (idle, *usd, lower_bound(long))]
        rows.append([str(seed), *cells, lost[0], lost[1], lost[3], f"{1e3 * first_s:.0f}"])
    header = (
        "decision",
        "idle",
        "first plan",
        "3 s",
        "long",
        "HiGHS",
        "bound",
        "first lost",
        "3 s lost",
        "HiGHS lost",
        "first ms",
    )
    return common.markdown(header, rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=["mini", "large"], nargs="+", default=["mini", "large"])
    parser.add_argument("--storms", type=int, help="of mini (default 20; quick 4)")
    parser.add_argument("--limit-s", type=float, help="of HiGHS and the long search (default 60; quick 20)")
    a = parser.parse_args()
    common.use_one_core()
    print(common.machine("numpy", "numba", "highspy"), flush=True)
    limit_s = a.limit_s or (20.0 if a.quick else 60.0)
    if "mini" in a.part:
        print(f"\nmini, USD\n\n{mini(a.storms or (4 if a.quick else 20), limit_s)}", flush=True)
    if "large" in a.part:
        print(f"\nM = {UNITS}, H = {PERIODS}\n\n{large(1 if a.quick else 3, limit_s)}", flush=True)


if __name__ == "__main__":
    main()
