"""The transition of a batch of episodes, compiled: project the wish, apply the model, count the cost."""

from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.arrays import (
    DT_H,
    ETA_CHARGE,
    ETA_DISCHARGE,
    FLEET_KW,
    N_FLEET,
    N_SOCKET,
    PER_DAY,
    POWER_SCALE_KW,
    RESERVE_HOURS_H,
    RESERVE_RISK,
    RESERVE_SHARE,
    REWARD_SCALE,
    Outcome,
    PlantArrays,
    Scratch,
    State,
    World,
    compiled,
    inlined,
)
from qevgrid.envs.v2g.projection import project, socket_kw


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


@compiled
def mask(
    plant: PlantArrays, world: World, state: State, levels: FloatArray, out: BoolArray
) -> None:  # pragma: no cover
    """Write (B, N, L): levels at which something flows; level 0 ("off") always may be chosen."""
    last = world.buy_usd_kwh.shape[1]
    for b in range(out.shape[0]):
        t = min(state.stage[b], last - 1)
        for i in range(out.shape[1]):
            for k in range(out.shape[2]):
                power = 0.0
                if state.plugged[b, i] and levels[k] != 0.0:
                    _, power = socket_kw(plant, world, state, b, t, i, levels[k])
                out[b, i, k] = (levels[k] == 0.0) | (power > 0.0)


@inlined
def _advance(plant, world, state, out, scratch, b, t, action):
    """One stage of episode ``b``."""
    charge, discharge, spare, rows, drawn, fed = scratch
    wished = project(plant, world, state, out, scratch, b, t, action)
    _charge_batteries(plant, world, state, out, b, t, spare)
    _settle(plant, world, out, b, t, charge, discharge, rows, drawn, fed, spare)
    total = 0.0
    for k in range(len(plant.weights)):
        total += plant.weights[k] * out.cost_usd[b, k]
    out.total_usd[b] = total
    out.reward[b] = -total * plant.constants[REWARD_SCALE]
    out.curtailed_kwh[b] = plant.constants[DT_H] * max(wished - _total(charge) - _total(discharge), 0.0)
    state.stage[b] = t + 1


@inlined
def _charge_batteries(plant, world, state, out, b, t, spare):
    """Move the energies, count wear, departures and reserve; plug and unplug for the next stage."""
    dt, eta_c, eta_d = plant.constants[DT_H], plant.constants[ETA_CHARGE], plant.constants[ETA_DISCHARGE]
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
        spare[plant.site[i]] += min(power, model.reserve_kw(energy, floor_kwh, eta_d, plant.constants[RESERVE_HOURS_H]))
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
def _plug(world, state, b, i, k, t):
    """Plug in the vehicle of slot ``k`` if it arrives after stage ``t`` and before the end."""
    if k < world.arrival.shape[2] and t + 1 < world.buy_usd_kwh.shape[1] and world.arrival[b, i, k] == t + 1:
        state.plugged[b, i] = True
        state.energy_kwh[b, i] = world.start_kwh[b, i, k]


@inlined
def _settle(plant, world, out, b, t, charge, discharge, rows, drawn, fed, spare):
    """Costs of the sites and of the rows."""
    dt = plant.constants[DT_H]
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
            if world.risk[b, t] >= plant.constants[RESERVE_RISK]:
                short += dt * max(plant.constants[RESERVE_SHARE] * load_c - plant.generator_kw[d] - spare[d], 0.0)
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
    """Sum in the order of the entries."""
    total = 0.0
    for k in range(len(x)):
        total += x[k]
    return total


@inlined
def _observe(plant, world, state, b, obs):
    """One row of ``observe``."""
    n_known, n_sockets = world.known.shape[2], len(plant.site)
    dt, eta_c, eta_d, per_day = (
        plant.constants[DT_H],
        plant.constants[ETA_CHARGE],
        plant.constants[ETA_DISCHARGE],
        plant.constants[PER_DAY],
    )
    power_scale, fleet_kw = plant.constants[POWER_SCALE_KW], plant.constants[FLEET_KW]
    per_stage, per_kw, per_slot = 1.0 / per_day, 1.0 / power_scale, 1.0 / (eta_c * dt)
    per_stage_h = eta_d / dt
    t = state.stage[b]
    for g in range(n_known):
        obs[b, g] = world.known[b, t, g]
    here, spare, room, need, must, ready = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    now = min(t, world.buy_usd_kwh.shape[1] - 1)
    for i in range(n_sockets):
        at = n_known + N_FLEET + N_SOCKET * i
        if not state.plugged[b, i]:
            for f in range(N_SOCKET):
                obs[b, at + f] = 0.0
            continue
        k = state.slot[b, i]
        energy, cap = state.energy_kwh[b, i], world.capacity_kwh[b, i, k]
        power = min(plant.charge_kw[i], world.limit_kw[b, i, k])
        short = max(world.target_kwh[b, i, k] - energy, 0.0)
        left = max(world.declared[b, i, k] - t, 1)
        per_kwh = 1.0 / cap
        pace = min(short * per_slot / (power * left), 1.0)
        fall = max(energy - world.floor_kwh[b, i, k], 0.0)
        obs[b, at] = 1.0
        obs[b, at + 1] = energy * per_kwh
        obs[b, at + 2] = short * per_kwh
        obs[b, at + 3] = min(left * per_stage, 1.0)
        obs[b, at + 4] = pace
        obs[b, at + 5] = power * per_kw
        here += 1.0
        spare += min(fall * eta_d, 4.0 * min(plant.discharge_kw[i], power))
        room += min(cap - energy, 4.0 * power)
        need += short
        must += pace * power
        if world.outage[b, now, plant.site[i]]:
            ready += min(min(plant.discharge_kw[i], power), fall * per_stage_h)
    critical, other = _island_need_kw(plant, world, b, now)
    at = n_known
    obs[b, at] = here / n_sockets
    obs[b, at + 1] = spare / (4.0 * fleet_kw)
    obs[b, at + 2] = room / (4.0 * fleet_kw)
    obs[b, at + 3] = min(need / (4.0 * fleet_kw), 1.0)
    obs[b, at + 4] = min(must / fleet_kw, 1.0)
    obs[b, at + 5] = min(critical / max(ready, 1e-6), 1.0)
    obs[b, at + 6] = min((critical + other) / max(ready, 1e-6), 1.0)
    obs[b, at + 7] = min(t * 1.0 / world.buy_usd_kwh.shape[1], 1.0)


@inlined
def _island_need_kw(plant, world, b, t):
    """Critical and other load of the dark sites that PV and generators leave to the vehicles."""
    critical, other = 0.0, 0.0
    for d in range(len(plant.generator_kw)):
        if world.outage[b, t, d]:
            own = world.pv_kw[b, t, d] + plant.generator_kw[d]
            short = max(world.critical_kw[b, t, d] - own, 0.0)
            critical += short
            other += max(world.critical_kw[b, t, d] + world.other_kw[b, t, d] - own, 0.0) - short
    return critical, other
