"""What reinforcement learns on top of the supervised critic: four numbers a decision, and the small policy for them."""

from dataclasses import dataclass

import numpy as np

from qevgrid.agents.hybrid.features import HOURS, SMALL
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.core import View

NAMES = ("premium", "calm", "dark", "spread")
"""The entries of a correcting action in [-1, 1]; 0 changes nothing."""
CALM_USD_KWH = 0.1
"""A calm entry of 1 adds this to the worth of energy with supply; an entry of 1 doubles the factors."""
STATE = ("risk", "opens", "closes", "dark", "dark_h", "spare", "need", "plugged", "price", "progress")


@dataclass(frozen=True)
class Corrections:
    """Factors and a shift around the critic. The defaults were tuned on days of their own (docs/hybrid.md)."""

    premium: float = 1.2  # factor on the premium for insurance against an outage
    calm_usd_kwh: float = -0.05  # added to the worth of energy with supply: foresight sells at the best hour
    dark: float = 0.8  # factor on the worth of energy in an outage: foresight knows its end
    spread: float = 0.6  # factor on what sets a vehicle apart from the fleet

    def moved(self, action: FloatArray) -> "Corrections":
        """Corrected by an action (4,) in [-1, 1]."""
        premium, calm, dark, spread = np.clip(action, -1.0, 1.0).tolist()
        calm_usd = self.calm_usd_kwh + CALM_USD_KWH * calm
        return Corrections(self.premium * 2.0**premium, calm_usd, self.dark * 2.0**dark, self.spread * 2.0**spread)


TUNED = Corrections()


@dataclass(frozen=True)
class Actor:
    """The policy of stage 3: one hidden layer of tanh layers, mean action, in plain NumPy."""

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    def __call__(self, state: FloatArray) -> FloatArray:
        """Actions (B, 4) for states (B, len(STATE))."""
        hidden = state
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.tanh(hidden @ weight + bias)
        return np.clip(hidden @ self.weights[-1] + self.biases[-1], -1.0, 1.0)

    @property
    def parameters(self) -> int:
        """Number of learned numbers."""
        return sum(x.size for x in (*self.weights, *self.biases))


def correction_state(view: View) -> FloatArray:
    """What the policy sees of each episode, (B, len(STATE)) in [-1, 1], whatever the fleet's size."""
    p, plant = view.plant.params, view.plant
    per_day = p.n_stages / p.days
    fleet_kw = max(plant.charge_kw.sum(), SMALL)
    spare = np.where(view.plugged, view.energy_kwh - view.floor_kwh, 0.0).sum(1)
    need = np.where(view.plugged, np.maximum(view.target_kwh - view.energy_kwh, 0.0), 0.0).sum(1)
    price = view.forecast(round(12.0 / p.dt_h)).buy_usd_kwh
    span = np.maximum(np.abs(price).max(1), SMALL)
    state = np.stack(
        [
            view.risk,
            (view.window_open - view.stage) / per_day,
            (view.window_close - view.stage) / per_day,
            view.outage.any(1).astype(float),
            view.dark_h.max(1) / 12.0,
            spare / (HOURS * fleet_kw),
            need / (HOURS * fleet_kw),
            view.plugged.mean(1),
            (price[:, 0] - price.mean(1)) / span,
            view.stage / p.n_stages,
        ],
        1,
    )
    return np.asarray(np.clip(state, -1.0, 1.0), float)
