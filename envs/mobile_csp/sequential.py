"""The sequential form: idle units choose one after another within a period, then the period is played.

A stage of this form is the choice of one unit. Each sees what was chosen before it in the same period: those who
leave are already under way, and their slots taken. A period in which nobody is idle passes by itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.direct import Direct
from qevgrid.envs.mobile_csp import kernel
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, UNREACHABLE, Action, World
from qevgrid.envs.mobile_csp.core import Batch, MobileCore, View, scratch
from qevgrid.envs.mobile_csp.scenario import Scenario
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

NOBODY = -1


class Sums(NamedTuple):
    """What the periods after a choice cost; shapes as in ``kernel.Outcome``."""

    cost_usd: FloatArray
    curtailed_kwh: FloatArray
    refused: IntArray
    total_usd: FloatArray
    reward: FloatArray


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
        self.shown = kernel.State(
            state.stage, state.site.copy(), state.arrival.copy(), state.energy_kwh, state.backlog_kwh
        )
        self.chosen = Action(np.full(state.site.shape, STAY, np.int64), np.full(state.site.shape, AUTO))
        self.acting = np.full(size, NOBODY, np.int64)
        self.outcome = Sums._make(np.zeros_like(getattr(self.periods.outcome, name)) for name in Sums._fields)
        self._period = Sums._make(getattr(self.periods.outcome, name) for name in Sums._fields)
        self._mask = np.empty((size, 1, core.n_choices), bool)
        self._mask_is_fresh = False
        self._choose, self._go_on = Direct(_choose), Direct(_go_on)

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
        self._mask_is_fresh = False
        units = (self.state, self.shown, self.chosen, self.acting)
        ready = self._choose(self.periods.tape.travel, *units, action.site, action.share, self.outcome)
        more = ready.any()
        while more:
            self.periods.advance(self.chosen, ready)
            more = self._go_on(*units, self.core.n_periods, ready, self.outcome, self._period)
        if out is not None:
            self.observe(out)
            self._mask_is_fresh = True

    def _turn(self, rows: IntArray) -> None:
        """Begin the first period in ``rows``: all units are idle."""
        self._mask_is_fresh = False
        for b in rows:
            _begin(self.state, self.shown, self.chosen, self.acting, b, self.core.n_periods)

    def observe(self, out: Float32Array | None = None) -> Float32Array:
        """Observations (B, O), written to ``out`` when given."""
        return self.periods.describe(self.shown, self.acting, self._mask, out)

    @property
    def over(self) -> BoolArray:
        """Episodes that have reached their horizon, (B,)."""
        return self.periods.over

    def view(self) -> View:
        """What a controller may know now; units that have chosen to leave are under way."""
        return self.periods.look(self.shown, self.acting, self.mask())

    def mask(self) -> BoolArray:
        """Choices of the acting unit that can be followed as they are, (B, 1, L); to stay always can."""
        if not self._mask_is_fresh:
            self.periods.choices(self.shown, self.acting, self._mask)
        return self._mask.copy()


class Turns:
    """The turns of one period apart from any batch: a policy of this form decides for all units of a ``View``.

    What it shows is to the byte what a `SequentialBatch` in the same state shows. The view is one of a period's
    beginning.

    >>> turns = Turns(core, view)  # doctest: +SKIP
    >>> while turns.left:
    ...     turns.choose(core.decode(policy(*turns.look())))
    >>> batch.step(turns.chosen)
    """

    def __init__(self, core: MobileCore, view: View) -> None:
        self.core, self.view = core, view
        size = len(view.stage)
        units = view.units
        self.state = kernel.State(view.stage, units.site, units.arrival, units.energy_kwh, view.backlog_kwh)
        self.shown = self.state._replace(site=units.site.copy(), arrival=units.arrival.copy())
        self.chosen = Action(np.full(self.state.site.shape, STAY, np.int64), np.full(self.state.site.shape, AUTO))
        self.acting = np.full(size, NOBODY, np.int64)
        self._scratch = scratch(core.n_units, core.n_sites)
        for b in range(size):
            _begin(self.state, self.shown, self.chosen, self.acting, b, core.n_periods)

    @property
    def left(self) -> bool:
        """Whether some row still waits for a choice."""
        return bool((self.acting != NOBODY).any())

    def look(self) -> tuple[Float32Array, BoolArray]:
        """Observations (B, O) and masks (B, L) of the acting units; those of rows without a turn mean nothing."""
        view, size = self.view, len(self.acting)
        obs = np.empty((size, len(self.core.labels)), np.float32)
        mask = np.empty((size, 1, self.core.n_choices), bool)
        args = (self.shown, self._scratch, self.acting, obs, mask)
        kernel.observe(self.core.rules, view._tape, view._known, *args)
        return obs, mask[:, 0]

    def choose(self, action: Action) -> None:
        """The choice (B, 1) of each row's acting unit."""
        units = (self.state, self.shown, self.chosen, self.acting)
        _choose_all(self.view._tape.travel, *units, action.site, action.share)


@njit(cache=True)
def _choose(
    travel: Any,
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    site: IntArray,
    share: FloatArray,
    sums: Sums,
) -> BoolArray:  # pragma: no cover - compiled
    """Note the choices and pass the turn on; returns (B,) the rows in which all have chosen."""
    ready = np.zeros(len(acting), np.bool_)
    for b in range(len(acting)):
        for k in range(sums.cost_usd.shape[1]):
            sums.cost_usd[b, k] = 0.0
        sums.curtailed_kwh[b], sums.refused[b], sums.total_usd[b], sums.reward[b] = 0.0, 0, 0.0, 0.0
        ready[b] = _choose_one(travel, state, shown, chosen, acting, b, site, share)
    return ready


@njit(cache=True)
def _choose_all(
    travel: Any,
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    site: IntArray,
    share: FloatArray,
) -> None:  # pragma: no cover - compiled
    for b in range(len(acting)):
        _choose_one(travel, state, shown, chosen, acting, b, site, share)


@njit(cache=True)
def _choose_one(
    travel: Any,
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    b: int,
    site: IntArray,
    share: FloatArray,
) -> bool:  # pragma: no cover - compiled
    """Note the choice of row ``b`` and pass the turn on; tells whether all have chosen now."""
    i = acting[b]
    if i < 0:
        return False
    t, here, d = state.stage[b], state.site[b, i], site[b, 0]
    chosen.site[b, i] = d
    chosen.share[b, i] = share[b, 0]
    if d >= 0 and d != here and t < 0:
        shown.site[b, i] = d
    elif d >= 0 and d != here and travel[t, b, here, d] < UNREACHABLE:
        shown.site[b, i] = d
        shown.arrival[b, i] = t + travel[t, b, here, d]
    acting[b] = _next_idle(state, b, i + 1)
    return acting[b] < 0


@njit(cache=True)
def _go_on(
    state: kernel.State,
    shown: kernel.State,
    chosen: Action,
    acting: IntArray,
    periods: int,
    ready: BoolArray,
    sums: Sums,
    period: Sums,
) -> bool:  # pragma: no cover - compiled
    """Add what a period cost in the rows that were ``ready`` and begin the next; where nobody is idle it is ready.

    Tells whether some row is.
    """
    more = False
    for b in range(len(ready)):
        if ready[b]:
            for k in range(sums.cost_usd.shape[1]):
                sums.cost_usd[b, k] += period.cost_usd[b, k]
            sums.curtailed_kwh[b] += period.curtailed_kwh[b]
            sums.refused[b] += period.refused[b]
            sums.total_usd[b] += period.total_usd[b]
            sums.reward[b] += period.reward[b]
            _begin(state, shown, chosen, acting, b, periods)
            ready[b] = acting[b] < 0 and state.stage[b] < periods
            more |= ready[b]
    return more


@njit(cache=True)
def _begin(
    state: kernel.State, shown: kernel.State, chosen: Action, acting: IntArray, b: int, periods: int
) -> None:  # pragma: no cover - compiled
    """Row ``b`` at the beginning of a period: nothing chosen, the first idle unit's turn."""
    for i in range(state.site.shape[1]):
        shown.site[b, i] = state.site[b, i]
        shown.arrival[b, i] = state.arrival[b, i]
        chosen.site[b, i] = STAY
        chosen.share[b, i] = AUTO
    acting[b] = _next_idle(state, b, 0) if state.stage[b] < periods else NOBODY


@njit(cache=True)
def _next_idle(state: kernel.State, b: int, first: int) -> int:  # pragma: no cover - compiled
    for i in range(first, state.site.shape[1]):
        if state.arrival[b, i] <= state.stage[b]:
            return i
    return NOBODY
