"""Estimates with their uncertainty: score, IQM, CVaR, paired differences.

Arrays of runs are (S, E): S training seeds by E evaluation scenarios; (E,) is one seed, or an agent
that does not learn. Every interval but Student's is a percentile bootstrap from the generator passed in.

What the intervals mean. Seeds and scenarios are crossed (each trained agent sees the same
scenarios), so both are resampled, independently, and an entry is drawn with its row and its
column; the same draw serves every agent of a comparison. Scenarios may be stratified (`strata`,
one label a scenario: each resample keeps the number of each label, as when outage days are drawn
by design). With few seeds a percentile bootstrap is too narrow (five seeds: about 82 % instead of
95 %), and S = 1 says nothing about training noise. One single observation has no interval: its
bounds are NaN. Of few scenarios `student_interval` says more. A non-finite or misshapen input is a ValueError.

Sources: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
NeurIPS 2021 (IQM, stratified bootstrap, probability of improvement, optimality gap); Rockafellar
and Uryasev, "Optimization of Conditional Value-at-Risk", Journal of Risk 2, 2000; Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from qevgrid.envs.types import FloatArray, IntArray

RESAMPLES, LEVEL = 2000, 0.95


class Interval(NamedTuple):
    """An estimate and the bounds of its interval; NaN where one is not defined."""

    value: float
    lo: float
    hi: float


UNDEFINED = Interval(math.nan, math.nan, math.nan)


def score(
    cost_agent: ArrayLike,
    cost_idle: ArrayLike,
    cost_best: ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    strata: ArrayLike | None = None,
) -> Interval:
    """0 = naive, 1 = nobody can do better: (idle - agent) / (idle - best), sums over scenarios.

    Costs in USD: `cost_agent` (S, E) or (E,), `cost_idle` and `cost_best` (E,), `strata` (E,).
    The three are paired: a resample draws the same scenarios for all. Where idle is no dearer
    than best the score does not exist: the value is then NaN with NaN bounds, and single
    resamples without such a difference are left out.
    """
    agent = _runs(cost_agent)
    idle, best = _scenario_costs(cost_idle, agent), _scenario_costs(cost_best, agent)
    room_usd = idle - best
    if room_usd.sum() <= 0.0:
        return UNDEFINED
    value = float((idle - agent.mean(axis=0)).sum() / room_usd.sum())
    if agent.size == 1:
        return Interval(value, math.nan, math.nan)
    seeds, scenarios = _crossed(agent, rng, resamples, strata)
    gained = _resampled_sum(idle - agent, seeds, scenarios)
    room = scenarios @ room_usd
    usable = room > 0.0
    return _interval(value, gained[usable] / room[usable], level)


def mean_interval(
    x: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    strata: ArrayLike | None = None,
) -> Interval:
    """Mean of `x` (S, E) or (E,), in its own unit; `strata` (E,)."""
    runs = _runs(x)
    value = float(runs.mean())
    if runs.size == 1:
        return Interval(value, math.nan, math.nan)
    seeds, scenarios = _crossed(runs, rng, resamples, strata)
    return _interval(value, _resampled_sum(runs, seeds, scenarios) / runs.shape[1], level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    strata: ArrayLike | None = None,
) -> Interval:
    """Mean of a - b on the same scenarios, in their unit.

    (S, E) or (E,) each. Scenarios are paired; seeds are not (seed 3 of one learner has nothing to
    do with seed 3 of another), so each side's seeds are drawn on their own.
    """
    first, second = _runs(a), _runs(b)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} scenarios cannot be paired")
    value = float(first.mean() - second.mean())
    if max(first.size, second.size) == 1:
        return Interval(value, math.nan, math.nan)
    seeds_a, scenarios = _crossed(first, rng, resamples, strata)
    seeds_b = _draws(second.shape[0], rng, resamples)
    total = _resampled_sum(first, seeds_a, scenarios) - _resampled_sum(second, seeds_b, scenarios)
    return _interval(value, total / first.shape[1], level)


def student_interval(x: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean of a few numbers (N,), where a bootstrap says too little, with the interval of Student's t."""
    sample = _finite(x).ravel()
    value, n = float(sample.mean()), sample.size
    if n == 1:
        return Interval(value, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + level / 2.0, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(value, value - half, value + half)


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all the entries (Agarwal et al. 2021).

    Like `rliable`, it trims floor(n / 4) entries at either end.
    """
    return float(stats.trim_mean(_finite(scores).ravel(), 0.25))


def iqm_interval(
    scores: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """IQM of `scores` (R,) runs of one task or (R, K) runs of K tasks, with its interval.

    The stratified bootstrap of Agarwal et al. (2021): runs are drawn anew for each task, so give
    one score a training run, not one a scenario.
    """
    runs = _tasks(scores)
    value = iqm(runs)
    if runs.size == 1:
        return Interval(value, math.nan, math.nan)
    samples = _task_resamples(runs, rng, resamples).reshape(resamples, -1)
    return _interval(value, stats.trim_mean(samples, 0.25, axis=1), level)


def probability_of_improvement(
    x: ArrayLike,
    y: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """P(a run of x scores above a run of y), ties counted half, mean over the tasks.

    Scores, higher is better: (R,) or (R, K) runs by tasks, numbers of runs may differ. The
    Mann-Whitney statistic and stratified bootstrap of Agarwal et al. (2021).
    """
    first, second = _tasks(x), _tasks(y)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} tasks cannot be compared")
    value = float(_wins(first[None], second[None])[0])
    if max(first.shape[0], second.shape[0]) == 1:
        return Interval(value, math.nan, math.nan)
    drawn_x = _task_resamples(first, rng, resamples)
    drawn_y = _task_resamples(second, rng, resamples)
    return _interval(value, _wins(drawn_x, drawn_y), level)


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> float:
    """Mean shortfall below `target`, scores above it counted as the target (Agarwal et al. 2021).

    0 = every run reached it; lower is better.
    """
    return float(np.maximum(target - _finite(scores), 0.0).mean())


def cvar(cost: ArrayLike, level: float = 0.95, probability: ArrayLike | None = None) -> float:
    """Mean of the worst 1 - `level` of the costs (higher is worse), in their unit.

    `cost` of any shape; `probability` of the same shape, normalised here, by default equal. Exact
    where the tail cuts through a scenario, which then counts in part (Rockafellar and Uryasev).
    """
    if not 0.0 <= level < 1.0:
        raise ValueError(f"level must be in [0, 1), but is {level}")
    worst_first = _finite(cost).ravel()
    weights = np.ones(worst_first.size) if probability is None else _finite(probability).ravel()
    if weights.size != worst_first.size or (weights < 0.0).any() or weights.sum() <= 0.0:
        raise ValueError("probability must be one number >= 0 a cost, and not all of them 0")
    order = np.argsort(-worst_first, kind="stable")
    worst_first, weights = worst_first[order], weights[order] / weights.sum()
    before = np.cumsum(weights) - weights
    in_tail = np.clip(1.0 - level - before, 0.0, weights)
    return float(in_tail @ worst_first / in_tail.sum())


def _finite(x: ArrayLike) -> FloatArray:
    array = np.asarray(x, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"shape {array.shape}: every entry must be a finite number")
    return array


def _runs(x: ArrayLike) -> FloatArray:
    """(S, E) from (S, E) or, one seed, (E,)."""
    runs = np.atleast_2d(_finite(x))
    if runs.ndim != 2:
        raise ValueError(f"shape {runs.shape}: must be (seeds, scenarios) or (scenarios,)")
    return runs


def _tasks(scores: ArrayLike) -> FloatArray:
    """(R, K) from (R, K) or, one task, (R,)."""
    runs = _finite(scores)
    if runs.ndim not in (1, 2):
        raise ValueError(f"shape {runs.shape}: must be (runs, tasks) or (runs,)")
    return runs.reshape(runs.shape[0], -1)


def _scenario_costs(x: ArrayLike, runs: FloatArray) -> FloatArray:
    costs = _finite(x)
    if costs.shape != runs.shape[1:]:
        raise ValueError(f"shape {costs.shape}: must be {runs.shape[1:]}, one cost a scenario")
    return costs


def _draws(n: int, rng: np.random.Generator, resamples: int) -> IntArray:
    """(resamples, n): how often each of n entries is in a resample of n."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)


def _crossed(
    runs: FloatArray, rng: np.random.Generator, resamples: int, strata: ArrayLike | None
) -> tuple[IntArray, IntArray]:
    """Counts of the seeds (resamples, S) and, stratum by stratum, of the scenarios (., E)."""
    size = runs.shape[1]
    labels: NDArray[Any] = np.zeros(size) if strata is None else np.asarray(strata)
    if labels.shape != (size,):
        raise ValueError(f"strata of shape {labels.shape}: must be ({size},), a label a scenario")
    scenarios = np.zeros((resamples, size), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        scenarios[:, members] = _draws(members.size, rng, resamples)
    return _draws(runs.shape[0], rng, resamples), scenarios


def _resampled_sum(runs: FloatArray, seeds: IntArray, scenarios: IntArray) -> FloatArray:
    """(resamples,) sum over the scenarios of the mean over the seeds."""
    return np.einsum("re,re->r", seeds @ runs, scenarios) / runs.shape[0]


def _task_resamples(runs: FloatArray, rng: np.random.Generator, resamples: int) -> FloatArray:
    """(resamples, R, K): runs drawn with replacement, for each task on its own."""
    chosen = rng.integers(runs.shape[0], size=(resamples, *runs.shape))
    return runs[chosen, np.arange(runs.shape[1])]


def _wins(x: FloatArray, y: FloatArray) -> FloatArray:
    """(B,) share of the pairs of runs in which x beats y, from (B, R, K) and (B, R', K)."""
    difference = np.sign(x[:, :, None, :] - y[:, None, :, :])
    return 0.5 + 0.5 * difference.mean(axis=(1, 2, 3))


def _interval(value: float, samples: FloatArray, level: float) -> Interval:
    if samples.size == 0:
        return Interval(value, math.nan, math.nan)
    tail = (1.0 - level) / 2.0
    lo, hi = np.quantile(samples, (tail, 1.0 - tail))
    return Interval(value, float(lo), float(hi))
