"""LinDistFlow: line flows and squared voltages as a linear map of the sites' net load.

Source: Baran & Wu 1989, the DistFlow equations without the loss terms. The same arrays feed the
simulator and the optimum, so both see one grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba as nb
import numpy as np
import numpy.typing as npt

from qevgrid.envs.errors import UserError
from qevgrid.envs.grid.feeder import BoolArray, Feeder, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class LinDistFlow:
    """The linear map for D sites on a feeder of L lines, under each of F = L single-line faults.

    Fault index 0 is the whole feeder; ``f`` in 1..L has line ``f - 1`` open, and everything it
    feeds is dead and draws nothing. Base rows hold at load scale 1 and are linear in the scale.
    """

    feeder: Feeder
    site_bus: IntArray  # (D,)
    flow_site: FloatArray  # (L, D) 1 where the line carries the site
    flow_base_kw: FloatArray  # (F+1, L)
    flow_base_kvar: FloatArray  # (F+1, L)
    v2_drop_per_kw: FloatArray  # (n_bus, D) p.u. of squared voltage per kW
    v2_drop_per_kvar: FloatArray  # (n_bus, D)
    v2_drop_base: FloatArray  # (F+1, n_bus)
    dead_bus: BoolArray  # (F+1, n_bus)
    dead_site: BoolArray  # (F+1, D)

    def flows(
        self,
        site_kw: npt.ArrayLike,
        site_kvar: npt.ArrayLike,
        scale: npt.ArrayLike,
        fault: npt.ArrayLike,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the line flows, kW (B, L) and kvar (B, L), positive away from the substation.

        site_kw, site_kvar: (B, D) net load of the sites, discharging negative; what a dead site
        asks for is not counted. scale: (B,) factor on the feeder's own load. fault: (B,) integer
        in 0..F. A row's result does not depend, to the last bit, on the rest of its batch.
        Raises ValueError on a wrong shape or a fault out of range.
        """
        case = self._case(site_kw, site_kvar, scale, fault)
        kw = _affine(self.flow_base_kw, case.scale, case.fault, case.site_kw, self._flow_rows)
        kvar = _affine(self.flow_base_kvar, case.scale, case.fault, case.site_kvar, self._flow_rows)
        return kw, kvar

    def v2(
        self,
        site_kw: npt.ArrayLike,
        site_kvar: npt.ArrayLike,
        scale: npt.ArrayLike,
        fault: npt.ArrayLike,
        v_source: float = 1.0,
    ) -> FloatArray:
        """Return the squared voltages in p.u., (B, n_bus), 0 at dead buses; arguments as `flows`.

        v_source: voltage of bus 0 in p.u. Losses are left out, so the voltage of a feeder that
        only consumes comes out too high: measured on case33bw by 0.003 p.u. at nominal load, and
        by up to 0.0095 p.u. at 1.2 times that and 2 MW more at four far buses.
        """
        case = self._case(site_kw, site_kvar, scale, fault)
        sites = np.concatenate((case.site_kw, case.site_kvar), axis=1)
        drop = _affine(self.v2_drop_base, case.scale, case.fault, sites, self._v2_rows)
        return np.where(self.dead_bus[case.fault], 0.0, float(v_source) ** 2 - drop)

    def v_pu(
        self,
        site_kw: npt.ArrayLike,
        site_kvar: npt.ArrayLike,
        scale: npt.ArrayLike,
        fault: npt.ArrayLike,
        v_source: float = 1.0,
    ) -> FloatArray:
        """Return the voltages in p.u., (B, n_bus): the root of `v2`, 0 where that is negative."""
        return np.sqrt(np.maximum(self.v2(site_kw, site_kvar, scale, fault, v_source), 0.0))

    @cached_property
    def _flow_rows(self) -> FloatArray:
        """(D, L) contiguous, as `_affine` walks it."""
        return np.ascontiguousarray(self.flow_site.T)

    @cached_property
    def _v2_rows(self) -> FloatArray:
        """(2D, n_bus): the rows of the sites' kW, then of their kvar."""
        return np.concatenate((self.v2_drop_per_kw.T, self.v2_drop_per_kvar.T))

    def _case(
        self,
        site_kw: npt.ArrayLike,
        site_kvar: npt.ArrayLike,
        scale: npt.ArrayLike,
        fault: npt.ArrayLike,
    ) -> "_Case":
        n_site, n_case = self.site_bus.size, np.shape(site_kw)[0]
        kw = _shaped(site_kw, (n_case, n_site), "site_kw")
        kvar = _shaped(site_kvar, (n_case, n_site), "site_kvar")
        row = _fault_rows(fault, n_case, len(self.dead_bus))
        dead = self.dead_site[row]
        factor = _shaped(scale, (n_case,), "scale")
        return _Case(np.where(dead, 0.0, kw), np.where(dead, 0.0, kvar), factor, row)


@dataclass(frozen=True, eq=False)
class _Case:
    site_kw: FloatArray  # (B, D), 0 at dead sites
    site_kvar: FloatArray  # (B, D)
    scale: FloatArray  # (B,)
    fault: IntArray  # (B,)


def lindistflow(feeder: Feeder, site_bus: Sequence[int]) -> LinDistFlow:
    """Build the linear map for sites at the given buses; two sites may share a bus.

    Raises UserError if a bus is not on the feeder.
    """
    sites = _site_array(feeder, site_bus)
    down = feeder.downstream
    dead_bus = np.concatenate((np.zeros((1, feeder.n_bus), dtype=np.bool_), down))
    base_kw = np.where(dead_bus, 0.0, feeder.load_kw) @ down.T
    base_kvar = np.where(dead_bus, 0.0, feeder.load_kvar) @ down.T
    drop_r, drop_x = _drop_per_flow(feeder, feeder.r_ohm), _drop_per_flow(feeder, feeder.x_ohm)
    flow_site = down[:, sites].astype(np.float64)
    return LinDistFlow(
        feeder=feeder,
        site_bus=sites,
        flow_site=flow_site,
        flow_base_kw=base_kw,
        flow_base_kvar=base_kvar,
        v2_drop_per_kw=drop_r @ flow_site,
        v2_drop_per_kvar=drop_x @ flow_site,
        v2_drop_base=base_kw @ drop_r.T + base_kvar @ drop_x.T,
        dead_bus=dead_bus,
        dead_site=dead_bus[:, sites],
    )


def _site_array(feeder: Feeder, site_bus: Sequence[int]) -> IntArray:
    for bus in site_bus:
        if bus != int(bus) or not 0 <= bus < feeder.n_bus:
            raise UserError(f"site bus {bus} is not on feeder {feeder.name!r}; use 0..{feeder.n_bus - 1}")
    return np.array(site_bus, dtype=np.int64)


def _drop_per_flow(feeder: Feeder, ohm: FloatArray) -> FloatArray:
    """(n_bus, L) drop in squared p.u. voltage at each bus per kW (kvar) through each line."""
    return 2.0 * feeder.downstream.T * ohm / (1000.0 * feeder.base_kv**2)


def _shaped(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
    return array


def _fault_rows(fault: npt.ArrayLike, n_case: int, n_row: int) -> IntArray:
    array = np.asarray(fault)
    if array.shape != (n_case,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"fault must be integers of shape ({n_case},), not {array!r}")
    if np.any((array < 0) | (array >= n_row)):
        raise ValueError(f"fault must be in 0..{n_row - 1}, not {array.min()}..{array.max()}")
    return np.ascontiguousarray(array, dtype=np.int64)


@nb.njit(cache=True)
def _affine(base: FloatArray, scale: FloatArray, fault: IntArray, site: FloatArray, per_site: FloatArray) -> FloatArray:
    """``scale * base[fault] + site @ per_site``, added up in one order whatever the batch."""
    n_case, n_out = len(site), base.shape[1]
    out = np.empty((n_case, n_out))
    for case in range(n_case):
        for k in range(n_out):
            out[case, k] = scale[case] * base[fault[case], k]
        for d in range(site.shape[1]):
            for k in range(n_out):
                out[case, k] += site[case, d] * per_site[d, k]
    return out
