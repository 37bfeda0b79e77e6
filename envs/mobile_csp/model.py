"""The physics and the costs of mobile units, each formula once, as plain arithmetic.

The step kernel compiles these functions; the planner's dynamic program and the linear program take their
coefficients from them. Numbers in brackets are the equations of the review; departures from the print are in
docs/mobile_csp.md.
"""

from typing import Any, Final

from numba.extending import register_jitable

COST_TERMS: Final = ("unserved", "generator", "wear", "transport", "energy", "terminal", "service")
"""Names of the cost terms of (18), in the order of every cost array."""
UNSERVED, GENERATOR, WEAR, TRANSPORT, ENERGY, TERMINAL, SERVICE = range(7)


@register_jitable
def energy_next_kwh(
    energy_kwh: Any, charge_kw: Any, discharge_kw: Any, dt_h: float, eta_charge: float, eta_discharge: float
) -> Any:
    """Battery energy after one period, (4) with the period's length."""
    return energy_kwh + dt_h * (eta_charge * charge_kw - discharge_kw / eta_discharge)


@register_jitable
def charge_room_kw(energy_kwh: Any, capacity_kwh: Any, dt_h: float, eta_charge: float) -> Any:
    """Power that fills the battery within the period."""
    return (capacity_kwh - energy_kwh) / (eta_charge * dt_h)


@register_jitable
def discharge_room_kw(energy_kwh: Any, floor_kwh: Any, dt_h: float, eta_discharge: float) -> Any:
    """Power that empties the battery to its floor within the period."""
    return (energy_kwh - floor_kwh) * eta_discharge / dt_h


@register_jitable
def unserved_usd(need_kw: Any, served_kw: Any, voll_usd_kwh: Any, dt_h: float) -> Any:
    """Critical load lost (10), (18); what is served never exceeds the need."""
    return voll_usd_kwh * (need_kw - served_kw) * dt_h


@register_jitable
def wear_usd(charge_kw: Any, discharge_kw: Any, wear_usd_kwh: float, dt_h: float) -> Any:
    """Battery wear (18), on energy through the plug."""
    return wear_usd_kwh * (charge_kw + discharge_kw) * dt_h


@register_jitable
def transport_usd(periods: Any, transport_usd_h: float, dt_h: float) -> Any:
    """A trip of so many periods (18), paid at departure."""
    return transport_usd_h * periods * dt_h


@register_jitable
def energy_usd(power_kw: Any, price_usd_kwh: float, dt_h: float) -> Any:
    """Energy bought or fuel burnt in one period."""
    return price_usd_kwh * power_kw * dt_h


@register_jitable
def terminal_usd(energy_kwh: Any, floor_kwh: Any, terminal_usd_kwh: float) -> Any:
    """Minus what is left in the batteries is worth, in the last period."""
    return -terminal_usd_kwh * (energy_kwh - floor_kwh)


@register_jitable
def waiting_kwh(backlog_kwh: Any, arrivals_kwh: Any, charged_kwh: Any) -> Any:
    """What vehicles at a site still want when a period is over, before some give up."""
    return backlog_kwh + arrivals_kwh - charged_kwh


@register_jitable
def wait_usd(waiting_kwh: Any, wait_usd_kwh_h: Any, hours: float) -> Any:
    """Waiting of vehicles for so many hours."""
    return wait_usd_kwh_h * waiting_kwh * hours
