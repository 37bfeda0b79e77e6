"""The hybrid agent: its file, its legal and repeatable decisions, its samplers, and looking several stages ahead."""

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import critics
import dimod
import numpy as np
import pytest
from test_v2g_forecast import STAGES, played_to, with_other_future

from qevgrid.agents.hybrid import agent as agent_module
from qevgrid.agents.hybrid import ahead
from qevgrid.agents.hybrid.agent import QUBO, HybridAgent, shipped
from qevgrid.agents.hybrid.config import HybridConfig, Sampler
from qevgrid.agents.hybrid.controller import Controller
from qevgrid.agents.hybrid.corrections import NAMES, STATE, TUNED, Actor, Corrections, correction_state
from qevgrid.agents.hybrid.model import Model
from qevgrid.agents.hybrid.samplers import DecisionSampler, Sampled, make_sampler
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g.core import V2GCore, View
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.scenario import Scenario
from worlds import WORLDS, Car, begin, by_hand, core_of, drawn, info_of

SIZE = 2
QUICK = {"reads": 1, "sweeps": 5}
ELSEWHERE = ("qpu", "leap_hybrid")
"""Samplers that need a token."""


def actor(seed: int = 0) -> Actor:
    """A policy of chance."""
    rng = np.random.default_rng(seed)
    shapes = ((len(STATE), 3), (3, len(NAMES)))
    return Actor(tuple(rng.normal(size=s) for s in shapes), tuple(rng.normal(size=s[1]) for s in shapes))


MODEL = Model(critics.random(5), TUNED, actor())


def hybrid(core: V2GCore, model: Model = MODEL, **settings: Any) -> HybridAgent:
    return HybridAgent(model, core, HybridConfig(**QUICK | settings))


def episode(core: V2GCore, agent: Any, scenario: Scenario | None = None) -> Iterator[tuple[View, FloatArray, Any]]:
    """View, action and outcome of each stage."""
    batch = begin(core, drawn(core, SIZE) if scenario is None else scenario)
    agent.begin(info_of(batch))
    while not batch.over.all():
        view = batch.view()
        action = agent.act(batch.observe(), {"view": view})
        batch.step(action)
        yield view, action, batch.outcome


def actions(core: V2GCore, agent: Any, scenario: Scenario | None = None) -> FloatArray:
    """(T, B, N), all in the box."""
    found = np.array([action for _, action, _ in episode(core, agent, scenario)])
    assert np.all((found >= -1.0) & (found <= 1.0))  # NaN would fail, too
    return found


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, actor()], ids=["critic", "policy"])
def test_a_saved_model_is_the_same(tmp_path: Path, policy: Actor | None) -> None:
    core, model = core_of("default"), Model(critics.random(5), Corrections(premium=1.5), policy)
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    model.save(first)
    loaded = Model.load(first)
    loaded.save(second)
    assert first.read_bytes() == second.read_bytes()
    assert (loaded.base, loaded.parameters) == (model.base, model.parameters)
    mine = HybridAgent.load(first, "mine", core, HybridConfig(**QUICK))
    assert (mine.name, mine.parameters) == ("mine", model.parameters)
    np.testing.assert_array_equal(actions(core, mine), actions(core, hybrid(core, model)))


def test_parameters_are_the_learned_numbers() -> None:
    def nets(inputs: int) -> int:
        return 4 * inputs + 4 + 4 * 4 + 4 + 4 + 1

    critic = sum(map(nets, critics.INPUTS)) + 24 * 4
    assert Model(critics.random()).parameters == critic
    assert MODEL.parameters == critic + 3 * len(STATE) + 3 + 3 * 4 + 4


def spoilt(kind: str, whole: bytes) -> bytes:
    """What may lie there instead."""
    found = io.BytesIO()
    if kind == "another zip":
        with zipfile.ZipFile(found, "w") as file:
            file.writestr("data", "{}")
    elif kind == "an array":
        np.save(found, np.zeros(3))
    elif kind in ("another version", "other features"):
        with np.load(io.BytesIO(whole)) as file:
            changes = (
                {"format": np.array("qevgrid-hybrid-0")} if kind == "another version" else {"fleet_mean": np.zeros(3)}
            )
            np.savez(found, **dict(file) | changes)
    else:
        found.write({"empty": b"", "garbage": b"no model at all" * 9, "truncated": whole[: len(whole) // 2]}[kind])
    return found.getvalue()


@pytest.mark.parametrize(
    "kind", ["empty", "garbage", "truncated", "another zip", "another version", "other features", "an array"]
)
def test_a_spoilt_model_is_the_users_error(kind: str, tmp_path: Path) -> None:
    MODEL.save(path := tmp_path / "model.zip")
    path.write_bytes(spoilt(kind, path.read_bytes()))
    with pytest.raises(UserError, match=r"model\.zip: is not a hybrid model that this version saved .*; train anew"):
        Model.load(path)


def test_damage_anywhere_is_noticed_or_harmless(tmp_path: Path) -> None:
    MODEL.save(path := tmp_path / "model.zip")
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for k in range(200):
        data = bytearray(whole[: rng.integers(len(whole))] if k % 4 == 0 else whole)
        if data:
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            assert Model.load(path).parameters == MODEL.parameters
        except UserError:
            refused += 1
    assert refused > 150


def test_no_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.zip: is not a hybrid model"):
        Model.load(tmp_path / "nowhere.zip")


# -- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 2, 4])
@pytest.mark.parametrize("world", ["default", "sites", "amperes", "taper", "tight", "two_days", "weak_feeder"])
def test_actions_lie_in_the_box(world: str, horizon: int) -> None:
    """On fleets, sites and days that the model knows nothing of."""
    core = core_of(world)
    found = actions(core, hybrid(core, horizon=horizon), drawn(core, 1, seed=3))
    assert found.shape == (core.n_stages, 1, core.n_sockets)
    assert np.any(found > 0)


@pytest.mark.parametrize("n_sockets", [1, 2, 9])
def test_any_fleet_will_do(n_sockets: int) -> None:
    core = core_of("default", n_sockets=n_sockets)
    agent = hybrid(core)
    assert actions(core, agent).shape == (core.n_stages, SIZE, n_sockets)
    assert agent.parameters == MODEL.parameters


@pytest.mark.parametrize("settings", [{}, {"horizon": 3}, {"sampler": "neal"}, {"polish": False}, {"critic": False}])
def test_the_same_agent_decides_the_same(settings: dict[str, Any]) -> None:
    core = core_of("default", n_sockets=3)
    agent = hybrid(core, **settings)
    found = actions(core, agent)
    assert found.tobytes() == actions(core, agent).tobytes()
    assert found.tobytes() == actions(core, hybrid(core, **settings)).tobytes()
    assert found.tobytes() == actions(core, pickle.loads(pickle.dumps(agent))).tobytes()


def test_a_batch_decides_as_its_rows_do() -> None:
    core = core_of("sites")
    day = drawn(core, SIZE)
    rows = [actions(core, hybrid(core), day.row(b)) for b in range(SIZE)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), actions(core, hybrid(core), day))


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("world", ["sites", "two_days"])
def test_nothing_of_the_future_is_known(world: str, horizon: int) -> None:
    core = core_of(world)
    day, other, bold = drawn(core, SIZE), drawn(core, SIZE, seed=900), 0
    agent = hybrid(core, horizon=horizon)
    for t in STAGES:
        twins = played_to(core, day, t), played_to(core, with_other_future(day, other, t), t)
        first, second = (agent.act(None, {"view": batch.view()}) for batch in twins)
        assert first.tobytes() == second.tobytes()
        bold += first.any()
    assert bold


def test_corrections_reach_the_decision() -> None:
    """A policy that says "energy is worth more" stores more."""
    core, last = core_of("default", outage={"share": 0.0}), len(STATE)

    def stored(calm: float) -> float:
        policy = Actor((np.zeros((last, 4)),), (np.array([0.0, calm, 0.0, 0.0]),))
        return float(actions(core, hybrid(core, Model(critics.flat(0.2), TUNED, policy))).sum())

    neutral = float(actions(core, hybrid(core, Model(critics.flat(0.2)))).sum())
    assert stored(0.0) == neutral
    assert stored(-1.0) < neutral < stored(1.0)


def test_corrections_scale_and_shift() -> None:
    base = Corrections(premium=1.2, calm_usd_kwh=-0.05, dark=0.8, spread=0.6)
    assert base.moved(np.zeros(4)) == base
    assert base.moved(np.array([1.0, 1.0, -1.0, -5.0])) == Corrections(2.4, pytest.approx(0.05), 0.4, 0.3)  # type: ignore[arg-type]


def test_the_state_of_the_corrections_is_bounded() -> None:
    for world in ("default", "sites", "two_days", "public"):
        core = core_of(world)
        batch, rng = begin(core, drawn(core, SIZE)), np.random.default_rng(0)
        while True:
            state = correction_state(batch.view())
            assert state.shape == (SIZE, len(STATE)) and np.all(np.abs(state) <= 1.0)
            if batch.over.all():
                break
            batch.step(rng.uniform(-1, 1, (SIZE, core.n_sockets)))


def test_the_shipped_agent_learns_its_world_as_the_day_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MODEL.save(tmp_path / "day.npz")
    monkeypatch.setattr(agent_module, "SHIPPED", tmp_path / "day.npz")
    agent = shipped(HybridConfig(**QUICK))
    assert (agent.name, agent.slow, agent.parameters, agent.report()) == ("hybrid", True, MODEL.parameters, {})
    for world in ("default", "sites"):
        core = core_of(world)
        np.testing.assert_array_equal(actions(core, agent), actions(core, hybrid(core)))
        assert set(agent.report()) == set(QUBO)
    batch = begin(core, drawn(core, SIZE))
    assert shipped().act(batch.observe(), info_of(batch)).shape == (SIZE, core.n_sockets)
    monkeypatch.delenv("DWAVE_API_TOKEN", raising=False)
    with pytest.raises(UserError, match=r"agent\.sampler=qpu"):
        shipped(HybridConfig(sampler="qpu"))


# -- samplers ------------------------------------------------------------------------------------


FEW = {"n_sockets": 2, "dt_h": 1.0, "outage": {"share": 1.0}, "site": {"critical_blocks": 1, "other_blocks": 1}}


@pytest.mark.parametrize("sampler", [name for name in get_args(Sampler) if name not in ELSEWHERE])
def test_every_sampler_plays_a_day(sampler: str) -> None:
    core = V2GCore(V2GParams(**FEW))
    agent, day = hybrid(core, Model(critics.random(5)), sampler=sampler, reads=4, sweeps=50, levels=3), drawn(core, 1)
    decided, dark = 0, 0
    for view, action, outcome in episode(core, agent, day):
        assert np.all((action >= -1.0) & (action <= 1.0)) and np.isfinite(outcome.total_usd).all()
        assert not action[~view.plugged].any()
        decided += int(view.plugged.any())
        dark += int(view.plugged.any() and view.outage.any())
    report = {name.removeprefix("qubo/"): float(value[0]) for name, value in agent.report().items()}
    assert dark and set(agent.report()) == set(QUBO)
    assert len(agent.steps[0]) == decided
    assert 0 < report["variables"] <= 2 * 2 + 2
    assert report["fallbacks"] == 0 and 0 <= report["feasible_share"] <= 1 and report["seconds"] > 0
    assert report["polished_usd"] <= report["repaired_usd"] + 1e-9
    assert all(step.polished_usd > -1e-6 for step in agent.steps[0])  # above the dual bound
    if sampler in ("exact", "highs"):
        best = hybrid(core, Model(critics.random(5)), sampler="highs", levels=3, polish=False)
        assert actions(core, best, day).shape == (core.n_stages, 1, 2)
        assert report["polished_usd"] == pytest.approx(best.report()["qubo/polished_usd"][0], abs=1e-4)


class Broken:
    """A machine that never answers as it should."""

    used, rho_share = "broken machine", 1.0

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def sample(self, bqm: dimod.BinaryQuadraticModel, reads: int, seed: int) -> Any:
        return self.answer(bqm)

    def limit_s(self, bqm: dimod.BinaryQuadraticModel) -> float:
        return 10.0

    def check_size(self, variables: int) -> None:
        """Anything fits."""


def fail(bqm: Any) -> Any:
    raise ConnectionError("no route\nto host")


def false_energies(bqm: dimod.BinaryQuadraticModel) -> dimod.SampleSet:
    bits = {v: 1 for v in bqm.variables}
    return dimod.SampleSet.from_samples(bits, "BINARY", energy=[float(bqm.energy(bits)) - 1e3])


def no_energies(bqm: dimod.BinaryQuadraticModel) -> dimod.SampleSet:
    return dimod.SampleSet.from_samples({v: 1 for v in bqm.variables}, "BINARY", energy=[np.nan])


NONSENSE = {
    "fails": fail,
    "answers nothing": lambda bqm: None,
    "has no samples": lambda bqm: dimod.SampleSet.from_samples_bqm(np.empty((0, bqm.num_variables)), bqm),
    "answers something else": lambda bqm: dimod.SampleSet.from_samples({"x": 1}, "BINARY", energy=[0.0]),
    "has no energies": no_energies,
    "lies": false_energies,
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_machine_that_talks_nonsense_is_stood_in_for(kind: str) -> None:
    core, config = V2GCore(V2GParams(**FEW)), HybridConfig(sampler="mock_qpu", **QUICK)
    agent = HybridAgent(MODEL, core, config)
    sampler = make_sampler("mock_qpu", reads=1, sweeps=5, machine=Broken(NONSENSE[kind]))
    agent.controller = Controller(MODEL.critic, core, config, sampler)
    with pytest.warns(RuntimeWarning, match="broken machine: .*; the local sampler stands in") as told:
        found = actions(core, agent)
    assert len(told) == 1  # once is enough
    np.testing.assert_array_equal(found, actions(core, hybrid(core)))
    fallbacks = agent.report()["qubo/fallbacks"]
    assert fallbacks.tolist() == [sum(step.variables > 0 for step in steps) for steps in agent.steps]
    assert fallbacks.min() > 5


class Dice(DecisionSampler):
    """Any choice at all."""

    def solve(self, problem: Any, seed: int, dual: Any = None) -> Sampled:
        sizes = np.diff(problem.first)
        choice = np.random.default_rng(seed).integers(0, sizes)
        energy = float(problem.energy_usd(choice))
        return Sampled(choice, energy, np.inf, np.full(1, energy), 0.0, 0.0, len(problem.bit), 0, 0.0, 1e-9, "dice")


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("polish", [True, False])
def test_whatever_is_chosen_is_legal(polish: bool, horizon: int) -> None:
    core = core_of("sites")
    agent = hybrid(core, polish=polish, horizon=horizon)
    agent.controller = Controller(MODEL.critic, core, agent.config, Dice())
    assert np.any(actions(core, agent))
    report = agent.report()
    assert np.isnan(report["qubo/raw_usd"]).all()  # no read was valid
    better = report["qubo/polished_usd"] < report["qubo/repaired_usd"] - 1e-6
    assert better.all() if polish else not better.any()


# -- several stages ------------------------------------------------------------------------------


HOURS: dict[str, Any] = {
    "n_sockets": 3, "dt_h": 1.0, "grid": {"feeder": "none"}, "outage": {"median_h": 1.9, "sigma": 0.0},
    "charger": {"power_kw": (10.0,), "min_current_a": 0.0}, "sell_ratio": 0.5, "price_sigma": 0.0,
    "site": {"generator_kw": 2.0, "connection_kw": 100.0, "critical_blocks": 2, "other_blocks": 1},
}  # fmt: skip
"""Days written by hand that are forecast as they come."""
PRICES = [0.3, 0.1, 0.6, 0.2] * 6
LOADS = {"pv": [9.0, 0.0, 4.0, 30.0] * 6, "critical": [6.0, 4.0, 8.0, 2.0] * 6, "other": [5.0, 3.0, 1.0, 7.0] * 6}


def known_day(core: V2GCore, cars: tuple[Car, ...], **series: Any) -> Scenario:
    day = by_hand(core, cars, buy=PRICES, sell=[0.5 * x for x in PRICES], **LOADS | series)
    rated = core.params.site
    return day._replace(
        pv_profile=day.pv_kw[..., 0] / rated.pv_kw,
        critical_profile=day.critical_kw[..., 0] / rated.critical_kw,
        other_profile=day.other_kw[..., 0] / rated.other_kw,
    )


FLEET = (
    Car(energy=30.0, departure=24, declared=30, target=42.0, stays=True),
    Car(socket=1, energy=12.0, departure=14, target=20.0),
    Car(socket=2, energy=45.0, departure=24, target=25.0),
)
CASES = {
    "supplied": (0, {}),
    "dark for two hours": (10, {"dark": [0] * 10 + [1, 1]}),
    "someone leaves": (12, {}),
    "the last stages": (20, {}),
    "beyond the end": (22, {}),
}


def planned(
    monkeypatch: pytest.MonkeyPatch, core: V2GCore, view: View, critic: Any, horizon: int
) -> tuple[Any, Any, Any]:
    """The decision, its plans and its units."""
    kept: list[Any] = []
    original = ahead.lookahead

    def spy(units: Any, *args: Any, **settings: Any) -> Any:
        kept.extend((original(units, *args, **settings), units))
        return kept[0]

    monkeypatch.setattr(ahead, "lookahead", spy)
    config = HybridConfig(horizon=horizon, candidates=40, critic=critic is not None)
    controller = Controller(critic, core, config)
    found = controller.decision(view, controller.forecast(view), 0, Corrections(calm_usd_kwh=-0.05, spread=0.6))
    monkeypatch.setattr(ahead, "lookahead", original)
    return found, *kept


def blocks_served(core: V2GCore, units: Any, out: Any, stages: list[Any]) -> IntArray:
    """Which block units the environment picked up, in their order: by stage, critical first."""
    site, served = core.params.site, []
    for dark, critical, other, got in stages:
        if dark:
            served += [k < round(got[0] / critical * site.critical_blocks) for k in range(site.critical_blocks)]
            served += [k < round(got[1] / other * site.other_blocks) for k in range(site.other_blocks)]
    return np.array(served, int)


@pytest.mark.parametrize("horizon", [2, 4])
@pytest.mark.parametrize(
    ("case", "critic"),
    [(case, None) for case in CASES] + [(case, critics.flat(0.3, 0.1)) for case in CASES if "dark" not in case],
    ids=lambda x: x if isinstance(x, str) else "stages" if x is None else "critic",
)
def test_the_energy_of_plans_is_what_they_cost(
    case: str, horizon: int, critic: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans of chance, carried out by the environment on a day that comes as forecast."""
    stage, series = CASES[case]
    core = V2GCore(V2GParams(**HOURS))
    batch, rng, compared = begin(core, known_day(core, FLEET, **series)), np.random.default_rng(1), 0
    for _ in range(stage):
        batch.step(np.zeros((1, 3)))
    view, saved = batch.view(), [x.copy() for x in batch.state]
    found, look, units = planned(monkeypatch, core, view, critic, horizon)
    v, length = len(found.socket), min(horizon, core.n_stages - stage)
    assert units.n_stages == length and (view.outage.any() == bool(series))
    sizes = np.diff(found.problem.first)
    for _ in range(150):
        for array, old in zip(batch.state, saved, strict=True):
            array[...] = old
        choice = rng.integers(0, sizes) * (rng.random(len(sizes)) < 0.7)
        power = np.take_along_axis(units.power_kw, look.levels(choice), 1)[:v]
        cost, stages, kept = 0.0, [], True
        for h in range(length):
            now, action = batch.view(), np.zeros(3)
            action[found.socket] = power[:, h] / 10.0
            batch.step(action[None])
            out, t = batch.outcome, stage + h
            cost += out.total_usd[0]
            done = (out.charge_kw - out.discharge_kw)[0, found.socket]
            kept &= bool(np.abs(done - power[:, h]).max() < 1e-9)
            served = out.served_critical_kw[0, 0], out.served_other_kw[0, 0]
            stages.append(
                (now.outage[0, 0], batch.scenario.critical_kw[0, t, 0], batch.scenario.other_kw[0, t, 0], served)
            )
        choice[v:] = blocks_served(core, units, batch.outcome, stages)
        if not kept or (choice >= sizes).any():
            continue
        compared += 1
        if critic is not None and stage + length < core.n_stages:
            stay = view.declared[0, found.socket] > stage + length
            stored = (batch.state.energy_kwh - view.energy_kwh)[0, found.socket[stay]].sum()
            cost -= (0.25 + 0.06) * stored
        assert float(found.problem.energy_usd(choice)) == pytest.approx(cost, abs=1e-9)
    assert compared > (5 if series else 50)


def test_the_fleets_worth_falls_with_what_a_plan_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What plans store is worth the area under the fleet's curve, which is flat half way to the next energy valued."""
    core = V2GCore(V2GParams(**HOURS))
    cars = tuple(Car(socket=i, energy=30.0, departure=20) for i in range(3))
    batch = begin(
        core, known_day(core, cars, pv=0.0, critical=0.0, other=0.0)._replace(price_profile=np.zeros((1, 24)))
    )
    controller = Controller(critics.falling(), core, HybridConfig(horizon=2, candidates=40))
    value = controller.worth(view := batch.view(), controller.forecast(view), 0, Corrections())
    assert value is not None
    shift, worth = value.marginal(0)
    edges = np.concatenate([[-1e9], (shift[1:] + shift[:-1]) / 2, [1e9]])
    found, look, units = planned(monkeypatch, core, view, critics.falling(), 2)
    assert worth[0] > worth[-1] + 0.05
    for choice in np.random.default_rng(0).integers(0, np.diff(found.problem.first), (50, 3)):
        levels = look.levels(choice)
        moved = np.take_along_axis(units.rise_kwh, levels, 1).sum()
        power = np.take_along_axis(units.power_kw, levels, 1)
        area = (worth * (np.clip(moved, edges[:-1], edges[1:]) - np.clip(0.0, edges[:-1], edges[1:]))).sum()
        wear = 0.05 * np.abs(power).sum()
        assert float(found.problem.energy_usd(choice)) == pytest.approx(wear - area, abs=1e-9)


def test_an_outage_that_should_be_over_is_still_one_now() -> None:
    core = V2GCore(V2GParams(**HOURS))
    batch = begin(core, known_day(core, FLEET, dark=[1] * 9))
    for _ in range(5):
        batch.step(np.zeros((1, 3)))
    controller = Controller(MODEL.critic, core, HybridConfig(horizon=4))
    f = controller.forecast(view := batch.view())
    assert view.dark_h[0, 0] > 1.9 and f.outage_probability[0, 0, 0] < 0.5
    found = controller.decision(view, f, 0, Corrections())
    assert found.dark.tolist() == [0] and len(found.blocks[0]) == 3
    assert len(found.problem.first) - 1 == 3 + 3  # the next stages have supply


def test_a_plan_sees_the_limit_that_a_full_battery_cannot_reach_now() -> None:
    """Two full vehicles sell 10 kW each and buy them back an hour later: 5 kW beyond the connection's 15 cost 30 USD."""
    energies = []
    for connection in (15.0, 1000.0):
        core = V2GCore(V2GParams(**HOURS | {"site": HOURS["site"] | {"connection_kw": connection}}))
        cars = tuple(Car(socket=i, energy=60.0, departure=20) for i in range(2))
        batch = begin(core, known_day(core, cars, pv=0.0, critical=0.0, other=0.0))
        config = HybridConfig(horizon=2, critic=False, levels=3)
        controller = Controller(None, core, config)
        f = controller.forecast(view := batch.view())
        plans = ahead._Ahead(controller, view, f, 0, None, 2)
        pieces, constant = plans._pieces()
        energies.append(constant + float(pieces(np.array([-20.0, 20.0]))))
        assert constant + float(pieces(np.array([-15.0, 15.0]))) == pytest.approx(-0.15 * 15 + 0.1 * 15)
    assert energies[0] - energies[1] == pytest.approx((5 + 5) * 6.0)


@pytest.mark.parametrize(("horizon", "bought"), [(1, False), (2, True), (3, True)])
def test_who_looks_far_enough_buys_before_the_price_rises(horizon: int, bought: bool) -> None:
    """0.1 now, 0.1 next, 0.5 in two hours; 0.05 wear a kWh each way, no losses."""
    charger = HOURS["charger"] | {"eta_charge": 1.0, "eta_discharge": 1.0}
    core = V2GCore(V2GParams(**HOURS | {"sell_ratio": 1.0, "n_sockets": 1, "charger": charger}))
    prices = [0.1, 0.1, 0.5, *[0.1] * 21]
    day = by_hand(core, (Car(departure=20, energy=6.0),), buy=prices)
    agent = HybridAgent(MODEL, core, HybridConfig(horizon=horizon, critic=False, sampler="highs", levels=3))
    found = actions(core, agent, day)[:, 0, 0]
    assert (found[:2].sum(), found[2]) == ((1.0, -1.0) if bought else (0.0, 0.0))
    assert not found[3:].any()


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_the_first_stage_of_a_plan_is_carried_out_as_it_is(horizon: int) -> None:
    """Where no limit of (9) is near: chargers, batteries and islands take what was asked for."""
    core, asked = core_of("easy_chargers", outage={"share": 1.0}), 0.0
    for _, action, out in episode(core, hybrid(core, horizon=horizon)):
        assert np.all(out.curtailed_kwh < 1e-4)
        asked += np.abs(action).sum()
    assert asked > 20
    assert WORLDS["easy_chargers"]["site"]["pv_kw"] == 0.0  # so that no sun is to be shared in the dark
