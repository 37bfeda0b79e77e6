"""The model as a mixed-integer program over a horizon: the optimum and the rolling plans start here.

Every coefficient is read off ``model.py``. Columns: charge, discharge and energy of each vehicle at
each stage of its stay, on/off bits (2)(3)(6), import and export of each connected site (1), load
blocks, generator and PV of each island (10), reserve (7), rows of (9) and shortfalls.
"""

from typing import NamedTuple

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.linear import INF, LinearProgram, Scope, Solution
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.plant import Plant

EXACT_KW = 1e-9
"""How far a power of a relaxed solution may be from rest or from a minimum, and yet be there."""


class Outlook(NamedTuple):
    """What happens at the H stages of a plan: the truth for the optimum, forecasts for a rolling plan."""

    buy_usd_kwh: FloatArray  # (H,)
    sell_usd_kwh: FloatArray  # (H,)
    pv_kw: FloatArray  # (H, D)
    critical_kw: FloatArray  # (H, D)
    other_kw: FloatArray  # (H, D)
    feeder_scale: FloatArray  # (H,)
    fault: IntArray  # (H,)
    outage: BoolArray  # (H, D)
    reserve_on: BoolArray  # (H,) whether (7) is called for


class Vehicles(NamedTuple):
    """V vehicles and their stays in stages of the horizon."""

    socket: IntArray  # (V,)
    first: IntArray  # (V,)
    last: IntArray  # (V,) exclusive
    energy_kwh: FloatArray  # (V,)
    target_kwh: FloatArray  # (V,)
    capacity_kwh: FloatArray  # (V,)
    floor_kwh: FloatArray  # (V,)
    limit_kw: FloatArray  # (V,)
    stays: BoolArray  # (V,) energy left at the end is worth the terminal price


class Plan(NamedTuple):
    """Powers by socket, and what the solver says of them."""

    charge_kw: FloatArray  # (H, N)
    discharge_kw: FloatArray  # (H, N)
    cost_usd: float
    bound_usd: float
    seconds: float
    status: str


class _Pairs(NamedTuple):
    """Vehicle-stage pairs, flattened; P of them."""

    vehicle: IntArray
    stage: IntArray
    site: IntArray
    opens: BoolArray  # first stage of the stay
    closes: BoolArray  # last stage of the stay
    charge_kw: FloatArray  # upper limits
    charge_min_kw: FloatArray
    discharge_kw: FloatArray
    discharge_min_kw: FloatArray


class V2GProgram:
    """Builds and solves one plan.

    ``whole_stages``: stages with on/off bits and whole blocks (all by default). ``delay_usd_kwh``:
    a planner's dislike of charging at the last stage rather than the first; not part of the model.
    """

    def __init__(
        self,
        plant: Plant,
        outlook: Outlook,
        vehicles: Vehicles,
        whole_stages: int | None = None,
        delay_usd_kwh: float = 0.0,
    ) -> None:
        self.plant, self.outlook, self.vehicles = plant, outlook, vehicles
        self.params = plant.params
        self.prices = model.unit_prices(self.params.cost) * model.term_weights(self.params.cost)
        self.horizon, self.n_sites = outlook.outage.shape
        self.whole = self.horizon if whole_stages is None else whole_stages
        self.delay_usd_kwh = delay_usd_kwh
        self.lp = LinearProgram(remedy="lower n_sockets or raise dt_h")
        self.pairs = self._make_pairs()
        self._batteries()
        self._bits()
        self._sites()
        self._network()
        self._reserve()

    def _make_pairs(self) -> _Pairs:
        """Every stage of every stay, with the powers that charger and vehicle share."""
        v, plant = self.vehicles, self.plant
        length = np.maximum(v.last - v.first, 0)
        vehicle = np.repeat(np.arange(len(length)), length)
        stays = [np.arange(a, a + n) for a, n in zip(v.first, length, strict=True)]
        stage = np.concatenate(stays or [np.zeros(0, np.int64)])
        socket = v.socket[vehicle]
        charge = np.minimum(plant.charge_kw[socket], v.limit_kw[vehicle])
        charge_min = plant.charge_min_kw[socket]
        discharge = np.minimum(plant.discharge_kw[socket], v.limit_kw[vehicle])
        site = plant.site[socket]
        islanded = self.outlook.outage[stage, site]
        discharge_min = np.where(islanded, 0.0, plant.discharge_min_kw[socket])
        return _Pairs(
            vehicle=vehicle,
            stage=stage,
            site=site,
            opens=stage == v.first[vehicle],
            closes=stage == v.last[vehicle] - 1,
            charge_kw=np.where(charge >= charge_min, charge, 0.0),
            charge_min_kw=charge_min,
            discharge_kw=np.where(discharge >= discharge_min, discharge, 0.0),
            discharge_min_kw=discharge_min,
        )

    def _batteries(self) -> None:
        """(2)-(5), wear, departure shortfall and terminal value."""
        p, v, q, lp = self.params, self.vehicles, self.pairs, self.lp
        n, dt = len(q.stage), p.dt_h
        row = np.arange(n)
        through = model.coefficients(model.throughput_kwh, "charge_kw", "discharge_kw", dt_h=dt)
        wear = [self.prices[model.WEAR] * c for c in through]
        left = -self.prices[model.TERMINAL] * (q.closes & v.stays[q.vehicle])
        delay = self.delay_usd_kwh * dt * q.stage / self.horizon
        self.charge = lp.variables(n, wear[0] + delay, 0.0, q.charge_kw)
        self.discharge = lp.variables(n, wear[1], 0.0, q.discharge_kw)
        self.energy = lp.variables(n, left, v.floor_kwh[q.vehicle], v.capacity_kwh[q.vehicle])
        fixed = {"dt_h": dt, "eta_charge": p.charger.eta_charge, "eta_discharge": p.charger.eta_discharge}
        gain = model.coefficients(model.energy_next_kwh, "energy_kwh", "charge_kw", "discharge_kw", **fixed)
        later = np.flatnonzero(~q.opens)
        start = np.where(q.opens, gain[0] * v.energy_kwh[q.vehicle], 0.0)
        flows = [(row, self.charge, -gain[1]), (row, self.discharge, -gain[2])]
        terms = [(row, self.energy, 1.0), *flows, (later, self.energy[later - 1], -gain[0])]
        self._balance = lp.n_rows + row
        lp.rows(n, terms, start, start)
        ends = np.flatnonzero(q.closes)
        short = lp.variables(len(ends), self.prices[model.SHORTFALL])
        at = np.arange(len(ends))
        lp.rows(len(ends), [(at, self.energy[ends], 1.0), (at, short, 1.0)], v.target_kwh[q.vehicle[ends]])
        self._taper(later)

    def _taper(self, later: IntArray) -> None:
        """Charging power falls towards the full battery."""
        p, v, q = self.params, self.vehicles, self.pairs
        if p.charger.taper_soc >= 1.0:
            return
        fixed = {"capacity_kwh": v.capacity_kwh[q.vehicle], "power_kw": q.charge_kw, "taper_soc": p.charger.taper_soc}
        most = model.taper_kw(np.where(q.opens, v.energy_kwh[q.vehicle], 0.0), **fixed)
        (slope,) = model.coefficients(model.taper_kw, "energy_kwh", **fixed)
        row = np.arange(len(q.stage))
        self._tapered, self._taper_kw_kwh = self.lp.n_rows + row, slope
        self.lp.rows(len(row), [(row, self.charge, 1.0), (later, self.energy[later - 1], -slope[later])], -INF, most)

    def _bits(self) -> None:
        """A charger is off or between its limits, and never charges and discharges at once (2)(3)(6)."""
        q, lp = self.pairs, self.lp
        whole = np.flatnonzero(q.stage < self.whole)
        row = np.arange(len(whole))
        on, back = (lp.variables(len(whole), 0.0, 0.0, 1.0, True, Scope.WHOLE) for _ in range(2))
        self._bit_pairs, self._on, self._back = whole, on, back
        for power, bit, low, high in (
            (self.charge, on, q.charge_min_kw, q.charge_kw),
            (self.discharge, back, q.discharge_min_kw, q.discharge_kw),
        ):
            least = np.minimum(low, high)[whole]
            lp.rows(len(whole), [(row, power[whole], 1.0), (row, bit, -high[whole])], -INF, 0.0, Scope.WHOLE)
            lp.rows(len(whole), [(row, power[whole], 1.0), (row, bit, -least)], 0.0, INF, Scope.WHOLE)
        lp.rows(len(whole), [(row, on, 1.0), (row, back, 1.0)], -INF, 1.0, Scope.WHOLE)
        self._relaxed_bits(whole)
        self._whole_amperes(whole)

    def _relaxed_bits(self, whole: IntArray) -> None:
        """All that the bits ask for once they may be fractions: the shares of the powers add up to 1 at most."""
        q = self.pairs
        both = whole[(q.charge_kw[whole] > 0) & (q.discharge_kw[whole] > 0)]
        row = np.arange(len(both))
        shares = [
            (row, power[both], 1.0 / most[both])
            for power, most in ((self.charge, q.charge_kw), (self.discharge, q.discharge_kw))
        ]
        self.lp.rows(len(both), shares, -INF, 1.0, Scope.RELAXED)

    def _whole_amperes(self, whole: IntArray) -> None:
        """Charging in whole amperes, where the pilot signal asks for it."""
        step = self.plant.charge_step_kw[self.vehicles.socket[self.pairs.vehicle[whole]]]
        if not step.any():
            return
        amperes = self.lp.variables(len(whole), integer=True, scope=Scope.WHOLE)
        row = np.arange(len(whole))
        self.lp.rows(len(whole), [(row, self.charge[whole], 1.0), (row, amperes, -step)], 0.0, 0.0, Scope.WHOLE)

    def _sites(self) -> None:
        """Net power of each site's chargers, and how it is met."""
        q, lp = self.pairs, self.lp
        cells = self.horizon * self.n_sites
        self.ev = lp.variables(cells, 0.0, -INF, INF).reshape(self.horizon, self.n_sites)
        cell = q.stage * self.n_sites + q.site
        row = np.arange(cells)
        lp.rows(cells, [(row, self.ev.ravel(), 1.0), (cell, self.charge, -1.0), (cell, self.discharge, 1.0)], 0.0, 0.0)
        for d in range(self.n_sites):
            self._connected(np.flatnonzero(~self.outlook.outage[:, d]), d)
            self._islanded(np.flatnonzero(self.outlook.outage[:, d]), d)

    def _connected(self, stages: IntArray, d: int) -> None:
        """The bill (1), less the bill without vehicles."""
        o, dt, lp = self.outlook, self.params.dt_h, self.lp
        load = o.critical_kw[stages, d] + o.other_kw[stages, d]
        idle = model.meter_kw(load, 0.0, 0.0, o.pv_kw[stages, d])
        market = {"buy_usd_kwh": o.buy_usd_kwh[stages], "sell_usd_kwh": o.sell_usd_kwh[stages], "dt_h": dt}
        price = model.coefficients(model.market_usd, "import_kw", "export_kw", **market)
        weight = self.prices[model.ENERGY]
        n = len(stages)
        drawn, fed = (lp.variables(n, weight * np.broadcast_to(c, (n,))) for c in price)
        row = np.arange(n)
        lp.rows(n, [(row, drawn, 1.0), (row, fed, -1.0), (row, self.ev[stages, d], -1.0)], idle, idle)
        lp.constant -= weight * float(np.sum(model.market_usd(np.maximum(idle, 0), np.maximum(-idle, 0), **market)))

    def _islanded(self, stages: IntArray, d: int) -> None:
        """Load blocks, generator and PV of a site without supply (7)(10); charging comes last."""
        o, p, lp, n = self.outlook, self.params, self.lp, len(stages)
        if not n:
            return
        row, dt = np.arange(n), p.dt_h
        generator_kw = p.site.per_site("generator_kw")[d]
        generator = lp.variables(n, dt * self.prices[model.GENERATOR], 0.0, generator_kw)
        sun = lp.variables(n, 0.0, 0.0, o.pv_kw[stages, d])
        everything = self._whole_variables(stages, 0.0, 1.0)
        balance = [(row, generator, 1.0), (row, sun, 1.0), (row, self.ev[stages, d], -1.0)]
        for load, blocks, term in (
            (o.critical_kw[stages, d], p.site.critical_blocks, model.UNSERVED_CRITICAL),
            (o.other_kw[stages, d], p.site.other_blocks, model.UNSERVED_OTHER),
        ):
            (lost,) = model.coefficients(model.unserved_kwh, "served_kw", load_kw=0.0, dt_h=dt)
            served = self._whole_variables(stages, self.prices[term] * lost * load / blocks, blocks)
            lp.constant += self.prices[term] * float(np.sum(model.unserved_kwh(load, 0.0, dt)))
            balance.append((row, served, -load / blocks))
            lp.rows(n, [(row, served, 1.0), (row, everything, -float(blocks))], 0.0, INF)
        lp.rows(n, balance, 0.0, 0.0)
        self._charge_last(stages, d, everything)

    def _charge_last(self, stages: IntArray, d: int, everything: IntArray) -> None:
        """Charging in an island only while every block is served."""
        q, n, place = self.pairs, len(stages), self._place(stages)
        mine = np.flatnonzero((q.site == d) & (place[q.stage] >= 0))
        row = place[q.stage[mine]]
        most = np.bincount(row, weights=q.charge_kw[mine], minlength=n)
        self.lp.rows(n, [(row, self.charge[mine], 1.0), (np.arange(n), everything, -most)], -INF, 0.0)

    def _whole_variables(self, stages: IntArray, cost: FloatArray | float, upper: float) -> IntArray:
        """One variable a stage: whole within the first ``whole`` stages, continuous after."""
        cost = np.broadcast_to(np.asarray(cost, float), (len(stages),))
        near = stages < self.whole
        column = np.empty(len(stages), np.int64)
        column[near] = self.lp.variables(int(near.sum()), cost[near], 0.0, upper, integer=True)
        column[~near] = self.lp.variables(int((~near).sum()), cost[~near], 0.0, upper)
        return column

    def _network(self) -> None:
        """Rows of (9). Chargers never push a row beyond the larger of its limit and the loads alone."""
        o, rows, lp = self.outlook, self.plant.rows, self.lp
        live = ~o.outage  # (H, D)
        load = (o.critical_kw + o.other_kw) * live
        pv = (o.pv_kw * live)[:, None]
        sites = model.network_row(rows.load_coef, load[:, None], rows.ev_coef, 0.0, rows.pv_coef, pv)
        base = sites.sum(-1) + rows.base[o.fault] * o.feeder_scale[:, None]  # (H, R)
        stage, r = np.indices(base.shape).reshape(2, -1)
        n, alone = len(stage), base[stage, r]
        coef = rows.ev_coef[r] * live[stage]  # (H*R, D)
        row = np.arange(n)
        terms = [(row, self.ev[stage, d], coef[:, d]) for d in range(self.n_sites)]
        high, low = rows.high[r], rows.low[r]
        lp.rows(n, terms, np.minimum(low, alone) - alone, np.maximum(high, alone) - alone)
        price = self.prices[model.VIOLATION] * self.params.dt_h
        for over, sign, limit in ((alone > high, 1.0, high), (alone < low, -1.0, low)):
            beyond = np.flatnonzero(over)
            slack = lp.variables(len(beyond), price)
            at = np.arange(len(beyond))
            excess = [(at, self.ev[stage[beyond], d], sign * coef[beyond, d]) for d in range(self.n_sites)]
            lp.rows(len(beyond), [*excess, (at, slack, -1.0)], -INF, sign * (limit[beyond] - alone[beyond]))

    def _reserve(self) -> None:
        """Shortfall of the spinning reserve (7) at connected sites, while the risk calls for it."""
        o, p, q, lp = self.outlook, self.params, self.pairs, self.lp
        if p.reserve.share == 0 or self.prices[model.RESERVE] == 0:
            return
        wanted = p.reserve.share * o.critical_kw - p.site.per_site("generator_kw")
        stage, site = np.nonzero(o.reserve_on[:, None] & ~o.outage & (wanted > 0))
        if not len(stage):
            return
        place = np.full((self.horizon, self.n_sites), -1)
        place[stage, site] = np.arange(len(stage))
        mine = np.flatnonzero(place[q.stage, q.site] >= 0)
        held = lp.variables(len(mine), 0.0, 0.0, q.discharge_kw[mine])
        fixed = {"floor_kwh": 0.0, "eta_discharge": p.charger.eta_discharge, "hours_h": p.reserve.hours_h}
        (per_kwh,) = model.coefficients(model.reserve_kw, "energy_kwh", **fixed)
        row = np.arange(len(mine))
        floor = self.vehicles.floor_kwh[q.vehicle[mine]]
        lp.rows(len(mine), [(row, held, 1.0), (row, self.energy[mine], -per_kwh)], -INF, -per_kwh * floor)
        short = lp.variables(len(stage), self.prices[model.RESERVE] * p.dt_h)
        at = np.arange(len(stage))
        lp.rows(len(stage), [(place[q.stage[mine], q.site[mine]], held, 1.0), (at, short, 1.0)], wanted[stage, site])

    def solve(self, *, time_limit_s: float = 30.0, gap_usd: float = 0.5) -> Plan:
        """Relax, hold the chargers at rest that rest in the relaxation, solve the rest exactly.

        The relaxation's cost is the proven bound, and its solution the optimum if it is whole.
        Where the restricted program misses it by more than ``gap_usd`` the whole program gets the
        time that is left.
        """
        relaxed = self.lp.solve(relax=True, time_limit_s=time_limit_s)
        if self._is_whole(relaxed.x):
            return self._plan(relaxed)
        powers = ((self.charge, self._on), (self.discharge, self._back))
        zero = np.concatenate([bit[relaxed.x[power[self._bit_pairs]] <= 1e-7] for power, bit in powers])
        best = self._try(zero, time_limit_s / 2, gap_usd)
        seconds = relaxed.seconds + (best.seconds if best else 0.0)
        bound = relaxed.objective
        if best is None or best.objective - bound > gap_usd:
            left_s = max(time_limit_s - seconds, time_limit_s / 4)
            best, bound, seconds = self._whole_program(best, bound, seconds, left_s, gap_usd)
        return self._plan(Solution(best.x, best.objective, min(bound, best.objective), best.status, seconds))

    def energy_values(self, *, time_limit_s: float = 30.0) -> FloatArray:
        """What one more kWh in each vehicle's battery at the start is worth, USD (V,): duals of the relaxation."""
        dual = self.lp.solve(relax=True, time_limit_s=time_limit_s).row_dual
        assert dual is not None
        opens = np.flatnonzero(self.pairs.opens)
        worth = np.zeros(len(self.vehicles.socket))
        worth[self.pairs.vehicle[opens]] = -dual[self._balance[opens]]
        if self.params.charger.taper_soc < 1.0:  # a fuller battery takes less
            worth[self.pairs.vehicle[opens]] -= dual[self._tapered[opens]] * self._taper_kw_kwh[opens]
        return worth

    def _whole_program(
        self, best: Solution | None, bound: float, seconds: float, left_s: float, gap_usd: float
    ) -> tuple[Solution, float, float]:
        """Nothing held at rest; what was found before stands where this finds nothing."""
        try:
            full = self.lp.solve(time_limit_s=left_s, gap=0.0, gap_abs=gap_usd)
        except UserError:
            if best is None:
                raise
            return best, bound, seconds + left_s
        chosen = full if best is None else min(best, full, key=lambda x: x.objective)
        return chosen, max(bound, full.bound), seconds + full.seconds

    def _is_whole(self, x: FloatArray) -> bool:
        """Whether a relaxed solution happens to be off or between the limits, one way at a time."""
        q, w = self.pairs, self._bit_pairs
        charge, discharge = x[self.charge[w]], x[self.discharge[w]]
        rests, idle = charge <= EXACT_KW, discharge <= EXACT_KW
        fits = (rests | (charge >= q.charge_min_kw[w] - EXACT_KW)) & (rests | idle)
        fits &= idle | (discharge >= q.discharge_min_kw[w] - EXACT_KW)
        return bool(fits.all()) and not self.plant.charge_step_kw.any() and self.lp.is_whole(x, EXACT_KW)

    def _try(self, zero: IntArray, time_limit_s: float, gap_usd: float) -> Solution | None:
        """The best solution found with the columns ``zero`` at 0, if any."""
        try:
            return self.lp.solve(zero=zero, time_limit_s=time_limit_s, gap=0.0, gap_abs=gap_usd)
        except UserError:
            return None

    def hold_energy(self, wanted_kwh: FloatArray, price_usd_kwh: float) -> None:
        """Ask softly that the connected vehicles hold ``wanted_kwh`` (H,) above their floors in all."""
        q, lp = self.pairs, self.lp
        stages = np.flatnonzero(wanted_kwh > 0)
        place = self._place(stages)
        mine = np.flatnonzero(place[q.stage] >= 0)
        row, n, floor_kwh = place[q.stage[mine]], len(stages), self.vehicles.floor_kwh[q.vehicle[mine]]
        floor = np.bincount(row, weights=floor_kwh, minlength=n)
        short = lp.variables(n, price_usd_kwh * self.params.dt_h)
        lp.rows(n, [(row, self.energy[mine], 1.0), (np.arange(n), short, 1.0)], wanted_kwh[stages] + floor)

    def _place(self, stages: IntArray) -> IntArray:
        """Position of each stage (H,) in ``stages``, -1 where it is not among them."""
        place = np.full(self.horizon, -1)
        place[stages] = np.arange(len(stages))
        return place

    def _plan(self, solution: Solution) -> Plan:
        """Powers by stage and socket."""
        q = self.pairs
        socket = self.vehicles.socket[q.vehicle]
        charge, discharge = np.zeros((2, self.horizon, self.plant.n_sockets))
        charge[q.stage, socket] = solution.x[self.charge]
        discharge[q.stage, socket] = solution.x[self.discharge]
        return Plan(charge, discharge, solution.objective, solution.bound, solution.seconds, solution.status)
