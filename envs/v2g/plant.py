"""What stands on the ground, compiled from the parameters: sockets, sites and the rows of (9)."""

import functools
from dataclasses import dataclass

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid import Feeder, LinDistFlow, lindistflow, load_feeder
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.params import GridParams, SiteParams, V2GParams

VOLTS_PER_PHASE = 230.0
SINGLE_PHASE_KW = 7.4
THREE_PHASE_KW = 22.1
DC_MIN_KW = 5.0
LOAD_CEILING = 1.65
"""Loads never exceed this multiple of their peak parameter (scenario.py clips them)."""
POWER_FACTOR = 0.9
"""Line limits of (9): the box that a line's kVA circle holds at this power factor."""


@dataclass(frozen=True)
class NetworkRows:
    """Rows of (9) in kW or kW-equivalents: ``low <= sum_d row(d) + base[fault] * scale <= high``."""

    name: tuple[str, ...]  # (R,)
    load_coef: FloatArray  # (R, D)
    ev_coef: FloatArray  # (R, D)
    pv_coef: FloatArray  # (R, D)
    base: FloatArray  # (F, R) contribution of the feeder's own load at scale 1, by fault
    low: FloatArray  # (R,)
    high: FloatArray  # (R,)
    scale: FloatArray  # (R,) native units (kW, kvar, p.u. of squared voltage) per unit of the row

    def take(self, keep: BoolArray) -> "NetworkRows":
        """The rows where ``keep`` (R,) holds."""
        name = tuple(n for n, k in zip(self.name, keep, strict=True) if k)
        parts = (self.load_coef[keep], self.ev_coef[keep], self.pv_coef[keep])
        return NetworkRows(name, *parts, self.base[:, keep], self.low[keep], self.high[keep], self.scale[keep])


@dataclass(frozen=True)
class Plant:
    """Constant arrays of one parameter set. N sockets, D sites, F fault states, R network rows."""

    params: V2GParams
    site: IntArray  # (N,) site of each socket
    charge_kw: FloatArray  # (N,) maximum
    charge_min_kw: FloatArray  # (N,)
    charge_step_kw: FloatArray  # (N,) one ampere; 0 = continuous
    discharge_kw: FloatArray  # (N,)
    discharge_min_kw: FloatArray  # (N,)
    fault_site: BoolArray  # (F, D) sites without supply in each fault state; row 0 = none
    rows: NetworkRows
    feeder: Feeder | None
    flow: LinDistFlow | None

    @property
    def n_sockets(self) -> int:
        """N."""
        return len(self.site)

    @property
    def n_sites(self) -> int:
        """D."""
        return self.fault_site.shape[1]


def phases(power_kw: FloatArray) -> FloatArray:
    """AC phases of a charger: one up to 7.4 kW, three up to 22 kW, 0 = direct current."""
    return np.select([power_kw <= SINGLE_PHASE_KW, power_kw <= THREE_PHASE_KW], [1.0, 3.0], 0.0)


def minimum_kw(power_kw: FloatArray, min_current_a: float) -> FloatArray:
    """Least power while on: the minimum current on all phases (IEC 61851-1), 5 kW for DC."""
    ac = min_current_a * VOLTS_PER_PHASE * phases(power_kw) / 1000.0
    dc = DC_MIN_KW * (min_current_a > 0)
    return np.minimum(np.where(phases(power_kw) > 0, ac, dc), power_kw)


@functools.lru_cache(maxsize=32)
def build_plant(params: V2GParams) -> Plant:
    """Compile ``params``; raises ``UserError`` for a feeder or bus that does not exist."""
    n, charger = params.n_sockets, params.charger
    ratings = np.asarray(charger.power_kw, float)
    charge_kw = ratings[np.arange(n) % len(ratings)]
    charge_min = minimum_kw(charge_kw, charger.min_current_a)
    can_discharge = np.floor((np.arange(n) + 1) * charger.v2g_share + 1e-9) > np.floor(
        np.arange(n) * charger.v2g_share + 1e-9
    )
    step = VOLTS_PER_PHASE * phases(charge_kw) / 1000.0 * charger.integer_amperes
    feeder, flow = _network(params.grid, params.site)
    fault_site = _fault_sites(flow, params.site.count)
    rows = _site_rows(params.site, len(fault_site))
    if feeder is not None and flow is not None:
        rows = _join(rows, _line_rows(feeder, flow, params), _voltage_rows(flow, params))
    site = np.arange(n) % params.site.count
    plant = Plant(
        params=params,
        site=site,
        charge_kw=charge_kw,
        charge_min_kw=charge_min,
        charge_step_kw=step,
        discharge_kw=charge_kw * can_discharge,
        discharge_min_kw=charge_min * can_discharge,
        fault_site=fault_site,
        rows=rows,
        feeder=feeder,
        flow=flow,
    )
    return _presolved(plant) if params.grid.model == "lindistflow" else plant


def _network(grid: GridParams, site: SiteParams) -> tuple[Feeder | None, LinDistFlow | None]:
    if grid.feeder == "none":
        if grid.model == "sweep":
            raise UserError("grid.model=sweep needs a feeder; set grid.feeder=case33bw")
        return None, None
    feeder = load_feeder(grid.feeder)
    for bus in site.bus:
        if bus >= feeder.n_bus:
            raise UserError(f"site.bus={bus}: feeder {feeder.name} has buses 1 to {feeder.n_bus - 1}")
    return feeder, lindistflow(feeder, site.bus)


def _fault_sites(flow: LinDistFlow | None, n_sites: int) -> BoolArray:
    """Sites dead in each fault state. Without a feeder: none, all, or one site."""
    if flow is not None:
        return np.asarray(flow.dead_site, bool)
    return np.vstack([np.zeros(n_sites, bool), np.ones(n_sites, bool), np.eye(n_sites, dtype=bool)])


def _site_rows(site: SiteParams, n_faults: int) -> NetworkRows:
    d = site.count
    limit = site.per_site("connection_kw")
    names = tuple(f"connection_{i}" for i in range(d))
    eye = np.eye(d)
    return NetworkRows(names, eye, eye, eye, np.zeros((n_faults, d)), -limit, limit, np.ones(d))


def _line_rows(feeder: Feeder, flow: LinDistFlow, params: V2GParams) -> NetworkRows:
    """Active and reactive flow of every line, both directions (9)."""
    through = flow.flow_site.astype(float)
    p_limit = feeder.limit_kva * POWER_FACTOR
    q_limit = feeder.limit_kva * np.sqrt(1 - POWER_FACTOR**2)
    active = NetworkRows(
        tuple(f"line_p_{k}" for k in range(feeder.n_line)),
        through,
        through,
        through,
        flow.flow_base_kw,
        -p_limit,
        p_limit,
        np.ones(feeder.n_line),
    )
    reactive = NetworkRows(
        tuple(f"line_q_{k}" for k in range(feeder.n_line)),
        through * params.site.tan_phi,
        through * params.charger.tan_phi,
        through * 0.0,
        flow.flow_base_kvar,
        -q_limit,
        q_limit,
        np.ones(feeder.n_line),
    )
    return _join(active, reactive)


def _voltage_rows(flow: LinDistFlow, params: V2GParams) -> NetworkRows:
    """Drop of squared voltage at every bus, scaled to kW at the site that moves it most."""
    grid, n_bus = params.grid, len(flow.v2_drop_per_kw)
    margin = grid.v_margin_pu if grid.model == "lindistflow" else 0.0
    ev = flow.v2_drop_per_kw + params.charger.tan_phi * flow.v2_drop_per_kvar
    load = flow.v2_drop_per_kw + params.site.tan_phi * flow.v2_drop_per_kvar
    scale = np.where(ev.max(1) > 0, ev.max(1), np.inf)
    high = (1.0 - (grid.v_min_pu + margin) ** 2) / scale
    low = (1.0 - (grid.v_max_pu - margin) ** 2) / scale
    touched = np.isfinite(scale)
    rows = NetworkRows(
        tuple(f"voltage_{k}" for k in range(n_bus)),
        load / scale[:, None],
        ev / scale[:, None],
        flow.v2_drop_per_kw / scale[:, None],
        flow.v2_drop_base / scale,
        low,
        high,
        scale,
    )
    return rows.take(touched)


def _join(*blocks: NetworkRows) -> NetworkRows:
    """All rows of the blocks."""
    names = tuple(name for block in blocks for name in block.name)
    by_row = ("load_coef", "ev_coef", "pv_coef", "low", "high", "scale")
    stacked = {name: np.concatenate([getattr(b, name) for b in blocks]) for name in by_row}
    return NetworkRows(name=names, base=np.concatenate([b.base for b in blocks], axis=1), **stacked)


def _presolved(plant: Plant) -> Plant:
    """Drop the rows that no action, load or weather can bring to their limits."""
    rows, site = plant.rows, plant.params.site
    load = LOAD_CEILING * (site.per_site("critical_kw") + site.per_site("other_kw"))
    charge, discharge = (
        np.bincount(plant.site, weights=w, minlength=plant.n_sites) for w in (plant.charge_kw, plant.discharge_kw)
    )
    scale = LOAD_CEILING * plant.params.grid.load_scale
    most = rows.load_coef @ load + rows.ev_coef @ charge + scale * rows.base.max(0)
    least = -rows.ev_coef @ discharge - rows.pv_coef @ site.per_site("pv_kw")
    keep = (most > rows.high) | (least < rows.low)
    return Plant(**{**plant.__dict__, "rows": rows.take(keep)})
