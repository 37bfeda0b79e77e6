"""Small V2G worlds for the tests: parameter sets, days written by hand, and rollouts."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g import constraints
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.scenario import Sampler, Scenario
from qevgrid.envs.v2g.sessions import Sessions

TWO = {"bus": (17, 24), "critical_kw": (25.0, 15.0), "other_kw": 20.0, "pv_kw": (40.0, 10.0)}
TIGHT = {"critical_kw": 12.0, "other_kw": 12.0, "pv_kw": 50.0, "connection_kw": 25.0}
SMALL = {"n_sockets": 5, "dt_h": 1.0, "outage": {"share": 0.8}}
WORLDS: dict[str, dict[str, Any]] = {
    "default": SMALL,
    "sites": SMALL
    | {
        "n_sockets": 6,
        "site": TWO | {"generator_kw": (0.0, 10.0), "connection_kw": (60.0, 30.0)},
        "outage": {"share": 1.0, "feeder_wide_share": 0.3},
    },
    "direct_current": SMALL
    | {"n_sockets": 4, "charger": {"power_kw": (50.0, 150.0, 22.0)}, "site": {"connection_kw": 250}},
    "taper": SMALL
    | {"charger": {"taper_soc": 0.7, "power_kw": (22.0, 11.0)}, "session": {"target_soc": (0.9, 0)}},
    "amperes": SMALL | {"charger": {"integer_amperes": True, "power_kw": (7.4, 22.0)}, "n_sockets": 4},
    "tight": SMALL | {"n_sockets": 6, "site": TIGHT, "outage": {"share": 0.3}},
    "no_feeder": SMALL | {"site": TWO, "grid": {"feeder": "none"}, "outage": {"share": 1.0}},
    "sells_low": SMALL | {"prices": "day_ahead", "sell_ratio": 0.5, "charger": {"v2g_share": 0.6}},
    "two_days": SMALL | {"days": 2, "n_sockets": 3, "session": {"early_share": 0.5}},
    "public": SMALL | {"sessions": "public", "dt_h": 0.5, "start_h": 6.0, "n_sockets": 3},
    "weak_feeder": SMALL
    | {
        "n_sockets": 6,
        "site": TWO | {"connection_kw": 400.0, "tan_phi": 0.5},
        "grid": {"load_scale": 1.3, "v_min_pu": 0.93},
        "charger": {"power_kw": (22.0,), "tan_phi": 0.3},
    },
    "easy_chargers": SMALL
    | {"charger": {"min_current_a": 0.0, "eta_charge": 0.8, "eta_discharge": 0.7}, "site": {"pv_kw": 0.0}},
}  # fmt: skip
"""Every feature at least once, small enough to be solved in a moment."""


class Car(NamedTuple):
    """A session written by hand; stages of arrival and departure, energies in kWh."""

    socket: int = 0
    arrival: int = 0
    departure: int = 4
    energy: float = 30.0
    target: float = 0.0
    capacity: float = 60.0
    floor: float = 6.0
    limit: float = 1e3
    stays: bool = False
    declared: int | None = None


class Played(NamedTuple):
    """One stage of a rollout; arrays are copies."""

    before: constraints.Snapshot
    out: Any
    after: constraints.Snapshot


def core_of(name: str, **changes: Any) -> V2GCore:
    """The core of ``WORLDS[name]`` with some keys changed."""
    return V2GCore(V2GParams(**(WORLDS[name] | changes)))


def rngs(size: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(seed + b) for b in range(size)]


def drawn(core: V2GCore, size: int, seed: int = 0) -> Scenario:
    """``size`` episodes drawn from the seeds that follow ``seed``."""
    sampler: Sampler = core.sampler
    return sampler.sample(rngs(size, seed))


def begin(core: V2GCore, scenario: Scenario) -> Batch:
    """A batch that plays ``scenario`` from its first stage."""
    size = len(scenario.risk)
    batch = core.batch(size)
    batch.load(np.arange(size), scenario)
    return batch


def copied(outcome: Any) -> Any:
    return type(outcome)(*(np.array(x) for x in outcome))


def play(batch: Batch, decide: Callable[[Batch], FloatArray]) -> Iterator[Played]:
    """Stages until the horizon, ``decide`` giving the action (B, N)."""
    before = constraints.snapshot(batch.state)
    while not batch.over.all():
        batch.step(np.asarray(decide(batch), float))
        after = constraints.snapshot(batch.state)
        yield Played(before, copied(batch.outcome), after)
        before = after


def info_of(batch: Batch) -> dict[str, Any]:
    """What the runner would hand to an agent that may see everything."""
    return {"view": batch.view(), "scenario": batch.scenario}


def total_usd(core: V2GCore, scenario: Scenario, agent: Agent) -> FloatArray:
    """Weighted cost of each episode under ``agent``, (B,)."""
    batch = begin(core, scenario)
    agent.begin(info_of(batch))
    return np.sum([s.out.total_usd for s in play(batch, lambda b: agent.act(b.observe(), info_of(b)))], axis=0)


def cost_usd(core: V2GCore, scenario: Scenario, actions: Any, stages: int = 4) -> dict[str, Any]:
    """Cost by term and stage of one episode when ``actions`` (stages, N) are played, then rest."""
    batch, rows = begin(core, scenario), []
    for action in np.reshape(np.asarray(actions, float), (stages, core.n_sockets)):
        batch.step(action[None])
        rows.append(batch.outcome.cost_usd[0].copy())
    return dict(zip(COST_TERMS, np.transpose(rows), strict=True))


def by_hand(core: V2GCore, cars: tuple[Car, ...] = (), **series: Any) -> Scenario:
    """One calm day without loads, sun or price, but for what is given.

    ``series``: buy, sell, feeder_scale, risk, fault (scalar or a list of the first stages, then 0)
    and pv, critical, other, dark (the same, or one such list for each site).
    """
    t, d = core.n_stages, core.plant.n_sites
    fill = {name: _series(series.pop(name, 0.0), t) for name in ("buy", "feeder_scale", "risk")}
    fault = _series(series.pop("fault", 0), t).astype(np.int64)
    sell = _series(series.pop("sell"), t) if "sell" in series else fill["buy"]
    site = {k: _site_series(series.pop(k, 0.0), t, d) for k in ("pv", "critical", "other", "dark")}
    assert not series, f"unknown series {list(series)}"
    zero = np.zeros((1, t))
    return Scenario(
        fill["buy"], sell, site["pv"], site["critical"], site["other"], fill["feeder_scale"],
        fault, site["dark"] > 0, fill["risk"], zero, zero, fill["buy"],
        *(zero for _ in range(6)), _sessions(core, cars),
    )  # fmt: skip


def _series(value: Any, t: int) -> FloatArray:
    """(1, T): a constant, or the first stages and then 0."""
    if np.ndim(value) == 0:
        return np.full((1, t), float(value))
    return np.pad(np.asarray(value, float), (0, t - len(value)))[None]


def _site_series(value: Any, t: int, d: int) -> FloatArray:
    """(1, T, D): as ``_series``, or one such value for each site."""
    each = value if np.ndim(value) and isinstance(value[0], list | tuple) else [value] * d
    return np.stack([_series(x, t) for x in each], axis=-1)


def _sessions(core: V2GCore, cars: tuple[Car, ...]) -> Sessions:
    n, s, t = core.n_sockets, core.sampler.slots, core.n_stages
    whole = [np.full((1, n, s), t) for _ in range(3)]
    real = [np.zeros((1, n, s)) for _ in range(5)]
    sessions = Sessions(*whole, *real, np.zeros((1, n, s), bool))
    used = [0] * n
    for car in cars:
        declared = car.departure if car.declared is None else car.declared
        values = (car.arrival, car.departure, declared, car.energy, car.target, car.capacity)
        values += (car.floor, car.limit, car.stays)
        for array, value in zip(sessions, values, strict=True):
            array[0, car.socket, used[car.socket]] = value
        used[car.socket] += 1
    return sessions
