"""Speed of ``qevgrid/V2G-v0`` beside EV2Gym 2.0, on one core, in one run.

    python benchmarks/speed.py                      makes benchmarks/.cache/ev2gym on first use
    python benchmarks/speed.py --ev2gym PYTHON      an environment with EV2Gym that exists already
    python benchmarks/speed.py --no-ev2gym

Both play uniform random actions drawn outside the clock. Each of ``--repeats`` rounds measures
ours and then the rival; the tables hold medians. ``with resets`` counts the time of drawing new
days too: in the scalar environments a reset an episode, in the vector environment its automatic
reset. ``busy`` is the share of sockets with a vehicle: work comes with vehicles.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

ENV = "qevgrid:qevgrid/V2G-v0"
SOCKETS, ENVS = (10, 25, 100, 500), (1, 64, 1024)
CACHE = common.ROOT / "benchmarks/.cache/ev2gym"
PINS = common.ROOT / "benchmarks/ev2gym-constraints.txt"
RIVAL = common.ROOT / "benchmarks/ev2gym_speed.py"
HEAVY = ("torch", "pennylane", "stable_baselines3", "matplotlib")
TABLES = 8
"""Action tables drawn for a vector environment; steps go through them in turn."""
Cases = dict[int, list[dict[str, float]]]

IMPORT = f"""
import sys, time
start = time.perf_counter()
import qevgrid
print(time.perf_counter() - start, [name for name in {HEAVY} if name in sys.modules])
"""


def import_seconds() -> float:
    """Time of ``import qevgrid`` in a fresh interpreter; an error if it loads a heavy package."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    seconds, _, heavy = run.stdout.partition(" ")
    if heavy.strip() != "[]":
        raise SystemExit(f"import qevgrid must not load {heavy.strip()}")
    return float(seconds)


def scalar_env(sockets: int) -> Any:
    """The scalar environment, compiled and warm."""
    import gymnasium as gym

    env = gym.make(ENV, n_sockets=sockets).unwrapped
    env.reset(seed=0)
    env.step(draw(1, sockets)[0])
    return env


def vector_env(sockets: int, envs: int) -> Any:
    """The vector environment, compiled and warm."""
    import gymnasium as gym

    env = gym.make_vec(ENV, num_envs=envs, vectorization_mode="vector_entry_point", n_sockets=sockets)
    env.reset(seed=0)
    env.step(draw(1, envs, sockets)[0])
    return env


def draw(*shape: int) -> Any:
    """Uniform random actions."""
    import numpy as np

    return np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)


def measure_scalar(env: Any, episodes: int) -> dict[str, float]:
    """Episodes of one environment: steps a second without and with resets, and a reset's time."""
    stages = env.core.n_stages
    actions = draw(stages, env.core.n_sockets)
    resets, steps = [], []
    for seed in range(episodes):
        begin = time.perf_counter()
        env.reset(seed=seed)
        middle = time.perf_counter()
        for action in actions:
            env.step(action)
        resets.append(middle - begin)
        steps.append(time.perf_counter() - middle)
    reset_s, step_s = statistics.median(resets), statistics.median(steps)
    return {
        "steps_per_s": stages / step_s,
        "steps_per_s_with_reset": stages / (step_s + reset_s),
        "reset_ms": 1e3 * reset_s,
    }


def measure_vector(env: Any, episodes: int) -> dict[str, float]:
    """Whole episodes of all environments, and the step after each that begins them anew."""
    stages, sockets, envs = env.core.n_stages, env.core.n_sockets, env.num_envs
    actions = draw(TABLES, envs, sockets)
    steps, resets = [], []
    env.reset(seed=0)
    for _ in range(episodes):
        begin = time.perf_counter()
        for t in range(stages):
            ended = env.step(actions[t % TABLES])[2]
        middle = time.perf_counter()
        env.step(actions[0])
        resets.append(time.perf_counter() - middle)
        steps.append(middle - begin)
        if not ended.all():
            raise RuntimeError(f"an episode went on after {stages} steps")
    step_s, reset_s = statistics.median(steps), statistics.median(resets)
    return {"env_steps_per_s": envs * stages / step_s, "env_steps_per_s_with_reset": envs * stages / (step_s + reset_s)}


def busy_share(sockets: int, envs: int = 64) -> float:
    """Mean share of sockets with a vehicle, over whole days."""
    env = vector_env(sockets, envs)
    env.reset(seed=10_000)
    action = draw(envs, sockets)
    shares = []
    for _ in range(env.core.n_stages):
        shares.append(float(env.view().plugged.mean()))
        env.step(action)
    return statistics.fmean(shares)


def rival_python(given: str | None) -> str | None:
    """The Python that has EV2Gym: the one given, or that of a virtual environment made on first use."""
    if given:
        return given
    python, ready = CACHE / "bin/python", CACHE / ".ready"
    if not ready.is_file():
        print(f"making {CACHE} (once, 800 MB)", file=sys.stderr)
        install = [python, "-m", "pip", "install", "-qq", "--no-deps", "-r", PINS]
        for command in ([sys.executable, "-m", "venv", "--clear", CACHE], install):
            if subprocess.run(command, stdout=sys.stderr).returncode != 0:
                print("EV2Gym could not be installed, see above; its pins are for Python 3.11. Going on without it: "
                      "pass --ev2gym PYTHON for another interpreter", file=sys.stderr)  # fmt: skip
                return None
        ready.touch()
    return str(python)


def measure_rival(python: str, sockets: tuple[int, ...]) -> list[dict[str, float]]:
    """One repeat of ``ev2gym_speed.py``, a row for each number of sockets."""
    command = [python, "-I", str(RIVAL), "--repeats", "1", "--sockets", *map(str, sockets)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    return [{key: x for key, x in row.items() if key != "all"} for row in rows]


def measure(arguments: argparse.Namespace, python: str | None) -> dict[str, Any]:
    """All rounds, ours and the rival's in turn; medians."""
    sockets = tuple(arguments.sockets)
    scalars = {n: scalar_env(n) for n in sockets}
    vectors = {(n, b): vector_env(n, b) for n in sockets for b in arguments.envs}
    ours: Cases = {n: [] for n in sockets}
    rival: Cases = {n: [] for n in sockets}
    many: dict[tuple[int, int], list[dict[str, float]]] = {case: [] for case in vectors}
    imports = []
    for k in range(arguments.repeats):
        print(f"round {k + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
        imports.append(import_seconds())
        for n, env in scalars.items():
            ours[n].append(measure_scalar(env, episodes=10))
        for case, env in vectors.items():
            many[case].append(measure_vector(env, episodes=1 if case[1] > 100 else 5))
        for row in measure_rival(python, sockets) if python else []:
            rival[int(row["sockets"])].append(row)
    return {
        "import_s": statistics.median(imports),
        "scalar": [{"sockets": n, "busy": busy_share(n), **common.median(rows)} for n, rows in ours.items()],
        "vector": [{"sockets": n, "envs": b, **common.median(rows)} for (n, b), rows in many.items()],
        "ev2gym": [common.median(rows) for rows in rival.values() if rows],
    }


def scalar_table(result: dict[str, Any]) -> str:
    """Our scalar environment beside EV2Gym."""
    rivals = {row["sockets"]: row for row in result["ev2gym"]}
    speed = ("with resets", "reset ms", "busy")
    header = ("sockets", "steps/s", *speed, "EV2Gym steps/s", *speed, "ratio", "with resets")
    return common.markdown(header, (_scalar_row(row, rivals.get(row["sockets"])) for row in result["scalar"]))


def _scalar_row(row: dict[str, float], rival: dict[str, float] | None) -> list[str]:
    keys = (("steps_per_s", 0), ("steps_per_s_with_reset", 0), ("reset_ms", 2), ("busy", 2))
    cells = [common.number(row[key], digits) for key, digits in keys]
    cells += [common.number(rival[key] if rival else None, digits) for key, digits in keys]
    ratios = (row[key] / rival[key] if rival else None for key, _ in keys[:2])
    return [str(row["sockets"]), *cells, *(common.number(ratio, 1) for ratio in ratios)]


def vector_table(result: dict[str, Any]) -> str:
    """Our vector environment, the ratio being that of the steps of one environment on one core."""
    rivals = {row["sockets"]: row["steps_per_s"] for row in result["ev2gym"]}
    header = ("sockets", "envs", "env-steps/s", "million socket-steps/s", "with resets", "times EV2Gym")
    rows = []
    for row in result["vector"]:
        n, speeds = row["sockets"], (row["env_steps_per_s"], row["env_steps_per_s_with_reset"])
        ratio = speeds[0] / rivals[n] if n in rivals else None
        socket_steps = [common.number(n * speed / 1e6, 1) for speed in speeds]
        rows.append([str(n), str(row["envs"]), common.number(speeds[0]), *socket_steps, common.number(ratio)])
    return common.markdown(header, rows)


def target_table(result: dict[str, Any]) -> str:
    """Measured against what was to be reached; rows that were not measured are left out."""
    rows = [_target("import qevgrid, s", result["import_s"], 0.6, least=False, digits=2)]
    for row in result["scalar"]:
        if row["sockets"] == 25:
            rows.append(_target("scalar, 25 sockets, steps/s", row["steps_per_s"], 40_000, least=True))
            rows.append(_target("reset, 25 sockets, ms", row["reset_ms"], 1.0, least=False, digits=2))
    for row in result["vector"]:
        if (row["sockets"], row["envs"]) == (25, 1024):
            speed = 25e-6 * row["env_steps_per_s"]
            rows.append(
                _target("vector, 1,024 x 25 sockets, million socket-steps/s", speed, 30.0, least=True, digits=1)
            )
    return common.markdown(("target", "measured", "wanted", "met"), rows)


def _target(name: str, measured: float, target: float, *, least: bool, digits: int = 0) -> list[str]:
    wanted = f"{'>=' if least else '<'} {common.number(target, digits if target < 100 else 0)}"
    return [name, common.number(measured, digits), wanted, common.verdict(measured, target, least=least)]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, nargs="+", default=SOCKETS)
    parser.add_argument("--envs", type=int, nargs="+", default=ENVS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ev2gym", metavar="PYTHON", help="interpreter that has EV2Gym (default: one of its own)")
    parser.add_argument("--no-ev2gym", action="store_true", help="measure ours alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    python = None if arguments.no_ev2gym else rival_python(arguments.ev2gym)
    common.use_one_core()
    where = common.machine("numpy", "numba", "gymnasium")
    result = measure(arguments, python)
    print(f"{where}. One core, medians of {arguments.repeats} rounds.\n")
    print("Scalar environment:\n", scalar_table(result), sep="\n")
    print("\nVector environment:\n", vector_table(result), sep="\n")
    print(f"\n`import qevgrid` loads none of {', '.join(HEAVY)}.\n", target_table(result), sep="\n")
    common.write_json(arguments.json, {"machine": where, **result})


if __name__ == "__main__":
    main()
