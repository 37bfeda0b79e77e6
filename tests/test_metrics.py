"""From episodes to the table, by hand."""

from typing import Any

import numpy as np
import pytest

from qevgrid.envs.v2g.problem import PROBLEM
from qevgrid.runner import metrics
from qevgrid.runner.rollout import Episodes

COST_TERMS, KPIS = PROBLEM.cost_terms, PROBLEM.kpis
PROMISED = (
    "agent,env,episodes,cost_usd_mean,score,score_lo,score_hi,unserved_critical_kwh_mean,cvar95_usd,ms_per_decision,parameters"
).split(",")
"""The columns that scripts rely on, from the issue."""


def episodes(agent: str, total_usd: list[float], **more: Any) -> Episodes:
    """All of the cost is energy; quantity k of episode e is 100 k + e."""
    size = len(total_usd)
    cost = np.zeros((size, len(COST_TERMS)))
    cost[:, 0] = total_usd
    kpi = 100.0 * np.arange(len(KPIS)) + np.arange(size)[:, None]
    seeds = list(range(1000, 1000 + size))
    prints = [f"world{seed}" for seed in seeds]
    fields = {"stress": np.zeros(size), "ms_per_decision": 1.5, "parameters": 7} | more
    return Episodes(agent, seeds, prints, cost, np.array(total_usd), kpi, **fields)


IDLE = episodes("idle", [10.0, 20.0, 30.0, 40.0])
BEST = episodes("optimum", [5.0, 5.0, 5.0, 5.0], report={"bound_usd": np.array([5.0, 4.0, 5.0, 4.0])})
MINE = episodes("mine", [6.0, 14.0, 20.0, 44.0])


def test_columns_are_those_promised_and_in_their_order() -> None:
    (row,) = metrics.table([MINE], IDLE, BEST, PROBLEM)
    promised = [*PROMISED, *(f"cost_{term}_usd" for term in COST_TERMS)]
    assert metrics.table_columns(PROBLEM)[: len(promised)] == promised
    assert list(row) == metrics.table_columns(PROBLEM)
    assert "gap_share" in row


def test_a_row_by_hand() -> None:
    (row,) = metrics.table([MINE], IDLE, BEST, PROBLEM)
    assert (row["agent"], row["env"], row["episodes"]) == ("mine", "qevgrid/V2G-v0", 4)
    assert row["cost_usd_mean"] == row["cost_energy_usd"] == 21.0
    assert row["score"] == pytest.approx((100 - 84) / (100 - 20))
    assert row["score_lo"] < row["score"] < row["score_hi"]
    assert row["cost_usd_lo"] < 21.0 < row["cost_usd_hi"]
    assert row["unserved_critical_kwh_mean"] == 1.5  # quantity 0 of episodes 0 to 3
    assert row["cvar95_usd"] == 44.0
    assert (row["ms_per_decision"], row["parameters"]) == (1.5, 7)
    assert row["gap_share"] is None


def test_the_ruler_itself() -> None:
    idle, best = metrics.table([IDLE, BEST], IDLE, BEST, PROBLEM)
    assert (idle["score"], idle["score_lo"], idle["score_hi"]) == (0.0, 0.0, 0.0)
    assert (best["score"], best["score_lo"], best["score_hi"]) == (1.0, 1.0, 1.0)


def test_no_ruler_no_score() -> None:
    for idle, best in ((None, None), (IDLE, None), (None, BEST), (BEST, BEST)):
        (row,) = metrics.table([MINE], idle, best, PROBLEM)
        assert (row["score"], row["score_lo"], row["score_hi"]) == (None, None, None)
        assert row["cost_usd_mean"] == 21.0


def test_one_day_has_no_interval() -> None:
    (row,) = metrics.table([episodes("mine", [8.0])], episodes("idle", [10.0]), episodes("optimum", [5.0]), PROBLEM)
    assert row["score"] == pytest.approx(0.4)
    assert [row[key] for key in ("score_lo", "score_hi", "cost_usd_lo", "cost_usd_hi")] == [None] * 4


def test_outage_days_are_a_stratum() -> None:
    """With one value in each stratum every resample has the same mean."""
    dark = np.array([0.0, 0.0, 3.0, 3.0])
    (row,) = metrics.table([episodes("mine", [1.0, 1.0, 9.0, 9.0], stress=dark)], None, None, PROBLEM)
    assert row["cost_usd_lo"] == row["cost_usd_hi"] == 5.0


def test_intervals_are_the_same_every_time() -> None:
    assert metrics.table([MINE], IDLE, BEST, PROBLEM) == metrics.table([MINE], IDLE, BEST, PROBLEM)


def test_gap_share_by_hand() -> None:
    assert metrics.gap_share(BEST, IDLE) == pytest.approx(2.0 / 80.0)
    assert metrics.gap_share(MINE, IDLE) is None
    assert metrics.gap_share(BEST, None) is None
    assert metrics.gap_share(BEST, BEST) is None  # no room between them


def test_differences_by_hand() -> None:
    lower = episodes("lower", [5.0, 13.0, 19.0, 43.0])
    rows = metrics.differences([MINE, lower, IDLE], MINE, PROBLEM)
    assert [(row["agent"], row["against"]) for row in rows] == [("lower", "mine"), ("idle", "mine")]
    assert (rows[0]["usd"], rows[0]["lo"], rows[0]["hi"]) == pytest.approx((-1.0, -1.0, -1.0))
    assert rows[1]["usd"] == pytest.approx(4.0)
    assert rows[1]["lo"] < 4.0 < rows[1]["hi"]


def test_a_row_an_agent_and_episode() -> None:
    rows = metrics.episode_rows([MINE, BEST], PROBLEM)
    assert [(row["agent"], row["episode"]) for row in rows] == [(a, k) for a in ("mine", "optimum") for k in range(4)]
    row = rows[6]
    assert (row["seed"], row["fingerprint"], row["cost_usd"], row["env"]) == (1002, "world1002", 5.0, "qevgrid/V2G-v0")
    assert sum(row[f"cost_{term}_usd"] for term in COST_TERMS) == row["cost_usd"]
    assert [row[name] for name in KPIS] == [100.0 * k + 2 for k in range(len(KPIS))]
    assert row["bound_usd"] == 5.0
    assert "bound_usd" not in rows[0]


def test_tags_of_tensorboard() -> None:
    (row,) = metrics.table([MINE], IDLE, BEST, PROBLEM)
    found = metrics.scalars(row, MINE, PROBLEM)
    tags = {"eval/cost_usd", "eval/score", "eval/cvar95_usd", *(f"cost/{t}_usd" for t in COST_TERMS)}
    assert set(found) == tags | {f"kpi/{name}" for name in KPIS}
    assert found["eval/cost_usd"] == 21.0
    assert found[f"kpi/{KPIS[3]}"] == 301.5


@pytest.mark.parametrize("share", ["all", "some"])
def test_quantities_that_are_not_known_are_left_out(share: str) -> None:
    mine = episodes("mine", [6.0, 14.0, 20.0, 44.0])
    last = KPIS.index("v_min_pu")
    mine.kpi[:, last] = np.nan if share == "all" else [np.nan, 0.9, 0.8, np.nan]
    (row,) = metrics.table([mine], IDLE, BEST, PROBLEM)
    found = metrics.scalars(row, mine, PROBLEM)
    assert found.get("kpi/v_min_pu") == (None if share == "all" else pytest.approx(0.85))
    assert all(np.isfinite(value) for value in found.values())
