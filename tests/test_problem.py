"""Problems as the runner sees them: each is whole, and one unlike V2G goes all the way."""

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import pytest
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qevgrid  # noqa: F401 - registers the environments
import toy_problem as toy
from qevgrid.agents import LEARNERS, LEARNS, RIVALS, build_learner, is_rival, load_learned, make_rival
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.envs.errors import UserError
from qevgrid.envs.problem import PROBLEMS, problem_by_id, problem_of
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner import metrics, parallel
from qevgrid.runner.cli import describe
from qevgrid.runner.config import build, changed_keys, dump, fields_of, load_config, members_of
from qevgrid.runner.evaluation import Request, evaluate, terminal_table
from qevgrid.runner.log import read_scalars
from qevgrid.runner.loop import train
from qevgrid.runner.parallel import Player, play_rival
from qevgrid.runner.rollout import Episodes, play
from qevgrid.runner.schema import RunConfig, by_id, with_id
from runs import files_of, rows_of

SEEDS = list(range(12))
ALL = list(PROBLEMS)


# --- every problem ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_problem_is_known_everywhere(name: str) -> None:
    problem = problem_by_id(name)
    assert name == problem.id == problem.params().id
    assert problem_of(problem.params()) is problem
    assert name in gym.registry
    assert name in RIVALS
    assert problem.params in members_of(fields_of(RunConfig)["env"].annotation)


@pytest.mark.parametrize("name", ALL)
def test_its_names_fit_each_other(name: str) -> None:
    problem = problem_by_id(name)
    core = problem.core(problem.params())
    assert core.params.id == name
    assert tuple(core.cost_terms) == problem.cost_terms
    assert len(core.weights) == len(problem.cost_terms) == len(set(problem.cost_terms))
    assert set(problem.term_colors) == set(problem.cost_terms)
    assert len(set(problem.term_colors.values())) == len(problem.cost_terms)
    assert len(set(problem.kpis)) == len(problem.kpis)
    assert problem.shown_kpi[0] in problem.kpis
    json.dumps([problem.report(core), problem.size(core.params)])


@pytest.mark.parametrize("name", ALL)
def test_the_parts_of_its_rivals_are_given_to_rivals(name: str) -> None:
    rivals = RIVALS[name]
    parts = {rivals.naive, rivals.best, *rivals.beside_training, *rivals.off_scale, *rivals.to_beat}
    assert parts <= set(rivals.paths)
    assert set(rivals.ruler) <= set(rivals.beside_training)


@pytest.mark.parametrize("name", ALL)
def test_an_episode_of_it_can_be_recorded_and_drawn(name: str) -> None:
    problem = problem_by_id(name)
    core = problem.core(problem.params())
    episodes = play(core, make_rival(RIVALS[name].naive, problem_id=name), [0, 1], keep=[1])
    assert episodes.cost_usd.shape == (2, len(problem.cost_terms))
    assert episodes.kpi.shape == (2, len(problem.kpis))
    assert episodes.stress.shape == problem.strata(episodes.stress).shape == (2,)
    json.dumps(episodes.traces[1].to_dict(), allow_nan=False)
    assert problem.figure([episodes.traces[1]]).axes
    batch = core.batch(2)
    batch.start(np.arange(2), [np.random.default_rng(seed) for seed in (0, 1)])
    assert set(problem.shown(batch.scenario).values()) <= {0, 1}


def test_kinds_that_learn_are_those_that_can_be_loaded() -> None:
    assert list(LEARNS) == list(LEARNERS)
    assert all(set(problems) <= set(PROBLEMS) for problems in LEARNS.values())


def test_an_unknown_problem_is_told_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^env\.id=toy/Garden-v0: no such problem; known: qevgrid/V2G-v0"):
        problem_of(toy.GardenParams())


# --- a second problem ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=toy.STRICT)
class TwoConfig(RunConfig):
    """A configuration that knows both problems, built as the schema builds its own."""

    env: Annotated[V2GParams | toy.GardenParams, by_id(V2GParams | toy.GardenParams), BeforeValidator(with_id)] = (
        V2GParams()
    )
    agent: Annotated[PPOConfig | toy.GardenerConfig, Field(discriminator="kind")] = toy.GardenerConfig()  # type: ignore[assignment]


@pytest.fixture
def garden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a new folder in ``envs/`` registers; runs are written to a folder of the test's own."""
    monkeypatch.setitem(PROBLEMS, toy.ID, "toy_problem:PROBLEM")
    monkeypatch.setitem(RIVALS, toy.ID, toy.RIVALS)
    monkeypatch.setitem(LEARNERS, "gardener", "toy_problem:Trained")
    monkeypatch.setitem(LEARNS, "gardener", (toy.ID,))
    monkeypatch.setattr(parallel, "RunConfig", TwoConfig)
    monkeypatch.chdir(tmp_path)


def two(**keys: Any) -> Any:
    sections = {"env": {"id": toy.ID, "n_beds": 1}, "agent": {"kind": "gardener"}, "total_steps": 30, "eval_every": 10}
    return build(TwoConfig, sections | {"eval_episodes": 5} | keys, "test")


def needs(beds: int = 1) -> list[float]:
    """Litres that each seed's episode needs, its days beyond the end left out."""
    found = []
    for seed in SEEDS:
        batch = toy.GardenCore(toy.GardenParams(n_beds=beds)).batch(1)
        batch.start(np.zeros(1, np.int64), [np.random.default_rng(seed)])
        found.append(float(batch.scenario.need[0, : batch.scenario.length[0]].sum()))
    return found


def request(names: list[str], config: Any, **keys: Any) -> Request:
    return Request(names, config, len(SEEDS), 0, Path("out"), jobs=1, **keys)


def played(name: str, keep: tuple[int, ...] = ()) -> Episodes:
    return play_rival(name, toy.GardenParams(n_beds=1), SEEDS, keep)


@pytest.mark.usefixtures("garden")
def test_episodes_of_unequal_length_by_hand() -> None:
    """What a row shows after its end is not counted again."""
    none, half, best = (played(name, keep=(*SEEDS,)) for name in ("idle", "half", "best_known"))
    litres = np.array(needs())
    lengths = none.kpi[:, 1]
    assert len(set(lengths)) > 1
    np.testing.assert_allclose(none.cost_usd, np.stack([0 * litres, litres], 1))
    np.testing.assert_allclose(half.cost_usd, np.stack([litres / 2, litres / 2], 1))
    np.testing.assert_allclose([none.total_usd, half.total_usd, best.total_usd], np.outer([2.0, 1.5, 1.0], litres))
    np.testing.assert_allclose(best.kpi[:, 0], litres)
    poured = [best.traces[k].to_dict()["poured"] for k in SEEDS]
    assert [len(days) for days in poured] == lengths.tolist()
    assert [sum(days) for days in poured] == litres.tolist()
    assert none.ms_per_decision > 0


@pytest.mark.usefixtures("garden")
def test_tables_have_the_problems_own_columns() -> None:
    none, half, best = (played(name) for name in ("idle", "half", "best_known"))
    rows = metrics.table([none, half, best], none, best, toy.PROBLEM)
    assert [row["score"] for row in rows] == pytest.approx([0.0, 0.5, 1.0])
    assert metrics.table_columns(toy.PROBLEM)[7:13] == [
        "poured_l_mean", "cvar95_usd", "ms_per_decision", "parameters", "cost_water_usd", "cost_wilted_usd",
    ]  # fmt: skip
    assert rows[1]["poured_l_mean"] == pytest.approx(np.mean(needs()) / 2)
    (episode, *_) = metrics.episode_rows([half], toy.PROBLEM)
    assert (episode["env"], episode["heat_level"]) == (toy.ID, half.stress[0])
    assert {"poured_l", "days", "seer/depth"} <= set(episode)
    tags = set(metrics.scalars(rows[1], half, toy.PROBLEM))
    assert tags == {
        "eval/cost_usd", "eval/score", "eval/cvar95_usd", "cost/water_usd", "cost/wilted_usd", "kpi/poured_l", "kpi/days",
        "seer/depth",
    }  # fmt: skip
    assert "unserved" not in terminal_table(rows, toy.PROBLEM)


def test_strata_are_the_problems_own() -> None:
    """Costs that differ between the three kinds only leave every resample the same mean."""
    heat = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
    e = Episodes("x", list(range(6)), [""] * 6, np.zeros((6, 2)), 10 * heat, np.zeros((6, 3)), heat, 1.0, 0)
    (row,) = metrics.table([e], None, None, toy.PROBLEM)
    assert row["cost_usd_lo"] == row["cost_usd_mean"] == row["cost_usd_hi"] == 10.0


@pytest.mark.usefixtures("garden")
def test_an_evaluation_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    rows = evaluate(request(["half", "idle"], two()))
    out = Path("out")
    assert "  garden: 1 beds" in capsys.readouterr().out
    assert [(row["agent"], row["env"]) for row in rows] == [("half", toy.ID), ("idle", toy.ID)]
    assert [row["score"] for row in rows] == pytest.approx([0.5, 0.0])  # best_known has played for the ruler
    assert list(rows_of(out / "table.csv")[0]) == metrics.table_columns(toy.PROBLEM)
    pictures = {name for name in files_of(out) if name.endswith(".png")}
    assert pictures == {"costs.png", "scores.png", "week_hottest.png", "week_first.png"}
    found = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert set(found["weeks"]) == {"half", "idle"}
    assert len(found["episodes"]) == 2 * len(SEEDS)
    assert found["differences"][0]["against"] == "half"  # the best of those who are not the ruler
    scalars = read_scalars(out / "tensorboard" / "half")
    assert scalars["kpi/poured_l"][1][0] == pytest.approx(np.mean(needs()) / 2)
    assert scalars["eval/score"][0].tolist() == [0, 30]
    heading = terminal_table(rows, toy.PROBLEM).splitlines()[0]
    assert "USD/week" in heading and "litres" in heading


@pytest.mark.usefixtures("garden")
def test_a_training_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(two(), "run")
    assert "USD a week" in capsys.readouterr().out
    names = {name for name in files_of(run.path) if name.endswith(".png")}
    assert names == {"costs.png", "learning.png", "week.png"}
    (first, *_) = rows_of(run.evaluations_csv)
    assert list(first) == ["step", "cost_usd", "score", "cost_water_usd", "cost_wilted_usd"]
    metrics_json = json.loads(run.metrics_json.read_text(encoding="utf-8"))
    assert list(metrics_json["rivals_cost_usd"]) == ["idle", "best_known"]
    assert metrics_json["files"] == {}
    events = EventAccumulator(str(run.path))
    events.Reload()
    assert set(events.Tags()["images"]) == {"pictures/learning", "pictures/week", "pictures/costs"}
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"n_beds" in content and b"n_sockets" not in content
    assert read_scalars(run.path / "rivals" / "best_known")["eval/score"][1].tolist() == [1.0, 1.0]
    rows = evaluate(request(["run", "half"], two()))
    assert [row["agent"] for row in rows] == ["run", "half"]
    assert "learning.png" in files_of(Path("out"))
    assert train(two(), "run", resume=True).path == run.path


@pytest.mark.usefixtures("garden")
def test_rivals_are_those_of_the_problem() -> None:
    assert isinstance(make_rival("idle", problem_id=toy.ID), toy.Same)
    assert is_rival("half", toy.ID)
    Path("tou").mkdir()
    assert not is_rival("tou", toy.ID)
    assert is_rival("tou")
    for name in ("tuo", "tou"):
        with pytest.raises(UserError, match=r"rivals: idle, half, best_known$"):
            make_rival(name, problem_id=toy.ID)
    with pytest.raises(UserError, match=r"rivals: idle, half, best_known$"):
        evaluate(request([], two()))


# --- what does not fit -----------------------------------------------------------------------------


@pytest.mark.usefixtures("garden")
def test_a_kind_that_does_not_fit_the_problem_is_refused() -> None:
    said = r"^agent\.kind=ppo: cannot act in env\.id=toy/Garden-v0; choose agent\.kind=gardener$"
    with pytest.raises(UserError, match=said):
        build_learner(PPOConfig(), toy.GardenParams(), 0)
    with pytest.raises(UserError, match=said):
        load_learned(Path("model.zip"), "x", toy.GardenCore(toy.GardenParams()), PPOConfig())
    with pytest.raises(
        UserError, match=r"^agent\.kind=gardener: cannot act in env\.id=qevgrid/V2G-v0; choose agent\.kind=ppo or "
    ):
        build_learner(toy.GardenerConfig(), V2GParams(), 0)
    with pytest.raises(UserError, match=r"agent\.kind=ppo"):
        train(two(agent={"kind": "ppo"}), "run")
    assert not Path("run").exists()


@pytest.mark.usefixtures("garden")
def test_rivals_alone_need_no_agent_that_fits() -> None:
    """An evaluation's agent section is only for agents of its kind."""
    assert len(evaluate(request(["idle"], two(agent={"kind": "ppo"})))) == 1


@pytest.mark.usefixtures("garden")
def test_a_kind_that_nobody_can_be() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LEARNS, "gardener", ())
        with pytest.raises(UserError, match="nobody learns it yet; evaluate its rivals"):
            build_learner(toy.GardenerConfig(), toy.GardenParams(), 0)


@pytest.mark.usefixtures("garden")
def test_a_run_of_another_problem_is_refused() -> None:
    run = train(two(ruler=False), "run").path
    core = problem_by_id("qevgrid/V2G-v0").core(V2GParams(n_sockets=3))
    with pytest.raises(
        UserError, match=r"run: trained on env\.id=toy/Garden-v0, but this is env\.id=qevgrid/V2G-v0; evaluate"
    ):
        Player("run", run).agent(core)


# --- the configuration -----------------------------------------------------------------------------


def message(tree: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        build(TwoConfig, tree, "FILE")
    return str(caught.value)


def test_sections_are_told_apart_by_their_id() -> None:
    assert build(TwoConfig, {"env": {"id": toy.ID, "n_beds": 2}}, "").env == toy.GardenParams(n_beds=2)
    assert build(TwoConfig, {"env": {"id": "qevgrid/V2G-v0", "n_sockets": 2}}, "").env == V2GParams(n_sockets=2)


def test_v2g_is_meant_where_none_is_named(tmp_path: Path) -> None:
    assert build(TwoConfig, {}, "").env == V2GParams()
    assert build(TwoConfig, {"env": {"n_sockets": 2}}, "").env == V2GParams(n_sockets=2)
    (tmp_path / "x.yaml").write_text("seed: 1\n")
    assert load_config(TwoConfig, tmp_path / "x.yaml", ["env.n_sockets=2"]).env == V2GParams(n_sockets=2)
    assert load_config(TwoConfig, tmp_path / "x.yaml", [f"env.id={toy.ID}"]).env == toy.GardenParams()


def test_faults_are_named_as_in_the_file() -> None:
    assert message({"env": {"id": "toy/Gardn-v0"}}).startswith(
        "FILE: env.id: unknown id 'toy/Gardn-v0'; did you mean 'toy/Garden-v0'?"
    )
    assert message({"env": {"id": toy.ID, "n_bed": 3}}).startswith(
        "FILE: env.n_bed: unknown key (got 3); did you mean 'n_beds'?"
    )
    assert message({"env": {"id": toy.ID, "n_sockets": 3}}).startswith("FILE: env.n_sockets: unknown key (got 3)")
    assert message({"env": {"n_sockets": 0}}).startswith(
        "FILE: env.n_sockets: should be greater than or equal to 1 (got 0)"
    )
    assert message({"env": {"site": {"pv_kw": -1}}}).startswith("FILE: env.site.pv_kw: ")
    assert message({"env": 3}).startswith("FILE: env: should be a section (got 3); its keys: id, n_sockets")


@pytest.mark.parametrize(("key", "value"), [("n_socket", 3), ("n_sockets", 0), ("id", "V2G")])
def test_one_problem_and_two_say_the_same_of_v2gs_keys(key: str, value: Any) -> None:
    """But for a wrong id."""
    texts = []
    for schema in (RunConfig, TwoConfig):
        with pytest.raises(UserError) as caught:
            build(schema, {"env": {key: value}}, "FILE")
        texts.append(str(caught.value))
    assert (texts[0] == texts[1]) == (key != "id")
    assert all(text.startswith(f"FILE: env.{key}: ") for text in texts)


def test_a_file_of_either_reads_back_equal(tmp_path: Path) -> None:
    for config in (two(), build(TwoConfig, {"env": {"n_sockets": 4}}, "")):
        (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
        assert load_config(TwoConfig, tmp_path / "config.yaml") == config


def test_keys_are_listed_by_problem() -> None:
    lines = describe(TwoConfig).splitlines()
    keys = [line.split()[0] for line in lines[2:]]
    assert keys.index("env.id=qevgrid/V2G-v0") < keys.index("env.n_sockets") < keys.index(f"env.id={toy.ID}")
    assert keys.index(f"env.id={toy.ID}") < keys.index("env.n_beds")


def test_changed_keys_are_those_whose_values_differ() -> None:
    one = two(env={"id": toy.ID, "n_beds": 1})
    assert changed_keys(one, two(env={"id": toy.ID, "n_beds": 1})) == []
    assert changed_keys(one, two(env={"id": toy.ID, "n_beds": 2}, seed=4)) == ["env.n_beds", "seed"]
    assert changed_keys(one, two(env={"n_sockets": 3})) == ["env.id"]
    assert changed_keys(one, two(agent={"kind": "ppo"})) == ["agent.kind"]
    a, b = (build(RunConfig, {"env": {"site": {"pv_kw": x}}}, "") for x in (1.0, [1.0]))
    assert changed_keys(a, b) == ["env.site.pv_kw"]
    assert changed_keys(a, build(RunConfig, {"env": {"site": {"pv_kw": 1}}}, "")) == []


@pytest.mark.usefixtures("garden")
def test_a_run_goes_on_whatever_the_order_of_its_keys() -> None:
    """The keys of a run's file stand as they stood when it began; their values count."""
    run = train(two(total_steps=10, ruler=False), "run")
    lines = run.config_yaml.read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("agent:"))
    moved = "\n".join([*lines[at:], *lines[:at]]).replace("seed: 0\n", "") + "\n"  # and one left to its default
    assert moved != run.config_yaml.read_text(encoding="utf-8")
    run.config_yaml.write_text(moved, encoding="utf-8")
    train(two(total_steps=10, ruler=False), "run", resume=True)
    run.config_yaml.write_text(moved, encoding="utf-8")
    with pytest.raises(UserError, match=r"differs from the configuration given \(total_steps, seed\); resume with"):
        train(two(total_steps=20, ruler=False, seed=1), "run", resume=True)
    with run.evaluations_csv.open(encoding="utf-8", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "10"]
