"""Traces and pictures of Mobile CSP."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from qevgrid.envs.mobile_csp.recorder import tree_layout
from qevgrid.envs.mobile_csp.storm_map import along
from qevgrid.envs.mobile_csp.trace import StormTrace, way_done
from qevgrid.envs.mobile_csp.viewer import ABREAST, Painter, render_frame, round_up, save_gif, storm_figure

CSP = "qevgrid/MobileCSP-v0"


def played(**options: Any) -> tuple[Any, float]:
    env: Any = gym.make(CSP, preset="mini", render_mode="rgb_array", **options).unwrapped
    _, info = env.reset(seed=4)
    rng, over, usd = np.random.default_rng(0), False, 0.0
    while not over:
        mask = info["action_mask"]
        pick = (rng.random(mask.shape) * mask).argmax(-1)
        over, info = env.step(pick)[2::2]
        usd += info["cost_usd"]
    return env, usd


@pytest.mark.parametrize("form", ["joint", "sequential"])
@pytest.mark.parametrize("preposition", [False, True])
def test_trace_and_frame(form: str, preposition: bool) -> None:
    env, usd = played(form=form, preposition=preposition)
    trace = env.trace("random")
    assert trace.stage.tolist() == list(range(-int(preposition), 25))
    assert trace.total_usd == pytest.approx(usd)
    assert (trace.served_kw <= trace.need_kw + 1e-9).all()
    gain = np.diff(trace.unit_kwh, axis=0)
    flow = np.where(trace.unit_kw > 0, trace.unit_kw / 0.95, trace.unit_kw * 0.95)[1:]
    assert np.allclose(gain, -flow * trace.dt_h)
    again = StormTrace.from_dict(json.loads(json.dumps(trace.to_dict())))
    frame = render_frame(trace)
    assert frame.shape == (720, 1100, 3)
    assert np.array_equal(frame, render_frame(again))
    assert not np.array_equal(frame, render_frame(trace, 0))
    assert render_frame(trace, 3, 550, 360).shape == (360, 550, 3)


def test_agents_on_one_storm_stand_in_rows_on_one_scale() -> None:
    trace = played()[0].trace("random")
    dear = replace(trace, cost_usd=10 * trace.cost_usd)
    figure = storm_figure([trace] * ABREAST + [dear])
    axes = np.array(figure.axes).reshape(2, 3, ABREAST)
    tops = {ax.get_ylim()[1] for ax in [*axes[0, 2], axes[1, 2, 0]]}
    assert len(tops) == 1 and tops.pop() >= np.maximum(dear.cost_usd, 0.0).sum() / 1e3
    assert [ax.axison for ax in axes[1, 2]] == [True] + [False] * (ABREAST - 1)


def test_a_frame_of_a_reset() -> None:
    env: Any = gym.make(CSP, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    assert env.render().std() > 10


def test_where_units_are_on_their_way() -> None:
    done = way_done(4, np.array([8, 4, 5]), np.array([2, 0, 4]))
    assert done.tolist() == [pytest.approx(1 / 3), 1.0, 0.0]
    assert along(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]]), 0.5) == pytest.approx((1.0, 1.0))


def test_the_feeders_longest_branch_is_drawn_straight() -> None:
    """0-1-2-3 and 1-4: the longer one keeps the row, the other goes below."""
    place = tree_layout(np.array([[0, 1], [1, 2], [1, 4], [2, 3]]))
    assert place[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 2.0]
    assert place[:, 1].tolist() == [0.0, 0.0, 0.0, 0.0, -1.0]


def test_a_trace_names_unknown_keys() -> None:
    with pytest.raises(ValueError, match="unknown keys \\['x'\\]"):
        StormTrace.from_dict({"x": 1})


def test_a_painter_keeps_only_what_stays() -> None:
    """Frames in any order are those of new painters."""
    trace = played()[0].trace()
    painter = Painter(550, 360)
    for moment in (20, 3, 3, -1, 0):
        assert np.array_equal(painter.frame(trace, moment), render_frame(trace, moment, 550, 360))


def test_an_environment_draws_what_its_trace_shows() -> None:
    """Also when scales have changed and after another reset."""
    env: Any = gym.make(CSP, preset="mini", render_mode="rgb_array").unwrapped
    for seed in (4, 5):
        env.reset(seed=seed)
        for _ in range(6):
            env.step(env.action_space.sample())
            frame = env.render()
        assert np.array_equal(frame, render_frame(env.trace()))


def test_scales_are_round() -> None:
    assert [round_up(x) for x in (100.0, 101.0, 0.3, 6.9, 7.1, 1000.0)] == pytest.approx([100, 150, 0.3, 7, 10, 1000])


def test_a_storm_as_gif(tmp_path: Path) -> None:
    trace = played()[0].trace("random")
    save_gif(trace, tmp_path / "storm.gif", width_px=440, frame_ms=100)
    with Image.open(tmp_path / "storm.gif") as film:
        assert (film.size, film.n_frames, film.info["loop"]) == ((440, 288), 25, 0)
        film.seek(12)
        frame = np.asarray(film.convert("RGB"), float)
    assert np.abs(frame - render_frame(trace, 12, 440, 288)).mean() < 3.0


@pytest.mark.filterwarnings("default")  # of moviepy
def test_gymnasium_records_a_video(tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="comes with the extra video")
    env = gym.wrappers.RecordVideo(
        gym.make(CSP, preset="mini", n_periods=4, render_mode="rgb_array"), str(tmp_path / "film")
    )
    env.reset(seed=0)
    while not env.step(env.action_space.sample())[2]:
        pass
    env.close()
    assert (tmp_path / "film" / "rl-video-episode-0.mp4").stat().st_size > 1000
