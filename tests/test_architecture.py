"""The rules that no single module can show: import directions, randomness, portable files."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [ROOT / "train.py", ROOT / "evaluate.py"] + [
    path for top in ("agents", "envs", "runner") for path in sorted((ROOT / top).rglob("*.py"))
]
# All of numpy.random that holds its own state.
SEEDED = {
    "BitGenerator",
    "Generator",
    "PCG64",
    "PCG64DXSM",
    "Philox",
    "SeedSequence",
    "default_rng",
    # SB3 shuffles with the global state: a checkpoint keeps and restores it, and draws nothing.
    "get_state",
    "set_state",
}
MACHINE_PATH = re.compile(r"(?<![\w.:~*/-])/(?:home|mnt|opt|root|Users|work)/\w|file://|[A-Z]:\\\w")


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.cli import lint_imports

    broken = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


def global_randomness(tree: ast.AST) -> Iterator[str]:
    """Every use of a generator that the whole process shares."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (a.name for a in names if a.name in {"random", "numpy.random"})
            case ast.ImportFrom(module="random"):
                yield "random"
            case ast.ImportFrom(module="numpy.random", names=names):
                yield from (f"numpy.random.{a.name}" for a in names if a.name not in SEEDED)
            case ast.ImportFrom(module="numpy", names=names):
                yield from ("numpy.random" for a in names if a.name == "random")
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="random"), attr=attr) if (
                attr not in SEEDED
            ):
                yield f"numpy.random.{attr}"


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_randomness_is_never_global(path: Path) -> None:
    assert not list(global_randomness(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import random", ["random"]),
        ("from random import choice", ["random"]),
        ("import numpy.random", ["numpy.random"]),
        ("from numpy import random", ["numpy.random"]),
        ("from numpy.random import Generator, rand", ["numpy.random.rand"]),
        ("def f():\n    np.random.seed(0)", ["numpy.random.seed"]),
        ("rng: np.random.Generator = np.random.default_rng(3)\nrng.random()", []),
    ],
)
def test_global_randomness_is_seen(code: str, expected: list[str]) -> None:
    assert list(global_randomness(ast.parse(code))) == expected


def project_files() -> list[Path]:
    """The text files that git tracks, or would."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-c", "-o", "--exclude-standard"]
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    files = [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in files if b"\0" not in path.read_bytes()]


def test_no_file_names_a_place_on_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if MACHINE_PATH.search(line) and path != Path(__file__)
    ]
    assert not found


@pytest.mark.parametrize("text", ["see /home/ann/x", '"/Users/ann/x"', "file:///x", r"C:\Users"])
def test_machine_paths_are_seen(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["envs/home/x", "https://a.b/home/c", "#!/usr/bin/env bash"])
def test_other_paths_are_left_alone(text: str) -> None:
    assert not MACHINE_PATH.search(text)
