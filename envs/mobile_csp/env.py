"""``qevgrid/MobileCSP-v0``: after a storm, mobile batteries move over damaged roads to sites without power."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from qevgrid.envs.adapter import CoreEnv, CoreVectorEnv, refuse_render_mode
from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import build
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.recorder import Recorder
from qevgrid.envs.mobile_csp.sequential import SequentialBatch, SequentialCore
from qevgrid.envs.mobile_csp.trace import StormTrace


class MobileCSPEnv(CoreEnv):
    """Units with batteries drive to sites without power: who goes where, and when to recharge?

    Observation:
        ``Box(-1, 1, (O,), float32)``; ``env.unwrapped.observation_labels`` names every entry. 8
        globals, then 12 entries a site (14 with the charging service), then 4 + 2 D a unit
        (``observe.py`` has the scales).

        =====================  ================================================================
        Entries                Meaning
        =====================  ================================================================
        progress, clock_*      Share of the episode that is over, clock hour
        gust, lines_out, ...   The storm, shares of lines out and roads closed, substation out
        before_storm           1 in the decision before the storm
        {site}_supplied, ...   Supply, need, USD lost an hour, backup left, estimated hours until
                               restoration, loss to be feared until then, generator, PV, need of
                               the whole island, charging room, units there and on their way;
                               with the service kWh that response and stranded vehicles wait for
        unit{i}_acts, idle     Whose turn it is; not under way
        unit{i}_arrives_in     Hours until it is connected; ``unit{i}_soc``: state of charge
        unit{i}_at_{site}      1 for where it is or goes
        unit{i}_travel_to_*    Hours to each site over roads open now (1: 6 h or no way)
        =====================  ================================================================

    Action:
        For each unit one of L choices: go to site d (where it is: stay), L = D. The site then
        decides: charge where there is supply, serve the island by value where there is none. With
        ``power="levels"`` choice D + k stays at level k of ``n_levels``, from full charge to full
        discharge. ``form="joint"``: ``MultiDiscrete([L] * M)``. ``form="sequential"``:
        ``Discrete(L)`` for the unit whose turn it is; those idle choose one by one, then the
        period is played, and periods in which none is idle pass by themselves. Every action is
        legal: who is under way goes on, who cannot get there stays.

    Reward:
        Minus the cost in USD of what was played, times ``reward_scale`` (1e-4).

    Episode end:
        ``terminated`` at the horizon; energy above the floor is then worth
        ``terminal_usd_kwh`` (cost term ``terminal``). ``truncated`` is always false.

    Info:
        At reset ``fingerprint`` (equal fingerprints, equal worlds) and ``start_h``. At each step
        ``cost`` (term -> USD), ``cost_usd`` and ``curtailed_kwh`` (asked for by a level, not done) and
        ``refused`` (trips to sites that no open road leads to).
        Always ``action_mask``, (M, L), in sequential form (L,): choices that can be followed.

    Starting state:
        Gust, faults, repairs, roads, generators, loads, PV, vehicles and the errors of all
        estimates are drawn at reset, each from its own stream of the seed; the transition has no
        chance in it.
        ``reset(options={"scenario": env.unwrapped.scenario})`` replays a storm.

    Arguments:
        Every key of ``MobileCSPParams`` (``n_units=5``, ``roads={"slow": 3}``, ``preset="mini"``,
        ``preset="full"`` for the charging service), or ``params`` with some keys changed;
        ``render_mode`` "rgb_array" or "human".

    >>> import gymnasium as gym, qevgrid
    >>> env = gym.make("qevgrid/MobileCSP-v0", preset="mini", form="sequential")
    >>> obs, info = env.reset(seed=1)
    >>> cost_usd, over = 0.0, False
    >>> while not over:
    ...     action = env.action_space.sample(info["action_mask"].astype("int8"))
    ...     obs, reward, over, truncated, info = env.step(action)
    ...     cost_usd += info["cost_usd"]
    >>> len(info["cost"]), obs.shape == env.observation_space.shape
    (7, True)
    """

    core: MobileCore
    _batch: Batch | SequentialBatch

    def __init__(
        self, params: MobileCSPParams | None = None, *, render_mode: str | None = None, **changes: Any
    ) -> None:
        super().__init__(make_core(params, changes), render_mode)
        self._recorder = Recorder(self.core)
        self._painter: Any = None
        if render_mode is not None:
            self._batch.recorder = self._recorder.add

    @property
    def params(self) -> MobileCSPParams:
        """What this world was built from."""
        return self.core.params

    def trace(self, agent: str = "") -> StormTrace:
        """The episode so far, for pictures. Periods are kept only with a ``render_mode``."""
        if self.render_mode is None:
            raise UserError("no periods were kept: make the environment with render_mode='rgb_array'")
        return self._recorder.trace(agent)

    def _record(self, *, first: bool) -> None:
        if first:  # the batch itself calls the recorder after each period
            periods: Any = getattr(self._batch, "periods", self._batch)
            self._recorder.begin(periods)

    def _frame(self) -> NDArray[np.uint8]:
        from qevgrid.envs.mobile_csp.viewer import Painter

        if self._painter is None:
            self._painter = Painter()
        return self._painter.frame(self.trace())


class MobileCSPVectorEnv(CoreVectorEnv):
    """B episodes of ``MobileCSPEnv`` side by side in one compiled loop.

    Arguments are those of ``MobileCSPEnv`` (but for ``render_mode``), ``num_envs``, ``autoreset_mode``
    ("NextStep", "SameStep" or "Disabled") and ``copy`` (false: observations are overwritten by
    the next step). Observations, rewards and ends are those of B scalar environments to the bit;
    infos are arrays, see ``CoreVectorEnv``.

    >>> import gymnasium as gym, qevgrid
    >>> envs = gym.make_vec("qevgrid/MobileCSP-v0", num_envs=3, preset="mini")
    >>> obs, info = envs.reset(seed=1)
    >>> obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
    >>> info["action_mask"].shape
    (3, 2, 6)
    """

    core: MobileCore
    _batch: Batch | SequentialBatch

    def __init__(
        self,
        num_envs: int = 1,
        params: MobileCSPParams | None = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        refuse_render_mode(render_mode)
        super().__init__(make_core(params, changes), num_envs, autoreset_mode, copy)

    @property
    def params(self) -> MobileCSPParams:
        """What these worlds were built from."""
        return self.core.params


def make_core(params: MobileCSPParams | None, changes: dict[str, Any]) -> MobileCore:
    """The world of ``params`` with some keys changed."""
    if params is not None and "preset" in changes:
        raise UserError(f"preset={changes['preset']!r}: params already hold every key; give one or the other")
    built = build(MobileCSPParams, params, changes)
    return (SequentialCore if built.form == "sequential" else MobileCore)(built)
