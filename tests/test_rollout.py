"""Rollouts: the same worlds as the environments, quantities by hand, the same over processes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import qevgrid  # noqa: F401 - registers the environments
from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.heuristics import Idle
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.problem import KPIS
from qevgrid.envs.v2g.scenario import Scenario
from qevgrid.runner.parallel import CHUNK, play_rival
from qevgrid.runner.rollout import Episodes, play
from worlds import WORLDS, Car, by_hand, core_of

SEEDS = [3, 4, 2**33 + 1]
PLAIN: dict[str, Any] = {
    "n_sockets": 2,
    "dt_h": 1.0,
    "grid": {"feeder": "none"},
    "charger": {"power_kw": (10.0,), "eta_charge": 1.0, "eta_discharge": 1.0},
    "site": {"generator_kw": 0.0, "connection_kw": 200.0, "critical_blocks": 1, "other_blocks": 1},
}


class Script(Agent):
    """Plays given actions (T, N) in every episode, and notes what it was told."""

    name = "script"

    def __init__(self, actions: FloatArray) -> None:
        self.actions, self.begun, self.seen = actions, 0, []  # type: ignore[var-annotated]

    def begin(self, info: dict[str, Any]) -> None:
        self.begun += 1
        self.stage = 0

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        self.seen.append((obs.copy(), set(info)))
        self.stage += 1
        return np.repeat(self.actions[None, self.stage - 1], len(obs), 0)


def script(core: V2GCore, seed: int = 0) -> Script:
    return Script(np.random.default_rng(seed).uniform(-1, 1, (core.n_stages, core.n_sockets)))


@pytest.mark.parametrize("world", ["default", "sites", "two_days"])
def test_rollouts_are_those_of_the_environment(world: str) -> None:
    core = core_of(world)
    agent = script(core)
    episodes = play(core, agent, SEEDS)
    env = gym.make("qevgrid/V2G-v0", **WORLDS[world])
    for k, seed in enumerate(SEEDS):
        obs, info = env.reset(seed=seed)
        assert info["fingerprint"] == episodes.fingerprints[k]
        costs, total = np.zeros(len(core.cost_terms)), 0.0
        for stage, action in enumerate(agent.actions):
            np.testing.assert_array_equal(agent.seen[stage][0][k], obs)
            obs, _, _, _, info = env.step(action)
            costs += list(info["cost"].values())
            total += info["cost_usd"]
        np.testing.assert_allclose(episodes.cost_usd[k], costs, rtol=1e-12, atol=1e-9)
        assert episodes.total_usd[k] == pytest.approx(total)
    assert episodes.seeds == SEEDS
    assert len(set(episodes.fingerprints)) == len(SEEDS)
    assert agent.begun == 2  # for the episodes, and for the time of a single decision


def test_only_who_needs_it_sees_the_scenario() -> None:
    core = core_of("default")
    agent = script(core)
    play(core, agent, [0])
    assert all(keys == {"view"} for _, keys in agent.seen)
    agent = script(core)
    agent.needs_scenario = True
    play(core, agent, [0])
    assert all(keys == {"view", "scenario"} for _, keys in agent.seen)


# --- quantities ------------------------------------------------------------------------------------


def played_by_hand(
    params: dict[str, Any], actions: Any, monkeypatch: pytest.MonkeyPatch, cars: tuple[Car, ...], **series: Any
) -> dict[str, float]:
    """KPIs of a day written by hand."""
    core = V2GCore(V2GParams(**params))
    day: Scenario = by_hand(core, cars, **series)
    monkeypatch.setattr(type(core.sampler), "sample", lambda sampler, rngs: day)
    table = np.zeros((core.n_stages, core.n_sockets))
    table[: len(actions)] = actions
    episodes = play(core, Script(table), [0])
    found = dict(zip(KPIS, episodes.kpi[0].tolist(), strict=True))
    return found | {"outage_h": float(episodes.stress[0]), "cost_usd": float(episodes.total_usd[0])}


def test_quantities_of_a_calm_day_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    cars = (Car(departure=4, energy=30.0, target=45.0), Car(socket=1, departure=4, energy=30.0))
    acts = [[1.0, 0.0], [1.0, -0.5], [-1.0, 0.0]]
    found = played_by_hand(PLAIN, acts, monkeypatch, cars, critical=[3.0], other=[2.0, 4.0], pv=[1.0], buy=0.1)
    wanted = {
        "unserved_critical_kwh": 0.0, "unserved_other_kwh": 0.0, "charged_kwh": 20.0, "discharged_kwh": 15.0,
        "shortfall_kwh": 5.0, "curtailed_kwh": 0.0, "generator_kwh": 0.0, "violation_kwh": 0.0,
        "peak_import_kw": 14.0, "loss_kwh": 0.0, "outage_h": 0.0,
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)
    assert np.isnan(found["v_min_pu"])  # there is no feeder


def test_quantities_of_an_outage_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    params = PLAIN | {"site": PLAIN["site"] | {"generator_kw": 2.0}}
    cars = (Car(departure=24, energy=14.0, floor=6.0),)  # 8 kWh above the floor
    series = {"critical": [6.0] * 3, "other": [4.0] * 3, "dark": [1, 1, 1]}
    found = played_by_hand(params, [[-1.0, 0.0]] * 3, monkeypatch, cars, **series)
    wanted = {
        "unserved_critical_kwh": 12.0, "unserved_other_kwh": 4.0 * 2, "discharged_kwh": 8.0, "charged_kwh": 0.0,
        "generator_kwh": 2.0, "peak_import_kw": 0.0, "outage_h": 3.0, "shortfall_kwh": 0.0,
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)


def test_what_the_projection_cut_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    cars = (Car(departure=24, energy=55.0, capacity=60.0),)
    found = played_by_hand(PLAIN, [[1.0, 0.0]], monkeypatch, cars)
    assert (found["charged_kwh"], found["curtailed_kwh"]) == pytest.approx((5.0, 5.0))


def test_voltage_and_losses_of_the_bare_feeder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the feeder's nominal load for two hours: the published figures of case33bw."""
    params = PLAIN | {"grid": {"feeder": "case33bw", "load_scale": 1.0}}
    found = played_by_hand(params, [[0.0, 0.0]], monkeypatch, (), feeder_scale=[1.0, 1.0])
    assert found["v_min_pu"] == pytest.approx(0.91309, abs=2e-5)
    assert found["loss_kwh"] == pytest.approx(2 * 202.677, rel=1e-4)


def test_charging_and_load_lower_the_voltage(monkeypatch: pytest.MonkeyPatch) -> None:
    params = PLAIN | {"grid": {"feeder": "case33bw", "load_scale": 0.5}}
    cars = (Car(departure=24, energy=10.0),)
    voltages = []
    for action, load, sun in ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 50.0, 0.0), (1.0, 50.0, 80.0)):
        series = {"feeder_scale": [0.5], "critical": [load], "pv": [sun]}
        voltages.append(played_by_hand(params, [[action, 0.0]], monkeypatch, cars, **series)["v_min_pu"])
    assert voltages[0] > voltages[1] > voltages[2]
    assert voltages[3] > voltages[1]


# --- records ---------------------------------------------------------------------------------------


def test_kept_days_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of("default")
    episodes = play(core, Idle(), SEEDS, keep=[0, 2])
    assert sorted(episodes.traces) == [0, 2]
    for k, trace in episodes.traces.items():
        assert trace.agent == "idle"
        assert trace.soc.shape == (core.n_stages, core.n_sockets)
        assert np.sum(trace.cost_usd) == pytest.approx(episodes.total_usd[k])
    assert episodes.ms_per_decision > 0


def test_slow_rivals_over_processes_are_the_same() -> None:
    params, seeds, told = core_of("default").params, list(range(3)), []
    alone = play_rival("rolling", params, seeds, [0, 2], jobs=1)
    shared = play_rival("rolling", params, seeds, [0, 2], jobs=2, advance=told.append)
    assert_same(alone, shared)
    assert sum(told) == len(seeds)
    assert len(told) == 2  # chunks


def test_fast_rivals_and_few_days_need_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qevgrid.runner.parallel.ProcessPoolExecutor", None)
    params, told = core_of("default").params, []
    play_rival("idle", params, range(5), jobs=2, advance=told.append)
    play_rival("optimum", params, range(CHUNK), jobs=2, advance=told.append)
    assert told == [5, CHUNK]


def assert_same(a: Episodes, b: Episodes) -> None:
    assert (a.agent, a.seeds, a.fingerprints, a.parameters) == (b.agent, b.seeds, b.fingerprints, b.parameters)
    for name in ("cost_usd", "total_usd", "kpi", "stress"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.report.keys() == b.report.keys()
    assert all(np.array_equal(a.report[key], b.report[key]) for key in a.report)
    assert list(a.traces) == list(b.traces)
    for k, trace in a.traces.items():
        np.testing.assert_array_equal(trace.soc, b.traces[k].soc)


def test_joined_parts_are_the_whole() -> None:
    core = core_of("default")
    whole = play(core, make_rival("optimum"), SEEDS, keep=[0, 2])
    parts = [
        play(core, make_rival("optimum"), SEEDS[:2], keep=[0]),
        play(core, make_rival("optimum"), SEEDS[2:], keep=[0]),
    ]
    parts[0].ms_per_decision, parts[1].ms_per_decision = 1.0, 4.0
    joined = Episodes.join(parts)
    assert_same(whole, joined)
    assert set(joined.report) == {"solver_cost_usd", "bound_usd"}
    assert joined.ms_per_decision == pytest.approx((2 * 1.0 + 4.0) / 3)
