"""Every named constraint of the model as residual arrays, for tests and audits.

Written with ``model.py`` and the arrays of ``Plant`` alone; the step kernel has no part in it. A
residual is at most 0 where its constraint holds, up to ``tolerance``. Numbers in brackets are the
equations of the review.
"""

from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.plant import NetworkRows, Plant
from qevgrid.envs.v2g.scenario import Scenario

TOLERANCE_KW: Final = 1.001e-6
TOLERANCE_KWH: Final = 1e-9
TOLERANCE_BLOCK_KW: Final = 2e-5
"""A block counts as whole although this little of it is missing."""
IN_KWH: Final = ("energy_balance", "energy_floor", "energy_capacity", "handover")


class Snapshot(NamedTuple):
    """State of B episodes between two stages."""

    stage: IntArray  # (B,)
    slot: IntArray  # (B, N)
    plugged: BoolArray  # (B, N)
    energy_kwh: FloatArray  # (B, N)


class StageResult(Protocol):
    """What is read of a stage's outcome: powers (B, N) of sockets, (B, D) of sites, (B,) of rows."""

    charge_kw: FloatArray
    discharge_kw: FloatArray
    import_kw: FloatArray
    served_critical_kw: FloatArray
    served_other_kw: FloatArray
    generator_kw: FloatArray
    violation_kw: FloatArray


class _Stage(NamedTuple):
    """One stage of B episodes, everything looked up."""

    plant: Plant
    before: Snapshot
    after: Snapshot
    out: StageResult
    charge_kw: FloatArray  # (B, D)
    discharge_kw: FloatArray  # (B, D)
    critical_kw: FloatArray  # (B, D)
    other_kw: FloatArray  # (B, D)
    pv_kw: FloatArray  # (B, D)
    outage: BoolArray  # (B, D)
    fault: IntArray  # (B,)
    feeder_scale: FloatArray  # (B,)
    vehicle: dict[str, FloatArray]  # name -> (B, N) of the plugged vehicle, else 0
    next_kwh: FloatArray  # (B, N) by (4)


def snapshot(state: Any) -> Snapshot:
    """Copy of a state that the next step would overwrite."""
    parts = (state.stage, state.slot, state.plugged, state.energy_kwh)
    return Snapshot(*(np.array(part) for part in parts))


def residuals(
    plant: Plant,
    scenario: Scenario,
    before: Snapshot,
    out: StageResult,
    after: Snapshot,
    rows: NetworkRows | None = None,
) -> dict[str, FloatArray]:
    """Residuals of every constraint, name -> (B, N), (B, D) or (B,); ``<= 0`` where it holds.

    ``before`` and ``after`` are the states around the stage whose outcome is ``out``. ``rows``
    stand in for the plant's own rows of (9).
    """
    s = _stage(plant, scenario, before, out, after)
    batteries = _chargers(s) | _batteries(s, scenario)
    return batteries | _sites(s) | _network(s, plant.rows if rows is None else rows)


def tolerance(name: str) -> float:
    """Largest residual of constraint ``name`` that rounding explains."""
    if name in IN_KWH:
        return TOLERANCE_KWH
    return TOLERANCE_BLOCK_KW if name.startswith("blocks_whole") else TOLERANCE_KW


def violated(found: dict[str, FloatArray]) -> dict[str, float]:
    """The constraints that do not hold, with their largest residual."""
    worst = {name: float(np.max(x, initial=-np.inf)) for name, x in found.items()}
    return {name: value for name, value in worst.items() if not value <= tolerance(name)}


def _stage(plant: Plant, scenario: Scenario, before: Snapshot, out: StageResult, after: Snapshot) -> _Stage:
    t, b = before.stage, np.arange(len(before.stage))
    names = ("critical_kw", "other_kw", "pv_kw", "outage", "fault", "feeder_scale")
    now = {name: getattr(scenario, name)[b, t] for name in names}
    charger = plant.params.charger
    efficiency = (plant.params.dt_h, charger.eta_charge, charger.eta_discharge)
    later = model.energy_next_kwh(before.energy_kwh, out.charge_kw, out.discharge_kw, *efficiency)
    return _Stage(
        plant=plant,
        before=before,
        after=after,
        out=out,
        charge_kw=_by_site(plant, out.charge_kw),
        discharge_kw=_by_site(plant, out.discharge_kw),
        vehicle=_vehicles(scenario, before),
        next_kwh=later,
        **now,
    )


def _by_site(plant: Plant, power_kw: FloatArray) -> FloatArray:
    """Sums over each site's sockets, (B, N) -> (B, D)."""
    return power_kw @ (plant.site[:, None] == np.arange(plant.n_sites)).astype(float)


def _vehicles(scenario: Scenario, state: Snapshot) -> dict[str, FloatArray]:
    """Facts of the plugged vehicles, 0 where there is none."""
    x = scenario.sessions
    slot = np.minimum(state.slot, x.arrival.shape[-1] - 1)[..., None]
    names = ("arrival", "departure", "capacity_kwh", "floor_kwh", "limit_kw", "energy_kwh")
    picked = {name: np.take_along_axis(getattr(x, name), slot, -1)[..., 0] for name in names}
    return {name: np.where(state.plugged, value, 0.0) for name, value in picked.items()}


def _chargers(s: _Stage) -> dict[str, FloatArray]:
    """(2), (3), (6): limits, off or minimum, whole amperes, taper, never both."""
    plant, up, down = s.plant, s.out.charge_kw, s.out.discharge_kw
    limit, dark = s.vehicle["limit_kw"], s.outage[:, plant.site]
    most = np.minimum(plant.charge_kw, limit)
    step = np.where(plant.charge_step_kw > 0, plant.charge_step_kw, 1.0)
    odd = np.abs(up - np.rint(up / step) * step)
    found = {
        "presence": np.where(s.before.plugged, 0.0, np.maximum(np.abs(up), np.abs(down))),
        "charge_limit": np.maximum(up - most, -up),
        "discharge_limit": np.maximum(down - np.minimum(plant.discharge_kw, limit), -down),
        "charge_off_or_minimum": np.where(up > 0, plant.charge_min_kw - up, 0.0),
        "discharge_off_or_minimum": np.where((down > 0) & ~dark, plant.discharge_min_kw - down, 0.0),
        "not_both": np.minimum(up, down),
        "whole_amperes": np.where(plant.charge_step_kw > 0, odd, 0.0),
    }
    taper_soc = plant.params.charger.taper_soc
    if taper_soc < 1:
        capacity = np.maximum(s.vehicle["capacity_kwh"], 1e-9)
        found["taper"] = up - model.taper_kw(s.before.energy_kwh, capacity, most, taper_soc)
    return found


def _batteries(s: _Stage, scenario: Scenario) -> dict[str, FloatArray]:
    """(4) and (5), and what an unplugged or newly plugged socket holds."""
    here = s.before.plugged
    leaves = here & (s.vehicle["departure"] == s.before.stage[:, None] + 1)
    stays = here & ~leaves
    new = s.after.plugged & ~stays
    start = np.where(new, _vehicles(scenario, s.after)["energy_kwh"], 0.0)
    held = np.abs(s.after.energy_kwh - start)
    return {
        "energy_balance": np.where(stays, np.abs(s.after.energy_kwh - s.next_kwh), 0.0),
        "energy_floor": np.where(here, s.vehicle["floor_kwh"] - s.next_kwh, 0.0),
        "energy_capacity": np.where(here, s.next_kwh - s.vehicle["capacity_kwh"], 0.0),
        "handover": np.where(stays, 1.0 - s.after.plugged, held),
    }


def _sites(s: _Stage) -> dict[str, FloatArray]:
    """(1), (7), (10): the meter, the island's balance, whole blocks, charging last."""
    p, out, load = s.plant.params, s.out, s.critical_kw + s.other_kw
    served = out.served_critical_kw + out.served_other_kw
    net = model.meter_kw(load, s.charge_kw, s.discharge_kw, s.pv_kw)
    supply = (s.pv_kw, out.generator_kw)
    surplus = model.island_surplus_kw(s.charge_kw, s.discharge_kw, *supply, served)
    rated = np.where(s.outage, p.site.per_site("generator_kw"), 0.0)
    missing = load - served
    return {
        "meter": np.abs(out.import_kw - np.where(s.outage, 0.0, net)),
        "connected_served": np.where(s.outage, 0.0, np.abs(missing)),
        "served_limit": np.maximum(out.served_critical_kw - s.critical_kw, out.served_other_kw - s.other_kw),
        "generator_limit": np.maximum(out.generator_kw - rated, -out.generator_kw),
        "island_balance": np.where(s.outage, np.maximum(-surplus, surplus - s.pv_kw), 0.0),
        "blocks_whole_critical": _not_whole(out.served_critical_kw, s.critical_kw, p.site.critical_blocks, s.outage),
        "blocks_whole_other": _not_whole(out.served_other_kw, s.other_kw, p.site.other_blocks, s.outage),
        "island_charges_last": np.where(s.outage & (missing > TOLERANCE_BLOCK_KW), s.charge_kw, 0.0),
    }


def _not_whole(served: FloatArray, load: FloatArray, blocks: int, outage: BoolArray) -> FloatArray:
    """Distance of what is served from a whole number of blocks, (B, D)."""
    size = np.maximum(load / blocks, 1e-12)
    return np.where(outage, np.abs(served - np.rint(served / size) * size), 0.0)


def _network(s: _Stage, rows: NetworkRows) -> dict[str, FloatArray]:
    """(9): chargers push no row beyond the larger of its limit and what loads alone bring."""
    live = ~s.outage[:, None]  # (B, 1, D)
    load = (s.critical_kw + s.other_kw)[:, None] * live
    pv, ev = s.pv_kw[:, None] * live, (s.charge_kw - s.discharge_kw)[:, None] * live
    base = rows.base[s.fault] * s.feeder_scale[:, None]
    coef = (rows.load_coef, load, rows.ev_coef)
    alone = base + model.network_row(*coef, 0.0, rows.pv_coef, pv).sum(-1)
    value = base + model.network_row(*coef, ev, rows.pv_coef, pv).sum(-1)  # (B, R)
    above = value - np.maximum(rows.high, alone)
    below = np.minimum(rows.low, alone) - value
    excess = np.maximum(value - rows.high, 0.0) + np.maximum(rows.low - value, 0.0)
    found = {name: np.maximum(above, below)[:, r] for r, name in enumerate(rows.name)}
    return found | {"violation": np.abs(s.out.violation_kw - excess.sum(1))}
