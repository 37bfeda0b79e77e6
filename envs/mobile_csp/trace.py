"""What one agent did in one Mobile CSP episode: the plain data from which every picture is drawn.

No plotting here and no environment: a trace is written by a rollout, saved as JSON and drawn later
(`qevgrid.envs.mobile_csp.viewer`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.types import BoolArray, FloatArray, IntArray

# Okabe and Ito's palette, a brown and a grey.
TERM_COLORS = {
    "unserved": "#D5300A",
    "generator": "#7A4A1E",
    "wear": "#CC79A7",
    "transport": "#E69F00",
    "energy": "#009E73",
    "terminal": "#8A8A8A",
    "service": "#56B4E9",
}


@dataclass(frozen=True, eq=False)
class StormTrace:
    """One agent, one episode, K moments: its beginning, then the end of each period played.

    A moment shows the flows of the period that led to it and the roads, lines and units as they are now.
    D sites, M units, V road nodes, R roads, N buses, L lines.
    """

    agent: str
    periods: int  # in the whole episode
    dt_h: float
    start_h: float  # clock hour of period 0
    capacity_kwh: float
    site_name: list[str]  # (D,)
    site_node: IntArray  # (D,)
    site_bus: IntArray  # (D,) -1: own supply
    peak_kw: FloatArray  # (D,) critical load
    voll_usd_kwh: FloatArray  # (D,)
    node_xy: FloatArray  # (V, 2) in [0, 1]
    road: IntArray  # (R, 2) nodes
    line: IntArray  # (L, 2) buses
    term: list[str]  # names of the cost terms
    stage: IntArray  # (K,) periods begun; -1: before the storm
    supplied: BoolArray  # (K, D)
    need_kw: FloatArray  # (K, D) what neither supply nor backup carries
    served_kw: FloatArray  # (K, D) of the need
    road_left_h: FloatArray  # (K, R) estimated hours until open; 0: open
    bus_live: BoolArray  # (K, N)
    line_whole: BoolArray  # (K, L)
    unit_site: IntArray  # (K, M) where a unit is or goes
    unit_origin: IntArray  # (K, M) where it came from
    unit_done: FloatArray  # (K, M) share of its way, 1: there
    unit_kwh: FloatArray  # (K, M)
    unit_kw: FloatArray  # (K, M) at the plug, > 0 discharge
    cost_usd: FloatArray  # (K, terms) of the period that led to the moment

    @property
    def total_usd(self) -> float:
        """Cost so far in USD."""
        return float(np.sum(self.cost_usd))

    def clock(self, moment: int) -> str:
        """Day and time of day as "day 1  06:30"."""
        minutes = round((self.start_h + max(int(self.stage[moment]), 0) * self.dt_h) * 60)
        return f"day {minutes // 1440 + 1}  {minutes // 60 % 24:02d}:{minutes % 60:02d}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. A missing or unknown key is a ValueError that names it."""
        names = {field.name for field in fields(cls)}
        if names != set(data):
            missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
            raise ValueError(f"not a StormTrace: missing keys {missing}, unknown keys {unknown}")
        lists = {"site_name", "term"}
        made: dict[str, Any] = {
            k: np.array(x) if isinstance(x, list) and k not in lists else x for k, x in data.items()
        }
        return cls(**made)


def way_done(stage: int, arrival: IntArray, departure: IntArray) -> NDArray[np.float64]:
    """Share of each unit's trip that is behind it at ``stage``."""
    length = np.maximum(arrival - departure, 1)
    return np.where(arrival <= stage, 1.0, np.clip((stage - departure) / length, 0.0, 1.0))
