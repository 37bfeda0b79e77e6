"""The feeder by the exact DistFlow sweep: voltages and losses as figures, or as what violations cost.

LinDistFlow leaves out losses, so its voltages are up to 0.010 p.u. too high. Evaluations report the
sweep's; with ``grid.model=sweep`` the violation term is counted on them too.
"""

import numpy as np

from qevgrid.envs.grid import SweepResult, sweep
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.arrays import Outcome
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.scenario import Scenario


def bus_power(plant: Plant, s: Scenario, stage: IntArray, out: Outcome) -> tuple[FloatArray, FloatArray]:
    """Active (kW) and reactive (kvar) load of each bus, (B, n_bus), in the stage just played."""
    assert plant.feeder is not None
    p, row = plant.params, np.arange(len(stage))
    scale = s.feeder_scale[row, stage][:, None]
    kw, kvar = plant.feeder.load_kw * scale, plant.feeder.load_kvar * scale
    ev = out.charge_kw - out.discharge_kw
    for d, bus in enumerate(p.site.bus):
        live = ~s.outage[row, stage, d]
        ev_kw = ev[:, plant.site == d].sum(1) * live
        load_kw = (s.critical_kw[row, stage, d] + s.other_kw[row, stage, d]) * live
        kw[:, bus] += load_kw + ev_kw - s.pv_kw[row, stage, d] * live
        kvar[:, bus] += p.site.tan_phi * load_kw + p.charger.tan_phi * ev_kw
    return kw, kvar


def solve_feeder(plant: Plant, s: Scenario, stage: IntArray, out: Outcome) -> SweepResult:
    """AC state of the feeder in the stage just played; dead buses have no voltage."""
    assert plant.feeder is not None and plant.flow is not None
    alive = ~plant.flow.dead_bus[s.fault[np.arange(len(stage)), stage]]
    return sweep(plant.feeder, *bus_power(plant, s, stage, out), alive=alive)


def row_values(plant: Plant, s: Scenario, stage: IntArray, out: Outcome) -> FloatArray:
    """Left-hand side of each network row by the sweep, (B, R), in the units of ``NetworkRows``."""
    result, row = solve_feeder(plant, s, stage, out), np.arange(len(stage))
    assert plant.flow is not None
    dead = plant.flow.dead_bus[s.fault[row, stage]]
    drop = np.where(dead, 0.0, 1.0 - result.v_pu**2)
    values = np.empty((len(stage), len(plant.rows.name)))
    for r, name in enumerate(plant.rows.name):
        kind, _, index = name.rpartition("_")
        k = int(index)
        if kind == "connection":
            values[:, r] = out.import_kw[:, k]
        elif kind == "voltage":
            values[:, r] = drop[:, k] / plant.rows.scale[r]
        else:
            values[:, r] = (result.flow_kw if kind == "line_p" else result.flow_kvar)[:, k]
    return values


def reprice(plant: Plant, s: Scenario, stage: IntArray, out: Outcome, live: IntArray) -> None:
    """Replace the violation term of the stage just played by the sweep's, in place, for rows ``live``."""
    p, rows = plant.params, plant.rows
    values = row_values(plant, s, stage, out)
    beyond = (np.maximum(values - rows.high, 0.0) + np.maximum(rows.low - values, 0.0)).sum(1)
    k, weight = model.VIOLATION, model.term_weights(p.cost)[model.VIOLATION]
    cost = model.unit_prices(p.cost)[k] * beyond * p.dt_h
    change = (cost - out.cost_usd[:, k]) * weight
    out.violation_kw[live], out.cost_usd[live, k] = beyond[live], cost[live]
    out.total_usd[live] += change[live]
    out.reward[live] -= change[live] * p.reward_scale
