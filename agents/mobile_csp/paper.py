"""The review's binary form of mobile stations, (22)-(26), literally: a reference, used by no agent.

Bits: ``z[m, d, t]``, unit m is at site d (23); ``b[m, t, k]``, unit m discharges at level k (24), whose sum over the
units of a site stands in the capacity term (22); ``y[m, d, e, t]``, unit m travels from d to e (25). (22) is a squared
equality, (26) values what is supplied linearly. What is wrong with that is in ``tests/test_mobile_csp_paper.py``.
"""

from dataclasses import dataclass

import dimod
import numpy as np

from qevgrid.envs.types import FloatArray, IntArray


@dataclass(frozen=True)
class PaperCase:
    """M units, D sites, H periods, K power levels (level 0 among them)."""

    n_units: int
    slots: IntArray  # (D,)
    need_kw: FloatArray  # (H, D)
    voll_usd_kwh: FloatArray  # (D,)
    travel_usd: FloatArray  # (D, D)
    level_kw: FloatArray  # (K,)
    dt_h: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """H, D."""
        return self.need_kw.shape


def z(m: int, d: int, t: int) -> str:
    """Unit m is at site d in period t."""
    return f"z_{m}_{d}_{t}"


def b(m: int, d: int, t: int, k: int) -> str:
    """Unit m has power level k at site d in period t."""
    return f"b_{m}_{d}_{t}_{k}"


def y(m: int, d: int, e: int, t: int) -> str:
    """Unit m leaves d for e in period t."""
    return f"y_{m}_{d}_{e}_{t}"


def literal(case: PaperCase, place: float, capacity: float) -> dimod.BinaryQuadraticModel:
    """The model as printed; ``place`` and ``capacity`` weigh the squares of (23) and (22), USD."""
    bqm = dimod.BinaryQuadraticModel("BINARY")
    (n_periods, n_sites), units, levels = case.shape, range(case.n_units), range(len(case.level_kw))
    for t in range(n_periods):
        for m in units:
            _square(bqm, [z(m, d, t) for d in range(n_sites)], 1, place)
        for d in range(n_sites):
            _square(bqm, [b(m, d, t, k) for m in units for k in levels], int(case.slots[d]), capacity)
            bqm.offset += float(case.voll_usd_kwh[d] * case.need_kw[t, d] * case.dt_h)
            for m in units:
                for k in levels:
                    bqm.add_linear(b(m, d, t, k), -float(case.voll_usd_kwh[d] * case.level_kw[k] * case.dt_h))
                for e in range(n_sites):
                    if e != d:
                        bqm.add_linear(y(m, d, e, t), float(case.travel_usd[d, e]))
    return bqm


def _square(bqm: dimod.BinaryQuadraticModel, bits: list[str], target: int, weight: float) -> None:
    """``weight (sum of bits - target)^2``."""
    bqm.add_linear_equality_constraint([(bit, 1.0) for bit in bits], weight, -float(target))


def energy(bqm: dimod.BinaryQuadraticModel, on: list[str]) -> float:
    """Energy where exactly these bits are set."""
    return float(bqm.energy({bit: int(bit in set(on)) for bit in bqm.variables}))


def unserved_usd(case: PaperCase, supplied_kw: FloatArray) -> float:
    """What it should be: nothing is earned beyond the need. ``supplied_kw`` (H, D)."""
    return float((np.maximum(case.need_kw - supplied_kw, 0.0) * case.voll_usd_kwh).sum() * case.dt_h)
