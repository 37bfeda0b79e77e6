"""Greedy dispatch: each idle unit to where most is lost for each hour of the way; to a hub when empty."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.simple import stay
from qevgrid.envs.mobile_csp.arrays import STAY, SUPPLIED, UNREACHABLE, Action
from qevgrid.envs.mobile_csp.core import View
from qevgrid.envs.mobile_csp.simulate import episode, voll_order
from qevgrid.envs.types import Float32Array


@dataclass
class Greedy(Agent):
    """Value of the unserved critical load that a unit could carry, per hour of travel to the power ``exponent``.

    ``full``: state of charge (above the floor) at which a unit leaves a hub. ``empty``: at which it goes back to
    one. ``delay_h`` is added to every trip. ``keep`` multiplies the worth of the place where a unit is. Sites
    below ``least_usd_kwh`` are not served.
    """

    name: str = "greedy"
    full: float = 0.95
    empty: float = 0.05
    delay_h: float = 0.5
    exponent: float = 1.0
    keep: float = 1.0
    least_usd_kwh: float = 0.0

    def act(self, obs: Float32Array, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """Idle units choose in the order of their energy."""
        view: View = info["view"]
        action, order, world = stay(view), voll_order(view.sites), view.forecast()
        numbers = (self.full, self.empty, self.delay_h, self.exponent, self.keep, self.least_usd_kwh)
        for b, t in enumerate(view.stage):
            if 0 <= t < view.plant.n_periods:
                units = (view.units.site[b], view.units.arrival[b], view.units.energy_kwh[b])
                fixed = (view.fleet, view.sites, order, view.tariff.dt_h, numbers)
                _dispatch(episode(world, b), t, *units, *fixed, action.site[b])
        return action


TUNED = {
    "full": 0.753,
    "empty": 0.093,
    "delay_h": 5.213,
    "exponent": 0.958,
    "keep": 6.337,
    "least_usd_kwh": 34.091,
}
"""Found on the base world by ``python benchmarks/tune_mobile_csp.py --trials 120 --storms 40``."""


def tuned() -> Greedy:
    """The greedy rule with the numbers that were best on training storms."""
    return Greedy("tuned", **TUNED)


@njit(cache=True)
def _dispatch(
    world: Any,
    t: int,
    site: Any,
    arrival: Any,
    energy: Any,
    fleet: Any,
    sites: Any,
    order: Any,
    dt_h: float,
    numbers: Any,
    out: Any,
) -> None:  # pragma: no cover
    """Write where each idle unit shall go."""
    full, empty, delay_h, exponent, keep, least = numbers
    bound = np.zeros(len(sites.slots), np.int64)
    power = np.zeros(len(sites.slots))
    span = fleet.capacity_kwh - fleet.floor_kwh
    for i in range(len(site)):
        if arrival[i] > t:
            _join(bound, power, site[i], (energy[i] - fleet.floor_kwh) / span > empty, fleet)
    for i in np.argsort(-energy, kind="mergesort"):
        if arrival[i] > t:
            continue
        here, soc = site[i], (energy[i] - fleet.floor_kwh) / span
        hub = world.charge_limit_kw[t, here] > 0.0
        to = here
        if not (hub and soc < full):
            if soc <= empty and not hub:
                to = _hub(world, t, here, bound, sites)
            else:
                to = _target(world, t, here, bound, power, fleet, sites, order, dt_h, delay_h, exponent, keep, least)
        _join(bound, power, to, soc > empty, fleet)
        out[i] = to if to != here else STAY


@njit(cache=True)
def _join(bound: Any, power: Any, d: int, serves: bool, fleet: Any) -> None:  # pragma: no cover
    """Count a unit at the site that it is at or goes to."""
    bound[d] += 1
    if serves:
        power[d] += fleet.power_kw


@njit(cache=True)
def _hub(world: Any, t: int, here: int, bound: Any, sites: Any) -> int:  # pragma: no cover
    """The nearest site with charging and a free slot, or stay."""
    best, to = UNREACHABLE, here
    for d in range(len(bound)):
        if world.charge_limit_kw[t, d] > 0.0 and bound[d] < sites.slots[d] and world.travel[t, here, d] < best:
            best, to = int(world.travel[t, here, d]), d
    return to


@njit(cache=True)
def _target(
    world: Any,
    t: int,
    here: int,
    bound: Any,
    power: Any,
    fleet: Any,
    sites: Any,
    order: Any,
    dt_h: float,
    delay_h: float,
    exponent: float,
    keep: float,
    least: float,
) -> int:  # pragma: no cover
    """The site where most value is lost for each hour of the way, or stay."""
    best, to = 0.0, here
    for d in range(len(bound)):
        periods = world.travel[t, here, d]
        if world.island[t, d] == SUPPLIED or periods >= UNREACHABLE or bound[d] >= sites.slots[d]:
            continue
        score = _lost_usd_h(world, t, d, power, fleet, sites, order, least)
        score /= (periods * dt_h + delay_h) ** exponent
        if d == here:
            score *= keep
        if score > best:
            best, to = score, d
    return to


@njit(cache=True)
def _lost_usd_h(
    world: Any, t: int, d: int, power: Any, fleet: Any, sites: Any, order: Any, least: float
) -> float:  # pragma: no cover
    """What one more unit would save in an hour in the island of ``d``."""
    island, supply, left, usd = world.island[t, d], 0.0, fleet.power_kw, 0.0
    for e in range(len(order)):
        if world.island[t, e] == island:
            supply += world.pv_kw[t, e] + power[e]
    for e in order:
        if world.island[t, e] == island:
            covered = min(world.need_kw[t, e], supply)
            supply -= covered
            part = min(world.need_kw[t, e] - covered, left)
            if sites.voll_usd_kwh[e] >= least:
                left -= part
                usd += part * sites.voll_usd_kwh[e]
    return usd
