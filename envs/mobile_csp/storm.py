"""From the storm to what it breaks: wind, gust, poles, lines, crews.

Wind: G. J. Holland, "An analytic model of the wind and pressure profiles in hurricanes", Monthly Weather Review
108, 1980. Poles: Quanta Technology for the Public Utility Commission of Texas, 2009, p = 1e-4 exp(0.0421 mph);
or Y. M. Darestani and A. Shafieezadeh, Engineering Structures, 2019, lognormal. Trees are in neither.
"""

import numpy as np
from numba import njit
from scipy.special import ndtr

from qevgrid.envs.mobile_csp.params import StormParams
from qevgrid.envs.types import BoolArray, FloatArray

AIR_KG_M3 = 1.15
EARTH_RAD_S = 7.292e-5
MPH_PER_MS = 2.237
DARESTANI_MPH = {30: (182.0, 0.16), 50: (165.0, 0.22), 70: (135.0, 0.34)}
"""Median and spread of the gust that breaks a pole (class 5, 12.2 m, 45 m span, wind across), by age in years."""


def gradient_ms(
    distance_km: FloatArray, pressure_hpa: FloatArray, radius_km: FloatArray, b: FloatArray, latitude_deg: float
) -> FloatArray:
    """Gradient wind at a distance from the centre, Holland (1980)."""
    metres, coriolis = distance_km * 1e3, 2 * EARTH_RAD_S * np.sin(np.radians(latitude_deg))
    x = (radius_km / distance_km) ** b
    half = metres * coriolis / 2
    return np.sqrt(b * pressure_hpa * 100.0 / AIR_KG_M3 * x * np.exp(-x) + half**2) - half


def gust_mph(p: StormParams, u: FloatArray) -> FloatArray:
    """3-s gust at the feeder from uniform numbers (B, 4): the strongest wind of the passage."""
    if p.gust_mph is not None:
        return np.full(len(u), p.gust_mph)
    low, high = np.array([p.pressure_hpa, p.radius_km, p.holland_b, p.distance_km]).T
    pressure, radius, b, distance = (low + u * (high - low)).T
    wind = gradient_ms(np.maximum(distance, radius), pressure, radius, b, p.latitude_deg)
    return (wind * p.surface_factor + p.translation_ms) * p.gust_factor * MPH_PER_MS


def pole_failure(p: StormParams, gust: FloatArray) -> FloatArray:
    """Probability that one pole fails in a gust (mph)."""
    if p.fragility == "quanta":
        rate = 1e-4 * np.exp(0.0421 * gust)
    else:
        median, beta = DARESTANI_MPH[p.pole_age_years]
        rate = ndtr(np.log(gust / median) / beta)
    return np.minimum(rate * p.vegetation, 1.0)


def line_failure(p: StormParams, gust: FloatArray, length_km: FloatArray) -> FloatArray:
    """Probability (B, L) that a line with its poles fails: one broken pole is enough."""
    poles = np.maximum(np.floor(length_km * 1000.0 / p.span_m), 1.0)
    return 1.0 - (1.0 - pole_failure(p, gust)[:, None]) ** poles


@njit(cache=True)
def mend(
    broken: BoolArray, place: FloatArray, job_h: FloatArray, crews: int, first_h: float, travel_h: float
) -> FloatArray:  # pragma: no cover - compiled
    """Hour (B, L) at which each line is mended, 0 if it never broke.

    The crew that is free first takes the broken line with the lowest ``place`` (B, L); a job takes ``job_h``.
    """
    n, lines = broken.shape
    done, free = np.zeros((n, lines)), np.empty(crews)
    for b in range(n):
        free[:] = first_h
        for line in np.argsort(place[b]):
            if broken[b, line]:
                crew = np.argmin(free)
                free[crew] += job_h[b, line] + travel_h
                done[b, line] = free[crew]
    return done
