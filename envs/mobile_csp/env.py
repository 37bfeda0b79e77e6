"""``qevgrid/MobileCSP-v0``: after a storm, mobile batteries move over damaged roads to sites without power."""

from typing import Any

from gymnasium.vector import AutoresetMode

from qevgrid.envs.adapter import CoreEnv, CoreVectorEnv
from qevgrid.envs.errors import UserError
from qevgrid.envs.keywords import build
from qevgrid.envs.mobile_csp.core import MobileCore
from qevgrid.envs.mobile_csp.params import MobileCSPParams
from qevgrid.envs.mobile_csp.sequential import SequentialCore


class MobileCSPEnv(CoreEnv):
    """TODO."""

    core: MobileCore

    def __init__(
        self, params: MobileCSPParams | None = None, *, render_mode: str | None = None, **changes: Any
    ) -> None:
        super().__init__(make_core(params, changes), render_mode)

    @property
    def params(self) -> MobileCSPParams:
        """What this world was built from."""
        return self.core.params


class MobileCSPVectorEnv(CoreVectorEnv):
    """TODO."""

    core: MobileCore

    def __init__(
        self,
        num_envs: int = 1,
        params: MobileCSPParams | None = None,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        if render_mode is not None:
            raise UserError(
                f"render_mode={render_mode!r}: the vector environment draws nothing; render one "
                "episode with gymnasium.make"
            )
        super().__init__(make_core(params, changes), num_envs, autoreset_mode, copy)

    @property
    def params(self) -> MobileCSPParams:
        """What these worlds were built from."""
        return self.core.params


def make_core(params: MobileCSPParams | None, changes: dict[str, Any]) -> MobileCore:
    """The world of ``params`` with some keys changed."""
    if params is not None and "preset" in changes:
        raise UserError(f"preset={changes['preset']!r}: params already hold every key; give one or the other")
    built = build(MobileCSPParams, params, changes)
    return (SequentialCore if built.form == "sequential" else MobileCore)(built)
