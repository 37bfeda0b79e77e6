"""The compiled solvers: annealing, best responses, shadow prices, plans by dynamic programming, local search."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decisions
import numpy as np
import pytest

from qevgrid.agents.hybrid import ascent, lattice, lowrank
from qevgrid.agents.hybrid.anneal import anneal
from qevgrid.agents.hybrid.dual import dual_ascent
from qevgrid.agents.hybrid.lattice import StorageUnits, cheapest, reachable
from qevgrid.agents.hybrid.plans import candidate_plans, is_possible, lookahead, price_plans
from qevgrid.agents.hybrid.polish import best_response, greedy, references
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.agents.hybrid.refine import plans_usd, refine
from qevgrid.agents.hybrid.sampler_linear import relaxed_dual
from qevgrid.envs.errors import UserError

SEEDS = range(6)
SMALL: dict[str, Callable[[np.random.Generator], AggregateQUBO]] = {
    "charging": lambda rng: decisions.charging(rng, 3),
    "island": lambda rng: decisions.island(rng, 3, 2),
    "plans": lambda rng: decisions.plans(rng, 4, 3, 4),
    "routes": lambda rng: decisions.routes(rng, 3, 2, 2, 5),
    "ragged": lambda rng: ragged(rng, 5, 3, 3),
    "nothing shared": lambda rng: ragged(rng, 4, 0, 0),
    "no kinks": lambda rng: ragged(rng, 4, 2, 0),
}
LARGE: dict[str, Callable[[np.random.Generator], AggregateQUBO]] = {
    "charging": lambda rng: decisions.charging(rng, 30),
    "island": lambda rng: decisions.island(rng, 40),
    "plans": lambda rng: decisions.plans(rng, 30, 8),
    "routes": lambda rng: decisions.routes(rng, 30),
}


def ragged(rng: np.random.Generator, units: int, resources: int, kinks: int) -> AggregateQUBO:
    """Units with one to three options; functions whose price is rarely 0."""
    first = np.concatenate([[0], np.cumsum(rng.integers(1, 4, units))])
    n = int(first[-1])
    at, rise = np.sort(rng.normal(0, 3, (resources, kinks)), 1), rng.uniform(0, 2, (resources, kinks))
    pieces = Pieces(rng.normal(0, 0.3, resources), at, rise)
    use = rng.normal(0, 2, (n, resources))
    return AggregateQUBO.one_hot(first, rng.normal(0, 1, n), use, pieces, float(rng.normal()))


def least_usd(problem: AggregateQUBO) -> float:
    """By enumeration."""
    return float(problem.energy_usd(decisions.every_choice(problem)).min())


@pytest.mark.parametrize("kind", SMALL)
def test_annealing_finds_the_optimum_of_small_problems(kind: str) -> None:
    for seed in SEEDS:
        problem = SMALL[kind](np.random.default_rng(seed))
        _, energies = anneal(problem, reads=4, sweeps=100, seed=seed)
        assert energies.min() == pytest.approx(least_usd(problem), abs=1e-9)


@pytest.mark.parametrize("kind", SMALL)
def test_annealing_returns_exact_energies_and_repeats_itself(kind: str) -> None:
    problem = SMALL[kind](np.random.default_rng(0))
    choices, energies = anneal(problem, reads=5, sweeps=3, seed=7)
    assert energies == pytest.approx(problem.energy_usd(choices), abs=1e-9)
    again = anneal(problem, reads=5, sweeps=3, seed=7)
    assert choices.tobytes() == again[0].tobytes() and energies.tobytes() == again[1].tobytes()


def test_reads_and_seeds_differ() -> None:
    problem = decisions.charging(np.random.default_rng(0), 40)
    choices, _ = anneal(problem, reads=3, sweeps=2, seed=1)
    others, _ = anneal(problem, reads=3, sweeps=2, seed=2)
    assert len(np.unique(np.concatenate([choices, others]), axis=0)) == 6


def test_annealing_starts_where_it_is_told_and_keeps_the_best() -> None:
    problem = decisions.plans(np.random.default_rng(3), 20)
    start = dual_ascent(problem).choice
    choices, energies = anneal(problem, reads=2, sweeps=0, seed=1, start=start)
    assert (choices == start).all()
    _, warm = anneal(problem, reads=2, sweeps=40, seed=1, start=start, hot_usd=100.0, cold_usd=90.0)
    assert (warm <= energies).all()  # however hot
    best, value = anneal(problem, reads=1, sweeps=300, seed=1, start=start)
    assert value[0] < energies[0] and problem.energy_usd(best[0]) == pytest.approx(value[0])


def test_annealing_needs_no_units_and_no_choices() -> None:
    none = AggregateQUBO.one_hot(np.zeros(1, np.int64), np.zeros(0), np.zeros((0, 1)), Pieces.of([(1.0, [])]), 2.0)
    single = AggregateQUBO.one_hot(np.arange(4), np.arange(3.0), np.ones((3, 1)), Pieces.of([(1.0, [(1, 1)])]), 2.0)
    for problem, value in ((none, 2.0), (single, 2.0 + 3.0 + 3.0 + 2.0)):
        assert anneal(problem, reads=1, sweeps=5, seed=0)[1] == [value]
        found = dual_ascent(problem)
        assert found.bound_usd == pytest.approx(value) and found.energy_usd == pytest.approx(value)
        assert problem.energy_usd(greedy(problem)) == value


@pytest.mark.parametrize("kind", SMALL)
def test_best_responses_end_where_nobody_gains_alone(kind: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        problem = SMALL[kind](rng)
        start = rng.integers(0, np.diff(problem.first))
        found = best_response(problem, start, passes=100)
        assert problem.energy_usd(found) <= problem.energy_usd(start) + 1e-9
        assert problem.energy_usd(found) <= alone(problem, found).min() + 1e-9
        assert best_response(problem, start, passes=0) == pytest.approx(start)


@pytest.mark.parametrize("kind", SMALL)
def test_greedy_takes_the_steepest_step_until_there_is_none(kind: str) -> None:
    for seed in SEEDS:
        problem = SMALL[kind](np.random.default_rng(seed))
        choice = references(problem)
        while (options := alone(problem, choice)).min() < problem.energy_usd(choice) - 1e-9:
            best = int(options.argmin())
            choice[problem.unit[best]] = best - problem.first[problem.unit[best]]
        assert problem.energy_usd(greedy(problem)) == pytest.approx(problem.energy_usd(choice))


def alone(problem: AggregateQUBO, choice: np.ndarray) -> np.ndarray:
    """Energies (n,) if one unit alone took each option."""
    changed = np.repeat(choice[None], problem.n_options, 0)
    changed[np.arange(problem.n_options), problem.unit] = np.arange(problem.n_options) - problem.first[problem.unit]
    return problem.energy_usd(changed)


@pytest.mark.parametrize("kind", SMALL)
def test_no_choice_costs_less_than_the_bound(kind: str) -> None:
    for seed in SEEDS:
        problem = SMALL[kind](np.random.default_rng(seed))
        found = dual_ascent(problem)
        assert found.bound_usd <= least_usd(problem) + 1e-9
        assert found.bound_usd == pytest.approx(lagrangian_usd(problem, found.price_usd), abs=1e-9)
        assert found.price_usd == pytest.approx(problem.pieces.clip(found.price_usd), abs=1e-9)
        assert found.energy_usd == pytest.approx(problem.energy_usd(found.choice))


def lagrangian_usd(problem: AggregateQUBO, price: np.ndarray) -> float:
    """L(price), written down a second time."""
    reduced = problem.cost_usd + problem.use @ price
    least = sum(reduced[a:b].min() for a, b in itertools.pairwise(problem.first))
    return problem.constant_usd + least - float(problem.pieces.conjugate(price)[0].sum())


@pytest.mark.parametrize("kind", LARGE)
def test_bound_is_that_of_the_relaxation(kind: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(100 + seed)
        problem = LARGE[kind](rng)
        exact, found = relaxed_dual(problem), dual_ascent(problem)
        allowed = (0.01 if kind == "island" else 0.001) * abs(exact.bound_usd)
        assert exact.bound_usd - allowed <= found.bound_usd <= exact.bound_usd + 1e-6
        near = found.price_usd * rng.uniform(0.95, 1.05, len(found.price_usd))
        assert dual_ascent(problem, steps=15, price=near).bound_usd >= exact.bound_usd - 2 * allowed


@pytest.mark.parametrize("kind", ["charging", "plans", "routes"])
def test_usage_is_where_the_functions_have_the_prices_slopes(kind: str) -> None:
    gaps = []
    for seed in SEEDS:
        problem = LARGE[kind](np.random.default_rng(seed))
        found, p = dual_ascent(problem), problem.pieces
        gap = problem.pieces(found.usage) + p.conjugate(found.price_usd)[0].sum() - found.price_usd @ found.usage
        gaps.append(gap / abs(found.bound_usd))
    assert min(gaps) > -1e-9 and np.median(gaps) < 1e-3  # Fenchel's inequality, tight


def test_rounded_shares_are_a_better_start_than_greed() -> None:
    lost = []
    for seed in SEEDS:
        problem = decisions.plans(np.random.default_rng(seed), 100, 8)
        found, greed = dual_ascent(problem), problem.energy_usd(greedy(problem))
        ruler = problem.energy_usd(references(problem)) - found.bound_usd
        lost.append([(cost - found.bound_usd) / ruler for cost in (found.energy_usd, greed)])
    rounded, stuck = np.mean(lost, 0)
    assert rounded < stuck / 2


def test_conjugate_gradient_and_summit_agree_with_a_grid() -> None:
    rng = np.random.default_rng(5)
    usage = np.linspace(-60, 60, 240_001)
    for _ in range(20):
        at, rise = np.sort(rng.normal(0, 5, (1, 3)), 1), rng.uniform(0.1, 1, (1, 3))
        if rng.random() < 0.3:
            at[0, 2], rise[0, 2] = np.inf, 0.0  # a kink that is none
        p = Pieces(rng.normal(0, 1, 1), at, rise)
        price = rng.uniform(p.slope, p.steepest())
        shape = p.slope, at, rise
        value = ascent.conjugate(*shape, 0, price[0])
        assert value == pytest.approx(p.conjugate(price)[0][0], abs=1e-9)
        assert value == pytest.approx((price * usage - p(usage[:, None])).max(), abs=1e-3)
        found = np.empty(1)
        ascent.gradient(*shape, price, np.array([7.0]), found)
        assert found[0] == pytest.approx(7.0 - p.conjugate(price)[1][0])
        prices = np.linspace(p.slope[0], p.steepest()[0], 4001)
        model = 3.0 * prices - prices**2 - np.array([p.conjugate(np.array([x]))[0][0] for x in prices])
        assert ascent.summit(*shape, 0, 3.0, 2.0) == pytest.approx(prices[model.argmax()], abs=2e-3)


def test_model_of_two_alike_resources_is_maximised() -> None:
    p = Pieces.of([(-3.0, [(0.0, 8.0)]), (-3.0, [(1.0, 8.0)])])
    curvature = np.array([[1.0, 0.999], [0.999, 1.0]])
    price, new, usage = np.zeros(2), np.empty(2), np.array([0.5, 1.2])
    ascent.maximise_model(p.slope, p.at, p.rise, usage, curvature, np.full(2, 100.0), price, new, np.empty((4, 2)))
    side = np.linspace(-3, 5, 801)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
    model = grid @ (usage - p.at[:, 0]) - 0.5 * np.einsum("...r,rs,...s", grid, curvature, grid)
    value = new @ (usage - p.at[:, 0]) - 0.5 * new @ curvature @ new
    assert value >= model.max() - 1e-6


def fleet(rng: np.random.Generator, units: int, stages: int, levels: int = 3) -> tuple[StorageUnits, Pieces]:
    """Two sites and a feeder; some levels forbidden, some vehicles leave, one starts below its floor."""
    half = levels // 2
    power = rng.uniform(5, 20, (units, 1)) * np.arange(-half, half + 1) / half
    allowed = rng.random((units, stages, levels)) < 0.8
    allowed[rng.random(units) < 0.3, stages // 2 :] = False
    allowed[:, :, half] = True
    site = np.eye(2)[rng.integers(0, 2, units)]
    start, least = rng.uniform(2, 25, units), np.full(units, 5.0)
    start[0] = 3.0
    functions = [(rng.normal(0, 0.2), [(rng.normal(0, 10), 0.5), (rng.normal(10, 10), 2.0)]) for _ in range(stages * 3)]
    built = StorageUnits(
        power,
        allowed,
        0.1 * np.abs(power)[:, None, :] * rng.uniform(0, 1, (units, stages, 1)),
        np.concatenate([site, np.ones((units, 1))], 1),
        start,
        least,
        np.full(units, 30.0),
        np.full(units, 0.9 * 0.25),
        np.full(units, 0.25 / 0.9),
        np.sort(rng.uniform(0, 30, (units, 4)), 1),
        rng.normal(0, 3, (units, 4)),  # any shape
        rng.uniform(10, 30, units),
        rng.choice([0.0, 1.5], units),
    )
    return built, Pieces.of(functions)


def simulated(units: StorageUnits, i: int, levels: tuple[int, ...]) -> float | None:
    """Own cost of unit i's plan, stage by stage; ``None`` where it is not possible."""
    energy, cost = float(units.start_kwh[i]), 0.0
    for t, k in enumerate(levels):
        kw = float(units.power_kw[i, k])
        if not units.allowed[i, t, k]:
            return None
        energy += kw * float(units.charge_h[i] if kw > 0 else units.discharge_h[i])
        if (kw > 0 and energy > units.most_kwh[i] + 1e-9) or (kw < 0 and energy < units.least_kwh[i] - 1e-9):
            return None
        cost += float(units.cost_usd[i, t, k])
    x, y = units.grid_kwh[i], units.worth_usd[i]
    j = int(np.clip(np.searchsorted(x, energy, side="right") - 1, 0, len(x) - 2))
    worth = y[j] + (y[j + 1] - y[j]) * (energy - x[j]) / (x[j + 1] - x[j])
    return cost - worth + float(units.shortfall_usd_kwh[i]) * max(float(units.target_kwh[i]) - energy, 0.0)


def every_plan(units: StorageUnits, i: int) -> dict[tuple[int, ...], float]:
    """All possible plans of unit i and what they cost."""
    found = {
        p: simulated(units, i, p) for p in itertools.product(range(units.power_kw.shape[1]), repeat=units.n_stages)
    }
    return {p: cost for p, cost in found.items() if cost is not None}


@pytest.mark.parametrize("levels", [3, 5])
def test_dynamic_programming_finds_the_cheapest_plan(levels: int) -> None:
    rng = np.random.default_rng(11)
    units, _ = fleet(rng, 6, 4, levels)
    states = reachable(units)
    for i in range(units.n_units):
        weight, plan = rng.normal(0, 0.2, 4), np.empty(4, np.int64)
        room = np.empty(states.widest), np.empty((4, levels)), plan
        priced, own = cheapest(states, units.cost_usd, units.power_kw, weight, i, *room)
        plans = every_plan(units, i)
        cost = {p: c + float(weight @ units.power_kw[i, list(p)]) for p, c in plans.items()}
        assert priced == pytest.approx(min(cost.values()))
        assert own == pytest.approx(plans[tuple(plan)]) and cost[tuple(plan)] == pytest.approx(priced)


def test_lattice_knows_what_is_possible() -> None:
    units, _ = fleet(np.random.default_rng(12), 4, 3)
    states = reachable(units)
    for levels in itertools.product(range(3), repeat=3):
        plans = np.tile(levels, (4, 1))
        assert is_possible(units, states, plans).tolist() == [simulated(units, i, levels) is not None for i in range(4)]


def test_too_many_energies_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    units, _ = fleet(np.random.default_rng(12), 4, 8, 5)
    monkeypatch.setattr(lattice, "MOST_STATES", 100)
    with pytest.raises(UserError, match="fewer stages"):
        reachable(units)


def test_plan_bound_holds_over_all_plans() -> None:
    for seed in SEEDS:
        units, pieces = fleet(np.random.default_rng(seed), 3, 3)
        plans = [every_plan(units, i) for i in range(3)]
        best = min(
            sum(costs) + float(pieces(units.plan_use(np.array(levels)).sum(0)))
            for combination in itertools.product(*(p.items() for p in plans))
            for levels, costs in [zip(*combination, strict=True)]
        )
        found = price_plans(units, reachable(units), pieces, constant_usd=2.0)
        assert found.bound_usd <= best + 2.0 + 1e-9
        assert found.bound_usd == pytest.approx(2.0 + plan_lagrangian_usd(units, pieces, plans, found.price_usd))


def plan_lagrangian_usd(units: StorageUnits, pieces: Pieces, plans: list[dict[Any, float]], price: np.ndarray) -> float:
    """L over all plans, by enumeration."""
    total = -float(pieces.conjugate(price)[0].sum())
    for i, costs in enumerate(plans):
        weight = price.reshape(units.n_stages, -1) @ units.coupling[i]
        total += min(c + float(weight @ units.power_kw[i, list(p)]) for p, c in costs.items())
    return total


def test_lookahead_problem_has_the_simulations_energies() -> None:
    rng = np.random.default_rng(21)
    units, pieces = fleet(rng, 8, 5)
    found = lookahead(units, pieces, count=5, constant_usd=1.5)
    sizes = np.diff(found.problem.first)
    assert sizes.max() == 5 and sizes.min() >= 1
    assert (found.levels(references(found.problem)) == units.off).all()
    for _ in range(20):
        choice = rng.integers(0, sizes)
        levels, power = found.levels(choice), np.zeros((5, 3))
        cost = 1.5
        for i in range(8):
            own = simulated(units, i, tuple(levels[i]))
            assert own is not None
            cost += own
            power += units.power_kw[i, levels[i]][:, None] * units.coupling[i]
        cost += float(pieces(power.reshape(-1)))
        assert found.problem.energy_usd(choice) == pytest.approx(cost)
        assert plans_usd(units, pieces, levels) + 1.5 == pytest.approx(cost)


def test_previous_plan_stays_an_option_where_it_is_possible() -> None:
    units, pieces = fleet(np.random.default_rng(22), 8, 5)
    levels = np.full((8, 5), 1)
    levels[:, 2] = 2  # charge once: some may not
    possible = is_possible(units, reachable(units), levels)
    assert 0 < possible.sum() < 8
    found = lookahead(units, pieces, count=2, previous=levels)
    for i in range(8):
        options = found.level[found.problem.first[i] : found.problem.first[i + 1]]
        assert (options == levels[i]).all(1).any() == possible[i]
        assert len(np.unique(options, axis=0)) == len(options) <= 2
    assert candidate_plans(found.plans, 1).sum(1).tolist() == [1] * 8


def test_lookahead_is_nearly_as_good_as_its_bound() -> None:
    units, pieces = fleet(np.random.default_rng(23), 60, 4)
    found = lookahead(units, pieces, count=6)
    off_usd = plans_usd(units, pieces, np.full((60, 4), units.off))
    ruler = off_usd - found.plans.bound_usd
    assert found.plans.bound_usd <= found.dual.energy_usd <= found.plans.bound_usd + 0.03 * ruler
    best = refine(units, found.lattice, pieces, found.levels(found.dual.choice), sweeps=50, seed=1)
    assert plans_usd(units, pieces, best) < found.dual.energy_usd


@pytest.mark.parametrize("levels", [3, 5])
def test_local_search_stays_possible_and_never_loses(levels: int) -> None:
    for seed in SEEDS:
        units, pieces = fleet(np.random.default_rng(seed), 5, 4, levels)
        states, start = reachable(units), np.full((5, 4), units.off)
        found = refine(units, states, pieces, start, sweeps=200, seed=seed, hot_usd=3.0, cold_usd=0.01)
        assert is_possible(units, states, found).all()
        assert plans_usd(units, pieces, found) <= plans_usd(units, pieces, start)
        again = refine(units, states, pieces, start, sweeps=200, seed=seed, hot_usd=3.0, cold_usd=0.01)
        assert found.tobytes() == again.tobytes()


def test_local_search_finds_the_optimum_of_small_fleets() -> None:
    for seed in SEEDS:
        units, pieces = fleet(np.random.default_rng(seed), 2, 3)
        plans = [np.array(list(every_plan(units, i))) for i in range(2)]
        best = min(plans_usd(units, pieces, np.stack(pair)) for pair in itertools.product(*plans))
        runs = [
            refine(units, reachable(units), pieces, np.full((2, 3), units.off), sweeps=300, seed=s, hot_usd=3.0)
            for s in range(4)
        ]
        assert min(plans_usd(units, pieces, run) for run in runs) == pytest.approx(best)


@pytest.mark.parametrize("kind", ["charging", "plans", "island"])
def test_low_rank_form_is_the_written_out_model(kind: str) -> None:
    from qevgrid.agents.hybrid.encoding import centre, to_bqm

    rng = np.random.default_rng(2)
    problem = SMALL[kind](rng)
    quadratic = centre(problem, dual_ascent(problem), 0.1)
    form, bqm = lowrank.form(problem, quadratic), to_bqm(problem, quadratic)
    n = len(problem.bit)
    bits = rng.random((50, n)) < 0.4
    assert form.energy_usd(bits) == pytest.approx(bqm.energies((bits.astype(np.int8), np.arange(n))))
    found, energies = lowrank.sample(form, reads=8, sweeps=200, seed=3)
    everything = np.indices((2,) * n, np.int8).reshape(n, -1).T.astype(bool)
    assert energies.min() == pytest.approx(form.energy_usd(everything).min())
    assert energies == pytest.approx(form.energy_usd(found))
    again, _ = lowrank.sample(form, reads=8, sweeps=200, seed=3)
    assert found.tobytes() == again.tobytes()


def test_the_studys_program_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import qubo_solvers

    for number, kind in enumerate(qubo_solvers.KINDS):
        case = qubo_solvers.draw(number, 2, 3, 3, kind)
        plans = [np.array(list(every_plan(case.units, i))) for i in range(2)]
        best = min(case.cost_usd(np.stack(pair)) for pair in itertools.product(*plans))
        assert qubo_solvers.solve_exactly(case, 10.0, 0.0)["raw_usd"] == pytest.approx(best)
        found = [qubo_solvers.measure(name, case, qubo_solvers.Effort(50, 50), 1) for name in qubo_solvers.METHODS]
        assert min(min(row["raw_usd"], row["polished_usd"]) for row in found) >= best - 1e-9
    sys.modules.pop("qubo_solvers"), sys.modules.pop("common")
