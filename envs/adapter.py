"""One batched core as ``gym.Env`` and ``gym.vector.VectorEnv``. The only file that knows Gymnasium.

The scalar environment is a batch of one. Row i of the vector environment, seeded with s, does to
the bit what the scalar environment seeded with s + i does, automatic resets included.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import error, spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from qevgrid.envs.actions import ActionReader
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import BoolArray, Core, Float32Array, FloatArray, IntArray
from qevgrid.envs.window import Window

RENDER_MODES = ["rgb_array", "human"]
Info = dict[str, Any]
VectorStep = tuple[Float32Array, FloatArray, BoolArray, BoolArray, Info]


def action_space(core: Core) -> spaces.Space[Any]:
    """Numbers in [-1, 1] or one of L choices, an entry each; or one choice."""
    if core.n_choices is None:
        return spaces.Box(-1.0, 1.0, (core.n_actions,), np.float32)
    if core.single_choice:
        return spaces.Discrete(core.n_choices)
    return spaces.MultiDiscrete(np.full(core.n_actions, core.n_choices))


def observation_space(core: Core) -> spaces.Space[Any]:
    """Everything the core shows lies in [-1, 1]."""
    return spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)


def known_options(options: Info | None, *names: str) -> Info:
    """The reset's options; a name that is not known is an error."""
    for name in options or {}:
        if name not in names:
            raise UserError(f"unknown reset option {name!r}; known: {', '.join(names)}")
    return dict(options or {})


class CoreEnv(gym.Env[Float32Array, Any]):
    """One episode of a core at a time."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": RENDER_MODES, "render_fps": 8}

    def __init__(self, core: Core, render_mode: str | None = None) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise UserError(f"render_mode={render_mode!r}: choose one of {RENDER_MODES} or None")
        self.core, self.render_mode = core, render_mode
        self.action_space = action_space(core)
        self.observation_space = observation_space(core)
        self._read = ActionReader(core, self.action_space.shape or ())
        self._batch = core.batch(1)
        self._terms, self._n_obs, self._has_mask = tuple(core.cost_terms), len(core.labels), core.n_choices is not None
        self._window = Window(type(self).__name__)
        self._begun = self._running = False

    @property
    def observation_labels(self) -> tuple[str, ...]:
        """Name of every entry of the observation."""
        return tuple(self.core.labels)

    @property
    def scenario(self) -> Any:
        """The whole truth about this episode, batch axis 1: only perfect foresight may look."""
        return self._batch.scenario

    def view(self) -> Any:
        """All that a controller may know now, batch axis 1."""
        return self._batch.view()

    def action_masks(self) -> BoolArray:
        """Choices that can be followed as they are, (A * L,), as sb3-contrib wants them."""
        return self._batch.mask()[0].ravel()

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Float32Array, Info]:
        """Begin a new episode; ``options={"scenario": ...}`` replays a given one."""
        options = known_options(options, "scenario")
        super().reset(seed=seed)
        if (scenario := options.get("scenario")) is None:
            self._batch.start(np.zeros(1, np.int64), [self.np_random])
        else:
            self.core.check(scenario, 1)
            self._batch.load(np.zeros(1, np.int64), scenario)
        self._begun = self._running = True
        self._show(first=True)
        info = {"fingerprint": self.scenario.fingerprint(0), **self.core.notes()}
        return self._batch.observe()[0], self._with_mask(info)

    def step(self, action: Any) -> tuple[Float32Array, float, bool, bool, Info]:
        """One stage."""
        if not self._running:
            raise error.ResetNeeded("the episode is over or has not begun; call reset() first")
        obs, batch = np.empty(self._n_obs, np.float32), self._batch
        batch.step(self._read(action), obs[None])
        over = bool(batch.over[0])
        self._running = not over
        self._show(first=False)
        return obs, float(batch.outcome.reward[0]), over, False, self._step_info()

    def _step_info(self) -> Info:
        out = self._batch.outcome
        info = {
            "cost": dict(zip(self._terms, out.cost_usd[0].tolist(), strict=True)),
            "cost_usd": float(out.total_usd[0]),
            "curtailed_kwh": float(out.curtailed_kwh[0]),
        }
        for name in self.core.reported:
            info[name] = getattr(out, name)[0].item()
        return self._with_mask(info)

    def _with_mask(self, info: Info) -> Info:
        if self._has_mask:
            mask = self._batch.mask()[0]
            info["action_mask"] = mask[0] if self.core.single_choice else mask
        return info

    def render(self) -> Any:
        """The episode so far as (H, W, 3) bytes; ``None`` in human mode, which draws by itself."""
        if self.render_mode is None:
            raise UserError("nothing to render: make the environment with render_mode='rgb_array'")
        if not self._begun:
            raise error.ResetNeeded("nothing to render yet; call reset() first")
        return self._frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window; the environment holds nothing else."""
        self._window.close()

    def _show(self, *, first: bool) -> None:
        if self.render_mode is None:
            return
        self._record(first=first)
        if self.render_mode == "human":
            self._window.show(self._frame())

    def _record(self, *, first: bool) -> None:
        """Keep what the picture needs of the stage just played (``first``: of the reset)."""
        raise NotImplementedError

    def _frame(self) -> Any:
        """Picture of the episode so far."""
        raise NotImplementedError


class CoreVectorEnv(VectorEnv[Float32Array, Any, FloatArray]):
    """B episodes of a core side by side.

    Infos follow Gymnasium: an array a key with a boolean ``_key`` beside it where not all rows
    have a value. Costs come as ``cost_usd_by_term`` (B, terms), in the order of
    ``core.cost_terms``, where the scalar environment has the dictionary ``cost``; fields that
    ``core.reported`` names have an entry each.
    """

    def __init__(
        self,
        core: Core,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        if not isinstance(num_envs, int) or num_envs < 1:
            raise UserError(f"num_envs={num_envs!r}: must be a whole number, at least 1")
        self.core, self.num_envs, self.copy = core, num_envs, copy
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**CoreEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space = action_space(core)
        self.single_observation_space = observation_space(core)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._read = ActionReader(core, self.action_space.shape or ())
        self._batch = core.batch(num_envs)
        self._rngs: list[np.random.Generator] = []
        self._ended = np.zeros(num_envs, bool)
        self._obs = np.empty((num_envs, len(core.labels)), np.float32)

    @property
    def observation_labels(self) -> tuple[str, ...]:
        """Name of every entry of a row of the observations."""
        return tuple(self.core.labels)

    @property
    def scenario(self) -> Any:
        """The whole truth about all episodes: only perfect foresight may look."""
        return self._batch.scenario

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each row."""
        return tuple(self._rngs)

    def view(self) -> Any:
        """All that a controller may know now."""
        return self._batch.view()

    def action_masks(self) -> BoolArray:
        """Choices that can be followed as they are, (B, A * L)."""
        return self._batch.mask().reshape(self.num_envs, -1)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Info | None = None
    ) -> tuple[Float32Array, Info]:
        """Begin new episodes, those of ``options["reset_mask"]`` alone when it is given.

        ``options["scenario"]`` replays given worlds (batch axis = the rows that begin).
        """
        options = known_options(options, "reset_mask", "scenario")
        rows = self._chosen(options.get("reset_mask"))
        seeds = self._seeds(seed)
        if not self._rngs:
            self._rngs = [seeding.np_random(s)[0] for s in seeds]
        for i in rows:
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(seeds[i])[0]
        self._begin(rows, options.get("scenario"))
        self._ended[rows] = False
        info = self._with_notes({}, rows)
        return self._batch.observe(self._buffer()), self._with_mask(info, rows)

    def _chosen(self, mask: Any) -> IntArray:
        """Rows that a reset begins."""
        if mask is None:
            return np.arange(self.num_envs)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,):
            raise UserError(f"options['reset_mask'] must be a bool array of shape ({self.num_envs},)")
        if not mask.any():
            raise UserError("options['reset_mask'] chooses no row; set at least one entry")
        if not self._rngs and not mask.all():
            raise error.ResetNeeded("the first reset must begin every row; leave out reset_mask")
        return np.flatnonzero(mask)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None or isinstance(seed, int | np.integer):
            return [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise UserError(f"{len(seed)} seeds for num_envs={self.num_envs}; give one number or one a row")
        return [None if s is None else int(s) for s in seed]

    def _begin(self, rows: IntArray, scenario: Any = None) -> None:
        if scenario is None:
            self._batch.start(rows, [self._rngs[i] for i in rows])
        else:
            self.core.check(scenario, len(rows))
            self._batch.load(rows, scenario)

    def step(self, actions: Any) -> VectorStep:
        """One stage of every episode; those that ended begin anew as ``autoreset_mode`` says."""
        before, same_step = self._ended, self.autoreset_mode is AutoresetMode.SAME_STEP
        self._check_running(before)
        obs, batch = self._buffer(), self._batch
        batch.step(self._read(actions, before), obs)
        ended = batch.over & ~before
        reward = np.where(before, 0.0, batch.outcome.reward)
        again = ended if same_step else before
        info = self._results(~again)
        if again.any():
            rows = np.flatnonzero(again)
            if same_step:
                info |= self._final(obs, ended)
            self._begin(rows)
            batch.observe(obs)
            self._with_notes(info, rows)
        self._ended = np.zeros_like(ended) if same_step else ended
        info = self._with_mask(info, np.arange(self.num_envs))
        return obs, reward, ended.copy(), np.zeros(self.num_envs, bool), info

    def _check_running(self, ended: BoolArray) -> None:
        if not self._rngs:
            raise error.ResetNeeded("the episodes have not begun; call reset() first")
        if self.autoreset_mode is AutoresetMode.DISABLED and ended.any():
            raise error.ResetNeeded(
                f"rows {np.flatnonzero(ended)[:5].tolist()} are over and autoreset is disabled; "
                "call reset(options={'reset_mask': terminations}) first"
            )

    def _buffer(self) -> Float32Array:
        return np.empty_like(self._obs) if self.copy else self._obs

    def _results(self, rows: BoolArray) -> Info:
        """What the stage did to ``rows``; zeros elsewhere."""
        out = self._batch.outcome
        named = {
            "cost_usd_by_term": out.cost_usd,
            "cost_usd": out.total_usd,
            "curtailed_kwh": out.curtailed_kwh,
            **{name: getattr(out, name) for name in self.core.reported},
        }
        if not rows.any():
            return {}
        if rows.all():
            return self._masked({key: x.copy() for key, x in named.items()}, rows)
        return self._masked({key: np.where(rows, x.T, 0).T for key, x in named.items()}, rows)

    @staticmethod
    def _masked(arrays: Info, rows: BoolArray) -> Info:
        return arrays | {f"_{key}": rows.copy() for key in arrays}

    def _final(self, obs: Float32Array, ended: BoolArray) -> Info:
        """Last observation and info of the episodes that ended."""
        rows = np.flatnonzero(ended)
        last = np.full(self.num_envs, None, dtype=object)
        for i in rows:
            last[i] = obs[i].copy()
        info = self._with_mask(self._results(ended), rows)
        return self._masked({"final_obs": last, "final_info": info}, ended)

    def _with_notes(self, info: Info, rows: IntArray) -> Info:
        """Add what a reset tells of ``rows``."""
        notes = self.core.notes()
        for i in rows:
            self._add_info(info, {"fingerprint": self.scenario.fingerprint(i), **notes}, int(i))
        return info

    def _with_mask(self, info: Info, rows: IntArray) -> Info:
        if self.core.n_choices is not None:
            here = np.zeros(self.num_envs, bool)
            here[rows] = True
            mask = self._batch.mask() & here[:, None, None]
            info |= self._masked({"action_mask": mask[:, 0] if self.core.single_choice else mask}, here)
        return info


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        known = ", ".join(repr(m.value) for m in AutoresetMode)
        raise UserError(f"autoreset_mode={mode!r}: choose one of {known}") from None


def refuse_render_mode(render_mode: str | None) -> None:
    """``UserError`` if a vector environment is asked for pictures."""
    if render_mode is not None:
        raise UserError(
            f"render_mode={render_mode!r}: the vector environment draws nothing; render one episode with gymnasium.make"
        )
