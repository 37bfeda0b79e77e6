"""Calls of compiled functions without a look at every argument's type."""

import copy
import pickle
from typing import NamedTuple

import numba
import numpy as np
import pytest

from qevgrid.envs.direct import Direct


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray


@numba.njit
def total(pair: Pair, x: np.ndarray, k: int) -> float:
    return pair.a.sum() + 10 * pair.b.sum() + 100 * x.sum() + k


PAIR = Pair(np.ones(2), np.full(3, 2))


@pytest.fixture
def call() -> Direct:
    direct = Direct(total)
    direct(PAIR, np.ones((1, 2)), 5)
    return direct


def test_the_same_types_take_the_short_way(call: Direct) -> None:
    code, calls = call._code, []
    call._code = lambda *args: calls.append(args) or code(*args)
    for size in (1, 2, 3):
        assert call(PAIR, np.ones((size, 2)), 5) == 2 + 60 + 200 * size + 5
    assert len(calls) == 3


OTHERS = [
    np.ones((1, 2), np.float32),
    np.ones((1, 2), np.int64),
    np.ones(2),
    np.ones((3, 4))[:1, ::2],
    np.asfortranarray(np.ones((2, 2)))[:1],
    np.broadcast_to(1.0, (1, 2)),
]


@pytest.mark.parametrize("x", OTHERS)
def test_other_types_take_the_long_way_and_back(call: Direct, x: np.ndarray) -> None:
    assert call(PAIR, x, 5) == 2 + 60 + 200 + 5
    assert call(PAIR, x, 5) == 2 + 60 + 200 + 5
    assert call(PAIR, np.ones((1, 2)), 5) == 2 + 60 + 200 + 5


def test_other_named_tuples_and_numbers_are_seen(call: Direct) -> None:
    x = np.ones((1, 2))
    assert call(Pair(np.ones(2, np.float32), np.full(3, 2.0)), x, 5) == 267
    assert call(PAIR, x, 7) == 269
    assert call(PAIR, x, 0.5) == 262.5


def test_copies_look_for_themselves(call: Direct) -> None:
    again = copy.deepcopy(call)
    assert again._code is None
    assert again(PAIR, np.ones((1, 2)), 5) == 267
    assert pickle.loads(pickle.dumps(Direct(np.sum)))(np.ones(3)) == 3
