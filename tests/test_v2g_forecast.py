"""Nobody but the optimum sees the future, and what is published of it is true on average."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qevgrid.agents.base import Agent
from qevgrid.agents.heuristics import ChargeAndServe, Cheap, Idle, LeastLaxityFirst, TimeOfUse
from qevgrid.agents.optimum import Optimum
from qevgrid.agents.rolling import Rolling
from qevgrid.envs.types import BoolArray, FloatArray, IntArray
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.forecast import forecast
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.plant import build_plant
from qevgrid.envs.v2g.scenario import Scenario, draw_outages
from qevgrid.envs.v2g.sessions import Sessions
from worlds import begin, core_of, drawn, info_of, rngs

AGENTS: dict[str, Callable[[], Agent]] = {
    "idle": Idle,
    "cheap": Cheap,
    "llf": LeastLaxityFirst,
    "serve": ChargeAndServe,
    "tou": TimeOfUse,
    "rolling": Rolling,
    "rolling_reserve": lambda: Rolling("rolling_reserve", reserve_h=3.0),
}
FUTURE = (
    "buy_usd_kwh", "sell_usd_kwh", "pv_kw", "critical_kw", "other_kw", "feeder_scale", "fault", "outage",
    "risk", "window_open", "window_close", "price_dev", "pv_dev", "load_dev",
)  # fmt: skip
STAGES = (0, 6, 11, 19)
Z_MAX = 4.0


def with_other_future(s: Scenario, other: Scenario, t: int) -> Scenario:
    """``s`` up to stage ``t``, ``other`` after it; public profiles stay. Departures after ``t`` move."""
    changed = {}
    for name in FUTURE:
        changed[name] = np.array(getattr(s, name))
        changed[name][:, t + 1 :] = getattr(other, name)[:, t + 1 :]
    x, y, end = s.sessions, other.sessions, s.risk.shape[1]
    here = x.arrival <= t
    swap = (y.arrival > t) & (x.arrival.shape[-1] == 1)
    merged = {
        name: np.where(here, getattr(x, name), np.where(swap, getattr(y, name), getattr(x, name)))
        for name in Sessions._fields
    }
    for name in ("arrival", "departure"):
        merged[name] = np.where(here | swap, merged[name], end)
    leaves_later = here & (x.departure > t)
    merged["departure"] = np.where(leaves_later, np.minimum(t + 1 + x.departure % 5, end), merged["departure"])
    merged["stays"] = np.where(leaves_later, False, merged["stays"])
    return s._replace(sessions=Sessions(**merged), **changed)


def played_to(core: V2GCore, scenario: Scenario, t: int) -> Batch:
    """The batch at stage ``t``, after random actions that depend on nothing."""
    batch, rng = begin(core, scenario), np.random.default_rng(8)
    for _ in range(t):
        batch.step(rng.uniform(-1, 1, (batch.size, core.n_sockets)))
    return batch


@pytest.fixture(scope="module", params=["default", "sites", "sells_low", "two_days", "public"])
def twins(request: pytest.FixtureRequest) -> list[tuple[Batch, Batch]]:
    """Batches at several stages in worlds that agree up to that stage only."""
    core = core_of(request.param)
    s, other = drawn(core, 4), drawn(core, 4, seed=900)
    return [(played_to(core, s, t), played_to(core, with_other_future(s, other, t), t)) for t in STAGES]


def test_the_twins_differ_later(twins: list[tuple[Batch, Batch]]) -> None:
    for t, (one, two) in zip(STAGES, twins, strict=True):
        for name in ("buy_usd_kwh", "pv_kw", "critical_kw", "risk", "outage"):
            assert np.array_equal(getattr(one.scenario, name)[:, : t + 1], getattr(two.scenario, name)[:, : t + 1])
        assert not np.array_equal(one.scenario.critical_kw, two.scenario.critical_kw)
    for look in (lambda s: s.outage, lambda s: s.risk, lambda s: s.sessions.departure):
        assert any(not np.array_equal(look(a.scenario), look(b.scenario)) for a, b in twins)


def test_forecasts_views_and_observations_ignore_the_future(twins: list[tuple[Batch, Batch]]) -> None:
    for one, two in twins:
        assert one.observe().tobytes() == two.observe().tobytes()
        horizon = one.scenario.risk.shape[1]
        for a, b in zip(one.view().forecast(horizon), two.view().forecast(horizon), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.mask(), two.mask())
        for name in ("plugged", "energy_kwh", "target_kwh", "declared", "risk", "outage", "charge_kw"):
            np.testing.assert_array_equal(getattr(one.view(), name), getattr(two.view(), name))


@pytest.mark.parametrize("name", AGENTS)
def test_no_agent_acts_on_the_future(name: str, twins: list[tuple[Batch, Batch]]) -> None:
    for one, two in twins:
        acts = [AGENTS[name]().act(x.observe(), {"view": x.view()}) for x in (one, two)]
        np.testing.assert_array_equal(*acts)


def test_the_optimum_does_act_on_it() -> None:
    """The check above can fail: the one agent that is given the scenario notices."""
    core = core_of("sells_low")
    s, acts = drawn(core, 3), []
    for scenario in (s, with_other_future(s, drawn(core, 3, seed=900), 0)):
        batch, optimum = begin(core, scenario), Optimum()
        for _ in range(8):
            optimum.begin(info_of(batch)) if not optimum.plans else None
            acts.append(optimum.act(batch.observe(), info_of(batch)))
            batch.step(acts[-1])
    assert not np.array_equal(acts[:8], acts[8:])


# -- errors --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def days() -> tuple[V2GCore, Scenario]:
    core = V2GCore(V2GParams(n_sockets=1, dt_h=0.5))
    return core, drawn(core, 400)


FIELDS = ("buy_usd_kwh", "pv_kw", "critical_kw", "other_kw", "feeder_scale")


@pytest.mark.parametrize("t", [0, 17, 47])
def test_lead_zero_is_what_is_measured(t: int, days: tuple[V2GCore, Scenario]) -> None:
    core, s = days
    now = forecast(core.params, s, np.full(len(s.risk), t), 1)
    for name in (*FIELDS, "sell_usd_kwh"):
        np.testing.assert_allclose(getattr(now, name)[:, 0], getattr(s, name)[:, t], rtol=1e-12)
    np.testing.assert_array_equal(now.outage_probability[:, 0] == 1.0, s.outage[:, t])


@pytest.mark.parametrize("name", FIELDS)
def test_errors_grow_with_the_lead(name: str, days: tuple[V2GCore, Scenario]) -> None:
    """Mean absolute error at 0, 1, 2, 4 and 8 hours over 400 days, issued at 20:30 or at sunrise."""
    core, s = days
    t = 38 if name == "pv_kw" else 17
    ahead = getattr(forecast(core.params, s, np.full(len(s.risk), t), 17), name)
    leads = [0, 2, 4, 8] + ([] if name == "pv_kw" else [16])  # the sun itself grows until noon
    truth = getattr(s, name)[:, t : t + 17]
    scale = truth.mean(0)
    error = [np.mean(np.abs(ahead[:, k] - truth[:, k]) / scale[k]) for k in leads]
    assert error[0] < 1e-12
    assert np.all(np.diff(error) > 0)


def test_persistence_is_worth_something(days: tuple[V2GCore, Scenario]) -> None:
    """An hour ahead the forecast beats the bare profile."""
    core, s = days
    at = np.full(len(s.risk), 20)
    ahead = forecast(core.params, s, at, 3).buy_usd_kwh[:, 2]
    assert np.mean((ahead - s.buy_usd_kwh[:, 22]) ** 2) < 0.6 * np.mean(
        (s.price_profile[:, 22] - s.buy_usd_kwh[:, 22]) ** 2
    )


def test_later_episodes_are_as_unforeseen_as_the_first() -> None:
    """Rows that start anew get new worlds, and no forecast that has seen them."""
    core = core_of("default")
    batch, rows = core.batch(3), np.arange(3)
    loads = []
    for episode in range(3):
        batch.start(rows, rngs(3, seed=10 * episode))
        ahead = batch.view().forecast(core.n_stages)
        for name in FIELDS[:4]:
            told, truth = getattr(ahead, name)[:, 4:], getattr(batch.scenario, name)[:, 4:]
            assert np.mean(told[truth > 0] == truth[truth > 0]) < 0.05
        loads.append(batch.scenario.critical_kw.copy())
        for _ in range(core.n_stages):
            batch.step(np.ones((3, core.n_sockets)))
    assert not np.array_equal(loads[0], loads[1])
    assert not np.array_equal(loads[1], loads[2])


# -- outages -------------------------------------------------------------------------------------

N_DAYS = 20_000


def outage_days(share: float = 0.3, n: int = N_DAYS, **changes: Any) -> tuple[V2GParams, Scenario]:
    """Many days of which only the outages are filled in."""
    p = V2GParams(**({"n_sockets": 3, "dt_h": 0.5, "outage": {"share": share}} | changes))
    plant, rng = build_plant(p), np.random.default_rng(77)
    found = draw_outages(plant, rng.random((n, p.days, 8)), rng.standard_normal((n, p.days)))
    zero = np.zeros((n, p.n_stages))
    blank = Scenario(*([zero] * len(Scenario._fields)))
    names = ("fault", "outage", "risk", "window_open", "window_close")
    return p, blank._replace(**dict(zip(names, found, strict=True)))


def z_score(hits: BoolArray, probability: FloatArray) -> float:
    """Standard score of the number of hits under the published probabilities."""
    spread = np.sqrt(np.sum(probability * (1 - probability)))
    return float((hits.sum() - probability.sum()) / max(spread, 1e-9))


def calibration(hits: BoolArray, probability: FloatArray, edges: FloatArray) -> list[float]:
    """Scores by bins of the published probability that hold 100 days or more."""
    which = np.digitize(probability, edges)
    counts = np.bincount(which, minlength=len(edges) + 1)
    return [z_score(hits[which == k], probability[which == k]) for k in np.flatnonzero(counts >= 100)]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.8, 1.0])
def test_share_of_outage_days(share: float) -> None:
    _, s = outage_days(share)
    assert abs(z_score(s.outage.any((1, 2)), np.full(N_DAYS, share))) < Z_MAX


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_published_risk_is_calibrated(share: float) -> None:
    """Of the days with risk q at a random stage a share q has its outage still to come."""
    p, s = outage_days(share)
    at = np.random.default_rng(3).integers(0, p.n_stages // 2, N_DAYS)
    dark = s.outage.any(2)
    rows = np.arange(N_DAYS)
    past = np.cumsum(dark, axis=1)[rows, at] > 0
    to_come = dark.any(1) & ~past
    risk = s.risk[rows, at]
    assert not risk[past].any()
    scores = calibration(to_come[risk > 0], risk[risk > 0], np.linspace(0, 1, 11))
    assert len(scores) >= 3
    assert np.max(np.abs(scores)) < Z_MAX


def probability_at(
    p: V2GParams, s: Scenario, at: IntArray, lead_h: float, site: int = 0
) -> tuple[FloatArray, BoolArray]:
    """Published probability that a site is dark ``lead_h`` hours later, and whether it is."""
    k = round(lead_h / p.dt_h)
    q = forecast(p, s, at, k + 1).outage_probability[:, k, site]
    return q, s.outage[np.arange(len(at)), at + k, site]


def announced(p: V2GParams, s: Scenario, at: IntArray) -> BoolArray:
    """Days whose watch is out at stage ``at`` and whose outage has not begun.

    Its window closes before the latest hour that outages may start at.
    """
    rows = np.arange(len(at))
    latest = p.outage.window_h[1] / p.dt_h
    return (s.window_close[rows, at] < latest - 1e-6) & (s.risk[rows, at] > 0)


@pytest.mark.parametrize("lead_h", [2.0, 4.0, 8.0])
def test_outage_probability_once_a_watch_is_announced(lead_h: float) -> None:
    p, s = outage_days(0.5)
    at = np.random.default_rng(4).integers(0, 30, N_DAYS)
    out = announced(p, s, at)
    q, dark = probability_at(p, s, at, lead_h)
    scores = calibration(dark[out], q[out], np.linspace(0, 1, 11))
    assert len(scores) >= 3
    assert np.max(np.abs(scores)) < Z_MAX


@pytest.mark.parametrize("lead_h", [2.0, 4.0, 8.0])
def test_outage_probability_of_one_site_among_several(lead_h: float) -> None:
    """Half of the outages hit one line only; a site is told its own probability."""
    p, s = outage_days(0.5, site={"bus": (17, 21, 24)})
    at = np.random.default_rng(4).integers(0, 30, N_DAYS)
    out = announced(p, s, at)
    for site in range(3):
        q, dark = probability_at(p, s, at, lead_h, site)
        assert abs(z_score(dark[out], q[out])) < Z_MAX


@pytest.mark.parametrize("dt_h", [0.25, 1.0])
@pytest.mark.parametrize("lead_h", [2.0, 4.0, 8.0])
def test_outage_probability_during_the_outage(lead_h: float, dt_h: float) -> None:
    p, s = outage_days(1.0, dt_h=dt_h)
    at = np.random.default_rng(5).integers(round(3 / dt_h), round(15 / dt_h), N_DAYS)
    now = s.outage[np.arange(N_DAYS), at, 0]
    q, dark = probability_at(p, s, at, lead_h)
    scores = calibration(dark[now], q[now], np.linspace(0, 1, 11))
    assert len(scores) >= 2
    assert np.max(np.abs(scores)) < Z_MAX


def test_no_outage_is_expected_sooner_than_the_shortest_warning() -> None:
    """While nothing is announced the next ``lead_h[0]`` hours are safe, and the forecast says so."""
    p, s = outage_days(0.5)
    at = np.full(N_DAYS, 6)
    quiet = ~announced(p, s, at) & (s.risk[:, 6] > 0)
    q, dark = probability_at(p, s, at, p.outage.lead_h[0] - p.dt_h)
    assert quiet.sum() > 100
    assert not dark[quiet].any()
    assert q[quiet].max() < 1e-9
