"""The circuit agent: both executors agree, gradients too; sizes, groups, files and errors."""

import copy
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from qevgrid.agents import build_learner, load_learned
from qevgrid.agents.vqc.circuit import Circuit, draw
from qevgrid.agents.vqc.executors import Execution, FastExecutor, PennyLaneExecutor, build_executor, check_memory
from qevgrid.agents.vqc.layer import CircuitLayer
from qevgrid.agents.vqc.optim import GroupAdam
from qevgrid.agents.vqc.plan import Plan
from qevgrid.agents.vqc.policy import VQCPolicy
from qevgrid.agents.vqc.trace import UntraceableError, trace
from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.runner.loop import train
from qevgrid.runner.rollout import play
from runs import tiny_config

GATES: dict[str, tuple[int, int]] = {
    "RX": (1, 1), "RY": (1, 1), "RZ": (1, 1), "PhaseShift": (1, 1), "Hadamard": (1, 0), "S": (1, 0), "T": (1, 0),
    "SX": (1, 0), "CNOT": (2, 0), "CZ": (2, 0), "SWAP": (2, 0), "IsingXX": (2, 1), "IsingYY": (2, 1),
    "IsingZZ": (2, 1), "CRX": (2, 1), "CRZ": (2, 1), "ControlledPhaseShift": (2, 1), "Rot": (1, 3),
}  # fmt: skip
"""Wires and angles of the gates that random circuits are made of."""


def by_pennylane(function: Any, n: int, data: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Expectation values (B, R) by default.qubit, differentiable."""
    node = qml.QNode(function, qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    return torch.stack([x.expand(len(data)) for x in node(data.T, weights)], -1)


def compare(function: Any, n: int, n_data: int, n_weights: int, dtype: torch.dtype, tolerance: float) -> None:
    """Values and both gradients against PennyLane's in double precision."""
    g = torch.Generator().manual_seed(3)
    data, weights = (torch.randn(shape, generator=g, dtype=dtype) for shape in ((5, n_data), (n_weights,)))
    plan = Plan(trace(function, n, n_data, n_weights), n_data, n_weights, dtype)
    found, wanted = [], []
    for points, values, run in (
        ((data, weights), found, lambda d, w: plan.run(plan.program(w), d)),
        ((data.double(), weights.double()), wanted, lambda d, w: by_pennylane(function, n, d, w)),
    ):
        d, w = (x.clone().requires_grad_() for x in points)
        out = run(d, w)
        mixed = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).mean()
        grads = torch.autograd.grad(mixed, (d, w), allow_unused=True) if mixed.requires_grad else (None, None)
        values += [out.detach(), *(torch.zeros_like(x) if y is None else y for x, y in zip((d, w), grads, strict=True))]
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("entangler", ["ring", "all", "none"])
@pytest.mark.parametrize("ansatz", ["diag", "rx_ry_rz", "two_axis"])
def test_our_circuits_give_what_pennylane_gives(ansatz: Any, entangler: Any, n: int) -> None:
    circuit = Circuit(n, 2, ansatz, entangler, "zz")
    compare(circuit, n, circuit.n_data, circuit.n_weights, torch.float64, 1e-10)
    compare(circuit, n, circuit.n_data, circuit.n_weights, torch.float32, 1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 4), st.lists(st.tuples(st.sampled_from(sorted(GATES)), st.integers(0, 999)), min_size=1, max_size=12)
)
def test_random_circuits_give_what_pennylane_gives(n: int, recipe: list[tuple[str, int]]) -> None:
    n_data, n_weights = 3, 4

    def function(data: Any, weights: Any) -> list[Any]:
        for name, pick in recipe:
            n_wires, n_angles = GATES[name]
            wires = [(pick + k) % n for k in range(n_wires)]
            angles = [
                0.3 + (data[(pick + k) % n_data] if (pick + k) % 2 else 2 * weights[(pick + k) % n_weights])
                for k in range(n_angles)
            ]
            getattr(qml, name)(*angles, wires=wires)
        return [qml.expval(qml.PauliZ(w)) for w in range(n)] + [qml.expval(qml.PauliZ(0) @ qml.PauliZ(1))]

    compare(function, n, n_data, n_weights, torch.float64, 1e-10)


def test_what_the_tracer_does_not_know_is_named_and_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured_in_x(data: Any, weights: Any) -> list[Any]:
        qml.RY(data[0] * weights[0], wires=0)
        return [qml.expval(qml.PauliX(0))]

    with pytest.raises(UntraceableError, match="affine"):
        trace(measured_in_x, 1, 1, 1)
    monkeypatch.setattr(Circuit, "measurements", lambda self: [qml.expval(qml.PauliX(0))])
    with pytest.warns(UserWarning, match="does not know the observable"):
        executor = build_executor(Circuit(1, 1), Execution())
    assert isinstance(executor, PennyLaneExecutor)


def test_resting_weights_are_compiled_once_and_moved_ones_again() -> None:
    executor = build_executor(Circuit(3, 2), Execution())
    assert isinstance(executor, FastExecutor)
    data, weights = torch.randn(40, 6), torch.randn(6)
    with torch.no_grad():
        first = executor.expectations(data, weights)
        kept = executor._rested
        torch.testing.assert_close(executor.expectations(data[:3], weights), first[:3])
        assert executor._rested is kept
        weights += 0.5
        moved = executor.expectations(data, weights)
    assert executor._rested is not kept and not torch.allclose(moved, first)
    torch.testing.assert_close(executor.expectations(data, weights.requires_grad_()).detach(), moved)
    assert executor.circuits == 40 + 3 + 40 + 40


@pytest.mark.parametrize("action", ["box", "levels"])
def test_the_classical_part_does_not_know_who_runs_the_circuit(action: str) -> None:
    obs_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    act_space = gym.spaces.Box(-1, 1, (2,), np.float32) if action == "box" else gym.spaces.MultiDiscrete([3, 5])
    policy = VQCPolicy(obs_space, act_space, lambda _: 1e-3, circuit=Circuit(2, 2))
    other = VQCPolicy(
        obs_space, act_space, lambda _: 1e-3, circuit=Circuit(2, 2), execution=Execution(executor="pennylane")
    )
    other.load_state_dict(policy.state_dict())
    obs = torch.rand(6, 4) * 2 - 1
    a, b = policy.actor(obs), other.actor(obs)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    for x, y in zip(torch.autograd.grad(a.sum(), list(policy.actor.parameters())),
                    torch.autograd.grad(b.sum(), list(other.actor.parameters())), strict=True):  # fmt: skip
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_shots_and_noise_come_near_the_exact_values() -> None:
    circuit, data, weights = Circuit(2, 2), torch.randn(4, 4), torch.randn(4)
    exact = build_executor(circuit, Execution()).expectations(data, weights)
    shot = build_executor(circuit, Execution("pennylane", shots=10_000, seed=1)).expectations(data, weights)
    assert 0 < (shot - exact).abs().max() < 0.06
    noisy = Execution("pennylane", "default.mixed", depolarizing=(0.01, 0.02), readout_error=0.05)
    damped = build_executor(circuit, noisy).expectations(data, weights)
    assert damped.abs().sum() < 0.95 * exact.abs().sum()
    clean = build_executor(circuit, Execution("pennylane", "default.mixed")).expectations(data, weights)
    torch.testing.assert_close(clean, exact, atol=1e-5, rtol=0)


def test_group_rates_survive_sb3() -> None:
    """SB3 writes one rate into every group at each update; ours still differ after ten."""
    env = DummyVecEnv([lambda: gym.make("CartPole-v1")])
    model = PPO(VQCPolicy, env, policy_kwargs={"circuit": Circuit(2, 2)}, n_steps=64, batch_size=32, n_epochs=1,
                seed=0, device="cpu", learning_rate=lambda left: 1e-4 + 9e-4 * left)  # fmt: skip
    model.learn(640)
    optimizer = model.policy.optimizer
    assert isinstance(optimizer, GroupAdam)
    assert [group["lr_scale"] for group in optimizer.param_groups] == [10.0, 10.0, 30.0, 1.0]
    assert len({group["lr"] for group in optimizer.param_groups}) == 1
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)  # falls linearly to its end


def test_a_step_of_each_group_is_as_large_as_its_share() -> None:
    slow, fast = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = GroupAdam([{"params": [slow]}, {"params": [fast], "lr_scale": 10.0}], lr=1e-3)
    (slow + fast).sum().backward()
    optimizer.step()
    assert fast.item() / slow.item() == pytest.approx(10, rel=1e-4)


def test_every_feature_is_read_and_too_many_are_refused() -> None:
    layer = CircuitLayer(Circuit(2, 2), 5, Execution(), uploads=2)
    x = torch.rand(3, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer.angles(x).sum(), x)
    assert (gradient.abs() > 0).all()
    with pytest.raises(UserError, match=r"9 features: the encoding holds 8 .*set uploads=3"):
        CircuitLayer(Circuit(2, 2), 9, Execution(), uploads=2)


def test_swapping_vehicles_swaps_their_actions_and_the_fleet_may_grow(tmp_path: Path) -> None:
    config = tiny_config(kind="vqc")
    learner = build_learner(config.agent, config.env, 0)
    obs = torch.rand(1, learner.model.observation_space.shape[0]) * 2 - 1  # type: ignore[attr-defined]
    swapped = obs.clone()
    swapped[:, -18:-12], swapped[:, -12:-6] = obs[:, -12:-6], obs[:, -18:-12]
    actor = learner.model.policy.actor  # type: ignore[attr-defined]
    a, b = actor(obs)[0], actor(swapped)[0]
    assert a[0] != a[1]
    torch.testing.assert_close(a[[1, 0, 2]], b)
    learner.save(tmp_path / "model.zip")
    larger = V2GCore(tiny_config({"n_sockets": 7}).env)
    agent = load_learned(tmp_path / "model.zip", "vqc", larger, config.agent)
    episodes = play(larger, agent, [1, 2])
    assert episodes.report["vqc/circuits_a_day"].tolist() == [7 * 24, 7 * 24]
    assert episodes.parameters == learner.parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"critic": "circuit"}, {"actor": "mlp"}, {"ansatz": "two_axis", "readout": "zz"}, {"features": None, "uploads": 7},
        {"form": "single", "features": None, "uploads": 7},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("action", ["box", "levels"])
def test_every_form_trains(changes: dict[str, Any], action: str, tmp_path: Path) -> None:
    warm = {} if action == "box" else {"warm_start": None}
    config = tiny_config({"action": action}, changes | warm, kind="vqc", ruler=False)
    run = train(config, tmp_path / "run")
    assert run.model_zip.is_file()


def test_equal_seeds_give_equal_weights() -> None:
    config = tiny_config(kind="vqc")
    states = []
    for _ in range(2):
        learner = build_learner(config.agent, config.env, 5)
        learner.prepare()
        learner.learn(96, lambda _: None)
        states.append(copy.deepcopy(learner.model.policy.state_dict()))  # type: ignore[attr-defined]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_the_circuit_is_drawn() -> None:
    figure = draw(Circuit(3, 1))
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("RZ") == 3 and words.count("RY") == 3


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ({"qubits": 24, "batch_size": 96}, r"qubits=24: .* need about .* GiB"),
        ({"shots": 100}, "shots=100 with executor=fast"),
        ({"readout_error": 0.1}, "noise with executor=fast"),
        ({"executor": "pennylane", "depolarizing": (0.1, 0.1)}, "set device=default.mixed"),
        ({"executor": "pennylane", "device": "default.qbit"}, "did you mean 'default.qubit'"),
        ({"features": ("soc", "prize")}, "'prize' is no entry"),
        ({"uploads": 1, "layers": 1}, "12 features: the encoding holds 3"),
        ({"form": "single"}, "set agent.features=null"),
    ],
)
def test_bad_settings_are_one_clear_line(agent: dict[str, Any], message: str) -> None:
    config = tiny_config(agent=agent, kind="vqc")
    with pytest.raises(UserError, match=message) as caught:
        build_learner(config.agent, config.env, 0)
    assert "\n" not in str(caught.value)


def test_memory_is_estimated_by_device() -> None:
    check_memory(6, 100_000, Execution())
    with pytest.raises(UserError, match="qubits=16"):
        check_memory(16, 1, Execution("pennylane", "default.mixed"))


def test_a_model_of_another_circuit_is_refused(tmp_path: Path) -> None:
    config = tiny_config(kind="vqc")
    build_learner(config.agent, config.env, 0).save(tmp_path / "model.zip")
    core = V2GCore(config.env)
    for changes, message in (({"qubits": 5}, "was trained as"), ({"actor": "mlp"}, "its actor is a circuit")):
        other = tiny_config(agent=changes, kind="vqc").agent
        with pytest.raises(UserError, match=message):
            load_learned(tmp_path / "model.zip", "x", core, other)
    noisy = tiny_config(agent={"executor": "pennylane", "shots": 100}, kind="vqc").agent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(core, load_learned(tmp_path / "model.zip", "x", core, noisy), [1])


def test_blocks_of_any_size_give_the_same_values() -> None:
    circuit = Circuit(3, 2, "rx_ry_rz")
    with torch.no_grad():
        executor = build_executor(circuit, Execution())  # traced without gradients as well
        data, weights = torch.randn(70, circuit.n_data), torch.randn(circuit.n_weights)
        whole = executor.expectations(data, weights)
        for size in (1, 2, 31, 32, 33, 65):
            torch.testing.assert_close(executor.expectations(data[:size], weights), whole[:size], atol=2e-6, rtol=0)
    torch.testing.assert_close(executor.expectations(data[:33], weights), whole[:33], atol=2e-6, rtol=0)


def test_a_resting_layer_follows_its_scales() -> None:
    layer, x = CircuitLayer(Circuit(2, 2), 3, Execution()), torch.rand(4, 3)
    for _ in range(2):
        with torch.no_grad():
            rested = layer(x)
        torch.testing.assert_close(rested, layer(x).detach(), atol=2e-6, rtol=0)
        with torch.no_grad():
            layer.scale.mul_(1.7)


def test_equal_circuits_run_once_on_a_slow_device(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, seen = Circuit(2, 1), []
    executor = build_executor(circuit, Execution(executor="pennylane"))
    assert isinstance(executor, PennyLaneExecutor)
    node, data, weights = executor.node, torch.rand(3, circuit.n_data)[[0, 1, 0, 2, 1]], torch.rand(circuit.n_weights)
    monkeypatch.setattr(executor, "node", lambda d, w: seen.append(d.shape[1]) or node(d, w))
    with torch.no_grad():
        once = executor.expectations(data, weights)
    torch.testing.assert_close(once, executor.expectations(data, weights))
    assert seen == [3, 5]
