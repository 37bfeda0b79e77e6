"""The sequential form: idle units choose one after another within a period, then the period is played.

A stage of this form is the choice of one unit. Each sees what was chosen before it in the same period: those who
leave are already under way, and their slots taken. A period in which nobody is idle passes by itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp import kernel
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, UNREACHABLE, Action, World
from qevgrid.envs.mobile_csp.core import Batch, MobileCore, View
from qevgrid.envs.mobile_csp.scenario import Scenario
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

NOBODY = -1


class SequentialCore(MobileCore):
    """Constant part of the sequential form: one choice at a time."""

    single_choice = True

    @property
    def n_actions(self) -> int:
        """A = 1: the choice of the unit whose turn it is."""
        return 1

    def batch(self, size: int) -> Any:
        """Room for ``size`` episodes."""
        return SequentialBatch(self, size)


class SequentialBatch:
    """B episodes side by side, each waiting for the choice of its ``acting`` unit."""

    def __init__(self, core: SequentialCore, size: int) -> None:
        self.core, self.size = core, size
        self.periods = Batch(core, size)
        state = self.periods.state
        self.shown = kernel.State(state.stage, state.site.copy(), state.arrival.copy(), state.energy_kwh)
        self.chosen = Action(np.full(state.site.shape, STAY, np.int64), np.full(state.site.shape, AUTO))
        self.acting = np.full(size, NOBODY, np.int64)
        self.outcome: Any = kernel.Outcome._make(x.copy() for x in self.periods.outcome)  # units and sites: unused

    @property
    def scenario(self) -> Scenario:
        """The whole truth."""
        return self.periods.scenario

    @property
    def world(self) -> World:
        """What happens, (B, T, ...)."""
        return self.periods.world

    @property
    def state(self) -> kernel.State:
        """Units before any choice of the present period."""
        return self.periods.state

    @property
    def recorder(self) -> Callable[[Batch], None] | None:
        """Called after every period."""
        return self.periods.recorder

    @recorder.setter
    def recorder(self, recorder: Callable[[Batch], None] | None) -> None:
        self.periods.recorder = recorder

    def start(self, rows: IntArray, rngs: list[np.random.Generator]) -> None:
        """Draw new scenarios for ``rows`` from their generators and put them at their beginning."""
        self.periods.start(rows, rngs)
        self._turn(rows)

    def load(self, rows: IntArray, scenario: Scenario) -> None:
        """Put given scenarios (batch axis = ``rows``) at their beginning."""
        self.periods.load(rows, scenario)
        self._turn(rows)

    def step(self, action: Action, out: Float32Array | None = None) -> None:
        """The choice (B, 1) of each row's acting unit; ``outcome`` sums the periods that were played after it."""
        world, state = self.world, self.state
        ready = _choose(world, state, self.shown, self.chosen, self.acting, action.site, action.share)
        _clear(self.outcome)
        while ready.any():
            self.periods.advance(self.chosen, ready)
            _add(self.outcome, self.periods.outcome, ready)
            ready = self._turn(np.flatnonzero(ready))
        if out is not None:
            self.observe(out)

    def _turn(self, rows: IntArray) -> BoolArray:
        """Begin a period in ``rows``; tells (B,) where it has to pass because nobody is idle."""
        ready = np.zeros(self.size, bool)
        _begin(self.state, self.shown, self.chosen, self.acting, rows, self.core.n_periods, ready)
        return ready

    def observe(self, out: Float32Array | None = None) -> Float32Array:
        """Observations (B, O), written to ``out`` when given."""
        return self.periods.describe(self.shown, self.acting, out)

    @property
    def over(self) -> BoolArray:
        """Episodes that have reached their horizon, (B,)."""
        return self.periods.over

    def view(self) -> View:
        """What a controller may know now; units that have chosen to leave are under way."""
        return self.periods.look(self.shown, self.acting, self.mask())

    def mask(self) -> BoolArray:
        """Choices of the acting unit that can be followed as they are, (B, 1, L); to stay always can."""
        out = np.empty((self.size, 1, self.core.n_choices), bool)
        return self.periods.choices(self.shown, self.acting, out)


@njit(cache=True)
def _choose(
    world: World,
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    site: IntArray,
    share: FloatArray,
) -> BoolArray:  # pragma: no cover - compiled
    """Note the choices and pass the turn on; returns (B,) the rows in which all have chosen."""
    ready = np.zeros(len(acting), np.bool_)
    for b in range(len(acting)):
        i = acting[b]
        if i < 0:
            continue
        t, here, d = state.stage[b], state.site[b, i], site[b, 0]
        chosen.site[b, i] = d
        chosen.share[b, i] = share[b, 0]
        if d >= 0 and d != here and t < 0:
            shown.site[b, i] = d
        elif d >= 0 and d != here and world.travel[b, t, here, d] < UNREACHABLE:
            shown.site[b, i] = d
            shown.arrival[b, i] = t + world.travel[b, t, here, d]
        acting[b] = _next_idle(state, b, i + 1)
        ready[b] = acting[b] < 0
    return ready


@njit(cache=True)
def _begin(
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    rows: IntArray,
    periods: int,
    ready: BoolArray,
) -> None:  # pragma: no cover - compiled
    for b in rows:
        for i in range(state.site.shape[1]):
            shown.site[b, i] = state.site[b, i]
            shown.arrival[b, i] = state.arrival[b, i]
            chosen.site[b, i] = STAY
            chosen.share[b, i] = AUTO
        running = state.stage[b] < periods
        acting[b] = _next_idle(state, b, 0) if running else NOBODY
        ready[b] = running and acting[b] < 0


@njit(cache=True)
def _next_idle(state: kernel.State, b: int, first: int) -> int:  # pragma: no cover - compiled
    for i in range(first, state.site.shape[1]):
        if state.arrival[b, i] <= state.stage[b]:
            return i
    return NOBODY


@njit(cache=True)
def _clear(total: kernel.Outcome) -> None:  # pragma: no cover - compiled
    total.cost_usd[:] = 0.0
    total.curtailed_kwh[:] = 0.0
    total.refused[:] = 0
    total.total_usd[:] = 0.0
    total.reward[:] = 0.0


@njit(cache=True)
def _add(total: kernel.Outcome, period: kernel.Outcome, rows: BoolArray) -> None:  # pragma: no cover - compiled
    for b in range(len(rows)):
        if rows[b]:
            for k in range(total.cost_usd.shape[1]):
                total.cost_usd[b, k] += period.cost_usd[b, k]
            total.curtailed_kwh[b] += period.curtailed_kwh[b]
            total.refused[b] += period.refused[b]
            total.total_usd[b] += period.total_usd[b]
            total.reward[b] += period.reward[b]
