"""Film one storm of Mobile CSP as an animated GIF.

    python examples/mobile_csp_gif.py greedy --seed 3 --out storm.gif
    python examples/mobile_csp_gif.py runs/mobile_csp_ppo_0 --set preset=full --set n_units=5

AGENT is a rival's name or the folder of a trained run. Needs no video tools. For MP4, ``pip install "qevgrid[video]"``
and wrap the environment in ``gymnasium.wrappers.RecordVideo``.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import yaml

from qevgrid.agents import is_rival
from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import build
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.recorder import Recorder
from qevgrid.envs.mobile_csp.trace import StormTrace
from qevgrid.envs.mobile_csp.viewer import save_gif
from qevgrid.runner.parallel import Player


def play(name: str, params: MobileCSPParams, seed: int) -> StormTrace:
    """One episode of an agent, recorded."""
    core = MobileCore(params)
    agent = Player(name, None if is_rival(name, params.id) else Path(name)).agent(core)
    batch, recorder = core.batch(1), Recorder(core)
    batch.start(np.zeros(1, np.int64), [np.random.default_rng(seed)])
    batch.recorder = recorder.add
    recorder.begin(batch)
    truth = {"scenario": batch.scenario} if agent.needs_scenario else {}
    agent.begin({"view": batch.view(), **truth})
    while not batch.over.all():
        batch.step(agent.act(batch.observe(), {"view": batch.view(), **truth}))
    return recorder.trace(agent.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", metavar="AGENT")
    parser.add_argument("--seed", type=int, default=0, help="of the storm")
    parser.add_argument("--out", type=Path, default=Path("storm.gif"))
    parser.add_argument("--width", type=int, default=880, help="pixels")
    parser.add_argument("--frame-ms", type=int, default=300, help="how long a period is shown")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the environment")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    try:
        trace = play(arguments.agent, build(MobileCSPParams, None, changes), arguments.seed)
    except UserError as wrong:
        sys.exit(f"error: {wrong}")
    save_gif(trace, arguments.out, arguments.width, arguments.frame_ms)
    print(f"{arguments.out}: {len(trace.stage)} frames, {trace.total_usd:,.0f} USD")


if __name__ == "__main__":
    main()
