"""Electric vehicles and power grids as Gymnasium environments. Importing registers them."""

import gymnasium

__version__ = "0.1.0"

_PROBLEMS = {
    "qevgrid/V2G-v0": "qevgrid.envs.v2g.env:V2G",
    "qevgrid/MobileCSP-v0": "qevgrid.envs.mobile_csp.env:MobileCSP",
}


def _register() -> None:
    """Once: a second import of this file must not disturb the registry."""
    for name, prefix in _PROBLEMS.items():
        if name not in gymnasium.registry:
            gymnasium.register(id=name, entry_point=f"{prefix}Env", vector_entry_point=f"{prefix}VectorEnv")


_register()
