"""From keys to a circuit and to who runs it."""

from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.agents.vqc.config import CircuitKeys
from qevgrid.agents.vqc.executors import Execution


def circuit(config: CircuitKeys) -> Circuit:
    """The circuit that the keys describe."""
    return Circuit(config.qubits, config.layers, config.ansatz, config.entangler, config.readout)


def execution(config: CircuitKeys, seed: int) -> Execution:
    """Who runs it. Raises ``UserError`` for keys that do not go together."""
    return Execution(
        config.executor, config.device, config.shots, config.depolarizing, config.readout_error, seed,
        dict(config.device_options),
    )  # fmt: skip
