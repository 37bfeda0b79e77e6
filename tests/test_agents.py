"""The rivals: legal, batched, deterministic actions, and each does what its name says."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from qevgrid import agents
from qevgrid.agents import LEARNERS, is_rival, load_object, make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.heuristics import ChargeAndServe, Cheap, Idle, LeastLaxityFirst, TimeOfUse
from qevgrid.agents.rolling import Rolling
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.problem import PROBLEM
from qevgrid.envs.v2g.scenario import Scenario
from qevgrid.runner import metrics
from qevgrid.runner.rollout import play as play_episodes
from worlds import Car, begin, by_hand, core_of, cost_usd, drawn, info_of, play, total_usd

RIVALS = agents.RIVALS["qevgrid/V2G-v0"].paths
SIZE = 3
SHAPED_WORLDS = ("default", "sites", "amperes")
PLAIN: dict[str, Any] = {
    "n_sockets": 3,
    "dt_h": 1.0,
    "grid": {"feeder": "none"},
    "charger": {"power_kw": (10.0,)},
    "site": {"generator_kw": 0.0, "connection_kw": 200.0},
}
"""Three sockets of 10 kW and hours, for days written by hand."""


def actions(core: V2GCore, scenario: Scenario, agent: Agent) -> FloatArray:
    """(T, B, N)."""
    batch, found = begin(core, scenario), []
    agent.begin(info_of(batch))
    while not batch.over.all():
        found.append(agent.act(batch.observe(), info_of(batch)))
        batch.step(found[-1])
    return np.array(found)


@functools.cache
def played(rival: str, world: str) -> FloatArray:
    core = core_of(world)
    return actions(core, drawn(core, SIZE), make_rival(rival))


def first_action(core: V2GCore, scenario: Scenario, agent: Agent) -> FloatArray:
    """(N,) of a day written by hand."""
    batch = begin(core, scenario)
    return agent.act(batch.observe(), info_of(batch))[0]


# --- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("world", SHAPED_WORLDS)
@pytest.mark.parametrize("rival", RIVALS)
def test_actions_lie_in_the_box(rival: str, world: str) -> None:
    core, found = core_of(world), played(rival, world)
    assert found.shape == (core.n_stages, SIZE, core.n_sockets)
    assert np.all((found >= -1.0) & (found <= 1.0))  # NaN would fail, too
    assert np.any(found > 0.0)


@pytest.mark.parametrize("rival", RIVALS)
def test_a_batch_decides_as_its_rows_do(rival: str) -> None:
    core = core_of("default")
    scenario = drawn(core, SIZE)
    rows = [actions(core, scenario.row(b), make_rival(rival)) for b in range(SIZE)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), played(rival, "default"))


@pytest.mark.parametrize("rival", RIVALS)
def test_names_are_the_agents_own(rival: str) -> None:
    agent = make_rival(rival)
    assert agent.name == rival
    assert (agent.parameters > 0) == (rival in LEARNERS)
    assert agent.needs_scenario == (rival == "optimum")
    assert is_rival(rival)


def test_learners_can_be_loaded() -> None:
    assert all(hasattr(load_object(path), "load") for path in LEARNERS.values())


@pytest.mark.parametrize(
    ("name", "near"), [("optimun", "'optimum'"), ("rolling_reserv", "'rolling_reserve'"), ("xyz", "")]
)
def test_an_unknown_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"^'{name}' is neither a rival nor a run folder; ") as caught:
        make_rival(name)
    assert all(rival in str(caught.value) for rival in RIVALS)
    assert (f"did you mean {near}?" in str(caught.value)) == bool(near)


def test_a_folder_in_the_way_is_no_rival(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("idle", "mine"):
        (tmp_path / name).mkdir()
    assert is_rival("idle")
    assert not is_rival("mine")


@pytest.mark.parametrize("world", ["default", "tight"])
def test_the_ruler_scores_idle_0_and_optimum_1(world: str) -> None:
    core = core_of(world)
    idle, tou, best = (play_episodes(core, make_rival(name), [5, 6]) for name in ("idle", "tou", "optimum"))
    zero, between, one = metrics.table([idle, tou, best], idle, best, PROBLEM)
    assert [zero[k] for k in ("score", "score_lo", "score_hi")] == [0.0, 0.0, 0.0]
    assert [one[k] for k in ("score", "score_lo", "score_hi")] == [1.0, 1.0, 1.0]
    assert between["score"] < 1.0


# --- rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rival", ["idle", "cheap", "llf"])
@pytest.mark.parametrize("world", SHAPED_WORLDS)
def test_who_only_charges_never_discharges(rival: str, world: str) -> None:
    assert np.all(played(rival, world) >= 0.0)


def test_idle_charges_at_once_until_the_target() -> None:
    core = V2GCore(V2GParams(**PLAIN))
    cars = (Car(energy=30.0, target=45.0, departure=12), Car(socket=1, energy=30.0, target=20.0, departure=12))
    found = actions(core, by_hand(core, cars), Idle())[:, 0]
    np.testing.assert_array_equal(found[:, 0], [1.0, 1.0] + [0.0] * 22)  # 9.5 kWh an hour
    np.testing.assert_array_equal(found[:, 1:], 0.0)


def test_cheap_waits_for_the_cheapest_hours_but_not_too_long() -> None:
    core = V2GCore(V2GParams(**PLAIN))
    prices = [0.5, 0.4, 0.1, 0.3, 0.2, 0.6] + [0.7] * 18
    far, near = (Car(energy=30.0, target=48.0, departure=d) for d in (12, 6))
    patient = Cheap(margin=1.0, laxity_h=0.5)
    found = actions(core, by_hand(core, (far,), buy=prices), patient)[:, 0, 0]
    assert np.flatnonzero(found).tolist() == [2, 4]
    hasty = Cheap(margin=1.0, laxity_h=4.5)
    found = actions(core, by_hand(core, (near,), buy=prices), hasty)[:, 0, 0]
    assert np.flatnonzero(found).tolist() == [0, 1]


@pytest.mark.parametrize("departures", list(itertools.permutations((4, 7, 10))))
def test_llf_charges_those_that_can_wait_least(departures: tuple[int, ...]) -> None:
    core = V2GCore(V2GParams(**PLAIN | {"site": {"connection_kw": 30.0, "critical_kw": 1.0}}))
    cars = tuple(Car(socket=i, energy=20.0, target=40.0, departure=d) for i, d in enumerate(departures))
    found = first_action(core, by_hand(core, cars), LeastLaxityFirst(connection_share=0.8))  # room for two
    np.testing.assert_array_equal(found, [float(d < 10) for d in departures])


def test_llf_charges_who_cannot_wait_beyond_the_connections_share() -> None:
    core = V2GCore(V2GParams(**PLAIN | {"site": {"connection_kw": 30.0, "critical_kw": 1.0}}))
    cars = tuple(Car(socket=i, energy=20.0, target=40.0, departure=2) for i in range(3))
    np.testing.assert_array_equal(first_action(core, by_hand(core, cars), LeastLaxityFirst(connection_share=0.1)), 1.0)


@pytest.mark.parametrize("agent", [ChargeAndServe(), TimeOfUse()])
def test_critical_load_is_served_in_an_outage(agent: Agent) -> None:
    """Six hours of 8 kW out of two batteries of 54 kWh above their floors."""
    core = V2GCore(V2GParams(**PLAIN | {"site": PLAIN["site"] | {"critical_kw": 8.0}}))
    cars = tuple(Car(socket=i, energy=60.0, departure=24) for i in range(2))
    day = by_hand(core, cars, critical=8.0, dark=[0, 0, 1, 1, 1, 1, 1, 1])._replace(critical_profile=np.ones((1, 24)))
    assert unserved_usd(core, day, agent) == pytest.approx(0.0, abs=1e-9)
    assert unserved_usd(core, day, Idle()) == pytest.approx(6 * 8 * 20.0)


def unserved_usd(core: V2GCore, day: Scenario, agent: Agent) -> float:
    return float(np.sum(cost_usd(core, day, actions(core, day, agent), core.n_stages)["unserved_critical"]))


def test_serve_keeps_energy_for_the_critical_load() -> None:
    """Other load is carried only as far as the energy lasts ``hours_h``."""
    core = V2GCore(V2GParams(**PLAIN))
    loads = {"critical": 4.0, "other": 8.0, "dark": [1] * 4}
    day = by_hand(core, (Car(energy=46.0, departure=24),), **loads)  # 38 kWh at the plug
    day = day._replace(critical_profile=np.full((1, 24), 4.0 / 60), other_profile=np.full((1, 24), 8.0 / 60))
    found = [first_action(core, day, ChargeAndServe(hours_h=h))[0] for h in (3.0, 5.0, 9.0)]
    np.testing.assert_allclose(found, [-1.0, -0.6, -0.4])  # 12 of 12 kW, one block of 2 kW, none


@pytest.mark.parametrize(
    ("energy", "risk", "sells"), [(0.55, 0.0, True), (0.45, 0.0, False), (0.55, 0.2, False), (0.75, 0.2, True)]
)
def test_tou_keeps_its_floor(energy: float, risk: float, sells: bool) -> None:
    core = V2GCore(V2GParams(**PLAIN))
    agent = TimeOfUse(low=0.2, high=0.9, floor=0.5, floor_risk=1.0)
    car = Car(energy=60.0 * energy, departure=20)
    found = first_action(core, by_hand(core, (car,), buy=[0.5], risk=risk), agent)
    assert found[0] == (-1.0 if sells else 0.0)


@pytest.mark.parametrize("world", ["default", "sells_low"])
def test_tou_never_sells_below_its_floor(world: str) -> None:
    core, agent = core_of(world, outage={"share": 0.0}), TimeOfUse(high=0.7)
    batch, sold = begin(core, drawn(core, 8)), 0
    while not batch.over.all():
        view = batch.view()
        action = agent.act(batch.observe(), {"view": view})
        keep = np.minimum(agent.floor + agent.floor_risk * view.risk, 0.95)[:, None] * view.capacity_kwh
        assert np.all(view.energy_kwh[action < 0] > keep[action < 0])
        sold += int(np.sum(action < 0))
        batch.step(action)
    assert sold > 0


# --- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rival", ["rolling", "rolling_reserve"])
@pytest.mark.parametrize("world", ["default", "tight", "sells_low", "amperes"])
def test_rolling_plans_beat_idle(rival: str, world: str) -> None:
    core = core_of(world)
    scenario = drawn(core, SIZE)
    assert total_usd(core, scenario, make_rival(rival)).sum() < total_usd(core, scenario, Idle()).sum()


def test_a_reserve_holds_more_energy_while_the_risk_is_high() -> None:
    core = core_of("default", outage={"share": 0.0}, reserve={"share": 0.0})
    calm = drawn(core, SIZE)
    held = {}
    for risk in (0.0, 0.9):
        day = calm._replace(risk=np.full_like(calm.risk, risk))
        for name, agent in {"plain": Rolling(), "reserve": Rolling(reserve_h=12.0, reserve_usd_kwh=1.0)}.items():
            held[name, risk] = held_kwh(core, day, agent)
    assert held["reserve", 0.0] == pytest.approx(held["plain", 0.0])
    assert held["plain", 0.9] == pytest.approx(held["plain", 0.0])
    assert held["reserve", 0.9] > 1.1 * held["plain", 0.9]


def held_kwh(core: V2GCore, scenario: Scenario, agent: Agent) -> float:
    """Mean energy in the parked batteries."""
    batch = begin(core, scenario)
    stages = play(batch, lambda b: agent.act(b.observe(), info_of(b)))
    return float(np.mean([np.where(s.after.plugged, s.after.energy_kwh, 0.0).sum() for s in stages]))


def test_rolling_rests_where_nobody_is_parked() -> None:
    core = V2GCore(V2GParams(**PLAIN))
    np.testing.assert_array_equal(first_action(core, by_hand(core), Rolling()), 0.0)


def test_the_optimum_reports_its_cost_and_bound() -> None:
    core, agent = core_of("default"), make_rival("optimum")
    cost = total_usd(core, drawn(core, SIZE), agent)
    report = agent.report()
    np.testing.assert_allclose(report["solver_cost_usd"], cost, rtol=1e-6, atol=1e-6)
    assert np.all(report["bound_usd"] <= report["solver_cost_usd"])
