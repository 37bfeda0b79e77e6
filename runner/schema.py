"""The configuration of a run: environment, agent, length, seed."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.agents.vqc.config import VQCConfig
from qevgrid.envs.v2g.params import STRICT, V2GParams

AgentConfig = PPOConfig | HybridConfig | VQCConfig
"""One section a kind of learned agent, told apart by ``kind``."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One training run."""

    env: V2GParams = V2GParams()
    agent: Annotated[
        AgentConfig, Field(discriminator="kind", description="what learns; kind says which keys it has")
    ] = PPOConfig()
    total_steps: Annotated[int, Field(ge=1, description="environment steps of the whole training")] = 2_000_000
    seed: Annotated[int, Field(ge=0, lt=2**19, description="of weights, exploration and training days")] = 0
    eval_every: Annotated[int, Field(ge=1, description="environment steps between two validations")] = 200_000
    eval_episodes: Annotated[int, Field(ge=1, description="validation days; the best weights on them are kept")] = 64
    ruler: Annotated[
        bool, Field(description="show rivals and optimum on the same validation days beside the learner")
    ] = True
