"""Speed of ``qevgrid/MobileCSP-v0`` on one core: steps, resets, storms and beliefs.

    python benchmarks/mobile_csp_speed.py

Uniform random choices drawn outside the clock. A step is one period of one episode, in the sequential form one
choice of one unit. ``with resets`` counts the drawing of new storms too. Times are CPU seconds of the process, which
uses one thread: others on the machine disturb them less. Medians of ``--repeats`` rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

ENV = "qevgrid:qevgrid/MobileCSP-v0"
FORMS: dict[str, dict[str, Any]] = {
    "joint": {},
    "joint, levels": {"power": "levels"},
    "sequential": {"form": "sequential"},
    "mini, joint": {"preset": "mini"},
    "full, joint": {"preset": "full"},
}
TABLES = 8
"""Action tables drawn for an environment; steps go through them in turn."""


def measure_scalar(options: dict[str, Any], episodes: int) -> dict[str, float]:
    """Steps a second without and with resets, and a reset's time."""
    import gymnasium as gym

    env: Any = gym.make(ENV, **options).unwrapped
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(50)]
    resets, steps, count = 0.0, 0.0, 0
    for episode in range(episodes + 1):
        begin, over = time.process_time(), False
        env.reset(seed=episode)
        middle = time.process_time()
        while not over:
            over = env.step(actions[count % 50])[2]
            count += 1
        if episode == 0:
            count = 0  # the first one is warm-up
            continue
        resets += middle - begin
        steps += time.process_time() - middle
    return {"steps": count / steps, "with_resets": count / (steps + resets), "reset_ms": 1e3 * resets / episodes}


def measure_vector(options: dict[str, Any], envs: int) -> dict[str, float]:
    """Steps a second of all environments until most are over, and with their resets."""
    import gymnasium as gym

    env: Any = gym.make_vec(ENV, num_envs=envs, vectorization_mode="vector_entry_point", **options)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(TABLES)]
    env.reset(seed=0)
    env.step(actions[0])
    begin = time.process_time()
    env.reset(seed=1)
    reset_s = time.process_time() - begin
    periods = env.core.n_periods - 1
    begin = time.process_time()
    for t in range(periods):
        env.step(actions[t % TABLES])
    step_s = time.process_time() - begin
    return {"steps": envs * periods / step_s, "with_resets": envs * periods / (step_s + reset_s)}


def measure_parts() -> dict[str, float]:
    """Milliseconds of one storm, one belief, eight sampled worlds, a frame."""
    import numpy as np

    from qevgrid.envs.mobile_csp.forecast import expected, scenarios
    from qevgrid.envs.mobile_csp.params import MobileCSPParams
    from qevgrid.envs.mobile_csp.plant import build_plant
    from qevgrid.envs.mobile_csp.scenario import Sampler

    plant = build_plant(MobileCSPParams())
    sampler, rng = Sampler(plant), np.random.default_rng(0)
    scenario = sampler.sample([rng])
    return {
        "one storm": milliseconds(lambda k: sampler.sample([np.random.default_rng(k)])),
        "one belief, any period": milliseconds(lambda k: expected(plant, scenario, np.array([k % 48]))),
        "eight sampled worlds": milliseconds(lambda k: scenarios(plant, scenario, np.array([k % 48]), 8, rng)),
        "one frame of a video": frame_ms(),
    }


def frame_ms(seed: int = 3) -> float:
    """Mean time of a picture over one episode, drawn as it goes on."""
    import gymnasium as gym

    env: Any = gym.make(ENV, render_mode="rgb_array").unwrapped
    env.reset(seed=seed)
    env.action_space.seed(seed)
    env.render()
    spent, over = 0.0, False
    while not over:
        over = env.step(env.action_space.sample())[2]
        begin = time.process_time()
        env.render()
        spent += time.process_time() - begin
    return 1e3 * spent / env.core.n_periods


def milliseconds(call: Callable[[int], Any], count: int = 96) -> float:
    """Mean time of a call, compiled before."""
    call(0)
    begin = time.process_time()
    for k in range(count):
        call(k)
    return 1e3 * (time.process_time() - begin) / count


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds; medians."""
    scalar: dict[str, list[dict[str, float]]] = {name: [] for name in FORMS}
    vector: dict[str, list[dict[str, float]]] = {name: [] for name in FORMS}
    parts = []
    for _ in range(arguments.repeats):
        for name, options in FORMS.items():
            scalar[name].append(measure_scalar(options, episodes=10))
            vector[name].append(measure_vector(options, arguments.envs))
        parts.append(measure_parts())
    rows = {name: {"scalar": common.median(scalar[name]), "vector": common.median(vector[name])} for name in FORMS}
    return {"forms": rows, "parts_ms": {key: statistics.median(p[key] for p in parts) for key in parts[0]}}


def forms_table(result: dict[str, Any], envs: int) -> str:
    """Steps a second of each form."""
    header = ("form", "steps/s", "with resets", "reset ms", f"{envs:,} envs: steps/s", "with resets")
    rows = []
    for name, found in result["forms"].items():
        one, many = found["scalar"], found["vector"]
        cells = [common.number(one["steps"]), common.number(one["with_resets"]), common.number(one["reset_ms"], 2)]
        rows.append([name, *cells, common.number(many["steps"]), common.number(many["with_resets"])])
    return common.markdown(header, rows)


def target_table(result: dict[str, Any], envs: int) -> str:
    """Measured against what was to be reached."""
    joint, parts = result["forms"]["joint"], result["parts_ms"]
    targets = [
        ("scalar steps/s", joint["scalar"]["steps"], 30_000, True),
        (f"steps/s of {envs:,} envs", joint["vector"]["steps"], 1_000_000, True),
        ("one storm, ms", parts["one storm"], 2.0, False),
        ("one belief, ms", parts["one belief, any period"], 2.0, False),
    ]
    rows = [
        (name, common.number(x, 2 if x < 100 else 0), common.number(y), common.verdict(x, y, least=least))
        for name, x, y, least in targets
    ]
    return common.markdown(("target", "measured", "wanted", "met"), rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    common.use_one_core()
    where = common.machine("numpy", "numba", "gymnasium")
    result = measure(arguments)
    print(f"{where}. One core, medians of {arguments.repeats} rounds.\n")
    print(forms_table(result, arguments.envs))
    print("\n" + common.markdown(("part", "ms"), [(k, common.number(x, 2)) for k, x in result["parts_ms"].items()]))
    print("\n" + target_table(result, arguments.envs))
    common.write_json(arguments.json, {"machine": where, **result})


if __name__ == "__main__":
    main()
