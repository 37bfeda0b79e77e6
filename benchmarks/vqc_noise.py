"""Score against shots and noise: a trained circuit, played as hardware would run it.

    python train.py --config configs/v2g_vqc.yaml --out runs/v2g_vqc
    python benchmarks/vqc_noise.py runs/v2g_vqc             slow: PennyLane runs each circuit; writes noise.png
    python benchmarks/vqc_noise.py runs/v2g_vqc --episodes 5

The same weights and days throughout. Noise: depolarising after every one-qubit and two-qubit gate, and a flip of
each bit when it is read (as often as the two-qubit error); no shots there: expectation values.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import common
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from qevgrid.agents import load_learned
from qevgrid.agents.vqc.config import VQCConfig
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.runner.config import load_config
from qevgrid.runner.folder import read_run
from qevgrid.runner.metrics import bootstrap
from qevgrid.runner.parallel import play_rival
from qevgrid.runner.plots import save_figure
from qevgrid.runner.rollout import play
from qevgrid.runner.schema import RunConfig
from qevgrid.runner.stats import Interval, score

SHOTS = (100, 300, 1000, 3000, 10_000)
DEPOLARIZING = ((1e-4, 1e-3), (1e-3, 1e-2), (3e-3, 3e-2), (1e-2, 1e-1))


def settings(config: VQCConfig) -> dict[str, list[tuple[float, VQCConfig]]]:
    """Axis -> its points, each with the agent's keys there."""
    exact = dataclasses.replace(config, executor="fast")
    shots = [(float(n), dataclasses.replace(config, executor="pennylane", shots=n)) for n in SHOTS]
    noisy = [
        (
            two,
            dataclasses.replace(
                config, executor="pennylane", device="default.mixed", depolarizing=(one, two), readout_error=two
            ),
        )
        for one, two in DEPOLARIZING
    ]
    return {"exact": [(0.0, exact)], "shots": shots, "two-qubit error": noisy}


def picture(found: dict[str, list[tuple[float, Interval]]]) -> Figure:
    """Score against shots and against noise, with intervals; the exact score as a band."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    exact = found["exact"][0][1]
    axes = figure.subplots(1, 2, sharey=True)
    for ax, name in zip(axes, ("shots", "two-qubit error"), strict=True):
        x = np.array([at for at, _ in found[name]])
        y = np.array([s for _, s in found[name]])
        ax.errorbar(x, y[:, 0], np.abs(y[:, 1:] - y[:, :1]).T, marker="o", capsize=3)
        ax.axhline(exact.value, color="k", lw=1, ls="--", label="exact")
        ax.axhspan(exact.lo, exact.hi, color="k", alpha=0.08)
        ax.set(
            xscale="log",
            xlabel=f"{name} a circuit" if name == "shots" else "two-qubit and readout error (one-qubit: a tenth)",
        )
    axes[0].set_ylabel("score (95 %)")
    axes[0].legend()
    return figure


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a circuit agent")
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first day")
    parser.add_argument("--out", type=Path, default=Path("results/vqc_noise"))
    arguments = parser.parse_args()
    folder = read_run(arguments.run)
    config = load_config(RunConfig, folder.config_yaml)
    if not isinstance(config.agent, VQCConfig) or config.agent.actor != "circuit":
        sys.exit(f"error: {arguments.run}: is no circuit agent; train with configs/v2g_vqc.yaml")
    core, days = V2GCore(config.env), list(range(arguments.seed, arguments.seed + arguments.episodes))
    idle, best = (play_rival(name, config.env, days).total_usd for name in ("idle", "optimum"))
    points = settings(config.agent)
    found: dict[str, list[tuple[float, Interval]]] = {name: [] for name in points}
    with tqdm(total=sum(map(len, points.values())), disable=not sys.stderr.isatty()) as bar:
        for name, at, agent in ((n, at, agent) for n, some in points.items() for at, agent in some):
            episodes = play(core, load_learned(folder.model_zip, name, core, agent), days)
            strata = (episodes.stress > 0).astype(int)
            found[name].append((at, score(episodes.total_usd, idle, best, rng=bootstrap(), strata=strata)))
            bar.update()
    rows = [
        [name, f"{at:g}" if at else "", common.number(s.value, 3), f"{s.lo:.3f} to {s.hi:.3f}"]
        for name, some in found.items()
        for at, s in some
    ]
    print(f"\n{arguments.episodes} days from seed {arguments.seed}. {common.machine('pennylane')}.\n")
    print(common.markdown(("what", "value", "score", "95 %"), rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_figure(picture(found), arguments.out / "noise.png")
    common.write_json(arguments.out / "noise.json", found)


if __name__ == "__main__":
    main()
