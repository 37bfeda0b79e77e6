"""Everything that chance decides in an episode, drawn at reset from one generator with a child stream a factor."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qevgrid.envs.mobile_csp.arrays import World
from qevgrid.envs.mobile_csp.plant import Plant, line_km
from qevgrid.envs.mobile_csp.storm import gust_mph, line_failure, mend
from qevgrid.envs.mobile_csp.unfold import NEVER_H, Facts, empty_world, unfold
from qevgrid.envs.types import Float32Array, FloatArray, IntArray

FACTORS = ("storm", "lines", "repair", "substation", "roads", "generator", "load", "pv", "estimate")
"""One child random stream each, so that a change in one leaves the others as they were."""
ESTIMATE_PHI_H = 0.9
"""Correlation over an hour of an estimate's log error: crews report again and again."""


class Scenario(NamedTuple):
    """B episodes of T periods; D sites, L lines, R roads. Hours count from period 0."""

    gust_mph: FloatArray  # (B,)
    line_h: FloatArray  # (B, L) mended; 0: never broken
    substation_h: FloatArray  # (B,) back; 0: never out
    road_h: FloatArray  # (B, R) clear again; 0: never closed
    generator_h: FloatArray  # (B, D) the backup generator fails; NEVER_H; 0: there is none
    load_kw: FloatArray  # (B, T, D) critical load, served or not
    clearness: FloatArray  # (B, T) PV over its clear-sky power
    estimate_z: Float32Array  # (B, T, L + 1 + R) standardised log error of the estimates: lines, substation, roads
    world: World  # what follows from all this

    def row(self, b: int) -> "Scenario":
        """Episode ``b`` alone, batch axis kept."""
        row = slice(b, b + 1)
        return Scenario._make((*(x[row] for x in self[:-1]), World._make(x[row] for x in self.world)))

    def fingerprint(self, b: int) -> str:
        """Short hash of every array of episode ``b``; equal fingerprints, equal worlds."""
        digest = hashlib.blake2b(digest_size=8)
        for array in (*self[:-1], *self.world):
            digest.update(np.ascontiguousarray(array[b]).data)
        return digest.hexdigest()


class Draws(NamedTuple):
    """Raw random numbers of B episodes, before any parameter touches them."""

    storm: FloatArray  # (B, 4) uniform
    lines: FloatArray  # (B, L) uniform
    repair: FloatArray  # (B, 2, L) normal
    substation: FloatArray  # (B, 2) uniform, normal
    roads: FloatArray  # (B, R) uniform
    clearing: FloatArray  # (B, R) normal
    generator: FloatArray  # (B, 2, D) uniform
    load: FloatArray  # (B, T + 1, D) normal
    clearness: FloatArray  # (B,) of the day
    pv: FloatArray  # (B, T) normal
    estimate: Float32Array  # (B, T, L + 1 + R) normal
    vehicles: IntArray = np.zeros((1, 1, 0, 2), np.int64)  # (B, T, E, 2) that arrive


class Sampler:
    """Draws scenarios of one plant."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.length_km = line_km(plant)
        self.vehicle_kwh = np.array([plant.params.service.response_kwh, plant.params.service.stranded_kwh])

    def draw(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """Raw numbers of one episode from one generator's child streams (order: ``FACTORS``).

        That of the vehicles is a grandchild: with and without them a generator draws the same storms.
        """
        streams = rng.spawn(len(FACTORS))
        numbers = self._numbers(*streams)
        if not len(self.plant.service.site):
            return numbers
        return (*numbers, self.vehicles(streams[0].spawn(1)[0], self.plant.n_periods))

    def vehicles(self, rng: np.random.Generator, *size: int) -> IntArray:
        """Numbers of vehicles that arrive in a period, (*size, E, 2)."""
        mean = self.plant.service.mean_kwh / self.vehicle_kwh
        return rng.poisson(mean, (*size, len(self.plant.service.site), 2))

    def _numbers(self, *streams: np.random.Generator) -> tuple[Any, ...]:
        """Raw numbers from one stream a factor; a single one serves all."""
        plant, p = self.plant, self.plant.params
        t, d, lines, roads = p.n_periods, plant.n_sites, plant.feeder.n_line, len(plant.roads.tail)
        streams = streams * len(FACTORS) if len(streams) == 1 else streams
        storm, line, repair, substation, road, generator, load, pv, estimate = streams
        return (
            storm.random(4),
            line.random(lines),
            repair.standard_normal((2, lines)),
            np.array([substation.random(), substation.standard_normal()]),
            road.random(roads),
            road.standard_normal(roads),
            generator.random((2, d)),
            load.standard_normal((t + 1, d)),
            pv.beta(*p.load.clearness),
            pv.standard_normal(t),
            estimate.standard_normal((t, lines + 1 + roads), np.float32),
        )

    def sample(self, rngs: list[np.random.Generator]) -> Scenario:
        """One episode per generator."""
        return self.build(Draws(*(np.stack(block) for block in zip(*map(self.draw, rngs), strict=True))))

    def build(self, draws: Draws) -> Scenario:
        """Turn raw numbers into the world; pure, row by row."""
        plant, p = self.plant, self.plant.params
        gust = gust_mph(p.storm, draws.storm)
        line_h, substation_h, road_h = self._damage(gust, draws)
        generator_h = self._generators(draws)
        level = p.load.site_sigma * draws.load[:, :1] + p.load.noise_sigma * draws.load[:, 1:]
        load_kw = plant.mean_kw * np.exp(level)
        clearness = np.clip(draws.clearness[:, None] + p.load.clearness_sigma * draws.pv, 0.0, 1.0)
        pv_kw = (plant.sun * clearness)[..., None] * plant.pv_rated_kw
        facts = Facts(line_h, substation_h, road_h, generator_h, load_kw, pv_kw)
        world = empty_world(len(gust), p.n_periods, plant.n_sites, len(plant.service.site))
        world.arrivals_kwh[:] = draws.vehicles * self.vehicle_kwh
        unfold(plant.ground, plant.load_shape, facts, world, np.zeros(len(gust), np.int64))
        z = wander(draws.estimate, ESTIMATE_PHI_H**p.dt_h)
        return Scenario(gust, line_h, substation_h, road_h, generator_h, load_kw, clearness, z, world)

    def damage(self, gust: FloatArray, rngs: list[np.random.Generator]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Hours at which lines, substation and roads are back after a storm of this gust (B,)."""
        draws = Draws(*(np.stack(block) for block in zip(*map(self._numbers, rngs), strict=True)))
        return self._damage(gust, draws)

    def _damage(self, gust: FloatArray, draws: Draws) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Hours at which lines, the substation and roads are back."""
        repair = self.plant.params.repair
        broken = draws.lines < line_failure(self.plant.params.storm, gust, self.length_km)
        place = np.arange(broken.shape[1]) + repair.order_noise * draws.repair[:, 0]
        job_h = repair.median_h * np.exp(repair.sigma * draws.repair[:, 1])
        line_h = mend(broken, place, job_h, repair.crews, repair.first_h, repair.travel_h)
        out, z = draws.substation.T
        back_h = repair.substation_median_h * np.exp(repair.substation_sigma * z)
        return line_h, np.where(out < repair.substation_share, back_h, 0.0), self._roads(gust, draws)

    def _roads(self, gust: FloatArray, draws: Draws) -> FloatArray:
        """Hours at which roads are clear."""
        roads = self.plant.params.roads
        share = np.clip((gust - 70.0) / 150.0, 0.05, 0.6) if roads.closed_share is None else roads.closed_share
        closed = draws.roads < np.broadcast_to(share, gust.shape)[:, None]
        return np.where(closed, roads.median_h * np.exp(roads.sigma * draws.clearing), 0.0)

    def _generators(self, draws: Draws) -> FloatArray:
        """Hours at which backup generators fail."""
        load, failing = self.plant.params.load, draws.generator[:, 0]
        hour = np.where(failing < load.generator_fail_share, draws.generator[:, 1] * load.generator_fail_h, NEVER_H)
        return np.where(self.plant.ground.generator, hour, 0.0)


def whole_travel(plant: Plant) -> NDArray[np.int16]:
    """Travel periods (D, D) while all roads are open."""
    world, none = empty_world(1, 1, plant.n_sites), np.zeros((1, plant.n_sites))
    closed = np.zeros((1, len(plant.roads.tail)))
    facts = Facts(np.zeros((1, plant.feeder.n_line)), np.zeros(1), closed, none, none[:, None], none[:, None])
    unfold(plant.ground, plant.load_shape, facts, world, np.zeros(1, np.int64))
    return world.travel[0, 0].copy()


@njit(cache=True)
def wander(z: NDArray[np.float32], phi: float) -> NDArray[np.float32]:  # pragma: no cover - compiled
    """Stationary AR(1) paths along axis 1 from standard normals (B, T, K)."""
    out, gain = z.copy(), np.float32(np.sqrt(1.0 - phi * phi))
    keep = np.float32(phi)
    for b in range(z.shape[0]):
        for t in range(1, z.shape[1]):
            for k in range(z.shape[2]):
                out[b, t, k] = keep * out[b, t - 1, k] + gain * z[b, t, k]
    return out
