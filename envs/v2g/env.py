"""``qevgrid/V2G-v0``: charge and discharge parked vehicles through prices, storms and outages."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from qevgrid.envs.adapter import CoreEnv, CoreVectorEnv, refuse_render_mode
from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import build
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.trace import DayTrace

_FLOWS = (
    "charge_kw",
    "discharge_kw",
    "import_kw",
    "generator_kw",
    "served_critical_kw",
    "served_other_kw",
)
"""Fields of the kernel's outcome that a trace sums over sockets or sites."""


class V2GEnv(CoreEnv):
    """Sites with chargers, loads and PV on a feeder: when does which vehicle charge or feed back?

    Observation:
        ``Box(-1, 1, (O,), float32)``; ``env.unwrapped.observation_labels`` names every entry.

        =====================  ================================================================
        Entries                Meaning
        =====================  ================================================================
        clock_*                Sine and cosine of the clock hour
        *_price*               Buy and sell price now, expected buy price ahead, over a scale
        price_above_*_ahead    Price now against the mean and the least of what is expected
        risk, window_*         Published outage probability and window (days from now)
        site{d}_outage*        Supply lost, for how long (days), probability that it will be
        site{d}_critical, ...  Loads over twice their peak, PV over its rating, now and in 4 h
        plugged_share, ...     The fleet: share plugged in, energy it can give, take and needs
        island_*_share         Load of dark sites over what their vehicles could give now
        progress               Share of the episode that is over
        socket{i}_*            Plugged in, state of charge, energy needed, time left as
                               declared (days), power needed over power available, power
        =====================  ================================================================

    Action:
        ``action="box"``: ``Box(-1, 1, (N,), float32)``, a socket's share of its power, > 0
        charges, < 0 discharges. ``action="levels"``: ``MultiDiscrete([L] * N)``, level 0 full
        discharge, L - 1 full charge, the one in the middle off. Every action is legal: values
        beyond [-1, 1] are clipped and the rest is projected onto what vehicles, chargers, lines
        and islands allow (rules in ``projection.py``). NaN or a wrong shape is a ``UserError``.

    Reward:
        Minus the weighted cost of the stage in USD, times ``reward_scale`` (0.01).

    Episode end:
        ``terminated`` at the horizon, after ``days``: the world ends there, and energy in
        vehicles that stay plugged in is worth ``terminal_usd_kwh`` (cost term ``terminal``, in
        the stage that ends the episode). ``truncated`` is always false.

    Info:
        At reset ``fingerprint`` (equal fingerprints, equal worlds), ``start_h`` (clock hour of
        stage 0) and, if files were read and left something out, ``report``. At each step
        ``cost`` (term -> USD, unweighted), ``cost_usd`` (weighted total) and
        ``curtailed_kwh`` (wished for, not done). With ``action="levels"`` always
        ``action_mask`` (N, L): levels that vehicle and charger can follow.

    Starting state:
        Prices, loads, PV, sessions and outages of the whole episode are drawn at reset, each
        from its own stream of the seed; the transition has no chance in it.
        ``reset(options={"scenario": env.unwrapped.scenario})`` replays a world.

    Arguments:
        Every key of ``V2GParams`` (``n_sockets=50``, ``site={"pv_kw": 100}``), or ``params``
        with some keys changed; ``render_mode`` "rgb_array" or "human".

    >>> import gymnasium as gym, qevgrid
    >>> env = gym.make("qevgrid/V2G-v0", n_sockets=4, dt_h=1.0)
    >>> obs, info = env.reset(seed=1)
    >>> cost_usd, over = 0.0, False
    >>> while not over:
    ...     obs, reward, over, truncated, info = env.step(env.action_space.sample() * 0 + 1)
    ...     cost_usd += info["cost_usd"]
    >>> len(info["cost"]), obs.shape == env.observation_space.shape
    (9, True)
    """

    core: V2GCore
    _batch: Batch

    def __init__(self, params: V2GParams | None = None, *, render_mode: str | None = None, **changes: Any) -> None:
        super().__init__(V2GCore(build(V2GParams, params, changes)), render_mode)
        self._history: list[dict[str, Any]] = []

    @property
    def params(self) -> V2GParams:
        """What this world was built from."""
        return self.core.params

    def trace(self, agent: str = "") -> DayTrace:
        """The episode so far, for pictures. Stages are kept only with a ``render_mode``."""
        if self.render_mode is None:
            raise UserError("no stages were kept: make the environment with render_mode='rgb_array'")
        return trace(self.core, self._history, agent)

    def _record(self, *, first: bool) -> None:
        if first:
            self._history = []
        else:
            self._history.append(stage_record(self._batch))

    def _frame(self) -> NDArray[np.uint8]:
        from qevgrid.envs.v2g.viewer import render_frame

        return render_frame(self.trace())


class V2GVectorEnv(CoreVectorEnv):
    """B episodes of ``V2GEnv`` side by side in one compiled loop.

    Arguments are those of ``V2GEnv`` (but for ``render_mode``), ``num_envs``, ``autoreset_mode``
    ("NextStep", "SameStep" or "Disabled") and ``copy`` (false: observations are overwritten by
    the next step). Observations, rewards and ends are those of B scalar environments to the bit;
    infos are arrays, see ``CoreVectorEnv``.

    >>> import gymnasium as gym, qevgrid
    >>> envs = gym.make_vec("qevgrid/V2G-v0", num_envs=3, n_sockets=4, dt_h=1.0)
    >>> obs, info = envs.reset(seed=1)
    >>> obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    >>> info["cost_usd_by_term"].shape
    (3, 9)
    """

    core: V2GCore
    _batch: Batch

    def __init__(
        self,
        num_envs: int = 1,
        params: V2GParams | None = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        refuse_render_mode(render_mode)
        super().__init__(V2GCore(build(V2GParams, params, changes)), num_envs, autoreset_mode, copy)

    @property
    def params(self) -> V2GParams:
        """What these worlds were built from."""
        return self.core.params


def stage_record(batch: Batch, row: int = 0) -> dict[str, Any]:
    """What ``DayTrace`` keeps of the stage that was just played."""
    s, out, view = batch.scenario, batch.outcome, batch.view()
    t = int(batch.state.stage[row]) - 1
    record = {name: float(getattr(out, name)[row].sum()) for name in _FLOWS}
    capacity_kwh = np.where(view.plugged[row], view.capacity_kwh[row], np.nan)
    return record | {
        "price_usd_kwh": s.buy_usd_kwh[row, t],
        "risk": s.risk[row, t],
        "outage": s.outage[row, t].any(),
        "pv_kw": s.pv_kw[row, t].sum(),
        "load_critical_kw": s.critical_kw[row, t].sum(),
        "load_other_kw": s.other_kw[row, t].sum(),
        "soc": view.energy_kwh[row] / capacity_kwh,
        "cost_usd": out.total_usd[row],
    }


def trace(core: V2GCore, stages: list[dict[str, Any]], agent: str) -> DayTrace:
    """Stage records put together."""
    p = core.params
    limit_kw = float(p.site.per_site("connection_kw").sum())
    names = [*_FLOWS, "price_usd_kwh", "risk", "outage", "pv_kw", "load_critical_kw"]
    names += ["load_other_kw", "cost_usd"]
    columns: dict[str, Any] = {name: np.array([stage[name] for stage in stages]) for name in names}
    soc: FloatArray = np.array([stage["soc"] for stage in stages]).reshape(-1, core.n_sockets)
    start_h = float(core.sampler.start_h)
    return DayTrace(agent, p.n_stages, p.dt_h, start_h, limit_kw, soc=soc, **columns)
