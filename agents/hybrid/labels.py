"""Labels for the critic: what a kWh in each battery is worth once the rest of the day is known.

The duals of perfect-foresight linear programs, on a day without outage from this stage on: prices,
congestion of the connection, arrivals still to come and early departures are all in them. Outages
are not: the published risk prices them (``recourse.py``), because foresight would never insure.
"""

import numpy as np

from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.program import Outlook, V2GProgram, Vehicles
from qevgrid.envs.v2g.scenario import Scenario


def calm_truth(plant: Plant, s: Scenario, b: int, stage: int) -> Outlook:
    """What will happen in episode ``b`` from ``stage`` on, had no outage been drawn."""
    names = ("buy_usd_kwh", "sell_usd_kwh", "pv_kw", "critical_kw", "other_kw", "feeder_scale")
    known = (getattr(s, name)[b, stage:] for name in names)
    left = plant.params.n_stages - stage
    calm = (np.zeros(left, np.int64), np.zeros((left, plant.n_sites), bool), np.zeros(left, bool))
    return Outlook._make((*known, *calm))


def vehicles_from(plant: Plant, s: Scenario, b: int, stage: int, energy_kwh: FloatArray) -> tuple[Vehicles, IntArray]:
    """Those plugged in at ``stage`` with ``energy_kwh`` (N,), and those still to come; how many are here."""
    x = s.sessions
    arrival, departure = x.arrival[b], x.departure[b]
    here = (arrival <= stage) & (departure > stage)
    later = (arrival > stage) & (arrival < plant.params.n_stages)
    cells = [np.nonzero(here), np.nonzero(later)]
    socket, slot = (np.concatenate([cell[k] for cell in cells]) for k in range(2))
    n_here = len(cells[0][0])
    energy = x.energy_kwh[b][socket, slot].copy()
    energy[:n_here] = energy_kwh[socket[:n_here]]
    fields = (x.target_kwh, x.capacity_kwh, x.floor_kwh, x.limit_kw, x.stays)
    target, capacity, floor, limit, stays = (f[b][socket, slot] for f in fields)
    first = np.maximum(arrival[socket, slot] - stage, 0)
    found = Vehicles(socket, first, departure[socket, slot] - stage, energy, target, capacity, floor, limit, stays)
    return found, np.arange(n_here)


def energy_values(view: View, s: Scenario, b: int, energy_kwh: FloatArray) -> tuple[IntArray, FloatArray]:
    """Sockets with a vehicle and the worth of one more kWh in each, USD (V,)."""
    plant, stage = view.plant, int(view.stage[b])
    vehicles, here = vehicles_from(plant, s, b, stage, energy_kwh)
    program = V2GProgram(plant, calm_truth(plant, s, b, stage), vehicles, whole_stages=0)
    return vehicles.socket[here], program.energy_values()[here]
