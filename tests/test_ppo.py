"""PPO: the shared network, shaping, regimes, seeds, learning, best weights, and runs that go on."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import make_rival, ppo, warm_start
from qevgrid.agents.regimes import FEWEST, RISKY, Regimes
from qevgrid.agents.sb3_learner import ROWS_PER_RUN, TRAINING_SEEDS
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.agents.shaping import ShapedVecEnv
from qevgrid.agents.shared_policy import SharedPolicy
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.observe import N_SOCKET, known_labels
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner import loop
from qevgrid.runner.rollout import play
from runs import rows_of, tiny_config
from worlds import core_of

N_SHARED = 11
CALM = {"outage": {"share": 0.0}}


def policy_for(n_sockets: int, seed: int = 0) -> SharedPolicy:
    """A policy with large random weights, so that its actions differ."""
    obs = gym.spaces.Box(-1.0, 1.0, (N_SHARED + N_SOCKET * n_sockets,), np.float32)
    act = gym.spaces.Box(-1.0, 1.0, (n_sockets,), np.float32)
    policy = SharedPolicy(obs, act, lambda _: 1e-3, n_features=N_SOCKET, actor=[8, 8], critic=[8], log_std_init=-0.5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight is not policy.log_std:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return policy


def observations(n_sockets: int, size: int = 5) -> torch.Tensor:
    return torch.rand((size, N_SHARED + N_SOCKET * n_sockets), generator=torch.Generator().manual_seed(1)) * 2 - 1


def with_sockets(obs: torch.Tensor, order: list[int]) -> torch.Tensor:
    """The same observation with sockets in another order, or repeated."""
    sockets = obs[:, N_SHARED:].unflatten(1, (-1, N_SOCKET))[:, order]
    return torch.cat([obs[:, :N_SHARED], sockets.flatten(1)], 1)


def means_and_values(policy: SharedPolicy, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return policy.get_distribution(obs).mode(), policy.predict_values(obs)


# --- the shared policy -----------------------------------------------------------------------------


def test_swapped_sockets_swap_their_actions() -> None:
    policy, obs, order = policy_for(4), observations(4), [2, 1, 0, 3]
    action, value = means_and_values(policy, obs)
    swapped, same = means_and_values(policy, with_sockets(obs, order))
    torch.testing.assert_close(swapped, action[:, order])
    torch.testing.assert_close(same, value)
    assert (action[:, 0] - action[:, 2]).abs().min() > 1e-3
    assert value.std() > 1e-3


def test_a_policy_runs_on_any_number_of_sockets() -> None:
    small, large = policy_for(2), policy_for(6, seed=9)
    large.load_state_dict(small.state_dict())
    obs = observations(2)
    action, value = means_and_values(small, obs)
    repeated, same = means_and_values(large, with_sockets(obs, [0, 1] * 3))
    torch.testing.assert_close(repeated, action.repeat(1, 3))
    torch.testing.assert_close(same, value)


def test_parameters_do_not_grow_with_the_fleet() -> None:
    counts = {sum(p.numel() for p in policy_for(n).parameters()) for n in (1, 4, 50)}
    assert len(counts) == 1
    assert policy_for(4).log_std.shape == (1,)


def test_all_sockets_explore_alike() -> None:
    policy, obs = policy_for(3), observations(3)
    mean, _ = means_and_values(policy, obs)
    _, log_prob, entropy = policy.evaluate_actions(obs, mean + 0.3)
    normal = torch.distributions.Normal(0.0, float(np.exp(-0.5)))
    torch.testing.assert_close(log_prob.detach(), normal.log_prob(torch.tensor(0.3)).expand(5) * 3)
    torch.testing.assert_close(entropy.detach(), normal.entropy().expand(5) * 3)  # type: ignore[union-attr]


def test_every_weight_learns() -> None:
    policy, obs = policy_for(3), observations(3)
    values, log_prob, _ = policy.evaluate_actions(obs, torch.zeros(5, 3))
    (values.sum() + log_prob.sum()).backward()
    known = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    for name, weight in policy.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
        assert id(weight) in known, name


@pytest.mark.parametrize("policy", ["shared", "mlp"])
def test_saved_models_act_the_same(tmp_path: Path, policy: str) -> None:
    config = tiny_config(agent={"policy": policy})
    learner, core = ppo.build(config.agent, config.env, 3), V2GCore(config.env)
    learner.save(tmp_path / "model.zip")
    obs = np.random.default_rng(0).uniform(-1, 1, (7, len(core.labels))).astype(np.float32)
    wanted, _ = learner.model.predict(obs, deterministic=True)
    agent = ppo.PPOAgent.load(tmp_path / "model.zip", "mine", core)
    np.testing.assert_array_equal(agent.act(obs, {}), wanted)
    np.testing.assert_array_equal(PPO.load(tmp_path / "model.zip").predict(obs, deterministic=True)[0], wanted)
    assert agent.name == "mine"
    np.testing.assert_array_equal(learner.agent("mine", core).act(obs, {}), wanted)
    assert 0 < agent.parameters == learner.parameters < sum(p.numel() for p in learner.model.policy.parameters())


def test_only_what_fits_is_loaded(tmp_path: Path) -> None:
    config = tiny_config()
    ppo.build(config.agent, config.env, 0).save(path := tmp_path / "model.zip")
    more = V2GCore(tiny_config(env={"n_sockets": 6}).env)
    agent = ppo.PPOAgent.load(path, "mine", more)
    assert agent.act(np.zeros((2, len(more.labels)), np.float32), {}).shape == (2, 6)
    for other in ({"site": {"bus": (17, 24)}}, {"action": "levels"}):
        with pytest.raises(UserError, match=r"model\.zip: trained on observations .*; evaluate with the env\.\* keys"):
            ppo.PPOAgent.load(path, "mine", V2GCore(tiny_config(env=other).env))


def test_an_mlp_needs_its_own_number_of_sockets(tmp_path: Path) -> None:
    config = tiny_config(agent={"policy": "mlp"})
    ppo.build(config.agent, config.env, 0).save(path := tmp_path / "model.zip")
    with pytest.raises(UserError, match="trained on observations"):
        ppo.PPOAgent.load(path, "mine", V2GCore(tiny_config(env={"n_sockets": 6}).env))


@pytest.mark.parametrize("content", [b"", b"no zip at all", None])
def test_a_damaged_model_is_the_users_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.zip"
    if content is None:
        config = tiny_config()
        ppo.build(config.agent, config.env, 0).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.zip: is not a readable model .*; train anew"):
        ppo.PPOAgent.load(path, "mine", core_of("default"))


# --- shaping ---------------------------------------------------------------------------------------


def vector_env(size: int = 3, **changes: Any) -> SB3VecEnv:
    options = {"n_sockets": 3, "dt_h": 1.0, "autoreset_mode": "SameStep"} | changes
    env = SB3VecEnv(gym.make_vec("qevgrid/V2G-v0", num_envs=size, **options))  # type: ignore[arg-type]
    env.seed(5)
    return env


def shaped_env(gamma: float) -> ShapedVecEnv:
    return ShapedVecEnv(vector_env(), V2GParams(n_sockets=3, dt_h=1.0), gamma, 0.2)


def rollout(env: Any, stages: int, seed: int = 2) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Observations (K + 1, B, O), rewards and ends (K, B) under random actions."""
    rng, seen, rewards, ends = np.random.default_rng(seed), [env.reset()], [], []
    for _ in range(stages):
        obs, reward, done, _ = env.step(rng.uniform(-1, 1, (env.num_envs, 3)).astype(np.float32))
        seen, rewards, ends = [*seen, obs], [*rewards, reward], [*ends, done]
    return np.array(seen), np.array(rewards, float), np.array(ends)


def test_shaping_telescopes() -> None:
    """From any stage to the episode's end it adds up to minus the worth of what is parked there."""
    env = shaped_env(gamma=1.0)
    obs, shaped, ends = rollout(env, 48)
    plain_obs, plain, _ = rollout(vector_env(), 48)
    np.testing.assert_array_equal(obs, plain_obs)
    np.testing.assert_array_equal(np.flatnonzero(ends.all(1)), [23, 47])
    for first, last in ((0, 24), (8, 24), (24, 48), (40, 48)):
        worth = env.potential(obs[first])
        assert (np.abs(worth).max() > 0.01) == (first in (8, 40))
        np.testing.assert_allclose((shaped - plain)[first:last].sum(0), -worth, atol=1e-4)


def test_shaping_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is parked when an episode begins, so a made-up potential stands in that is not 0 there."""
    env = shaped_env(gamma=0.9)
    monkeypatch.setattr(env, "potential", lambda obs: obs.sum(1, dtype=np.float64))
    obs, shaped, ends = rollout(env, 30)
    _, plain, _ = rollout(vector_env(), 30)
    worth = np.array([env.potential(x) for x in obs])
    later = np.where(ends, 0.0, worth[1:])
    assert ends.any() and np.all(worth[1:][ends] != 0.0)
    np.testing.assert_allclose(shaped, plain + 0.9 * later - worth[:-1], atol=1e-5)


def test_potential_by_hand() -> None:
    env, params = shaped_env(gamma=1.0), V2GParams(n_sockets=3, dt_h=1.0)
    names = vector_env().venv.core.labels
    obs = np.zeros((1, len(names)), np.float32)
    obs[0, names.index("socket0_soc")], obs[0, names.index("socket2_needed_soc")] = 0.5, 0.25
    capacity = float(np.mean(params.session.battery_kwh))
    worth_usd = capacity * (0.5 * 0.2 - 0.25 * params.cost.shortfall_usd_kwh)
    assert env.potential(obs)[0] == pytest.approx(worth_usd * params.reward_scale)


def test_shaped_environments_can_be_pickled_on_their_way() -> None:
    env = shaped_env(gamma=0.9)
    rollout(env, 10)
    clone = pickle.loads(pickle.dumps(env))
    rng = np.random.default_rng(4)
    for action in rng.uniform(-1, 1, (20, 3, 3)).astype(np.float32):
        for mine, other in zip(env.step(action)[:3], clone.step(action)[:3], strict=True):
            np.testing.assert_array_equal(mine, other)
    assert clone.get_attr("num_envs") == env.get_attr("num_envs")


# --- regimes ---------------------------------------------------------------------------------------


def regime_observations(params: V2GParams, size: int) -> FloatArray:
    names, rng = known_labels(params), np.random.default_rng(3)
    obs = rng.uniform(0, 1, (size, 4, len(names) + 9)).astype(np.float32)
    obs[..., names.index("risk")] = rng.choice([0.0, RISKY / 2, RISKY, 0.5], (size, 4))
    for d in range(params.site.count):
        obs[..., names.index(f"site{d}_outage")] = rng.choice([0.0, 1.0], (size, 4), p=[0.8, 0.2])
    return obs


@pytest.mark.parametrize("buses", [(17,), (17, 24)])
def test_regimes_are_a_partition(buses: tuple[int, ...]) -> None:
    params = V2GParams(site={"bus": buses})  # type: ignore[arg-type]
    obs, names = regime_observations(params, 50), known_labels(params)
    dark, risky, calm = masks = Regimes(params).of(obs)
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    out = np.any([obs[..., names.index(f"site{d}_outage")] == 1 for d in range(len(buses))], axis=0)
    np.testing.assert_array_equal(dark, out)
    np.testing.assert_array_equal(risky, ~out & (obs[..., names.index("risk")] >= np.float32(RISKY)))
    assert min(m.sum() for m in (dark, risky, calm)) > FEWEST


def test_each_regime_is_normalised() -> None:
    params = V2GParams()
    regimes, obs = Regimes(params), regime_observations(params, 60)
    dark, risky, calm = regimes.of(obs)
    buffer = RolloutBuffer(60, gym.spaces.Box(-1, 1, obs.shape[2:]), gym.spaces.Box(-1, 1, (3,)), n_envs=4)
    buffer.observations = obs
    before = np.random.default_rng(0).normal(5.0, 2.0, (60, 4)) * np.where(dark, 100.0, 1.0)
    buffer.advantages = before.copy()
    regimes.normalise(buffer)
    for mask in (dark, risky, calm):
        assert buffer.advantages[mask].mean() == pytest.approx(0.0, abs=1e-6)
        assert buffer.advantages[mask].std() == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_array_equal(np.argsort(buffer.advantages[mask]), np.argsort(before[mask]))


def test_a_regime_of_few_stages_is_left_alone() -> None:
    params = V2GParams()
    regimes, obs = Regimes(params), regime_observations(params, 60)
    obs[..., regimes.outage] = 0.0
    obs[: FEWEST - 1, 0, regimes.outage] = 1.0
    buffer = RolloutBuffer(60, gym.spaces.Box(-1, 1, obs.shape[2:]), gym.spaces.Box(-1, 1, (3,)), n_envs=4)
    buffer.observations, buffer.advantages = obs, np.full((60, 4), 7.0)
    regimes.normalise(buffer)
    np.testing.assert_array_equal(buffer.advantages == 7.0, regimes.of(obs)[0])


# --- building --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shaping", [None, 0.2])
def test_training_days_are_apart_from_every_evaluations(shaping: float | None) -> None:
    """Row i begins with the day of seed ``TRAINING_SEEDS + ROWS_PER_RUN * seed + i``."""
    config = tiny_config(agent={"shaping_usd_kwh": shaping})
    env = gym.make("qevgrid/V2G-v0", params=config.env)
    for seed in (0, 7):
        model = ppo.build(config.agent, config.env, seed).model
        assert model.env is not None
        first = TRAINING_SEEDS + ROWS_PER_RUN * seed
        wanted = [env.reset(seed=first + i)[0] for i in range(config.agent.n_envs)]
        np.testing.assert_array_equal(model.env.reset(), wanted)


def test_seeds_decide_the_weights() -> None:
    config = tiny_config()
    a, again, b = (ppo.build(config.agent, config.env, seed).model.policy.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[k], again[k]) for k in a)
    assert not all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("env", "agent", "said"),
    [
        ({}, {"batch_size": 36}, "agent.batch_size=36: must divide n_envs * n_steps = 96; try 32"),
        ({"action": "levels"}, {}, "set agent.policy=mlp or env.action=box"),
        ({"action": "levels"}, {"warm_start": "tou"}, "needs env.action=box; set agent.warm_start=null"),
        ({}, {"warm_start": "optimum"}, "agent.warm_start=optimum: sees the future"),
        ({}, {"warm_start": "tuo"}, "agent.warm_start='tuo': not a rival; rivals: idle,"),
    ],
)
def test_what_does_not_go_together_is_named(env: dict[str, Any], agent: dict[str, Any], said: str) -> None:
    config = tiny_config(env=env, agent={"warm_start": None} | agent)
    with pytest.raises(UserError) as caught:
        ppo.build(config.agent, config.env, 0)
    assert said in str(caught.value)


# --- runs ------------------------------------------------------------------------------------------


def weights(path: Path) -> dict[str, Any]:
    return pickle.loads(path.read_bytes())


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(np.all(a == b))


class Stopped:
    """Raises KeyboardInterrupt at the n-th call of a function."""

    def __init__(self, function: Any, at: int) -> None:
        self.function, self.left = function, at

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.function(*args, **keywords)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rounds and three validations without a break."""
    return loop.train(resumable(), tmp_path_factory.mktemp("whole") / "run").path


def resumable() -> Any:
    return tiny_config(total_steps=384, eval_every=192, ruler=False)


@pytest.mark.parametrize(
    ("where", "nth", "kept"),
    [
        ((ppo.PPO, "train"), 1, 0),  # in the first round, with the checkpoint of step 0
        ((ppo.PPO, "train"), 3, 192),  # in a round after the second checkpoint
        ((ppo.PPOLearner, "checkpoint"), 2, 0),  # evaluated and saved as the best, but no checkpoint yet
        ((loop, "save_figure"), 1, 384),  # trained, but not finished
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str], nth: int, kept: int
) -> None:
    owner, name = where
    out, stop = tmp_path / "run", Stopped(getattr(owner, name), nth)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *args: stop(*args))  # a function becomes a method, an object would not
        with pytest.raises(KeyboardInterrupt):
            loop.train(resumable(), out)
    assert list(loop.RunFolder(out).checkpoints) == [kept]
    run = loop.train(resumable(), out, resume=True)
    assert_same_run(run, loop.RunFolder(whole_run))


def assert_same_run(run: Any, other: Any) -> None:
    assert list(run.checkpoints) == list(other.checkpoints) == [384]
    mine, theirs = (weights(r.checkpoints[384]) for r in (run, other))
    assert {"policy", "optimizer", "num_timesteps", "last_obs", "torch"} <= mine.keys() == theirs.keys()
    for part in mine.keys() - {"env", "ep_info_buffer", "ep_success_buffer"}:  # they hold wall-clock times
        assert equal(mine[part], theirs[part]), part
    assert run.evaluations_csv.read_text() == other.evaluations_csv.read_text()
    core = V2GCore(resumable().env)
    best, others = (ppo.PPOAgent.load(r.model_zip, "mine", core).policy.state_dict() for r in (run, other))
    assert equal(dict(best), dict(others))


def test_rounds_change_the_weights(whole_run: Path) -> None:
    """Or the comparison above would mean little."""
    config = resumable()
    start = ppo.build(config.agent, config.env, config.seed).model.policy.state_dict()
    assert not equal(dict(start), dict(weights(loop.RunFolder(whole_run).checkpoints[384])["policy"]))


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stopped(ppo.PPO.train, 3)
    monkeypatch.setattr(ppo.PPO, "train", lambda self: stop(self))
    with pytest.raises(KeyboardInterrupt, match=r"saved up to step 192; .*--config .*config\.yaml --out .* --resume"):
        loop.train(resumable(), tmp_path / "run")


def test_one_row_a_validation_and_one_checkpoint(whole_run: Path) -> None:
    assert [row["step"] for row in rows_of(whole_run / "evaluations.csv")] == ["0", "192", "384"]
    assert [path.name for path in (whole_run / "checkpoints").iterdir()] == ["step_0000000384.zip"]


def test_the_model_is_the_best_on_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last is not: the validations are made to cost 5, 1 and 9 USD a day."""
    found: list[Any] = []

    def fake(core: V2GCore, agent: Any, seeds: Any, keep: Any = ()) -> Any:
        episodes = play(core, agent, seeds, keep)
        if not keep:
            found.append(copy.deepcopy(agent.policy.state_dict()))
            episodes.total_usd[:] = (5.0, 1.0, 9.0)[len(found) - 1]
        return episodes

    monkeypatch.setattr(loop, "play", fake)
    run = loop.train(resumable(), tmp_path / "run")
    assert [float(row["cost_usd"]) for row in rows_of(run.evaluations_csv)] == [5.0, 1.0, 9.0]
    best = ppo.PPOAgent.load(run.model_zip, "mine", V2GCore(resumable().env)).policy.state_dict()
    assert [equal(dict(best), dict(weights)) for weights in found] == [False, True, False]


def test_the_best_models_cost_is_the_one_reported(whole_run: Path) -> None:
    config, run = resumable(), loop.RunFolder(whole_run)
    core = V2GCore(config.env)
    agent = ppo.PPOAgent.load(run.model_zip, "mine", core)
    seeds = [loop.VALIDATION_SEEDS + k for k in range(config.eval_episodes)]
    cost = play(core, agent, seeds).total_usd.mean()
    assert cost == pytest.approx(min(float(row["cost_usd"]) for row in rows_of(run.evaluations_csv)), rel=1e-12)


def test_ppo_learns_a_calm_day(tmp_path: Path) -> None:
    """From noise to better than random actions and than not charging at all."""
    agent = {
        "warm_start": None,
        "n_envs": 16,
        "batch_size": 384,
        "n_epochs": 6,
        "lr": 3e-3,
        "actor": (16,),
        "critic": (16,),
    }
    config = tiny_config(env=CALM, agent=agent, total_steps=9600, eval_every=9600, ruler=False, eval_episodes=16)
    run = loop.train(config, tmp_path / "run")
    start, end = (float(row["cost_usd"]) for row in rows_of(run.evaluations_csv))
    core, seeds = V2GCore(config.env), [loop.VALIDATION_SEEDS + k for k in range(16)]
    assert end < 0.9 * start
    assert end < play(core, Chance(), seeds).total_usd.mean()


class Chance(ppo.Agent):
    """Random wishes."""

    name = "chance"

    def begin(self, info: dict[str, Any]) -> None:
        self.rng = np.random.default_rng(0)

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        return self.rng.uniform(-1, 1, info["view"].plugged.shape)


def test_levels_are_learned_by_an_mlp(tmp_path: Path) -> None:
    config = tiny_config(env={"action": "levels"}, agent={"warm_start": None, "policy": "mlp"}, ruler=False)
    run = loop.train(config, tmp_path / "run")
    core = V2GCore(config.env)
    obs = np.random.default_rng(0).uniform(-1, 1, (9, len(core.labels))).astype(np.float32)
    agent = ppo.PPOAgent.load(run.model_zip, "mine", core)
    np.testing.assert_array_equal(agent.act(obs, {}), core.levels[agent.policy.predict(obs, deterministic=True)[0]])
    learner = ppo.build(config.agent, config.env, 0)
    chosen, _ = learner.model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(learner.agent("mine", core).act(obs, {}), core.levels[chosen])


def test_preparing_is_imitating() -> None:
    """The rival's example moves the weights; without one they stay."""
    for rival, closer in (("idle", True), (None, False)):
        config = tiny_config(agent={"warm_start": rival, "warm_days": 64, "warm_epochs": 30})
        learner = ppo.build(config.agent, config.env, 0)
        before = {key: weight.clone() for key, weight in learner.model.policy.state_dict().items()}
        learner.prepare()
        assert equal(before, dict(learner.model.policy.state_dict())) == (not closer)


def test_warm_start_comes_close_to_its_example() -> None:
    config = tiny_config(agent={"warm_start": None, "n_envs": 8, "batch_size": 96})
    model = ppo.build(config.agent, config.env, 0).model
    regimes = Regimes(config.env)
    examples = warm_start.play_examples(model, make_rival("idle"), regimes, 8, learner_plays=False)

    def miss() -> float:
        with torch.no_grad():
            actor, _ = model.policy.mlp_extractor(examples.obs)
            return float((model.policy.action_net(actor) - examples.action).square().mean())

    before = miss()
    warm_start.imitate(model, make_rival("idle"), regimes, 64, 120, 0)
    assert miss() < 0.5 * before


def test_warm_start_returns_are_discounted_within_episodes() -> None:
    reward = np.array([[1.0], [2.0], [4.0]])
    done = np.array([[False], [True], [False]])
    assert warm_start._discounted(reward, done, 0.5).ravel().tolist() == [2.0, 2.0, 4.0]
