"""Parameters of the Mobile CSP world: every number that a user may set, with its unit, default and source."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import STRICT

Share = Annotated[float, Field(ge=0, le=1)]
Efficiency = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Range = tuple[Positive, Positive]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Site:
    """A place where units connect. Values of lost load are design choices inside the band of ICE 2.0 (2026)."""

    name: Annotated[str, Field(min_length=1)]
    bus: Annotated[int | None, Field(ge=0, description="feeder bus, 0 = substation; null: own supply, never dark")]
    node: Annotated[int | str, Field(description="node of the road network")]
    critical_kw: Annotated[NonNegative, Field(description="peak of the critical load")] = 0.0
    voll_usd_kwh: Annotated[NonNegative, Field(description="value of lost critical load")] = 0.0
    backup_h: Annotated[NonNegative, Field(description="hours that the site's own battery or tank lasts")] = 0.0
    slots: Annotated[int, Field(ge=0, description="units connected at once (19)")] = 1
    connection_kw: Annotated[NonNegative, Field(description="limit of charging, all units together")] = 250.0
    pv_kw: Annotated[NonNegative, Field(description="rated PV power")] = 0.0
    generator: Annotated[bool, Field(description="a backup generator carries the load until it fails")] = False


BASE_SITES = (
    Site(name="staging", bus=None, node=13, slots=4, connection_kw=1000.0),
    Site(name="substation", bus=0, node=10, slots=3, connection_kw=750.0),
    Site(name="hospital", bus=24, node=16, critical_kw=300.0, voll_usd_kwh=100.0, slots=2, connection_kw=500.0,
         generator=True),
    Site(name="water", bus=23, node=8, critical_kw=200.0, voll_usd_kwh=40.0, backup_h=2.0, connection_kw=300.0),
    Site(name="shelter", bus=7, node=11, critical_kw=120.0, voll_usd_kwh=20.0, pv_kw=60.0),
    Site(name="emergency", bus=13, node=15, critical_kw=80.0, voll_usd_kwh=80.0, backup_h=4.0),
    Site(name="telecom", bus=29, node=22, critical_kw=100.0, voll_usd_kwh=50.0, backup_h=8.0),
    Site(name="grocery", bus=31, node=20, critical_kw=150.0, voll_usd_kwh=25.0, pv_kw=80.0),
    Site(name="nursing", bus=17, node=24, critical_kw=60.0, voll_usd_kwh=30.0, backup_h=3.0),
    Site(name="wastewater", bus=21, node=5, critical_kw=70.0, voll_usd_kwh=20.0),
)  # fmt: skip
"""Ten sites on the IEEE 33-bus feeder and the Sioux Falls roads."""
MINI_SITES = BASE_SITES[:6]

PRESETS: dict[str, dict[str, Any]] = {
    "base": {},
    "mini": {"sites": MINI_SITES, "n_units": 2, "n_periods": 24, "dt_h": 1.0},
    "full": {"service": {"enabled": True}},
}
"""Keys that a preset sets where nothing else is given, in a section key by key; others have the defaults below."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UnitParams:
    """Equal mobile units: battery trucks of the market hold 0.1 to 2 MWh."""

    capacity_kwh: Positive = 600.0
    power_kw: Annotated[Positive, Field(description="at the plug, both ways")] = 250.0
    eta_charge: Annotated[Efficiency, Field(description="plug to battery")] = 0.95
    eta_discharge: Annotated[Efficiency, Field(description="battery to plug")] = 0.95
    soc_min: Annotated[float, Field(ge=0, lt=1, description="no discharge below it")] = 0.10
    soc_start: Annotated[Share, Field(description="at the beginning")] = 1.0
    start: Annotated[str | None, Field(description="site at which all begin; null: the first")] = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StormParams:
    """Hurricane and what its wind breaks. Ranges are drawn from uniformly.

    Wind: Holland (1980), at the closest point of the passage. Poles: Quanta Technology (2009) or
    Darestani and Shafieezadeh (2019), class 5.
    """

    pressure_hpa: Annotated[Range, Field(description="drop at the centre")] = (45.0, 75.0)
    radius_km: Annotated[Range, Field(description="radius of maximum wind")] = (25.0, 50.0)
    holland_b: Range = (1.0, 1.6)
    distance_km: Annotated[Range, Field(description="closest approach of the centre")] = (5.0, 60.0)
    latitude_deg: Annotated[float, Field(gt=0, lt=90)] = 30.0
    surface_factor: Annotated[Positive, Field(description="surface over gradient wind")] = 0.80
    translation_ms: Annotated[NonNegative, Field(description="added for the storm's own motion")] = 3.0
    gust_factor: Annotated[Positive, Field(description="3-s gust over mean wind")] = 1.3
    gust_mph: Annotated[Positive | None, Field(description="this gust instead of a drawn one")] = None
    fragility: Annotated[Literal["quanta", "darestani"], Field(description="pole failure against gust")] = "quanta"
    pole_age_years: Annotated[Literal[30, 50, 70], Field(description="darestani only")] = 50
    vegetation: Annotated[NonNegative, Field(description="multiplies the failure rate of poles")] = 1.0
    span_m: Annotated[Positive, Field(description="between poles")] = 45.0
    ohm_per_km: Annotated[Positive, Field(description="tells a line's length from its resistance")] = 0.4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RepairParams:
    """Crews mend lines, upstream first by and large; the substation comes back by itself."""

    crews: Annotated[int, Field(ge=1, le=100)] = 3
    first_h: Annotated[NonNegative, Field(description="until crews may work")] = 2.0
    median_h: Annotated[Positive, Field(description="one line (lognormal)")] = 6.0
    sigma: Annotated[float, Field(ge=0, le=2, description="spread of the log duration")] = 0.5
    travel_h: Annotated[NonNegative, Field(description="between two jobs")] = 0.5
    order_noise: Annotated[NonNegative, Field(description="spread of a line's place in the order, in lines")] = 6.0
    substation_share: Annotated[Share, Field(description="storms that take the substation out")] = 0.4
    substation_median_h: Positive = 8.0
    substation_sigma: Annotated[float, Field(ge=0, le=2)] = 0.6
    estimate_sigma: Annotated[
        float, Field(ge=0, le=3, description="spread of log(estimated / true) remaining time; 0: estimates are true")
    ] = 0.6


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoadParams:
    """Roads, what the storm closes, and how fast units move."""

    network: Annotated[
        str, Field(description="sioux_falls, or a GraphML file or edge list with an edge attribute 'minutes'")
    ] = "sioux_falls"
    slow: Annotated[Positive, Field(description="travel time after the storm over free flow")] = 2.0
    setup_periods: Annotated[int, Field(ge=0, le=100, description="to pack, unpack and connect")] = 1
    closed_share: Annotated[
        Share | None, Field(description="roads closed; null: (gust - 70 mph) / 150 mph within [0.05, 0.6]")
    ] = None
    median_h: Annotated[Positive, Field(description="clearing of one road (lognormal)")] = 8.0
    sigma: Annotated[float, Field(ge=0, le=2, description="spread of the log duration")] = 0.7


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoadParams:
    """Critical load, PV and backup generators."""

    site_sigma: Annotated[float, Field(ge=0, le=1, description="spread of a site's log level")] = 0.10
    noise_sigma: Annotated[float, Field(ge=0, le=1, description="spread of the log load from period to period")] = 0.05
    clearness: Annotated[Range, Field(description="Beta parameters of the day's clearness: a storm's overcast")] = (
        2.0,
        2.0,
    )
    clearness_sigma: Annotated[float, Field(ge=0, le=1, description="from period to period")] = 0.10
    generator_fail_share: Annotated[Share, Field(description="backup generators that fail")] = 0.25
    generator_fail_h: Annotated[Positive, Field(description="those fail at a time uniform in [0, this]")] = 18.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridParams:
    """The feeder. Charging at a site stays inside what LinDistFlow leaves there."""

    feeder: Annotated[str, Field(description="case33bw, or a pandapower net saved as JSON")] = "case33bw"
    load_scale: Annotated[float, Field(ge=0, le=2, description="daily peak of the feeder's load over nominal")] = 1.0
    v_min_pu: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    power_factor: Annotated[float, Field(gt=0.5, le=1, description="kW per kVA at which line limits are kept")] = 0.9


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CostParams:
    """Prices of (18)."""

    transport_usd_h: Annotated[NonNegative, Field(description="truck and driver (ATRI 2025: 90.89)")] = 90.9
    wear_usd_kwh: Annotated[NonNegative, Field(description="per kWh charged or discharged, at the plug")] = 0.05
    energy_usd_kwh: Annotated[NonNegative, Field(description="charging")] = 0.15
    generator_usd_kwh: Annotated[NonNegative, Field(description="fuel of backup generators")] = 0.40
    terminal_usd_kwh: Annotated[NonNegative, Field(description="worth of energy above the floor at the end")] = 0.15


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ServiceParams:
    """Vehicles that arrive at chargers of some sites and wait while there is no power. Numbers are design choices."""

    enabled: bool = False
    sites: Annotated[tuple[str, ...], Field(min_length=1, description="names of sites with chargers")] = (
        "shelter",
        "emergency",
        "grocery",
    )
    plugs: Annotated[int, Field(ge=1, description="chargers of a site")] = 2
    plug_kw: Annotated[Positive, Field(description="of one charger")] = 50.0
    response_per_h: Annotated[NonNegative, Field(description="response vehicles a site")] = 0.25
    response_kwh: Annotated[Positive, Field(description="that one wants")] = 40.0
    stranded_per_h: Annotated[NonNegative, Field(description="stranded vehicles a site")] = 1.0
    stranded_kwh: Annotated[Positive, Field(description="that one wants")] = 15.0
    leave_per_h: Annotated[NonNegative, Field(description="share of those waiting that gives up in an hour")] = 0.05
    wait_usd_kwh_h: Annotated[NonNegative, Field(description="of a stranded vehicle's kWh that waits an hour")] = 2.0
    response_weight: Annotated[NonNegative, Field(description="times this for response vehicles")] = 5.0
    end_wait_h: Annotated[NonNegative, Field(description="who waits at the end is counted so much longer")] = 4.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MobileCSPParams:
    """``qevgrid/MobileCSP-v0``. ``gym.make("qevgrid/MobileCSP-v0", preset="mini", roads={"slow": 3})``."""

    id: Literal["qevgrid/MobileCSP-v0"] = "qevgrid/MobileCSP-v0"
    preset: Annotated[
        Literal["base", "mini", "full"], Field(description="sets the keys in PRESETS that are not given")
    ] = "base"
    n_periods: Annotated[int, Field(ge=1, le=2000, description="length of an episode")] = 48
    dt_h: Annotated[float, Field(gt=0, le=4, description="length of a period")] = 0.5
    start_h: Annotated[float, Field(ge=0, lt=24, description="clock hour of period 0: the wind is safe to drive")] = 6.0
    n_units: Annotated[int, Field(ge=1, le=1000, description="mobile units, M")] = 4
    power: Annotated[
        Literal["auto", "levels"], Field(description="who stays: the site decides, or one of n_levels is chosen")
    ] = "auto"
    n_levels: Annotated[int, Field(ge=2, le=21, description="from full charge to full discharge")] = 5
    form: Annotated[
        Literal["joint", "sequential"], Field(description="all units choose at once, or idle ones one by one")
    ] = "joint"
    preposition: Annotated[bool, Field(description="a decision before the storm: roads whole, damage unknown")] = False
    reward_scale: Annotated[float, Field(gt=0, description="reward = -cost_usd * reward_scale")] = 1e-4
    sites: Annotated[tuple[Site, ...], Field(min_length=1)] = BASE_SITES
    unit: UnitParams = UnitParams()
    storm: StormParams = StormParams()
    repair: RepairParams = RepairParams()
    roads: RoadParams = RoadParams()
    load: LoadParams = LoadParams()
    grid: GridParams = GridParams()
    cost: CostParams = CostParams()
    service: ServiceParams = ServiceParams()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Keys of the preset where nothing else is given."""
        given = dict(data.kwargs or {}) if hasattr(data, "kwargs") else dict(data)
        preset = given.get("preset", "base")
        filled = (PRESETS[preset] if isinstance(preset, str) and preset in PRESETS else {}) | given
        for key, value in filled.items():  # a section given in part
            if isinstance(value, Mapping) and isinstance(of_preset := PRESETS.get(str(preset), {}).get(key), Mapping):
                filled[key] = {**of_preset, **value}
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> "MobileCSPParams":
        if problems := _problems(self):
            raise UserError("; ".join(problems))
        return self

    @property
    def start_site(self) -> int:
        """Number of the site where the units begin."""
        return 0 if self.unit.start is None else [site.name for site in self.sites].index(self.unit.start)


def _problems(p: MobileCSPParams) -> list[str]:
    """Contradictions between keys, each with its remedy."""
    found, names = [], [site.name for site in p.sites]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        found.append(f"sites: the name {twice!r} stands twice; give every site its own")
    if p.unit.start is not None and p.unit.start not in names:
        found.append(f"unit.start={p.unit.start!r}: no such site; choose one of {', '.join(names)}")
    if (slots := sum(site.slots for site in p.sites)) < p.n_units:
        found.append(f"n_units={p.n_units}: the sites have {slots} slots in all; add slots or take fewer units")
    if p.service.enabled:
        found += [
            f"service.sites: no site {name!r}; choose among {', '.join(names)}"
            for name in p.service.sites
            if name not in names
        ]
        if len(set(p.service.sites)) < len(p.service.sites):
            found.append(f"service.sites={list(p.service.sites)}: a name stands twice; give each site once")
        if p.service.leave_per_h * p.dt_h > 1.0:
            found.append(f"service.leave_per_h={p.service.leave_per_h}: must be at most 1 / dt_h = {1 / p.dt_h:g}")
    for key in ("pressure_hpa", "radius_km", "holland_b", "distance_km"):
        low, high = getattr(p.storm, key)
        if high < low:
            found.append(f"storm.{key}={[low, high]}: the second number must not be below the first")
    served = [site.voll_usd_kwh for site in p.sites if site.generator]
    if served and p.cost.generator_usd_kwh > min(served):
        found.append(
            f"cost.generator_usd_kwh={p.cost.generator_usd_kwh}: above the value of the load it serves "
            f"({min(served)}); lower it"
        )
    return found
