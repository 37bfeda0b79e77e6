"""The charging service of Mobile CSP: numbers by hand, conservation, and nothing of it when it is off."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from qevgrid.agents import build_learner, load_learned, make_rival
from qevgrid.agents.mobile_csp.features import EVERY, FEATURES, SiteFeatures, site_entries
from qevgrid.agents.mobile_csp.planning import planner_of
from qevgrid.envs.errors import UserError
from qevgrid.envs.mobile_csp import model, observe, waiting
from qevgrid.envs.mobile_csp.arrays import AUTO, STAY, SUPPLIED, Action
from qevgrid.envs.mobile_csp.core import Batch, MobileCore
from qevgrid.envs.mobile_csp.forecast import expected, scenarios
from qevgrid.envs.mobile_csp.params import MobileCSPParams, Site
from qevgrid.envs.mobile_csp.plant import build_plant
from qevgrid.envs.mobile_csp.program import MobileProgram
from qevgrid.envs.mobile_csp.respond import _concave
from qevgrid.envs.mobile_csp.scenario import Sampler
from qevgrid.envs.mobile_csp.search import first_plan
from qevgrid.envs.mobile_csp.search import play as play_plan
from qevgrid.envs.mobile_csp.sequential import SequentialCore
from qevgrid.envs.mobile_csp.simulate import episode
from qevgrid.runner.rollout import play
from runs import tiny_config

CSP = "qevgrid/MobileCSP-v0"
DEPOT, DEAR, CHEAP = range(3)
RESPONSE, STRANDED = range(2)
SITES = (
    Site(name="depot", bus=None, node=1, slots=2),
    Site(name="dear", bus=17, node=2, critical_kw=100.0, voll_usd_kwh=10.0, slots=2),
    Site(name="cheap", bus=16, node=3, critical_kw=100.0, voll_usd_kwh=1.0, slots=2),
)
UNIT: dict[str, Any] = {"capacity_kwh": 100.0, "power_kw": 50.0, "eta_charge": 0.8, "eta_discharge": 0.5}
SERVICE: dict[str, Any] = {
    "enabled": True, "sites": ("cheap", "depot"), "plugs": 2, "plug_kw": 20.0, "leave_per_h": 0.1,
    "wait_usd_kwh_h": 2.0, "response_weight": 5.0, "end_wait_h": 3.0,
}  # fmt: skip


def hand_made(n_periods: int = 3) -> Batch:
    """Periods of an hour: dear and cheap share an island with needs of 20 and 10 kW, depot charges 60 kW in all."""
    p = MobileCSPParams(
        sites=SITES, n_units=2, n_periods=n_periods, dt_h=1.0, unit=UNIT, power="levels", service=SERVICE
    )
    batch = MobileCore(p).batch(1)
    batch.start(np.zeros(1, np.int64), [np.random.default_rng(0)])
    w = batch.world
    w.island[:] = [SUPPLIED, 1, 1]
    w.need_kw[:] = [0.0, 20.0, 10.0]
    w.generator_kw[:] = 0.0
    w.pv_kw[:] = 0.0
    w.charge_limit_kw[:] = [60.0, 0.0, 0.0]
    w.travel[:] = np.where(np.eye(3), 0, 2)
    w.arrivals_kwh[:] = 0.0
    return batch


def place(batch: Batch, sites: list[int], energy_kwh: list[float]) -> None:
    batch.state.site[0], batch.state.energy_kwh[0] = sites, energy_kwh


def stay(batch: Batch, share: Any = AUTO) -> None:
    batch.step(Action(np.full((1, 2), STAY), np.broadcast_to(share, (1, 2)).astype(float)))


def test_sites_of_the_service_stand_in_order() -> None:
    assert hand_made().core.plant.service.site.tolist() == [DEPOT, CHEAP]


def test_vehicles_get_what_critical_needs_leave_response_first() -> None:
    """Offers 45 + 45 kW; needs take 30, and of the 40 kW of two plugs response vehicles 35 and stranded ones 5."""
    batch = hand_made()
    place(batch, [DEAR, CHEAP], [100.0, 100.0])
    batch.state.backlog_kwh[0, 1] = [30.0, 20.0]
    batch.world.arrivals_kwh[0, 0, 1] = [5.0, 0.0]
    stay(batch)
    out = batch.outcome
    assert out.served_kw[0].tolist() == [0.0, 20.0, 10.0]
    assert out.vehicle_kwh[0, 1].tolist() == [35.0, 5.0]
    assert np.allclose(out.discharge_kw[0], 35.0)  # 70 kW, pro rata to equal offers
    assert np.allclose(batch.state.energy_kwh[0], 30.0)
    assert np.allclose(batch.state.backlog_kwh[0, 1], [0.0, 15.0 * 0.9])
    assert out.cost_usd[0, model.SERVICE] == pytest.approx(2.0 * 15.0)
    assert out.cost_usd[0, model.UNSERVED] == 0.0
    assert out.total_usd[0] == pytest.approx(30.0 + 0.05 * 70.0)


def test_critical_needs_come_first_and_pv_before_batteries() -> None:
    """PV 15 and an offer of 20 kW (half of 50 kWh above the floor) for needs of 30: 5 kW for vehicles."""
    batch = hand_made()
    place(batch, [DEAR, DEPOT], [50.0, 100.0])
    batch.world.pv_kw[:, :, CHEAP] = 15.0
    batch.state.backlog_kwh[0, 1] = [0.0, 100.0]
    stay(batch)
    assert batch.outcome.vehicle_kwh[0, 1].tolist() == [0.0, 5.0]
    assert batch.outcome.discharge_kw[0].tolist() == [20.0, 0.0]
    stay(batch)  # the unit is empty: 15 kW of PV are not enough for the needs
    assert not batch.outcome.vehicle_kwh.any()
    batch.world.pv_kw[:, :, CHEAP] = 50.0
    stay(batch)  # 20 kW of PV are left over
    assert batch.outcome.vehicle_kwh[0, 1].tolist() == [0.0, 20.0]
    assert not batch.outcome.discharge_kw.any()


def test_supplied_chargers_take_what_units_leave_of_the_room() -> None:
    """A unit takes 50 of 60 kW at the depot; no unit is needed for the other 10."""
    batch = hand_made()
    place(batch, [DEPOT, DEAR], [20.0, 10.0])
    batch.state.backlog_kwh[0, 0] = [4.0, 50.0]
    stay(batch)
    assert batch.outcome.charge_kw[0].tolist() == [50.0, 0.0]
    assert batch.outcome.vehicle_kwh[0, 0].tolist() == [4.0, 6.0]
    place(batch, [DEAR, DEAR], [10.0, 10.0])
    stay(batch)  # 44 kWh * 0.9 are left, plugs of 40 kW
    assert np.allclose(batch.outcome.vehicle_kwh[0, 0], [0.0, 39.6])
    assert not batch.state.energy_kwh[0].max() > 10.0


def test_who_waits_pays_at_every_period_and_at_the_end() -> None:
    """10 and 20 kWh wait, a tenth leaves in each of two periods; the end counts three hours."""
    batch = hand_made(n_periods=2)
    place(batch, [DEPOT, DEPOT], [100.0, 100.0])
    batch.state.backlog_kwh[0, 1] = [10.0, 20.0]
    stay(batch, 0.0)
    assert batch.outcome.cost_usd[0, model.SERVICE] == pytest.approx(10 * 10.0 + 2 * 20.0)
    stay(batch, 0.0)
    hour, end = 10 * 9.0 + 2 * 18.0, 3 * (10 * 8.1 + 2 * 16.2)
    assert batch.outcome.cost_usd[0, model.SERVICE] == pytest.approx(hour + end)
    assert np.allclose(batch.state.backlog_kwh[0, 1], [8.1, 16.2])


def test_a_level_may_serve_where_vehicles_wait_alone() -> None:
    batch = hand_made()
    batch.world.need_kw[:] = 0.0
    place(batch, [DEPOT, DEAR], [50.0, 50.0])
    levels = slice(3, None)
    assert batch.mask()[0, :, levels].tolist() == [[True, True, True, False, False], [False, False, True, False, False]]
    batch.world.arrivals_kwh[0, 0, 1, STRANDED] = 15.0
    batch._mask_is_fresh = False
    assert batch.mask()[0, 1, levels].tolist() == [False, False, True, True, True]
    batch.world.pv_kw[:, :, DEAR] = 15.0  # PV does it
    batch._mask_is_fresh = False
    assert batch.mask()[0, 1, levels].tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("form", ["joint", "sequential"])
def test_observations_show_who_waits(form: str) -> None:
    p = MobileCSPParams(preset="full", form=form)
    core = (SequentialCore if form == "sequential" else MobileCore)(p)
    batch = core.batch(2)
    batch.start(np.arange(2), [np.random.default_rng(k) for k in range(2)])
    assert observe.n_site(p) == observe.N_SITE + 2
    assert len(core.labels) == 8 + 10 * 14 + 4 * 24
    row = dict(zip(core.labels, batch.observe()[1].tolist(), strict=True))
    for e, site in enumerate(("shelter", "emergency", "grocery")):
        arrived = batch.world.arrivals_kwh[1, 0, e] / 600.0
        assert (row[f"{site}_response_waiting"], row[f"{site}_stranded_waiting"]) == pytest.approx(tuple(arrived))
    assert row["hospital_stranded_waiting"] == 0.0
    assert row["unit0_at_staging"] == 1.0
    for _ in range(6 * batch.core.n_units):
        batch.step(core.decode(np.zeros((2, core.n_actions), np.int64)))
    row = dict(zip(core.labels, batch.observe()[1].tolist(), strict=True))
    t = batch.state.stage[1]
    wanted = batch.view().backlog_kwh[1, 0] + batch.world.arrivals_kwh[1, t, 0]
    assert row["shelter_stranded_waiting"] == pytest.approx(min(wanted[STRANDED] / 600.0, 1.0))
    assert row["unit3_at_staging"] == 1.0


@pytest.mark.parametrize("power", ["auto", "levels"])
def test_energy_of_islands_and_vehicles_is_in_balance(power: str) -> None:
    """Random play of whole storms."""
    env: Any = gym.make_vec(CSP, num_envs=12, preset="full", power=power)
    obs, _ = env.reset(seed=3)
    batch, plant, rng = env._batch, env.core.plant, np.random.default_rng(0)
    service, dt, periods = plant.service, plant.tariff.dt_h, plant.n_periods
    from_units_kwh = 0.0
    for t in range(periods):
        before = batch.view()
        obs = env.step((rng.random(before.mask.shape) * before.mask).argmax(-1))[0]
        assert env.observation_space.contains(obs)
        w, out, after = batch.world, batch.outcome, batch.view()
        charged, backlog = out.vehicle_kwh, before.backlog_kwh + w.arrivals_kwh[:, t]
        assert charged.min() >= 0.0
        assert (charged <= backlog + 1e-9).all()
        assert (charged.sum(2) <= service.power_kw * dt + 1e-9).all()
        assert np.allclose(after.backlog_kwh, (backlog - charged) * service.keep)
        waiting = ((backlog - charged) * service.wait_usd_kwh_h).sum((1, 2))
        usd = waiting * (dt + (service.end_wait_h * service.keep if t == periods - 1 else 0.0))
        assert np.allclose(out.cost_usd[:, model.SERVICE], usd)
        for b in range(12):
            island, site = w.island[b, t], after.units.site[b]
            vehicles_kw = np.zeros(plant.n_sites)
            vehicles_kw[service.site] = charged[b].sum(1) / dt
            for k in set(island[island != SUPPLIED]):
                here = island == k
                given = out.discharge_kw[b, here[site]].sum()
                used, pv = out.served_kw[b, here].sum() + vehicles_kw[here].sum(), w.pv_kw[b, t, here].sum()
                assert given == pytest.approx(max(used - pv, 0.0), abs=1e-9)
                from_units_kwh += given * dt * (vehicles_kw[here].sum() > 0)
            drawn = np.bincount(site, out.charge_kw[b], plant.n_sites) + vehicles_kw * (island == SUPPLIED)
            assert (drawn <= w.charge_limit_kw[b, t] + 1e-9).all()
    assert from_units_kwh > 100.0


def test_the_storms_are_those_without_the_service() -> None:
    """Also in later episodes of the same generator."""
    off, on = (MobileCore(MobileCSPParams(service={"enabled": x})).batch(1) for x in (False, True))
    rngs = [np.random.default_rng(5) for _ in range(2)]
    for _ in range(2):
        for batch, rng in zip((off, on), rngs, strict=True):
            batch.start(np.zeros(1, np.int64), [rng])
        for mine, other in zip(off.scenario[:-1], on.scenario[:-1], strict=True):
            assert np.array_equal(mine, other)
        for mine, other in zip(off.world[:-1], on.world[:-1], strict=True):
            assert np.array_equal(mine, other)
        assert off.world.arrivals_kwh.size == 0
        assert on.scenario.fingerprint(0) != off.scenario.fingerprint(0)
    with pytest.raises(UserError, match="arrivals have shapes"):
        on.core.check(off.scenario, 1)


def test_arrivals_come_at_their_rate_and_beliefs_know_no_more() -> None:
    plant = build_plant(MobileCSPParams(preset="full"))
    sampler = Sampler(plant)
    s = sampler.sample([np.random.default_rng(k) for k in range(60)])
    arrivals = s.world.arrivals_kwh
    assert set(np.unique(arrivals[..., RESPONSE] / 40.0)) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert arrivals.mean((0, 1, 2)) == pytest.approx([0.5 * 0.25 * 40.0, 0.5 * 15.0], rel=0.05)
    stage = np.full(60, 10)
    belief = expected(plant, s, stage).arrivals_kwh
    assert np.array_equal(belief[:, :11], arrivals[:, :11])
    assert np.allclose(belief[:, 11:], [5.0, 7.5])
    many = scenarios(plant, s, stage, 2, np.random.default_rng(1)).arrivals_kwh
    assert np.array_equal(many[::2, :11], arrivals[:, :11])
    assert many[:, 11:].mean((0, 1, 2)) == pytest.approx([5.0, 7.5], rel=0.05)
    assert not np.array_equal(many[::2, 11:], many[1::2, 11:])


def test_forms_agree_with_the_service() -> None:
    p = MobileCSPParams(preset="full", n_units=3, power="levels", preposition=True)
    joint, single = MobileCore(p).batch(3), SequentialCore(p).batch(3)
    joint.start(np.arange(3), [np.random.default_rng(k) for k in range(3)])
    single.load(np.arange(3), joint.scenario)
    plan = np.random.default_rng(1).integers(0, joint.core.n_choices, (joint.core.n_stages, 3, 3))
    total, rows = np.zeros((3, len(model.COST_TERMS))), np.arange(3)
    for choice in plan:
        joint.step(joint.core.decode(choice))
        total += joint.outcome.cost_usd
    paid = np.zeros_like(total)
    while not single.over.all():
        at = np.minimum(single.state.stage - joint.core.first_stage, len(plan) - 1)
        single.step(single.core.decode(plan[at, rows, np.maximum(single.acting, 0)][:, None]))
        paid += single.outcome.cost_usd
    assert np.allclose(paid, total)
    assert total[:, model.SERVICE].min() > 0.0
    assert np.array_equal(joint.state.backlog_kwh, single.state.backlog_kwh)


def test_a_scorer_reads_who_waits_at_each_site() -> None:
    """With the service two features more; without it the same as ever, and 0 for those who ask."""
    p = MobileCSPParams(preset="full", form="sequential")
    off, on = SequentialCore(MobileCSPParams(form="sequential")), SequentialCore(p)
    obs = np.zeros((1, len(on.labels)), np.float32)
    obs[0, on.labels.index("grocery_response_waiting")] = 0.5
    obs[0, on.labels.index("shelter_stranded_waiting")] = 0.25
    obs[0, on.labels.index("unit2_acts")] = obs[0, on.labels.index("unit2_at_water")] = 1.0
    x, here = SiteFeatures(10, service=True)(torch.as_tensor(obs))
    assert x.shape == (1, 10, len(EVERY))
    assert here[0].argmax() == 3
    assert x[0, :, EVERY.index("response_waiting")].tolist() == [0.0] * 7 + [0.5, 0.0, 0.0]
    assert x[0, :, EVERY.index("stranded_waiting")].tolist() == [0.0] * 4 + [0.25] + [0.0] * 5
    bare = torch.as_tensor(obs[:, [on.labels.index(name) for name in off.labels]])
    assert torch.equal(SiteFeatures(10)(bare)[0], x[..., : len(FEATURES)])
    assert torch.equal(SiteFeatures(10)(torch.as_tensor(obs))[0], x[..., : len(FEATURES)])
    assert not SiteFeatures(10, ("stranded_waiting",))(bare)[0].any()


def test_the_layout_is_told_from_the_number_of_entries() -> None:
    for preset, entries in (("base", 12), ("full", 14)):
        for n_sites, n_units in ((1, 1), (2, 5), (10, 4), (10, 20)):
            sites = tuple(Site(name=f"s{k}", bus=k, node=k + 1, slots=20) for k in range(n_sites))
            p = MobileCSPParams(preset=preset, sites=sites, n_units=n_units, service={"sites": ("s0",)})
            assert site_entries(len(observe.labels(p)), n_sites) == entries
    with pytest.raises(UserError, match="none of qevgrid/MobileCSP-v0"):
        site_entries(225, 10)


@pytest.mark.parametrize("body", ["mlp", "circuit"])
def test_a_scorer_learns_saves_and_plays_with_the_service(body: str, tmp_path: Path) -> None:
    service = {"enabled": True, "sites": ("shelter", "emergency")}
    config = tiny_config(env={"service": service}, agent={"body": body, "uploads": 4}, kind="masked_ppo")
    learner: Any = build_learner(config.agent, config.env, 0)
    learner.prepare()
    learner.learn(96, lambda _: None)
    learner.save(path := tmp_path / "model.zip")
    core = MobileCore(config.env)
    agents = learner.agent("x", core), load_learned(path, "x", core, config.agent)
    mine, loaded = (play(core, agent, [0, 1]) for agent in agents)
    assert np.array_equal(mine.cost_usd, loaded.cost_usd)
    assert mine.cost_usd[:, model.SERVICE].min() > 0.0
    bare = tiny_config(agent={"body": body, "uploads": 4}, kind="masked_ppo")
    with pytest.raises(
        UserError, match=r"trained with the charging service, .* has none; set env.service.enabled=true"
    ):
        load_learned(path, "x", MobileCore(bare.env), bare.agent)


def storms(size: int = 2, **changes: Any) -> Batch:
    """Storms of ``mini`` in which vehicles charge at two sites."""
    service = {"enabled": True, "sites": ("shelter", "emergency")} | changes
    batch = MobileCore(MobileCSPParams(preset="mini", service=service)).batch(size)
    batch.start(np.arange(size), [np.random.default_rng(20 + k) for k in range(size)])
    return batch


def waited(batch: Batch, periods: int) -> Batch:
    """Nobody moves for so long."""
    for _ in range(periods):
        batch.step(Action(np.full(batch.state.site.shape, STAY), np.full(batch.state.site.shape, AUTO)))
    return batch


def test_the_optimum_costs_what_it_said() -> None:
    batch = storms(3)
    agent: Any = make_rival("optimum", problem_id=CSP)
    agent.begin({"view": batch.view(), "scenario": batch.scenario})
    total = np.zeros((3, len(model.COST_TERMS)))
    while not batch.over.all():
        batch.step(agent.act(None, {"view": batch.view()}))
        total += batch.outcome.cost_usd
    assert total[:, model.SERVICE].min() > 0.0
    assert np.allclose(total, [plan.terms_usd for plan in agent.plans], rtol=1e-12, atol=1e-6)
    said = agent.report()
    assert np.allclose(total.sum(1), said["best_known_usd"], rtol=1e-12)
    assert (said["bound_usd"] <= total.sum(1) + 1e-6).all()


def test_what_serving_vehicles_saves_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three periods of an hour, keep 0.9; supply at the depot, where vehicles charge anyway."""
    batch = hand_made()
    monkeypatch.setattr(waiting, "STAY_H", 2.0)
    backlog_kwh, w = np.array([[[0.0, 50.0], [10.0, 60.0]]]), episode(batch.world)
    w.arrivals_kwh[1, 1] = [8.0, 0.0]
    need, saved = waiting.vehicles(w, 0, batch.core.plant.service, backlog_kwh, 1.0)
    assert not need[:, DEPOT].any()
    assert not saved[:, DEPOT].any()
    last = 2.0 * (1 + 0.9 * 3)
    assert np.allclose(saved[:, 1, STRANDED], [2 + 0.9 * (2 + 0.9 * last), 2 + 0.9 * last, last])
    assert np.allclose(saved[:, 1, RESPONSE], 5 * saved[:, 1, STRANDED])
    assert np.allclose(need[:, 1, RESPONSE], [5.0, 0.5 * 9 + 8, 0.5 * 0.9 * 17])
    assert np.allclose(need[:, 1, STRANDED], [30.0, 27.0, 24.3])
    w.island[2] = SUPPLIED
    w.charge_limit_kw[2] = 60.0
    saved = waiting.vehicles(w, 0, batch.core.plant.service, backlog_kwh, 1.0).saved_usd_kwh
    assert np.allclose(saved[:, 1, STRANDED], [2 + 0.9 * 2, 2.0, 0.0])
    need = waiting.vehicles(w, 1, batch.core.plant.service, 10 * backlog_kwh, 1.0).need_kwh
    assert np.allclose(need[:, 1].sum(1), [0.0, 40.0, 0.0])  # two plugs


def test_a_route_goes_where_vehicles_wait_alone() -> None:
    """Nothing is in need; 60 kWh of response vehicles wait two hours away."""
    batch = hand_made(n_periods=5)
    batch.world.need_kw[:] = 0.0
    place(batch, [DEPOT, DEPOT], [100.0, 100.0])
    still = first_plan(planner_of(batch.view(), batch.world, 0), 4)
    assert not still.site.any()
    batch.state.backlog_kwh[0, 1] = [60.0, 0.0]
    moved = first_plan(planner_of(batch.view(), batch.world, 0), 4)
    assert set(moved.site[-1]) & {DEAR, CHEAP}
    assert moved.terms_usd[model.SERVICE] < play_plan(moved.problem, still.joint, still.site, still.share).terms_usd[-1]


def test_gains_become_concave_and_never_less() -> None:
    gain = np.array([0.0, 4.0, 5.0, 9.0, 9.5, 9.5, 99.0])
    _concave(gain, 5)
    assert gain.tolist() == [0.0, 4.0, 6.5, 9.0, 9.5, 9.5, 99.0]


def test_a_plan_begins_with_those_who_wait() -> None:
    """From the middle of a storm, played in the truth."""
    batch = waited(storms(), 9)
    view, total = batch.view(), np.zeros(2)
    assert view.backlog_kwh.sum((1, 2)).min() > 10.0
    plans = [first_plan(planner_of(view, batch.world, b), 2) for b in range(2)]
    while not batch.over.all():
        t = batch.state.stage[0]
        batch.step(Action(np.stack([p.site[t] for p in plans]), np.stack([p.share[t] for p in plans])))
        total += batch.outcome.total_usd
    assert np.allclose(total, [plan.cost_usd for plan in plans], rtol=1e-12)


def test_plans_are_the_same_where_nobody_ever_waits() -> None:
    """To the byte: with the service but no vehicles, and without the service."""
    none = storms(response_per_h=0.0, stranded_per_h=0.0)
    off = MobileCore(MobileCSPParams(preset="mini")).batch(2)
    off.start(np.arange(2), [np.random.default_rng(20 + k) for k in range(2)])
    for b in range(2):
        mine, other = (first_plan(planner_of(x.view(), x.world, b), 4) for x in (none, off))
        assert mine.problem.service.site.size == 2
        assert [mine.site.tobytes(), mine.share.tobytes()] == [other.site.tobytes(), other.share.tobytes()]
        assert mine.terms_usd.tobytes() == other.terms_usd.tobytes()


def test_the_programs_bound_holds_with_the_service() -> None:
    """It leaves out what vehicles cost, which is never below 0."""
    batch = waited(storms(1), 16)
    plan = first_plan(planner_of(batch.view(), batch.world, 0), 2)
    found = MobileProgram(plan.problem).solve(20.0, start=plan)
    assert found.bound_usd <= found.plan.cost_usd
    assert found.plan.terms_usd[model.SERVICE] > 0.0
    assert found.solver_usd <= found.plan.cost_usd - found.plan.terms_usd[model.SERVICE] + 1e-6


def test_a_preset_fills_the_section_key_by_key() -> None:
    p = MobileCSPParams(preset="full", service={"plugs": 4})
    assert (p.service.enabled, p.service.plugs) == (True, 4)
    assert not MobileCSPParams(service={"plugs": 4}).service.enabled
    assert not MobileCSPParams(preset="full", service={"enabled": False}).service.enabled


BAD = [
    ({"preset": "full", "service": {"sites": ("nowhere",)}}, "service.sites: no site 'nowhere'; choose among staging"),
    ({"preset": "full", "service": {"sites": ("shelter", "shelter")}}, "a name stands twice"),
    ({"preset": "full", "service": {"leave_per_h": 3.0}}, "service.leave_per_h=3.0: must be at most 1 / dt_h = 2"),
    ({"preset": "full", "service": {"plug": 3}}, "did you mean 'plugs'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        gym.make(CSP, **changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
