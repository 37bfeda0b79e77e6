"""Statistics against numbers worked by hand, against SciPy, and by simulated coverage."""

import warnings

import numpy as np
import pytest
from scipy import stats as scipy_stats

from qevgrid.runner import stats
from qevgrid.runner.stats import Interval


def _rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class TestScore:
    def test_is_the_ratio_of_sums_not_the_mean_of_ratios(self):
        idle, best, agent = [10.0, 100.0], [0.0, 50.0], [10.0, 50.0]
        # sums: (110 - 60) / (110 - 50); the mean of the ratios would be 0.5
        assert stats.score(agent, idle, best, rng=_rng()).value == pytest.approx(50 / 60)

    def test_averages_over_the_seeds(self):
        idle, best = [10.0, 100.0], [0.0, 50.0]
        agent = [[10.0, 50.0], [0.0, 100.0]]  # sums 60 and 100, mean 80
        assert stats.score(agent, idle, best, rng=_rng()).value == pytest.approx(30 / 60)

    def test_rulers_have_no_uncertainty_because_agents_are_paired(self):
        idle, best = _rng(1).uniform(50, 100, 40), _rng(2).uniform(0, 40, 40)
        assert stats.score(best, idle, best, rng=_rng()) == pytest.approx((1.0, 1.0, 1.0))
        assert stats.score(idle, idle, best, rng=_rng()) == pytest.approx((0.0, 0.0, 0.0))

    def test_agrees_with_scipys_paired_bootstrap(self):
        rng = _rng(3)
        idle, best = rng.uniform(50, 100, 60), rng.uniform(0, 40, 60)
        agent = best + rng.uniform(0, 1, 60) ** 2 * (idle - best)
        ours = stats.score(agent, idle, best, rng=_rng(4), resamples=20_000)

        def ratio(agent, idle, best, axis=-1):
            return (idle - agent).sum(axis) / (idle - best).sum(axis)

        theirs = scipy_stats.bootstrap(
            (agent, idle, best), ratio, paired=True, method="percentile", vectorized=True,
            n_resamples=20_000, rng=_rng(5),
        ).confidence_interval  # fmt: skip
        width = theirs.high - theirs.low
        assert width > 0.05
        assert ours.lo == pytest.approx(theirs.low, abs=0.05 * width)
        assert ours.hi == pytest.approx(theirs.high, abs=0.05 * width)

    def test_seeds_widen_the_interval(self):
        idle, best = np.full(50, 100.0), np.zeros(50)
        same = np.tile(_rng(1).uniform(20, 60, 50), (5, 1))
        differ = same + np.array([-20.0, -10.0, 0.0, 10.0, 20.0])[:, None]
        narrow = stats.score(same, idle, best, rng=_rng())
        wide = stats.score(differ, idle, best, rng=_rng())
        assert wide.value == pytest.approx(narrow.value)
        assert wide.hi - wide.lo > 2 * (narrow.hi - narrow.lo)

    def test_strata_remove_the_spread_between_them(self):
        outage = np.arange(40) < 12
        idle, best, agent = np.where(outage, 900.0, 20.0), np.zeros(40), np.where(outage, 600.0, 5)
        free = stats.score(agent, idle, best, rng=_rng())
        held = stats.score(agent, idle, best, rng=_rng(), strata=outage)
        assert free.hi - free.lo > 0.005
        assert held == pytest.approx((free.value,) * 3)

    @pytest.mark.parametrize("best", [[5.0, 5.0], [6.0, 7.0]])
    def test_without_room_between_the_rulers_there_is_no_score(self, best):
        assert np.isnan(stats.score([1.0, 2.0], [5.0, 5.0], best, rng=_rng())).all()

    def test_one_observation_has_a_value_and_no_interval(self):
        got = stats.score([4.0], [10.0], [2.0], rng=_rng())
        assert got.value == pytest.approx(0.75)
        assert np.isnan([got.lo, got.hi]).all()

    def test_resamples_without_room_are_left_out(self):
        got = stats.score([0.0, 4.0], [0.0, 8.0], [0.0, 0.0], rng=_rng(), resamples=200)
        assert got == pytest.approx((0.5, 0.5, 0.5))

    def test_same_generator_same_interval_and_global_state_untouched(self):
        x = _rng(1).uniform(size=(3, 30))
        before = np.random.get_state()[1].copy()
        first = stats.score(x, np.ones(30), np.zeros(30), rng=_rng(7))
        assert first == stats.score(x, np.ones(30), np.zeros(30), rng=_rng(7))
        assert first != stats.score(x, np.ones(30), np.zeros(30), rng=_rng(8))
        np.testing.assert_array_equal(before, np.random.get_state()[1])

    def test_higher_level_is_wider(self):
        x = _rng(1).uniform(size=(3, 30))
        low = stats.score(x, np.ones(30), np.zeros(30), rng=_rng(), level=0.5)
        high = stats.score(x, np.ones(30), np.zeros(30), rng=_rng(), level=0.99)
        assert high.lo < low.lo < low.value < low.hi < high.hi

    @pytest.mark.parametrize(
        ("agent", "idle", "best", "strata"),
        [
            ([1.0, np.nan], [2.0, 2.0], [0.0, 0.0], None),
            ([1.0, 1.0], [2.0], [0.0, 0.0], None),
            ([1.0, 1.0], [2.0, 2.0], [[0.0, 0.0]], None),
            ([], [], [], None),
            ([1.0, 1.0], [2.0, 2.0], [0.0, 0.0], ["a"]),
            (np.ones((2, 2, 2)), [2.0, 2.0], [0.0, 0.0], None),
        ],
    )
    def test_bad_input_is_an_error(self, agent, idle, best, strata):
        with pytest.raises(ValueError, match="shape"):
            stats.score(agent, idle, best, rng=_rng(), strata=strata)


class TestMeans:
    def test_mean_interval_agrees_with_scipy(self):
        x = _rng(1).exponential(10.0, 80)
        ours = stats.mean_interval(x, _rng(2), resamples=20_000)
        theirs = scipy_stats.bootstrap(
            (x,), np.mean, method="percentile", n_resamples=20_000, rng=_rng(3)
        ).confidence_interval
        assert ours.value == pytest.approx(x.mean())
        assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), rel=0.02)

    @pytest.mark.parametrize("strata", [None, np.arange(60) % 2])
    def test_coverage_is_what_it_says(self, strata):
        rng, hits = _rng(11), 0
        shift = 0.0 if strata is None else np.where(strata, 50.0, -50.0)
        for _ in range(400):
            got = stats.mean_interval(rng.standard_normal(60) + shift, rng, resamples=400, strata=strata)
            hits += got.lo <= 0.0 <= got.hi
        assert 0.90 < hits / 400 < 0.98  # 95 % nominal, 1.1 % standard error of this simulation

    def test_coverage_when_seeds_and_scenarios_both_vary(self):
        rng, hits = _rng(12), 0
        for _ in range(300):
            x = rng.standard_normal((12, 1)) + 2.0 * rng.standard_normal((1, 60))
            got = stats.mean_interval(x, rng, resamples=400)
            hits += got.lo <= 0.0 <= got.hi
        assert 0.87 < hits / 300 < 0.98

    def test_difference_is_paired_over_scenarios(self):
        day = _rng(1).normal(0.0, 100.0, 50)
        got = stats.paired_difference(day + 3.0, np.tile(day, (4, 1)), _rng())
        assert got == pytest.approx((3.0, 3.0, 3.0))

    def test_difference_of_seeds_is_not_paired(self):
        seeds = np.linspace(-1.0, 1.0, 5)[:, None] * np.ones(20)
        got = stats.paired_difference(seeds, seeds, _rng())
        assert got.value == 0.0
        assert got.lo < -0.5 < 0.5 < got.hi

    def test_difference_agrees_with_the_mean_of_differences(self):
        a, b = _rng(1).normal(5, 2, 70), _rng(2).normal(4, 1, 70)
        ours = stats.paired_difference(a, b, _rng(3), resamples=5000)
        theirs = stats.mean_interval(a - b, _rng(4), resamples=5000)
        assert ours == pytest.approx(theirs, abs=0.05)
        assert ours.value == pytest.approx((a - b).mean())

    def test_unequal_scenarios_cannot_be_paired(self):
        with pytest.raises(ValueError, match="2 and 3 scenarios"):
            stats.paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], _rng())

    def test_single_observation(self):
        for got in (stats.mean_interval([2.0], _rng()), stats.paired_difference([5], [3], _rng())):
            assert got.value == 2.0
            assert np.isnan([got.lo, got.hi]).all()


class TestAgarwal:
    def test_iqm_is_the_mean_of_the_middle_half(self):
        assert stats.iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == pytest.approx(3.5)
        assert stats.iqm([[1.0, 2.0], [3.0, 100.0]]) == pytest.approx(2.5)

    def test_iqm_interval_holds_the_value_and_shrinks_with_runs(self):
        few, many = (stats.iqm_interval(_rng(1).normal(size=(n, 3)), _rng(), resamples=500) for n in (5, 80))
        assert few.lo < few.value < few.hi
        assert many.hi - many.lo < 0.5 * (few.hi - few.lo)

    def test_iqm_interval_draws_the_runs_of_each_task_apart(self):
        between_tasks = np.array([[0.0, 10.0, 20.0, 30.0]]).repeat(6, axis=0)
        assert stats.iqm_interval(between_tasks, _rng()) == pytest.approx((15.0, 15.0, 15.0))

    def test_probability_of_improvement_by_hand(self):
        got = stats.probability_of_improvement([1.0, 3.0], [2.0, 3.0], _rng())
        assert got.value == pytest.approx((0 + 0 + 1 + 0.5) / 4)

    def test_probability_of_improvement_is_mann_whitneys(self):
        x, y = _rng(1).integers(0, 9, 12), _rng(2).integers(0, 9, 8)
        expected = scipy_stats.mannwhitneyu(x, y).statistic / (12 * 8)
        got = stats.probability_of_improvement(x, y, _rng(), resamples=300)
        assert got.value == pytest.approx(expected)
        assert got.lo < got.value < got.hi

    def test_probability_of_improvement_is_the_mean_over_tasks(self):
        x, y = [[2.0, 0.0], [3.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]
        assert stats.probability_of_improvement(x, y, _rng()) == (0.5, 0.5, 0.5)
        with pytest.raises(ValueError, match="1 and 2 tasks"):
            stats.probability_of_improvement([1.0, 2.0], y, _rng())

    def test_optimality_gap_ignores_what_exceeds_the_target(self):
        assert stats.optimality_gap([0.5, 1.5, 1.0, 0.0]) == pytest.approx((0.5 + 1.0) / 4)
        assert stats.optimality_gap([1.0, 2.0], target=2.0) == pytest.approx(0.5)


class TestCvar:
    def test_whole_number_of_scenarios(self):
        assert stats.cvar(np.arange(100.0)) == pytest.approx(np.mean([95, 96, 97, 98, 99]))

    def test_fraction_of_a_scenario(self):
        # the worst 30 % of 5 scenarios: 50 whole, 40 by half
        assert stats.cvar([10, 30, 50, 20, 40], level=0.7) == pytest.approx((50 + 0.5 * 40) / 1.5)

    def test_tail_within_one_scenario_is_the_maximum(self):
        assert stats.cvar([1.0, 7.0, 3.0]) == pytest.approx(7.0)

    def test_level_zero_is_the_mean(self):
        assert stats.cvar([1.0, 7.0, 4.0], level=0.0) == pytest.approx(4.0)

    def test_is_rockafellar_and_uryasevs_minimum(self):
        cost, level = _rng(1).lognormal(3, 1, 83), 0.9
        shortfall = np.maximum(cost[None, :] - cost[:, None], 0.0).mean(axis=1)
        assert stats.cvar(cost, level) == pytest.approx((cost + shortfall / (1 - level)).min())

    def test_probabilities_are_like_repeated_scenarios(self):
        weighted = stats.cvar([1.0, 9.0, 5.0], 0.6, probability=[0.5, 0.1, 0.4])
        assert weighted == pytest.approx(stats.cvar([1.0] * 5 + [9.0] + [5.0] * 4, 0.6))
        assert weighted == pytest.approx((9.0 + 3 * 5.0) / 4)

    @pytest.mark.parametrize("probability", [[1.0], [0.0, 0.0], [2.0, -1.0]])
    def test_bad_probability(self, probability):
        with pytest.raises(ValueError, match="probability"):
            stats.cvar([1.0, 2.0], probability=probability)

    def test_bad_level(self):
        with pytest.raises(ValueError, match="level"):
            stats.cvar([1.0, 2.0], level=1.0)


def test_few_numbers_have_students_interval():
    x = np.array([1.0, 2.0, 6.0])
    found = stats.student_interval(x)
    expected = scipy_stats.t.interval(0.95, 2, loc=3.0, scale=scipy_stats.sem(x))
    assert found == pytest.approx((3.0, *expected))
    assert stats.student_interval([4.0]).value == 4.0 and np.isnan(stats.student_interval([4.0]).lo)
    with pytest.raises(ValueError, match="finite"):
        stats.student_interval([1.0, np.nan])


def test_interval_is_a_plain_tuple():
    assert Interval(1.0, 0.5, 1.5)._asdict() == {"value": 1.0, "lo": 0.5, "hi": 1.5}
