"""Rollouts of every kind stay within every named constraint, and energy is conserved."""

from collections.abc import Callable

import numpy as np
import pytest

from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g import constraints
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.scenario import Scenario
from worlds import WORLDS, Car, Played, begin, by_hand, copied, core_of, drawn, play

Decide = Callable[[Batch], FloatArray]
SIZE = 48
EVERYWHERE = {
    "presence", "charge_limit", "discharge_limit", "charge_off_or_minimum", "discharge_off_or_minimum",
    "not_both", "whole_amperes", "energy_balance", "energy_floor", "energy_capacity", "handover",
    "meter", "connected_served", "served_limit", "generator_limit", "island_balance",
    "blocks_whole_critical", "blocks_whole_other", "island_charges_last", "violation",
}  # fmt: skip


def policies(core: V2GCore) -> dict[str, Decide]:
    """Extreme, random and near-the-threshold wishes."""
    rng, n = np.random.default_rng(11), core.n_sockets
    low = core.plant.charge_min_kw / core.plant.charge_kw

    def shape(batch: Batch) -> tuple[int, int]:
        return batch.size, n

    return {
        "charge": lambda b: np.ones(shape(b)),
        "discharge": lambda b: -np.ones(shape(b)),
        "beyond": lambda b: 1e6 * rng.choice([-1.0, 1.0], shape(b)),
        "uniform": lambda b: rng.uniform(-1, 1, shape(b)),
        "extremes": lambda b: rng.choice([-1.0, 0.0, 1.0], shape(b)),
        "minimum": lambda b: rng.choice([-1.0, -0.5, 0.5, 1.0], shape(b)) * low,
        "half_each": lambda b: np.where(np.arange(n) % 2, 1.0, -1.0) * np.ones(shape(b)),
        "in_waves": lambda b: np.where(b.state.stage[:, None] % 6 < 4, 1.0, -1.0) * np.ones(shape(b)),
    }


BROKEN = [
    (0, "charge_kw", (0, 2), 5.0, "presence"),
    (0, "charge_kw", (0, 0), 8.0, "charge_limit"),
    (0, "charge_kw", (0, 0), -1.0, "charge_limit"),
    (0, "charge_kw", (0, 1), 5.1, "charge_limit"),
    (0, "charge_kw", (0, 0), 1.0, "charge_off_or_minimum"),
    (0, "charge_kw", (0, 0), 2.0, "energy_balance"),
    (0, "charge_kw", (0, 0), 60.0, "energy_capacity"),
    (0, "charge_kw", (0, 0), 200.0, "connection_0"),
    (0, "discharge_kw", (0, 0), 8.0, "discharge_limit"),
    (0, "discharge_kw", (0, 1), 5.1, "discharge_limit"),
    (0, "discharge_kw", (0, 0), 1.0, "discharge_off_or_minimum"),
    (0, "discharge_kw", (0, 0), 30.0, "energy_floor"),
    (0, "discharge_kw", (0, 0), 300.0, "connection_0"),
    (0, "import_kw", (0, 0), 39.0, "meter"),
    (0, "served_critical_kw", (0, 0), 39.0, "connected_served"),
    (0, "served_other_kw", (0, 0), 1.0, "served_limit"),
    (0, "generator_kw", (0, 0), 1.0, "generator_limit"),
    (0, "violation_kw", (0,), 1.0, "violation"),
    (1, "import_kw", (0, 0), 1.0, "meter"),
    (1, "generator_kw", (0, 0), 16.0, "generator_limit"),
    (1, "generator_kw", (0, 0), 0.0, "island_balance"),
    (1, "served_critical_kw", (0, 0), 9.0, "blocks_whole_critical"),
    (1, "served_other_kw", (0, 0), 3.0, "blocks_whole_other"),
    (1, "charge_kw", (0, 0), 2.0, "island_charges_last"),
]
"""Stage, field of its outcome, place, wrong value, the constraint that must say so."""


@pytest.mark.parametrize("name", WORLDS)
def test_rollouts_satisfy_every_named_constraint(name: str) -> None:
    core = core_of(name)
    scenario = drawn(core, SIZE)
    for policy, decide in policies(core).items():
        for played in play(begin(core, scenario), decide):
            found = residuals_of(core, scenario, played)
            assert not constraints.violated(found), (policy, played.before.stage[0])
            assert found.keys() >= EVERYWHERE | set(core.plant.rows.name)


@pytest.mark.parametrize("name", WORLDS)
def test_batteries_conserve_energy_over_the_episode(name: str) -> None:
    """Energy of all arrivals and what the chargers moved is there when the vehicles leave.

    What leaves is read off the terminal term, with every vehicle marked as one that stays.
    """
    core, rng = core_of(name), np.random.default_rng(5)
    charger, dt = core.params.charger, core.params.dt_h
    scenario = drawn(core, SIZE)
    x = scenario.sessions
    came = x.arrival < core.n_stages
    scenario = scenario._replace(sessions=x._replace(stays=came))
    kwh = np.where(came, x.energy_kwh, 0.0).sum((1, 2))
    for s in play(begin(core, scenario), lambda b: rng.uniform(-1, 1, (SIZE, core.n_sockets))):
        gained = charger.eta_charge * s.out.charge_kw - s.out.discharge_kw / charger.eta_discharge
        left_usd = s.out.cost_usd[:, COST_TERMS.index("terminal")]
        kwh += dt * gained.sum(1) + left_usd / core.params.cost.terminal_usd_kwh
    assert came.any()
    np.testing.assert_allclose(kwh, 0.0, atol=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_sites_conserve_energy_over_the_episode(name: str) -> None:
    """Grid, sun, generator and vehicles supply what loads and chargers take, but for lost sun."""
    core, rng = core_of(name), np.random.default_rng(6)
    scenario = drawn(core, SIZE)
    lost_kw = scenario.pv_kw.sum((1, 2))
    for s in play(begin(core, scenario), lambda b: rng.uniform(-1, 1, (SIZE, core.n_sockets))):
        lost_kw += (s.out.import_kw + s.out.generator_kw).sum(1)
        lost_kw -= (s.out.served_critical_kw + s.out.served_other_kw).sum(1)
        lost_kw += (s.out.discharge_kw - s.out.charge_kw).sum(1)
    dark_kw = np.where(scenario.outage, scenario.pv_kw, 0.0).sum((1, 2))
    assert np.all(lost_kw > -1e-9 * core.n_stages)
    assert np.all(lost_kw < dark_kw + 1e-9 * core.n_stages)


@pytest.mark.parametrize(("stage", "field", "place", "value", "name"), BROKEN)
def test_residuals_see_what_is_wrong(stage: int, field: str, place: tuple[int, ...], value: float, name: str) -> None:
    core = core_of("default", n_sockets=3)
    cars = (Car(0, departure=9), Car(1, departure=9, limit=5.0))
    scenario = by_hand(core, cars, critical=40.0, other=[0.0, 40.0], dark=[0, 1])
    played = list(play(begin(core, scenario), still))[stage]
    assert not constraints.violated(residuals_of(core, scenario, played))
    out = copied(played.out)
    getattr(out, field)[place] = value
    assert name in constraints.violated(residuals_of(core, scenario, played._replace(out=out)))


@pytest.mark.parametrize(("socket", "wrong_kwh", "name"), [(0, 29.0, "energy_balance"), (1, 1.0, "handover")])
def test_residuals_see_a_wrong_energy(socket: int, wrong_kwh: float, name: str) -> None:
    core = core_of("default", n_sockets=2)
    scenario = by_hand(core, (Car(0, departure=9), Car(1, departure=1)))
    played = next(play(begin(core, scenario), still))
    played.after.energy_kwh[0, socket] = wrong_kwh
    assert name in constraints.violated(residuals_of(core, scenario, played))


@pytest.mark.parametrize(("name", "power", "wrong"), [("amperes", 3.2, "whole_amperes"), ("taper", 9.0, "taper")])
def test_residuals_see_what_a_charger_cannot_do(name: str, power: float, wrong: str) -> None:
    core = core_of(name, n_sockets=1)
    scenario = by_hand(core, (Car(0, departure=9, energy=57.0),))
    played = next(play(begin(core, scenario), still))
    played.out.charge_kw[0, 0] = power
    assert wrong in constraints.violated(residuals_of(core, scenario, played))


def test_residuals_see_both_directions_at_once() -> None:
    core = core_of("default", n_sockets=1)
    scenario = by_hand(core, (Car(0, departure=9),))
    played = next(play(begin(core, scenario), still))
    played.out.charge_kw[0, 0] = played.out.discharge_kw[0, 0] = 5.0
    assert "not_both" in constraints.violated(residuals_of(core, scenario, played))


def residuals_of(core: V2GCore, scenario: Scenario, s: Played) -> dict[str, FloatArray]:
    return constraints.residuals(core.plant, scenario, s.before, s.out, s.after)


def still(batch: Batch) -> FloatArray:
    return np.zeros((batch.size, batch.core.n_sockets))
