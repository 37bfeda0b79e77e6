"""Parameters of the V2G world: every number that a user may set, with its unit, default and source."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import STRICT
from qevgrid.envs.types import FloatArray

Share = Annotated[float, Field(ge=0, le=1)]
Efficiency = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
PerSite = NonNegative | tuple[NonNegative, ...]
SESSION_KINDS = ("residential", "workplace", "public", "fleet", "mixed")
PRICE_KINDS = ("tou", "day_ahead")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChargerParams:
    """Sockets (EVSE). AC ratings 7.2/11/22 kW, DC 50-150 kW; minimum 6 A (IEC 61851-1)."""

    power_kw: Annotated[
        tuple[Positive, ...], Field(min_length=1, description="ratings, dealt out to the sockets in turn")
    ] = (7.2, 7.2, 11.0)
    min_current_a: Annotated[
        float, Field(ge=0, le=16, description="least current while on; below it a charger is off")
    ] = 6.0
    integer_amperes: Annotated[bool, Field(description="charge in whole amperes of the pilot signal")] = False
    v2g_share: Annotated[Share, Field(description="share of the sockets that can discharge")] = 1.0
    eta_charge: Annotated[Efficiency, Field(description="grid to battery")] = 0.95
    eta_discharge: Annotated[Efficiency, Field(description="battery to grid")] = 0.95
    taper_soc: Annotated[
        float, Field(gt=0, le=1, description="above this SoC charging power falls linearly to 0 (CC-CV); 1 = off")
    ] = 1.0
    tan_phi: Annotated[float, Field(ge=0, le=1, description="kvar per kW drawn or fed by a charger")] = 0.1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SessionParams:
    """Vehicles of the synthetic generators, and how sessions from a file are completed."""

    battery_kwh: Annotated[tuple[Positive, ...], Field(min_length=1)] = (50.0, 60.0, 75.0, 82.0)
    soc_min: Annotated[Share, Field(description="no discharge below it")] = 0.10
    arrival_soc: Annotated[tuple[Share, Share], Field(description="mean and standard deviation")] = (0.45, 0.15)
    target_soc: Annotated[tuple[Share, Share], Field(description="mean and standard deviation")] = (0.80, 0.08)
    fleet_share: Annotated[Share, Field(description="sockets of municipal cars in sessions=mixed")] = 0.35
    show_up_share: Annotated[Share, Field(description="chance that an expected session takes place")] = 0.95
    early_share: Annotated[Share, Field(description="sessions that end before the declared departure")] = 0.10


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SiteParams:
    """The sites on the feeder. One number serves all sites; a list gives one value a site."""

    bus: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, description="feeder bus of each site")
    ] = (17,)
    critical_kw: Annotated[PerSite, Field(description="peak of the critical load")] = 60.0
    other_kw: Annotated[PerSite, Field(description="peak of the other load")] = 60.0
    critical_blocks: Annotated[int, Field(ge=1, le=16, description="blocks in which it is picked up in an island")] = 4
    other_blocks: Annotated[int, Field(ge=1, le=16)] = 4
    pv_kw: Annotated[PerSite, Field(description="rated PV power")] = 60.0
    generator_kw: Annotated[PerSite, Field(description="rated power of the local generator (islands only)")] = 15.0
    connection_kw: Annotated[PerSite, Field(description="limit of import and of export at the meter")] = 160.0
    tan_phi: Annotated[float, Field(ge=0, le=1, description="kvar per kW of the site's loads")] = 0.3

    @property
    def count(self) -> int:
        """D, sites on the feeder."""
        return len(self.bus)

    def per_site(self, name: str) -> FloatArray:
        """Value of ``name`` for each site, shape (D,)."""
        return np.broadcast_to(np.asarray(getattr(self, name), float), (self.count,)).copy()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutageParams:
    """When supply fails, for how long, and what is announced. Duration: DESIGN V2G, lognormal."""

    share: Annotated[Share, Field(description="share of the days with an outage")] = 0.30
    median_h: Annotated[float, Field(gt=0, description="median duration (lognormal)")] = 5.0
    sigma: Annotated[float, Field(ge=0, le=2, description="spread of the log duration")] = 0.5
    window_h: Annotated[
        tuple[NonNegative, NonNegative], Field(description="earliest and latest start, hours after the day's start")
    ] = (3.0, 15.0)
    lead_h: Annotated[
        tuple[NonNegative, NonNegative], Field(description="storm watch: shortest and longest warning")
    ] = (3.0, 8.0)
    feeder_wide_share: Annotated[
        Share, Field(description="outages that hit every site (the rest: one random line)")
    ] = 0.5


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GridParams:
    """The feeder between the sites and the substation."""

    feeder: Annotated[str, Field(description="case33bw, none, or a pandapower net saved as JSON")] = "case33bw"
    model: Annotated[
        Literal["lindistflow", "sweep"], Field(description="what prices violations; with sweep the optimum is a bound")
    ] = "lindistflow"
    load_scale: Annotated[float, Field(ge=0, le=2, description="daily peak of the feeder's own load over nominal")] = (
        0.75
    )
    v_min_pu: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    v_max_pu: Annotated[float, Field(gt=1, lt=1.5)] = 1.10
    v_margin_pu: Annotated[float, Field(ge=0, lt=0.05, description="safety for LinDistFlow's error")] = 0.010


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReserveParams:
    """Spinning reserve of (7): power that could be held for ``hours_h`` if supply failed now."""

    share: Annotated[NonNegative, Field(description="of the critical load, while the risk is above the threshold")] = (
        0.5
    )
    risk: Annotated[Share, Field(description="published outage probability that calls for it")] = 0.5
    hours_h: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CostParams:
    """Prices of (1), (7), (10) and the weights of (11).

    Values of lost load are design choices inside the band of ICE 2.0 (residential 2-5,
    non-residential 31-100 USD/kWh by duration); the rest are design choices too.
    """

    voll_critical_usd_kwh: Positive = 20.0
    voll_other_usd_kwh: Positive = 5.0
    generator_usd_kwh: NonNegative = 0.40
    wear_usd_kwh: Annotated[NonNegative, Field(description="per kWh charged or discharged")] = 0.05
    shortfall_usd_kwh: Annotated[NonNegative, Field(description="energy missing at departure")] = 1.0
    terminal_usd_kwh: Annotated[NonNegative, Field(description="worth of energy in vehicles that stay on")] = 0.12
    reserve_usd_kwh: NonNegative = 0.10
    violation_usd_kwh: Annotated[NonNegative, Field(description="energy beyond a limit of (9)")] = 2.0
    w1: Annotated[NonNegative, Field(description="weight of energy costs in (11)")] = 1.0
    w2: Annotated[NonNegative, Field(description="weight of interruption costs in (11)")] = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class V2GParams:
    """``qevgrid/V2G-v0``. ``gym.make("qevgrid/V2G-v0", n_sockets=50, site={"pv_kw": 100})`` sets any of them."""

    id: Literal["qevgrid/V2G-v0"] = "qevgrid/V2G-v0"
    n_sockets: Annotated[
        int, Field(ge=1, le=10_000, description="charging sockets, dealt out to the sites in turn")
    ] = 30
    dt_h: Annotated[float, Field(gt=0, le=1, description="length of a stage")] = 0.25
    days: Annotated[int, Field(ge=1, le=14, description="length of an episode")] = 1
    start_h: Annotated[
        float | None,
        Field(ge=0, lt=24, description="clock hour of stage 0; null: noon, or the emptiest hour of the session file"),
    ] = None
    action: Annotated[Literal["box", "levels"], Field(description="Box[-1,1] a socket, or MultiDiscrete levels")] = (
        "box"
    )
    n_levels: Annotated[int, Field(ge=3, le=21, description="levels from full discharge to full charge (odd)")] = 5
    reward_scale: Annotated[float, Field(gt=0, description="reward = -cost_usd * reward_scale")] = 0.01
    sessions: Annotated[str, Field(description="residential, workplace, public, fleet, mixed, or a CSV/JSON file")] = (
        "mixed"
    )
    prices: Annotated[str, Field(description="tou, day_ahead, or a CSV file")] = "tou"
    split: Annotated[
        Literal["train", "held_out", "all"], Field(description="which days of the files (by date) are drawn")
    ] = "train"
    held_out_share: Annotated[float, Field(gt=0, lt=1, description="last share of the files' days")] = 0.25
    usd_per_eur: Positive = 1.08
    price_fill_h: Annotated[NonNegative, Field(description="price gaps up to this long are interpolated")] = 3.0
    price_sigma: Annotated[float, Field(ge=0, le=1, description="spread of the price around the tariff")] = 0.15
    tariff_usd_kwh: Annotated[
        tuple[tuple[float, float], ...], Field(min_length=1, description="time of use: (from clock hour, price)")
    ] = ((0.0, 0.09), (9.0, 0.22), (16.0, 0.58), (21.0, 0.09))
    sell_ratio: Annotated[float, Field(ge=0, le=1, description="sell price = buy - (1 - ratio) |buy|")] = 1.0
    charger: ChargerParams = ChargerParams()
    session: SessionParams = SessionParams()
    site: SiteParams = SiteParams()
    outage: OutageParams = OutageParams()
    grid: GridParams = GridParams()
    reserve: ReserveParams = ReserveParams()
    cost: CostParams = CostParams()

    @model_validator(mode="after")
    def _consistent(self) -> "V2GParams":
        if problems := _problems(self):
            raise UserError("; ".join(problems))
        return self

    @property
    def n_stages(self) -> int:
        """T, stages of an episode."""
        return round(24 * self.days / self.dt_h)


def _problems(p: V2GParams) -> list[str]:
    """Contradictions between keys, each with its remedy."""
    found = []
    if abs(24 / p.dt_h - round(24 / p.dt_h)) > 1e-9:
        found.append(f"dt_h={p.dt_h}: a day must hold a whole number of stages; try 0.25, 0.5 or 1")
    if p.n_levels % 2 == 0:
        found.append(f"n_levels={p.n_levels}: must be odd, so that one level is 'off'; try {p.n_levels + 1}")
    for name in ("critical_kw", "other_kw", "pv_kw", "generator_kw", "connection_kw"):
        value = getattr(p.site, name)
        if isinstance(value, tuple) and len(value) != p.site.count:
            found.append(f"site.{name}: {len(value)} values for {p.site.count} sites; give one number or one a site")
    if p.n_sockets < p.site.count:
        found.append(f"n_sockets={p.n_sockets}: fewer than the {p.site.count} sites; give every site a socket")
    cheapest = min(p.cost.voll_critical_usd_kwh, p.cost.voll_other_usd_kwh)
    if p.cost.generator_usd_kwh > cheapest:
        found.append(
            f"cost.generator_usd_kwh={p.cost.generator_usd_kwh}: above the value of the load it "
            f"serves ({cheapest}); lower it"
        )
    for name in ("window_h", "lead_h"):
        low, high = getattr(p.outage, name)
        if high < low:
            found.append(f"outage.{name}={[low, high]}: the second number must not be below the first")
    hours = [hour for hour, _ in p.tariff_usd_kwh]
    if hours[0] != 0 or sorted(set(hours)) != hours or hours[-1] >= 24:
        found.append(f"tariff_usd_kwh: hours {hours} must start at 0, rise and stay below 24")
    return found
