"""Random decisions of known kinds, small enough to enumerate or as large as wanted."""

from itertools import pairwise

import numpy as np

from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.envs.types import FloatArray, IntArray

DT_H = 0.25


def charging(rng: np.random.Generator, units: int, levels: int = 5, one_hot: bool = False) -> AggregateQUBO:
    """Vehicles at one connected site: a meter with a spread and a limit, and the worth of what is stored."""
    share = np.linspace(-1, 1, levels)
    share = share[np.argsort(np.abs(share), kind="stable")]
    limit_kw = rng.choice([7.2, 11.0, 22.0], units)
    power = limit_kw[:, None] * share
    stored = np.where(power > 0, 0.95 * power, power / 0.95) * DT_H
    buy, sell = rng.uniform(0.15, 0.4, 2).max(), 0.15
    worth = rng.normal(0.0, 0.1, (units, 1))
    own = 0.05 * np.abs(power) * DT_H - worth * stored
    most = limit_kw.sum()
    site_kw = rng.uniform(-0.2, 0.4) * most
    meter = (sell * DT_H, [(-site_kw, (buy - sell) * DT_H), (0.35 * most - site_kw, 1.5)])
    edges = np.sort(rng.uniform(-0.3, 0.5, 6)) * most * DT_H
    fleet = (-0.6, [(edge, 0.1) for edge in edges])
    use = np.stack([power.ravel(), stored.ravel()], 1)
    first = np.arange(0, units * levels + 1, levels)
    return build(first, own.ravel(), use, [meter, fleet], None if one_hot else unary(first))


def island(rng: np.random.Generator, units: int, blocks: int = 4) -> AggregateQUBO:
    """A dark site: vehicles discharge at 5 levels (one-hot) and a last unit picks blocks of two loads."""
    power = -rng.choice([7.2, 11.0], units)[:, None] * np.linspace(0, 1, 3)
    critical, other = np.divmod(np.arange((blocks + 1) ** 2), blocks + 1)
    peak_kw = 0.5 * units * 9.0
    load = peak_kw * np.stack([critical, other], 1) / blocks
    lost = DT_H * (20.0 * (peak_kw - load[:, 0]) + 5.0 * (peak_kw - load[:, 1]))
    stored = power / 0.95 * DT_H
    own = 0.05 * np.abs(power) * DT_H + rng.normal(0, 0.05, (units, 1)) * stored
    use = np.zeros((power.size + len(load), 2))
    use[: power.size, 0], use[power.size :, 0], use[: power.size, 1] = power.ravel(), load.sum(1), stored.ravel()
    pv_kw = rng.uniform(0, 0.5) * peak_kw
    balance = (0.0, [(pv_kw, 0.1), (pv_kw + 15.0, 6.4)])
    fleet = (-12.0, [(-edge * peak_kw * DT_H, 3.0) for edge in rng.uniform(0, 1, 3)])
    first = np.append(np.arange(0, 3 * units + 1, 3), 3 * units + len(load))
    return build(first, np.concatenate([own.ravel(), lost]), use, [balance, fleet])


def plans(rng: np.random.Generator, units: int, stages: int = 4, candidates: int = 6) -> AggregateQUBO:
    """Vehicles choose among power plans, none first; a meter a stage."""
    price = rng.uniform(0.1, 0.5, stages)
    level = rng.integers(-2, 3, (units, candidates, stages)) / 2
    level[:, 0] = 0
    power = rng.choice([7.2, 11.0], (units, 1, 1)) * level
    energy = power.sum(-1) * DT_H
    worth = rng.uniform(0.1, 0.5, (units, 1))
    own = 0.05 * np.abs(power).sum(-1) * DT_H - worth * energy
    functions = [(p * DT_H, [(rng.uniform(0.0, 0.3) * 9.0 * units, 0.75)]) for p in price]
    first = np.arange(0, units * candidates + 1, candidates)
    return build(first, own.ravel(), power.reshape(-1, stages), functions)


def routes(rng: np.random.Generator, units: int, sites: int = 4, stages: int = 4, candidates: int = 8) -> AggregateQUBO:
    """Mobile units choose among routes; energy to each site in each stage, with hard capacities."""
    where = rng.integers(-1, sites, (units, candidates, stages))
    where[:, 0] = -1
    energy = np.zeros((units, candidates, stages, sites + 1))
    u, c, t = np.indices(where.shape)
    energy[u, c, t, where] = 50.0
    served = energy[..., :sites].reshape(units * candidates, -1)
    value = rng.choice([2.0, 5.0, 20.0, 40.0], sites)
    need = rng.uniform(30, 120, (stages, sites))
    functions = [(-value[s], [(need[t, s], value[s])]) for t in range(stages) for s in range(sites)]
    own = rng.uniform(0, 30, units * candidates)
    first = np.arange(0, units * candidates + 1, candidates)
    own[first[:-1]] = 0.0
    return build(first, own, served, functions)


def rough(rng: np.random.Generator, units: int, options: int = 5, resources: int = 2) -> AggregateQUBO:
    """Costs, uses and trees without any sense."""
    first = np.arange(0, units * options + 1, options)
    own, use = rng.normal(0, 1, first[-1]), rng.normal(0, 1, (first[-1], resources)) * rng.integers(0, 4, resources)
    functions = [(rng.normal(), [(rng.normal(0, 2), rng.exponential()) for _ in range(3)]) for _ in range(resources)]
    parent = np.concatenate([a + np.array([0, *(rng.integers(0, k) for k in range(1, options))]) for a in first[:-1]])
    return build(first, own, use, functions, parent)


def unary(first: IntArray) -> IntArray:
    """Parents of levels in the order 0, -1, 1, -2, 2, ...: two chains from the reference."""
    parent = np.arange(first[-1])
    for a, b in pairwise(first):
        parent[a + 1 : b] = np.maximum(np.arange(a + 1, b) - 2, a)
    return parent


def build(
    first: IntArray,
    own: FloatArray,
    use: FloatArray,
    functions: list[tuple[float, list[tuple[float, float]]]],
    parent: IntArray | None = None,
) -> AggregateQUBO:
    """A problem with some constant."""
    problem = AggregateQUBO.one_hot(first, own, use, Pieces.of(functions), 3.5)
    return problem if parent is None else AggregateQUBO(first, own, use, problem.pieces, parent, 3.5)


def every_choice(problem: AggregateQUBO) -> IntArray:
    """All choices, (product of the options, M)."""
    sizes = np.diff(problem.first)
    return np.indices(sizes).reshape(len(sizes), -1).T
