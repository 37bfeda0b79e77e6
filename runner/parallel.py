"""Rivals on many episodes, the slow ones spread over processes."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from qevgrid.agents import make_rival
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner.rollout import Episodes, play

CHUNK = 2


def play_rival(
    name: str,
    params: V2GParams,
    seeds: Sequence[int],
    keep: Sequence[int] = (),
    *,
    jobs: int | None = None,
    advance: Callable[[int], object] = lambda episodes: None,
) -> Episodes:
    """Episodes of the rival ``name``; ``advance`` is told how many more are done."""
    workers = min(jobs or os.cpu_count() or 1, -(-len(seeds) // CHUNK))
    if not make_rival(name).slow or workers == 1:
        episodes = play(V2GCore(params), make_rival(name), seeds, keep)
        advance(len(seeds))
        return episodes
    starts = range(0, len(seeds), CHUNK)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {
            pool.submit(_chunk, name, params, seeds[a : a + CHUNK], [k - a for k in keep if a <= k < a + CHUNK]): a
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


def _chunk(name: str, params: V2GParams, seeds: Sequence[int], keep: Sequence[int]) -> Episodes:
    return play(V2GCore(params), make_rival(name), seeds, keep)
