"""What storage units can do within a few stages: their reachable energies, and the cheapest way through them.

Everything is exact. A state is an energy that some sequence of levels leads to; equal energies are one
state, so that evenly spaced levels give few of them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.arrays import compiled

SAME_KWH = 1e-9
"""Energies this close are one state; limits are kept to within it."""
MOST_STATES = 5_000_000
STATES_AT_FIRST = 64
"""Room for states a unit at first; doubled as needed."""


@dataclass(frozen=True)
class StorageUnits:
    """M units with L power levels over H stages, and how much they use S things shared at each stage.

    Raising the energy must end at or below ``most_kwh``, lowering it at or above ``least_kwh``; off is
    always possible. A unit that leaves is one with only off allowed from there on; what it then lacks
    to ``target_kwh`` costs ``shortfall_usd_kwh``.
    """

    power_kw: FloatArray  # (M, L) rising, > 0 charges; one column is 0 for all: off
    allowed: BoolArray  # (M, H, L) off always
    cost_usd: FloatArray  # (M, H, L) of its own
    coupling: FloatArray  # (M, S) use of each shared thing per kW
    start_kwh: FloatArray  # (M,)
    least_kwh: FloatArray  # (M,)
    most_kwh: FloatArray  # (M,)
    charge_h: FloatArray  # (M,) kWh stored per kW drawn
    discharge_h: FloatArray  # (M,) kWh taken out per kW fed
    grid_kwh: FloatArray  # (M, G) rising, G >= 2
    worth_usd: FloatArray  # (M, G) of the energy at the end; linear between and beyond the grid
    target_kwh: FloatArray  # (M,)
    shortfall_usd_kwh: FloatArray  # (M,) 0 = no target

    @property
    def n_units(self) -> int:
        """M."""
        return len(self.power_kw)

    @property
    def n_stages(self) -> int:
        """H."""
        return self.allowed.shape[1]

    @property
    def n_shared(self) -> int:
        """S."""
        return self.coupling.shape[1]

    @cached_property
    def off(self) -> int:
        """Column of the level 0."""
        return int(np.flatnonzero((self.power_kw == 0).all(0))[0])

    @cached_property
    def rise_kwh(self) -> FloatArray:
        """Energy gained in a stage at each level, (M, L)."""
        return self.power_kw * np.where(self.power_kw > 0, self.charge_h[:, None], self.discharge_h[:, None])

    def end_usd(self, energy_kwh: FloatArray) -> FloatArray:
        """Cost of ending with ``energy_kwh`` (..., M): shortfall less worth."""
        m = np.arange(self.n_units)
        k = (energy_kwh[..., None] >= self.grid_kwh[:, 1:-1]).sum(-1)
        low, high = self.grid_kwh[m, k], self.grid_kwh[m, k + 1]
        share = (energy_kwh - low) / (high - low)
        worth = self.worth_usd[m, k] * (1 - share) + self.worth_usd[m, k + 1] * share
        return self.shortfall_usd_kwh * np.maximum(self.target_kwh - energy_kwh, 0.0) - worth

    def plan_usd(self, level: IntArray) -> FloatArray:
        """Own cost (M,) of plans (M, H), columns of ``power_kw``."""
        m, h = np.arange(self.n_units)[:, None], np.arange(self.n_stages)
        end_kwh = self.start_kwh + self.rise_kwh[m, level].sum(1)
        return self.cost_usd[m, h, level].sum(1) + self.end_usd(end_kwh)

    def plan_use(self, level: IntArray) -> FloatArray:
        """Use (M, H * S) of plans (M, H): resource ``h * S + s``."""
        power = np.take_along_axis(self.power_kw, level, 1)
        return (power[:, :, None] * self.coupling[:, None, :]).reshape(self.n_units, -1)


class Lattice(NamedTuple):
    """Reachable states of all units. Those of unit i are ``begin[i]`` on, stage by stage, the last a dead end."""

    begin: IntArray  # (M + 1,)
    stage: IntArray  # (M, H + 2) first state of each stage, counted from begin; then that of the dead end
    energy_kwh: FloatArray  # (states,)
    end_usd: FloatArray  # (states,) of ending there, 0 before the last stage
    following: NDArray[np.int32]  # (states, L) where a level leads to, counted from begin; the dead end if nowhere

    @property
    def widest(self) -> int:
        """Most states of one unit."""
        return int(np.diff(self.begin).max(initial=1))


def reachable(units: StorageUnits) -> Lattice:
    """All states of all units, stage by stage."""
    m, n_stages, n_levels = units.allowed.shape
    begin, stage = np.zeros(m + 1, np.int64), np.zeros((m, n_stages + 2), np.int64)
    room = max(m, 1) * STATES_AT_FIRST
    while room <= 2 * MOST_STATES:
        energy, following = np.empty(room), np.empty((room, n_levels), np.int32)
        limits = units.start_kwh, units.least_kwh - SAME_KWH, units.most_kwh + SAME_KWH
        room_to_merge = np.empty(n_levels, np.int64), np.empty(n_levels)
        if _reach(units.rise_kwh, units.allowed, units.off, *limits, begin, stage, energy, following, *room_to_merge):
            used = begin[-1]
            energy, following, end = energy[:used], following[:used], np.zeros(used)
            worth = units.grid_kwh, units.worth_usd, units.target_kwh, units.shortfall_usd_kwh
            _value_ends(begin, stage, energy, *worth, end)
            return Lattice(begin, stage, energy, end, following)
        room *= 2
    raise UserError(
        f"more than {MOST_STATES:,} reachable energies: use fewer stages, fewer levels or evenly spaced ones"
    )


@compiled
def _reach(
    rise: FloatArray,
    allowed: BoolArray,
    off: int,
    start: FloatArray,
    least: FloatArray,
    most: FloatArray,
    begin: IntArray,
    stage: IntArray,
    energy: FloatArray,
    following: IntArray,
    pointer: IntArray,
    head: FloatArray,
) -> bool:  # pragma: no cover
    """Fill the lattice; whether there was room. Each stage merges the last one's states, shifted by each level."""
    n_stages, n_levels = allowed.shape[1], allowed.shape[2]
    for i in range(len(start)):
        base = begin[i]
        if base + 2 > len(energy):
            return False
        energy[base] = start[i]
        low, high = base, base + 1
        for t in range(n_stages):
            stage[i, t] = low - base
            end = high
            for k in range(n_levels):
                pointer[k] = low if allowed[i, t, k] or k == off else high
                for s in range(low, high):
                    following[s, k] = -1
                head[k] = energy[low] + rise[i, k] if pointer[k] < high else np.inf
            while True:
                lowest = np.inf
                for k in range(n_levels):
                    lowest = min(lowest, head[k])
                if lowest == np.inf:
                    break
                if end + 1 >= len(energy):
                    return False
                possible = False
                for k in range(n_levels):
                    if head[k] <= lowest + SAME_KWH:
                        gain = rise[i, k]
                        above, below = gain > 0.0 and lowest > most[i], gain < 0.0 and lowest < least[i]
                        if not above and not below:
                            following[pointer[k], k] = end - base
                            possible = True
                        pointer[k] += 1
                        head[k] = energy[pointer[k]] + gain if pointer[k] < high else np.inf
                if possible:
                    energy[end] = lowest
                    end += 1
            low, high = high, end
        stage[i, n_stages] = low - base
        stage[i, n_stages + 1] = high - base
        energy[high] = np.nan
        for s in range(base, low):
            for k in range(n_levels):
                if following[s, k] < 0:
                    following[s, k] = high - base
        for s in range(low, high + 1):
            for k in range(n_levels):
                following[s, k] = high - base
        begin[i + 1] = high + 1
    return True


@compiled
def _value_ends(
    begin: IntArray,
    stage: IntArray,
    energy: FloatArray,
    grid: FloatArray,
    worth: FloatArray,
    target: FloatArray,
    shortfall: FloatArray,
    end_usd: FloatArray,
) -> None:  # pragma: no cover
    """Write the cost of ending in each state of the last stage."""
    last = stage.shape[1] - 2
    for i in range(len(stage)):
        k = 0
        for s in range(begin[i] + stage[i, last], begin[i] + stage[i, last + 1]):
            e = energy[s]
            while k < grid.shape[1] - 2 and e >= grid[i, k + 1]:
                k += 1
            share = (e - grid[i, k]) / (grid[i, k + 1] - grid[i, k])
            kept = worth[i, k] * (1.0 - share) + worth[i, k + 1] * share
            end_usd[s] = shortfall[i] * max(target[i] - e, 0.0) - kept


@compiled
def cheapest(
    lattice: Lattice,
    cost: FloatArray,
    power: FloatArray,
    weight: FloatArray,
    i: int,
    value: FloatArray,
    stage_usd: FloatArray,
    plan: IntArray,
) -> tuple[Any, Any]:  # pragma: no cover
    """Write unit i's cheapest plan (H,) at the prices ``weight`` (H,) per kW; its cost with and without them.

    ``value`` and ``stage_usd`` (H, L) are room to work.
    """
    base, n_stages, n_levels = lattice.begin[i], len(plan), power.shape[1]
    dead = lattice.stage[i, n_stages + 1]
    value[dead] = np.inf
    for s in range(lattice.stage[i, n_stages], dead):
        value[s] = lattice.end_usd[base + s]
    for t in range(n_stages - 1, -1, -1):
        for k in range(n_levels):
            stage_usd[t, k] = cost[i, t, k] + weight[t] * power[i, k]
        for s in range(lattice.stage[i, t], lattice.stage[i, t + 1]):
            least = np.inf
            for k in range(n_levels):
                least = min(least, stage_usd[t, k] + value[lattice.following[base + s, k]])
            value[s] = least
    s, own = 0, 0.0
    for t in range(n_stages):
        best, least = 0, np.inf
        for k in range(n_levels):
            worth = stage_usd[t, k] + value[lattice.following[base + s, k]]
            if worth < least:
                best, least = k, worth
        plan[t] = best
        own += cost[i, t, best]
        s = lattice.following[base + s, best]
    return value[0], own + lattice.end_usd[base + s]
