"""The Mobile CSP world, batched: draws scenarios, keeps the state of B episodes, steps them in place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qevgrid.envs.direct import Direct
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp import kernel, model, observe
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, Action, Fleet, Sites, Tariff, Units, World
from qevgrid.envs.mobile_csp.forecast import BEFORE_STORM, Outlook, expected, scenarios
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.plant import Plant, build_plant
from qevgrid.envs.mobile_csp.scenario import Sampler, Scenario, whole_travel
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray

NOTHING = np.empty((0, 0), np.float32)


@dataclass
class View:
    """All that a controller may know of B running episodes at their present stage. Arrays are copies."""

    stage: IntArray  # (B,) the present period; -1: before the storm
    units: Units
    acting: IntArray  # (B,) sequential form: the unit whose turn it is, -1 at the end; -2: all idle ones at once
    gust_mph: FloatArray  # (B,) as measured, or as forecast before the storm
    mask: BoolArray  # (B, A, L) choices that can be followed as they are
    fleet: Fleet
    sites: Sites
    tariff: Tariff
    whole_travel: Any  # (D, D) int16, travel periods while all roads are open: counts before the storm
    plant: Plant
    _scenario: Scenario
    _tape: World  # (T, B, ...) the scenario's, as the kernel reads it
    _known: Float32Array  # (T + 1 + before, B, G) what of the observation units do not touch
    backlog_kwh: FloatArray = field(default_factory=kernel.NOTHING_KWH.copy)  # (B, E, 2) vehicles that wait

    def forecast(self, outlook: Outlook | None = None) -> World:
        """Expected world over all T periods; up to the present as it was. See ``forecast.expected``."""
        return expected(self.plant, self._scenario, self.stage, outlook)

    def scenarios(
        self, n: int, rng: np.random.Generator, outlook: Outlook | None = None, rows: slice = slice(None)
    ) -> World:
        """``n`` worlds for each of some rows that may come true, (rows * n, T, ...). See ``forecast.scenarios``."""
        *facts, world = self._scenario
        chosen = Scenario._make((*(x[rows] for x in facts), World._make(x[rows] for x in world)))
        return scenarios(self.plant, chosen, self.stage[rows], n, rng, outlook)


class MobileCore:
    """Constant part of the world, all units choosing at once. ``Batch`` holds the running episodes."""

    single_choice = False
    reported = ("refused",)

    def __init__(self, params: MobileCSPParams) -> None:
        self.params = params
        self.plant = build_plant(params)
        self.sampler = Sampler(self.plant)
        self.labels = observe.labels(params)
        self.weights = np.ones(len(model.COST_TERMS))
        self.levels = np.linspace(-1.0, 1.0, params.n_levels) if params.power == "levels" else np.empty(0)
        sites, levels = len(params.sites), len(self.levels)
        self._goal = np.concatenate([np.arange(sites), np.full(levels, STAY)])  # of each choice
        self._share = np.concatenate([np.full(sites, AUTO), self.levels])
        self.first_stage = BEFORE_STORM if params.preposition else 0
        self.rules = _rules(self.plant, self.first_stage, self.levels)

    @property
    def n_sites(self) -> int:
        """D."""
        return self.plant.n_sites

    @property
    def n_serving(self) -> int:
        """E, sites where vehicles are charged."""
        return len(self.plant.service.site)

    @property
    def n_units(self) -> int:
        """M."""
        return self.params.n_units

    @property
    def n_periods(self) -> int:
        """T."""
        return self.params.n_periods

    @property
    def n_stages(self) -> int:
        """Stages of an episode: T, and the decision before the storm."""
        return self.n_periods - self.first_stage

    @property
    def n_actions(self) -> int:
        """A, entries of an action: one a unit."""
        return self.n_units

    @property
    def n_choices(self) -> int:
        """L: sites, and power levels."""
        return self.n_sites + len(self.levels)

    @property
    def cost_terms(self) -> tuple[str, ...]:
        """Names of the entries of ``Outcome.cost_usd``."""
        return model.COST_TERMS

    def decode(self, choice: IntArray) -> Action:
        """Choices (B, A): d < D goes to site d, D + k stays at power level k."""
        return Action(self._goal[choice], self._share[choice])

    def notes(self) -> dict[str, Any]:
        """Clock hour of period 0."""
        return {"start_h": self.params.start_h}

    def check(self, scenario: Scenario, size: int) -> None:
        """Raise ``UserError`` unless ``scenario`` holds ``size`` episodes of these parameters."""
        if not isinstance(scenario, Scenario):
            raise UserError(f"a scenario must be a Mobile CSP Scenario, not {type(scenario).__name__}")
        lines, roads = self.plant.feeder.n_line, len(self.plant.roads.tail)
        world = scenario.world
        shapes = (world.need_kw.shape, scenario.line_h.shape, scenario.road_h.shape, world.arrivals_kwh.shape[2:])
        needed = ((size, self.n_periods, self.n_sites), (size, lines), (size, roads), (self.n_serving, 2))
        if shapes != needed:
            raise UserError(
                f"the scenario's needs, lines, roads and arrivals have shapes {shapes}, but these parameters need {needed}; "
                "draw it with the same parameters"
            )

    def batch(self, size: int) -> Any:
        """Room for ``size`` episodes."""
        return Batch(self, size)


class Batch:
    """B episodes side by side, all units choosing at once. ``step`` moves all by one stage."""

    def __init__(self, core: MobileCore, size: int) -> None:
        self.core, self.size = core, size
        m, d = core.n_units, core.n_sites
        self.state = kernel.State(
            stage=np.full(size, core.n_periods, np.int64),
            site=np.full((size, m), core.plant.start_site, np.int64),
            arrival=np.zeros((size, m), np.int64),
            energy_kwh=np.full((size, m), core.plant.start_kwh),
            backlog_kwh=np.zeros((size, core.n_serving, 2)),
        )
        self.outcome = kernel.Outcome(
            charge_kw=np.zeros((size, m)),
            discharge_kw=np.zeros((size, m)),
            connected=np.zeros((size, m), bool),
            served_kw=np.zeros((size, d)),
            refused=np.zeros(size, np.int64),
            cost_usd=np.zeros((size, len(model.COST_TERMS))),
            curtailed_kwh=np.zeros(size),
            total_usd=np.zeros(size),
            reward=np.zeros(size),
            vehicle_kwh=np.zeros((size, core.n_serving, 2)),
        )
        self.scratch = scratch(m, d)
        self.recorder: Callable[[Batch], None] | None = None  # called after every period
        self.all_rows, self.all_units = np.ones(size, bool), np.full(size, kernel.ALL, np.int64)
        self._mask = np.empty((size, m, core.n_choices), bool)
        self._mask_is_fresh = False
        self.tape: World  # (T, B, ...) as the kernel reads it
        self.known: Float32Array  # (T + 1 + before, B, G) observation entries that units do not touch
        self._facts: list[Any]  # the other fields of the scenarios
        self._running = False
        self._step, self._observe = Direct(kernel.step), Direct(kernel.observe)
        self._horizon = core.n_periods

    @property
    def scenario(self) -> Scenario:
        """The whole truth; its world looks at ``tape``."""
        return Scenario._make((*self._facts, self.world))

    @property
    def world(self) -> World:
        """What happens, (B, T, ...)."""
        return World._make(x.swapaxes(0, 1) for x in self.tape)

    def start(self, rows: IntArray, rngs: list[np.random.Generator]) -> None:
        """Draw new scenarios for ``rows`` from their generators and put them at their beginning."""
        self.load(rows, self.core.sampler.sample(rngs))

    def load(self, rows: IntArray, scenario: Scenario) -> None:
        """Put given scenarios (batch axis = ``rows``) at their beginning."""
        known = observe.tabulate(self.core.plant, scenario)
        if not self._running:
            self._facts = [np.zeros((self.size, *x.shape[1:]), x.dtype) for x in scenario[:-1]]
            self.tape = World._make(_by_period(x, self.size) for x in scenario.world)
            self.known = _by_period(known, self.size)
            self._running = True
        for mine, new in zip(self._facts, scenario[:-1], strict=True):
            mine[rows] = new
        for mine, new in zip((*self.tape, self.known), (*scenario.world, known), strict=True):
            mine[:, rows] = new.swapaxes(0, 1)
        self._mask_is_fresh = False
        self.state.stage[rows] = self.core.first_stage
        self.state.site[rows] = self.core.plant.start_site
        self.state.arrival[rows] = self.core.first_stage
        self.state.energy_kwh[rows] = self.core.plant.start_kwh
        self.state.backlog_kwh[rows] = 0.0

    def step(self, action: Action, out: Float32Array | None = None) -> None:
        """One stage; results are in ``outcome`` and ``state``, the observations after it in ``out``."""
        self.advance(action, self.all_rows, out)

    def advance(self, action: Action, active: BoolArray, out: Float32Array | None = None) -> None:
        """One stage of the rows that are ``active`` (B,); then the observations of all."""
        core, obs = self.core, NOTHING if out is None else out
        args = (self.state, self.outcome, self.scratch, action.site, action.share, active, obs, self._mask)
        self._step(core.rules, self.tape, self.known, *args)
        self._mask_is_fresh = out is not None
        if self.recorder is not None:
            self.recorder(self)

    def observe(self, out: Float32Array | None = None) -> Float32Array:
        """Observations (B, O), written to ``out`` when given."""
        return self.describe(self.state, self.all_units, self._mask, out)

    def describe(
        self, state: kernel.State, acting: IntArray, mask: BoolArray, out: Float32Array | None
    ) -> Float32Array:
        """Observations of a state in which it is the turn of the units ``acting`` (B,); its masks go to ``mask``."""
        if out is None:
            out = np.empty((self.size, len(self.core.labels)), np.float32)
        self._observe(self.core.rules, self.tape, self.known, state, self.scratch, acting, out, mask)
        return out

    @property
    def over(self) -> BoolArray:
        """Episodes that have reached their horizon, (B,)."""
        return self.state.stage >= self._horizon

    def view(self) -> View:
        """What a controller may know now."""
        return self.look(self.state, self.all_units, self.mask())

    def look(self, state: kernel.State, acting: IntArray, mask: BoolArray) -> View:
        """``view`` of a state in which it is the turn of ``acting`` (B,)."""
        plant = self.core.plant
        return View(
            stage=state.stage.copy(),
            units=Units(state.site.copy(), state.arrival.copy(), state.energy_kwh.copy()),
            acting=acting.copy(),
            gust_mph=self._facts[0].copy(),
            mask=mask,
            fleet=plant.fleet,
            sites=plant.sites,
            tariff=plant.tariff,
            whole_travel=self.core.rules.whole,
            plant=plant,
            _scenario=self.scenario,
            _tape=self.tape,
            _known=self.known,
            backlog_kwh=state.backlog_kwh.copy(),
        )

    def mask(self) -> BoolArray:
        """Choices that can be followed as they are, (B, M, L); to stay always can."""
        if not self._mask_is_fresh:
            self.choices(self.state, self.all_units, self._mask)
        return self._mask.copy()

    def choices(self, state: kernel.State, acting: IntArray, out: BoolArray) -> BoolArray:
        """``mask`` of a state, of all units or of the one ``acting`` in each row, written to ``out``."""
        kernel.mask(self.core.rules, self.tape, state, self.scratch, acting, out)
        return out


def _by_period(x: Any, size: int) -> Any:
    """Room for arrays like ``x`` (rows, T, ...) of ``size`` episodes, periods first."""
    return np.zeros((x.shape[1], size, *x.shape[2:]), x.dtype)


def scratch(m: int, d: int) -> kernel.Scratch:
    """Room for the kernel: M units, D sites."""
    return kernel.Scratch(
        share=np.zeros(m),
        staying=np.zeros(m, bool),
        order=np.zeros(m, np.int64),
        taken=np.zeros(d, np.int64),
        room_kw=np.zeros(d),
        supply_kw=np.zeros(d),
        pv_kw=np.zeros(d),
        used_kw=np.zeros(d),
        offered_kw=np.zeros(d),
    )


def _rules(plant: Plant, first_stage: int, levels: FloatArray) -> kernel.Rules:
    """Constants of the transition."""
    voll = plant.sites.voll_usd_kwh
    _, capacity, floor, power, eta_charge, eta_discharge = plant.fleet
    return kernel.Rules(
        voll,
        plant.sites.slots,
        np.array([d for d in np.argsort(-voll, kind="stable") if plant.ground.critical[d]], np.int64),
        whole_travel(plant),
        levels,
        1.0 / np.maximum(plant.sites.slots, 1),
        capacity,
        floor,
        power,
        eta_charge,
        eta_discharge,
        *plant.tariff,
        reward_scale=plant.params.reward_scale,
        first_stage=first_stage,
        per_travel=plant.params.dt_h / observe.TRAVEL_SCALE_H,
        per_kwh=1.0 / capacity,
        service=plant.service,
    )
