"""Single decisions of Mobile CSP: plans, best responses, search, annealing of candidate routes, HiGHS.

    python benchmarks/mobile_csp_annealing.py
    python benchmarks/mobile_csp_annealing.py --units 20 --decisions 1 --highs 10 --long-s 15

The decisions of ``mobile_csp_planning.py``: D = 12 sites, H = 12 periods, units anywhere with any energy. ``above
best``: cost in the step kernel above the best known, of everything here and a long neighbourhood search; ``lost``: the
same as a share of what the best saves over units that rest. Where HiGHS has no plan in time, units rest.
``raw``: the annealed combination as it is; ``polished``: after one round of answers by the route program.
"""

import argparse
import time
from collections.abc import Callable

import common
import numpy as np
from mobile_csp_planning import FIRST_SEED, large_problem

from qevgrid.agents.mobile_csp.candidates import Search, ascend
from qevgrid.agents.mobile_csp.decision import decide, resources
from qevgrid.agents.mobile_csp.hybrid import sampler_of
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import at_rest
from qevgrid.envs.mobile_csp.search import Planner, copy, first_plan, improve

ROUNDS = 60
"""Rounds of search that propose routes."""


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Cost and CPU seconds."""
    start = time.process_time()
    usd = work()
    return usd, time.process_time() - start


def one(make: Callable[[], Planner], rounds: int, highs: list[float], long_s: float) -> dict[str, tuple[float, float]]:
    """Cost and seconds by method."""
    found: dict[str, tuple[float, float]] = {}
    first_plan(make(), 1)
    found["one after another"] = timed(lambda: first_plan(make(), 1).cost_usd)
    found["+ best responses"] = timed(lambda: first_plan(make(), 4).cost_usd)
    start = time.process_time()
    planner = make()
    plan = first_plan(planner, 4)
    search = Search(planner, np.ones(planner.problem.world.need_kw.shape), np.random.default_rng(0))
    best, met = search.around(plan, rounds)
    found["+ search"] = best.cost_usd, time.process_time() - start
    resource = resources(planner.problem)
    priced = ascend(planner, resource, plan.joint, best.cost_usd, 20)
    proposed = time.process_time() - start
    for label, joints in (("search", [best.joint, *reversed(met)]), ("prices", [plan.joint, *reversed(priced.joints)])):
        decision = decide(planner.problem, resource, joints, 60)
        for name in ("structured", "neal"):
            sampler = sampler_of(MobileHybridConfig(sampler=name, reads=8, sweeps=300))  # type: ignore[arg-type]
            begun = time.process_time()
            choice = sampler.solve(decision.problem, 0).choice
            raw = planner.judge(decision.joint(choice))
            found[f"routes of {label}, {name}, raw"] = raw.cost_usd, proposed + time.process_time() - begun
            polished = search.answered(copy(raw.joint), 2)
            found[f"routes of {label}, {name}, polished"] = polished.cost_usd, proposed + time.process_time() - begun
    for seconds in highs:
        begun = time.process_time()
        try:
            usd = MobileProgram(make().problem).solve(time_limit_s=seconds).plan.cost_usd
        except UserError:  # no plan at all
            usd = np.inf
        found[f"HiGHS {seconds:g} s"] = usd, time.process_time() - begun
    found[f"search, {long_s:g} s"] = timed(lambda: improve(best, np.random.default_rng(1), 10**6, long_s).cost_usd)
    return found


def main() -> None:
    """Print a table a number of units."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, nargs="+", default=[4, 8, 20])
    parser.add_argument("--decisions", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--highs", type=float, nargs="*", default=[1.0, 10.0, 60.0])
    parser.add_argument("--long-s", type=float, default=60.0)
    a = parser.parse_args()
    common.use_one_core()
    print(common.machine("numpy", "numba", "highspy", "dwave-samplers"), flush=True)
    for units in a.units:
        rows, idle = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + a.decisions):
            planner = large_problem(seed, units)
            idle.append(planner.judge(at_rest(planner.problem)).cost_usd)
            rows.append(one(lambda p=planner: Planner(p.problem), a.rounds, a.highs, a.long_s))
        least = np.array([min(usd for usd, _ in row.values()) for row in rows])
        lines = []
        for method in rows[0]:
            usd, seconds = (np.array([row[method][k] for row in rows]) for k in (0, 1))
            lost = (np.minimum(usd, idle) - least) / (idle - least)
            over = (np.minimum(usd, idle) - least) / np.abs(least)
            lines.append([method, f"{over.mean():.2%}", f"{lost.mean():.2%}", f"{seconds.mean():.2f}"])
        print(f"\nM = {units}\n\n{common.markdown(('method', 'above best', 'lost', 'CPU s'), lines)}", flush=True)


if __name__ == "__main__":
    main()
