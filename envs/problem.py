"""What training and evaluation must know of a problem; a new problem is one more subclass of ``Problem``.

Nothing here knows a single problem but by name, so that reading a configuration loads none of them.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Core, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBLEMS = {
    "qevgrid/V2G-v0": "qevgrid.envs.v2g.problem:PROBLEM",
    "qevgrid/MobileCSP-v0": "qevgrid.envs.mobile_csp.problem:PROBLEM",
}
"""Where each problem's `Problem` is, by the ``id`` of its parameters."""
DEFAULT_ID = "qevgrid/V2G-v0"
"""The problem that is meant where none is named."""


class Trace(Protocol):
    """What one agent did in one episode: plain data, from which pictures are drawn."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for strict JSON."""
        ...


class KpiSums(Protocol):
    """Quantities of B episodes, added up stage by stage. A row that is over must add nothing more."""

    def before(self, batch: Any) -> None:
        """Look at the state in which the agent decided, just before the stage is played."""
        ...

    def after(self, batch: Any) -> None:
        """Look at the outcome of the stage just played."""
        ...

    def result(self, cost_usd: FloatArray) -> FloatArray:
        """(B, K) in the order of ``Problem.kpis``, NaN where not known; ``cost_usd`` (B, terms) of the episodes."""
        ...


class Problem(ABC):
    """One problem as the runner sees it. It has no state: one object serves every run.

    The class attributes are names that stand in files, tables, TensorBoard tags and pictures.
    """

    id: str
    """As registered with Gymnasium and written in ``env.id``."""
    params: type[Any]
    """The section ``env`` of a configuration; the default of its key ``id`` is the problem's."""
    cost_terms: tuple[str, ...]
    """As the core's."""
    term_colors: Mapping[str, str]
    """Colour of each cost term; bars stack in this order."""
    kpis: tuple[str, ...]
    """Quantities recorded for each episode, with units: ``charged_kwh``."""
    shown_kpi: tuple[str, str]
    """The one that tables show, and its heading there."""
    stress_column: str
    """What ``stress`` is called in the files, with its unit."""
    episode: str = "episode"
    """Word for an episode, as in "USD a day"; its plural takes an s."""

    @abstractmethod
    def core(self, params: Any) -> Core:
        """The constant part of the world; ``UserError`` for parameters that do not go together."""

    @abstractmethod
    def kpi_sums(self, core: Any, batch: Any) -> KpiSums:
        """Sums at the start of the batch's episodes."""

    @abstractmethod
    def stress(self, core: Any, scenario: Any) -> FloatArray:
        """(B,) how hard each world of ``scenario`` is, whatever is done, e.g. hours without supply."""

    def strata(self, stress: FloatArray) -> IntArray:
        """(B,) kind of each episode; a bootstrap keeps the number of each. Without stress, or with some."""
        return (stress > 0).astype(int)

    @abstractmethod
    def shown(self, scenario: Any) -> dict[str, int]:
        """Episodes worth a picture: name for its file and position in ``scenario``, the most telling first.

        At least one; training shows the first only.
        """

    @abstractmethod
    def stage_record(self, batch: Any, row: int) -> Any:
        """What a trace keeps of the stage that ``row`` has just played."""

    @abstractmethod
    def trace(self, core: Any, stages: list[Any], agent: str) -> Trace:
        """Stage records put together."""

    @abstractmethod
    def figure(self, traces: Sequence[Any]) -> "Figure":
        """Agents side by side on one episode."""

    @abstractmethod
    def size(self, params: Any) -> dict[str, float]:
        """What makes a world large, for the table of hyperparameters."""

    def held_out(self, params: Any) -> Any:
        """The same world on data that training never sees; the same where all is drawn from seeds."""
        return params

    def report(self, core: Any) -> Mapping[str, Any]:
        """What was read from the user's files, in plain numbers."""
        return {}

    def report_lines(self, core: Any) -> list[str]:
        """The same for people."""
        return []


def problem_of(params: Any) -> Problem:
    """The problem that these parameters belong to."""
    return problem_by_id(params.id)


def problem_by_id(name: str) -> Problem:
    """The problem of that id; ``UserError`` where there is none."""
    if name not in PROBLEMS:
        raise UserError(f"env.id={name}: no such problem; known: {', '.join(PROBLEMS)}")
    return load_object(PROBLEMS[name])


def load_object(path: str) -> Any:
    """The object that a "module:name" string stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
