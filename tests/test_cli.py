"""The two command lines as a user sees them: help, files, tags, tables, and a table of bad input."""

import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qevgrid import evaluate, train
from qevgrid.agents import LEARNERS, RIVALS
from qevgrid.envs.errors import UserError
from qevgrid.envs.linear import LinearProgram
from qevgrid.envs.v2g.model import COST_TERMS
from qevgrid.envs.v2g.problem import KPIS, PROBLEM
from qevgrid.runner import loop
from qevgrid.runner.config import load_config
from qevgrid.runner.log import read_scalars
from qevgrid.runner.metrics import table_columns
from qevgrid.runner.schema import RunConfig
from runs import CONFIG, ROOT, Told, call, files_of, rows_of, run_evaluate, run_train, tiny_overrides

PROGRAMS = {"train": train, "evaluate": evaluate}
RUN_FILES = {
    "config.yaml", "meta.json", "metrics.json", "model.zip", "evaluations.csv",
    "checkpoints/step_0000000192.zip", "learning.png", "day.png", "costs.png",
}  # fmt: skip
EVALUATION_FILES = {"table.csv", "episodes.csv", "evaluation.json", "costs.png", "scores.png"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to the repository by a default folder."""
    monkeypatch.chdir(tmp_path)


class Run(NamedTuple):
    """A trained run and what the command line said."""

    path: Path
    told: Told


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One small run, by ``python train.py`` in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return Run(out, python("train.py", "--config", CONFIG, "--seed", 3, "--out", out, *tiny_overrides()))


def python(script: str, *arguments: object) -> Told:
    """A program as a user starts it."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return Told(done.returncode, done.stdout, done.stderr)


# --- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = call(PROGRAMS[name], ["--help"], capsys)
    assert told.code == 0
    for words in ("examples:", f"python {name}.py", "configs/v2g_ppo.yaml", "--config", "--seed", "--out", "key=value"):
        assert words in told.out, words
    assert all(kind in told.out.split("learned agents")[1].split("examples:")[0] for kind in LEARNERS)
    if name == "evaluate":
        assert all(rival in told.out for rivals in RIVALS.values() for rival in rivals.paths)
        assert "table.csv" in told.out


@pytest.mark.parametrize("name", PROGRAMS)
def test_examples_of_the_help_are_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option and key in them exists."""
    lines = [line.strip() for line in call(PROGRAMS[name], ["--help"], capsys).out.splitlines()]
    examples = [shlex.split(line)[2:] for line in lines if line.startswith(f"python {name}.py ")]
    assert len(examples) >= 3
    for words in examples:
        args = PROGRAMS[name]._parser().parse_intermixed_args(words)
        items = args.overrides if name == "train" else [item for item in args.names if "=" in item]
        load_config(RunConfig, ROOT / args.config, items)


def test_keys_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    told = call(train, ["--keys"], capsys)
    assert told.code == 0
    keys = {line.split()[0] for line in told.out.splitlines() if line.strip()}
    assert {"seed", "total_steps", "env.n_sockets", "env.sessions", "env.outage.share", "agent.lr"} <= keys
    (line,) = (line for line in told.out.splitlines() if line.startswith("env.n_sockets "))
    assert ">= 1" in line and "30" in line and "charging sockets" in line


def test_keys_lists_the_agents_keys_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(train, ["--keys"], capsys).out.splitlines()
    keys = [line.split()[0] for line in lines if line.startswith("agent.")]
    ppo, hybrid, vqc = (keys.index(f"agent.kind={kind}") for kind in ("ppo", "hybrid", "vqc"))
    assert "agent.shaping_usd_kwh" in keys[ppo:hybrid] and "agent.shaping_usd_kwh" not in keys[hybrid:vqc]
    assert "agent.sampler" in keys[hybrid:] and "agent.sampler" not in keys[:hybrid]
    assert keys.count("agent.lr") == 4
    rate = next(line for line in lines if line.startswith("agent.lr "))
    assert rate.index("learning rate") < 130  # the sampler's twelve choices do not push everybody's meaning away


# --- training --------------------------------------------------------------------------------------


def test_train_leaves_a_whole_run_folder(trained: Run) -> None:
    assert trained.told.code == 0, trained.told.err
    names = set(files_of(trained.path))
    assert names >= RUN_FILES
    assert any(name.startswith("events.out.tfevents.") for name in names)
    assert all(name in RUN_FILES or "tfevents" in name for name in names)  # nothing temporary is left
    assert all((trained.path / name).read_bytes()[:8] == PNG for name in names if name.endswith(".png"))
    assert f"trained: {trained.path}" in trained.told.out
    assert "tensorboard --logdir" in trained.told.out
    assert "Traceback" not in trained.told.err


def test_the_run_folder_tells_what_was_run(trained: Run) -> None:
    config = load_config(RunConfig, trained.path / "config.yaml")
    assert (config.seed, config.total_steps, config.env.n_sockets, config.agent.n_envs) == (3, 192, 3, 4)
    meta = json.loads((trained.path / "meta.json").read_text(encoding="utf-8"))
    assert meta["seed"] == 3
    assert "env.n_sockets=3" in meta["arguments"]
    found = json.loads((trained.path / "metrics.json").read_text(encoding="utf-8"))
    assert found["steps"] == 192
    rows = rows_of(trained.path / "evaluations.csv")
    assert [row["step"] for row in rows] == ["0", "96", "192"]
    assert found["validation_cost_usd"] == min(float(row["cost_usd"]) for row in rows)
    terms = [float(rows[0][f"cost_{term}_usd"]) for term in COST_TERMS]
    assert sum(terms) == pytest.approx(float(rows[0]["cost_usd"]))


def test_tensorboard_has_the_promised_tags(trained: Run) -> None:
    scalars = read_scalars(trained.path)
    wanted = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "eval/cost_usd", "eval/score"}
    wanted |= {
        f"train/{x}" for x in ("loss", "value_loss", "policy_gradient_loss", "explained_variance", "approx_kl", "std")
    }
    wanted |= {f"cost/{term}_usd" for term in COST_TERMS} | {f"kpi/{name}" for name in KPIS}
    assert wanted <= set(scalars)
    assert scalars["eval/cost_usd"][0].tolist() == [0, 96, 192]  # environment steps
    assert scalars["rollout/ep_rew_mean"][0].tolist() == [96, 192]


def test_tensorboard_has_texts_pictures_hparams_and_a_layout(trained: Run) -> None:
    events = EventAccumulator(str(trained.path))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/learning", "pictures/day", "pictures/costs"}
    metadata = events.summary_metadata
    assert {"config/yaml/text_summary", "custom_scalars__config__"} <= set(metadata)
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert {"final/cost_usd", "final/score"} <= set(events.Tags()["scalars"])


def test_rivals_and_optimum_are_lines_in_the_same_charts(trained: Run) -> None:
    for name in ("idle", "tou", "serve", "optimum"):
        scalars = read_scalars(trained.path / "rivals" / name)
        assert scalars["eval/cost_usd"][0].tolist() == [0, 192]
        assert {f"cost/{term}_usd" for term in COST_TERMS} <= set(scalars)
        assert {"idle": 0.0, "optimum": 1.0}.get(name, scalars["eval/score"][1][0]) == scalars["eval/score"][1][0]


def test_the_default_folder_is_named_after_config_and_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def note(config: RunConfig, out: Path, **_: Any) -> loop.RunFolder:
        asked.append(out)
        return loop.RunFolder(out)

    monkeypatch.setattr(loop, "train", note)
    assert call(train, ["--config", CONFIG, "seed=4"], capsys).code == 0
    assert call(train, ["--config", CONFIG, "--seed", 5, "seed=4"], capsys).code == 0
    assert asked == [Path("runs/v2g_ppo_4"), Path("runs/v2g_ppo_5")]


def test_an_interrupted_run_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is acted by the program's own stop, then the told command line goes on, in its own process."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learning_figure", stop)
        told = run_train(capsys, out, "ruler=False")
    assert told.code == 130
    assert not (out / "metrics.json").exists()
    again = python("train.py", "--config", out / "config.yaml", "--out", out, "--resume")
    assert again.code == 0, again.err
    assert set(files_of(out)) >= RUN_FILES - {"costs.png"}
    assert len(json.loads((out / "meta.json").read_text(encoding="utf-8"))["earlier"]) == 1
    assert read_scalars(out)["eval/cost_usd"][0].tolist() == [0, 96, 192]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


# --- evaluation ------------------------------------------------------------------------------------

AGENTS = ["idle", "tou", "optimum"]


class Evaluated(NamedTuple):
    """An evaluation's folder and what the command line said."""

    path: Path
    told: Told
    run: Path


@pytest.fixture(scope="module")
def evaluated(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """By ``python evaluate.py`` in a process of its own."""
    out = tmp_path_factory.mktemp("results") / "mine"
    fixed = ["--config", CONFIG, "--episodes", 2, "--seed", 1000, "--out", out, "--jobs", 1]
    told = python("evaluate.py", trained.path, *AGENTS, *fixed, *tiny_overrides(), "env.outage.share=0.5")
    return Evaluated(out, told, trained.path)


def test_evaluate_writes_table_episodes_json_and_pictures(evaluated: Evaluated) -> None:
    assert evaluated.told.code == 0, evaluated.told.err
    names = set(files_of(evaluated.path))
    assert names >= EVALUATION_FILES | {"learning.png"}
    days = {name for name in names if name.startswith("day_")}
    assert days and days <= {"day_outage.png", "day_calm.png"}
    assert all((evaluated.path / name).read_bytes()[:8] == PNG for name in names if name.endswith(".png"))
    for name in names:
        assert "tfevents" in name or name in evaluated.told.out, name
    assert "Traceback" not in evaluated.told.err


def test_table_has_a_row_an_agent_and_the_promised_columns(evaluated: Evaluated) -> None:
    rows = rows_of(evaluated.path / "table.csv")
    assert list(rows[0]) == table_columns(PROBLEM)
    assert [row["agent"] for row in rows] == ["small", *AGENTS]
    assert {(row["env"], row["episodes"]) for row in rows} == {("qevgrid/V2G-v0", "2")}
    by_name = {row["agent"]: row for row in rows}
    for name, score in (("idle", 0.0), ("optimum", 1.0)):
        assert {float(by_name[name][key]) for key in ("score", "score_lo", "score_hi")} == {score}
    assert -1e-9 <= float(by_name["optimum"]["gap_share"]) < 0.05
    assert by_name["idle"]["gap_share"] == ""
    assert int(by_name["small"]["parameters"]) > 0
    for row in rows:
        assert float(row["ms_per_decision"]) > 0
        parts = sum(float(row[f"cost_{term}_usd"]) for term in COST_TERMS)
        assert parts == pytest.approx(float(row["cost_usd_mean"]))


def test_the_printed_table_is_the_same_best_first(evaluated: Evaluated) -> None:
    shown = [line.split()[0] for line in evaluated.told.out.splitlines() if line.split()[:1]]
    rows = sorted(rows_of(evaluated.path / "table.csv"), key=lambda row: float(row["cost_usd_mean"]))
    at = shown.index("optimum")
    assert shown[at : at + 4] == [row["agent"] for row in rows]


def test_episodes_have_a_row_an_agent_and_day(evaluated: Evaluated) -> None:
    rows = rows_of(evaluated.path / "episodes.csv")
    assert [(row["agent"], row["seed"]) for row in rows] == [
        (a, s) for a in ("small", *AGENTS) for s in ("1000", "1001")
    ]
    worlds = {(row["seed"], row["fingerprint"]) for row in rows}
    assert len(worlds) == 2  # all agents play the same days
    for table in rows_of(evaluated.path / "table.csv"):
        costs = [float(row["cost_usd"]) for row in rows if row["agent"] == table["agent"]]
        assert sum(costs) / 2 == pytest.approx(float(table["cost_usd_mean"]))


def test_json_holds_the_same(evaluated: Evaluated) -> None:
    found = json.loads((evaluated.path / "evaluation.json").read_text(encoding="utf-8"))
    assert len(found["episodes"]) == 8
    for row, told in zip(rows_of(evaluated.path / "table.csv"), found["table"], strict=True):
        assert row == {key: "" if told[key] is None else str(told[key]) for key in row}
    assert len(found["differences"]) == 3
    assert set(found["days"]) == {"small", *AGENTS}


def test_evaluated_agents_are_lines_in_tensorboard(evaluated: Evaluated) -> None:
    for row in rows_of(evaluated.path / "table.csv"):
        steps, values = read_scalars(evaluated.path / "tensorboard" / row["agent"])["eval/cost_usd"]
        assert steps.tolist() == [0, 192]
        assert values[0] == pytest.approx(float(row["cost_usd_mean"]), rel=1e-5)


def test_the_same_command_gives_the_same_table(
    evaluated: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_evaluate(capsys, tmp_path / "again", evaluated.run, *AGENTS, "--seed", 1000, "env.outage.share=0.5")
    assert again.code == 0, again.err
    first, second = (timeless(folder / "table.csv") for folder in (evaluated.path, tmp_path / "again"))
    assert first == second
    other = run_evaluate(capsys, tmp_path / "other", *AGENTS, "--seed", 7, "env.outage.share=0.5")
    assert other.code == 0
    assert timeless(tmp_path / "other" / "table.csv") != first[1:]


def timeless(path: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "ms_per_decision"} for row in rows_of(path)]


def test_only_earlier_results_are_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "mine"
    fixed = ["idle", "--no-ruler"]
    assert run_evaluate(capsys, out, *fixed).code == 0
    assert rows_of(out / "table.csv")[0]["score"] == ""  # no ruler
    (out / "old.txt").touch()
    assert run_evaluate(capsys, out, *fixed, "--overwrite", "--episodes", 1).code == 0
    assert rows_of(out / "table.csv")[0]["episodes"] == "1"
    assert not (out / "old.txt").exists()
    before = files_of(tmp_path)
    for folder in (out.parent, tmp_path):
        assert_refused(run_evaluate(capsys, folder, *fixed, "--overwrite"), str(folder), "pass --out OTHER")
    assert files_of(tmp_path) == before


def test_runs_of_one_name_are_told_apart(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin, odd = tmp_path / "more" / "small", tmp_path / "more" / "idle"
    for copy in (twin, odd):
        shutil.copytree(trained.path, copy)
    assert run_evaluate(capsys, tmp_path / "out", trained.path, twin, odd, "idle", "--no-ruler").code == 0
    names = [row["agent"] for row in rows_of(tmp_path / "out" / "table.csv")]
    assert names == [str(trained.path), str(twin), str(odd), "idle"]


# --- the user's own files --------------------------------------------------------------------------

FIRST = datetime(2024, 5, 1)
DAYS = 12
SESSIONS_HEADER = "arrival,departure,energy_kwh"


def hours(day: int, hour: float) -> str:
    return (FIRST + timedelta(days=day, hours=hour)).isoformat(sep=" ", timespec="minutes")


def session_rows() -> Iterator[str]:
    """Day d: two cars that ask for d + 5 kWh, so that the days can be told apart."""
    for day in range(DAYS):
        yield f"{hours(day, 8)},{hours(day, 15)},{day + 5}"
        yield f"{hours(day, 9)},{hours(day, 18)},{day + 5}"


def price_rows() -> Iterator[str]:
    for day in range(DAYS + 1):
        yield from (f"{hours(day, h)},{0.1 + day / 100 + (h >= 16) / 10:.3f}" for h in range(24))


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def own_files(tmp_path: Path) -> list[str]:
    """``key=value`` of good sessions and prices."""
    cars = write(tmp_path / "cars.csv", SESSIONS_HEADER, list(session_rows()))
    prices = write(tmp_path / "prices.csv", "time,price_usd_kwh", list(price_rows()))
    return [f"env.sessions={cars}", f"env.prices={prices}"]


def test_own_files_train_and_evaluate_on_days_apart(
    own_files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    splits: dict[str, set[int]] = {}
    note_days(monkeypatch, splits)
    told = run_train(capsys, tmp_path / "run", *own_files)
    assert told.code == 0, told.err
    assert set(splits) == {"train"}
    report = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["files"]
    assert report["sessions.rows"] == 2 * DAYS
    assert report["days_train"] + report["days_held_out"] >= DAYS - 1
    told = run_evaluate(capsys, tmp_path / "out", tmp_path / "run", "idle", "optimum", *own_files, "--episodes", 4)
    assert told.code == 0, told.err
    assert set(splits) == {"train", "held_out"}
    assert f"{2 * DAYS} rows" in told.out or f"{2 * DAYS} sessions" in told.out
    assert len(splits["held_out"]) == report["days_held_out"]
    assert max(splits["train"]) < min(splits["held_out"])


def note_days(monkeypatch: pytest.MonkeyPatch, splits: dict[str, set[int]]) -> None:
    """Note the days of every core that is built."""
    from qevgrid.envs.v2g import core

    load: Callable[..., Any] = core.load_days

    def noting(plant: Any) -> Any:
        days = load(plant)
        splits.setdefault(plant.params.split, set()).update(days.day.tolist())
        return days

    monkeypatch.setattr(core, "load_days", noting)


# --- bad input -------------------------------------------------------------------------------------


def assert_refused(told: Told, *said: str) -> None:
    """Exit code 2 and one line (or a header and a list) with these words."""
    assert told.code == 2, told
    lines = [line for line in told.err.splitlines() if not line.startswith(("usage:", "       ", "                "))]
    assert lines and lines[0].startswith("error: "), told.err
    assert len(lines) == 1 or (lines[0].endswith(":") and all(line.startswith("  ") for line in lines[1:])), told.err
    assert "Traceback" not in told.err
    for words in said:
        assert words in told.err, told.err


KEYS = {
    "unknown key": (["env.n_socket=5"], ["env.n_socket", "unknown key", "did you mean 'n_sockets'"]),
    "unknown section": (["agents.lr=1"], ["agents", "did you mean 'agent'"]),
    "unknown top-level key": (["total_step=5"], ["did you mean 'total_steps'"]),
    "unknown kind": (["agent.kind=hybird"], ["agent.kind", "unknown kind 'hybird'", "did you mean 'hybrid'"]),
    "no kind": (["agent={lr: 1e-3}"], ["agent.kind: missing; choose one of: ppo, hybrid"]),
    "unknown key of a kind": (["agent={kind: hybrid, samplr: neal}"], ["agent.samplr", "did you mean 'sampler'", "known: kind, sampler"]),
    "a key of another kind": (["agent={kind: hybrid, shaping_usd_kwh: 0.2}"], ["agent.shaping_usd_kwh", "unknown key"]),
    "wrong type": (["env.n_sockets=many"], ["env.n_sockets", "'many'", "integer"]),
    "a text for a section": (["env.charger=big"], ["env.charger", "section", "power_kw"]),
    "negative capacity": (["env.session.battery_kwh=[50.0, -60.0]"], ["env.session.battery_kwh[1]", "greater than 0", "-60"]),
    "negative power": (["env.site.critical_kw=-1"], ["env.site.critical_kw", "greater than or equal to 0", "-1"]),
    "no sockets": (["env.n_sockets=0"], ["env.n_sockets", "greater than or equal to 1"]),
    "a stage that divides no day": (["env.dt_h=0.7"], ["dt_h=0.7", "try 0.25, 0.5 or 1"]),
    "no choice": (["env.action=boxes"], ["env.action", "'box' or 'levels'"]),
    "no number": (["env.cost.wear_usd_kwh=.nan"], ["env.cost.wear_usd_kwh"]),
    "no finite number": (["env.site.pv_kw=.inf"], ["env.site.pv_kw", "finite"]),
    "no value": (["env.n_sockets="], ["'env.n_sockets='", "no value"]),
    "a bus that is not there": (["env.site.bus=[99]"], ["site.bus=99", "1 to 32"]),
    "a feeder that is not there": (["env.grid.feeder=case34"], ["case34"]),
    "sessions that are not there": (["env.sessions=cars.csv"], ["env.sessions='cars.csv'", "neither a kind nor a file"]),
    "a kind misspelt": (["env.sessions=residental"], ["did you mean 'residential'"]),
    "two at once": (["env.n_sockets=0", "agent.lr=2"], ["env.n_sockets", "agent.lr"]),
}  # fmt: skip


@pytest.mark.parametrize("case", KEYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_keys(name: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, said = KEYS[case]
    out = tmp_path / "out"
    told = run_train(capsys, out, *overrides) if name == "train" else run_evaluate(capsys, out, "idle", *overrides)
    assert_refused(told, *said)
    assert not out.exists()


class BadFile(NamedTuple):
    """A file of the user's that is wrong."""

    key: str
    make: Callable[[Path], object]
    said: tuple[str, ...]


def sessions_with(row: str, header: str = SESSIONS_HEADER) -> Callable[[Path], object]:
    return lambda path: write(path, header, [*session_rows(), row])


def prices_without(*gone: int) -> Callable[[Path], object]:
    rows = list(price_rows())
    return lambda path: write(path, "time,price_usd_kwh", [row for i, row in enumerate(rows) if i not in gone])


FILES = {
    "departure before arrival": BadFile(
        "sessions", sessions_with(f"{hours(2, 15)},{hours(2, 8)},7"), (f"row {2 * DAYS + 2}", "departure", "before")
    ),
    "negative energy": BadFile("sessions", sessions_with(f"{hours(2, 8)},{hours(2, 15)},-7"), (f"row {2 * DAYS + 2}", "-7")),
    "missing column": BadFile("sessions", lambda path: write(path, "arrival,departure", [f"{hours(1, 8)},{hours(1, 9)}"]), ("energy_kwh",)),
    "empty sessions": BadFile("sessions", Path.touch, ("is empty",)),
    "unreadable sessions": BadFile("sessions", lambda path: path.write_bytes(b"\x1f\x8b\xff\x00"), ("gzip",)),
    "too few days": BadFile("sessions", lambda path: write(path, SESSIONS_HEADER, list(session_rows())[:2]), ("at least 4 days",)),
    "a gap in the prices": BadFile("prices", prices_without(*range(30, 40)), ("row ", "gap of ", "env.price_fill_h")),
    "missing price column": BadFile("prices", lambda path: write(path, "time,cost", ["2024-05-01 00:00,1"]), ("price",)),
    "a price that is no number": BadFile(
        "prices", lambda path: write(path, "time,price_usd_kwh", [*price_rows(), f"{hours(DAYS + 1, 0)},high"]), ("row ", "'high'")
    ),
    "empty prices": BadFile("prices", Path.touch, ("is empty",)),
    "binary prices": BadFile("prices", lambda path: path.write_bytes(b"\xff\xfe\x00\x9f"), ("bad.csv",)),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_files(name: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, path, out = FILES[case], tmp_path / "bad.csv", tmp_path / "out"
    bad.make(path)
    key = f"env.{bad.key}={path}"
    told = run_train(capsys, out, key) if name == "train" else run_evaluate(capsys, out, "idle", key)
    assert_refused(told, "bad.csv", *bad.said)
    assert "\n" not in told.err.strip()
    assert not out.exists()


CONFIG_FILES = {
    "nonexistent": (None, ["v2g_pp.yaml: no such file", "did you mean", "v2g_ppo.yaml"]),
    "not YAML": (b"env: [1, 2\n", ["v2g_pp.yaml: line "]),
    "binary": (b"\xff\xfe\x00", ["v2g_pp.yaml: not a text file"]),
    "unknown key": (b"env: {n_socket: 5}\n", ["v2g_pp.yaml: env.n_socket", "did you mean 'n_sockets'"]),
    "a key twice": (b"seed: 1\nseed: 2\n", ["v2g_pp.yaml: line 2", "duplicate key 'seed'"]),
}


@pytest.mark.parametrize("case", CONFIG_FILES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_bad_config_files(name: str, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = CONFIG_FILES[case]
    shutil.copy(CONFIG, tmp_path / "v2g_ppo.yaml")
    config, out = tmp_path / "v2g_pp.yaml", tmp_path / "out"
    if content is not None:
        config.write_bytes(content)
    names = ["idle"] if name == "evaluate" else []
    assert_refused(call(PROGRAMS[name], ["--config", config, "--out", out, *names], capsys), *said)
    assert not out.exists()


ARGUMENTS = {
    "no config": ("train", [], ["--config is required", "train.py --help"]),
    "evaluate without config": ("evaluate", ["idle"], ["--config is required", "evaluate.py --help"]),
    "negative seed": ("train", ["--config", CONFIG, "--seed", "-1"], ["seed", "greater than or equal to 0", "-1"]),
    "too large a seed": ("train", ["--config", CONFIG, "--seed", 2**19], ["seed", "less than 524288"]),
    "a seed that is no number": ("train", ["--config", CONFIG, "--seed", "x"], ["--seed", "'x'"]),
    "an option misspelt": ("train", ["--config", CONFIG, "--outt", "x"], ["--outt", "did you mean --out?"]),
    "an override without value": ("train", ["--config", CONFIG, "seed"], ["'seed'", "expected key=value"]),
    "no agent": ("evaluate", ["--config", CONFIG], ["no agent named", "rolling_reserve"]),
    "unknown agent": ("evaluate", ["--config", CONFIG, "optimun"], ["'optimun'", "did you mean 'optimum'?"]),
    "a folder that is not there": ("evaluate", ["--config", CONFIG, "runs/none"], ["'runs/none'", "neither a rival nor a run folder"]),
    "an agent twice": ("evaluate", ["--config", CONFIG, "idle", "tou", "idle"], ["idle: named more than once"]),
    "no episodes": ("evaluate", ["--config", CONFIG, "idle", "--episodes", 0], ["--episodes 0: at least 1"]),
    "negative evaluation seed": ("evaluate", ["--config", CONFIG, "idle", "--seed", "-3"], ["--seed -3", "0 to 4294967276"]),
    "a training seed": ("evaluate", ["--config", CONFIG, "idle", "--seed", 2**32], ["--seed 4294967296", "training uses"]),
    "no processes": ("evaluate", ["--config", CONFIG, "idle", "--jobs", 0], ["--jobs 0: at least 1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, arguments, said = ARGUMENTS[case]
    assert_refused(call(PROGRAMS[name], [*arguments, "--out", tmp_path / "out"], capsys), *said)
    assert files_of(tmp_path) == {}


def test_a_refusal_as_the_shell_sees_it(tmp_path: Path) -> None:
    told = python("train.py", "--config", CONFIG, "--out", tmp_path / "out", "env.n_socket=5")
    assert_refused(told, "did you mean 'n_sockets'")
    assert told.out == ""
    assert not (tmp_path / "out").exists()


def test_a_run_folder_that_exists(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(trained.path)
    assert_refused(run_train(capsys, trained.path), str(trained.path), "not empty", "--resume", "--out OTHER")
    other = run_train(capsys, trained.path, "--resume", "agent.lr=0.5", "seed=3")
    assert_refused(other, "config.yaml: differs", "agent.lr", "--out OTHER")
    assert_refused(run_evaluate(capsys, trained.path, "idle"), str(trained.path), "not empty", "--overwrite")
    assert_refused(run_evaluate(capsys, trained.path, "idle", "--overwrite"), str(trained.path), "--out OTHER")
    assert files_of(trained.path) == before


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(run_train(capsys, tmp_path / "none", "--resume"), "none", "nothing to resume", "leave out --resume")
    assert files_of(tmp_path) == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_where_the_folder_should_be(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        told = run_train(capsys, out) if name == "train" else run_evaluate(capsys, out, "idle", "--overwrite")
        assert_refused(told, str(tmp_path / "out"), "--out OTHER")
    assert files_of(tmp_path) == {"out": b"mine"}


def test_models_that_cannot_be_used(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(trained.path, damaged)
    (damaged / "model.zip").write_bytes(b"zip?")
    (unfinished := tmp_path / "unfinished").mkdir()
    shutil.copy(trained.path / "config.yaml", unfinished)
    cases = {
        "trained on observations": [trained.path, "env.site.bus=[17, 24]"],
        "is not a readable model": [damaged],
        "no model.zip": [unfinished],
        "not a run folder": [tmp_path],
        "this is a file": [trained.path / "model.zip"],
        "named more than once": [trained.path, f"{trained.path}/../{trained.path.name}"],
    }
    for said, arguments in cases.items():
        assert_refused(run_evaluate(capsys, tmp_path / "out", *arguments), said, str(arguments[0]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_solver_without_a_solution(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solve, out = LinearProgram.solve, tmp_path / "out"
    monkeypatch.setattr(
        LinearProgram, "solve", lambda self, **options: solve(self, **(options | {"time_limit_s": 0.0}))
    )
    told = run_train(capsys, out) if name == "train" else run_evaluate(capsys, out, "idle")
    assert_refused(told, "HiGHS found no solution in 0 s", "raise the solver's time limit")
    assert not out.exists()


def test_a_failed_evaluation_keeps_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_evaluate(capsys, out, "idle", "--no-ruler").code == 0
    before = files_of(out)

    def fail(*_: object, **__: object) -> None:
        raise UserError("no solution; raise the time limit")

    monkeypatch.setattr("qevgrid.runner.evaluation.play_spread", fail)
    assert_refused(run_evaluate(capsys, out, "idle", "--overwrite"), "no solution")
    assert files_of(out) == before


def test_scores_are_numbers_or_nothing(evaluated: Evaluated) -> None:
    for row in rows_of(evaluated.path / "table.csv"):
        assert all(math.isfinite(float(row[key])) for key in ("score", "score_lo", "score_hi", "cvar95_usd"))
