"""The ruler: the best schedule for a day that is known from start to end."""

from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.program import Outlook, Plan, V2GProgram, Vehicles
from qevgrid.envs.v2g.scenario import Scenario


def truth(plant: Plant, s: Scenario, b: int) -> Outlook:
    """Everything that will happen in episode ``b``."""
    names = ("buy_usd_kwh", "sell_usd_kwh", "pv_kw", "critical_kw", "other_kw", "feeder_scale", "fault", "outage")
    return Outlook._make((*(getattr(s, name)[b] for name in names), s.risk[b] >= plant.params.reserve.risk))


def all_vehicles(plant: Plant, s: Scenario, b: int) -> Vehicles:
    """Every session of episode ``b``."""
    x = s.sessions
    socket, slot = np.nonzero(x.arrival[b] < plant.params.n_stages)
    fields = (x.arrival, x.departure, x.energy_kwh, x.target_kwh, x.capacity_kwh, x.floor_kwh, x.limit_kw, x.stays)
    return Vehicles._make((socket, *(f[b][socket, slot] for f in fields)))


def plan_action(plan: Plan, stage: int, charge_kw: FloatArray, discharge_kw: FloatArray) -> FloatArray:
    """Action (N,) that carries out a plan's stage; limits (N,) of charger and vehicle."""
    up = plan.charge_kw[stage] / np.maximum(charge_kw, 1e-9)
    down = plan.discharge_kw[stage] / np.maximum(discharge_kw, 1e-9)
    action = np.where(plan.charge_kw[stage] > 1e-6, up, -down)
    return np.clip(action, -1.0, 1.0)  # solvers keep limits up to a tolerance


class Optimum(Agent):
    """Perfect foresight: solves each day once, then carries the plan out."""

    name = "optimum"
    needs_scenario = True
    slow = True

    def __init__(self, time_limit_s: float = 30.0, gap_usd: float = 0.5) -> None:
        self.time_limit_s, self.gap_usd = time_limit_s, gap_usd
        self.plans: list[Plan] = []

    def begin(self, info: dict[str, Any]) -> None:
        """Solve the day of every episode."""
        plant, scenario = info["view"].plant, info["scenario"]
        self.plans = [
            V2GProgram(plant, truth(plant, scenario, b), all_vehicles(plant, scenario, b)).solve(
                time_limit_s=self.time_limit_s, gap_usd=self.gap_usd
            )
            for b in range(len(scenario.risk))
        ]

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """What the plans say of the present stage."""
        view = info["view"]
        return np.stack(
            [
                plan_action(plan, view.stage[b], view.charge_kw[b], view.discharge_kw[b])
                for b, plan in enumerate(self.plans)
            ]
        )

    def report(self) -> dict[str, FloatArray]:
        """Cost according to the solver and its proven bound, USD, (B,) each."""
        cost, bound = np.array([[p.cost_usd, p.bound_usd] for p in self.plans]).T
        return {"solver_cost_usd": cost, "bound_usd": bound}
