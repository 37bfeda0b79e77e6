"""What is wrong with (22)-(26) as printed."""

import dimod
import numpy as np
import pytest

from qevgrid.agents.mobile_csp.paper import PaperCase, b, energy, literal, unserved_usd, y, z

CASE = PaperCase(
    n_units=1,
    slots=np.array([1, 1]),
    need_kw=np.array([[0.0, 50.0], [0.0, 50.0]]),
    voll_usd_kwh=np.array([0.0, 2.0]),
    travel_usd=np.array([[0.0, 30.0], [30.0, 0.0]]),
    level_kw=np.array([0.0, 100.0]),
)


def test_22_turns_at_most_into_exactly() -> None:
    """A free slot is fined, so a bit of a site where no unit is is set for nothing."""
    bqm = literal(CASE, 1000.0, 1000.0)
    assert energy(bqm, [z(0, 0, t) for t in (0, 1)]) == pytest.approx(200.0 + 4 * 1000.0)


def test_22_counts_power_bits_and_not_presence() -> None:
    """Two units present without a power bit count as none; two levels of one unit fill two slots."""
    case = PaperCase(2, np.array([2]), np.zeros((1, 1)), np.zeros(1), np.zeros((1, 1)), np.array([0.0, 100.0]))
    bqm = literal(case, 1000.0, 1000.0)
    there = [z(0, 0, 0), z(1, 0, 0)]
    assert energy(bqm, there) == pytest.approx(2.0**2 * 1000.0)
    assert energy(bqm, [*there, b(0, 0, 0, 0), b(0, 0, 0, 1)]) == 0.0


def test_26_pays_for_oversupply() -> None:
    """100 kW for a need of 50 earn twice what the need is worth."""
    bqm = literal(CASE, 0.0, 0.0)
    on = [z(0, 1, 0), b(0, 1, 0, 1)]
    assert energy(bqm, on) == pytest.approx(200.0 - 200.0)
    assert unserved_usd(CASE, np.array([[0.0, 100.0], [0.0, 0.0]])) == pytest.approx(100.0)


def test_travel_is_linked_to_no_place() -> None:
    """The ground state serves where no unit is and moves between sites without a trip."""
    bqm = literal(CASE, 1000.0, 1000.0)
    moved = [z(0, 0, 0), z(0, 1, 1)]
    assert energy(bqm, [*moved, y(0, 0, 1, 0)]) - energy(bqm, moved) == pytest.approx(30.0)
    best = dimod.ExactSolver().sample(bqm).first.sample
    assert not any(value for name, value in best.items() if name.startswith("y"))
    absent = [t for t in (0, 1) if best[b(0, 1, t, 1)] and not best[z(0, 1, t)]]
    same = dict(best) | {z(0, d, t): int(d == 0) for d in (0, 1) for t in (0, 1)}
    assert absent or bqm.energy(same) == pytest.approx(bqm.energy(best))
