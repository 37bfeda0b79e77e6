"""H stages at once: vehicles choose among plans, found by exact dynamic programming at shadow prices.

What is shared stage by stage is the meter or the balance of each site; a block of load is a unit that may
draw its power in one stage. The worth of the fleet's energy after the last stage enters as a resource of
its own once the plans are there, exactly as with one stage. Rows of (9) that several sites share, the reserve
of (7), the taper and whole amperes are left to the environment.
"""

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qevgrid.agents.hybrid.corrections import Corrections
from qevgrid.agents.hybrid.decision import Builder, Decision
from qevgrid.agents.hybrid.lattice import StorageUnits
from qevgrid.agents.hybrid.plans import Lookahead, lookahead
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.agents.hybrid.value import FleetValue
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast

if TYPE_CHECKING:
    from qevgrid.agents.hybrid.controller import Controller

DARK_PROBABILITY = 0.5
"""An outage is planned to last while its probability is at least this."""
GRID = 5
"""Energies at which the worth of a vehicle's energy is tabulated."""
DUAL_STEPS = 30


class Blocks(NamedTuple):
    """Blocks of load of the dark sites, those of the present stage first."""

    stage: IntArray  # (K,)
    site: IntArray  # (K,)
    power_kw: FloatArray  # (K,)
    lost_usd: FloatArray  # (K,)


def decide(controller: "Controller", view: View, forecast: Forecast, b: int, fix: Corrections) -> Decision:
    """The problem of the next ``config.horizon`` stages; its first stage is what a choice means."""
    c = controller.config
    horizon = min(c.horizon, view.plant.params.n_stages - int(view.stage[b]))
    worth = controller.worth(view, forecast, b, fix) if view.stage[b] + horizon < view.plant.params.n_stages else None
    return _Ahead(controller, view, forecast, b, worth, horizon).decision(c.candidates)


class _Ahead:
    """One decision over several stages."""

    def __init__(
        self, controller: "Controller", view: View, f: Forecast, b: int, worth: FleetValue | None, horizon: int
    ) -> None:
        self.view, self.forecast, self.b, self.worth, self.horizon = view, f, b, worth, horizon
        self.plant, self.params = view.plant, view.plant.params
        self.price = model.unit_prices(self.params.cost) * model.term_weights(self.params.cost)
        self.share = np.sort(controller.shares)
        self.dark = view.outage[b] & (f.outage_probability[b, :horizon] >= DARK_PROBABILITY)  # (H, D)
        self.dark[0] = view.outage[b]
        self.stages = [Builder(view, f, b, None, controller.shares, h, self.dark[h]) for h in range(horizon)]
        self.socket, self.site = self.stages[0].socket, self.stages[0].site
        self.left = np.maximum(view.declared[b, self.socket] - view.stage[b], 1)
        up, down = view.charge_kw[b, self.socket, None], view.discharge_kw[b, self.socket, None]
        self.power = np.where(self.share > 0, up * self.share, down * self.share)
        for builder in self.stages:  # later stages can reach what a full or an empty battery cannot now
            builder.options = builder.options._replace(power_kw=self.power)

    def decision(self, count: int) -> Decision:
        """Plans, then the problem over them."""
        blocks, (pieces, constant) = self._blocks(), self._pieces()
        units = self._units(blocks)
        found = lookahead(units, pieces, count=count, steps=DUAL_STEPS, constant_usd=constant)
        v = len(self.socket)
        power = np.take_along_axis(units.power_kw[found.problem.unit], found.level[:, :1], 1)[:, 0]
        sizes = np.diff(found.problem.first)[:v]
        table = np.zeros((v, int(sizes.max(initial=1))))
        table[np.repeat(np.arange(v), sizes), np.concatenate([np.arange(n) for n in sizes] or [[]]).astype(int)] = (
            power[: sizes.sum()]
        )
        dark = np.flatnonzero(self.dark[0])
        now = tuple(blocks.power_kw[(blocks.stage == 0) & (blocks.site == d)] for d in dark)
        return Decision(self._with_fleet(found, units), self.socket, table, dark, now)

    def _pieces(self) -> tuple[Pieces, float]:
        """Functions of every stage and site, and their constant."""
        functions, constant = [], 0.0
        for builder in self.stages:
            for d in range(self.plant.n_sites):
                if builder.dark[d]:
                    builder.balance(d)
                else:
                    builder.meter(d)
            functions += builder.functions
            constant += builder.constant
        return Pieces.of(functions), constant

    def _blocks(self) -> Blocks:
        """All blocks of all dark stages."""
        rows = []
        for h, d in zip(*np.nonzero(self.dark), strict=True):
            power, lost = self.stages[h].blocks_of(int(d))
            rows += [(h, d, p, u) for p, u in zip(power, lost, strict=True)]
        table = np.array(rows, float).reshape(-1, 4)
        return Blocks(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])

    def _units(self, blocks: Blocks) -> StorageUnits:
        """Vehicles, then blocks."""
        view, b, p = self.view, self.b, self.params
        v, k, n_levels = len(self.socket), len(blocks.stage), len(self.share)
        power = self.power
        block_power = blocks.power_kw[:, None] * np.arange(-(n_levels // 2), n_levels // 2 + 1)
        allowed = np.zeros((v + k, self.horizon, n_levels), bool)
        allowed[:v] = self._allowed(power)
        allowed[:, :, n_levels // 2] = True
        allowed[v + np.arange(k), blocks.stage, n_levels // 2 + 1] = True
        through = model.throughput_kwh(np.maximum(power, 0.0), np.maximum(-power, 0.0), p.dt_h)
        cost = np.zeros((v + k, self.horizon, n_levels))
        cost[:v] = (self.price[model.WEAR] * through)[:, None]
        cost[v + np.arange(k), blocks.stage] = blocks.lost_usd[:, None]
        cost[v + np.arange(k), blocks.stage, n_levels // 2 + 1] = 0.0
        gain = model.coefficients(
            model.energy_next_kwh, "charge_kw", "discharge_kw", energy_kwh=0.0, dt_h=p.dt_h,
            eta_charge=p.charger.eta_charge, eta_discharge=p.charger.eta_discharge,
        )  # fmt: skip
        energy, zero, full = view.energy_kwh[b, self.socket], np.zeros(k), np.full(k, np.inf)
        grid, worth = self._worth(energy)
        ends = view.stage[b] + self.horizon >= p.n_stages
        leaves = (self.left <= self.horizon) | ends
        stays = ends & (view.declared[b, self.socket] > p.n_stages)
        worth[leaves] = 0.0
        worth[stays] = self.price[model.TERMINAL] * grid[stays]
        return StorageUnits(
            power_kw=np.concatenate([power, block_power]),
            allowed=allowed,
            cost_usd=cost,
            coupling=np.eye(self.plant.n_sites)[np.concatenate([self.site, blocks.site])],
            start_kwh=np.concatenate([energy, zero]),
            least_kwh=np.concatenate([view.floor_kwh[b, self.socket], zero]),
            most_kwh=np.concatenate([view.capacity_kwh[b, self.socket], full]),
            charge_h=np.concatenate([np.full(v, gain[0]), zero]),
            discharge_h=np.concatenate([np.full(v, -gain[1]), zero]),
            grid_kwh=np.concatenate([grid, np.tile(np.arange(float(GRID)), (k, 1))]),
            worth_usd=np.concatenate([worth, np.zeros((k, GRID))]),
            target_kwh=np.concatenate([view.target_kwh[b, self.socket], zero]),
            shortfall_usd_kwh=np.concatenate([np.where(leaves, self.price[model.SHORTFALL], 0.0), zero]),
        )

    def _allowed(self, power: FloatArray) -> BoolArray:
        """Levels (V, H, L) above the chargers' minimum, while the vehicle is there."""
        plant, sign = self.plant, self.share > 0
        dark = self.dark[:, self.site].T  # (V, H)
        low_down = np.where(dark, 0.0, plant.discharge_min_kw[self.socket][:, None])
        low = np.where(sign, plant.charge_min_kw[self.socket][:, None, None], low_down[:, :, None])
        allowed = np.abs(power)[:, None] >= low - 1e-9
        allowed &= (np.abs(power) > 1e-9)[:, None]
        allowed &= (np.arange(self.horizon) < self.left[:, None])[:, :, None]
        return allowed & ~(dark[:, :, None] & sign & ~self._surplus()[:, :, None])

    def _surplus(self) -> BoolArray:
        """Whether PV and generator carry the vehicle's whole site, (V, H)."""
        f, b = self.forecast, self.b
        own = f.pv_kw[b, : self.horizon] + self.params.site.per_site("generator_kw")
        load = f.critical_kw[b, : self.horizon] + f.other_kw[b, : self.horizon]
        return (own >= load)[:, self.site].T

    def _worth(self, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Energies (V, GRID) within reach and the worth of each, USD, 0 at the present one."""
        view, b, p = self.view, self.b, self.params
        span = self.horizon * p.dt_h * np.maximum(view.charge_kw[b, self.socket], 1.0) * 1.1
        grid = energy[:, None] + span[:, None] * np.linspace(-1.0, 1.0, GRID)
        if self.worth is None:
            return grid, np.zeros(grid.shape)
        middle = np.clip((grid[:, 1:] + grid[:, :-1]) / 2, 0.0, view.capacity_kwh[b, self.socket][:, None])
        fleet = np.array([np.interp(0.0, *self.marginals[d]) for d in range(self.plant.n_sites)])[self.site]
        slope = fleet[:, None] + self.worth.vehicles(middle)
        total = np.concatenate([np.zeros((len(grid), 1)), np.cumsum(slope * np.diff(grid, axis=1), 1)], 1)
        return grid, total - total[:, GRID // 2, None]

    @cached_property
    def marginals(self) -> list[tuple[FloatArray, FloatArray]]:
        """The fleet's worth around its present energy, by site."""
        assert self.worth is not None
        return [self.worth.marginal(d) for d in range(self.plant.n_sites)]

    def _with_fleet(self, found: Lookahead, units: StorageUnits) -> AggregateQUBO:
        """The problem with a resource more a site: by how much the fleet's energy moves its worth."""
        problem = found.problem
        if self.worth is None:
            return problem
        unit = problem.unit
        moved = units.rise_kwh[unit[:, None], found.level].sum(1)
        vehicle = unit < len(self.socket)
        stays = np.zeros(len(unit), bool)
        stays[vehicle] = self.left[unit[vehicle]] > self.horizon
        columns, functions, constant = [], [], problem.constant_usd
        old = problem.pieces
        for d in range(self.plant.n_sites):
            shift, worth = self.marginals[d]
            worth = worth - np.interp(0.0, shift, worth)
            middle, fall = (shift[1:] + shift[:-1]) / 2, worth[:-1] - worth[1:]
            mine = stays.copy()
            mine[vehicle] &= self.site[unit[vehicle]] == d
            columns.append(moved * mine)
            functions.append((-worth[0], list(zip(middle.tolist(), fall.tolist(), strict=True))))
            constant -= float(np.maximum(-middle, 0.0) @ fall)
        for r in range(len(old.slope)):
            kinks = [(a, c) for a, c in zip(old.at[r].tolist(), old.rise[r].tolist(), strict=True) if c > 0]
            functions.append((float(old.slope[r]), kinks))
        use = np.hstack([np.stack(columns, 1), problem.use])
        return AggregateQUBO.one_hot(problem.first, problem.cost_usd, use, Pieces.of(functions), constant)
