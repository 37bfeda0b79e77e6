"""The shipped configurations: complete, readable, and they train."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from qevgrid.agents import LEARNERS
from qevgrid.runner.config import dump, load_config, load_tree
from qevgrid.runner.loop import train
from qevgrid.runner.schema import RunConfig
from runs import CONFIG, ROOT, rows_of, tiny_overrides

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def keys_of(tree: Any, prefix: str = "") -> list[str]:
    """Dotted keys in order."""
    if not isinstance(tree, dict):
        return [prefix]
    return [key for name, value in tree.items() for key in keys_of(value, f"{prefix}.{name}")]


def test_every_kind_of_learned_agent_has_a_configuration() -> None:
    assert CONFIG in CONFIGS
    assert {load_config(RunConfig, path).agent.kind for path in CONFIGS} == set(LEARNERS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_is_complete(path: Path) -> None:
    """The file has every key, in the schema's order."""
    text = dump(load_config(RunConfig, path))
    assert keys_of(load_tree(path)) == keys_of(yaml.safe_load(text))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_says_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_it_trains(path: Path, tmp_path: Path) -> None:
    overrides = tiny_overrides(load_config(RunConfig, path).agent.kind, ruler=False)
    run = train(load_config(RunConfig, path, overrides), tmp_path / "run")
    assert [row["step"] for row in rows_of(run.evaluations_csv)] == ["0", "96", "192"]
    assert run.model_zip.is_file()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_file_holds_the_default_world(path: Path) -> None:
    """What ``gymnasium.make`` gives without arguments is what the README's commands play."""
    env = load_config(RunConfig, path).env
    assert env == type(env)()


def test_a_dumped_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = load_config(RunConfig, CONFIG, ["env.site.pv_kw=[1.0]", "env.sessions=my cars.csv", "agent.lr=3e-4"])
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    assert load_config(RunConfig, tmp_path / "config.yaml") == config


MOBILE = ROOT / "configs/mobile_csp_ppo.yaml"


def test_a_preset_on_the_command_line_acts_though_the_file_has_every_key() -> None:
    mini = load_config(RunConfig, MOBILE, ["env.storm.vegetation=2.0", "env.preset=mini", "env.n_units=3"]).env
    assert (mini.preset, len(mini.sites), mini.n_periods, mini.n_units) == ("mini", 6, 24, 3)
    assert mini.storm.vegetation == 2.0  # said before the preset, and no default
    assert load_config(RunConfig, MOBILE, ["env.preset=full"]).env.service.enabled
    assert load_config(RunConfig, MOBILE, ["env.preset=base"]) == load_config(RunConfig, MOBILE)
