"""The projection makes every wish legal, compiled. The rules, in this order:

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

import numpy as np

from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.arrays import (
    DT_H,
    ETA_CHARGE,
    ETA_DISCHARGE,
    TAPER_SOC,
    Outcome,
    PlantArrays,
    Scratch,
    State,
    World,
    compiled,
    inlined,
)

TOLERANCE_KW = 1e-6
"""Slack in comparisons: limits may be missed by this much, so that rounding switches nothing off."""
BLOCK_TOLERANCE_KW = 1e-5
"""A block is picked up although this little is missing; what is served never exceeds what is supplied."""
PASSES = 6


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
def socket_kw(
    plant: PlantArrays, world: World, state: State, b: int, t: int, i: int, share: float
) -> tuple[float, float]:
    """Rules 1 and 2 for a socket with a vehicle: power wished for and power it gets, both >= 0.

    Both directions are computed and one is selected: which one is chance, and branches on chance
    cost more than the arithmetic.
    """
    dt, taper = plant.constants[DT_H], plant.constants[TAPER_SOC]
    eta_c, eta_d = plant.constants[ETA_CHARGE], plant.constants[ETA_DISCHARGE]
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
            wish, power = socket_kw(plant, world, state, b, t, i, share)
            up = power if share > 0.0 else 0.0
            down = 0.0 if share > 0.0 else power
            wished += wish
            charge[plant.site[i]] += up
            discharge[plant.site[i]] += down
        out.charge_kw[b, i] = up
        out.discharge_kw[b, i] = down
    return wished


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
                rows[r] += model.network_row(
                    plant.load_coef[d, r], load, plant.ev_coef[d, r], 0.0, plant.pv_coef[d, r], pv
                )


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
def _scale_sites(coef, r, outage, power, low, step, sites, sums, factor):
    """``_scale`` at the connected sites that row ``r`` depends on."""
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
                low, step = plant.charge_min_kw, plant.charge_step_kw
                _scale_sites(coef, r, outage, charge_kw, low, step, plant.site, charge, factor)
            elif drawn - fed < down - TOLERANCE_KW:
                clean = False
                factor = max((drawn - down) / fed, 0.0) if attempt < PASSES else 0.0
                low, step = plant.discharge_min_kw, plant.no_step_kw
                _scale_sites(coef, r, outage, discharge_kw, low, step, plant.site, discharge, factor)
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
def _island(plant, world, b, t, d, charge_kw, discharge_kw, charge, discharge, out):
    """Rule 4 for site ``d``."""
    critical, other, pv = world.critical_kw[b, t, d], world.other_kw[b, t, d], world.pv_kw[b, t, d]
    supply = pv + plant.generator_kw[d] + discharge[d]
    n_c, n_o = _blocks(
        supply,
        critical,
        other,
        plant.n_critical,
        plant.n_other,
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
def project(
    plant: PlantArrays,
    world: World,
    state: State,
    out: Outcome,
    scratch: Scratch,
    b: int,
    t: int,
    action: FloatArray,
) -> float:
    """Powers of stage ``t`` of episode ``b``, written to ``out`` and ``scratch``; the sum of the wishes, kW."""
    charge, discharge, _, rows, drawn, fed = scratch
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
    return wished
