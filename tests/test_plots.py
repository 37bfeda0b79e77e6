"""Traces survive their file; figures hold the data that they claim to show."""

import json
import subprocess
import sys
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from qevgrid.envs.errors import UserError
from qevgrid.envs.v2g import viewer
from qevgrid.envs.v2g.problem import TERM_COLORS
from qevgrid.envs.v2g.trace import DayTrace
from qevgrid.runner import plots

STAGES, SOCKETS = 96, 6


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make_trace(played=STAGES, unserved_kw=30.0, **changes):
    """A day from noon with an outage from 21:00 to 02:00; `played` of its 96 stages."""
    rng = np.random.default_rng(5)
    hours = np.arange(STAGES) * 0.25
    outage = (hours >= 9.0) & (hours < 14.0)
    soc = rng.uniform(0.2, 0.9, (STAGES, SOCKETS))
    soc[:, 1] = np.nan
    soc[40:50] = np.nan  # nobody is there
    data = {
        "price_usd_kwh": 0.2 + 0.1 * np.sin(hours / 4.0),
        "risk": np.clip(hours / 20.0, 0.0, 1.0),
        "outage": outage,
        "charge_kw": np.where(outage, 0.0, 40.0),
        "discharge_kw": np.where(outage, 55.0, 0.0),
        "import_kw": np.where(outage, 0.0, 90.0),
        "pv_kw": np.maximum(0.0, 25.0 - hours),
        "generator_kw": np.where(outage, 10.0, 0.0),
        "load_critical_kw": np.full(STAGES, 60.0),
        "load_other_kw": np.full(STAGES, 50.0),
        "served_critical_kw": np.full(STAGES, 60.0),
        "served_other_kw": np.where(outage, 50.0 - unserved_kw, 50.0),
        "soc": soc,
        "cost_usd": rng.uniform(0.0, 4.0, STAGES),
    }
    data = {name: array[:played] for name, array in data.items()}
    scalars = {
        "agent": "ppo", "stages": STAGES, "dt_h": 0.25, "start_h": 12.0, "import_limit_kw": 160.0,
    }  # fmt: skip
    return DayTrace(**(scalars | data | changes))


def labels(ax):
    return set(ax.get_legend_handles_labels()[1])


def artist(ax, label):
    return dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))[label]


def is_pixel_equal(a, b):
    return a.shape == b.shape and bool((a == b).all())


class TestTrace:
    @pytest.mark.parametrize("played", [0, 1, 37, STAGES])
    def test_survives_strict_json(self, played):
        trace = make_trace(played)
        text = json.dumps(trace.to_dict(), allow_nan=False)
        back = DayTrace.from_dict(json.loads(text))
        for field in fields(DayTrace):
            if field.name != "soc" or played:
                np.testing.assert_array_equal(getattr(back, field.name), getattr(trace, field.name), err_msg=field.name)
        assert back.outage.dtype == np.bool_

    def test_nan_is_none_and_no_limit_is_infinite(self):
        data = make_trace(import_limit_kw=np.inf).to_dict()
        assert data["soc"][0][1] is None
        assert data["import_limit_kw"] is None
        assert DayTrace.from_dict(data).import_limit_kw == np.inf

    def test_all_sockets_empty_survives(self):
        trace = make_trace(soc=np.full((STAGES, 2), np.nan))
        assert np.isnan(DayTrace.from_dict(trace.to_dict()).soc).all()

    def test_wrong_keys_are_named(self):
        data = make_trace().to_dict()
        data["prise"] = data.pop("price_usd_kwh")
        with pytest.raises(ValueError, match=r"price_usd_kwh.*prise"):
            DayTrace.from_dict(data)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("risk", np.zeros(5)),
            ("soc", np.zeros(STAGES)),
            ("charge_kw", np.full(STAGES, -1.0)),
            ("cost_usd", np.full(STAGES, np.nan)),
            ("stages", 95),
            ("stages", 0),
            ("dt_h", 0.0),
            ("import_limit_kw", np.nan),
        ],
    )
    def test_bad_data_is_an_error(self, name, value):
        with pytest.raises(ValueError, match=name if name != "stages" else "stages|episode"):
            make_trace(**{name: value})

    def test_clock_passes_midnight(self):
        trace = make_trace()
        assert [trace.clock(h) for h in (0.0, 11.75, 12.0, 24.0)] == [
            "12:00", "23:45", "00:00", "12:00",
        ]  # fmt: skip
        assert trace.hours()[[0, 1, -1]].tolist() == [0.0, 0.25, 23.75]
        assert trace.edges()[-1] == 24.0

    def test_outages_are_unbroken_runs(self):
        assert make_trace().outages_h() == [(9.0, 14.0)]
        assert make_trace(40).outages_h() == [(9.0, 10.0)]
        outage = np.zeros(STAGES, bool)
        outage[[0, 95]] = True
        assert make_trace(outage=outage).outages_h() == [(0.0, 0.25), (23.75, 24.0)]

    def test_unserved_adds_both_tiers_and_drops_rounding(self):
        served = np.full(STAGES, 60.0)
        served[:3] = [55.0, 60.0 - 1e-12, 60.0 + 1e-12]
        got = make_trace(unserved_kw=0.0, served_critical_kw=served).unserved_kw()
        assert got[:3].tolist() == [5.0, 0.0, 0.0]

    def test_keeps_its_own_frozen_copy(self):
        price = np.full(STAGES, 0.3)
        trace = make_trace(price_usd_kwh=price)
        price[0] = 9.0
        assert trace.price_usd_kwh[0] == 0.3
        with pytest.raises(ValueError, match="read-only"):
            trace.price_usd_kwh[0] = 9.0

    def test_soc_quantiles_are_over_vehicles_present(self):
        soc = np.full((STAGES, 5), np.nan)
        soc[0, :3] = [0.2, 0.4, 0.9]
        bands = make_trace(soc=soc).soc_quantiles()
        assert bands[:, 0] == pytest.approx([0.24, 0.4, 0.8])
        assert np.isnan(bands[:, 1:]).all()


class TestDay:
    def axes(self, trace):
        figure = viewer.day_figure([trace])
        assert isinstance(figure, Figure)
        return figure.axes

    def test_every_row_says_what_it_shows(self):
        price, power, soc, load, cost = self.axes(make_trace())
        assert labels(price) == {"outage", "outage risk, 0-1", "price"}
        assert labels(power) == {"charge", "discharge", "PV", "meter import", "import limit"}
        assert labels(soc) == {"10-90 %", "each vehicle", "median"}
        assert labels(load) == {"critical served", "other served", "unserved", "generator"}
        assert labels(cost) == {"cost so far"}

    def test_steps_hold_the_data(self):
        trace = make_trace()
        price, power, _, load, cost = self.axes(trace)
        assert artist(price, "price").get_data().values.tolist() == trace.price_usd_kwh.tolist()
        assert (artist(power, "charge").get_data().values == trace.charge_kw).all()
        assert (artist(power, "discharge").get_data().values == -trace.discharge_kw).all()
        unserved = artist(load, "unserved").get_data()
        np.testing.assert_allclose(unserved.values - unserved.baseline, trace.unserved_kw())
        assert artist(cost, "cost so far").get_ydata()[-1] == pytest.approx(trace.total_usd)
        assert artist(cost, "cost so far").get_xdata()[-1] == 24.0

    def test_median_soc_stands_at_the_end_of_the_stage(self):
        trace = make_trace()
        line = artist(self.axes(trace)[2], "median")
        assert line.get_xdata()[0] == 0.25
        np.testing.assert_allclose(line.get_ydata(), 100.0 * trace.soc_quantiles()[1])

    def test_unserved_and_generator_only_where_there_is_any(self):
        quiet = make_trace(unserved_kw=0.0, generator_kw=np.zeros(STAGES))
        assert labels(self.axes(quiet)[3]) == {"critical served", "other served"}

    def test_outage_is_shaded_in_every_row(self):
        for ax in self.axes(make_trace()):
            spans = [p.get_bbox() for p in ax.patches if hasattr(p, "get_bbox")]
            assert [(box.x0, box.x1) for box in spans] == [(9.0, 14.0)]

    def test_no_limit_no_line(self):
        assert "import limit" not in labels(self.axes(make_trace(import_limit_kw=np.inf))[1])

    @pytest.mark.parametrize("count", [1, 2, 5, 6, 9, 11])
    def test_rows_share_their_scales_over_all_agents(self, count):
        traces = [make_trace(agent=f"agent {i}") for i in range(count - 1)]
        costly = make_trace(agent="costly", cost_usd=np.full(STAGES, 70.0), import_limit_kw=999.0)
        figure = viewer.day_figure([*traces, costly])
        assert len(figure.axes) == 5 * count
        for label_row in range(5):
            rows = [ax for ax in figure.axes if ax.get_subplotspec().rowspan.start == label_row]
            assert len(rows) == count
            assert len({ax.get_ylim() for ax in rows}) == 1
        assert {ax.get_xlim() for ax in figure.axes} == {(0.0, 24.0)}

    def test_agents_stand_apart(self):
        figure = viewer.day_figure([make_trace(agent=f"agent {i}") for i in range(9)])
        boxes = [ax.get_position() for ax in figure.axes]
        apart = [
            a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0 for i, a in enumerate(boxes) for b in boxes[:i]
        ]
        assert all(apart)

    def test_title_names_agent_and_cost(self):
        trace = make_trace(agent="rolling MILP", cost_usd=np.full(STAGES, 100.0))
        assert self.axes(trace)[0].get_title() == "rolling MILP\n9,600 USD"

    def test_all_data_lie_inside_the_limits(self):
        trace = make_trace(cost_usd=np.linspace(-9.0, 3.0, STAGES), price_usd_kwh=-np.ones(STAGES))
        limits = viewer.row_limits([trace])
        cost_usd = np.cumsum(trace.cost_usd)
        assert limits[0][0] <= -1.0
        assert limits[1][0] <= -55.0 and limits[1][1] >= 160.0
        assert limits[4][0] <= cost_usd.min() and limits[4][1] >= cost_usd.max()

    def test_nothing_to_draw_is_an_error(self):
        with pytest.raises(ValueError, match="no trace"):
            viewer.day_figure([])
        with pytest.raises(ValueError, match="5 axes"):
            viewer.draw_day(Figure().subplots(2), make_trace())

    def test_five_hundred_vehicles_keep_the_picture_light(self):
        trace = make_trace(soc=np.full((STAGES, 500), 0.5))
        line = artist(self.axes(trace)[2], "each vehicle")
        assert len(line.get_xdata()) <= 60 * (STAGES + 1)


class TestFrame:
    @pytest.mark.parametrize("size", [(960, 640), (641, 479), (320, 240), (1920, 1080)])
    def test_shape_and_type(self, size):
        frame = viewer.render_frame(make_trace(50), *size)
        assert frame.shape == (size[1], size[0], 3)
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous and frame.flags.writeable

    def test_each_stage_looks_different_and_the_same_stage_the_same(self):
        frames = [viewer.render_frame(make_trace(t)) for t in (0, 1, 2, 36, 37, STAGES)]
        for i, a in enumerate(frames):
            assert not any(is_pixel_equal(a, b) for b in frames[:i])
        assert is_pixel_equal(frames[2], viewer.render_frame(make_trace(2)))

    def test_future_is_blank(self):
        """Right of the present the power panel shows nothing yet: the axis spans the whole day."""
        frame = viewer.render_frame(make_trace(24))  # a quarter
        plot = frame[420:495, 90:810]  # inside the load panel
        filled = (plot.min(axis=2) < 200).any(axis=0)
        assert filled[20:160].all()
        assert not filled[190:].any()

    def test_headline_tells_an_outage(self):
        def badge(trace):
            return tuple(viewer.render_frame(trace)[15, 935])

        red = (0xD5, 0x30, 0x0A)
        assert badge(make_trace(38)) == red
        assert badge(make_trace(30)) != red

    def test_unserved_power_is_in_the_picture(self):
        served = viewer.render_frame(make_trace(45, unserved_kw=0.0))[390:510]
        shed = viewer.render_frame(make_trace(45))[390:510]

        def count_red(image):
            return int((image.astype(int) @ [1, -1, -1] > 80).sum())

        assert count_red(shed) > 20
        assert count_red(served) == 0

    def test_pyplot_stays_unloaded(self):
        code = "import sys, qevgrid.envs.v2g.viewer, qevgrid.runner.plots;sys.exit('matplotlib.pyplot' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def row(agent, **values):
    parts = {key: value for key, value in values.items() if key.startswith("cost_")}
    total = sum(parts.values())
    known = {"cost_usd_mean": total, "cost_usd_lo": total - 5.0, "cost_usd_hi": total + 8.0}
    return {"agent": agent, "score": "", **known, **values}


TABLE = [
    row("idle", cost_energy_usd=100.0, cost_unserved_critical_usd=500.0, score=0.0),
    row("best", cost_energy_usd=-30.0, cost_wear_usd=20.0, cost_terminal_usd=-10.0, score=1.0),
    row("ppo", cost_energy_usd=40.0, cost_wear_usd=25.0, score=0.8, score_lo=0.7, score_hi=0.9),
    row("random", cost_energy_usd=900.0, score=-3.0, score_lo=-4.0, score_hi=-2.0),
    row("unscored", cost_energy_usd=70.0, score=None),
]


def tick_names(ax):
    """Names from top to bottom."""
    ticks = sorted(zip(ax.get_yticks(), ax.get_yticklabels(), strict=True), key=lambda t: -t[0])
    return [label.get_text() for _, label in ticks]


def bars(ax, label):
    return next(c for c in ax.containers if c.get_label() == label)


def whiskers(ax):
    return [seg[:, 0].tolist() for seg in ax.collections[-1].get_segments() if seg.size]


class TestCost:
    def test_cheapest_on_top(self):
        (ax,) = plots.cost_figure(TABLE, TERM_COLORS).axes
        assert tick_names(ax) == ["best", "ppo", "unscored", "idle", "random"]

    def test_income_stacks_to_the_left_and_costs_to_the_right(self):
        (ax,) = plots.cost_figure(TABLE, TERM_COLORS).axes
        spans = {
            name: (b.get_x(), b.get_x() + b.get_width())
            for name in ("energy", "wear", "terminal")
            for b in [bars(ax, name)[0]]
        }
        assert spans == {"energy": (0.0, -30.0), "wear": (0.0, 20.0), "terminal": (-30.0, -40.0)}

    def test_parts_follow_one_another(self):
        (ax,) = plots.cost_figure(TABLE, TERM_COLORS).axes
        bar = bars(ax, "unserved critical")[3]  # idle
        assert (bar.get_x(), bar.get_width()) == (100.0, 500.0)

    def test_totals_and_their_whiskers(self):
        (ax,) = plots.cost_figure(TABLE, TERM_COLORS).axes
        dots = next(line for line in ax.lines if line.get_label() == "total")
        assert dots.get_xdata().tolist() == [-20.0, 65.0, 70.0, 600.0, 900.0]
        assert whiskers(ax)[1] == [60.0, 73.0]

    def test_only_terms_that_occur_are_named(self):
        (ax,) = plots.cost_figure(TABLE, TERM_COLORS).axes
        named = {text.get_text() for text in ax.get_legend().get_texts()}
        assert named == {"energy", "wear", "terminal", "unserved critical", "total"}

    def test_terms_stack_in_the_order_of_their_colours(self):
        colors = {"wear": "#123456", "terminal": "#00ff00", "energy": "#ff0000"}
        (ax,) = plots.cost_figure(TABLE, colors).axes
        assert [c.get_label() for c in ax.containers] == list(colors)
        assert bars(ax, "wear")[0].get_facecolor()[:3] == pytest.approx([0x12 / 255, 0x34 / 255, 0x56 / 255])
        assert bars(ax, "energy")[0].get_x() == -10.0  # left of the terminal value

    def test_rows_from_a_csv_file_and_empty_totals(self, tmp_path):
        text = [{key: str(value) for key, value in TABLE[0].items()}, {"agent": "blank"}]
        (ax,) = plots.cost_figure(text, TERM_COLORS).axes
        assert tick_names(ax) == ["idle", "blank"]
        plots.save_figure(ax.figure, tmp_path / "a.png")

    def test_no_row_is_an_error(self):
        with pytest.raises(ValueError, match="no row"):
            plots.cost_figure([], TERM_COLORS)


class TestScore:
    def test_best_on_top_and_unscored_last(self):
        (ax,) = plots.score_figure(TABLE).axes
        assert tick_names(ax) == ["best", "ppo", "idle", "random", "unscored"]
        assert "no score" in {text.get_text() for text in ax.texts}

    def test_dots_intervals_and_rulers(self):
        (ax,) = plots.score_figure(TABLE).axes
        dots = next(line for line in ax.lines if line.get_marker() == "o")
        assert dots.get_xdata().tolist() == [1.0, 0.8, 0.0]
        assert whiskers(ax)[1] == [0.7, 0.9]
        rulers = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        assert rulers == [0.0, 1.0]

    def test_the_upper_ruler_has_the_name_given(self):
        for names, best in (([], "optimum"), (["best known"], "best known")):
            (ax,) = plots.score_figure(TABLE, *names).axes
            assert {"naive", best} <= {text.get_text() for text in ax.texts}

    def test_far_below_is_an_arrow_with_its_number(self):
        (ax,) = plots.score_figure(TABLE).axes
        arrow = next(line for line in ax.lines if line.get_marker() == "<")
        assert arrow.get_xdata().tolist() == [-1.0]
        assert ax.get_xlim()[0] > -1.2
        assert "-3.00" in {text.get_text() for text in ax.texts}


class TestLearning:
    steps = np.array([0.0, 100.0, 200.0])

    def test_mean_of_the_seeds_and_dashed_rivals(self):
        scores = np.array([[0.0, 0.4, 0.6], [0.2, 0.6, 1.0]])
        curves = {"ppo": {"steps": self.steps, "score": scores}, "milp": {"score": 0.7}}
        (ax,) = plots.learning_figure(curves).axes
        assert artist(ax, "ppo").get_ydata() == pytest.approx([0.1, 0.5, 0.8])
        assert len(ax.lines) == 4  # two seeds, their mean, the rival
        assert artist(ax, "milp").get_linestyle() == "--"
        assert list(artist(ax, "milp").get_ydata()) == [0.7, 0.7]
        assert "score" in ax.get_ylabel()

    def test_band_of_given_bounds(self):
        curve = {"steps": self.steps, "cost_usd": [9.0, 5.0, 4.0]}
        curve |= {"cost_usd_lo": [8.0, 4.0, 3.0], "cost_usd_hi": [10.0, 6.0, 5.0]}
        (ax,) = plots.learning_figure({"ppo": curve}).axes
        heights = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (3.0, 10.0)
        assert "USD" in ax.get_ylabel()

    def test_names_at_the_ends_do_not_overlap(self):
        curves = {name: {"score": 0.5 + 1e-3 * i} for i, name in enumerate("abc")}
        (ax,) = plots.learning_figure(curves).axes
        heights = sorted(text.xy[1] for text in ax.texts)
        assert (np.diff(heights) >= 0.05 - 1e-12).all()

    def test_mixed_or_missing_quantities_are_errors(self):
        with pytest.raises(ValueError, match="every curve"):
            plots.learning_figure({"a": {"score": 1.0}, "b": {"cost_usd": 3.0}})
        with pytest.raises(ValueError, match="no curve"):
            plots.learning_figure({})


class TestSave:
    def test_writes_a_png_and_nothing_else(self, tmp_path):
        path = plots.save_figure(plots.score_figure(TABLE), tmp_path / "new" / "score.png")
        assert path == tmp_path / "new" / "score.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert [p.name for p in path.parent.iterdir()] == ["score.png"]

    def test_failure_keeps_the_old_file_and_leaves_no_other(self, tmp_path, monkeypatch):
        figure = plots.score_figure(TABLE)
        (tmp_path / "a.png").write_bytes(b"old")

        def broken(file, **_):
            file.write_bytes(b"half")
            raise RuntimeError("disk")

        monkeypatch.setattr(figure, "savefig", broken)
        with pytest.raises(RuntimeError, match="disk"):
            plots.save_figure(figure, tmp_path / "a.png")
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
        assert (tmp_path / "a.png").read_bytes() == b"old"

    def test_relative_path_and_impossible_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert plots.save_figure(plots.score_figure(TABLE), "a.png").is_file()
        with pytest.raises(UserError):
            plots.save_figure(plots.score_figure(TABLE), "a.png/b.png")


def test_traces_differ_in_what_was_replaced():
    """`dataclasses.replace` works on a trace: its arrays are copied and checked anew."""
    assert replace(make_trace(), agent="other").agent == "other"
