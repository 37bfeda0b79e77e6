"""What the critic reads: the fleet as a whole and each vehicle, on scales that do not depend on the fleet's size."""

import numpy as np

from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast

FLEET = (
    "clock_sin", "clock_cos", "price", "price_4h", "price_8h", "price_least_12h", "price_most_12h", "headroom",
    "headroom_8h", "spare", "need", "plugged", "left", "tightness",
)  # fmt: skip
VEHICLE = ("soc", "need", "above", "left", "pace", "laxity", "elapsed", "room", "stays", "power")
AHEAD_H = 12.0
"""The features look this far beyond the stage they describe."""
HOURS = 4.0
"""Energies are shown as hours of power: 1 = this many."""
SMALL = 1e-9


class Surroundings:
    """Prices and free connection of one episode at each lead, with their means ahead; shared by all features."""

    def __init__(self, view: View, forecast: Forecast, b: int, leads: int, clock_h: FloatArray) -> None:
        p = view.plant.params
        self.dt_h, self.per_day, self.n_stages = p.dt_h, p.n_stages // p.days, p.n_stages
        self.fleet_kw = float(view.plant.charge_kw.sum())
        self.stage = int(view.stage[b])
        load = forecast.critical_kw[b] + forecast.other_kw[b] - forecast.pv_kw[b]
        free = np.maximum(p.site.per_site("connection_kw") - load, 0.0).sum(-1)
        price = forecast.buy_usd_kwh[b]
        hour = 2 * np.pi * clock_h[(self.stage + np.arange(leads)) % self.per_day] / 24
        window = [round(h / self.dt_h) for h in (4.0, 8.0, AHEAD_H)]
        table = np.empty((leads, 9))
        table[:, 0], table[:, 1] = np.sin(hour), np.cos(hour)
        table[:, 2] = price[:leads]
        table[:, 3], table[:, 4] = _mean_ahead(price, leads, window[0]), _mean_ahead(price, leads, window[1])
        ahead = np.lib.stride_tricks.sliding_window_view(price, window[2])[:leads]
        table[:, 5], table[:, 6] = ahead.min(1), ahead.max(1)
        table[:, 7] = np.minimum(free[:leads] / self.fleet_kw, 2.0)
        table[:, 8] = np.minimum(_mean_ahead(free, leads, window[1]) / self.fleet_kw, 2.0)
        self.table = table

    def rows(self, lead: IntArray, spare_kwh: FloatArray, need_kwh: FloatArray, power_kw: FloatArray) -> FloatArray:
        """Fleet features (K, len(FLEET)) at the stages ``lead`` ahead, for fleets in these states, (K,) each."""
        hours = HOURS * self.fleet_kw
        out = np.empty((len(lead), len(FLEET)))
        out[:, :9] = self.table[lead]
        out[:, 9] = spare_kwh / hours
        out[:, 10] = need_kwh / hours
        out[:, 11] = power_kw / self.fleet_kw
        out[:, 12] = (self.n_stages - self.stage - lead) / self.per_day
        out[:, 13] = np.minimum(need_kwh / (out[:, 8] * self.fleet_kw * 8.0 + SMALL), 3.0)
        return out


def horizon(params_dt_h: float, leads: int) -> int:
    """Stages of forecast that ``Surroundings`` needs."""
    return leads + round(AHEAD_H / params_dt_h)


def vehicle_rows(view: View, b: int, socket: IntArray, energy_kwh: FloatArray, stages: int = 0) -> FloatArray:
    """Vehicle features (V, len(VEHICLE)) of ``socket`` (V,) with ``energy_kwh`` (V,), ``stages`` from now."""
    p = view.plant.params
    power = np.maximum(view.charge_kw[b, socket], SMALL)
    target, cap, floor = view.target_kwh[b, socket], view.capacity_kwh[b, socket], view.floor_kwh[b, socket]
    now = view.stage[b] + stages
    left_h = np.maximum(view.declared[b, socket] - now, 0) * p.dt_h
    stay = np.maximum(view.declared[b, socket] - view.arrival[b, socket], 1)
    need = np.maximum(target - energy_kwh, 0.0)
    hours = HOURS * power
    need_h = need / (p.charger.eta_charge * power)
    out = np.empty((len(socket), len(VEHICLE)))
    out[:, 0] = (energy_kwh - floor) / np.maximum(cap - floor, SMALL)
    out[:, 1] = need / hours
    out[:, 2] = np.minimum(np.maximum(energy_kwh - target, 0.0) / hours, 2.0)
    out[:, 3] = np.minimum(left_h / 24.0, 1.0)
    out[:, 4] = np.minimum(need_h / np.maximum(left_h, p.dt_h), 2.0)
    out[:, 5] = np.clip((left_h - need_h) / 12.0, -1.0, 1.5)
    out[:, 6] = (now - view.arrival[b, socket]) / stay
    out[:, 7] = (cap - energy_kwh) / hours
    out[:, 8] = view.declared[b, socket] > p.n_stages
    out[:, 9] = power / view.plant.charge_kw.max()
    return out


def fleet_state(view: View, b: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Dischargeable energy, energy missing to the targets (kWh) and charging power (kW) of the vehicles present."""
    here = view.plugged[b]
    spare = np.where(here, view.energy_kwh[b] - view.floor_kwh[b], 0.0).sum()
    need = np.where(here, np.maximum(view.target_kwh[b] - view.energy_kwh[b], 0.0), 0.0).sum()
    return spare, need, np.where(here, view.charge_kw[b], 0.0).sum()


def _mean_ahead(x: FloatArray, leads: int, window: int) -> FloatArray:
    """Mean over the ``window`` stages from each lead on, (leads,)."""
    total = np.concatenate([[0.0], np.cumsum(x)])
    return (total[window : window + leads] - total[:leads]) / window
