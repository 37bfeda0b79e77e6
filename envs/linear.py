"""A linear or mixed-integer program put together in blocks and solved by HiGHS."""

from dataclasses import dataclass, field

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


@dataclass
class LinearProgram:
    """min cost @ x + constant, low <= A x <= high, lower <= x <= upper, some x integer."""

    constant: float = 0.0
    _columns: list[tuple[FloatArray, FloatArray, FloatArray, bool]] = field(default_factory=list)
    _entries: list[tuple[IntArray, IntArray, FloatArray]] = field(default_factory=list)
    _limits: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)
    n_columns: int = 0
    n_rows: int = 0

    def variables(self, size: int, cost: ArrayLike = 0.0, lower: ArrayLike = 0.0, upper: ArrayLike = INF, integer: bool = False) -> IntArray:
        """Add ``size`` columns, return their indices."""
        block = [np.broadcast_to(np.asarray(x, float), (size,)) for x in (cost, lower, upper)]
        self._columns.append((block[0], block[1], block[2], integer))
        self.n_columns += size
        return np.arange(self.n_columns - size, self.n_columns)

    def rows(self, size: int, terms: list[tuple[ArrayLike, ArrayLike, ArrayLike]], low: ArrayLike = -INF, high: ArrayLike = INF) -> None:
        """Add ``size`` rows. Each term is (row within the block, column, coefficient), broadcast together."""
        for row, column, value in terms:
            r, c, v = np.broadcast_arrays(np.asarray(row), np.asarray(column), np.asarray(value, float))
            self._entries.append((r.ravel() + self.n_rows, c.ravel(), v.ravel()))
        self._limits.append(tuple(np.broadcast_to(np.asarray(x, float), (size,)) for x in (low, high)))  # type: ignore[arg-type]
        self.n_rows += size

    def solve(self, *, relax: bool = False, time_limit_s: float = 60.0, gap: float = 1e-4, gap_abs: float = 1e-6, zero: IntArray | None = None) -> Solution:
        """Solve with HiGHS on one thread, the columns ``zero`` held at 0.

        ``relax`` drops integrality. Raises ``UserError`` when no solution was found in time.
        """
        import highspy

        solver = highspy.Highs()
        options = {"output_flag": False, "threads": 1, "time_limit": time_limit_s, "mip_rel_gap": gap, "mip_abs_gap": gap_abs, "mip_feasibility_tolerance": 1e-9}
        for name, value in options.items():
            solver.setOptionValue(name, value)
        solver.passModel(self._model(relax, zero))
        solver.run()
        info, status = solver.getInfo(), solver.modelStatusToString(solver.getModelStatus())
        if info.primal_solution_status != 2:
            raise UserError(
                f"HiGHS found no solution in {time_limit_s:g} s ({self.n_columns} columns, {self.n_rows} rows, status {status!r}); "
                "raise the solver's time limit or lower n_sockets"
            )
        is_mip = not relax and any(column[3] for column in self._columns)
        bound = info.mip_dual_bound if is_mip else info.objective_function_value
        x = np.array(solver.getSolution().col_value)
        return Solution(x, info.objective_function_value, bound, status, solver.getRunTime())

    def _model(self, relax: bool, zero: IntArray | None) -> object:
        import highspy

        cost, lower, upper = (np.concatenate([c[k] for c in self._columns]) for k in range(3))
        if zero is not None:
            upper[zero] = 0.0
        integer = np.concatenate([np.full(len(c[0]), c[3]) for c in self._columns])
        low, high = (np.concatenate([limits[k] for limits in self._limits]) for k in range(2))
        row, column, value = (np.concatenate([e[k] for e in self._entries]) for k in range(3))
        matrix = coo_array((value, (row, column)), shape=(self.n_rows, self.n_columns)).tocsr()
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_, lp.offset_ = self.n_columns, self.n_rows, self.constant
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, lower, upper
        lp.row_lower_, lp.row_upper_ = low, high
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        if not relax and integer.any():
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(flag)] for flag in integer]
        return lp
