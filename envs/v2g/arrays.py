"""What the compiled files share: how they are compiled, and the arrays that they hand on.

B episodes, N sockets, D sites, R rows of (9), F fault states, T stages, S session slots, G known
entries of the observation.
"""

from typing import Any, NamedTuple

from numba import njit

from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

# Reference counting of the arrays, and handing them from function to function, would cost more
# than the physics: the loops count no references (so they allocate nothing) and are one function.
# (_nrt is missing from numba's stubs.)
compiled: Any = njit(cache=True, error_model="numpy", _nrt=False)  # pyright: ignore[reportCallIssue]
inlined: Any = njit(cache=True, inline="always")

DT_H, ETA_CHARGE, ETA_DISCHARGE, TAPER_SOC, RESERVE_SHARE, RESERVE_RISK, RESERVE_HOURS_H = range(7)
REWARD_SCALE, PER_DAY, POWER_SCALE_KW, FLEET_KW = range(7, 11)
N_FLEET, N_SOCKET = 8, 6
"""Entries of the observation for the fleet and for each socket; ``observe.py`` names them."""
N_CONSTANTS = 11
"""Where each number stands in ``PlantArrays.constants``; ``core._constants`` fills them in."""


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
    constants: FloatArray  # (N_CONSTANTS,)
    n_critical: int
    n_other: int


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
