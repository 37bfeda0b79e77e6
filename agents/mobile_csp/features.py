"""What a scorer reads of each site for the unit whose turn it is, from the observation of the sequential form.

Everything lies in [-1, 1] and is made by slicing and plain arithmetic, so that the same module serves any number of
sites and units, networks and circuits.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp.kernel import N_GLOBAL, N_SERVICE, N_SITE, N_UNIT
from qevgrid.envs.mobile_csp.observe import (
    BACKUP_SCALE_H,
    GLOBAL,
    RESTORATION_SCALE_H,
    RISK_HOURS_H,
    SERVICE,
    SITE,
    TRAVEL_SCALE_H,
    UNIT,
)

FEATURES = (
    "here",  # the unit is there
    "travel",  # time to get there; 1: six hours or more, or no open road
    "soc",  # the unit's
    "left",  # share of the episode
    "supplied",
    "loss_rate",  # square root of value x need now
    "at_risk",  # square root of value x load x hours until supply is expected back
    "restoration",
    "backup",
    "others",  # energy of other units there or on their way
    "crowd",  # their number over the slots
    "island",  # need of the island
    "charge",  # limit of charging
    "worth",  # value that the unit could save there with what it holds and others leave
    "pace",  # the same over the time that it takes
    "lead",  # the same against the best site's
    "refuge",  # time to the nearest supply
)
"""In the order of the last axis."""
EVERY = FEATURES + SERVICE
"""With energy that response and stranded vehicles wait for, over the capacity; 0 without the charging service, where
they are not read unless named."""
FULL_H = 2.0
FLOOR = 0.1
SETUP_H = 0.5
"""A typical unit: hours at full power from full to its floor, state of charge at the floor, time to set up. They shape
``worth`` and ``pace`` and need not be exact."""
_TINY = 1e-6


class Parts(NamedTuple):
    """An observation in its parts. B rows, D sites, M units."""

    known: Tensor  # (B, N_GLOBAL)
    site: Tensor  # (B, D, N_SITE), with the charging service N_SITE + N_SERVICE
    unit: Tensor  # (B, M, N_UNIT)
    at: Tensor  # (B, M, D) one where a unit is or goes
    travel: Tensor  # (B, M, D)

    def global_(self, name: str) -> Tensor:
        """(B,)."""
        return self.known[:, GLOBAL.index(name)]

    def site_(self, name: str) -> Tensor:
        """(B, D)."""
        return self.site[..., SITE.index(name)]

    def service_(self, name: str) -> Tensor:
        """(B, D); 0 without the charging service."""
        if self.site.shape[-1] == N_SITE:
            return torch.zeros_like(self.site[..., 0])
        return self.site[..., N_SITE + SERVICE.index(name)]

    def unit_(self, name: str) -> Tensor:
        """(B, M)."""
        return self.unit[..., UNIT.index(name)]


def site_entries(n_obs: int, n_sites: int) -> int:
    """Entries of a site in an observation with ``n_obs``: N_SITE, or with the charging service N_SITE + N_SERVICE.

    At most one of them leaves whole blocks of units. ``UserError`` where none does.
    """
    for entries in (N_SITE, N_SITE + N_SERVICE):
        units = n_obs - N_GLOBAL - entries * n_sites
        if units > 0 and units % (N_UNIT + 2 * n_sites) == 0:
            return entries
    raise UserError(
        f"an observation of {n_obs} entries and {n_sites} sites is none of qevgrid/MobileCSP-v0; make the environment "
        "with form='sequential', and with power='levels' give the policy n_levels"
    )


def split(obs: Tensor, n_sites: int) -> Parts:
    """An observation (B, O) in its parts."""
    entries = site_entries(obs.shape[1], n_sites)
    first = N_GLOBAL + entries * n_sites
    units = obs[:, first:].unflatten(1, (-1, N_UNIT + 2 * n_sites))
    return Parts(
        obs[:, :N_GLOBAL],
        obs[:, N_GLOBAL:first].unflatten(1, (n_sites, entries)),
        units[..., :N_UNIT],
        units[..., N_UNIT : N_UNIT + n_sites],
        units[..., N_UNIT + n_sites :],
    )


class SiteFeatures(nn.Module):
    """(B, O) -> (B, D, F): the chosen features of each site, for the acting unit; and (B, D): one where it is.

    ``names`` out of ``EVERY``; None: all, those of ``observe.SERVICE`` with ``service`` only.
    """

    chosen: Tensor

    def __init__(self, n_sites: int, names: tuple[str, ...] | None = None, *, service: bool = False) -> None:
        super().__init__()
        self.n_sites = n_sites
        self.names = check_features(names) if names is not None else EVERY if service else FEATURES
        order = torch.tensor([EVERY.index(name) for name in self.names])
        self.register_buffer("chosen", order, persistent=False)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Features in [-1, 1]."""
        parts = split(obs, self.n_sites)
        if self.names == FEATURES:
            every = site_features(parts)
            return every, every[..., 0]
        every = torch.cat([site_features(parts), *(parts.service_(name).unsqueeze(-1) for name in SERVICE)], -1)
        return every[..., self.chosen], every[..., 0]


def check_features(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The features of these names; ``UserError`` for one that is unknown."""
    import difflib

    for name in names or ():
        if name not in EVERY:
            near = difflib.get_close_matches(name, EVERY, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(EVERY)}"
            raise UserError(f"agent.features: {name!r} is no feature of a site; {hint}")
    return FEATURES if names is None else tuple(names)


def site_features(p: Parts) -> Tensor:
    """All ``FEATURES``, (B, D, F)."""
    acts = p.unit_("acts").unsqueeze(-1)  # (B, M, 1)
    here, travel = (acts * p.at).sum(1), (acts * p.travel).sum(1)
    soc = (acts.squeeze(-1) * p.unit_("soc")).sum(1, keepdim=True)
    supplied = p.site_("supplied")
    others = (1 - acts) * p.at
    brought = (others * usable(p.unit_("soc")).unsqueeze(-1)).sum(1)  # hours at full power
    worth, pace = _worth(p, travel, usable(soc), brought)
    best = pace.amax(1, keepdim=True).clamp(min=_TINY)
    columns = {
        "here": here,
        "travel": travel,
        "soc": soc,
        "left": 1 - p.global_("progress").unsqueeze(1),
        "supplied": supplied,
        "loss_rate": p.site_("loss_rate").clamp(min=0).sqrt(),
        "at_risk": p.site_("at_risk").clamp(min=0).sqrt(),
        "restoration": p.site_("restoration"),
        "backup": p.site_("backup"),
        "others": (brought / (2 * FULL_H)).clamp(max=1),
        "crowd": (others.sum(1) / 2).clamp(max=1),
        "island": p.site_("island_need"),
        "charge": p.site_("charge_limit"),
        "worth": (worth / (2 * FULL_H)).clamp(max=1).sqrt(),
        "pace": (pace / FULL_H).clamp(max=1).sqrt(),
        "lead": pace / best,
        "refuge": torch.where(supplied > 0, travel, torch.ones_like(travel)).amin(1, keepdim=True),
    }
    shape = here.shape
    return torch.stack([columns[name].expand(shape) for name in FEATURES], -1)


def usable(soc: Tensor) -> Tensor:
    """Hours at full power that a state of charge is good for, of a typical unit."""
    return (soc - FLOOR).clamp(min=0) * (FULL_H / (1 - FLOOR))


def _worth(p: Parts, travel: Tensor, holds_h: Tensor, brought_h: Tensor) -> tuple[Tensor, Tensor]:
    """Value that the unit could save at each site until supply is expected, and the same over its time, (B, D).

    ``holds_h`` (B, 1) and ``brought_h`` (B, D): hours at full power of the unit and of others that are or will be
    there. On the observation's own scale: value in hours of the dearest site's peak load.
    """
    trip_h = travel * TRAVEL_SCALE_H
    back_h = p.site_("restoration") * RESTORATION_SCALE_H
    lost_h = (back_h - p.site_("backup") * BACKUP_SCALE_H).clamp(min=0)
    expected = (p.site_("at_risk") * RISK_HOURS_H / lost_h.clamp(min=1.0)).clamp(max=1)  # while backup lasts
    rate = torch.where(p.site_("loss_rate") > 0, p.site_("loss_rate"), expected)
    need = p.site_("need").clamp(min=0.1)
    open_h = (torch.minimum((back_h - trip_h).clamp(min=0), lost_h) * need - brought_h).clamp(min=0)
    worth = rate / need * torch.minimum(holds_h, open_h)
    return worth, worth / (trip_h + SETUP_H)
