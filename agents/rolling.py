"""Rolling-horizon MILP: plan on forecasts, carry out the first stage, look again."""

from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.optimum import plan_action
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import View
from qevgrid.envs.v2g.forecast import Forecast
from qevgrid.envs.v2g.program import Outlook, V2GProgram, Vehicles


class Rolling(Agent):
    """Certainty-equivalent MILP over the rest of the episode, at most ``horizon_h``.

    Known are the vehicles that are plugged in, their announced departures, and the forecasts. An
    outage that has begun is expected to last while its probability is above ``dark_probability``;
    one that has not is ignored, unless ``reserve_h`` asks softly (``reserve_usd_kwh`` per kWh and
    hour) for energy: that many hours of the sites' load, times the published risk.
    """

    slow = True

    def __init__(
        self,
        name: str = "rolling",
        horizon_h: float = 24.0,
        whole_stages: int = 1,
        reserve_h: float = 0.0,
        reserve_usd_kwh: float = 0.3,
        dark_probability: float = 0.5,
        delay_usd_kwh: float = 0.02,
        time_limit_s: float = 10.0,
    ) -> None:
        self.name, self.horizon_h, self.whole_stages, self.time_limit_s = name, horizon_h, whole_stages, time_limit_s
        self.reserve_h, self.reserve_usd_kwh = reserve_h, reserve_usd_kwh
        self.dark_probability, self.delay_usd_kwh = dark_probability, delay_usd_kwh

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """First stage of a new plan for every episode."""
        view: View = info["view"]
        p = view.plant.params
        horizon = min(round(self.horizon_h / p.dt_h), p.n_stages)
        forecast = view.forecast(horizon)
        left = np.minimum(horizon, p.n_stages - view.stage)
        return np.stack([self._decide(view, forecast, b, int(left[b])) for b in range(len(left))])

    def _decide(self, view: View, forecast: Forecast, b: int, horizon: int) -> FloatArray:
        if not view.plugged[b].any():
            return np.zeros(view.plugged.shape[1])
        outlook = self._outlook(view, forecast, b, horizon)
        vehicles = plugged_vehicles(view, b, horizon)
        program = V2GProgram(view.plant, outlook, vehicles, self.whole_stages, self.delay_usd_kwh)
        if self.reserve_h > 0:
            program.hold_energy(self._wanted_kwh(view, outlook, b), self.reserve_usd_kwh)
        plan = program.solve(time_limit_s=self.time_limit_s, gap_usd=1.0)
        return plan_action(plan, 0, view.charge_kw[b], view.discharge_kw[b])

    def _outlook(self, view: View, f: Forecast, b: int, horizon: int) -> Outlook:
        dark = view.outage[b] & (f.outage_probability[b, :horizon] >= self.dark_probability)
        names = ("buy_usd_kwh", "sell_usd_kwh", "pv_kw", "critical_kw", "other_kw", "feeder_scale")
        on = np.full(horizon, view.risk[b] >= view.plant.params.reserve.risk)
        expected = (getattr(f, name)[b, :horizon] for name in names)
        return Outlook._make((*expected, np.zeros(horizon, np.int64), dark, on))

    def _wanted_kwh(self, view: View, o: Outlook, b: int) -> FloatArray:
        """Energy to hold (H,) while an outage may still come."""
        own = view.plant.params.site.per_site("generator_kw")
        load_kw = np.maximum(o.critical_kw + o.other_kw - own, 0.0).sum(1)
        return np.where(o.outage.any(1), 0.0, view.risk[b] * self.reserve_h * load_kw)


def plugged_vehicles(view: View, b: int, horizon: int) -> Vehicles:
    """The vehicles that episode ``b`` has now; who stays beyond the horizon keeps the terminal value."""
    socket = np.flatnonzero(view.plugged[b])
    left = np.maximum(view.declared[b, socket] - view.stage[b], 1)
    stays = left > horizon
    limit = np.maximum(view.charge_kw[b, socket], view.discharge_kw[b, socket])
    return Vehicles(
        socket=socket,
        first=np.zeros(len(socket), np.int64),
        last=np.minimum(left, horizon),
        energy_kwh=view.energy_kwh[b, socket],
        target_kwh=view.target_kwh[b, socket],
        capacity_kwh=view.capacity_kwh[b, socket],
        floor_kwh=view.floor_kwh[b, socket],
        limit_kw=limit,
        stays=stays,
    )


def rolling_reserve() -> Rolling:
    """The rolling plan that keeps a reserve in proportion to the risk; tuned by ``benchmarks/tune_rivals.py``."""
    return Rolling("rolling_reserve", reserve_h=60.0, reserve_usd_kwh=2.0)
