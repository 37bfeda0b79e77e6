"""Keys of the circuit agent: the circuit, what it reads, how it runs and learns. Reading them loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from qevgrid.agents.ppo_config import PPOKeys
from qevgrid.envs.keywords import STRICT

Rate = Annotated[float, Field(gt=0, le=1000)]
Error = Annotated[float, Field(ge=0, le=0.5)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CircuitKeys:
    """A circuit: its gates, its learning rates, who runs it."""

    qubits: Annotated[int, Field(ge=1, le=24)] = 4
    layers: Annotated[int, Field(ge=1, le=50)] = 3
    ansatz: Annotated[
        Literal["diag", "rx_ry_rz", "two_axis"], Field(description="gates of a layer, see agents/vqc/circuit.py")
    ] = "diag"
    entangler: Annotated[
        Literal["ring", "line", "all", "none"], Field(description="pairs of wires that CZ couples")
    ] = "ring"
    readout: Annotated[Literal["z", "zz"], Field(description="<Z> of each wire, or <ZZ> of neighbours as well")] = "z"
    uploads: Annotated[int, Field(ge=1, le=64, description="features that add up to one data angle")] = 2
    scale_init: Annotated[float, Field(gt=0, le=10, description="first scale of a feature in its angle")] = 1.0
    lr_inputs: Annotated[Rate, Field(description="learning rate of input scales over lr")] = 10.0
    lr_angles: Annotated[Rate, Field(description="of the circuit's angles over lr")] = 10.0
    lr_head: Annotated[Rate, Field(description="of the linear head over lr")] = 30.0
    executor: Annotated[
        Literal["fast", "pennylane"], Field(description="our compiled plan (exact), or a PennyLane device")
    ] = "fast"
    device: Annotated[str, Field(description="PennyLane device, e.g. default.mixed, lightning.qubit, a plug-in's")] = (
        "default.qubit"
    )
    device_options: Annotated[dict[str, Any], Field(default_factory=dict, description="more arguments of qml.device")]
    shots: Annotated[int | None, Field(ge=1, le=1_000_000, description="measurements a circuit; null: exact")] = None
    depolarizing: Annotated[
        tuple[Error, Error], Field(description="error after a one-qubit and a two-qubit gate (default.mixed)")
    ] = (0.0, 0.0)
    readout_error: Annotated[Error, Field(description="chance that a measured bit flips (default.mixed)")] = 0.0


FEATURES = (
    "plugged",
    "soc",
    "needed_soc",
    "stay_left_days",
    "pace",
    "price_above_least_ahead",
    "price_above_mean_ahead",
    "buy_price",
    "risk",
    "site0_outage",
    "island_critical_share",
    "island_load_share",
)
"""What a vehicle's circuit reads by default: its own state, prices, risk, what an island asks of it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VQCConfig(CircuitKeys, PPOKeys):
    """PPO whose actor is a variational quantum circuit."""

    kind: Literal["vqc"] = "vqc"
    form: Annotated[
        Literal["shared", "single"],
        Field(description="a small circuit shared by every vehicle, or one for the whole site"),
    ] = "shared"
    actor: Annotated[
        Literal["circuit", "mlp"], Field(description="what decides; mlp is the classical twin on the same features")
    ] = "circuit"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(description="hidden layers of the twin")] = (4,)
    features: Annotated[
        tuple[str, ...] | None,
        Field(description="entries of the observation that are read, a vehicle's without socket number; null: all"),
    ] = FEATURES
    critic: Annotated[Literal["mlp", "circuit"], Field(description="what values a state while learning")] = "mlp"
    critic_hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (64, 64)
