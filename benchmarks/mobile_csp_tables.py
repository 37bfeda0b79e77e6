"""Tables and picture of ``mobile_csp_study.py``, from what it keeps."""

from collections.abc import Iterable
from typing import Any

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mobile_csp_play import VARIANTS, WHO

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.problem import PROBLEM
from qevgrid.envs.types import FloatArray
from qevgrid.runner.metrics import bootstrap
from qevgrid.runner.plots import GREY, LINE_COLORS
from qevgrid.runner.stats import Interval, cvar, paired_difference, score, student_interval

Part = dict[str, Any]
Parts = dict[tuple[str, int], dict[str, Part]]
"""What is kept: by preset and fleet size, by agent."""
ALWAYS = NAIVE, REFERENCE, BEST = "idle", "rolling", "optimum"
"""Score 0, whom all are compared with, score 1."""
MANY = 12
"""Storms from which their thirds by hardness are resampled apart, as in ``evaluate.py``."""
LEAST = 6
"""Storms below which a bootstrap says too little, and Student's t stands in for it."""
TARGET = 0.01
"""Time of hybrid over that of the program."""
MARKERS = "osD^vP*X"


def same(*parts: Part) -> list[str]:
    """Seeds that all have played; ``UserError`` where they are not the same storms."""
    seeds = [seed for seed in parts[0]["storms"] if all(seed in part["storms"] for part in parts)]
    for seed in seeds:
        if len({part["storms"][seed]["fingerprint"] for part in parts}) > 1:
            names = ", ".join(part["agent"] for part in parts)
            raise UserError(f"storm {seed}: not the same for {names}; delete their files under --out and play anew")
    return sorted(seeds, key=int)


def values(part: Part, seeds: Iterable[str], name: str = "usd") -> FloatArray:
    """One number a storm."""
    return np.array([part["storms"][seed][name] for seed in seeds], float)


def strata(part: Part, seeds: list[str]) -> Any:
    """Thirds of many storms, or none."""
    return PROBLEM.strata(values(part, seeds, "need_mwh")) if len(seeds) >= MANY else None


def difference(a: Part, b: Part) -> Interval:
    """Mean cost of ``a`` less ``b`` on the storms of both."""
    seeds = same(a, b)
    ours, theirs = values(a, seeds), values(b, seeds)
    if len(seeds) < LEAST:
        return student_interval(ours - theirs)
    return paired_difference(ours, theirs, bootstrap(), strata=strata(a, seeds))


def score_of(part: Part, idle: Part, best: Part) -> Interval:
    """Against the ruler of the same storms; no interval for few."""
    seeds = same(part, idle, best)
    usd = [values(x, seeds) for x in (part, idle, best)]
    found = score(*usd, rng=bootstrap(), strata=strata(part, seeds))
    return found if len(seeds) >= LEAST else Interval(found.value, np.nan, np.nan)


def span(x: Interval, digits: int = 0, sign: str = "") -> str:
    """Both ends, or a dash."""
    return "–" if np.isnan(x.lo) else f"{x.lo:{sign},.{digits}f} to {x.hi:{sign},.{digits}f}"


def short(x: float) -> str:
    """Three digits, or all of a large number."""
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def ms(part: Part, seeds: Iterable[str] | None = None) -> float:
    """Mean CPU time of a decision."""
    return float(values(part, seeds or part["storms"], "cpu_ms").mean())


def rows(agents: dict[str, Part]) -> list[dict[str, Any]]:
    """All numbers of one fleet size, cheapest first; those of few storms last."""
    idle, rolling, best = (agents[name] for name in ALWAYS)
    found = []
    for name, part in agents.items():
        seeds = same(part, idle, rolling, best)
        usd, s, d = values(part, seeds), score_of(part, idle, best), difference(part, rolling)
        found.append(
            {
                "agent": name, "who": part["who"], "storms": len(seeds), "usd": float(usd.mean()),
                "cvar95_usd": cvar(usd), "score": s._asdict(), "less_rolling_usd": d._asdict(),
                "cpu_ms": ms(part), "times_rolling": ms(part) / ms(rolling),
                "above_best": float(usd.sum() / values(best, seeds).sum() - 1),
            }
        )  # fmt: skip
    return sorted(found, key=lambda row: (-row["storms"], row["usd"]))


def summary(parts: Parts) -> dict[str, Any]:
    """For other programs."""
    return {f"{preset}, M = {m}": rows(agents) for (preset, m), agents in parts.items()}


def report(parts: Parts) -> str:
    """All tables."""
    text = [who_list(parts)]
    for (preset, m), agents in parts.items():
        text.append(f"M = {m} ({preset}), {seeds_text(agents)}\n\n{size_table(agents)}")
    for title, make in ((SCENARIOS, scenario_table), (AGAINST, milp_table)):
        if table := make(parts):
            text.append(f"{title}\n\n{table}")
    return "\n\n".join(text)


def seeds_text(agents: dict[str, Part]) -> str:
    """Which storms."""
    seeds = sorted(int(seed) for seed in agents[NAIVE]["storms"])
    return f"{len(seeds)} storms, seeds {seeds[0]} to {seeds[-1]}"


def who_list(parts: Parts) -> str:
    """Who played, in the order of the rivals' list."""
    found = {name: part["who"] for agents in parts.values() for name, part in agents.items()}
    order = [*WHO, *found]
    return "\n".join(f"- `{name}`: {found[name]}" for name in sorted(found, key=order.index))


def size_table(agents: dict[str, Part]) -> str:
    """One fleet size; the scenario set has a table of its own."""
    header = ("agent", "storms", "USD", "CVaR95 USD", "score", "95 %", f"less {REFERENCE}, USD", "95 %",
              "CPU ms a decision", f"x {REFERENCE}")  # fmt: skip
    lines = []
    for row in rows(agents):
        if row["agent"] in VARIANTS:
            continue
        s, d = Interval(**row["score"]), Interval(**row["less_rolling_usd"])
        itself = row["agent"] == REFERENCE
        less = ["", ""] if itself else [f"{d.value:+,.0f}", span(d, 0, "+")]
        cells = [
            common.number(row["usd"]),
            common.number(row["cvar95_usd"]),
            f"{s.value:.3f}",
            "" if row["agent"] in (NAIVE, BEST) else span(s, 3),
        ]
        time = [short(row["cpu_ms"]), short(row["times_rolling"])]
        lines.append([row["agent"], row["storms"], *cells, *less, *([""] * 2 if row["agent"] == BEST else time)])
    return common.markdown(header, lines)


SCENARIOS = "Does planning against a scenario set help? Each with it less the same agent without, paired"


def scenario_table(parts: Parts) -> str:
    """The scenario set beside the agents without."""
    lines = []
    for (_, m), agents in parts.items():
        for name, (base, _) in VARIANTS.items():
            if name in agents and base in agents:
                part, plain = agents[name], agents[base]
                seeds, d = same(part, plain), difference(part, plain)
                tails = [cvar(values(x, seeds)) for x in (part, plain)]
                share = 100 * d.value / values(plain, seeds).mean()
                cells = [
                    common.number(values(part, seeds).mean()),
                    f"{d.value:+,.0f}",
                    span(d, 0, "+"),
                    f"{share:+.1f}",
                ]
                risk = [common.number(tails[0]), f"{tails[0] - tails[1]:+,.0f}"]
                lines.append([name, m, len(seeds), *cells, *risk, short(ms(part)), short(ms(part) / ms(plain))])
    header = ("agent", "M", "storms", "USD", "less without", "95 %", "%", "CVaR95 USD", "CVaR95 less without",
              "CPU ms a decision", "x without")  # fmt: skip
    return common.markdown(header, lines) if lines else ""


AGAINST = f"hybrid against the rolling MILP (to reach: not dearer, at most {TARGET:.0%} of its time)"


def milp_table(parts: Parts) -> str:
    """Cost and time on the storms of both."""
    lines = []
    for (_, m), agents in parts.items():
        if {"hybrid", "rolling_milp"} <= agents.keys():
            ours, theirs = agents["hybrid"], agents["rolling_milp"]
            seeds, d = same(ours, theirs), difference(ours, theirs)
            usd = [values(x, seeds).mean() for x in (ours, theirs)]
            took = [ms(x, seeds) for x in (ours, theirs)]
            dearer = "–" if np.isnan(d.lo) else "no" if d.hi <= 0 else "YES" if d.lo > 0 else "within chance"
            proven = np.mean([theirs["storms"][seed]["report"]["milp/proven_share"] for seed in seeds])
            none = np.mean([theirs["storms"][seed]["report"]["milp/no_plan_share"] for seed in seeds])
            lines.append([m, len(seeds), *map(common.number, usd), f"{d.value:+,.0f}", span(d, 0, "+"), dearer,
                          *map(short, took), f"1 / {took[1] / took[0]:,.0f}",
                          common.verdict(took[0] / took[1], TARGET, least=False), f"{proven:.0%}", f"{none:.0%}"])  # fmt: skip
    header = ("M", "storms", "hybrid USD", "MILP USD", "hybrid less MILP", "95 %", "dearer", "hybrid ms", "MILP ms",
              "time", "<= 1/100", "closed to 2 %", "no plan")  # fmt: skip
    return common.markdown(header, lines) if lines else ""


def picture(parts: Parts) -> Figure:
    """Scores by fleet size, and cost against time."""
    figure = Figure(figsize=(12, 5), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    table = {key: {row["agent"]: row for row in rows(agents)} for key, agents in parts.items()}
    names = list(dict.fromkeys(name for agents in table.values() for name in agents))
    order = [*WHO, *names]
    shown = [name for name in sorted(names, key=order.index) if name not in (NAIVE, BEST, *VARIANTS)]
    for k, name in enumerate(shown):
        style = {"color": LINE_COLORS[k % len(LINE_COLORS)], "ls": "-" if k < len(LINE_COLORS) else "--"}
        mine = [(place, key[1], table[key][name]) for place, key in enumerate(table) if name in table[key]]
        _scores(left, mine, (k - (len(shown) - 1) / 2) * 0.08, name, style)
        _costs(right, mine, [key[1] for key in table], style)
    several = len({preset for preset, _ in parts}) > 1
    _axes(left, right, [f"{m} ({preset})" if several else str(m) for preset, m in parts])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(shown), frameon=False)
    return figure


Mine = list[tuple[int, int, dict[str, Any]]]


def _scores(axes: Axes, mine: Mine, shift: float, name: str, style: dict[str, Any]) -> None:
    """One agent's scores with intervals."""
    x = [place + shift for place, *_ in mine]
    y = np.array([row["score"]["value"] for *_, row in mine])
    ends = np.array([[row["score"]["lo"], row["score"]["hi"]] for *_, row in mine])
    error = np.nan_to_num(np.abs(ends - y[:, None])).T
    axes.errorbar(x, y, yerr=error, marker="o", ms=5, capsize=2.5, lw=1.2, label=name.replace("_", " "), **style)


def _costs(axes: Axes, mine: Mine, sizes: list[int], style: dict[str, Any]) -> None:
    """One agent's cost above the best known against its time; a marker a fleet size."""
    x, y = [row["cpu_ms"] for *_, row in mine], [100 * row["above_best"] for *_, row in mine]
    axes.plot(x, y, lw=1.0, alpha=0.5, **style)
    for (_, m, _), xs, ys in zip(mine, x, y, strict=True):
        axes.plot(xs, ys, MARKERS[sizes.index(m) % len(MARKERS)], color=style["color"], ms=6.5, mec="white", mew=0.6)


def _axes(left: Axes, right: Axes, sizes: list[str]) -> None:
    """Names and lines of the ruler."""
    for value, text in ((0.0, "idle"), (1.0, "best known")):
        left.axhline(value, color=GREY, lw=0.9, ls=":")
        left.annotate(text, (0.995, value), (0, 3), ("axes fraction", "data"), "offset points", ha="right", color=GREY)
    left.set_xticks(range(len(sizes)), sizes)
    left.set(xlabel="units M", ylabel="score with 95 % interval (0 = idle, 1 = best known)")
    right.set(xscale="log", yscale="log", xlabel="CPU ms a decision", ylabel="cost above the best known, %")
    for k, size in enumerate(sizes):
        right.plot([], [], MARKERS[k % len(MARKERS)], color=GREY, label=f"M = {size}")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(color="#E8E8E8", lw=0.6, which="major")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
