"""The observation: which entries, in which order, on which scale.

``labels`` names every entry. First N_GLOBAL globals, then a block of ``n_site`` entries a site (N_SITE, more where
vehicles are charged), then a block of N_UNIT + 2 D a unit. What the storm alone decides is tabulated at reset, as
far as it may be known at each stage; the kernel adds units and vehicles. Everything lies in [-1, 1].
"""

import numpy as np
from numba import njit

from qevgrid.envs.mobile_csp.arrays import SUPPLIED, World
from qevgrid.envs.mobile_csp.forecast import estimate_h
from qevgrid.envs.mobile_csp.kernel import HERE, INBOUND, N_GLOBAL, N_SERVICE, N_SITE, N_UNIT
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.plant import Ground, Plant
from qevgrid.envs.mobile_csp.scenario import Scenario
from qevgrid.envs.mobile_csp.unfold import SLACK
from qevgrid.envs.types import Float32Array, FloatArray

GLOBAL = ("progress", "clock_sin", "clock_cos", "gust", "lines_out", "roads_closed", "substation_out", "before_storm")
SITE = ("supplied", "need", "loss_rate", "backup", "restoration", "at_risk", "generator", "pv", "island_need",
        "charge_limit", "units_here", "units_inbound")  # fmt: skip
SERVICE = ("response_waiting", "stranded_waiting")
"""After ``SITE`` in the block of every site, if vehicles are charged somewhere."""
UNIT = ("acts", "idle", "arrives_in", "soc")
assert (len(GLOBAL), len(SITE), len(SERVICE), len(UNIT)) == (N_GLOBAL, N_SITE, N_SERVICE, N_UNIT)
assert (SITE[HERE], SITE[INBOUND]) == ("units_here", "units_inbound")

GUST_SCALE_MPH, RESTORATION_SCALE_H, BACKUP_SCALE_H, TRAVEL_SCALE_H = 200.0, 24.0, 8.0, 6.0
RISK_HOURS_H = 12.0
"""``at_risk`` is 1 where the dearest site would lose its peak load for so long."""


def site_entries(p: MobileCSPParams) -> tuple[str, ...]:
    """Names of the entries of a site's block."""
    return SITE + SERVICE if p.service.enabled else SITE


def n_site(p: MobileCSPParams) -> int:
    """Length of a site's block: N_SITE, or with the charging service N_SITE + N_SERVICE."""
    return len(site_entries(p))


def labels(p: MobileCSPParams) -> list[str]:
    """Name of every entry of the observation."""
    names = [*GLOBAL, *(f"{site.name}_{entry}" for site in p.sites for entry in site_entries(p))]
    for i in range(p.n_units):
        names += [f"unit{i}_{entry}" for entry in UNIT]
        names += [f"unit{i}_at_{site.name}" for site in p.sites]
        names += [f"unit{i}_travel_to_{site.name}" for site in p.sites]
    return names


def tabulate(plant: Plant, s: Scenario) -> Float32Array:
    """Entries of globals and sites, (B, T + 1 + before, N_GLOBAL + D * n_site), units and vehicles not yet counted.

    The first row is the one before the storm, where there is such a decision; the last one is the end's.
    """
    p, size = plant.params, len(s.gust_mph)
    first, periods, block = int(p.preposition), p.n_periods, n_site(p)
    table = np.zeros((size, periods + 1 + first, N_GLOBAL + block * plant.n_sites), np.float32)
    hour = 2 * np.pi * np.append(plant.clock_h, plant.clock_h[-1] + p.dt_h) / 24
    now = table[:, first:]
    now[..., 0] = np.arange(periods + 1) / periods
    now[..., 1], now[..., 2] = np.sin(hour), np.cos(hour)
    table[..., 3] = np.minimum(s.gust_mph[:, None] / GUST_SCALE_MPH, 1.0)
    value_kw = plant.mean_kw.max(0)
    dearest = max(float((plant.sites.voll_usd_kwh * value_kw).max()), 1e-9)
    at_h = np.arange(periods + 1.0) * p.dt_h
    _tabulate(
        plant.ground, s.world, now, s.line_h, s.substation_h, s.road_h, s.load_kw, at_h, s.estimate_z,
        p.repair.estimate_sigma, plant.sites.voll_usd_kwh, dearest, plant.fleet.power_kw,
        block,
    )  # fmt: skip
    if first:
        table[:, 0, 1], table[:, 0, 2], table[:, 0, 7] = table[:, 1, 1], table[:, 1, 2], 1.0
        sites = table[:, 0, N_GLOBAL:].reshape(size, plant.n_sites, block)
        sites[..., 0] = 1.0
        sites[..., 3] = np.minimum(plant.ground.backup_h / BACKUP_SCALE_H, 1.0)
    return table


@njit(cache=True)
def _tabulate(
    ground: Ground,
    world: World,
    table: Float32Array,
    line_h: FloatArray,
    substation_h: FloatArray,
    road_h: FloatArray,
    load_kw: FloatArray,
    at_h: FloatArray,
    estimate_z: Float32Array,
    sigma: float,
    voll_usd_kwh: FloatArray,
    dearest_usd_h: float,
    power_kw: float,
    block: int,
) -> None:  # pragma: no cover - compiled
    size, periods, sites = world.island.shape
    used_h, lines = np.empty(sites), np.empty(line_h.shape[1])
    for b in range(size):
        used_h[:] = 0.0
        for row in range(periods + 1):
            t = min(row, periods - 1)
            now_h = at_h[t] + SLACK
            table[b, row, 4] = np.mean(line_h[b] > now_h)
            table[b, row, 5] = np.mean(road_h[b] > now_h)
            table[b, row, 6] = substation_h[b] > now_h
            z, last = estimate_z[b, t], line_h.shape[1]
            for k in range(last):
                lines[k] = estimate_h(line_h[b, k], at_h[t], z[k], sigma, ground.dt_h)
            substation = estimate_h(substation_h[b], at_h[t], z[last], sigma, ground.dt_h)
            for d in range(sites):
                k = N_GLOBAL + block * d
                island, need = world.island[b, t, d], world.need_kw[b, t, d]
                dark, running = island != SUPPLIED, world.generator_kw[b, t, d] > 0.0
                if dark and not running and row < periods:
                    used_h[d] += ground.dt_h
                back_h = _restoration_h(ground, lines, substation, d) - at_h[t] if dark else 0.0
                left_h = max(ground.backup_h[d] - used_h[d], 0.0)
                total = 0.0
                for e in range(sites):
                    if dark and world.island[b, t, e] == island:
                        total += world.need_kw[b, t, e]
                lost_h = 0.0 if running else max(back_h - left_h, 0.0)
                table[b, row, k] = not dark
                table[b, row, k + 1] = min(need / power_kw, 1.0)
                table[b, row, k + 2] = min(voll_usd_kwh[d] * need / dearest_usd_h, 1.0)
                table[b, row, k + 3] = min(left_h / BACKUP_SCALE_H, 1.0)
                table[b, row, k + 4] = min(max(back_h / RESTORATION_SCALE_H, 0.0), 1.0)
                risk = voll_usd_kwh[d] * load_kw[b, t, d] * lost_h if dark else 0.0
                table[b, row, k + 5] = min(risk / (dearest_usd_h * RISK_HOURS_H), 1.0)
                table[b, row, k + 6] = running
                table[b, row, k + 7] = min(world.pv_kw[b, t, d] / power_kw, 1.0)
                table[b, row, k + 8] = min(total / power_kw, 1.0)
                table[b, row, k + 9] = min(world.charge_limit_kw[b, t, d] / power_kw, 1.0)


@njit(cache=True)
def _restoration_h(ground: Ground, lines: FloatArray, substation: float, d: int) -> float:  # pragma: no cover
    """Hour at which the last line that feeds the site, and the substation, are estimated to be back."""
    hour = substation
    for k in range(len(lines)):
        if ground.carries[k, d]:
            hour = max(hour, lines[k])
    return hour
