"""Sessions of a file on the sockets of a plant: completed, cut to windows, first come first served.

A visit is a session in a window. Windows of several days overlap: a session may pay several.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.special import ndtri

from qevgrid.envs.data import SessionTable
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.params import SessionParams
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.sessions import Sessions, finish

SEED = 7_204_911
"""First word of the seed of a day's vehicles; the second is the day."""
FULLEST = 0.9
"""Who arrives fuller than this gets no larger battery to hold the request: it is capped."""
SLIVER = 1e-9  # of a stage or of a kWh: what rounding leaves


class Vehicles(NamedTuple):
    """What a session needs to be simulated, known or drawn; n sessions in order of arrival."""

    day: IntArray  # (n,) of the arrival, as date.toordinal()
    arrival_h: FloatArray  # (n,) clock hours since its midnight
    stay_h: FloatArray  # (n,)
    declared_h: FloatArray  # (n,) stay as announced
    capacity_kwh: FloatArray  # (n,)
    energy_kwh: FloatArray  # (n,) at arrival
    target_kwh: FloatArray  # (n,) at arrival plus request, at most the capacity
    max_kw: FloatArray  # (n,) infinite where unknown
    enlarged: BoolArray  # (n,) no battery of the parameters holds the request
    at_full: BoolArray  # (n,) the request is more than the battery holds


class Visits(NamedTuple):
    """v visits, window by window, in order of arrival; stages count from the window's start."""

    window: IntArray  # (v,)
    session: IntArray  # (v,)
    first: IntArray  # (v,) negative: under way when the window starts
    gone: IntArray  # (v,) > 0; beyond T: stays on
    declared: IntArray  # (v,)
    elapsed: FloatArray  # (v,) share of the stay that is over at stage 0


def complete(table: SessionTable, p: SessionParams) -> Vehicles:
    """Fill in batteries and states of charge; the same session always gets the same vehicle."""
    draw = _uniforms(table.day)
    request, soc = table.energy_kwh, table.arrival_soc
    empty = 1.0 - np.minimum(np.where(np.isnan(soc), p.soc_min, soc), FULLEST)
    drawn, enlarged = _batteries(np.sort(p.battery_kwh), request / empty, draw[:, 0])
    unknown = np.isnan(table.battery_kwh)
    capacity = np.where(unknown, drawn, table.battery_kwh)
    usual = np.maximum(p.arrival_soc[0] + p.arrival_soc[1] * ndtri(draw[:, 1]), p.soc_min)
    soc = np.where(np.isnan(soc), np.clip(1.0 - request / capacity, 0.0, usual), soc)
    energy = soc * capacity
    at_full = energy + request > capacity * (1.0 + SLIVER)
    return Vehicles(
        table.day,
        table.arrival_h,
        table.stay_h,
        table.declared_stay_h,
        capacity,
        energy,
        np.minimum(energy + request, capacity),
        np.where(np.isnan(table.max_kw), np.inf, table.max_kw),
        enlarged & unknown,
        at_full,
    )


def _uniforms(day: IntArray) -> FloatArray:
    """Two numbers a session from a generator of its day: other days change nothing, (n, 2)."""
    days, counts = np.unique(day, return_counts=True)
    pairs = zip(days.tolist(), counts.tolist(), strict=True)
    return np.concatenate([np.random.default_rng((SEED, d)).random((n, 2)) for d, n in pairs])


def _batteries(sizes: FloatArray, need_kwh: FloatArray, u: FloatArray) -> tuple[FloatArray, BoolArray]:
    """One of the ``sizes`` (ascending) that hold ``need_kwh`` (n,); just that much if none does."""
    small = np.searchsorted(sizes, need_kwh - SLIVER)
    index = small + (u * (len(sizes) - small)).astype(np.int64)
    enlarged = small == len(sizes)
    return np.where(enlarged, need_kwh, sizes[np.minimum(index, len(sizes) - 1)]), enlarged


def on_sockets(plant: Plant, vehicles: Vehicles, day: IntArray, start_h: float) -> tuple[Sessions, dict[str, IntArray]]:
    """Sessions (W, N, S) of the windows from ``start_h`` of ``day`` (W,) on, and counts (W,)."""
    visits = _visits(plant, vehicles, day, start_h)
    socket, slot = _first_come(visits.window, visits.first, visits.gone, plant.n_sockets)
    here = socket >= 0
    found = Visits._make(x[here] for x in visits)
    at = (found.window, socket[here], slot[here])
    shape = (len(day), plant.n_sockets, int(slot.max(initial=0)) + 1)
    who = found.session
    max_kw, least_kw = vehicles.max_kw[who], plant.charge_min_kw[at[1]]
    limit_kw = np.clip(max_kw, least_kw, plant.charge_kw[at[1]])
    sessions, capped = _finished(plant, vehicles, found, limit_kw, at, shape)
    seen = {
        "turned_away": visits.window[~here],
        "cut_at_start": found.window[found.first < 0],
        "cut_at_end": found.window[found.gone > plant.params.n_stages],
        "battery_enlarged": found.window[vehicles.enlarged[who]],
        "targets_at_full": found.window[vehicles.at_full[who]],
        "targets_capped": found.window[capped],
        "limits_raised": found.window[max_kw < least_kw],
    }
    counts = {"placed": found.window, **seen}
    return sessions, {k: np.bincount(w, minlength=len(day)) for k, w in counts.items()}


def _visits(plant: Plant, vehicles: Vehicles, day: IntArray, start_h: float) -> Visits:
    """Who is there in which window; who has less than a stage left at its start has gone."""
    p = plant.params
    window, who = _candidates(vehicles, day.astype(np.float64) * 24.0 + start_h, 24.0 * p.days)
    from_h = 24.0 * (vehicles.day[who] - day[window]) + (vehicles.arrival_h[who] - start_h)
    first = _stage(from_h, p.dt_h)
    gone = np.maximum(_stage(from_h + vehicles.stay_h[who], p.dt_h), first + 1)
    declared = _stage(from_h + vehicles.declared_h[who], p.dt_h)
    elapsed = np.where(first < 0, -from_h / vehicles.stay_h[who], 0.0)
    visits = Visits(window, who, first, gone, declared, elapsed)
    keep = (gone > 0) & (first < p.n_stages)
    return Visits._make(x[keep] for x in visits)


def _candidates(vehicles: Vehicles, begin_h: FloatArray, length_h: float) -> tuple[IntArray, IntArray]:
    """Pairs of window and session, (v,) each, that hold all who can be there, and some more."""
    arrival_h = vehicles.day * 24.0 + vehicles.arrival_h
    last_h = np.maximum.accumulate(arrival_h + vehicles.stay_h)
    low = np.searchsorted(last_h, begin_h)
    high = np.searchsorted(arrival_h, begin_h + length_h)
    counts = np.maximum(high - low, 0)
    window = np.repeat(np.arange(len(begin_h)), counts)
    return window, np.arange(counts.sum()) + np.repeat(low - np.cumsum(counts) + counts, counts)


def _stage(hours: FloatArray, dt_h: float) -> IntArray:
    """Stage in which a time lies."""
    return np.floor(hours / dt_h + SLIVER).astype(np.int64)


@njit(cache=True)
def _first_come(
    window: IntArray, first: IntArray, gone: IntArray, n_sockets: int
) -> tuple[IntArray, IntArray]:  # pragma: no cover - compiled
    """Socket of each visit and which one it is there, (v,); socket -1: all are taken.

    Of the free sockets the least used takes it, and of these the first, so that sites share.
    """
    socket, slot = np.full(len(window), -1), np.zeros(len(window), np.int64)
    free_at, used = np.zeros(n_sockets, np.int64), np.zeros(n_sockets, np.int64)
    for k in range(len(window)):
        if k > 0 and window[k] != window[k - 1]:
            free_at[:], used[:] = 0, 0
        start, best = max(first[k], 0), -1
        for i in range(n_sockets):
            if free_at[i] <= start and (best < 0 or used[i] < used[best]):
                best = i
        if best >= 0:
            socket[k], slot[k] = best, used[best]
            free_at[best] = gone[k]
            used[best] += 1
    return socket, slot


def _finished(
    plant: Plant,
    vehicles: Vehicles,
    visits: Visits,
    limit_kw: FloatArray,
    at: tuple[IntArray, IntArray, IntArray],
    shape: tuple[int, int, int],
) -> tuple[Sessions, BoolArray]:
    """Visits in their places, read-only, and whose target the stay cannot reach, (v,).

    Those who stay on are not among them: their target lies beyond the window.
    """
    p, who, first = plant.params, visits.session, np.maximum(visits.first, 0)

    def spread(values: Any, fill: float = 0.0) -> FloatArray:
        out = np.full(shape, fill)
        out[at] = values
        return out

    target = vehicles.target_kwh[who]
    energy = vehicles.energy_kwh[who]
    energy = energy + (target - energy) * visits.elapsed
    sessions = finish(
        p,
        spread(first * p.dt_h),
        spread((visits.gone - first) * p.dt_h),
        spread((visits.declared - first) * p.dt_h),
        spread(energy),
        spread(target),
        spread(vehicles.capacity_kwh[who], p.session.battery_kwh[0]),
        spread(limit_kw, float(plant.charge_kw.min())),
        spread(True) > 0,
    )
    for array in sessions:
        array.setflags(write=False)
    capped = (sessions.target_kwh[at] < target - SLIVER) & ~sessions.stays[at]
    return sessions, capped
