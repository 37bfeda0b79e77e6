"""Training: configuration in, run folder out; resumable at every validation."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

from qevgrid.agents import RIVALS, build_learner, load_learned
from qevgrid.agents.learner import Learner
from qevgrid.envs.errors import UserError
from qevgrid.envs.problem import Problem, problem_of
from qevgrid.envs.types import Core
from qevgrid.runner import config as yaml_config
from qevgrid.runner import log, metrics
from qevgrid.runner.cli import progress
from qevgrid.runner.folder import RunFolder, create_run_folder
from qevgrid.runner.parallel import play_rival
from qevgrid.runner.plots import cost_figure, learning_figure, save_figure
from qevgrid.runner.rollout import Episodes, begin, play
from qevgrid.runner.schema import RunConfig

VALIDATION_SEEDS = 2**33


def train(config: RunConfig, out: str | Path, *, resume: bool = False, arguments: Sequence[str] = ()) -> RunFolder:
    """Train the configured agent into the folder ``out`` and return it.

    With ``resume`` the run goes on from its last checkpoint and ends with the weights of an
    uninterrupted run. Raises ``UserError`` before anything is written.
    """
    folder = create_run_folder(out, resume)
    if resume:
        _check_same(folder, config)
    problem = problem_of(config.env)
    core = problem.core(config.env)
    learner = build_learner(config.agent, config.env, config.seed)
    for line in problem.report_lines(core):
        print(f"  {line}")
    return _Training(config, folder, core, learner).run(resume, arguments)


def _check_same(folder: RunFolder, config: RunConfig) -> None:
    """A resumed run must be the same run: equal values, in whatever order its file has the keys."""
    changed = yaml_config.changed_keys(yaml_config.load_config(type(config), folder.config_yaml), config)
    if not changed:
        return
    raise UserError(
        f"{folder.config_yaml}: differs from the configuration given ({', '.join(changed)}); resume with "
        f"the same keys (train.py --config {folder.config_yaml} --resume --out {folder.path}) or pass --out OTHER"
    )


class _Training:
    """One run from its first step or checkpoint to its last."""

    def __init__(self, config: RunConfig, folder: RunFolder, core: Core, learner: Learner) -> None:
        self.config, self.folder, self.core, self.learner = config, folder, core, learner
        self.problem, self.rivals = problem_of(config.env), RIVALS[config.env.id]
        self.seeds = [VALIDATION_SEEDS + k for k in range(config.eval_episodes)]
        self.rows: list[dict[str, Any]] = []
        self.best_usd = np.inf
        self.next_eval = 0
        self.ruler: dict[str, Episodes] = {}

    def run(self, resume: bool, arguments: Sequence[str]) -> RunFolder:
        done = self._resume() if resume else 0
        self.ruler = self._measure_ruler()  # may fail, so before anything is written
        self.folder.write_text(self.folder.config_yaml, yaml_config.dump(self.config))
        self.folder.write_meta(arguments, self.config.seed)
        self.writer = SummaryWriter(str(self.folder.path), purge_step=done + 1 if self.rows else None)
        output = TensorBoardOutputFormat.__new__(TensorBoardOutputFormat)
        output.writer, output._is_closed = self.writer, False
        self.learner.set_logger(Logger(str(self.folder.path), [output]))
        if not self.rows:
            log.add_config(self.writer, yaml_config.dump(self.config))
        self._log_ruler()
        self.started = time.monotonic()
        try:
            self._learn(done)
        except KeyboardInterrupt:
            kept = max(self.folder.checkpoints, default=0)
            raise KeyboardInterrupt(
                f"saved up to step {kept}; go on with: train.py --config {self.folder.config_yaml} --out {self.folder.path} --resume"
            ) from None
        self._finish()
        return self.folder

    def _learn(self, done: int) -> None:
        """What the learner prepares, then all rounds and validations from step ``done`` on."""
        if not self.rows:
            self.learner.prepare()
        with progress(self.config.total_steps, "training") as self.bar:
            self.bar.update(done)
            self.learner.learn(self.config.total_steps, self._between_rounds)
            self._between_rounds(self.learner, last=True)

    def _resume(self) -> int:
        """Load the last checkpoint; 0 if there is none yet."""
        steps = self.folder.checkpoints
        if not steps:
            return 0
        done = max(steps)
        self.learner.restore(steps[done])
        self.rows = [_number_row(row) for row in _read_csv(self.folder.evaluations_csv) if int(row["step"]) <= done]
        self.best_usd = min(row["cost_usd"] for row in self.rows)
        self.next_eval = done + self.config.eval_every
        return done

    def _measure_ruler(self) -> dict[str, Episodes]:
        """Rivals on the learner's validation episodes, as lines beside its curve."""
        if not self.config.ruler:
            return {}
        found, names = {}, self.rivals.beside_training
        with progress(len(self.seeds) * len(names), "ruler", self.problem.episode) as bar:
            for name in names:
                found[name] = play_rival(name, self.config.env, self.seeds, advance=bar.update)
        return found

    def _log_ruler(self) -> None:
        """One flat line a rival, in a folder of its own."""
        found = self.ruler
        for name, row in zip(found, self._table(list(found.values()), found), strict=True):
            writer = SummaryWriter(str(self.folder.path / "rivals" / name))
            for tag, value in metrics.scalars(row, found[name], self.problem).items():
                if value is not None:
                    log.flat_line(writer, tag, value, [0, self.config.total_steps])
            writer.close()

    def _table(self, agents: list[Episodes], ruler: dict[str, Episodes]) -> list[dict[str, Any]]:
        return metrics.table(agents, ruler.get(self.rivals.naive), ruler.get(self.rivals.best), self.problem)

    def _between_rounds(self, learner: Learner, last: bool = False) -> None:
        """Show progress; at every validation measure, keep the best weights, write a checkpoint."""
        step = learner.steps
        self.bar.update(step - self.bar.n)
        if not last and step < self.next_eval:
            return
        if self.rows and self.rows[-1]["step"] == step:
            return
        self.next_eval = step + self.config.eval_every
        self._validate(step)
        with self.folder.atomic_path(self.folder.checkpoint_zip(step)) as path:
            learner.checkpoint(path)
        for earlier, old in self.folder.checkpoints.items():
            if earlier < step:
                old.unlink()

    def _validate(self, step: int) -> None:
        """Measure what has been learned so far and keep it if it is the best."""
        episodes = play(self.core, self.learner.agent(self.folder.path.name, self.core), self.seeds)
        (row,) = self._table([episodes], self.ruler)
        scalars = metrics.scalars(row, episodes, self.problem)
        if not self.rows:
            log.add_layout(self.writer, log.comparison_layout([*_layout_tags(self.problem), *scalars]))
        log.add_scalars_flat(self.writer, scalars, step)
        flat = {key: value for key, value in row.items() if key.startswith("cost_") and key.endswith("_usd")}
        entry = {"step": step, "cost_usd": row["cost_usd_mean"], "score": row["score"]} | flat
        if entry["cost_usd"] < self.best_usd:
            self.best_usd = entry["cost_usd"]
            with self.folder.atomic_path(self.folder.model_zip) as path:
                self.learner.save(path)
        self.rows.append(entry)
        self.folder.write_csv(self.folder.evaluations_csv, self.rows)
        usd = f"USD a {self.problem.episode}"
        self.bar.set_postfix_str(f"validation {entry['cost_usd']:.1f} {usd}, best {self.best_usd:.1f}")
        if not sys.stderr.isatty():
            print(
                f"step {step:>9}  validation {entry['cost_usd']:8.1f} {usd}  best {self.best_usd:8.1f}",
                flush=True,
            )

    def _finish(self) -> None:
        """The best weights' figures, pictures, hparams."""
        agent = load_learned(self.folder.model_zip, self.folder.path.name, self.core, self.config.agent)
        episodes = play(self.core, agent, self.seeds, keep=[self._telling()])
        row = self._table([episodes], self.ruler)[0]
        step = self.learner.steps
        curve = {"steps": [r["step"] for r in self.rows], "cost_usd": [r["cost_usd"] for r in self.rows]}
        lines = {
            name: {"cost_usd": float(e.total_usd.mean())} for name, e in self.ruler.items() if name != self.rivals.naive
        }
        figures = {
            "learning": learning_figure({agent.name: curve} | lines),
            self.problem.episode: self.problem.figure(list(episodes.traces.values())),
        }
        if self.ruler:
            figures["costs"] = cost_figure(
                self._table([*self.ruler.values(), episodes], self.ruler), self.problem.term_colors
            )
        for name, figure in figures.items():
            save_figure(figure, self.folder.path / f"{name}.png")
            log.add_figure(self.writer, f"pictures/{name}", figure, step)
        final = {"final/cost_usd": self.best_usd, "final/score": row["score"]}
        log.add_hparams(
            self.writer, _hparams(self.config, self.problem), {k: v for k, v in final.items() if v is not None}, step
        )
        self.folder.write_json(
            self.folder.metrics_json,
            {
                "steps": step, "validation_cost_usd": self.best_usd, "validation_episodes": len(self.seeds), "validation": row,
                "rivals_cost_usd": {name: float(e.total_usd.mean()) for name, e in self.ruler.items()},
                "seconds": time.monotonic() - self.started, "parameters": self.learner.parameters, "files": self.problem.report(self.core),
            },
        )  # fmt: skip
        self.writer.close()

    def _telling(self) -> int:
        """Position of the validation episode that shows most."""
        return next(iter(self.problem.shown(begin(self.core, self.seeds).scenario).values()))


def _layout_tags(problem: Problem) -> list[str]:
    """Tags of the comparison page; the first validation adds what the agent reports."""
    return [
        "eval/score", "eval/cost_usd", *(f"cost/{t}_usd" for t in problem.cost_terms), *(f"kpi/{k}" for k in problem.kpis),
        "rollout/ep_rew_mean", "train/value_loss", "train/explained_variance", "train/approx_kl", "train/std",
    ]  # fmt: skip


def _hparams(config: RunConfig, problem: Problem) -> dict[str, Any]:
    """What tells runs apart: the agent's keys, the seed and the size of the world."""
    agent = {key: value for key, value in vars(config.agent).items() if not key.startswith("_")}
    return {"agent": agent, "seed": config.seed, "total_steps": config.total_steps} | problem.size(config.env)


def _read_csv(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number_row(row: dict[str, str]) -> dict[str, Any]:
    found = {key: float(value) if value else None for key, value in row.items()}
    return found | {"step": int(row["step"])}
