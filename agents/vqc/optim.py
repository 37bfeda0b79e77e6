"""Adam with a learning rate a group that survives Stable-Baselines3, which writes one rate into every group."""

from collections.abc import Callable
from typing import Any

import torch


class GroupAdam(torch.optim.Adam):
    """Adam whose groups carry ``lr_scale``: a step uses ``lr * lr_scale``, ``lr`` itself stays as it was set."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update."""
        base = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        try:
            return super().step(closure)
        finally:
            for group, lr in zip(self.param_groups, base, strict=True):
                group["lr"] = lr
