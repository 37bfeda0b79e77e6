"""The best route of one unit against given prices: a dynamic program over site, period and energy level.

A level is a step of battery energy above the floor; level 0 is the floor itself, so that no rounding takes a
unit below it. What a unit earns by discharging is a concave table for each site and period; what it pays for a
place at a site, and how much it may charge there, are tables as well. Backwards only values are kept, in loops
over levels that the compiler turns into vector instructions; forwards the best choice is found again, but only
at the states that the route visits.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE, Fleet, Tariff
from qevgrid.envs.types import FloatArray, IntArray

NOWHERE = -1
"""Site of a unit that is under way."""
FEWEST, MOST = 80, 112
"""Numbers of levels to choose from."""
_NEVER = -1e30
_EPSILON = 1e-9


class Levels(NamedTuple):
    """Battery energy in ``count`` steps from the floor to the full battery."""

    count: int
    step_kwh: float  # in the battery
    charge: int  # most levels a period
    discharge: int
    charge_usd: float  # energy and wear of one level
    discharge_usd: float  # wear
    step_charge_kwh: float  # at the plug
    step_discharge_kwh: float
    terminal_usd: float  # of one level left at the end


class Tables(NamedTuple):
    """What a place is worth to one unit, by period and site; K levels of discharge a period."""

    gain_usd: FloatArray  # (T, D, K + 1) of discharging k levels, concave, without wear
    useful: IntArray  # (T, D) levels of discharge that still gain
    place_usd: FloatArray  # (T, D) price of being connected; inf: full
    charge: IntArray  # (T, D) levels that may be charged
    charge_usd: FloatArray  # (T, D) price of a charged level on top of energy and wear


class Route(NamedTuple):
    """What one unit does; written in place."""

    stay: IntArray  # (T,) site at which it stays, NOWHERE if under way
    target: IntArray  # (T,) site that it is told to be at
    level: IntArray  # (T,) levels charged (> 0) or discharged (< 0)


@lru_cache(64)
def levels(fleet: Fleet, tariff: Tariff, *, optimistic: bool = False, count: int | None = None) -> Levels:
    """The grid of energies: ``count`` steps, or as many as lose least by rounding.

    Pessimistic (a plan): full power is rounded down to whole levels. Optimistic (a bound): rounded up. With
    linear prices the best powers along a route then are whole levels, because bounds of an inventory that are
    whole make its best flows whole (the matrix is totally unimodular), so the bound holds for any powers.
    """
    span, dt = fleet.capacity_kwh - fleet.floor_kwh, tariff.dt_h
    empty = np.zeros(2)
    full = model.energy_next_kwh(empty, fleet.power_kw, empty, dt, fleet.eta_charge, fleet.eta_discharge)[0]
    drain = -model.energy_next_kwh(empty, empty, fleet.power_kw, dt, fleet.eta_charge, fleet.eta_discharge)[0]

    def whole(power_kwh: float, n: int) -> int:
        steps = power_kwh / span * n
        near = round(steps)
        if abs(steps - near) < 1e-6:
            return near
        return int(np.ceil(steps)) if optimistic else int(np.floor(steps))

    def lost(n: int) -> float:
        return sum(abs(1 - whole(kwh, n) * span / n / kwh) for kwh in (full, drain))

    n = min(range(FEWEST, MOST), key=lost) if count is None else count
    step = span / n
    up = model.charge_room_kw(0.0, step, dt, fleet.eta_charge)
    down = model.discharge_room_kw(step, 0.0, dt, fleet.eta_discharge)
    worn = [model.wear_usd(kw, 0.0, tariff.wear_usd_kwh, dt) for kw in (up, down)]
    return Levels(
        count=n,
        step_kwh=step,
        charge=min(whole(full, n), n),
        discharge=min(whole(drain, n), n),
        charge_usd=float(worn[0] + model.energy_usd(up, tariff.energy_usd_kwh, dt)),
        discharge_usd=float(worn[1]),
        step_charge_kwh=float(up * dt),
        step_discharge_kwh=float(down * dt),
        terminal_usd=float(-model.terminal_usd(step, 0.0, tariff.terminal_usd_kwh)),
    )


def empty_tables(n_periods: int, n_sites: int, grid: Levels) -> Tables:
    """Tables in which nothing is worth anything and everything is free."""
    shape = (n_periods, n_sites)
    return Tables(
        np.zeros((*shape, grid.discharge + 1)),
        np.zeros(shape, np.int64),
        np.zeros(shape),
        np.full(shape, grid.charge),
        np.zeros(shape),
    )


def empty_values(n_periods: int, n_sites: int, grid: Levels) -> FloatArray:
    """Room for the values (T + 1, D, levels + 1)."""
    return np.zeros((n_periods + 1, n_sites, grid.count + 1))


@njit(cache=True)
def value_states(
    world: Any, stage: int, grid: Any, tariff: Any, tables: Any, value: Any, since: Any
) -> None:  # pragma: no cover
    """Fill ``value[t, d, e]``: the most that a unit can still earn, for t >= stage and t >= ``since[d]`` (D,)."""
    n_periods, n_sites = world.need_kw.shape
    room = np.empty((2, grid.count + 1))
    for d in range(n_sites):
        for e in range(grid.count + 1):
            value[n_periods, d, e] = grid.terminal_usd * e
    for t in range(n_periods - 1, stage - 1, -1):
        for d in range(n_sites):
            if t < since[d]:
                continue
            row, after, place = value[t, d], value[t + 1, d], tables.place_usd[t, d]
            if place == np.inf:
                row[:] = after
            elif world.island[t, d] == SUPPLIED:
                usd = grid.charge_usd + tables.charge_usd[t, d]
                _charge(after, tables.charge[t, d], usd, place, row, room)
            else:
                _serve(after, tables.useful[t, d], tables.gain_usd[t, d], grid.discharge_usd, place, row, room)
            for to in range(n_sites):
                hours = world.travel[t, d, to]
                then = t + max(hours, 1)
                if to != d and hours < UNREACHABLE and then < n_periods:
                    _better(row, value[then, to], model.transport_usd(hours, tariff.transport_usd_h, tariff.dt_h))


@njit(cache=True)
def reach(world: Any, start: int, site: int, since: Any) -> None:  # pragma: no cover
    """Write the first period (D,) in which a unit that begins at ``site`` in ``start`` can be at each site."""
    n_periods, n_sites = world.need_kw.shape
    since[:] = n_periods
    since[site] = start
    for t in range(start, n_periods):
        for d in range(n_sites):
            if since[d] <= t:
                for to in range(n_sites):
                    hours = world.travel[t, d, to]
                    if hours < UNREACHABLE:
                        since[to] = min(since[to], t + max(hours, 1))


@njit(cache=True)
def _better(row: Any, other: Any, cost: float) -> None:  # pragma: no cover
    """The larger of a row of values and another less its cost."""
    for e in range(len(row)):
        worth = other[e] - cost
        row[e] = worth if worth > row[e] else row[e]


@njit(cache=True)
def _serve(
    after: Any, useful: int, gain: Any, wear_usd: float, place: float, row: Any, room: Any
) -> None:  # pragma: no cover
    """Value of staying where there is no supply: not connected, or connected at the price of the place."""
    row[:], room[0] = after, after
    begin = 0
    for k in range(1, useful + 1):  # a concave gain is the sum of its straight pieces
        slope = gain[k] - gain[k - 1]
        if k == useful or abs(gain[k + 1] - gain[k] - slope) > _EPSILON * (1.0 + slope):
            _up_to(room[0], room[1], k - begin, (gain[k] - gain[begin]) / (k - begin) - wear_usd, False)
            begin = k
    _better(row, room[0], place)


@njit(cache=True)
def _charge(after: Any, most: int, usd: float, place: float, row: Any, room: Any) -> None:  # pragma: no cover
    """Value of staying where there is supply, at ``usd`` a level."""
    row[:], room[0] = after, after
    _up_to(room[0], room[1], most, -usd, True)
    _better(row, room[0], place)


@njit(cache=True)
def _up_to(now: Any, spare: Any, most: int, usd: float, up: bool) -> None:  # pragma: no cover
    """``now[e]`` becomes the most of ``now[e + k] + k usd``, or ``now[e - k] + k usd``, over k = 0 to ``most``.

    The span of k doubles from pass to pass.
    """
    n, span = len(now), 1
    most = min(most, n - 1)
    while span <= most:
        by = min(span, most + 1 - span)
        spare[:] = now
        if up:
            _better(now[: n - by], spare[by:], -by * usd)
        else:
            _better(now[by:], spare[: n - by], -by * usd)
        span += by


@njit(cache=True)
def trace(
    world: Any, grid: Any, tariff: Any, tables: Any, value: Any, start: int, site: int, level: int, route: Any
) -> None:  # pragma: no cover
    """Follow the best choices from a connected unit at ``start``; periods before it are left alone."""
    n_periods = len(world.need_kw)
    t, d, e = start, site, level
    while t < n_periods:
        k, to = _choose(world, t, d, e, grid, tariff, tables, value)
        if to == d:
            route.stay[t], route.target[t], route.level[t] = d, d, k
            e += k
            t += 1
            continue
        then = t + max(world.travel[t, d, to], 1)
        for s in range(t, min(then, n_periods)):
            route.stay[s], route.target[s], route.level[s] = NOWHERE, to, 0
        t, d = then, to


@njit(cache=True)
def _choose(
    world: Any, t: int, d: int, e: int, grid: Any, tariff: Any, tables: Any, value: Any
) -> tuple[int, int]:  # pragma: no cover
    """The best (levels, site) at one state; ties: rest, then power, then the lower site."""
    n_periods, n_sites = world.need_kw.shape
    best, k_best, to_best = value[t + 1, d, e], 0, d
    place = tables.place_usd[t, d]
    if place < np.inf:
        best = max(best, best - place)
        if world.island[t, d] == SUPPLIED:
            for k in range(1, min(tables.charge[t, d], grid.count - e) + 1):
                worth = value[t + 1, d, e + k] - k * (grid.charge_usd + tables.charge_usd[t, d]) - place
                if worth > best + _EPSILON:
                    best, k_best = worth, k
        else:
            for k in range(1, min(tables.useful[t, d], e) + 1):
                worth = value[t + 1, d, e - k] - k * grid.discharge_usd - place + tables.gain_usd[t, d, k]
                if worth > best + _EPSILON:
                    best, k_best = worth, -k
    for to in range(n_sites):
        hours = world.travel[t, d, to]
        then = t + max(hours, 1)
        if to != d and hours < UNREACHABLE and then < n_periods:
            worth = value[then, to, e] - model.transport_usd(hours, tariff.transport_usd_h, tariff.dt_h)
            if worth > best + _EPSILON:
                best, k_best, to_best = worth, 0, to
    return k_best, to_best
