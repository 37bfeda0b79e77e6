"""One joint plan as an ``AggregateQUBO``: units hold one of their candidate routes and meet in needs and slots.

    min  sum_i cost[route_i]  +  sum_g unserved_g(kWh that the routes bring to island g)  +  slots, charging limits

``g`` is an island of a period. What it loses is convex and piecewise linear in what it is brought: the dearest need
is served first. Beyond its needs nothing is taken from the batteries, so what is brought in vain is paid back. A
route's own cost is transport, energy, wear and what is left at the end, as in the route program. Waiting vehicles are
left out: routes may serve them, but only the step kernel, which judges what is sampled, counts what that saves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.envs.direct import Direct
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.respond import Joint, Problem
from qevgrid.envs.mobile_csp.routes import NOWHERE
from qevgrid.envs.mobile_csp.rows import idle_usd, island_numbers, rates
from qevgrid.envs.types import FloatArray, IntArray


@dataclass(frozen=True)
class Resources:
    """What units share: G islands of single periods, then slots and charging limits that can bind."""

    number: IntArray  # (T, D) island, -1 with supply
    slot: IntArray  # (T, D) resource of the slots, -1: cannot bind
    charge: IntArray  # (T, D) resource of the charging limit, -1: cannot bind
    pieces: Pieces  # (R,) USD of kWh at the plug, of units, of kWh at the plug
    constant_usd: float  # of a plan in which nobody does anything, batteries not counted

    def prices(self, p: Problem, price: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Prices (R,) by place: USD a level discharged, a slot, a level charged; (T, D) each."""
        padded = np.append(price, 0.0)
        gain = -padded[self.number] * p.grid.step_discharge_kwh
        return np.maximum(gain, 0.0), padded[self.slot], padded[self.charge] * p.grid.step_charge_kwh


def resources(p: Problem, weight: FloatArray | None = None) -> Resources:
    """Resources of ``p``; ``weight`` (T, D) multiplies what is lost, by an island's first site."""
    number, rate, dt = island_numbers(p), rates(p), p.tariff.dt_h
    ahead = (np.arange(len(number)) >= p.stage)[:, None] & np.ones(number.shape, bool)
    even = np.ones(number.shape) if weight is None else weight
    back = (p.grid.discharge_usd + p.grid.terminal_usd) / p.grid.step_discharge_kwh
    size = int(number.max(initial=-1)) + 1
    width = p.world.need_kw.shape[1] + 1
    slope, at, rise, beside = np.zeros(size), np.full((size, width), np.inf), np.zeros((size, width)), np.zeros(1)
    saved = -rate.served_usd / dt
    _islands(number, p.world.need_kw * dt, p.world.pv_kw * dt, saved, p.order, even, back, slope, at, rise, beside)
    worth = float(saved.max(initial=0.0)) * max(float(even.max(initial=1.0)), 1.0)
    slot, n_slots = _numbered(ahead & (p.sites.slots < len(p.start.site)), size)
    most_kw = np.minimum(p.sites.slots, len(p.start.site)) * p.fleet.power_kw
    limit_kw = p.world.charge_limit_kw
    charge, n_charge = _numbered(ahead & (number < 0) & (limit_kw < most_kw), size + n_slots)
    places = (np.broadcast_to(p.sites.slots, slot.shape)[slot >= 0].astype(float), limit_kw[charge >= 0] * dt)
    steep = (worth * p.grid.charge * p.grid.step_charge_kwh, worth)
    flat = np.zeros(n_slots + n_charge)
    one = np.full((len(flat), width), np.inf), np.zeros((len(flat), width))
    one[0][:, 0] = np.concatenate(places) + 1e-6
    one[1][:, 0] = np.repeat(steep, (n_slots, n_charge))
    pieces = Pieces(np.r_[slope, flat], np.r_[at, one[0]], np.r_[rise, one[1]])
    constant = idle_usd(p) - float(beside[0])
    if weight is not None:
        lost = model.unserved_usd(p.world.need_kw, 0.0, p.sites.voll_usd_kwh, dt)
        constant += float(((_by_island(number, even) - 1.0) * lost)[number >= 0].sum())
    return Resources(number, slot, charge, pieces, constant)


def _by_island(number: IntArray, weight: FloatArray) -> FloatArray:
    """Weights (T, D), those of each island's first site."""
    dark = number >= 0
    result, inside, own = np.ones(number.shape), number[dark], weight[dark]
    of_first = np.empty(int(inside.max(initial=-1)) + 1)
    of_first[inside[::-1]] = own[::-1]  # the first site is written last
    result[dark] = of_first[inside]
    return result


def _numbered(mask: Any, begin: int) -> tuple[IntArray, int]:
    """Numbers from ``begin`` on where ``mask`` (T, D) is true, -1 elsewhere; how many."""
    number = np.full(mask.shape, -1)
    count = int(mask.sum())
    number[mask] = np.arange(begin, begin + count)
    return number, count


@njit(cache=True)
def _islands(
    number: Any,
    need: Any,
    pv: Any,
    saved: Any,
    order: Any,
    even: Any,
    back: float,
    slope: Any,
    at: Any,
    rise: Any,
    beside: Any,
) -> None:  # pragma: no cover
    """Slopes and kinks of what each island loses; ``beside``: USD that PV saves alone. Energies in kWh."""
    n_periods, n_sites = number.shape
    for t in range(n_periods):
        for first in range(n_sites):
            g = number[t, first]
            if g < 0 or (number[t, :first] == g).any():
                continue
            sun = 0.0
            for d in range(n_sites):
                sun += pv[t, d] if number[t, d] == g else 0.0
            brought, before, k = 0.0, 0.0, 0
            slope[g] = -back
            for d in order:
                if number[t, d] != g:
                    continue
                worth = saved[d] * even[t, first]
                part = min(sun, need[t, d])
                beside[0] += worth * part
                sun -= part
                left = need[t, d] - part
                if left <= 1e-9 or worth <= back:
                    continue
                if brought == 0.0:
                    slope[g] = -worth
                elif before > worth:
                    at[g, k], rise[g, k] = brought, before - worth
                    k += 1
                brought += left
                before = worth
            if brought > 0.0:
                at[g, k], rise[g, k] = brought, before - back


def tabulate(
    p: Problem, found: Resources, unit: IntArray, stay: IntArray, target: IntArray, level: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Own cost (n,) and use (n, R) of the routes (n, T) of the units ``unit`` (n,)."""
    cost, use = np.zeros(len(unit)), np.zeros((len(unit), len(found.pieces.slope)))
    _TABULATE(p, found.number, found.slot, found.charge, unit, stay, target, level, cost, use)
    return cost, use


@njit(cache=True)
def _tabulate(
    p: Any,
    number: Any,
    slot: Any,
    charge: Any,
    unit: Any,
    stay: Any,
    target: Any,
    level: Any,
    cost: Any,
    use: Any,
) -> None:  # pragma: no cover
    """Own costs and uses."""
    n_periods, grid = len(number), p.grid
    for j in range(len(unit)):
        t, d, e = p.start.period[unit[j]], p.start.site[unit[j]], p.start.level[unit[j]]
        while t < n_periods:
            to, k = target[j, t], level[j, t]
            if stay[j, t] == NOWHERE:
                if to == d:
                    t += 1
                    continue
                hours = p.world.travel[t, d, to]
                cost[j] += model.transport_usd(min(hours, n_periods - t), p.tariff.transport_usd_h, p.tariff.dt_h)
                t += max(hours, 1)
                d = to
                continue
            e += k
            if k > 0:
                cost[j] += k * grid.charge_usd
                if charge[t, d] >= 0:
                    use[j, charge[t, d]] += k * grid.step_charge_kwh
            if k < 0:
                cost[j] -= k * grid.discharge_usd
                if number[t, d] >= 0:
                    use[j, number[t, d]] -= k * grid.step_discharge_kwh
            if k != 0 and slot[t, d] >= 0:
                use[j, slot[t, d]] += 1.0
            t += 1
        cost[j] -= grid.terminal_usd * e


_TABULATE = Direct(_tabulate)


@dataclass(frozen=True)
class Decision:
    """Candidate routes and the problem over them. Option 0 of every unit is the reference plan's route."""

    problem: AggregateQUBO
    kept: IntArray  # (R',) resources that two routes use differently
    stay: IntArray  # (n, T)
    target: IntArray  # (n, T)
    level: IntArray  # (n, T)

    def joint(self, choice: IntArray) -> Joint:
        """Routes of a choice (M,)."""
        option = self.problem.first[:-1] + choice
        return Joint(self.stay[option].copy(), self.target[option].copy(), self.level[option].copy())


def decide(p: Problem, found: Resources, pool: list[Joint], most: int = 150) -> Decision:
    """The problem over the different routes of the joint plans in ``pool``, the first one the reference.

    Of more than ``most`` routes of a unit the later ones are left out.
    """
    every = np.array([*pool], dtype=np.int64).transpose(2, 0, 1, 3)  # (M, pool, 3, T)
    which, unit = [], []
    for i, routes in enumerate(every):
        seen = list({route.tobytes(): k for k, route in reversed(list(enumerate(routes)))}.values())
        which += sorted(seen)[:most]
        unit += [i] * min(len(seen), most)
    stay, target, level = (np.ascontiguousarray(x) for x in every[unit, which].swapaxes(0, 1))
    cost, use = tabulate(p, found, np.array(unit), stay, target, level)
    first = np.searchsorted(unit, np.arange(len(every) + 1))
    kept = np.flatnonzero(_matters(found.pieces, use, first))
    pieces = Pieces(*(x[kept] for x in (found.pieces.slope, found.pieces.at, found.pieces.rise)))
    width = int((pieces.rise > 0).sum(-1).max(initial=0))
    pieces = Pieces(pieces.slope, pieces.at[:, :width], pieces.rise[:, :width])
    problem = AggregateQUBO.one_hot(first, cost, np.ascontiguousarray(use[:, kept]), pieces, found.constant_usd)
    return Decision(problem, kept, stay, target, level)


def _matters(pieces: Pieces, use: FloatArray, first: IntArray) -> Any:
    """Resources (R,) that some routes use and that do not stay free whatever is chosen."""
    most = np.maximum.reduceat(use, first[:-1], axis=0).sum(0)
    free = (pieces.slope == 0) & (most <= pieces.at.min(-1, initial=np.inf))
    return (most > 0) & ~free
