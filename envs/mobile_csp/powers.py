"""The best powers along given routes: a linear program, without the rounding of the routes' energy levels."""

import numpy as np

from qevgrid.envs.linear import LinearProgram
from qevgrid.envs.mobile_csp.respond import Joint, Problem
from qevgrid.envs.mobile_csp.routes import NOWHERE
from qevgrid.envs.mobile_csp.rows import Rates, idle_usd, island_numbers, rates
from qevgrid.envs.mobile_csp.search import Plan, play
from qevgrid.envs.types import BoolArray, FloatArray, IntArray


def connected(p: Problem, joint: Joint) -> BoolArray:
    """(M, T): who may have power. Where a site is overfull, those that the routes give power to."""
    on = joint.stay != NOWHERE
    for t, d in zip(*np.nonzero(_count(joint, len(p.sites.slots)) > p.sites.slots), strict=True):
        on[:, t] &= (joint.stay[:, t] != d) | (joint.level[:, t] != 0)
    return on


def _count(joint: Joint, n_sites: int) -> IntArray:
    """(T, D) units at each site."""
    return (joint.stay[:, :, None] == np.arange(n_sites)).sum(0)


def best_powers(plan: Plan, time_limit_s: float = 30.0) -> Plan:
    """The same routes with the best powers; ``plan`` itself if playing them in the step kernel is no cheaper."""
    if not connected(plan.problem, plan.joint)[:, plan.problem.stage :].any():
        return plan
    charge, discharge, _ = solve_powers(plan.problem, plan.joint, time_limit_s)
    share = (discharge - charge).T / plan.problem.fleet.power_kw
    found = play(plan.problem, plan.joint, plan.site, np.clip(share, -1.0, 1.0))
    return found if found.cost_usd < plan.cost_usd else plan


def solve_powers(p: Problem, joint: Joint, time_limit_s: float) -> tuple[FloatArray, FloatArray, float]:
    """Charge (M, T), discharge (M, T) in kW, and the cost by the solver without that of transport."""
    lp, rate, (n_units, n_periods) = LinearProgram(idle_usd(p)), rates(p), joint.stay.shape
    on = connected(p, joint) & (np.arange(n_periods) >= p.stage)
    unit, period = np.nonzero(on)
    site, number = joint.stay[unit, period], island_numbers(p)
    dark = number[period, site]
    charge = lp.variables(len(unit), rate.charge_usd, 0.0, np.where(dark < 0, p.fleet.power_kw, 0.0))
    discharge = lp.variables(len(unit), rate.discharge_usd, 0.0, np.where(dark >= 0, p.fleet.power_kw, 0.0))
    _batteries(lp, p, rate, unit, period, charge, discharge)
    _needs(lp, p, rate, number, dark, discharge)
    place = period * len(p.sites.slots) + site
    full = np.flatnonzero(dark < 0)
    lp.rows(p.world.need_kw.size, [(place[full], charge[full], 1.0)], high=p.world.charge_limit_kw.ravel())
    solution = lp.solve(relax=True, time_limit_s=time_limit_s)
    result = np.zeros((2, n_units, n_periods))
    result[0, unit, period], result[1, unit, period] = solution.x[charge], solution.x[discharge]
    return result[0], result[1], solution.objective


def _batteries(
    lp: LinearProgram, p: Problem, rate: Rates, unit: IntArray, period: IntArray, charge: IntArray, discharge: IntArray
) -> None:
    """Energy of each unit after each of its connected periods; the start is on the right-hand side."""
    n, start = len(unit), p.units.energy_kwh[0]
    opens, closes = np.r_[True, unit[1:] != unit[:-1]][:n], np.r_[unit[1:] != unit[:-1], True][-n:] if n else []
    energy = lp.variables(n, np.where(closes, rate.terminal_usd_kwh, 0.0), p.fleet.floor_kwh, p.fleet.capacity_kwh)
    row, later = np.arange(n), np.flatnonzero(~opens)
    before = np.where(opens, start[unit], 0.0)
    flows = [(row, charge, -rate.charged_kwh), (row, discharge, rate.discharged_kwh)]
    lp.rows(n, [(row, energy, 1.0), (later, energy[later - 1], -1.0), *flows], before, before)
    absent = np.setdiff1d(np.arange(len(start)), unit)
    lp.constant += rate.terminal_usd_kwh * (start[absent].sum() - p.fleet.n_units * p.fleet.floor_kwh)


def _needs(lp: LinearProgram, p: Problem, rate: Rates, number: IntArray, dark: IntArray, discharge: IntArray) -> None:
    """What is served in each island comes from its PV and the units in it."""
    period, site = np.nonzero((number >= 0) & (p.world.need_kw > 0))
    served = lp.variables(len(site), rate.served_usd[site], 0.0, p.world.need_kw[period, site])
    giving = np.flatnonzero(dark >= 0)
    inside = number >= 0
    size = int(number.max()) + 1
    pv = np.bincount(number[inside], weights=p.world.pv_kw[inside], minlength=size)
    terms = [(number[period, site], served, 1.0), (dark[giving], discharge[giving], -1.0)]
    lp.rows(size, terms, high=pv)
