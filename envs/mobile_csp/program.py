"""The whole episode as a mixed-integer program on the time-space network, for small worlds: a proven optimum.

Nodes are (unit, period, site); arcs are staying connected, waiting, and travelling. Each carries the unit or not,
and the unit's energy with it (review (19), (20) with conservation of flow). Units are commodities of their own:
pooled, they could swap energy where they meet, which lowered the optimum of small worlds by up to a tenth. The best
powers along the routes found are solved for once more (``powers.py``); the plan's cost is that of playing it in
the step kernel, and the solver's bound holds for it. Presence cuts: see ``bound.py``.

One rule is relaxed: at an overfull site the kernel connects those with most energy, the program whom it likes.
Waiting vehicles are left out, as in ``bound.py``: the bound holds with them too, but no plan found here seeks them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from qevgrid.envs.linear import LinearProgram, Solution
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE
from qevgrid.envs.mobile_csp.powers import best_powers, connected
from qevgrid.envs.mobile_csp.respond import Joint, Problem, at_rest
from qevgrid.envs.mobile_csp.routes import NOWHERE
from qevgrid.envs.mobile_csp.rows import idle_usd, limits, rates
from qevgrid.envs.mobile_csp.search import Plan, Planner
from qevgrid.envs.types import BoolArray, FloatArray, IntArray

CONNECTED, WAITING, TRAVEL = range(3)


class Arcs(NamedTuple):
    """A arcs of the network."""

    unit: IntArray  # (A,)
    kind: IntArray  # (A,)
    period: IntArray  # (A,)
    site: IntArray  # (A,)
    then: IntArray  # (A,) period of its head
    to: IntArray  # (A,) site of its head
    cost_usd: FloatArray  # (A,)


class Optimum(NamedTuple):
    """The best plan found and the solver's proof."""

    plan: Plan
    solver_usd: float  # objective of the program
    bound_usd: float
    status: str
    seconds: float


class MobileProgram:
    """Builds and solves the program of one problem."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.limits, self.rates = problem, limits(problem), rates(problem)
        self.arcs = _arcs(problem)
        self.lp = LinearProgram(idle_usd(problem), "take fewer units, sites or periods, or begin with a plan")
        self._flows()
        self._powers()
        self._needs()

    def _flows(self) -> None:
        """Which arcs are taken, and the energy above the floor at their tails."""
        p, a, lp = self.problem, self.arcs, self.lp
        n_periods, n_sites = p.world.need_kw.shape
        n, span, row = len(a.kind), p.fleet.capacity_kwh - p.fleet.floor_kwh, np.arange(len(a.kind))
        self.taken = lp.variables(n, a.cost_usd, 0.0, 1.0, integer=True)
        self.energy = lp.variables(n)
        self.joins = np.flatnonzero(a.kind == CONNECTED)
        self.after = self.energy.copy()  # energy at the heads
        self.after[self.joins] = lp.variables(len(self.joins))
        for energy in (self.energy, self.after):
            lp.rows(n, [(row, energy, 1.0), (row, self.taken, -span)], high=0.0)
        ends = np.flatnonzero(a.then == n_periods)
        last = lp.variables(len(ends), self.rates.terminal_usd_kwh)
        k = np.arange(len(ends))
        lp.rows(len(ends), [(k, last, 1.0), (k, self.after[ends], -1.0)], 0.0, 0.0)
        tail = (a.unit * n_periods + a.period) * n_sites + a.site
        inner = np.flatnonzero(a.then < n_periods)
        head = ((a.unit * n_periods + a.then) * n_sites + a.to)[inner]
        size = p.fleet.n_units * n_periods * n_sites
        for flow, flown, given in zip((self.taken, self.energy), (self.taken, self.after), self._starts(), strict=True):
            lp.rows(size, [(tail, flow, 1.0), (head, flown[inner], -1.0)], given, given)

    def _starts(self) -> tuple[FloatArray, FloatArray]:
        """Units and energy that enter each node; those that arrive too late only keep their energy."""
        p = self.problem
        n_periods, n_sites = p.world.need_kw.shape
        size = p.fleet.n_units * n_periods * n_sites
        above = p.units.energy_kwh[0] - p.fleet.floor_kwh
        on = np.flatnonzero(p.start.period < n_periods)
        node = (on * n_periods + p.start.period[on]) * n_sites + p.start.site[on]
        self.lp.constant += self.rates.terminal_usd_kwh * float(above.sum() - above[on].sum())
        energy: Any = np.bincount(node, weights=above[on], minlength=size)
        return np.bincount(node, minlength=size).astype(float), energy

    def _powers(self) -> None:
        """Charging and discharging on connected arcs, slots, and the sites' charging limits."""
        p, lp, rate, joins = self.problem, self.lp, self.rates, self.joins
        t, d = self.arcs.period[joins], self.arcs.site[joins]
        number = self.limits.number[t, d]
        limit = np.where(number < 0, p.world.charge_limit_kw[t, d], 0.0)
        useful = np.where(number >= 0, np.append(self.limits.most_kw, 0.0)[number], 0.0)
        most = [np.minimum(p.fleet.power_kw, x) for x in (limit, useful)]
        n, k, taken = len(joins), np.arange(len(joins)), self.taken[joins]
        self.charge = lp.variables(n, rate.charge_usd, 0.0, most[0])
        self.discharge = lp.variables(n, rate.discharge_usd, 0.0, most[1])
        lp.rows(n, [(k, self.charge, 1.0), (k, taken, -most[0])], high=0.0)
        lp.rows(n, [(k, self.discharge, 1.0), (k, taken, -most[1])], high=0.0)
        lp.rows(n, [(k, self.charge, rate.charged_kwh), (k, self.after[joins], -1.0)], high=0.0)
        lp.rows(n, [(k, self.discharge, rate.discharged_kwh), (k, self.energy[joins], -1.0)], high=0.0)
        flows = [(k, self.charge, -rate.charged_kwh), (k, self.discharge, rate.discharged_kwh)]
        lp.rows(n, [(k, self.after[joins], 1.0), (k, self.energy[joins], -1.0), *flows], 0.0, 0.0)
        place, shape = t * len(p.sites.slots) + d, p.world.need_kw.shape
        lp.rows(shape[0] * shape[1], [(place, taken, 1.0)], high=np.tile(p.sites.slots, shape[0]))
        lp.rows(shape[0] * shape[1], [(place, self.charge, 1.0)], high=p.world.charge_limit_kw.ravel())

    def _needs(self) -> None:
        """Balance of islands, and presence cuts."""
        lag, lp = self.limits, self.lp
        t, d = np.nonzero((lag.number >= 0) & (lag.need_kw > 0))
        served = lp.variables(len(t), self.rates.served_usd[d], 0.0, lag.need_kw[t, d])
        number = lag.number[self.arcs.period[self.joins], self.arcs.site[self.joins]]
        dark = np.flatnonzero(number >= 0)
        terms = [(lag.number[t, d], served, 1.0), (number[dark], self.discharge[dark], -1.0)]
        lp.rows(len(lag.pv_kw), terms, high=lag.pv_kw)
        k = np.arange(len(t))
        row, join = np.nonzero(lag.number[t, d][:, None] == number[dark][None])
        each = lag.unit_kw[t, d][row]
        lp.rows(len(t), [(k, served, 1.0), (row, self.taken[self.joins[dark[join]]], -each)], high=lag.beside_kw[t, d])

    def solve(self, time_limit_s: float = 120.0, gap: float = 1e-3, start: Plan | None = None) -> Optimum:
        """Solve to the relative ``gap``; ``start``: a plan to begin with."""
        hint = None if start is None else (self.taken, self._take(start.joint))
        found = self.lp.solve(time_limit_s=time_limit_s, gap=gap, start=hint)
        plan = best_powers(Planner(self.problem).judge(self._routes(found)))
        best = plan if start is None or plan.cost_usd <= start.cost_usd else start
        return Optimum(best, found.objective, min(found.bound, best.cost_usd), found.status, found.seconds)

    def _take(self, joint: Joint) -> FloatArray:
        """Whether each arc (A,) is taken by given routes; overfull sites let those with power in first."""
        p, a, taken = self.problem, self.arcs, np.zeros(len(self.arcs.kind))
        place = {key: k for k, key in enumerate(zip(a.unit, a.kind, a.period, a.site, a.to, strict=True))}
        on, free = connected(p, joint), np.tile(p.sites.slots, (len(p.world.need_kw), 1))
        for i in range(len(joint.stay)):
            t, d = int(p.start.period[i]), int(p.start.site[i])
            while t < joint.stay.shape[1]:
                to = int(joint.target[i, t])
                kind = TRAVEL if to != d else CONNECTED if on[i, t] and free[t, d] > 0 else WAITING
                free[t, d] -= kind == CONNECTED
                k = place[i, kind, t, d, to]
                taken[k] = 1.0
                t, d = int(a.then[k]), to
        return taken

    def _routes(self, found: Solution) -> Joint:
        """Routes of the units, with a level of +-1 where they have power."""
        p, a = self.problem, self.arcs
        joint = at_rest(p)
        power = np.zeros(len(a.kind))
        power[self.joins] = found.x[self.charge] - found.x[self.discharge]
        for k in np.flatnonzero(found.x[self.taken] > 0.5):
            i, span = a.unit[k], slice(a.period[k], a.then[k])
            joint.stay[i, span] = NOWHERE if a.kind[k] == TRAVEL else a.site[k]
            joint.target[i, span] = a.to[k]
            joint.level[i, a.period[k]] = 0 if abs(power[k]) < 1e-6 else int(np.sign(power[k]))
        return joint


def _arcs(p: Problem) -> Arcs:
    """All arcs that a unit could have reason to take."""
    worth, hops = _worth(p), {}
    found = [arc for i in range(p.fleet.n_units) for arc in _arcs_of(p, i, worth, hops)]
    columns = list(zip(*found, strict=True)) or [()] * 7
    unit, kind, period, site, then, to = (np.array(x, dtype=np.int64) for x in columns[:6])
    return Arcs(unit, kind, period, site, then, to, np.array(columns[6], dtype=float))


def _arcs_of(
    p: Problem, i: int, worth: BoolArray, hops: dict[tuple[int, int], list[tuple[int, int, float]]]
) -> Iterator[tuple[int, int, int, int, int, int, float]]:
    """Rows of ``Arcs`` of one unit, from where it can be; ``hops`` keeps what was found for others."""
    n_periods, n_sites = p.world.need_kw.shape
    reached = np.zeros((n_periods + 1, n_sites), bool)
    reached[min(p.start.period[i], n_periods), p.start.site[i]] = True
    for t in range(n_periods):
        for d in np.flatnonzero(reached[t]).tolist():
            reached[t + 1, d] = True
            yield i, CONNECTED, t, d, t + 1, d, 0.0
            if p.sites.slots[d] < p.fleet.n_units:
                yield i, WAITING, t, d, t + 1, d, 0.0
            if (t, d) not in hops:
                hops[t, d] = _hops(p, t, d, worth)
            for then, to, usd in hops[t, d]:
                reached[then, to] = True
                yield i, TRAVEL, t, d, then, to, usd


def _hops(p: Problem, t: int, d: int, worth: BoolArray) -> list[tuple[int, int, float]]:
    """Trips from a site: (arrival, site, USD)."""
    found = []
    for to in np.flatnonzero(p.world.travel[t, d] < UNREACHABLE).tolist():
        periods = int(p.world.travel[t, d, to])
        then = t + max(periods, 1)
        if to != d and then < len(worth) and worth[then, to]:
            usd = model.transport_usd(periods, p.tariff.transport_usd_h, p.tariff.dt_h)
            found.append((then, to, float(usd)))
    return found


def _worth(p: Problem) -> BoolArray:
    """(T, D) whether a unit that arrives can still be of use there, then or later."""
    lag = limits(p)
    serves = (lag.number >= 0) & (np.append(lag.most_kw, 0.0)[lag.number] > 0)
    charges = (p.world.island == SUPPLIED) & (p.world.charge_limit_kw > 0)
    serves[:, p.service.site] |= p.world.island[:, p.service.site] != SUPPLIED
    use = (serves | charges) & (p.sites.slots > 0)
    return np.logical_or.accumulate(use[::-1])[::-1]
