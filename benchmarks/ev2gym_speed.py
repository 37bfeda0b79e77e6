"""Speed of EV2Gym 2.0.0 from PyPI, measured in a virtual environment of its own.

Make that environment once (Python 3.11; no torch, no Gurobi), from the repository root:

    python3.11 -m venv /tmp/ev2gymvenv
    /tmp/ev2gymvenv/bin/python -m pip install --no-deps -r benchmarks/ev2gym-constraints.txt

and run this file with its Python; ``-I`` keeps our own packages and PYTHONPATH out:

    /tmp/ev2gymvenv/bin/python -I benchmarks/ev2gym_speed.py --sockets 10 25 100 500 --repeats 3

Standard output is one JSON object per line, one for each number of sockets: medians over the
repeats, ``all`` the stepping speed of each repeat, ``episodes`` their number in a repeat, ``busy``
the share of sockets with a vehicle in the untimed episode that warms up. Whatever EV2Gym prints
goes to standard error.

What is measured: the shipped V2GProfitPlusLoads.yaml with only the number of charging stations
changed, EV2Gym's own state and reward for that case, uniform random actions drawn outside the
clock, wall time of one process. A repeat plays whole episodes with the seeds 0, 1, 2, ..., so
every repeat and every call sees the same vehicles.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

CONFIG = "example_config_files/V2GProfitPlusLoads.yaml"
SOCKETS = (10, 25, 100, 500)
WARM_UP_SEED = 10_000


class Timing(NamedTuple):
    """Seconds spent in ``reset`` and in ``step``."""

    reset_s: float
    step_s: float


def write_config(package: Path, sockets: int, target: Path) -> None:
    """Copy the shipped configuration to ``target`` with another number of stations.

    Its paths are relative to a checkout of EV2Gym; they are made to lead into the package.
    """
    import yaml

    config = yaml.safe_load((package / CONFIG).read_text())
    config["number_of_charging_stations"] = sockets
    for key, value in config.items():
        if isinstance(value, str) and value.startswith("./ev2gym/"):
            config[key] = str(package.parent / value)
    target.write_text(yaml.safe_dump(config))


def make_env(sockets: int) -> Any:
    """Build EV2Gym with ``sockets`` stations of one port, in an empty working directory."""
    import ev2gym
    from ev2gym.models.ev2gym_env import EV2Gym
    from ev2gym.rl_agent.reward import ProfitMax_TrPenalty_UserIncentives
    from ev2gym.rl_agent.state import V2G_profit_max_loads

    package = Path(ev2gym.__path__[0]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        config = Path(folder, "config.yaml")
        write_config(package, sockets, config)
        return EV2Gym(
            config_file=str(config),
            seed=0,
            state_function=V2G_profit_max_loads,
            reward_function=ProfitMax_TrPenalty_UserIncentives,
        )


def draw_actions(env: Any, seed: int) -> Any:
    """Draw the actions of one episode; ``step`` overwrites its row, so each table serves once."""
    import numpy as np

    shape = (env.simulation_length, env.number_of_ports)
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


def play(env: Any, seed: int) -> Timing:
    """Play and time one episode of random actions."""
    actions = draw_actions(env, seed)
    begin = time.perf_counter()
    env.reset(seed=seed)
    middle = time.perf_counter()
    for action in actions:
        outcome = env.step(action)
    end = time.perf_counter()
    if not outcome[2]:
        raise RuntimeError(f"the episode went on after {len(actions)} steps")
    return Timing(middle - begin, end - middle)


def busy_share(env: Any, seed: int) -> float:
    """Play one untimed episode; return the mean share of sockets with a vehicle."""
    env.reset(seed=seed)
    masks = [env.step(action)[4]["action_mask"].mean() for action in draw_actions(env, seed)]
    return float(statistics.fmean(masks))


def episodes_for(sockets: int) -> int:
    """Episodes in one repeat: about 2 to 6 seconds of work at any size."""
    return min(20, max(4, 1000 // sockets))


def repeat(env: Any, episodes: int) -> Timing:
    """Play the same ``episodes`` episodes as every other repeat; return their mean timing."""
    times = [play(env, seed) for seed in range(episodes)]
    return Timing(*(statistics.fmean(column) for column in zip(*times, strict=True)))


def measure(sockets: int, repeats: int, episodes: int) -> dict[str, Any]:
    """Warm up, measure, and return what goes on one line of the output."""
    env = make_env(sockets)
    stages = int(env.simulation_length)
    busy = busy_share(env, WARM_UP_SEED)
    times = [repeat(env, episodes) for _ in range(repeats)]
    speeds = [stages / t.step_s for t in times]
    with_reset = [stages / (t.step_s + t.reset_s) for t in times]
    return {
        "sockets": int(env.number_of_ports),
        "steps_per_s": round(statistics.median(speeds), 1),
        "steps_per_s_with_reset": round(statistics.median(with_reset), 1),
        "reset_ms": round(1000 * statistics.median(t.reset_s for t in times), 2),
        "stages": stages,
        "episodes": episodes,
        "busy": round(busy, 3),
        "all": [round(speed, 1) for speed in speeds],
    }


def positive(text: str) -> int:
    """Read a whole number of at least one from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the speed of EV2Gym 2.0.0.")
    parser.add_argument("--sockets", type=positive, nargs="+", default=SOCKETS)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--episodes", type=positive, help="per repeat (default: by size)")
    return parser.parse_args()


def main() -> None:
    """Print one JSON line for each number of sockets."""
    arguments = parse_arguments()
    os.environ["MPLBACKEND"] = "Agg"
    warnings.simplefilter("ignore")
    for sockets in arguments.sockets:
        with contextlib.redirect_stdout(sys.stderr):
            episodes = arguments.episodes or episodes_for(sockets)
            line = measure(sockets, arguments.repeats, episodes)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
