"""Keys of the hybrid agent of Mobile CSP: what its action step solves and how its outlook is learned."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.agents.hybrid.config import Sampler
from qevgrid.envs.keywords import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MobileHybridConfig:
    """Plans, prices and chance propose routes, an annealer combines them; what is expected is corrected by learning."""

    kind: Literal["mobile_hybrid"] = "mobile_hybrid"
    sampler: Annotated[
        Sampler, Field(description="who combines the routes; structured is our annealer, greedy and idle are ablations")
    ] = "structured"
    reads: Annotated[int, Field(ge=1, le=10_000, description="samples drawn; the best one counts")] = 1
    sweeps: Annotated[int, Field(ge=1, le=1_000_000, description="annealing sweeps a read")] = 40
    rho: Annotated[
        float, Field(gt=0, description="curvature of the augmented Lagrangian, as a share of a kink's rise a unit")
    ] = 0.1
    time_limit_s: Annotated[float, Field(gt=0, description="of one action step, for qpu, leap_hybrid, highs, tabu")] = (
        5.0
    )
    dual_steps: Annotated[int, Field(ge=0, le=1000, description="steps of the ascent of shadow prices")] = 1
    rounds: Annotated[int, Field(ge=0, le=10_000, description="rounds of a few units answering at shaken prices")] = 0
    candidates: Annotated[int, Field(ge=2, le=500, description="most routes a unit")] = 40
    polish: Annotated[bool, Field(description="units answer the sample in turn by the exact route program")] = True
    levels: Annotated[
        int, Field(ge=8, le=500, description="steps of a battery's energy in plans; more are finer and slower")
    ] = 48
    scenarios: Annotated[
        int,
        Field(
            ge=0, le=200, description="worlds that may come true against which plans are judged; 0: the expected one"
        ),
    ] = 0
    cvar_weight: Annotated[
        float, Field(ge=0, le=1, description="weight of the CVaR over these worlds beside their mean cost")
    ] = 0.0
    cvar_share: Annotated[float, Field(gt=0, le=1, description="share of the worst worlds that the CVaR averages")] = (
        0.25
    )
    outlook: Annotated[bool, Field(description="correct what is expected as learned; false: an ablation")] = True
    storms: Annotated[int, Field(ge=10, description="training storms from which restoration times are learned")] = 300
    population: Annotated[int, Field(ge=4, le=100, description="settings tried in a round of the search")] = 8
    batch: Annotated[int, Field(ge=2, le=1000, description="storms that each of them plays")] = 32
