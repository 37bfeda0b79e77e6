"""Everything that chance decides in an episode, drawn at reset, and what may be known of it at stage t.

Prices, PV and loads are a public profile times ``exp(deviation)``, the deviation an AR(1) process.
A forecast lets the last seen deviation die out: it uses nothing beyond the present, and its error
grows with the lead. Day-ahead prices are published, so their deviation is 0.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtr

from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g import sessions as ev
from qevgrid.envs.v2g.files import FileDays
from qevgrid.envs.v2g.model import sell_usd_kwh
from qevgrid.envs.v2g.params import OutageParams, V2GParams
from qevgrid.envs.v2g.plant import LOAD_CEILING, Plant

FACTORS = ("price", "pv", "load", "outage", "sessions", "day")
"""One child random stream each, so that a change in one leaves the others as they were."""
PRICE_PHI_H, PV_PHI_H, LOAD_PHI_H = 0.9, 0.85, 0.9
PV_SIGMA, LOAD_SIGMA, LEVEL_SIGMA = 0.30, 0.06, 0.10
PV_MEAN_CLEARNESS = 0.62
MAX_OUTAGE_H = 14.0
CALM_RATIO = 1 / 6
WATCH_RATIO = 1.5


class Scenario(NamedTuple):
    """B episodes of T stages; D sites, N sockets, S session slots."""

    buy_usd_kwh: FloatArray  # (B, T)
    sell_usd_kwh: FloatArray  # (B, T)
    pv_kw: FloatArray  # (B, T, D)
    critical_kw: FloatArray  # (B, T, D)
    other_kw: FloatArray  # (B, T, D)
    feeder_scale: FloatArray  # (B, T) the feeder's own load over nominal
    fault: IntArray  # (B, T) row of Plant.fault_site
    outage: BoolArray  # (B, T, D)
    risk: FloatArray  # (B, T) published probability that an outage is still to come
    window_open: FloatArray  # (B, T) stage from which it may start, as published
    window_close: FloatArray  # (B, T)
    price_profile: FloatArray  # (B, T) tariff or published price
    pv_profile: FloatArray  # (B, T) per rated kW
    critical_profile: FloatArray  # (B, T) per peak kW
    other_profile: FloatArray  # (B, T) per peak kW
    price_dev: FloatArray  # (B, T)
    pv_dev: FloatArray  # (B, T)
    load_dev: FloatArray  # (B, T)
    sessions: ev.Sessions

    def row(self, b: int) -> "Scenario":
        """Episode ``b`` alone, batch axis kept."""
        row = slice(b, b + 1)
        return Scenario._make(
            ev.Sessions._make(x[row] for x in f) if isinstance(f, ev.Sessions) else f[row] for f in self
        )

    def fingerprint(self, b: int) -> str:
        """Short hash of every array of episode ``b``; equal fingerprints, equal worlds."""
        digest = hashlib.blake2b(digest_size=8)
        for field in self:
            for array in field if isinstance(field, ev.Sessions) else (field,):
                digest.update(np.ascontiguousarray(array[b]).tobytes())
        return digest.hexdigest()


class Draws(NamedTuple):
    """Raw random numbers of B episodes, before any parameter touches them."""

    price: FloatArray  # (B, T + 8)
    pv: FloatArray  # (B, T + days)
    load: FloatArray  # (B, T + 2)
    outage: FloatArray  # (B, days, 8) uniform
    outage_normal: FloatArray  # (B, days)
    sessions: ev.SessionDraws
    day: FloatArray  # (B,) uniform


class Sampler:
    """Draws scenarios of one plant; files are read once, here."""

    def __init__(self, plant: Plant, files: FileDays) -> None:
        p = plant.params
        self.plant, self.files, self.params = plant, files, p
        self.start_h = files.start_h
        self.clock_h = (self.start_h + np.arange(float(p.n_stages)) * p.dt_h) % 24.0
        self.slots = files.slots if files.sessions is not None else ev.slots(p)
        self.rated = {name: p.site.per_site(name) for name in ("pv_kw", "critical_kw", "other_kw")}
        self.tariff = tariff(p, self.clock_h)
        self.clear_sky = np.maximum(0.0, np.sin(np.pi * (self.clock_h - 6) / 12)) ** 1.3
        self.critical, self.other = load_profiles(self.clock_h)

    def draw(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """Raw numbers of one episode from one generator's child streams (order: ``FACTORS``)."""
        p, t = self.params, self.params.n_stages
        price, pv, load, outage, sessions, day = rng.spawn(len(FACTORS))
        normal, uniform = ev.draw(sessions, (p.n_sockets, self.slots))
        return (
            price.standard_normal(t + 8),
            pv.standard_normal(t + p.days),
            load.standard_normal(t + 2),
            outage.random((p.days, 8)),
            outage.standard_normal(p.days),
            normal,
            uniform,
            day.random(),
        )

    def sample(self, rngs: list[np.random.Generator]) -> Scenario:
        """One episode per generator."""
        price, pv, load, outage, outage_normal, normal, uniform, day = (
            np.stack(block) if len(rngs) > 1 else np.asarray(block[0])[None]
            for block in zip(*map(self.draw, rngs), strict=True)
        )
        draws = Draws(price, pv, load, outage, outage_normal, ev.SessionDraws(normal, uniform), day)
        return self.build(draws)

    def build(self, draws: Draws) -> Scenario:
        """Turn raw numbers into the world; pure, row by row."""
        p = self.params
        sessions = self._sessions(draws)
        price_profile, price_dev = self._price(draws)
        buy = price_profile * np.exp(price_dev)
        pv_profile, pv_dev, pv = self._pv(draws)
        critical, other, load_dev = self.critical, self.other, self._load_dev(draws)
        scale = np.exp(load_dev)
        other_scaled = np.minimum(other * scale, LOAD_CEILING)
        outage = draw_outages(self.plant, draws.outage, draws.outage_normal)
        shape = (len(buy), p.n_stages)
        return Scenario(
            buy,
            sell_usd_kwh(buy, p.sell_ratio),
            pv[..., None] * self.rated["pv_kw"],
            np.minimum(critical * scale, LOAD_CEILING)[..., None] * self.rated["critical_kw"],
            other_scaled[..., None] * self.rated["other_kw"],
            other_scaled * p.grid.load_scale,
            *outage,
            np.broadcast_to(price_profile, shape),
            np.broadcast_to(pv_profile, shape),
            np.broadcast_to(critical, shape),
            np.broadcast_to(other, shape),
            price_dev,
            pv_dev,
            load_dev,
            sessions,
        )

    def _sessions(self, draws: Draws) -> ev.Sessions:
        if self.files.sessions is None:
            return ev.generate(self.plant, self.start_h, draws.sessions)
        return self.files.pick_sessions(draws.day)

    def _price(self, draws: Draws) -> tuple[FloatArray, FloatArray]:
        p, t = self.params, self.params.n_stages
        if self.files.prices is not None:
            profile = self.files.pick_prices(draws.day)
            return profile, np.zeros_like(profile)
        if p.prices == "day_ahead":
            profile = day_ahead_profile(self.clock_h, draws.price)
            return profile, np.zeros_like(profile)
        dev = ar1(draws.price[:, :t], PRICE_PHI_H**p.dt_h, p.price_sigma)
        return self.tariff, dev

    def _pv(self, draws: Draws) -> tuple[FloatArray, FloatArray, FloatArray]:
        p, t = self.params, self.params.n_stages
        dev = ar1(draws.pv[:, :t], PV_PHI_H**p.dt_h, PV_SIGMA)
        profile = self.clear_sky * PV_MEAN_CLEARNESS
        return profile, dev, np.minimum(profile * np.exp(dev), 1.0)

    def _load_dev(self, draws: Draws) -> FloatArray:
        """Log deviation of all loads: the day's level, and how it drifts."""
        p, t = self.params, self.params.n_stages
        level = LEVEL_SIGMA * np.clip(draws.load[:, t : t + 1], -3, 3)
        return level + ar1(draws.load[:, :t], LOAD_PHI_H**p.dt_h, LOAD_SIGMA)


def load_profiles(clock_h: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Critical and other load per peak kW at each clock hour; the feeder's own is like the other."""
    evening, morning = np.exp(-(((clock_h - 19) / 3.0) ** 2)), np.exp(-(((clock_h - 8) / 2.0) ** 2))
    critical = 0.8 + 0.2 * np.exp(-(((clock_h - 19) / 4.0) ** 2))
    return critical, 0.5 + 0.5 * evening + 0.25 * morning


def tariff(p: V2GParams, clock_h: FloatArray) -> FloatArray:
    """Time-of-use price at each clock hour, shape (T,)."""
    hours, prices = np.array(p.tariff_usd_kwh).T
    return prices[np.searchsorted(hours, clock_h + 1e-9, side="right") - 1]


def day_ahead_profile(clock_h: FloatArray, z: FloatArray) -> FloatArray:
    """Two peaks and a midday trough that sunny days push below zero, shape (B, T)."""
    level, evening, morning, trough = (z[:, k : k + 1] for k in range(4))
    shape_evening, shape_morning = np.exp(-(((clock_h - 19) / 2.2) ** 2)), np.exp(-(((clock_h - 8) / 1.8) ** 2))
    sun = np.exp(-(((clock_h - 13.5) / 2.5) ** 2))
    base = 0.16 * np.exp(0.25 * level)
    peaks = 0.30 * np.exp(0.4 * evening) * shape_evening + 0.12 * np.exp(0.4 * morning) * shape_morning
    return base + peaks - 0.16 * np.exp(0.5 * trough) * sun


@njit(cache=True)
def ar1(z: FloatArray, phi: float, sigma: float) -> FloatArray:  # pragma: no cover - compiled
    """Stationary AR(1) paths from standard normals, clipped at three sigma; shapes (B, T)."""
    out = np.empty(z.shape)
    gain = np.sqrt(1.0 - phi * phi)
    for b in range(z.shape[0]):
        x = z[b, 0]
        for t in range(z.shape[1]):
            if t > 0:
                x = phi * x + gain * z[b, t]
            out[b, t] = sigma * min(max(x, -3.0), 3.0)
    return out


def draw_outages(
    plant: Plant, u: FloatArray, z: FloatArray
) -> tuple[IntArray, BoolArray, FloatArray, FloatArray, FloatArray]:
    """Fault state, dead sites, published risk and window of each stage. ``u`` (B, days, 8), ``z`` (B, days)."""
    p, o = plant.params, plant.params.outage
    per_day = p.n_stages // p.days
    level, opens, closes, announced = _watches(o, u)
    happens = u[..., 2] < level
    start_h = opens + u[..., 3] * (closes - opens)
    length_h = np.clip(o.median_h * np.exp(o.sigma * z), 0.5, MAX_OUTAGE_H)
    state = _fault_state(plant, u)
    hour = np.arange(float(per_day)) * p.dt_h  # (per_day,)
    since_start = np.arange(float(p.n_stages)) * p.dt_h - 24.0 * np.arange(p.days)[:, None]  # (days, T)
    out = happens[..., None] & (since_start >= start_h[..., None]) & (since_start < (start_h + length_h)[..., None])
    fault = np.where(out, state[..., None], 0).max(1)  # (B, T): an outage may run into the next day
    risk = _published_risk(o, hour, level, opens, closes, announced, np.where(happens, start_h, np.inf))
    known = hour >= announced[..., None]
    base = np.arange(p.days)[:, None] * per_day
    early, late = o.window_h
    window_open = np.where(known, opens[..., None], np.maximum(early, hour + o.lead_h[0])) / p.dt_h + base
    window_close = np.where(known, closes[..., None], late) / p.dt_h + base
    flat = (len(u), p.n_stages)
    return fault, plant.fault_site[fault], risk.reshape(flat), window_open.reshape(flat), window_close.reshape(flat)


def _watches(o: OutageParams, u: FloatArray) -> tuple[FloatArray, ...]:
    """Announced outage probability and window of each day. Their mean probability is ``o.share``."""
    watch_share = min(max(WATCH_RATIO * o.share, 0.05), 1.0)
    calm = o.share * CALM_RATIO * (watch_share < 1.0)
    mean = (o.share - (1 - watch_share) * calm) / watch_share
    width = min(0.5 * mean, 1.0 - mean)
    watch = u[..., 0] < watch_share
    level = np.where(watch, mean + width * (2 * u[..., 1] - 1), calm)
    early, late = o.window_h
    length = (0.4 + 0.4 * u[..., 4]) * (late - early)
    opens = early + u[..., 5] * (late - early - length)
    announced = np.maximum(opens - (o.lead_h[0] + u[..., 6] * (o.lead_h[1] - o.lead_h[0])), 0.0)
    return level, opens, opens + length, announced


def _fault_state(plant: Plant, u: FloatArray) -> IntArray:
    """Which fault an outage is: all sites at once, or a random line that feeds at least one."""
    hits = np.flatnonzero(plant.fault_site.any(1))
    everywhere = np.flatnonzero(plant.fault_site.all(1))
    split = plant.params.outage.feeder_wide_share
    inner = np.clip((u[..., 7] - split) / max(1 - split, 1e-12), 0, 1 - 1e-12)
    return np.where(u[..., 7] < split, everywhere[0], hits[(inner * len(hits)).astype(np.int64)])


def _published_risk(
    o: OutageParams,
    hour: FloatArray,
    level: FloatArray,
    opens: FloatArray,
    closes: FloatArray,
    announced: FloatArray,
    start_h: FloatArray,
) -> FloatArray:
    """Probability that today's outage is still to come, by Bayes as the window passes without it."""
    prior = np.where(hour >= announced[..., None], level[..., None], o.share)
    span = np.maximum(closes - opens, 1e-9)[..., None]
    left = np.clip((closes[..., None] - hour) / span, 0.0, 1.0)
    posterior = prior * left / np.maximum(1.0 - prior + prior * left, 1e-12)
    return np.where(hour >= start_h[..., None], 0.0, posterior)


def survival(o: OutageParams, hours_h: FloatArray) -> FloatArray:
    """Probability that an outage lasts longer than ``hours_h`` (lognormal)."""
    spread = max(o.sigma, 1e-9)
    safe = np.maximum(hours_h, 1e-9)
    return np.where(hours_h >= MAX_OUTAGE_H, 0.0, ndtr(-(np.log(safe / o.median_h)) / spread))
