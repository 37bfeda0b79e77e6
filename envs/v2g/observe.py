"""The observation: which entries, in which order, on which scale.

``labels`` names every entry. The first G depend on the scenario alone and are tabulated at reset,
8 describe the fleet, then 6 a socket. Everything lies in [-1, 1].
"""

import numpy as np

from qevgrid.envs.types import Float32Array, FloatArray, IntArray
from qevgrid.envs.v2g.arrays import N_FLEET, N_SOCKET
from qevgrid.envs.v2g.forecast import ahead, outage_elapsed, outage_probability
from qevgrid.envs.v2g.params import V2GParams
from qevgrid.envs.v2g.scenario import LOAD_PHI_H, PRICE_PHI_H, PV_PHI_H, Scenario

PRICE_LEADS_H = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0)
OUTAGE_LEADS_H = (2.0, 4.0, 8.0)
SITE_LEAD_H = 4.0
FLEET = ("plugged_share", "dischargeable_4h", "chargeable_4h", "needed_4h", "obliged_share")
FLEET += ("island_critical_share", "island_load_share", "progress")
SOCKET = ("plugged", "soc", "needed_soc", "stay_left_days", "pace", "power")
assert (len(FLEET), len(SOCKET)) == (N_FLEET, N_SOCKET)


def known_labels(p: V2GParams) -> list[str]:
    """Names of the entries that the scenario decides."""
    names = ["clock_sin", "clock_cos", "buy_price", "sell_price"]
    names += [f"buy_price_in_{h:g}h" for h in PRICE_LEADS_H]
    names += ["price_above_mean_ahead", "price_above_least_ahead"]
    names += ["risk", "window_opens_in_days", "window_closes_in_days"]
    site = ["outage", "outage_days", "critical", "other", "pv"]
    site += [f"pv_in_{SITE_LEAD_H:g}h", f"other_in_{SITE_LEAD_H:g}h"]
    site += [f"outage_in_{h:g}h" for h in OUTAGE_LEADS_H]
    names += [f"site{d}_{name}" for d in range(p.site.count) for name in site]
    return names


def labels(p: V2GParams) -> list[str]:
    """Name of every entry of the observation."""
    sockets = [f"socket{i}_{name}" for i in range(p.n_sockets) for name in SOCKET]
    return known_labels(p) + list(FLEET) + sockets


class Tabulator:
    """Writes the entries of ``known_labels`` for whole episodes; what is constant is kept."""

    def __init__(self, p: V2GParams, clock_h: FloatArray, price_scale: float) -> None:
        self.params, self.price_scale = p, price_scale
        self.per_day = p.n_stages // p.days
        self.width = len(known_labels(p))
        hour = 2 * np.pi * clock_h / 24
        self.clock = np.stack([np.sin(hour), np.cos(hour)], -1)  # (T, 2)
        self.price_leads, self.outage_leads = self._stages(PRICE_LEADS_H), self._stages(OUTAGE_LEADS_H)
        self.site_lead = self._stages((SITE_LEAD_H,))
        names = ("critical_kw", "other_kw", "pv_kw")
        self.site_scale = {name: np.maximum(p.site.per_site(name), 1e-9) for name in names}

    def _stages(self, hours: tuple[float, ...]) -> IntArray:
        return np.maximum(np.rint(np.array(hours) / self.params.dt_h).astype(np.int64), 1)

    def __call__(self, s: Scenario) -> Float32Array:
        """Table (B, T + 1, G); the last stage's entries stand for the end, too."""
        b, t_end = s.buy_usd_kwh.shape
        stage = np.arange(t_end)
        table = np.empty((b, t_end + 1, self.width))
        table[:, :t_end, :2] = self.clock
        at = self._prices(table[:, :t_end, 2:], s, stage) + 2
        self._sites(table[:, :t_end, at:], s, stage)
        table[:, t_end] = table[:, t_end - 1]
        return np.clip(table, -1.0, 1.0, out=table).astype(np.float32)

    def _prices(self, out: FloatArray, s: Scenario, stage: IntArray) -> int:
        """Prices and what is announced; returns the number of entries."""
        n, buy, dt_h = len(PRICE_LEADS_H) + 2, s.buy_usd_kwh, self.params.dt_h
        ahead_of = ahead(s.price_profile, s.price_dev, PRICE_PHI_H, dt_h, stage, self.price_leads, self.per_day)
        spread = np.maximum(np.abs(ahead_of).max(-1), 1e-6)
        out[..., 0] = buy / self.price_scale
        out[..., 1] = s.sell_usd_kwh / self.price_scale
        out[..., 2:n] = ahead_of / self.price_scale
        out[..., n] = (buy - ahead_of.mean(-1)) / spread
        out[..., n + 1] = (buy - ahead_of.min(-1)) / spread
        out[..., n + 2] = s.risk
        out[..., n + 3] = (s.window_open - stage) / self.per_day
        out[..., n + 4] = (s.window_close - stage) / self.per_day
        return n + 5

    def _sites(self, out: FloatArray, s: Scenario, stage: IntArray) -> None:
        """Supply, loads and PV of each site."""
        p, scale = self.params, self.site_scale
        elapsed_h = outage_elapsed(s, p.dt_h)
        dark = outage_probability(p, s, stage, self.outage_leads, elapsed_h)
        pv = ahead(s.pv_profile, s.pv_dev, PV_PHI_H, p.dt_h, stage, self.site_lead, self.per_day)[..., 0]
        other = ahead(s.other_profile, s.load_dev, LOAD_PHI_H, p.dt_h, stage, self.site_lead, self.per_day)[..., 0]
        per_site = 7 + len(OUTAGE_LEADS_H)
        for d in range(p.site.count):
            site = out[..., d * per_site : (d + 1) * per_site]
            site[..., 0] = s.outage[..., d]
            site[..., 1] = elapsed_h[..., d] / 24
            site[..., 2] = s.critical_kw[..., d] / scale["critical_kw"][d] / 2
            site[..., 3] = s.other_kw[..., d] / scale["other_kw"][d] / 2
            site[..., 4] = s.pv_kw[..., d] / scale["pv_kw"][d]
            site[..., 5] = pv
            site[..., 6] = other / 2
            site[..., 7:] = dark[..., d]
