"""SB3's actor-critic policy with a variational circuit, or its classical twin, as the actor.

``PPO(VQCPolicy, env, policy_kwargs={"circuit": Circuit(4, 3)})`` works for any flat Box observation and
Discrete, MultiDiscrete or Box actions: one circuit reads the observation. With ``n_units`` one small circuit is
shared by all vehicles (or any other units): it reads a unit's features beside the shared ones and emits that
unit's action, so parameters do not grow with their number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from qevgrid.agents.shared_policy import Extractor, FleetCritic, mlp
from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.agents.vqc.executors import Execution
from qevgrid.agents.vqc.layer import CircuitLayer
from qevgrid.agents.vqc.optim import GroupAdam
from qevgrid.envs.errors import UserError

LARGE = 1e6
"""Bounds beyond this one are no scale."""


@dataclass(frozen=True)
class Units:
    """How an observation is laid out: shared entries first, then ``width`` entries a unit."""

    width: int
    shared: tuple[int, ...]
    """Positions of the shared entries that the actor reads."""
    own: tuple[int, ...]
    """Positions, among a unit's entries, of those that the actor reads."""


class Reader(nn.Module):
    """Observations (B, O) to bounded features: (B, F), or (B, N, F) with units."""

    middle: Tensor
    reach: Tensor
    bounded: Tensor
    shared: Tensor
    own: Tensor

    def __init__(self, space: gym.spaces.Box, units: Units | None, n_units: int) -> None:
        super().__init__()
        self.units, self.n_units = units, n_units
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        self.scaled = not (np.allclose(low, -1) and np.allclose(high, 1))
        bounded = np.isfinite(low) & np.isfinite(high) & (np.maximum(np.abs(low), np.abs(high)) < LARGE)
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        middle, reach = (low + high) / 2, np.maximum((high - low) / 2, 1e-9)
        for name, values in (("middle", middle), ("reach", reach), ("bounded", bounded.astype(float))):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)
        self.n_features = int(space.shape[0]) if units is None else len(units.shared) + len(units.own)
        if units is not None:
            self.register_buffer("shared", torch.tensor(units.shared, dtype=torch.int64), persistent=False)
            self.register_buffer("own", torch.tensor(units.own, dtype=torch.int64), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        """Features in [-1, 1]: bounded entries by their bounds, others by arctan."""
        if self.scaled:
            scaled = (obs - self.middle) / self.reach
            obs = torch.where(self.bounded > 0, scaled.clamp(-1, 1), torch.atan(scaled) * (2 / np.pi))
        if self.units is None:
            return obs
        first = obs.shape[1] - self.n_units * self.units.width
        own = obs[:, first:].unflatten(1, (self.n_units, self.units.width))[..., self.own]
        shared = obs[:, self.shared].unsqueeze(1).expand(-1, self.n_units, -1)
        return torch.cat([shared, own], -1)


class Actor(nn.Module):
    """Features to action parameters (B, A): a body (circuit or network) and a linear head, a unit or the whole."""

    def __init__(self, reader: Reader, body: nn.Module, width: int, n_actions: int) -> None:
        super().__init__()
        self.reader, self.body = reader, body
        self.head = nn.Linear(width, n_actions)
        nn.init.orthogonal_(self.head.weight, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, obs: Tensor) -> Tensor:
        """(B, A) for observations (B, O)."""
        x = self.reader(obs)
        return self.head(self.body(x.reshape(-1, x.shape[-1]))).view(len(obs), -1)


class CircuitCritic(nn.Module):
    """Features of the value head: expectation values of a circuit, their mean over the units."""

    def __init__(self, reader: Reader, body: CircuitLayer) -> None:
        super().__init__()
        self.reader, self.body = reader, body

    def forward(self, obs: Tensor) -> Tensor:
        """(B, R) for observations (B, O)."""
        x = self.reader(obs)
        return self.body(x.reshape(-1, x.shape[-1])).view(len(obs), -1, self.body.circuit.n_outputs).mean(1)


class VQCPolicy(ActorCriticPolicy):
    """Actor-critic policy whose actor is ``circuit``, or with ``hidden`` a network on the same features.

    ``lr_scales``: learning rates of input scales, circuit angles and heads over that of everything else.
    ``critic`` is "mlp" (``critic_hidden``) or "circuit". Raises ``UserError`` for an observation that the encoding
    cannot hold and for action spaces that it does not know.
    """

    def __init__(
        self,
        *args: Any,
        circuit: Circuit | None = None,
        hidden: Sequence[int] | None = None,
        units: Units | None = None,
        uploads: int = 1,
        scale_init: float = 1.0,
        critic: str = "mlp",
        critic_hidden: Sequence[int] = (64, 64),
        lr_scales: tuple[float, float, float] = (10.0, 10.0, 30.0),
        execution: Execution | None = None,
        **kwargs: Any,
    ) -> None:
        self.own = {
            "circuit": circuit or Circuit(4, 3),
            "hidden": None if hidden is None else list(hidden),
            "units": units,
            "uploads": uploads,
            "scale_init": scale_init,
            "critic": critic,
            "critic_hidden": list(critic_hidden),
            "lr_scales": tuple(lr_scales),
            "execution": execution or Execution(),
        }
        kwargs.setdefault("optimizer_class", GroupAdam)
        kwargs.setdefault("optimizer_kwargs", {"eps": 1e-5})
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.own

    @property
    def actor(self) -> Actor:
        """What decides."""
        return self.mlp_extractor.actor  # type: ignore[return-value]

    def circuits(self) -> list[CircuitLayer]:
        """Every circuit: the actor's first, then the critic's."""
        return [m for m in self.modules() if isinstance(m, CircuitLayer)]

    def _body(self, n_features: int) -> tuple[nn.Module, int]:
        if self.own["hidden"] is not None:
            sizes = self.own["hidden"]
            return mlp([n_features, *sizes]), (sizes or [n_features])[-1]
        layer = self._circuit(n_features)
        return layer, layer.circuit.n_outputs

    def _circuit(self, n_features: int) -> CircuitLayer:
        own = self.own
        return CircuitLayer(own["circuit"], n_features, own["execution"], own["uploads"], own["scale_init"])

    def _build_mlp_extractor(self) -> None:
        space, units = self.observation_space, self.own["units"]
        if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
            raise UserError(f"VQCPolicy reads a flat Box, not {space}; wrap it in FlattenObservation")
        n_actions = _n_actions(self.action_space)
        n_units = 1 if units is None else int(self.action_space.shape[0])  # type: ignore[index]
        reader = Reader(space, units, n_units)
        actor = Actor(reader, *self._body(reader.n_features), n_actions // n_units)
        if self.own["critic"] == "circuit":
            critic: nn.Module = CircuitCritic(reader, self._circuit(reader.n_features))
            width = self.own["circuit"].n_outputs
        else:
            sizes = self.own["critic_hidden"]
            if units is None:
                critic, width = mlp([self.features_dim, *sizes]), sizes[-1]
            else:
                known = self.features_dim - n_units * units.width
                critic, width = FleetCritic(known, units.width, sizes), sizes[-1]
        self.mlp_extractor = Extractor(actor, critic, n_actions, width)  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        ortho, self.ortho_init = self.ortho_init, False
        super()._build(lr_schedule)
        self.ortho_init = ortho
        self.action_net = nn.Identity()
        if isinstance(self.action_dist, DiagGaussianDistribution):
            size = 1 if self.own["units"] is not None else int(np.prod(self.action_space.shape or ()))
            self.log_std = nn.Parameter(torch.full((size,), float(self.log_std_init)))
        self.optimizer = self.optimizer_class(self.groups(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate: input scales, angles, heads, the rest."""
        circuits = self.circuits()
        inputs = [p for layer in circuits for p in (layer.scale, layer.bias)]
        angles = [layer.weights for layer in circuits]
        heads = list(self.actor.head.parameters())
        if self.own["critic"] == "circuit":
            heads += list(self.value_net.parameters())
        named = {id(p) for p in [*inputs, *angles, *heads]}
        rest = [p for p in self.parameters() if id(p) not in named]
        scales = (*self.own["lr_scales"], 1.0)
        return [{"params": p, "lr_scale": s} for p, s in zip((inputs, angles, heads, rest), scales, strict=True) if p]

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        if isinstance(self.action_dist, DiagGaussianDistribution):
            return self.action_dist.proba_distribution(latent_pi, self.log_std.expand_as(latent_pi))
        return super()._get_action_dist_from_latent(latent_pi)


def _n_actions(space: gym.Space[Any]) -> int:
    """Numbers that the distribution of an action needs."""
    match space:
        case gym.spaces.Discrete():
            return int(space.n)
        case gym.spaces.MultiDiscrete():
            return int(space.nvec.sum())
        case gym.spaces.Box() if len(space.shape) == 1:
            return int(space.shape[0])
    raise UserError(f"VQCPolicy acts in Discrete, MultiDiscrete or a flat Box, not in {space}")
