"""What TensorBoard shows of circuits: the drawing, parameters, how gradients spread over the layers, what they cost."""

from collections.abc import Sequence

from stable_baselines3.common.logger import Figure, Logger

from qevgrid.agents.vqc.circuit import Circuit, draw
from qevgrid.agents.vqc.gradients import GradientStatistics
from qevgrid.agents.vqc.layer import CircuitLayer

NOT_TEXT = ("stdout", "log", "json", "csv")


class CircuitReport:
    """Scalars of a policy's circuits, the actor's first; ``drawn`` is shown once."""

    def __init__(self, circuits: Sequence[CircuitLayer], drawn: Circuit | None) -> None:
        self.circuits, self.drawn = circuits, drawn
        self.gradients = GradientStatistics(circuits[:1])

    def record(self, logger: Logger) -> None:
        """Between two rounds."""
        for name, layer in zip(("actor", "critic"), self.circuits, strict=False):
            logger.record(f"vqc/{name}_circuits", layer.executor.circuits)
            logger.record(f"vqc/{name}_weights", layer.weights.detach().clone(), exclude=NOT_TEXT)
            logger.record(f"vqc/{name}_scales", layer.scale.detach().clone(), exclude=NOT_TEXT)
        for tag, value in self.gradients.collect().items():
            logger.record(tag, value)
        if self.drawn is not None:
            logger.record("vqc/circuit", Figure(draw(self.drawn), close=False), exclude=NOT_TEXT)
        self.drawn = None
