"""Keys of PPO, apart from its code: reading a configuration loads no torch."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.envs.keywords import STRICT

Hidden = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RoundKeys:
    """How PPO learns, whatever its policy and its world are. The learning rate falls linearly to ``lr_end_share`` of its start."""

    lr: Annotated[float, Field(gt=0, le=1, description="learning rate")] = 6e-4
    lr_end_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    n_envs: Annotated[int, Field(ge=1, description="episodes side by side")] = 128
    n_steps: Annotated[int, Field(ge=2, description="stages of each between updates")] = 96
    batch_size: Annotated[int, Field(ge=2)] = 2048
    n_epochs: Annotated[int, Field(ge=1)] = 4
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.999
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    clip_range: Annotated[float, Field(gt=0, le=1)] = 0.2
    ent_coef: Annotated[float, Field(ge=0)] = 0.0
    vf_coef: Annotated[float, Field(ge=0)] = 0.5
    max_grad_norm: Annotated[float, Field(gt=0)] = 0.5
    threads: Annotated[int, Field(ge=1, description="threads of torch")] = 2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PPOKeys(RoundKeys):
    """What PPO in V2G needs besides."""

    log_std_init: Annotated[float, Field(ge=-5, le=1, description="log of the first exploration noise")] = -1.2
    shaping_usd_kwh: Annotated[
        float | None, Field(ge=0, description="worth of stored energy in the learner's shaped reward; null: no shaping")
    ] = 0.2
    warm_start: Annotated[
        str | None, Field(description="rival whose example gives the first weights (Box actions); null: from noise")
    ] = "tou"
    warm_days: Annotated[int, Field(ge=2, description="days of that example")] = 768
    warm_epochs: Annotated[int, Field(ge=1)] = 10
    warm_lr: Annotated[float, Field(gt=0, le=1, description="learning rate of that imitation")] = 1e-3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PPOConfig(PPOKeys):
    """Classical PPO."""

    kind: Literal["ppo"] = "ppo"
    policy: Annotated[
        Literal["shared", "mlp"], Field(description="one network for every socket, or one for the whole fleet")
    ] = "shared"
    actor: Annotated[Hidden, Field(description="hidden layers of the actor")] = (32, 32)
    critic: Annotated[Hidden, Field(description="hidden layers of the critic")] = (64, 64)
