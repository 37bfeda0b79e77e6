"""The feeder, its linear model, the AC sweep and the pandapower loader."""

import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid import (
    DEFAULT_RATING_A,
    Feeder,
    case33bw,
    feeder_from_pandapower,
    lindistflow,
    load_feeder,
    sweep,
)

SITES = (17, 21, 24, 32)
ARRAYS = ("from_bus", "to_bus", "r_ohm", "x_ohm", "load_kw", "load_kvar", "rating_a")


@pytest.fixture(scope="module")
def pp() -> ModuleType:
    pytest.importorskip("pandapower")
    import pandapower.networks  # pandapower.networks is not loaded by pandapower alone

    return pandapower


@pytest.fixture
def net(pp: ModuleType) -> Any:
    return pp.networks.case33bw()


def points(n_case: int, low_kw: float, seed: int = 7) -> tuple[np.ndarray, ...]:
    """Load scale 0.2-1.2 (B,), site kW low_kw..500 and kvar (B, 4), at SITES."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.2, 1.2, n_case)
    site_kw = rng.uniform(low_kw, 500.0, (n_case, len(SITES)))
    site_kvar = rng.uniform(low_kw / 5, 100.0, (n_case, len(SITES)))
    return site_kw, site_kvar, scale


def bus_load(
    feeder: Feeder, site_kw: np.ndarray, site_kvar: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    p_kw, q_kvar = scale[:, None] * feeder.load_kw, scale[:, None] * feeder.load_kvar
    p_kw[:, SITES] += site_kw
    q_kvar[:, SITES] += site_kvar
    return p_kw, q_kvar


def walk(feeder: Feeder, line: int) -> set[int]:
    """The buses fed through a line, by following the lines outwards."""
    fed, frontier = set(), [int(feeder.to_bus[line])]
    while frontier:
        bus = frontier.pop()
        fed.add(bus)
        frontier += [int(b) for a, b in zip(feeder.from_bus, feeder.to_bus, strict=True) if a == bus]
    return fed


def run_ac(pp: ModuleType, net: Any, p_kw: np.ndarray, q_kvar: np.ndarray) -> None:
    """Solve the net with pandapower, loads at buses 1..32 as given."""
    net.load["p_mw"] = p_kw[net.load["bus"]] / 1000.0
    net.load["q_mvar"] = q_kvar[net.load["bus"]] / 1000.0
    pp.runpp(net, tolerance_mva=1e-10, numba=False)


# --- feeder ---------------------------------------------------------------------------------


def test_case33bw_is_pandapowers(net: Any) -> None:
    feeder = case33bw()
    lines = net.line[net.line.in_service]
    assert feeder.base_kv == net.bus.vn_kv.unique().item()
    np.testing.assert_array_equal(feeder.from_bus, lines.from_bus)
    np.testing.assert_array_equal(feeder.to_bus, lines.to_bus)
    np.testing.assert_allclose(feeder.r_ohm, lines.r_ohm_per_km * lines.length_km, rtol=1e-12)
    np.testing.assert_allclose(feeder.x_ohm, lines.x_ohm_per_km * lines.length_km, rtol=1e-12)
    np.testing.assert_allclose(feeder.load_kw[net.load.bus], net.load.p_mw * 1e3, rtol=1e-12)
    np.testing.assert_allclose(feeder.load_kvar[net.load.bus], net.load.q_mvar * 1e3, rtol=1e-12)


def test_case33bw_totals_and_our_ratings() -> None:
    feeder = case33bw()
    assert (feeder.n_bus, feeder.n_line) == (33, 32)
    assert (feeder.load_kw.sum(), feeder.load_kvar.sum()) == (3715.0, 2300.0)
    assert feeder.rating_a.tolist() == [400.0] * 6 + [200.0] * 26
    assert feeder.limit_kva[0] == pytest.approx(8771.1, abs=0.05)  # sqrt(3) * 12.66 kV * 400 A


def test_downstream_is_what_a_walk_finds() -> None:
    feeder = case33bw()
    for line in range(feeder.n_line):
        assert set(np.flatnonzero(feeder.downstream[line])) == walk(feeder, line)


def test_feeder_is_read_only_and_survives_pickle() -> None:
    feeder = case33bw()
    with pytest.raises(ValueError, match="read-only"):
        feeder.r_ohm[0] = 1.0
    copy = pickle.loads(pickle.dumps(feeder))
    assert all(np.array_equal(getattr(copy, key), getattr(feeder, key)) for key in ARRAYS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to_bus": np.array([1, 1])}, "line 1"),
        ({"to_bus": np.array([1, 3])}, "line 1"),
        ({"from_bus": np.array([2, 0])}, "line 0"),
        ({"r_ohm": np.array([0.1])}, r"r_ohm must be \(2,\)"),
        ({"load_kw": np.zeros(2)}, "load_kw"),
        ({"x_ohm": np.array([0.1, np.nan])}, "x_ohm must be finite"),
        ({"rating_a": np.array([100.0, 0.0])}, "rating_a"),
        ({"r_ohm": np.array([0.1, -0.1])}, "r_ohm must not be negative"),
        ({"base_kv": 0.0}, "base_kv"),
    ],
)
def test_feeder_refuses_bad_data(change: dict[str, Any], message: str) -> None:
    two = np.array([0.1, 0.1])
    good = Feeder("toy", 10.0, np.array([0, 1]), np.array([1, 2]), two, two, np.ones(3), np.ones(3), two)
    with pytest.raises(UserError, match=message):
        replace(good, **change)


# --- AC sweep -------------------------------------------------------------------------------


def test_sweep_anchors_of_case33bw() -> None:
    feeder = case33bw()
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None])
    assert result.converged.all()
    assert result.loss_kw[0] == pytest.approx(202.677, abs=5e-4)
    assert result.v_pu.min() == pytest.approx(0.91309, abs=5e-6)
    assert result.v_pu.argmin() == 17


def test_sweep_agrees_with_pandapower(pp: ModuleType, net: Any) -> None:
    feeder = case33bw()
    p_kw, q_kvar = bus_load(feeder, *points(25, low_kw=-500.0))
    result = sweep(feeder, p_kw, q_kvar)
    assert result.converged.all()
    for case in range(len(p_kw)):
        run_ac(pp, net, p_kw[case], q_kvar[case])
        lines = net.res_line[net.line.in_service]
        np.testing.assert_allclose(result.v_pu[case], net.res_bus.vm_pu, rtol=0, atol=1e-8)
        np.testing.assert_allclose(result.flow_kw[case], lines.p_from_mw * 1e3, atol=1e-3)
        np.testing.assert_allclose(result.flow_kvar[case], lines.q_from_mvar * 1e3, atol=1e-3)
        np.testing.assert_allclose(result.current_a[case], lines.i_ka * 1e3, atol=1e-4)
        assert result.loss_kw[case] == pytest.approx(lines.pl_mw.sum() * 1e3, abs=1e-3)


def test_sweep_other_source_voltage(pp: ModuleType, net: Any) -> None:
    feeder = case33bw()
    net.ext_grid["vm_pu"] = 1.04
    pp.runpp(net, numba=False)
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None], v_source=1.04)
    np.testing.assert_allclose(result.v_pu[0], net.res_bus.vm_pu, rtol=0, atol=1e-8)


@pytest.mark.parametrize("line", [0, 3, 17, 24, 31])
def test_sweep_with_a_line_out_agrees_with_pandapower(pp: ModuleType, net: Any, line: int) -> None:
    feeder = case33bw()
    net.line.loc[line, "in_service"] = False
    pp.runpp(net, numba=False)
    only_head_marked = np.ones((1, 33), dtype=bool)
    only_head_marked[0, feeder.to_bus[line]] = False
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None], alive=only_head_marked)
    np.testing.assert_allclose(result.v_pu[0], net.res_bus.vm_pu.fillna(0.0), rtol=0, atol=1e-8)
    assert result.converged.all()
    dead_lines = [other for other in range(32) if feeder.downstream[line, feeder.to_bus[other]]]
    assert not result.current_a[0, dead_lines].any()


def test_sweep_source_dead() -> None:
    feeder = case33bw()
    alive = np.ones((1, 33), dtype=bool)
    alive[0, 0] = False
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None], alive=alive)
    assert not result.v_pu.any() and not result.flow_kw.any() and result.loss_kw[0] == 0.0


def test_sweep_rows_do_not_depend_on_their_batch() -> None:
    feeder = case33bw()
    p_kw, q_kvar = bus_load(feeder, *points(37, low_kw=-500.0))
    p_kw[5] *= 1.5  # slower to settle than its neighbours
    whole = sweep(feeder, p_kw, q_kvar)
    for case in (0, 5, 6, 17, 36):
        alone = sweep(feeder, p_kw[case : case + 1], q_kvar[case : case + 1])
        for key in ("v_pu", "flow_kw", "flow_kvar", "loss_kw", "current_a"):
            assert getattr(alone, key)[0].tobytes() == getattr(whole, key)[case].tobytes()


def test_sweep_reports_collapse_and_nan_and_too_few_sweeps() -> None:
    feeder = case33bw()
    p_kw = np.stack([feeder.load_kw, feeder.load_kw * 6.0, feeder.load_kw])
    p_kw[2, 9] = np.nan
    q_kvar = np.stack([feeder.load_kvar, feeder.load_kvar * 6.0, feeder.load_kvar])
    result = sweep(feeder, p_kw, q_kvar)
    assert result.converged.tolist() == [True, False, False]
    for key in ("v_pu", "flow_kw", "flow_kvar", "loss_kw", "current_a"):
        assert np.isfinite(getattr(result, key)[0]).all()
        assert np.isnan(getattr(result, key)[1:]).all()
    assert not sweep(feeder, p_kw[:1], q_kvar[:1], max_iter=2).converged[0]


def test_sweep_of_nothing_and_wrong_shapes() -> None:
    feeder = case33bw()
    assert sweep(feeder, np.zeros((0, 33)), np.zeros((0, 33))).v_pu.shape == (0, 33)
    good = np.zeros((2, 33))
    with pytest.raises(ValueError, match=r"p_kw must have shape \(B, 33\)"):
        sweep(feeder, np.zeros((2, 32)), good)
    with pytest.raises(ValueError, match="one shape"):
        sweep(feeder, good, np.zeros((3, 33)))
    with pytest.raises(ValueError, match="alive"):
        sweep(feeder, good, good, alive=np.ones(33, dtype=bool))


# --- LinDistFlow ----------------------------------------------------------------------------


def test_lindistflow_flows_are_sums_of_downstream_loads() -> None:
    feeder = case33bw()
    site_kw, site_kvar, scale = points(33, low_kw=-500.0)
    fault = np.arange(33)
    flow_kw, flow_kvar = lindistflow(feeder, SITES).flows(site_kw, site_kvar, scale, fault)
    p_kw, q_kvar = bus_load(feeder, site_kw, site_kvar, scale)
    for case in range(33):
        dead = walk(feeder, fault[case] - 1) if fault[case] else set()
        for line in range(feeder.n_line):
            fed = sorted(walk(feeder, line) - dead)
            assert flow_kw[case, line] == pytest.approx(p_kw[case, fed].sum(), abs=1e-9)
            assert flow_kvar[case, line] == pytest.approx(q_kvar[case, fed].sum(), abs=1e-9)


def test_lindistflow_voltages_follow_from_its_flows() -> None:
    feeder = case33bw()
    model = lindistflow(feeder, SITES)
    args = (*points(33, low_kw=-500.0), np.arange(33))
    flow_kw, flow_kvar = model.flows(*args)
    v2 = np.full((33, 33), 1.02**2)
    for line in range(feeder.n_line):
        drop_kv2 = 2e-3 * (feeder.r_ohm[line] * flow_kw[:, line] + feeder.x_ohm[line] * flow_kvar[:, line])
        v2[:, feeder.to_bus[line]] = v2[:, feeder.from_bus[line]] - drop_kv2 / 12.66**2
    v2[model.dead_bus] = 0.0
    np.testing.assert_allclose(model.v2(*args, v_source=1.02), v2, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.v_pu(*args, v_source=1.02), np.sqrt(v2), rtol=0, atol=1e-12)


def test_lindistflow_error_against_ac() -> None:
    """Measured on these 300 points: at most 0.0085 p.u. (nominal load alone 0.0028)."""
    feeder = case33bw()
    model = lindistflow(feeder, SITES)
    operating = points(300, low_kw=-500.0)
    linear = model.v_pu(*operating, np.zeros(300, dtype=int))
    exact = sweep(feeder, *bus_load(feeder, *operating))
    assert exact.converged.all()
    assert np.abs(linear - exact.v_pu).max() <= 0.009
    zero = np.zeros((1, 4))
    nominal = model.v_pu(zero, zero, np.ones(1), np.zeros(1, dtype=int))
    anchor = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None]).v_pu
    assert 0.002 < np.abs(nominal - anchor).max() < 0.003


def test_lindistflow_is_optimistic_where_all_consume() -> None:
    """Measured on these 300 points, four far sites drawing up to 2 MW: at most 0.0095 p.u."""
    feeder = case33bw()
    operating = points(300, low_kw=0.0)
    linear = lindistflow(feeder, SITES).v_pu(*operating, np.zeros(300, dtype=int))
    exact = sweep(feeder, *bus_load(feeder, *operating)).v_pu
    assert (linear[:, 1:] > exact[:, 1:]).all()
    assert (linear - exact).max() <= 0.010


@pytest.mark.parametrize(("line", "dead"), [(31, {32}), (20, {21}), (24, {25, 26, 27, 28, 29, 30, 31, 32})])
def test_a_fault_disconnects_the_right_buses(line: int, dead: set[int]) -> None:
    model = lindistflow(case33bw(), SITES)
    assert set(np.flatnonzero(model.dead_bus[line + 1])) == dead
    assert [SITES[d] for d in np.flatnonzero(model.dead_site[line + 1])] == sorted(dead & set(SITES))
    assert not model.dead_bus[0].any() and not model.dead_site[0].any()
    assert model.dead_bus[1].sum() == 32  # without the first line only the substation lives


def test_lindistflow_ignores_what_a_dead_site_asks_for() -> None:
    model = lindistflow(case33bw(), SITES)
    site_kw, site_kvar, scale = points(1, low_kw=0.0)
    fault = np.array([32])  # the line that feeds bus 32, the last site
    before = model.flows(site_kw, site_kvar, scale, fault)
    site_kw[0, 3] += 1e6
    after = model.flows(site_kw, site_kvar, scale, fault)
    np.testing.assert_array_equal(before, after)
    assert not np.array_equal(before, model.flows(site_kw, site_kvar, scale, np.array([0])))


def test_lindistflow_arrays_are_what_the_methods_use() -> None:
    """The optimum reads the arrays, the simulator calls the methods: one model."""
    model = lindistflow(case33bw(), SITES)
    site_kw, site_kvar, scale = points(33, low_kw=-500.0)
    fault = np.arange(33)
    kw, kvar = (np.where(model.dead_site[fault], 0.0, site) for site in (site_kw, site_kvar))
    flow_kw = scale[:, None] * model.flow_base_kw[fault] + kw @ model.flow_site.T
    drop = scale[:, None] * model.v2_drop_base[fault]
    drop += kw @ model.v2_drop_per_kw.T + kvar @ model.v2_drop_per_kvar.T
    args = (site_kw, site_kvar, scale, fault)
    np.testing.assert_allclose(model.flows(*args)[0], flow_kw, atol=1e-9)
    alive = ~model.dead_bus[fault]
    np.testing.assert_allclose(model.v2(*args)[alive], (1.0 - drop)[alive], rtol=0, atol=1e-12)


def test_lindistflow_rows_do_not_depend_on_their_batch() -> None:
    model = lindistflow(case33bw(), SITES)
    args = (*points(70, low_kw=-500.0), np.arange(70) % 33)
    whole = (*model.flows(*args), model.v2(*args))
    for case in (0, 34, 69):
        row = tuple(a[case : case + 1] for a in args)
        alone = (*model.flows(*row), model.v2(*row))
        assert all(a[0].tobytes() == w[case].tobytes() for a, w in zip(alone, whole, strict=True))


def test_lindistflow_wrong_input() -> None:
    feeder = case33bw()
    with pytest.raises(UserError, match=r"site bus 33 .* use 0\.\.32"):
        lindistflow(feeder, [5, 33])
    model = lindistflow(feeder, SITES)
    site, one, none = np.zeros((2, 4)), np.ones(2), np.zeros(2, dtype=int)
    with pytest.raises(ValueError, match="site_kw"):
        model.flows(np.zeros((2, 3)), site, one, none)
    with pytest.raises(ValueError, match="site_kvar"):
        model.flows(site, np.zeros((1, 4)), one, none)
    with pytest.raises(ValueError, match="scale"):
        model.v2(site, site, np.ones(3), none)
    for fault in (none + 33, none - 1, none * 1.0, none[:1]):
        with pytest.raises(ValueError, match="fault"):
            model.flows(site, site, one, fault)


# --- loading --------------------------------------------------------------------------------


def test_json_round_trip_gives_the_same_feeder(pp: ModuleType, net: Any, tmp_path: Path) -> None:
    feeder = case33bw()
    net.line.loc[net.line.in_service, "max_i_ka"] = feeder.rating_a / 1000.0
    pp.to_json(net, str(tmp_path / "mine.json"))
    loaded = load_feeder(str(tmp_path / "mine.json"))
    assert (loaded.name, loaded.base_kv) == ("mine", 12.66)
    assert loaded.bus_lookup == {bus: bus for bus in range(33)}
    for key in ARRAYS:
        np.testing.assert_allclose(getattr(loaded, key), getattr(feeder, key), rtol=1e-12)


def test_missing_ratings_get_the_default(net: Any) -> None:
    net.line.loc[3, "max_i_ka"] = np.nan
    net.line.loc[4, ["max_i_ka", "df", "parallel"]] = [0.1, 0.5, 2]
    feeder = feeder_from_pandapower(net)
    expected = np.full(32, DEFAULT_RATING_A)
    expected[4] = 100.0
    np.testing.assert_allclose(feeder.rating_a, expected)
    assert feeder.r_ohm[4] == pytest.approx(case33bw().r_ohm[4] / 2)


def test_reversed_shuffled_lines_and_renumbered_buses_change_nothing(pp: ModuleType, net: Any) -> None:
    net.line[["from_bus", "to_bus"]] = net.line[["to_bus", "from_bus"]]
    net.line = net.line.iloc[::-1].reset_index(drop=True)
    pp.toolbox.reindex_buses(net, {bus: 100 - bus for bus in range(33)})
    feeder = feeder_from_pandapower(net)
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None])
    assert feeder.bus_lookup[100] == 0
    assert result.loss_kw[0] == pytest.approx(202.677, abs=5e-4)
    assert result.v_pu[0].argmin() == feeder.bus_lookup[100 - 17]


def test_switches_and_dead_parts(pp: ModuleType, net: Any) -> None:
    net.line.loc[7, "in_service"] = False  # bus 7 to 8: bridged by a switch instead
    pp.create_switch(net, 7, 8, et="b", closed=True)
    net.line.loc[35, "in_service"] = True  # the tie 17-32 in service, but its switch is open
    pp.create_switch(net, 17, 35, et="l", closed=False)
    net.bus.loc[21, "in_service"] = False  # takes line 20 and its load along
    feeder = feeder_from_pandapower(net)
    assert (feeder.n_bus, feeder.n_line) == (31, 30)
    assert feeder.bus_lookup[7] == feeder.bus_lookup[8] == 7
    assert 21 not in feeder.bus_lookup
    assert feeder.load_kw[7] == 260.0  # 200 kW at bus 7, 60 kW at bus 8
    pp.runpp(net, numba=False)
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None])
    for bus, here in feeder.bus_lookup.items():
        assert result.v_pu[0, here] == pytest.approx(net.res_bus.vm_pu[bus], abs=1e-8)


def test_transformers_and_two_voltages(pp: ModuleType) -> None:
    cigre = pp.networks.create_cigre_network_mv()
    cigre.line["c_nf_per_km"] = 0.0  # line charging is left out, as stated
    cigre.ext_grid["vm_pu"] = 1.0
    pp.runpp(cigre, numba=False)
    feeder = feeder_from_pandapower(cigre)
    assert feeder.base_kv == 20.0
    assert feeder.limit_kva[0] == pytest.approx(25_000.0)  # the 25 MVA transformer
    assert feeder.limit_kva[1] == pytest.approx(np.sqrt(3) * 20.0 * 145.0)  # its 145 A cable
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None])
    for bus, here in feeder.bus_lookup.items():
        assert result.v_pu[0, here] == pytest.approx(cigre.res_bus.vm_pu[bus], abs=1e-8)


def test_a_line_at_another_voltage_is_referred_to_the_base(pp: ModuleType) -> None:
    net = pp.create_empty_network()
    for kv in (20.0, 20.0, 20.0, 0.4, 0.4):
        pp.create_bus(net, vn_kv=kv)
    pp.create_ext_grid(net, 0)
    for a, b in ((0, 1), (1, 2), (3, 4)):
        pp.create_line_from_parameters(net, a, b, 0.2, 0.3, 0.1, c_nf_per_km=0, max_i_ka=0.2)
    pp.create_transformer_from_parameters(net, 2, 3, 0.4, 20.0, 0.4, 1.5, 6.0, 0.0, 0.0)
    pp.create_load(net, 4, p_mw=0.06, q_mvar=0.02, scaling=1.5)
    pp.runpp(net, numba=False)
    feeder = feeder_from_pandapower(net)
    result = sweep(feeder, feeder.load_kw[None], feeder.load_kvar[None])
    assert feeder.base_kv == 20.0
    np.testing.assert_allclose(result.v_pu[0], net.res_bus.vm_pu, rtol=0, atol=1e-8)
    assert net.res_bus.vm_pu[4] < 0.97  # the low-voltage line matters
    assert feeder.limit_kva[-1] == pytest.approx(np.sqrt(3) * 0.4 * 200.0)


def _mesh(pp: ModuleType, net: Any) -> None:
    net.line.loc[33, "in_service"] = True


def _cut(pp: ModuleType, net: Any) -> None:
    net.line.loc[30, "in_service"] = False


def _no_source(pp: ModuleType, net: Any) -> None:
    net.ext_grid["in_service"] = False


def _two_sources(pp: ModuleType, net: Any) -> None:
    pp.create_ext_grid(net, 17)


def _pv(pp: ModuleType, net: Any) -> None:
    pp.create_sgen(net, 5, p_mw=0.1)


def _bad_impedance(pp: ModuleType, net: Any) -> None:
    net.line.loc[2, "r_ohm_per_km"] = np.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_mesh, r"meshed: line \d+ \(bus \d+ to bus \d+\) closes a loop; set its in_service"),
        (_cut, r"disconnected: bus 31 \(2 such\).*in_service"),
        (_no_source, "no ext_grid in service; add one"),
        (_two_sources, r"ext_grids at buses \[0, 17\]; keep one"),
        (_pv, r"sgen 0 in service.*net\.sgen\.in_service = False"),
        (_bad_impedance, "r_ohm must be finite"),
    ],
)
def test_nets_that_are_no_feeder(
    pp: ModuleType, net: Any, spoil: Callable[[ModuleType, Any], None], message: str
) -> None:
    spoil(pp, net)
    with pytest.raises(UserError, match=message) as caught:
        feeder_from_pandapower(net)
    assert "\n" not in str(caught.value)


def test_load_feeder_by_name_and_unknown() -> None:
    assert load_feeder("case33bw").name == "case33bw"
    with pytest.raises(UserError, match=r"'case34bw' is not known.*case33bw.*pandapower JSON"):
        load_feeder("case34bw")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json' does not exist; check the path"):
        feeder_from_pandapower(tmp_path / "absent.json")


@pytest.mark.parametrize("text", ["not json", "{}", '{"a": 1}', "[1]", ""])
def test_unreadable_file(pp: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "junk.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"junk\.json' is not a pandapower net; write one"):
        load_feeder(str(path))


def test_pandapower_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandapower", None)
    path = tmp_path / "net.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="not installed; run: pip install pandapower"):
        load_feeder(str(path))
