"""The hybrid agent: routes are proposed by plans, prices and chance; an annealer combines them, the kernel judges."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents.base import Agent
from qevgrid.agents.hybrid.anneal import anneal
from qevgrid.agents.hybrid.dual import Dual
from qevgrid.agents.hybrid.problem import AggregateQUBO
from qevgrid.agents.hybrid.samplers import DecisionSampler, Direct, make_sampler
from qevgrid.agents.mobile_csp.candidates import Search, ascend
from qevgrid.agents.mobile_csp.decision import decide, resources
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.mobile_csp.outlook import Outlook
from qevgrid.agents.mobile_csp.planning import Rolling, beliefs_of, placed, planner_of
from qevgrid.agents.mobile_csp.simple import stay
from qevgrid.agents.mobile_csp.stochastic import Beliefs, chosen
from qevgrid.envs.mobile_csp.arrays import Action
from qevgrid.envs.mobile_csp.core import View
from qevgrid.envs.mobile_csp.respond import Joint, at_rest
from qevgrid.envs.mobile_csp.search import Plan, Planner, copy
from qevgrid.envs.types import Float32Array, FloatArray, IntArray

SHIPPED = Path(__file__).with_name("outlook.npz")
"""For base storms, as ``configs/mobile_csp_hybrid.yaml`` trains it."""
HOT_SHARE, COLD_SHARE = 0.2, 0.01
"""First temperature over a typical rise, last over first."""
FRESH, FIRST = 1, 4
"""Rounds of the fresh plan that every decision begins with; and of the first, which has no other beside it."""


@dataclass(frozen=True)
class Step:
    """What one decision did, as recorded under ``qubo/``. USD against the rolling plan; below 0 is better."""

    variables: float
    couplers: float
    range_bits: float
    feasible_share: float
    proposed_usd: float  # best plan among those that proposed routes
    raw_usd: float  # best valid read by the problem's own objective (inf: none)
    repaired_usd: float  # best read, decoded and played in the step kernel
    polished_usd: float  # after the units' answers
    decided_usd: float  # best of all, never above 0 without scenarios
    annealed: float  # 1 if it came from the sampler
    bound_usd: float  # proven for plans on whole energy levels
    chain_break_share: float
    fallbacks: float
    seconds: float  # of the sampler


QUBO = tuple(f"qubo/{field.name}" for field in fields(Step))


def sampler_of(c: MobileHybridConfig) -> DecisionSampler:
    """By name; ours from the reference plan, as hot as single changes of it are dear."""
    if c.sampler != "structured":
        return make_sampler(c.sampler, reads=c.reads, sweeps=c.sweeps, time_limit_s=c.time_limit_s, rho=c.rho)

    def find(problem: AggregateQUBO, seed: int, dual: Dual | None) -> IntArray:
        hot = HOT_SHARE * typical_rise(problem)
        return anneal(problem, reads=c.reads, sweeps=c.sweeps, seed=seed, hot_usd=hot, cold_usd=COLD_SHARE * hot)[0]

    return Direct("structured (simulated annealing)", find)


def typical_rise(problem: AggregateQUBO) -> float:
    """Median of what single changes of the reference plan make it dearer by, USD; at least 1."""
    reference = problem.first[:-1]
    usage = problem.use[reference].sum(0)
    change = problem.use - problem.use[reference][problem.unit]
    own = problem.cost_usd - problem.cost_usd[reference][problem.unit]
    rise = own + problem.pieces(usage + change) - float(problem.pieces(usage))
    return float(np.median(rise[rise > 0])) if (rise > 0).any() else 1.0


class Decider:
    """Decides for one episode and period at a time."""

    def __init__(self, config: MobileHybridConfig, sampler: DecisionSampler | None = None) -> None:
        c = config
        self.config = config
        self.sampler = sampler or sampler_of(c)

    def __reduce__(self) -> tuple[Any, ...]:
        return Decider, (self.config,)

    def decide(
        self, planner: Planner, last: Joint | None, weight: FloatArray, beliefs: Beliefs | None = None
    ) -> tuple[Plan, Step]:
        """The plan to follow; ``last``: the routes of the period before; ``weight`` (T,) of needs.

        With ``beliefs`` their worlds propose routes as well, and judge the plans.
        """
        c, p = self.config, planner.problem
        weight = np.repeat(weight[:, None], p.world.need_kw.shape[1], 1)
        search = Search(planner, weight, np.random.default_rng([p.stage, len(p.start.site)]))
        plans = [search.answered(at_rest(p), FIRST if last is None else FRESH)]
        plans += [] if last is None else [search.answered(copy(last), 1)]
        rolling = search.best(plans)
        known, met = search.around(rolling, c.rounds)
        others = [] if beliefs is None else [planner.judge(joint) for joint in beliefs.proposals(p)]
        found = resources(p, weight)
        priced = ascend(planner, found, rolling.joint, search.value(rolling), c.dual_steps)
        proposers = (plan.joint for plan in (*plans, *others))
        joints = [known.joint, *proposers, *reversed(met), *reversed(priced.joints)]
        decision = decide(p, found, joints, c.candidates)
        sampled = self.sampler.solve(decision.problem, p.stage)
        new = bool(sampled.choice.any())  # else it is the best known plan, which has been judged and answered
        repaired = planner.judge(decision.joint(sampled.choice)) if new else known
        polished = search.answered(copy(repaired.joint), 1) if new and c.polish else repaired
        decided = chosen([rolling, known, repaired, polished, *others], beliefs, search.value)
        base = search.value(rolling)
        usd = [search.value(plan) - base for plan in (known, repaired, polished, decided)]
        return decided, Step(
            sampled.variables, sampled.couplers, sampled.range_bits, sampled.feasible_share, usd[0],
            sampled.valid_energy_usd - base, usd[1], usd[2], usd[3], float(usd[3] < min(usd[0], 0.0)),
            priced.bound_usd - base, sampled.chain_break_share, sampled.fallbacks, sampled.seconds,
        )  # fmt: skip


class MobileHybridAgent(Agent):
    """Plans anew in each period. Same settings, same bytes (a machine's answers aside)."""

    slow = True

    def __init__(
        self, outlook: Outlook | None = None, config: MobileHybridConfig | None = None, name: str = "hybrid"
    ) -> None:
        self.name, self.config = name, config or MobileHybridConfig()
        self.outlook = outlook if self.config.outlook else None
        self.parameters = 0 if self.outlook is None else self.outlook.parameters
        self.decider = Decider(self.config)
        self.share = Rolling()._share
        self.last: dict[int, Joint] = {}
        self.steps: list[list[Step]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return MobileHybridAgent, (self.outlook, self.config, self.name)

    def begin(self, info: dict[str, Any]) -> None:
        """Forget the plans and records of other episodes."""
        self.last, self.steps = {}, [[] for _ in info["view"].stage]

    def act(self, obs: Float32Array | None, info: dict[str, Any]) -> Action:  # type: ignore[override]
        """First period of the plan of every episode."""
        view: View = info["view"]
        if len(self.steps) != len(view.stage):
            self.begin(info)
        c, action, world = self.config, stay(view), view.forecast(self.outlook)
        for b, stage in enumerate(view.stage):
            t = int(stage)
            if t < 0:
                action.site[b] = placed(view, world, b).problem.start.site
            elif t < view.plant.n_periods:
                weight = np.ones(view.plant.n_periods) if self.outlook is None else self.outlook.weight(view.plant, t)
                beliefs = beliefs_of(view, b, c.scenarios, c.cvar_weight, c.cvar_share, self.outlook)
                planner = planner_of(view, world, b, levels=c.levels)
                plan, step = self.decider.decide(planner, self.last.get(b), weight, beliefs)
                self.last[b] = plan.joint
                self.steps[b].append(step)
                action.site[b], action.share[b] = plan.site[t], self.share(plan, t)
        return action

    def report(self) -> dict[str, FloatArray]:
        """Means over each episode's decisions (``fallbacks``: sums), (B,) each."""
        return {name: np.array([_mean(steps, name.partition("/")[2]) for steps in self.steps]) for name in QUBO}

    @classmethod
    def load(cls, path: Path, name: str, core: Any, config: MobileHybridConfig | None = None) -> "MobileHybridAgent":
        """The agent whose outlook was saved at ``path``; ``config`` says who combines its routes."""
        return cls(Outlook.load(path), config, name)


def _mean(steps: list[Step], name: str) -> float:
    """Mean of the finite values; a sum where counts are kept."""
    values = np.array([getattr(step, name) for step in steps] or [0.0], float)
    if name == "fallbacks":
        return float(values.sum())
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def hybrid(config: MobileHybridConfig | None = None) -> MobileHybridAgent:
    """``hybrid`` by name, with the outlook that the package ships for the base storms."""
    return MobileHybridAgent(Outlook.load(SHIPPED), config)
