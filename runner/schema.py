"""The configuration of a run: environment, agent, length, seed."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from qevgrid.agents.hybrid.config import HybridConfig
from qevgrid.agents.mobile_csp.config import MaskedPPOConfig
from qevgrid.agents.mobile_csp.hybrid_config import MobileHybridConfig
from qevgrid.agents.ppo_config import PPOConfig
from qevgrid.agents.vqc.config import VQCConfig
from qevgrid.envs.keywords import STRICT
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.problem import DEFAULT_ID
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.runner.config import members_of

EnvConfig = V2GParams | MobileCSPParams
"""One section a problem, told apart by ``id``."""
AgentConfig = PPOConfig | HybridConfig | VQCConfig | MaskedPPOConfig | MobileHybridConfig
"""One section a kind of learned agent, told apart by ``kind``."""


def by_id(sections: Any) -> Any:
    """Field of one of these sections, told apart by ``id``."""
    return (
        Field(discriminator="id") if len(members_of(sections)) > 1 else Field()
    )  # pydantic refuses it for a single one


def with_id(section: Any) -> Any:
    """The section with the default problem's ``id`` where it names none."""
    return {"id": DEFAULT_ID, **section} if isinstance(section, Mapping) and "id" not in section else section


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """One training run."""

    env: Annotated[EnvConfig, by_id(EnvConfig), BeforeValidator(with_id)] = V2GParams()
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
