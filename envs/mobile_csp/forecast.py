"""What may be known at a period of the periods ahead. Nothing here lets a later fact shine through.

Known at period t: all of the past; the present islands, needs, PV, roads and charging room; hours of backup used;
for everything still broken an estimate of when it is back (true remaining time times a lognormal error that
wanders, so that it shrinks as the repair nears and tells nothing by its changes); loads and PV as last measured.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp.arrays import World
from qevgrid.envs.mobile_csp.plant import Plant
from qevgrid.envs.mobile_csp.scenario import Sampler, Scenario
from qevgrid.envs.mobile_csp.unfold import NEVER_H, SLACK, Facts, unfold
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

BEFORE_STORM = -1
"""The stage of the decision before the storm."""


@njit(cache=True)
def estimate_h(true_h: float, now_h: float, z: float, sigma: float, dt_h: float) -> float:  # pragma: no cover
    """Hour at which something is estimated to be back; what is back is known, what is not takes a period at least."""
    if true_h <= now_h + SLACK:
        return true_h
    return now_h + max((true_h - now_h) * np.exp(sigma * z), dt_h)


def estimated_h(plant: Plant, scenario: Scenario, stage: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Hours at which lines (B, L), substation (B,) and roads (B, R) are back, as estimated at ``stage`` (B,)."""
    p, lines = plant.params, plant.feeder.n_line
    truth = np.concatenate([scenario.line_h, scenario.substation_h[:, None], scenario.road_h], 1)
    _estimate(truth, stage, scenario.estimate_z, p.repair.estimate_sigma, p.dt_h)
    return truth[:, :lines], truth[:, lines], truth[:, lines + 1 :]


@njit(cache=True)
def _estimate(
    truth: FloatArray, stage: IntArray, z: Float32Array, sigma: float, dt_h: float
) -> None:  # pragma: no cover - compiled
    """Put estimates in the place of the truth (B, L + 1 + R)."""
    for b in range(truth.shape[0]):
        for k in range(truth.shape[1]):
            truth[b, k] = estimate_h(truth[b, k], stage[b] * dt_h, z[b, stage[b], k], sigma, dt_h)


Outlook = Callable[[Plant, IntArray, FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray, FloatArray]]
"""Makes of the plant, the stages (B,) and the estimated hours of lines (B, L), substation (B,) and roads (B, R) others."""


def expected(plant: Plant, scenario: Scenario, stage: IntArray, outlook: Outlook | None = None) -> World:
    """The world as it may be believed at ``stage`` (B,), over all T periods; those up to the stage are as they were.

    Generators that run are believed to go on, vehicles to arrive at their mean rate. Before the storm
    (``BEFORE_STORM``) nothing of the damage is known: the belief is one storm of the forecast gust, always drawn
    alike. At the end (stage T) all is past. ``outlook`` puts other hours in the place of the estimates.
    """
    stage = np.asarray(stage, np.int64)
    world = World._make(x.copy() for x in scenario.world)
    _continue(plant, world, _facts(plant, scenario, stage, outlook=outlook), stage)
    _arrive(world, plant.service.mean_kwh, stage)
    return world


def scenarios(
    plant: Plant, scenario: Scenario, stage: IntArray, n: int, rng: np.random.Generator, outlook: Outlook | None = None
) -> World:
    """``n`` worlds a row, any of which may come true for who knows what ``expected`` knows: (B * n, T, ...).

    Row b has the worlds b * n to b * n + n - 1. Remaining times are the estimates times a fresh lognormal error,
    generators fail at their rate, loads and clearness scatter around what is expected, vehicles arrive at theirs.
    ``outlook`` puts other hours in the place of the estimates.
    """
    stage = np.repeat(np.asarray(stage, np.int64), n)
    world = World._make(np.repeat(x, n, 0) for x in scenario.world)
    many = Scenario._make((*(np.repeat(x, n, 0) for x in scenario[:-1]), world))
    _continue(plant, world, _scattered(plant, _facts(plant, many, stage, rng, outlook), stage, rng), stage)
    if len(plant.service.site):
        sampler = Sampler(plant)
        arrivals: Any = sampler.vehicles(rng, len(stage), plant.n_periods) * sampler.vehicle_kwh
        _arrive(world, arrivals, stage)
    return world


def _arrive(world: World, arrivals_kwh: FloatArray, stage: IntArray) -> None:
    """Put arrivals (or one of each kind for all) in the place of those after ``stage`` (B,)."""
    later = np.arange(world.arrivals_kwh.shape[1]) > stage[:, None]
    np.copyto(world.arrivals_kwh, arrivals_kwh, where=later[..., None, None])


def _continue(plant: Plant, world: World, facts: Facts, stage: IntArray) -> None:
    unfold(plant.ground, plant.load_shape, facts, world, np.minimum(stage + 1, plant.n_periods))


def _facts(
    plant: Plant,
    scenario: Scenario,
    stage: IntArray,
    rng: np.random.Generator | None = None,
    outlook: Outlook | None = None,
) -> Facts:
    """What is expected at ``stage``; before the storm its damage is drawn from ``rng``, without one always alike."""
    now, before = np.clip(stage, 0, plant.n_periods - 1), stage < 0
    lines, substation, roads = estimated_h(plant, scenario, now)
    if outlook is not None:
        lines, substation, roads = outlook(plant, now, lines, substation, roads)
    failed = (scenario.generator_h <= now[:, None] * plant.params.dt_h + SLACK) & ~before[:, None]
    generator_h = np.where(failed, scenario.generator_h, NEVER_H) * plant.ground.generator
    load_kw, pv_kw = _load_kw(plant, scenario, now, before), _pv_kw(plant, scenario, now, before)
    facts = Facts(lines, substation, roads, generator_h, load_kw, pv_kw)
    if before.any():
        rng = np.random.default_rng(0) if rng is None else rng
        damage = Sampler(plant).damage(scenario.gust_mph[before], [rng] * int(before.sum()))
        for mine, drawn in zip(facts, damage, strict=False):
            mine[before] = drawn
    return facts


def _load_kw(plant: Plant, scenario: Scenario, now: IntArray, before: BoolArray) -> FloatArray:
    """Mean load times what each site is known to deviate by: its level, told from the load measured now."""
    load, row = plant.params.load, np.arange(len(now))
    mean_kw = np.maximum(plant.mean_kw, 1e-9)
    ratio = scenario.load_kw[row, now] / mean_kw[now]
    trust = load.site_sigma**2 / max(load.site_sigma**2 + load.noise_sigma**2, 1e-12)
    level = np.where((ratio > 0) & ~before[:, None], np.maximum(ratio, 1e-9) ** trust, 1.0)
    return plant.mean_kw * level[:, None]


def _pv_kw(plant: Plant, scenario: Scenario, now: IntArray, before: BoolArray) -> FloatArray:
    """Clear-sky PV times the day's clearness, told from the last period with sun."""
    a, b = plant.params.load.clearness
    mean, variance = a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))
    lit = np.where(plant.sun > 0, np.arange(plant.n_periods), -1)
    last = np.maximum.accumulate(lit)[now]
    trust = variance / (variance + plant.params.load.clearness_sigma**2)
    seen = scenario.clearness[np.arange(len(now)), last] - mean
    clearness = np.where((last >= 0) & ~before, mean + trust * seen, mean)
    return clearness[:, None, None] * (plant.sun[:, None] * plant.pv_rated_kw)


def _scattered(plant: Plant, facts: Facts, stage: IntArray, rng: np.random.Generator) -> Facts:
    """Facts that may be true when ``facts`` are expected."""
    p, now_h = plant.params, np.maximum(stage, 0)[:, None] * plant.params.dt_h
    spread = np.where(stage < 0, 0.0, p.repair.estimate_sigma)[:, None]

    def back(hours: FloatArray) -> FloatArray:
        left = (hours - now_h) * np.exp(spread * rng.standard_normal(hours.shape))
        return np.where(hours <= now_h + SLACK, hours, now_h + np.maximum(left, p.dt_h))

    lines, substation, roads = back(facts.line_h), back(facts.substation_h[:, None])[:, 0], back(facts.road_h)
    last_h = p.load.generator_fail_h
    left = np.clip(1 - now_h / last_h, 0.0, 1.0)  # of the time in which generators fail
    chance = p.load.generator_fail_share * left / (1 - p.load.generator_fail_share * (1 - left) + 1e-12)
    u = rng.random(facts.generator_h.shape)
    fails = (u < chance) & (facts.generator_h == NEVER_H)
    generator_h = np.where(fails, now_h + u / np.maximum(chance, 1e-12) * left * last_h, facts.generator_h)
    load = np.exp(p.load.noise_sigma * rng.standard_normal(facts.load_kw.shape))
    sky = np.clip(1 + 2 * p.load.clearness_sigma * rng.standard_normal(facts.pv_kw.shape[:2]), 0.0, 2.0)
    return Facts(lines, substation, roads, generator_h, facts.load_kw * load, facts.pv_kw * sky[..., None])
