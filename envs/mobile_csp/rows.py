"""What the programs share: prices read off the model, and the rows that couple the units."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.affine import coefficients
from qevgrid.envs.mobile_csp import model
from qevgrid.envs.mobile_csp.arrays import Fleet, Tariff
from qevgrid.envs.mobile_csp.respond import Problem
from qevgrid.envs.types import FloatArray, IntArray


class Rates(NamedTuple):
    """USD and kWh for each kW and period, read off the model."""

    charged_kwh: float  # in the battery
    discharged_kwh: float  # out of the battery
    charge_usd: float
    discharge_usd: float
    terminal_usd_kwh: float
    served_usd: FloatArray  # (D,)


def rates(p: Problem) -> Rates:
    """Coefficients of ``model`` for this problem."""
    return _rates(p.fleet, p.tariff, tuple(p.sites.voll_usd_kwh.tolist()))


@lru_cache(64)
def _rates(fleet: Fleet, tariff: Tariff, voll_usd_kwh: tuple[float, ...]) -> Rates:
    fixed = {"dt_h": tariff.dt_h, "eta_charge": fleet.eta_charge, "eta_discharge": fleet.eta_discharge}
    up, down = coefficients(model.energy_next_kwh, "charge_kw", "discharge_kw", energy_kwh=0.0, **fixed)
    worn = coefficients(model.wear_usd, "charge_kw", "discharge_kw", wear_usd_kwh=tariff.wear_usd_kwh, dt_h=tariff.dt_h)
    (bought,) = coefficients(model.energy_usd, "power_kw", price_usd_kwh=tariff.energy_usd_kwh, dt_h=tariff.dt_h)
    (left,) = coefficients(model.terminal_usd, "energy_kwh", floor_kwh=0.0, terminal_usd_kwh=tariff.terminal_usd_kwh)
    (saved,) = coefficients(
        model.unserved_usd, "served_kw", need_kw=0.0, voll_usd_kwh=np.array(voll_usd_kwh), dt_h=tariff.dt_h
    )
    return Rates(up, -down, worn[0] + bought, worn[1], left, saved)


def idle_usd(p: Problem) -> float:
    """Cost from the present on that no unit can change, if all need stays unserved."""
    need, fuel = p.world.need_kw[p.stage :], p.world.generator_kw[p.stage :]
    lost = model.unserved_usd(need, 0.0, p.sites.voll_usd_kwh, p.tariff.dt_h)
    return float(lost.sum() + model.energy_usd(fuel, p.tariff.generator_usd_kwh, p.tariff.dt_h).sum())


def island_numbers(p: Problem) -> IntArray:
    """(T, D): a number of its own for each island of each period, -1 with supply or before the present."""
    number = np.full(p.world.island.shape, -1)
    _number(p.world.island, p.stage, number)
    return number


@njit(cache=True)
def _number(island: Any, stage: int, number: Any) -> None:  # pragma: no cover
    """Count islands by period, then by their own number."""
    n_periods, n_sites = number.shape
    count = 0
    for t in range(stage, n_periods):
        for label in range(n_sites):
            found = False
            for d in range(n_sites):
                if island[t, d] == label:
                    number[t, d] = count
                    found = True
            count += found


class Limits(NamedTuple):
    """Right-hand sides of the rows that couple units."""

    number: IntArray  # (T, D) island, -1 with supply
    need_kw: FloatArray  # (T, D)
    pv_kw: FloatArray  # (G,)
    beside_kw: FloatArray  # (T, D) a
    unit_kw: FloatArray  # (T, D) what each unit adds
    most_kw: FloatArray  # (G,) that all units together can be of use for


def limits(p: Problem) -> Limits:
    """The rows of one problem."""
    number = island_numbers(p)
    inside = number >= 0
    size = int(number.max()) + 1
    need = np.where(inside, p.world.need_kw, 0.0)
    sums: Any = (np.bincount(number[inside], weights=x[inside], minlength=size) for x in (p.world.pv_kw, need))
    pv, total = sums
    beside = np.where(inside, np.minimum(pv[number] if size else 0.0, need), 0.0)
    return Limits(number, need, pv, beside, np.minimum(need - beside, p.fleet.power_kw), np.maximum(total - pv, 0.0))
