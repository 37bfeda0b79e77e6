"""Keys of masked PPO on Mobile CSP, apart from its code: reading a configuration loads no torch."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.agents.ppo_config import RoundKeys
from qevgrid.agents.vqc.config import CircuitKeys, Rate
from qevgrid.envs.keywords import STRICT

Hidden = tuple[Annotated[int, Field(ge=1)], ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MaskedPPOConfig(CircuitKeys, RoundKeys):
    """PPO that scores sites, one idle unit after another; keys of the circuit count if ``body`` is one."""

    lr: Annotated[float, Field(gt=0, le=1, description="learning rate")] = 1.5e-3
    lr_end_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    n_envs: Annotated[int, Field(ge=1, description="episodes side by side")] = 64
    n_steps: Annotated[int, Field(ge=2, description="choices of each between updates")] = 128
    batch_size: Annotated[int, Field(ge=2)] = 1024
    n_epochs: Annotated[int, Field(ge=1)] = 4
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.98
    ent_coef: Annotated[float, Field(ge=0)] = 0.0
    vf_coef: Annotated[float, Field(ge=0)] = 0.02
    qubits: Annotated[int, Field(ge=1, le=24)] = 4
    layers: Annotated[int, Field(ge=1, le=50)] = 2
    uploads: Annotated[int, Field(ge=1, le=64, description="features that add up to one data angle")] = 8
    lr_inputs: Annotated[Rate, Field(description="learning rate of input scales over lr")] = 5.0
    lr_angles: Annotated[Rate, Field(description="of the circuit's angles over lr")] = 5.0
    lr_head: Annotated[Rate, Field(description="of the linear head over lr")] = 10.0
    threads: Annotated[int, Field(ge=1, description="threads of torch")] = 1
    kind: Literal["masked_ppo"] = "masked_ppo"
    body: Annotated[
        Literal["mlp", "circuit"], Field(description="what scores a site: a small network, or a variational circuit")
    ] = "mlp"
    hidden: Annotated[Hidden, Field(description="hidden layers of the network")] = (32, 32)
    critic_hidden: Annotated[Hidden, Field(min_length=1)] = (64, 64)
    features: Annotated[
        tuple[str, ...] | None, Field(min_length=1, description="what is read of a site, by name; null: all")
    ] = None
    warm_start: Annotated[
        str | None, Field(description="rival whose example gives the first weights; null: from noise")
    ] = "rolling"
    warm_storms: Annotated[int, Field(ge=2, description="storms of that example")] = 128
    warm_rounds: Annotated[
        int, Field(ge=1, description="parts of them; the rival plays the first, the learner the others")
    ] = 4
    warm_epochs: Annotated[int, Field(ge=1, description="passes over all examples so far after each part")] = 10
    warm_lr: Annotated[float, Field(gt=0, le=1, description="learning rate of that imitation")] = 4e-3
