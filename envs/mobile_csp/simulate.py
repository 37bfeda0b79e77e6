"""What a joint plan costs: a single episode played in the step kernel from a period to its end."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qevgrid.envs.direct import Direct
from qevgrid.envs.mobile_csp import kernel, model
from qevgrid.envs.mobile_csp.arrays import NO_SERVICE, Fleet, Service, Sites, Tariff, Units, World
from qevgrid.envs.types import FloatArray, IntArray


class Replay(NamedTuple):
    """A plan played from a period to the end; rows of periods before it are empty."""

    cost_usd: FloatArray  # (terms,) summed over the periods played, in the order of COST_TERMS
    energy_kwh: FloatArray  # (T + 1, M) at the beginning of each period
    charge_kw: FloatArray  # (T, M)
    discharge_kw: FloatArray  # (T, M)
    unserved_usd: FloatArray  # (T,) of each period, part of cost_usd


def episode(world: World, b: int = 0) -> World:
    """Episode ``b`` of a batch: the same fields without the batch axis."""
    return World(*(np.ascontiguousarray(x[b]) for x in world))


def simulate(
    world: World,
    units: Units,
    stage: int,
    fleet: Fleet,
    sites: Sites,
    tariff: Tariff,
    site: IntArray,
    share: FloatArray,
    service: Service = NO_SERVICE,
    backlog_kwh: FloatArray = kernel.NOTHING_KWH,
) -> Replay:
    """Play the actions ``site`` (T, M) and ``share`` (T, M) from ``stage`` on.

    ``world``: a single episode (fields without the batch axis); ``units``: rows (1, M) of it; ``backlog_kwh``
    (1, E, 2): who waits at the sites of ``service``.
    """
    return Player(world, units, stage, fleet, sites, tariff, service, backlog_kwh)(site, share)


class Player:
    """Plays action after action of the same episode: the room for it is made once."""

    def __init__(
        self,
        world: World,
        units: Units,
        stage: int,
        fleet: Fleet,
        sites: Sites,
        tariff: Tariff,
        service: Service = NO_SERVICE,
        backlog_kwh: FloatArray = kernel.NOTHING_KWH,
    ) -> None:
        n_periods, n_units, n_sites = len(world.need_kw), units.site.shape[1], len(sites.slots)
        terms = len(model.COST_TERMS)
        by_unit = (np.zeros((n_periods + k, n_units)) for k in (1, 0, 0))
        self.units, self.stage, self.backlog_kwh = units, stage, backlog_kwh
        self.replay = Replay._make((np.zeros(terms), *by_unit, np.zeros(n_periods)))
        begin = units.site.copy(), units.arrival.copy(), units.energy_kwh.copy(), backlog_kwh.copy()
        self.state = kernel.State(np.array([stage]), *begin)
        power, one = np.zeros((3, 1, n_units)), np.zeros(1, np.int64)
        self.out = kernel.Outcome(
            power[0],
            power[1],
            np.zeros((1, n_units), bool),
            np.zeros((1, n_sites)),
            one,
            np.zeros((1, terms)),
            np.zeros(1),
            np.zeros(1),
            np.zeros(1),
            np.zeros_like(backlog_kwh),
        )
        units_room, site_room = np.zeros(n_units), np.zeros((5, n_sites))
        self.scratch = kernel.Scratch(
            share=units_room,
            staying=np.zeros(n_units, bool),
            order=np.zeros(n_units, np.int64),
            taken=np.zeros(n_sites, np.int64),
            room_kw=site_room[0],
            supply_kw=site_room[1],
            pv_kw=site_room[2],
            used_kw=site_room[3],
            offered_kw=site_room[4],
        )
        self.world = World._make(x[:, None] for x in world)  # periods first, as the kernel wants them
        self.rules = rules(fleet, sites, tariff, service)

    def __call__(self, site: IntArray, share: FloatArray) -> Replay:
        """What the actions (T, M) cost, in arrays of their own."""
        state, replay = self.state, self.replay
        state.stage[0], replay.cost_usd[:] = self.stage, 0.0
        state.site[:], state.arrival[:], state.energy_kwh[:] = self.units
        state.backlog_kwh[:] = self.backlog_kwh
        _PLAY(
            self.rules, self.world, _NO_KNOWN, state, self.out, self.scratch, site, share, _ON, _NO_OBS, _NO_MASK, replay
        )  # fmt: skip
        return Replay(*(x.copy() for x in replay))


_NO_KNOWN, _NO_OBS, _NO_MASK = np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), bool)
_ON = np.ones(1, bool)


def voll_order(sites: Sites) -> IntArray:
    """Sites by value of lost load, the dearest first; ties: the lower number."""
    return np.argsort(-sites.voll_usd_kwh, kind="stable")


def rules(fleet: Fleet, sites: Sites, tariff: Tariff, service: Service = NO_SERVICE) -> kernel.Rules:
    """The kernel's constants without what only observations need."""
    _, capacity, floor, power, eta_charge, eta_discharge = fleet
    nothing = np.zeros(0)
    return kernel.Rules(
        sites.voll_usd_kwh,
        sites.slots,
        voll_order(sites),
        np.zeros((0, 0), np.int16),
        nothing,
        nothing,
        capacity,
        floor,
        power,
        eta_charge,
        eta_discharge,
        *tariff,
        reward_scale=1.0,
        first_stage=0,
        per_travel=1.0,
        per_kwh=1.0,
        service=service,
    )


@njit(cache=True)
def _play(
    rules: Any,
    world: Any,
    known: Any,
    state: Any,
    out: Any,
    scratch: Any,
    site: Any,
    share: Any,
    on: Any,
    obs: Any,
    mask: Any,
    replay: Any,
) -> None:  # pragma: no cover
    """All periods from ``state.stage`` on."""
    for t in range(state.stage[0], len(site)):
        replay.energy_kwh[t] = state.energy_kwh[0]
        kernel.step(rules, world, known, state, out, scratch, site[t : t + 1], share[t : t + 1], on, obs, mask)
        replay.charge_kw[t], replay.discharge_kw[t] = out.charge_kw[0], out.discharge_kw[0]
        replay.cost_usd[:] += out.cost_usd[0]
        replay.unserved_usd[t] = out.cost_usd[0, model.UNSERVED]
    replay.energy_kwh[len(site)] = state.energy_kwh[0]


_PLAY = Direct(_play)
