"""Any kind of learned agent: how training drives it, how an evaluation finds, sets and spreads it.

A made-up kind stands in for ``hybrid``; PPO on something else than the environment is at the end.
"""

import inspect
import json
import pickle
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnvWrapper
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from qevgrid import agents
from qevgrid.agents import LEARNERS, RIVALS, make_rival, ppo
from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.learner import Hook, Learner
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.problem import PROBLEM
from qevgrid.runner import loop, metrics, parallel
from qevgrid.runner.config import fields_of, load_config, members_of, variants_of
from qevgrid.runner.folder import RunFolder
from qevgrid.runner.log import read_scalars
from qevgrid.runner.parallel import Player, play_rival, play_spread
from qevgrid.runner.rollout import Episodes, play
from qevgrid.runner.schema import RunConfig
from runs import rows_of, run_evaluate, run_train, tiny_config

ROUND = 96
CALLS: list[str] = []
LOADED: list[HybridConfig | None] = []


class FakeAgent(Agent):
    """Asks the same of every socket."""

    slow = False

    def __init__(self, name: str, action: float, config: HybridConfig | None = None) -> None:
        self.name, self.action, self.config = name, action, config

    def begin(self, info: dict[str, Any]) -> None:
        self.size = len(info["view"].plugged)

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        return np.full(info["view"].plugged.shape, self.action)

    def report(self) -> dict[str, FloatArray]:
        return {"qubo/variables": 10.0 * np.arange(self.size), "seconds": np.ones(self.size)}

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore, config: HybridConfig | None = None) -> "FakeAgent":
        LOADED.append(config)
        return cls(name, json.loads(path.read_text())["action"], config)


class SlowFake(FakeAgent):
    """The same, worth spreading."""

    slow = True


def shipped(config: HybridConfig | None = None) -> FakeAgent:
    """A rival of the kind; half power, or as much as its reads say."""
    LOADED.append(config)
    return SlowFake("hybrid", 0.5 if config is None else config.reads / 100, config)


class FakeLearner(Learner):
    """Draws its action anew each round, from a generator that only a checkpoint can carry on."""

    parameters = 7
    steps = 0

    def __init__(self, seed: int) -> None:
        self.action, self.rng = -1.0, np.random.default_rng(seed)

    def set_logger(self, logger: Any) -> None:
        CALLS.append("set_logger")
        self.logger = logger

    def prepare(self) -> None:
        CALLS.append("prepare")
        self.action = 0.0

    def learn(self, total_steps: int, hook: Hook) -> None:
        while self.steps < total_steps:
            hook(self)
            CALLS.append("round")
            self.action, self.steps = float(self.rng.uniform(0, 1)), self.steps + ROUND
            self.logger.record("train/action", self.action)
            self.logger.dump(self.steps)

    def agent(self, name: str, core: V2GCore) -> Agent:
        CALLS.append("agent")
        return FakeAgent(name, self.action)

    def save(self, path: Path) -> None:
        CALLS.append("save")
        path.write_text(json.dumps({"action": self.action}))

    def checkpoint(self, path: Path) -> None:
        CALLS.append("checkpoint")
        path.write_bytes(pickle.dumps((self.action, self.steps, self.rng)))

    def restore(self, path: Path) -> None:
        CALLS.append("restore")
        self.action, self.steps, self.rng = pickle.loads(path.read_bytes())


def build(config: HybridConfig, params: V2GParams, seed: int) -> FakeLearner:
    CALLS.append(f"build {config.kind} {params.n_sockets} {seed}")
    return FakeLearner(seed)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """``hybrid`` is the made-up kind, as a learned agent and as a rival."""
    monkeypatch.setitem(LEARNERS, "hybrid", f"{__name__}:FakeAgent")
    monkeypatch.setitem(RIVALS["qevgrid/V2G-v0"].paths, "hybrid", f"{__name__}:shipped")
    CALLS.clear()
    LOADED.clear()


def fake_config(**run: Any) -> RunConfig:
    return tiny_config(kind="hybrid", **({"ruler": False, "seed": 3} | run))


# --- the registry ----------------------------------------------------------------------------------


def test_kinds_of_the_schema_are_those_that_can_learn() -> None:
    _, kinds = variants_of(members_of(fields_of(RunConfig)["agent"].annotation))
    assert list(kinds) == list(LEARNERS)


def test_reading_a_configuration_loads_nothing_heavy() -> None:
    code = """
import sys
import qevgrid.runner.schema
heavy = {"torch", "stable_baselines3", "numba", "matplotlib", "tqdm"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_rival_of_their_kind_takes_settings() -> None:
    settings = HybridConfig(sampler="neal")
    assert make_rival("hybrid", settings).config is settings  # type: ignore[attr-defined]
    assert make_rival("hybrid", PPOConfig()).config is None  # type: ignore[attr-defined]
    assert make_rival("hybrid").config is None  # type: ignore[attr-defined]
    assert make_rival("idle", settings).name == "idle"


# --- training --------------------------------------------------------------------------------------


def test_training_keeps_to_the_contract(tmp_path: Path) -> None:
    run = loop.train(fake_config(), tmp_path / "run")
    validation = ["agent", "save", "checkpoint"]
    kept = [call for call in CALLS if call != "save"]
    assert CALLS[:6] == ["build hybrid 3 3", "set_logger", "prepare", *validation]
    assert kept[3:] == ["agent", "checkpoint", "round"] * 2 + ["agent", "checkpoint"]
    assert [row["step"] for row in rows_of(run.evaluations_csv)] == ["0", "96", "192"]
    found = json.loads(run.metrics_json.read_text(encoding="utf-8"))
    assert (found["steps"], found["parameters"]) == (192, 7)
    assert found["validation"]["agent"] == "run"


def test_the_best_of_it_is_kept(tmp_path: Path) -> None:
    """Its cost is the lowest of all validations, and the figures at the end are its."""
    run = loop.train(fake_config(total_steps=480), tmp_path / "run")
    costs = [float(row["cost_usd"]) for row in rows_of(run.evaluations_csv)]
    assert min(costs) not in (costs[0], costs[-1])
    core, seeds = V2GCore(fake_config().env), [loop.VALIDATION_SEEDS + k for k in range(2)]
    best = play(core, Player("mine", run.path).agent(core), seeds)
    assert best.total_usd.mean() == pytest.approx(min(costs), rel=1e-12)
    found = json.loads(run.metrics_json.read_text(encoding="utf-8"))
    assert found["validation"]["cost_usd_mean"] == found["validation_cost_usd"] == min(costs)


def test_its_best_weights_play_by_the_runs_own_settings(tmp_path: Path) -> None:
    config = fake_config(agent={"sampler": "tabu"})
    loop.train(config, tmp_path / "run")
    assert LOADED == [config.agent]


@pytest.mark.parametrize(("method", "nth", "kept"), [("prepare", 1, 0), ("learn", 1, 0), ("agent", 3, 96)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    method: str, nth: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.train(fake_config(), tmp_path / "whole")
    original, count = getattr(FakeLearner, method), iter(range(1, 10))

    def stopping(*arguments: Any) -> Any:
        if next(count) == nth:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FakeLearner, method, stopping)
        with pytest.raises(KeyboardInterrupt, match=f"saved up to step {kept}; go on with: .* --resume"):
            loop.train(fake_config(), tmp_path / "run")
    CALLS.clear()
    run = loop.train(fake_config(), tmp_path / "run", resume=True)
    again = method != "agent"  # nothing had been validated: it begins anew
    assert ("prepare" in CALLS, "restore" in CALLS) == (again, not again)
    assert CALLS.count("round") == (2 if again else 1)
    assert run.evaluations_csv.read_text() == whole.evaluations_csv.read_text()
    assert run.model_zip.read_text() == whole.model_zip.read_text()
    assert pickle.loads(run.checkpoints[192].read_bytes())[0] == pickle.loads(whole.checkpoints[192].read_bytes())[0]


def test_a_run_of_another_kind_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loop.train(fake_config(), tmp_path / "run")
    told = run_train(capsys, run.path, "--resume", "seed=3", "ruler=False")
    assert told.code == 2
    assert "differs from the configuration given (agent.kind)" in told.err


def layout_of(folder: Path) -> dict[str, list[str]]:
    """Charts by category of the CUSTOM SCALARS page."""
    events = EventAccumulator(str(folder))
    events.Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    return {category.title: [chart.title for chart in category.chart] for category in layout.category}


def test_what_the_agent_reports_has_its_own_charts(tmp_path: Path) -> None:
    run = loop.train(fake_config(), tmp_path / "run")
    scalars = read_scalars(run.path)
    steps, values = scalars["qubo/variables"]
    assert (steps.tolist(), values.tolist()) == ([0, 96, 192], [5.0] * 3)  # of 0 and 10
    assert scalars["train/action"][0].tolist() == [96, 192]
    assert not [tag for tag in scalars if "seconds" in tag]
    charts = layout_of(run.path)
    assert charts["action step"] == ["qubo/variables"]
    assert {"eval/score", "eval/cost_usd"} == set(charts["score and cost"])


def test_no_chart_for_what_nobody_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeAgent, "report", lambda self: {})
    run = loop.train(fake_config(), tmp_path / "run")
    assert "action step" not in layout_of(run.path)
    assert "cost parts" in layout_of(run.path)


# --- figures that agents report --------------------------------------------------------------------


def test_reports_are_of_the_episodes_played_not_of_the_timing() -> None:
    core = V2GCore(fake_config().env)
    episodes = play(core, FakeAgent("mine", 0.0), [1, 2, 3])
    np.testing.assert_array_equal(episodes.report["qubo/variables"], [0.0, 10.0, 20.0])


def test_means_of_reports_by_tag() -> None:
    core, nan = V2GCore(fake_config().env), np.nan
    episodes = play(core, FakeAgent("mine", 0.0), [1, 2, 3])
    gaps = {"qubo/gap_share": [nan, 0.1, 0.3], "qubo/none": [nan] * 3, "bound_usd": [1.0] * 3}
    episodes.report = {key: np.array(values) for key, values in gaps.items()}
    (row,) = metrics.table([episodes], None, None, PROBLEM)
    assert (row["qubo/gap_share"], row["qubo/none"]) == (pytest.approx(0.2), None)
    assert "bound_usd" not in row
    found = metrics.scalars(row, episodes, PROBLEM)
    assert (found["qubo/gap_share"], found["qubo/none"]) == (pytest.approx(0.2), None)
    assert "bound_usd" not in found


def test_evaluations_hold_what_was_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loop.train(fake_config(), tmp_path / "mine")
    told = run_evaluate(capsys, tmp_path / "out", run.path, "idle", "--no-ruler")
    assert told.code == 0, told.err
    mine, _, idle, _ = rows_of(tmp_path / "out" / "episodes.csv")
    assert (mine["agent"], mine["qubo/variables"], mine["seconds"]) == ("mine", "0.0", "1.0")
    assert (idle["agent"], idle["qubo/variables"]) == ("idle", "")
    table = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["table"]
    assert [row.get("qubo/variables") for row in table] == [5.0, None]
    assert list(rows_of(tmp_path / "out" / "table.csv")[0]) == metrics.table_columns(PROBLEM)
    tensorboard = tmp_path / "out" / "tensorboard"
    assert read_scalars(tensorboard / "mine")["qubo/variables"][1].tolist() == [5.0] * 2
    assert "qubo/variables" not in read_scalars(tensorboard / "idle")


# --- whose settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [(None, "tabu"), (PPOConfig(), "tabu"), (HybridConfig(sampler="neal"), "neal")],
    ids=["none", "another kind", "its kind"],
)
def test_a_runs_settings_are_its_own_unless_given(settings: Any, wanted: str, tmp_path: Path) -> None:
    config = fake_config(agent={"sampler": "tabu"})
    run = loop.train(config, tmp_path / "run")
    agent = Player("mine", run.path, settings).agent(V2GCore(config.env))
    assert isinstance(agent, FakeAgent)
    assert (agent.name, agent.config) == ("mine", (settings if wanted == "neal" else config.agent))
    assert agent.config is not None and agent.config.sampler == wanted


def test_settings_of_the_command_line_reach_rival_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = loop.train(fake_config(agent={"sampler": "tabu"}), tmp_path / "mine")
    fixed = [run.path, "hybrid", "--no-ruler"]
    for number, (more, wanted) in enumerate(
        [([], [None, "tabu"]), (["agent={kind: hybrid, sampler: neal}"], ["neal", "neal"])]
    ):
        LOADED.clear()
        told = run_evaluate(capsys, tmp_path / f"out{number}", *fixed, *more)
        assert told.code == 0, told.err
        assert {config and config.sampler for config in LOADED} == set(wanted)
    saved = json.loads((tmp_path / "out1" / "evaluation.json").read_text(encoding="utf-8"))["config"]
    (tmp_path / "saved.yaml").write_text(saved)
    assert load_config(RunConfig, tmp_path / "saved.yaml").agent == HybridConfig(sampler="neal")


def test_settings_that_cannot_be_used_are_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(config: HybridConfig | None = None) -> None:
        raise UserError(f"agent.sampler={config.sampler if config else None}: no token; see docs")

    run = loop.train(fake_config(), tmp_path / "mine")
    monkeypatch.setattr(sys.modules[__name__], "shipped", refuse)
    monkeypatch.setattr(FakeAgent, "load", lambda path, name, core, config: refuse(config))
    monkeypatch.setattr("qevgrid.runner.evaluation.play_spread", lambda *_, **__: pytest.fail("played"))
    for name in ("hybrid", run.path):
        told = run_evaluate(capsys, tmp_path / "out", "idle", name, "agent={kind: hybrid, sampler: qpu}")
        assert (told.code, told.err) == (2, "error: agent.sampler=qpu: no token; see docs\n")
    assert not (tmp_path / "out").exists()


# --- processes -------------------------------------------------------------------------------------


class Inline:
    """Stands in for the pool of processes: everything is pickled, nothing is started."""

    used = 0

    def __init__(self, workers: int, context: Any) -> None:
        Inline.used = workers

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to stop."""

    def submit(self, *call: Any) -> Future[Any]:
        function, *arguments = pickle.loads(pickle.dumps(call))
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> type[Inline]:
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(Inline, "used", 0)
    return Inline


def assert_same(a: Episodes, b: Episodes) -> None:
    assert (a.agent, a.seeds, a.fingerprints, a.parameters) == (b.agent, b.seeds, b.fingerprints, b.parameters)
    np.testing.assert_array_equal(a.cost_usd, b.cost_usd)
    assert list(a.traces) == list(b.traces)


def test_settings_reach_the_other_processes(inline: type[Inline]) -> None:
    params, settings = fake_config().env, HybridConfig(reads=30)
    alone = play_rival("hybrid", params, [1, 2, 3], [2], settings=settings, jobs=1)
    assert not inline.used
    spread = play_rival("hybrid", params, [1, 2, 3], [2], settings=settings, jobs=2)
    assert inline.used == 2
    assert_same(alone, spread)
    assert all(config == settings for config in LOADED)
    plain = play_rival("hybrid", params, [1, 2, 3], jobs=2)
    assert (plain.total_usd != spread.total_usd).all()  # half power instead of 0.3


def test_a_slow_run_is_spread_by_its_folder(
    inline: type[Inline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = loop.train(fake_config(), tmp_path / "mine")
    fixed = [run.path, "--no-ruler", "--episodes", 3, "--jobs", 2]
    assert run_evaluate(capsys, tmp_path / "alone", *fixed).code == 0
    assert not inline.used
    monkeypatch.setitem(LEARNERS, "hybrid", f"{__name__}:SlowFake")
    assert run_evaluate(capsys, tmp_path / "spread", *fixed).code == 0
    assert inline.used == 2
    alone, spread = (rows_of(tmp_path / name / "episodes.csv") for name in ("alone", "spread"))
    assert [row["cost_usd"] for row in alone] == [row["cost_usd"] for row in spread]
    assert {row["agent"] for row in spread} == {"mine"}
    assert [row["qubo/variables"] for row in spread] == ["0.0", "10.0", "0.0"]  # two days, then one


def test_a_learned_agent_acts_the_same_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real one and real processes."""
    config = tiny_config(agent={"warm_start": None}, total_steps=96, ruler=False)
    run, told = loop.train(config, tmp_path / "run"), []
    player, core = Player("mine", run.path, config.agent), V2GCore(config.env)
    alone = play_spread(player, core, [1, 2, 3], [2], jobs=2)
    monkeypatch.setattr(ppo.PPOAgent, "slow", True)  # here, so that it is spread
    assert_same(alone, play_spread(player, core, [1, 2, 3], [2], jobs=2, advance=told.append))
    assert sorted(told) == [1, 2]


# --- PPO on something else -------------------------------------------------------------------------


class PushEnv(VecEnvWrapper):
    """The action is one number: all sockets ask for it on top of ``base``, which is learned beforehand."""

    def __init__(self, venv: Any, base: FloatArray) -> None:
        super().__init__(venv, action_space=gym.spaces.Box(-1.0, 1.0, (1,), np.float32))
        self.base = base

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))

    def step_async(self, actions: Any) -> None:
        self.venv.step_async(np.clip(self.base + actions, -1, 1).astype(np.float32))

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def reset(self) -> Any:
        return self.venv.reset()


class PushAgent(Agent):
    """Base and push."""

    def __init__(self, name: str, base: FloatArray, policy: Any) -> None:
        self.name, self.base, self.policy = name, base.copy(), policy

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        return np.clip(self.base + self.policy.predict(obs, deterministic=True)[0], -1, 1)

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore, config: Any = None) -> "PushAgent":
        return cls(name, *pickle.loads(path.read_bytes()))


class PushLearner(ppo.PPOLearner):
    """As the hybrid's last stage: PPO over a small vector, after a stage of its own."""

    def __init__(self, config: HybridConfig, params: V2GParams, seed: int) -> None:
        self.base = np.full(params.n_sockets, np.nan)
        names = ("lr", "n_envs", "n_steps", "batch_size", "n_epochs", "threads")
        common = {name: getattr(config, name) for name in names}
        super().__init__(PPOConfig(policy="mlp", shaping_usd_kwh=None, warm_start=None, **common), params, seed)

    def environment(self) -> PushEnv:
        return PushEnv(super().environment(), self.base)

    def prepare(self) -> None:
        CALLS.append("prepare")
        self.base[:] = np.linspace(0.0, 0.4, len(self.base))

    def normalise(self, buffer: Any) -> None:
        CALLS.append("normalise")
        buffer.advantages -= buffer.advantages.mean()

    def agent(self, name: str, core: V2GCore) -> Agent:
        return PushAgent(name, self.base, self.model.policy)

    def save(self, path: Path) -> None:
        path.write_bytes(pickle.dumps((self.base, self.model.policy)))

    def state(self) -> dict[str, Any]:
        return super().state() | {"base": self.base}

    def set_state(self, rest: dict[str, Any]) -> None:
        super().set_state(rest)
        self.base = rest["base"]


@pytest.fixture
def push(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEARNERS, "hybrid", f"{__name__}:PushAgent")
    monkeypatch.setattr(sys.modules[__name__], "build", PushLearner)


@pytest.mark.usefixtures("push")
def test_ppo_over_a_small_vector_in_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns, is loaded again, and goes on from a checkpoint as if it had never stopped."""
    whole = loop.train(fake_config(), tmp_path / "whole")
    assert CALLS == ["prepare", "normalise", "normalise"]
    learner = agents.build_learner(fake_config().agent, fake_config().env, 3)
    assert isinstance(learner, PushLearner)
    assert learner.model.action_space.shape == (1,)
    start = [weight.clone() for weight in learner.model.policy.state_dict().values()]
    learner.restore(whole.checkpoints[192])
    assert learner.steps == 192
    assert learner.model.env.base is learner.base  # type: ignore[union-attr]
    assert any((a != b).any() for a, b in zip(start, learner.model.policy.state_dict().values(), strict=True))

    train, count = ppo.PPO.train, iter(range(1, 10))
    with monkeypatch.context() as patch:
        patch.setattr(ppo.PPO, "train", lambda self: train(self) if next(count) == 1 else stop())
        with pytest.raises(KeyboardInterrupt, match="saved up to step 96"):
            loop.train(fake_config(), tmp_path / "run")
    CALLS.clear()
    run = loop.train(fake_config(), tmp_path / "run", resume=True)
    assert CALLS == ["normalise"]
    assert run.evaluations_csv.read_text() == whole.evaluations_csv.read_text()
    policies = [pickle.loads(r.checkpoints[192].read_bytes())["policy"] for r in (run, RunFolder(tmp_path / "whole"))]
    assert all((policies[0][key] == policies[1][key]).all() for key in policies[0])


def stop() -> None:
    raise KeyboardInterrupt
