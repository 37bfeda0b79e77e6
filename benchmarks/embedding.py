"""Decisions on quantum annealers, offline: qubits and chains by clique size, chain breaks by chain strength.

    python benchmarks/embedding.py            everything
    python benchmarks/embedding.py --quick    a minute: fewer sizes and instances

Graphs are those of Advantage (Pegasus 16) and Advantage2 (Zephyr 12, 4) without faults. ``made``: the
first time a size is embedded; after that it is kept. ``minorminer``: the usual heuristic search, for
comparison. Chain breaks are those of D-Wave's mock sampler, simulated annealing inside: neither the noise
nor the timing of a machine. ``connected`` and ``island``: stages of the shipped agent along days with an
outage. ``plans``: four plans a vehicle over four stages. ``lost``: cost above the exact optimum as a
share of what that saves over the references, of the best read that is a choice as it stands (``valid``),
of the best after repair and after best responses. Medians. The strength is a multiple of the torque on
a chain (``qpu.torque``); one row takes D-Wave's own estimate of it. Graph ``none``: the same annealer
without an embedding.
"""

import argparse
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import common
import numpy as np
import program
import qubo_solvers

from qevgrid.agents.hybrid import qpu
from qevgrid.agents.hybrid.agent import HybridAgent
from qevgrid.agents.hybrid.dual import Dual
from qevgrid.agents.hybrid.model import SHIPPED, Model
from qevgrid.agents.hybrid.plans import lookahead
from qevgrid.agents.hybrid.polish import best_response
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.agents.hybrid.sampler_linear import optimum
from qevgrid.agents.hybrid.samplers import DecisionSampler, Sampled, make_sampler
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.params import V2GParams

GRAPHS = ("pegasus", "zephyr")
CLIQUES = (20, 40, 60, 80, 100, 120, 140, 160, 180)
SEARCHED = (20, 40, 60)
PREFACTORS = (0.5, 1.0, qpu.PREFACTOR, 2.0, 3.0)
UNIFORM = "1.4, uniform torque compensation"
VEHICLES = 20
DAYS = 2
FIRST_SEED = 80_000
DARK_RISE_USD = 4.0
"""Above it a kink is lost load: an island."""
LONGEST = {"pegasus": 10, "zephyr": 8}
"""Chains wanted for a clique of 100."""
MOST_BREAKS = 5.0
RHO = 0.1


def cliques(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Clique embeddings of both graphs."""
    rows = []
    for size in sizes:
        row: dict[str, Any] = {"variables": size}
        for name in GRAPHS:
            graph = qpu.mock_annealer(name)[0].to_networkx_graph()
            start = time.perf_counter()
            found = qpu.embed_clique(graph, size)
            row[f"{name}_ms"] = 1e3 * (time.perf_counter() - start)
            row |= {f"{name}_{key}": value for key, value in chains(found).items()}
        rows.append(row)
    return rows


def chains(embedding: Any) -> dict[str, float]:
    """Qubits, longest and mean chain."""
    lengths = [len(chain) for chain in embedding.values()]
    return {"qubits": sum(lengths), "longest": max(lengths), "mean": float(np.mean(lengths))}


def search(sizes: tuple[int, ...], time_limit_s: float) -> list[dict[str, Any]]:
    """Embeddings of the same cliques by minorminer."""
    from minorminer import find_embedding

    rows = []
    for size in sizes:
        for name in GRAPHS:
            edges = qpu.mock_annealer(name)[0].edgelist
            start = time.perf_counter()
            found = find_embedding(list(combinations(range(size), 2)), edges, timeout=time_limit_s, random_seed=1)
            row = {"variables": size, "graph": name, "seconds": time.perf_counter() - start}
            rows.append(row | (chains(found) if found else {}))
    return rows


class Recorder(DecisionSampler):
    """Notes the decisions that pass by."""

    def __init__(self, inner: DecisionSampler) -> None:
        self.inner = inner
        self.seen: list[AggregateQUBO] = []

    def solve(self, problem: AggregateQUBO, seed: int, dual: Dual | None = None) -> Sampled:
        """As ``inner``."""
        self.seen.append(problem)
        return self.inner.solve(problem, seed, dual)


def stages(count: int) -> dict[str, list[AggregateQUBO]]:
    """Decisions of the shipped agent along days with an outage, ``count`` where supply is on and off each."""
    core = V2GCore(V2GParams(n_sockets=VEHICLES))
    agent = HybridAgent(Model.load(SHIPPED), core)
    recorder = agent.controller.sampler = Recorder(agent.controller.sampler)
    for seed in program.outage_seeds(core, DAYS):
        batch = program.begin(core, program.draw(core, seed))
        while not batch.over.all():
            batch.step(agent.act(batch.observe(), {"view": batch.view()}))
    some = [problem for problem in recorder.seen if len(problem.bit) >= VEHICLES]
    dark = [problem for problem in some if problem.pieces.rise.max() > DARK_RISE_USD]
    lit = [problem for problem in some if problem.pieces.rise.max() <= DARK_RISE_USD]
    return {"connected": spread(lit, count), "island": spread(dark, count)}


def spread(problems: list[AggregateQUBO], count: int) -> list[AggregateQUBO]:
    """``count`` of them, evenly."""
    return [problems[k] for k in np.linspace(0, len(problems) - 1, count).astype(int)]


def plans(seed: int) -> AggregateQUBO:
    """Four plans a vehicle over four stages, in turn of a market and an outage."""
    kind = qubo_solvers.KINDS[seed % 2]
    fleet = qubo_solvers.draw(seed, VEHICLES, 4, 3, kind)
    return lookahead(fleet.units, fleet.pieces, count=4, steps=30, constant_usd=fleet.constant_usd).problem


def decisions(count: int) -> dict[str, list[AggregateQUBO]]:
    """All kinds."""
    return stages(count) | {"plans": [plans(FIRST_SEED + k) for k in range(count)]}


def uniform(model: Any) -> float:
    """D-Wave's own estimate of a chain's torque."""
    from dwave.embedding.chain_strength import uniform_torque_compensation

    return float(uniform_torque_compensation(model, prefactor=1.0))


def samplers(arguments: argparse.Namespace) -> dict[tuple[str, str], DecisionSampler]:
    """The mock by graph and chain strength, and the same annealer without an embedding."""
    found = {}
    for graph in GRAPHS:
        chips = {f"{x:g}": qpu.mock_chip(graph, 600.0, x) for x in PREFACTORS}
        chips[UNIFORM] = qpu.mock_chip(graph, 600.0)._replace(torque=uniform)
        for label, chip in chips.items():
            found[graph, label] = make_sampler("mock_qpu", reads=arguments.reads, machine=chip)
    for share in (qpu.RHO_SHARE, 1.0):
        label = f"rho {RHO * share:g}"
        found["none", label] = make_sampler("neal", reads=arguments.reads, sweeps=qpu.MOCK_SWEEPS, rho=RHO * share)
    return found


def measure(problem: AggregateQUBO, best_usd: float, sampler: DecisionSampler, seed: int) -> dict[str, float]:
    """One decision."""
    saved = float(problem.energy_usd(np.zeros(problem.n_units, np.int64))) - best_usd
    found = sampler.solve(problem, seed)
    polished = float(problem.energy_usd(best_response(problem, found.choice)))
    energies = (found.valid_energy_usd, found.raw_choice_energy_usd, polished)
    names = ("raw_lost", "repaired_lost", "polished_lost")
    lost = {name: 100 * (x - best_usd) / max(saved, 1e-9) for name, x in zip(names, energies, strict=True)}
    size = {"bits": found.variables, "range_bits": found.range_bits, "ms": 1e3 * found.seconds}
    return size | {"breaks": 100 * found.chain_break_share, "valid": 100 * found.feasible_share} | lost


def study(kind: str, problems: list[AggregateQUBO], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All samplers on the same decisions of one kind; medians."""
    best = [float(p.energy_usd(optimum(p, 30.0))) for p in problems]
    rows = []
    for (graph, label), sampler in samplers(arguments).items():
        print(f"{kind}, {graph}, {label}", file=sys.stderr, flush=True)
        found = [measure(p, x, sampler, k) for k, (p, x) in enumerate(zip(problems, best, strict=True))]
        rows.append({"kind": kind, "graph": graph, "strength": label} | common.median(found))
    return rows


def clique_table(rows: list[dict[str, Any]]) -> str:
    """Both graphs side by side."""
    header = ["variables"]
    for name in GRAPHS:
        header += [f"{name}: qubits", "longest chain", "mean", "made ms"]
    lines = []
    for row in rows:
        cells = [str(row["variables"])]
        for name in GRAPHS:
            cells += [common.number(row[f"{name}_qubits"]), str(row[f"{name}_longest"])]
            cells += [common.number(row[f"{name}_mean"], 1), common.number(row[f"{name}_ms"])]
        lines.append(cells)
    return common.markdown(header, lines)


def search_table(rows: list[dict[str, Any]], time_limit_s: float) -> str:
    """What minorminer found."""
    header = ("variables", "graph", "minorminer: qubits", "longest chain", "mean", "s")
    lines = [
        (
            row["variables"],
            row["graph"],
            common.number(row.get("qubits")),
            common.number(row.get("longest")),
            common.number(row.get("mean"), 1),
            common.number(row["seconds"], 1) + ("" if "qubits" in row else f" (none in {time_limit_s:g} s)"),
        )
        for row in rows
    ]
    return common.markdown(header, lines)


def study_table(rows: list[dict[str, Any]]) -> str:
    """Breaks and losses."""
    header = (
        "decision",
        "bits",
        "range, bits",
        "graph",
        "chain strength",
        "breaks %",
        "valid %",
        "lost %: raw",
        "repaired",
        "polished",
        "ms",
    )
    lines = [
        (
            row["kind"],
            common.number(row["bits"]),
            common.number(row["range_bits"], 1),
            row["graph"],
            row["strength"],
            common.number(row["breaks"], 1),
            common.number(row["valid"]),
            common.number(row["raw_lost"] if np.isfinite(row["raw_lost"]) else None, 1),
            common.number(row["repaired_lost"], 1),
            common.number(row["polished_lost"], 2),
            common.number(row["ms"]),
        )
        for row in rows
    ]
    return common.markdown(header, lines)


def targets(sizes: list[dict[str, Any]], studied: list[dict[str, Any]]) -> str:
    """Measured against wanted."""
    lines = []
    hundred = next(row for row in sizes if row["variables"] == 100)
    for name, most in LONGEST.items():
        measured = hundred[f"{name}_longest"]
        verdict = common.verdict(measured, most + 1, least=False)
        lines.append((f"longest chain of a clique of 100, {name}", measured, f"<= {most}", verdict))
    for name in GRAPHS:
        rows = [row for row in studied if row["graph"] == name and row["strength"] == f"{qpu.PREFACTOR:g}"]
        measured = max(row["breaks"] for row in rows)
        verdict = common.verdict(measured, MOST_BREAKS, least=False)
        lines.append((f"chain breaks % at {qpu.PREFACTOR:g}, {name}", f"{measured:.1f}", f"< {MOST_BREAKS:g}", verdict))
    return common.markdown(("target", "measured", "wanted", "met"), lines)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and instances")
    parser.add_argument("--instances", type=int, help="decisions of each kind (default 8, quick 2)")
    parser.add_argument("--reads", type=int, default=20, help="a decision (default 20)")
    parser.add_argument("--time-limit", type=float, default=20.0, help="seconds of a search (default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    arguments = parser.parse_args()
    arguments.instances = arguments.instances or (2 if arguments.quick else 8)
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    common.use_one_core()
    where = common.machine("dwave-system", "dwave-samplers", "minorminer", "numpy")
    sizes = cliques((20, 60, 100, 180) if arguments.quick else CLIQUES)
    searched = search(SEARCHED[:1] if arguments.quick else SEARCHED, arguments.time_limit)
    kinds = decisions(arguments.instances)
    studied = [row for kind, problems in kinds.items() for row in study(kind, problems, arguments)]
    print(f"{where}. One core, {arguments.instances} decisions of each kind, {arguments.reads} reads.\n")
    print(clique_table(sizes), "", search_table(searched, arguments.time_limit), sep="\n")
    print("", study_table(studied), "", targets(sizes, studied), sep="\n")
    common.write_json(arguments.json, {"machine": where, "cliques": sizes, "searched": searched, "studied": studied})


if __name__ == "__main__":
    main()
