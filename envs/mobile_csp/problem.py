"""Mobile CSP as training and evaluation see it: its quantities, strata, pictures and words.

Agents are judged in the joint form, period by period, whatever ``env.form`` says: the form is a view for learners and
changes neither worlds nor costs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.model import COST_TERMS
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.recorder import assemble, beginning, moment
from qevgrid.envs.mobile_csp.scenario import Scenario
from qevgrid.envs.mobile_csp.trace import TERM_COLORS, StormTrace
from qevgrid.envs.problem import Problem
from qevgrid.envs.types import FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KPIS = (
    "unserved_kwh", "served_kwh", "generator_kwh", "charged_kwh", "delivered_kwh", "trips", "transport_h", "refused",
)  # fmt: skip


class StormKpis:
    """Quantities added up period by period. ``refused`` are trips that no open road allowed."""

    def __init__(self, core: MobileCore, batch: Batch) -> None:
        self.core, self.dt = core, core.params.dt_h
        self.sums = {name: np.zeros(batch.size) for name in KPIS}

    def before(self, batch: Batch) -> None:
        """Note where the units are and which stage is played."""
        self.stage, self.site, self.live = batch.state.stage.copy(), batch.state.site.copy(), ~batch.over

    def after(self, batch: Batch) -> None:
        """Add what the stage did."""
        row, t, out, live = np.arange(batch.size), self.stage, batch.outcome, self.live
        now = np.clip(t, 0, self.core.n_periods - 1)
        storm = live & (t >= 0)
        served_kw = out.served_kw.sum(1)
        moved = (batch.state.site != self.site) & live[:, None]
        values = {
            "unserved_kwh": (batch.world.need_kw[row, now].sum(1) - served_kw) * self.dt * storm,
            "served_kwh": served_kw * self.dt * storm,
            "generator_kwh": batch.world.generator_kw[row, now].sum(1) * self.dt * storm,
            "charged_kwh": out.charge_kw.sum(1) * self.dt * live,
            "delivered_kwh": out.discharge_kw.sum(1) * self.dt * live,
            "trips": moved.sum(1),
            "transport_h": (self._trip_periods(batch) * moved).sum(1) * self.dt,
            "refused": out.refused * live,
        }
        for name, value in values.items():
            self.sums[name] += value

    def _trip_periods(self, batch: Batch) -> IntArray:
        """Periods under way (B, M) of units that have just left, as far as they are paid."""
        site, periods = batch.state.site, self.core.n_periods
        before = self.core.rules.whole[self.site, site].astype(np.int64)
        trip = np.where(self.stage[:, None] < 0, before, batch.state.arrival - self.stage[:, None])
        return np.minimum(trip, periods - np.maximum(self.stage, 0)[:, None])

    def result(self, cost_usd: FloatArray) -> FloatArray:
        """(B, len(KPIS))."""
        return np.stack([self.sums[name] for name in KPIS], 1)


class MobileCSPProblem(Problem):
    """An episode is a storm; what makes it hard is the critical load that it cuts off."""

    id = "qevgrid/MobileCSP-v0"
    params = MobileCSPParams
    cost_terms = COST_TERMS
    term_colors = TERM_COLORS
    kpis = KPIS
    shown_kpi = ("unserved_kwh", "unserved kWh")
    stress_column = "need_mwh"
    episode = "storm"

    def core(self, params: MobileCSPParams) -> MobileCore:
        """The joint form."""
        return MobileCore(dataclasses.replace(params, form="joint"))

    def kpi_sums(self, core: MobileCore, batch: Batch) -> StormKpis:
        """Nothing yet."""
        return StormKpis(core, batch)

    def stress(self, core: MobileCore, scenario: Scenario) -> FloatArray:
        """(B,) critical load that neither supply nor backup carries, in MWh."""
        return scenario.world.need_kw.sum((1, 2)) * core.params.dt_h / 1e3

    def strata(self, stress: FloatArray) -> IntArray:
        """Thirds of the storms: mild, middling, hard."""
        return np.searchsorted(np.quantile(stress, [1 / 3, 2 / 3]), stress, side="right")

    def shown(self, scenario: Scenario) -> dict[str, int]:
        """The storm that cuts off most, and the one that cuts off least."""
        need = scenario.world.need_kw.sum((1, 2))
        hard, mild = int(np.argmax(need)), int(np.argmin(need))
        return {"hard": hard} | ({"mild": mild} if mild != hard else {})

    def stage_record(self, batch: Batch, row: int) -> list[dict[str, Any]]:
        """Moments of a trace: that after the stage, and at first that before it."""
        first = int(batch.state.stage[row]) == batch.core.first_stage + 1
        return [*([beginning(batch, row)] if first else []), moment(batch, row)]

    def trace(self, core: MobileCore, stages: list[list[dict[str, Any]]], agent: str) -> StormTrace:
        """The whole storm."""
        return assemble(core, [one for stage in stages for one in stage], agent)

    def figure(self, traces: Sequence[StormTrace]) -> "Figure":
        """A column an agent."""
        from qevgrid.envs.mobile_csp.viewer import storm_figure

        return storm_figure(traces)

    def size(self, params: MobileCSPParams) -> dict[str, float]:
        """Numbers of units and of sites."""
        return {"n_units": params.n_units, "n_sites": len(params.sites)}

    def report(self, core: MobileCore) -> Mapping[str, Any]:
        """Nothing is read but networks."""
        return {}


PROBLEM = MobileCSPProblem()
