"""Pictures of Mobile CSP episodes, drawn from saved traces.

One picture is a moment of the story: the map with roads, sites and units, the feeder, and what it has cost so far.
Draws on `matplotlib.figure.Figure` and never touches pyplot or rcParams. Import this module lazily.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from qevgrid.envs.mobile_csp.recorder import tree_layout
from qevgrid.envs.mobile_csp.storm_map import (
    BACKUP,
    CLOSED,
    HALO,
    INK,
    SERVED,
    SOON,
    SOON_H,
    SUPPLIED,
    UNIT,
    UNSERVED,
    draw_map,
    ground_map,
    play_map,
)  # fmt: skip
from qevgrid.envs.mobile_csp.trace import TERM_COLORS, StormTrace
from qevgrid.envs.types import FloatArray

ABREAST = 5
"""Agents in a row of a comparison."""


def render_frame(trace: StormTrace, moment: int = -1, width_px: int = 1100, height_px: int = 720) -> NDArray[np.uint8]:
    """(H, W, 3) picture of a moment, by default the last; frames of one episode line up in a video."""
    return Painter(width_px, height_px).frame(trace, moment)


def storm_figure(traces: Sequence[StormTrace]) -> Figure:
    """Agents on one storm, five a row: where its units are when most is needed, need and cost over the whole."""
    columns = min(len(traces), ABREAST)
    blocks = -(-len(traces) // columns)
    figure = Figure(figsize=(5.6 * columns, 7.6 * blocks), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    edge = {"left": 0.05 / columns**0.5, "right": 0.985, "top": 1 - 0.07 / blocks, "bottom": 0.085 / blocks}
    figure.subplots_adjust(**edge, hspace=0.28)
    axes = figure.subplots(3 * blocks, columns, squeeze=False, height_ratios=(3.2, 1.0, 1.0) * blocks)
    moment = int(np.argmax(traces[0].need_kw @ traces[0].voll_usd_kwh))
    places = axes.reshape(blocks, 3, columns).transpose(0, 2, 1).reshape(-1, 3)
    dearest = max(map(_cost_top, traces))
    for (top, middle, bottom), trace in zip(places, traces, strict=False):
        draw_map(top, trace, moment)
        draw_power(middle, trace, len(trace.stage) - 1)
        draw_cost(bottom, trace, len(trace.stage) - 1)
        bottom.set_ylim(0.0, dearest)
        top.set_title(
            f"{trace.agent}, {trace.total_usd:,.0f} USD; map at {trace.clock(moment)}", fontsize=9.5, color=INK
        )
    for ax in places[len(traces) :].ravel():
        ax.set_axis_off()
    if columns > 1:
        _key(figure)
    return figure


class Painter:
    """Draws moments of one world one after another; what stays from frame to frame is drawn once and kept as pixels."""

    def __init__(self, width_px: int = 1100, height_px: int = 720) -> None:
        dpi = max(min(width_px / 11.0, height_px / 7.2), 1.0)
        size = (width_px + 0.01) / dpi, (height_px + 0.01) / dpi
        self._figure = Figure(figsize=size, dpi=dpi, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)
        boxes = (
            (0.01, 0.07, 0.63, 0.85),
            (0.66, 0.665, 0.33, 0.235),
            (0.715, 0.37, 0.27, 0.22),
            (0.715, 0.075, 0.27, 0.22),
        )
        self._axes = [self._figure.add_axes(box) for box in boxes]
        self._world: Any = None  # pixels of what never changes
        self._ground: Any = None  # and of the axes beside the map
        self._scales: tuple[float, float] = (0.0, 0.0)

    def frame(self, trace: StormTrace, moment: int = -1) -> NDArray[np.uint8]:
        """(H, W, 3) picture of a moment, by default the last. All traces must be of the same world."""
        moment %= len(trace.stage)
        self._prepare(trace)
        self._canvas.restore_region(self._ground)
        plays: tuple[Callable[..., None], ...] = (play_map, _play_feeder, _play_power, _play_cost)
        for ax, play in zip(self._axes, plays, strict=True):
            self._draw(ax, play, trace, moment)
        self._draw(self._figure, _headline, trace, moment)
        return np.asarray(self._canvas.buffer_rgba())[:, :, :3].copy()

    def _draw(self, parent: Any, play: Callable[..., None], trace: StormTrace, moment: int) -> None:
        """Draw what ``play`` adds to axes or figure, and take it away again."""
        before, renderer = set(parent.get_children()), self._canvas.get_renderer()
        play(parent, trace, moment)
        new = [artist for artist in parent.get_children() if artist not in before]
        for artist in sorted(new, key=lambda a: a.get_zorder()):
            artist.draw(renderer)
            artist.remove()

    def _prepare(self, trace: StormTrace) -> None:
        """Draw what stays: the world at the first frame, the two charts' axes when their scales change."""
        first, scales = self._world is None, (_power_top(trace), _cost_top(trace))
        if not first and scales == self._scales:
            return
        the_map, feeder, power, cost = self._axes
        if first:
            ground_map(the_map, trace)
            _ground_feeder(feeder, trace)
            _key(self._figure)
        for ax in (power, cost):
            ax.set_visible(False)
        if first:
            self._canvas.draw()
            self._world = self._canvas.copy_from_bbox(self._figure.bbox)
        self._canvas.restore_region(self._world)
        for ax, ground in ((power, _ground_power), (cost, _ground_cost)):
            ax.set_visible(True)
            ground(ax, trace)
            ax.draw(self._canvas.get_renderer())
        self._ground, self._scales = self._canvas.copy_from_bbox(self._figure.bbox), scales


def save_gif(trace: StormTrace, path: Path | str, width_px: int = 880, frame_ms: int = 300) -> None:
    """Write an episode as an animated GIF, a frame a moment; the last stays for two seconds."""
    painter = Painter(width_px, round(width_px * 7.2 / 11))
    frames = [Image.fromarray(painter.frame(trace, k)) for k in range(len(trace.stage))]
    some = np.vstack([np.asarray(frames[k]) for k in np.linspace(0, len(frames) - 1, 8).astype(int)])
    palette = Image.fromarray(some).quantize()  # one for all: nothing flickers, and the file is small
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times_ms = [frame_ms] * len(others) + [2000]
    first.save(path, "GIF", save_all=True, append_images=others, duration=times_ms, loop=0)


def draw_feeder(ax: Axes, trace: StormTrace, moment: int) -> None:
    """The feeder: live and dead parts, broken lines, sites."""
    _ground_feeder(ax, trace)
    _play_feeder(ax, trace, moment)


def _ground_feeder(ax: Axes, trace: StormTrace) -> None:
    place = tree_layout(trace.line)
    ax.set_axis_off()
    ax.set_xlim(-0.8, place[:, 0].max() + 1.2)
    ax.set_ylim(place[:, 1].min() - 0.9, 0.9)
    above = {bus: k % 2 for k, bus in enumerate(sorted(trace.site_bus, key=lambda b: tuple(place[b][::-1])))}
    for d, bus in enumerate(trace.site_bus):
        if bus > 0:
            side = 1 if above[bus] else -1
            x, y = place[bus] + (0.0, 0.2 * side)
            ax.text(x, y, trace.site_name[d], fontsize=6.3, ha="center",
                    va="bottom" if side > 0 else "top", color=INK, zorder=5, path_effects=HALO)  # fmt: skip


def _play_feeder(ax: Axes, trace: StormTrace, moment: int) -> None:
    place, live, whole = tree_layout(trace.line), trace.bus_live[moment], trace.line_whole[moment]
    ends = place[trace.line]
    on = live[trace.line[:, 1]]
    lit = LineCollection(list(ends[on]), colors=SUPPLIED, linewidths=2.4, zorder=2)
    dark = LineCollection(list(ends[~on & whole]), colors="#B0B0B0", linewidths=2.0, zorder=1)
    broken = LineCollection(list(ends[~whole]), colors=CLOSED, linewidths=1.2, linestyles=(0, (2, 2)), zorder=1)
    for lines in (lit, dark, broken):
        ax.add_collection(lines, autolim=False)
    ax.plot(*ends[~whole].mean(1).T, ls="", marker="x", ms=4.5, mew=1.5, color=CLOSED, zorder=3)
    source = SUPPLIED if live[0] else CLOSED
    ax.plot(*place[0], ls="", marker="s", ms=9, color=source, mec=INK, zorder=4)
    buses = trace.site_bus[trace.site_bus > 0]
    for lit, colour in ((True, SUPPLIED), (False, "#B0B0B0")):
        ax.plot(*place[buses[live[buses] == lit]].T, ls="", marker="o", ms=6.5, color=colour, mec=INK, zorder=4)
    title = f"feeder: {int(live.sum())} of {len(live)} buses live" + ("" if live[0] else ", substation out")
    ax.text(0.0, 1.02, title, fontsize=8.5, color=INK, transform=ax.transAxes)


def draw_power(ax: Axes, trace: StormTrace, moment: int) -> None:
    """Critical need and what is served of it, kW."""
    _ground_power(ax, trace)
    _play_power(ax, trace, moment)


def _power_top(trace: StormTrace) -> float:
    return round_up(max(float(trace.need_kw[1:].sum(1).max(initial=0.0)), 100.0))


def _ground_power(ax: Axes, trace: StormTrace) -> None:
    _axes(ax, trace, _power_top(trace), "critical need, kW")


def _play_power(ax: Axes, trace: StormTrace, moment: int) -> None:
    edges = _edges_h(trace)
    need, served = trace.need_kw[1:].sum(1), trace.served_kw[1:].sum(1)
    played = trace.stage[1:] > 0
    need, served = need[played], served[played]
    shown = int((trace.stage[1 : moment + 1] > 0).sum())
    ax.stairs(need[:shown], edges[: shown + 1], fill=True, color=UNSERVED, alpha=0.85, lw=0)
    ax.stairs(served[:shown], edges[: shown + 1], fill=True, color=SERVED, lw=0)


def draw_cost(ax: Axes, trace: StormTrace, moment: int) -> None:
    """Cost so far, by term, thousand USD."""
    _ground_cost(ax, trace)
    _play_cost(ax, trace, moment)


def _cost_top(trace: StormTrace) -> float:
    return round_up(max(float(np.maximum(trace.cost_usd, 0.0).sum()) / 1e3, 1.0))


def _ground_cost(ax: Axes, trace: StormTrace) -> None:
    _axes(ax, trace, _cost_top(trace), "cost so far, kUSD", last=True)


def _play_cost(ax: Axes, trace: StormTrace, moment: int) -> None:
    edges = _edges_h(trace)
    first = int((trace.stage[1:] <= 0).sum())
    paid = np.cumsum(np.maximum(trace.cost_usd, 0.0), 0)[first:] / 1e3  # (K, terms), from period 0 on
    shown = max(moment + 1 - first, 1)
    below = np.zeros(shown)
    for k, term in enumerate(trace.term):
        above = below + paid[:shown, k]
        ax.fill_between(edges[:shown], below, above, color=TERM_COLORS[term], lw=0)
        below = above
    ax.plot(edges[:shown], below, color=INK, lw=1.2)


def round_up(x: float) -> float:
    """The next round number: a scale that stays while an episode goes on."""
    step = 10.0 ** np.floor(np.log10(x))
    return float(next(step * k for k in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0) if step * k >= x * (1 - 1e-9)))


def _edges_h(trace: StormTrace) -> FloatArray:
    return np.arange(trace.periods + 1.0) * trace.dt_h


def _axes(ax: Axes, trace: StormTrace, top: float, title: str, *, last: bool = False) -> None:
    end_h = trace.periods * trace.dt_h
    ticks = [float(h) for h in np.arange(-trace.start_h % 6.0, end_h + 1e-9, 6.0)]
    ax.set_xlim(0.0, end_h)
    ax.set_ylim(0.0, top)
    ax.set_xticks(ticks, [f"{int(trace.start_h + h) % 24:02d}" for h in ticks])
    ax.tick_params(labelsize=7, colors=INK, length=2.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(title, fontsize=8.5, loc="left", color=INK, pad=4)
    if last:
        ax.set_xlabel("clock hour", fontsize=7.5, labelpad=1)


def _headline(figure: Figure, trace: StormTrace, moment: int) -> None:
    when = "before the storm" if trace.stage[moment] < 0 else trace.clock(moment)
    name = f"{trace.agent}    " if trace.agent else ""
    figure.text(0.02, 0.962, f"{name}{when}", fontsize=13.5, fontweight="bold", color=INK, va="center")
    usd = float(trace.cost_usd[: moment + 1].sum())
    figure.text(0.36, 0.962, f"cost so far {usd:,.0f} USD", fontsize=12, color=INK, va="center")
    missing = float((trace.need_kw[moment] - trace.served_kw[moment]).sum())
    words, colour = (
        (f"{missing:,.0f} kW unserved", UNSERVED) if missing > 0.5 else ("all critical load served", SUPPLIED)
    )
    box = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "none"}
    figure.text(0.985, 0.962, words, fontsize=11, color="white", va="center", ha="right", fontweight="bold", bbox=box)


def _key(figure: Figure) -> None:
    """One line below the map."""
    roads = [
        Line2D([], [], color="#CFCFCF", lw=4, label="road open"),
        Line2D([], [], color=CLOSED, lw=1.8, ls=(0, (3, 2)), marker="x", ms=5, label="closed"),
        Line2D([], [], color=SOON, lw=1.8, ls=(0, (3, 2)), label=f"opens within {SOON_H:g} h"),
    ]
    states = ((SUPPLIED, "supplied"), (BACKUP, "on backup"), (SERVED, "served by units and PV"), (UNSERVED, "unserved"))
    sites = [Patch(facecolor=c, edgecolor=INK, lw=0.6, label=label) for c, label in states]
    unit = [Patch(facecolor=UNIT, edgecolor=INK, lw=0.8, label="unit, filled by its charge")]
    figure.legend(handles=roads + sites + unit, loc="lower left", bbox_to_anchor=(0.01, 0.004), ncol=8, frameon=False,
                  fontsize=7.4, handlelength=1.9, columnspacing=1.1, handletextpad=0.45, borderpad=0.1)  # fmt: skip
