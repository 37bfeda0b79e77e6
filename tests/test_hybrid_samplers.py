"""Every sampler keeps one contract; machines that fail are replaced, and dimod's own kit runs on ours."""

import threading
import unittest
import warnings
from dataclasses import fields
from typing import get_args

import decisions
import dimod
import dimod.testing
import numpy as np
import pytest

from qevgrid.agents.hybrid import qaoa, qpu, sampler_dimod
from qevgrid.agents.hybrid.centring import centre
from qevgrid.agents.hybrid.config import Sampler
from qevgrid.agents.hybrid.encoding import decode, encode
from qevgrid.agents.hybrid.problem import AggregateQUBO, Pieces
from qevgrid.agents.hybrid.sampler_dimod import StructuredSampler
from qevgrid.agents.hybrid.sampler_linear import relaxed_dual
from qevgrid.agents.hybrid.samplers import NAMES, make_sampler
from qevgrid.envs.errors import UserError

CLOUD = ("qpu", "leap_hybrid")
LOCAL = tuple(name for name in NAMES if name not in CLOUD)


@pytest.fixture(scope="module")
def tiny():
    return decisions.charging(np.random.default_rng(3), 3, 3)


@pytest.fixture(scope="module")
def larger():
    return decisions.charging(np.random.default_rng(4), 12, 5)


def test_the_configuration_knows_every_name():
    assert set(NAMES) == set(get_args(Sampler))


@pytest.mark.parametrize("name", LOCAL)
def test_every_sampler_gives_a_choice_and_says_what_it_did(name, tiny):
    sampler = make_sampler(name, reads=4, sweeps=50)
    found = sampler.solve(tiny, 1)
    assert found.choice.shape == (3,) and ((found.choice >= 0) & (found.choice < 3)).all()
    assert found.raw_choice_energy_usd == pytest.approx(float(tiny.energy_usd(found.choice)))
    assert found.raw_choice_energy_usd == found.energies_usd.min() and np.isfinite(found.energies_usd).all()
    assert found.raw_choice_energy_usd <= found.valid_energy_usd
    assert 0 <= found.feasible_share <= 1 and 0 <= found.chain_break_share <= 1 and found.seconds > 0
    assert found.variables == 6 and found.used.startswith(name) and found.fallbacks == sampler.fallbacks == 0


@pytest.mark.parametrize("name", LOCAL)
def test_same_seed_same_bytes(name, tiny, larger):
    problem = tiny if name in ("exact", "qaoa") else larger
    first, second = (make_sampler(name, reads=5, sweeps=30).solve(problem, 7) for _ in range(2))
    for field in fields(first):
        if field.name != "seconds":
            a, b = np.asarray(getattr(first, field.name)), np.asarray(getattr(second, field.name))
            assert a.tobytes() == b.tobytes() if a.dtype.kind in "fi" else a == b, field.name


@pytest.mark.parametrize("name", ["structured", "neal", "sqa", "tabu", "qaoa", "mock_qpu"])
def test_another_seed_draws_otherwise(name, tiny, larger):
    problem = tiny if name == "qaoa" else larger
    sampler = make_sampler(name, reads=8, sweeps=5)
    drawn = {sampler.solve(problem, seed).energies_usd.tobytes() for seed in range(4)}
    assert len(drawn) > 1


@pytest.mark.parametrize("name", ["structured", "highs"])
def test_solvers_of_the_exact_form_find_small_optima(name):
    for seed in range(3):
        problem = decisions.charging(np.random.default_rng(seed), 4, 3)
        least = problem.energy_usd(decisions.every_choice(problem)).min()
        found = make_sampler(name, reads=10, sweeps=200).solve(problem, 0)
        assert found.raw_choice_energy_usd == pytest.approx(least, abs=1e-6)


def test_exact_takes_the_ground_state_of_the_model_and_others_find_it():
    for seed in range(3):
        problem = decisions.charging(np.random.default_rng(seed), 4, 3)
        dual = relaxed_dual(problem)
        choices = decisions.every_choice(problem)
        ground = choices[centre(problem, dual, 0.1).energy_usd(problem, choices).argmin()]
        found = make_sampler("exact").solve(problem, 0, dual)
        assert found.choice.tolist() == ground.tolist() and found.feasible_share == 1
        for name in ("neal", "sqa", "tabu"):
            energies = make_sampler(name, reads=40, sweeps=200).solve(problem, 0, dual).energies_usd
            assert np.isclose(energies, found.raw_choice_energy_usd).any(), name


def test_idle_and_greedy_are_what_they_say(larger):
    assert not make_sampler("idle").solve(larger, 0).choice.any()
    greedy, best = make_sampler("greedy").solve(larger, 0), make_sampler("highs").solve(larger, 0)
    assert best.raw_choice_energy_usd < greedy.raw_choice_energy_usd < larger.energy_usd(np.zeros(12, int))


def test_units_without_options_need_no_model():
    problem = AggregateQUBO.one_hot(np.arange(4), np.ones(3), np.ones((3, 1)), Pieces.of([(2.0, [])]))
    for name in LOCAL:
        found = make_sampler(name).solve(problem, 0)
        assert found.choice.tolist() == [0, 0, 0] and found.raw_choice_energy_usd == 9.0 and found.variables == 0


def test_sizes_that_cannot_be_solved_are_refused(larger):
    for name, most in (("exact", 18), ("qaoa", 16)):
        with pytest.raises(UserError, match=rf"agent\.sampler={name}.*at most {most}.*48.*structured"):
            make_sampler(name, max_variables=48)
        with pytest.raises(UserError, match=rf"agent\.sampler={name}.*at most {most}.*48"):
            make_sampler(name).solve(larger, 0)
    with pytest.raises(UserError, match=r"no clique of 181 variables.*Pegasus.*structured"):
        make_sampler("mock_qpu", max_variables=181)
    make_sampler("mock_qpu", max_variables=180)
    with pytest.raises(UserError, match=r"'nael' is unknown.*neal"):
        make_sampler("nael")


# --- machines -------------------------------------------------------------------------------------------------


class Odd:
    """A machine that answers by ``reply(bqm)``."""

    used, rho_share = "odd machine", 1.0

    def __init__(self, reply, limit_s=5.0):
        self.reply, self._limit_s = reply, limit_s

    def limit_s(self, bqm):
        return self._limit_s

    def check_size(self, variables):
        pass

    def sample(self, bqm, reads, seed):
        return self.reply(bqm)


def exact(bqm):
    return dimod.ExactSolver().sample(bqm)


def offline(bqm):
    raise ConnectionError("solver is offline\nsecond line")


def not_finite(bqm):
    found = exact(bqm)
    found.record.energy[3] = np.nan
    return found


def wrong_energies(bqm):
    found = exact(bqm)
    found.record.energy[:] += 1.0
    return found


def wrong_variables(bqm):
    return exact(bqm).relabel_variables({v: f"x{v}" for v in bqm.variables})


def too_few(bqm):
    return dimod.ExactSolver().sample(dimod.BinaryQuadraticModel({0: 1.0}, {}, 0.0, "BINARY"))


def wrong_values(bqm):
    found = exact(bqm)
    found.record.sample[0, 0] = 3
    return found


FAULTS = {
    "offline": (offline, "ConnectionError: solver is offline"),
    "nothing": (lambda bqm: None, "NoneType, not a sample set"),
    "no samples": (lambda bqm: exact(bqm).truncate(0), "no samples"),
    "nan": (not_finite, "not finite"),
    "energies": (wrong_energies, "not those of its samples"),
    "names": (wrong_variables, "variables"),
    "shape": (too_few, "1 variables are not the 6"),
    "values": (wrong_values, "other values"),
    "garbage": (lambda bqm: np.zeros((3, 3)), "ndarray, not a sample set"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_local_sampler_stands_in_for_a_faulty_machine(fault, tiny):
    reply, reason = FAULTS[fault]
    sampler = make_sampler("qpu", machine=Odd(reply), reads=4, sweeps=50)
    with pytest.warns(RuntimeWarning, match=reason) as seen:
        found = sampler.solve(tiny, 5)
    assert "\n" not in str(seen[0].message) and "odd machine" in str(seen[0].message)
    local = make_sampler("structured", reads=4, sweeps=50).solve(tiny, 5)
    assert found.choice.tolist() == local.choice.tolist()
    assert found.used == "structured (simulated annealing) in place of odd machine" and found.fallbacks == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # reported once
        assert sampler.solve(tiny, 6).fallbacks == 1
    assert sampler.fallbacks == 2


def test_a_machine_that_hangs_is_left_behind(tiny):
    make_sampler("structured").solve(tiny, 0)  # compiled before the clock runs
    free = threading.Event()
    sampler = make_sampler("qpu", machine=Odd(lambda bqm: free.wait(30), limit_s=0.05))
    with pytest.warns(RuntimeWarning, match=r"no answer within 0\.05 s"):
        found = sampler.solve(tiny, 0)
    free.set()
    assert found.fallbacks == 1 and 0.05 <= found.seconds < 2


def test_a_machine_that_recovers_is_used_again(tiny):
    machine = Odd(offline)
    sampler = make_sampler("qpu", machine=machine)
    with pytest.warns(RuntimeWarning):
        sampler.solve(tiny, 0)
    machine.reply = exact
    found = sampler.solve(tiny, 0)
    assert found.used == "odd machine" and found.fallbacks == 0 and sampler.fallbacks == 1


def test_answers_may_come_as_spins_in_any_order_and_number(tiny):
    wanted = encode(tiny, np.array([1, 0, 2]))

    def reply(bqm):
        order = list(bqm.variables)[::-1]
        spins = np.array([[2 * int(wanted[v]) - 1 for v in order], [-1] * len(order)])
        return dimod.SampleSet.from_samples_bqm((spins, order), bqm.spin, num_occurrences=[3, 1])

    found = make_sampler("qpu", machine=Odd(reply)).solve(tiny, 0)
    energy = tiny.energy_usd(np.array([1, 0, 2]))
    assert len(found.energies_usd) == 4 and (found.energies_usd == energy).sum() == 3
    assert decode(tiny, wanted)[1] and found.fallbacks == 0


def test_a_problem_beyond_the_largest_clique_is_solved_locally():
    problem = decisions.charging(np.random.default_rng(0), 46, 5)
    with pytest.warns(RuntimeWarning, match="no clique of 184 variables"):
        found = make_sampler("mock_qpu").solve(problem, 0)
    assert found.fallbacks == 1 and found.used.startswith("structured")


@pytest.mark.parametrize("topology", ["pegasus", "zephyr"])
def test_the_mock_runs_the_whole_path(topology, larger):
    found = make_sampler("mock_qpu", topology=topology, reads=10).solve(larger, 1)
    assert found.used == f"mock_qpu (simulated annealing on a {topology.capitalize()} graph)"
    assert found.chain_break_share < 0.1 and found.couplers > 0
    assert found.raw_choice_energy_usd < np.median(larger.energy_usd(random_choices(larger, 50)))
    _, cliques = qpu.mock_annealer(topology)
    assert cliques.embedding(33) is cliques.embedding(48)  # padded, made once
    assert cliques.embedding(500) is None


def random_choices(problem, count):
    return np.random.default_rng(0).integers(0, np.diff(problem.first), (count, problem.n_units))


def test_weak_chains_break(larger):
    broken = []
    for prefactor in (0.2, qpu.PREFACTOR):
        machine = qpu.mock_chip("pegasus", 5.0, prefactor)
        broken.append(make_sampler("mock_qpu", machine=machine, reads=20).solve(larger, 0).chain_break_share)
    assert broken[0] > 0.2 and broken[1] < 0.05


def test_torque_knows_when_all_couplings_pull_one_way():
    rng = np.random.default_rng(0)
    n = 60
    i, j = np.triu_indices(n, 1)
    sign = rng.choice([-1, 1], n)
    aligned = dimod.BinaryQuadraticModel.from_numpy_vectors(np.zeros(n), (i, j, sign[i] * sign[j] * 1.0), 0.0, "SPIN")
    chance = rng.choice([-1.0, 1.0], len(i))
    mixed = dimod.BinaryQuadraticModel.from_numpy_vectors(np.zeros(n), (i, j, chance), 0.0, "SPIN")
    assert qpu.torque(mixed) == pytest.approx(np.sqrt(n - 1))  # uniform torque compensation, unscaled
    assert qpu.torque(aligned) == pytest.approx(qpu.ALIGNED * (n - 1))
    assert qpu.torque(dimod.BinaryQuadraticModel({0: 1.0}, {}, 0.0, "SPIN")) == 1.0


@pytest.mark.parametrize("name", CLOUD)
def test_without_a_token_the_way_out_is_named(name, monkeypatch, tmp_path):
    empty = tmp_path / "dwave.conf"
    empty.write_text("")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(empty))
    monkeypatch.delenv("DWAVE_API_TOKEN", raising=False)
    with pytest.raises(UserError) as error:
        make_sampler(name)
    text = str(error.value)
    assert "\n" not in text
    for part in (f"agent.sampler={name}", "DWAVE_API_TOKEN", "configuration file", "structured", "mock_qpu"):
        assert part in text


def test_a_token_in_the_configuration_file_counts(monkeypatch, tmp_path):
    config = tmp_path / "dwave.conf"
    config.write_text("[defaults]\ntoken = ABC-123\n")
    monkeypatch.setenv("DWAVE_CONFIG_FILE", str(config))
    monkeypatch.delenv("DWAVE_API_TOKEN", raising=False)
    assert qpu.has_token()


def test_a_cloud_that_cannot_be_reached_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("DWAVE_API_TOKEN", "ABC-123")
    with pytest.raises(UserError, match=r"agent\.sampler=qpu cannot reach D-Wave \(OSError: no network\).*structured"):
        qpu.connect(lambda: offline_client(), "qpu")


def offline_client():
    raise OSError("no network\nmore")


def test_the_hybrid_solver_gets_at_least_its_minimum(tiny):
    asked = []

    class Solver:
        def min_time_limit(self, bqm):
            return 3.0

        def sample(self, bqm, time_limit):
            asked.append(time_limit)
            return exact(bqm).truncate(1)

    for limit_s in (1.0, 4.0):
        machine = qpu.Leap(Solver(), limit_s)
        found = make_sampler("leap_hybrid", machine=machine).solve(tiny, 0)
        assert found.fallbacks == 0 and found.used.startswith("leap_hybrid")
    assert asked == [3.0, 4.0]
    assert machine.limit_s(None) == 4.0 + qpu.GRACE_S


# --- the circuit ----------------------------------------------------------------------------------------------


def test_the_gates_are_the_circuit_whose_angles_were_sought():
    import pennylane as qml

    bqm = dimod.BinaryQuadraticModel({0: 0.5, 1: -1.0, 2: 0.2}, {(0, 1): 1.0, (1, 2): -0.7}, 0.3, "BINARY")
    energies = qaoa.all_energies(bqm)
    assert energies[0b110] == pytest.approx(bqm.energy({0: 1, 1: 1, 2: 0}))
    spread, angles = 0.8, np.array([[0.7, 1.1], [0.4, 2.0]])

    @qml.qnode(qml.device("default.qubit", wires=3), diff_method=None)
    def circuit():
        qaoa.apply_circuit(bqm, spread, angles)
        return qml.probs(wires=range(3))

    np.testing.assert_allclose(circuit(), qaoa.probabilities(energies / spread, angles), atol=1e-9)


def test_the_circuit_beats_chance(tiny):
    sampler = make_sampler("qaoa", reads=200)
    reads = sampler.solve(tiny, 0).energies_usd
    chance = tiny.energy_usd(decode(tiny, np.random.default_rng(0).random((200, 6)) < 0.5)[0])
    assert reads.mean() < chance.mean() - 2 * chance.std() / np.sqrt(200)


# --- dimod ----------------------------------------------------------------------------------------------------


@dimod.testing.load_sampler_bqm_tests(StructuredSampler)
class TestDimodKit(unittest.TestCase):
    def test_api(self):
        dimod.testing.assert_sampler_api(StructuredSampler())


def glass(seed, n=14, density=1.0):
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(n, 1)
    kept = rng.random(len(i)) < density
    values = (i[kept], j[kept], rng.normal(size=kept.sum()))
    return dimod.BinaryQuadraticModel.from_numpy_vectors(rng.normal(size=n), values, 1.5, "BINARY")


@pytest.mark.parametrize("density", [1.0, 0.15])
def test_our_sampler_finds_ground_states(density):
    for seed in range(5):
        bqm = glass(seed, density=density)
        found = StructuredSampler().sample(bqm, num_reads=20, num_sweeps=200, seed=seed)
        assert found.first.energy == pytest.approx(dimod.ExactSolver().sample(bqm).first.energy)


def test_our_sampler_repeats_itself_by_seed():
    bqm = glass(0, 40)
    first, second, other = (StructuredSampler().sample(bqm, num_reads=5, num_sweeps=3, seed=s) for s in (1, 1, 2))
    assert (first.record.sample == second.record.sample).all()
    assert (first.record.sample != other.record.sample).any()
    unseeded = StructuredSampler().sample(bqm, num_sweeps=3)
    again = StructuredSampler().sample(bqm, num_sweeps=3, seed=unseeded.info["seed"])
    assert (unseeded.record.sample == again.record.sample).all()


def test_the_matrix_and_the_lists_are_one_sampler(monkeypatch):
    bqm = glass(3, 20)
    dense = StructuredSampler().sample(bqm, num_reads=5, num_sweeps=20, seed=1)
    monkeypatch.setattr(sampler_dimod, "DENSE", 2.0)
    sparse = StructuredSampler().sample(bqm, num_reads=5, num_sweeps=20, seed=1)
    assert (dense.record.sample == sparse.record.sample).all()


def test_cold_sweeps_only_go_down():
    bqm = glass(5, 30)
    cold = StructuredSampler().sample(bqm, num_reads=10, num_sweeps=50, beta_range=(1e9, 1e9), seed=0)
    spins = cold.change_vartype("SPIN", inplace=False)
    for sample, energy in spins.data(["sample", "energy"]):
        for v in bqm.variables:
            assert bqm.spin.energy({**sample, v: -sample[v]}) >= energy - 1e-9
