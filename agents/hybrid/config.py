"""Keys of the hybrid agent: what its action step solves and how its critic is trained."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.envs.keywords import STRICT

Sampler = Literal[
    "structured",
    "neal",
    "sqa",
    "tabu",
    "exact",
    "highs",
    "qaoa",
    "mock_qpu",
    "qpu",
    "leap_hybrid",
    "prices",
    "greedy",
    "idle",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class HybridConfig:
    """A learned critic prices stored energy, an annealer decides."""

    kind: Literal["hybrid"] = "hybrid"
    sampler: Annotated[
        Sampler,
        Field(
            description="who solves the action step; structured is our classical annealer, prices, greedy and idle are ablations"
        ),
    ] = "structured"
    horizon: Annotated[int, Field(ge=1, le=16, description="stages that one action step decides together")] = 1
    levels: Annotated[int, Field(ge=3, le=9, description="power levels a charger, discharge to charge (odd)")] = 5
    candidates: Annotated[int, Field(ge=2, le=40, description="plans a vehicle where horizon > 1")] = 6
    reads: Annotated[int, Field(ge=1, le=10_000, description="samples drawn; the best one counts")] = 2
    sweeps: Annotated[int, Field(ge=1, le=1_000_000, description="annealing sweeps a read")] = 60
    rho: Annotated[
        float, Field(gt=0, description="curvature of the augmented Lagrangian, as a share of a kink's rise a unit")
    ] = 0.1
    polish: Annotated[bool, Field(description="let each unit improve on the sample in turn")] = True
    time_limit_s: Annotated[float, Field(gt=0, description="of one action step, for qpu, leap_hybrid, highs, tabu")] = (
        5.0
    )
    critic: Annotated[bool, Field(description="value what is stored at the end of the step; false: an ablation")] = True
    days: Annotated[int, Field(ge=1, description="training days of stages 1 and 2, each")] = 240
    stages_per_day: Annotated[int, Field(ge=1, description="linear programs solved a training day")] = 8
    hidden: Annotated[int, Field(ge=2, description="width of the critic's two hidden layers")] = 32
    critic_lr: Annotated[float, Field(gt=0, le=1)] = 3e-3
    critic_epochs: Annotated[int, Field(ge=1)] = 60
    lr: Annotated[float, Field(gt=0, le=1, description="learning rate of stage 3 (PPO)")] = 3e-4
    lr_end_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    n_envs: Annotated[int, Field(ge=1, description="episodes side by side in stage 3")] = 16
    n_steps: Annotated[int, Field(ge=2, description="stages of each between updates")] = 96
    batch_size: Annotated[int, Field(ge=2)] = 256
    n_epochs: Annotated[int, Field(ge=1)] = 4
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_range: Annotated[float, Field(gt=0, le=1)] = 0.2
    ent_coef: Annotated[float, Field(ge=0)] = 0.0
    vf_coef: Annotated[float, Field(ge=0)] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    log_std_init: Annotated[float, Field(ge=-5, le=1)] = -1.6
    threads: Annotated[int, Field(ge=1, description="threads of torch and processes of the linear programs")] = 2
