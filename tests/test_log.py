"""What a run tells people: TensorBoard, read back by TensorBoard itself, and the terminal."""

import argparse
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.backend_context import Context
from torch.utils.tensorboard import SummaryWriter

from qevgrid.envs.errors import UserError
from qevgrid.runner import cli, log


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def text_of(folder: Path, tag: str) -> bytes:
    return events(folder).Tensors(tag)[0].tensor_proto.string_val[0]


def hparams_tab(folder: Path) -> Any:
    """Ask TensorBoard's own HPARAMS plugin for its columns over all runs in ``folder``."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context, request = Context(SimpleNamespace(data_provider=provider)), RequestContext()
    metadata = context.hparams_metadata(request, "")
    return context.experiment_from_metadata(request, "", True, metadata, [])


def test_config_is_a_code_block(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        log.add_config(writer, "a: 1\nb:\n  c: 2\n")
    assert text_of(tmp_path, "config/yaml/text_summary") == b"```yaml\na: 1\nb:\n  c: 2\n```"


def test_hparams_of_different_agents_share_the_tab(tmp_path: Path) -> None:
    for name, hparams in [("ppo", {"lr": 1e-3}), ("hybrid", {"reads": 100, "on": True, "x": None})]:
        with SummaryWriter(tmp_path / name) as writer:
            log.add_hparams(writer, {"agent": hparams, "kind": name}, {"eval/score": 0.5}, step=40)
    tab = hparams_tab(tmp_path)
    columns = {info.name for info in tab.hparam_infos}
    assert columns == {"kind", "agent.lr", "agent.reads", "agent.on", "agent.x"}
    assert {(m.name.group, m.name.tag) for m in tab.metric_infos} == {("", "eval/score")}
    assert {p.name for p in tmp_path.rglob("*") if p.is_dir()} == {"hybrid", "ppo"}
    steps, values = log.read_scalars(tmp_path / "ppo")["eval/score"]
    assert (steps.tolist(), values.tolist()) == ([40], [0.5])


def test_hparams_without_a_step_log_no_point(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        log.add_scalars_flat(writer, {"eval/score": 0.25}, 7)
        log.add_hparams(writer, {"lr": 1e-3}, {"eval/score": 0.25})
        with pytest.raises(ValueError, match="metrics must not be empty"):
            log.add_hparams(writer, {"lr": 1e-3}, {})
    assert log.read_scalars(tmp_path)["eval/score"][0].tolist() == [7]


def test_hparam_values_are_numbers_or_text() -> None:
    given = {"a": {"b": np.float32(0.5), "c": True}, "d": (64, 64), "e": None, "f": "x", "g": 3}
    read = log._hparam_values(given)
    expected = {"a.b": 0.5, "a.c": "true", "d": "[64, 64]", "e": "null", "f": "x", "g": 3.0}
    assert read == expected


TAGS = [
    *("train/loss", "kpi/peak_kw", "rollout/ep_rew_mean", "cost/grid_usd", "eval/cost_usd"),
    *("eval/score", "eval/score_low", "time/fps", "costly", "cost/aging_usd", "kpi/peak_kw"),
]


def test_layout_sorts_the_tags_into_categories() -> None:
    layout = log.comparison_layout(iter(TAGS))
    assert {category: list(charts) for category, charts in layout.items()} == {
        "score and cost": ["eval/score", "eval/cost_usd"],
        "cost parts": ["cost/aging_usd", "cost/grid_usd"],
        "learning": ["rollout/ep_rew_mean", "train/loss"],
        "operation": ["kpi/peak_kw"],
    }
    assert log.comparison_layout(["time/fps"]) == {}


def test_layout_is_written_and_matches_just_its_tags(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        log.add_layout(writer, log.comparison_layout(TAGS))
    read = Layout.FromString(text_of(tmp_path, "custom_scalars__config__"))
    assert read.category[0].title == "score and cost"
    (pattern,) = read.category[0].chart[0].multiline.tag
    assert [tag for tag in TAGS if re.match(pattern, tag)] == ["eval/score"]


def figure() -> Figure:
    made = Figure(figsize=(2, 1), dpi=50, facecolor=(1, 0, 0))
    made.add_axes((0.5, 0, 0.5, 1)).set_axis_off()
    return made


def test_figure_is_an_image_of_its_size(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        log.add_figure(writer, "plots/day", figure(), 12)
    (image,) = events(tmp_path).Images("plots/day")
    assert (image.step, image.width, image.height) == (12, 100, 50)
    rgb = log.figure_to_rgb(figure())
    assert rgb.shape == (50, 100, 3)
    assert (rgb[:, :40] == (255, 0, 0)).all()


def test_scalars_are_flat_and_complete(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(12_000):  # TensorBoard thins out to 10,000 by default
            log.add_scalars_flat(writer, {"cost": {"grid_usd": step / 2, "gap": None}}, step)
    assert [path.is_file() for path in tmp_path.iterdir()] == [True]
    scalars = log.read_scalars(tmp_path)
    assert list(scalars) == ["cost/grid_usd"]
    steps, values = scalars["cost/grid_usd"]
    np.testing.assert_array_equal(steps, np.arange(12_000))
    np.testing.assert_array_equal(values, np.arange(12_000) / 2)


def test_flat_line_spans_the_learners_steps(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        log.flat_line(writer, "eval/score", 0.75, np.array([0, 500, 2000]))
        with pytest.raises(ValueError, match="steps must not be empty"):
            log.flat_line(writer, "eval/score", 1.0, [])
    steps, values = log.read_scalars(tmp_path)["eval/score"]
    assert (steps.tolist(), values.tolist()) == ([0, 500, 2000], [0.75] * 3)


def test_resumed_run_reads_as_one(tmp_path: Path) -> None:
    for first in (0, 10):
        with SummaryWriter(tmp_path, filename_suffix=f".{first}") as writer:
            log.add_scalars_flat(writer, {"a": first}, first)
    assert log.read_scalars(tmp_path)["a"][0].tolist() == [0, 10]


def test_a_folder_without_events_is_the_users_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="no TensorBoard event files; pass the folder of a run"):
            log.read_scalars(path)


def test_imports_stay_light_and_without_pyplot() -> None:
    code = """
import sys, tempfile
from qevgrid.runner import cli, config, folder, log
heavy = {"torch", "tensorboard", "matplotlib", "tqdm"} & set(sys.modules)
assert not heavy, heavy
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
with SummaryWriter(tempfile.mkdtemp()) as writer:
    log.add_figure(writer, "a", Figure(), 0)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the terminal ---


def test_run_cli_exit_codes_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> int:
        raise error

    assert cli.run_cli(lambda: None) == 0
    assert cli.run_cli(lambda: 3) == 3
    assert cli.run_cli(lambda: fail(UserError("x.yaml:\n  a: b\n  c: d"))) == 2
    assert capsys.readouterr().err == "error: x.yaml:\n  a: b\n  c: d\n"
    assert cli.run_cli(lambda: fail(KeyboardInterrupt("saved runs/a; add --resume"))) == 130
    assert "interrupted: saved runs/a; add --resume\n" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a bug of ours keeps its traceback
        cli.run_cli(lambda: fail(ZeroDivisionError()))


def parser() -> argparse.ArgumentParser:
    made = cli.Parser(prog="train.py")
    made.add_argument("--config", required=True)
    made.add_argument("--seed", type=int)
    cli.add_overrides(made)
    return made


def test_overrides_may_stand_between_options() -> None:
    argv = ["a.b=1", "--config", "x", "c=2", "--seed", "3", "d=-1"]
    assert cli.parse_args(parser(), argv).overrides == ["a.b=1", "c=2", "d=-1"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["--config", "x", "--sed", "3"],
            "error: unrecognized arguments: --sed; did you mean --seed?",
        ),
        (["--config", "x", "--agent.lr=3"], "a setting is written without dashes: agent.lr=VALUE"),
        (["--conf", "x"], "the following arguments are required: --config; see train.py --help"),
        (["--config", "x", "--seed", "a"], "invalid int value: 'a'; see train.py --help"),
    ],
)
def test_argument_errors_name_the_remedy(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.parse_args(parser(), argv)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert told.startswith("usage: ")
    assert said in told


def test_split_names() -> None:
    items = ["runs/a=1", "env.n_ev=3", "optimum", "data=/x/y.csv", "./a=b", "runs/b"]
    expected = ["runs/a=1", "optimum", "./a=b", "runs/b"], ["env.n_ev=3", "data=/x/y.csv"]
    assert cli.split_names(items) == expected


def test_format_table() -> None:
    rows = [
        {"agent": "ppo", "score": 0.9123456, "n": 5},
        {"agent": "optimum", "score": None, "n": 12},
    ]
    assert cli.format_table(rows, {"agent": "agent", "score": "score", "n": "seeds"}).splitlines() == [
        "agent     score  seeds",
        "-------  ------  -----",
        "ppo      0.9123      5",
        "optimum       -     12",
    ]
    assert cli.format_table([{"x": 12345.678}, {"x": math.nan}], ["x"]).split() == [*("x", "-----", "12346", "nan")]


def test_progress_is_silent_unless_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with cli.progress(3, "train") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with cli.progress(3, "train") as bar:
        bar.update(3)
    assert "train: 100%" in capsys.readouterr().err
