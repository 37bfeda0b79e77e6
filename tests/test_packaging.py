"""What is shipped is what is here: packages, data, dependencies, a light import."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
NOT_SHIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist", "runs", "results"}
HEAVY = {"torch", "stable_baselines3", "pennylane", "pandas", "matplotlib", "numba", "llvmlite"}


def shipped_files() -> list[Path]:
    """All files of the package, relative to the root."""
    tops = [
        path
        for path in ROOT.iterdir()
        if path.is_dir()
        and path.name not in NOT_SHIPPED
        and not path.name.startswith(".")
        and not path.name.endswith(".egg-info")
        and not (path / "pyvenv.cfg").exists()
    ]
    inside = [path for top in tops for path in top.rglob("*") if path.is_file()]
    found = [path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *inside]]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def package_of(path: Path) -> str:
    return ".".join(["qevgrid", *path.parent.parts])


def fresh_python(code: str, cwd: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packages_are_the_directories_with_code() -> None:
    with_code = {package_of(path) for path in shipped_files() if path.suffix == ".py"}
    assert SETUPTOOLS["packages"] == sorted(with_code)


def test_every_package_has_an_init() -> None:
    inits = {package_of(path) for path in shipped_files() if path.name == "__init__.py"}
    assert inits == set(SETUPTOOLS["packages"])


def test_root_holds_no_stray_module() -> None:
    """Every root module ships as qevgrid.<name>: a conftest.py or noxfile.py would, too."""
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "train.py", "evaluate.py"}


def test_every_data_file_is_package_data() -> None:
    patterns = SETUPTOOLS["package-data"]
    forgotten = [
        str(path)
        for path in shipped_files()
        if path.suffix != ".py" and not any(fnmatch(path.name, glob) for glob in patterns.get(package_of(path), []))
    ]
    assert not forgotten


def test_installed_package_is_complete() -> None:
    """Bites when the wheel is under test, as in CI."""
    installed = files("qevgrid")
    missing = [path for path in shipped_files() if not installed.joinpath(*path.parts).is_file()]
    assert not missing


def test_configs_are_installed() -> None:
    installed = {path.name for path in files("qevgrid.configs").iterdir()}
    here = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert here
    assert here <= installed


def test_import_is_light(tmp_path: Path) -> None:
    code = "import json, sys, qevgrid; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(fresh_python(code, tmp_path))}
    assert "qevgrid" in loaded
    assert not loaded & HEAVY


def test_registration_is_idempotent(tmp_path: Path) -> None:
    code = """
import gymnasium, importlib, qevgrid
ours = lambda: {k: id(v) for k, v in gymnasium.registry.items() if k.startswith("qevgrid/")}
before = ours()
importlib.reload(qevgrid)
assert before and ours() == before, (before, ours())
"""
    fresh_python(code, tmp_path)


def test_version_is_one() -> None:
    import qevgrid

    assert qevgrid.__version__ == PROJECT["version"] == importlib.metadata.version("qevgrid")


# --- dependencies -------------------------------------------------------------------------------


def declared(*extras: str) -> list[Requirement]:
    groups = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in groups[extra])]
    return [r for r in map(Requirement, lines) if r.name != "qevgrid"]


def pins() -> dict[str, str]:
    pinned = (line.split("==") for line in CONSTRAINTS if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pinned}


def unpinned(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """Names at or below an installed requirement that nothing holds to one version."""
    name = canonicalize_name(requirement.name)
    exact = any(spec.operator == "==" for spec in requirement.specifier)
    if name not in pins() and not exact:
        yield name
    if name in seen:
        return
    seen.add(name)
    try:
        children = map(Requirement, importlib.metadata.requires(name) or [])
    except importlib.metadata.PackageNotFoundError:
        return  # an extra that is not installed here
    for child in children:
        if not child.marker or any(child.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}):
            yield from unpinned(child, seen)


def test_constraints_are_plain_pins() -> None:
    """No address, no path, no +cpu: they would work on one machine only."""
    for line in CONSTRAINTS:
        assert re.fullmatch(r"#[^/@]*|[\w.-]+==[\w.]+", line), line


@pytest.mark.parametrize("requirement", declared("grid", "video", "dev"), ids=lambda r: r.name)
def test_constraints_pin_every_dependency(requirement: Requirement) -> None:
    pin = pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin)
    assert not set(unpinned(requirement, set()))


def test_every_import_is_a_declared_dependency() -> None:
    """Those of functions, too; a transitive dependency may leave any day."""
    ours = {canonicalize_name(r.name) for r in declared("grid")}
    providers = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path}: {name}"
        for path in shipped_files()
        if path.suffix == ".py"
        for name in imported(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if name not in sys.stdlib_module_names and name != "qevgrid"
        if not ours & set(map(canonicalize_name, providers.get(name, [])))
    }
    assert not undeclared


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_scripts_are_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
