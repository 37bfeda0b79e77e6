"""``grid.model=sweep``: violations are priced by the exact sweep; outages may run past midnight."""

import numpy as np

from qevgrid.envs.grid import sweep
from qevgrid.envs.v2g import model
from qevgrid.envs.v2g.core import Batch, V2GCore
from qevgrid.envs.v2g.params import V2GParams


def test_violation_is_the_sweeps() -> None:
    p = V2GParams(n_sockets=6, dt_h=1.0, grid={"model": "sweep", "load_scale": 1.1}, outage={"share": 0.0})
    core = V2GCore(p)
    batch = Batch(core, 1)
    batch.start(np.arange(1), [np.random.default_rng(4)])
    feeder, rows, found = core.plant.feeder, core.plant.rows, 0.0
    assert feeder is not None
    for t in range(core.n_stages):
        batch.step(np.ones((1, 6)))
        s, out = batch.scenario, batch.outcome
        kw, kvar = feeder.load_kw * s.feeder_scale[0, t], feeder.load_kvar * s.feeder_scale[0, t]
        load, ev = s.critical_kw[0, t, 0] + s.other_kw[0, t, 0], out.charge_kw[0].sum() - out.discharge_kw[0].sum()
        kw[17] += load + ev - s.pv_kw[0, t, 0]
        kvar[17] += 0.3 * load + 0.1 * ev
        v = sweep(feeder, kw[None], kvar[None]).v_pu[0]
        beyond = 0.0
        for r, name in enumerate(rows.name):
            if name.startswith("voltage_"):
                beyond += max(0.9**2 - v[int(name[8:])] ** 2, 0.0) / rows.scale[r]
        assert abs(out.cost_usd[0, model.VIOLATION] - 2.0 * beyond) < 1e-6 * max(1.0, beyond)
        assert abs(out.total_usd[0] - out.cost_usd[0].sum()) < 1e-9
        assert abs(out.reward[0] + 0.01 * out.total_usd[0]) < 1e-9
        found += beyond
    assert found > 0


def test_an_outage_may_run_into_the_next_day() -> None:
    p = V2GParams(days=2, n_sockets=2, outage={"share": 1.0, "window_h": (20.0, 23.0), "median_h": 8.0, "sigma": 0.0})
    core = V2GCore(p)
    s = core.sampler.sample([np.random.default_rng(k) for k in range(20)])
    assert s.outage[:, 94:98].all(axis=(1, 2)).all()
    assert not s.outage[:, 130:170].any()
