"""The whole episode as a mixed-integer program on the time-space network, for small worlds: a proven optimum.

Nodes are (period, site); arcs are staying connected, waiting, and travelling, each with a whole number of units
and the energy that they carry, so that energy moves with units (review (19), (20) with conservation of flow). The
units are one commodity: two of them may swap energy where they meet. The solution is therefore taken apart into
routes, whose best powers are solved for once more (``powers.py``); its cost is that of playing it in the step
kernel, and the solver's bound holds for it. Presence cuts: see ``bound.py``.
"""

from typing import NamedTuple

import numpy as np

from qevgrid.envs.linear import LinearProgram, Solution
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE
from qevgrid.envs.mobile_csp.powers import best_powers
from qevgrid.envs.mobile_csp.respond import Joint, Problem
from qevgrid.envs.mobile_csp.routes import NOWHERE
from qevgrid.envs.mobile_csp.rows import idle_usd, limits, rates
from qevgrid.envs.mobile_csp.search import Plan, Planner
from qevgrid.envs.types import BoolArray, FloatArray, IntArray

CONNECTED, WAITING, TRAVEL = range(3)


class Arcs(NamedTuple):
    """A arcs of the network."""

    kind: IntArray  # (A,)
    period: IntArray  # (A,)
    site: IntArray  # (A,)
    then: IntArray  # (A,) period of its head
    to: IntArray  # (A,) site of its head
    cost_usd: FloatArray  # (A,) for each unit


class Optimum(NamedTuple):
    """The best plan found and the solver's proof."""

    plan: Plan
    solver_usd: float  # objective of the program, in which units may swap energy where they meet
    bound_usd: float
    status: str
    seconds: float


class MobileProgram:
    """Builds and solves the program of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.limits, self.rates = problem, limits(problem), rates(problem)
        self.arcs = _arcs(problem)
        self.lp = LinearProgram(idle_usd(problem))
        self._flows()
        self._powers()
        self._needs()

    def _flows(self) -> None:
        """Units and the energy above the floor that they take into each arc."""
        p, a, lp = self.problem, self.arcs, self.lp
        n_periods, n_sites = p.world.need_kw.shape
        slots = np.minimum(p.sites.slots, p.fleet.n_units)
        most = np.where(a.kind == CONNECTED, slots[a.site], p.fleet.n_units)
        n, span = len(a.kind), p.fleet.capacity_kwh - p.fleet.floor_kwh
        self.units = lp.variables(n, a.cost_usd, 0.0, most, integer=True)
        self.energy = lp.variables(n)
        row = np.arange(n)
        lp.rows(n, [(row, self.energy, 1.0), (row, self.units, -span)], high=0.0)
        joins = np.flatnonzero(a.kind == CONNECTED)
        self.joins = joins
        end = np.where(a.then[joins] == n_periods, self.rates.terminal_usd_kwh, 0.0)
        self.after = lp.variables(len(joins), end)  # energy out of connected arcs
        k = np.arange(len(joins))
        lp.rows(len(joins), [(k, self.after, 1.0), (k, self.units[joins], -span)], high=0.0)
        others = np.flatnonzero(a.kind != CONNECTED)
        ends = others[a.then[others] == n_periods]
        last = lp.variables(len(ends), self.rates.terminal_usd_kwh)
        k = np.arange(len(ends))
        lp.rows(len(ends), [(k, last, 1.0), (k, self.energy[ends], -1.0)], 0.0, 0.0)
        tail, head = a.period * n_sites + a.site, a.then * n_sites + a.to
        size = n_periods * n_sites
        units, energy = self._starts(size)
        inner = np.flatnonzero(a.then < n_periods)
        lp.rows(size, [(tail, self.units, 1.0), (head[inner], self.units[inner], -1.0)], units, units)
        through, late = others[a.then[others] < n_periods], a.then[joins] < n_periods
        terms = [
            (tail, self.energy, 1.0),
            (head[through], self.energy[through], -1.0),
            (head[joins[late]], self.after[late], -1.0),
        ]
        lp.rows(size, terms, energy, energy)

    def _starts(self, size: int) -> tuple[FloatArray, FloatArray]:
        """Units and energy that enter each node; those that arrive too late only keep their energy."""
        p = self.problem
        n_periods, n_sites = p.world.need_kw.shape
        above = p.units.energy_kwh[0] - p.fleet.floor_kwh
        on = p.start.period < n_periods
        node = p.start.period[on] * n_sites + p.start.site[on]
        self.lp.constant += self.rates.terminal_usd_kwh * float(above[~on].sum())
        return np.bincount(node, minlength=size).astype(float), np.bincount(node, weights=above[on], minlength=size)

    def _powers(self) -> None:
        """Charging and discharging on connected arcs."""
        p, a, lp, rate = self.problem, self.arcs, self.lp, self.rates
        t, d = a.period[self.joins], a.site[self.joins]
        number = self.limits.number[t, d]
        limit = np.where(number < 0, p.world.charge_limit_kw[t, d], 0.0)
        useful = np.where(number >= 0, np.append(self.limits.most_kw, 0.0)[number], 0.0)
        n = len(self.joins)
        self.charge = lp.variables(n, rate.charge_usd, 0.0, limit)
        self.discharge = lp.variables(n, rate.discharge_usd, 0.0, useful)
        k, units = np.arange(n), self.units[self.joins]
        for power, most in ((self.charge, limit), (self.discharge, useful)):
            each = np.minimum(p.fleet.power_kw, most)
            lp.rows(n, [(k, power, 1.0), (k, units, -each)], high=0.0)
            flow = rate.charged_kwh if power is self.charge else -rate.discharged_kwh
            room = [(k, power, abs(flow))]
            bound = self.after if power is self.charge else self.energy[self.joins]
            lp.rows(n, [*room, (k, bound, -1.0)], high=0.0)
        flows = [(k, self.charge, -rate.charged_kwh), (k, self.discharge, rate.discharged_kwh)]
        lp.rows(n, [(k, self.after, 1.0), (k, self.energy[self.joins], -1.0), *flows], 0.0, 0.0)

    def _needs(self) -> None:
        """Balance of islands, and presence cuts."""
        p, lag, lp = self.problem, self.limits, self.lp
        t, d = np.nonzero((lag.number >= 0) & (lag.need_kw > 0))
        served = lp.variables(len(t), self.rates.served_usd[d], 0.0, lag.need_kw[t, d])
        number = lag.number[self.arcs.period[self.joins], self.arcs.site[self.joins]]
        dark = np.flatnonzero(number >= 0)
        terms = [(lag.number[t, d], served, 1.0), (number[dark], self.discharge[dark], -1.0)]
        lp.rows(len(lag.pv_kw), terms, high=lag.pv_kw)
        k = np.arange(len(t))
        row, join = np.nonzero(lag.number[t, d][:, None] == number[dark][None])
        each = lag.unit_kw[t, d][row]
        lp.rows(
            len(t), [(k, served, 1.0), (row, self.units[self.joins[dark[join]]], -each)], high=lag.beside_kw[t, d]
        )

    def solve(self, time_limit_s: float = 120.0, gap: float = 1e-3, start: Plan | None = None) -> Optimum:
        """Solve to the relative ``gap``; ``start``: a plan to begin with."""
        hint = None if start is None else (self.units, self._count(start.joint))
        found = self.lp.solve(time_limit_s=time_limit_s, gap=gap, start=hint)
        plan = best_powers(Planner(self.problem).judge(self._routes(found)))
        best = plan if start is None or plan.cost_usd <= start.cost_usd else start
        return Optimum(best, found.objective, min(found.bound, best.cost_usd), found.status, found.seconds)

    def _count(self, joint: Joint) -> FloatArray:
        """Units on each arc (A,) of given routes; overfull sites let the first ones in."""
        a, count = self.arcs, np.zeros(len(self.arcs.kind))
        place = {key: k for k, key in enumerate(zip(a.kind, a.period, a.site, a.to, strict=True))}
        for i in range(len(joint.stay)):
            t, d = int(self.problem.start.period[i]), int(self.problem.start.site[i])
            while t < joint.stay.shape[1]:
                to = int(joint.target[i, t])
                k = place[CONNECTED if to == d else TRAVEL, t, d, to]
                if to == d and count[k] >= self.problem.sites.slots[d]:
                    k = place[WAITING, t, d, to]
                count[k] += 1
                t, d = int(a.then[k]), to
        return count

    def _routes(self, found: Solution) -> Joint:
        """Routes of single units, those with more energy into arcs that carry more for each unit."""
        p, a = self.problem, self.arcs
        n_periods, n_sites = p.world.need_kw.shape
        shape = (p.fleet.n_units, n_periods)
        joint = Joint(np.full(shape, NOWHERE), np.repeat(p.start.site[:, None], n_periods, 1), np.zeros(shape, np.int64))
        count, energy = np.round(found.x[self.units]).astype(int), found.x[self.energy]
        power, after = np.zeros((2, len(a.kind)))
        power[self.joins] = found.x[self.charge] - found.x[self.discharge]
        after[:] = energy
        after[self.joins] = found.x[self.after]
        used = np.flatnonzero(count)
        here = [(int(p.start.period[i]), int(p.start.site[i]), float(p.units.energy_kwh[0, i]), i) for i in range(shape[0])]
        while here:
            t, d = min(here)[:2]
            group = sorted((x for x in here if x[:2] == (t, d)), key=lambda x: (-x[2], x[3]))
            here = [x for x in here if x[:2] != (t, d)]
            if t >= n_periods:
                continue
            out = [k for k in used if a.period[k] == t and a.site[k] == d]
            out = [k for k in sorted(out, key=lambda k: -energy[k] / count[k]) for _ in range(count[k])]
            for (_, _, _, i), k in zip(group, out, strict=True):
                span = slice(t, min(a.then[k], n_periods))
                joint.stay[i, span] = NOWHERE if a.kind[k] == TRAVEL else d
                joint.target[i, span] = a.to[k]
                joint.level[i, t] = 0 if abs(power[k]) < 1e-6 else int(np.sign(power[k]))
                here.append((int(a.then[k]), int(a.to[k]), after[k] / count[k], i))
        return joint


def _arcs(p: Problem) -> Arcs:
    """All arcs that a unit could have reason to take."""
    n_periods, n_sites = p.world.need_kw.shape
    reached, worth = _reached(p), _worth(p)
    found: list[tuple[int, int, int, int, int, float]] = []
    for t, d in zip(*np.nonzero(reached[:-1]), strict=True):
        found.append((CONNECTED, t, d, t + 1, d, 0.0))
        if p.sites.slots[d] < p.fleet.n_units:
            found.append((WAITING, t, d, t + 1, d, 0.0))
        for to in range(n_sites):
            periods = int(p.world.travel[t, d, to])
            then = t + max(periods, 1)
            if to != d and then < n_periods and worth[then, to]:
                usd = model.transport_usd(periods, p.tariff.transport_usd_h, p.tariff.dt_h)
                found.append((TRAVEL, t, d, then, to, float(usd)))
    columns = list(zip(*found, strict=True)) or [()] * 6
    kind, period, site, then, to = (np.array(x, dtype=np.int64) for x in columns[:5])
    return Arcs(kind, period, site, then, to, np.array(columns[5], dtype=float))


def _reached(p: Problem) -> BoolArray:
    """(T + 1, D) where a unit can be."""
    n_periods, n_sites = p.world.need_kw.shape
    reached, worth = np.zeros((n_periods + 1, n_sites), bool), _worth(p)
    reached[np.minimum(p.start.period, n_periods), p.start.site] = True
    for t in range(n_periods):
        reached[t + 1] |= reached[t]
        for d in np.flatnonzero(reached[t]):
            for to in np.flatnonzero(p.world.travel[t, d] < UNREACHABLE):
                then = t + max(int(p.world.travel[t, d, to]), 1)
                if to != d and then < n_periods and worth[then, to]:
                    reached[then, to] = True
    return reached


def _worth(p: Problem) -> BoolArray:
    """(T, D) whether a unit that arrives can still be of use there, then or later."""
    lag = limits(p)
    serves = (lag.number >= 0) & (np.append(lag.most_kw, 0.0)[lag.number] > 0)
    charges = (p.world.island == SUPPLIED) & (p.world.charge_limit_kw > 0)
    use = (serves | charges) & (p.sites.slots > 0)
    return np.logical_or.accumulate(use[::-1])[::-1]
