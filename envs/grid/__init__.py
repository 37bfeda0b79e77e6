"""Radial distribution feeders: data, the linear model, and the exact AC sweep.

`load_feeder` gives a `Feeder`; `lindistflow` its linear map for simulator and optimum; `sweep` the
exact AC voltages, losses and currents that judge both. Buses are numbered from 0, the substation.
"""

from qevgrid.envs.grid.feeder import Feeder, case33bw
from qevgrid.envs.grid.lindistflow import LinDistFlow, lindistflow
from qevgrid.envs.grid.pandapower_net import (
    DEFAULT_RATING_A,
    feeder_from_pandapower,
    load_feeder,
)
from qevgrid.envs.grid.sweep import SweepResult, sweep

__all__ = [
    "DEFAULT_RATING_A",
    "Feeder",
    "LinDistFlow",
    "SweepResult",
    "case33bw",
    "feeder_from_pandapower",
    "lindistflow",
    "load_feeder",
    "sweep",
]
