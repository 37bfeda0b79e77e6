"""Waiting vehicles as a planner sees them: a need of their island behind all critical ones, kWh and USD by period.

An approximation, judged by the step kernel: who waits does not become fewer by what a unit does. To make up for that
a unit finds of those who wait only the share that it would meet in each period if it stayed.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, Service, World
from qevgrid.envs.types import FloatArray

STAY_H = 6.0
"""Those who wait are met over so many hours. Chosen among 0.5 to 1000 on storms of ``full``; 4 to 8 are about alike."""


class Vehicles(NamedTuple):
    """T periods, E sites with chargers, kinds as in ``Service``."""

    need_kwh: FloatArray  # (T, E, 2) that a unit may serve; 0 with supply
    saved_usd_kwh: FloatArray  # (T, E, 2) waiting that it saves by that


NO_VEHICLES = Vehicles(np.zeros((0, 0, 2)), np.zeros((0, 0, 2)))


def vehicles(world: World, stage: int, service: Service, backlog_kwh: FloatArray, dt_h: float) -> Vehicles:
    """What may be served and saved from ``stage`` on in the single episode ``world``; ``backlog_kwh`` (1, E, 2)."""
    if not len(service.site):
        return NO_VEHICLES
    found = Vehicles(np.zeros(world.arrivals_kwh.shape), np.zeros(world.arrivals_kwh.shape))
    _saved(world, stage, service, dt_h, found.saved_usd_kwh)
    _needs(world, stage, service, dt_h, min(dt_h / STAY_H, 1.0), backlog_kwh[0].copy(), found.need_kwh)
    return found


@njit(cache=True)
def _saved(world: Any, stage: int, service: Any, dt_h: float, saved: Any) -> None:  # pragma: no cover
    """Waiting until there is supply, or to the end; who is likely to give up counts less and less."""
    for e in range(len(service.site)):
        d = service.site[e]
        for kind in range(2):
            usd_h = service.wait_usd_kwh_h[kind]
            later = model.wait_usd(1.0, usd_h, service.end_wait_h)
            for t in range(len(saved) - 1, stage - 1, -1):
                later = model.wait_usd(1.0, usd_h, dt_h) + service.keep * later
                if world.island[t, d] == SUPPLIED and world.charge_limit_kw[t, d] > 0.0:
                    later = 0.0
                saved[t, e, kind] = later


@njit(cache=True)
def _needs(
    world: Any, stage: int, service: Any, dt_h: float, share: float, queue: Any, need: Any
) -> None:  # pragma: no cover
    """What waits if no unit serves it, and the part of it that a unit meets."""
    for t in range(stage, len(need)):
        for e in range(len(service.site)):
            d = service.site[e]
            supplied = world.island[t, d] == SUPPLIED
            plugs = service.power_kw * dt_h
            room = world.charge_limit_kw[t, d] * dt_h
            for kind in range(2):
                arrived, charged = world.arrivals_kwh[t, e, kind], 0.0
                if supplied:
                    charged = min(queue[e, kind] + arrived, min(plugs, room))
                    plugs, room = plugs - charged, room - charged
                else:
                    need[t, e, kind] = min(share * queue[e, kind] + arrived, plugs)
                    plugs -= need[t, e, kind]
                queue[e, kind] = model.waiting_kwh(queue[e, kind], arrived, charged) * service.keep
