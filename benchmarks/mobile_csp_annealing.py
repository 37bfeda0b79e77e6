"""Where annealing overtakes the program: single scarce decisions of Mobile CSP at equal time, on one core.

    python benchmarks/mobile_csp_annealing.py            M = 20 (5 decisions), 8 and 4 (3 each); about 25 minutes
    python benchmarks/mobile_csp_annealing.py --quick    M = 20, 1 decision; 3 minutes

The scarce decisions of ``mobile_csp_planning.py``. ``above best``: cost in the step kernel above the best known, in
per cent of that cost, mean and worst; the best known is the least of everything here, a longer search among it.
``search``: neighbourhood search alone; ``annealing``: the same, and every so often the annealer combines the routes
tried (``agents/mobile_csp/anneal_plan.py``); ``annealed once``: half a second of search proposes routes, which are
combined once, by our annealer or by neal, as they are (raw) and after one round of answers (polished). ``program``:
HiGHS from nothing, 60 s of it for the first decisions only; where it has no plan units rest, and ``no plan`` counts
how often. ``bound``: the Lagrangian bound, below the best.
"""

import argparse
import time
from collections.abc import Callable

import common
import numpy as np
from mobile_csp_planning import FIRST_SEED, highs_alone, scarce_problem

from qevgrid.agents.mobile_csp.anneal_plan import EVERY, Combiner, anneal_plan
from qevgrid.agents.mobile_csp.decision import decide, resources
from qevgrid.agents.mobile_csp.hybrid import sampler_of
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.envs.mobile_csp.bound import lower_bound
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.mobile_csp.search import Plan, Planner, first_plan, improve
from qevgrid.runner.stats import student_interval

Found = dict[str, tuple[float, float]]
"""Cost and CPU seconds by method."""
SECONDS = (1.0, 3.0, 10.0)
PROPOSE_S, PROPOSED, ROUTES = 0.5, 200, 40
"""Of the plans whose routes are annealed once: seconds of search, the last so many, routes of a unit."""


def timed(work: Callable[[], Plan]) -> tuple[Plan, float]:
    """A plan and its CPU seconds."""
    start = time.process_time()
    plan = work()
    return plan, time.process_time() - start


def heuristics(planner: Planner, seconds: tuple[float, ...], long_s: float) -> tuple[Found, Plan]:
    """Search and annealing for equal times, and the longest search's plan."""
    p = planner.problem
    found: Found = {}

    def note(name: str, work: Callable[[], Plan]) -> Plan:
        plan, spent = timed(work)
        found[name] = plan.cost_usd, spent
        return plan

    anneal_plan(first_plan(planner, 4), 0, 2 * EVERY)  # compiles
    note("one after another", lambda: first_plan(Planner(p), 1))
    first = note("+ best responses", lambda: first_plan(Planner(p), 4))
    for s in seconds:
        note(f"search {s:g} s", lambda s=s: improve(first, np.random.default_rng(0), 10**9, s))
        note(f"annealing {s:g} s", lambda s=s: anneal_plan(first, 0, 10**9, s))
    found |= once(planner, first)
    long = note(f"search {long_s:g} s", lambda: improve(first, np.random.default_rng(1), 10**9, long_s))
    return found, long


def once(planner: Planner, first: Plan) -> Found:
    """Routes of a short search, combined a single time."""
    met: list[Plan] = []
    found: Found = {}

    def keep(best: Plan, tried: list[Plan]) -> Plan:
        met.extend(tried)
        return best

    best, proposed_s = timed(lambda: improve(first, np.random.default_rng(2), 10**9, PROPOSE_S, keep, 1))
    combiner = Combiner(planner, 0, reads=4)
    start = time.process_time()
    joints = [best.joint, *(plan.joint for plan in sorted(met[-PROPOSED:], key=lambda plan: plan.cost_usd))]
    decision = decide(planner.problem, resources(planner.problem), joints, ROUTES)
    shared_s = proposed_s + time.process_time() - start
    found["proposals"] = best.cost_usd, proposed_s
    for name in ("structured", "neal"):
        sampler = sampler_of(MobileHybridConfig(sampler=name, reads=4, sweeps=200))  # type: ignore[arg-type]
        start = time.process_time()
        raw = planner.judge(decision.joint(sampler.solve(decision.problem, 0).choice))
        found[f"annealed once, {name}, raw"] = raw.cost_usd, shared_s + time.process_time() - start
        polished = combiner.answered(raw)
        found[f"annealed once, {name}, polished"] = polished.cost_usd, shared_s + time.process_time() - start
    return found


def one(n_units: int, seed: int, seconds: tuple[float, ...], highs: list[float], long_s: float) -> tuple[Found, float]:
    """Cost (inf: no plan) and seconds by method; cost of units at rest."""
    planner = scarce_problem(seed, n_units)
    found, long = heuristics(planner, seconds, long_s)
    for limit_s in highs:
        start = time.process_time()
        usd = highs_alone(planner, limit_s)
        found[f"program {limit_s:g} s"] = np.inf if usd is None else usd, time.process_time() - start
    found["bound"] = timed_bound(long)
    return found, planner.judge(at_rest(planner.problem)).cost_usd


def timed_bound(plan: Plan) -> tuple[float, float]:
    """The Lagrangian bound and its seconds."""
    start = time.process_time()
    return lower_bound(plan), time.process_time() - start


def table(rows: list[Found], idle: list[float]) -> str:
    """Means over decisions."""
    least = np.array([min(usd for name, (usd, _) in row.items() if name != "bound") for row in rows])
    lines = []
    for method in dict.fromkeys(name for row in rows for name in row):
        have = np.array([method in row for row in rows])
        usd, seconds = (np.array([row[method][k] for row in rows if method in row]) for k in (0, 1))
        above = 100 * (np.minimum(usd, np.array(idle)[have]) / least[have] - 1)
        worst = above.min() if method == "bound" else above.max()
        none = str(int(np.isinf(usd).sum())) if method.startswith("program") else ""
        lines.append([method, f"{above.mean():.2f}", f"{worst:.2f}", none, f"{seconds.mean():.2f}", str(have.sum())])
    above = 100 * (np.array(idle) / least - 1)
    lines.append(["units at rest", f"{above.mean():.2f}", f"{above.max():.2f}", "", "", str(len(idle))])
    return common.markdown(("method", "above best, %", "worst, %", "no plan", "CPU s", "decisions"), lines)


def paired(rows: list[Found], seconds: tuple[float, ...]) -> str:
    """Annealing less search at equal time, per cent of the search's cost, with 95 % intervals of Student's t."""
    lines = []
    for s in seconds:
        usd = np.array([[row[f"{name} {s:g} s"][0] for name in ("annealing", "search")] for row in rows])
        change = 100 * (usd[:, 0] / usd[:, 1] - 1)
        d = student_interval(change)
        half = "–" if np.isnan(d.hi) else f"{d.hi - d.value:.2f}"
        lines.append([f"{s:g} s", f"{d.value:+.2f}", half, f"{(change < 0).sum()}/{len(change)}"])
    return common.markdown(("equal time", "annealing - search, %", "+-", "better"), lines)


def main() -> None:
    """Print a table a number of units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--units", type=int, nargs="+", help="default 20 8 4; quick 20")
    parser.add_argument("--decisions", type=int, help="default 5 with 20 units or more, else 3; quick 1")
    parser.add_argument("--seconds", type=float, nargs="+", default=SECONDS, help="of search and of annealing")
    parser.add_argument("--highs", type=float, nargs="*", default=[1.0, 10.0], help="time limits of the program")
    parser.add_argument("--minutes-for", type=int, default=2, help="decisions for which it also has 60 s (quick: 0)")
    parser.add_argument("--long-s", type=float, default=20.0, help="of the longest search")
    a = parser.parse_args()
    common.use_one_core()
    print(common.machine("numpy", "numba", "highspy", "dwave-samplers"), flush=True)
    for units in a.units or ([20] if a.quick else [20, 8, 4]):
        rows, idle = [], []
        for k in range(a.decisions or (1 if a.quick else 5 if units >= 20 else 3)):
            highs = [*a.highs, *([60.0] if k < a.minutes_for and not a.quick else [])]
            found, rest = one(units, FIRST_SEED + k, tuple(a.seconds), highs, a.long_s)
            rows.append(found)
            idle.append(rest)
        print(f"\nM = {units}\n\n{table(rows, idle)}\n\n{paired(rows, tuple(a.seconds))}", flush=True)


if __name__ == "__main__":
    main()
