"""The V2G world, batched: draws scenarios, keeps the state of B episodes, steps them in place."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from qevgrid.envs.direct import Direct
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, Float32Array, FloatArray, IntArray
from qevgrid.envs.v2g import arrays, exact, kernel, model, observe
from qevgrid.envs.v2g.files import load_days
from qevgrid.envs.v2g.forecast import Forecast, dark_h, forecast
from qevgrid.envs.v2g.params import PRICE_KINDS, V2GParams
from qevgrid.envs.v2g.plant import Plant, build_plant
from qevgrid.envs.v2g.scenario import Sampler, Scenario
from qevgrid.envs.v2g.sessions import Sessions

EXOGENOUS = arrays.World._fields[: arrays.World._fields.index("arrival")]
"""Fields of the kernel's world that a scenario has under the same name; its sessions follow."""
NOTHING = np.empty((0, 0), np.float32)


@dataclass
class View:
    """All that a controller may know of B running episodes at their present stage.

    Arrays are copies; a socket without a vehicle holds zeros. ``forecast(H)`` looks ahead without
    peeking, ``risk`` and the window are as published.
    """

    stage: IntArray  # (B,)
    plugged: BoolArray  # (B, N)
    energy_kwh: FloatArray  # (B, N)
    target_kwh: FloatArray  # (B, N)
    capacity_kwh: FloatArray  # (B, N)
    floor_kwh: FloatArray  # (B, N)
    arrival: IntArray  # (B, N) stage at which the vehicle came
    declared: IntArray  # (B, N) stage of the announced departure
    charge_kw: FloatArray  # (B, N) limit of charger and vehicle
    discharge_kw: FloatArray  # (B, N)
    outage: BoolArray  # (B, D)
    dark_h: FloatArray  # (B, D) hours since the site lost its supply, 0 while it has it
    risk: FloatArray  # (B,)
    window_open: FloatArray  # (B,) first stage at which it may start, as published
    window_close: FloatArray  # (B,)
    plant: Plant
    _scenario: Scenario

    def forecast(self, horizon: int) -> Forecast:
        """Expected values from now on for ``horizon`` stages; shapes as in ``Forecast``."""
        return forecast(self.plant.params, self._scenario, self.stage, horizon)


class V2GCore:
    """Constant part of the world. ``Batch`` holds the running episodes."""

    single_choice = False
    reported = ()

    def __init__(self, params: V2GParams) -> None:
        self.params = params
        self.plant = build_plant(params)
        self.files = load_days(self.plant)
        self.sampler = Sampler(self.plant, self.files)
        self.price_scale_usd_kwh = self._price_scale()
        self.tabulator = observe.Tabulator(params, self.sampler.clock_h, self.price_scale_usd_kwh)
        self.arrays = _kernel_arrays(self.plant)
        self.labels = observe.labels(params)
        self.weights = model.term_weights(params.cost)
        self.levels = np.linspace(-1.0, 1.0, params.n_levels)

    @property
    def n_sockets(self) -> int:
        """N."""
        return self.params.n_sockets

    @property
    def n_stages(self) -> int:
        """T, stages of an episode."""
        return self.params.n_stages

    @property
    def n_actions(self) -> int:
        """Entries of an action: one a socket."""
        return self.params.n_sockets

    @property
    def n_choices(self) -> int | None:
        """L with ``action="levels"``, else ``None``."""
        return self.params.n_levels if self.params.action == "levels" else None

    @property
    def cost_terms(self) -> tuple[str, ...]:
        """Names of the entries of ``Outcome.cost_usd``."""
        return model.COST_TERMS

    def decode(self, choice: IntArray) -> FloatArray:
        """Levels as fractions of the power."""
        return self.levels[choice]

    def notes(self) -> dict[str, Any]:
        """Clock hour of stage 0, and what the file loaders have to report."""
        report = self.files.report
        return {"start_h": float(self.sampler.start_h)} | ({"report": dict(report)} if report else {})

    def check(self, scenario: Scenario, size: int) -> None:
        """Raise ``UserError`` unless ``scenario`` holds ``size`` episodes of these parameters."""
        n, d, slots = self.n_sockets, self.plant.n_sites, self.sampler.slots
        if not isinstance(scenario, Scenario):
            raise UserError(f"a scenario must be a V2G Scenario, not {type(scenario).__name__}")
        shapes = (scenario.outage.shape, scenario.sessions.arrival.shape)
        needed = ((size, self.n_stages, d), (size, n, slots))
        if shapes != needed:
            raise UserError(
                f"the scenario's outages and sessions have shapes {shapes}, but these parameters "
                f"need {needed}; draw it with the same parameters"
            )

    def batch(self, size: int) -> "Batch":
        """Room for ``size`` episodes."""
        return Batch(self, size)

    def _price_scale(self) -> float:
        """Price that the observation shows as 1: half above the dearest hour of tariff or file."""
        if self.files.prices is not None:
            return 1.5 * self.files.high_usd_kwh
        if self.params.prices in PRICE_KINDS[1:]:
            return 1.0
        return float(1.5 * max(abs(price) for _, price in self.params.tariff_usd_kwh))


class Batch:
    """B episodes side by side. ``start`` begins some of them anew, ``step`` moves all by one stage."""

    def __init__(self, core: V2GCore, size: int) -> None:
        self.core, self.size = core, size
        n, d = core.n_sockets, core.plant.n_sites
        self.state = arrays.State(
            stage=np.full(size, core.n_stages, np.int64),
            slot=np.zeros((size, n), np.int64),
            plugged=np.zeros((size, n), bool),
            energy_kwh=np.zeros((size, n)),
        )
        socket, site, episode = [(size, n)] * 2, [(size, d)] * 4, [(size,)] * 4
        shapes = (*socket, *site, (size, len(model.COST_TERMS)), *episode)
        self.outcome = arrays.Outcome._make(np.zeros(shape) for shape in shapes)
        r = len(core.plant.rows.low)
        self._scratch = arrays.Scratch._make(np.zeros(k) for k in (d, d, d, r, r, r))
        self.scenario: Scenario
        self.world: arrays.World
        self._running = False
        self._step, self._mask, self._horizon = Direct(kernel.step), Direct(kernel.mask), core.n_stages

    def start(self, rows: IntArray, rngs: list[np.random.Generator]) -> None:
        """Draw new scenarios for ``rows`` from their generators and put them at stage 0."""
        self.load(rows, self.core.sampler.sample(rngs))

    def load(self, rows: IntArray, scenario: Scenario) -> None:
        """Put given scenarios (batch axis = ``rows``) at stage 0."""
        known = self.core.tabulator(scenario)
        if not self._running:
            self.scenario = _expand(scenario, self.size)
            self.world = _world(self.scenario, np.zeros((self.size, *known.shape[1:]), np.float32))
            self._running = True
        _assign(self.scenario, rows, scenario)
        self.world.known[rows] = known
        kernel.begin(self.world, self.state, np.asarray(rows, np.int64))

    def step(self, action: FloatArray, out: Float32Array | None = None) -> None:
        """One stage; results are in ``outcome`` and ``state``. ``action`` (B, N) in [-1, 1].

        Where ``out`` (B, O) is given, the observations after the stage are written to it.
        """
        obs = NOTHING if out is None else out
        before = self.state.stage.copy() if self.core.params.grid.model == "sweep" else None
        self._step(self.core.arrays, self.world, self.state, self.outcome, self._scratch, action, obs)
        if before is not None:
            last = self.core.n_stages - 1
            live = np.flatnonzero(before <= last)
            exact.reprice(self.core.plant, self.scenario, np.minimum(before, last), self.outcome, live)

    def observe(self, out: Float32Array | None = None) -> Float32Array:
        """Observations (B, O), written to ``out`` when given."""
        if out is None:
            out = np.empty((self.size, len(self.core.labels)), np.float32)
        kernel.observe(self.core.arrays, self.world, self.state, out)
        return out

    @property
    def over(self) -> BoolArray:
        """Episodes that have reached their horizon, (B,)."""
        return self.state.stage >= self._horizon

    def view(self) -> View:
        """What a controller may know now."""
        s, w, plant = self.state, self.world, self.core.plant
        slot = np.minimum(s.slot, w.arrival.shape[-1] - 1)[..., None]

        def of_vehicle(x: Any) -> Any:
            return np.where(s.plugged, np.take_along_axis(x, slot, -1)[..., 0], 0)

        limit = of_vehicle(w.limit_kw)
        at = np.minimum(s.stage, self.core.n_stages - 1)
        row = np.arange(self.size)
        return View(
            stage=s.stage.copy(),
            plugged=s.plugged.copy(),
            energy_kwh=s.energy_kwh.copy(),
            target_kwh=of_vehicle(w.target_kwh),
            capacity_kwh=of_vehicle(w.capacity_kwh),
            floor_kwh=of_vehicle(w.floor_kwh),
            arrival=of_vehicle(w.arrival),
            declared=of_vehicle(w.declared),
            charge_kw=np.minimum(plant.charge_kw, limit),
            discharge_kw=np.minimum(plant.discharge_kw, limit),
            outage=w.outage[row, at],
            dark_h=dark_h(self.scenario.outage, at, self.core.params.dt_h),
            risk=w.risk[row, at],
            window_open=self.scenario.window_open[row, at],
            window_close=self.scenario.window_close[row, at],
            plant=plant,
            _scenario=self.scenario,
        )

    def mask(self) -> BoolArray:
        """Levels at which something flows, (B, N, L), lines and islands aside; "off" always may be chosen."""
        out = np.empty((self.size, self.core.n_sockets, len(self.core.levels)), bool)
        self._mask(self.core.arrays, self.world, self.state, self.core.levels, out)
        return out


def _expand(scenario: Scenario, size: int) -> Scenario:
    """Empty arrays of the same shapes for ``size`` episodes."""

    def empty(x: np.ndarray) -> np.ndarray:
        return np.zeros((size, *x.shape[1:]), x.dtype)

    return Scenario._make(Sessions._make(map(empty, f)) if isinstance(f, Sessions) else empty(f) for f in scenario)


def _assign(target: Scenario, rows: IntArray, source: Scenario) -> None:
    """Copy ``source`` (batch axis = ``rows``) into ``target``, in place."""
    at = slice(None) if len(rows) == len(target.buy_usd_kwh) == 1 else rows  # a slice is cheaper
    for mine, new in zip(target, source, strict=True):
        if isinstance(mine, Sessions):
            for a, b in zip(mine, new, strict=True):
                a[at] = b
        else:
            mine[at] = new


def _world(scenario: Scenario, known: Float32Array) -> arrays.World:
    """The kernel's view of the same arrays (no copies)."""
    exogenous = (getattr(scenario, name) for name in EXOGENOUS)
    return arrays.World._make((*exogenous, *scenario.sessions, known))


def _kernel_arrays(plant: Plant) -> arrays.PlantArrays:
    """Plant and prices as the kernel reads them."""
    p, rows = plant.params, plant.rows
    return arrays.PlantArrays(
        site=plant.site,
        charge_min_kw=plant.charge_min_kw,
        charge_step_kw=plant.charge_step_kw,
        charge_kw=plant.charge_kw,
        discharge_kw=plant.discharge_kw,
        discharge_min_kw=plant.discharge_min_kw,
        no_step_kw=np.zeros(plant.n_sockets),
        load_coef=np.ascontiguousarray(rows.load_coef.T),
        ev_coef=np.ascontiguousarray(rows.ev_coef.T),
        pv_coef=np.ascontiguousarray(rows.pv_coef.T),
        base=np.ascontiguousarray(rows.base),
        low=np.ascontiguousarray(rows.low),
        high=np.ascontiguousarray(rows.high),
        generator_kw=p.site.per_site("generator_kw"),
        prices=model.unit_prices(p.cost),
        weights=model.term_weights(p.cost),
        constants=_constants(plant),
        n_critical=p.site.critical_blocks,
        n_other=p.site.other_blocks,
    )


def _constants(plant: Plant) -> FloatArray:
    """The single numbers that the kernel reads, each where ``arrays`` says."""
    p, values = plant.params, np.empty(arrays.N_CONSTANTS)
    values[arrays.DT_H] = p.dt_h
    values[arrays.ETA_CHARGE] = p.charger.eta_charge
    values[arrays.ETA_DISCHARGE] = p.charger.eta_discharge
    values[arrays.TAPER_SOC] = p.charger.taper_soc
    values[arrays.RESERVE_SHARE] = p.reserve.share
    values[arrays.RESERVE_RISK] = p.reserve.risk
    values[arrays.RESERVE_HOURS_H] = p.reserve.hours_h
    values[arrays.REWARD_SCALE] = p.reward_scale
    values[arrays.PER_DAY] = p.n_stages / p.days
    values[arrays.POWER_SCALE_KW] = plant.charge_kw.max()
    values[arrays.FLEET_KW] = max(plant.charge_kw.sum(), 1e-9)
    return values
