"""How good plans of Mobile CSP are, and how long they take, on one core.

    python benchmarks/mobile_csp_planning.py            20 storms of mini, 5 scarce decisions; about 25 minutes
    python benchmarks/mobile_csp_planning.py --quick    4 storms, 1 decision; 3 minutes

``mini``: search against the program, which begins with the search's plan and proves its bound; ``priced`` is the
Lagrangian bound, and ``over bound`` the search's cost above the better of the two. Where HiGHS proves nothing,
``over program`` says little.

``scarce``: one decision, M = 20 units, D = 12 sites, H = 12 periods, in the middle of a heavy storm. Six hours in which
a fleet of 4,000 kWh and 2,000 kW, split over equal units, must serve twelve sites from one hub: gust 140 mph, the
substation out, generators failed, two slots a site (three at the large ones). Units are at any site or up to two
periods before it, with 10 to 60 % of their energy. The best plans known cost about half of what units at rest cost,
and nearly all of that is load lost. ``3 s`` is search and annealing in turn (``anneal_plan.py``). Per cent are of the
cost, above the best known: the least of everything here. ``HiGHS`` begins with nothing, as a user would; where it finds
no plan, units rest.
"""

import argparse
import dataclasses
import sys
import time
from typing import Any

import common
import numpy as np

from qevgrid.agents.mobile_csp.anneal_plan import anneal_plan
from qevgrid.agents.mobile_csp.planning import planner_of, row
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import Units
from qevgrid.envs.mobile_csp.bound import lower_bound
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import BASE_SITES, MobileCSPParams, Site, UnitParams
from qevgrid.envs.mobile_csp.powers import best_powers
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.mobile_csp.search import Plan, Planner, first_plan, improve, make_problem

FIRST_SEED = 120
ITERATIONS = 1000
"""Of the search in ``mini``."""
UNITS, PERIODS, SECONDS = 20, 12, 2.8
FLEET_KWH, FLEET_KW = 4000.0, 2000.0
STORM: dict[str, Any] = {
    "storm": {"gust_mph": 140.0},
    "repair": {"substation_share": 1.0, "substation_median_h": 24.0},
    "load": {"generator_fail_share": 1.0, "generator_fail_h": 6.0},
}
MORE_SITES = (
    Site(name="dialysis", bus=10, node=12, critical_kw=90.0, voll_usd_kwh=60.0, backup_h=2.0),
    Site(name="fuel", bus=27, node=19, critical_kw=60.0, voll_usd_kwh=35.0),
)


def searched(planner: Planner, seed: int, iterations: int) -> tuple[Plan, float]:
    """Best plan found and the CPU seconds that it took."""
    start = time.process_time()
    plan = improve(first_plan(planner, 4), np.random.default_rng(seed), iterations)
    return best_powers(plan), time.process_time() - start


def annealed(planner: Planner, seed: int, seconds: float) -> tuple[Plan, float]:
    """The same by search and annealing in turn, for a time."""
    start = time.process_time()
    plan = anneal_plan(first_plan(planner, 4), seed, 10**9, seconds)
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


def scarce_problem(seed: int, n_units: int = UNITS) -> Planner:
    """One decision in a heavy storm; see above."""
    sites = [_with_slots(site) for site in (*BASE_SITES, *MORE_SITES)]
    core = MobileCore(
        MobileCSPParams(
            sites=tuple(sites),
            n_units=n_units,
            n_periods=2 * PERIODS,
            unit=UnitParams(capacity_kwh=FLEET_KWH / n_units, power_kw=FLEET_KW / n_units),
            **STORM,
        )
    )
    batch, rng = core.batch(1), np.random.default_rng(seed)
    batch.start(np.arange(1), [rng])
    p, shape = core.plant, (1, n_units)
    site = rng.integers(0, core.n_sites, shape)
    arrival = PERIODS + rng.integers(0, 3, shape)
    energy = rng.uniform(0.1, 0.6, shape) * p.fleet.capacity_kwh
    return Planner(make_problem(row(batch.world, 0), Units(site, arrival, energy), PERIODS, p.fleet, p.sites, p.tariff))


def _with_slots(site: Site) -> Site:
    """Two slots, three at large sites; the staging area as it is."""
    slots = site.slots if site.bus is None else 3 if site.critical_kw >= 150 else max(site.slots, 2)
    return dataclasses.replace(site, slots=slots)


def highs_alone(planner: Planner, limit_s: float) -> float | None:
    """Cost of HiGHS's plan; None: it found none in time."""
    try:
        return MobileProgram(planner.problem).solve(limit_s).plan.cost_usd
    except UserError:
        return None


def scarce(decisions: int, limit_s: float) -> str:
    """First plans and 3 s of search and annealing against HiGHS alone and a longer search."""
    annealed(scarce_problem(FIRST_SEED, 4), 0, 0.5)  # compiles
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + decisions):
        planner = scarce_problem(seed)
        start = time.process_time()
        first = first_plan(planner, 4)
        first_s = time.process_time() - start
        short, short_s = annealed(planner, 0, SECONDS)
        long, _ = annealed(planner, 1, limit_s)
        highs = highs_alone(planner, limit_s)
        idle = planner.judge(at_rest(planner.problem)).cost_usd
        usd = [first.cost_usd, short.cost_usd, long.cost_usd, idle if highs is None else min(highs, idle)]
        above = [f"{x / min(usd) - 1:.2%}" for x in usd]
        cells = [common.number(x) for x in (idle, *usd[:3], highs, lower_bound(long))]
        rows.append([str(seed), *cells, above[0], above[1], above[3], f"{1e3 * first_s:.0f}", f"{short_s:.1f}"])
    header = (
        "decision", "idle", "first plan", "3 s", "long", "HiGHS", "bound",
        "first, %", "3 s, %", "HiGHS, %", "first ms", "search s",
    )  # fmt: skip
    return common.markdown(header, rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=["mini", "scarce"], nargs="+", default=["mini", "scarce"])
    parser.add_argument("--storms", type=int, help="of mini (default 20; quick 4)")
    parser.add_argument("--decisions", type=int, help="scarce ones (default 5; quick 1)")
    parser.add_argument("--limit-s", type=float, help="of HiGHS and the long search (default 45; quick 15)")
    a = parser.parse_args()
    common.use_one_core()
    print(common.machine("numpy", "numba", "highspy"), flush=True)
    limit_s = a.limit_s or (15.0 if a.quick else 45.0)
    if "mini" in a.part:
        print(f"\nmini, USD\n\n{mini(a.storms or (4 if a.quick else 20), limit_s)}", flush=True)
    if "scarce" in a.part:
        table = scarce(a.decisions or (1 if a.quick else 5), limit_s)
        print(f"\nscarce, M = {UNITS}, H = {PERIODS}, USD\n\n{table}", flush=True)


if __name__ == "__main__":
    main()
