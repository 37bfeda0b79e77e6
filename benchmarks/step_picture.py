"""The picture of an action step: what the hybrid agent prices, samples and does, from its own objects.

    python benchmarks/step_picture.py                               the shipped model
    python benchmarks/step_picture.py --model runs/x/model.zip      another one

The agent plays held-out days of the default world, from ``--seed`` on, until one has both scenes: an outage
announced while half of the sockets are taken (drawn where insuring against it changes the fleet's power most),
and an outage so long that the agent leaves a block of load dark (the first such stage). All that is drawn comes from
the agent's own code (critic, decision, dual bound, samplers) and the environment's outcome; more reads are taken
than it takes, and the worth is also shown beyond the reach of one step.
"""

import argparse
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from neal import SimulatedAnnealingSampler

from qevgrid.agents.hybrid import decision, encoding, value
from qevgrid.agents.hybrid.agent import HybridAgent
from qevgrid.agents.hybrid.anneal import anneal
from qevgrid.agents.hybrid.controller import DUAL_STEPS
from qevgrid.agents.hybrid.corrections import Corrections, correction_state
from qevgrid.agents.hybrid.decision import Decision
from qevgrid.agents.hybrid.dual import Dual, dual_ascent
from qevgrid.agents.hybrid.model import SHIPPED, Model
from qevgrid.agents.hybrid.polish import best_response
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.arrays import Outcome
from qevgrid.envs.v2g.core import V2GCore, View
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.problem import TERM_COLORS
from qevgrid.runner.plots import GREY, INK, LINE_COLORS, save_figure

DAYS = 200
"""Days that are looked at before giving up."""
RISK = 0.5
"""Published probability from which on an outage counts as announced."""
FEWEST = 10
"""Vehicles in the outage's scene."""
READS, SWEEPS = 20, 200
"""Of the samplers in the picture; the agent itself takes fewer."""
FLOOR_USD = 1e-3
"""Reads nearer to the bound than this are drawn here."""
BLUE, RED, GREEN, PINK, ORANGE, SKY = LINE_COLORS[:6]
CALM, INSURED, DARK = BLUE, RED, INK
CHARGE, DISCHARGE = BLUE, GREEN
BAND = "#EFEFEF"
SMALL = 10.5


@dataclass(frozen=True)
class Moment:
    """A stage that was played: what was known, what came of it."""

    agent: HybridAgent
    view: View
    outcome: Outcome

    @cached_property
    def forecast(self) -> Any:
        """As the agent sees it."""
        return self.agent.controller.forecast(self.view)

    @cached_property
    def fix(self) -> Corrections:
        """The corrections at work."""
        base, actor = self.agent.model.base, self.agent.model.actor
        return base if actor is None else base.moved(actor(correction_state(self.view))[0])

    @cached_property
    def decision(self) -> Decision:
        """The agent's problem."""
        return self.agent.controller.decision(self.view, self.forecast, 0, self.fix)

    @cached_property
    def choice(self) -> IntArray:
        """The agent's answer."""
        return self.agent.controller.solve(self.decision.problem, int(self.view.stage[0]))[0]

    @cached_property
    def worth(self) -> value.FleetValue:
        """The critic at work."""
        found = self.agent.controller.worth(self.view, self.forecast, 0, self.fix)
        assert found is not None
        return found

    @cached_property
    def dual(self) -> Dual:
        """Shadow prices and bound."""
        return dual_ascent(self.decision.problem, steps=DUAL_STEPS)

    @property
    def dark(self) -> bool:
        """Whether supply is out."""
        return bool(self.view.outage[0, 0])

    @property
    def clock(self) -> str:
        """Time of day."""
        hour = float(self.agent.core.sampler.clock_h[self.view.stage[0]])
        return f"{int(hour):02d}:{round(60 * (hour % 1)):02d}"

    @property
    def vehicles(self) -> int:
        """Number of vehicles present."""
        return int(self.view.plugged[0].sum())

    @property
    def fleet_kw(self) -> float:
        """Net power that the agent chose for the fleet; negative: it discharges."""
        return float(decision.powers(self.decision, self.choice).sum())

    @cached_property
    def without_premium_kw(self) -> float:
        """The same if the agent insured nothing."""
        controller = self.agent.controller
        found = controller.decision(self.view, self.forecast, 0, replace(self.fix, premium=0.0))
        choice = controller.solve(found.problem, int(self.view.stage[0]))[0]
        return float(decision.powers(found, choice).sum())


def play(agent: HybridAgent, seed: int) -> list[Moment]:
    """All stages of a day."""
    batch = agent.core.batch(1)
    batch.start(np.arange(1), [np.random.default_rng(seed)])
    agent.begin({"view": batch.view()})
    moments = []
    while not batch.over.all():
        view = batch.view()
        batch.step(agent.act(None, {"view": view}))
        moments.append(Moment(agent, view, Outcome._make(x.copy() for x in batch.outcome)))
    return moments


def announced(moments: list[Moment]) -> Moment | None:
    """Where insurance matters most: before the outage, with it announced and half of the sockets taken."""
    found = []
    for m in moments:
        if m.dark:
            break
        if m.view.risk[0] >= RISK and 2 * m.vehicles >= m.agent.core.n_sockets:
            found.append(m)
    return max(found, key=lambda m: abs(m.fleet_kw - m.without_premium_kw), default=None)


def rationed(moments: list[Moment]) -> Moment | None:
    """The first dark stage in which the agent leaves blocks dark and the site can serve what it chose."""
    for m in moments:
        if m.dark and m.vehicles >= FEWEST:
            chosen = float(decision.served_kw(m.decision, m.choice).sum())
            done = float(m.outcome.served_critical_kw.sum() + m.outcome.served_other_kw.sum())
            if chosen < float(np.concatenate(m.decision.blocks).sum()) - 1.0 and abs(chosen - done) < 1.0:
                return m
    return None


def find_scenes(agent: HybridAgent, first: int) -> tuple[int, Moment, Moment]:
    """The first day that has both scenes."""
    for seed in range(first, first + DAYS):
        if not agent.core.sampler.sample([np.random.default_rng(seed)]).outage.any():
            continue
        moments = play(agent, seed)
        before, within = announced(moments), rationed(moments)
        if before is not None and within is not None:
            return seed, before, within
    raise SystemExit(f"no day from {first} to {first + DAYS - 1} has both scenes: try another --seed")


def picture(seed: int, before: Moment, within: Moment) -> Figure:
    """The four parts of a step."""
    figure = Figure(figsize=(16.0, 7.4), dpi=100)
    FigureCanvasAgg(figure)
    risk = f"{100 * before.view.risk[0]:.0f} %"
    net = before.without_premium_kw
    charges = f"the fleet {'charges' if before.fleet_kw > 0 else 'holds its energy'}"
    would = f"{'discharge' if net < 0 else 'take'} {abs(net):.0f} kW"
    figure.text(
        0.012, 0.955, "Every 15 minutes the hybrid agent prices stored energy, models the step, samples it and acts. "
        f"Day {seed}: at {before.clock} an outage is\nannounced with {risk} ({charges}; without the "
        f"insurance premium it would {would}); at {within.clock} supply has been out for {within.view.dark_h[0, 0]:.0f} h.",
        fontsize=12.5, color=INK, va="center", linespacing=1.35,
    )  # fmt: skip
    grid = {"left": 0.045, "right": 0.985, "bottom": 0.085, "top": 0.835}
    outer = figure.add_gridspec(1, 3, width_ratios=(1.0, 0.98, 1.12), wspace=0.25, **grid)
    draw_worth(figure.add_subplot(outer[0]), before, within)
    middle = outer[1].subgridspec(2, 1, height_ratios=(1.25, 1.0), hspace=0.42)
    draw_matrix(figure.add_subplot(middle[0]), before)
    draw_reads(figure.add_subplot(middle[1]), before)
    right = outer[2].subgridspec(2, 1, hspace=0.42)
    for cell, moment, title in (
        (right[0], before, f"4  Act: {before.clock}, connected, outage announced"),
        (right[1], within, f"{within.clock}, in the outage"),
    ):
        rows = cell.subgridspec(2, 1, height_ratios=(1.25, 1.0), hspace=0.16)
        draw_powers(figure.add_subplot(rows[0]), moment, title)
        draw_site(figure.add_subplot(rows[1]), moment)
    return figure


def draw_worth(ax: Axes, before: Moment, within: Moment) -> None:
    """Worth of a kWh against the energy in the fleet."""
    _title(ax, "1  Price: what is one more stored kWh worth?")
    sell, buy = trade_usd_kwh(before)
    ax.axhspan(sell, buy, color=BAND, lw=0)
    style: dict[str, Any] = {"fontsize": SMALL, "color": GREY}
    ax.text(25, buy * 1.03, "above: charge", va="bottom", **style)
    ax.text(25, (buy * sell) ** 0.5, f"price at {before.clock}", va="center", **style)
    ax.text(25, sell / 1.03, "below: sell", va="top", **style)
    for moment, color, calm in ((before, CALM, True), (before, INSURED, False), (within, DARK, False)):
        energy, worth = far(moment, calm=calm)
        ax.plot(energy, worth, color=color, lw=1.6)
        energy, worth = near(moment, calm=calm)
        ax.plot(energy, worth, color=color, lw=5.0, solid_capstyle="butt")
        ax.plot(
            energy[len(energy) // 2], worth[len(worth) // 2], "o", color=color, ms=10, mec="white", mew=1.4, zorder=5
        )
    style = {"fontsize": 11.5, "weight": "bold"}
    high = float(np.interp(430, *far(before, calm=False)))
    ax.text(450, 1.08 * high, f"{before.clock}, with the premium\nof the announced outage", color=INSURED, **style)
    ax.text(
        300, 2.0 * high, f"{within.clock}, no supply: a kWh saves\ncritical load, then other load", color=DARK, **style
    )
    ax.text(25, 0.34, f"{before.clock}, if the\nlights stay on:\nlearned critic", color=CALM, va="top", **style)
    style = {"transform": ax.transAxes, "fontsize": SMALL, "color": GREY}
    ax.text(0.98, 0.985, "dot: the fleet now\nthick: within reach of one step", ha="right", va="top", **style)
    ax.set_yscale("log")
    ax.set_xlim(0, 1400)
    ax.set_ylim(0.1, 22)
    ax.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20"])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("USD per kWh in the battery", fontsize=11)
    ax.set_xlabel("usable energy in all vehicles, kWh", fontsize=11)
    ax.grid(color="#E8E8E8", lw=0.6)
    _plain(ax)


def trade_usd_kwh(moment: Moment) -> tuple[float, float]:
    """What a kWh out of the battery earns at the meter, and what one into it costs, wear included."""
    p, now = moment.view.plant.params, moment.view.forecast(1)
    wear = p.cost.wear_usd_kwh
    out = (float(now.sell_usd_kwh[0, 0]) - wear) * p.charger.eta_discharge
    return out, (float(now.buy_usd_kwh[0, 0]) + wear) / p.charger.eta_charge


def near(moment: Moment, *, calm: bool) -> tuple[FloatArray, FloatArray]:
    """The curve as the step sees it: fleet energy and worth."""
    worth = moment.worth
    shift, marginal = worth.marginal(0)
    return worth.idle[worth.stages, 0] + shift, worth.calm(shift) if calm else marginal


def far(moment: Moment, *, calm: bool) -> tuple[FloatArray, FloatArray]:
    """The same functions far beyond what one step can move."""
    now, reach = float(moment.worth.idle[moment.worth.stages, 0]), moment.worth.reach_kwh
    knots = np.arange(-np.ceil(3 * now / reach), np.ceil(3 * (1500 - now) / reach)) / 3
    with mock.patch.object(value, "KNOTS", knots):
        energy, worth = near(moment, calm=calm)
    return energy[energy >= 0], worth[energy >= 0]


def draw_matrix(ax: Axes, moment: Moment) -> None:
    """Couplings of the binary model, bits by power."""
    bqm = binary_model(moment)
    size = encoding.describe(bqm)
    power = power_of_bits(moment)
    order = np.argsort(power, kind="stable")
    n = bqm.num_variables
    _, (row, column, coupling), _ = bqm.to_numpy_vectors(list(range(n)))
    matrix = np.zeros((n, n))
    matrix[row, column] = matrix[column, row] = coupling
    most = np.abs(matrix).max()
    norm = SymLogNorm(linthresh=most / 30, vmin=-most, vmax=most)
    ax.imshow(matrix[np.ix_(order, order)], cmap="RdBu_r", norm=norm, interpolation="nearest")
    split = int((power < 0).sum()) - 0.5
    ax.axhline(split, color=INK, lw=0.8)
    ax.axvline(split, color=INK, lw=0.8)
    ends = [split / 2, (split + n) / 2]
    ax.set_xticks(ends, ["discharge", "charge"], fontsize=SMALL)
    ax.set_yticks(ends, ["discharge", "charge"], fontsize=SMALL, rotation=90, va="center")
    ax.tick_params(length=0)
    ax.set_anchor("W")
    _title(ax, f"2  Model: the {moment.clock} step as a QUBO")
    text = (
        f"{n} bits: for each of\n{moment.vehicles} vehicles charge\nor discharge, half\nor full power\n\n"
        f"{size.couplers:,} couplers:\nall share the meter\nand the fleet's energy"
    )
    style: dict[str, Any] = {"transform": ax.transAxes, "va": "top", "fontsize": 11}
    ax.text(1.06, 1.01, text, color=INK, **style)
    ax.text(1.06, 0.33, "■ get in each\n    other's way", color="#B2182B", **style)
    ax.text(1.06, 0.15, "■ make up for\n    each other", color="#2166AC", **style)


def binary_model(moment: Moment) -> Any:
    """The augmented Lagrangian that annealers are given."""
    problem = moment.decision.problem
    return encoding.to_bqm(problem, encoding.centre(problem, moment.dual, moment.agent.config.rho))


def power_of_bits(moment: Moment) -> FloatArray:
    """kW of the option behind each bit."""
    problem, table = moment.decision.problem, moment.decision.power_kw
    unit = problem.unit[problem.bit]
    return table[unit, problem.bit - problem.first[unit]]


def draw_reads(ax: Axes, moment: Moment) -> None:
    """How far reads are above the dual bound, before and after the polish."""
    problem, bound = moment.decision.problem, moment.dual.bound_usd
    seed = int(moment.view.stage[0])
    bqm = binary_model(moment)
    found = SimulatedAnnealingSampler().sample(bqm, num_reads=READS, num_sweeps=SWEEPS, seed=seed)
    bits = found.record.sample[:, [found.variables.index(v) for v in bqm.variables]] > 0
    reads, valid = encoding.decode(problem, bits)
    chance = np.random.default_rng(seed).integers(0, np.diff(problem.first), (READS, problem.n_units))
    config = moment.agent.config
    own, _ = anneal(problem, reads=READS, sweeps=config.sweeps, seed=seed, start=moment.dual.choice)
    rows: list[tuple[str, IntArray, str]] = [
        ("chance", chance, GREY),
        ("the QUBO,\nannealed", reads, ORANGE),
        ("the same,\npolished", polished(problem, reads), PINK),
        ("exact form,\nannealed", own, GREEN),
    ]
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, READS)
    for place, (_, choices, color) in enumerate(rows):
        above = np.maximum(problem.energy_usd(choices) - bound, FLOOR_USD)
        ax.plot(above, place + jitter, "o", color=color, ms=7, alpha=0.65, mec="white", mew=0.6)
    agent = max(float(problem.energy_usd(moment.choice)) - bound, FLOOR_USD)
    ax.axvline(agent, color=INK, lw=1.2, ls="--", zorder=0)
    ax.annotate("the agent's choice", (agent, -0.55), (5, -1), textcoords="offset points", fontsize=SMALL, va="center")
    ax.set_xscale("log")
    ax.set_xlim(FLOOR_USD, 40)
    ticks = [0.001, 0.01, 0.1, 1, 10]
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=11)
    ax.set_ylim(len(rows) - 0.5, -0.9)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#E8E8E8", lw=0.6)
    ax.set_xlabel("USD above the proven least cost of the step", fontsize=11)
    _title(ax, f"3  Sample: {READS} reads, {100 * valid.mean():.0f} % valid")
    _plain(ax)


def polished(problem: Any, choices: IntArray) -> IntArray:
    """Best responses from each."""
    return np.stack([best_response(problem, choice) for choice in choices])


def draw_powers(ax: Axes, moment: Moment, title: str) -> None:
    """What each vehicle does, and what it could."""
    socket, table = moment.decision.socket, moment.decision.power_kw
    power = (moment.outcome.charge_kw - moment.outcome.discharge_kw)[0, socket]
    order = np.lexsort((table.min(1), power))
    place, least = np.arange(len(order)), table.min(1)[order]
    ax.bar(place, table.max(1)[order] - least, 0.78, least, color=BAND, zorder=1)
    ax.bar(place, power[order], 0.78, color=[CHARGE if p > 0 else DISCHARGE for p in power[order]], zorder=2)
    ax.axhline(0.0, color=INK, lw=0.9, zorder=3)
    ax.set_xlim(-0.6, moment.agent.core.n_sockets - 0.4)
    most = 1.1 * float(moment.view.plant.charge_kw.max())
    ax.set_ylim(-most, most)
    ax.set_xticks([])
    ax.set_yticks([-10, 0, 10])
    ax.set_ylabel("kW", fontsize=11, labelpad=-4)
    counts = (power > 0.05).sum(), (power < -0.05).sum(), (np.abs(power) <= 0.05).sum()
    doing = [f"{n} {what}" for n, what in zip(counts, ("charge", "discharge", "rest"), strict=True) if n]
    ax.text(
        0.0, 1.02, f"{moment.vehicles} vehicles: {', '.join(doing)}", transform=ax.transAxes, fontsize=11, va="bottom"
    )
    ax.text(
        1.0,
        1.02,
        "grey: what they could do",
        transform=ax.transAxes,
        fontsize=SMALL,
        ha="right",
        va="bottom",
        color=GREY,
    )
    ax.set_title(title, loc="left", fontsize=13, weight="bold", color=INK, pad=21)
    _plain(ax)
    ax.spines["bottom"].set_visible(False)


def draw_site(ax: Axes, moment: Moment) -> None:
    """Where the site's power comes from and where it goes, as stacked bars."""
    out, s, now = moment.outcome, moment.view.plant.params.site, moment.view.forecast(1)
    meter = float(out.import_kw[0, 0])
    come = stack(
        ax, 1.0, ("PV", float(now.pv_kw[0, 0, 0]), TERM_COLORS["reserve"]),
        ("gen.", float(out.generator_kw[0, 0]), TERM_COLORS["generator"]),
        ("grid", max(meter, 0.0), "#999999"), ("vehicles", float(out.discharge_kw.sum()), DISCHARGE),
    )  # fmt: skip
    gone = 0.0
    for name, load, served, count, color in (
        ("critical", float(now.critical_kw[0, 0, 0]), float(out.served_critical_kw[0, 0]), s.critical_blocks, RED),
        ("other", float(now.other_kw[0, 0, 0]), float(out.served_other_kw[0, 0]), s.other_blocks, ORANGE),
    ):
        lit = round(count * served / load) if moment.dark else count
        for k in range(count):
            style: dict[str, Any] = (
                {"color": color, "ec": "white"} if k < lit else {"color": "white", "ec": color, "hatch": "////"}
            )
            ax.barh(0.0, load / count, 0.66, gone + k * load / count, lw=1.0, **style)
        label = f"{name} {lit}/{count}" if moment.dark else f"{name} {load:.0f}"
        box = {"bbox": {"fc": color, "ec": "none", "pad": 1.5}}
        ax.text(gone + load / 2, 0.0, label, ha="center", va="center", fontsize=SMALL, color="white", **box)
        gone += load
    gone = stack(
        ax, 0.0, ("charging", float(out.charge_kw.sum()), CHARGE), ("grid", max(-meter, 0.0), "#999999"), left=gone
    )
    if moment.dark:
        ax.set_xlim(0, 1.55 * max(come, gone))
        ax.text(gone, 0.0, "  hatched: left dark", fontsize=SMALL, va="center", color=GREY)
    else:
        limit = float(s.per_site("connection_kw")[0])
        ax.set_xlim(0, 1.28 * max(come, gone, limit))
        ax.axvline(limit, color=INK, lw=1.4, ls="--")
        ax.text(limit, 0.5, f"  connection:\n  {limit:.0f} kW", fontsize=SMALL, va="center")
    ax.set_ylim(-0.45, 1.45)
    ax.set_yticks([1.0, 0.0], ["from", "to"], fontsize=11)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("kW", fontsize=11, labelpad=1)
    ax.tick_params(axis="y", length=0)
    _plain(ax)


def stack(ax: Axes, place: float, *parts: tuple[str, float, str], left: float = 0.0) -> float:
    """Bars one after another, named where there is room; where they end."""
    for name, power, color in parts:
        if power < 0.5:
            continue
        ax.barh(place, power, 0.66, left, color=color, ec="white", lw=1.0)
        if power > 10:
            ink = INK if color == TERM_COLORS["reserve"] else "white"
            ax.text(left + power / 2, place, f"{name} {power:.0f}", ha="center", va="center", fontsize=SMALL, color=ink)
        left += power
    return left


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize=13, weight="bold", color=INK, pad=8)


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=SHIPPED, help="a run folder's model.zip (default: the shipped one)"
    )
    parser.add_argument("--seed", type=int, default=1000, help="first day to look at (default 1000)")
    parser.add_argument("--out", type=Path, default=Path("docs/hybrid_step.png"))
    return parser.parse_args()


def main() -> None:
    """Play, draw, write."""
    arguments = parse_arguments()
    agent = HybridAgent(Model.load(arguments.model), V2GCore(V2GParams()))
    seed, before, within = find_scenes(agent, arguments.seed)
    path = save_figure(picture(seed, before, within), arguments.out)
    print(
        f"{path}: day {seed}, {before.clock} and {within.clock}; without the premium the fleet would have "
        f"{before.without_premium_kw:+.0f} kW at {before.clock}"
    )


if __name__ == "__main__":
    main()
