"""Who plays in ``mobile_csp_study.py``, in which worlds, and how a storm is played and timed."""

import dataclasses
import functools
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qevgrid.agents import is_rival, make_rival
from qevgrid.agents.base import Agent
from qevgrid.agents.mobile_csp.hybrid import MobileHybridAgent
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.mobile_csp.planning import Optimum, Rolling
from qevgrid.agents.mobile_csp.rolling_milp import RollingMILP
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.runner.parallel import Player
from qevgrid.runner.rollout import begin, play

ID = "qevgrid/MobileCSP-v0"
WARM_SEED = 910_000
"""A storm that nobody reports: playing it compiles."""
SCENARIOS, CVAR_WEIGHT = 8, 0.5
WHO = {
    "idle": "units stay at the staging area",
    "random": "trips to any site, now and then",
    "static": "to sites chosen beforehand, and stays",
    "greedy": "rule: most value lost for each hour of the way",
    "tuned": "the same rule with tuned numbers",
    "rolling": "dynamic programs on estimates, anew in each period",
    "rolling_scenarios": f"rolling, judged by the mean over {SCENARIOS} worlds",
    "rolling_scenarios_cvar": f"the same by mean and CVaR, {CVAR_WEIGHT:g} each",
    "rolling_milp": "mixed-integer program of 12 periods by HiGHS, gap 2 %, 10 s, from nothing",
    "optimum": "hindsight: the best plan found by search, not proven",
}
"""What the tables say of rivals; of the hybrid agents and run folders they say what is inside."""


def world(preset: str, n_units: int) -> MobileCSPParams:
    """The preset with another fleet; the first site has a slot and full power for every unit."""
    base = MobileCSPParams(preset=preset)  # type: ignore[arg-type]
    first, *others = base.sites
    slots = max(first.slots, n_units)
    room = dataclasses.replace(first, slots=slots, connection_kw=max(first.connection_kw, base.unit.power_kw * slots))
    return MobileCSPParams(preset=preset, n_units=n_units, sites=(room, *others))  # type: ignore[arg-type]


def scenario_rolling(name: str, cvar_weight: float) -> Rolling:
    """``rolling`` against scenarios."""
    return Rolling(name, scenarios=SCENARIOS, cvar_weight=cvar_weight)


def scenario_hybrid(name: str, cvar_weight: float) -> Agent:
    """``hybrid`` against scenarios."""
    agent = make_rival("hybrid", MobileHybridConfig(scenarios=SCENARIOS, cvar_weight=cvar_weight), ID)
    agent.name = name
    return agent


VARIANTS = {
    "rolling_scenarios": ("rolling", functools.partial(scenario_rolling, "rolling_scenarios", 0.0)),
    "rolling_scenarios_cvar": ("rolling", functools.partial(scenario_rolling, "rolling_scenarios_cvar", CVAR_WEIGHT)),
    "hybrid_scenarios": ("hybrid", functools.partial(scenario_hybrid, "hybrid_scenarios", 0.0)),
    "hybrid_scenarios_cvar": ("hybrid", functools.partial(scenario_hybrid, "hybrid_scenarios_cvar", CVAR_WEIGHT)),
}
"""The scenario set: name -> the agent without scenarios, and what makes it."""


@dataclass(frozen=True)
class Seat:
    """An agent in a world, in words that another process understands."""

    name: str
    """Of a rival, a variant, or the path of a run folder."""
    preset: str
    n_units: int
    rounds: int
    """Of the optimum's search."""

    @property
    def is_run(self) -> bool:
        """Whether a run folder plays."""
        return self.name not in VARIANTS and not is_rival(self.name, ID)

    @property
    def label(self) -> str:
        """In tables and as the name of a file."""
        return Path(self.name).resolve().name if self.is_run else self.name

    def agent(self, core: MobileCore) -> Agent:
        """``UserError`` for who is not known or does not fit."""
        if self.name in VARIANTS:
            return VARIANTS[self.name][1]()
        if self.name == "optimum":
            return Optimum(self.rounds, bound_iterations=0)
        return Player(self.label, Path(self.name) if self.is_run else None).agent(core)


def who(seat: Seat, agent: Agent) -> str:
    """What an agent is, for the table."""
    if isinstance(agent, MobileHybridAgent):
        c = agent.config
        risk = f", {c.scenarios} worlds, CVaR weight {c.cvar_weight:g}" if c.scenarios else ""
        learned = f"learned outlook ({agent.parameters} numbers)" if agent.parameters else "estimates"
        combines = "simulated annealing (ours, on the CPU)" if c.sampler == "structured" else f"sampler={c.sampler}"
        return f"{learned}; plans, prices and chance propose routes, combined by {combines}{risk}"
    if seat.is_run:
        return f"run folder, {agent.parameters:,} parameters"
    return WHO.get(seat.name, "rival")


def settings(seat: Seat, agent: Agent) -> str:
    """What makes results comparable, as far as it is not code: kept results of other settings are played anew."""
    if seat.is_run:
        return hashlib.sha256((Path(seat.name) / "model.zip").read_bytes()).hexdigest()[:16]
    if isinstance(agent, MobileHybridAgent):
        learned = b"" if agent.outlook is None else agent.outlook.coefficient.tobytes()
        numbers = () if agent.outlook is None else (agent.outlook.shift, agent.outlook.fade_h)
        return f"{agent.config} {numbers} {hashlib.sha256(learned).hexdigest()[:16]}"
    return f"{agent.iterations} rounds" if isinstance(agent, Optimum) else ""


class Timed(Agent):
    """An agent and the CPU time of this process in it."""

    slow = True  # it is timed here, not by the runner

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name, self.parameters = agent, agent.name, agent.parameters
        self.needs_scenario = agent.needs_scenario
        self.seconds, self.decisions = 0.0, 0

    def begin(self, info: dict[str, Any]) -> None:
        """Where the optimum plans."""
        start = time.process_time()
        self.agent.begin(info)
        self.seconds = time.process_time() - start
        self.decisions = 0

    def act(self, obs: Any, info: dict[str, Any]) -> Any:
        """One decision."""
        start = time.process_time()
        action = self.agent.act(obs, info)
        self.seconds += time.process_time() - start
        self.decisions += 1
        return action

    def report(self) -> dict[str, Any]:
        """The agent's."""
        return self.agent.report()


@functools.lru_cache(maxsize=64)
def seated(seat: Seat) -> tuple[MobileCore, Timed]:
    """Core and agent of a seat, compiled."""
    core = MobileCore(world(seat.preset, seat.n_units))
    agent = Timed(seat.agent(core))
    warm(core, dataclasses.replace(seat, rounds=1).agent(core))
    return core, agent


def warm(core: MobileCore, agent: Agent) -> None:
    """A storm that does not count, so that nobody is timed while compiling; of the program one decision."""
    if isinstance(agent, RollingMILP):
        agent.act(None, {"view": begin(core, [WARM_SEED]).view()})  # type: ignore[arg-type]
    else:
        play(core, Timed(agent), [WARM_SEED])


def play_storm(task: tuple[Seat, int]) -> dict[str, Any]:
    """One storm alone, as in a control room: its cost, how hard it is, CPU ms a decision."""
    seat, seed = task
    core, agent = seated(seat)
    found = play(core, agent, [seed])
    report = {key: float(values[0]) for key, values in found.report.items() if np.isfinite(values[0])}
    return {
        "usd": float(found.total_usd[0]),
        "need_mwh": float(found.stress[0]),
        "fingerprint": found.fingerprints[0],
        "cpu_ms": 1e3 * agent.seconds / agent.decisions,
        "report": report,
    }
