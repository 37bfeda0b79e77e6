"""Arrays that pass between scenario, step kernel and planner.

B episodes of T periods of ``dt_h`` hours, D sites, M units. Powers in kW at the plug, energies in kWh in the
battery. A *site* is where units connect; its number is also what a unit's choice means.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.types import FloatArray, IntArray

SUPPLIED = -1
"""Island number of a site that has the grid (or its own supply)."""
UNREACHABLE = 10_000
"""Travel periods where no road is open."""
STAY = -1
"""Instead of a site in an action: where the unit is."""
AUTO = 2.0
"""Power share that leaves the choice to the site: charge where there is supply, serve where there is none."""


NO_ARRIVALS = np.zeros((1, 1, 0, 2))
"""No site with a charging service."""


class World(NamedTuple):
    """What happens whatever the units do; the truth, or with the same shapes what is expected of it."""

    island: IntArray  # (B, T, D) sites with equal numbers share what units and PV give; SUPPLIED: units can charge
    need_kw: FloatArray  # (B, T, D) critical load without supply that no backup carries any more; 0 if supplied
    pv_kw: FloatArray  # (B, T, D) PV of sites without supply, before it is used; 0 if supplied
    generator_kw: FloatArray  # (B, T, D) critical load that a backup generator carries (already outside need_kw)
    charge_limit_kw: FloatArray  # (B, T, D) for all units at the site together; 0 without supply
    travel: NDArray[np.int16]  # (B, T, D, D) periods from departure at t until connected; 0 to itself, or UNREACHABLE
    arrivals_kwh: FloatArray = NO_ARRIVALS  # (B, T, E, 2) wanted by vehicles that arrive, in the order of Service


class Fleet(NamedTuple):
    """M equal units."""

    n_units: int
    capacity_kwh: float
    floor_kwh: float
    power_kw: float
    eta_charge: float
    eta_discharge: float


class Sites(NamedTuple):
    """What a planner must know of the sites."""

    voll_usd_kwh: FloatArray  # (D,) value of lost load
    slots: IntArray  # (D,) units connected at once (19)


class Tariff(NamedTuple):
    """Prices of (18)."""

    dt_h: float
    transport_usd_h: float
    wear_usd_kwh: float
    energy_usd_kwh: float
    generator_usd_kwh: float
    terminal_usd_kwh: float  # of energy above the floor at the horizon


class Service(NamedTuple):
    """Charging of vehicles at E of the sites; kinds: response vehicles, then stranded ones. E = 0: there is none."""

    site: IntArray  # (E,)
    power_kw: float  # of all chargers of a site together
    keep: float  # share of those waiting that is still there a period later
    wait_usd_kwh_h: FloatArray  # (2,)
    end_wait_h: float  # who waits at the end is counted so much longer
    mean_kwh: FloatArray  # (2,) arrivals of a period to be expected at a site


NO_SERVICE = Service(np.zeros(0, np.int64), 0.0, 1.0, np.zeros(2), 0.0, np.zeros(2))


class Units(NamedTuple):
    """Where the units are. B episodes, M units."""

    site: IntArray  # (B, M) where a unit is, or where it is going
    arrival: IntArray  # (B, M) first period in which it is connected there; beyond the present: under way
    energy_kwh: FloatArray  # (B, M)


class Action(NamedTuple):
    """What the units shall do in one period. Those under way go on whatever is said."""

    site: IntArray  # (B, M) go there; where the unit is, or STAY: stay
    share: FloatArray  # (B, M) of its power if it stays: > 0 discharge, < 0 charge, AUTO
