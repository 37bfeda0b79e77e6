"""A second problem, unlike V2G in all that the runner could take for granted: a garden in the holidays.

Actions are no numbers in [-1, 1] and not (B, N); episodes differ in length; rows that are over keep their last
outcome. Pouring costs 1 USD a litre; what the beds lack costs as much, at weight 2. So whoever pours nothing pays
twice what whoever pours exactly enough pays, and half the need scores 0.5.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qevgrid.agents import Rivals
from qevgrid.agents.base import Agent
from qevgrid.agents.learner import Hook, Learner
from qevgrid.envs.problem import Problem
from qevgrid.envs.types import FloatArray, IntArray

ID = "toy/Garden-v0"
LONGEST = 4
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GardenParams:
    """A garden."""

    id: Literal["toy/Garden-v0"] = ID
    n_beds: Annotated[int, Field(ge=1)] = 3
    water_usd: float = 1.0


class Garden(NamedTuple):
    """The truth about B episodes."""

    length: IntArray  # (B,) 2 to LONGEST days
    need: FloatArray  # (B, LONGEST, beds) litres
    heat: IntArray  # (B,) 0, 1 or 2

    def fingerprint(self, row: int) -> str:
        return f"{self.length[row]}-{self.heat[row]}-{self.need[row].sum():.6f}"


class Pour(NamedTuple):
    """An action."""

    bed: IntArray  # (B,)
    litres: FloatArray  # (B,) on that bed
    all_beds: IntArray  # (B,) 1: on each bed instead


class View(NamedTuple):
    day: IntArray  # (B,)
    beds: int


class Outcome(NamedTuple):
    cost_usd: FloatArray  # (B, 2)
    poured: FloatArray  # (B,)


class GardenCore:
    labels = ("day",)
    cost_terms = ("water", "wilted")
    weights = np.array([1.0, 2.0])

    def __init__(self, params: GardenParams) -> None:
        self.params = params

    def batch(self, size: int) -> "GardenBatch":
        return GardenBatch(self, size)


class GardenBatch:
    def __init__(self, core: GardenCore, size: int) -> None:
        self.core, self.size = core, size
        self.day = np.zeros(size, np.int64)
        self.outcome = Outcome(np.zeros((size, 2)), np.zeros(size))

    def start(self, rows: IntArray, rngs: list[np.random.Generator]) -> None:
        assert len(rows) == len(rngs) == self.size
        draws = [
            (g.integers(2, LONGEST + 1), g.integers(1, 9, (LONGEST, self.core.params.n_beds)), g.integers(0, 3))
            for g in rngs
        ]
        length, need, heat = (np.array(part) for part in zip(*draws, strict=True))
        self.scenario = Garden(length, need.astype(float), heat)

    def step(self, action: Pour) -> None:
        live = ~self.over
        today = self.scenario.need[np.arange(self.size), np.minimum(self.day, LONGEST - 1)]
        poured = np.where(action.all_beds[:, None] == 1, action.litres[:, None], 0.0) + np.zeros_like(today)
        poured[np.arange(self.size), action.bed] = action.litres
        lack = np.maximum(today - poured, 0.0).sum(1)
        self.outcome.cost_usd[live, 0] = self.core.params.water_usd * poured.sum(1)[live]
        self.outcome.cost_usd[live, 1] = lack[live]
        self.outcome.poured[live] = poured.sum(1)[live]
        self.day[live] += 1

    def observe(self) -> FloatArray:
        return self.day[:, None] / LONGEST

    @property
    def over(self) -> Any:
        return self.day >= self.scenario.length

    def view(self) -> View:
        return View(self.day.copy(), self.core.params.n_beds)


class GardenKpis:
    def __init__(self, batch: GardenBatch) -> None:
        self.sums = np.zeros((batch.size, 3))

    def before(self, batch: GardenBatch) -> None:
        self.live = ~batch.over

    def after(self, batch: GardenBatch) -> None:
        self.sums[self.live, 0] += batch.outcome.poured[self.live]
        self.sums[self.live, 1] += 1

    def result(self, cost_usd: FloatArray) -> FloatArray:
        self.sums[:, 2] = np.nan  # nobody measured it
        return self.sums


class GardenTrace(NamedTuple):
    agent: str
    poured: list[float]

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


class GardenProblem(Problem):
    id = ID
    params = GardenParams
    cost_terms = GardenCore.cost_terms
    term_colors = {"wilted": "#D5300A", "water": "#0072B2"}  # noqa: RUF012
    kpis = ("poured_l", "days", "rain_l")
    shown_kpi = ("poured_l", "litres")
    stress_column = "heat_level"
    episode = "week"

    def core(self, params: GardenParams) -> Any:
        return GardenCore(params)

    def kpi_sums(self, core: GardenCore, batch: GardenBatch) -> GardenKpis:
        return GardenKpis(batch)

    def stress(self, core: GardenCore, scenario: Garden) -> FloatArray:
        return scenario.heat.astype(float)

    def strata(self, stress: FloatArray) -> IntArray:
        return stress.astype(np.int64)

    def shown(self, scenario: Garden) -> dict[str, int]:
        return {"hottest": int(np.argmax(scenario.heat)), "first": 0}

    def stage_record(self, batch: GardenBatch, row: int) -> float:
        return float(batch.outcome.poured[row])

    def trace(self, core: GardenCore, stages: list[float], agent: str) -> GardenTrace:
        return GardenTrace(agent, list(stages))

    def figure(self, traces: Sequence[GardenTrace]) -> Figure:
        figure = Figure()
        for trace in traces:
            figure.subplots().plot(trace.poured)
        return figure

    def size(self, params: GardenParams) -> dict[str, float]:
        return {"n_beds": params.n_beds}

    def held_out(self, params: GardenParams) -> GardenParams:
        return params

    def report_lines(self, core: GardenCore) -> list[str]:
        return [f"garden: {core.params.n_beds} beds"]


PROBLEM = GardenProblem()


# --- who plays -------------------------------------------------------------------------------------


class Same(Agent):
    """Pours the same on every bed, every day."""

    def __init__(self, name: str, litres: float) -> None:
        self.name, self.litres = name, litres

    def act(self, obs: Any, info: dict[str, Any]) -> Pour:
        size = len(info["view"].day)
        return Pour(np.zeros(size, np.int64), np.full(size, self.litres), np.ones(size, np.int64))


class Seer(Agent):
    """Pours a share of the first bed's need of the day, which only who sees everything knows."""

    needs_scenario = True

    def __init__(self, name: str, share: float) -> None:
        self.name, self.share = name, share

    def begin(self, info: dict[str, Any]) -> None:
        self.size = len(info["scenario"].length)

    def act(self, obs: Any, info: dict[str, Any]) -> Pour:
        day, need = np.minimum(info["view"].day, LONGEST - 1), info["scenario"].need
        return Pour(
            np.zeros(self.size, np.int64),
            self.share * need[np.arange(self.size), day, 0],
            np.zeros(self.size, np.int64),
        )

    def report(self) -> dict[str, FloatArray]:
        return {"seer/depth": np.full(self.size, 4.0)}


def idle() -> Same:
    """Pours nothing. It bears the name of a V2G rival, so that taking the other problem's would be noticed."""
    return Same("idle", 0.0)


def half() -> Seer:
    return Seer("half", 0.5)


def best_known() -> Seer:
    return Seer("best_known", 1.0)


RIVALS = Rivals(
    paths={name: f"toy_problem:{name}" for name in ("idle", "half", "best_known")},
    naive="idle",
    best="best_known",
    beside_training=("idle", "best_known"),
    off_scale=("idle",),
    to_beat=("idle", "half"),
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GardenerConfig:
    """What learns here."""

    kind: Literal["gardener"] = "gardener"
    step_l: float = 1.0


class Gardener(Learner):
    """Pours a litre a bed more in each round."""

    parameters = 1
    steps = 0

    def __init__(self, config: GardenerConfig) -> None:
        self.litres, self.step_l = 0.0, config.step_l

    def learn(self, total_steps: int, hook: Hook) -> None:
        while self.steps < total_steps:
            hook(self)
            self.litres, self.steps = self.litres + self.step_l, self.steps + 10

    def agent(self, name: str, core: Any) -> Agent:
        return Same(name, self.litres)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.litres))

    def checkpoint(self, path: Path) -> None:
        path.write_text(json.dumps([self.litres, self.steps]))

    def restore(self, path: Path) -> None:
        self.litres, self.steps = json.loads(path.read_text())


class Trained(Same):
    parameters = 1

    @classmethod
    def load(cls, path: Path, name: str, core: Any, config: Any) -> "Trained":
        return cls(name, json.loads(path.read_text()))


def build(config: GardenerConfig, params: GardenParams, seed: int) -> Gardener:
    return Gardener(config)
