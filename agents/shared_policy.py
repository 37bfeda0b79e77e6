"""One small network for every socket, so that parameters do not grow with the fleet.

The actor reads a socket's features beside the site and fleet entries of the observation and emits
that socket's mean action; the critic reads the latter and the mean of the embedded sockets. Swapping
two sockets swaps their actions, and a trained policy runs on any number of sockets.
"""

from itertools import pairwise
from typing import Any

import torch
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn


def mlp(sizes: list[int]) -> nn.Sequential:
    """Linear layers with tanh after each."""
    return nn.Sequential(*(layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())))


class SocketActor(nn.Module):
    """(B, shared + N * features) -> (B, N). The first layer reads the shared entries once a row."""

    def __init__(self, n_shared: int, n_features: int, hidden: list[int]) -> None:
        super().__init__()
        self.n_shared, self.n_features = n_shared, n_features
        self.shared = nn.Linear(n_shared, hidden[0])
        self.socket = nn.Linear(n_features, hidden[0], bias=False)
        self.body = mlp(hidden)
        self.head = nn.Linear(hidden[-1], 1)
        nn.init.uniform_(self.head.weight, -0.01, 0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, obs: Tensor) -> Tensor:
        """Mean action (B, N) for observations (B, O)."""
        sockets = obs[:, self.n_shared :].unflatten(1, (-1, self.n_features))
        first = torch.tanh(self.shared(obs[:, : self.n_shared]).unsqueeze(1) + self.socket(sockets))
        return self.head(self.body(first)).squeeze(-1)


class FleetCritic(nn.Module):
    """(B, shared + N * features) -> (B, hidden)."""

    def __init__(self, n_shared: int, n_features: int, hidden: list[int]) -> None:
        super().__init__()
        self.n_shared, self.n_features = n_shared, n_features
        self.embed = mlp([n_features, 16])
        self.body = mlp([n_shared + 16, *hidden])

    def forward(self, obs: Tensor) -> Tensor:
        """Features of the value head (B, hidden) for observations (B, O)."""
        sockets = obs[:, self.n_shared :].unflatten(1, (-1, self.n_features))
        return self.body(torch.cat([obs[:, : self.n_shared], self.embed(sockets).mean(1)], 1))


class Extractor(nn.Module):
    """Actor and critic behind SB3's interface."""

    def __init__(self, actor: nn.Module, critic: nn.Module, latent_dim_pi: int, latent_dim_vf: int) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic
        self.latent_dim_pi, self.latent_dim_vf = latent_dim_pi, latent_dim_vf

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Both for observations (B, O)."""
        return self.forward_actor(obs), self.forward_critic(obs)

    def forward_actor(self, obs: Tensor) -> Tensor:
        """Action parameters (B, A)."""
        return self.actor(obs)

    def forward_critic(self, obs: Tensor) -> Tensor:
        """Features of the value head (B, width)."""
        return self.critic(obs)


class SharedPolicy(ActorCriticPolicy):
    """``PPO(SharedPolicy, env, policy_kwargs={"n_features": 6})`` for ``Box`` actions, one a socket."""

    def __init__(
        self,
        *args: Any,
        n_features: int = 6,
        actor: list[int] | None = None,
        critic: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.n_features, self.actor_hidden, self.critic_hidden = n_features, actor or [32, 32], critic or [64, 64]
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        n_sockets = self.action_space.shape[0]  # type: ignore[index]
        n_shared = self.features_dim - n_sockets * self.n_features
        actor = SocketActor(n_shared, self.n_features, self.actor_hidden)
        critic = FleetCritic(n_shared, self.n_features, self.critic_hidden)
        self.mlp_extractor = Extractor(actor, critic, n_sockets, self.critic_hidden[-1])  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        ortho, self.ortho_init = self.ortho_init, False
        super()._build(lr_schedule)
        self.ortho_init = ortho
        self.action_net = nn.Identity()
        self.log_std = nn.Parameter(torch.full((1,), float(self.log_std_init)))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        assert isinstance(self.action_dist, DiagGaussianDistribution)
        return self.action_dist.proba_distribution(latent_pi, self.log_std.expand_as(latent_pi))
