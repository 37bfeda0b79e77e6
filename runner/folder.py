"""The run folder: which file lies where, and how files get there whole or not at all."""

import csv
import difflib
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import qevgrid
from qevgrid.envs.errors import UserError

REQUIRED = ("config.yaml", "model.zip")


@dataclass(frozen=True)
class RunFolder:
    """Names inside one run's folder, and writers that never leave a half-written file.

    The folder itself appears with the first file written, or by `make`.
    """

    path: Path

    @property
    def config_yaml(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def model_zip(self) -> Path:
        """The trained agent."""
        return self.path / "model.zip"

    @property
    def metrics_json(self) -> Path:
        """The final figures."""
        return self.path / "metrics.json"

    @property
    def evaluations_csv(self) -> Path:
        """One row per evaluation during training."""
        return self.path / "evaluations.csv"

    @property
    def meta_json(self) -> Path:
        """Versions, machine, command line, seed and start time."""
        return self.path / "meta.json"

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Checkpoints on disk by their step, oldest first."""
        files = (self.path / "checkpoints").glob("step_*.zip")
        return dict(sorted((int(file.stem.removeprefix("step_")), file) for file in files))

    def checkpoint_zip(self, step: int) -> Path:
        """Path of the checkpoint taken at ``step`` environment steps."""
        return self.path / "checkpoints" / f"step_{step:010d}.zip"

    def make(self) -> None:
        """Create the folder; a `UserError` where that is not allowed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UserError(f"{self.path}: cannot create this folder ({err.strerror}); pass --out OTHER") from None

    def write_text(self, path: Path, text: str) -> None:
        """Write ``text`` to ``path`` (relative: inside this folder)."""
        with self.atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")

    def write_json(self, path: Path, value: object) -> None:
        """Write strict JSON; NumPy values as plain ones, NaN and infinities as null."""
        self.write_text(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")

    def write_csv(self, path: Path, rows: Sequence[Mapping[str, object]]) -> None:
        """Write one line per row; columns are all the rows' keys in order of appearance."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (
            self.atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
            if columns:
                table.writeheader()
            table.writerows(rows)

    @contextmanager
    def atomic_path(self, path: Path) -> Iterator[Path]:
        """Temporary sibling of ``path`` that replaces it at the end, or vanishes on an exception.

        Relative paths lie inside this folder. The suffix stays, as savers look at it.
        """
        self.make()
        target = self.path / path if not path.is_relative_to(self.path) else path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def write_meta(self, arguments: Sequence[str], seed: int) -> None:
        """Write `describe_run`; a resumed run keeps its earlier entries under ``earlier``."""
        earlier: list[dict[str, Any]] = []
        if self.meta_json.is_file():
            last = json.loads(self.meta_json.read_text(encoding="utf-8"))
            earlier = [*last.pop("earlier", []), last]
        self.write_json(self.meta_json, {**describe_run(arguments, seed), "earlier": earlier})


# --- opening a folder --------------------------------------------------------------------------


def create_run_folder(path: str | Path, resume: bool = False) -> RunFolder:
    """Check that a run may use this folder. Nothing is created before the first file is written."""
    folder = RunFolder(Path(path))
    if folder.path.exists() and not folder.path.is_dir():
        raise UserError(f"{path}: this is a file, not a folder; pass --out OTHER")
    names = os.listdir(folder.path) if folder.path.is_dir() else []
    if resume and "config.yaml" not in names:
        lacks = "has no config.yaml" if names else "does not exist or is empty"
        raise UserError(f"{path}: nothing to resume, it {lacks}; leave out --resume to start it")
    if names and not resume:
        raise UserError(
            f"{path}: this folder is not empty; pass --resume to go on with its run, "
            "--out OTHER to start another, or delete it"
        )
    return folder


def read_run(path: str | Path) -> RunFolder:
    """Check that ``path`` is the folder of a run that has saved a model."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: {_not_a_folder(folder)}")
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing == ["model.zip"]:
        raise UserError(
            f"{path}: no model.zip: this run has not saved a model yet; "
            "finish it with --resume, or pass another run folder"
        )
    if missing:
        raise UserError(f"{path}: not a run folder, no {' and no '.join(missing)}{_inside(folder)}")
    return RunFolder(folder)


def _not_a_folder(path: Path) -> str:
    if path.is_file():
        return f"this is a file; pass the run folder: {path.parent}"
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {path.parent / near[0]}?" if near else "pass the folder of a trained run"
    return f"no such folder; {hint}"


def _inside(folder: Path) -> str:
    """Hint that names the run folders found one or two levels down."""
    found = sorted(p.parent for depth in ("*", "*/*") for p in folder.glob(f"{depth}/model.zip"))
    if not found:
        return "; pass the folder that train.py wrote, runs/<config>_<seed> unless told otherwise"
    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
    return f"; pass one inside it: {', '.join(map(str, found[:3]))}{more}"


# --- what the run ran on -----------------------------------------------------------------------


def describe_run(arguments: Sequence[str], seed: int) -> dict[str, Any]:
    """Collect what a reader needs to repeat the run."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": list(arguments),
        "seed": seed,
        "qevgrid": _version("qevgrid"),
        "git": _git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": _libraries(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libraries() -> dict[str, str]:
    """Versions of the installed ones among the package's own requirements, extras included."""
    try:
        requirements = importlib.metadata.requires("qevgrid") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    names = sorted({re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in requirements})
    return {name: version for name in names if (version := _version(name))}


def _git_state() -> dict[str, Any] | None:
    """Commit of the package's own repository; None for a wheel, or where git cannot tell."""
    package = Path(qevgrid.__file__ or "").resolve().parent
    try:
        top = _git(package, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != package:  # a wheel inside somebody else's repository
            return None
        commit = _git(package, "rev-parse", "HEAD")
        return {"commit": commit, "modified": bool(_git(package, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    answer = subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=10)
    return answer.stdout.strip()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value
