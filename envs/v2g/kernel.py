"""The transition of a batch of episodes, compiled: project the wish, apply the model, count the cost.

The projection makes every wish legal, by these rules in this order:

1. A socket without a vehicle does nothing. Charging is limited by the charger, the vehicle, the
   room in the battery and the taper; discharging by the charger and the floor (2)(3)(5).
2. A charger is off or at least at its minimum: a wish below half the minimum is off, from half on
   it is raised to the minimum; where the battery has no room for the minimum it is off.
3. Connected sites: charging is scaled down where it would push a row of (9) above the larger of
   its limit and what the loads alone bring it to; discharging likewise downwards. Scaled powers
   below a minimum are switched off and what they free goes to the next sockets of the site.
4. Sites without supply: loads are picked up in whole blocks, those of the greatest value that PV,
   generator and discharge can carry. Charging gets what is left once every block is served.
   Discharge follows the load (continuously) and comes after PV, before the generator.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray
from qevgrid.envs.v2g import model

# Reference counting of the arrays, and handing them from function to function, would cost more
# than the physics: the loops count no references (so they allocate nothing) and are one function.
compiled = njit(cache=True, error_model="numpy", _nrt=False)
inlined = njit(cache=True, inline="always")

TOLERANCE_KW = 1e-6
"""Slack in comparisons: limits may be missed by this much, so that rounding switches nothing off."""
BLOCK_TOLERANCE_KW = 1e-5
"""A block is picked up although this little is missing; what is served never exceeds what is supplied."""
PASSES = 6


class PlantArrays(NamedTuple):
    """``Plant`` and prices as the kernel reads them."""

    site: IntArray  # (N,)
    charge_min_kw: FloatArray  # (N,)
    charge_step_kw: FloatArray  # (N,)
    charge_kw: FloatArray  # (N,)
    discharge_kw: FloatArray  # (N,)
    discharge_min_kw: FloatArray  # (N,)
    no_step_kw: FloatArray  # (N,) zeros: discharge is not in whole amperes
    load_coef: FloatArray  # (D, R)
    ev_coef: FloatArray  # (D, R)
    pv_coef: FloatArray  # (D, R)
    base: FloatArray  # (F, R)
    low: FloatArray  # (R,)
    high: FloatArray  # (R,)
    generator_kw: FloatArray  # (D,)
    prices: FloatArray  # (9,) USD/kWh of each term
    weights: FloatArray  # (9,)
    constants: FloatArray  # see CONSTANTS
    n_critical: int
    n_other: int


CONSTANTS = ("dt_h", "eta_charge", "eta_discharge", "taper_soc", "reserve_share", "reserve_risk", "reserve_hours_h", "reward_scale", "per_day", "power_scale_kw", "fleet_kw")


class World(NamedTuple):
    """The scenario's arrays that the transition reads; shapes as in ``Scenario`` and ``Sessions``."""

    buy_usd_kwh: FloatArray
    sell_usd_kwh: FloatArray
    pv_kw: FloatArray
    critical_kw: FloatArray
    other_kw: FloatArray
    feeder_scale: FloatArray
    fault: IntArray
    outage: BoolArray
    risk: FloatArray
    arrival: IntArray
    departure: IntArray
    declared: IntArray
    start_kwh: FloatArray
    target_kwh: FloatArray
    capacity_kwh: FloatArray
    floor_kwh: FloatArray
    limit_kw: FloatArray
    stays: BoolArray
    known: Float32Array  # (B, T + 1, G) observation entries that the state does not touch


class State(NamedTuple):
    """What the episodes have become; written in place."""

    stage: IntArray  # (B,)
    slot: IntArray  # (B, N) session slot that is plugged in or comes next
    plugged: BoolArray  # (B, N)
    energy_kwh: FloatArray  # (B, N) of the plugged vehicle, else 0


class Outcome(NamedTuple):
    """What one stage did; written in place."""

    charge_kw: FloatArray  # (B, N)
    discharge_kw: FloatArray  # (B, N)
    import_kw: FloatArray  # (B, D) at the meter, 0 in an island
    served_critical_kw: FloatArray  # (B, D)
    served_other_kw: FloatArray  # (B, D)
    generator_kw: FloatArray  # (B, D)
    cost_usd: FloatArray  # (B, 9) unweighted
    curtailed_kwh: FloatArray  # (B,) |wish - done|, in grid-side kWh
    violation_kw: FloatArray  # (B,)
    total_usd: FloatArray  # (B,) weighted
    reward: FloatArray  # (B,)


class Scratch(NamedTuple):
    """Room to work in; nothing in it outlives an episode's stage."""

    charge: FloatArray  # (D,) sum of the site
    discharge: FloatArray  # (D,)
    spare: FloatArray  # (D,) power that could be held in reserve
    rows: FloatArray  # (R,) the network's rows without chargers
    drawn: FloatArray  # (R,) by charging
    fed: FloatArray  # (R,) by discharging


@inlined
def _legal_kw(wish, low, step, room):
    """Rule 2: off, or at least the minimum, in whole steps."""
    power = min(max(wish, low), room)
    if step > 0.0:
        power = np.floor(power / step + 1e-9) * step
        power = power if power >= low - 1e-9 else 0.0
    off = (room < low - TOLERANCE_KW) | (room <= 0.0) | (wish < 0.5 * low) | (wish <= 0.0)
    return 0.0 if off else power


@inlined
def _socket_kw(plant, world, state, b, t, i, share):
    """Rules 1 and 2 for a socket with a vehicle: power wished for and power it gets, both >= 0.

    Both directions are computed and one is selected: which one is chance, and branches on chance
    cost more than the arithmetic.
    """
    dt, eta_c, eta_d, taper = plant.constants[0], plant.constants[1], plant.constants[2], plant.constants[3]
    k = state.slot[b, i]
    energy, cap_kwh = state.energy_kwh[b, i], world.capacity_kwh[b, i, k]
    up_kw, down_kw = plant.charge_kw[i], plant.discharge_kw[i]
    up_low, down_low = plant.charge_min_kw[i], plant.discharge_min_kw[i]
    up_room = (cap_kwh - energy) / (eta_c * dt)
    down_room = (energy - world.floor_kwh[b, i, k]) * eta_d / dt
    charging = share > 0.0
    power = min(up_kw if charging else down_kw, world.limit_kw[b, i, k])
    room = min(power, up_room if charging else down_room)
    low = up_low if charging else down_low
    step = 0.0
    if plant.charge_step_kw[i] > 0.0 and charging:
        step = plant.charge_step_kw[i]
    if taper < 1.0 and charging:
        room = min(room, model.taper_kw(energy, cap_kwh, power, taper))
    if world.outage[b, t, plant.site[i]] and not charging:
        low = 0.0
    wish = abs(share) * power
    return wish, _legal_kw(wish, low, step, room)


@compiled
def _scale(power, low, step, sites, site, factor):
    """Scale one site's powers down in place; what falls below its minimum passes its share on."""
    carry = 0.0
    total = 0.0
    for i in range(len(power)):
        if sites[i] == site and power[i] > 0.0:
            share = power[i] * factor + carry
            done = min(share, power[i])
            if step[i] > 0.0:
                done = np.floor(done / step[i] + 1e-9) * step[i]
            if done < low[i] - TOLERANCE_KW:
                done = 0.0
            carry = share - done
            power[i] = done
            total += done
    return total


@compiled
def _blocks(supply, critical, other, n_critical, n_other, value_critical, value_other):
    """Numbers of blocks of the two tiers with the greatest value that ``supply`` carries."""
    best, best_c, best_o = -1.0, 0, 0
    size_c, size_o = critical / n_critical, other / n_other
    for c in range(n_critical + 1):
        left = supply - c * size_c + BLOCK_TOLERANCE_KW
        if left < 0.0:
            break
        o = n_other
        if size_o > 0.0 and left < other:
            o = min(int(left / size_o), n_other)
        value = c * size_c * value_critical + o * size_o * value_other
        if value >= best:
            best, best_c, best_o = value, c, o
    return best_c, best_o


@inlined
def _base_rows(plant, world, b, t, rows):
    """Left-hand side of each network row with all chargers off."""
    fault, scale = world.fault[b, t], world.feeder_scale[b, t]
    for r in range(len(rows)):
        rows[r] = plant.base[fault, r] * scale
    for d in range(plant.load_coef.shape[0]):
        if not world.outage[b, t, d]:
            load, pv = world.critical_kw[b, t, d] + world.other_kw[b, t, d], world.pv_kw[b, t, d]
            for r in range(len(rows)):
                rows[r] += model.network_row(plant.load_coef[d, r], load, plant.ev_coef[d, r], 0.0, plant.pv_coef[d, r], pv)


@inlined
def _row_sums(coef, power, outage, sums):
    """The rows' coefficients times the site powers of the connected sites."""
    for r in range(len(sums)):
        sums[r] = 0.0
    for d in range(len(power)):
        if not outage[d]:
            for r in range(len(sums)):
                sums[r] += coef[d, r] * power[d]


@inlined
def _broken(plant, rows, drawn, fed):
    """Number of rows beyond their limits by the chargers' doing."""
    count = 0
    for r in range(len(rows)):
        flow = drawn[r] - fed[r]
        over = flow > max(plant.high[r] - rows[r], 0.0) + TOLERANCE_KW
        under = flow < min(plant.low[r] - rows[r], 0.0) - TOLERANCE_KW
        count += over | under
    return count


@compiled
def _row_sum(coef, r, power, outage):
    """One of ``_row_sums``."""
    total = 0.0
    for d in range(len(power)):
        if not outage[d]:
            total += coef[d, r] * power[d]
    return total


@compiled
def _scale_sites(coef, r, outage, power, low, step, sites, sums, factor):
    for d in range(len(sums)):
        if coef[d, r] > 0.0 and not outage[d]:
            sums[d] = _scale(power, low, step, sites, d, factor)


@compiled
def _curtail(plant, charge_kw, discharge_kw, charge, discharge, outage, rows):
    """Rule 3: scale connected sites until every row holds. ``charge``/``discharge`` are site sums."""
    for attempt in range(PASSES + 1):
        clean = True
        for r in range(len(rows)):
            coef = plant.ev_coef
            drawn, fed = _row_sum(coef, r, charge, outage), _row_sum(coef, r, discharge, outage)
            up = max(plant.high[r] - rows[r], 0.0)
            down = min(plant.low[r] - rows[r], 0.0)
            if drawn - fed > up + TOLERANCE_KW:
                clean = False
                factor = max((up + fed) / drawn, 0.0) if attempt < PASSES else 0.0
                _scale_sites(coef, r, outage, charge_kw, plant.charge_min_kw, plant.charge_step_kw, plant.site, charge, factor)
            elif drawn - fed < down - TOLERANCE_KW:
                clean = False
                factor = max((drawn - down) / fed, 0.0) if attempt < PASSES else 0.0
                _scale_sites(coef, r, outage, discharge_kw, plant.discharge_min_kw, plant.no_step_kw, plant.site, discharge, factor)
        if clean:
            return
    _switch_off(plant.site, charge_kw, discharge_kw, charge, discharge, outage)


@compiled
def _switch_off(sites, charge_kw, discharge_kw, charge, discharge, outage):
    """The last resort of rule 3: nothing flows at the connected sites."""
    for i in range(len(sites)):
        if not outage[sites[i]]:
            charge_kw[i] = 0.0
            discharge_kw[i] = 0.0
    for d in range(len(charge)):
        if not outage[d]:
            charge[d] = 0.0
            discharge[d] = 0.0


@inlined
def _island(plant, world, b, t, d, charge_kw, discharge_kw, charge, discharge, out):
    """Rule 4 for site ``d``."""
    critical, other, pv = world.critical_kw[b, t, d], world.other_kw[b, t, d], world.pv_kw[b, t, d]
    supply = pv + plant.generator_kw[d] + discharge[d]
    n_c, n_o = _blocks(
        supply, critical, other, plant.n_critical, plant.n_other,
        plant.prices[model.UNSERVED_CRITICAL] * plant.weights[model.UNSERVED_CRITICAL],
        plant.prices[model.UNSERVED_OTHER] * plant.weights[model.UNSERVED_OTHER],
    )
    served_c, served_o = critical * n_c / plant.n_critical, other * n_o / plant.n_other
    served = served_c + served_o
    if served > supply:
        served_c, served_o, served = served_c * supply / served, served_o * supply / served, supply
    left = supply - served if n_c == plant.n_critical and n_o == plant.n_other else 0.0
    if charge[d] > left:
        factor = max(left, 0.0) / charge[d]
        charge[d] = _scale(charge_kw, plant.charge_min_kw, plant.charge_step_kw, plant.site, d, factor)
    needed = max(served + charge[d] - pv, 0.0)
    if discharge[d] > needed:
        factor = needed / discharge[d]
        for i in range(len(discharge_kw)):
            if plant.site[i] == d:
                discharge_kw[i] *= factor
        discharge[d] = needed
    out.served_critical_kw[b, d] = served_c
    out.served_other_kw[b, d] = served_o
    out.generator_kw[b, d] = min(needed - discharge[d], plant.generator_kw[d])
    out.import_kw[b, d] = 0.0


@inlined
def _wishes(plant, world, state, out, b, t, action, charge, discharge):
    """Rules 1 and 2; fills the powers and the site sums, returns the sum of |wish|."""
    wished = 0.0
    for d in range(len(charge)):
        charge[d] = 0.0
        discharge[d] = 0.0
    for i in range(len(plant.site)):
        up = 0.0
        down = 0.0
        if state.plugged[b, i]:
            share = min(max(action[b, i], -1.0), 1.0)
            wish, power = _socket_kw(plant, world, state, b, t, i, share)
            up = power if share > 0.0 else 0.0
            down = 0.0 if share > 0.0 else power
            wished += wish
            charge[plant.site[i]] += up
            discharge[plant.site[i]] += down
        out.charge_kw[b, i] = up
        out.discharge_kw[b, i] = down
    return wished


@inlined
def _plug(world, state, b, i, k, t):
    """Plug in the vehicle of slot ``k`` if it arrives after stage ``t`` and before the end."""
    if k < world.arrival.shape[2] and t + 1 < world.buy_usd_kwh.shape[1] and world.arrival[b, i, k] == t + 1:
        state.plugged[b, i] = True
        state.energy_kwh[b, i] = world.start_kwh[b, i, k]


@inlined
def _charge_batteries(plant, world, state, out, b, t, spare):
    """Move the energies, count wear, departures and reserve; plug and unplug for the next stage."""
    dt, eta_c, eta_d = plant.constants[0], plant.constants[1], plant.constants[2]
    moved, missing, left_kwh = 0.0, 0.0, 0.0
    for d in range(len(spare)):
        spare[d] = 0.0
    for i in range(len(plant.site)):
        k = state.slot[b, i]
        if not state.plugged[b, i]:
            _plug(world, state, b, i, k, t)
            continue
        up, down, floor_kwh = out.charge_kw[b, i], out.discharge_kw[b, i], world.floor_kwh[b, i, k]
        energy = model.energy_next_kwh(state.energy_kwh[b, i], up, down, dt, eta_c, eta_d)
        energy = min(max(energy, floor_kwh), world.capacity_kwh[b, i, k])
        moved += model.throughput_kwh(up, down, dt)
        power = min(plant.discharge_kw[i], world.limit_kw[b, i, k])
        spare[plant.site[i]] += min(power, model.reserve_kw(energy, floor_kwh, eta_d, plant.constants[6]))
        state.energy_kwh[b, i] = energy
        if world.departure[b, i, k] == t + 1:
            missing += max(world.target_kwh[b, i, k] - energy, 0.0)
            left_kwh += energy if world.stays[b, i, k] else 0.0
            state.plugged[b, i] = False
            state.energy_kwh[b, i] = 0.0
            state.slot[b, i] = k + 1
            _plug(world, state, b, i, k + 1, t)
    out.cost_usd[b, model.WEAR] = plant.prices[model.WEAR] * moved
    out.cost_usd[b, model.SHORTFALL] = plant.prices[model.SHORTFALL] * missing
    out.cost_usd[b, model.TERMINAL] = -plant.prices[model.TERMINAL] * left_kwh


@inlined
def _settle(plant, world, out, b, t, charge, discharge, rows, drawn, fed, spare):
    """Costs of the sites and of the rows."""
    dt = plant.constants[0]
    energy, critical, other, fuel, short = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(len(charge)):
        pv, buy, sell = world.pv_kw[b, t, d], world.buy_usd_kwh[b, t], world.sell_usd_kwh[b, t]
        load_c, load_o = world.critical_kw[b, t, d], world.other_kw[b, t, d]
        if world.outage[b, t, d]:
            critical += model.unserved_kwh(load_c, out.served_critical_kw[b, d], dt)
            other += model.unserved_kwh(load_o, out.served_other_kw[b, d], dt)
            fuel += dt * out.generator_kw[b, d]
        else:
            net = model.meter_kw(load_c + load_o, charge[d], discharge[d], pv)
            idle = model.meter_kw(load_c + load_o, 0.0, 0.0, pv)
            energy += model.market_usd(max(net, 0.0), max(-net, 0.0), buy, sell, dt)
            energy -= model.market_usd(max(idle, 0.0), max(-idle, 0.0), buy, sell, dt)
            out.import_kw[b, d] = net
            out.served_critical_kw[b, d] = load_c
            out.served_other_kw[b, d] = load_o
            out.generator_kw[b, d] = 0.0
            if world.risk[b, t] >= plant.constants[5]:
                short += dt * max(plant.constants[4] * load_c - plant.generator_kw[d] - spare[d], 0.0)
    beyond = 0.0
    for r in range(len(rows)):
        value = rows[r] + drawn[r] - fed[r]
        beyond += max(value - plant.high[r], 0.0) + max(plant.low[r] - value, 0.0)
    out.violation_kw[b] = beyond
    out.cost_usd[b, model.ENERGY] = plant.prices[model.ENERGY] * energy
    out.cost_usd[b, model.UNSERVED_CRITICAL] = plant.prices[model.UNSERVED_CRITICAL] * critical
    out.cost_usd[b, model.UNSERVED_OTHER] = plant.prices[model.UNSERVED_OTHER] * other
    out.cost_usd[b, model.GENERATOR] = plant.prices[model.GENERATOR] * fuel
    out.cost_usd[b, model.RESERVE] = plant.prices[model.RESERVE] * short
    out.cost_usd[b, model.VIOLATION] = plant.prices[model.VIOLATION] * beyond * dt


@inlined
def _total(x):
    total = 0.0
    for k in range(len(x)):
        total += x[k]
    return total


@inlined
def _advance(plant, world, state, out, scratch, b, t, action):
    """One stage of episode ``b``."""
    charge, discharge, spare, rows, drawn, fed = scratch
    outage = world.outage[b, t]
    wished = _wishes(plant, world, state, out, b, t, action, charge, discharge)
    _base_rows(plant, world, b, t, rows)
    _row_sums(plant.ev_coef, charge, outage, drawn)
    _row_sums(plant.ev_coef, discharge, outage, fed)
    if _broken(plant, rows, drawn, fed) > 0:
        _curtail(plant, out.charge_kw[b], out.discharge_kw[b], charge, discharge, outage, rows)
        _row_sums(plant.ev_coef, charge, outage, drawn)
        _row_sums(plant.ev_coef, discharge, outage, fed)
    for d in range(len(outage)):
        if outage[d]:
            _island(plant, world, b, t, d, out.charge_kw[b], out.discharge_kw[b], charge, discharge, out)
    _charge_batteries(plant, world, state, out, b, t, spare)
    _settle(plant, world, out, b, t, charge, discharge, rows, drawn, fed, spare)
    total = 0.0
    for k in range(len(plant.weights)):
        total += plant.weights[k] * out.cost_usd[b, k]
    out.total_usd[b] = total
    out.reward[b] = -total * plant.constants[7]
    out.curtailed_kwh[b] = plant.constants[0] * max(wished - _total(charge) - _total(discharge), 0.0)
    state.stage[b] = t + 1


@compiled
def step(
    plant: PlantArrays,
    world: World,
    state: State,
    out: Outcome,
    scratch: Scratch,
    action: FloatArray,
    obs: Float32Array,
) -> None:  # pragma: no cover
    """One stage of every episode that is not over; then the observations, unless ``obs`` is empty."""
    last = world.buy_usd_kwh.shape[1]
    for b in range(len(state.stage)):
        t = state.stage[b]
        if t < last:
            _advance(plant, world, state, out, scratch, b, t, action)
        if obs.size > 0:
            _observe(plant, world, state, b, obs)


@compiled
def begin(world: World, state: State, rows: IntArray) -> None:  # pragma: no cover
    """Put the given episodes at stage 0 and plug in who is there."""
    for b in rows:
        state.stage[b] = 0
        for i in range(world.arrival.shape[1]):
            state.slot[b, i] = 0
            here = world.arrival[b, i, 0] == 0
            state.plugged[b, i] = here
            state.energy_kwh[b, i] = world.start_kwh[b, i, 0] if here else 0.0


@compiled
def observe(plant: PlantArrays, world: World, state: State, obs: Float32Array) -> None:  # pragma: no cover
    """Write the observations (B, G + A + N * F); entries as in ``observe.labels``."""
    for b in range(len(state.stage)):
        _observe(plant, world, state, b, obs)


@inlined
def _observe(plant, world, state, b, obs):
    """One row of ``observe``."""
    n_known, n_sockets = world.known.shape[2], len(plant.site)
    dt, eta_c, eta_d, per_day = plant.constants[0], plant.constants[1], plant.constants[2], plant.constants[8]
    power_scale, fleet_kw = plant.constants[9], plant.constants[10]
    t = state.stage[b]
    for g in range(n_known):
        obs[b, g] = world.known[b, t, g]
    here, spare, room, need, must = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n_sockets):
        at = n_known + 6 + 6 * i
        if not state.plugged[b, i]:
            for f in range(6):
                obs[b, at + f] = 0.0
            continue
        k = state.slot[b, i]
        energy, cap = state.energy_kwh[b, i], world.capacity_kwh[b, i, k]
        power = min(plant.charge_kw[i], world.limit_kw[b, i, k])
        short = max(world.target_kwh[b, i, k] - energy, 0.0)
        left = max(world.declared[b, i, k] - t, 1)
        pace = min(short / (eta_c * power * left * dt), 1.0)
        fall = max(energy - world.floor_kwh[b, i, k], 0.0)
        obs[b, at] = 1.0
        obs[b, at + 1] = energy / cap
        obs[b, at + 2] = short / cap
        obs[b, at + 3] = min(left / per_day, 1.0)
        obs[b, at + 4] = pace
        obs[b, at + 5] = power / power_scale
        here += 1.0
        spare += min(fall * eta_d, 4.0 * min(plant.discharge_kw[i], power))
        room += min(cap - energy, 4.0 * power)
        need += short
        must += pace * power
    at = n_known
    obs[b, at] = here / n_sockets
    obs[b, at + 1] = spare / (4.0 * fleet_kw)
    obs[b, at + 2] = room / (4.0 * fleet_kw)
    obs[b, at + 3] = min(need / (4.0 * fleet_kw), 1.0)
    obs[b, at + 4] = min(must / fleet_kw, 1.0)
    obs[b, at + 5] = min(t * 1.0 / world.buy_usd_kwh.shape[1], 1.0)


@compiled
def mask(plant: PlantArrays, world: World, state: State, levels: FloatArray, out: BoolArray) -> None:  # pragma: no cover
    """Write (B, N, L): levels at which something flows; level 0 ("off") always may be chosen."""
    last = world.buy_usd_kwh.shape[1]
    for b in range(out.shape[0]):
        t = min(state.stage[b], last - 1)
        for i in range(out.shape[1]):
            for k in range(out.shape[2]):
                power = 0.0
                if state.plugged[b, i] and levels[k] != 0.0:
                    _, power = _socket_kw(plant, world, state, b, t, i, levels[k])
                out[b, i, k] = (levels[k] == 0.0) | (power > 0.0)
