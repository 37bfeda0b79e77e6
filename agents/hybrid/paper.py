"""The review's binary encoding of V2G dispatch, as printed and corrected, for reproduction and teaching.

``paper`` builds (1), (10) and (12)-(17), (22) to the letter, ``paper_fixed`` the same with every ``Fix``;
``build`` takes any set of them, so that each fault can be looked at by itself. All of them price the same
small problem, a ``Fleet``, whose true cost ``evaluate`` takes from ``qevgrid.envs.v2g.model``.

The corrected form keeps to quadratic terms by slack bits in whole quanta. Then its least energy over the
slack bits is the true cost of every feasible schedule, to rounding, and its ground state the best discrete
schedule. That is for small instances: ``AggregateQUBO`` needs no slack bits.

Left out on both sides, because the encoding does not touch them: (7) asks for what (10) prices, (8) holds
at one site, (9) is the network; minimum powers, taper, departures and the other load are the environment's.
"""

import enum
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import dimod
import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.linear import INF, LinearProgram
from qevgrid.envs.types import BoolArray, FloatArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast
from qevgrid.envs.v2g.params import CostParams

CHARGE, DISCHARGE, SOC, SLACK = "charge", "discharge", "soc", "slack"
"""First entries of the variables' labels: ``(kind, unit, stage, k)``, or ``("slack", purpose, stage, j)``."""

DARK_PROBABILITY = 0.5
"""An outage that has begun is taken to last while it is at least this likely; as in ``Rolling``."""
MARGIN = 1.05
LEAST_USD = 0.01
CLOSE = 1e-6
"""Powers (kW) and energies (kWh) that differ by less are the same."""
EXACT = 1e-9
MOST_QUANTA = 10_000
"""The finest slack: this many quanta a step."""

Label = tuple[str, int | str, int, int]
Terms = list[tuple[Label, float]]
Sample = Mapping[Label, int]


class Fix(enum.Flag):
    """Corrections of the printed form; each may be made without the others."""

    STEP = enum.auto()
    """Step P_max / (K - 1) instead of (13), so that the highest level is the maximum; likewise (15)."""
    ONE_BIT = enum.auto()
    """No bit for level 0, and at most one bit of both directions instead of (6), (14), (16)."""
    STAGE_LENGTH = enum.auto()
    """(4) and (17) with ``dt_h``."""
    NO_SOC_BITS = enum.auto()
    """Energies by substitution instead of (15)-(17), their limits (5) only where they can bind."""
    CAPACITY = enum.auto()
    """(19) as an inequality on the units that run instead of (22)."""
    HINGE = enum.auto()
    """(10) with max(0, .), charging being load of the island."""


NO_FIX, ALL_FIXES = Fix(0), ~Fix(0)


@dataclass(frozen=True)
class Fleet:
    """N vehicles at one site over H stages: the data of (1)-(6), (10) and (19).

    All stay until the end. (1) bills each charger; with ``sell_ratio=1``, the environment's default, that
    is the bill at the meter. Energy gained by the end is worth ``cost.terminal_usd_kwh``.
    """

    charge_kw: FloatArray  # (N,)
    discharge_kw: FloatArray  # (N,)
    energy_kwh: FloatArray  # (N,) at the start
    floor_kwh: FloatArray  # (N,)
    full_kwh: FloatArray  # (N,)
    buy_usd_kwh: FloatArray  # (H,) 0 while dark: there is no market
    sell_usd_kwh: FloatArray  # (H,)
    critical_kw: FloatArray  # (H,) what is left of the critical load for the vehicles to carry
    dark: BoolArray  # (H,) stages without supply, where ``critical_kw`` counts
    capacity: int  # units that may run at a time (19)
    dt_h: float
    eta_charge: float
    eta_discharge: float
    cost: CostParams

    def __post_init__(self) -> None:
        units = (self.discharge_kw, self.energy_kwh, self.floor_kwh, self.full_kwh)
        stages = (self.sell_usd_kwh, self.critical_kw, self.dark)
        same = all(x.shape == self.charge_kw.shape for x in units)
        if not (same and all(x.shape == self.buy_usd_kwh.shape for x in stages)):
            raise UserError("a fleet needs one number a unit (N,) and one a stage (H,) throughout")
        if not self.n_units or not self.horizon:
            raise UserError("a fleet needs at least one unit and one stage")
        above, room = self.energy_kwh - self.floor_kwh, self.full_kwh - self.energy_kwh
        if min(above.min(), room.min()) < -CLOSE:
            raise UserError("energy_kwh must lie between floor_kwh and full_kwh, else even rest is infeasible")
        if self.capacity < 0 or min(self.charge_kw.min(), self.discharge_kw.min()) < 0:
            raise UserError("powers and capacity must not be negative")

    @classmethod
    def from_view(cls, view: View, forecast: Forecast, horizon: int, b: int = 0, site: int = 0) -> "Fleet":
        """The vehicles that episode ``b`` has at ``site`` now, and the first ``horizon`` stages of its forecast."""
        plant, p = view.plant, view.plant.params
        known = forecast.buy_usd_kwh.shape[1]
        if not 1 <= horizon <= known:
            raise UserError(f"horizon={horizon}: the forecast has {known} stages; take 1 to {known} or look further")
        if not 0 <= site < plant.n_sites:
            raise UserError(f"site={site}: there are sites 0 to {plant.n_sites - 1}")
        here = np.flatnonzero(view.plugged[b] & (plant.site == site))
        if not len(here):
            raise UserError(f"no vehicle is plugged in at site {site} of episode {b}; take a later stage")
        likely = forecast.outage_probability[b, :horizon, site] >= DARK_PROBABILITY
        dark = view.outage[b, site] & likely
        own_kw = forecast.pv_kw[b, :horizon, site] + p.site.per_site("generator_kw")[site]
        left_kw = np.maximum(forecast.critical_kw[b, :horizon, site] - own_kw, 0.0)
        return cls(
            charge_kw=view.charge_kw[b, here],
            discharge_kw=view.discharge_kw[b, here],
            energy_kwh=view.energy_kwh[b, here],
            floor_kwh=view.floor_kwh[b, here],
            full_kwh=view.capacity_kwh[b, here],
            buy_usd_kwh=np.where(dark, 0.0, forecast.buy_usd_kwh[b, :horizon]),
            sell_usd_kwh=np.where(dark, 0.0, forecast.sell_usd_kwh[b, :horizon]),
            critical_kw=np.where(dark, left_kw, 0.0),
            dark=dark,
            capacity=int((plant.site == site).sum()),
            dt_h=p.dt_h,
            eta_charge=p.charger.eta_charge,
            eta_discharge=p.charger.eta_discharge,
            cost=p.cost,
        )

    @property
    def n_units(self) -> int:
        """N."""
        return len(self.charge_kw)

    @property
    def horizon(self) -> int:
        """H."""
        return len(self.buy_usd_kwh)

    @cached_property
    def prices(self) -> FloatArray:
        """USD per kWh of each cost term's quantity, weighted (11), (9,)."""
        return model.unit_prices(self.cost) * model.term_weights(self.cost)

    @cached_property
    def rates(self) -> "Rates":
        """Cost coefficients, read off ``model``."""
        market = {"buy_usd_kwh": self.buy_usd_kwh, "sell_usd_kwh": self.sell_usd_kwh, "dt_h": self.dt_h}
        bill = model.coefficients(model.market_usd, "import_kw", "export_kw", **market)
        through = model.coefficients(model.throughput_kwh, "charge_kw", "discharge_kw", dt_h=self.dt_h)
        drawn, fed = (
            self.prices[model.ENERGY] * usd + self.prices[model.WEAR] * kwh
            for usd, kwh in zip(bill, through, strict=True)
        )
        (lost,) = model.coefficients(model.unserved_kwh, "load_kw", served_kw=0.0, dt_h=self.dt_h)
        unserved = self.prices[model.UNSERVED_CRITICAL] * lost * self.dark
        return Rates(drawn, fed, unserved, float(self.prices[model.TERMINAL]))

    def gain_kwh(self, dt_h: float) -> tuple[float, float]:
        """Energy that a battery gains by 1 kW of charge and of discharge for a stage of ``dt_h`` (4)."""
        fixed = {"energy_kwh": 0.0, "eta_charge": self.eta_charge, "eta_discharge": self.eta_discharge}
        charge, discharge = model.coefficients(model.energy_next_kwh, "charge_kw", "discharge_kw", dt_h=dt_h, **fixed)
        return float(charge), float(discharge)


class Rates(NamedTuple):
    """Cost coefficients of a fleet."""

    charge_usd_kw: FloatArray  # (H,) bill and wear of 1 kW for a stage
    discharge_usd_kw: FloatArray  # (H,)
    unserved_usd_kw: FloatArray  # (H,) 0 where there is supply
    worth_usd_kwh: float  # of energy gained by the end


# -- the truth ------------------------------------------------------------------------------------


class Evaluation(NamedTuple):
    """What a schedule costs once it is made feasible, and whether it was before."""

    cost_usd: float
    raw_feasible: bool
    powers_kw: FloatArray  # (N, H) as carried out
    energy_kwh: FloatArray  # (N, H + 1)


def evaluate(fleet: Fleet, powers_kw: FloatArray) -> Evaluation:
    """True cost of signed powers (N, H), charge > 0, after clipping to powers, energies and capacity."""
    if np.shape(powers_kw) != (fleet.n_units, fleet.horizon):
        raise UserError(f"powers_kw must have shape {(fleet.n_units, fleet.horizon)}, not {np.shape(powers_kw)}")
    done, energy = _carried_out(fleet, np.asarray(powers_kw, float))
    raw = bool(np.abs(done - powers_kw).max() <= CLOSE)
    return Evaluation(_cost_usd(fleet, done, energy), raw, done, energy)


def _carried_out(fleet: Fleet, powers_kw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Powers clipped stage by stage, and the energies that follow; the smallest give way at the capacity."""
    done = np.zeros_like(powers_kw)
    energy = np.repeat(fleet.energy_kwh[:, None], fleet.horizon + 1, axis=1)
    per_charge, per_discharge = fleet.gain_kwh(fleet.dt_h)
    for t in range(fleet.horizon):
        now = energy[:, t]
        most = np.minimum(fleet.charge_kw, np.maximum(fleet.full_kwh - now, 0.0) / per_charge)
        least = np.maximum(-fleet.discharge_kw, np.maximum(now - fleet.floor_kwh, 0.0) / per_discharge)
        power = np.clip(powers_kw[:, t], least, most)
        power[np.argsort(-np.abs(power), kind="stable")[fleet.capacity :]] = 0.0
        done[:, t] = power
        flows = (np.maximum(power, 0.0), np.maximum(-power, 0.0))
        energy[:, t + 1] = model.energy_next_kwh(now, *flows, fleet.dt_h, fleet.eta_charge, fleet.eta_discharge)
    return done, energy


def _cost_usd(fleet: Fleet, powers_kw: FloatArray, energy_kwh: FloatArray) -> float:
    """(1), wear, (10) with the charging as load of an island, less the worth of the energy gained."""
    f, price = fleet, fleet.prices
    charge, discharge = np.maximum(powers_kw, 0.0), np.maximum(-powers_kw, 0.0)
    drawn, fed = charge.sum(0), discharge.sum(0)
    load = (f.critical_kw + drawn) * f.dark
    bill = model.market_usd(drawn, fed, f.buy_usd_kwh, f.sell_usd_kwh, f.dt_h).sum()
    wear = model.throughput_kwh(charge, discharge, f.dt_h).sum()
    unserved = model.unserved_kwh(load, np.minimum(load, fed), f.dt_h).sum()
    gained = (energy_kwh[:, -1] - energy_kwh[:, 0]).sum()
    paid = price[model.ENERGY] * bill + price[model.WEAR] * wear + price[model.UNSERVED_CRITICAL] * unserved
    return float(paid - price[model.TERMINAL] * gained)


def optimum(fleet: Fleet, levels: int | None = None, time_limit_s: float = 60.0) -> FloatArray:
    """The best powers (N, H) by mixed-integer programming; in steps P_max / (K - 1) where ``levels`` is given."""
    lp, rates, n, h = LinearProgram(), fleet.rates, fleet.n_units, fleet.horizon
    cell, stage = np.arange(n * h), np.tile(np.arange(h), n)
    least, full = np.minimum(fleet.floor_kwh, fleet.energy_kwh), np.maximum(fleet.full_kwh, fleet.energy_kwh)
    energy = lp.variables(n * h, 0.0, np.repeat(least, h), np.repeat(full, h))
    gain, powers, runs = fleet.gain_kwh(fleet.dt_h), [], []
    for per_kw, usd, limit in zip(gain, rates[:2], (fleet.charge_kw, fleet.discharge_kw), strict=True):
        cost, most = (usd - rates.worth_usd_kwh * per_kw)[stage], np.repeat(limit, h)
        powers.append(lp.variables(n * h, cost, 0.0, most))
        runs.append(lp.variables(n * h, 0.0, 0.0, 1.0, integer=True))
        lp.rows(n * h, [(cell, powers[-1], 1.0), (cell, runs[-1], -most)], -INF, 0.0)
        if levels is not None:
            level = lp.variables(n * h, 0.0, 0.0, levels - 1, integer=True)
            lp.rows(n * h, [(cell, powers[-1], 1.0), (cell, level, -most / (levels - 1))], 0.0, 0.0)
    lp.rows(n * h, [(cell, run, 1.0) for run in runs], -INF, 1.0)
    lp.rows(h, [(stage, run, 1.0) for run in runs], -INF, fleet.capacity)
    before = np.where(stage == 0, np.repeat(fleet.energy_kwh, h), 0.0)
    later = np.flatnonzero(stage > 0)
    flows = [(cell, power, -per_kw) for power, per_kw in zip(powers, gain, strict=True)]
    lp.rows(n * h, [(cell, energy, 1.0), (later, energy[later - 1], -1.0), *flows], before, before)
    unserved = lp.variables(h, rates.unserved_usd_kw)
    balance = [(np.arange(h), unserved, 1.0), (stage, powers[1], 1.0), (stage, powers[0], -1.0)]
    lp.rows(h, balance, np.where(fleet.dark, fleet.critical_kw, -INF))
    x = lp.solve(time_limit_s=time_limit_s, gap=0.0).x
    return (x[powers[0]] - x[powers[1]]).reshape(n, h)


# -- the encodings --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Penalties:
    """Weights of the squared terms; the review asks for "large" ones. ``None``: what an exact form needs."""

    bits_usd: float | None = None
    """(6), (14), (16): each pair of bits too many."""
    balance_usd_kwh2: float = 1.0
    """lambda_1 of (17)."""
    capacity_usd: float | None = None
    """lambda_2 of (22): each unit too many, squared."""


def paper(
    fleet: Fleet, levels: int = 3, soc_levels: int = 16, penalties: Penalties | None = None
) -> dimod.BinaryQuadraticModel:
    """The form as printed: N H (2 K + K_SOC) variables (``levels`` K bits a direction, ``soc_levels`` K_SOC)."""
    return build(fleet, NO_FIX, levels, soc_levels, penalties)


def paper_fixed(fleet: Fleet, levels: int = 3, penalties: Penalties | None = None) -> dimod.BinaryQuadraticModel:
    """The form with every correction: 2 N H (K - 1) variables, and slack bits where a limit or hinge can bind."""
    return build(fleet, ALL_FIXES, levels, penalties=penalties)


def build(
    fleet: Fleet, fixes: Fix, levels: int = 3, soc_levels: int = 16, penalties: Penalties | None = None
) -> dimod.BinaryQuadraticModel:
    """The form with the corrections ``fixes``; energies in USD."""
    return _Form(fleet, fixes, levels, soc_levels, penalties or Penalties()).bqm


def decode_paper(fleet: Fleet, sample: Sample, levels: int = 3) -> FloatArray:
    """Signed powers (N, H) that the bits of ``paper`` stand for (12), charge less discharge, not clipped."""
    return decode(fleet, sample, NO_FIX, levels)


def decode_fixed(fleet: Fleet, sample: Sample, levels: int = 3) -> FloatArray:
    """Signed powers (N, H) that the bits of ``paper_fixed`` stand for."""
    return decode(fleet, sample, ALL_FIXES, levels)


def decode(fleet: Fleet, sample: Sample, fixes: Fix, levels: int = 3) -> FloatArray:
    """Signed powers (N, H) of a sample of ``build`` with the same ``levels`` and ``fixes``."""
    step = {way: sign * _step(limit, levels, fixes) for way, limit, sign in _ways(fleet)}
    powers = np.zeros((fleet.n_units, fleet.horizon))
    for i, t, way, k in _set_bits(sample, CHARGE, DISCHARGE):
        powers[i, t] += k * step[way][i]
    return powers


def decode_soc(fleet: Fleet, sample: Sample, fixes: Fix = NO_FIX, soc_levels: int = 16) -> FloatArray:
    """Energies (N, H) after each stage that the SoC bits stand for (15), kWh."""
    step = _step(fleet.full_kwh - fleet.floor_kwh, soc_levels, fixes)
    energy = np.repeat(fleet.floor_kwh[:, None], fleet.horizon, axis=1)
    for i, t, _, k in _set_bits(sample, SOC):
        energy[i, t] += k * step[i]
    return energy


def legal(sample: Sample) -> bool:
    """Whether (6), (14) and (16) hold: one bit a direction and SoC, one direction a stage."""
    set_bits = list(_set_bits(sample, CHARGE, DISCHARGE, SOC))
    per_kind = Counter((i, t, kind) for i, t, kind, _ in set_bits)
    directions = {(i, t, kind) for i, t, kind, k in set_bits if kind != SOC and k > 0}
    per_stage = Counter((i, t) for i, t, _ in directions)
    return max([*per_kind.values(), *per_stage.values()], default=0) <= 1


def _set_bits(sample: Sample, *kinds: str) -> Iterator[tuple[int, int, str, int]]:
    """Unit, stage, kind and level of the bits that are 1."""
    for (kind, i, t, k), value in sample.items():
        if value and kind in kinds:
            yield int(i), t, kind, k


def _ways(fleet: Fleet) -> tuple[tuple[str, FloatArray, float], ...]:
    """Both directions: name, limits (N,) and sign."""
    return (CHARGE, fleet.charge_kw, 1.0), (DISCHARGE, fleet.discharge_kw, -1.0)


def _step(span: FloatArray, levels: int, fixes: Fix) -> FloatArray:
    """(13), and (15) after its example; corrected, the last of the ``levels`` is all of ``span``."""
    return span / (levels - 1 if Fix.STEP in fixes else levels)


class _Form:
    """One binary quadratic model in the making."""

    def __init__(self, fleet: Fleet, fixes: Fix, levels: int, soc_levels: int, penalties: Penalties) -> None:
        if levels < 2 or (Fix.NO_SOC_BITS not in fixes and soc_levels < 2):
            raise UserError(f"levels={levels}, soc_levels={soc_levels}: an encoding needs at least 2")
        self.fleet, self.fixes, self.levels, self.soc_levels = fleet, fixes, levels, soc_levels
        self.penalties, self.rates = penalties, fleet.rates
        self.lowest = 1 if Fix.ONE_BIT in fixes else 0
        up, down = fleet.gain_kwh(self._dt_h())
        self.gain: dict[str, float] = {CHARGE: up, DISCHARGE: down}
        self.step = {way: _step(limit, levels, fixes) for way, limit, _ in _ways(fleet)}
        self.exact_usd = self._exact_usd()
        self.bqm = dimod.BinaryQuadraticModel(dimod.BINARY)
        self._powers()
        if Fix.NO_SOC_BITS in fixes:
            self._batteries()
        else:
            self._soc_bits()
        for t in range(fleet.horizon):
            self._capacity(t)
            if fleet.dark[t]:
                self._unserved(t)

    def _dt_h(self) -> float:
        """Stage length in the battery's dynamics; as printed, there is none."""
        return self.fleet.dt_h if Fix.STAGE_LENGTH in self.fixes else 1.0

    def _labels(self, way: str, i: int, t: int, lowest: int | None = None) -> list[Label]:
        """Bits of one direction; none where it has no power."""
        if self.step[way][i] <= 0:
            return []
        return [(way, i, t, k) for k in range(self.lowest if lowest is None else lowest, self.levels)]

    def _kw(self, way: str, i: int, t: int) -> Terms:
        """One direction's power (12)."""
        return [(label, label[3] * float(self.step[way][i])) for label in self._labels(way, i, t)]

    def _cells(self) -> Iterator[tuple[int, int]]:
        for i in range(self.fleet.n_units):
            for t in range(self.fleet.horizon):
                yield i, t

    def _add(self, terms: Terms, usd: float) -> None:
        """``usd`` for each unit of a sum."""
        for label, value in terms:
            self.bqm.add_linear(label, usd * value)

    def _square(self, terms: Terms, constant: float, usd: float) -> None:
        """``usd (terms + constant)^2``."""
        self.bqm.add_linear_equality_constraint(terms, lagrange_multiplier=usd, constant=constant)

    def _exclude(self, labels: list[Label], usd: float) -> None:
        """``usd`` for each pair that is set."""
        for a, one in enumerate(labels):
            for other in labels[:a]:
                self.bqm.add_quadratic(one, other, usd)

    def _slack(self, purpose: str, t: int, most: int) -> list[tuple[Label, int]]:
        """New bits whose weighted sums are 0, 1, ..., ``most``."""
        weights = []
        while most > 0:
            weights.append(min(2 ** len(weights), most))
            most -= weights[-1]
        return [((SLACK, purpose, t, j), w) for j, w in enumerate(weights)]

    def _bits_usd(self, i: int, t: int) -> float:
        given = self.penalties.bits_usd
        return float(self.exact_usd[i, t]) if given is None else given

    def _capacity_usd(self, t: int) -> float:
        given = self.penalties.capacity_usd
        return float(self.exact_usd[:, t].max()) if given is None else given

    def _exact_usd(self) -> FloatArray:
        """Weights (N, H) that no bit too many can earn, since it may be left out.

        Where a battery's limits can bind, later bits may need it, so there the whole unit must rest instead:
        that costs all that its best bits earn, and the best of them once more for a second bit.
        """
        f, r = self.fleet, self.rates
        charge = r.worth_usd_kwh * self.gain[CHARGE] - r.charge_usd_kw
        discharge = r.worth_usd_kwh * self.gain[DISCHARGE] - r.discharge_usd_kw + r.unserved_usd_kw
        earned = np.maximum(f.charge_kw[:, None] * charge, f.discharge_kw[:, None] * discharge)
        earned = np.maximum(earned, 0.0)
        whole = earned.sum(1) + earned.max(1)
        tied = np.array([self._can_bind(i) for i in range(f.n_units)])
        return MARGIN * np.where(tied[:, None], whole[:, None], earned) + LEAST_USD

    def _powers(self) -> None:
        """Bits, their bill and wear (1), and what excludes what: (6) and (14)."""
        usd = {CHARGE: self.rates.charge_usd_kw, DISCHARGE: self.rates.discharge_usd_kw}
        for i, t in self._cells():
            both = [self._labels(way, i, t) for way in usd]
            for way in usd:
                self._add(self._kw(way, i, t), float(usd[way][t]))
            if Fix.ONE_BIT in self.fixes:
                self._exclude(both[0] + both[1], self._bits_usd(i, t))
                continue
            for labels in both:
                self._exclude(labels, self._bits_usd(i, t))
            for one in self._labels(CHARGE, i, t, 1):
                for other in self._labels(DISCHARGE, i, t, 1):
                    self.bqm.add_quadratic(one, other, self._bits_usd(i, t))

    def _flow(self, i: int, t: int) -> Terms:
        """Energy gained in a stage (4)."""
        return [(label, kw * self.gain[way]) for way in self.step for label, kw in self._kw(way, i, t)]

    def _soc_bits(self) -> None:
        """(15)-(17). The energy at the start is known; the worth of the last is what its bits say."""
        f, step = self.fleet, _step(self.fleet.full_kwh - self.fleet.floor_kwh, self.soc_levels, self.fixes)
        before: Terms = []
        for i, t in self._cells():
            if t == 0:
                before, constant = [], float(f.floor_kwh[i] - f.energy_kwh[i])
            else:
                constant = 0.0
            labels: list[Label] = [(SOC, i, t, k) for k in range(self.lowest, self.soc_levels)]
            self._exclude(labels, self._bits_usd(i, t))
            now: Terms = [(label, label[3] * float(step[i])) for label in labels]
            spent = [(label, -value) for label, value in before + self._flow(i, t)]
            self._square(now + spent, constant, self.penalties.balance_usd_kwh2)
            before = now
            if t == f.horizon - 1:
                self._add(now, -self.rates.worth_usd_kwh)
                self.bqm.offset -= self.rates.worth_usd_kwh * float(f.floor_kwh[i] - f.energy_kwh[i])

    def _batteries(self) -> None:
        """Energies by substitution: their worth at the end is linear, and few limits (5) can bind."""
        for i, t in self._cells():
            self._add(self._flow(i, t), -self.rates.worth_usd_kwh)
        for i in range(self.fleet.n_units):
            if self._can_bind(i):
                self._limits(i)

    def _room_kwh(self, i: int) -> tuple[float, float]:
        """What a battery can still take, and still give."""
        f = self.fleet
        return max(float(f.full_kwh[i] - f.energy_kwh[i]), 0.0), max(float(f.energy_kwh[i] - f.floor_kwh[i]), 0.0)

    def _steps_kwh(self, i: int) -> tuple[float, float]:
        """Energy that a level moves in a stage, up and down."""
        up, down = (float(self.step[way][i]) * abs(self.gain[way]) for way in (CHARGE, DISCHARGE))
        return up, down

    def _can_bind(self, i: int) -> bool:
        """Whether full power throughout would reach a limit."""
        most = (self.levels - 1) * self.fleet.horizon
        pairs = zip(self._steps_kwh(i), self._room_kwh(i), strict=True)
        return any(most * kwh > room + EXACT for kwh, room in pairs)

    def _limits(self, i: int) -> None:
        """(5) after each stage at which it can bind: the energy gained is ``low`` plus slack, in whole quanta."""
        f, (room, above), (up_kwh, down_kwh) = self.fleet, self._room_kwh(i), self._steps_kwh(i)
        quantum_kwh = _quantum([up_kwh, down_kwh])
        up, down = (round(kwh / quantum_kwh) for kwh in (up_kwh, down_kwh))
        ceiling, floor = math.floor(room / quantum_kwh + EXACT), -math.floor(above / quantum_kwh + EXACT)
        gained: Terms = []
        for t in range(f.horizon):
            gained = gained + [(label, round(kwh / quantum_kwh)) for label, kwh in self._flow(i, t)]
            reach = (self.levels - 1) * (t + 1)
            if reach * up > ceiling or -reach * down < floor:
                low, high = max(floor, -reach * down), min(ceiling, reach * up)
                slack = [(label, -w) for label, w in self._slack(f"energy_{i}", t, high - low)]
                self._square([*gained, *slack], -low, float(self.exact_usd[i, t]))

    def _capacity(self, t: int) -> None:
        """(22) on all bits; corrected, no more units than (19) allows may run, and only where more could."""
        f = self.fleet
        if Fix.CAPACITY not in self.fixes:
            bits = [(b, 1.0) for i in range(f.n_units) for way in self.step for b in self._labels(way, i, t)]
            self._square(bits, -f.capacity, self._capacity_usd(t))
            return
        running = [(b, 1.0) for i in range(f.n_units) for way in self.step for b in self._labels(way, i, t, 1)]
        if f.n_units > f.capacity:
            spare = self._slack("capacity", t, f.capacity)
            self._square([*running, *spare], -f.capacity, self._capacity_usd(t))

    def _unserved(self, t: int) -> None:
        """(10): linear as printed, so that what is supplied beyond the load earns as much; corrected, a hinge."""
        f, units, usd = self.fleet, range(self.fleet.n_units), float(self.rates.unserved_usd_kw[t])
        net, load_kw = [term for i in units for term in self._kw(DISCHARGE, i, t)], float(f.critical_kw[t])
        most_kw, least_kw = (float(self.step[way].sum()) * (self.levels - 1) for way in (DISCHARGE, CHARGE))
        if Fix.HINGE in self.fixes:
            net += [(label, -kw) for i in units for label, kw in self._kw(CHARGE, i, t)]
            if most_kw > load_kw + EXACT:
                self._hinge(t, net, -least_kw, most_kw)
                return
        self._add(net, -usd)
        self.bqm.offset += usd * load_kw

    def _hinge(self, t: int, net_kw: Terms, least_kw: float, most_kw: float) -> None:
        """Cost of the load that the net discharge, between its least and its most, does not reach.

        The net discharge in quanta above its least is matched by slack of three kinds: quanta that serve load,
        one that serves what is left of it, quanta that serve nothing. The first earn most, so they come first.
        """
        usd, load_kw = float(self.rates.unserved_usd_kw[t]), float(self.fleet.critical_kw[t])
        quantum_kw = _quantum([float(x) for step in self.step.values() for x in step])
        least, most = round(least_kw / quantum_kw), round(most_kw / quantum_kw)
        whole = math.floor(load_kw / quantum_kw + EXACT)
        rest_kw = load_kw - whole * quantum_kw
        last = int(rest_kw > EXACT)
        slack = (
            (quantum_kw, self._slack("served", t, whole - least)),
            (rest_kw, self._slack("rest", t, last)),
            (0.0, self._slack("surplus", t, most - whole - last)),
        )
        matched: Terms = []
        for serves_kw, bits in slack:
            self._add([(label, w * serves_kw) for label, w in bits], -usd)
            matched += [(label, -w) for label, w in bits]
        self.bqm.offset += usd * (load_kw - least * quantum_kw)
        quanta = [(label, round(kw / quantum_kw)) for label, kw in net_kw]
        self._square([*quanta, *matched], -least, MARGIN * usd * quantum_kw)


def _quantum(steps: list[float]) -> float:
    """The largest number that all (positive) steps are whole multiples of."""
    found = [Fraction(x).limit_denominator(MOST_QUANTA) for x in steps if x > 0]
    common = math.lcm(*(x.denominator for x in found))
    quantum = math.gcd(*(int(x * common) for x in found)) / common
    if any(abs(x - round(x / quantum) * quantum) > EXACT or x > MOST_QUANTA * quantum for x in steps):
        raise UserError(
            f"steps of {', '.join(f'{x:g}' for x in steps)} have no common measure for slack bits; "
            "round powers and efficiencies to fewer digits"
        )
    return quantum
