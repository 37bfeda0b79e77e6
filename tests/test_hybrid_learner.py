"""Stage 3's environment of days with twins, and the training of the hybrid agent in its three stages."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import critics
import numpy as np
import pytest
import torch

from qevgrid.agents import build_learner
from qevgrid.agents.hybrid import dataset
from qevgrid.agents.hybrid.agent import HybridAgent
from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.hybrid.corrections import NAMES, STATE, Corrections
from qevgrid.agents.hybrid.critic import fit_net
from qevgrid.agents.hybrid.hybrid_env import HybridEnv
from qevgrid.agents.hybrid.learner import HybridLearner, _actor
from qevgrid.agents.sb3_learner import TRAINING_SEEDS
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner import loop
from runs import rows_of, tiny_config
from worlds import begin, drawn, info_of

ROWS = 3
WORLD = {"n_sockets": 3, "dt_h": 1.0, "outage": {"share": 0.8}}
CORE = V2GCore(V2GParams(**WORLD))
CONFIG = HybridConfig(n_envs=ROWS, reads=1, sweeps=5)


def environment(seed: int = 7, core: V2GCore = CORE) -> HybridEnv:
    env = HybridEnv(core, CONFIG)
    env.use(critics.random(2))
    env.seed(seed)
    return env


def corrections(seed: int = 0) -> Iterator[FloatArray]:
    rng = np.random.default_rng(seed)
    while True:
        yield rng.uniform(-1, 1, (ROWS, len(NAMES))).astype(np.float32)


def rollout(env: HybridEnv, stages: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray, list[Any]]:
    """Observations (K + 1, B, O), rewards and ends (K, B), and infos under corrections of chance."""
    seen, rewards, ends, told = [env.reset()], [], [], []
    for _, action in zip(range(stages), corrections(seed), strict=False):
        obs, reward, done, infos = env.step(action)
        seen, rewards, ends, told = [*seen, obs], [*rewards, reward], [*ends, done], [*told, infos]
    return np.array(seen), np.array(rewards), np.array(ends), told


# -- the environment of days with twins ----------------------------------------------------------


def test_zero_corrections_earn_exactly_nothing() -> None:
    env = environment()
    env.reset()
    for _ in range(30):  # into the second day
        _, reward, _, _ = env.step(np.zeros((ROWS, len(NAMES)), np.float32))
        assert not reward.any()
    _, rewards, _, _ = rollout(environment(), 24)
    assert np.abs(rewards).max() > 1e-3  # others do earn or lose


def test_equal_seeds_are_equal_days() -> None:
    first, second, other = (rollout(environment(seed), 26) for seed in (7, 7, 8))
    for a, b in zip(first[:3], second[:3], strict=True):
        assert a.tobytes() == b.tobytes()
    assert first[0].tobytes() != other[0].tobytes()
    assert first[0].dtype == first[1].dtype == np.float32 and np.abs(first[0]).max() <= 1.0
    np.testing.assert_array_equal(np.flatnonzero(first[2].all(1)), [23])


def test_row_i_plays_the_days_seed_plus_i_and_every_nth_after_it() -> None:
    env = environment(seed=40)
    env.reset()
    for day in range(2):
        for i in range(ROWS):
            wanted = drawn(CORE, 1, 40 + i + day * ROWS).fingerprint(0)
            assert env.batch.scenario.fingerprint(i) == env.twin.scenario.fingerprint(i) == wanted
        for _ in range(24):
            env.step(np.zeros((ROWS, len(NAMES))))
    env.reset()  # the same again
    assert env.batch.scenario.fingerprint(0) == drawn(CORE, 1, 40).fingerprint(0)


def test_the_reward_is_what_the_day_saves_against_its_twin() -> None:
    env = environment()
    _, rewards, _, told = rollout(env, 24)
    totals = []
    for corrected in (True, False):
        batch = CORE.batch(ROWS)
        batch.start(np.arange(ROWS), [np.random.default_rng(7 + i) for i in range(ROWS)])
        cost = np.zeros(ROWS)
        for _, action in zip(range(24), corrections(), strict=False):
            view = batch.view()
            fixes = [Corrections().moved(row if corrected else 0 * row) for row in action.astype(float)]
            f = env.controller.forecast(view)  # type: ignore[union-attr]
            batch.step(np.stack([env.controller.act(view, f, b, fixes[b])[0] for b in range(ROWS)]))  # type: ignore[union-attr]
            cost += batch.outcome.total_usd
        totals.append(cost)
    saved = (totals[1] - totals[0]) * CORE.params.reward_scale
    np.testing.assert_allclose(rewards.sum(0), saved, rtol=1e-4, atol=1e-6)
    assert [info["episode"]["l"] for info in told[-1]] == [24] * ROWS
    np.testing.assert_allclose([info["episode"]["r"] for info in told[-1]], saved, rtol=1e-6, atol=1e-9)


def test_rows_end_and_begin_on_their_own() -> None:
    """A row that begins six stages late ends six stages late; the others go on meanwhile."""
    env = environment()
    env.reset()
    for _ in range(6):
        env.step(np.zeros((ROWS, len(NAMES))))
    env._begin(np.array([1]))
    assert env.batch.state.stage.tolist() == env.twin.state.stage.tolist() == [6, 0, 6]
    for stage in range(7, 32):
        before = [env.batch.scenario.fingerprint(i) for i in range(ROWS)]
        obs, reward, done, infos = env.step(np.zeros((ROWS, len(NAMES))))
        assert done.tolist() == [stage == 24, stage == 30, stage == 24]
        assert not reward.any()
        for i in range(ROWS):
            changed = env.batch.scenario.fingerprint(i) != before[i]
            assert changed == done[i] == bool(infos[i])
            if done[i]:
                last = infos[i]["terminal_observation"]
                assert last.shape == (len(STATE),) and last[STATE.index("progress")] == 1.0
                assert obs[i, STATE.index("progress")] == 0.0
                assert infos[i]["TimeLimit.truncated"] is False


def test_a_copy_has_the_same_future() -> None:
    env = environment()
    rollout(env, 10)
    twin = pickle.loads(pickle.dumps(env))
    for _, action in zip(range(20), corrections(5), strict=False):
        for a, b in zip(env.step(action)[:3], twin.step(action)[:3], strict=True):
            assert a.tobytes() == b.tobytes()


def test_it_must_be_told_its_days() -> None:
    env = HybridEnv(CORE, CONFIG)
    with pytest.raises(UserError, match="seeds"):
        env.reset()
    assert env.get_attr("base") == [Corrections()] * ROWS
    assert env.env_method("seed", 3, indices=[0]) == [[3, 4, 5]]
    env.set_attr("base", Corrections(premium=2.0))
    assert env.base.premium == 2.0


# -- the critic ----------------------------------------------------------------------------------


def test_a_net_learns_and_is_repeatable() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)) * [1.0, 20.0, 0.0] + [0.0, 5.0, 7.0]  # one input never changes
    y = 0.3 + 0.2 * np.tanh(x[:, 0]) - 0.01 * x[:, 1]
    nets = [fit_net(x, y, hidden=8, epochs=200, lr=1e-2, seed=seed) for seed in (1, 1, 2)]
    assert np.sqrt(np.mean((nets[0](x) - y) ** 2)) < 0.2 * y.std()
    assert nets[0](x).tobytes() == nets[1](x).tobytes() != nets[2](x).tobytes()
    assert nets[0].parameters == 3 * 8 + 8 + 8 * 8 + 8 + 8 + 1


# -- training ------------------------------------------------------------------------------------


def config_of(**agent: Any) -> Any:
    return tiny_config(kind="hybrid", agent=agent, env={"outage": {"share": 0.8}}, eval_episodes=1, ruler=False)


def learner_of(**agent: Any) -> HybridLearner:
    config = config_of(**agent)
    learner = build_learner(config.agent, config.env, 3)
    assert isinstance(learner, HybridLearner)
    return learner


def weights(learner: HybridLearner) -> list[bytes]:
    trained = learner._trained()
    nets = [x.tobytes() for x in trained.critic.arrays().values()]
    return nets + [p.detach().numpy().tobytes() for p in learner.model.policy.parameters()]


def silent(learner: Any) -> None:
    """A hook that does nothing."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HybridLearner, Path]]:
    """A learner after stages 1 and 2 and two rounds, and its checkpoint of the first."""
    learner, path = learner_of(), tmp_path_factory.mktemp("hybrid") / "checkpoint"
    learner.prepare()

    def keep(now: Any) -> None:
        if now.steps == 96:
            now.checkpoint(path)

    learner.learn(192, keep)
    yield learner, path


def test_a_restored_training_gives_the_weights_of_an_uninterrupted_one(trained: tuple[HybridLearner, Path]) -> None:
    whole, path = trained
    assert whole.steps == 192
    again = learner_of()
    again.restore(path)
    assert again.steps == 96 and again.critic is not None
    halfway = weights(again)
    again.learn(192, silent)
    assert weights(again) == weights(whole) != halfway


def test_equal_seeds_learn_the_same(trained: tuple[HybridLearner, Path]) -> None:
    again = learner_of()
    again.prepare()
    again.learn(192, silent)
    assert weights(again) == weights(trained[0])


def test_a_saved_agent_acts_the_same(trained: tuple[HybridLearner, Path], tmp_path: Path) -> None:
    learner, core = trained[0], V2GCore(config_of().env)
    learner.save(path := tmp_path / "model.zip")
    mine, loaded = learner.agent("mine", core), HybridAgent.load(path, "mine", core, learner.config)
    assert (loaded.name, loaded.parameters) == (mine.name, learner.parameters)
    batch = begin(core, drawn(core, 2))
    while not batch.over.all():
        action = mine.act(batch.observe(), info_of(batch))
        assert action.tobytes() == loaded.act(batch.observe(), info_of(batch)).tobytes()
        batch.step(action)


def test_the_policy_is_what_ppo_learned(trained: tuple[HybridLearner, Path]) -> None:
    policy = trained[0].model.policy
    state = np.random.default_rng(0).uniform(-1, 1, (5, len(STATE))).astype(np.float32)
    wanted, _ = policy.predict(state, deterministic=True)
    np.testing.assert_allclose(_actor(policy)(state.astype(float)), wanted, atol=1e-6)
    assert trained[0]._trained().actor is not None


def test_before_the_first_round_nothing_is_corrected() -> None:
    learner = learner_of()
    with pytest.raises(UserError, match="not trained yet"):
        learner.save(Path("nowhere"))
    learner._take(critics.random(1))
    assert learner._trained().actor is None
    state = np.random.default_rng(0).uniform(-1, 1, (5, len(STATE))).astype(np.float32)
    assert np.abs(learner.model.policy.predict(state, deterministic=True)[0]).max() < 0.05  # almost none then


def test_training_days_are_no_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels come from days of their own, stage by stage, and none is one of stage 3."""
    asked: list[list[int]] = []

    def note(core: Any, agent: Any, seeds: Any, *rest: Any) -> Any:
        asked.append(list(seeds))
        return collect(core, agent, seeds, *rest)

    collect = dataset.collect
    monkeypatch.setattr(dataset, "collect", note)
    learner = learner_of()
    learner.prepare()
    assert len(asked) == 2 and not set(asked[0]) & set(asked[1])
    assert min(map(min, asked)) >= TRAINING_SEEDS
    learner.model.env.reset()  # type: ignore[union-attr]
    rollouts = set(learner.model.env._next_seed)  # type: ignore[union-attr]
    assert rollouts and max(rollouts) < min(map(min, asked)) and min(rollouts) >= TRAINING_SEEDS


@pytest.mark.parametrize(
    ("env", "agent", "text"),
    [
        ({"action": "levels"}, {}, r"agent\.kind=hybrid .*; set env\.action=box"),
        ({}, {"critic": False}, r"agent\.critic=false .*; set agent\.critic=true"),
        ({}, {"sampler": "qpu"}, r"agent\.sampler=qpu: .* train with structured"),
        ({}, {"sampler": "leap_hybrid"}, r"agent\.sampler=leap_hybrid: .* train with structured"),
        ({}, {"batch_size": 50}, r"agent\.batch_size=50: must divide n_envs \* n_steps = 96; try 48"),
    ],
)
def test_settings_that_do_not_go_together(env: dict[str, Any], agent: dict[str, Any], text: str) -> None:
    config = tiny_config(kind="hybrid", env=env, agent=agent)
    with pytest.raises(UserError, match=text):
        build_learner(config.agent, config.env, 0)


def test_a_run_trains_validates_and_can_be_loaded(tmp_path: Path) -> None:
    config = config_of()
    run = loop.train(config, tmp_path / "run")
    assert [row["step"] for row in rows_of(run.evaluations_csv)] == ["0", "96", "192"]
    core = V2GCore(config.env)
    agent = HybridAgent.load(run.model_zip, "mine", core, config.agent)
    batch = begin(core, drawn(core, 1))
    assert np.isfinite(agent.act(batch.observe(), info_of(batch))).all()
