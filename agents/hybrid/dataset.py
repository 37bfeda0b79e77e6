"""Training examples for the critic: states that a controller reaches, shaken, with the duals as labels."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid import features, labels
from qevgrid.agents.hybrid.critic import Critic, fit_net
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import Batch, V2GCore, View

CHUNK = 4
"""Days that one job labels together."""


class Examples(NamedTuple):
    """S states with V vehicles in all."""

    fleet: FloatArray  # (S, F)
    fleet_value: FloatArray  # (S,) mean label of the state's vehicles
    vehicle: FloatArray  # (V, F + Z)
    vehicle_value: FloatArray  # (V,) label less that mean

    @staticmethod
    def join(parts: Sequence["Examples"]) -> "Examples":
        """All of them; ``UserError`` if there are none."""
        if not parts:
            raise UserError(
                "nobody was plugged in at any labelled stage: raise agent.days or agent.stages_per_day, or have more "
                "vehicles"
            )
        return Examples._make(np.concatenate(x) for x in zip(*parts, strict=True))


def collect(core: V2GCore, agent: Agent, seeds: Sequence[int], stages_per_day: int, seed: int) -> list[Examples]:
    """Play ``agent`` on the days ``seeds`` and label some stages of each, energies shaken."""
    rng = np.random.default_rng(seed)
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(s) for s in seeds])
    chosen = rng.random((core.n_stages, len(seeds))).argsort(0).argsort(0) < stages_per_day
    agent.begin({"view": batch.view()})
    found = []
    for t in range(core.n_stages):
        view = batch.view()
        found += [_example(core, batch, view, int(b), rng) for b in np.flatnonzero(chosen[t]) if view.plugged[b].any()]
        batch.step(agent.act(batch.observe(), {"view": batch.view()}))  # not the shaken one
    return found


def _example(core: V2GCore, batch: Batch, view: View, b: int, rng: np.random.Generator) -> Examples:
    """One labelled state."""
    energy = shaken(view, b, rng)
    view.energy_kwh[b] = energy
    socket, worth = labels.energy_values(view, batch.scenario, b, energy)
    p = core.params
    around = features.Surroundings(view, view.forecast(features.horizon(p.dt_h, 1)), b, 1, core.sampler.clock_h)
    spare, need, power = features.fleet_state(view, b)
    one = np.zeros(1, np.int64)
    fleet = around.rows(one, np.array([spare]), np.array([need]), np.array([power]))
    vehicle = features.vehicle_rows(view, b, socket, energy[socket])
    return Examples(
        fleet,
        np.array([worth.mean()]),
        np.hstack([np.repeat(fleet, len(socket), 0), vehicle]),
        worth - worth.mean(),
    )


def shaken(view: View, b: int, rng: np.random.Generator) -> FloatArray:
    """Energies (N,) of episode ``b``, for half of the draws moved as a fleet and vehicle by vehicle."""
    energy, floor, full = view.energy_kwh[b], view.floor_kwh[b], view.capacity_kwh[b]
    if rng.random() < 0.5:
        return energy.copy()
    fleet = rng.uniform(-0.5, 0.3)
    moved = energy + (fleet + 0.1 * rng.standard_normal(len(energy))) * (full - floor)
    return np.where(view.plugged[b], np.clip(moved, floor, full), energy)


def habits(core: V2GCore, agent: Agent, seeds: Sequence[int]) -> FloatArray:
    """What arrives and what ``agent`` charges within each clock hour, as in ``critic.HABITS``, (24, 4)."""
    batch = core.batch(len(seeds))
    batch.start(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    s = batch.scenario.sessions
    here = s.arrival < core.n_stages
    hour = core.sampler.clock_h[s.arrival[here]].astype(np.int64)
    come = (s.energy_kwh - s.floor_kwh, s.target_kwh - s.energy_kwh, s.limit_kw)
    sums = [np.bincount(hour, x[here], 24) for x in come]
    charged = np.zeros(24)
    agent.begin({"view": batch.view()})
    for t in range(core.n_stages):
        before, slot = batch.state.energy_kwh.copy(), batch.state.slot.copy()
        view = batch.view()
        batch.step(agent.act(batch.observe(), {"view": view}))
        stayed = view.plugged & (batch.state.slot == slot) & ~view.outage[:, core.plant.site]
        moved = np.where(stayed, batch.state.energy_kwh - before, 0.0).sum()
        charged[int(core.sampler.clock_h[t])] += moved
    return np.stack([*sums, charged], 1) / (len(seeds) * core.params.days * core.plant.charge_kw.sum())


def collect_parallel(
    core: V2GCore, agent: Agent, seeds: Sequence[int], stages_per_day: int, seed: int, jobs: int,
    advance: Callable[[int], object] = lambda days: None,
) -> Examples:  # fmt: skip
    """``collect`` over processes; the same examples whatever the number of ``jobs``."""
    chunks = [seeds[a : a + CHUNK] for a in range(0, len(seeds), CHUNK)]
    arguments = [(core.params, agent, chunk, stages_per_day, seed + k) for k, chunk in enumerate(chunks)]
    parts = []
    if jobs == 1:
        for task in arguments:
            parts += _job(task)
            advance(len(task[2]))
        return Examples.join(parts)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for task, part in zip(arguments, pool.map(_job, arguments), strict=True):
            parts += part
            advance(len(task[2]))
    return Examples.join(parts)


def _job(task: tuple) -> list[Examples]:
    params, agent, seeds, stages_per_day, seed = task
    return collect(V2GCore(params), agent, seeds, stages_per_day, seed)


def fit(examples: Examples, habits: FloatArray, *, hidden: int, epochs: int, lr: float, seed: int) -> Critic:
    """Both networks."""
    settings = {"hidden": hidden, "epochs": epochs, "lr": lr}
    fleet = fit_net(examples.fleet, examples.fleet_value, seed=seed, **settings)
    vehicle = fit_net(examples.vehicle, examples.vehicle_value, seed=seed + 1, **settings)
    return Critic(fleet, vehicle, habits)
