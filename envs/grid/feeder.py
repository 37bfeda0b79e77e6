"""A radial distribution feeder: its data, its tree, and the IEEE 33-bus feeder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from qevgrid.envs.errors import UserError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_Array = TypeVar("_Array", bound=np.ndarray)


@dataclass(frozen=True, eq=False)
class Feeder:
    """A radial feeder; bus 0 is the substation, line ``l`` feeds bus ``to_bus[l]``.

    Lines point away from bus 0 and a line stands after the line that feeds it. Impedances and
    ratings are referred to ``base_kv`` (line to line). The arrays are copied and read-only; two
    feeders compare by identity. Raises UserError if shapes, order or signs are wrong.
    """

    name: str
    base_kv: float
    from_bus: IntArray  # (L,)
    to_bus: IntArray  # (L,)
    r_ohm: FloatArray  # (L,)
    x_ohm: FloatArray  # (L,)
    load_kw: FloatArray  # (n_bus,) nominal three-phase load
    load_kvar: FloatArray  # (n_bus,)
    rating_a: FloatArray  # (L,)
    bus_lookup: Mapping[int, int] = field(default_factory=dict)
    """Bus number in the source file -> bus here (fused buses share one); empty: no renumbering."""

    def __post_init__(self) -> None:
        """Copy and freeze the arrays, then check them."""
        for key in ("from_bus", "to_bus"):
            _freeze(self, key, np.int64)
        for key in ("r_ohm", "x_ohm", "load_kw", "load_kvar", "rating_a"):
            _freeze(self, key, np.float64)
        _check(self)

    @property
    def n_bus(self) -> int:
        """Number of buses, the substation included."""
        return self.load_kw.size

    @property
    def n_line(self) -> int:
        """Number of lines, ``n_bus - 1``."""
        return self.to_bus.size

    @property
    def limit_kva(self) -> FloatArray:
        """(L,) rating of each line as three-phase apparent power at nominal voltage."""
        return np.sqrt(3.0) * self.base_kv * self.rating_a

    @cached_property
    def parent_line(self) -> IntArray:
        """(L,) the line that feeds ``from_bus[l]``, or -1 at the substation."""
        feeding = np.full(self.n_bus, -1)
        feeding[self.to_bus] = np.arange(self.n_line)
        return _read_only(feeding[self.from_bus])

    @cached_property
    def downstream(self) -> BoolArray:
        """(L, n_bus) True where the bus is fed through the line."""
        fed = np.zeros((self.n_line, self.n_bus), dtype=np.bool_)
        for line in range(self.n_line - 1, -1, -1):
            fed[line, self.to_bus[line]] = True
            parent = self.parent_line[line]
            if parent >= 0:
                fed[parent] |= fed[line]
        return _read_only(fed)


def _read_only(array: _Array) -> _Array:
    array.flags.writeable = False
    return array


def _freeze(feeder: Feeder, key: str, dtype: type[np.generic]) -> None:
    array = np.array(getattr(feeder, key), dtype=dtype)
    object.__setattr__(feeder, key, _read_only(array))


def _check(feeder: Feeder) -> None:
    """Refuse data that the compiled sweeps would index out of bounds or divide by."""
    n_line = feeder.to_bus.size
    for key in ("from_bus", "to_bus", "r_ohm", "x_ohm", "rating_a"):
        _require(feeder, getattr(feeder, key).shape == (n_line,), f"{key} must be ({n_line},)")
    for key in ("load_kw", "load_kvar"):
        shape = getattr(feeder, key).shape
        _require(feeder, shape == (n_line + 1,), f"{key} must be (L+1,) = ({n_line + 1},)")
    for key in ("r_ohm", "x_ohm", "load_kw", "load_kvar", "rating_a", "base_kv"):
        _require(feeder, bool(np.all(np.isfinite(getattr(feeder, key)))), f"{key} must be finite")
    _require(feeder, feeder.base_kv > 0, "base_kv must be positive")
    _require(feeder, bool(np.all(feeder.rating_a > 0)), "rating_a must be positive")
    _require(feeder, bool(np.all(feeder.r_ohm >= 0)), "r_ohm must not be negative")
    _check_tree(feeder)


def _check_tree(feeder: Feeder) -> None:
    reached = {0}
    for line, (tail, head) in enumerate(zip(feeder.from_bus, feeder.to_bus, strict=True)):
        fits = tail in reached and head not in reached and 0 <= head <= feeder.n_line
        message = f"line {line} ({tail} to {head}) must run from a bus already fed to a new one"
        _require(feeder, fits, message)
        reached.add(int(head))


def _require(feeder: Feeder, holds: bool, message: str) -> None:
    if not holds:
        raise UserError(f"feeder {feeder.name!r}: {message}")


# Baran & Wu, "Network reconfiguration in distribution systems for loss reduction and load
# balancing", IEEE Trans. Power Delivery 4(2), 1989; tie lines open. Line 6 has 0.7114 ohm as
# there and in pandapower's case33bw; copies with 1.7114 ohm are about.
# Columns: from, to, r ohm, x ohm, load kW and kvar at `to`.
_CASE33BW = (
    (0, 1, 0.0922, 0.0470, 100, 60),
    (1, 2, 0.4930, 0.2511, 90, 40),
    (2, 3, 0.3660, 0.1864, 120, 80),
    (3, 4, 0.3811, 0.1941, 60, 30),
    (4, 5, 0.8190, 0.7070, 60, 20),
    (5, 6, 0.1872, 0.6188, 200, 100),
    (6, 7, 0.7114, 0.2351, 200, 100),
    (7, 8, 1.0300, 0.7400, 60, 20),
    (8, 9, 1.0440, 0.7400, 60, 20),
    (9, 10, 0.1966, 0.0650, 45, 30),
    (10, 11, 0.3744, 0.1238, 60, 35),
    (11, 12, 1.4680, 1.1550, 60, 35),
    (12, 13, 0.5416, 0.7129, 120, 80),
    (13, 14, 0.5910, 0.5260, 60, 10),
    (14, 15, 0.7463, 0.5450, 60, 20),
    (15, 16, 1.2890, 1.7210, 60, 20),
    (16, 17, 0.7320, 0.5740, 90, 40),
    (1, 18, 0.1640, 0.1565, 90, 40),
    (18, 19, 1.5042, 1.3554, 90, 40),
    (19, 20, 0.4095, 0.4784, 90, 40),
    (20, 21, 0.7089, 0.9373, 90, 40),
    (2, 22, 0.4512, 0.3083, 90, 50),
    (22, 23, 0.8980, 0.7091, 420, 200),
    (23, 24, 0.8960, 0.7011, 420, 200),
    (5, 25, 0.2030, 0.1034, 60, 25),
    (25, 26, 0.2842, 0.1447, 60, 25),
    (26, 27, 1.0590, 0.9337, 60, 20),
    (27, 28, 0.8042, 0.7006, 120, 70),
    (28, 29, 0.5075, 0.2585, 200, 600),
    (29, 30, 0.9744, 0.9630, 150, 70),
    (30, 31, 0.3105, 0.3619, 210, 100),
    (31, 32, 0.3410, 0.5302, 60, 40),
)
_CASE33BW_TRUNK_LINES = 6
_CASE33BW_TRUNK_A = 400.0
_CASE33BW_LATERAL_A = 200.0


def case33bw() -> Feeder:
    """Return the IEEE 33-bus feeder (12.66 kV, 3,715 kW + 2,300 kvar), tie lines open.

    Source: Baran & Wu 1989. Buses are 0..32, that is the paper's 1..33 less one; 0 is the
    substation. The source has no ratings: 400 A on the first six lines, 200 A elsewhere are ours.
    """
    table = np.array(_CASE33BW)
    rating_a = np.full(len(table), _CASE33BW_LATERAL_A)
    rating_a[:_CASE33BW_TRUNK_LINES] = _CASE33BW_TRUNK_A
    load_kw, load_kvar = np.zeros((2, len(table) + 1))
    to_bus = table[:, 1].astype(np.int64)
    load_kw[to_bus], load_kvar[to_bus] = table[:, 4], table[:, 5]
    return Feeder(
        name="case33bw",
        base_kv=12.66,
        from_bus=table[:, 0].astype(np.int64),
        to_bus=to_bus,
        r_ohm=table[:, 2],
        x_ohm=table[:, 3],
        load_kw=load_kw,
        load_kvar=load_kvar,
        rating_a=rating_a,
    )
