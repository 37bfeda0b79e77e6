"""Any agent on many episodes, the slow ones spread over processes."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qevgrid.agents import load_learned, make_rival
from qevgrid.agents.base import Agent
from qevgrid.envs.errors import UserError
from qevgrid.envs.problem import problem_of
from qevgrid.envs.types import Core
from qevgrid.runner.config import load_config
from qevgrid.runner.folder import read_run
from qevgrid.runner.rollout import Episodes, play
from qevgrid.runner.schema import AgentConfig, RunConfig

CHUNK = 2


@dataclass(frozen=True)
class Player:
    """Who plays, in words that another process understands."""

    name: str
    """A rival's, or what to call the agent of ``run``."""
    run: Path | None = None
    """Folder of the trained run; None: a rival."""
    settings: AgentConfig | None = None
    """How every agent of their kind plays; the others, and without settings all, keep their own."""

    def agent(self, core: Core) -> Agent:
        """The agent itself, made for this environment; ``UserError`` if that is impossible."""
        if self.run is None:
            return make_rival(self.name, self.settings, core.params.id)
        folder = read_run(self.run)
        config = load_config(RunConfig, folder.config_yaml)
        if config.env.id != core.params.id:
            raise UserError(
                f"{self.run}: trained on env.id={config.env.id}, but this is env.id={core.params.id}; "
                f"evaluate with --config {folder.config_yaml}"
            )
        own = config.agent
        given = self.settings is not None and self.settings.kind == own.kind
        return load_learned(folder.model_zip, self.name, core, self.settings if given else own)


def play_rival(
    name: str,
    params: Any,
    seeds: Sequence[int],
    keep: Sequence[int] = (),
    *,
    settings: AgentConfig | None = None,
    jobs: int | None = None,
    advance: Callable[[int], object] = lambda episodes: None,
) -> Episodes:
    """`play_spread` for the rival ``name``; ``settings`` are for the one of their kind."""
    return play_spread(
        Player(name, settings=settings), problem_of(params).core(params), seeds, keep, jobs=jobs, advance=advance
    )


def play_spread(
    player: Player,
    core: Core,
    seeds: Sequence[int],
    keep: Sequence[int] = (),
    *,
    jobs: int | None = None,
    advance: Callable[[int], object] = lambda episodes: None,
) -> Episodes:
    """Episodes of ``player``, over at most ``jobs`` processes if it is slow.

    ``advance`` is told how many more are done.
    """
    agent = player.agent(core)
    workers = min(jobs or os.cpu_count() or 1, -(-len(seeds) // CHUNK))
    if not agent.slow or workers == 1:
        episodes = play(core, agent, seeds, keep)
        advance(len(seeds))
        return episodes
    starts = range(0, len(seeds), CHUNK)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {
            pool.submit(
                _chunk, player, core.params, seeds[a : a + CHUNK], [k - a for k in keep if a <= k < a + CHUNK]
            ): a
            for a in starts
        }
        parts: dict[int, Episodes] = {}
        try:
            for future in as_completed(waiting):
                parts[waiting[future]] = future.result()
                advance(len(parts[waiting[future]].seeds))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Episodes.join([parts[a] for a in starts])


def _chunk(player: Player, params: Any, seeds: Sequence[int], keep: Sequence[int]) -> Episodes:
    core = problem_of(params).core(params)
    return play(core, player.agent(core), seeds, keep)
