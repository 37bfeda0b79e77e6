"""The present stage of V2G as an ``AggregateQUBO``, and its solution as an action.

Units: every vehicle (options: power levels, off first) and every dark site (options: blocks of load).
Resources: the meter of a connected site (market, limits of (9)), the balance of a dark one (PV, generator),
the energy of each site's fleet after the stage (the critic's worth), rows of (9) that several sites share,
and the reserve of (7). Every coefficient comes from ``model``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.agents.hybrid.value import FleetValue
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.projection import BLOCK_TOLERANCE_KW

OVER_USD_KWH = 6.0
"""Price, beyond the steepest worth, of asking for what a limit forbids: the environment would cut it."""


class Options(NamedTuple):
    """Power levels of V vehicles; column 0 = off."""

    power_kw: FloatArray  # (V, L) signed
    allowed: BoolArray  # (V, L)
    energy_kwh: FloatArray  # (V, L) in the battery after the stage


@dataclass(frozen=True)
class Decision:
    """What a choice means."""

    problem: AggregateQUBO
    socket: IntArray  # (V,) of the first V units
    power_kw: FloatArray  # (V, L) by position of the option
    dark: IntArray  # sites of the units that follow
    blocks: tuple[FloatArray, ...]  # kW of each dark site's blocks, a unit each


def levels(view: View, b: int, socket: IntArray, shares: FloatArray) -> Options:
    """The levels ``shares`` (L,), 0 first, that charger and battery allow; rules 1 and 2 of the projection."""
    p, plant = view.plant.params, view.plant
    dt, eta_c, eta_d = p.dt_h, p.charger.eta_charge, p.charger.eta_discharge
    energy, cap = view.energy_kwh[b, socket], view.capacity_kwh[b, socket]
    up, down = view.charge_kw[b, socket], view.discharge_kw[b, socket]
    up_room = (cap - energy) / (eta_c * dt)
    if p.charger.taper_soc < 1.0:
        up_room = np.minimum(up_room, model.taper_kw(energy, cap, up, p.charger.taper_soc))
    down_room = (energy - view.floor_kwh[b, socket]) * eta_d / dt
    power = np.where(shares > 0, up[:, None] * shares, down[:, None] * shares)
    room = np.where(shares > 0, up_room[:, None], down_room[:, None])
    size = np.minimum(np.abs(power), np.maximum(room, 0.0))
    dark = view.outage[b, plant.site[socket]]
    low_down = np.where(dark, 0.0, plant.discharge_min_kw[socket])
    low = np.where(shares > 0, plant.charge_min_kw[socket][:, None], low_down[:, None])
    step = plant.charge_step_kw[socket][:, None] * (shares > 0)
    size = np.where(step > 0, np.floor(size / np.maximum(step, 1e-12) + 1e-9) * step, size)
    allowed = (size >= low - 1e-9) & (size > 1e-9)
    allowed[:, 0] = True
    signed = np.where(allowed, np.sign(power) * size, 0.0)
    after = model.energy_next_kwh(energy[:, None], np.maximum(signed, 0.0), np.maximum(-signed, 0.0), dt, eta_c, eta_d)
    return Options(signed, allowed, after)


def decide(view: View, forecast: Forecast, b: int, value: FleetValue | None, shares: FloatArray) -> Decision:
    """The problem of episode ``b``'s present stage. Without ``value`` nothing stored is worth anything."""
    return Builder(view, forecast, b, value, shares).build()


class Builder:
    """Collects units and resources."""

    def __init__(
        self,
        view: View,
        forecast: Forecast,
        b: int,
        value: FleetValue | None,
        shares: FloatArray,
        lead: int = 0,
        dark: BoolArray | None = None,
    ) -> None:
        self.view, self.forecast, self.b, self.value, self.lead = view, forecast, b, value, lead
        self.plant: Plant = view.plant
        self.params = self.plant.params
        self.price = model.unit_prices(self.params.cost) * model.term_weights(self.params.cost)
        self.socket = np.flatnonzero(view.plugged[b])
        self.site = self.plant.site[self.socket]
        self.options = levels(view, b, self.socket, shares)
        self.dark = view.outage[b] if dark is None else dark
        self.columns: list[FloatArray] = []  # use of the vehicles' options (V, L)
        self.balance_column: dict[int, int] = {}
        self.functions: list[tuple[float, list[tuple[float, float]]]] = []
        self.constant = 0.0

    def build(self) -> Decision:
        """All units and resources."""
        own = self._own_cost()
        self._no_charging_in_the_dark()
        load = {int(d): self.blocks_of(int(d)) for d in np.flatnonzero(self.dark)}
        for d in range(self.plant.n_sites):
            if self.dark[d]:
                self.balance(d)
            else:
                self.meter(d)
                self._reserve(d)
            self._fleet(d)
        self._shared_rows()
        problem = self._assemble(own, load)
        return Decision(
            problem, self.socket, self._listed(self.options.power_kw), np.flatnonzero(self.dark),
            tuple(power for power, _ in load.values()),
        )  # fmt: skip

    def _own_cost(self) -> FloatArray:
        """Wear, departures and what sets a vehicle apart from the fleet, (V, L)."""
        p, o, view, b = self.params, self.options, self.view, self.b
        through = model.throughput_kwh(np.maximum(o.power_kw, 0.0), np.maximum(-o.power_kw, 0.0), p.dt_h)
        cost = self.price[model.WEAR] * through
        now = o.energy_kwh[:, :1]
        self.leaves = view.declared[b, self.socket] <= view.stage[b] + 1
        missing = np.maximum(view.target_kwh[b, self.socket][:, None] - o.energy_kwh, 0.0)
        leaving = self.price[model.SHORTFALL] * missing
        last = view.stage[b] + 1 >= p.n_stages
        if last:
            stays = (view.declared[b, self.socket] > p.n_stages)[:, None]
            leaving = leaving - stays * self.price[model.TERMINAL] * o.energy_kwh
            self.leaves = np.ones(len(self.socket), bool)
        staying = np.zeros(o.power_kw.shape)
        if self.value is not None and not last and len(self.socket):
            middle = (now + o.energy_kwh) / 2
            calm = float(self.value.calm(np.zeros(1))[0])
            apart = self.value.vehicles(middle)
            for d in np.flatnonzero(
                self.dark
            ):  # who leaves before supply is back has no use for more than its own need
                mine = self.site == d
                still = self.value.still_dark(int(d))[mine, None]
                fleet = np.interp(0.0, *self.value.marginal(int(d)))
                apart[mine] += still * (calm - fleet)
            staying = -apart * (o.energy_kwh - now)
        return cost + np.where(self.leaves[:, None], leaving, staying)

    def _no_charging_in_the_dark(self) -> None:
        """Charging waits until every block is served, which needs PV and generator to carry all."""
        for d in np.flatnonzero(self.dark):
            f, b = self.forecast, self.b
            own = f.pv_kw[b, self.lead, d] + self.params.site.per_site("generator_kw")[d]
            if own < f.critical_kw[b, self.lead, d] + f.other_kw[b, self.lead, d]:
                self.options.allowed[(self.site == d)[:, None] & (self.options.power_kw > 0)] = False

    def blocks_of(self, d: int) -> tuple[FloatArray, FloatArray]:
        """Power (kW) of each block of load of site ``d``, and what leaving it dark costs, USD."""
        s, f, b = self.params.site, self.forecast, self.b
        power, lost = [], []
        for load, count, term in (
            (f.critical_kw[b, self.lead, d], s.critical_blocks, model.UNSERVED_CRITICAL),
            (f.other_kw[b, self.lead, d], s.other_blocks, model.UNSERVED_OTHER),
        ):
            power.append(np.full(count, load / count))
            lost.append(self.price[term] * model.unserved_kwh(power[-1], 0.0, self.params.dt_h))
        return np.concatenate(power), np.concatenate(lost)

    def _resource(self, use: FloatArray, slope: float, kinks: list[tuple[float, float]]) -> None:
        self.columns.append(use)
        self.functions.append((slope, kinks))

    def balance(self, d: int) -> None:
        """A dark site: PV is free, then the generator, and nothing beyond."""
        p, f, b = self.params, self.forecast, self.b
        generator = p.site.per_site("generator_kw")[d]
        fuel = p.dt_h * self.price[model.GENERATOR]
        beyond = p.dt_h * (self.price[model.UNSERVED_CRITICAL] + OVER_USD_KWH) - fuel
        pv = f.pv_kw[b, self.lead, d]
        self.balance_column[d] = len(self.columns)
        self._resource(self.options.power_kw * (self.site == d)[:, None], 0.0, [(pv, fuel), (pv + generator, beyond)])

    def meter(self, d: int) -> None:
        """A connected site: the market (1), and limits of (9) that this site alone moves."""
        p, f, b = self.params, self.forecast, self.b
        load = f.critical_kw[b, self.lead, d] + f.other_kw[b, self.lead, d]
        idle = float(model.meter_kw(load, 0.0, 0.0, f.pv_kw[b, self.lead, d]))
        market = {
            "buy_usd_kwh": f.buy_usd_kwh[b, self.lead],
            "sell_usd_kwh": f.sell_usd_kwh[b, self.lead],
            "dt_h": p.dt_h,
        }
        buy, feed = model.coefficients(model.market_usd, "import_kw", "export_kw", **market)
        buy, sell = self.price[model.ENERGY] * float(buy), -self.price[model.ENERGY] * float(feed)
        kinks = [(-idle, buy - sell)]
        self.constant -= self.price[model.ENERGY] * float(model.market_usd(max(idle, 0.0), max(-idle, 0.0), **market))
        self.constant += sell * idle if idle < 0 else buy * idle
        self.constant -= (buy - sell) * max(idle, 0.0)
        slope = sell
        for at, rise in self._row_kinks(self.plant.rows.ev_coef[:, d] * self._alone_at(d), self.site == d):
            if rise < 0:  # steep below ``at``: the first slope falls, and rises back there
                slope += rise
                self.constant -= rise * at
            kinks.append((at, abs(rise)))
        self._resource(self.options.power_kw * (self.site == d)[:, None], slope, kinks)

    def _alone_at(self, d: int) -> BoolArray:
        """Rows of (9) that no other connected site moves, (R,)."""
        coef = self.plant.rows.ev_coef * ~self.dark
        return (coef[:, d] > 0) & ((coef > 0).sum(1) == 1)

    @cached_property
    def _idle_rows(self) -> FloatArray:
        """Rows of (9) with all chargers off, (R,)."""
        f, b, rows = self.forecast, self.b, self.plant.rows
        live = ~self.dark
        load = (f.critical_kw[b, self.lead] + f.other_kw[b, self.lead]) * live
        fault = rows.base[0] * f.feeder_scale[b, self.lead]
        return rows.load_coef @ load - rows.pv_coef @ (f.pv_kw[b, self.lead] * live) + fault

    def _row_kinks(self, coef: FloatArray, mine: BoolArray) -> list[tuple[float, float]]:
        """Kinks (power of ``mine`` in kW, USD/h x dt; negative: below it) of rows with ``coef`` (R,), where in reach."""
        rows, dt = self.plant.rows, self.params.dt_h
        violation, over = dt * self.price[model.VIOLATION], dt * OVER_USD_KWH
        power = self.options.power_kw[mine]
        most = np.maximum(power.max(1, initial=0.0), 0.0).sum()
        least = np.minimum(power.min(1, initial=0.0), 0.0).sum()
        kinks = []
        for r in np.flatnonzero(coef > 0):
            high, low = (rows.high[r] - self._idle_rows[r]) / coef[r], (rows.low[r] - self._idle_rows[r]) / coef[r]
            if high < most:
                kinks += [(max(high, 0.0), over)] + ([(high, violation * coef[r])] if high < 0 else [])
            if low > least:
                kinks += [(min(low, 0.0), -over)] + ([(low, -violation * coef[r])] if low > 0 else [])
        return kinks

    def _shared_rows(self) -> None:
        """Rows of (9) that several connected sites move, where they can be reached."""
        coef = self.plant.rows.ev_coef * ~self.dark
        shared = np.flatnonzero((coef > 0).sum(1) > 1)
        if not len(shared):
            return
        dt, rows = self.params.dt_h, self.plant.rows
        violation, over = dt * self.price[model.VIOLATION], dt * OVER_USD_KWH
        most, least = self.options.power_kw.max(1, initial=0.0), self.options.power_kw.min(1, initial=0.0)
        for r in shared:
            weight = coef[r, self.site]
            high, low = rows.high[r] - self._idle_rows[r], rows.low[r] - self._idle_rows[r]
            for use, limit, reach in ((weight, high, weight @ most), (-weight, -low, -(weight @ least))):
                if reach > limit:
                    beyond = [(limit, violation)] if limit < 0 else []
                    self._resource(self.options.power_kw * use[:, None], 0.0, [(max(limit, 0.0), over), *beyond])

    def _reserve(self, d: int) -> None:
        """Shortfall of the reserve (7), where an option could bring it about."""
        p, view, b = self.params, self.view, self.b
        if view.risk[b] < p.reserve.risk or self.price[model.RESERVE] == 0:
            return
        generator = p.site.per_site("generator_kw")[d]
        wanted = p.reserve.share * self.forecast.critical_kw[b, self.lead, d] - generator
        floor = view.floor_kwh[b, self.socket][:, None]
        held = model.reserve_kw(self.options.energy_kwh, floor, p.charger.eta_discharge, p.reserve.hours_h)
        held = np.minimum(held, view.discharge_kw[b, self.socket][:, None]) * (self.site == d)[:, None]
        if held.min(1, initial=np.inf).sum() >= wanted or wanted <= 0:
            return
        price = self.price[model.RESERVE] * p.dt_h
        self.constant += price * wanted
        self._resource(held, -price, [(wanted, price)])

    def _fleet(self, d: int) -> None:
        """Worth of the energy that stays with the site's fleet."""
        if self.value is None or not len(self.socket):
            return
        mine = (self.site == d) & ~self.leaves
        if not mine.any():
            return
        shift, worth = self.value.marginal(d)
        moved = (self.options.energy_kwh - self.options.energy_kwh[:, :1]) * mine[:, None]
        middle = (shift[1:] + shift[:-1]) / 2
        self._resource(moved, -worth[0], list(zip(middle.tolist(), (worth[:-1] - worth[1:]).tolist(), strict=True)))
        self.constant -= float(np.maximum(-middle, 0.0) @ (worth[:-1] - worth[1:]))  # 0 where nothing moves

    def _listed(self, x: FloatArray) -> FloatArray:
        """Rows with the allowed options first, in their order."""
        order = np.argsort(~self.options.allowed, axis=1, kind="stable")
        return np.take_along_axis(x, order, 1)

    def _assemble(self, own: FloatArray, load: dict[int, tuple[FloatArray, FloatArray]]) -> AggregateQUBO:
        allowed = self.options.allowed
        n_vehicle = int(allowed.sum())
        blocks = sum(len(power) for power, _ in load.values())
        first = np.concatenate([[0], np.cumsum(allowed.sum(1)), n_vehicle + 2 * (1 + np.arange(blocks))]).astype(
            np.int64
        )
        use, cost = np.zeros((first[-1], len(self.columns))), np.zeros(first[-1])
        for r, column in enumerate(self.columns):
            use[:n_vehicle, r] = column[allowed]
        cost[:n_vehicle] = own[allowed]
        at = n_vehicle
        for d, (power, lost) in load.items():
            cost[at : at + 2 * len(power) : 2] = lost  # option 0: dark, option 1: served
            use[at + 1 : at + 2 * len(power) : 2, self.balance_column[d]] = power
            at += 2 * len(power)
        return AggregateQUBO.one_hot(first, cost, use, Pieces.of(self.functions), self.constant)


def served_kw(decision: Decision, choice: IntArray) -> FloatArray:
    """Load that a choice picks up at each dark site."""
    at, found = len(decision.socket), np.zeros(len(decision.dark))
    for k, power in enumerate(decision.blocks):
        found[k] = power @ choice[at : at + len(power)]
        at += len(power)
    return found


def powers(decision: Decision, choice: IntArray) -> FloatArray:
    """Signed power (V,) of the vehicles in a choice (M,)."""
    v = len(decision.socket)
    return decision.power_kw[np.arange(v), choice[:v]]


def repaired(view: View, forecast: Forecast, b: int, decision: Decision, choice: IntArray) -> FloatArray:
    """Powers (V,) of a choice; in an island the discharge that the chosen blocks take beyond PV and generator, exactly.

    There discharge is continuous, so that the levels' rounding is given back or found at the other vehicles.
    Blocks that all of them cannot carry stay dark, and nothing is discharged for them.
    """
    power, site = powers(decision, choice), view.plant.site[decision.socket]
    generator, at = view.plant.params.site.per_site("generator_kw"), len(power)
    for d, blocks in zip(decision.dark, decision.blocks, strict=True):
        taken, at = blocks[choice[at : at + len(blocks)] > 0], at + len(blocks)
        room = np.where((site == d) & (power <= 0), power - decision.power_kw.min(1), 0.0)
        feeding = (site == d) & (power < 0)
        total, own = -power[feeding].sum(), forecast.pv_kw[b, 0, d] + generator[d]
        carried = _carried(taken, own + total + room.sum())
        needed = max(sum(carried) - own, 0.0)
        if total > needed:
            if needed > 0 or len(carried) < len(taken):  # else it takes the place of fuel
                power[feeding] *= needed / total
        elif room.any():
            power -= room * min((needed - total) / room.sum(), 1.0)
    return power


def _carried(blocks: FloatArray, supply_kw: float) -> list[float]:
    """Those of ``blocks`` (kW) that ``supply_kw`` can carry, the first ones first."""
    carried: list[float] = []
    for power in blocks.tolist():
        if sum(carried) + power <= supply_kw + BLOCK_TOLERANCE_KW / 2:
            carried.append(power)
    return carried
