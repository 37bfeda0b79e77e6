"""The configuration loader and the table of its keys, on a schema of their own."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from qevgrid.envs.errors import UserError
from qevgrid.runner import cli
from qevgrid.runner.config import build, dump, load_config, load_tree

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Params:
    n_ev: PositiveInt = 10
    dt_h: Annotated[float, Field(gt=0, le=1)] = 0.25
    limit_kw: float | None = None
    tariff: Literal["flat", "spot"] = "flat"
    data: Path = Path("data/prices.csv")

    def __post_init__(self) -> None:
        if self.n_ev == 13:
            raise ValueError("n_ev must not be 13")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PPO:
    """Proximal policy optimisation."""

    kind: Literal["ppo"]
    lr: PositiveFloat = 3e-4
    hidden: tuple[PositiveInt, ...] = (64, 64)
    clip: float | tuple[float, float] = 0.2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hybrid:
    """QUBO and annealer."""

    kind: Literal["hybrid"]
    hybrid: Params = Params(n_ev=7)
    reads: PositiveInt = 100


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    env: Params = Params()
    agent: Annotated[PPO | Hybrid, Field(discriminator="kind")]
    rival: Annotated[PPO | Hybrid, Field(discriminator="kind")] | None = None
    sites: tuple[Params, ...] = ()
    weights: dict[str, float] = Field(default_factory=dict)
    seed: int = Field(default=0, description="Seed of everything random.")
    note: str = ""


GOOD = "agent: {kind: ppo}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(folder: Path, text: str, *overrides: str) -> str:
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        load_config(Config, path, overrides)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e5", 1e5),
        ("-2.5E+3", -2500.0),
        (".5", 0.5),
        ("100_000", 100_000),
        ("0x10", 16),
        ("017", "017"),
        ("12:30", "12:30"),
        ("2024-05-01", "2024-05-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("-", [None]),
        ("e5", "e5"),
        ("1e", "1e"),
        ("'1e3'", "1e3"),
        (".inf", math.inf),
        ("[1, 1e1]", [1, 10.0]),
    ],
)
def test_plain_words(tmp_path: Path, text: str, value: object) -> None:
    read = load_tree(write(tmp_path, f"a: \n  {text}"))["a"]
    assert read == value
    assert type(read) is type(value)
    if text != "-":
        assert load_tree(write(tmp_path, ""), [f"a={text}"]) == {"a": value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agent: {kind: ppo}\nsede: 3", "FILE: sede: unknown key (got 3); did you mean 'seed'? "),
        (GOOD + "zzz: 3", "zzz: unknown key (got 3); known: env, agent, rival, sites, weights, se"),
        ("agent: {kind: ppo, reads: 3}", "known: kind, lr, hidden, clip"),
        (GOOD + "env: {seed: 3}", "env.seed: unknown key (got 3); known: n_ev, dt_h"),
        ("agent: {kind: ppo, lr: -1}", "FILE: agent.lr: should be greater than 0 (got -1)"),
        ("agent: {kind: ppo, lr: ten}", "agent.lr: should be a valid number, unable to parse"),
        ("agent: {kind: ppo, hidden: [8, x]}", "agent.hidden[1]: should be a valid integer"),
        ("agent: {kind: ppo, hidden: 8}", "agent.hidden: should be a list (got 8)"),
        ("agent: {kind: ppo, clip: x}", "as a number or should be a list (got 'x')"),
        ("agent: {kind: hybird}", "agent.kind: unknown kind 'hybird'; did you mean 'hybrid'?"),
        ("agent: {lr: 1}", "FILE: agent.kind: missing; choose one of: ppo, hybrid"),
        ("agent: 3", "FILE: agent: should be a section (got 3); its keys: kind, lr, hidden, clip"),
        ("seed: 3", "FILE: agent: missing, and it has no default"),
        ("", "FILE: agent: missing, and it has no default"),
        ("agent: {kind: hybrid, hybrid: {n_ev: x}}", "FILE: agent.hybrid.n_ev: should be a valid"),
        ("agent: {kind: hybrid, hybrid: {}, reads: x}", "FILE: agent.reads: should be a valid int"),
        (GOOD + "rival: {kind: ppo, lr: x}", "FILE: rival.lr: should be a valid number"),
        (GOOD + "sites: [{}, {n_ve: 3}]", "sites[1].n_ve: unknown key (got 3); did you mean 'n_ev"),
        (GOOD + "weights: {a: x}", "FILE: weights.a: should be a valid number"),
        (GOOD + "env: {n_ev: 13}", "FILE: env: n_ev must not be 13"),
        (GOOD + "env:", "FILE: env: should be a section (got null); its keys: n_ev"),
        (GOOD + "env: {tariff: spto}", "env.tariff: should be 'flat' or 'spot' (got 'spto')"),
        (GOOD + "1: 2", "FILE: 1: Keys should be strings (got 1)"),
        ("- 1\n- 2", "FILE: expected 'key: value' lines, found [1, 2]"),
        ("false", "FILE: expected 'key: value' lines, found false"),
        (GOOD + "seed: 1\nseed: 2", "FILE: line 3, column 1: duplicate key 'seed'"),
        ("agent:\n  kind: ppo\n  lr: 1\n  'lr': 2", "FILE: line 4, column 3: duplicate key 'lr'"),
        ("agent: {kind: ppo\nseed: 3", "FILE: line 2, column 5: "),
        ("agent:\n\tkind: ppo", "FILE: line 2, column 1: found character '\\t'"),
        ("a: !!python/object:os.system x", "FILE: line 1, column 4: could not determine a const"),
        ("a: *b", "FILE: line 1, column 4: found undefined alias 'b'"),
        ("a: \x07", "FILE: not valid YAML: "),
        ("a: !!int x", "FILE: not valid YAML: "),
    ],
)
def test_bad_file_says_where_what_and_the_remedy(tmp_path: Path, text: str, said: str) -> None:
    told = message(tmp_path, text)
    assert said in told
    assert "\n" not in told


def test_known_keys_are_those_of_the_section_at_fault(tmp_path: Path) -> None:
    told = message(tmp_path, "agent: {kind: ppo, reds: 3}")
    assert "did you mean" not in told  # 'reads' belongs to the other agent
    assert told.endswith("known: kind, lr, hidden, clip")


def test_every_error_is_listed_at_once(tmp_path: Path) -> None:
    text = "agent: {kind: ppo, lr: -3}\nenv: {n_ev: ten, dt_h: 2}\nsede: 1"
    first, *lines = message(tmp_path, text).splitlines()
    assert first == "FILE:"
    assert [line.split(":")[0] for line in lines] == [
        "  env.n_ev",
        "  env.dt_h",
        "  agent.lr",
        "  sede",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "override 'seed': expected key=value, e.g. seed=3"),
        ("=3", "expected key=value"),
        ("agent..lr=3", "expected key=value"),
        ("seed=", "override 'seed=': no value; seed=null for none"),
        ("seed.a=3", "override 'seed.a=3': .a is inside 5, not a section"),
        ("agent.lr=[1", "override 'agent.lr=[1': line 1, column 3: "),
        ("agent.lr=-1", "FILE: agent.lr: should be greater than 0 (got -1)"),
        ("agent.kind=hybird", "did you mean 'hybrid'?"),
        ("sites.n_ev=3", "sites: should be a list (got {'n_ev': 3})"),
    ],
)
def test_bad_override(tmp_path: Path, override: str, said: str) -> None:
    assert said in message(tmp_path, GOOD + "seed: 5", override)


def test_overrides_reach_the_tree(tmp_path: Path) -> None:
    path = write(tmp_path, "a: {b: {c: 1, d: 2}}\ne:\n3: x\n")
    overrides = ["a.b.c=1e-3", "a.b.d=null", "e.f={g: [1, 2]}", "new.x=a=b", "3=y", "a.b.c=7"]
    expected = {"a": {"b": {"c": 7, "d": None}}, "e": {"f": {"g": [1, 2]}}, "new": {"x": "a=b"}}
    assert load_tree(path, overrides) == {**expected, 3: "y"}


def test_override_of_an_alias_leaves_its_origin_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, x: 3}\n")
    expected = {"a": {"x": 1, "y": 2}, "b": {"x": 9, "y": 2}, "c": {"x": 3, "y": 2}}
    assert load_tree(path, ["b.x=9"]) == expected


def test_paths_are_passed_on_as_written(tmp_path: Path) -> None:
    config = load_config(Config, write(tmp_path, GOOD), ["env.data=other/p.csv"])
    assert config.env.data == Path("other/p.csv")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_empty_file_is_an_empty_tree(tmp_path: Path, text: str) -> None:
    assert load_tree(write(tmp_path, text)) == {}


def test_unreadable_files(tmp_path: Path) -> None:
    near = write(tmp_path, "")
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00a: 1")
    for path, said in [
        (tmp_path / "y.yaml", f"no such file; did you mean '{near}'?"),
        (tmp_path / "nowhere" / "deep.yaml", "no such file; pass a YAML file"),
        (tmp_path, "cannot read it"),
        (binary, "not a text file in UTF-8"),
    ]:
        with pytest.raises(UserError, match=r"YAML|UTF-8|did you mean") as caught:
            load_tree(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert said in str(caught.value)


ROUND_TRIP = [
    {"agent": {"kind": "ppo"}},
    {"agent": {"kind": "ppo", "lr": 1e-05, "hidden": [], "clip": [0.1, 1e22]}, "note": "1e-3"},
    {"agent": {"kind": "hybrid", "hybrid": {"limit_kw": math.inf}}, "note": "a: b # c\nd ü"},
    {"agent": {"kind": "ppo"}, "rival": {"kind": "hybrid"}, "sites": [{}, {"n_ev": 3}]},
    {"agent": {"kind": "ppo"}, "weights": {"null": 1.0, "b c": 1e-300, "1": 2}, "note": "null"},
    *({"agent": {"kind": "ppo"}, "note": note} for note in ["true", "", "~", "0x1", "<<", "-"]),
]


@pytest.mark.parametrize("tree", ROUND_TRIP, ids=str)
def test_dump_reloads_equal(tmp_path: Path, tree: dict[str, Any]) -> None:
    config = build(Config, tree, "test")
    text = dump(config)
    assert load_config(Config, write(tmp_path, text)) == config
    assert "!!" not in text
    assert "&" not in text


def test_dump_keeps_the_order_and_is_readable() -> None:
    lines = dump(build(Config, {"seed": 3, "agent": {"kind": "ppo"}}, "test")).splitlines()
    tops = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert tops == ["env", "agent", "rival", "sites", "weights", "seed", "note"]
    assert "  hidden: [64, 64]" in lines
    assert "  data: data/prices.csv" in lines


def test_describe_lists_every_key() -> None:
    table = cli.describe(Config)
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in table.splitlines()}
    assert rows["seed"] == "seed int 0 Seed of everything random."
    assert rows["env.dt_h"] == "env.dt_h float > 0, <= 1 0.25"
    assert rows["agent"] == "agent section required"
    assert rows["agent.kind=ppo"] == "agent.kind=ppo Proximal policy optimisation."
    assert rows["agent.hidden"] == "agent.hidden list of int > 0 [64, 64]"
    assert rows["agent.hybrid.n_ev"] == "agent.hybrid.n_ev int > 0 7"  # the section's own default
    assert rows["sites[].tariff"] == "sites[].tariff flat | spot flat"
    assert rows["weights"] == "weights map of text to float {}"
    assert rows["env.limit_kw"] == "env.limit_kw float | null null"
