"""A policy that scores sites one by one with one small body, for the sequential form of Mobile CSP.

``MaskablePPO(ScorerPolicy, gym.make("qevgrid/MobileCSP-v0", form="sequential"))`` of sb3-contrib works as it is.
Swapping two sites swaps their scores, swapping two other units changes nothing, and parameters grow with neither: a
policy trained on 4 units runs with 20, and on other sites.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from qevgrid.agents.mobile_csp.features import SiteFeatures, site_entries, split
from qevgrid.agents.shared_policy import Extractor, mlp
from qevgrid.agents.vqc.optim import GroupAdam
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.kernel import N_GLOBAL, N_SITE, N_UNIT

EMBEDDING = 16


class Scorer(nn.Module):
    """(B, O) -> logits (B, D + K): a score a site, then one a power level of staying."""

    def __init__(self, features: SiteFeatures, body: nn.Module, width: int, n_levels: int) -> None:
        super().__init__()
        self.features, self.body = features, body
        self.head = nn.Linear(width, 1)
        self.levels = nn.Linear(width, n_levels) if n_levels else None
        for layer in (self.head, self.levels):
            if layer is not None:
                nn.init.orthogonal_(layer.weight, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, obs: Tensor) -> Tensor:
        """Logits of observations (B, O)."""
        return self.score(*self.features(obs))

    def score(self, x: Tensor, here: Tensor) -> Tensor:
        """Logits of features (B, D, F) of a unit that is ``here`` (B, D)."""
        latent = self.body(x.flatten(0, 1)).view(*x.shape[:2], -1)  # (B, D, width)
        scores = self.head(latent).squeeze(-1)
        if self.levels is None:
            return scores
        stays = (here.unsqueeze(-1) * latent).sum(1)
        return torch.cat([scores, self.levels(stays)], 1)


class PooledCritic(nn.Module):
    """(B, O) -> (B, width): sites and units embedded, then their means beside the globals."""

    def __init__(self, n_sites: int, hidden: Sequence[int], entries: int = N_SITE) -> None:
        super().__init__()
        self.n_sites = n_sites
        self.site = mlp([entries, EMBEDDING])
        self.unit = mlp([N_UNIT + entries, EMBEDDING])
        self.body = mlp([N_GLOBAL + 2 * EMBEDDING, *hidden])

    def forward(self, obs: Tensor) -> Tensor:
        """Features of the value head."""
        p = split(obs, self.n_sites)
        units = torch.cat([p.unit, p.at @ p.site], -1)  # a unit beside its site
        return self.body(torch.cat([p.known, self.site(p.site).mean(1), self.unit(units).mean(1)], 1))


class ScorerPolicy(MaskableActorCriticPolicy):
    """Actor-critic policy whose actor is a `Scorer`; one choice at a time, with masks.

    ``circuit``: a ``Circuit`` as its body instead of a network of ``hidden`` layers. ``features``: names out of
    ``features.EVERY``; None: all that the environment shows. ``n_levels``: power levels of ``power="levels"``, else 0.
    ``lr_scales``: learning rates of a circuit's input scales, of its angles and of its head over that of everything
    else.

    Raises ``UserError`` for another environment's spaces and for unknown features.
    """

    def __init__(
        self,
        *args: Any,
        circuit: Any = None,
        hidden: Sequence[int] = (32, 32),
        critic_hidden: Sequence[int] = (64, 64),
        features: Sequence[str] | None = None,
        n_levels: int = 0,
        uploads: int = 1,
        scale_init: float = 1.0,
        lr_scales: tuple[float, float, float] = (10.0, 10.0, 30.0),
        execution: Any = None,
        **kwargs: Any,
    ) -> None:
        self.own = {
            "circuit": circuit,
            "hidden": list(hidden),
            "critic_hidden": list(critic_hidden),
            "features": None if features is None else tuple(features),
            "n_levels": n_levels,
            "uploads": uploads,
            "scale_init": scale_init,
            "lr_scales": tuple(lr_scales),
            "execution": execution,
        }
        kwargs.setdefault("optimizer_class", GroupAdam)
        kwargs.setdefault("optimizer_kwargs", {"eps": 1e-5})
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.own

    @property
    def actor(self) -> Scorer:
        """What decides."""
        return self.mlp_extractor.actor  # type: ignore[return-value]

    def circuits(self) -> list[Any]:
        """The actor's circuit, if it is one."""
        return [self.actor.body] if self.own["circuit"] is not None else []

    def _body(self, n_features: int) -> tuple[nn.Module, int]:
        own = self.own
        if own["circuit"] is None:
            return mlp([n_features, *own["hidden"]]), (own["hidden"] or [n_features])[-1]
        from qevgrid.agents.vqc.executors import Execution
        from qevgrid.agents.vqc.layer import CircuitLayer

        execution = own["execution"] or Execution()
        layer = CircuitLayer(own["circuit"], n_features, execution, own["uploads"], own["scale_init"])
        return layer, layer.circuit.n_outputs

    def _build_mlp_extractor(self) -> None:
        n_sites, entries = check_spaces(self.observation_space, self.action_space, self.own["n_levels"])
        features = SiteFeatures(n_sites, self.own["features"], service=entries > N_SITE)
        body, width = self._body(len(features.names))
        actor = Scorer(features, body, width, self.own["n_levels"])
        sizes = self.own["critic_hidden"]
        n_choices = n_sites + self.own["n_levels"]
        critic = PooledCritic(n_sites, sizes, entries)
        self.mlp_extractor = Extractor(actor, critic, n_choices, sizes[-1])  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        ortho, self.ortho_init = self.ortho_init, False
        super()._build(lr_schedule)
        self.ortho_init = ortho
        self.action_net = nn.Identity()
        self.optimizer = self.optimizer_class(self.groups(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate: a circuit's input scales, its angles and its head, then the rest."""
        circuits = self.circuits()
        inputs = [p for layer in circuits for p in (layer.scale, layer.bias)]
        angles = [layer.weights for layer in circuits]
        layers = [m for m in (self.actor.head, self.actor.levels) if m is not None and circuits]
        heads = [p for layer in layers for p in layer.parameters()]
        named = {id(p) for p in [*inputs, *angles, *heads]}
        rest = [p for p in self.parameters() if id(p) not in named]
        scales = (*self.own["lr_scales"], 1.0)
        return [{"params": p, "lr_scale": s} for p, s in zip((inputs, angles, heads, rest), scales, strict=True) if p]


def check_spaces(obs: gym.Space[Any], act: gym.Space[Any], n_levels: int) -> tuple[int, int]:
    """D of these spaces, and the entries of a site."""
    if not isinstance(act, gym.spaces.Discrete) or not isinstance(obs, gym.spaces.Box) or len(obs.shape) != 1:
        raise UserError(
            f"ScorerPolicy chooses for one unit at a time, not in {act}; make the environment with form='sequential'"
        )
    n_sites = int(act.n) - n_levels
    return n_sites, site_entries(int(obs.shape[0]), n_sites)
