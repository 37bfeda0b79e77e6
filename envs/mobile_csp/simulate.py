"""What a joint plan costs: a single episode played from a period to its end."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import AUTO, SUPPLIED, UNREACHABLE, Fleet, Sites, Tariff, Units, World
from qevgrid.envs.types import FloatArray, IntArray


class Replay(NamedTuple):
    """A plan played from a period to the end; rows of periods before it are empty."""

    cost_usd: FloatArray  # (6,) summed over the periods played, in the order of COST_TERMS
    energy_kwh: FloatArray  # (T + 1, M) at the beginning of each period
    charge_kw: FloatArray  # (T, M)
    discharge_kw: FloatArray  # (T, M)


def episode(world: World, b: int = 0) -> World:
    """Episode ``b`` of a batch: the same fields without the batch axis."""
    return World(*(np.ascontiguousarray(x[b]) for x in world))


def simulate(
    world: World,
    units: Units,
    stage: int,
    fleet: Fleet,
    sites: Sites,
    tariff: Tariff,
    site: IntArray,
    share: FloatArray,
) -> Replay:
    """Play the actions ``site`` (T, M) and ``share`` (T, M) from ``stage`` on.

    ``world``: a single episode (fields without the batch axis); ``units``: rows (1, M) of it.
    """
    n_periods, n_units = len(world.need_kw), fleet.n_units
    replay = Replay(
        np.zeros(len(model.COST_TERMS)),
        np.zeros((n_periods + 1, n_units)),
        np.zeros((n_periods, n_units)),
        np.zeros((n_periods, n_units)),
    )
    state = (units.site[0].copy(), units.arrival[0].copy(), units.energy_kwh[0].copy())
    _play(world, *state, stage, fleet, sites, voll_order(sites), tariff, site, share, replay)
    return replay


def voll_order(sites: Sites) -> IntArray:
    """Sites by value of lost load, the dearest first; ties: the lower number."""
    return np.argsort(-sites.voll_usd_kwh, kind="stable")


@njit(cache=True)
def _play(
    world: Any,
    place: Any,
    arrival: Any,
    energy: Any,
    stage: int,
    fleet: Any,
    sites: Any,
    order: Any,
    tariff: Any,
    site: Any,
    share: Any,
    out: Any,
) -> None:  # pragma: no cover
    """All periods from ``stage`` on; ``place``, ``arrival``, ``energy`` are overwritten."""
    n_periods, n_sites = world.need_kw.shape
    connected = np.zeros(len(place), np.bool_)
    for t in range(stage, n_periods):
        out.energy_kwh[t] = energy
        _connect(world, place, arrival, energy, t, sites, tariff, site, connected, out.cost_usd)
        rank = np.argsort(-energy, kind="mergesort")
        _charge(world, place, energy, t, fleet, tariff, share, connected, rank, out)
        done = np.zeros(n_sites, np.bool_)
        for d in range(n_sites):
            if world.island[t, d] != SUPPLIED and not done[d]:
                _serve(world, place, energy, t, d, fleet, sites, order, tariff, share, connected, done, out)
        _settle(world, energy, t, fleet, tariff, out)
    out.energy_kwh[n_periods] = energy
    for i in range(len(place)):
        usd = model.terminal_usd(energy[i], fleet.floor_kwh, tariff.terminal_usd_kwh)
        out.cost_usd[model.TERMINAL] += usd


@njit(cache=True)
def _connect(
    world: Any, place: Any, arrival: Any, energy: Any, t: int, sites: Any, tariff: Any, site: Any, on: Any, cost: Any
) -> None:  # pragma: no cover
    """Departures, then who of those that stay is connected."""
    n_periods = len(world.need_kw)
    rank = np.argsort(-energy, kind="mergesort")
    taken = np.zeros(len(sites.slots), np.int64)
    for i in rank:
        on[i] = False
        if arrival[i] > t:
            continue
        d = site[t, i]
        if d != place[i] and world.travel[t, place[i], d] < UNREACHABLE:
            periods = world.travel[t, place[i], d]
            cost[model.TRANSPORT] += model.transport_usd(
                min(periods, n_periods - t), tariff.transport_usd_h, tariff.dt_h
            )
            place[i], arrival[i] = d, t + periods
        elif taken[place[i]] < sites.slots[place[i]]:
            taken[place[i]] += 1
            on[i] = True


@njit(cache=True)
def _charge(
    world: Any, place: Any, energy: Any, t: int, fleet: Any, tariff: Any, share: Any, on: Any, rank: Any, out: Any
) -> None:  # pragma: no cover
    """Charging at sites with supply, most energy first, within the site's limit."""
    left = world.charge_limit_kw[t].copy()
    for i in rank:
        d, wish = place[i], share[t, i]
        if not on[i] or world.island[t, d] != SUPPLIED or not (wish < 0.0 or wish == AUTO):
            continue
        room = model.charge_room_kw(energy[i], fleet.capacity_kwh, tariff.dt_h, fleet.eta_charge)
        power = max(min(min(abs(wish), 1.0) * fleet.power_kw, room, left[d]), 0.0)
        left[d] -= power
        out.charge_kw[t, i] = power


@njit(cache=True)
def _serve(
    world: Any,
    place: Any,
    energy: Any,
    t: int,
    first: int,
    fleet: Any,
    sites: Any,
    order: Any,
    tariff: Any,
    share: Any,
    on: Any,
    done: Any,
    out: Any,
) -> None:  # pragma: no cover
    """One island: PV, then the units' offers, serve the needs in order of value."""
    island, pv, offered = world.island[t, first], 0.0, 0.0
    for d in range(len(order)):
        if world.island[t, d] == island:
            done[d] = True
            pv += world.pv_kw[t, d]
    for i in range(len(place)):
        if on[i] and world.island[t, place[i]] == island and share[t, i] > 0.0:
            room = model.discharge_room_kw(energy[i], fleet.floor_kwh, tariff.dt_h, fleet.eta_discharge)
            out.discharge_kw[t, i] = max(min(min(share[t, i], 1.0) * fleet.power_kw, room), 0.0)
            offered += out.discharge_kw[t, i]
    supply, served = pv + offered, 0.0
    for d in order:
        if world.island[t, d] == island:
            part = min(world.need_kw[t, d], supply - served)
            served += part
            usd = model.unserved_usd(world.need_kw[t, d], part, sites.voll_usd_kwh[d], tariff.dt_h)
            out.cost_usd[model.UNSERVED] += usd
    used = max(served - pv, 0.0) / offered if offered > 0.0 else 0.0
    for i in range(len(place)):
        if on[i] and world.island[t, place[i]] == island:
            out.discharge_kw[t, i] *= used


@njit(cache=True)
def _settle(world: Any, energy: Any, t: int, fleet: Any, tariff: Any, out: Any) -> None:  # pragma: no cover
    """Energies and the costs that follow from powers."""
    for i in range(len(energy)):
        up, down = out.charge_kw[t, i], out.discharge_kw[t, i]
        energy[i] = model.energy_next_kwh(energy[i], up, down, tariff.dt_h, fleet.eta_charge, fleet.eta_discharge)
        energy[i] = min(max(energy[i], fleet.floor_kwh), fleet.capacity_kwh)
        out.cost_usd[model.WEAR] += model.wear_usd(up, down, tariff.wear_usd_kwh, tariff.dt_h)
        out.cost_usd[model.ENERGY] += model.energy_usd(up, tariff.energy_usd_kwh, tariff.dt_h)
    for d in range(world.generator_kw.shape[1]):
        usd = model.energy_usd(world.generator_kw[t, d], tariff.generator_usd_kwh, tariff.dt_h)
        out.cost_usd[model.GENERATOR] += usd
