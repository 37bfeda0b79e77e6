"""A proven lower bound on the cost of an episode: what couples the units is priced, each unit then plans alone.

Lagrangian relaxation. Priced are the balance of each island, the slots, the charging limits, and *presence*:
what a site is served beyond its island's PV takes whole units in the island,

    served[t, d] <= a + min(need[t, d] - a, power) * units connected in the island,  a = min(PV, need[t, d]),

which keeps the relaxation from serving a whole site with a fraction of a unit. At any prices >= 0 the cost of the
relaxation bounds the true cost from below. The unit's problem is the dynamic program of ``routes.py`` on energy
levels rounded in the unit's favour; a unit that has no slot may wait anywhere. The prices follow a deflected
subgradient with Polyak's step towards a known cost (Held, Wolfe and Crowder 1974; Camerini et al. 1975).

Waiting vehicles are left out: they only ever cost, and what a unit gives them it could keep.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp.respond import Joint, Problem, start_of
from qevgrid.envs.mobile_csp.routes import (
    NOWHERE,
    Route,
    empty_tables,
    empty_values,
    levels,
    trace,
    value_states,
)
from qevgrid.envs.mobile_csp.rows import idle_usd, limits, rates
from qevgrid.envs.mobile_csp.search import Plan
from qevgrid.envs.types import FloatArray

MARGIN = 1e-9
"""Share of the sums that a bound gives away to rounding of floating-point numbers."""


class Prices(NamedTuple):
    """USD for each kW and period, or each unit and period; all >= 0."""

    balance: FloatArray  # (G,) of discharge in an island
    presence: FloatArray  # (T, D) of being served beyond PV
    slot: FloatArray  # (T, D)
    charge: FloatArray  # (T, D) of charging


def lower_bound(plan: Plan, iterations: int = 400, gap: float = 1e-3) -> float:
    """A proven lower bound on the cost of any plan for ``plan``'s problem, USD.

    Ends after ``iterations``, or when the bound is within the share ``gap`` of the plan's cost.
    """
    relaxation = _Relaxation(plan.problem)
    prices, best = relaxation.zero(), -np.inf
    step, stuck = 1.0, 0
    direction: Prices | None = None
    best_prices = prices
    for _ in range(iterations):
        usd, slope = relaxation.value(prices)
        if usd > best + 1e-6 * abs(plan.cost_usd):
            best, best_prices, stuck = max(usd, best), prices, 0
        else:
            best, stuck = max(usd, best), stuck + 1
        if best >= plan.cost_usd - gap * abs(plan.cost_usd):
            break
        if stuck >= 12:
            step, stuck, prices, direction = step / 1.6, 0, best_prices, None
            usd, slope = relaxation.value(prices)
        direction = slope if direction is None else _mix(slope, direction, 0.6)
        norm = sum(float((x * x).sum()) for x in direction)
        if norm <= 0.0:
            break
        length = step * (plan.cost_usd - usd) / norm
        prices = Prices(*(np.maximum(x + length * d, 0.0) for x, d in zip(prices, direction, strict=True)))
    return best


def _mix(slope: Prices, direction: Prices, weight: float) -> Prices:
    """A step that remembers the ones before."""
    return Prices(*(s + weight * d for s, d in zip(slope, direction, strict=True)))


class _Relaxation:
    """Value and slope of the relaxation at given prices."""

    def __init__(self, p: Problem) -> None:
        self.grid = levels(p.fleet, p.tariff, optimistic=True)
        start = start_of(p.units, p.stage, p.fleet, self.grid, optimistic=True)
        self.problem = p._replace(grid=self.grid, start=start)
        self.limits, self.rates, self.idle_usd = limits(p), rates(p), idle_usd(p)
        n_periods, n_sites = p.world.need_kw.shape
        self.tables = empty_tables(n_periods, n_sites, self.grid)
        self.values = empty_values(n_periods, n_sites, self.grid)
        self.on = (np.arange(n_periods) >= p.stage)[:, None] & np.ones((n_periods, n_sites), bool)
        self.tight = self.on & (p.sites.slots < p.fleet.n_units)
        lag = self.limits
        most = np.where(lag.number >= 0, np.append(lag.most_kw, 0.0)[lag.number], 0.0)
        steps = most * p.tariff.dt_h / self.grid.step_discharge_kwh
        self.useful = np.minimum(np.ceil(steps - 1e-9), self.grid.discharge).astype(np.int64)
        room = p.world.charge_limit_kw * p.tariff.dt_h / self.grid.step_charge_kwh
        self.room = np.minimum(np.ceil(room - 1e-9), self.grid.charge).astype(np.int64)
        self.scarce = self.on & (p.world.charge_limit_kw < p.fleet.n_units * p.fleet.power_kw)

    def zero(self) -> Prices:
        """Prices to begin with."""
        shape = self.limits.need_kw.shape
        return Prices(np.zeros(len(self.limits.pv_kw)), np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def value(self, prices: Prices) -> tuple[float, Prices]:
        """Lower bound (USD) and its slope."""
        p, lag, dt = self.problem, self.limits, self.problem.tariff.dt_h
        number, inside = lag.number, lag.number >= 0
        balance = np.where(inside, np.append(prices.balance, 0.0)[number], 0.0)
        reward = np.bincount(number[inside], weights=(prices.presence * lag.unit_kw)[inside], minlength=len(lag.pv_kw))
        presence = np.where(inside, np.append(reward, 0.0)[number], 0.0)
        k = np.arange(self.grid.discharge + 1)
        per_kw_discharge, per_kw_charge = self.grid.step_discharge_kwh / dt, self.grid.step_charge_kwh / dt
        self.tables.gain_usd[:] = balance[:, :, None] * per_kw_discharge * k
        self.tables.useful[:] = np.where(balance > 0, self.useful, 0)
        self.tables.place_usd[:] = prices.slot - presence
        self.tables.charge[:] = self.room
        self.tables.charge_usd[:] = prices.charge * per_kw_charge
        earned, joint = self._units()
        saved = self.rates.served_usd + balance + prices.presence  # < 0: worth serving
        served = np.where(inside & (saved < 0), lag.need_kw, 0.0)
        fixed = self.idle_usd
        gains = float((np.minimum(saved, 0.0) * lag.need_kw)[inside].sum())
        rents = float(
            (prices.balance * lag.pv_kw).sum()
            + (prices.presence * lag.beside_kw).sum()
            + (prices.slot * p.sites.slots).sum()
            + (prices.charge * p.world.charge_limit_kw).sum()
        )
        usd = fixed + gains - rents - earned
        usd -= MARGIN * (abs(fixed) + abs(gains) + abs(rents) + abs(earned))
        return usd, self._slope(prices, joint, served, per_kw_discharge, per_kw_charge)

    def _units(self) -> tuple[float, Joint]:
        """What all units earn at the present tables, and their routes."""
        p = self.problem
        shape = (len(p.start.site), len(p.world.need_kw))
        joint = Joint(np.full(shape, NOWHERE), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        return _plan_alone(p, self.tables, self.values, joint), joint

    def _slope(self, prices: Prices, joint: Joint, served: FloatArray, down_kw: float, up_kw: float) -> Prices:
        """How much each priced row is exceeded."""
        lag, n_sites = self.limits, self.limits.need_kw.shape[1]
        here = joint.stay[:, :, None] == np.arange(n_sites)  # (M, T, D)
        joins = here & ((joint.level != 0)[:, :, None] | (self.tables.place_usd < 0))
        there = joins.sum(0).astype(float)
        up = (here * np.maximum(joint.level, 0)[:, :, None]).sum(0) * up_kw
        down = (here * np.maximum(-joint.level, 0)[:, :, None]).sum(0) * down_kw
        inside, size = lag.number >= 0, len(lag.pv_kw)
        flow, units = (
            np.bincount(lag.number[inside], weights=x[inside], minlength=size) for x in (served - down, there)
        )
        around = np.where(inside, np.append(units, 0.0)[lag.number], 0.0)
        slope = Prices(
            flow - lag.pv_kw,
            np.where(inside & (lag.need_kw > 0), served - lag.beside_kw - lag.unit_kw * around, 0.0),
            np.where(self.tight, there - self.problem.sites.slots, 0.0),
            np.where(self.scarce, up - self.problem.world.charge_limit_kw, 0.0),
        )
        return Prices(*(np.where((x <= 0) & (s < 0), 0.0, s) for x, s in zip(prices, slope, strict=True)))


@njit(cache=True)
def _plan_alone(p: Any, tables: Any, value: Any, joint: Any) -> float:  # pragma: no cover
    """Best routes at the tables' prices; units that are under way beyond the end keep what they have."""
    n_periods, total = len(p.world.need_kw), 0.0
    anywhere = np.zeros(p.world.need_kw.shape[1], np.int64)
    value_states(p.world, p.stage, p.grid, p.tariff, tables, value, anywhere)
    for i in range(len(p.start.site)):
        if p.start.period[i] >= n_periods:
            total += p.grid.terminal_usd * p.start.level[i]
            continue
        total += value[p.start.period[i], p.start.site[i], p.start.level[i]]
        route = Route(joint.stay[i], joint.target[i], joint.level[i])
        trace(p.world, p.grid, p.tariff, tables, value, p.start.period[i], p.start.site[i], p.start.level[i], route)
    return total
