"""Figures of a comparison: cost bars, scores, learning curves.

Inputs are plain data, as read back from a run's files. A table is a list of rows with the keys
`agent`, `cost_usd_mean`, `cost_usd_lo`, `cost_usd_hi`, `score`, `score_lo`, `score_hi` and
`cost_<term>_usd`; a missing, empty or NaN entry is not drawn. `matplotlib.figure.Figure` only:
no pyplot, no rcParams, so that figures can be drawn in any thread and during training.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

from qevgrid.envs.types import FloatArray
from qevgrid.runner.folder import RunFolder

Row = Mapping[str, Any]

# Okabe and Ito's palette (safe for the common colour blindnesses).
LINE_COLORS = ("#0072B2", "#D5300A", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
INK, GREY = "#222222", "#777777"
_LOWEST_SCORE = -1.0  # the axis goes no lower; what lies there is drawn as an arrow


def cost_figure(table: Sequence[Row], term_colors: Mapping[str, str]) -> Figure:
    """Stacked cost parts in USD, one bar an agent, cheapest on top; the terms stack in the order of their colours.

    Terms that earn money stack to the left of zero; the diamond is the total, its whisker the 95 %
    interval.
    """
    rows = sorted(table, key=lambda row: _rank(_number(row, "cost_usd_mean")))
    figure, ax = _bar_axes(rows, width_in=9.5)
    left_usd, right_usd = np.zeros(len(rows)), np.zeros(len(rows))
    for term, color in term_colors.items():
        parts_usd = np.nan_to_num(_column(rows, f"cost_{term}_usd"))
        if parts_usd.any():
            starts_usd = np.where(parts_usd < 0.0, left_usd, right_usd)
            label = term.replace("_", " ")
            ax.barh(_places(rows), parts_usd, 0.62, starts_usd, color=color, label=label)
        left_usd += np.minimum(parts_usd, 0.0)
        right_usd += np.maximum(parts_usd, 0.0)
    _totals(ax, rows, right_usd)
    ax.axvline(0.0, color=INK, lw=0.8)
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("cost of an episode, USD (left of 0: income)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    return figure


def score_figure(rows: Sequence[Row], best: str = "optimum") -> Figure:
    """Score with its 95 % interval, one dot an agent, best on top; 0 = naive, 1 = ``best``.

    Agents without a score keep their line, marked so. Scores below -1 are arrows at the border.
    """
    ranked = sorted(rows, key=lambda row: _rank(-_number(row, "score")))
    figure, ax = _bar_axes(ranked, width_in=7.5)
    scores = _column(ranked, "score")
    low, high = _bounds(ranked, "score", scores)
    places, shown = _places(ranked), np.isfinite(scores)
    off = shown & (scores < _LOWEST_SCORE)
    low, high = np.where(off, np.nan, low), np.where(off, np.nan, high)
    ax.hlines(places, np.maximum(low, _LOWEST_SCORE), high, color=LINE_COLORS[0], lw=2.2)
    ax.plot(scores[shown & ~off], places[shown & ~off], "o", color=LINE_COLORS[0], ms=7)
    ax.plot(np.full(off.sum(), _LOWEST_SCORE), places[off], "<", color=LINE_COLORS[1], ms=8)
    for place, value in zip(places, scores, strict=True):
        text = f"{value:.2f}" if math.isfinite(value) else "no score"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", color=INK)
    _rulers(ax, best)
    lowest = float(np.nanmin([*low, *scores, 0.0]))
    ax.set_xlim(max(lowest, _LOWEST_SCORE) - 0.05, max(float(np.nanmax([*high, 1.0])), 1.0) + 0.05)
    ax.set_xlabel("score (share of the possible saving)")
    return figure


def learning_figure(curves: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Score or mean cost against environment steps, one entry of `curves` an agent.

    An entry has `steps` (K,) and `score` or `cost_usd` of shape (K,), or (S, K) for S seeds: then
    the line is their mean and each seed a thin line. Optional bounds of shape (K,): `score_lo`,
    `score_hi` or `cost_usd_lo`, `cost_usd_hi`. An entry without `steps` is a rival: its one number
    is a horizontal dashed line.
    """
    quantity = _quantity(curves)
    figure = Figure(figsize=(8.5, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ends: dict[str, tuple[float, str]] = {}
    for index, (agent, curve) in enumerate(curves.items()):
        color = LINE_COLORS[index % len(LINE_COLORS)]
        ends[agent] = (_draw_curve(ax, agent, curve, quantity, color), color)
    _end_labels(ax, ends)
    ax.margins(x=0.0)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("environment steps")
    names = {"score": "score (0 = naive, 1 = optimum)", "cost_usd": "cost of an episode, USD"}
    ax.set_ylabel(names[quantity])
    ax.grid(color="#E8E8E8", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a PNG so that `path` is never half-written (temporary sibling, then `os.replace`)."""
    target = Path(path)
    with RunFolder(target.parent).atomic_path(Path(target.name)) as temporary:
        figure.savefig(temporary, format="png")
    return target


def _bar_axes(rows: Sequence[Row], width_in: float) -> tuple[Figure, Axes]:
    """A figure with one horizontal line a row, the first on top."""
    if not rows:
        raise ValueError("there is no row to draw")
    size_in = (width_in, 1.2 + 0.42 * len(rows))
    figure = Figure(figsize=size_in, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set_yticks(_places(rows), [str(row["agent"]) for row in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="x", color="#E8E8E8", lw=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return figure, ax


def _totals(ax: Axes, rows: Sequence[Row], right_usd: FloatArray) -> None:
    """Diamond, whisker and number of every total; the numbers stand right of all that is drawn."""
    totals_usd = _column(rows, "cost_usd_mean")
    low_usd, high_usd = _bounds(rows, "cost_usd", totals_usd)
    style = {"color": INK, "zorder": 4}
    ax.hlines(_places(rows), low_usd, high_usd, lw=3.6, color="white", zorder=3)
    ax.hlines(_places(rows), low_usd, high_usd, lw=1.4, **style)
    ax.plot(totals_usd, _places(rows), "D", ms=5.5, mec="white", mew=0.9, label="total", **style)
    digits = 0 if np.nanmax(np.abs(totals_usd), initial=0.0) >= 100.0 else 2
    right = np.fmax(np.fmax(right_usd, high_usd), 0.0)
    for place, x_usd, total_usd in zip(_places(rows), right, totals_usd, strict=True):
        if math.isfinite(total_usd):
            text = f"{total_usd:,.{digits}f}"
            ax.annotate(text, (x_usd, place), (6, 0), textcoords="offset points", va="center")
    ax.margins(x=0.09)


def _rulers(ax: Axes, best: str) -> None:
    for value, name in ((0.0, "naive"), (1.0, best)):
        ax.axvline(value, color=GREY, lw=1.0, ls="--", zorder=0)
        ax.text(value, 1.01, name, transform=ax.get_xaxis_transform(), ha="center", color=GREY)


def _quantity(curves: Mapping[str, Mapping[str, ArrayLike]]) -> str:
    """`score` or `cost_usd`, whichever every curve has."""
    if not curves:
        raise ValueError("there is no curve to draw")
    for quantity in ("score", "cost_usd"):
        if all(quantity in curve for curve in curves.values()):
            return quantity
    raise ValueError("every curve must have 'score', or every curve 'cost_usd'")


def _draw_curve(ax: Axes, agent: str, curve: Mapping[str, ArrayLike], quantity: str, color: str) -> float:
    """Draw one entry of `learning_figure`; the height at which it ends."""
    values = np.atleast_2d(np.asarray(curve[quantity], dtype=np.float64))
    if "steps" not in curve:
        ax.axhline(float(values.item()), color=color, lw=1.4, ls="--", label=agent)
        return float(values.item())
    steps, mean = np.asarray(curve["steps"], dtype=np.float64), values.mean(axis=0)
    if f"{quantity}_lo" in curve and f"{quantity}_hi" in curve:
        low, high = np.asarray(curve[f"{quantity}_lo"]), np.asarray(curve[f"{quantity}_hi"])
        ax.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
    if len(values) > 1:
        ax.plot(steps, values.T, color=color, lw=0.7, alpha=0.4)
    ax.plot(steps, mean, color=color, lw=2.2, label=agent)
    return float(mean[-1])


def _end_labels(ax: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Name each line at its right end, moved apart where the names would overlap."""
    bottom, top = ax.get_ylim()
    previous = -math.inf
    for agent, (height, color) in sorted(ends.items(), key=lambda item: item[1][0]):
        fraction = max((height - bottom) / (top - bottom), previous + 0.05)
        previous = fraction
        ax.annotate(
            agent, (1.0, fraction), (6, 0), xycoords="axes fraction",
            textcoords="offset points", va="center", color=color, fontsize=9,
        )  # fmt: skip


def _number(row: Row, key: str) -> float:
    """The entry as a float; NaN where it is missing or empty."""
    value = row.get(key)
    return math.nan if value is None or value == "" else float(value)


def _column(rows: Sequence[Row], key: str) -> FloatArray:
    return np.array([_number(row, key) for row in rows], dtype=np.float64)


def _bounds(rows: Sequence[Row], name: str, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Interval of each row; an interval without width where it is not known."""
    low, high = _column(rows, f"{name}_lo"), _column(rows, f"{name}_hi")
    return np.where(np.isnan(low), values, low), np.where(np.isnan(high), values, high)


def _places(rows: Sequence[Row]) -> FloatArray:
    return np.arange(len(rows), dtype=np.float64)[::-1]


def _rank(value: float) -> float:
    """Sort key that puts what is not known last."""
    return math.inf if math.isnan(value) else value
