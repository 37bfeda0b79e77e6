"""The transition of a batch of episodes, compiled: depart, connect, charge, serve, count the cost.

A stage is a period; stage -1 is the decision before the storm, where there is one. Here the arrays of the world and
the tabulated observations have their periods first, (T, B, ...): episodes side by side are then read in one stream,
which with a thousand of them saves about a third of the time.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import AUTO, NO_SERVICE, SUPPLIED, UNREACHABLE, Service, World
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

# As in V2G: without reference counts the loops allocate nothing, and they are one function.
compiled: Any = njit(cache=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]
inlined: Any = njit(cache=True, inline="always")

N_GLOBAL, N_SITE, N_UNIT = 8, 12, 4
"""Entries of an observation: global, a site, a unit before its 2 D entries of places; ``observe.py`` names them."""
HERE, INBOUND = 10, 11
"""Where a site's block counts units; its other entries are tabulated at reset."""
N_SERVICE = 2
"""More entries of a site where vehicles are charged: kWh that wait, by kind."""
NOTHING_KWH = np.zeros((1, 0, 2))

ALL = -2
"""Instead of an acting unit: all idle ones choose at once."""


class Rules(NamedTuple):
    """Constants that the transition reads. D sites."""

    voll_usd_kwh: FloatArray  # (D,)
    slots: IntArray  # (D,)
    by_value: IntArray  # (C,) sites with a critical load, most valuable first
    whole: NDArray  # (D, D) int16, travel periods while all roads are open
    levels: FloatArray  # (K,) power shares; empty: the site decides
    per_slot: FloatArray  # (D,) 1 / slots
    capacity_kwh: float
    floor_kwh: float
    power_kw: float
    eta_charge: float
    eta_discharge: float
    dt_h: float
    transport_usd_h: float
    wear_usd_kwh: float
    energy_usd_kwh: float
    generator_usd_kwh: float
    terminal_usd_kwh: float
    reward_scale: float
    first_stage: int  # -1 with a decision before the storm, else 0
    per_travel: float  # 1 / periods that the observation shows as 1
    per_kwh: float  # 1 / capacity
    service: Service = NO_SERVICE  # of E sites


class State(NamedTuple):
    """What the episodes have become; written in place. B episodes, M units."""

    stage: IntArray  # (B,)
    site: IntArray  # (B, M) where a unit is or goes
    arrival: IntArray  # (B, M) first period in which it is connected there
    energy_kwh: FloatArray  # (B, M)
    backlog_kwh: FloatArray = NOTHING_KWH  # (B, E, 2) wanted by vehicles that wait, without arrivals of the stage


class Outcome(NamedTuple):
    """What one stage did; written in place."""

    charge_kw: FloatArray  # (B, M) at the plug
    discharge_kw: FloatArray  # (B, M)
    connected: BoolArray  # (B, M)
    served_kw: FloatArray  # (B, D) critical load that units and PV carried
    refused: IntArray  # (B,) trips to places that no open road leads to
    cost_usd: FloatArray  # (B, terms) in the order of model.COST_TERMS
    curtailed_kwh: FloatArray  # (B,) asked for by a level, not done
    total_usd: FloatArray  # (B,)
    reward: FloatArray  # (B,)
    vehicle_kwh: FloatArray = NOTHING_KWH  # (B, E, 2) charged into vehicles


class Scratch(NamedTuple):
    """Room to work in."""

    share: FloatArray  # (M,) of those that stay
    staying: BoolArray  # (M,)
    order: IntArray  # (M,) most energy first
    taken: IntArray  # (D,) slots
    room_kw: FloatArray  # (D,) charging room that is left
    supply_kw: FloatArray  # (D,) of each island, under its number
    pv_kw: FloatArray  # (D,)
    used_kw: FloatArray  # (D,)
    offered_kw: FloatArray  # (D,)


@compiled
def step(
    rules: Rules,
    world: World,
    known: Float32Array,
    state: State,
    out: Outcome,
    scratch: Scratch,
    site: IntArray,
    share: FloatArray,
    active: BoolArray,
    obs: Float32Array,
    choices: BoolArray,
) -> None:  # pragma: no cover
    """One stage of every episode that is ``active`` (B,) and not over; arguments as in ``Action``, (B, M).

    Then observations (B, O) and masks (B, M, L) of all, unless ``obs`` is empty.
    """
    periods = world.island.shape[0]
    for b in range(len(state.stage)):
        t = state.stage[b]
        if active[b] and t < periods:
            if t < 0:
                _place(rules, state, out, b, periods, site)
            else:
                _advance(rules, world, state, out, scratch, b, t, periods, site, share)
            total = 0.0
            for k in range(out.cost_usd.shape[1]):
                total += out.cost_usd[b, k]
            out.total_usd[b] = total
            out.reward[b] = -total * rules.reward_scale
            state.stage[b] = t + 1
        if obs.size > 0:
            _look(rules, world, known, state, b, ALL, obs)
            _choices(rules, world, state, scratch, b, ALL, choices)


@compiled
def observe(
    rules: Rules,
    world: World,
    known: Float32Array,
    state: State,
    scratch: Scratch,
    acting: IntArray,
    obs: Float32Array,
    choices: BoolArray,
) -> None:  # pragma: no cover
    """Write the observations (B, O), entries as in ``observe.labels``, and the masks of ``mask``.

    ``acting`` (B,): whose turn it is, or ALL.
    """
    for b in range(len(state.stage)):
        _look(rules, world, known, state, b, acting[b], obs)
        _choices(rules, world, state, scratch, b, acting[b], choices)


@compiled
def mask(
    rules: Rules, world: World, state: State, scratch: Scratch, acting: IntArray, choices: BoolArray
) -> None:  # pragma: no cover
    """Write (B, A, L): choices that can be followed as they are; to stay always can.

    ``acting`` (B,): the unit that the only row is for (A = 1), or ALL (A = M).
    """
    for b in range(choices.shape[0]):
        _choices(rules, world, state, scratch, b, acting[b], choices)


@inlined
def _place(rules, state, out, b, periods, site):
    """The decision before the storm: there is time to be anywhere when it is over."""
    for k in range(out.cost_usd.shape[1]):
        out.cost_usd[b, k] = 0.0
    out.served_kw[b] = 0.0
    out.curtailed_kwh[b] = 0.0
    out.refused[b] = 0
    for e in range(len(rules.service.site)):
        out.vehicle_kwh[b, e] = 0.0
    for i in range(state.site.shape[1]):
        here, d = state.site[b, i], site[b, i]
        out.charge_kw[b, i] = 0.0
        out.discharge_kw[b, i] = 0.0
        out.connected[b, i] = False
        if d >= 0 and d != here:
            trip = min(rules.whole[here, d], periods)
            out.cost_usd[b, model.TRANSPORT] += model.transport_usd(trip, rules.transport_usd_h, rules.dt_h)
            state.site[b, i] = d


@inlined
def _advance(rules, world, state, out, scratch, b, t, periods, site, share):
    """One period of episode ``b``."""
    _depart(rules, world, state, out, scratch, b, t, periods, site, share)
    _connect(rules, state, out, scratch, b)
    wished = _charge(rules, world, state, out, scratch, b, t)
    wished += _offer(rules, world, state, out, scratch, b, t)
    _serve(rules, world, out, scratch, b, t)
    if len(rules.service.site) > 0:
        _charge_vehicles(rules, world, state, out, scratch, b, t, periods)
    _settle(rules, world, state, out, scratch, b, t, periods, wished)


@inlined
def _depart(rules, world, state, out, scratch, b, t, periods, site, share):
    """Idle units leave for another site, or are to stay."""
    usd, refused = 0.0, 0
    for i in range(state.site.shape[1]):
        scratch.staying[i] = False
        scratch.share[i] = share[b, i]
        if state.arrival[b, i] > t:
            continue
        here, d = state.site[b, i], site[b, i]
        if d < 0 or d == here:
            scratch.staying[i] = True
        elif world.travel[t, b, here, d] >= UNREACHABLE:
            scratch.staying[i] = True
            scratch.share[i] = AUTO
            refused += 1
        else:
            trip = world.travel[t, b, here, d]
            usd += model.transport_usd(min(trip, periods - t), rules.transport_usd_h, rules.dt_h)
            state.site[b, i] = d
            state.arrival[b, i] = t + trip
    out.refused[b] = refused
    out.cost_usd[b, model.TRANSPORT] = usd


@inlined
def _connect(rules, state, out, scratch, b):
    """Those that stay take the slots of their sites, most energy first, then by number."""
    units = state.site.shape[1]
    for i in range(units):
        k = i
        while k > 0 and state.energy_kwh[b, i] > state.energy_kwh[b, scratch.order[k - 1]]:
            scratch.order[k] = scratch.order[k - 1]
            k -= 1
        scratch.order[k] = i
    for d in range(len(rules.slots)):
        scratch.taken[d] = 0
    for k in range(units):
        i = scratch.order[k]
        d = state.site[b, i]
        free = scratch.staying[i] and scratch.taken[d] < rules.slots[d]
        out.connected[b, i] = free
        scratch.taken[d] += free


@inlined
def _charge(rules, world, state, out, scratch, b, t):
    """Units at supplied sites charge, in the same order; returns the power that levels ask for."""
    wished = 0.0
    for d in range(len(rules.slots)):
        scratch.room_kw[d] = world.charge_limit_kw[t, b, d]
    for k in range(state.site.shape[1]):
        i = scratch.order[k]
        d, share, power = state.site[b, i], scratch.share[i], 0.0
        auto = share == AUTO
        if scratch.staying[i] and not auto:
            wished += abs(share) * rules.power_kw
        if out.connected[b, i] and world.island[t, b, d] == SUPPLIED and (auto or share < 0.0):
            power = rules.power_kw if auto else -share * rules.power_kw
            room = model.charge_room_kw(state.energy_kwh[b, i], rules.capacity_kwh, rules.dt_h, rules.eta_charge)
            power = max(min(power, room, scratch.room_kw[d]), 0.0)
            scratch.room_kw[d] -= power
        out.charge_kw[b, i] = power
    return wished


@inlined
def _offer(rules, world, state, out, scratch, b, t):
    """Units in islands offer power, kept in ``discharge_kw`` until it is known what is used of it."""
    for d in range(len(rules.slots)):  # an island's number is that of its first site
        scratch.pv_kw[d] = 0.0
        scratch.offered_kw[d] = 0.0
        scratch.used_kw[d] = 0.0
        if world.island[t, b, d] != SUPPLIED:
            scratch.pv_kw[world.island[t, b, d]] += world.pv_kw[t, b, d]
    for i in range(state.site.shape[1]):
        share, power = scratch.share[i], 0.0
        island = world.island[t, b, state.site[b, i]]
        if out.connected[b, i] and island != SUPPLIED and share > 0.0:
            room = model.discharge_room_kw(state.energy_kwh[b, i], rules.floor_kwh, rules.dt_h, rules.eta_discharge)
            power = max(min(min(share, 1.0) * rules.power_kw, room), 0.0)
            scratch.offered_kw[island] += power
        out.discharge_kw[b, i] = power
    return 0.0


@inlined
def _serve(rules, world, out, scratch, b, t):
    """PV and then the offers of each island go to its needs, most valuable first."""
    for d in range(len(rules.slots)):
        scratch.supply_kw[d] = scratch.pv_kw[d] + scratch.offered_kw[d]
        out.served_kw[b, d] = 0.0
    unserved, fuel = 0.0, 0.0
    for k in range(len(rules.by_value)):
        d = rules.by_value[k]
        need, served, island = world.need_kw[t, b, d], 0.0, world.island[t, b, d]
        if need > 0.0:
            served = min(need, scratch.supply_kw[island])
            scratch.supply_kw[island] -= served
            scratch.used_kw[island] += served
            unserved += model.unserved_usd(need, served, rules.voll_usd_kwh[d], rules.dt_h)
        out.served_kw[b, d] = served
        fuel += model.energy_usd(world.generator_kw[t, b, d], rules.generator_usd_kwh, rules.dt_h)
    out.cost_usd[b, model.UNSERVED] = unserved
    out.cost_usd[b, model.GENERATOR] = fuel


@inlined
def _charge_vehicles(rules, world, state, out, scratch, b, t, periods):
    """Vehicles charge: from what units leave of the charging room, or what critical needs leave in an island."""
    service, usd = rules.service, 0.0
    for kind in range(2):  # response vehicles of all sites first
        for e in range(len(service.site)):
            d = service.site[e]
            island, arrived = world.island[t, b, d], world.arrivals_kwh[t, b, e, kind]
            source = scratch.room_kw[d] if island == SUPPLIED else scratch.supply_kw[island]
            plugs = service.power_kw - (out.vehicle_kwh[b, e, 0] / rules.dt_h if kind == 1 else 0.0)
            power = max(min((state.backlog_kwh[b, e, kind] + arrived) / rules.dt_h, plugs, source), 0.0)
            if island == SUPPLIED:
                scratch.room_kw[d] -= power
            else:
                scratch.supply_kw[island] -= power
                scratch.used_kw[island] += power
            out.vehicle_kwh[b, e, kind] = power * rules.dt_h
            waiting = max(model.waiting_kwh(state.backlog_kwh[b, e, kind], arrived, power * rules.dt_h), 0.0)
            usd += model.wait_usd(waiting, service.wait_usd_kwh_h[kind], rules.dt_h)
            state.backlog_kwh[b, e, kind] = waiting * service.keep
            if t == periods - 1:
                usd += model.wait_usd(waiting * service.keep, service.wait_usd_kwh_h[kind], service.end_wait_h)
    out.cost_usd[b, model.SERVICE] = usd


@inlined
def _settle(rules, world, state, out, scratch, b, t, periods, wished):
    """Take what is used pro rata from the offers, move the energies, count their costs."""
    for d in range(len(rules.slots)):  # the share of the offers that is used
        if scratch.offered_kw[d] > 0.0:
            used = max(scratch.used_kw[d] - scratch.pv_kw[d], 0.0)
            scratch.used_kw[d] = min(used / scratch.offered_kw[d], 1.0)
    wear, energy_usd, terminal, moved = 0.0, 0.0, 0.0, 0.0
    for i in range(state.site.shape[1]):
        charge, discharge = out.charge_kw[b, i], out.discharge_kw[b, i]
        if discharge > 0.0:
            discharge *= scratch.used_kw[world.island[t, b, state.site[b, i]]]
            out.discharge_kw[b, i] = discharge
        energy = state.energy_kwh[b, i]
        if charge > 0.0 or discharge > 0.0:
            energy = model.energy_next_kwh(energy, charge, discharge, rules.dt_h, rules.eta_charge, rules.eta_discharge)
            energy = min(max(energy, rules.floor_kwh), rules.capacity_kwh)
            state.energy_kwh[b, i] = energy
            wear += model.wear_usd(charge, discharge, rules.wear_usd_kwh, rules.dt_h)
            energy_usd += model.energy_usd(charge, rules.energy_usd_kwh, rules.dt_h)
            moved += (charge + discharge) if scratch.share[i] != AUTO else 0.0
        if t == periods - 1:
            terminal += model.terminal_usd(energy, rules.floor_kwh, rules.terminal_usd_kwh)
    out.cost_usd[b, model.WEAR] = wear
    out.cost_usd[b, model.ENERGY] = energy_usd
    out.cost_usd[b, model.TERMINAL] = terminal
    out.curtailed_kwh[b] = rules.dt_h * max(wished - moved, 0.0)


@inlined
def _look(rules, world, known, state, b, acting, obs):
    """One row of ``observe``."""
    sites, periods, serving = len(rules.slots), world.island.shape[0], len(rules.service.site)
    block = N_SITE + (N_SERVICE if serving > 0 else 0)
    fixed, units = N_GLOBAL + block * len(rules.slots), state.site.shape[1]
    t = state.stage[b]
    now = max(min(t, periods - 1), 0)
    for k in range(fixed):
        obs[b, k] = known[t - rules.first_stage, b, k]
    for e in range(min(serving, state.backlog_kwh.shape[1])):
        at = N_GLOBAL + block * rules.service.site[e] + N_SITE
        for kind in range(N_SERVICE):
            arrived = world.arrivals_kwh[now, b, e, kind] if 0 <= t < periods else 0.0
            obs[b, at + kind] = min((state.backlog_kwh[b, e, kind] + arrived) * rules.per_kwh, 1.0)
    for i in range(units):
        d, idle = state.site[b, i], state.arrival[b, i] <= t
        count = N_GLOBAL + block * d + (HERE if idle else INBOUND)
        obs[b, count] = min(obs[b, count] + rules.per_slot[d], 1.0)
        at = fixed + (N_UNIT + 2 * sites) * i
        obs[b, at] = idle if acting == ALL else acting == i
        obs[b, at + 1] = idle
        obs[b, at + 2] = min(max(state.arrival[b, i] - t, 0) * rules.per_travel, 1.0)
        obs[b, at + 3] = state.energy_kwh[b, i] * rules.per_kwh
        at += N_UNIT
        for e in range(sites):
            obs[b, at + e] = 0.0
        obs[b, at + d] = 1.0
        at += sites
        if t < 0:
            for e in range(sites):
                obs[b, at + e] = min(rules.whole[d, e] * rules.per_travel, 1.0)
        else:
            for e in range(sites):
                obs[b, at + e] = min(world.travel[now, b, d, e] * rules.per_travel, 1.0)


@inlined
def _choices(rules, world, state, scratch, b, acting, choices):
    """One row of ``mask``."""
    periods, sites = world.island.shape[0], len(rules.slots)
    t = state.stage[b]
    now = max(min(t, periods - 1), 0)
    for d in range(sites):
        scratch.taken[d] = 0
    for i in range(state.site.shape[1]):
        scratch.taken[state.site[b, i]] += 1
    for k in range(choices.shape[1]):
        i = k if acting == ALL else max(acting, 0)
        here, idle = state.site[b, i], state.arrival[b, i] <= t
        for d in range(sites):
            trip = rules.whole[here, d] if t < 0 else world.travel[now, b, here, d]
            choices[b, k, d] = idle and trip < UNREACHABLE and scratch.taken[d] < rules.slots[d]
        choices[b, k, here] = True
        if len(rules.levels) > 0:
            energy, island, need = state.energy_kwh[b, i], world.island[now, b, here], 0.0
            if island != SUPPLIED:
                for d in range(sites):
                    if world.island[now, b, d] == island:
                        need += world.need_kw[now, b, d] - world.pv_kw[now, b, d]
                need += _vehicles_kw(rules, world, state, b, now, island)
            charges = world.charge_limit_kw[now, b, here] > 0.0 and energy < rules.capacity_kwh
            serves = need > 0.0 and energy > rules.floor_kwh
            for j in range(len(rules.levels)):
                level = rules.levels[j]
                fits = level == 0.0 or (level < 0.0 and charges) or (level > 0.0 and serves)
                choices[b, k, sites + j] = idle and t >= 0 and fits


@inlined
def _vehicles_kw(rules, world, state, b, t, island):
    """Power that the vehicles waiting in an island could take."""
    wanted_kw = 0.0
    for e in range(min(len(rules.service.site), state.backlog_kwh.shape[1])):
        if world.island[t, b, rules.service.site[e]] == island:
            wanted_kwh = 0.0
            for kind in range(N_SERVICE):
                wanted_kwh += state.backlog_kwh[b, e, kind] + world.arrivals_kwh[t, b, e, kind]
            wanted_kw += min(wanted_kwh / rules.dt_h, rules.service.power_kw)
    return wanted_kw
