"""What is learned: how to read estimates of restoration times, and how much a need far ahead counts.

An estimate tells as much about its own error as about the truth, so the best guess lies between it and what is
usual after such a storm: a linear regression of the log of what remains, by kind (lines, substation, roads) and by
hours since the storm. A need hours ahead may be gone before a unit is there, while the plan will be made anew
anyway: it counts less by ``exp(-hours / fade_h)``.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.forecast import estimated_h
from qevgrid.envs.mobile_csp.plant import Plant
from qevgrid.envs.mobile_csp.scenario import Scenario
from qevgrid.envs.types import BoolArray, FloatArray, IntArray

FORMAT: Final = "qevgrid-mobile-hybrid-1"
HOURS: Final = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
"""Hours since the storm at which coefficients stand; between them they are interpolated."""
INPUTS: Final = ("one", "log_estimate", "log_broken", "mean_log_estimate", "log_rank")
RIDGE: Final = 3.0
"""Weight of a coefficient's square, in examples; the estimate's own is pulled to 1, all others to 0."""
FEWEST: Final = 30
"""Examples below which estimates are taken as they are."""
DONE: Final = 1e-9


@dataclass(frozen=True)
class Outlook:
    """Corrections of what is expected. Numbers of kinds: lines, substation, roads."""

    coefficient: FloatArray  # (3, len(HOURS), len(INPUTS))
    spread: FloatArray  # (3, len(HOURS)) standard deviation of the log of what remains
    shift: float = 0.0  # of the log of what remains, in spreads
    fade_h: float = np.inf

    def __call__(
        self, plant: Plant, stage: IntArray, lines: FloatArray, substation: FloatArray, roads: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Corrected hours for estimates (B, L), (B,), (B, R) of the stages (B,)."""
        dt_h = plant.params.dt_h
        now_h = np.asarray(stage, float)[:, None] * dt_h
        kinds = (lines, substation[:, None], roads)
        lines, station, roads = (self._corrected(k, hours, now_h, dt_h) for k, hours in enumerate(kinds))
        return lines, station[:, 0], roads

    def _corrected(self, kind: int, hours: FloatArray, now_h: FloatArray, dt_h: float) -> FloatArray:
        """Hours (B, n) of one kind."""
        broken, x = inputs(hours, now_h, dt_h)
        at = now_h[:, 0]
        weight = np.stack([np.interp(at, HOURS, c) for c in self.coefficient[kind].T], -1)  # (B, inputs)
        spread = np.interp(at, HOURS, self.spread[kind])[:, None]
        left = np.exp(np.clip((x * weight[:, None]).sum(-1) + self.shift * spread, -5.0, 8.0))
        return np.where(broken, now_h + np.maximum(left, dt_h), hours)

    def weight(self, plant: Plant, stage: int) -> FloatArray:
        """(T,) what a need counts when seen from ``stage``."""
        ahead_h = np.maximum(np.arange(plant.n_periods) - stage, 0) * plant.params.dt_h
        return np.exp(-ahead_h / self.fade_h)

    @property
    def parameters(self) -> int:
        """Number of learned numbers."""
        return self.coefficient.size + self.spread.size + 2

    def save(self, path: Path) -> None:
        """Write a small file."""
        buffer = io.BytesIO()
        rest = np.array([self.shift, self.fade_h])
        np.savez_compressed(
            buffer, format=np.array(FORMAT), coefficient=self.coefficient, spread=self.spread, rest=rest
        )
        path.write_bytes(buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Outlook":
        """Read what ``save`` wrote; ``UserError`` for anything else."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                data = dict(file)
            if str(data["format"]) != FORMAT:
                raise KeyError("format")
            shape = (3, len(HOURS), len(INPUTS))
            return cls(data["coefficient"].reshape(shape), data["spread"].reshape(shape[:2]), *data["rest"].tolist())
        except Exception as err:  # a damaged file can fail in any way
            raise UserError(f"{path}: is no outlook that this version saved ({err}); train anew") from None


def inputs(hours: FloatArray, now_h: FloatArray, dt_h: float) -> tuple[BoolArray, FloatArray]:
    """What is still broken (B, n), and what its remaining time is told from, (B, n, INPUTS)."""
    broken = hours > now_h + DONE
    count = broken.sum(1, keepdims=True)
    left = np.where(broken, np.log(np.maximum(hours - now_h, dt_h)), 0.0)
    mean = left.sum(1, keepdims=True) / np.maximum(count, 1)
    rank = np.argsort(np.argsort(np.where(broken, hours, np.inf), 1, kind="stable"), 1, kind="stable")
    whole = np.ones(hours.shape)
    return broken, np.stack([whole, left, np.log1p(count) * whole, mean * whole, np.log1p(rank)], -1)


def fit(plant: Plant, scenario: Scenario) -> Outlook:
    """Least squares over the storms of ``scenario``."""
    size, dt_h = len(scenario.gust_mph), plant.params.dt_h
    coefficient, spread = np.zeros((3, len(HOURS), len(INPUTS))), np.zeros((3, len(HOURS)))
    for a, hour in enumerate(HOURS):
        stage = min(round(hour / dt_h), plant.n_periods - 1)
        estimate = estimated_h(plant, scenario, np.full(size, stage))
        truth = (scenario.line_h, scenario.substation_h[:, None], scenario.road_h)
        for k, (guess, true) in enumerate(zip(estimate, truth, strict=True)):
            guess, now_h = guess.reshape(true.shape), np.full((size, 1), stage * dt_h)
            broken, x = inputs(guess, now_h, dt_h)
            left = np.log(np.maximum(true - now_h, dt_h / 10))
            coefficient[k, a], spread[k, a] = _regression(x[broken], left[broken], plant.params.repair.estimate_sigma)
    return Outlook(coefficient, spread)


def _regression(x: FloatArray, y: FloatArray, spread: float) -> tuple[FloatArray, float]:
    """Coefficients and spread of the rest; few examples leave the estimate as it is."""
    as_it_is = np.eye(len(INPUTS))[INPUTS.index("log_estimate")]
    if len(y) < FEWEST:
        return as_it_is, spread
    change = np.linalg.solve(x.T @ x + RIDGE * np.eye(len(INPUTS)), x.T @ (y - x @ as_it_is))
    return as_it_is + change, float((y - x @ (as_it_is + change)).std())
