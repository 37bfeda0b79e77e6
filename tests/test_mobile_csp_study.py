"""The rolling MILP of Mobile CSP, and the study command on the mini world."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from qevgrid.agents import make_rival
from qevgrid.agents.mobile_csp import rolling_milp
from qevgrid.agents.mobile_csp.rolling_milp import RollingMILP
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.runner.rollout import begin, play

SEED = 100
"""A storm of ``mini`` in which idle units lose 240,000 USD."""
CALM = 102
"""One at whose end nothing is left to do."""
MODULES = ("mobile_csp_study", "mobile_csp_tables", "mobile_csp_play", "common")


@pytest.fixture(scope="module")
def mini():
    return MobileCore(MobileCSPParams(preset="mini"))


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import mobile_csp_study

    yield mobile_csp_study
    for name in MODULES:
        sys.modules.pop(name, None)


def test_the_program_ahead_beats_resting_and_says_how_often_it_was_proven(mini):
    seeds = [SEED, CALM]
    found = play(mini, RollingMILP(horizon=4), seeds)
    idle = play(mini, make_rival("idle", problem_id=mini.params.id), seeds)
    assert np.all(found.total_usd < 0.8 * idle.total_usd)
    assert np.all(found.report["milp/no_plan_share"] == 0.0)  # to rest is a plan
    assert np.all(found.report["milp/proven_share"] > 0.9)


def test_a_longer_look_ahead_sees_what_a_short_one_does_not(mini):
    usd = [play(mini, RollingMILP(horizon=h), [SEED]).total_usd[0] for h in (1, 4)]
    assert usd[1] < usd[0]  # in one period no unit arrives anywhere


def test_without_a_plan_the_last_one_goes_on_and_then_units_stay(mini, monkeypatch):
    agent, batch = RollingMILP(horizon=3), begin(mini, [SEED])
    agent.begin({"view": batch.view()})
    first = agent.act(None, {"view": batch.view()})
    plan = agent._last[0]

    def nothing(*_):
        raise UserError("nothing in time")

    monkeypatch.setattr(rolling_milp.MobileProgram, "solve", nothing)
    assert np.array_equal(first.site[0], plan.site[0])
    for t in range(4):
        batch.step(agent.act(None, {"view": batch.view()}))
        action = agent.act(None, {"view": batch.view()})
        if t + 1 < 3:
            assert np.array_equal(action.site[0], plan.site[t + 1])
        else:
            assert np.all(action.site == STAY) and np.all(action.share == AUTO)
    assert agent.report()["milp/no_plan_share"][0] > 0.8
    fresh = RollingMILP(horizon=3)
    assert np.all(fresh.act(None, {"view": begin(mini, [SEED]).view()}).site == STAY)  # no last plan either


def test_the_study_plays_keeps_shows_and_goes_on(study, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study.common, "use_one_core", lambda: None)
    words = [
        "greedy",
        "hybrid_scenarios",
        "--preset",
        "mini",
        "--units",
        "2",
        "3",
        "--rounds",
        "5",
        "--out",
        str(tmp_path),
    ]
    assert study.main([*words, "--episodes", "1"]) == 0
    told = capsys.readouterr().out
    assert "M = 2 (mini), 1 storms, seeds 1000 to 1000" in told and "M = 3 (mini)" in told
    assert "| greedy " in told and "simulated annealing" in told and "rolling MILP" not in told
    assert (tmp_path / "study.png").stat().st_size > 10_000
    file = tmp_path / "parts/mini_m002/greedy.json"
    before = json.loads(file.read_text())["storms"]
    assert study.main([*words, "--episodes", "2"]) == 0  # one storm more; the others are not played again
    after = json.loads(file.read_text())["storms"]
    assert [after[seed] for seed in before] == list(before.values()) and len(after) == 2
    capsys.readouterr()
    monkeypatch.setattr(study, "study", None)  # nothing is played
    assert study.main(["--show", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "2 storms" in told
    rows = json.loads((tmp_path / "study.json").read_text())["mini, M = 2"]
    usd = {row["agent"]: row for row in rows}
    assert usd["idle"]["score"]["value"] == 0.0 and usd["optimum"]["score"]["value"] == 1.0
    assert usd["rolling"]["less_rolling_usd"]["value"] == 0.0 and usd["rolling"]["times_rolling"] == 1.0
    core = MobileCore(MobileCSPParams(preset="mini"))
    played = play(core, make_rival("greedy", problem_id=core.params.id), [1000, 1001])
    assert usd["greedy"]["usd"] == pytest.approx(played.total_usd.mean())  # M = 2 is the preset's own world


def test_other_settings_or_worlds_are_not_mixed(study, tmp_path):
    words = ["idle", "--preset", "mini", "--units", "2", "--episodes", "1", "--rounds", "2", "--jobs", "1"]
    arguments = study.parse_arguments([*words, "--out", str(tmp_path)])
    study.study(arguments)
    file = tmp_path / "parts/mini_m002/optimum.json"
    assert json.loads(file.read_text())["settings"] == "2 rounds"
    arguments.rounds = 3
    study.study(arguments)
    assert json.loads(file.read_text())["settings"] == "3 rounds"
    part = json.loads(file.read_text())
    part["storms"]["1000"]["fingerprint"] = "another"
    file.write_text(json.dumps(part))
    with pytest.raises(UserError, match="not the same"):
        study.report(study.load(tmp_path))


def test_the_program_plays_few_storms_and_is_paired_on_them(study):
    from mobile_csp_tables import difference, same

    seats = study.seats(study.parse_arguments(["--units", "2", "8"]))
    found = {(seat.name, seat.n_units): seeds for seat, seeds in seats}
    assert found["rolling_milp", 2] == [1000, 1001, 1002] and ("rolling_milp", 8) not in found
    assert len(found["hybrid", 8]) == 32 and ("hybrid_scenarios", 2) not in found
    many = {str(s): {"usd": 10.0 + s, "fingerprint": str(s), "need_mwh": 1.0} for s in range(5)}
    few = {seed: many[seed] | {"usd": many[seed]["usd"] + 4.0 - int(seed)} for seed in ("0", "1", "2")}
    a, b = {"agent": "a", "storms": few}, {"agent": "b", "storms": many}
    assert same(b, a) == ["0", "1", "2"]
    d = difference(a, b)
    assert d.value == pytest.approx(3.0)
    assert d.hi - 3.0 == pytest.approx(4.302653 / np.sqrt(3))  # Student's t, 2 degrees of freedom, deviation 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gredy"], "did you mean 'greedy'"),
        (["--units", "0"], "--units 0: a fleet has at least 1 unit"),
        (["--episodes", "0"], "--episodes 0: must be at least 1"),
        (["--jobs", "0"], "--jobs 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--show"], "holds no storm"),
    ],
)
def test_errors_are_one_line(study, words, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study.common, "use_one_core", lambda: None)
    assert study.main([*words, "--out", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
