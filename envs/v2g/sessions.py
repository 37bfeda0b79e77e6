"""Charging sessions: who plugs in where, when, with how much energy, wanting how much.

Generators (``SESSION_KINDS``) are design choices near the published aggregates of ElaadNL
(home arrivals peak at 18:15, stays of 12 h on average; work arrivals peak at 08:45).
"""

import functools
from typing import NamedTuple

import numpy as np

from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.plant import Plant

REACHABLE_SHARE = 0.8
"""A wish is capped at what this share of the charger's power delivers in the declared stay."""
MIN_STAY_H = 1.0


class Sessions(NamedTuple):
    """Sessions by socket in order of arrival, S slots a socket; an empty slot arrives at stage T."""

    arrival: IntArray  # (B, N, S) first stage plugged in
    departure: IntArray  # (B, N, S) first stage gone, at most T
    declared: IntArray  # (B, N, S) departure as announced at arrival, may lie beyond T
    energy_kwh: FloatArray  # (B, N, S) at arrival
    target_kwh: FloatArray  # (B, N, S) wanted at departure
    capacity_kwh: FloatArray  # (B, N, S)
    floor_kwh: FloatArray  # (B, N, S) never discharged below
    limit_kw: FloatArray  # (B, N, S) of the vehicle, both directions
    stays: BoolArray  # (B, N, S) still plugged in when the episode ends


class SessionKind(NamedTuple):
    """Clock hours of a kind of driver; a stay ends at a clock hour or lasts a lognormal time."""

    arrival_h: float
    arrival_sd_h: float
    departure_h: float | None
    departure_sd_h: float
    stay_median_h: float
    stay_sigma: float
    per_day: int


KINDS: dict[str, SessionKind] = {
    "residential": SessionKind(18.0, 2.0, 7.5, 1.3, 0.0, 0.0, 1),
    "fleet": SessionKind(16.5, 1.0, 7.0, 0.7, 0.0, 0.0, 1),
    "workplace": SessionKind(8.75, 1.2, None, 0.0, 8.0, 0.25, 1),
    "public": SessionKind(13.0, 4.0, None, 0.0, 3.0, 0.5, 2),
}


class SessionDraws(NamedTuple):
    """Raw random numbers of one factor, one block an episode."""

    normal: FloatArray  # (B, 5, N, S)
    uniform: FloatArray  # (B, 5, N, S)


def slots(params: V2GParams) -> int:
    """Sessions a socket can see in an episode of a synthetic kind."""
    kinds = ("residential", "fleet") if params.sessions == "mixed" else (params.sessions,)
    return params.days * max(KINDS[k].per_day for k in kinds)


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Raw numbers for the sessions of one episode; ``shape`` = (N, S)."""
    return rng.standard_normal((5, *shape)), rng.random((5, *shape))


def generate(plant: Plant, start_h: float, draws: SessionDraws) -> Sessions:
    """Turn raw draws into sessions. Row b depends on the draws of row b alone."""
    p, z, u = plant.params, draws.normal, draws.uniform
    n, s = z.shape[-2:]
    arrival_h, stay_h = _times(p, start_h, z)
    capacity = np.asarray(p.session.battery_kwh)[(u[:, 0] * len(p.session.battery_kwh)).astype(np.int64)]
    energy = capacity * np.clip(p.session.arrival_soc[0] + p.session.arrival_soc[1] * z[:, 2], p.session.soc_min, 0.95)
    wish = capacity * np.clip(p.session.target_soc[0] + p.session.target_soc[1] * z[:, 3], 0.3, 1.0)
    early_h = np.where(u[:, 1] < p.session.early_share, stay_h * (0.1 + 0.3 * u[:, 2]), 0.0)
    limit = np.broadcast_to(plant.charge_kw[:, None], (n, s))
    shown = u[:, 3] < p.session.show_up_share
    return finish(p, arrival_h, stay_h - early_h, stay_h, energy, wish, capacity, limit, shown)


def finish(
    p: V2GParams,
    arrival_h: FloatArray,
    stay_h: FloatArray,
    declared_h: FloatArray,
    energy_kwh: FloatArray,
    wish_kwh: FloatArray,
    capacity_kwh: FloatArray,
    limit_kw: FloatArray,
    shown: BoolArray,
) -> Sessions:
    """Stages from hours, and targets that the stay can reach. All arrays (B, N, S), times since stage 0."""
    t_end = p.n_stages
    first = np.clip(np.floor(arrival_h / p.dt_h + 1e-9), 0, t_end).astype(np.int64)
    gone = np.maximum(np.floor((arrival_h + stay_h) / p.dt_h + 1e-9).astype(np.int64), first + 1)
    declared = np.maximum(np.floor((arrival_h + declared_h) / p.dt_h + 1e-9).astype(np.int64), first + 1)
    first, gone, declared = _in_sequence(first, gone, declared, shown, t_end)
    reach = REACHABLE_SHARE * p.charger.eta_charge * limit_kw * p.dt_h
    target = np.minimum(wish_kwh, energy_kwh + reach * (declared - first))
    stays = (gone > t_end) & (first < t_end)
    later = np.where(stays, reach * np.maximum(declared - t_end, 0), 0.0)
    target = np.maximum(np.maximum(target, energy_kwh) - later, energy_kwh)
    floor = np.minimum(p.session.soc_min * capacity_kwh, energy_kwh)
    limits = np.broadcast_to(limit_kw, first.shape).copy()
    return _by_arrival(
        Sessions(first, np.minimum(gone, t_end), declared, energy_kwh, target, capacity_kwh, floor, limits, stays)
    )


def _in_sequence(
    first: IntArray, gone: IntArray, declared: IntArray, shown: BoolArray, t_end: int
) -> tuple[IntArray, IntArray, IntArray]:
    """A socket serves one vehicle at a time: a later one waits; who finds no time left does not come."""
    first, gone, declared = first.copy(), gone.copy(), declared.copy()
    free = np.zeros(first.shape[:-1], np.int64)
    for k in range(first.shape[-1]):
        first[..., k] = np.maximum(first[..., k], free)
        comes = shown[..., k] & (first[..., k] < t_end) & (gone[..., k] > first[..., k])
        first[..., k] = np.where(comes, first[..., k], t_end)
        gone[..., k] = np.where(comes, gone[..., k], t_end)
        declared[..., k] = np.where(comes, np.maximum(declared[..., k], first[..., k] + 1), t_end)
        free = np.where(comes, gone[..., k], free)
    return first, gone, declared


def _by_arrival(sessions: Sessions) -> Sessions:
    """Slots in order of arrival, empty ones last."""
    if sessions.arrival.shape[-1] == 1:
        return sessions
    order = np.argsort(sessions.arrival, axis=-1, kind="stable")
    return Sessions._make(np.take_along_axis(x, order, -1) for x in sessions)


def _times(p: V2GParams, start_h: float, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Arrival after stage 0 and stay, in hours, each (B, N, S)."""
    n, s = z.shape[-2:]
    per_day = s // p.days
    day = np.arange(s) // per_day
    arrival, stay = np.empty(z[:, 0].shape), np.empty(z[:, 0].shape)
    for sockets, kind in _kinds(p.sessions, n, p.session.fleet_share):
        spread = (np.arange(s) % per_day - (per_day - 1) / 2) * 24 / max(per_day, 1) * (per_day > 1) / 2
        mean = (kind.arrival_h - start_h) % 24
        a = np.clip(mean + spread + kind.arrival_sd_h * z[:, 0, sockets], 0, 23.5) + 24 * day
        arrival[:, sockets] = a
        stay[:, sockets] = _stay(kind, (a + start_h) % 24, z[:, 1, sockets])
    return arrival, np.maximum(stay, MIN_STAY_H)


def _stay(kind: SessionKind, arrival_clock_h: FloatArray, z: FloatArray) -> FloatArray:
    if kind.departure_h is None:
        return np.minimum(kind.stay_median_h * np.exp(kind.stay_sigma * z), 23.0)
    return (kind.departure_h - arrival_clock_h) % 24 + kind.departure_sd_h * z


@functools.lru_cache(maxsize=64)
def _kinds(name: str, n: int, fleet_share: float) -> list[tuple[IntArray, SessionKind]]:
    """Which sockets belong to which kind; ``mixed`` spreads the fleet's over the sites."""
    if name != "mixed":
        return [(np.arange(n), KINDS[name])]
    fleet = np.floor((np.arange(n) + 1) * fleet_share + 1e-9) > np.floor(np.arange(n) * fleet_share + 1e-9)
    return [(np.flatnonzero(fleet), KINDS["fleet"]), (np.flatnonzero(~fleet), KINDS["residential"])]
