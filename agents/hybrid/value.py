"""The critic at work: marginal worth of energy at the end of the present stage, for fleet and vehicles."""

import numpy as np

from qevgrid.agents.hybrid import features
from qevgrid.agents.hybrid.corrections import Corrections
from qevgrid.agents.hybrid.critic import Critic
from qevgrid.agents.hybrid.recourse import outage_value
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast, hit_share
from qevgrid.envs.v2g.scenario import MAX_OUTAGE_H, survival

KNOTS = np.linspace(-1.0, 1.0, 7)
"""Fleet energies that are valued, around the present one, in units of what one stage can move."""
EXIT_SHARES = np.linspace(0.0, 1.0, 6)
EXIT_EVERY_H = 1.0
START_EVERY_H = 1.0


class FleetValue:
    """Worth of the fleet's energy and of each vehicle's, one episode, ``stages`` after now (the end of the step)."""

    def __init__(
        self, critic: Critic, view: View, forecast: Forecast, b: int, stages: int, clock_h: FloatArray, fix: Corrections
    ) -> None:
        self.critic, self.view, self.b, self.stages, self.fix = critic, view, b, stages, fix
        self.params = view.plant.params
        self.leads = leads(self.params.dt_h, stages)
        self.forecast, self.clock_h = forecast, clock_h
        self.around = features.Surroundings(view, forecast, b, self.leads, clock_h)
        self.socket = np.flatnonzero(view.plugged[b])
        self._baseline()

    def _baseline(self) -> None:
        """Fleet at each lead if nothing is charged: departures as declared, arrivals as usual."""
        view, b, p = self.view, self.b, self.params
        gone = np.minimum(np.maximum(view.declared[b, self.socket] - view.stage[b], 1), self.leads)
        energy = view.energy_kwh[b, self.socket]
        spare = energy - view.floor_kwh[b, self.socket]
        need = np.maximum(view.target_kwh[b, self.socket] - energy, 0.0)
        power = view.charge_kw[b, self.socket]
        leaving = np.stack([np.bincount(gone, x, self.leads + 1) for x in (spare, need, power)], 1)
        stage = view.stage[b] + 1 + np.arange(self.leads)
        arriving, charging = (self.clock_h[s % len(self.clock_h)].astype(np.int64) for s in (stage, stage - 1))
        inside = (stage < p.n_stages)[:, None]
        habits = np.hstack([self.critic.habits[arriving, :3], self.critic.habits[charging, 3:]])
        self.habit = habits * inside * (self.around.fleet_kw * p.dt_h)  # (L, 4) per stage
        coming = np.concatenate([np.zeros((1, 3)), self.habit[:, :3]])
        now = np.array([spare.sum(), need.sum(), power.sum()])
        self.idle = now + np.cumsum(coming - leaving, 0)  # (L + 1, 3) spare, need, power
        self.reach_kwh = max(self.stages * p.dt_h * power.sum(), 1e-6)

    def _at_site(self, site: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Battery kWh at ``site`` alone if nothing is charged, (L + 1,); what comes, leaves and is charged, (L,).

        Vehicles elsewhere cannot help in its outage.
        """
        view, b, plant = self.view, self.b, self.view.plant
        socket = self.socket[plant.site[self.socket] == site]
        spare = view.energy_kwh[b, socket] - view.floor_kwh[b, socket]
        gone = np.minimum(np.maximum(view.declared[b, socket] - view.stage[b], 1), self.leads)
        leaving = np.bincount(gone, spare, self.leads + 1).astype(float)
        share = plant.charge_kw[plant.site == site].sum() / self.around.fleet_kw
        coming, planned = share * self.habit[:, 0], share * self.habit[:, 3]
        held = spare.sum() + np.cumsum(np.append(0.0, coming) - leaving)
        return held, coming, leaving[1:], planned

    def calm(self, shift_kwh: FloatArray) -> FloatArray:
        """Worth per battery kWh with supply, at the end of the step, the fleet's energy moved by ``shift_kwh`` (J,)."""
        lead = np.full(len(shift_kwh), self.stages)
        spare, need, power = self.idle[self.stages]
        rows = self.around.rows(
            lead, np.maximum(spare + shift_kwh, 0.0), np.maximum(need - shift_kwh, 0.0), np.full(len(lead), power)
        )
        return _falling(self.critic.fleet(rows) + self.fix.calm_usd_kwh)

    def vehicles(self, energy_kwh: FloatArray) -> FloatArray:
        """What sets a kWh in each vehicle at ``energy_kwh`` (V, K) apart from the fleet's, at the end of the step, (V, K)."""
        v, k = energy_kwh.shape
        socket = np.repeat(self.socket, k)
        own = features.vehicle_rows(self.view, self.b, socket, energy_kwh.ravel(), self.stages)
        spare, need, power = self.idle[self.stages]
        one = np.array([self.stages]), *(np.array([x]) for x in (spare, need, power))
        fleet = self.around.rows(*one)
        apart = self.critic.vehicle(np.hstack([np.repeat(fleet, v * k, 0), own])).reshape(v, k)
        return self.fix.spread * apart

    def marginal(self, site: int) -> tuple[FloatArray, FloatArray]:
        """Energies moved (J,), battery kWh, and the fleet's worth per battery kWh there (J,), falling."""
        shift = KNOTS * self.reach_kwh
        calm = self.calm(shift)
        hours = np.asarray(np.arange(self.leads) * self.params.dt_h, float)
        if self.view.outage[self.b, site]:
            elapsed = np.array(self.elapsed_h(site))
            still = survival(self.params.outage, elapsed + hours) / max(
                float(survival(self.params.outage, elapsed)), 1e-9
            )
            return shift, _falling(
                self.fix.dark * self._through_outage(site, shift, np.zeros(1, np.int64), np.ones(1), still)
            )
        starts, chance = self._starts(site)
        risk = chance.sum()
        if risk < 1e-4:
            return shift, calm
        insured = self._through_outage(site, shift, starts, chance, survival(self.params.outage, hours))
        return shift, _falling(calm + self.fix.premium * risk * np.maximum(insured - calm, 0.0))

    def still_dark(self, site: int) -> FloatArray:
        """Chance that the outage at ``site`` outlasts each vehicle's stay, (V,)."""
        left_h = np.maximum(self.view.declared[self.b, self.socket] - self.view.stage[self.b], 0) * self.params.dt_h
        elapsed = self.elapsed_h(site)
        return survival(self.params.outage, elapsed + left_h) / max(
            float(survival(self.params.outage, np.array(elapsed))), 1e-9
        )

    def elapsed_h(self, site: int) -> float:
        """Hours since the site lost supply, as an observer counts them."""
        return float(self.view.dark_h[self.b, site])

    def _starts(self, site: int) -> tuple[np.ndarray, FloatArray]:
        """Leads at which an outage may begin, and its chance there, by groups of an hour."""
        view, b = self.view, self.b
        t = view.stage[b] + self.stages
        begin, close = max(view.window_open[b], t), view.window_close[b]
        edge = np.arange(0, self.leads, max(round(START_EVERY_H / self.params.dt_h), 1))
        overlap = np.minimum(t + edge[1:], close) - np.maximum(t + edge[:-1], begin)
        share = np.maximum(overlap, 0.0) / max(close - begin, 1e-9)
        chance = view.risk[b] * hit_share(self.params)[site] * share
        found = chance > 1e-9
        return (edge[:-1] + (edge[1] - edge[0]) // 2)[found], chance[found]

    def _through_outage(
        self, site: int, shift: FloatArray, starts: IntArray, chance: FloatArray, still: FloatArray
    ) -> FloatArray:
        """Worth per battery kWh if supply fails at one of ``starts`` (or is out now)."""
        p, eta, f, b = self.params, self.params.charger.eta_discharge, self.forecast, self.b
        h = slice(self.stages, self.leads)
        own = f.pv_kw[b, h, site] + p.site.per_site("generator_kw")[site]
        critical = f.critical_kw[b, h, site]
        critical_kwh = p.dt_h * np.maximum(critical - own, 0.0)
        all_kwh = p.dt_h * np.maximum(critical + f.other_kw[b, h, site] - own, 0.0)
        price = model.unit_prices(p.cost) * model.term_weights(p.cost)
        held, coming, leaving, planned = self._at_site(site)
        energy = eta * np.maximum(held[self.stages] + shift, 0.0)
        grid, spare = self._exit_table(held)
        ends = -np.diff(still)
        ends = np.append(ends, max(still[-1], 0.0))[: round(MAX_OUTAGE_H / p.dt_h)]
        ends[0] += ends.sum() <= 0.0  # it has outlasted every length: about to end
        wear = price[model.WEAR]
        return eta * outage_value(
            energy, starts, chance, ends / max(ends.sum(), 1e-12), critical_kwh, all_kwh - critical_kwh,
            eta * coming[h], eta * leaving[h], eta * planned[h], grid, spare,
            price[model.UNSERVED_CRITICAL] - wear, price[model.UNSERVED_OTHER] - wear, eta,
        )  # fmt: skip

    def _exit_table(self, held: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Critic's worth at each lead for fleets that an outage has drawn on, (L, K), and the site's spare energy.

        ``held`` (L + 1,) is what the site has of the fleet's if nothing is charged.
        """
        step = max(round(EXIT_EVERY_H / self.params.dt_h), 1)
        at = np.arange(self.stages, self.leads, step)
        idle = self.idle[at]
        most = np.maximum(held[at] + self.reach_kwh, 1e-3)
        spare = most[:, None] * EXIT_SHARES
        elsewhere = np.maximum(idle[:, 0] - held[at], 0.0)[:, None]
        need = np.maximum(idle[:, 1:2] + held[at, None] - spare, 0.0)
        shape = spare.shape
        lead = np.repeat(at, shape[1])
        power = np.repeat(np.maximum(idle[:, 2], 0.0), shape[1])
        rows = self.around.rows(lead, (elsewhere + spare).ravel(), need.ravel(), power)
        worth = self.critic.fleet(rows).reshape(shape)
        repeat = np.minimum(np.arange(self.leads - self.stages) // step, len(at) - 1)
        return worth[repeat] + self.fix.calm_usd_kwh, spare[repeat]


def leads(dt_h: float, stages: int) -> int:
    """Leads that the values need: a whole longest outage after a start of the next twelve hours."""
    return stages + round((MAX_OUTAGE_H + 12.0) / dt_h)


def _falling(worth: FloatArray) -> FloatArray:
    """The nearest non-increasing curve from above left: more energy is never worth more."""
    return np.minimum.accumulate(worth)
