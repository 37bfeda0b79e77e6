"""How fast circuits train and decide: ours beside PennyLane and a network 64 x 64, in one run, in turn.

python benchmarks/vqc_speed.py          about two minutes on one core
python benchmarks/vqc_speed.py --repeats 3 --json speed.json
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import common

common.use_one_core()

import pennylane as qml  # noqa: E402 - after the threads are set
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from qevgrid.agents import build_learner  # noqa: E402
from qevgrid.agents.vqc.circuit import Circuit  # noqa: E402
from qevgrid.agents.vqc.executors import Execution, build_executor  # noqa: E402
from qevgrid.agents.vqc.layer import CircuitLayer  # noqa: E402
from qevgrid.runner.config import load_config  # noqa: E402
from qevgrid.runner.schema import RunConfig  # noqa: E402

CONFIG = common.ROOT / "configs/v2g_vqc.yaml"
SIZES = ((4, 2, 64), (4, 3, 1024), (6, 2, 256), (6, 2, 1024), (6, 4, 1024))
SINGLE = ((4, 2), (4, 3), (6, 2))
TWIN = ["agent.actor=mlp", "agent.hidden=[64, 64]", "agent.lr_head=1"]


def seconds(work: Callable[[], object], times: int) -> float:
    """Mean of a call."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def medians(rivals: dict[str, tuple[Callable[[], object], int]], repeats: int) -> dict[str, float]:
    """Milliseconds of each, measured in turn after a call to warm up."""
    for work, _ in rivals.values():
        work()
    rows = [{name: 1e3 * seconds(work, times) for name, (work, times) in rivals.items()} for _ in range(repeats)]
    return common.median(rows)


def gradient(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Forward and backward of a batch."""
    return lambda: run(x).sum().backward()


def batch(n: int, layers: int, size: int, ansatz: str, repeats: int) -> dict[str, float]:
    """Forward and backward of a batch by both executors."""
    circuit = Circuit(n, layers, ansatz)  # type: ignore[arg-type]
    data, weights = (
        torch.randn(size, circuit.n_data, requires_grad=True),
        torch.randn(circuit.n_weights, requires_grad=True),
    )
    ours = build_executor(circuit, Execution())
    node = qml.QNode(circuit, qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    rivals = {
        "fast": (gradient(lambda x: ours.expectations(x, weights), data), 10),
        "default.qubit": (gradient(lambda x: torch.stack(node(x.T, weights), -1), data), 1),
    }
    return medians(rivals, repeats)


def single(n: int, layers: int, repeats: int) -> dict[str, float]:
    """One observation of n features without gradients: circuit with its encoding, QNode with its, network."""
    circuit = Circuit(n, layers)
    layer, x = CircuitLayer(circuit, n, Execution()), torch.rand(1, n)
    slow = CircuitLayer(circuit, n, Execution(executor="pennylane"))
    network = nn.Sequential(nn.Linear(n, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    with torch.no_grad():
        rivals = {"fast": (lambda: layer(x), 300), "QNode": (lambda: slow(x), 3), "network": (lambda: network(x), 300)}
        return medians(rivals, repeats)  # type: ignore[arg-type]


def training(repeats: int) -> dict[str, float]:
    """Seconds a round of PPO on V2G, circuit and twin 64 x 64 in turn."""
    learners = {}
    for name, keys in (("circuit", []), ("network 64 x 64", TWIN)):
        config = load_config(RunConfig, CONFIG, [*keys, "agent.threads=1"])
        learners[name] = build_learner(config.agent, config.env, 0)
    torch.set_num_threads(1)
    size = config.agent.n_envs * config.agent.n_steps  # type: ignore[union-attr]
    rounds = {name: (lambda one=one: one.learn(one.steps + size, lambda _: None), 1) for name, one in learners.items()}
    found = medians(rounds, repeats)  # type: ignore[arg-type]
    return {name: 1e3 * size / ms for name, ms in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="keep the numbers here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats = arguments.repeats
    print(f"{common.machine('pennylane', 'torch', 'numba')}. One core, medians of {repeats} rounds.\n")
    rows, ratios = [], {}
    for ansatz in ("diag", "rx_ry_rz"):
        for n, layers, size in SIZES:
            ms = batch(n, layers, size, ansatz, repeats)
            ratios[ansatz, n, layers, size] = ms["default.qubit"] / ms["fast"]
            cells = [common.number(ms["fast"], 2), common.number(ms["default.qubit"], 1)]
            rows.append(
                [f"{ansatz}, {n} x {layers}, {size}", *cells, common.number(ms["default.qubit"] / ms["fast"], 1)]
            )
    header = ("ansatz, qubits x layers, batch", "fast ms", "default.qubit ms", "times")
    print("Forward and backward of a batch\n\n" + common.markdown(header, rows) + "\n")
    alone = {(n, layers): single(n, layers, repeats) for n, layers in SINGLE}
    header = ("qubits x layers", "fast ms", "QNode ms", "network 64 x 64 ms", "times QNode")
    cells = [
        [
            f"{n} x {layers}",
            *(common.number(ms[k], 3) for k in ("fast", "QNode", "network")),
            common.number(ms["QNode"] / ms["fast"]),
        ]
        for (n, layers), ms in alone.items()
    ]
    print("One observation, weights at rest\n\n" + common.markdown(header, cells) + "\n")
    rates = training(max(repeats // 2, 1))
    print(
        "PPO on V2G, 30 sockets\n\n"
        + common.markdown(("actor", "env steps/s"), [[k, common.number(v)] for k, v in rates.items()])
    )
    worst = min(ratios["diag", 6, 2, 1024], ratios["rx_ry_rz", 6, 2, 1024])
    at = alone[6, 2]
    targets = [
        ("6 x 2, 1,024: times default.qubit", worst, 8.0, 1),
        ("one observation, 6 x 2: times a QNode", at["QNode"] / at["fast"], 50.0, 0),
        ("one observation, 6 x 2: network's time over ours", at["network"] / at["fast"], 1.0, 2),
        ("one observation, 4 x 3: network's time over ours", alone[4, 3]["network"] / alone[4, 3]["fast"], 1.0, 2),
        ("training: share of the network's steps/s", rates["circuit"] / rates["network 64 x 64"], 0.5, 2),
    ]
    table = [
        [name, common.number(x, d), f">= {common.number(t, d)}", common.verdict(x, t, least=True)]
        for name, x, t, d in targets
    ]
    print("\n" + common.markdown(("target", "measured", "wanted", "met"), table))
    common.write_json(arguments.json, {name: x for name, x, _, _ in targets})


if __name__ == "__main__":
    main()
