"""The physics and the costs of V2G, each formula once, as plain arithmetic.

The step kernel (``kernel.py``) compiles these functions; the optimum and the rolling plans
(``program.py``) read their coefficients off by probing; the tests evaluate them on arrays.
Powers in kW at the grid side of the charger, energies in kWh in the battery. Numbers in
brackets are the equations of the review.
"""

from typing import Any, Final

import numpy as np
from numba.extending import register_jitable

from qevgrid.envs.affine import coefficients as coefficients
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.params import CostParams

COST_TERMS: Final = (
    "energy",
    "wear",
    "unserved_critical",
    "unserved_other",
    "generator",
    "reserve",
    "violation",
    "shortfall",
    "terminal",
)
"""Names of the cost terms, in the order of every cost array."""

INTERRUPTION_TERMS: Final = ("unserved_critical", "unserved_other", "generator")
"""The terms of (10), weighted by w2 in (11); the others by w1."""

ENERGY, WEAR, UNSERVED_CRITICAL, UNSERVED_OTHER, GENERATOR, RESERVE, VIOLATION, SHORTFALL, TERMINAL = range(9)


def term_weights(cost: CostParams) -> FloatArray:
    """Weights of (11) for each term of ``COST_TERMS``, shape (9,)."""
    return np.array([cost.w2 if term in INTERRUPTION_TERMS else cost.w1 for term in COST_TERMS])


def unit_prices(cost: CostParams) -> FloatArray:
    """USD per kWh of each cost term's quantity, shape (9,). ``energy`` has the market's price instead."""
    return np.array(
        [
            1.0,
            cost.wear_usd_kwh,
            cost.voll_critical_usd_kwh,
            cost.voll_other_usd_kwh,
            cost.generator_usd_kwh,
            cost.reserve_usd_kwh,
            cost.violation_usd_kwh,
            cost.shortfall_usd_kwh,
            cost.terminal_usd_kwh,
        ]
    )


@register_jitable
def energy_next_kwh(
    energy_kwh: Any, charge_kw: Any, discharge_kw: Any, dt_h: float, eta_charge: float, eta_discharge: float
) -> Any:
    """Battery energy after one stage, (4) with the stage length that the paper leaves out."""
    return energy_kwh + dt_h * (eta_charge * charge_kw - discharge_kw / eta_discharge)


@register_jitable
def meter_kw(load_kw: Any, charge_kw: Any, discharge_kw: Any, pv_kw: Any) -> Any:
    """Net import of a site that is connected; negative = export."""
    return load_kw + charge_kw - discharge_kw - pv_kw


@register_jitable
def island_surplus_kw(charge_kw: Any, discharge_kw: Any, pv_kw: Any, generator_kw: Any, served_kw: Any) -> Any:
    """Balance of a site without supply (7): >= 0, the surplus being PV that is turned down."""
    return pv_kw + generator_kw + discharge_kw - served_kw - charge_kw


@register_jitable
def market_usd(import_kw: Any, export_kw: Any, buy_usd_kwh: Any, sell_usd_kwh: Any, dt_h: float) -> Any:
    """The bill of one stage (1), net at the meter."""
    return dt_h * (buy_usd_kwh * import_kw - sell_usd_kwh * export_kw)


@register_jitable
def throughput_kwh(charge_kw: Any, discharge_kw: Any, dt_h: float) -> Any:
    """Energy through the charger, the base of the wear cost."""
    return dt_h * (charge_kw + discharge_kw)


@register_jitable
def unserved_kwh(load_kw: Any, served_kw: Any, dt_h: float) -> Any:
    """Energy not served (10); served never exceeds the load, so oversupply earns nothing."""
    return dt_h * (load_kw - served_kw)


@register_jitable
def taper_kw(energy_kwh: Any, capacity_kwh: Any, power_kw: Any, taper_soc: float) -> Any:
    """Charging power allowed by the constant-voltage phase: linear from ``taper_soc`` to full."""
    return power_kw * (1.0 - energy_kwh / capacity_kwh) / (1.0 - taper_soc)


@register_jitable
def reserve_kw(energy_kwh: Any, floor_kwh: Any, eta_discharge: float, hours_h: float) -> Any:
    """Power that a battery could hold for ``hours_h``, before its charger's limit (7)."""
    return (energy_kwh - floor_kwh) * eta_discharge / hours_h


@register_jitable
def network_row(load_coef: Any, load_kw: Any, ev_coef: Any, ev_kw: Any, pv_coef: Any, pv_kw: Any) -> Any:
    """One site's share in a row of (9): flow P, flow Q or voltage drop."""
    return load_coef * load_kw + ev_coef * ev_kw - pv_coef * pv_kw


def sell_usd_kwh(buy_usd_kwh: FloatArray, sell_ratio: float) -> FloatArray:
    """Sell price: below the buy price by a share of its size, also where prices are negative."""
    return buy_usd_kwh - (1.0 - sell_ratio) * np.abs(buy_usd_kwh)
