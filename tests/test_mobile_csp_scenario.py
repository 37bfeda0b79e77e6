"""Storms, damage, roads and beliefs of Mobile CSP, against numbers by hand and slow but plain code."""

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid import lindistflow, sweep
from qevgrid.envs.mobile_csp import storm
from qevgrid.envs.mobile_csp.arrays import SUPPLIED, UNREACHABLE, World
from qevgrid.envs.mobile_csp.forecast import estimated_h, expected, scenarios
from qevgrid.envs.mobile_csp.params import MobileCSPParams, StormParams
from qevgrid.envs.mobile_csp.plant import build_plant
from qevgrid.envs.mobile_csp.roads import load_roads, travel_minutes
from qevgrid.envs.mobile_csp.scenario import Sampler, Scenario
from qevgrid.envs.mobile_csp.unfold import NEVER_H


def rngs(n: int, first: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(first + k) for k in range(n)]


def drawn(n: int, **changes: Any) -> tuple[Any, Scenario]:
    plant = build_plant(MobileCSPParams(**changes))
    return plant, Sampler(plant).sample(rngs(n))


def test_sioux_falls_is_the_published_network() -> None:
    roads = load_roads("sioux_falls")
    assert (len(roads.node), len(roads.tail), roads.minutes.sum()) == (24, 38, 157.0)
    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(roads.tail, roads.head, roads.minutes, strict=True))
    shortest = dict(nx.all_pairs_dijkstra_path_length(graph))
    found = travel_minutes(roads, np.arange(24))
    assert found.tolist() == [[shortest[a][b] for b in range(24)] for a in range(24)]


def test_gust_and_poles_by_hand() -> None:
    """The report's checks: dp 60 hPa, radius 35 km, B 1.3 at the radius of maximum wind gives 122 mph."""
    wind = storm.gradient_ms(np.array([35.0]), np.array([60.0]), np.array([35.0]), np.array([1.3]), 30.0)
    assert (wind[0] * 0.8 + 3.0) * 1.3 * storm.MPH_PER_MS == pytest.approx(122.0, abs=0.6)
    gust = np.array([100.0, 140.0])
    assert storm.pole_failure(StormParams(), gust) == pytest.approx([0.0067, 0.0363], abs=1e-4)
    old = StormParams(fragility="darestani", pole_age_years=70)
    assert storm.pole_failure(old, np.array([100.0, 135.0])) == pytest.approx([0.19, 0.5], abs=0.01)
    line = storm.line_failure(StormParams(), np.array([120.0]), np.array([36 * 0.045 + 1e-6]))
    assert line[0] == pytest.approx(1 - (1 - 1e-4 * np.exp(0.0421 * 120)) ** 36)


def test_crews_take_the_next_line_when_they_are_free() -> None:
    """Two crews from hour 2: jobs of 4, 1, 2 and 3 h and half an hour of travel each; line 1 is whole."""
    broken = np.array([[True, False, True, True, True]])
    job_h = np.array([[4.0, 9.0, 1.0, 2.0, 3.0]])
    done = storm.mend(broken, np.array([[0.0, 1.0, 2.0, 4.0, 3.0]]), job_h, 2, 2.0, 0.5)
    assert done.tolist() == [[6.5, 0.0, 3.5, 9.0, 7.0]]


def slow_world(plant: Any, s: Scenario, b: int, t: int) -> tuple[list[set[int]], np.ndarray]:
    """Islands as sets of sites, and travel periods, by networkx."""
    p, feeder, roads, now = plant.params, plant.feeder, plant.roads, t * plant.params.dt_h
    grid, streets = nx.Graph(), nx.Graph()
    grid.add_nodes_from(range(feeder.n_bus))
    streets.add_nodes_from(range(len(roads.node)))
    grid.add_edges_from((a, c) for a, c, h in zip(feeder.from_bus, feeder.to_bus, s.line_h[b], strict=True) if h <= now)
    streets.add_weighted_edges_from(
        e[:3] for e in zip(roads.tail, roads.head, roads.minutes, s.road_h[b], strict=True) if e[3] <= now
    )
    islands = []
    for part in nx.connected_components(grid):
        if 0 in part and s.substation_h[b] <= now:
            continue
        if sites := {d for d, bus in enumerate(plant.ground.bus) if bus in part}:
            islands.append(sites)
    times = dict(nx.all_pairs_dijkstra_path_length(streets))
    travel = np.full((plant.n_sites,) * 2, UNREACHABLE)
    for i, a in enumerate(plant.ground.node):
        for j, c in enumerate(plant.ground.node):
            if i == j:
                travel[i, j] = 0
            elif c in times[a]:
                travel[i, j] = int(np.ceil(times[a][c] * p.roads.slow / 60 / p.dt_h - 1e-9)) + p.roads.setup_periods
    return islands, travel


def test_islands_and_travel_times_are_those_of_networkx() -> None:
    plant, s = drawn(4, dt_h=0.1, n_periods=120)
    for b in range(4):
        for t in range(0, 120, 13):
            islands, travel = slow_world(plant, s, b, t)
            row = s.world.island[b, t]
            assert {frozenset(np.flatnonzero(row == k)) for k in set(row) - {SUPPLIED}} == set(map(frozenset, islands))
            assert np.array_equal(s.world.travel[b, t], travel)


def test_backup_and_generator_delay_the_need() -> None:
    """A dark site first uses its backup; the hospital's generator runs until it fails."""
    plant, s = drawn(60)
    p, w = plant.params, s.world
    seen = set()
    for b in range(60):
        for d, site in enumerate(p.sites):
            dark = w.island[b, :, d] != SUPPLIED
            hours = np.flatnonzero(dark) * p.dt_h
            if site.critical_kw == 0.0:
                assert not w.need_kw[b, :, d].any()
                continue
            off = dark & (np.arange(p.n_periods) * p.dt_h >= s.generator_h[b, d])
            used = np.cumsum(off) * p.dt_h
            expected_kw = np.where(off & (used > site.backup_h), s.load_kw[b, :, d], 0.0)
            assert np.array_equal(w.need_kw[b, :, d], expected_kw)
            assert np.array_equal(w.generator_kw[b, :, d], np.where(dark & ~off, s.load_kw[b, :, d], 0.0))
            assert site.generator or not w.generator_kw[b, :, d].any()
            seen |= {site.name} if len(hours) and expected_kw.any() else set()
    assert seen == {site.name for site in p.sites[2:]}


def test_charging_room_keeps_the_feeder_within_limits() -> None:
    """At the room of one site, the AC sweep of the whole feeder at that load is at the limit, but for losses."""
    quiet = {"storm": {"vegetation": 0.0}, "repair": {"substation_share": 0.0}}
    plant, s = drawn(1, **quiet, grid={"load_scale": 1.05})
    p, feeder = plant.params, plant.feeder
    t = int(plant.load_shape.argmax())
    load_kw, load_kvar = (1.05 * plant.load_shape[t] * x for x in (feeder.load_kw, feeder.load_kvar))
    flow = lindistflow(feeder, [17])
    for d, site in enumerate(p.sites):
        room = s.world.charge_limit_kw[0, t, d]
        assert 0.0 <= room <= site.connection_kw
        if site.name != "nursing":
            continue
        assert 0.0 < room < site.connection_kw  # the end of the feeder: voltage binds
        v = flow.v_pu([[room]], [[0.0]], [1.05 * plant.load_shape[t]], [0])
        assert v.min() == pytest.approx(p.grid.v_min_pu, abs=1e-9)
        more = load_kw.copy()
        more[site.bus] += room
        assert abs(sweep(feeder, more[None], load_kvar[None]).v_pu.min() - p.grid.v_min_pu) < 0.012


def test_streams_are_apart() -> None:
    """Loads do not change with the storm, nor roads with the crews."""
    _, base = drawn(3)
    _, other = drawn(3, storm={"gust_mph": 100.0}, repair={"crews": 1})
    _, fewer = drawn(3, repair={"crews": 1})
    assert np.array_equal(base.load_kw, other.load_kw)
    assert np.array_equal(base.road_h, fewer.road_h)
    assert not np.array_equal(base.line_h, fewer.line_h)


def test_statistics_of_the_default_storm() -> None:
    """The band of 200 storms of the design study: gust, faults, closed roads, critical need."""
    plant, s = drawn(300)
    assert np.median(s.gust_mph) == pytest.approx(119.0, abs=4.0)
    assert np.median((s.line_h > 0).sum(1)) == pytest.approx(12.0, abs=1.5)
    assert np.median((s.road_h > 0).sum(1)) == pytest.approx(13.0, abs=1.5)
    assert np.median(s.world.need_kw.sum((1, 2)) * 0.5) == pytest.approx(11_400.0, rel=0.12)
    failing = s.generator_h[:, plant.ground.generator] < NEVER_H
    assert failing.mean() == pytest.approx(0.25, abs=0.08)


# --- beliefs --------------------------------------------------------------------------------------


def equal(a: World, b: World, rows: Any = slice(None)) -> bool:
    return all(np.array_equal(x[rows], y[rows]) for x, y in zip(a, b, strict=True))


def test_a_belief_knows_the_past_and_the_present() -> None:
    plant, s = drawn(5)
    stage = np.array([0, 7, 20, 47, 48])
    w = expected(plant, s, stage)
    for b, t in enumerate(stage):
        assert all(np.array_equal(x[b, : t + 1], y[b, : t + 1]) for x, y in zip(w, s.world, strict=True))
    assert equal(w, s.world, slice(3, 5))
    assert not equal(w, s.world, slice(0, 3))


@pytest.mark.parametrize("stage", [-1, 0, 11])
def test_a_belief_does_not_peek(stage: int) -> None:
    """What is changed in the future, the estimates being the same, changes no belief."""
    plant, s = drawn(6)
    now = max(stage, 0)
    other = s._replace(
        load_kw=s.load_kw.copy(), clearness=s.clearness.copy(), generator_h=s.generator_h.copy(),
        world=World._make(x.copy() for x in s.world), estimate_z=s.estimate_z.copy(),
    )  # fmt: skip
    other.load_kw[:, now + 1 :] *= 3.0
    other.clearness[:, now + 1 :] = 1.0
    other.estimate_z[:, now + 1 :] += 1.0
    hospital = plant.ground.generator
    late = other.generator_h[:, hospital] > now * plant.params.dt_h
    other.generator_h[:, hospital] = np.where(late, now * plant.params.dt_h + 0.25, other.generator_h[:, hospital])
    for x in other.world:
        x[:, now + 1 :] = 0
    if stage < 0:  # nor is anything of the damage known before the storm
        other.line_h[:], other.road_h[:] = 0.0, 5.0
        other.load_kw[:] *= 2.0
    at = np.full(6, stage)
    first, second = expected(plant, s, at), expected(plant, other, at)
    assert all(np.array_equal(x[:, now + 1 :], y[:, now + 1 :]) for x, y in zip(first, second, strict=True))


def test_true_estimates_and_no_noise_are_the_truth() -> None:
    quiet = {"site_sigma": 0.1, "noise_sigma": 0.0, "clearness_sigma": 0.0, "generator_fail_share": 0.0}
    plant, s = drawn(6, repair={"estimate_sigma": 0.0}, load=quiet, start_h=8.0)
    w = expected(plant, s, np.arange(6) * 5)
    assert np.array_equal(w.travel, s.world.travel)
    assert np.array_equal(w.island, s.world.island)
    for name in ("need_kw", "pv_kw", "generator_kw", "charge_limit_kw"):
        assert np.allclose(getattr(w, name), getattr(s.world, name))


def test_estimates_shrink_and_are_right_on_the_median() -> None:
    """Log error of the restoration of a site with one line: median 0, spread estimate_sigma."""
    plant, s = drawn(400)
    stage = np.full(400, 4)
    lines, _, _ = estimated_h(plant, s, stage)
    left, guess = s.line_h - 2.0, lines - 2.0
    open_ones = (left > 3.0) & (guess > 0.51)
    error = np.log(guess[open_ones] / left[open_ones])
    assert np.median(error) == pytest.approx(0.0, abs=0.05)
    assert error.std() == pytest.approx(0.6, abs=0.05)


def test_sampled_worlds_scatter_around_the_belief() -> None:
    plant, s = drawn(2)
    stage = np.array([6, 10])
    many, one = scenarios(plant, s, stage, 50, np.random.default_rng(0)), expected(plant, s, stage)
    assert many.need_kw.shape == (100, 48, 10)
    for b, t in enumerate(stage):
        rows = slice(50 * b, 50 * b + 50)
        assert np.array_equal(many.need_kw[rows, : t + 1], np.repeat(s.world.need_kw[b : b + 1, : t + 1], 50, 0))
        total = many.need_kw[rows].sum((1, 2))
        assert len(set(total)) > 40
        assert total.mean() == pytest.approx(one.need_kw[b].sum(), rel=0.35)


def test_fingerprints_and_rows() -> None:
    _, s = drawn(3)
    _, again = drawn(3)
    assert s.fingerprint(1) == again.fingerprint(1) == s.row(1).fingerprint(0)
    assert len({s.fingerprint(b) for b in range(3)}) == 3


# --- roads from files -------------------------------------------------------------------------------

TRIANGLE = [("a", "b", 5.0), ("b", "c", 10.0), ("a", "c", 30.0)]


def graph_file(folder: Path, edges: list[tuple[str, str, Any]], key: str = "minutes") -> str:
    graph = nx.Graph()
    for a, b, minutes in edges:
        graph.add_edge(a, b, **{key: minutes})
    nx.write_graphml(graph, folder / "roads.graphml")
    return str(folder / "roads.graphml")


def test_roads_from_graphml_and_edge_list(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("a b 5\nb c 10\na c 30\n")
    for network in (graph_file(tmp_path, TRIANGLE), str(tmp_path / "plain.txt")):
        roads = load_roads(network)
        assert travel_minutes(roads, np.array([roads.index("a")]))[0].tolist() == [0.0, 5.0, 15.0]
        assert roads.layout().shape == (3, 2)


@pytest.mark.parametrize(
    ("edges", "key", "message"),
    [
        ([*TRIANGLE, ("x", "y", 1.0)], "minutes", "no road leads from node a to node x"),
        ([("a", "b", -5.0)], "minutes", "the road a-b takes -5.0 minutes"),
        (TRIANGLE, "time", "has no 'minutes'"),
    ],
)
def test_bad_roads_are_named(tmp_path: Path, edges: list[Any], key: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_roads(graph_file(tmp_path, edges, key))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
