"""What every registered environment promises, and what V2G's physics promises through it."""

import copy
import multiprocessing
import pickle
import random
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.env_checker import data_equivalence as same

import qevgrid
from qevgrid.envs.errors import UserError

V2G = "qevgrid/V2G-v0"
CSP = "qevgrid/MobileCSP-v0"
SMALL: dict[str, Any] = {"n_sockets": 4, "dt_h": 1.0, "outage": {"share": 1.0}}
SITES = SMALL | {"n_sockets": 7, "site": {"bus": (17, 32, 5), "pv_kw": (90.0, 60.0, 10.0)}}
MINI: dict[str, Any] = {"preset": "mini"}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    V2G: {
        "default": {},
        "levels": {"action": "levels"},
        "small": SMALL,
        "sites": SITES,
        "sites_levels": SITES | {"action": "levels", "sessions": "public"},
    },
    CSP: {
        "default": {},
        "joint": MINI,
        "joint_levels": MINI | {"power": "levels", "preposition": True},
        "sequential": MINI | {"form": "sequential", "n_units": 3},
        "service": {"preset": "full", "n_units": 3, "n_periods": 30, "dt_h": 1.0, "power": "levels"},
        "sequential_levels": MINI | {"form": "sequential", "power": "levels", "preposition": True},
    },
}
CASES = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]
QUICK = [case for case in CASES if case[1] not in ("default", "levels")]
each = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}")
quick = pytest.mark.parametrize("case", QUICK, ids=lambda c: f"{c[0]}-{c[1]}")
MODES = ["NextStep", "SameStep", "Disabled"]


def options(case: tuple[str, str]) -> dict[str, Any]:
    return VARIANTS[case[0]][case[1]]


def make(case: tuple[str, str], **more: Any) -> Any:
    return gym.make(case[0], **options(case), **more).unwrapped


def make_vec(case: tuple[str, str], n: int, **more: Any) -> Any:
    return gym.make_vec(case[0], num_envs=n, **options(case), **more)


def actions(env: Any, count: int, seed: int = 0) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(count)]


def play(env: Any, acts: list[np.ndarray], seed: int | None = 7) -> list[Any]:
    """Reset, then step through the actions, resetting where an episode ends."""
    log: list[Any] = [env.reset(seed=seed)]
    for act in acts:
        log.append(env.step(act))
        if log[-1][2]:
            log.append(env.reset())
    return log


def equal(a: Any, b: Any) -> bool:
    return same(tuple(a), tuple(b), exact=True)


def test_every_id_has_variants() -> None:
    assert {name for name in gym.registry if name.startswith("qevgrid/")} == set(VARIANTS)
    assert qevgrid.__version__


@each
def test_gymnasium_checker(case: tuple[str, str]) -> None:
    check_env(make(case), skip_render_check=True)


@each
def test_sb3_checker(case: tuple[str, str]) -> None:
    from stable_baselines3.common.env_checker import check_env as sb3_check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sb3_check_env(make(case))


@each
def test_same_seed_same_bytes_and_no_global_chance(case: tuple[str, str]) -> None:
    first, second = make(case), make(case)
    acts = actions(first, 30)
    np.random.seed(1)
    random.seed(1)
    before = pickle.dumps((np.random.get_state(), random.getstate()))
    log = play(first, acts)
    assert pickle.dumps((np.random.get_state(), random.getstate())) == before
    np.random.seed(2)
    assert equal(log, play(second, acts))
    assert not equal(log[:1], play(second, [], seed=8))


@quick
def test_the_callers_action_is_left_alone(case: tuple[str, str]) -> None:
    env, venv = make(case), make_vec(case, 3)
    for world in (env, venv):
        world.reset(seed=0)
        act = np.array(actions(world, 1)[0])
        if act.dtype.kind == "f":
            act = act * 2
        act.flags.writeable = False
        kept = act.copy()
        world.step(act)
        assert np.array_equal(act, kept)


@quick
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_have_the_same_future(case: tuple[str, str], clone: Any) -> None:
    env = make(case)
    acts = actions(env, 60)
    play(env, acts[:10])
    twin = clone(env)
    assert twin.scenario.fingerprint(0) == env.scenario.fingerprint(0)
    assert equal([env.step(a) for a in acts[10:20]], [twin.step(a) for a in acts[10:20]])
    assert equal(play(env, acts[20:], None), play(twin, acts[20:], None))


@quick
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_of_vector_environments(case: tuple[str, str], clone: Any) -> None:
    env = make_vec(case, 3, autoreset_mode="SameStep")
    acts = actions(env, 60)
    env.reset(seed=3)
    for act in acts[:10]:
        env.step(act)
    twin = clone(env)
    assert equal([env.step(a) for a in acts[10:]], [twin.step(a) for a in acts[10:]])
    env.close()
    env.close()


def in_worker(case: tuple[str, str]) -> bytes:
    env = make(case)
    return pickle.dumps(play(env, actions(env, 5)))


@pytest.mark.parametrize("case", [(V2G, "sites_levels"), (CSP, "sequential_levels")])
def test_spawned_workers_agree(case: tuple[str, str]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pickle.loads(pool.apply(in_worker, (case,)))
    assert equal(there, pickle.loads(in_worker(case)))


# --- vector == scalar ---------------------------------------------------------------------------


def twins(case: tuple[str, str], mode: str, n: int = 3) -> tuple[Any, Any]:
    sync = gym.vector.SyncVectorEnv([lambda: make(case)] * n, autoreset_mode=mode)
    return make_vec(case, n, autoreset_mode=mode), sync


def assert_rows_equal(native: dict[str, Any], sync: dict[str, Any], terms: tuple[str, ...]) -> None:
    """Infos say the same; costs by term are an array here and a dictionary there."""
    native, sync = dict(native), dict(sync)
    table, where = native.pop("cost_usd_by_term", None), native.pop("_cost_usd_by_term", None)
    cost, cost_where = sync.pop("cost", None), sync.pop("_cost", None)
    assert (table is None) == (cost is None)
    if cost is not None:
        assert np.array_equal(where, cost_where)
        assert np.array_equal(table, np.stack([cost[term] for term in terms], -1))
    inner, sync_inner = native.pop("final_info", None), sync.pop("final_info", None)
    assert (inner is None) == (sync_inner is None)
    if inner is not None:
        assert_rows_equal(inner, sync_inner, terms)
    assert same(native, sync, exact=True), (native, sync)


@quick
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [5, [9, 2, 4]])
def test_vector_equals_scalar(case: tuple[str, str], mode: str, seed: Any) -> None:
    native, sync = twins(case, mode)
    terms = native.core.cost_terms
    (obs, info), (sync_obs, sync_info) = native.reset(seed=seed), sync.reset(seed=seed)
    assert np.array_equal(obs, sync_obs)
    assert_rows_equal(info, sync_info, terms)
    for act in actions(native, 60):
        mine, theirs = native.step(act), sync.step(act)
        for a, b in zip(mine[:4], theirs[:4], strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        assert_rows_equal(mine[4], theirs[4], terms)
        if mode == "Disabled" and mine[2].any():
            mask = mine[2]
            (obs, info) = native.reset(options={"reset_mask": mask})
            (sync_obs, sync_info) = sync.reset(options={"reset_mask": mask.copy()})
            assert np.array_equal(obs, sync_obs)
            assert_rows_equal(info, sync_info, terms)


@quick
def test_part_of_the_rows_can_begin_anew(case: tuple[str, str]) -> None:
    """Rows at different stages: the ends, too, stay those of the scalar environments."""
    native, sync = twins(case, "Disabled")
    for env in (native, sync):
        env.reset(seed=1)
    acts = actions(native, 10)
    for act in acts[:4]:
        native.step(act), sync.step(act)
    for mask in ([True, False, False], [False, True, True]):
        for seed in (None, 20):
            told = [e.reset(seed=seed, options={"reset_mask": np.array(mask)}) for e in (native, sync)]
            assert np.array_equal(told[0][0], told[1][0])
            assert_rows_equal(told[0][1], told[1][1], native.core.cost_terms)
    for act in acts[4:]:
        for a, b in zip(native.step(act)[:4], sync.step(act)[:4], strict=True):
            assert np.array_equal(a, b)


@quick
def test_uncopied_observations_are_the_same_array(case: tuple[str, str]) -> None:
    env, copying = make_vec(case, 2, copy=False), make_vec(case, 2)
    obs, kept = env.reset(seed=0)[0], copying.reset(seed=0)[0]
    act = actions(env, 1)[0]
    assert env.step(act)[0] is obs
    again = copying.step(act)[0]
    assert again is not kept
    assert np.array_equal(again, obs)
    assert not np.array_equal(again, kept)


# --- bounds ---------------------------------------------------------------------------------------


def extremes(space: Any) -> tuple[Any, Any]:
    """Least and greatest action of a batch."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.zeros(space.shape, int), space.nvec - 1
    return space.low, space.high


@each
@pytest.mark.parametrize("policy", ["most", "least", "alternating", "random"])
def test_observations_stay_in_the_space(case: tuple[str, str], policy: str) -> None:
    env = make_vec(case, 6)
    space, (obs, _) = env.observation_space, env.reset(seed=11)
    assert obs in space
    low, high = extremes(env.action_space)
    for k in range(int(24 / options(case).get("dt_h", 0.25)) + 3):
        ends = {"most": high, "least": low, "alternating": (low, high)[k % 2]}
        obs, reward, *_ = env.step(ends.get(policy, env.action_space.sample()))
        assert obs in space
        assert np.isfinite(reward).all()


def test_observation_labels_name_every_entry() -> None:
    for case in CASES:
        env, venv = make(case), make_vec(case, 2)
        assert len(set(env.observation_labels)) == env.observation_space.shape[0]
        assert venv.observation_labels == env.observation_labels


BAD_BOX = [
    (np.zeros(3), "has shape (3,), but must have (4,)"),
    (np.zeros((1, 4)), "has shape (1, 4)"),
    (0.5, "has shape ()"),
    ([0, np.nan, 0, 0], "action[1] is nan"),
    ([0, 0, 0, -np.inf], "action[3] is -inf"),
    (["a", "b", "c", "d"], "not an array of numbers"),
    (None, "not an array of numbers"),
    ([1, [2, 3]], "not an array of numbers"),
    (np.zeros(4, complex), "not an array of numbers"),
    ({"a": 1}, "not an array of numbers"),
]
BAD_LEVELS = [
    ([0, 1, 2, 5], "action[3] is 5: every entry must be a whole number from 0 to 4"),
    ([-1, 0, 0, 0], "action[0] is -1"),
    ([0, 0.5, 0, 0], "action[1] is 0.5"),
    ([0, np.nan, 0, 0], "action[1] is nan"),
    ([1, 2, 3], "has shape (3,)"),
]


@pytest.mark.parametrize(
    ("kind", "action", "message"),
    [("box", *bad) for bad in BAD_BOX] + [("levels", *bad) for bad in BAD_LEVELS],
)
def test_bad_actions_are_named(kind: str, action: Any, message: str) -> None:
    env = gym.make(V2G, **SMALL, action=kind).unwrapped
    env.reset(seed=0)
    with pytest.raises(UserError) as caught:
        env.step(action)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    env.step(env.action_space.sample())  # the world has not moved into a broken state


def test_actions_beyond_the_box_are_clipped() -> None:
    low, high = make((V2G, "sites")), make((V2G, "sites"))
    for env in (low, high):
        env.reset(seed=4)
    for k in range(20):
        sign = 1.0 if k % 3 else -1.0
        assert equal(low.step(np.full(7, sign)), high.step(np.full(7, 30.0 * sign)))


# --- physics, seen through the environment ------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "small", "sites"])
def test_energy_is_conserved(variant: str) -> None:
    env = make_vec((V2G, variant), 8)
    env.reset(seed=0)
    p, batch, stages = env.params, env._batch, env.params.n_stages
    before = batch.view()
    for act in actions(env, stages):
        env.step(act)
        out, after = batch.outcome, batch.view()
        gain_kwh = p.dt_h * (out.charge_kw * p.charger.eta_charge - out.discharge_kw / p.charger.eta_discharge)
        stayed = before.plugged & after.plugged & (before.declared == after.declared)
        error = np.where(stayed, after.energy_kwh - before.energy_kwh - gain_kwh, 0.0)
        assert np.abs(error).max() < 1e-9
        assert not (out.charge_kw * out.discharge_kw).any()
        before = after


@pytest.mark.parametrize("variant", ["default", "small", "sites"])
def test_sites_are_in_balance(variant: str) -> None:
    """Connected: the meter; in an island: supply covers what is served, PV turned down."""
    env = make_vec((V2G, variant), 8, sessions="residential")
    env.reset(seed=0)
    dark_stages, site = 0, env.core.plant.site
    for t, act in enumerate(actions(env, env.params.n_stages)):
        env.step(act)
        s, out = env.scenario, env._batch.outcome
        add = np.eye(env.core.plant.n_sites)[site]
        charge, discharge = out.charge_kw @ add, out.discharge_kw @ add
        served = out.served_critical_kw + out.served_other_kw
        dark, pv = s.outage[:, t], s.pv_kw[:, t]
        meter = served + charge - discharge - pv - out.import_kw
        assert np.abs(meter[~dark]).max(initial=0.0) < 1e-9
        surplus = pv + out.generator_kw + discharge - served - charge
        assert surplus[dark].min(initial=0.0) > -1e-9
        assert (surplus[dark] <= pv[dark] + 1e-9).all()
        assert not out.import_kw[dark].any()
        dark_stages += dark.sum()
    assert dark_stages


@pytest.mark.parametrize("variant", ["levels", "sites_levels"])
def test_masks_tell_what_the_projection_does(variant: str) -> None:
    """A masked level is switched off; an allowed one flows as far as battery and charger let it."""
    case = (V2G, variant)
    env = make_vec(case, 6, charger={"power_kw": (7.2, 22.0)}, n_levels=9, grid={"feeder": "none"})
    _, info = env.reset(seed=0)
    p, levels = env.params, env.core.levels
    tested = {True: 0, False: 0}
    for act in actions(env, p.n_stages - 1):
        mask, view, dark = info["action_mask"], env.view(), env.view().outage
        info = env.step(act)[4]
        out = env._batch.outcome
        done = out.charge_kw - out.discharge_kw
        chosen = np.take_along_axis(mask, act[..., None], -1)[..., 0]
        wish = levels[act]
        assert not done[~chosen].any()
        assert (wish[~chosen] != 0).all()
        free = chosen & (wish != 0) & ~dark[:, env.core.plant.site]
        free &= ((out.charge_kw + out.discharge_kw).sum(1) < 60.0)[:, None]
        power = np.where(wish > 0, view.charge_kw, -view.discharge_kw) * np.abs(wish)
        room = np.where(
            wish > 0,
            (view.capacity_kwh - view.energy_kwh) / (p.charger.eta_charge * p.dt_h),
            (view.energy_kwh - view.floor_kwh) * p.charger.eta_discharge / p.dt_h,
        )
        least = np.where(wish > 0, env.core.plant.charge_min_kw, env.core.plant.discharge_min_kw)
        expected = np.sign(wish) * np.minimum(np.maximum(np.abs(power), least), room)
        free &= (out.import_kw.min(1) > -p.site.connection_kw + 1e-6)[:, None]
        assert np.allclose(done[free], expected[free], atol=1e-9)
        tested[True] += free.sum()
        tested[False] += (~chosen).sum()
    assert min(tested.values()) > 100
