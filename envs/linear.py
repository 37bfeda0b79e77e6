"""A linear or mixed-integer program put together in blocks and solved by HiGHS."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array

from qevgrid.envs.errors import UserError
from qevgrid.envs.types import FloatArray, IntArray

INF = float("inf")


@dataclass(frozen=True)
class Solution:
    """What the solver returned. ``bound`` is a proven lower bound of the objective."""

    x: FloatArray
    objective: float
    bound: float
    status: str
    seconds: float
    row_dual: FloatArray | None = None  # (rows,) of a relaxation: cost per unit of a row's limit


class Scope(enum.Enum):
    """Which form of a program has a column or row: a relaxation is far faster without idle bits."""

    BOTH = enum.auto()
    WHOLE = enum.auto()
    RELAXED = enum.auto()


@dataclass
class LinearProgram:
    """min cost @ x + constant, low <= A x <= high, lower <= x <= upper, some x integer."""

    constant: float = 0.0
    remedy: str = "make the problem smaller"
    """What else helps, besides more time, where no solution is found."""
    _columns: list[tuple[FloatArray, FloatArray, FloatArray, bool, Scope]] = field(default_factory=list)
    _entries: list[tuple[IntArray, IntArray, FloatArray]] = field(default_factory=list)
    _limits: list[tuple[FloatArray, FloatArray, Scope]] = field(default_factory=list)
    n_columns: int = 0
    n_rows: int = 0

    def variables(
        self,
        size: int,
        cost: ArrayLike = 0.0,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = INF,
        integer: bool = False,
        scope: Scope = Scope.BOTH,
    ) -> IntArray:
        """Add ``size`` columns, return their indices. A form without them solves as if they were 0."""
        block = [np.broadcast_to(np.asarray(x, float), (size,)) for x in (cost, lower, upper)]
        self._columns.append((block[0], block[1], block[2], integer, scope))
        self.n_columns += size
        return np.arange(self.n_columns - size, self.n_columns)

    def rows(
        self,
        size: int,
        terms: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
        low: ArrayLike = -INF,
        high: ArrayLike = INF,
        scope: Scope = Scope.BOTH,
    ) -> None:
        """Add ``size`` rows. Each term is (row within the block, column, coefficient), broadcast together."""
        for row, column, value in terms:
            r, c, v = np.broadcast_arrays(np.asarray(row), np.asarray(column), np.asarray(value, float))
            self._entries.append((r.ravel() + self.n_rows, c.ravel(), v.ravel()))
        below, above = (np.broadcast_to(np.asarray(x, float), (size,)) for x in (low, high))
        self._limits.append((below, above, scope))
        self.n_rows += size

    def solve(
        self,
        *,
        relax: bool = False,
        time_limit_s: float = 60.0,
        gap: float = 1e-4,
        gap_abs: float = 1e-6,
        zero: IntArray | None = None,
        start: tuple[IntArray, FloatArray] | None = None,
    ) -> Solution:
        """Solve with HiGHS on one thread, the columns ``zero`` held at 0.

        ``start``: columns and their values in a solution to begin with; the others are found.
        ``relax`` drops integrality. Raises ``UserError`` when no solution was found in time.
        """
        import highspy

        solver = highspy.Highs()
        options = {
            "output_flag": False,
            "threads": 1,
            "time_limit": time_limit_s,
            "mip_rel_gap": gap,
            "mip_abs_gap": gap_abs,
            "mip_feasibility_tolerance": 1e-9,
        }
        for name, value in options.items():
            solver.setOptionValue(name, value)
        columns, rows = self._present(relax)
        solver.passModel(self._model(columns, rows, relax, zero))
        if start is not None:
            place = np.searchsorted(columns, start[0])
            solver.setSolution(len(place), place.astype(np.int32), np.asarray(start[1], float))
        solver.run()
        info, status = solver.getInfo(), solver.modelStatusToString(solver.getModelStatus())
        if info.primal_solution_status != 2:
            raise UserError(
                f"HiGHS found no solution in {time_limit_s:g} s ({self.n_columns} columns, "
                f"{self.n_rows} rows, status {status!r}); raise the solver's time limit or {self.remedy}"
            )
        is_mip = not relax and any(column[3] for column in self._columns)
        bound = info.mip_dual_bound if is_mip else info.objective_function_value
        found, x, dual = solver.getSolution(), np.zeros(self.n_columns), np.zeros(self.n_rows)
        x[columns], dual[rows] = found.col_value, found.row_dual
        value = info.objective_function_value
        return Solution(x, value, bound, status, solver.getRunTime(), None if is_mip else dual)

    def is_whole(self, x: FloatArray, tolerance: float) -> bool:
        """Whether the integer columns of a relaxed solution, those that it has, are whole numbers."""
        chosen = np.concatenate([np.full(len(c[0]), c[3] and c[4] is not Scope.WHOLE) for c in self._columns])
        return bool(np.all(np.abs(x[chosen] - np.round(x[chosen])) <= tolerance))

    def _present(self, relax: bool) -> tuple[IntArray, IntArray]:
        """Columns and rows that the form has."""
        absent = Scope.WHOLE if relax else Scope.RELAXED
        columns = np.concatenate([np.full(len(c[0]), c[-1] is not absent) for c in self._columns])
        rows = np.concatenate([np.full(len(limits[0]), limits[-1] is not absent) for limits in self._limits])
        return np.flatnonzero(columns), np.flatnonzero(rows)

    def _model(self, columns: IntArray, rows: IntArray, relax: bool, zero: IntArray | None) -> Any:
        """The program in HiGHS's form."""
        import highspy

        cost, lower, upper = (np.concatenate(x) for x in zip(*(c[:3] for c in self._columns), strict=True))
        if zero is not None:
            upper[zero] = 0.0
        integer = np.concatenate([np.full(len(c[0]), c[3]) for c in self._columns])[columns]
        low, high = (np.concatenate(x) for x in zip(*(limits[:2] for limits in self._limits), strict=True))
        matrix = self._matrix()[rows][:, columns]
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_, lp.offset_ = len(columns), len(rows), self.constant
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost[columns], lower[columns], upper[columns]
        lp.row_lower_, lp.row_upper_ = low[rows], high[rows]
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        if not relax and integer.any():
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(flag)] for flag in integer]
        return lp

    def _matrix(self) -> Any:
        """A, compressed by rows."""
        row, column, value = (np.concatenate([e[k] for e in self._entries]) for k in range(3))
        return coo_array((value, (row, column)), shape=(self.n_rows, self.n_columns)).tocsr()
