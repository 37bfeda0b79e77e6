"""From episodes to the table: costs, scores against the ruler, risk, time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qevgrid.envs.problem import Problem
from qevgrid.envs.types import FloatArray
from qevgrid.runner.rollout import Episodes
from qevgrid.runner.stats import cvar, mean_interval, paired_difference, score

BOOTSTRAP_SEED = 20260101


def bootstrap() -> np.random.Generator:
    """The same resamples for every agent and every call."""
    return np.random.default_rng(BOOTSTRAP_SEED)


def table_columns(problem: Problem) -> list[str]:
    """Columns of ``table.csv``. ``gap_share``: what the solver left unproven, as a share of the ruler.

    A row has more where the agent reports values under a name with a "/", which is also their tag.
    """
    return [
        "agent", "env", "episodes", "cost_usd_mean", "score", "score_lo", "score_hi",
        kpi_column(problem), "cvar95_usd", "ms_per_decision", "parameters",
        *(f"cost_{term}_usd" for term in problem.cost_terms),
        "cost_usd_lo", "cost_usd_hi", "gap_share",
    ]  # fmt: skip


def kpi_column(problem: Problem) -> str:
    """Column of the quantity that tables show."""
    return f"{problem.shown_kpi[0]}_mean"


def table(
    agents: Sequence[Episodes], naive: Episodes | None, best: Episodes | None, problem: Problem
) -> list[dict[str, Any]]:
    """One row an agent; scores are empty without a ruler."""
    return [_row(episodes, naive, best, problem) for episodes in agents]


def _row(e: Episodes, naive: Episodes | None, best: Episodes | None, problem: Problem) -> dict[str, Any]:
    strata = problem.strata(e.stress)
    mean = mean_interval(e.total_usd, bootstrap(), strata=strata)
    row: dict[str, Any] = {"agent": e.agent, "env": problem.id, "episodes": len(e.seeds), "cost_usd_mean": mean.value}
    marks = (None, None, None)
    if naive is not None and best is not None:
        s = score(e.total_usd, naive.total_usd, best.total_usd, rng=bootstrap(), strata=strata)
        marks = tuple(None if np.isnan(x) else float(x) for x in s)
    row |= dict(zip(("score", "score_lo", "score_hi"), marks, strict=True))
    row |= {
        kpi_column(problem): float(e.kpi[:, problem.kpis.index(problem.shown_kpi[0])].mean()),
        "cvar95_usd": cvar(e.total_usd),
        "ms_per_decision": e.ms_per_decision,
        "parameters": e.parameters,
    }
    row |= {f"cost_{term}_usd": float(c) for term, c in zip(problem.cost_terms, e.cost_usd.mean(0), strict=True)}
    bounds = [None if np.isnan(x) else float(x) for x in (mean.lo, mean.hi)]
    row |= {"cost_usd_lo": bounds[0], "cost_usd_hi": bounds[1], "gap_share": gap_share(e, naive)}
    return row | {tag: _mean(values) for tag, values in e.report.items() if "/" in tag}


def _mean(values: FloatArray) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def gap_share(e: Episodes, naive: Episodes | None) -> float | None:
    """Unproven part of a solver's cost over the ruler's length, both summed over the scenarios."""
    if "bound_usd" not in e.report or naive is None:
        return None
    ruler = float((naive.total_usd - e.total_usd).sum())
    unproven = max(float((e.total_usd - e.report["bound_usd"]).sum()), 0.0)
    return unproven / ruler if ruler > 0 else None


def differences(agents: Sequence[Episodes], reference: Episodes, problem: Problem) -> list[dict[str, Any]]:
    """Paired difference of each agent's cost to the reference's, with its 95 % interval, in USD."""
    rows = []
    for e in agents:
        if e is not reference:
            strata = problem.strata(e.stress)
            d = paired_difference(e.total_usd, reference.total_usd, bootstrap(), strata=strata)
            rows.append({"agent": e.agent, "against": reference.agent, "usd": d.value, "lo": d.lo, "hi": d.hi})
    return rows


def episode_rows(agents: Sequence[Episodes], problem: Problem) -> list[dict[str, Any]]:
    """One row an agent and episode: seed, world, costs, quantities, what a solver reported."""
    return [_episode_row(e, k, problem) for e in agents for k in range(len(e.seeds))]


def _episode_row(e: Episodes, k: int, problem: Problem) -> dict[str, Any]:
    row: dict[str, Any] = {
        "agent": e.agent, "env": problem.id, "episode": k, "seed": e.seeds[k], "fingerprint": e.fingerprints[k],
        problem.stress_column: float(e.stress[k]), "cost_usd": float(e.total_usd[k]),
    }  # fmt: skip
    row |= {f"cost_{term}_usd": float(c) for term, c in zip(problem.cost_terms, e.cost_usd[k], strict=True)}
    row |= {name: float(value) for name, value in zip(problem.kpis, e.kpi[k], strict=True)}
    return row | {name: float(values[k]) for name, values in e.report.items()}


def scalars(row: Mapping[str, Any], e: Episodes, problem: Problem) -> dict[str, Any]:
    """A table row as TensorBoard's tags; those that the agent reported are tags already."""
    found = {"eval/cost_usd": row["cost_usd_mean"], "eval/score": row["score"], "eval/cvar95_usd": row["cvar95_usd"]}
    found |= {f"cost/{term}_usd": row[f"cost_{term}_usd"] for term in problem.cost_terms}
    found |= {tag: value for tag, value in row.items() if "/" in tag}
    means = np.nanmean(e.kpi, axis=0) if np.isfinite(e.kpi).any(0).all() else e.kpi.mean(0)
    found |= {f"kpi/{name}": float(x) for name, x in zip(problem.kpis, means, strict=True) if np.isfinite(x)}
    return found
