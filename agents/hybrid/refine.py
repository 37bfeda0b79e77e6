"""Annealed local search over the plans of storage units: levels move one by one, in time, or between units.

The candidates of a look-ahead are few; this leaves them. Every plan on the way is possible and every
energy exact.
"""

from typing import Any

import numpy as np

from qevgrid.agents.hybrid.anneal import LOOK, ONE, SMALLEST, accepted, below, following, seeded
from qevgrid.agents.hybrid.lattice import Lattice, StorageUnits
from qevgrid.agents.hybrid.polish import piece
from qevgrid.agents.hybrid.problem import Pieces
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

HOT_SHARE, COLD_SHARE = 0.1, 0.01
"""Default temperatures, as shares of a mean change of cost from level to level in a stage."""


def plans_usd(units: StorageUnits, pieces: Pieces, level: IntArray) -> float:
    """Exact cost of plans (M, H), own and shared."""
    return float(units.plan_usd(level).sum() + pieces(units.plan_use(level).sum(0)))


def refine(
    units: StorageUnits,
    lattice: Lattice,
    pieces: Pieces,
    level: IntArray,
    *,
    sweeps: int,
    seed: int,
    hot_usd: float | None = None,
    cold_usd: float | None = None,
) -> IntArray:
    """The best plans (M, H) met from ``level`` on, never worse; a sweep proposes M * H changes.

    Half of the proposals change one level; the others take a step up at one stage back at another, or
    hand a step from one unit to another at the same stage.
    """
    m, n_stages, n_levels = units.allowed.shape
    scale = float(np.abs(np.diff(units.cost_usd, axis=2)).mean()) if n_levels > 1 and m else 1.0
    hot = HOT_SHARE * scale if hot_usd is None else float(hot_usd)
    cold = min(COLD_SHARE * scale, hot) if cold_usd is None else float(cold_usd)
    now, best = level.astype(np.int64), level.astype(np.int64)
    _refine(
        lattice,
        units.cost_usd,
        units.power_kw,
        units.coupling,
        pieces.slope,
        pieces.at,
        pieces.rise,
        sweeps,
        np.uint64(seed & 0xFFFFFFFFFFFFFFFF),
        max(hot, SMALLEST),
        max(cold, SMALLEST),
        now,
        best,
        np.empty((m, n_stages + 1), np.int64),
        np.empty((2, n_stages + 1), np.int64),
        np.empty((2, n_stages * units.n_shared)),
    )
    return best


@compiled
def _walk(
    lattice: Lattice, state: IntArray, level: IntArray, i: int, t: int, k: int, u: int, q: int, path: IntArray
) -> Any:  # pragma: no cover
    """Write unit i's states after stage ``t`` if it took level ``k`` there and ``q`` at stage ``u``; the last."""
    n_stages, base = level.shape[1], lattice.begin[i]
    s = np.int64(lattice.following[base + state[i, t], k])
    path[t + 1] = s
    for later in range(t + 1, n_stages):
        s = np.int64(lattice.following[base + s, q if later == u else level[i, later]])
        path[later + 1] = s
    return s


@compiled
def _shift(
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    usage: FloatArray,
    value: FloatArray,
    coupling: FloatArray,
    i: int,
    by_i: float,
    j: int,
    by_j: float,
    t: int,
) -> float:  # pragma: no cover
    """Rise of the shared cost when units i and j take ``by_i`` and ``by_j`` kW more at stage ``t``."""
    n_shared, total = coupling.shape[1], 0.0
    for s in range(n_shared):
        by = coupling[i, s] * by_i + coupling[j, s] * by_j
        if by != 0.0:
            r = t * n_shared + s
            total += piece(slope, at, rise, r, usage[r] + by) - value[r]
    return total


@compiled
def _move(
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    usage: FloatArray,
    value: FloatArray,
    coupling: FloatArray,
    i: int,
    by: float,
    t: int,
) -> None:  # pragma: no cover
    """Let unit i take ``by`` kW more at stage ``t``."""
    n_shared = coupling.shape[1]
    for s in range(n_shared):
        if coupling[i, s] != 0.0:
            r = t * n_shared + s
            usage[r] += coupling[i, s] * by
            value[r] = piece(slope, at, rise, r, usage[r])


@compiled
def _begin(
    lattice: Lattice,
    cost: FloatArray,
    power: FloatArray,
    coupling: FloatArray,
    level: IntArray,
    state: IntArray,
    usage: FloatArray,
) -> Any:  # pragma: no cover
    """Fill states and usage of the given plans; their own cost."""
    own, n_shared = 0.0, coupling.shape[1]
    for r in range(len(usage)):
        usage[r] = 0.0
    for i in range(len(level)):
        state[i, 0] = 0
        for t in range(level.shape[1]):
            k = level[i, t]
            own += cost[i, t, k]
            state[i, t + 1] = lattice.following[lattice.begin[i] + state[i, t], k]
            for s in range(n_shared):
                usage[t * n_shared + s] += coupling[i, s] * power[i, k]
        own += lattice.end_usd[lattice.begin[i] + state[i, level.shape[1]]]
    return own


@compiled
def _refine(
    lattice: Lattice,
    cost: FloatArray,
    power: FloatArray,
    coupling: FloatArray,
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    sweeps: int,
    seed: int,
    hot: float,
    cold: float,
    level: IntArray,
    best: IntArray,
    state: IntArray,
    path: IntArray,
    scratch: FloatArray,
) -> None:  # pragma: no cover
    """Anneal ``level``, keep the best in ``best``. ``state`` (M, H + 1): where the plans are on the lattice."""
    usage, value = scratch[0], scratch[1]
    n_units, n_stages, n_levels = cost.shape
    energy = _begin(lattice, cost, power, coupling, level, state, usage)
    for r in range(len(usage)):
        value[r] = piece(slope, at, rise, r, usage[r])
        energy += value[r]
    least, since, pause, temperature = energy, 0, n_units * n_stages // LOOK, hot if sweeps > 1 else cold
    cooling, x = (cold / hot) ** (1.0 / max(sweeps - 1, 1)), seeded(seed, 0)
    for _ in range(sweeps):
        for _ in range(n_units * n_stages):
            since += 1
            x = following(x)
            kind = np.int64(x & np.uint64(3))
            i = below(x, n_units)
            x = following(x)
            t = below(x, n_stages)
            up = 1 if x & ONE else -1
            old, dead = level[i, t], lattice.stage[i, n_stages + 1]
            new = old + up
            if new < 0 or new >= n_levels:
                continue
            j, u, old_two, new_two = i, t, old, old
            if kind == 2 and n_stages > 1:
                x = following(x)
                u = below(x, n_stages - 1)
                u += u >= t
            elif kind == 3 and n_units > 1:
                x = following(x)
                j = below(x, n_units - 1)
                j += j >= i
            if j != i or u != t:
                old_two = level[j, u]
                new_two = old_two - up
                if new_two < 0 or new_two >= n_levels:
                    continue
            by, by_two = power[i, new] - power[i, old], power[j, new_two] - power[j, old_two]
            end = lattice.begin[i] + state[i, n_stages]
            if u != t:
                early, late = min(t, u), max(t, u)
                at_early, at_late = (new, new_two) if t < u else (new_two, new)
                s = _walk(lattice, state, level, i, early, at_early, late, at_late, path[0])
                rises = cost[i, u, new_two] - cost[i, u, old_two]
                if s == dead:
                    continue
                rises += _shift(slope, at, rise, usage, value, coupling, i, by_two, i, 0.0, u)
            else:
                early, rises = t, 0.0
                s = _walk(lattice, state, level, i, t, new, -1, 0, path[0])
                if s == dead:
                    continue
            rises += cost[i, t, new] - cost[i, t, old] + lattice.end_usd[lattice.begin[i] + s] - lattice.end_usd[end]
            if j != i:
                s = _walk(lattice, state, level, j, t, new_two, -1, 0, path[1])
                if s == lattice.stage[j, n_stages + 1]:
                    continue
                end = lattice.begin[j] + state[j, n_stages]
                rises += cost[j, t, new_two] - cost[j, t, old_two]
                rises += lattice.end_usd[lattice.begin[j] + s] - lattice.end_usd[end]
            rises += _shift(slope, at, rise, usage, value, coupling, i, by, j, by_two if j != i else 0.0, t)
            x = following(x)
            if accepted(rises, temperature, x):
                level[i, t] = new
                _move(slope, at, rise, usage, value, coupling, i, by, t)
                if j != i or u != t:
                    level[j, u] = new_two
                    _move(slope, at, rise, usage, value, coupling, j, by_two, u)
                for later in range(early + 1, n_stages + 1):
                    state[i, later] = path[0, later]
                if j != i:
                    for later in range(t + 1, n_stages + 1):
                        state[j, later] = path[1, later]
                energy += rises
                if energy < least - SMALLEST and since >= pause:
                    least, since = energy, 0
                    _keep(level, best)
        temperature *= cooling
    if energy < least - SMALLEST:
        _keep(level, best)


@compiled
def _keep(level: IntArray, best: IntArray) -> None:  # pragma: no cover
    """Copy the plans."""
    for i in range(len(level)):
        for t in range(level.shape[1]):
            best[i, t] = level[i, t]
