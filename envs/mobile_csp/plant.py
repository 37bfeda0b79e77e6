"""What stands on the ground, compiled from the parameters: sites, feeder, roads, fleet and prices."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid import Feeder, lindistflow, load_feeder
from qevgrid.envs.mobile_csp.arrays import NO_SERVICE, Fleet, Service, Sites, Tariff
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.roads import Roads, load_roads
from qevgrid.envs.types import BoolArray, FloatArray, IntArray


class Ground(NamedTuple):
    """Constants that turn the facts of a storm into a world. D sites, L lines, R roads, V nodes."""

    bus: IntArray  # (D,) -1: own supply
    critical: BoolArray  # (D,) has a critical load
    generator: BoolArray  # (D,)
    backup_h: FloatArray  # (D,)
    connection_kw: FloatArray  # (D,)
    from_bus: IntArray  # (L,)
    to_bus: IntArray  # (L,) lines stand after the line that feeds them
    limit_kw: FloatArray  # (L,)
    base_kw: FloatArray  # (n_bus,) the feeder's load at scale 1
    base_kvar: FloatArray  # (n_bus,)
    drop_r: FloatArray  # (L,) of squared voltage, p.u. per kW
    drop_x: FloatArray  # (L,) p.u. per kvar
    drop_site: FloatArray  # (n_bus, D) p.u. at a bus per kW at a site
    carries: BoolArray  # (L, D) the line feeds the site
    v2_min: float
    node: IntArray  # (D,)
    first: IntArray  # (V + 1,)
    road: IntArray  # (2R,)
    tail: IntArray  # (R,)
    head: IntArray  # (R,)
    road_periods: FloatArray  # (R,) driving time in periods, not rounded
    setup_periods: int
    dt_h: float


@dataclass(frozen=True, eq=False)
class Plant:
    """Constant arrays of one parameter set."""

    params: MobileCSPParams
    feeder: Feeder
    roads: Roads
    ground: Ground
    fleet: Fleet
    sites: Sites
    tariff: Tariff
    start_site: int
    start_kwh: float
    clock_h: FloatArray  # (T,) clock hour at which each period begins
    load_shape: FloatArray  # (T,) of loads over their daily peak
    sun: FloatArray  # (T,) clear-sky PV over its rating
    mean_kw: FloatArray  # (T, D) critical load to be expected
    pv_rated_kw: FloatArray  # (D,)
    service: Service = NO_SERVICE

    @property
    def n_sites(self) -> int:
        """D."""
        return len(self.sites.slots)

    @property
    def n_periods(self) -> int:
        """T."""
        return self.params.n_periods


@functools.lru_cache(maxsize=32)
def build_plant(params: MobileCSPParams) -> Plant:
    """Compile ``params``; raises ``UserError`` for a feeder, road network, bus or node that does not exist."""
    p, unit, cost = params, params.unit, params.cost
    feeder, roads = load_feeder(p.grid.feeder), load_roads(p.roads.network)
    clock_h = (p.start_h + np.arange(float(p.n_periods)) * p.dt_h) % 24.0
    load_shape = 0.75 + 0.25 * np.sin(2 * np.pi * (clock_h - 9) / 24)
    return Plant(
        params=p,
        feeder=feeder,
        roads=roads,
        ground=_ground(p, feeder, roads),
        fleet=Fleet(
            p.n_units,
            unit.capacity_kwh,
            unit.soc_min * unit.capacity_kwh,
            unit.power_kw,
            unit.eta_charge,
            unit.eta_discharge,
        ),
        sites=Sites(of_sites(p, "voll_usd_kwh"), np.array([site.slots for site in p.sites], np.int64)),
        tariff=Tariff(
            p.dt_h,
            cost.transport_usd_h,
            cost.wear_usd_kwh,
            cost.energy_usd_kwh,
            cost.generator_usd_kwh,
            cost.terminal_usd_kwh,
        ),
        start_site=p.start_site,
        start_kwh=max(unit.soc_start, unit.soc_min) * unit.capacity_kwh,
        clock_h=clock_h,
        load_shape=load_shape,
        sun=np.maximum(0.0, np.sin(np.pi * (clock_h - 6) / 12)),
        mean_kw=load_shape[:, None] * of_sites(p, "critical_kw"),
        pv_rated_kw=of_sites(p, "pv_kw"),
        service=_service(p) if p.service.enabled else NO_SERVICE,
    )


def of_sites(p: MobileCSPParams, name: str) -> FloatArray:
    """One number of each site, (D,)."""
    return np.array([getattr(site, name) for site in p.sites], float)


def line_km(plant: Plant) -> FloatArray:
    """Length of each line (L,), told from its resistance."""
    return plant.feeder.r_ohm / plant.params.storm.ohm_per_km


def _service(p: MobileCSPParams) -> Service:
    s, names = p.service, [site.name for site in p.sites]
    return Service(
        site=np.sort(np.array([names.index(name) for name in s.sites], np.int64)),
        power_kw=s.plugs * s.plug_kw,
        keep=1.0 - s.leave_per_h * p.dt_h,
        wait_usd_kwh_h=s.wait_usd_kwh_h * np.array([s.response_weight, 1.0]),
        end_wait_h=s.end_wait_h,
        mean_kwh=p.dt_h * np.array([s.response_per_h * s.response_kwh, s.stranded_per_h * s.stranded_kwh]),
    )


def _ground(p: MobileCSPParams, feeder: Feeder, roads: Roads) -> Ground:
    bus = np.array([-1 if site.bus is None else site.bus for site in p.sites], np.int64)
    for site in p.sites:
        if site.bus is not None and site.bus >= feeder.n_bus:
            raise UserError(
                f"site {site.name!r}: bus={site.bus} is not on feeder {feeder.name!r}; use 0..{feeder.n_bus - 1}, or null"
            )
    flow = lindistflow(feeder, np.maximum(bus, 0).tolist())
    per_kw: Any = 2.0 / (1000.0 * feeder.base_kv**2)
    return Ground(
        bus=bus,
        critical=of_sites(p, "critical_kw") > 0,
        generator=np.array([site.generator for site in p.sites]),
        backup_h=of_sites(p, "backup_h"),
        connection_kw=of_sites(p, "connection_kw"),
        from_bus=feeder.from_bus.copy(),
        to_bus=feeder.to_bus.copy(),
        limit_kw=feeder.limit_kva * p.grid.power_factor,
        base_kw=feeder.load_kw * p.grid.load_scale,
        base_kvar=feeder.load_kvar * p.grid.load_scale,
        drop_r=per_kw * feeder.r_ohm,
        drop_x=per_kw * feeder.x_ohm,
        drop_site=np.ascontiguousarray(flow.v2_drop_per_kw),
        carries=flow.flow_site > 0,
        v2_min=p.grid.v_min_pu**2,
        node=np.array([roads.index(site.node) for site in p.sites], np.int64),
        first=roads.first,
        road=roads.road,
        tail=roads.tail,
        head=roads.head,
        road_periods=roads.minutes * p.roads.slow / 60.0 / p.dt_h,
        setup_periods=p.roads.setup_periods,
        dt_h=p.dt_h,
    )
