"""Batches of small circuits, compiled: states of a block of samples stay in the processor's cache.

A circuit is a list of steps that alternate between **turns** (a 2 x 2 matrix a wire, shared by the
batch) and **phases** (a diagonal: fixed or weighted phases shared by the batch, times the rotations
``exp(-i t Z...Z / 2)`` by each sample's data angles ``t``). The gradient walks the steps backwards and
undoes them (adjoint differentiation, Jones and Gacon 2020), so nothing but the last state is stored.

Amplitude k has wire 0 in its highest bit, as in PennyLane. Arrays are (..., amplitude, sample).
"""

import numpy as np
from numba import njit

LANES = 32
"""Samples a block, at most; a batch of fewer is one block of its own size."""

IDENTITY, REAL, COMPLEX = 0, 1, 2
"""Kinds of a turn's matrix."""
NO_PHASE, PHASE = 0, 1
"""Kinds of a step's shared diagonal."""


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _turn(re, im, wire, kind, m_re, m_im, n):
    """Multiply the matrix into ``wire``."""
    (size, lanes), half = re.shape, 1 << (n - 1 - wire)
    a_re, b_re, c_re, d_re = m_re[0, 0], m_re[0, 1], m_re[1, 0], m_re[1, 1]
    a_im, b_im, c_im, d_im = m_im[0, 0], m_im[0, 1], m_im[1, 0], m_im[1, 1]
    for k in range(size):
        if k & half:
            continue
        x_re, x_im, y_re, y_im = re[k], im[k], re[k | half], im[k | half]
        if kind == REAL:
            for s in range(lanes):
                u, v, p, q = x_re[s], y_re[s], x_im[s], y_im[s]
                x_re[s] = a_re * u + b_re * v
                y_re[s] = c_re * u + d_re * v
                x_im[s] = a_re * p + b_re * q
                y_im[s] = c_re * p + d_re * q
        else:
            for s in range(lanes):
                u, v, p, q = x_re[s], y_re[s], x_im[s], y_im[s]
                x_re[s] = a_re * u - a_im * p + b_re * v - b_im * q
                x_im[s] = a_re * p + a_im * u + b_re * q + b_im * v
                y_re[s] = c_re * u - c_im * p + d_re * v - d_im * q
                y_im[s] = c_re * p + c_im * u + d_re * q + d_im * v


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _diagonal(p_re, p_im, cos, sin, first, last, masks, by_wire, shared, s_re, s_im, n):
    """The step's diagonal (amplitude, sample) into ``p_re``, ``p_im``, by doubling over the wires."""
    lanes = p_re.shape[1]
    p_re[0, :] = 1.0
    p_im[0, :] = 0.0
    for bit in range(n):
        gate, half = by_wire[n - 1 - bit], 1 << bit
        for k in range(half):
            lo_re, lo_im, hi_re, hi_im = p_re[k], p_im[k], p_re[k | half], p_im[k | half]
            if gate < 0:
                for s in range(lanes):
                    hi_re[s] = lo_re[s]
                    hi_im[s] = lo_im[s]
            else:
                c_row, s_row = cos[gate], sin[gate]
                for s in range(lanes):
                    a, b, c, d = lo_re[s], lo_im[s], c_row[s], s_row[s]
                    hi_re[s] = a * c - b * d
                    hi_im[s] = a * d + b * c
                    lo_re[s] = a * c + b * d
                    lo_im[s] = b * c - a * d
    for gate in range(first, last):
        mask = masks[gate]
        if mask & (mask - 1):
            c_row, s_row = cos[gate], sin[gate]
            for k in range(p_re.shape[0]):
                sign = -_parity_sign(k & mask)
                row_re, row_im = p_re[k], p_im[k]
                for s in range(lanes):
                    a, b, c, d = row_re[s], row_im[s], c_row[s], sign * s_row[s]
                    row_re[s] = a * c - b * d
                    row_im[s] = a * d + b * c
    if shared == NO_PHASE:
        return
    for k in range(p_re.shape[0]):
        c, d, row_re, row_im = s_re[k], s_im[k], p_re[k], p_im[k]
        for s in range(lanes):
            a, b = row_re[s], row_im[s]
            row_re[s] = a * c - b * d
            row_im[s] = a * d + b * c


@njit(cache=True, nogil=True)
def _parity_sign(bits):
    """+1 for an even number of ones, -1 for an odd one, as a number of the states' precision."""
    odd = 0
    while bits:
        odd ^= 1
        bits &= bits - 1
    return np.float32(1 - 2 * odd)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _rotate(re, im, p_re, p_im, direction):
    """Multiply the diagonal (``direction`` 1) or its inverse (-1) into the states."""
    lanes = re.shape[1]
    for k in range(re.shape[0]):
        x, y, c_row, d_row = re[k], im[k], p_re[k], p_im[k]
        for s in range(lanes):
            a, b, c, d = x[s], y[s], c_row[s], direction * d_row[s]
            x[s] = a * c - b * d
            y[s] = a * d + b * c


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def forward(steps, kinds, m_re, m_im, shared, s_re, s_im, span, masks, by_wire, i_re, i_im, cos, sin, signs, out, kept):
    """Expectation values ``out`` (R, B) of the diagonal observables ``signs`` (R, K).

    ``steps`` (T,): index of a turn from 0, or of a phase step as -1 - index. ``kinds`` (turns, n),
    ``m_*`` (turns, n, 2, 2). ``shared`` (phases,), ``s_*`` (phases, K), ``span`` (phases, 2): the data gates
    [first, last) of the step; ``masks`` (G,) their wires as bits of k, ``by_wire`` (phases, n) the gate on that
    single wire or -1. ``i_*`` (K,) first state; ``cos``, ``sin`` (G, B) of half the angles. B is a multiple of
    ``lanes``. ``kept`` (B / lanes or 0, 2, K, lanes) takes the last states.
    """
    size, n, lanes = i_re.shape[0], by_wire.shape[1], kept.shape[3]
    state, diagonal = np.empty((2, size, lanes), out.dtype), np.empty((2, size, lanes), out.dtype)
    re, im, p_re, p_im = state[0], state[1], diagonal[0], diagonal[1]
    for block in range(out.shape[1] // lanes):
        here = slice(block * lanes, (block + 1) * lanes)
        c, d = cos[:, here], sin[:, here]
        for k in range(size):
            re[k, :] = i_re[k]
            im[k, :] = i_im[k]
        for step in steps:
            if step >= 0:
                for w in range(n):
                    if kinds[step, w] != IDENTITY:
                        _turn(re, im, w, kinds[step, w], m_re[step, w], m_im[step, w], n)
            else:
                j = -1 - step
                _diagonal(p_re, p_im, c, d, span[j, 0], span[j, 1], masks, by_wire[j], shared[j], s_re[j], s_im[j], n)
                _rotate(re, im, p_re, p_im, 1)
        for k in range(size):
            x, y, weight = re[k], im[k], p_re[k]
            for s in range(lanes):
                weight[s] = x[s] * x[s] + y[s] * y[s]
        for r in range(out.shape[0]):
            row = out[r, here]
            row[:] = 0.0
            for k in range(size):
                sign, weight = signs[r, k], p_re[k]
                for s in range(lanes):
                    row[s] += sign * weight[s]
        if kept.shape[0]:
            kept[block] = state


@njit(cache=True, nogil=True)
def waves(angles, lanes):
    """Cosine and sine (G, B) of half the angles (b, G), B rounded up to whole blocks."""
    size, n_gates = angles.shape
    padded = -(-size // lanes) * lanes
    cos, sin = np.ones((n_gates, padded), angles.dtype), np.zeros((n_gates, padded), angles.dtype)
    for b in range(size):
        for g in range(n_gates):
            half = angles[b, g] * angles.dtype.type(0.5)
            cos[g, b], sin[g, b] = np.cos(half), np.sin(half)
    return cos, sin


@njit(cache=True, nogil=True)
def evaluate(steps, kinds, m_re, m_im, shared, s_re, s_im, span, masks, by_wire, i_re, i_im, angles, signs, lanes):
    """Expectation values (R, B) of `forward` for angles (b, G), from one call: a single observation is all overhead."""
    cos, sin = waves(angles, lanes)
    out = np.empty((signs.shape[0], cos.shape[1]), angles.dtype)
    kept = np.empty((0, 2, i_re.shape[0], lanes), angles.dtype)
    forward(steps, kinds, m_re, m_im, shared, s_re, s_im, span, masks, by_wire, i_re, i_im, cos, sin, signs, out, kept)
    return out


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _matrix_gradient(g, re, im, l_re, l_im, wire, kind, n):
    """Add ``2 lambda_a conj(psi_b)``, summed over the block, to ``g`` (2, 2, 2): re/im, row, column.

    ``lambda`` is behind the turn, ``psi`` before it. Of a real matrix only the real part moves.
    """
    half, lanes = 1 << (n - 1 - wire), re.shape[1]
    sums = np.zeros((8, lanes), re.dtype)
    for k in range(re.shape[0]):
        if k & half:
            continue
        x_re, x_im, y_re, y_im = re[k], im[k], re[k | half], im[k | half]
        u_re, u_im, v_re, v_im = l_re[k], l_im[k], l_re[k | half], l_im[k | half]
        aa, ab, ba, bb = sums[0], sums[1], sums[2], sums[3]
        for s in range(lanes):
            aa[s] += u_re[s] * x_re[s] + u_im[s] * x_im[s]
            ab[s] += u_re[s] * y_re[s] + u_im[s] * y_im[s]
            ba[s] += v_re[s] * x_re[s] + v_im[s] * x_im[s]
            bb[s] += v_re[s] * y_re[s] + v_im[s] * y_im[s]
        if kind == COMPLEX:
            caa, cab, cba, cbb = sums[4], sums[5], sums[6], sums[7]
            for s in range(lanes):
                caa[s] += u_im[s] * x_re[s] - u_re[s] * x_im[s]
                cab[s] += u_im[s] * y_re[s] - u_re[s] * y_im[s]
                cba[s] += v_im[s] * x_re[s] - v_re[s] * x_im[s]
                cbb[s] += v_im[s] * y_re[s] - v_re[s] * y_im[s]
    for q in range(8):
        g[q // 4, q % 4 // 2, q % 2] += 2.0 * sums[q].sum()


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _phase_gradient(g_angle, g_shared, overlap, re, im, l_re, l_im, first, last, masks, wanted):
    """Gradients to the data angles (G, lanes) and, if ``wanted``, to the shared phases (K,) of one step."""
    lanes = re.shape[1]
    for k in range(re.shape[0]):
        x, y, u, v, row = re[k], im[k], l_re[k], l_im[k], overlap[k]
        for s in range(lanes):
            row[s] = u[s] * y[s] - v[s] * x[s]
        if wanted:
            g_shared[k] -= 2.0 * row.sum()
    for gate in range(first, last):
        mask, total = masks[gate], g_angle[gate]
        total[:] = 0.0
        for k in range(re.shape[0]):
            sign, row = _parity_sign(k & mask), overlap[k]
            for s in range(lanes):
                total[s] += sign * row[s]


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def backward(
    steps, kinds, m_re, m_im, shared, s_re, s_im, span, masks, by_wire, cos, sin, signs, kept,
    learned, wanted, g_out, g_matrix, g_shared, g_first, g_angle,
):  # fmt: skip
    """Gradients of ``sum(g_out * out)`` (R, B) to matrices, shared phases, first state and data angles.

    ``learned`` (turns, n) and ``wanted`` (phases,) say which matrices and phases need theirs. Adds to ``g_matrix``
    (turns, n, 2, 2, 2), ``g_shared`` (phases, K), ``g_first`` (2, K); writes ``g_angle`` (G, B).
    """  # fmt: skip
    size, n, lanes = signs.shape[1], by_wire.shape[1], kept.shape[3]
    diagonal, follower = np.empty((2, size, lanes), kept.dtype), np.empty((2, size, lanes), kept.dtype)
    p_re, p_im, l_re, l_im = diagonal[0], diagonal[1], follower[0], follower[1]
    for block in range(kept.shape[0]):
        here = slice(block * lanes, (block + 1) * lanes)
        c, d, g_here = cos[:, here], sin[:, here], g_angle[:, here]
        re, im = kept[block, 0], kept[block, 1]
        for k in range(size):
            weight = p_re[k]
            weight[:] = 0.0
            for r in range(signs.shape[0]):
                sign, row = signs[r, k], g_out[r, here]
                for s in range(lanes):
                    weight[s] += sign * row[s]
            x, y, u, v = re[k], im[k], l_re[k], l_im[k]
            for s in range(lanes):
                u[s] = weight[s] * x[s]
                v[s] = weight[s] * y[s]
        for t in range(len(steps) - 1, -1, -1):
            step = steps[t]
            if step >= 0:
                for w in range(n - 1, -1, -1):
                    kind = kinds[step, w]
                    if kind == IDENTITY:
                        continue
                    back_re, back_im = m_re[step, w].T, -m_im[step, w].T
                    _turn(re, im, w, kind, back_re, back_im, n)
                    if learned[step, w]:
                        _matrix_gradient(g_matrix[step, w], re, im, l_re, l_im, w, kind, n)
                    _turn(l_re, l_im, w, kind, back_re, back_im, n)
            else:
                j = -1 - step
                _phase_gradient(g_here, g_shared[j], p_re, re, im, l_re, l_im, span[j, 0], span[j, 1], masks, wanted[j])
                _diagonal(p_re, p_im, c, d, span[j, 0], span[j, 1], masks, by_wire[j], shared[j], s_re[j], s_im[j], n)
                _rotate(re, im, p_re, p_im, -1)
                _rotate(l_re, l_im, p_re, p_im, -1)
        for k in range(size):
            g_first[0, k] += 2.0 * l_re[k].sum()
            g_first[1, k] += 2.0 * l_im[k].sum()
