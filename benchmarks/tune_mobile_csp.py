"""Search the numbers of Mobile CSP's greedy rule on storms of their own, far from those of any evaluation.

    python benchmarks/tune_mobile_csp.py --trials 150 --storms 60

Trial 0 is plain greedy; a third of the trials are drawn over the whole box, the others around the best so far,
closer and closer. All trials play the same storms (seeds from 910,000). Plain greedy, the shipped numbers and the
winner then play as many other storms (seeds from 920,000).
"""

import argparse
import sys

import common
import numpy as np

from qevgrid.agents.mobile_csp.greedy import TUNED, Greedy
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams

TRAIN_SEED, CHECK_SEED = 910_000, 920_000
BOX = {
    "full": (0.3, 1.0), "empty": (0.0, 0.4), "delay_h": (0.1, 6.0), "exponent": (0.2, 3.0), "keep": (1.0, 8.0),
    "least_usd_kwh": (0.0, 60.0),
}  # fmt: skip


def mean_usd(core: MobileCore, values: dict[str, float], first: int, storms: int) -> float:
    """Mean cost of greedy with these numbers."""
    batch, agent, total = core.batch(storms), Greedy(**values), 0.0
    batch.start(np.arange(storms), [np.random.default_rng(first + k) for k in range(storms)])
    obs = np.zeros((storms, 0), np.float32)
    while not batch.over.all():
        batch.step(agent.act(obs, {"view": batch.view()}))
        total += float(batch.outcome.total_usd.mean())
    return total


def propose(best: dict[str, float], progress: float, rng: np.random.Generator) -> dict[str, float]:
    """A point of the whole box, or one around the best so far, in steps that shrink."""
    low, high = np.array(list(BOX.values())).T
    if rng.random() < 1 / 3:
        point = rng.uniform(low, high)
    else:
        moved = rng.random(len(low)) < 0.5
        moved[rng.integers(len(low))] = True
        step = (0.25 * (1 - progress) + 0.02) * (high - low)
        point = np.array([best[key] for key in BOX]) + moved * rng.normal(size=len(low)) * step
    return dict(zip(BOX, np.clip(point, low, high).round(3).tolist(), strict=True))


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--storms", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the search itself")
    a = parser.parse_args()
    core, rng = MobileCore(MobileCSPParams(preset=a.preset)), np.random.default_rng(a.seed)
    plain = {key: float(getattr(Greedy(), key)) for key in BOX}
    best, least = plain, np.inf
    for k in range(a.trials):
        values = propose(best, k / a.trials, rng) if k else plain
        usd = mean_usd(core, values, TRAIN_SEED, a.storms)
        if usd < least:
            best, least = values, usd
            print(f"trial {k}: {usd:,.0f} USD/storm {values}", file=sys.stderr, flush=True)
    rows = []
    for name, values in (("greedy", plain), ("shipped", TUNED), ("best", best)):
        usd = [mean_usd(core, values, seed, a.storms) for seed in (TRAIN_SEED, CHECK_SEED)]
        rows.append([name, *(f"{x:,.0f}" for x in usd), *(f"{values[key]:g}" for key in BOX)])
    print(common.markdown(("numbers", "USD/storm", "on other storms", *BOX), rows))


if __name__ == "__main__":
    main()
