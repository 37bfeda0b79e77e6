"""Exact AC power flow of a radial feeder: the DistFlow backward/forward sweep, batched."""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from qevgrid.envs.grid.feeder import BoolArray, Feeder, FloatArray, IntArray

_MAX_LANES = 16  # cases that go through the sweep side by side, to fill the pipeline
_V2_FLOOR = 0.01  # squared p.u. voltage below which the flow counts as collapsed


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What `sweep` found; a row with ``converged`` False (too much load) is NaN throughout."""

    v_pu: FloatArray  # (B, n_bus), 0 at a dead bus
    flow_kw: FloatArray  # (B, L) entering the line at from_bus
    flow_kvar: FloatArray  # (B, L)
    loss_kw: FloatArray  # (B,)
    current_a: FloatArray  # (B, L)
    converged: BoolArray  # (B,)


def sweep(
    feeder: Feeder,
    p_kw: npt.ArrayLike,
    q_kvar: npt.ArrayLike,
    v_source: float = 1.0,
    tol: float = 1e-9,
    max_iter: int = 50,
    alive: npt.ArrayLike | None = None,
) -> SweepResult:
    """Solve the AC power flow for B cases of constant-power loads.

    p_kw, q_kvar: (B, n_bus) total net load at each bus (generation negative). v_source: voltage
    of bus 0 in p.u. tol: largest change of a squared voltage (p.u.) in the last iteration.
    alive: (B, n_bus) bool, default all True; a dead bus and all it feeds draw nothing and have
    0 p.u. A row's result does not depend, to the last bit, on the other rows of its batch.
    Raises ValueError on a wrong shape. Source: Baran & Wu 1989, the DistFlow equations.
    """
    load_kw, load_kvar = _bus_loads(p_kw, feeder, "p_kw"), _bus_loads(q_kvar, feeder, "q_kvar")
    if load_kw.shape != load_kvar.shape:
        raise ValueError(f"p_kw {load_kw.shape} and q_kvar {load_kvar.shape} must have one shape")
    lit = _alive(alive, load_kw.shape)
    per_unit = 1.0 / (1000.0 * feeder.base_kv**2)  # ohm * kW -> p.u. of squared voltage
    amp_per_kva = 1.0 / (np.sqrt(3.0) * feeder.base_kv)
    out = _allocate(len(load_kw), feeder)
    _solve(
        (feeder.from_bus, feeder.to_bus, feeder.r_ohm * per_unit, feeder.x_ohm * per_unit),
        (load_kw, load_kvar, lit),
        (float(v_source) ** 2, float(tol), int(max_iter), amp_per_kva),
        out,
    )
    return SweepResult(*out)


def _bus_loads(values: npt.ArrayLike, feeder: Feeder, name: str) -> FloatArray:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != feeder.n_bus:
        raise ValueError(f"{name} must have shape (B, {feeder.n_bus}), not {array.shape}")
    return array


def _alive(alive: npt.ArrayLike | None, shape: tuple[int, ...]) -> BoolArray:
    if alive is None:
        return np.ones(shape, dtype=np.bool_)
    lit = np.ascontiguousarray(alive, dtype=np.bool_)
    if lit.shape != shape:
        raise ValueError(f"alive must have shape {shape}, not {lit.shape}")
    return lit


_Tree = tuple[IntArray, IntArray, FloatArray, FloatArray]  # from, to, r and x (V^2 p.u. per kW)
_Loads = tuple[FloatArray, FloatArray, BoolArray]  # kW, kvar, alive
_State = tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # V^2, kW and kvar sent, I^2
_Options = tuple[float, float, int, float]  # source V^2, tolerance, sweeps, ampere per kVA
_Out = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, BoolArray]


def _allocate(n_case: int, feeder: Feeder) -> _Out:
    per_line = (n_case, feeder.n_line)
    return (
        np.empty((n_case, feeder.n_bus)),
        np.empty(per_line),
        np.empty(per_line),
        np.empty(n_case),
        np.empty(per_line),
        np.empty(n_case, dtype=np.bool_),
    )


@nb.njit(cache=True, error_model="numpy")
def _solve(tree: _Tree, cases: _Loads, options: _Options, out: _Out) -> None:
    """Work through the batch in blocks of up to _MAX_LANES cases; I^2 is in (kVA per p.u.)^2."""
    v2_source, tol, max_iter, amp_per_kva = options
    n_case, n_bus = cases[0].shape
    lanes = max(1, min(_MAX_LANES, n_case))
    kw, kvar, v2 = np.empty((3, n_bus, lanes))
    lit = np.empty((n_bus, lanes), dtype=np.bool_)
    sent_kw, sent_kvar, i2 = np.empty((3, n_bus - 1, lanes))
    block, state = (kw, kvar, lit), (v2, sent_kw, sent_kvar, i2)
    for start in range(0, n_case, lanes):
        _gather(start, tree, cases, block)
        v2[:] = v2_source
        done = _iterate(tree, block, state, tol, max_iter)
        # A lane frozen early would otherwise depend on how long its neighbours went on.
        _backward(tree, block, state)
        _scatter(start, tree, lit, state, done, amp_per_kva, out)


@nb.njit(cache=True, error_model="numpy")
def _gather(start: int, tree: _Tree, cases: _Loads, block: _Loads) -> None:
    """Copy a block, dead loads as zero; lanes past the end of the batch are dead."""
    from_bus, to_bus = tree[0], tree[1]
    load_kw, load_kvar, alive = cases
    kw, kvar, lit = block
    kw[:], kvar[:], lit[:] = 0.0, 0.0, False
    for lane in range(min(lit.shape[1], alive.shape[0] - start)):
        case = start + lane
        lit[0, lane] = alive[case, 0]
        for line in range(to_bus.size):
            bus = to_bus[line]
            if alive[case, bus] and lit[from_bus[line], lane]:
                lit[bus, lane] = True
                kw[bus, lane] = load_kw[case, bus]
                kvar[bus, lane] = load_kvar[case, bus]


@nb.njit(cache=True, error_model="numpy")
def _iterate(tree: _Tree, block: _Loads, state: _State, tol: float, max_iter: int) -> BoolArray:
    """Sweep until every lane has settled; one that has is frozen. Return (lanes,) settled."""
    done = np.zeros(state[0].shape[1], dtype=np.bool_)
    for _ in range(max_iter):
        _backward(tree, block, state)
        _forward(tree, state, tol, done)
        if done.all():
            break
    return done


@nb.njit(cache=True, error_model="numpy")
def _backward(tree: _Tree, block: _Loads, state: _State) -> None:
    """Leaves to root: the power sent into each line and its squared current."""
    from_bus, to_bus, r, x = tree
    v2, sent_kw, sent_kvar, i2 = state
    down_kw, down_kvar = block[0].copy(), block[1].copy()
    for line in range(to_bus.size - 1, -1, -1):
        head, tail = to_bus[line], from_bus[line]
        for lane in range(v2.shape[1]):
            p, q = down_kw[head, lane], down_kvar[head, lane]
            square = (p * p + q * q) / v2[head, lane]
            p += r[line] * square
            q += x[line] * square
            i2[line, lane] = square
            sent_kw[line, lane] = p
            sent_kvar[line, lane] = q
            down_kw[tail, lane] += p
            down_kvar[tail, lane] += q


@nb.njit(cache=True, error_model="numpy")
def _forward(tree: _Tree, state: _State, tol: float, done: BoolArray) -> None:
    """Root to leaves: the squared voltages of the lanes not done; mark those that settled."""
    from_bus, to_bus, r, x = tree
    v2, sent_kw, sent_kvar, i2 = state
    settled = np.ones(v2.shape[1], dtype=np.bool_)
    for line in range(to_bus.size):
        head, tail = to_bus[line], from_bus[line]
        a, b = r[line], x[line]
        z2 = a * a + b * b
        for lane in range(v2.shape[1]):
            drop = 2.0 * (a * sent_kw[line, lane] + b * sent_kvar[line, lane])
            new = max(v2[tail, lane] - drop + z2 * i2[line, lane], _V2_FLOOR)
            new = v2[head, lane] if done[lane] else new
            settled[lane] &= abs(new - v2[head, lane]) <= tol
            v2[head, lane] = new
    done |= settled


@nb.njit(cache=True, error_model="numpy")
def _scatter(
    start: int,
    tree: _Tree,
    lit: BoolArray,
    state: _State,
    done: BoolArray,
    amp_per_kva: float,
    out: _Out,
) -> None:
    """Write a block's lanes to their rows; a voltage at the floor is a collapse."""
    to_bus, r = tree[1], tree[2]
    v2, sent_kw, sent_kvar, i2 = state
    v_pu, flow_kw, flow_kvar, loss_kw, current_a, converged = out
    for lane in range(min(lit.shape[1], v_pu.shape[0] - start)):
        case, loss_sum, sound = start + lane, 0.0, done[lane]
        v_pu[case, 0] = np.sqrt(v2[0, lane]) if lit[0, lane] else 0.0
        for line in range(to_bus.size):
            bus = to_bus[line]
            v_pu[case, bus] = np.sqrt(v2[bus, lane]) if lit[bus, lane] else 0.0
            flow_kw[case, line] = sent_kw[line, lane]
            flow_kvar[case, line] = sent_kvar[line, lane]
            current_a[case, line] = np.sqrt(i2[line, lane]) * amp_per_kva
            loss_sum += r[line] * i2[line, lane]
            sound &= v2[bus, lane] > _V2_FLOOR
        loss_kw[case] = loss_sum
        converged[case] = sound
        if not sound:
            v_pu[case], flow_kw[case], flow_kvar[case] = np.nan, np.nan, np.nan
            loss_kw[case], current_a[case] = np.nan, np.nan
