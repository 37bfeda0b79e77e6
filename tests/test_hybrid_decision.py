"""The hybrid agent's decisions: what a choice costs is what the environment charges, and what energy is worth."""

import functools
import itertools
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
from qevgrid.agents.hybrid.corrections import TUNED, Corrections, correction_state
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


@pytest.mark.parametrize(
    "world", ["default", "direct_current", "taper", "amperes", "sites", "sells_low", "easy_chargers"]
)
def test_options_are_what_charger_and_battery_allow(world: str) -> None:
    """Rules 1 and 2 of the projection leave each of them as it is, and energies are those of (4).

    What is no option would be off, or raised to the charger's minimum.
    """
    core, count, forbidden = core_of(world, charger=WORLDS[world].get("charger", {}) | {"v2g_share": 0.8}), 0, 0
    p, share = core.params.charger, shares()
    for batch, view in roaming(core, 2, seed=4):
        for b in range(2):
            socket = np.flatnonzero(view.plugged[b])
            found = levels(view, b, socket, share)
            assert found.allowed[:, 0].all() and not found.power_kw[:, 0].any()
            assert not found.power_kw[~found.allowed].any()
            for v, k in np.ndindex(found.power_kw.shape):
                power, i = found.power_kw[v, k], socket[v]
                limit = max(view.charge_kw[b, i] if share[k] > 0 else view.discharge_kw[b, i], 1e-9)
                asked = power / limit if found.allowed[v, k] else share[k]
                _, got = socket_kw(core.arrays, batch.world, batch.state, b, int(view.stage[b]), i, asked)
                if not found.allowed[v, k]:
                    assert got < 1e-9 or got > abs(asked) * limit
                    forbidden += 1
                    continue
                assert got == pytest.approx(abs(power), abs=1e-9)
                stored = core.params.dt_h * (p.eta_charge * max(power, 0) - max(-power, 0) / p.eta_discharge)
                assert found.energy_kwh[v, k] == pytest.approx(view.energy_kwh[b, i] + stored, abs=1e-9)
                assert view.floor_kwh[b, i] - 1e-9 <= found.energy_kwh[v, k] <= view.capacity_kwh[b, i] + 1e-9
                count += k > 0
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
                worth = critic and FleetValue(critic, view, f, int(b), 1, clock_h, TUNED)
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
        np.testing.assert_allclose(
            (out.charge_kw - out.discharge_kw)[b, found.socket], powers(found, choice), atol=1e-6
        )
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


def valued(core: V2GCore, view: View, critic: Any, fix: Corrections = TUNED, b: int = 0) -> FleetValue:
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
    empty = at_stage(core, foreseen(core, by_hand(core, (Car(energy=6.0),), critical=15.0, other=1.0, dark=[1]))).view()
    found = decide(empty, f, 0, None, shares())
    np.testing.assert_array_equal(repaired(empty, f, 0, found, np.array([0, 1, 1, 1, 1])), [0.0])


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


# -- what stored energy adds ---------------------------------------------------------------------


def test_stored_energy_counts_with_its_worth() -> None:
    """Without outages 1 kWh in a vehicle that stays is worth the fleet's calm worth and what sets the vehicle apart."""
    core, size, count = core_of("tight", outage={"share": 0.0}, session=AS_DECLARED), 2, 0
    fix, critic, rng = Corrections(calm_usd_kwh=-0.05, spread=0.6), critics.flat(0.3, 0.1), np.random.default_rng(1)
    for batch, view in roaming(core, size, seed=3):
        action, chosen, value = (
            np.zeros((size, core.n_sockets)),
            [],
            [valued(core, view, critic, fix, b) for b in (0, 1)],
        )
        for b in range(size):
            found = decide(view, value[b].forecast, b, value[b], shares())
            choice = some_choice(rng, found.problem)
            action[b] = action_of(view, b, found, power := powers(found, choice))
            chosen.append((found, float(found.problem.energy_usd(choice)), power))
        batch.step(action)
        for b, (found, energy, power) in enumerate(chosen):
            done = batch.outcome.charge_kw[b] - batch.outcome.discharge_kw[b]
            if np.abs(done[found.socket] - power).max(initial=0.0) < 1e-9 and view.stage[b] < core.n_stages - 1:
                stay = found.socket[view.declared[b, found.socket] > view.stage[b] + 1]
                stored = (batch.state.energy_kwh - view.energy_kwh)[b, stay].sum()
                assert energy == pytest.approx(batch.outcome.total_usd[b] - (0.25 + 0.06) * stored, abs=1e-9)
                count += abs(stored) > 1.0
    assert count > 10


def test_the_fleets_worth_is_met_piece_by_piece() -> None:
    """Slopes of the fleet's resource: minus the worth at the nearest energy, none steeper than the next."""
    core = plain()
    cars = tuple(Car(socket=i, departure=20, energy=20.0 + 5 * i) for i in range(4))
    view = at_stage(core, by_hand(core, cars)).view()
    value = valued(core, view, critics.falling())
    shift, worth = value.marginal(0)
    assert (np.diff(worth) < -1e-3).all()
    problem = decide(view, value.forecast, 0, value, shares()).problem
    fleet = replace(
        problem.pieces, slope=problem.pieces.slope[-1:], at=problem.pieces.at[-1:], rise=problem.pieces.rise[-1:]
    )
    around = np.stack([shift - 1e-3, shift + 1e-3], 1)[..., None]
    slopes = np.diff(fleet(around), axis=1)[:, 0] / 2e-3
    np.testing.assert_allclose(slopes, -worth, atol=1e-6)
    assert problem.energy_usd(np.zeros(4, int)) == pytest.approx(0.0)


def test_in_the_dark_those_give_first_who_leave_before_supply_is_back() -> None:
    core = plain(site={"critical_blocks": 1, "other_blocks": 1})
    for leaver in (0, 1):
        cars = tuple(Car(socket=i, departure=3 if i == leaver else 20, energy=26.0) for i in range(2))
        day = by_hand(core, cars, critical=10.0, other=1.0, dark=[1] * 9)
        view = at_stage(core, foreseen(core, day)).view()
        value = valued(core, view, critics.flat(0.2))
        assert value.marginal(0)[1][3] > 1.0 > value.calm(np.zeros(1))[0]  # energy is scarce in the dark
        found = decide(view, value.forecast, 0, value, shares(3))
        power = powers(found, make_sampler("highs").solve(found.problem, 0).choice)
        assert power[leaver] == -10.0 and power[1 - leaver] == 0.0


# -- outages of unknown length -------------------------------------------------------------------


def insured(energy: Any, ends: Any, critical: Any, other: Any = 0.0, **changes: Any) -> FloatArray:
    """``outage_value`` of an outage that begins now, 20 and 5 USD, energy worth 0.1 afterwards, no losses."""
    n = len(critical)
    table = {
        "starts": np.zeros(1, np.int64), "chance": np.ones(1), "ends": np.asarray(ends, float),
        "critical_kwh": np.asarray(critical, float), "other_kwh": np.broadcast_to(np.asarray(other, float), n).copy(),
        "coming_kwh": np.zeros(n), "leaving_kwh": np.zeros(n), "planned_kwh": np.zeros(n),
        "exit_value": np.full((n, 2), 0.1), "exit_spare": np.tile([0.0, 1e3], (n, 1)),
        "critical_usd": 20.0, "other_usd": 5.0, "eta": 1.0,
    }  # fmt: skip
    values = (np.asarray(x, float) if isinstance(x, list) else x for x in (table | changes).values())
    return outage_value(np.atleast_1d(np.asarray(energy, float)), *values)


def test_two_lengths_by_hand() -> None:
    """One or two stages of 2 kWh critical and 1 kWh other load, with chances 1/4 and 3/4."""
    found = insured([1.0, 2.5, 3.5, 5.0, 7.0], [0.25, 0.75], [2, 2], [1, 1])
    late = 0.75 * 20
    np.testing.assert_allclose(found, [20.0, 0.25 * 5 + late, 0.25 * 0.1 + late, 0.25 * 0.1 + 0.75 * 5, 0.1])


def test_what_is_left_is_worth_what_the_critic_says_then() -> None:
    """Half of the energy is lost on its way: 12 kWh at the grid less 2 leave 20 in the batteries, worth 0.3 each."""
    table = {"exit_value": np.array([[0.4, 0.2]]), "exit_spare": np.array([[10.0, 30.0]]), "eta": 0.5}
    assert insured(12.0, [1], [2], **table) == pytest.approx(0.3 / 0.5)
    assert insured(4.0, [1], [2], **table) == pytest.approx(0.4 / 0.5)  # 4 kWh: below the table
    assert insured(40.0, [1], [2], **table) == pytest.approx(0.2 / 0.5)


def test_before_it_begins_energy_comes_goes_and_is_charged() -> None:
    """3 kWh now + 2 come + 4 charged - 3 leave = 6 at the start; the outage takes 5.5, or 7 with what comes then."""
    days = {"coming_kwh": [1, 1, 0.5, 0], "leaving_kwh": [3, 0, 0, 0], "planned_kwh": [2, 2, 9, 9]}
    late = days | {"starts": np.array([2])}
    assert insured(3.0, [1], [99, 99, 6.4, 99], **late) == pytest.approx(0.1)
    assert insured(3.0, [1], [99, 99, 6.6, 99], **late) == pytest.approx(20.0)
    both = days | {"starts": np.array([2, 0]), "chance": np.array([0.1, 0.3])}
    assert insured(3.0, [1], [99, 99, 6.4, 99], **both) == pytest.approx((0.1 * 0.1 + 0.3 * 20.0) / 0.4)


def test_who_leaves_carries_the_load_first() -> None:
    """Of 4 kWh that leave after the first of two stages, 3 have been used by then and 1 is lost, neither 0 nor 4."""
    leaving = {"leaving_kwh": [4, 0]}
    np.testing.assert_allclose(insured([6.9, 7.1], [0, 1], [3, 3], **leaving), [20.0, 0.1])
    np.testing.assert_allclose(insured([5.9, 6.1], [0, 1], [3, 3]), [20.0, 0.1])
    np.testing.assert_allclose(insured([7.4, 7.6], [0, 1], [3, 3], [0.0, 1.5], **leaving), [5.0, 5.0])
    np.testing.assert_allclose(insured([7.4, 7.6], [0, 1], [3, 3], [1.5, 0.0], **leaving), [5.0, 0.1])


def test_more_energy_is_never_worth_more() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = 6
        exits = -np.sort(-rng.uniform(0.0, 3.0, (n, 3)), axis=1)
        flows = {name: rng.uniform(0, 2, n) for name in ("coming_kwh", "leaving_kwh", "planned_kwh")}
        starts, chance = np.arange(3), rng.random(3)
        found = insured(
            np.linspace(0, 40, 81), rng.dirichlet(np.ones(4)), rng.uniform(0, 5, n), rng.uniform(0, 5, n),
            exit_value=exits, exit_spare=np.sort(rng.uniform(0, 9, (n, 3))), starts=starts, chance=chance, **flows,
        )  # fmt: skip
        assert (np.diff(found) <= 1e-12).all()
        assert found[0] > found[-1]


# -- the critic at work --------------------------------------------------------------------------


def threatened(critic: Any, energy: float = 20.0, **changes: Any) -> FleetValue:
    """Four vehicles before a window of outages, none of which has come; 30 kW critical, 5 other."""
    core = plain(**changes)
    cars = tuple(Car(socket=i, departure=22, energy=energy) for i in range(4))
    day = foreseen(core, by_hand(core, cars, critical=30.0, other=5.0, risk=0.0))
    view = at_stage(core, day).view()
    window = {"window_open": np.full(1, 2.0), "window_close": np.full(1, 9.0)}
    return valued(core, replace(view, **window), critic)


def under(value: FleetValue, risk: float, **fix: float) -> FloatArray:
    """Worth at all energies with that risk."""
    fixed = replace(value.fix, **fix)
    view = replace(value.view, risk=np.full(1, risk))
    return FleetValue(value.critic, view, value.forecast, 0, 1, value.clock_h, fixed).marginal(0)[1]


@pytest.mark.parametrize("critic", [critics.random(1), critics.falling()], ids=["random", "falling"])
def test_only_risk_makes_energy_dearer_than_calm(critic: Any) -> None:
    value = threatened(critic)
    shift, worth = value.marginal(0)
    np.testing.assert_array_equal(worth, value.calm(shift))
    curves = [under(value, risk) for risk in (0.0, 0.05, 0.3, 0.9)]
    for less, more in itertools.pairwise(curves):
        assert (more >= less).all() and (more > less + 1e-3).any()
    assert all((np.diff(curve) <= 0).all() for curve in curves)
    assert (under(value, 0.3, premium=2.4) >= curves[2]).all()
    np.testing.assert_array_equal(under(value, 0.3, premium=0.0), curves[0])


def test_the_risk_counts_as_far_as_it_lies_ahead_and_hits_the_site() -> None:
    value = threatened(critics.flat(0.2), energy=7.0)  # nearly empty: whatever is lost is critical
    calm, lost = 0.2 - 0.05, 0.95 * (20.0 - 0.05)
    np.testing.assert_allclose(under(value, 0.5, premium=1.0)[0], calm + 0.5 * (lost - calm))
    passed = replace(value.view, window_open=np.full(1, -9.0), window_close=np.full(1, 1.0))
    np.testing.assert_allclose(
        under(FleetValue(value.critic, passed, value.forecast, 0, 1, value.clock_h, value.fix), 0.5), calm
    )
    elsewhere = threatened(critics.flat(0.2), 7.0, site=TWO, outage={"feeder_wide_share": 0.0})
    np.testing.assert_allclose(under(elsewhere, 0.5, premium=1.0)[0], calm + 0.5 * 2 / 3 * (lost - calm))


def test_energy_at_one_site_does_not_insure_another() -> None:
    core = plain(site={"bus": (17, 24), "critical_kw": 60.0, "other_kw": 30.0})

    def worth(first: float, second: float) -> list[FloatArray]:
        cars = tuple(Car(socket=i, departure=22, energy=(first, second)[i % 2]) for i in range(4))
        day = foreseen(core, by_hand(core, cars, critical=12.0, other=5.0, dark=[1] * 6))
        value = valued(core, at_stage(core, day).view(), critics.flat(0.2))
        return [value.marginal(d)[1] for d in (0, 1)]

    low, high = worth(15.0, 15.0), worth(15.0, 55.0)
    np.testing.assert_array_equal(low[0], high[0])
    assert (high[1] <= low[1]).all() and (high[1] < low[1] - 1.0).any()


def test_an_outage_longer_than_any_known_is_about_to_end() -> None:
    """What the present load does not take is worth what it is with supply, not nothing."""
    core = plain(outage={"median_h": 3.0, "sigma": 0.0})
    day = foreseen(core, by_hand(core, (Car(departure=22, energy=60.0),), critical=2.0, other=1.0, dark=[1] * 9))
    view = at_stage(core, day, 5).view()
    assert view.dark_h[0, 0] > 3.0
    worth = valued(core, view, critics.flat(0.2)).marginal(0)[1]
    np.testing.assert_allclose(worth, 0.8 * (0.2 - 0.05))


def test_the_idle_fleet_leaves_as_announced_and_grows_by_habit() -> None:
    core = plain()
    cars = (Car(departure=3, energy=26.0, target=40.0), Car(socket=1, departure=6, energy=16.0))
    view = at_stage(core, by_hand(core, cars)).view()
    none = valued(core, view, critics.flat(0.2))
    np.testing.assert_allclose(none.idle[:8, 0], [30, 30, 30, 10, 10, 10, 0, 0])
    np.testing.assert_allclose(none.idle[:8, 1], [14, 14, 14, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(none.idle[:8, 2], [20, 20, 20, 10, 10, 10, 0, 0])
    some = replace(critics.flat(0.2), habits=np.tile([0.1, 0.2, 0.05, 9.0], (24, 1)))  # of 40 kW, an hour
    grown = valued(core, view, some).idle - none.idle
    np.testing.assert_allclose(grown[:24], np.arange(24)[:, None] * [4.0, 8.0, 2.0])
    np.testing.assert_allclose(grown[24:], grown[23:24] + np.zeros((len(grown) - 24, 1)))  # the day is over
    third = np.zeros((24, 4))
    third[int(core.sampler.clock_h[3])] = [0.1, 0.2, 0.05, 9.0]
    late = valued(core, view, replace(critics.flat(0.2), habits=third))
    np.testing.assert_allclose((late.idle - none.idle)[:5, 0], [0, 0, 0, 4, 4])  # there from stage 3 on
    np.testing.assert_allclose(late.habit[:5, 3], [0, 0, 0, 360, 0])  # charged within stage 3


def test_features_do_not_grow_with_the_fleet() -> None:
    cars = (Car(departure=9, energy=20.0, target=40.0), Car(socket=1, departure=15, declared=30, energy=50.0))
    loads = {"critical": 8.0, "other": 6.0, "pv": 5.0}
    seen = []
    for times in (1, 3):
        core = plain(
            n_sockets=2 * times, site={"connection_kw": 24.0 * times} | {f"{k}_kw": 60.0 * times for k in loads}
        )
        fleet = tuple(car._replace(socket=car.socket + 2 * k) for k in range(times) for car in cars)
        day = by_hand(core, fleet, buy=[0.1, 0.4, 0.2], **{k: v * times for k, v in loads.items()})
        view = at_stage(core, foreseen(core, day), 1).view()
        spare, need, power = features.fleet_state(view, 0)
        around = features.Surroundings(view, view.forecast(features.horizon(1.0, 5)), 0, 5, core.sampler.clock_h)
        rows = around.rows(np.arange(5), *(np.full(5, x) for x in (spare, need, power)))
        vehicles = features.vehicle_rows(view, 0, np.arange(2), view.energy_kwh[0, :2])
        seen.append(np.concatenate([rows.ravel(), vehicles.ravel(), correction_state(view).ravel()]))
        assert rows.shape == (5, len(features.FLEET)) and vehicles.shape == (2, len(features.VEHICLE))
    np.testing.assert_allclose(*seen, atol=1e-12)
    assert np.abs(seen[0]).max() < 5


# -- labels --------------------------------------------------------------------------------------


def calm_cost(core: V2GCore, s: Scenario, stage: int, energy: FloatArray) -> float:
    """Least cost of the rest of the first day without bits, outages aside."""
    vehicles, _ = labels.vehicles_from(core.plant, s, 0, stage, energy)
    program = V2GProgram(core.plant, labels.calm_truth(core.plant, s, 0, stage), vehicles, whole_stages=0)
    return program.lp.solve(relax=True).objective


@pytest.mark.parametrize("world", ["tight", "sites", "public", "until_midnight"])
def test_a_label_is_what_one_more_kwh_saves(world: str) -> None:
    """Finite differences of the relaxed program, on a day with an outage that they ignore."""
    name, changes = PLAYED.get(world, (world, {}))
    core, eps, count = core_of(name, **changes | {"outage": {"share": 1.0}}), 1e-3, 0
    for seed in (2, 5):
        day = drawn(core, 1, seed)
        supplied = day._replace(outage=np.zeros_like(day.outage), fault=np.zeros_like(day.fault))
        assert day.outage.any()
        for stage in np.array([0.35, 0.5, 0.9]) * core.n_stages:
            view = (batch := at_stage(core, day, int(stage))).view()
            energy = view.energy_kwh[0]
            socket, worth = labels.energy_values(view, batch.scenario, 0, energy)
            np.testing.assert_array_equal(socket, np.flatnonzero(view.plugged[0]))
            np.testing.assert_array_equal(worth, labels.energy_values(view, supplied, 0, energy)[1])
            for i, found in zip(socket, worth, strict=True):
                around = [
                    calm_cost(core, day, view.stage[0], energy + k * eps * np.eye(len(energy))[i]) for k in (-1, 0, 1)
                ]
                least, most = sorted(-np.diff(around) / eps)
                assert least - 1e-5 <= found <= most + 1e-5
                count += 1
    assert count >= 4


def test_a_label_knows_the_taper() -> None:
    """Above 70 % a fuller battery takes less: three half hours cannot reach 59 of 60 kWh.

    What is stored falls short by (1 - a)^3 of one more kWh at the start, a = 0.5 * 0.95 * 10 / (60 * 0.3); each of
    the kWh at the end saves 1 USD, and charging less saves 0.15 a kWh drawn.
    """
    charger = {"power_kw": (10.0,), "taper_soc": 0.7, "min_current_a": 0.0}
    core = plain(n_sockets=1, dt_h=0.5, charger=charger)
    view = (batch := at_stage(core, by_hand(core, (Car(departure=3, energy=50.0, target=59.0),), buy=0.1))).view()
    kept = (1 - 0.5 * 0.95 * 10 / 18) ** 3
    _, worth = labels.energy_values(view, batch.scenario, 0, view.energy_kwh[0])
    assert worth == pytest.approx(kept * 1.0 + (1 - kept) / 0.95 * 0.15)


class Watcher(Agent):
    """Rests, and keeps what it was shown."""

    name = "watcher"

    def __init__(self) -> None:
        self.seen: list[FloatArray] = []

    def act(self, obs: Any, info: dict[str, Any]) -> FloatArray:
        self.seen.append(info["view"].energy_kwh)
        return np.zeros(info["view"].plugged.shape)


def test_the_agent_whose_states_are_labelled_sees_them_unshaken() -> None:
    core, watcher = core_of("default"), Watcher()
    found = dataset.Examples.join(dataset.collect(core, watcher, [3, 4], 24, 0))
    for energy, (_, view) in zip(watcher.seen, resting(core, [3, 4]), strict=True):
        np.testing.assert_array_equal(energy, view.energy_kwh)
    assert len(found.fleet) > 15 and np.isfinite(found.vehicle).all() and np.isfinite(found.vehicle_value).all()
    assert found.fleet.shape == (len(found.fleet_value), len(features.FLEET))
    assert abs(found.vehicle_value.sum()) < 1e-9 * len(found.vehicle_value)  # each state's add up to 0


def resting(core: V2GCore, seeds: list[int]) -> Iterator[tuple[Batch, View]]:
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    while not batch.over.all():
        yield batch, batch.view()
        batch.step(np.zeros((len(seeds), core.n_sockets)))


def test_shaken_energies_stay_between_floor_and_full() -> None:
    core, rng, moved = core_of("default"), np.random.default_rng(0), 0
    for _, view in resting(core, [1]):
        for _ in range(4):
            energy, here = dataset.shaken(view, 0, rng), view.plugged[0]
            np.testing.assert_array_equal(energy[~here], view.energy_kwh[0, ~here])
            assert (energy >= view.floor_kwh[0] - 1e-9)[here].all() and (energy <= view.capacity_kwh[0] + 1e-9)[
                here
            ].all()
            moved += bool((energy != view.energy_kwh[0]).any())
    assert 10 < moved < 60


def test_days_without_anybody_are_the_users_error() -> None:
    core = core_of("default", session={"show_up_share": 0.0})
    with pytest.raises(UserError, match=r"nobody was plugged in .* raise agent\.days or agent\.stages_per_day"):
        dataset.collect_parallel(core, Watcher(), [1, 2], 3, 0, 1)


def test_habits_are_what_comes_and_what_is_charged() -> None:
    core = core_of("public", outage={"share": 0.0})
    kw, seeds = core.plant.charge_kw.sum(), list(range(6))
    rest = dataset.habits(core, Watcher(), seeds)
    assert not rest[:, 3].any()  # one vehicle after another at a socket is nothing charged
    s = drawn(core, 6).sessions
    here = s.arrival < core.n_stages
    for k, x in enumerate((s.energy_kwh - s.floor_kwh, s.target_kwh - s.energy_kwh, s.limit_kw)):
        assert rest[:, k].sum() * 6 * kw == pytest.approx(x[here].sum())
    some = dataset.habits(core, make_rival("cheap"), seeds)
    np.testing.assert_array_equal(some[:, :3], rest[:, :3])
    assert 0 < some[:, 3].sum() * 6 * kw < 1.2 * (s.target_kwh - s.energy_kwh)[here].sum()
