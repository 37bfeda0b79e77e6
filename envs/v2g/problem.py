"""V2G as training and evaluation see it: its quantities, strata, pictures and words."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qevgrid.envs.problem import Problem
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.env import stage_record, trace
from qevgrid.envs.v2g.exact import solve_feeder
from qevgrid.envs.v2g.files import report_lines
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.params import PRICE_KINDS, SESSION_KINDS, V2GParams
from qevgrid.envs.v2g.scenario import Scenario
from qevgrid.envs.v2g.trace import DayTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KPIS = (
    "unserved_critical_kwh", "unserved_other_kwh", "shortfall_kwh", "charged_kwh", "discharged_kwh",
    "curtailed_kwh", "generator_kwh", "peak_import_kw", "violation_kwh", "loss_kwh", "v_min_pu",
)  # fmt: skip

# Okabe and Ito's palette (safe for the common colour blindnesses) and two greys.
TERM_COLORS = {
    "energy": "#0072B2",
    "wear": "#999999",
    "generator": "#CC79A7",
    "reserve": "#F0E442",
    "shortfall": "#56B4E9",
    "unserved_other": "#E69F00",
    "unserved_critical": "#D5300A",
    "violation": "#222222",
    "terminal": "#009E73",
}


class DayKpis:
    """Quantities added up stage by stage; voltages and losses by the exact sweep of the feeder."""

    def __init__(self, core: V2GCore, batch: Batch) -> None:
        self.core, self.dt = core, core.params.dt_h
        self.sums = {name: np.zeros(batch.size) for name in KPIS}
        self.sums["v_min_pu"] += np.inf

    def before(self, batch: Batch) -> None:
        """Note which stage is played."""
        self.stage = batch.state.stage.copy()

    def after(self, batch: Batch) -> None:
        """Add what the stage did."""
        out, s, row = batch.outcome, batch.scenario, np.arange(batch.size)
        t, dt, sums = self.stage, self.dt, self.sums
        sums["unserved_critical_kwh"] += dt * (s.critical_kw[row, t] - out.served_critical_kw).sum(1)
        sums["unserved_other_kwh"] += dt * (s.other_kw[row, t] - out.served_other_kw).sum(1)
        for name, power in (
            ("charged", out.charge_kw),
            ("discharged", out.discharge_kw),
            ("generator", out.generator_kw),
        ):
            sums[f"{name}_kwh"] += dt * power.sum(1)
        sums["curtailed_kwh"] += out.curtailed_kwh
        sums["violation_kwh"] += dt * out.violation_kw
        np.maximum(sums["peak_import_kw"], out.import_kw.sum(1), out=sums["peak_import_kw"])
        self._sweep(batch)

    def _sweep(self, batch: Batch) -> None:
        plant, s, t = self.core.plant, batch.scenario, self.stage
        if plant.feeder is None:
            return
        result = solve_feeder(plant, s, t, batch.outcome)
        self.sums["loss_kwh"] += self.dt * result.loss_kw
        lowest = np.where(result.v_pu > 0, result.v_pu, np.inf).min(1)
        np.minimum(self.sums["v_min_pu"], lowest, out=self.sums["v_min_pu"])

    def result(self, cost_usd: FloatArray) -> FloatArray:
        """(B, len(KPIS)); NaN for the voltage where there is no feeder."""
        price = self.core.params.cost.shortfall_usd_kwh
        self.sums["shortfall_kwh"] = (
            cost_usd[:, COST_TERMS.index("shortfall")] / price if price > 0 else np.zeros(len(cost_usd))
        )
        return np.stack([np.where(np.isfinite(self.sums[k]), self.sums[k], np.nan) for k in KPIS], 1)


class V2GProblem(Problem):
    """An episode is a day (or a few); what makes it hard is an outage."""

    id = "qevgrid/V2G-v0"
    params = V2GParams
    cost_terms = COST_TERMS
    term_colors = TERM_COLORS
    kpis = KPIS
    shown_kpi = ("unserved_critical_kwh", "unserved kWh")
    stress_column = "outage_h"
    episode = "day"

    def core(self, params: V2GParams) -> V2GCore:
        """Plant, files and sampler."""
        return V2GCore(params)

    def kpi_sums(self, core: V2GCore, batch: Batch) -> DayKpis:
        """Nothing yet."""
        return DayKpis(core, batch)

    def stress(self, core: V2GCore, scenario: Scenario) -> FloatArray:
        """(B,) hours without supply, mean over the sites."""
        return scenario.outage.mean(2).sum(1) * core.params.dt_h

    def shown(self, scenario: Scenario) -> dict[str, int]:
        """The first day with an outage and the first without."""
        dark = scenario.outage.any((1, 2))
        return {name: int(np.argmax(days)) for name, days in (("outage", dark), ("calm", ~dark)) if days.any()}

    def stage_record(self, batch: Batch, row: int) -> dict[str, Any]:
        """What a day's trace keeps of a stage."""
        return stage_record(batch, row)

    def trace(self, core: V2GCore, stages: list[dict[str, Any]], agent: str) -> DayTrace:
        """The whole day."""
        return trace(core, stages, agent)

    def figure(self, traces: Sequence[DayTrace]) -> "Figure":
        """A column an agent."""
        from qevgrid.envs.v2g.viewer import day_figure

        return day_figure(traces)

    def size(self, params: V2GParams) -> dict[str, float]:
        """Number of sockets."""
        return {"n_sockets": params.n_sockets}

    def held_out(self, params: V2GParams) -> V2GParams:
        """The days of the user's files that training never sees; synthetic days differ by their seeds."""
        from_files = params.sessions not in SESSION_KINDS or params.prices not in PRICE_KINDS
        return dataclasses.replace(params, split="held_out") if from_files and params.split == "train" else params

    def report(self, core: V2GCore) -> Mapping[str, int]:
        """Counts of what the loaders read, completed and left out."""
        return core.files.report

    def report_lines(self, core: V2GCore) -> list[str]:
        """The same in sentences."""
        return report_lines(core.files.report)


PROBLEM = V2GProblem()
