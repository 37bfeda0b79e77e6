"""What one agent did on one V2G episode: the plain data from which every picture is drawn.

No plotting here and no environment: a trace is written by a rollout, saved as JSON and drawn
later (`qevgrid.envs.v2g.viewer`), so that a picture never needs the run that it shows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qevgrid.envs.types import BoolArray, FloatArray

_SCALARS = ("agent", "stages", "dt_h", "start_h", "import_limit_kw")
_NON_NEGATIVE = (
    "charge_kw",
    "discharge_kw",
    "pv_kw",
    "generator_kw",
    "load_critical_kw",
    "load_other_kw",
    "served_critical_kw",
    "served_other_kw",
)
_ROUNDING_KW = 1e-6


@dataclass(frozen=True, eq=False)
class DayTrace:
    """One agent, one episode: one entry a stage, summed over the sites unless said otherwise.

    T stages have been played of the `stages` that the episode has: T < stages is an episode
    that is still running, T = 0 one that has just been reset. N is the number of sockets.
    Powers are means over their stage.
    """

    agent: str
    stages: int  # in the whole episode, >= T
    dt_h: float  # length of a stage
    start_h: float  # clock hour at which stage 0 begins, for example 12.0
    import_limit_kw: float  # what the meters may import; inf where there is no limit
    price_usd_kwh: FloatArray  # (T,) buying price
    risk: FloatArray  # (T,) published probability of an outage, in [0, 1]
    outage: BoolArray  # (T,) at any site
    charge_kw: FloatArray  # (T,) >= 0
    discharge_kw: FloatArray  # (T,) >= 0
    import_kw: FloatArray  # (T,) at the meter, < 0 exports, 0 in an island
    pv_kw: FloatArray  # (T,) >= 0
    generator_kw: FloatArray  # (T,) >= 0
    load_critical_kw: FloatArray  # (T,) asked for
    load_other_kw: FloatArray  # (T,) asked for
    served_critical_kw: FloatArray  # (T,) <= load_critical_kw
    served_other_kw: FloatArray  # (T,) <= load_other_kw
    soc: FloatArray  # (T, N) in [0, 1] at the end of the stage, NaN where no vehicle is plugged in
    cost_usd: FloatArray  # (T,) total weighted cost of the stage

    def __post_init__(self) -> None:
        _check_scalars(self)
        length = np.asarray(self.price_usd_kwh).size
        for name in _array_names():
            dtype = np.bool_ if name == "outage" else np.float64
            array = np.array(getattr(self, name), dtype=dtype)
            _check_array(name, array, length)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if length > self.stages:
            raise ValueError(f"a trace of {length} stages in an episode of {self.stages}")

    @property
    def played(self) -> int:
        """T, the number of stages played so far."""
        return self.price_usd_kwh.size

    @property
    def finished(self) -> bool:
        """Whether the whole episode has been played."""
        return self.played == self.stages

    @property
    def horizon_h(self) -> float:
        """Length of the whole episode in hours."""
        return self.stages * self.dt_h

    @property
    def total_usd(self) -> float:
        """Cost so far in USD."""
        return float(self.cost_usd.sum())

    def hours(self) -> FloatArray:
        """(T,) hours since the start of the episode at which each stage begins."""
        return np.arange(float(self.played)) * self.dt_h

    def edges(self) -> FloatArray:
        """(T + 1,) hours since the start: the borders of the stages played so far."""
        return np.arange(self.played + 1.0) * self.dt_h

    def clock(self, hours: float) -> str:
        """Time of day `hours` after the start, as "HH:MM" (midnight is "00:00")."""
        minutes = round((self.start_h + hours) * 60.0) % (24 * 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}"

    def unserved_kw(self) -> FloatArray:
        """(T,) load of both tiers that was asked for and not served, >= 0."""
        load_kw = self.load_critical_kw + self.load_other_kw
        missing_kw = load_kw - self.served_critical_kw - self.served_other_kw
        return np.where(missing_kw > _ROUNDING_KW, missing_kw, 0.0)

    def outages_h(self) -> list[tuple[float, float]]:
        """(start, end) of every unbroken outage, in hours since the start."""
        padded = np.concatenate([[False], self.outage, [False]]).astype(np.int8)
        borders_h = np.flatnonzero(np.diff(padded)) * self.dt_h
        return [(float(a), float(b)) for a, b in borders_h.reshape(-1, 2)]

    def soc_quantiles(self) -> FloatArray:
        """(3, T): 10, 50 and 90 % points over the vehicles plugged in, NaN where there is none."""
        bands = np.full((3, self.played), np.nan)
        some = np.isfinite(self.soc).any(axis=1)
        if some.any():
            bands[:, some] = np.nanpercentile(self.soc[some], (10, 50, 90), axis=1)
        return bands

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for strict JSON: NaN and infinity become None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. A missing or unknown key is a ValueError that names it.

        A trace without a stage comes back with N = 0: empty lists do not hold the sockets.
        """
        names = {field.name for field in fields(cls)}
        if names != set(data):
            missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
            raise ValueError(f"not a DayTrace: missing keys {missing}, unknown keys {unknown}")
        values = {name: _restored(data[name]) for name in names}
        values["soc"] = values["soc"] if data["soc"] else np.empty((0, 0))
        if data["import_limit_kw"] is None:
            values["import_limit_kw"] = math.inf
        return cls(**values)


def _array_names() -> list[str]:
    return [field.name for field in fields(DayTrace) if field.name not in _SCALARS]


def _check_scalars(trace: DayTrace) -> None:
    if trace.stages < 1:
        raise ValueError(f"stages must be at least 1, not {trace.stages}")
    if not (math.isfinite(trace.dt_h) and trace.dt_h > 0.0):
        raise ValueError(f"dt_h must be positive, not {trace.dt_h}")
    if not trace.import_limit_kw >= 0.0:
        raise ValueError(f"import_limit_kw must not be negative, but is {trace.import_limit_kw}")


def _check_array(name: str, array: NDArray[Any], length: int) -> None:
    dimensions = 2 if name == "soc" else 1
    if array.ndim != dimensions or array.shape[0] != length:
        wanted = f"({length}, N)" if name == "soc" else f"({length},)"
        raise ValueError(f"{name} has the shape {array.shape}, but should have {wanted}")
    if name != "soc" and not np.isfinite(array).all():
        raise ValueError(f"{name} has an entry that is not a finite number")
    if name in _NON_NEGATIVE and (array < -_ROUNDING_KW).any():
        raise ValueError(f"{name} has a negative entry, {array.min():.6g} kW")


def _plain(value: Any) -> Any:
    """Arrays to nested lists, NumPy scalars to Python ones, NaN and infinity to None."""
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _restored(value: Any) -> Any:
    """Lists to arrays, None inside a list to NaN."""
    if not isinstance(value, list):
        return value
    return np.array(_with_nan(value))


def _with_nan(values: list[Any]) -> list[Any]:
    return [_with_nan(v) if isinstance(v, list) else math.nan if v is None else v for v in values]
