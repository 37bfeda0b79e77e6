"""Pictures of V2G episodes, drawn from saved traces.

`day_figure` sets agents side by side on the same day; `render_frame` is one picture of a video,
the story so far. Both draw on `matplotlib.figure.Figure` and never touch pyplot or rcParams.
Import this module lazily: Matplotlib takes a few tenths of a second.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType
from numpy.typing import NDArray

from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.trace import DayTrace

# Okabe and Ito's palette, told apart by readers with any common colour blindness.
INK, GREY, OUTAGE_SHADE, RISK_SHADE = "#222222", "#7A7A7A", "#D9D9D9", "#F6CFA8"
CHARGE, DISCHARGE, PV, GENERATOR = "#0072B2", "#E69F00", "#B8A500", "#CC79A7"
CRITICAL, OTHER, UNSERVED, SOC = "#009E73", "#9AD9C4", "#D5300A", "#0072B2"

Limits = tuple[float, float]
ROWS = ("price\nUSD/kWh", "power\nkW", "SoC\n%", "load\nkW", "cost so far\nUSD")
_HEIGHTS = (0.8, 1.7, 1.0, 1.3, 1.0)
_FONT_PT = 8.0
_MOST_COLUMNS = 5
_MOST_LINES = 60  # vehicles drawn one by one


def draw_day(axes: Sequence[Axes], trace: DayTrace, limits: Sequence[Limits] | None = None) -> None:
    """Draw one trace on five axes, top to bottom: price, power, SoC, load, cost.

    The x axis spans the whole episode, also where the trace ends earlier. `limits` holds the
    (low, high) of the y axis of each of the five; by default they fit this trace.
    """
    if len(axes) != len(ROWS):
        raise ValueError(f"a day needs {len(ROWS)} axes, not {len(axes)}")
    limits = row_limits([trace]) if limits is None else limits
    for row, (ax, panel, limit) in enumerate(zip(axes, _PANELS, limits, strict=True)):
        _frame_axes(ax, trace, limit, last=row == len(ROWS) - 1)
        for start_h, end_h in trace.outages_h():
            label = "_" if row else "outage"
            ax.axvspan(start_h, end_h, color=OUTAGE_SHADE, lw=0, zorder=0, label=label)
        if trace.played:
            panel(ax, trace)


def day_figure(traces: Sequence[DayTrace]) -> Figure:
    """Agents side by side, one column each in blocks of at most five, y axes shared in a row."""
    if not traces:
        raise ValueError("there is no trace to draw")
    blocks = math.ceil(len(traces) / _MOST_COLUMNS)
    columns = math.ceil(len(traces) / blocks)
    width_in, height_in = 2.9 * columns + 2.1, 7.0 * blocks
    figure = Figure(figsize=(width_in, height_in), dpi=100)
    FigureCanvasAgg(figure)
    limits = row_limits(traces)
    for block in range(blocks):
        chosen = traces[block * columns : (block + 1) * columns]
        top = 1.0 - (7.0 * block + 0.5) / height_in
        bottom = 1.0 - (7.0 * (block + 1) - 0.4) / height_in
        sides = (0.75 / width_in, 1.0 - 1.5 / width_in, bottom, top)
        _draw_block(figure, chosen, columns, limits, sides)
    return figure


def render_frame(trace: DayTrace, width_px: int = 960, height_px: int = 640) -> NDArray[np.uint8]:
    """(H, W, 3) picture of the episode so far; frames of one episode line up in a video."""
    dpi = max(min(width_px / 9.6, height_px / 6.4), 1.0)
    size_in = ((width_px + 0.01) / dpi, (height_px + 0.01) / dpi)
    figure = Figure(figsize=size_in, dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(ROWS), 1, left=0.085, right=0.845, bottom=0.055, top=0.91, hspace=0.16,
        height_ratios=_HEIGHTS,
    )  # fmt: skip
    axes = [figure.add_subplot(grid[row, 0]) for row in range(len(ROWS))]
    draw_day(axes, trace)
    for ax, label in zip(axes, ROWS, strict=True):
        _row_label(ax, label, -0.052)
        ax.axvline(trace.played * trace.dt_h, color=INK, lw=0.8)
        _key(ax, [ax])
    _headline(figure, trace)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def row_limits(traces: Sequence[DayTrace]) -> list[Limits]:
    """(low, high) of the y axis of each row, round numbers that hold every trace."""
    price, power, load, cost = [0.0, 0.2], [0.0, 20.0], [0.0, 20.0], [0.0, 10.0]
    for trace in traces:
        price += [*trace.price_usd_kwh]
        power += [*trace.charge_kw, *-trace.discharge_kw, *trace.import_kw, *trace.pv_kw]
        power += [trace.import_limit_kw] if math.isfinite(trace.import_limit_kw) else []
        load += [*(trace.load_critical_kw + trace.load_other_kw), *trace.generator_kw]
        cost += [*np.cumsum(trace.cost_usd)]
    return [_round_limits(price), _round_limits(power), (0.0, 100.0),
            _round_limits(load), _round_limits(cost)]  # fmt: skip


def _draw_block(
    figure: Figure,
    traces: Sequence[DayTrace],
    columns: int,
    limits: Sequence[Limits],
    sides: tuple[float, float, float, float],
) -> None:
    left, right, bottom, top = sides
    grid = figure.add_gridspec(
        len(ROWS), columns, left=left, right=right, bottom=bottom, top=top, wspace=0.07,
        hspace=0.13, height_ratios=_HEIGHTS,
    )  # fmt: skip
    axes = [[figure.add_subplot(grid[r, c]) for c in range(len(traces))] for r in range(len(ROWS))]
    for column, trace in enumerate(traces):
        draw_day([row[column] for row in axes], trace, limits)
        title = f"{trace.agent}\n{_usd(trace.total_usd)}"
        axes[0][column].set_title(title, fontsize=_FONT_PT + 1.5, fontweight="bold", color=INK)
    for row, label in zip(axes, ROWS, strict=True):
        _row_label(row[0], label, -0.17)
        _key(row[-1], row)
        for ax in row[1:]:
            ax.tick_params(labelleft=False)


def _price_panel(ax: Axes, trace: DayTrace) -> None:
    ax.stairs(
        trace.risk, trace.edges(), fill=True, color=RISK_SHADE, alpha=0.8, lw=0, zorder=1,
        transform=ax.get_xaxis_transform(), label="outage risk, 0-1",
    )  # fmt: skip
    _step_line(ax, trace, trace.price_usd_kwh, color=INK, lw=1.3, label="price")


def _power_panel(ax: Axes, trace: DayTrace) -> None:
    _area(ax, trace, trace.charge_kw, 0.0, CHARGE, "charge")
    _area(ax, trace, -trace.discharge_kw, 0.0, DISCHARGE, "discharge")
    if trace.pv_kw.any():
        _step_line(ax, trace, trace.pv_kw, color=PV, lw=1.2, label="PV")
    _step_line(ax, trace, trace.import_kw, color=INK, lw=1.0, label="meter import")
    if math.isfinite(trace.import_limit_kw):
        ax.axhline(trace.import_limit_kw, color=GREY, lw=1.0, ls="--", label="import limit")
    ax.axhline(0.0, color=GREY, lw=0.6)


def _soc_panel(ax: Axes, trace: DayTrace) -> None:
    soc_percent = 100.0 * trace.soc
    ends_h = trace.edges()[1:]
    low, median, high = 100.0 * trace.soc_quantiles()
    ax.fill_between(ends_h, low, high, color=SOC, alpha=0.25, lw=0, label="10-90 %")
    step = max(1, math.ceil(soc_percent.shape[1] / _MOST_LINES))
    lines = soc_percent[:, ::step]
    gap = np.full((1, lines.shape[1]), np.nan)
    y_percent = np.vstack([lines, gap]).T.ravel()
    x_h = np.tile(np.append(ends_h, np.nan), lines.shape[1])
    ax.plot(x_h, y_percent, color=SOC, lw=0.4, alpha=0.35, label="each vehicle")
    ax.plot(ends_h, median, color=INK, lw=1.4, label="median")


def _load_panel(ax: Axes, trace: DayTrace) -> None:
    critical_kw = trace.served_critical_kw
    served_kw = critical_kw + trace.served_other_kw
    unserved_kw = trace.unserved_kw()
    _area(ax, trace, critical_kw, 0.0, CRITICAL, "critical served")
    _area(ax, trace, served_kw, critical_kw, OTHER, "other served")
    if unserved_kw.any():
        ax.stairs(
            served_kw + unserved_kw, trace.edges(), baseline=served_kw, fill=True, lw=0,
            facecolor="#FBD9CF", edgecolor=UNSERVED, hatch="//////", label="unserved",
        )  # fmt: skip
    if trace.generator_kw.any():
        running_kw = np.where(trace.generator_kw > 0.0, trace.generator_kw, np.nan)
        _step_line(ax, trace, running_kw, color=GENERATOR, lw=1.6, label="generator")


def _cost_panel(ax: Axes, trace: DayTrace) -> None:
    cost_usd = np.append(0.0, np.cumsum(trace.cost_usd))
    ax.fill_between(trace.edges(), cost_usd, color=INK, alpha=0.10, lw=0)
    ax.plot(trace.edges(), cost_usd, color=INK, lw=1.5, label="cost so far")
    ax.axhline(0.0, color=GREY, lw=0.6)


_PANELS: tuple[Callable[[Axes, DayTrace], None], ...] = (
    _price_panel,
    _power_panel,
    _soc_panel,
    _load_panel,
    _cost_panel,
)


def _area(ax: Axes, trace: DayTrace, y: FloatArray, base: FloatArray | float, color: str, label: str) -> None:
    ax.stairs(y, trace.edges(), baseline=base, fill=True, color=color, lw=0, label=label)


def _step_line(ax: Axes, trace: DayTrace, y: FloatArray, *, color: str, lw: float, label: str) -> None:
    ax.stairs(y, trace.edges(), baseline=None, color=color, lw=lw, label=label)


def _frame_axes(ax: Axes, trace: DayTrace, limit: Limits, *, last: bool) -> None:
    ticks_h = _ticks_h(trace)
    ax.set_xlim(0.0, trace.horizon_h)
    ax.set_ylim(*limit)
    top_to_bottom = ax.get_xaxis_transform()
    ax.vlines(ticks_h, 0.0, 1.0, color="#E8E8E8", lw=0.6, zorder=0.5, transform=top_to_bottom)
    ax.set_xticks(ticks_h if last else [], [trace.clock(hour) for hour in ticks_h if last])
    if last:  # the outermost labels stay inside, clear of the next column's
        ax.get_xticklabels()[0].set_horizontalalignment("left")
        ax.get_xticklabels()[-1].set_horizontalalignment("right")
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10)))
    ax.tick_params(labelsize=_FONT_PT - 0.5, colors=INK, length=2.5)
    ax.spines[["top", "right"]].set_visible(False)


def _row_label(ax: Axes, label: str, x: float) -> None:
    """At a fixed place (in widths of the axes): to let Matplotlib find it costs 10 ms a row."""
    ax.set_ylabel(label, fontsize=_FONT_PT)
    ax.yaxis.set_label_coords(x, 0.5)
    ax.xaxis.set_label_coords(0.5, 0.0)


def _ticks_h(trace: DayTrace) -> list[float]:
    """Hours since the start of the round clock hours: every 3, 6 or 12 of them."""
    step_h = next((s for s in (1.0, 3.0, 6.0) if trace.horizon_h <= 5.0 * s), 12.0)
    first_h = -trace.start_h % step_h
    return [float(hour) for hour in np.arange(first_h, trace.horizon_h + 1e-9, step_h)]


def _round_limits(values: Sequence[float]) -> Limits:
    """Low and high around the values, each a multiple of a round step (1, 2, 5 times 10^k)."""
    low, high = float(min(values)), float(max(values))
    rough = (high - low) / 5.0
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * m for m in (1.0, 2.0, 5.0, 10.0) if magnitude * m >= rough * 0.999)
    return math.floor(low / step) * step, math.ceil(high / step + 0.1) * step


def _key(place: Axes, sources: Sequence[Axes]) -> None:
    """Right of `place`, one line a label in the sources, a third of the time of a Legend."""
    entries = {label: handle for ax in sources for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    point = place.figure.dpi / 72.0
    x, y = point / place.bbox.width, point / place.bbox.height
    shared = {"transform": place.transAxes, "va": "center"}
    for row, (label, handle) in enumerate(entries.items()):
        height = 1.0 - (3.0 + 11.0 * row) * y
        glyph, color = _swatch(handle)
        place.text(1.0 + 6.0 * x, height, glyph, fontsize=11, color=color, **shared)
        place.text(1.0 + 19.0 * x, height, label, fontsize=_FONT_PT - 0.5, color=INK, **shared)


def _swatch(handle: Artist) -> tuple[str, ColorType]:
    """The character and the colour that stand for an artist in a key."""
    if isinstance(handle, Line2D):
        glyph = "╍" if handle.get_linestyle() == "--" else "━"
        return glyph, to_rgba(handle.get_color(), handle.get_alpha())
    if isinstance(handle, Patch) and handle.get_fill():
        return ("▨", UNSERVED) if handle.get_hatch() else ("■", handle.get_facecolor())
    if isinstance(handle, Patch):
        return "━", handle.get_edgecolor()
    return "■", to_rgba(SOC, handle.get_alpha())


def _headline(figure: Figure, trace: DayTrace) -> None:
    now, shed_kw = trace.played - 1, trace.unserved_kw()
    text = f"{trace.agent}    {trace.clock(trace.played * trace.dt_h)}"
    figure.text(0.085, 0.957, text, fontsize=13, fontweight="bold", color=INK, va="center")
    money = f"cost so far {_usd(trace.total_usd)}"
    figure.text(0.48, 0.957, money, fontsize=12, color=INK, va="center")
    status, color = "grid up", CRITICAL
    if trace.played and trace.outage[now]:
        status, color = "OUTAGE", UNSERVED
        status += f"  {shed_kw[now]:.0f} kW unserved" if shed_kw[now] else "  all load served"
    elif trace.played and trace.risk[now] > 0.0:
        status += f"  outage risk {trace.risk[now]:.0%}"
        color = "#A65E00" if trace.risk[now] >= 0.1 else CRITICAL
    box = {"boxstyle": "round,pad=0.4", "facecolor": color, "edgecolor": "none"}
    figure.text(0.985, 0.957, status, fontsize=11, color="white", va="center", ha="right",
                fontweight="bold", bbox=box)  # fmt: skip


def _usd(amount_usd: float) -> str:
    """Money with its unit: cents only below 100 USD."""
    digits = 2 if abs(amount_usd) < 100.0 else 0
    return f"{amount_usd:,.{digits}f} USD"
