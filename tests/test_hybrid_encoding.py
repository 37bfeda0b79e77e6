"""The QUBO of a decision: energies, bits and back, penalties, and where the square is centred."""

from dataclasses import replace

import decisions
import dimod
import numpy as np
import pytest
from dwave.samplers import SimulatedAnnealingSampler

from qevgrid.agents.hybrid.centring import FLATTEST, LEAN, centre
from qevgrid.agents.hybrid.dual import Dual
from qevgrid.agents.hybrid.encoding import MOST_BITS, decode, depths, describe, encode, low_rank, to_bqm
from qevgrid.agents.hybrid.penalty import worth_usd
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.agents.hybrid.sampler_linear import optimum, relaxed_dual
from qevgrid.envs.errors import UserError

SMALL = {
    "levels": lambda rng: decisions.charging(rng, 3),
    "levels one-hot": lambda rng: decisions.charging(rng, 3, one_hot=True),
    "seven levels": lambda rng: decisions.charging(rng, 2, 7),
    "island": lambda rng: decisions.island(rng, 2, 2),
    "plans": lambda rng: decisions.plans(rng, 4, 3, 4),
    "routes": lambda rng: decisions.routes(rng, 3, 2, 2, 5),
    "rough": lambda rng: decisions.rough(rng, 3),
}
KINDS = pytest.mark.parametrize("kind", SMALL)


def cases(kind, count):
    for seed in range(count):
        problem = SMALL[kind](np.random.default_rng(seed))
        yield problem, centre(problem, relaxed_dual(problem), 0.1)


def all_patterns(problem):
    n = len(problem.bit)
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)


@KINDS
def test_valid_patterns_cost_what_the_form_says(kind):
    for problem, form in cases(kind, 4):
        choices = decisions.every_choice(problem)
        energies = to_bqm(problem, form).energies(encode(problem, choices).astype(int))
        np.testing.assert_allclose(energies, form.energy_usd(problem, choices), rtol=1e-9, atol=1e-9)


@KINDS
def test_bits_lead_back_to_the_choice(kind):
    problem = SMALL[kind](np.random.default_rng(0))
    choices = decisions.every_choice(problem)
    found, valid = decode(problem, encode(problem, choices))
    assert valid.all()
    np.testing.assert_array_equal(found, choices)
    again, flag = decode(problem, encode(problem, choices[-1]))
    assert flag.shape == () and flag and (again == choices[-1]).all()


@KINDS
def test_every_pattern_decodes_and_only_those_of_choices_are_valid(kind):
    problem = SMALL[kind](np.random.default_rng(1))
    patterns = all_patterns(problem)
    choices, valid = decode(problem, patterns)
    assert valid.sum() == np.prod(np.diff(problem.first))
    assert ((choices >= 0) & (choices < np.diff(problem.first))).all()
    back = encode(problem, choices)
    assert (back[valid] == patterns[valid]).all()
    assert not (back & ~patterns).any()  # a repair only takes bits away


def test_a_repair_keeps_the_better_of_two_set_bits():
    meter = Pieces.of([(0.0, [(5.0, 10.0)])])
    first, cost = np.array([0, 3, 5]), np.array([0.0, -3.0, -2.0, 0.0, -1.0])
    problem = AggregateQUBO.one_hot(first, cost, np.array([[0.0], [6.0], [4.0], [0.0], [1.0]]), meter)
    both = np.array([True, True, False])
    choice, valid = decode(problem, both)
    assert not valid and choice.tolist() == [2, 0]  # 6 kW would cost 10 beyond the kink


def test_a_repair_drops_a_child_without_its_parent():
    problem = AggregateQUBO(
        np.array([0, 3]), np.array([0.0, -1.0, -5.0]), np.zeros((3, 1)), Pieces.of([(0.0, [])]), np.array([0, 0, 1])
    )
    assert depths(problem).tolist() == [0, 1, 2]
    assert encode(problem, np.array([[1], [2]])).tolist() == [[True, False], [True, True]]
    choice, valid = decode(problem, np.array([[False, True], [True, True]]))
    assert valid.tolist() == [False, True] and choice.tolist() == [[0], [2]]


@KINDS
def test_ground_states_are_choices(kind):
    broken = 0
    for problem, form in cases(kind, 60 if kind == "rough" else 20):
        patterns = all_patterns(problem)
        _, valid = decode(problem, patterns)
        energies = to_bqm(problem, form).energies(patterns.astype(int))
        lowest = energies <= energies.min() + 1e-9 * (1 + np.abs(energies).max())
        assert valid[lowest].all()
        without = to_bqm(problem, form, margin=0.0).energies(patterns.astype(int))
        broken += not valid[without.argmin()]
    assert broken > 4 or kind != "rough"  # penalties were needed


def test_penalties_stay_near_what_is_needed():
    for seed in range(5):
        problem = decisions.charging(np.random.default_rng(seed), 30, one_hot=True)
        form = centre(problem, relaxed_dual(problem), 0.1)
        reduced = np.abs(form.reduced_usd(problem))
        box = np.ptp(problem.use, axis=0).max() * problem.n_units * np.abs(problem.use).max() * form.weight_usd.max()
        assert worth_usd(problem, form).max() < reduced.max() + 0.1 * box  # far below the worst usage there could be


def test_low_rank_is_the_model_without_penalties():
    problem = decisions.charging(np.random.default_rng(2), 3)
    form = centre(problem, relaxed_dual(problem), 0.1)
    linear, use, weight, offset = low_rank(problem, form)
    bits = all_patterns(problem).astype(float)
    energies = to_bqm(problem, form, margin=0.0).energies(bits.astype(int))
    np.testing.assert_allclose(bits @ linear + 0.5 * (bits @ use) ** 2 @ weight + offset, energies, atol=1e-9)


def test_too_many_bits_is_one_clear_line():
    units = MOST_BITS + 1
    first = np.arange(0, 2 * units + 1, 2)
    problem = AggregateQUBO.one_hot(first, np.zeros(2 * units), np.zeros((2 * units, 1)), Pieces.of([(0.0, [])]))
    form = centre(problem, Dual(np.zeros(1), 0.0, np.zeros(1), np.zeros(units, int), 0.0), 0.1)
    with pytest.raises(UserError, match=r"5001 bits.*agent\.sampler=structured"):
        to_bqm(problem, form)


def test_report_counts_ising_coefficients():
    bqm = dimod.BinaryQuadraticModel({0: 1.0, 1: -4.0}, {(0, 1): 0.5}, 7.0, "SPIN")
    report = describe(bqm)
    assert (report.variables, report.couplers, report.range_bits) == (2, 1, 3.0)
    assert describe(dimod.BinaryQuadraticModel({0: 0.0}, {}, 0.0, "SPIN")).range_bits == 0.0


def one_meter(kinks, slope=1.0, step=2.0):
    """Four on-off units of ``step`` each at a meter."""
    use = np.tile([[0.0], [step]], (4, 1))
    return AggregateQUBO.one_hot(np.arange(0, 9, 2), np.zeros(8), use, Pieces.of([(slope, kinks)]))


def dual_at(price, units_on):
    return Dual(np.array([price]), 0.0, np.zeros(1), (np.arange(4) < units_on).astype(int), 0.0)


def test_the_square_stands_at_the_kink_that_holds_the_price():
    problem = one_meter([(5.0, 4.0)])
    for units_on in range(5):
        form = centre(problem, dual_at(3.0, units_on), 0.1)
        assert form.at == pytest.approx(5.0) and form.price_usd == pytest.approx(3.0)
        assert form.weight_usd == pytest.approx(0.1 * 4.0 / 2.0)  # rho rise / step, both sides being equal
    assert form.energy_usd(problem, np.zeros(4, int)) == pytest.approx(5.0 - 15.0 + 0.1 * 25)


def test_a_one_sided_kink_leans_and_flattens():
    form = centre(one_meter([(5.0, 4.0)]), dual_at(1.4, 3), 0.1)  # 0.4 to the left, 3.6 to the right
    assert form.at == pytest.approx(5.0 - LEAN * 2.0 * 0.8)
    assert form.weight_usd == pytest.approx(2 * np.sqrt(0.4 * 3.6) * 0.1 / 2.0)
    edge = centre(one_meter([(6.0, 4.0)]), dual_at(1.0, 3), 0.1)
    assert edge.weight_usd == pytest.approx(FLATTEST * 4.0 * 0.1 / 2.0)


def test_an_inexact_price_does_not_send_the_square_to_a_far_kink():
    form = centre(one_meter([(5.0, 4.0), (500.0, 80.0)]), dual_at(5.0 + 1e-6, 4), 0.5)
    assert form.at == pytest.approx(8.0 + LEAN * 2.0, abs=1e-3)  # the usage of the four units, away from the kink
    assert form.weight_usd == pytest.approx(2 * FLATTEST * 0.5 / 4.0, rel=1e-3)  # window 4, 1 beyond the plane


def test_without_kinks_nothing_couples():
    problem = one_meter([])
    form = centre(problem, dual_at(1.0, 4.0), 0.1)
    assert form.weight_usd == 0 and describe(to_bqm(problem, form)).couplers == 0
    choices = decisions.every_choice(problem)
    np.testing.assert_allclose(form.energy_usd(problem, choices), problem.energy_usd(choices))


@KINDS
def test_highs_finds_the_optimum_and_the_relaxation_bounds_it(kind):
    for seed in range(4):
        problem = SMALL[kind](np.random.default_rng(seed))
        least = problem.energy_usd(decisions.every_choice(problem)).min()
        assert problem.energy_usd(optimum(problem, 10.0)) == pytest.approx(least, abs=1e-6)
        dual = relaxed_dual(problem)
        assert dual.bound_usd <= least + 1e-7
        reduced = problem.cost_usd + problem.use @ dual.price_usd
        units = np.minimum.reduceat(reduced, problem.first[:-1]).sum()
        bound = problem.constant_usd + units - problem.pieces.conjugate(dual.price_usd)[0].sum()
        assert bound == pytest.approx(dual.bound_usd, abs=1e-6)  # the prices prove it


@pytest.mark.parametrize("one_hot", [False, True])
def test_raw_reads_come_near_the_optimum(one_hot):
    lost = []
    for seed in range(100, 106):
        problem = decisions.charging(np.random.default_rng(seed), 20, one_hot=one_hot)
        best = problem.energy_usd(optimum(problem, 2.0, gap=1e-3))
        idle = problem.energy_usd(np.zeros(problem.n_units, int))
        bqm = to_bqm(problem, centre(problem, relaxed_dual(problem), 0.1))
        reads = SimulatedAnnealingSampler().sample(bqm, num_reads=20, num_sweeps=200, seed=1)
        choices, valid = decode(problem, reads.record.sample > 0)
        lost.append((problem.energy_usd(choices).min() - best) / (idle - best))
        assert valid.mean() > 0.5
    assert np.mean(lost) < 0.015  # of what is saved over idling; measured 0.1 and 0.4 %


def test_a_stiff_square_is_worse():
    """Guards the default rho: the fit is to the dual, not to the kink's rise."""
    lost = {0.1: [], 3.0: []}
    for seed in range(100, 104):
        problem = decisions.charging(np.random.default_rng(seed), 20)
        best = problem.energy_usd(optimum(problem, 2.0, gap=1e-3))
        for rho, found in lost.items():
            bqm = to_bqm(problem, centre(problem, relaxed_dual(problem), rho))
            reads = SimulatedAnnealingSampler().sample(bqm, num_reads=20, num_sweeps=200, seed=1)
            found.append(problem.energy_usd(decode(problem, reads.record.sample > 0)[0]).min() - best)
    assert np.mean(lost[3.0]) > 5 * np.mean(lost[0.1])


def test_dual_without_resources():
    problem = AggregateQUBO.one_hot(np.array([0, 2]), np.array([0.0, -1.0]), np.zeros((2, 0)), Pieces.of([]))
    form = centre(problem, relaxed_dual(problem), 0.1)
    assert to_bqm(problem, form).energies([[0], [1]]).tolist() == [0.0, -1.0]
    assert replace(problem, constant_usd=2.0).energy_usd(optimum(problem, 1.0)) == 1.0
