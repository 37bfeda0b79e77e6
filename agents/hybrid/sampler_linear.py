"""A decision as a mixed-integer program: the exact optimum, and exact shadow prices from its relaxation."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from qevgrid.agents.hybrid.dual import Dual
from qevgrid.agents.hybrid.polish import best_response
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.envs.errors import UserError
from qevgrid.envs.linear import INF, LinearProgram
from qevgrid.envs.types import FloatArray, IntArray


class Program(NamedTuple):
    """The program and where its columns and rows stand."""

    lp: LinearProgram
    option: IntArray  # (n,) column of each option's bit
    usage: IntArray  # (R,) column of each aggregate


def program(problem: AggregateQUBO) -> Program:
    """Options as bits, one a unit; aggregates and, for each kink, what lies beyond it as numbers.

    The first R rows say what the aggregates are, so that their duals are the prices.
    """
    lp, pieces, r = LinearProgram(problem.constant_usd), problem.pieces, problem.n_resources
    option = lp.variables(problem.n_options, problem.cost_usd, 0.0, 1.0, integer=True)
    usage = lp.variables(r, pieces.slope, -INF, INF)
    users, used = np.nonzero(problem.use)
    lp.rows(r, [(used, option[users], -problem.use[users, used]), (np.arange(r), usage, 1.0)], 0.0, 0.0)
    lp.rows(problem.n_units, [(problem.unit, option, 1.0)], 1.0, 1.0)
    resource, kink = np.nonzero(pieces.rise)
    beyond = lp.variables(len(resource), pieces.rise[resource, kink])
    at = pieces.at[resource, kink]
    row = np.arange(len(resource))
    lp.rows(len(resource), [(row, beyond, 1.0), (row, usage[resource], -1.0)], -at)
    return Program(lp, option, usage)


def relaxed_dual(problem: AggregateQUBO) -> Dual:
    """Prices, bound and usage of the relaxation, which are those of price decomposition at its summit.

    Milliseconds where ``dual_ascent`` takes tenths of one, but exact however far the prices are from 0.
    """
    lp, option, usage = program(problem)
    found = lp.solve(relax=True)
    if found.row_dual is None:
        raise RuntimeError("HiGHS returned a relaxation without duals")
    choice = best_response(problem, chosen(problem, found.x[option]))
    price = problem.pieces.clip(found.row_dual[: problem.n_resources])
    return Dual(price, found.objective, found.x[usage], choice, float(problem.energy_usd(choice)))


def optimum(problem: AggregateQUBO, time_limit_s: float, gap: float = 1e-6) -> IntArray:
    """The optimal choice (M,), or the best that HiGHS finds in time."""
    lp, option, _ = program(problem)
    try:
        found = lp.solve(time_limit_s=time_limit_s, gap=gap)
    except UserError as error:
        raise UserError(
            f"agent.sampler=highs found no choice of {problem.n_units} units in agent.time_limit_s={time_limit_s:g}: "
            "raise it, or set agent.sampler=structured"
        ) from error
    return chosen(problem, found.x[option])


def chosen(problem: AggregateQUBO, share: FloatArray) -> IntArray:
    """The option with the largest share (n,) of each unit, (M,); the first of equals."""
    return np.array([share[a:b].argmax() for a, b in pairwise(problem.first)], np.int64)
