"""The review's encoding as printed and corrected, by simulated annealing, on fleets of the environment.

    python benchmarks/paper_encoding.py               5 vehicles, 4 stages; and one day of 20 and 8
    python benchmarks/paper_encoding.py --no-large    the small size alone

Simulated annealing of dwave-samplers with ``--reads`` reads of ``--sweeps`` sweeps. ``raw``: reads that
keep every rule as they are, SoC bits within half a step of the truth included; ``powers``: the same
without these. ``lost``: what the read of least energy, made feasible, loses of the saving
that the best continuous powers make over rest, in percent; above 100 it is worse than rest. ``any read``:
the same of the cheapest read, which no annealer points out. ``fake``: how far the SoC bits of the first
are from the energies that its powers leave, in kWh. Medians over ``--seeds`` days. As printed, lambda_1
is the one of ``WEIGHTS`` with the least median of ``lost``; ``at worst`` is the greatest of them.

Cases: ``market``: connected, all may run. ``half``: at most half, rounded up. ``dark``: an outage
with a load that the fleet can more than carry. ``alike``: the same, all chargers having one rating.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
from dwave.samplers import SimulatedAnnealingSampler

from qevgrid.agents.hybrid.paper import (
    ALL_FIXES,
    NO_FIX,
    Fix,
    Fleet,
    Penalties,
    build,
    decode,
    decode_soc,
    evaluate,
    legal,
    optimum,
)
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import ChargerParams, OutageParams, SiteParams, V2GParams

LEVELS, SOC_LEVELS = 3, 16
WEIGHTS = (0.0, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""lambda_1 in USD per kWh squared."""
SMALL, LARGE = (5, 4), (20, 8)
CASES = ("market", "half", "dark", "alike")
FIRST_SEED = 60_000
EARLIEST = 12
"""Stage from which a fleet is looked for: by then vehicles have come."""
CRITICAL_KW = 4.0
"""Critical load a vehicle in the dark, at its peak."""


class Read(NamedTuple):
    """What one decoded read turned out to be."""

    energy: float
    feasible: bool
    powers_feasible: bool
    cost_usd: float
    fake_kwh: float


def world(case: str, units: int) -> V2GCore:
    """Day-ahead prices and twice as many sockets as vehicles are wanted; losses by default."""
    site = SiteParams(critical_kw=CRITICAL_KW * units, generator_kw=0.0, pv_kw=0.0)
    charger = ChargerParams(power_kw=(7.2,)) if case == "alike" else ChargerParams()
    outage = OutageParams(share=1.0)
    return V2GCore(V2GParams(n_sockets=2 * units, prices="day_ahead", site=site, charger=charger, outage=outage))


def draw_fleet(core: V2GCore, case: str, seed: int, size: tuple[int, int]) -> Fleet | None:
    """The first fleet of a day that has the size, and an outage where one is wanted; idle until then."""
    units, horizon = size
    batch = core.batch(1)
    batch.load(np.arange(1), core.sampler.sample([np.random.default_rng(seed)]))
    for stage in range(core.n_stages - horizon):
        view = batch.view()
        if stage >= EARLIEST and view.plugged.sum() >= units and view.outage.any() == (case in ("dark", "alike")):
            fleet = first_units(Fleet.from_view(view, view.forecast(horizon), horizon), units)
            return dataclasses.replace(fleet, capacity=(units + 1) // 2 if case == "half" else units)
        batch.step(np.zeros((1, core.n_sockets)))
    return None


def first_units(fleet: Fleet, units: int) -> Fleet:
    """The fleet without the vehicles beyond the first ``units``."""
    names = ("charge_kw", "discharge_kw", "energy_kwh", "floor_kwh", "full_kwh")
    return dataclasses.replace(fleet, **{name: getattr(fleet, name)[:units] for name in names})


def draw_fleets(case: str, size: tuple[int, int], count: int) -> list[Fleet]:
    """From the first days that have one in which there is something to decide."""
    core, found, seed = world(case, size[0]), [], FIRST_SEED
    while len(found) < count:
        fleet = draw_fleet(core, case, seed, size)
        if fleet is not None and saving_usd(fleet) > 0.05:
            found.append(fleet)
        seed += 1
    return found


def rest_usd(fleet: Fleet) -> float:
    """Cost of doing nothing."""
    return evaluate(fleet, np.zeros((fleet.n_units, fleet.horizon))).cost_usd


def saving_usd(fleet: Fleet) -> float:
    """What the best continuous powers save over rest."""
    return rest_usd(fleet) - evaluate(fleet, optimum(fleet)).cost_usd


def anneal(fleet: Fleet, fixes: Fix, weight: float, arguments: argparse.Namespace) -> dict[str, float]:
    """One model built, annealed and decoded."""
    bqm = build(fleet, fixes, LEVELS, SOC_LEVELS, Penalties(balance_usd_kwh2=weight))
    options = {"num_reads": arguments.reads, "num_sweeps": arguments.sweeps, "seed": 1}
    start = time.perf_counter()
    found = SimulatedAnnealingSampler().sample(bqm, **options)
    seconds = time.perf_counter() - start
    reads = [read(fleet, fixes, row.sample, float(row.energy)) for row in found.data(["sample", "energy"])]
    first, cheapest = min(reads, key=lambda r: r.energy), min(reads, key=lambda r: r.cost_usd)
    rest, saving = rest_usd(fleet), saving_usd(fleet)
    lost, least = (100 * (1 - (rest - r.cost_usd) / saving) for r in (first, cheapest))
    raw, powers = (
        100 * statistics.mean(x) for x in zip(*((r.feasible, r.powers_feasible) for r in reads), strict=True)
    )
    return {
        "variables": len(bqm),
        "terms": bqm.num_interactions,
        "raw": raw,
        "powers": powers,
        "lost": lost,
        "least": least,
        "fake_kwh": first.fake_kwh,
        "ms": 1e3 * seconds,
    }


def read(fleet: Fleet, fixes: Fix, sample: Any, energy: float) -> Read:
    """A read made feasible, and whether it was."""
    done = evaluate(fleet, decode(fleet, sample, fixes, LEVELS))
    kept, fake = legal(sample) and done.raw_feasible, 0.0
    truthful = True
    if Fix.NO_SOC_BITS not in fixes:
        said = decode_soc(fleet, sample, fixes, SOC_LEVELS)
        off = np.abs(said - done.energy_kwh[:, 1:])
        fake, truthful = (
            float(off.mean()),
            bool((off <= (fleet.full_kwh - fleet.floor_kwh)[:, None] / SOC_LEVELS / 2).all()),
        )
    return Read(energy, kept and truthful, kept, done.cost_usd, fake)


def measure(case: str, fixes: Fix, fleets: list[Fleet], arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over the fleets, at the best weight."""
    weights = WEIGHTS if Fix.NO_SOC_BITS not in fixes else (1.0,)
    rows = []
    for weight in weights:
        found = common.median(anneal(fleet, fixes, weight, arguments) for fleet in fleets)
        rows.append({"case": case, "weight": weight, **found})
        print(
            f"{case}, {len(fixes)} fixes, lambda_1 {weight:g}: lost {found['lost']:.0f} %", file=sys.stderr, flush=True
        )
    best = min(rows, key=lambda row: row["lost"])
    return {**best, "worst": max(row["lost"] for row in rows)}


def table(rows: list[dict[str, Any]]) -> str:
    """All measurements."""
    header = (
        "case, vehicles, stages",
        "form",
        "variables",
        "terms",
        "raw %",
        "powers %",
        "lost %",
        "at lambda_1",
        "at worst %",
    )
    header += ("any read %", "fake kWh", "ms")

    def cells(row: dict[str, Any]) -> list[str]:
        printed = row["form"] == "paper"
        sizes = [common.number(row["variables"]), common.number(row["terms"])]
        quality = [common.number(row["raw"]), common.number(row["powers"]), common.number(row["lost"], 1)]
        weights = [f"{row['weight']:g}", common.number(row["worst"])] if printed else ["–", "–"]
        fake = common.number(row["fake_kwh"], 1) if printed else "–"
        least = common.number(row["least"], 1)
        return [row["name"], row["form"], *sizes, *quality, *weights, least, fake, common.number(row["ms"])]

    return common.markdown(header, map(cells, rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="days a case (default 5)")
    parser.add_argument("--reads", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--no-large", action="store_true", help="leave out 20 vehicles and 8 stages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    common.use_one_core()
    where = common.machine("dimod", "dwave-samplers", "highspy", "numpy")
    jobs = [(case, SMALL, arguments.seeds) for case in CASES]
    jobs += [] if arguments.no_large else [("market", LARGE, 1)]
    rows = []
    for case, size, seeds in jobs:
        fleets = draw_fleets(case, size, seeds)
        for form, fixes in (("paper", NO_FIX), ("paper_fixed", ALL_FIXES)):
            found = measure(case, fixes, fleets, arguments)
            rows.append({"name": f"{case} {size[0]}, {size[1]}", "form": form, **found})
    print(f"{where}. One core, {arguments.reads} reads x {arguments.sweeps} sweeps.\n")
    print(table(rows))
    common.write_json(arguments.json, {"machine": where, "rows": rows})


if __name__ == "__main__":
    main()
