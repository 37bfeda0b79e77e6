"""Quantum annealers, their local stand-in, and D-Wave's hybrid solver.

A decision couples every bit with every other, so the embedding is that of a clique, padded to a few
sizes: milliseconds once a size and machine, where a heuristic search takes seconds a decision.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import dimod
import numpy as np

from qevgrid.agents.hybrid.encoding import ising
from qevgrid.agents.hybrid.sampler_faults import MachineError, first_line
from qevgrid.envs.errors import UserError

PADDED = (16, 32, 48, 64, 96, 128, 176)
"""Sizes of embedded cliques; beyond the last one, or what the graph holds of them, the very size."""
PREFACTOR = 1.4
"""Chain strength over the torque that it must withstand."""
ALIGNED = 0.35
"""Torque of couplings that pull one way, over their spectral norm."""
RHO_SHARE = 0.1
"""Share of ``rho`` for embedded models: stiff squares ask for chains so strong that they freeze first."""
MOCK_SWEEPS = 1_000
"""Of one anneal of the mock."""
SHAPES = {"pegasus": [16], "zephyr": [12, 4]}
"""Graphs of Advantage and Advantage2 without faults."""
GRACE_S = 10.0
"""What a hybrid solver may take beyond its own time limit: upload and queue."""
TOKEN = "DWAVE_API_TOKEN"


class Cliques:
    """Clique embeddings in one graph, each made once."""

    def __init__(self, graph: Any) -> None:
        self._graph, self._made = graph, {}

    def embedding(self, variables: int) -> Any:
        """The ``EmbeddedStructure`` of a clique of at least ``variables``; None if the graph holds none."""
        padded = next((size for size in PADDED if size >= variables), variables)
        found = self._embedding(padded)
        return self._embedding(variables) if found is None else found

    def _embedding(self, size: int) -> Any:
        if size not in self._made:
            self._made[size] = embed_clique(self._graph, size)
        return self._made[size]


def embed_clique(graph: Any, size: int) -> Any:
    """Chains of a clique as an ``EmbeddedStructure``; None if there are none."""
    from dwave.embedding import EmbeddedStructure
    from minorminer.busclique import find_clique_embedding

    chains = find_clique_embedding(size, graph, seed=0, use_cache=False)
    return EmbeddedStructure(graph.edges, chains) if len(chains) == size else None


def torque(model: dimod.BinaryQuadraticModel) -> float:
    """What tears at a chain of a SPIN model, by its couplings J.

    D-Wave's uniform torque compensation (rms J times the root of the degree) holds where signs are
    random. The square of a sum, which shared resources make, pulls all one way: there the spectral norm of
    J, n times its rms, is what counts; with random signs it is the smaller of the two.
    """
    from dwave.embedding.chain_strength import uniform_torque_compensation

    n = model.num_variables
    if not model.num_interactions:
        return 1.0
    _, row, column, value = ising(model)
    matrix = np.zeros((n, n))
    matrix[row, column] = matrix[column, row] = value
    norm = float(np.abs(np.linalg.eigvalsh(matrix)).max())
    return max(float(uniform_torque_compensation(model, prefactor=1.0)), ALIGNED * norm)


class Chip(NamedTuple):
    """An annealer behind clique embeddings."""

    used: str
    cliques: Cliques
    draw: Callable[[dimod.BinaryQuadraticModel, int, int], dimod.SampleSet]  # embedded model, reads, seed
    time_limit_s: float
    prefactor: float = PREFACTOR
    rho_share: float = RHO_SHARE
    torque: Callable[[dimod.BinaryQuadraticModel], float] = torque

    def limit_s(self, bqm: dimod.BinaryQuadraticModel) -> float:
        """What the decision may take."""
        return self.time_limit_s

    def check_size(self, variables: int) -> None:
        """Raise ``UserError`` if no clique of that size fits."""
        if self.cliques.embedding(variables) is None:
            raise UserError(
                f"no clique of {variables} variables fits on {self.used}: set agent.sampler=structured or "
                "leap_hybrid, or lower agent.levels or agent.candidates"
            )

    def sample(self, bqm: dimod.BinaryQuadraticModel, reads: int, seed: int) -> dimod.SampleSet:
        """Embed, sample, take the majority of each chain."""
        from dwave.embedding import unembed_sampleset

        source, embedding = bqm.spin, self.cliques.embedding(bqm.num_variables)
        if embedding is None:
            raise MachineError(f"no clique of {bqm.num_variables} variables fits")
        target = embedding.embed_bqm(source, chain_strength=self.prefactor * self.torque(source))
        found = self.draw(target, reads, seed)
        chains = {v: embedding[v] for v in source.variables}
        return unembed_sampleset(found, chains, source, chain_break_fraction=True)


class Leap(NamedTuple):
    """D-Wave's hybrid solver of binary models: no embedding, seconds a call."""

    solver: Any
    time_limit_s: float
    used: str = "leap_hybrid (D-Wave's hybrid solver)"
    rho_share: float = 1.0

    def solver_s(self, bqm: dimod.BinaryQuadraticModel) -> float:
        """The time allowed, or the solver's own minimum where that is longer."""
        return max(self.time_limit_s, float(self.solver.min_time_limit(bqm)))

    def limit_s(self, bqm: dimod.BinaryQuadraticModel) -> float:
        """The solver's time, its upload and queue."""
        return self.solver_s(bqm) + GRACE_S

    def check_size(self, variables: int) -> None:
        """Whatever can be written out fits."""

    def sample(self, bqm: dimod.BinaryQuadraticModel, reads: int, seed: int) -> dimod.SampleSet:
        """One solution; the solver takes neither reads nor a seed."""
        return self.solver.sample(bqm, time_limit=self.solver_s(bqm))


@lru_cache(maxsize=2)
def mock_annealer(topology: str) -> tuple[Any, Cliques]:
    """D-Wave's mock sampler on a whole graph, simulated annealing inside, and the cliques of the graph."""
    from dwave.samplers import SimulatedAnnealingSampler
    from dwave.system.testing import MockDWaveSampler

    annealer = MockDWaveSampler(
        topology_type=topology, topology_shape=SHAPES[topology], substitute_sampler=SimulatedAnnealingSampler()
    )
    return annealer, Cliques(annealer.to_networkx_graph())


def mock_chip(topology: str, time_limit_s: float, prefactor: float = PREFACTOR) -> Chip:
    """The whole path without a quantum annealer: neither its noise nor its timing is modelled."""
    annealer, cliques = mock_annealer(topology)

    def draw(target: dimod.BinaryQuadraticModel, reads: int, seed: int) -> dimod.SampleSet:
        annealer.substitute_kwargs = {"num_sweeps": MOCK_SWEEPS, "seed": seed % 2**31}
        return annealer.sample(target, num_reads=reads, answer_mode="raw")

    used = f"mock_qpu (simulated annealing on a {topology.capitalize()} graph)"
    return Chip(used, cliques, draw, time_limit_s, prefactor)


def real_chip(time_limit_s: float, prefactor: float = PREFACTOR) -> Chip:
    """The chip that the user's D-Wave configuration selects."""
    from dwave.system import DWaveSampler

    annealer = connect(DWaveSampler, "qpu")

    def draw(target: dimod.BinaryQuadraticModel, reads: int, seed: int) -> dimod.SampleSet:
        return annealer.sample(target, num_reads=reads, answer_mode="raw")

    used = f"qpu ({annealer.properties.get('chip_id', 'D-Wave')})"
    return Chip(used, Cliques(annealer.to_networkx_graph()), draw, time_limit_s, prefactor)


def leap(time_limit_s: float) -> Leap:
    """The hybrid solver that the user's D-Wave configuration selects."""
    from dwave.system import LeapHybridSampler

    return Leap(connect(LeapHybridSampler, "leap_hybrid"), time_limit_s)


def connect(make: Callable[[], Any], name: str) -> Any:
    """Make the client, or say in one line what is missing."""
    local = "or solve locally: agent.sampler=structured or mock_qpu"
    if not has_token():
        raise UserError(
            f"agent.sampler={name} needs access to D-Wave: set the environment variable {TOKEN}, or a token in "
            f"D-Wave's configuration file (dwave config create), {local}"
        )
    try:
        return make()
    except Exception as error:  # the client's errors have no common base
        raise UserError(
            f"agent.sampler={name} cannot reach D-Wave ({first_line(error)}): check {TOKEN}, {local}"
        ) from error


def has_token() -> bool:
    """Whether the environment or D-Wave's configuration file names a token."""
    from dwave.cloud.config import load_config

    return bool(os.environ.get(TOKEN) or load_config().get("token"))
