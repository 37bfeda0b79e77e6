"""The optimum is the optimum of the environment itself, and nobody does better."""

import itertools
from typing import Any

import numpy as np
import pytest

from qevgrid.agents.base import Agent
from qevgrid.agents.heuristics import ChargeAndServe, Cheap, Idle, LeastLaxityFirst, TimeOfUse
from qevgrid.agents.optimum import Optimum, all_vehicles, truth
from qevgrid.agents.rolling import Rolling
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.program import V2GProgram
from qevgrid.envs.v2g.scenario import Scenario
from qevgrid.envs.v2g.sessions import Sessions
from worlds import WORLDS, Car, begin, by_hand, core_of, drawn, info_of, play, rngs, total_usd

SIZE, GAP_USD = 3, 0.05
SEED = {"taper": 3, "direct_current": 20, "weak_feeder": 24}
"""First seeds of days that once cost more in the environment than the solver said."""
HALF_KW, FULL_KW, STAGES = 4.0, 8.0, 4
TINY: dict[str, Any] = {
    "dt_h": 1.0,
    "grid": {"feeder": "none"},
    "charger": {"power_kw": (FULL_KW,), "min_current_a": 4000 / 690, "eta_charge": 1, "eta_discharge": 1},
    "site": {"critical_blocks": 2, "other_blocks": 1, "generator_kw": 0.0},
}


class Chance(Agent):
    """Random wishes, one generator for all."""

    name = "chance"

    def __init__(self) -> None:
        self.rng = np.random.default_rng(2)

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        return self.rng.uniform(-1, 1, info["view"].plugged.shape)


def program(core: V2GCore, scenario: Scenario) -> V2GProgram:
    return V2GProgram(core.plant, truth(core.plant, scenario, 0), all_vehicles(core.plant, scenario, 0))


@pytest.mark.parametrize("name", WORLDS)
def test_optimum_replayed_costs_what_the_solver_said_and_nobody_beats_it(name: str) -> None:
    core = core_of(name)
    scenario = drawn(core, SIZE, SEED.get(name, 0))
    optimum, idle = Optimum(gap_usd=GAP_USD), total_usd(core, scenario, Idle())
    cost = total_usd(core, scenario, optimum)
    report = optimum.report()
    exact = 1e-6 * np.maximum(np.abs(cost), np.abs(idle))
    assert np.all(np.abs(cost - report["solver_cost_usd"]) <= exact)
    assert np.all(report["bound_usd"] <= cost + exact)
    assert np.all(cost <= report["bound_usd"] + GAP_USD + exact)
    assert idle.sum() > cost.sum() + 1.0
    for agent in rivals(name):
        rival = total_usd(core, scenario, agent)
        assert np.all(rival >= report["bound_usd"] - exact), agent.name


def rivals(name: str) -> list[Agent]:
    """Rules everywhere; the plans, which take longer, in a few worlds."""
    rules: list[Agent] = [Idle(), Cheap(), LeastLaxityFirst(), ChargeAndServe(), TimeOfUse(), Chance()]
    if name not in ("default", "sites", "sells_low"):
        return rules
    return [*rules, Rolling(), Rolling("rolling_reserve", reserve_h=3.0)]


@pytest.mark.parametrize("outages", [0.0, 1.0])
def test_optimum_replayed_at_full_size(outages: float) -> None:
    """A whole day in quarters of an hour: 96 stages in which rounding could add up."""
    core = V2GCore(V2GParams(n_sockets=8, outage={"share": outages}, site={"critical_kw": 20.0}))
    scenario, optimum = drawn(core, 2), Optimum(gap_usd=5.0)
    cost = total_usd(core, scenario, optimum)
    np.testing.assert_allclose(cost, optimum.report()["solver_cost_usd"], rtol=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_relaxation_is_a_bound(name: str) -> None:
    core = core_of(name)
    p = program(core, drawn(core, 1, seed=40))
    relaxed = p.lp.solve(relax=True).objective
    plan = p.solve(gap_usd=1.0)
    assert relaxed <= plan.bound_usd + 1e-6 <= plan.cost_usd + 2e-6


def test_optimum_of_an_arbitrage_by_hand() -> None:
    """Buy 8 kWh at 0.10, 7.2 arrive; sell 0.8 of them at 0.30; wear 0.01 on 8 + 5.76 kWh."""
    charger = {"power_kw": (8.0,), "min_current_a": 0.0, "eta_charge": 0.9, "eta_discharge": 0.8}
    core = tiny(n_sockets=1, charger=charger, cost={"wear_usd_kwh": 0.01})
    car = Car(departure=2, energy=10.0, target=10.0, floor=0.0)
    plan = program(core, by_hand(core, (car,), buy=[0.10, 0.30])).solve(gap_usd=1e-6)
    assert plan.cost_usd == pytest.approx(8 * 0.10 - 5.76 * 0.30 + 0.01 * (8 + 5.76))
    np.testing.assert_allclose(plan.charge_kw[:2, 0], [8.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(plan.discharge_kw[:2, 0], [0.0, 5.76], atol=1e-6)


def test_optimum_stays_off_below_the_minimum_power() -> None:
    """2 kWh are missing (2 USD); 4 kW at 0.60 cost 2.40 and half of it, which is not possible, 1.20."""
    core = tiny(n_sockets=1, cost={"wear_usd_kwh": 0.0})
    car = Car(departure=1, energy=10.0, target=12.0)
    p = program(core, by_hand(core, (car,), buy=[0.60]))
    assert p.solve(gap_usd=1e-6).cost_usd == pytest.approx(2.0)
    assert p.lp.solve(relax=True).objective == pytest.approx(1.2)


def test_optimum_serves_whole_blocks_by_hand() -> None:
    """6 kWh above the floor carry two blocks of 2.5 kWh; 15 of 20 kWh critical stay dark."""
    core = tiny(n_sockets=1, site={"critical_blocks": 4, "generator_kw": 0.0})
    car = Car(departure=2, energy=12.0, floor=6.0)
    scenario = by_hand(core, (car,), critical=[10.0, 10.0], dark=[1, 1])
    p = program(core, scenario)
    assert p.solve(gap_usd=1e-6).cost_usd == pytest.approx(15 * 20 + 5 * 0.05)
    assert p.lp.solve(relax=True).objective == pytest.approx(14 * 20 + 6 * 0.05)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_is_that_of_brute_force(seed: int) -> None:
    """Powers 0, 4 and 8 kW both ways, two sockets, four stages: all 5^8 schedules played.

    On dark days nobody wants energy: an island may split its load between the vehicles at powers
    that are none of the levels, and then only the sum must not matter.
    """
    core, dark = tiny(site=TINY["site"] | {"connection_kw": 1000.0}), seed % 2 == 1
    scenario = random_tiny(core, seed, dark=dark, most_kwh=0.0 if dark else 12.0)
    best = brute_force(core, scenario)
    free, restricted = program(core, scenario), program(core, scenario)
    only_levels(restricted)
    assert best == pytest.approx(restricted.solve(gap_usd=1e-6).cost_usd, abs=1e-5)
    assert free.solve(gap_usd=1e-6).cost_usd <= best + 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_brute_force_never_beats_the_optimum_where_limits_bind(seed: int) -> None:
    """Full batteries, a short connection and losses, so that the projection changes wishes."""
    charger = TINY["charger"] | {"eta_charge": 0.9, "eta_discharge": 0.85}
    core = tiny(charger=charger, site=TINY["site"] | {"connection_kw": 13.0, "generator_kw": 2.5})
    scenario = random_tiny(core, 10 + seed, dark=seed % 2 == 1)
    x = scenario.sessions
    full = Sessions(*x)._replace(capacity_kwh=x.energy_kwh + 7.0, floor_kwh=x.energy_kwh - 9.0)
    scenario = scenario._replace(sessions=full)
    assert program(core, scenario).solve(gap_usd=1e-6).cost_usd <= brute_force(core, scenario) + 1e-5


def tiny(**changes: Any) -> V2GCore:
    return V2GCore(V2GParams(**(TINY | {"n_sockets": 2} | changes)))


def random_tiny(core: V2GCore, seed: int, *, dark: bool, most_kwh: float = 12.0) -> Scenario:
    """Four stages with random prices and needs; loads in multiples of 4 kW; stages 1 and 2 may be dark."""
    rng = rngs(1, seed)[0]
    cars = tuple(
        Car(i, departure=int(rng.integers(3, 5)), energy=30.0, capacity=100.0, floor=0.0, stays=True,
            target=rng.uniform(30, 30 + most_kwh) if most_kwh else 0.0)
        for i in range(2)
    )  # fmt: skip
    load = {name: 4.0 * rng.integers(0, 3, STAGES) for name in ("critical", "other")}
    buy, outage = rng.uniform(-0.2, 1.5, STAGES), [0, dark, dark, 0]
    return by_hand(core, cars, buy=buy, sell=buy - 0.2 * abs(buy), dark=outage, **load)


def brute_force(core: V2GCore, scenario: Scenario) -> float:
    """Least cost over all schedules of the five levels."""
    one_stage = np.array(list(itertools.product(core.levels, repeat=core.n_sockets)))
    tail = np.array(list(itertools.product(range(len(one_stage)), repeat=STAGES - 1)))
    batch = begin(core, repeated(scenario, len(tail)))
    start, best = [np.array(x) for x in batch.state], np.inf
    for first in one_stage:
        for array, value in zip(batch.state, start, strict=True):
            array[...] = value
        cost = np.zeros(len(tail))
        for t in range(STAGES):
            action = one_stage[tail[:, t - 1]] if t else np.tile(first, (len(tail), 1))
            batch.step(action)
            cost += batch.outcome.total_usd
        best = min(best, cost.min())
    return float(best)


def repeated(scenario: Scenario, size: int) -> Scenario:
    def many(x: Any) -> Any:
        return Sessions(*map(many, x)) if isinstance(x, Sessions) else np.repeat(x, size, axis=0)

    return Scenario(*map(many, scenario))


def only_levels(p: V2GProgram) -> None:
    """Hold every power of the program at one of the levels."""
    for power in (p.charge, p.discharge):
        row = np.arange(len(power))
        half, full = (p.lp.variables(len(power), upper=1.0, integer=True) for _ in range(2))
        p.lp.rows(len(power), [(row, power, 1.0), (row, half, -HALF_KW), (row, full, -FULL_KW)], 0.0, 0.0)
        p.lp.rows(len(power), [(row, half, 1.0), (row, full, 1.0)], high=1.0)


def test_solver_out_of_time_is_one_line_that_says_what_to_do() -> None:
    core = V2GCore(V2GParams())
    batch = begin(core, drawn(core, 1))
    with pytest.raises(UserError, match="raise the solver's time limit") as error:
        Optimum(time_limit_s=1e-4).begin(info_of(batch))
    assert "\n" not in str(error.value)


def test_plans_know_only_what_is_plugged_in() -> None:
    """A rolling plan of a day without vehicles rests."""
    core = core_of("default")
    batch = begin(core, by_hand(core, buy=0.2))
    agent = Rolling()
    for s in play(batch, lambda b: agent.act(b.observe(), info_of(b))):
        assert not s.out.charge_kw.any()
        assert not s.out.discharge_kw.any()
