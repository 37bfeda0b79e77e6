"""The run folder: who may use it, and that files arrive whole or not at all."""

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import qevgrid
from qevgrid.envs.errors import UserError
from qevgrid.runner import folder as folder_module
from qevgrid.runner.folder import RunFolder, create_run_folder, describe_run, read_run


def fill(path: Path, *names: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_text("x")
    return path


def everything(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


@pytest.mark.parametrize("names", [None, ()], ids=["missing", "empty"])
def test_nothing_is_created_before_the_first_file(tmp_path: Path, names: tuple | None) -> None:
    path = tmp_path / "runs" / "a"
    if names is not None:
        fill(path)
    before = everything(tmp_path)
    run = create_run_folder(path)
    assert everything(tmp_path) == before
    run.write_text(run.config_yaml, "a: 1\n")
    assert everything(path) == ["config.yaml"]


@pytest.mark.parametrize(
    ("names", "resume", "said"),
    [
        (["config.yaml"], False, ["not empty", "--resume", "--out OTHER", "delete"]),
        (["notes.txt"], False, ["not empty", "--out OTHER"]),
        (["notes.txt"], True, ["nothing to resume", "has no config.yaml", "leave out --resume"]),
        ([], True, ["nothing to resume", "does not exist or is empty"]),
        (None, True, ["nothing to resume", "does not exist or is empty"]),
    ],
)
def test_refused_folders(tmp_path: Path, names: list[str] | None, resume: bool, said: list[str]) -> None:
    path = tmp_path / "a"
    if names is not None:
        fill(path, *names)
    with pytest.raises(UserError) as caught:
        create_run_folder(path, resume)
    assert str(caught.value).startswith(f"{path}: ")
    assert [words for words in said if words not in str(caught.value)] == []


def test_resume_takes_a_folder_with_a_config(tmp_path: Path) -> None:
    path = fill(tmp_path / "a", "config.yaml")
    assert create_run_folder(str(path), resume=True) == RunFolder(path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    for path, words in [
        (tmp_path / "a", "this is a file"),
        (tmp_path / "a" / "b", "cannot create"),
    ]:
        with pytest.raises(UserError, match=words):
            create_run_folder(path).make()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("runs/a", None),
        ("runs/fresh", "no model.zip: this run has not saved a model yet"),
        ("runs/other", "not a run folder, no config.yaml and no model.zip; pass the folder that"),
        ("runs", "pass one inside it: {}/runs/a, {}/runs/b"),
        (".", "pass one inside it: {}/runs/a, {}/runs/b"),
        ("runs/fresk", "no such folder; did you mean {}/runs/fresh?"),
        ("runs/zzz", "no such folder; pass the folder of a trained run"),
        ("no/where", "no such folder; pass the folder of a trained run"),
        ("runs/a/model.zip", "this is a file; pass the run folder: {}/runs/a"),
    ],
)
def test_read_run(tmp_path: Path, asked: str, said: str | None) -> None:
    for name in "ab":
        fill(tmp_path / "runs" / name, "config.yaml", "model.zip")
    fill(tmp_path / "runs" / "fresh", "config.yaml")
    fill(tmp_path / "runs" / "other", "notes.txt")
    if said is None:
        assert read_run(tmp_path / asked).model_zip.is_file()
        return
    with pytest.raises(UserError) as caught:
        read_run(tmp_path / asked)
    assert said.replace("{}", str(tmp_path)) in str(caught.value)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failed_write_changes_nothing(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    run = RunFolder(tmp_path / "a")
    if old:
        run.write_text(run.model_zip, old)

    def fail() -> None:
        with run.atomic_path(run.model_zip) as temporary:
            temporary.write_text("half")
            assert not run.model_zip.exists() or run.model_zip.read_text() == old
            raise error

    with pytest.raises(error):
        fail()
    assert everything(run.path) == (["model.zip"] if old else [])
    assert not old or run.model_zip.read_text() == old


def test_atomic_path_keeps_suffix_permissions_and_depth(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    with run.atomic_path(run.checkpoint_zip(5)) as temporary:
        assert temporary.suffix == ".zip"
        assert temporary.parent == run.checkpoint_zip(5).parent  # os.replace needs one file system
        temporary.write_text("x")
    (tmp_path / "plain").write_text("x")
    assert run.checkpoint_zip(5).stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert everything(run.path) == ["checkpoints", "checkpoints/step_0000000005.zip"]


def test_a_relative_name_lies_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("runs/a"))
    run.write_text(Path("plots/cost.txt"), "1")
    run.write_text(run.metrics_json, "2")
    assert everything(run.path) == ["metrics.json", "plots", "plots/cost.txt"]


def test_checkpoints_are_sorted_by_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.checkpoints == {}
    steps = [2_000_000, 500, 30_000_000_000]
    for step in steps:
        run.write_text(run.checkpoint_zip(step), "")
    assert list(run.checkpoints.items()) == [(s, run.checkpoint_zip(s)) for s in sorted(steps)]


def test_json_is_strict(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    value = {"a": np.float32(0.5), "b": [float("nan"), np.inf], "c": np.arange(2), 3: Path("x/y")}
    run.write_json(run.metrics_json, value | {"d": (np.int64(3), np.bool_(True), None, "ü")})
    read = json.loads(run.metrics_json.read_text(), parse_constant=pytest.fail)
    expected = {"a": 0.5, "b": [None, None], "c": [0, 1], "3": "x/y", "d": [3, True, None, "ü"]}
    assert read == expected


def test_csv_columns_are_the_union(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_csv(run.evaluations_csv, [{"step": 1, "a": 0.1}, {"step": 2, "b": "x,\ny"}])
    assert run.evaluations_csv.read_bytes().startswith(b"step,a,b\n1,0.1,\n")
    with run.evaluations_csv.open(newline="") as file:
        assert list(csv.DictReader(file))[1] == {"step": "2", "a": "", "b": "x,\ny"}
    run.write_csv(run.evaluations_csv, [])
    assert run.evaluations_csv.read_bytes() == b""


def test_meta_says_what_ran_and_not_where(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    run.write_meta(["--config", "x.yaml"], seed=3)
    run.write_meta(["--resume"], seed=4)
    run.write_meta(["--resume"], seed=5)
    text = run.meta_json.read_text()
    meta = json.loads(text)
    assert [m["seed"] for m in [*meta["earlier"], meta]] == [3, 4, 5]
    assert meta["earlier"][0]["arguments"] == ["--config", "x.yaml"]
    assert meta["started"].endswith("+00:00")
    assert meta["libraries"]["numpy"] == np.__version__
    assert meta["qevgrid"]
    assert str(Path(qevgrid.__file__).parent) not in text


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = fill(tmp_path / "repo", "__init__.py")
    monkeypatch.setattr(qevgrid, "__file__", str(package / "__init__.py"))
    return package


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_commit_of_the_package_repository(package: Path) -> None:
    assert describe_run([], 0)["git"] is None  # no repository
    git(package, "init")
    assert describe_run([], 0)["git"] is None  # no commit
    git(package, "add", ".")
    git(package, "commit", "-m", "x")
    commit = git(package, "rev-parse", "HEAD")
    assert describe_run([], 0)["git"] == {"commit": commit, "modified": False}
    (package / "new.py").write_text("")
    assert describe_run([], 0)["git"] == {"commit": commit, "modified": True}


def test_git_of_somebody_else_is_not_ours(package: Path) -> None:
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "x")
    assert describe_run([], 0)["git"] is None


def test_no_git_at_all(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    assert describe_run([], 0)["git"] is None
    monkeypatch.setattr(folder_module, "_version", lambda _: None)
    assert describe_run([], 0)["libraries"] == {}
