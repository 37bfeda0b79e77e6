"""Traces and pictures of Mobile CSP."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from qevgrid.envs.mobile_csp.recorder import tree_layout
from qevgrid.envs.mobile_csp.trace import StormTrace, way_done
from qevgrid.envs.mobile_csp.viewer import along, render_frame

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
