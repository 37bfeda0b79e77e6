"""Days from the user's files: charging sessions and prices, split by date into training and held-out."""

from dataclasses import dataclass, field

from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.plant import Plant
from qevgrid.envs.v2g.sessions import Sessions

NOON_H = 12.0


@dataclass(frozen=True)
class FileDays:
    """Days ready to be drawn; ``None`` where a synthetic generator is used."""

    start_h: float = NOON_H
    sessions: Sessions | None = None  # (days, N, S)
    prices: FloatArray | None = None  # (days, T)
    report: dict[str, int] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        return 0 if self.sessions is None else self.sessions.arrival.shape[-1]


def load_days(plant: Plant) -> FileDays:
    return FileDays()
