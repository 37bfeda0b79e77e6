"""Best responses: what the others leave of the needs, slots and charging limits, and the best route in that."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp.arrays import NO_SERVICE, SUPPLIED, Fleet, Service, Sites, Tariff, Units, World
from qevgrid.envs.mobile_csp.kernel import NOTHING_KWH
from qevgrid.envs.mobile_csp.routes import NOWHERE, Levels, Route, reach, trace, value_states
from qevgrid.envs.mobile_csp.waiting import NO_VEHICLES, Vehicles, vehicles
from qevgrid.envs.types import FloatArray, IntArray


class Joint(NamedTuple):
    """Routes of all units, as in ``Route``; written in place."""

    stay: IntArray  # (M, T)
    target: IntArray  # (M, T)
    level: IntArray  # (M, T)


class Start(NamedTuple):
    """Where each route begins."""

    period: IntArray  # (M,) first period in which the unit can choose
    site: IntArray  # (M,)
    level: IntArray  # (M,)


class Problem(NamedTuple):
    """All that does not change while a plan is sought."""

    world: World  # a single episode
    units: Units  # (1, M) as they are at ``stage``
    stage: int
    grid: Levels
    fleet: Fleet
    sites: Sites
    order: IntArray  # (D,) sites, the dearest first
    tariff: Tariff
    start: Start
    service: Service = NO_SERVICE
    backlog_kwh: FloatArray = NOTHING_KWH  # (1, E, 2) wanted by vehicles that wait at ``stage``
    vehicles: Vehicles = NO_VEHICLES

    def within(self, world: World) -> "Problem":
        """The same decision in another world, of a single episode."""
        waiting = vehicles(world, self.stage, self.service, self.backlog_kwh, self.tariff.dt_h)
        return self._replace(world=world, vehicles=waiting)


def start_of(units: Units, stage: int, fleet: Fleet, grid: Levels, *, optimistic: bool = False) -> Start:
    """Starts of units (1, M); energies rounded down to levels, or up."""
    steps = (units.energy_kwh[0] - fleet.floor_kwh) / grid.step_kwh
    level = np.ceil(steps - 1e-6) if optimistic else np.floor(steps + 1e-6)
    clipped = np.clip(level, 0, grid.count).astype(np.int64)
    return Start(np.maximum(units.arrival[0], stage).astype(np.int64), units.site[0].astype(np.int64), clipped)


def at_rest(problem: Problem) -> Joint:
    """Everybody absent: nobody serves, nobody takes a slot."""
    shape = (len(problem.start.site), len(problem.world.need_kw))
    target = np.repeat(problem.start.site[:, None], shape[1], 1)
    return Joint(np.full(shape, NOWHERE), target, np.zeros(shape, np.int64))


@njit(cache=True)
def respond(p: Any, joint: Any, tables: Any, value: Any, i: int, noise: Any) -> None:  # pragma: no cover
    """Replace unit ``i``'s route by the best against the others; ``noise`` (T, D) multiplies what serving earns."""
    joint.stay[i, :] = NOWHERE
    joint.level[i, :] = 0
    joint.target[i, :] = p.start.site[i]
    if p.start.period[i] >= len(p.world.need_kw):
        return
    fill_tables(p, joint, tables, i, p.start.period[i], noise)
    since = np.empty(p.world.need_kw.shape[1], np.int64)
    reach(p.world, p.start.period[i], p.start.site[i], since)
    value_states(p.world, p.start.period[i], p.grid, p.tariff, tables, value, since)
    route = Route(joint.stay[i], joint.target[i], joint.level[i])
    trace(p.world, p.grid, p.tariff, tables, value, p.start.period[i], p.start.site[i], p.start.level[i], route)


@njit(cache=True)
def fill_tables(p: Any, joint: Any, tables: Any, i: int, first: int, noise: Any) -> None:  # pragma: no cover
    """The tables of unit ``i`` while the others do as ``joint`` says."""
    n_periods, n_sites = p.world.need_kw.shape
    offer, drawn, taken = np.zeros(n_sites), np.zeros(n_sites), np.zeros(n_sites, np.int64)
    done = np.zeros(n_sites, np.bool_)
    world, dt_h, voll, order = p.world, p.tariff.dt_h, p.sites.voll_usd_kwh, p.order
    for t in range(first, n_periods):
        drawn[:], taken[:], done[:] = 0.0, 0, False
        for d in range(n_sites):
            offer[d] = world.pv_kw[t, d] * dt_h
        for j in range(len(joint.stay)):
            d = joint.stay[j, t]
            if j != i and d != NOWHERE:
                taken[d] += joint.level[j, t] != 0
                drawn[d] += max(joint.level[j, t], 0) * p.grid.step_charge_kwh
                offer[d] += max(-joint.level[j, t], 0) * p.grid.step_discharge_kwh
        island, need, gain, useful = world.island[t], world.need_kw[t], tables.gain_usd[t], tables.useful[t]
        for d in range(n_sites):
            tables.place_usd[t, d] = np.inf if taken[d] >= p.sites.slots[d] else 0.0
            left = max(world.charge_limit_kw[t, d] * dt_h - drawn[d], 0.0)
            tables.charge[t, d] = min(int(left / p.grid.step_charge_kwh + 1e-6), p.grid.charge)
            if island[d] != SUPPLIED and not done[d]:
                size, most = p.grid.step_discharge_kwh, p.grid.discharge
                _island(
                    island, need, dt_h, voll, order, p.service.site, p.vehicles, t, size, most, gain, useful, d, offer,
                    done, noise[t, d],
                )  # fmt: skip


@njit(cache=True)
def _island(
    number: Any,
    need_kw: Any,
    dt_h: float,
    voll: Any,
    order: Any,
    chargers: Any,
    vehicles: Any,
    t: int,
    size: float,
    most: int,
    gains: Any,
    useful: Any,
    first: int,
    offer: Any,
    done: Any,
    weight: float,
) -> None:  # pragma: no cover
    """What one more unit earns in an island beside PV and the others' offers; arrays of one period, (D, ...).

    Critical needs come first, then vehicles. Where those are worth more, gains are the least concave ones above.
    """
    island, supply = number[first], 0.0
    gain = gains[first]
    for d in range(len(offer)):
        if number[d] == island:
            done[d] = True
            supply += offer[d]
    k, usd, gain[0] = 0, 0.0, 0.0
    room = size
    for d in order:
        if number[d] != island:
            continue
        need = need_kw[d] * dt_h
        need, supply = max(need - supply, 0.0), max(supply - need, 0.0)
        k, usd, room = _earn(gain, need, voll[d], weight, size, most, k, usd, room)
    for kind in range(2):
        for e in range(len(chargers)):
            if number[chargers[e]] == island:
                need = vehicles.need_kwh[t, e, kind]
                need, supply = max(need - supply, 0.0), max(supply - need, 0.0)
                worth = vehicles.saved_usd_kwh[t, e, kind]
                k, usd, room = _earn(gain, need, worth, weight, size, most, k, usd, room)
    if k < most and room < size - 1e-6:
        k += 1
        gain[k] = usd
    if len(chargers) > 0 and k > 0:
        _concave(gain, k)
    for d in range(len(offer)):
        if number[d] == island:
            useful[d] = k
            if d != first:
                gains[d, : k + 1] = gain[: k + 1]


@njit(cache=True)
def _earn(
    gain: Any, need: float, worth: float, weight: float, size: float, most: int, k: int, usd: float, room: float
) -> tuple[int, float, float]:  # pragma: no cover
    """Go on filling levels with a need; levels full, what they earn, and the room left in the next."""
    while need > 1e-9 and k < most:
        part = min(need, room)
        usd += part * worth * weight
        need -= part
        room -= part
        if room <= 1e-9:
            k, room = k + 1, size
            gain[k] = usd
    return k, usd, room


@njit(cache=True)
def _concave(gain: Any, last: int) -> None:  # pragma: no cover
    """Raise ``gain[: last + 1]`` to the least concave function above it."""
    k = 0
    while k < last:
        best, slope = k + 1, gain[k + 1] - gain[k]
        for j in range(k + 2, last + 1):
            mean = (gain[j] - gain[k]) / (j - k)
            if mean > slope + 1e-9 * (1.0 + slope):
                best, slope = j, mean
        for j in range(k + 1, best):
            gain[j] = gain[k] + (j - k) * slope
        k = best


@njit(cache=True)
def sweep(p: Any, joint: Any, tables: Any, value: Any, who: Any, rounds: int, noise: Any) -> None:  # pragma: no cover
    """Best responses of the units ``who`` one after another, until none changes or ``rounds`` are over.

    Who has answered and seen nobody else change since would answer the same, and is not asked again.
    """
    before = np.zeros((2, joint.stay.shape[1]), np.int64)
    quiet = 0  # answers in a row that changed nothing, but for the first of them
    for _ in range(rounds):
        for i in who:
            if quiet == len(who):
                return
            before[0], before[1] = joint.target[i], joint.level[i]
            respond(p, joint, tables, value, i, noise)
            if np.any(before[0] != joint.target[i]) or np.any(before[1] != joint.level[i]):
                quiet = 0
            quiet += 1
