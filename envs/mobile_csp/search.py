"""Joint plans of all units: one route after another, best responses, and large-neighbourhood search.

What is served is a concave function of what the units bring, so routes planned one after another, each for
what the others leave, are a greedy choice with a known quality; best responses and re-planning a few units at
perturbed prices improve it. A plan's cost is always that of playing it in the step kernel.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from qevgrid.envs.direct import Direct
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import AUTO, NO_SERVICE, Action, Fleet, Service, Sites, Tariff, Units, World
from qevgrid.envs.mobile_csp.respond import Joint, Problem, at_rest, start_of, sweep
from qevgrid.envs.mobile_csp.routes import NOWHERE, empty_tables, empty_values, levels, value_states
from qevgrid.envs.mobile_csp.simulate import Player, episode, voll_order
from qevgrid.envs.types import FloatArray, IntArray

NOISE = 0.35
"""Spread of the log prices at which units are planned anew."""
COOL = 0.02
"""Share of the cost by which a plan may be worse at first and still be the next to change."""
MOST = 3
"""Units that are planned anew at once."""
FEW = 4
"""Fleet beyond which that share falls with the number of units."""
SHAKEN, TOGETHER, EVERYBODY = 0.3, 0.5, 1.0
"""Odds of shaken prices rather than barred sites, of units that work at one site; how often all answer, times M."""

_SWEEP = Direct(sweep)


@dataclass(frozen=True)
class Plan:
    """What all units do from ``stage`` to the end, and what that costs in the step kernel."""

    problem: Problem
    joint: Joint
    site: IntArray  # (T, M)
    share: FloatArray  # (T, M)
    cost_usd: float
    terms_usd: FloatArray  # (terms,) in the order of COST_TERMS
    unserved_usd: FloatArray  # (T,) of each period

    @property
    def auto_usd(self) -> float:
        """Cost of the same routes where each site decides the powers of who is there."""
        return play(self.problem, self.joint, self.site, np.full(self.share.shape, AUTO)).cost_usd

    def action(self, stage: int, *, auto: bool = False) -> Action:
        """Rows (1, M) for one period."""
        share = np.full((1, self.share.shape[1]), AUTO) if auto else self.share[stage][None]
        return Action(self.site[stage][None], share)


def make_problem(
    world: World,
    units: Units,
    stage: int,
    fleet: Fleet,
    sites: Sites,
    tariff: Tariff,
    count: int | None = None,
    service: Service = NO_SERVICE,
    backlog_kwh: FloatArray | None = None,
) -> Problem:
    """The problem of the one episode that ``world`` (1, T, ...) and ``units`` (1, M) hold.

    ``count``: energy levels, by default as many as lose least by rounding. ``backlog_kwh`` (1, E, 2): who waits at
    the sites of ``service``, by default nobody.
    """
    if len(world.need_kw) != 1 or len(units.site) != 1:
        raise UserError(f"a plan is for one episode, not {len(world.need_kw)}; pass rows b:b+1 of World and Units")
    n_periods = world.need_kw.shape[1]
    if not 0 <= stage < n_periods:
        raise UserError(f"stage={stage}: a plan begins in one of the periods 0 to {n_periods - 1}")
    waiting = np.zeros((1, len(service.site), 2)) if backlog_kwh is None else backlog_kwh
    if waiting.shape != (1, len(service.site), 2) or (
        waiting.size and world.arrivals_kwh.shape[2:] != waiting.shape[1:]
    ):
        raise UserError(
            f"backlog_kwh {waiting.shape} and arrivals_kwh {world.arrivals_kwh.shape} must have {len(service.site)} sites "
            "with two kinds of vehicles; take both and the service from one view"
        )
    grid = levels(fleet, tariff, count=count)
    start = start_of(units, stage, fleet, grid)
    single, order = episode(world), voll_order(sites)
    problem = Problem(single, units, stage, grid, fleet, sites, order, tariff, start, service, waiting)
    return problem.within(single)


class Planner:
    """Room to plan in, reused by all plans of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        n_periods, n_sites = problem.world.need_kw.shape
        self.tables = empty_tables(n_periods, n_sites, problem.grid)
        self.value = empty_values(n_periods, n_sites, problem.grid)
        self.even = np.ones((n_periods, n_sites))
        self.player = player_of(problem)

    def respond(self, joint: Joint, who: IntArray, rounds: int, noise: FloatArray | None = None) -> None:
        """Best responses of ``who`` in place; ``noise`` (T, D) multiplies what serving earns."""
        _SWEEP(self.problem, joint, self.tables, self.value, who, rounds, self.even if noise is None else noise)

    def worth(self) -> FloatArray:
        """What the unit that answered last could have earned from anywhere, (T + 1, D, levels + 1)."""
        p, anywhere = self.problem, np.zeros(len(self.problem.sites.slots), np.int64)
        value_states(p.world, p.stage, p.grid, p.tariff, self.tables, self.value, anywhere)
        return self.value

    def judge(self, joint: Joint) -> Plan:
        """Play routes in the step kernel."""
        return played(self.player, self.problem, joint, *actions(self.problem, joint))


def play(problem: Problem, joint: Joint, site: IntArray, share: FloatArray) -> Plan:
    """Play actions (T, M) in the step kernel."""
    return played(player_of(problem), problem, joint, site, share)


def player_of(p: Problem) -> Player:
    """Room to play plans of a problem."""
    return Player(p.world, p.units, p.stage, p.fleet, p.sites, p.tariff, p.service, p.backlog_kwh)


def played(player: Player, problem: Problem, joint: Joint, site: IntArray, share: FloatArray) -> Plan:
    """The same, in room that is there."""
    share = np.ascontiguousarray(share, float).copy()
    stand_in(joint.stay, problem.sites.slots, share)
    replay = player(np.ascontiguousarray(site), share)
    return Plan(problem, copy(joint), site, share, float(replay.cost_usd.sum()), replay.cost_usd, replay.unserved_usd)


@njit(cache=True)
def stand_in(stay: Any, slots: Any, share: Any) -> None:  # pragma: no cover
    """All units at an overfull site are told the same, in place in ``share`` (T, M).

    Routes leave units at rest out of the count of slots, but the kernel connects those with most energy: whoever
    that is does the work.
    """
    taken = np.zeros(len(slots), np.int64)
    for t in range(len(share)):
        taken[:] = 0
        for i in range(len(stay)):
            if stay[i, t] != NOWHERE:
                taken[stay[i, t]] += 1
        for d in range(len(slots)):
            if taken[d] > slots[d]:
                most = 0.0
                for i in range(len(stay)):
                    if stay[i, t] == d and abs(share[t, i]) > abs(most):
                        most = share[t, i]
                for i in range(len(stay)):
                    if stay[i, t] == d:
                        share[t, i] = most


def plan(world: World, units: Units, stage: int, fleet: Fleet, sites: Sites, tariff: Tariff, sweeps: int = 4) -> Plan:
    """Routes one after another, then best responses, ``sweeps`` rounds in all.

    ``world`` (1, T, ...) and ``units`` (1, M) are rows of one episode; periods before ``stage`` are not read.
    """
    planner = Planner(make_problem(world, units, stage, fleet, sites, tariff))
    return first_plan(planner, sweeps)


def first_plan(planner: Planner, sweeps: int) -> Plan:
    """Sequential plan and best responses."""
    joint = at_rest(planner.problem)
    planner.respond(joint, np.arange(len(joint.stay)), sweeps)
    return planner.judge(joint)


def place(planner: Planner, whole_travel: IntArray) -> None:
    """Before the storm: put each unit, one after another, where its best route begins. Overwrites the starts.

    ``whole_travel`` (D, D): periods of the trip there, which are paid for.
    """
    p, joint = planner.problem, at_rest(planner.problem)
    for i in range(len(joint.stay)):
        planner.respond(joint, np.array([i]), 1)
        trip = whole_travel[p.start.site[i]].astype(float)
        worth = planner.worth()[p.start.period[i], :, p.start.level[i]]
        net = worth - model.transport_usd(trip, p.tariff.transport_usd_h, p.tariff.dt_h)
        p.start.site[i] = p.units.site[0, i] = int(np.argmax(net))
        planner.respond(joint, np.array([i]), 1)


def improve(
    plan: Plan,
    rng: np.random.Generator,
    iterations: int = 300,
    seconds: float | None = None,
    combine: Callable[[Plan, list[Plan]], Plan] | None = None,
    every: int = 50,
) -> Plan:
    """Large-neighbourhood search: plan a few units anew at shaken prices, keep what is cheaper.

    Ends after ``iterations``, or before if ``seconds`` of this process's time are over (then it is not the same on
    every machine). ``combine`` may make another plan of the best one and the last ``every`` tried, as often.
    """
    planner, best, current, met = Planner(plan.problem), plan, plan, []
    begin, cool = time.process_time(), COOL * min(1.0, FEW / len(plan.joint.stay))
    for k in range(iterations):
        spent = 0.0 if seconds is None else (time.process_time() - begin) / max(seconds, 1e-9)
        if spent >= 1.0:
            break
        trial = planner.judge(changed(planner, current.joint, rng))
        if combine is not None:
            met.append(trial)
            if len(met) == every:
                trial, met = combine(min(best, trial, key=_usd), met), []
        bar = cool * (1 - max(k / iterations, spent)) ** 2 * rng.exponential() * abs(best.cost_usd)
        if trial.cost_usd < current.cost_usd + bar:
            current = trial
        best = min(best, trial, key=_usd)
    return best


def _usd(plan: Plan) -> float:
    return plan.cost_usd


def changed(planner: Planner, joint: Joint, rng: np.random.Generator) -> Joint:
    """Routes of a few units left out and planned anew, first at prices of their own, then at the true ones."""
    n_units, result = len(joint.stay), copy(joint)
    who = _few(planner.problem, joint, rng)
    result.stay[who], result.level[who] = NOWHERE, 0
    prices = _shaken if rng.random() < SHAKEN else _barred
    for i in who:
        planner.respond(result, np.array([i]), 1, prices(planner, rng))
    everybody = rng.random() < min(0.5, EVERYBODY / n_units)
    planner.respond(result, rng.permutation(n_units) if everybody else rng.permutation(who), 2)
    return result


def _few(p: Problem, joint: Joint, rng: np.random.Generator) -> IntArray:
    """A few units: any, or those that work at one site."""
    order = rng.permutation(len(joint.stay))
    if rng.random() < TOGETHER:
        site = rng.integers(len(p.sites.slots))
        there = ((joint.stay == site) & (joint.level != 0)).any(1)
        order = np.r_[order[there[order]], order[~there[order]]]
    return order[: rng.integers(1, min(MOST, len(order)) + 1)]


def _shaken(planner: Planner, rng: np.random.Generator) -> FloatArray:
    """Factors (T, D) on what serving earns, of sites and of periods."""
    spread = NOISE * np.exp(rng.uniform(-1, 1))
    sites = np.exp(spread * rng.standard_normal((1, len(planner.even[0]))))
    return sites * np.exp(spread * rng.standard_normal(planner.even.shape))


def _barred(planner: Planner, rng: np.random.Generator) -> FloatArray:
    """No earnings at up to two sites for some time: whoever else may work there then."""
    noise, stage = planner.even.copy(), planner.problem.stage
    n_periods, n_sites = noise.shape
    for site in rng.permutation(n_sites)[: rng.integers(1, 3)]:
        first, last = np.sort(rng.integers(stage, n_periods + 1, 2))
        noise[first:last, site] = 0.0
    return noise


def copy(joint: Joint) -> Joint:
    """The same routes in arrays of their own."""
    return Joint(*(x.copy() for x in joint))


def actions(problem: Problem, joint: Joint) -> tuple[IntArray, FloatArray]:
    """Sites (T, M) and shares (T, M) of routes. Full levels ask for full power: the site gives what there is."""
    grid, most = problem.grid, problem.fleet.power_kw * problem.tariff.dt_h
    number = np.arange(-grid.discharge, grid.charge + 1)
    up, down = number * grid.step_charge_kwh / most, -number * grid.step_discharge_kwh / most
    share = np.where(number > 0, -np.minimum(up, 1.0), np.minimum(down, 1.0))
    share[0], share[-1] = 1.0, -1.0
    chosen = share[joint.level.T + grid.discharge]
    chosen[joint.stay.T == NOWHERE] = 0.0
    return np.ascontiguousarray(joint.target.T), np.ascontiguousarray(chosen)
