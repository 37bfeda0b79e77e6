"""What is a circuit worth as a policy? Tuned alike, trained on several seeds, played on held-out days.

    python benchmarks/vqc_study.py                  half an hour on two cores
    python benchmarks/vqc_study.py --seeds 2 --trials 1 --steps 12288 --episodes 20 --out results/pilot
    python benchmarks/vqc_study.py --show           print and draw what --out holds

Variants: the circuit, the circuit without entanglement, a network of as many parameters, one of fifty times as
many; all read the same features, with the same critic, warm start and PPO. Each one's learning rates are drawn by
the same number of trials (the same draws for all), judged on validation days (seeds from 2**33) that no evaluation
uses. Then ``--seeds`` trainings each play the same held-out days. Finished runs are kept and not repeated.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from qevgrid.agents import load_learned
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.runner.config import load_config
from qevgrid.runner.folder import RunFolder
from qevgrid.runner.loop import train
from qevgrid.runner.metrics import bootstrap
from qevgrid.runner.parallel import play_rival
from qevgrid.runner.plots import save_figure
from qevgrid.runner.rollout import play
from qevgrid.runner.schema import RunConfig
from qevgrid.runner.stats import iqm_interval, paired_difference, probability_of_improvement, score

CONFIG = common.ROOT / "configs/v2g_vqc.yaml"
VARIANTS = {
    "circuit": ["agent.actor=circuit"],
    "no entanglement": ["agent.actor=circuit", "agent.entangler=none"],
    "network": ["agent.actor=mlp", "agent.hidden=[4]", "agent.lr_head=1.0"],
    "network x 50": ["agent.actor=mlp", "agent.hidden=[45, 45]", "agent.lr_head=1.0"],
}
TRIAL_SEED = 100
"""Trials train with seeds from here, apart from those of the study."""
DRAWS = np.random.default_rng(7)
RATES = {
    "circuit": (3e-4, 3e-3),
    "no entanglement": (3e-4, 3e-3),
    "network": (1e-3, 3e-2),
    "network x 50": (3e-4, 1e-2),
}
"""Ranges of the imitation's learning rate; the circuit's is multiplied by its groups' 10 to 30."""


@dataclass(frozen=True)
class Run:
    """One training."""

    variant: str
    seed: int
    share: float
    """Where in its range of rates, from 0 to 1."""
    folder: Path
    overrides: tuple[str, ...]
    fine: float = 0.1
    """PPO's rate over that of the imitation."""

    @property
    def keys(self) -> list[str]:
        """Everything that differs from the configuration file."""
        low, high = RATES[self.variant]
        rate = float(low * (high / low) ** self.share)
        rates = [
            f"agent.lr={self.fine * rate:.4g}",
            f"agent.warm_lr={rate:.4g}",
            f"seed={self.seed}",
            "agent.threads=1",
            "ruler=false",
        ]
        return [*VARIANTS[self.variant], *rates, *self.overrides]


def do(run: Run) -> float:
    """Train unless it is done; validation cost of the best weights, USD a day."""
    folder = RunFolder(run.folder)
    if not folder.metrics_json.is_file():
        config = load_config(RunConfig, CONFIG, run.keys)
        train(config, run.folder, resume=folder.config_yaml.is_file(), arguments=["benchmarks/vqc_study.py"])
    return float(json.loads(folder.metrics_json.read_text(encoding="utf-8"))["validation_cost_usd"])


def do_all(runs: list[Run], jobs: int, title: str) -> list[float]:
    """All runs over processes, in order."""
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return list(tqdm(pool.map(do, runs), total=len(runs), desc=title, disable=not sys.stderr.isatty()))


def tune(arguments: argparse.Namespace, overrides: tuple[str, ...]) -> dict[str, float]:
    """Best share of each variant's range, by its trials."""
    shares = DRAWS.permuted((np.arange(arguments.trials) + 0.5) / arguments.trials)
    runs = [
        Run(
            name,
            TRIAL_SEED + k,
            float(share),
            arguments.out / "trials" / f"{slug(name)}_{k}",
            overrides,
            arguments.fine,
        )
        for name in VARIANTS
        for k, share in enumerate(shares)
    ]
    usd = np.array(do_all(runs, arguments.jobs, "trials")).reshape(len(VARIANTS), -1)
    return {name: float(shares[usd[k].argmin()]) for k, name in enumerate(VARIANTS)}


def slug(name: str) -> str:
    """For folders."""
    return name.replace(" ", "_")


def study(arguments: argparse.Namespace) -> None:
    """Trials, seeds, held-out days; writes ``study.json``."""
    overrides = (f"total_steps={arguments.steps}", f"eval_every={max(arguments.steps // 8, 1)}", *arguments.overrides)
    best = tune(arguments, overrides)
    runs = [
        Run(name, seed, best[name], arguments.out / "seeds" / f"{slug(name)}_{seed}", overrides, arguments.fine)
        for name in VARIANTS
        for seed in range(arguments.seeds)
    ]
    do_all(runs, arguments.jobs, "seeds")
    params = load_config(RunConfig, CONFIG).env
    core, days = V2GCore(params), list(range(arguments.seed, arguments.seed + arguments.episodes))
    ruler = measured_ruler(arguments.out / "ruler.json", params, days)
    found: dict[str, Any] = {}
    for run in tqdm(runs, desc="held-out days", disable=not sys.stderr.isatty()):
        config = load_config(RunConfig, RunFolder(run.folder).config_yaml)
        agent = load_learned(RunFolder(run.folder).model_zip, run.variant, core, config.agent)
        episodes = play(core, agent, days)
        entry = found.setdefault(run.variant, {"cost_usd": [], "curves": [], "seconds": [], "keys": run.keys})
        entry["parameters"] = agent.parameters
        entry["cost_usd"].append(episodes.total_usd.tolist())
        entry["curves"].append(curve(run.folder))
        entry["seconds"].append(json.loads(RunFolder(run.folder).metrics_json.read_text())["seconds"])
        strata = (episodes.stress > 0).astype(int).tolist()
    content = {
        "variants": found,
        "ruler": ruler,
        "strata": strata,
        "first_day": arguments.seed,
        "trials": arguments.trials,
    }
    common.write_json(arguments.out / "study.json", content)


def measured_ruler(kept: Path, params: Any, days: list[int]) -> dict[str, list[float]]:
    """USD of each day by rivals and optimum; kept like the finished runs."""
    if kept.is_file():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["days"] == days:
            return content["usd"]
    usd = {name: play_rival(name, params, days).total_usd.tolist() for name in ("idle", "tou", "optimum")}
    common.write_json(kept, {"days": days, "usd": usd})
    return usd


def curve(folder: Path) -> dict[str, list[float]]:
    """Validation cost by steps."""
    data = np.genfromtxt(RunFolder(folder).evaluations_csv, delimiter=",", names=True, ndmin=1)
    return {"steps": data["step"].tolist(), "cost_usd": data["cost_usd"].tolist()}


def report(content: dict[str, Any]) -> str:
    """Scores with intervals, and each variant against the circuit."""
    idle, best = (np.array(content["ruler"][name]) for name in ("idle", "optimum"))
    strata, room = np.array(content["strata"]), float((idle - best).mean())
    usd = {name: np.array(entry["cost_usd"]) for name, entry in content["variants"].items()}
    rows, against = [], []
    for name, entry in content["variants"].items():
        s = score(usd[name], idle, best, rng=bootstrap(), strata=strata)
        seeds = (idle.mean() - usd[name].mean(1)) / room
        middle = iqm_interval(seeds, bootstrap())
        rows.append(
            [name, entry["parameters"], common.number(usd[name].mean(), 0), common.number(s.value, 3), span(s),
             common.number(middle.value, 3), span(middle), common.number(np.mean(entry["seconds"]))]
        )  # fmt: skip
        if name != "circuit":
            d = paired_difference(usd[name] / room, usd["circuit"] / room, bootstrap(), strata=strata)
            better = probability_of_improvement(-usd["circuit"].mean(1), -usd[name].mean(1), bootstrap())
            against.append([name, common.number(d.value, 3), span(d), common.number(better.value, 2), span(better)])
    tou = score(np.array(content["ruler"]["tou"]), idle, best, rng=bootstrap(), strata=strata)
    usd_tou = np.mean(content["ruler"]["tou"])
    rows.append(
        [
            "tou (the example)",
            0,
            common.number(usd_tou),
            common.number(tou.value, 3),
            span(tou),
            "",
            "",
            "",
        ]
    )
    first = ("actor", "parameters", "USD/day", "score", "95 %", "IQM over seeds", "95 %", "training s")
    second = ("circuit less", "score", "95 %", "P(circuit better)", "95 %")
    return "\n\n".join([common.markdown(first, rows), common.markdown(second, against)])


def span(interval: Any) -> str:
    """Both ends."""
    return "–" if np.isnan(interval.lo) else f"{interval.lo:.3f} to {interval.hi:.3f}"


def picture(content: dict[str, Any]) -> Figure:
    """Learning curves by environment steps and by seconds."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    for name, entry in content["variants"].items():
        usd = np.array([c["cost_usd"] for c in entry["curves"]])
        steps = np.array(entry["curves"][0]["steps"])
        seconds = steps / max(steps[-1], 1) * np.mean(entry["seconds"])
        label = f"{name} ({entry['parameters']:,})"
        _lines(((by_steps, steps), (by_seconds, seconds)), usd, label)
    by_steps.set(xlabel="environment steps", ylabel="validation cost, USD a day")
    by_seconds.set(xlabel="seconds of training, warm start included")
    by_steps.legend(title="actor (parameters)")
    return figure


def _lines(places: Iterable[tuple[Axes, np.ndarray]], usd: np.ndarray, label: str) -> None:
    """Mean over the seeds and their range."""
    for axes, x in places:
        (line,) = axes.plot(x, usd.mean(0), label=label)
        axes.fill_between(x, usd.min(0), usd.max(0), color=line.get_color(), alpha=0.15)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="trainings a variant")
    parser.add_argument("--trials", type=int, default=4, help="learning rates tried a variant")
    parser.add_argument("--steps", type=int, default=98_304, help="environment steps of each training")
    parser.add_argument("--fine", type=float, default=0.1, help="PPO's learning rate over that of the imitation")
    parser.add_argument("--episodes", type=int, default=100, help="held-out days")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first held-out day")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, a thread each")
    parser.add_argument("--out", type=Path, default=Path("results/vqc_study"), help="finished runs in it are kept")
    parser.add_argument("--show", action="store_true", help="train nothing, print what --out holds")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of every run")
    return parser.parse_args()


def main() -> None:
    """Train, play, print."""
    arguments = parse_arguments()
    if not arguments.show:
        study(arguments)
    content = json.loads((arguments.out / "study.json").read_text(encoding="utf-8"))
    save_figure(picture(content), arguments.out / "learning.png")
    print(
        f"\n{len(content['strata'])} held-out days from seed {content['first_day']}. {common.machine('pennylane')}.\n"
    )
    print(report(content))


if __name__ == "__main__":
    main()
