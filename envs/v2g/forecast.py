"""What may be known at stage t of the stages ahead. Nothing here reads a later stage's deviation."""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.model import sell_usd_kwh
from qevgrid.envs.v2g.params import OutageParams, V2GParams
from qevgrid.envs.v2g.plant import LOAD_CEILING, build_plant
from qevgrid.envs.v2g.scenario import LOAD_PHI_H, MAX_OUTAGE_H, PRICE_PHI_H, PV_PHI_H, Scenario, survival

SURVIVAL_GRID = 281


class Forecast(NamedTuple):
    """Expected values for the stages t, t+1, ..., t+H-1; column 0 is what is measured now."""

    buy_usd_kwh: FloatArray  # (B, H)
    sell_usd_kwh: FloatArray  # (B, H)
    pv_kw: FloatArray  # (B, H, D)
    critical_kw: FloatArray  # (B, H, D)
    other_kw: FloatArray  # (B, H, D)
    feeder_scale: FloatArray  # (B, H)
    outage_probability: FloatArray  # (B, H, D)


def ahead(
    profile: FloatArray, dev: FloatArray, phi_h: float, dt_h: float, stage: IntArray, leads: IntArray, period: int
) -> FloatArray:
    """Profile times the fading deviation: ``stage`` (B, K) or (K,) for all, ``leads`` (L,) -> (B, K, L).

    Beyond the end of the arrays the profile of the same clock time one day earlier stands in.
    """
    t_end = profile.shape[1]
    target = stage[..., None] + leads
    over = np.maximum(target - (t_end - 1), 0)
    target = target - -(-over // period) * period
    shared = stage.ndim == 1
    now, later = _at(dev, stage, shared)[..., None], _at(profile, target, shared)
    return later * np.exp(phi_h ** (dt_h * leads) * now)


def forecast(p: V2GParams, scenario: Scenario, stage: IntArray, horizon: int) -> Forecast:
    """Forecasts issued at ``stage`` (B,) for ``horizon`` stages."""
    leads, at = np.arange(horizon), stage[:, None]
    per_day = p.n_stages // p.days

    def look(profile: FloatArray, dev: FloatArray, phi_h: float) -> FloatArray:
        return ahead(profile, dev, phi_h, p.dt_h, at, leads, per_day)[:, 0]

    buy = look(scenario.price_profile, scenario.price_dev, PRICE_PHI_H)
    pv = np.minimum(look(scenario.pv_profile, scenario.pv_dev, PV_PHI_H), 1.0)
    critical, other = (
        np.minimum(look(profile, scenario.load_dev, LOAD_PHI_H), LOAD_CEILING)
        for profile in (scenario.critical_profile, scenario.other_profile)
    )
    return Forecast(
        buy,
        sell_usd_kwh(buy, p.sell_ratio),
        pv[..., None] * p.site.per_site("pv_kw"),
        critical[..., None] * p.site.per_site("critical_kw"),
        other[..., None] * p.site.per_site("other_kw"),
        other * p.grid.load_scale,
        outage_probability(p, scenario, at, leads)[:, 0],
    )


def outage_probability(
    p: V2GParams, scenario: Scenario, stage: IntArray, leads: IntArray, elapsed_h: FloatArray | None = None
) -> FloatArray:
    """Probability that each site has no supply; arguments as in ``ahead``, result (B, K, L, D).

    Now dark: the outage's conditional survival. Not yet: the published risk and window, with the
    start uniform in what is left of the window.
    """
    elapsed_h = outage_elapsed(scenario, p.dt_h) if elapsed_h is None else elapsed_h
    shared = stage.ndim == 1
    dark = _at(scenario.outage, stage, shared)
    hours = np.asarray(p.dt_h * leads, float)
    lasted = np.maximum(_at(elapsed_h, stage, shared) - p.dt_h / 2, 0.0)  # it began between two stages
    still = survival(p.outage, lasted[..., None, :] + hours[:, None]) / np.maximum(
        survival(p.outage, lasted)[..., None, :], 1e-12
    )
    published = (scenario.risk, scenario.window_open, scenario.window_close)
    risk, opens, closes = (_at(x, stage, shared)[..., None] for x in published)
    begin = np.maximum(opens, stage[..., None])
    span_h = np.maximum(closes - begin, 1e-9) * p.dt_h
    target_h = np.asarray((stage[..., None] + leads) * p.dt_h, float)
    latest = np.minimum(target_h, closes * p.dt_h)
    coming = _integral(p.outage, target_h - begin * p.dt_h) - _integral(p.outage, target_h - latest)
    fresh = np.clip(risk * np.where(target_h > begin * p.dt_h, coming, 0.0) / span_h, 0.0, 1.0)
    return np.where(dark[..., None, :], still, fresh[..., None] * hit_share(p))


@functools.lru_cache(maxsize=32)
def hit_share(p: V2GParams) -> FloatArray:
    """Share of the outages that leave each site without supply, (D,)."""
    dead = build_plant(p).fault_site
    wide = p.outage.feeder_wide_share
    share: FloatArray = wide + (1 - wide) * dead[dead.any(1)].mean(0)
    return share


def outage_elapsed(scenario: Scenario, dt_h: float) -> FloatArray:
    """Hours since each site lost its supply, (B, T, D); 0 where it has supply."""
    out = scenario.outage
    t = np.arange(out.shape[1])[None, :, None]
    last_on = np.maximum.accumulate(np.where(out, -1, t), axis=1)
    return np.where(out, (t - last_on) * dt_h, 0.0)


def dark_h(outage: BoolArray, stage: IntArray, dt_h: float) -> FloatArray:
    """Hours (B, D) that each site has had no supply at ``stage`` (B,): on average it began between two stages."""
    hours = np.zeros(outage[:, 0].shape)
    for b, d in zip(*np.nonzero(outage[np.arange(len(stage)), stage]), strict=True):
        past = outage[b, : stage[b] + 1, d][::-1]
        stages = len(past) if past.all() else int(np.argmin(past))
        hours[b, d] = (stages - 0.5) * dt_h
    return hours


def _at(x: NDArray[Any], stage: IntArray, shared: bool) -> NDArray[Any]:
    """``x`` (B, T, ...) at ``stage`` (B, ...), or (...) ``shared`` by all rows; the last stage stands for the end."""
    index = np.minimum(stage, x.shape[1] - 1)
    row = slice(None) if shared else np.arange(len(x)).reshape(-1, *[1] * (index.ndim - 1))
    return x[row, index]


def _integral(o: OutageParams, hours_h: FloatArray) -> FloatArray:
    """Integral of the survival function from 0 to ``hours_h``."""
    return np.interp(np.maximum(hours_h, 0.0), *_integral_grid(o.median_h, o.sigma))


@functools.lru_cache(maxsize=64)
def _integral_grid(median_h: float, sigma: float) -> tuple[FloatArray, FloatArray]:
    """Hours and the integral up to them."""
    grid = np.linspace(0.0, MAX_OUTAGE_H, SURVIVAL_GRID)
    value = survival(OutageParams(median_h=median_h, sigma=sigma), grid)
    return grid, np.concatenate([[0.0], np.cumsum((value[1:] + value[:-1]) / 2 * (grid[1] - grid[0]))])
