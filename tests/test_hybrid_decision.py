"""The hybrid agent's decisions: what a choice costs is what the environment charges, and what energy is worth."""

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import critics
import decisions
import numpy as np
import pytest

from qevgrid.agents import make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid import dataset, features, labels
from qevgrid.agents.hybrid.corrections import Corrections, correction_state
from qevgrid.agents.hybrid.decision import Decision, decide, levels, powers, repaired, served_kw
from qevgrid.agents.hybrid.dual import dual_ascent
from qevgrid.agents.hybrid.recourse import outage_value
from qevgrid.agents.hybrid.samplers import make_sampler
from qevgrid.agents.hybrid.value import FleetValue, leads
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import Batch, V2GCore, View
from qevgrid.envs.v2g.forecast import Forecast
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.program import V2GProgram
from qevgrid.envs.v2g.projection import socket_kw
from qevgrid.envs.v2g.scenario import Scenario
from worlds import TWO, WORLDS, Car, begin, by_hand, core_of, drawn

AS_DECLARED = {"early_share": 0.0}
"""A decision can only count with the departures that were announced."""
PLAYED: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name in WORLDS if name not in ("sells_low", "weak_feeder")
} | {
    "sells_low": ("tight", {"sell_ratio": 0.4, "prices": "day_ahead"}),
    "feeder_wide": ("weak_feeder", {"outage": {"share": 1.0, "feeder_wide_share": 1.0}}),  # which line is not known
    "until_midnight": ("default", {"start_h": 0.0}),  # many stay on
    "calm_until_midnight": ("sites", {"start_h": 0.0, "outage": {"share": 0.0}}),
    "half_hours": ("default", {"dt_h": 0.5, "n_sockets": 4, "cost": {"w1": 2.0, "w2": 0.5}}),
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "n_sockets": 4,
    "dt_h": 1.0,
    "grid": {"feeder": "none"},
    "charger": {"power_kw": (10.0,), "min_current_a": 0.0},
    "site": {"generator_kw": 0.0, "connection_kw": 1000.0, "pv_kw": 100.0, "critical_blocks": 4, "other_blocks": 2},
}  # fmt: skip
"""Hours and sockets of 10 kW that take any power, for days written by hand."""


def shares(count: int = 5) -> FloatArray:
    share = np.linspace(-1.0, 1.0, count)
    return share[np.argsort(np.abs(share), kind="stable")]


def plain(**changes: Any) -> V2GCore:
    """``PLAIN`` with some keys changed; ``site`` adds to its own."""
    site = PLAIN["site"] | changes.pop("site", {})
    return V2GCore(V2GParams(**(PLAIN | {"site": site} | changes)))


def foreseen(core: V2GCore, scenario: Scenario) -> Scenario:
    """The same day written by hand, with profiles that forecast its loads, sun and prices truly (one kind of site)."""
    site = core.params.site
    rated = {name: site.per_site(f"{name}_kw")[0] for name in ("pv", "critical", "other")}
    profiles = {f"{name}_profile": getattr(scenario, f"{name}_kw")[..., 0] / rated[name] for name in rated}
    return scenario._replace(**profiles)


def at_stage(core: V2GCore, scenario: Scenario, stage: int = 0) -> Batch:
    """The batch after ``stage`` stages of rest."""
    batch = begin(core, scenario)
    for _ in range(stage):
        batch.step(np.zeros((batch.size, core.n_sockets)))
    return batch


def action_of(view: View, b: int, found: Decision, power: FloatArray) -> FloatArray:
    """What asks the environment for ``power`` (V,)."""
    action = np.zeros(view.plugged.shape[1])
    limit = np.where(power > 0, view.charge_kw[b, found.socket], view.discharge_kw[b, found.socket])
    action[found.socket] = power / np.maximum(limit, 1e-9)
    return action


def restored(batch: Batch, saved: list[np.ndarray]) -> None:
    for array, old in zip(batch.state, saved, strict=True):
        array[...] = old


def roaming(core: V2GCore, size: int, seed: int) -> Iterator[tuple[Batch, View]]:
    """All stages of ``size`` drawn days under random actions; the batch may be stepped in between."""
    rng = np.random.default_rng(seed)
    batch = begin(core, drawn(core, size, seed))
    while not batch.over.all():
        saved = [array.copy() for array in batch.state]
        yield batch, batch.view()
        restored(batch, saved)
        batch.step(rng.uniform(-1, 1, (size, core.n_sockets)))


# -- what a choice costs -------------------------------------------------------------------------


def some_choice(rng: np.random.Generator, problem: Any) -> IntArray:
    """Anything, with more or less rest in it."""
    sizes = np.diff(problem.first)
    return rng.integers(0, sizes) * (rng.random(len(sizes)) < rng.random())


def with_blocks(core: V2GCore, found: Decision, choice: IntArray, f: Forecast, b: int, out: Any) -> IntArray:
    """``choice`` with those blocks of load that the environment picked up."""
    site, at, choice = core.params.site, len(found.socket), choice.copy()
    for d in found.dark:
        for load, blocks, served in (
            (f.critical_kw[b, 0, d], site.critical_blocks, out.served_critical_kw[b, d]),
            (f.other_kw[b, 0, d], site.other_blocks, out.served_other_kw[b, d]),
        ):
            choice[at : at + blocks] = np.arange(blocks) < round(served / load * blocks)
            at += blocks
    return choice


def seen(core: V2GCore, out: Any, b: int, view: View) -> list[str]:
    """What this stage puts to the test."""
    cost, dark = out.cost_usd[b], view.outage[b]
    happens = {
        "dark": dark.all(),
        "partly dark": dark.any() and not dark.all(),
        "export": (out.import_kw[b] < -0.1).any(),
        "beyond a limit": out.violation_kw[b] > 0.1,
        "reserve": cost[model.RESERVE] > 0,
        "shortfall": cost[model.SHORTFALL] > 0,
        "terminal": cost[model.TERMINAL] < 0,
        "charging in the dark": (out.charge_kw[b] * dark[core.plant.site]).any(),
    }
    return [name for name, here in happens.items() if here]


@functools.cache
def compared(case: str) -> tuple[float, Counter[str]]:
    """Largest difference between a choice's energy and its cost over a few days, and what these days had."""
    world, changes = PLAYED[case]
    core = core_of(world, **changes | {"session": WORLDS[world].get("session", {}) | AS_DECLARED})
    size, rng, worst, had = 3, np.random.default_rng(7), 0.0, Counter()
    share = shares(7 if case == "half_hours" else 5)
    for batch, view in roaming(core, size, seed=0):
        f, saved = view.forecast(1), [array.copy() for array in batch.state]
        found = [decide(view, f, b, None, share) for b in range(size)]
        for _ in range(4):
            restored(batch, saved)
            choices = [some_choice(rng, d.problem) for d in found]
            power = [powers(d, choice) for d, choice in zip(found, choices, strict=True)]
            batch.step(np.array([action_of(view, b, found[b], power[b]) for b in range(size)]))
            out = batch.outcome
            for b, d in enumerate(found):
                done = (out.charge_kw - out.discharge_kw)[b, d.socket]
                if np.abs(done - power[b]).max(initial=0.0) > 1e-9:
                    had["projected"] += 1
                    continue
                had.update(["compared", *seen(core, out, b, view)])
                choice = with_blocks(core, d, choices[b], f, b, out)
                cost = float(out.total_usd[b])
                worst = max(worst, abs(float(d.problem.energy_usd(choice)) - cost) / (1.0 + abs(cost)))
    return worst, had


@pytest.mark.parametrize("case", PLAYED)
def test_the_energy_of_a_choice_is_what_its_stage_costs(case: str) -> None:
    worst, had = compared(case)
    assert had["compared"] > 100
    assert worst < 1e-10


def test_the_days_compared_had_everything() -> None:
    had = sum((compared(case)[1] for case in PLAYED), Counter())
    wanted = ("partly dark", "export", "beyond a limit", "reserve", "shortfall", "terminal", "charging in the dark")
    assert all(had[name] > 5 for name in (*wanted, "dark", "projected")), had


def test_who_stays_on_is_missed_at_the_horizon_too() -> None:
    """The last stage: 10 kWh are missing at 1.00 and 30 kWh stay at 0.12; charging 5 kWh changes both."""
    core = plain(n_sockets=1, charger={"power_kw": (10.0,), "eta_charge": 0.5, "min_current_a": 0.0})
    car = Car(departure=24, declared=30, target=40.0, stays=True)
    batch = at_stage(core, by_hand(core, (car,)), 23)
    found = decide(view := batch.view(), view.forecast(1), 0, None, shares(3))
    energy = found.problem.energy_usd(np.array([[0], [1], [2]]))
    by_power = dict(zip(found.power_kw[0].tolist(), energy.tolist(), strict=True))
    assert by_power[0.0] == pytest.approx(10 * 1.0 - 30 * 0.12)
    assert by_power[10.0] == pytest.approx(5 * 1.0 - 35 * 0.12 + 10 * 0.05)
    batch.step(np.ones((1, 1)))
    assert batch.outcome.total_usd[0] == pytest.approx(by_power[10.0])


def test_what_a_driver_is_missing_counts_from_the_announced_departure_only() -> None:
    core = plain(n_sockets=1)
    for departure, missing in ((1, 10.0), (2, 0.0)):
        view = at_stage(core, by_hand(core, (Car(departure=departure, target=40.0),))).view()
        found = decide(view, view.forecast(1), 0, None, shares(3))
        assert found.problem.energy_usd(np.zeros(1, int)) == pytest.approx(missing)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["default", "direct_current", "taper", "amperes", "sites", "sells_low", "easy_chargers"])
def test_options_are_what_charger_and_battery_allow(world: str) -> None:
    """Rules 1 and 2 of the projection leave each of them as it is, and energies are those of (4)."""
    core, count, forbidden = core_of(world, charger=WORLDS[world].get("charger", {}) | {"v2g_share": 0.8}), 0, 0
    p = core.params.charger
    for batch, view in roaming(core, 2, seed=4):
        for b in range(2):
            socket = np.flatnonzero(view.plugged[b])
            found = levels(view, b, socket, shares())
            assert found.allowed[:, 0].all() and not found.power_kw[:, 0].any()
            assert not found.power_kw[~found.allowed].any()
            for v, k in zip(*np.nonzero(found.allowed), strict=True):
                power, i = found.power_kw[v, k], socket[v]
                limit = view.charge_kw[b, i] if power > 0 else view.discharge_kw[b, i]
                _, got = socket_kw(core.arrays, batch.world, batch.state, b, int(view.stage[b]), i, power / max(limit, 1e-9))
                assert got == pytest.approx(abs(power), abs=1e-9)
                stored = core.params.dt_h * (p.eta_charge * max(power, 0) - max(-power, 0) / p.eta_discharge)
                assert found.energy_kwh[v, k] == pytest.approx(view.energy_kwh[b, i] + stored, abs=1e-9)
                assert view.floor_kwh[b, i] - 1e-9 <= found.energy_kwh[v, k] <= view.capacity_kwh[b, i] + 1e-9
                count += k > 0
            forbidden += int((~found.allowed).sum())
    assert count > 100 and forbidden > 20


def test_nobody_charges_in_the_dark_unless_everything_is_served() -> None:
    core = plain(site={"generator_kw": 5.0})
    for pv, charging in ((14.0, False), (15.0, True)):
        day = by_hand(core, (Car(), Car(socket=1, energy=60.0)), critical=12.0, other=8.0, pv=pv, dark=[1])
        view = at_stage(core, foreseen(core, day)).view()
        found = decide(view, view.forecast(1), 0, None, shares())
        options = zip(found.power_kw, np.diff(found.problem.first), strict=False)
        assert any((power[:size] > 0).any() for power, size in options) == charging


# -- optima --------------------------------------------------------------------------------------


TINY = {"n_sockets": 3, "dt_h": 1.0, "outage": {"share": 1.0}}
TINY_SITE = {"critical_kw": 20.0, "other_kw": 15.0, "critical_blocks": 2, "other_blocks": 2, "generator_kw": 4.0}
TINY_WORLDS: dict[str, dict[str, Any]] = {
    "one": {"site": TINY_SITE | {"connection_kw": 30.0}},
    "two": {"site": TINY_SITE | {"bus": (17, 24), "connection_kw": 20.0, "pv_kw": 30.0}},
    "weak": {
        "site": TINY_SITE | TWO | {"connection_kw": 400.0, "tan_phi": 0.5},
        "grid": {"load_scale": 1.3, "v_min_pu": 0.93}, "charger": {"power_kw": (22.0,)},
    },
}  # fmt: skip


def tiny_decisions(world: str, critic: Any, every: int = 3) -> Iterator[tuple[Batch, View, Forecast, int, Decision]]:
    core = V2GCore(V2GParams(**(TINY | TINY_WORLDS[world] | {"session": AS_DECLARED})))
    horizon = features.horizon(1.0, leads(1.0, 1))
    for t, (batch, view) in enumerate(roaming(core, 2, seed=11)):
        if t % every == 0:
            f = view.forecast(horizon)
            for b in np.flatnonzero(view.plugged.any(1)):
                clock_h = core.sampler.clock_h
                worth = critic and FleetValue(critic, view, f, int(b), 1, clock_h, Corrections())
                yield batch, view, f, int(b), decide(view, f, int(b), worth, shares())


@pytest.mark.parametrize("world", TINY_WORLDS)
@pytest.mark.parametrize("critic", [None, critics.random(3)], ids=["stage", "critic"])
def test_brute_force_highs_and_the_annealer_agree(world: str, critic: Any) -> None:
    exact, ours = make_sampler("highs"), make_sampler("structured", reads=20, sweeps=200)
    count = 0
    for *_, found in tiny_decisions(world, critic):
        choices = decisions.every_choice(found.problem)
        least = float(found.problem.energy_usd(choices).min())
        for sampler in (exact, ours):
            assert sampler.solve(found.problem, 0).raw_choice_energy_usd == pytest.approx(least, rel=1e-6, abs=1e-6)
        assert dual_ascent(found.problem).bound_usd <= least + 1e-6 * (1 + abs(least))
        count += len(choices) > 1
    assert count >= 8


@pytest.mark.parametrize("world", TINY_WORLDS)
def test_the_optimum_is_carried_out_as_it_is_where_there_is_supply(world: str) -> None:
    count = 0
    for batch, view, _, b, found in tiny_decisions(world, None, every=1):
        if view.outage[b].any():
            continue
        saved, action = [array.copy() for array in batch.state], np.zeros((2, 3))
        choice = make_sampler("highs").solve(found.problem, 0).choice
        action[b] = action_of(view, b, found, powers(found, choice))
        batch.step(action)
        restored(batch, saved)
        out = batch.outcome
        np.testing.assert_allclose((out.charge_kw - out.discharge_kw)[b, found.socket], powers(found, choice), atol=1e-6)
        assert float(found.problem.energy_usd(choice)) == pytest.approx(out.total_usd[b], abs=1e-4)
        count += choice.any()
    assert count > 5


# -- islands -------------------------------------------------------------------------------------


ISLAND = {"n_sockets": 4, "charger": {"power_kw": (10.0, 6.0), "min_current_a": 0.0}}


def island(rng: np.random.Generator) -> tuple[V2GCore, Batch]:
    """An outage that has begun, with batteries that may be nearly empty."""
    core = plain(**ISLAND, site={"generator_kw": float(rng.choice([0.0, 4.0]))})
    cars = [Car(socket=i, departure=9, energy=float(rng.choice([6.5, 9.0, 30.0, 50.0]))) for i in range(4)]
    loads = {"critical": rng.uniform(4, 30), "other": rng.uniform(2, 20), "pv": rng.choice([0.0, 3.0])}
    return core, at_stage(core, foreseen(core, by_hand(core, tuple(cars), dark=[1] * 8, **loads)))


def valued(core: V2GCore, view: View, critic: Any, fix: Corrections = Corrections(), b: int = 0) -> FleetValue:
    f = view.forecast(features.horizon(core.params.dt_h, leads(core.params.dt_h, 1)))
    return FleetValue(critic, view, f, b, 1, core.sampler.clock_h, fix)


@pytest.mark.parametrize("sampler", ["highs", "structured", "greedy"])
def test_an_island_serves_what_was_chosen_and_no_battery_gives_more_than_that_takes(sampler: str) -> None:
    rng, solver, cut, whole = np.random.default_rng(2), make_sampler(sampler), 0, 0
    for _ in range(40):
        core, batch = island(rng)
        view = batch.view()
        f = view.forecast(1)
        found = decide(view, f, 0, valued(core, view, critics.flat(0.3)), shares())
        choice = solver.solve(found.problem, 0).choice
        power = repaired(view, f, 0, found, choice)
        batch.step(action_of(view, 0, found, power)[None])
        out = batch.outcome
        np.testing.assert_allclose(out.discharge_kw[0, found.socket], -power, atol=1e-9)
        own = f.pv_kw[0, 0, 0] + core.params.site.per_site("generator_kw")[0]
        chosen, most = served_kw(found, choice)[0], -found.power_kw.min(1).sum()
        served = out.served_critical_kw[0, 0] + out.served_other_kw[0, 0]
        if chosen <= own + most:
            assert served >= chosen - 2e-5
            whole += 1
        else:
            cut += 1
        if chosen > own:
            assert out.discharge_kw.sum() <= max(served - own, 0.0) + 2e-5
            if chosen <= own + most:
                assert served == pytest.approx(chosen, abs=2e-5)
    assert whole > 10
    assert cut > 0 or sampler == "greedy"


def test_levels_are_rounded_to_what_the_blocks_take() -> None:
    """8 kW of load beyond 3 of sun and 1 of the generator: two vehicles at -5 give 4.

    With -10 and -5 chosen, both shrink; with one at -2.5 the others find the rest in proportion to their room.
    """
    core = plain(n_sockets=3, site={"generator_kw": 1.0, "critical_blocks": 1, "other_blocks": 1})
    cars = tuple(Car(socket=i, departure=9) for i in range(3))
    day = by_hand(core, cars, critical=8.0, other=20.0, pv=3.0, dark=[1, 1])
    view = at_stage(core, foreseen(core, day)).view()
    f = view.forecast(1)
    found = decide(view, f, 0, None, shares(9))
    at = {power: k for k, power in enumerate(found.power_kw[0].tolist())}
    for chosen, wanted in (
        ((-10.0, -5.0, 0.0), (-8 / 3, -4 / 3, 0.0)),
        ((-2.5, 0.0, 0.0), (-2.5 - 1.5 * 7.5 / 27.5, -1.5 * 10 / 27.5, -1.5 * 10 / 27.5)),
        ((0.0, 0.0, 0.0), (-4 / 3, -4 / 3, -4 / 3)),
    ):
        choice = np.array([*(at[power] for power in chosen), 1, 0])
        np.testing.assert_allclose(repaired(view, f, 0, found, choice), wanted, atol=1e-12)


def test_nothing_is_discharged_for_a_block_that_cannot_be_carried() -> None:
    """10 kW of batteries and 2 of the generator carry two blocks of 5 kW, not the third."""
    core = plain(n_sockets=1, site={"generator_kw": 2.0, "critical_blocks": 3, "other_blocks": 1})
    day = by_hand(core, (Car(departure=9),), critical=15.0, other=1e-3, dark=[1, 1])
    batch = at_stage(core, foreseen(core, day))
    view = batch.view()
    f = view.forecast(1)
    found = decide(view, f, 0, None, shares())
    choice = np.array([int(found.power_kw[0].argmin()), 1, 1, 1, 0])
    power = repaired(view, f, 0, found, choice)
    np.testing.assert_allclose(power, [-8.0])
    batch.step(action_of(view, 0, found, power)[None])
    assert batch.outcome.served_critical_kw == pytest.approx(10.0)
    assert (batch.outcome.discharge_kw, batch.outcome.generator_kw) == (pytest.approx(8.0), pytest.approx(2.0))
    np.testing.assert_allclose(repaired(view, f, 0, found, np.array([0, 1, 1, 1, 0])), [-8.0])
    np.testing.assert_array_equal(repaired(view, f, 0, found, np.zeros(5, int)), [0.0])


def test_spare_energy_takes_the_place_of_fuel() -> None:
    """Nothing that is stored has a worth: wear is cheaper than fuel, and the generator stands still."""
    core = plain(n_sockets=1, site={"generator_kw": 12.0, "critical_blocks": 1, "other_blocks": 1})
    day = by_hand(core, (Car(departure=9),), critical=10.0, other=1.0, dark=[1, 1])
    batch = at_stage(core, foreseen(core, day))
    view = batch.view()
    found = decide(view, f := view.forecast(1), 0, None, shares())
    choice = make_sampler("highs").solve(found.problem, 0).choice
    batch.step(action_of(view, 0, found, repaired(view, f, 0, found, choice))[None])
    assert batch.outcome.discharge_kw == pytest.approx(10.0)
    assert batch.outcome.generator_kw == pytest.approx(1.0)
