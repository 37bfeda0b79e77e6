"""The observation: which entries, in which order, on which scale.

``labels`` names every entry. The first G depend on the scenario alone and are tabulated at reset,
6 describe the fleet, then 6 a socket. Everything lies in [-1, 1].
"""

import numpy as np

from qevgrid.envs.types import Float32Array, FloatArray
from qevgrid.envs.v2g.forecast import ahead, outage_elapsed, outage_probability
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.scenario import LOAD_PHI_H, PRICE_PHI_H, PV_PHI_H, Scenario

PRICE_LEADS_H = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
OUTAGE_LEADS_H = (2.0, 4.0, 8.0)
SITE_LEAD_H = 4.0
FLEET = ("plugged_share", "dischargeable_4h", "chargeable_4h", "needed_4h", "obliged_share", "progress")
SOCKET = ("plugged", "soc", "needed_soc", "stay_left_days", "pace", "power")
N_FLEET, N_SOCKET = len(FLEET), len(SOCKET)


def known_labels(p: V2GParams) -> list[str]:
    """Names of the entries that the scenario decides."""
    names = ["clock_sin", "clock_cos", "buy_price", "sell_price"]
    names += [f"buy_price_in_{h:g}h" for h in PRICE_LEADS_H]
    names += ["price_above_mean_ahead", "price_above_least_ahead", "risk", "window_opens_in_days", "window_closes_in_days"]
    for d in range(p.site.count):
        names += [f"site{d}_{x}" for x in ("outage", "outage_days", "critical", "other", "pv", f"pv_in_{SITE_LEAD_H:g}h", f"other_in_{SITE_LEAD_H:g}h")]
        names += [f"site{d}_outage_in_{h:g}h" for h in OUTAGE_LEADS_H]
    return names


def labels(p: V2GParams) -> list[str]:
    """Name of every entry of the observation."""
    sockets = [f"socket{i}_{name}" for i in range(p.n_sockets) for name in SOCKET]
    return known_labels(p) + list(FLEET) + sockets


def tabulate(p: V2GParams, clock_h: FloatArray, price_scale: float, s: Scenario) -> Float32Array:
    """The entries of ``known_labels`` for every stage and the end, (B, T + 1, G)."""
    b, t_end = s.buy_usd_kwh.shape
    per_day = p.n_stages // p.days
    stage = np.broadcast_to(np.arange(t_end), (b, t_end))

    def in_hours(hours: tuple[float, ...]) -> np.ndarray:
        return np.maximum(np.rint(np.array(hours) / p.dt_h).astype(np.int64), 1)

    price = ahead(s.price_profile, s.price_dev, PRICE_PHI_H, p.dt_h, stage, in_hours(PRICE_LEADS_H), per_day)
    hour = 2 * np.pi * clock_h / 24
    columns = [np.broadcast_to(np.sin(hour), (b, t_end)), np.broadcast_to(np.cos(hour), (b, t_end))]
    columns += [s.buy_usd_kwh / price_scale, s.sell_usd_kwh / price_scale]
    columns += [price[..., k] / price_scale for k in range(price.shape[-1])]
    spread = np.maximum(np.abs(price).max(-1), 1e-6)
    columns += [(s.buy_usd_kwh - price.mean(-1)) / spread, (s.buy_usd_kwh - price.min(-1)) / spread, s.risk]
    columns += [(s.window_open - stage) / per_day, (s.window_close - stage) / per_day]
    elapsed = outage_elapsed(s, p.dt_h)
    dark = outage_probability(p, s, stage, in_hours(OUTAGE_LEADS_H))
    lead = in_hours((SITE_LEAD_H,))
    pv = ahead(s.pv_profile, s.pv_dev, PV_PHI_H, p.dt_h, stage, lead, per_day)[..., 0]
    other = ahead(s.other_profile, s.load_dev, LOAD_PHI_H, p.dt_h, stage, lead, per_day)[..., 0]
    scale = {name: np.maximum(p.site.per_site(name), 1e-9) for name in ("critical_kw", "other_kw", "pv_kw")}
    for d in range(p.site.count):
        columns += [s.outage[..., d], elapsed[..., d] / 24]
        columns += [getattr(s, name)[..., d] / scale[name][d] / 2 for name in ("critical_kw", "other_kw")]
        columns += [s.pv_kw[..., d] / scale["pv_kw"][d], pv, other / 2]
        columns += [dark[..., k, d] for k in range(dark.shape[2])]
    table = np.clip(np.stack(columns, -1), -1.0, 1.0).astype(np.float32)
    return np.concatenate([table, table[:, -1:]], axis=1)
