"""Rules of thumb. Each reads the ``View`` only, so none can peek."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray
from qevgrid.envs.v2g.core import View


def needed_kwh(view: View) -> FloatArray:
    """Energy missing to each vehicle's target, (B, N)."""
    return np.where(view.plugged, np.maximum(view.target_kwh - view.energy_kwh, 0.0), 0.0)


def laxity_h(view: View) -> FloatArray:
    """Hours that charging could still be put off, (B, N); infinite without a vehicle."""
    p = view.plant.params
    left_h = (view.declared - view.stage[:, None]) * p.dt_h
    power = np.maximum(p.charger.eta_charge * view.charge_kw, 1e-9)
    return np.where(view.plugged, left_h - needed_kwh(view) / power, np.inf)


def wish(view: View, power_kw: FloatArray) -> FloatArray:
    """Action for signed powers, (B, N) -> (B, N)."""
    limit = np.where(power_kw > 0, view.charge_kw, view.discharge_kw)
    return np.clip(power_kw / np.maximum(limit, 1e-9), -1.0, 1.0)


def cheapest_now(view: View, margin: float = 1.0) -> BoolArray:
    """Whether now is among the cheapest stages that a vehicle's need takes, (B, N)."""
    p = view.plant.params
    price = view.forecast(p.n_stages).buy_usd_kwh  # (B, H)
    left = np.maximum(view.declared - view.stage[:, None], 1)
    stages = np.ceil(margin * needed_kwh(view) / np.maximum(p.charger.eta_charge * view.charge_kw * p.dt_h, 1e-9))
    cheaper = price[:, None, :] < price[:, None, :1]
    ahead = np.arange(price.shape[1]) < left[..., None]
    return view.plugged & ((cheaper & ahead).sum(-1) < stages)


def serve_outage(view: View, power_kw: FloatArray, hours_h: float) -> FloatArray:
    """Replace the wishes at dark sites: carry critical load, other load as far as the energy lasts ``hours_h``."""
    p, plant = view.plant.params, view.plant
    now = view.forecast(1)
    result = power_kw.copy()
    for d in range(plant.n_sites):
        mine = plant.site == d
        energy = np.where(view.plugged, view.energy_kwh - view.floor_kwh, 0.0)[:, mine] * p.charger.eta_discharge
        most = np.minimum(view.discharge_kw[:, mine], energy / p.dt_h)
        own = now.pv_kw[:, 0, d] + p.site.per_site("generator_kw")[d]
        critical = np.maximum(now.critical_kw[:, 0, d] - own, 0.0)
        spare = np.maximum(energy.sum(1) / hours_h - critical, 0.0)
        other = np.minimum(now.other_kw[:, 0, d], spare)
        block = now.other_kw[:, 0, d] / p.site.other_blocks
        target = critical + np.floor(other / np.maximum(block, 1e-9) + 1e-9) * block
        share = np.minimum(target / np.maximum(most.sum(1), 1e-9), 1.0)
        result[:, mine] = np.where(view.outage[:, d, None], -most * share[:, None], result[:, mine])
    return result


@dataclass
class Idle(Agent):
    """The naive controller, score 0: charge at full power on arrival until the target, never discharge."""

    name: str = "idle"

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Full power until the target."""
        return (needed_kwh(info["view"]) > 0).astype(float)


@dataclass
class Cheap(Agent):
    """Charge in the cheapest stages of the stay that suffice, at the latest when time runs out."""

    name: str = "cheap"
    margin: float = 1.2
    laxity_h: float = 4.0

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Full power in the cheapest stages, and where time runs out."""
        view = info["view"]
        must = (laxity_h(view) <= self.laxity_h) & (needed_kwh(view) > 0)
        return (cheapest_now(view, self.margin) | must).astype(float)


@dataclass
class LeastLaxityFirst(Agent):
    """Within a share of each site's free connection, charge those that can wait least (ACN's LLF)."""

    name: str = "llf"
    connection_share: float = 0.85

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Full power for the most urgent vehicles that the connection carries."""
        view = info["view"]
        plant, now = view.plant, view.forecast(1)
        action = np.zeros(view.plugged.shape)
        for d in range(plant.n_sites):
            mine = np.flatnonzero(plant.site == d)
            load = now.critical_kw[:, 0, d] + now.other_kw[:, 0, d] - now.pv_kw[:, 0, d]
            free = self.connection_share * np.maximum(plant.params.site.per_site("connection_kw")[d] - load, 0.0)
            lax = laxity_h(view)[:, mine]
            power = np.where(needed_kwh(view)[:, mine] > 0, view.charge_kw[:, mine], 0.0)
            order = np.argsort(lax, axis=1, kind="stable")
            used = np.cumsum(np.take_along_axis(power, order, 1), 1)
            fits = np.empty(power.shape, bool)
            np.put_along_axis(fits, order, used <= free[:, None], 1)
            must = (lax <= 0.0) & (power > 0)
            action[:, mine] = ((fits & (power > 0)) | must).astype(float)
        return action


@dataclass
class ChargeAndServe(Agent):
    """Charge at once to ``soc``, and carry the site's load in an outage."""

    name: str = "serve"
    soc: float = 0.63
    hours_h: float = 2.3

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Full power up to the state of charge aimed at; discharge in an outage."""
        view = info["view"]
        goal = np.maximum(view.target_kwh, self.soc * view.capacity_kwh)
        power = np.where(view.plugged & (view.energy_kwh < goal), view.charge_kw, 0.0)
        return wish(view, serve_outage(view, power, self.hours_h))


@dataclass
class TimeOfUse(Agent):
    """Arbitrage on the forecast price above a SoC floor that rises with the published risk.

    Charge where the price is in the lowest ``low`` quantile of the next day, discharge in the
    highest ``high``, keep ``floor + floor_risk * risk`` of the battery and time to reach the target.
    The numbers are tuned by ``benchmarks/tune_rivals.py`` on days of their own.
    """

    name: str = "tou"
    low: float = 0.39
    high: float = 0.99
    floor: float = 0.41
    floor_risk: float = 1.07
    laxity_h: float = 5.0
    hours_h: float = 2.3
    soc: float = 0.26

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Buy low, sell high above the floor; discharge in an outage."""
        view = info["view"]
        price = view.forecast(round(24 / view.plant.params.dt_h)).buy_usd_kwh
        low, high = np.quantile(price, [self.low, self.high], axis=1)
        now = price[:, 0]
        keep = np.minimum(self.floor + self.floor_risk * view.risk, 0.95)[:, None] * view.capacity_kwh
        lax, need = laxity_h(view), needed_kwh(view)
        full = np.maximum(view.target_kwh, self.soc * view.capacity_kwh)
        charge = (now <= low)[:, None] & (view.energy_kwh < full)
        charge |= (view.energy_kwh < keep) & (view.risk >= 0.25)[:, None]
        must = (lax <= self.laxity_h) & (need > 0)
        sell = (now >= high)[:, None] & (view.energy_kwh > keep) & (lax > self.laxity_h + 0.5)
        power = np.where(
            view.plugged & (charge | must), view.charge_kw, np.where(view.plugged & sell, -view.discharge_kw, 0.0)
        )
        return wish(view, serve_outage(view, power, self.hours_h))
