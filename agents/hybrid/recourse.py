"""What stored energy is worth through an outage of unknown length: the published risk, priced.

While a site is dark its vehicles carry critical load first, other load second. For each length that
the outage may have, a kWh at fleet level E saves critical load if E falls short of all critical
load, other load if it falls short of the rest, and else is worth what the critic says once supply
is back. The mean over the lengths is the marginal worth v(E).
"""

import numpy as np
from numba import njit

from qevgrid.envs.types import FloatArray, IntArray


@njit(cache=True)
def _exit_value(value: FloatArray, spare_kwh: FloatArray, at: int, left_kwh: float) -> float:
    """Critic's table (L, K) at lead ``at``, linear in the spare energy (L, K rising)."""
    row = min(at, len(value) - 1)
    grid, worth = spare_kwh[row], value[row]
    if left_kwh <= grid[0]:
        return worth[0]
    for k in range(1, len(grid)):
        if left_kwh <= grid[k]:
            share = (left_kwh - grid[k - 1]) / max(grid[k] - grid[k - 1], 1e-9)
            return worth[k - 1] + share * (worth[k] - worth[k - 1])
    return worth[-1]


@njit(cache=True)
def outage_value(
    energy_kwh: FloatArray,
    starts: IntArray,
    chance: FloatArray,
    ends: FloatArray,
    critical_kwh: FloatArray,
    other_kwh: FloatArray,
    coming_kwh: FloatArray,
    leaving_kwh: FloatArray,
    planned_kwh: FloatArray,
    exit_value: FloatArray,
    exit_spare: FloatArray,
    critical_usd: float,
    other_usd: float,
    eta: float,
) -> FloatArray:
    """Mean marginal worth (J,), USD/kWh at the grid side, of the fleet's usable energy ``energy_kwh`` (J,) now.

    ``starts`` (S,) leads at which the outage may begin with ``chance`` (S,); ``ends`` (L,) chance of each
    length in stages. By lead (L,), kWh at the grid side: what critical and other load take, what arrives,
    what leaves if nothing is drawn, what the controller charges until the start. Vehicles about to leave
    carry the load first, so only what the load has not taken by then is lost with them. ``exit_*`` (L, K):
    the critic's worth of battery energy. The result is divided by the sum of ``chance``.
    """
    worth = np.zeros(len(energy_kwh))
    weight = 0.0
    last = len(critical_kwh)
    for k in range(len(starts)):
        s = starts[k]
        weight += chance[k]
        before = 0.0
        for h in range(min(s, last)):
            before += coming_kwh[h] - leaving_kwh[h] + planned_kwh[h]
        for j in range(len(energy_kwh)):
            supply = max(energy_kwh[j] + before, 0.0)
            gone, critical, both, lost, lost_all = 0.0, 0.0, 0.0, 0.0, 0.0
            for d in range(len(ends)):
                h = min(s + d, last - 1)
                critical += critical_kwh[h]
                both += critical_kwh[h] + other_kwh[h]
                supply += coming_kwh[h]
                gone += leaving_kwh[h]
                lost = max(lost, gone - critical)
                lost_all = max(lost_all, gone - both)
                if ends[d] <= 0.0:
                    continue
                if supply - lost < critical:
                    value = critical_usd
                elif supply - lost_all < both:
                    value = other_usd
                else:
                    value = _exit_value(exit_value, exit_spare, h, (supply - lost_all - both) / eta) / eta
                worth[j] += chance[k] * ends[d] * value
    return worth / max(weight, 1e-12)
