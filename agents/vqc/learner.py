"""PPO with a circuit as its policy: sizes, what TensorBoard shows of it, saving and loading."""

import difflib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy

from qevgrid.agents.base import Agent
from qevgrid.agents.ppo import PPOAgent, PPOLearner, action_space
from qevgrid.agents.sb3_learner import unzipped
from qevgrid.agents.vqc.build import circuit, execution
from qevgrid.agents.vqc.circuit import Circuit
from qevgrid.agents.vqc.config import VQCConfig
from qevgrid.agents.vqc.executors import check_memory
from qevgrid.agents.vqc.policy import Units, VQCPolicy
from qevgrid.agents.vqc.report import CircuitReport
from qevgrid.envs.errors import UserError
from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.core import V2GCore
from qevgrid.envs.v2g.observe import FLEET, N_SOCKET, SOCKET, known_labels
from qevgrid.envs.v2g.params import V2GParams

__all__ = ["VQCAgent", "VQCLearner", "build"]


def build(config: VQCConfig, params: V2GParams, seed: int) -> "VQCLearner":
    """A fresh learner. Raises ``UserError`` for settings that do not go together."""
    return VQCLearner(config, params, seed)


class VQCLearner(PPOLearner):
    """PPO on the configured environment with `VQCPolicy`."""

    config: VQCConfig  # type: ignore[assignment]

    def __init__(self, config: VQCConfig, params: V2GParams, seed: int) -> None:
        units = params.n_sockets if config.form == "shared" else 1
        check_memory(config.qubits, max(config.batch_size, config.n_envs) * units, execution(config, seed))
        super().__init__(config, params, seed)  # type: ignore[arg-type]
        drawn = circuit(config) if config.actor == "circuit" else None
        self.report = CircuitReport(self._policy.circuits(), drawn)

    @property
    def _policy(self) -> VQCPolicy:
        policy = self.model.policy
        assert isinstance(policy, VQCPolicy)
        return policy

    def policy(self) -> tuple[str | type[ActorCriticPolicy], dict[str, Any]]:
        """`VQCPolicy` and what it is made of."""
        c, box = self.config, self.params.action == "box"
        noise = {"log_std_init": c.log_std_init} if box else {}
        return VQCPolicy, noise | {
            "circuit": circuit(c),
            "hidden": list(c.hidden) if c.actor == "mlp" else None,
            "units": units(c, self.params),
            "uploads": c.uploads,
            "scale_init": c.scale_init,
            "critic": c.critic,
            "critic_hidden": list(c.critic_hidden),
            "lr_scales": (c.lr_inputs, c.lr_angles, c.lr_head),
            "execution": execution(c, self.seed),
        }

    def record(self, logger: Logger) -> None:
        """The circuit, its parameters, how its gradients spread over the layers, what it cost so far."""
        logger.record("vqc/parameters", self.parameters)
        self.report.record(logger)

    def agent(self, name: str, core: V2GCore) -> Agent:
        """The present policy, not a copy."""
        return VQCAgent(self._policy, name, core.levels if core.params.action == "levels" else None)

    def state(self) -> dict[str, Any]:
        """Circuits run, too."""
        return super().state() | {"circuits": [layer.executor.circuits for layer in self._policy.circuits()]}

    def set_state(self, rest: dict[str, Any]) -> None:
        """Circuits run, too."""
        super().set_state(rest)
        for layer, count in zip(self._policy.circuits(), rest["circuits"], strict=True):
            layer.executor.circuits = count


class VQCAgent(PPOAgent):
    """A trained circuit policy; reports the circuits that an episode's decisions ran."""

    policy: VQCPolicy

    def begin(self, info: dict[str, Any]) -> None:
        """Count from here on."""
        self._rows = len(info["view"].plugged)
        self._before = self._count()

    def report(self) -> dict[str, FloatArray]:
        """Circuits an episode."""
        if not self.policy.circuits():
            return {}
        return {"vqc/circuits_a_day": np.full(self._rows, (self._count() - self._before) / self._rows)}

    def act(self, obs: Float32Array, info: dict[str, Any]) -> FloatArray:
        """Mean or likeliest action; the critic is not asked."""
        with torch.no_grad():
            numbers = self.policy.actor(torch.as_tensor(obs)).numpy()
        if self.levels is None:
            return np.clip(numbers.astype(float), -1.0, 1.0)
        return self.levels[numbers.reshape(len(obs), -1, len(self.levels)).argmax(-1)]

    def _count(self) -> int:
        return sum(layer.executor.circuits for layer in self.policy.circuits()[:1])

    @classmethod
    def load(cls, path: Path, name: str, core: V2GCore, config: VQCConfig | None = None) -> "VQCAgent":
        """The policy saved at ``path`` for the sizes of ``core``; ``config`` says who runs its circuit.

        Raises ``UserError`` for a model of another circuit or observation.
        """
        data, weights = unzipped(path)
        kwargs = dict(data["policy_kwargs"])
        if data["policy_class"] is not VQCPolicy:
            raise UserError(f"{path}: holds no circuit policy; evaluate it with its own config.yaml")
        if config is not None:
            _check_same_circuit(path, kwargs, config)
            kwargs["execution"] = execution(config, 0)
        _check_space(path, data, kwargs["units"], core)
        obs_space = gym.spaces.Box(-1.0, 1.0, (len(core.labels),), np.float32)
        policy = VQCPolicy(obs_space, action_space(core), lambda _: 0.0, **kwargs)
        policy.load_state_dict(weights["policy"])
        policy.set_training_mode(False)
        return cls(policy, name, core.levels if core.params.action == "levels" else None)


def units(config: VQCConfig, params: V2GParams) -> Units | None:
    """Where the features stand in the observation; None: one circuit reads all of it."""
    if config.form == "single":
        if config.features is not None:
            raise UserError("agent.form=single reads the whole observation; set agent.features=null")
        return None
    shared = [*known_labels(params), *FLEET]
    wanted = config.features if config.features is not None else (*shared, *SOCKET)
    unknown = [name for name in wanted if name not in shared and name not in SOCKET]
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*shared, *SOCKET], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join([*SOCKET, *shared])}"
        raise UserError(f"agent.features: {unknown[0]!r} is no entry of the observation; {hint}")
    return Units(
        N_SOCKET,
        tuple(shared.index(name) for name in wanted if name in shared),
        tuple(SOCKET.index(name) for name in wanted if name in SOCKET),
    )


def _check_same_circuit(path: Path, kwargs: dict[str, Any], config: VQCConfig) -> None:
    """The keys must describe the circuit that was trained."""
    trained: Circuit = kwargs["circuit"]
    given = circuit(config)
    twin = list(config.hidden) if config.actor == "mlp" else None
    if kwargs["hidden"] != twin:
        raise UserError(
            f"{path}: its actor is {_actor(kwargs['hidden'])}, not {_actor(twin)}; evaluate with its own agent.* keys"
        )
    if twin is None and (trained != given or kwargs["uploads"] != config.uploads):
        raise UserError(
            f"{path}: was trained as {trained} with uploads={kwargs['uploads']}, not as {given} with "
            f"uploads={config.uploads}; evaluate with the agent.* keys of its config.yaml"
        )


def _actor(hidden: list[int] | None) -> str:
    return "a circuit" if hidden is None else f"a network with hidden={hidden}"


def _check_space(path: Path, data: dict[str, Any], layout: Units | None, core: V2GCore) -> None:
    """A shared circuit fits any fleet of the same kind of world, another one just its own."""
    obs, act = data["observation_space"], data["action_space"]
    here = len(core.labels), core.n_sockets
    if layout is None:
        fits = (obs.shape[0], act) == (here[0], action_space(core))
    else:
        alike = type(act) is type(action_space(core))
        if alike and core.params.action == "levels":
            alike = int(act.nvec[0]) == core.params.n_levels
        fits = alike and obs.shape[0] - layout.width * act.shape[0] == here[0] - layout.width * here[1]
    if not fits:
        raise UserError(
            f"{path}: trained on observations {obs.shape} and actions {act}, but this environment has ({here[0]},) and "
            f"{action_space(core)}; evaluate with the env.* keys of its config.yaml or train anew"
        )
