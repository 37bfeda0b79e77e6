"""The scorer of sites on Mobile CSP: symmetries, masks, sizes, the turns of a period, imitation, files."""

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import build_learner, load_learned, make_rival
from qevgrid.agents.mobile_csp import imitate
from qevgrid.agents.mobile_csp.acting import ScorerAgent, choose
from qevgrid.agents.mobile_csp.features import FEATURES, SiteFeatures
from qevgrid.agents.mobile_csp.scorer import ScorerPolicy
from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, Action
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.kernel import N_GLOBAL, N_SITE, N_UNIT
from qevgrid.envs.mobile_csp.params import BASE_SITES, MobileCSPParams
from qevgrid.envs.mobile_csp.sequential import SequentialCore, Turns
from qevgrid.envs.problem import problem_by_id
from qevgrid.runner.config import load_config
from qevgrid.runner.log import read_scalars
from qevgrid.runner.loop import train
from qevgrid.runner.rollout import play
from qevgrid.runner.schema import RunConfig
from runs import ROOT, rows_of, tiny_config

CSP = "qevgrid/MobileCSP-v0"
SMALL: dict[str, Any] = {"preset": "mini", "n_periods": 12}
CIRCUIT = {"circuit": Circuit(3, 3), "uploads": 2}


def core_of(form: str = "joint", **changes: Any) -> Any:
    params = MobileCSPParams(**SMALL | {"form": form} | changes)
    return (SequentialCore if form == "sequential" else MobileCore)(params)


def begun(core: Any, seeds: tuple[int, ...] = (0,)) -> Any:
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    return batch


def policy_for(core: Any, seed: int = 0, **kwargs: Any) -> ScorerPolicy:
    """A policy with large random weights, so that its scores differ."""
    obs = gym.spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)
    kwargs = {"n_levels": len(core.levels)} | kwargs
    policy = ScorerPolicy(obs, gym.spaces.Discrete(core.n_choices), lambda _: 1e-3, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return policy


def seen(core: Any, seed: int = 0, n: int = 40) -> torch.Tensor:
    """Observations of the sequential form along a random episode."""
    batch, rng, found = begun(core, (seed,)), np.random.default_rng(seed), []
    while not batch.over.all() and len(found) < n:
        found.append(batch.observe()[0])
        batch.step(core.decode(np.array([[rng.choice(np.flatnonzero(batch.mask()[0, 0]))]])))
    return torch.as_tensor(np.stack(found))


def permuted(obs: torch.Tensor, sites: list[int], units: list[int]) -> torch.Tensor:
    """The same observation with sites and units in another order."""
    d, first = len(sites), N_GLOBAL + N_SITE * len(sites)
    site = obs[:, N_GLOBAL:first].unflatten(1, (d, N_SITE))[:, sites]
    unit = obs[:, first:].unflatten(1, (len(units), N_UNIT + 2 * d))[:, units]
    own, at, travel = unit.split([N_UNIT, d, d], 2)
    unit = torch.cat([own, at[..., sites], travel[..., sites]], 2)
    return torch.cat([obs[:, :N_GLOBAL], site.flatten(1), unit.flatten(1)], 1)


@pytest.mark.parametrize("levels", [False, True])
@pytest.mark.parametrize("body", [{}, CIRCUIT], ids=["mlp", "circuit"])
def test_order_of_sites_and_units_does_not_matter(levels: bool, body: dict[str, Any]) -> None:
    core = core_of("sequential", n_units=3, power="levels" if levels else "auto")
    policy, obs = policy_for(core, **body), seen(core)
    sites, units = [3, 0, 5, 1, 4, 2], [2, 0, 1]
    with torch.no_grad():
        scores, values = policy.actor(obs), policy.predict_values(obs)
        others = permuted(obs, sites, units)
        again, same = policy.actor(others), policy.predict_values(others)
    assert scores[:, :6].std(1).min() > 1e-3
    torch.testing.assert_close(again[:, :6], scores[:, sites], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again[:, 6:], scores[:, 6:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(same, values, rtol=1e-4, atol=1e-4)


def test_features_by_hand() -> None:
    """A full unit at the staging site, another on its way to the hospital, one to act."""
    core = core_of("sequential", n_units=2)
    names = list(core.labels)
    obs = np.zeros((1, len(names)), np.float32)
    values = {
        "progress": 0.25, "unit1_acts": 1, "unit1_idle": 1, "unit1_soc": 1.0, "unit1_at_staging": 1, "unit0_soc": 0.55,
        "unit0_at_hospital": 1, "staging_supplied": 1, "substation_supplied": 1, "hospital_need": 1.0,
        "hospital_loss_rate": 0.81, "hospital_restoration": 0.5, "water_need": 0.5, "water_loss_rate": 0.25,
        "water_restoration": 0.5, "unit1_travel_to_hospital": 0.25, "unit1_travel_to_water": 0.5,
        "unit1_travel_to_substation": 0.5,
    }  # fmt: skip
    for name, value in values.items():
        obs[0, names.index(name)] = value
    x, here = SiteFeatures(6)(torch.as_tensor(obs))
    site = {name: k for k, name in enumerate(("staging", "substation", "hospital", "water"))}

    def of(name: str, place: str) -> float:
        return float(x[0, site[place], FEATURES.index(name)])

    assert here[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert [of("here", "staging"), of("soc", "water"), of("left", "water")] == [1.0, 1.0, 0.75]
    assert of("loss_rate", "hospital") == pytest.approx(0.9)
    assert of("refuge", "hospital") == 0.0
    # unit 0 has (0.55 - 0.1) / 0.9 of 2 hours at full power left
    assert of("others", "hospital") == pytest.approx(0.25)
    assert (of("crowd", "hospital"), of("crowd", "water")) == (0.5, 0.0)
    # hospital: 10.5 h lost after the trip, less one hour that the other brings; the unit holds 2 h
    assert of("worth", "hospital") ** 2 * 4 == pytest.approx(0.81 * 2)
    assert of("pace", "hospital") ** 2 * 2 == pytest.approx(0.81 * 2 / 2.0)
    # water needs half a unit's power: 9 h x 0.5 would be lost, it holds 2 h, each worth 0.25 / 0.5
    assert of("worth", "water") ** 2 * 4 == pytest.approx(1.0)
    assert of("lead", "water") == pytest.approx((1.0 / 3.5) / (1.62 / 2.0))
    assert of("lead", "hospital") == 1.0


def test_features_stay_within_their_bounds() -> None:
    for form in ({}, {"power": "levels", "preposition": True, "n_units": 4}):
        x, _ = SiteFeatures(6)(seen(core_of("sequential", **form)))
        assert x.shape[1:] == (6, len(FEATURES))
        assert bool(((x >= -1) & (x <= 1)).all())


@pytest.mark.parametrize("power", ["auto", "levels"])
@pytest.mark.parametrize("preposition", [False, True])
def test_turns_show_what_the_sequential_form_shows(power: str, preposition: bool) -> None:
    """To the byte, and the period's action costs what its single choices cost."""
    changes = {"power": power, "preposition": preposition, "n_units": 3}
    one, whole = core_of("sequential", **changes), core_of(**changes)
    for seed in range(3):
        batch, periods, rng, usd = begun(one, (seed,)), begun(whole, (seed,)), np.random.default_rng(seed), 0.0
        while not periods.over.all():
            turns = Turns(whole, periods.view())
            while turns.left:
                obs, mask = turns.look()
                assert np.array_equal(obs, batch.observe())
                assert np.array_equal(mask, batch.mask()[:, 0])
                assert np.array_equal(turns.acting, batch.acting)
                choice = whole.decode(np.array([[rng.choice(np.flatnonzero(mask[0]))]]))
                turns.choose(choice)
                batch.step(choice)
                usd += batch.outcome.total_usd[0]
            periods.step(turns.chosen)
            usd -= periods.outcome.total_usd[0]
        assert batch.over.all()
        assert usd == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("body", [{}, CIRCUIT], ids=["mlp", "circuit"])
def test_an_agent_costs_the_same_in_both_forms(body: dict[str, Any]) -> None:
    policy = policy_for(core_of(), **body)
    costs = []
    for form in ("joint", "sequential"):
        core = core_of(form)
        batch, agent, usd = begun(core, (0, 1, 2)), ScorerAgent(policy, "x", core), np.zeros(3)
        agent.begin({"view": batch.view()})
        while not batch.over.all():
            batch.step(agent.act(batch.observe(), {"view": batch.view()}))
            usd += batch.outcome.total_usd
        costs.append(usd)
    np.testing.assert_allclose(*costs)
    assert ("vqc/circuits_a_storm" in agent.report()) == bool(body)


def test_masks_are_kept() -> None:
    core = core_of("sequential", n_units=4, power="levels")
    policy = policy_for(core, 1)
    batch = begun(core, (0, 1, 2, 3))
    while not batch.over.all():
        mask = batch.mask()[:, 0]
        chosen = choose(policy, batch.observe(), mask)
        live = ~batch.over
        assert mask[np.arange(4), chosen][live].all()
        batch.step(core.decode(chosen[:, None]))
        assert not batch.outcome.refused.any()


def test_a_policy_fits_other_fleets_and_other_sites(tmp_path: Path) -> None:
    config = tiny_config(kind="masked_ppo")
    learner = build_learner(config.agent, config.env, 0)
    learner.save(path := tmp_path / "model.zip")
    for changes in ({"n_units": 4}, {"n_units": 20, "sites": wide()}, {"sites": BASE_SITES}):
        core = core_of(**changes)
        agent = load_learned(path, "mine", core, config.agent)
        assert agent.parameters == learner.parameters
        assert play(core, agent, [0]).cost_usd.shape == (1, len(core.cost_terms))


def wide() -> Any:
    """Sites with room for a large fleet."""
    return tuple(dataclasses.replace(site, slots=5) for site in BASE_SITES)


def test_the_shipped_circuit_and_its_twin_are_of_one_size_in_one_world() -> None:
    """The twin that docs/mobile_csp.md names; a circuit may be no larger than a tenth above it."""
    twin = ["agent.body=mlp", "agent.hidden=[4]", "agent.lr=0.003"]
    files = (("mobile_csp_ppo", []), ("mobile_csp_vqc", []), ("mobile_csp_vqc", twin))
    network, circuit, small = (load_config(RunConfig, ROOT / "configs" / f"{file}.yaml", keys) for file, keys in files)
    assert network.env == circuit.env == small.env
    rates = {"lr": network.agent.lr, "body": "mlp"}
    assert dataclasses.replace(circuit.agent, **rates) == network.agent
    learners = [build_learner(run.agent, run.env, 0) for run in (network, circuit, small)]
    assert [learner.parameters for learner in learners] == [1665, 85, 77]  # type: ignore[attr-defined]


def test_masked_ppo_in_users_own_code(tmp_path: Path) -> None:
    env = gym.make(CSP, form="sequential", **SMALL)
    model = MaskablePPO(ScorerPolicy, env, n_steps=32, batch_size=16, n_epochs=1, seed=0)
    model.learn(64)
    model.save(tmp_path / "model")
    again = MaskablePPO.load(tmp_path / "model")
    obs, info = env.reset(seed=3)
    action, _ = model.predict(obs, deterministic=True, action_masks=info["action_mask"])
    assert action == again.predict(obs, deterministic=True, action_masks=info["action_mask"])[0]
    model = MaskablePPO(ScorerPolicy, env, n_steps=32, batch_size=16, seed=0, policy_kwargs=CIRCUIT)
    scales = [group["lr_scale"] for group in model.policy.optimizer.param_groups]
    assert scales == [10.0, 10.0, 30.0, 1.0]
    model.learn(32)


def test_the_learners_steps_are_choices_and_its_seeds_its_own() -> None:
    config = tiny_config(kind="masked_ppo")
    a, b, c = (build_learner(config.agent, config.env, seed) for seed in (1, 1, 2))
    weights = [learner.model.policy.state_dict() for learner in (a, b, c)]  # type: ignore[attr-defined]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    assert any((weights[0][key] != weights[2][key]).any() for key in weights[0])


class Shuttle:
    """Sends every unit to the second site and back, with a power share; counts how often it is asked."""

    name, needs_scenario, asked = "shuttle", False, 0

    def begin(self, info: dict[str, Any]) -> None:
        self.asked = 0

    def act(self, obs: Any, info: dict[str, Any]) -> Action:
        self.asked += 1
        site = info["view"].units.site
        full = np.full(site.shape, AUTO)
        return Action(np.where(site == 0, 1, STAY), full)


def test_examples_are_the_rivals_choices() -> None:
    core = core_of(n_units=2)
    rival = Shuttle()
    found = imitate.play_examples(policy_for(core), rival, core, [0, 1], learner_plays=False)  # type: ignore[arg-type]
    assert rival.asked == core.n_periods
    here = SiteFeatures(core.n_sites)(found.obs)[1].argmax(1)
    assert bool((found.choice == 1).all())  # to the second site, then to stay there
    assert bool((found.choice[here == 0] == 1).all())
    assert bool(found.mask.gather(1, found.choice[:, None]).all())
    first = found.future[:2]
    batch, usd = begun(core, (0, 1)), np.zeros(2)
    while not batch.over.all():
        batch.step(rival.act(None, {"view": batch.view()}))
        usd += batch.outcome.total_usd
    np.testing.assert_allclose(first, -usd * core.params.reward_scale, rtol=1e-5)


@pytest.mark.parametrize("body", ["mlp", "circuit"])
def test_imitation_learns_the_example(body: str) -> None:
    """A rule that is one comparison is taken over."""
    agent = {"warm_storms": 8, "warm_rounds": 2, "warm_epochs": 30, "warm_lr": 0.01, "body": body, "warm_start": "idle"}
    config = tiny_config({"n_periods": 12}, agent, kind="masked_ppo")
    learner = build_learner(config.agent, config.env, 0)
    learner.prepare()
    core = problem_by_id(CSP).core(config.env)
    idle = play(core, make_rival("idle", problem_id=CSP), [5, 6])
    mine = play(core, learner.agent("mine", core), [5, 6])
    np.testing.assert_allclose(mine.total_usd, idle.total_usd)


@pytest.mark.parametrize("body", ["mlp", "circuit"])
def test_a_run_goes_on_as_if_it_had_never_stopped(body: str, tmp_path: Path) -> None:
    agent = {"body": body, "warm_start": None}
    whole = tiny_config(agent=agent, kind="masked_ppo", ruler=False, total_steps=288)
    one = train(whole, tmp_path / "one")
    learner = build_learner(whole.agent, whole.env, 0)
    learner.model.set_logger(Logger(None, []))  # type: ignore[attr-defined]
    learner.learn(192, lambda _: None)
    assert len(rows_of(one.evaluations_csv)) == 4
    learner = build_learner(whole.agent, whole.env, 0)
    kept: dict[int, Path] = {}

    def keep(at: Any) -> None:
        at.checkpoint(kept.setdefault(at.steps, tmp_path / f"at{at.steps}"))

    learner.set_logger(Logger(None, []))
    learner.learn(288, keep)
    again = build_learner(whole.agent, whole.env, 0)
    again.set_logger(Logger(None, []))
    again.restore(kept[192])
    again.learn(288, lambda _: None)
    pairs = zip(learner.model.policy.state_dict().items(), again.model.policy.state_dict().items(), strict=True)  # type: ignore[attr-defined]
    assert all((a == b).all() for (_, a), (_, b) in pairs)


def test_a_circuits_run_shows_itself_in_tensorboard(tmp_path: Path) -> None:
    run = train(
        tiny_config(agent={"body": "circuit", "warm_start": None}, kind="masked_ppo", ruler=False), tmp_path / "run"
    )
    events = EventAccumulator(str(run.path))
    events.Reload()
    assert {"vqc/circuit", "pictures/storm", "pictures/learning"} <= set(events.Tags()["images"])
    scalars = read_scalars(run.path)
    tags = {"vqc/parameters", "vqc/actor_circuits", "vqc/angle_gradient_norm/layer1", "vqc/circuits_a_storm"}
    assert tags | {"eval/cost_usd", "cost/unserved_usd", "kpi/unserved_kwh", "rollout/ep_rew_mean"} <= set(scalars)
    # 3 qubits x 3 layers: as many scales x 3 uploads, biases and angles; a head on 3 numbers
    assert scalars["vqc/parameters"][1].tolist() == [9 * 3 + 9 + 9 + 4] * 2


# --- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"warm_start": "rollin"}, r"agent\.warm_start='rollin': not a rival; rivals: idle, "),
        ({"warm_start": "optimum"}, r"agent\.warm_start=optimum: sees the future"),
        ({"features": ("sok",)}, r"agent\.features: 'sok' is no feature of a site; did you mean 'soc'\?"),
        ({"batch_size": 100}, r"agent\.batch_size=100: must divide"),
        ({"body": "circuit", "uploads": 1}, r"17 features: the encoding holds 9"),
    ],
)
def test_settings_that_do_not_go_together(agent: dict[str, Any], said: str) -> None:
    config = tiny_config(agent=agent, kind="masked_ppo")
    with pytest.raises(UserError, match=said):
        build_learner(config.agent, config.env, 0)


def test_other_spaces_are_refused() -> None:
    with pytest.raises(UserError, match="chooses for one unit at a time"):
        MaskablePPO(ScorerPolicy, gym.make(CSP, **SMALL))
    with pytest.raises(UserError, match="give the policy n_levels"):
        MaskablePPO(ScorerPolicy, gym.make(CSP, form="sequential", power="levels", **SMALL))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = tiny_config(kind="masked_ppo")
    build_learner(config.agent, config.env, 0).save(path := tmp_path / "model.zip")
    with pytest.raises(UserError, match="trained with 0 power levels, but this environment has 5"):
        load_learned(path, "x", core_of(power="levels"), config.agent)
    with pytest.raises(UserError, match=r"was trained with hidden=\[32, 32\], not \[4\]"):
        load_learned(path, "x", core_of(), tiny_config(agent={"hidden": [4]}, kind="masked_ppo").agent)
    v2g = tiny_config()
    build_learner(v2g.agent, v2g.env, 0).save(other := tmp_path / "v2g.zip")
    with pytest.raises(UserError, match="holds no scorer of sites"):
        load_learned(other, "x", core_of(), config.agent)
