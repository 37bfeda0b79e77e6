"""The adapter's edges: options, errors, rendering, and the view that SB3 takes."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import qevgrid  # noqa: F401
from qevgrid.agents.sb3_vec import SB3VecEnv
from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams

V2G = "qevgrid/V2G-v0"
SMALL: dict[str, Any] = {"n_sockets": 4, "dt_h": 1.0}


def make(**more: Any) -> Any:
    return gym.make(V2G, **SMALL, **more).unwrapped


def make_vec(n: int = 3, **more: Any) -> Any:
    return gym.make_vec(V2G, num_envs=n, **SMALL, **more)


def sampled(env: Any, count: int) -> list[np.ndarray]:
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(count)]


# --- construction -------------------------------------------------------------------------------


def test_native_vector_environment_is_the_default() -> None:
    envs = gym.make_vec(V2G, num_envs=1024, n_sockets=2, site={"pv_kw": 5.0}, action="levels")
    assert type(envs).__name__ == "V2GVectorEnv"
    assert envs.unwrapped.params.site.pv_kw == 5.0
    obs, info = envs.reset(seed=0)
    assert obs.shape[0] == info["action_mask"].shape[0] == 1024


def test_params_and_changes_go_together() -> None:
    base = V2GParams(n_sockets=9, site={"pv_kw": 5.0})
    params = gym.make(V2G, params=base, site={"other_kw": 7.0}).unwrapped.params
    assert (params.n_sockets, params.site.pv_kw, params.site.other_kw) == (9, 5.0, 7.0)
    assert gym.make(V2G, params=base).unwrapped.params == base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_socket": 3}, "n_socket=3: unknown key; did you mean 'n_sockets'?"),
        ({"site": {"pv_k": 3}}, "site.pv_k=3: unknown key; did you mean 'pv_kw'?"),
        ({"cost": {"zzz": 3}}, "cost.zzz=3: unknown key; known keys: voll_critical_usd_kwh"),
        ({"n_sockets": 0}, "n_sockets=0: should be greater than or equal to 1"),
        ({"action": "discrete"}, "action='discrete': should be 'box' or 'levels'"),
        ({"dt_h": 0.7}, "dt_h=0.7: a day must hold a whole number of stages"),
        ({"site": {"pv_kw": "x"}}, "site.pv_kw='x': should be a valid number"),
        ({"site": 3}, "site=3: should be a dictionary"),
        ({"render_mode": "ansi"}, "render_mode='ansi': choose one of"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*render_mode='ansi'")
def test_bad_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        gym.make(V2G, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autoreset_mode": "sometimes"}, "autoreset_mode='sometimes': choose one of 'NextStep'"),
        ({"num_envs": 0}, "num_envs=0: must be a whole number, at least 1"),
        ({"num_envs": 2.5}, "num_envs=2.5"),
        ({"render_mode": "rgb_array"}, "render one episode with gymnasium.make"),
        ({"n_socket": 1}, "did you mean 'n_sockets'?"),
    ],
)
def test_bad_vector_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        gym.make_vec(V2G, **changes)


# --- reset and its options ------------------------------------------------------------------------


def test_a_scenario_can_be_replayed() -> None:
    first, second = make(), make()
    _, info = first.reset(seed=3)
    acts = sampled(first, 24)
    rewards = [first.step(a)[1] for a in acts]
    second.reset(seed=99)
    state = second.np_random.bit_generator.state
    _, told = second.reset(options={"scenario": first.scenario})
    assert second.np_random.bit_generator.state == state
    assert told["fingerprint"] == info["fingerprint"]
    assert [second.step(a)[1] for a in acts] == rewards
    venv = make_vec(2)
    venv.reset(seed=0)
    _, told = venv.reset(options={"scenario": first.scenario, "reset_mask": np.array([False, True])})
    assert told["fingerprint"][1] == info["fingerprint"]
    assert [bool(x) for x in told["_fingerprint"]] == [False, True]


def test_row_by_row_replay_of_a_batch() -> None:
    venv, twin = make_vec(3), make_vec(3)
    obs, _ = venv.reset(seed=5)
    again, _ = twin.reset(options={"scenario": venv.scenario})
    assert np.array_equal(obs, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenari": 1}, "unknown reset option 'scenari'; known: scenario"),
        ({"scenario": 1}, "must be a V2G Scenario, not int"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        make().reset(options=options)


def test_a_scenario_of_another_shape_is_refused() -> None:
    other = gym.make(V2G, n_sockets=5, dt_h=1.0).unwrapped
    other.reset(seed=0)
    with pytest.raises(UserError, match="draw it with the same parameters"):
        make().reset(options={"scenario": other.scenario})


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, False, False], "must be a bool array of shape (3,)"),
        (np.ones(2, bool), "must be a bool array of shape (3,)"),
        (np.ones(3), "must be a bool array"),
        (np.zeros(3, bool), "chooses no row"),
    ],
)
def test_bad_reset_masks_are_named(mask: Any, message: str) -> None:
    venv = make_vec()
    venv.reset(seed=0)
    with pytest.raises(UserError, match=re.escape(message)):
        venv.reset(options={"reset_mask": mask})


def test_steps_out_of_order_need_a_reset() -> None:
    env, venv = make(render_mode="rgb_array"), make_vec(autoreset_mode="Disabled")
    act, acts = sampled(env, 1)[0], sampled(venv, 1)[0]
    for call in (lambda: env.step(act), env.render, lambda: venv.step(acts)):
        with pytest.raises(ResetNeeded):
            call()
    with pytest.raises(ResetNeeded, match="first reset"):
        venv.reset(options={"reset_mask": np.array([True, False, False])})
    env.reset(), venv.reset()
    while not env.step(act)[2]:
        venv.step(acts)
    assert venv.step(acts)[2].all()
    with pytest.raises(ResetNeeded, match="over"):
        env.step(act)
    with pytest.raises(ResetNeeded, match="autoreset is disabled"):
        venv.step(acts)


def test_wrong_number_of_seeds() -> None:
    with pytest.raises(UserError, match="2 seeds for num_envs=3"):
        make_vec().reset(seed=[1, 2])


def test_actions_of_rows_that_begin_anew_do_not_matter() -> None:
    venv = make_vec()
    venv.reset(seed=0)
    act = sampled(venv, 1)[0]
    for _ in range(24):
        ended = venv.step(act)[2]
    assert ended.all()
    _, reward, terminated, *_ = venv.step(np.full_like(act, np.nan))
    assert not reward.any()
    assert not terminated.any()
    with pytest.raises(UserError, match="nan"):
        venv.step(np.full_like(act, np.nan))


def test_the_horizon_ends_the_episode() -> None:
    env = make()
    env.reset(seed=0)
    ends = [env.step(a)[2:4] for a in sampled(env, 24)]
    assert ends == [(False, False)] * 23 + [(True, False)]


def test_costs_add_up_to_the_reward() -> None:
    env = make(cost={"w1": 2.0, "w2": 3.0}, reward_scale=0.5, outage={"share": 1.0})
    env.reset(seed=0)
    for act in sampled(env, 24):
        _, reward, _, _, info = env.step(act)
        usd = np.array(list(info["cost"].values())) @ env.core.weights
        assert tuple(info["cost"]) == env.core.cost_terms
        assert info["cost_usd"] == pytest.approx(usd, abs=1e-9)
        assert reward == pytest.approx(-0.5 * usd, abs=1e-9)


def test_notes_of_the_loaders_are_told_at_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = {"start_h": 12.0, "report": {"sessions_dropped": 3}}
    monkeypatch.setattr(V2GCore, "notes", lambda self: notes)
    assert make().reset(seed=0)[1]["report"] == {"sessions_dropped": 3}
    info = make_vec(2).reset(seed=0)[1]
    assert info["report"]["sessions_dropped"].tolist() == [3, 3]


# --- rendering ------------------------------------------------------------------------------------


def test_frames_are_collected() -> None:
    env = gym.make(V2G, **SMALL, render_mode="rgb_array_list")
    env.reset(seed=0)
    for act in sampled(env, 3):
        env.step(act)
    frames = env.render()
    assert [frame.shape for frame in frames] == [frames[0].shape] * 4
    assert frames[0].dtype == np.uint8
    assert not np.array_equal(frames[0], frames[3])


def test_the_trace_is_what_was_done() -> None:
    env = make(render_mode="rgb_array", outage={"share": 1.0})
    env.reset(seed=1)
    cost_usd, charge_kw = [], []
    for act in sampled(env, 24):
        cost_usd.append(env.step(act)[4]["cost_usd"])
        charge_kw.append(env._batch.outcome.charge_kw.sum())
    trace = env.trace("me")
    assert trace.finished
    assert trace.agent == "me"
    assert np.array_equal(trace.cost_usd, cost_usd)
    assert np.array_equal(trace.charge_kw, charge_kw)
    assert np.array_equal(trace.outage, env.scenario.outage[0].any(-1))
    assert np.nanmax(trace.soc) <= 1.0
    env.reset(seed=2)
    assert env.trace().played == 0


def test_rendering_without_a_mode_or_a_display() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        env.render()
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        env.trace()


def test_human_mode_shows_a_frame_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[Any] = []
    env = make(render_mode="human")
    monkeypatch.setattr(env._window, "show", frames.append)
    env.reset(seed=0)
    assert env.render() is None
    env.step(sampled(env, 1)[0])
    assert len(frames) == 2
    env.close()


def test_human_mode_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.get_backend", lambda: "agg")
    with pytest.raises(UserError, match="needs a display"):
        make(render_mode="human").reset(seed=0)


# --- Stable-Baselines3 ----------------------------------------------------------------------------


def test_sb3_view_equals_monitored_scalar_environments() -> None:
    view = SB3VecEnv(make_vec(autoreset_mode="SameStep"))
    dummy = DummyVecEnv([lambda: Monitor(make()) for _ in range(3)])
    for env in (view, dummy):
        env.seed(7)
    assert np.array_equal(view.reset(), dummy.reset())
    assert [i["fingerprint"] for i in view.reset_infos] == [i["fingerprint"] for i in dummy.reset_infos]
    costs: list[dict[str, float]] = []
    for act in [np.stack(sampled(dummy, 3)) + 0.01 * k for k in range(50)]:
        mine, theirs = view.step(act), dummy.step(act)
        for a, b in zip(mine[:3], theirs[:3], strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        costs.append(theirs[3][1]["cost"])
        for info, other in zip(mine[3], theirs[3], strict=True):
            assert ("episode" in info) == ("episode" in other)
            if info:
                assert_episode_equal(info, other)
                usd = sum(cost["energy"] for cost in costs)
        if mine[2][1]:
            assert mine[3][1]["cost"]["energy"] == pytest.approx(usd, abs=1e-12)
            assert view.reset_infos[1]["fingerprint"] == dummy.reset_infos[1]["fingerprint"]
            costs = []
    assert view.reset().shape == dummy.reset().shape


def assert_episode_equal(info: dict[str, Any], other: dict[str, Any]) -> None:
    assert np.array_equal(info["terminal_observation"], other["terminal_observation"])
    assert info["TimeLimit.truncated"] is other["TimeLimit.truncated"] is False
    assert info["episode"]["l"] == other["episode"]["l"] == 24
    assert info["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=2e-6)
    assert info["episode"]["t"] >= 0


def test_sb3_view_answers_questions() -> None:
    view = SB3VecEnv(make_vec(autoreset_mode="SameStep", action="levels"))
    view.reset()
    assert view.get_attr("render_mode") == [None] * 3
    assert view.get_attr("params", 1)[0].n_sockets == 4
    assert view.has_attr("action_masks")
    assert not view.has_attr("no_such_thing")
    masks = view.env_method("action_masks", indices=[0, 2])
    assert [m.shape for m in masks] == [(20,), (20,)]
    assert len(view.env_method("view")) == 3
    view.set_attr("note", 5)
    assert view.venv.note == 5
    with pytest.raises(UserError, match="all rows share 'note'"):
        view.set_attr("note", 6, indices=[0])
    assert view.env_is_wrapped(Monitor) == [True] * 3
    assert view.env_is_wrapped(gym.wrappers.TimeLimit, 0) == [False]
    assert len(set(view.seed())) == 3
    view.set_options({"scenario": None})
    with pytest.raises(UserError, match="takes no reset options"):
        view.reset()
    view.close()


def test_sb3_view_needs_a_bare_same_step_environment() -> None:
    with pytest.raises(UserError, match="autoreset_mode='SameStep'"):
        SB3VecEnv(make_vec())
    with pytest.raises(UserError, match="not a bare qevgrid vector environment"):
        SB3VecEnv(gym.make_vec("CartPole-v1", num_envs=2))


def test_sb3_learns_a_step_and_evaluates() -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    view = SB3VecEnv(make_vec(4, autoreset_mode="SameStep"))
    model = PPO("MlpPolicy", view, n_steps=32, batch_size=64, n_epochs=1, seed=0, device="cpu")
    model.learn(128)
    assert len(model.ep_info_buffer or ()) == 4
    mean, _ = evaluate_policy(model, view, n_eval_episodes=4)
    assert np.isfinite(mean)
