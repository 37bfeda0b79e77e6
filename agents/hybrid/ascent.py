"""Steps uphill on a concave function of prices, smooth but for the conjugates f* of piecewise-linear functions.

    L(price) = softened minima of units (gradient: their usage, minus second derivative: a matrix)  -  sum_r f*_r(price_r)

A step maximises the quadratic model of the first part less f* as it is, within limits.
"""

from qevgrid.agents.hybrid.polish import copied, piece
from qevgrid.envs.types import FloatArray
from qevgrid.envs.v2g.arrays import compiled

ROUNDS, TURNS = 6, 6
"""Rounds over the prices one by one, and how often these take turns with conjugate gradients."""
SETTLED = 1e-6
"""A round that moves no price by more than this share of its limit is the last."""
OVERSHOT = 0.5
"""A step ends too far where L falls by this share of what it rose by at the beginning."""
NEAREST, FARTHEST = 0.1, 0.7
"""Least and greatest share of a step that goes too far which is tried instead."""
SAME = 1e-12
INF = float("inf")


@compiled
def conjugate(slope: FloatArray, at: FloatArray, rise: FloatArray, r: int, price: float) -> float:  # pragma: no cover
    """``max_A price A - f_r(A)`` at a price within the slopes."""
    tangent, where = slope[r], 0.0
    for k in range(at.shape[1]):
        if rise[r, k] > 0.0:
            where = at[r, k]
            tangent += rise[r, k]
            if tangent >= price - SAME * (1.0 + abs(price)):
                break
    return price * where - piece(slope, at, rise, r, where)


@compiled
def clipped(slope: FloatArray, rise: FloatArray, price: FloatArray) -> None:  # pragma: no cover
    """Move prices into the range of the slopes."""
    for r in range(len(price)):
        steepest = slope[r]
        for k in range(rise.shape[1]):
            steepest += rise[r, k]
        price[r] = min(max(price[r], slope[r]), steepest)


@compiled
def gradient(
    slope: FloatArray, at: FloatArray, rise: FloatArray, price: FloatArray, usage: FloatArray, found: FloatArray
) -> None:  # pragma: no cover
    """Write the shortest subgradient of L: usage less the nearest A that attains f*."""
    for r in range(len(price)):
        tangent, low, high, margin = slope[r], -INF, INF, SAME * (1.0 + abs(price[r]))
        for k in range(at.shape[1]):
            if rise[r, k] > 0.0:
                if tangent > price[r] + margin:
                    break
                if tangent >= price[r] - margin:
                    high = at[r, k]
                    break
                low = at[r, k]
                tangent += rise[r, k]
                high = low if tangent > price[r] + margin else INF
        found[r] = usage[r] - min(max(usage[r], low), high)


@compiled
def summit(
    slope: FloatArray, at: FloatArray, rise: FloatArray, r: int, usage: float, curvature: float
) -> float:  # pragma: no cover
    """Price that maximises ``usage price - curvature / 2 price^2 - f*_r(price)``."""
    tangent = slope[r]
    for k in range(at.shape[1]):
        if rise[r, k] > 0.0:
            price = (usage - at[r, k]) / curvature
            if price <= tangent:
                return tangent
            tangent += rise[r, k]
            if price <= tangent:
                return price
    return tangent


@compiled
def segment(
    slope: FloatArray, at: FloatArray, rise: FloatArray, r: int, price: float
) -> tuple[float, float, float]:  # pragma: no cover
    """Ends of the linear piece of f*_r at a price, and its slope; the ends are equal at a kink."""
    low, margin = slope[r], SAME * (1.0 + abs(price))
    for k in range(at.shape[1]):
        if rise[r, k] > 0.0:
            if price <= low + margin:
                break
            high = low + rise[r, k]
            if price < high - margin:
                return low, high, at[r, k]
            low = high
    return price, price, 0.0


@compiled
def turned_back(
    base: FloatArray, base_gradient: FloatArray, found: FloatArray, price: FloatArray
) -> bool:  # pragma: no cover
    """Whether the step from ``base`` to ``price`` went too far; then ``price`` moves back towards ``base``."""
    before, after = 0.0, 0.0
    for r in range(len(price)):
        before += base_gradient[r] * (price[r] - base[r])
        after += found[r] * (price[r] - base[r])
    if before <= 0.0 or after >= -OVERSHOT * before:
        return False
    share = min(max(before / (before - after), NEAREST), FARTHEST)
    for r in range(len(price)):
        price[r] = base[r] + share * (price[r] - base[r])
    return True


@compiled
def maximise_model(
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    usage: FloatArray,
    curvature: FloatArray,
    reach: FloatArray,
    price: FloatArray,
    new: FloatArray,
    room: FloatArray,
) -> None:  # pragma: no cover
    """Write to ``new`` the maximiser of the quadratic model about ``price`` less f*, within ``reach``.

    One price after another finds the pieces of f*; on these, conjugate gradients, for which the
    rounds would be too slow where resources are used alike. ``room`` is (4, R).
    """
    copied(price, new)
    for _ in range(TURNS):
        for _ in range(ROUNDS):
            moved = 0.0
            for r in range(len(price)):
                pull = usage[r] + curvature[r, r] * new[r]
                for s in range(len(price)):
                    pull -= curvature[r, s] * (new[s] - price[s])
                to = summit(slope, at, rise, r, pull, curvature[r, r])
                to = min(max(to, price[r] - reach[r]), price[r] + reach[r])
                moved = max(moved, abs(to - new[r]) / reach[r])
                new[r] = to
            if moved < SETTLED:
                return
        _glide(slope, at, rise, usage, curvature, reach, price, new, room)


@compiled
def _glide(
    slope: FloatArray,
    at: FloatArray,
    rise: FloatArray,
    usage: FloatArray,
    curvature: FloatArray,
    reach: FloatArray,
    price: FloatArray,
    new: FloatArray,
    room: FloatArray,
) -> None:  # pragma: no cover
    """Move the prices that are inside a piece and within reach to their joint maximum, or until one meets an end."""
    way, rest, ahead, image = room[0], room[1], room[2], room[3]
    n_free, size = 0, 0.0
    for r in range(len(price)):
        low, high, where = segment(slope, at, rise, r, new[r])
        way[r] = rest[r] = ahead[r] = 0.0
        if low < high and abs(new[r] - price[r]) < reach[r] * (1.0 - SETTLED):
            n_free += 1
            rest[r] = usage[r] - where
            for s in range(len(price)):
                rest[r] -= curvature[r, s] * (new[s] - price[s])
            ahead[r] = rest[r] / curvature[r, r]
            size += rest[r] * ahead[r]
    enough = SETTLED * size
    for _ in range(n_free):
        if size <= enough:
            break
        length = 0.0
        for r in range(len(price)):
            image[r] = 0.0
            if ahead[r] != 0.0:
                for s in range(len(price)):
                    image[r] += curvature[r, s] * ahead[s]
                length += ahead[r] * image[r]
        if length <= 0.0:
            break
        step, last, size = size / length, size, 0.0
        for r in range(len(price)):
            if ahead[r] != 0.0:
                way[r] += step * ahead[r]
                rest[r] -= step * image[r]
                size += rest[r] * rest[r] / curvature[r, r]
        for r in range(len(price)):
            if ahead[r] != 0.0:
                ahead[r] = rest[r] / curvature[r, r] + size / last * ahead[r]
    share = 1.0
    for r in range(len(price)):
        if way[r] != 0.0:
            low, high, _ = segment(slope, at, rise, r, new[r])
            low, high = max(low, price[r] - reach[r]), min(high, price[r] + reach[r])
            share = min(share, ((high if way[r] > 0.0 else low) - new[r]) / way[r])
    for r in range(len(price)):
        new[r] += share * way[r]
