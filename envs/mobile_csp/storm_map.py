"""The map of a moment of Mobile CSP: roads open, closed and soon open, sites by state, units with their charge."""

import heapq

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle, Wedge
from matplotlib.transforms import Affine2D

from qevgrid.envs.mobile_csp.trace import StormTrace
from qevgrid.envs.types import FloatArray, IntArray

# Okabe and Ito's palette, told apart by readers with any common colour blindness.
INK, GREY, PALE = "#222222", "#8A8A8A", "#E4E4E4"
SUPPLIED, BACKUP, SERVED, UNSERVED = "#009E73", "#F0E442", "#0072B2", "#D5300A"
CLOSED, SOON, UNIT, UNIT_LOW = "#D5300A", "#E69F00", "#56B4E9", "#CC79A7"
SOON_H = 2.0
HALO = [patheffects.withStroke(linewidth=2.6, foreground="white")]


def draw_map(ax: Axes, trace: StormTrace, moment: int) -> None:
    """Roads, sites and units."""
    ground_map(ax, trace)
    play_map(ax, trace, moment)


def ground_map(ax: Axes, trace: StormTrace) -> None:
    """What stays."""
    ax.set_xlim(-0.09, 1.09)
    ax.set_ylim(-0.085, 1.075)
    ax.set_axis_off()
    ends = list(trace.node_xy[trace.road])
    ax.add_collection(LineCollection(ends, colors=PALE, linewidths=5.0, capstyle="round", zorder=1), autolim=False)
    ax.plot(*trace.node_xy.T, ls="", marker="o", ms=3.5, color="#BDBDBD", zorder=1.4)


def play_map(ax: Axes, trace: StormTrace, moment: int) -> None:
    """What changes."""
    _roads(ax, trace, moment)
    for d in range(len(trace.site_name)):
        _site(ax, trace, moment, d)
    _units(ax, trace, moment)


def _roads(ax: Axes, trace: StormTrace, moment: int) -> None:
    ends, left_h = trace.node_xy[trace.road], trace.road_left_h[moment]
    closed, soon = left_h > 0, (left_h > 0) & (left_h <= SOON_H)
    for chosen, colour in ((closed & ~soon, CLOSED), (soon, SOON)):
        lines = LineCollection(list(ends[chosen]), colors="white", linewidths=3.4, zorder=1.5)
        ax.add_collection(lines, autolim=False)
        dashes = LineCollection(list(ends[chosen]), colors=colour, linewidths=1.8, linestyles=(0, (3, 2.2)), zorder=1.6)
        ax.add_collection(dashes, autolim=False)
    middle = ends[closed & ~soon].mean(1)
    ax.plot(*middle.T, ls="", marker="x", ms=6, mew=2.0, color=CLOSED, zorder=1.7)


def _aspect(ax: Axes) -> float:
    """Height over width of a map unit in pixels: ellipses that look round."""
    (x0, x1), (y0, y1), box = ax.get_xlim(), ax.get_ylim(), ax.get_window_extent()
    return (box.height / (y1 - y0)) / (box.width / (x1 - x0))


def _site(ax: Axes, trace: StormTrace, moment: int, d: int) -> None:
    """A disc by peak load, filled by state; the served share of a need as a wedge; a rim by value of lost load."""
    x, y = trace.node_xy[trace.site_node[d]]
    peak, need, served = trace.peak_kw[d], trace.need_kw[moment, d], trace.served_kw[moment, d]
    radius = 8.0 + 0.62 * np.sqrt(peak)  # points
    scale = ax.transData.inverted()
    pixel = ax.figure.dpi / 72.0
    origin, reach = ax.transData.transform((x, y)), radius * pixel
    rx = abs(scale.transform((origin[0] + reach, origin[1]))[0] - x)
    stretch = _aspect(ax)
    colour = SUPPLIED if trace.supplied[moment, d] else BACKUP if need <= 0 else UNSERVED
    rim = 0.8 + 2.8 * trace.voll_usd_kwh[d] / max(float(trace.voll_usd_kwh.max()), 1e-9)
    squeeze = _squeezed(ax, x, y, stretch)
    ax.add_artist(Circle((0, 0), rx, facecolor=colour, edgecolor="none", transform=squeeze, zorder=3))
    if need > 0 and served > 0:
        turn = 360.0 * min(served / need, 1.0)
        ax.add_artist(Wedge((0, 0), rx, 90.0 - turn, 90.0, facecolor=SERVED, lw=0, transform=squeeze, zorder=3.1))
    ax.add_artist(Circle((0, 0), rx, fill=False, edgecolor=INK, lw=rim, transform=squeeze, zorder=3.2))
    text = trace.site_name[d]
    text += f"\n{served:.0f} of {need:.0f} kW" if need > 0 else ""
    below = y - rx / stretch - 0.010
    others = trace.node_xy[np.delete(trace.site_node, d)]
    crowded = ((abs(others[:, 0] - x) < 0.1) & (others[:, 1] < y) & (others[:, 1] > y - 0.19)).any()
    place = (x + rx + 0.012, y, "left", "center") if crowded else (x, below, "center", "top")
    ax.text(*place[:2], text, ha=place[2], va=place[3], fontsize=7.8, color=INK, linespacing=1.05, zorder=6,
            path_effects=HALO, fontweight="bold" if need > served + 1e-6 else "normal")  # fmt: skip


def _squeezed(ax: Axes, x: float, y: float, stretch: float) -> object:
    return Affine2D().scale(1.0, 1.0 / stretch).translate(x, y) + ax.transData


def _units(ax: Axes, trace: StormTrace, moment: int) -> None:
    """Batteries with their charge: beside their site, or on their way."""
    stretch, width, height = _aspect(ax), 0.058, 0.030
    parked: dict[int, int] = {}
    for i in range(trace.unit_site.shape[1]):
        d, done = int(trace.unit_site[moment, i]), float(trace.unit_done[moment, i])
        if done >= 1.0:
            k = parked[d] = parked.get(d, -1) + 1
            x, y = trace.node_xy[trace.site_node[d]]
            offset = 0.021 + 0.0014 * np.sqrt(trace.peak_kw[d])
            x, y = x + (k - 0.0) * (width + 0.008) - 0.02, y + offset / stretch + 0.022
        else:
            path = way(trace, moment, i)
            ax.plot(*path.T, color=UNIT, lw=2.2, alpha=0.9, zorder=2.2, solid_capstyle="round")
            x, y = along(path, done)
        _battery(ax, trace, moment, i, x, y, width, height / stretch * 0.9)


def _battery(ax: Axes, trace: StormTrace, moment: int, i: int, x: float, y: float, w: float, h: float) -> None:
    soc, power = trace.unit_kwh[moment, i] / trace.capacity_kwh, trace.unit_kw[moment, i]
    left, low = x - w / 2, y - h / 2
    box = FancyBboxPatch((left, low), w, h, boxstyle="round,pad=0.003", fc="white", ec=INK, lw=1.2, zorder=7)
    ax.add_artist(box)
    colour = UNIT if soc > 0.25 else UNIT_LOW
    ax.add_artist(Rectangle((left, low), w * soc, h, fc=colour, ec="none", zorder=7.1))
    arrow = "" if abs(power) < 1e-6 else " −" if power > 0 else " +"
    ax.text(
        x, y - 0.001, f"{i + 1}{arrow}", fontsize=7.5, ha="center", va="center", color=INK, fontweight="bold", zorder=8
    )


def way(trace: StormTrace, moment: int, i: int) -> FloatArray:
    """Polyline (K, 2) of a unit's trip: the shortest way on the map over roads open now, else a straight line."""
    origin, goal = (int(trace.site_node[int(x[moment, i])]) for x in (trace.unit_origin, trace.unit_site))
    length = np.linalg.norm(np.diff(trace.node_xy[trace.road], axis=1)[:, 0], axis=1)
    found = _shortest(trace.road[trace.road_left_h[moment] <= 0], length[trace.road_left_h[moment] <= 0], origin, goal)
    return trace.node_xy[found if found else [origin, goal]]


def _shortest(road: IntArray, length: FloatArray, origin: int, goal: int) -> list[int]:
    beside: dict[int, list[tuple[int, float]]] = {}
    for (a, b), metres in zip(road.tolist(), length.tolist(), strict=True):
        beside.setdefault(a, []).append((b, metres))
        beside.setdefault(b, []).append((a, metres))
    queue, seen = [(0.0, origin, [origin])], set()
    while queue:
        gone, node, path = heapq.heappop(queue)
        if node == goal:
            return path
        if node not in seen:
            seen.add(node)
            for other, metres in beside.get(node, []):
                heapq.heappush(queue, (gone + metres, other, [*path, other]))
    return []


def along(path: FloatArray, share: float) -> tuple[float, float]:
    """The point after this share of a polyline's length."""
    gone = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    at = share * gone[-1]
    return float(np.interp(at, gone, path[:, 0])), float(np.interp(at, gone, path[:, 1]))
