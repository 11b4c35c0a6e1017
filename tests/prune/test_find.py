"""Which candidate wins, and what becomes of it."""

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.circuit import find
from circuitjax.circuit.find import Candidate, Job, default_jobs, empty_candidate, pick
from circuitjax.circuit.find_baseline import find_baseline_circuit
from circuitjax.model.sites import address
from circuitjax.model.transformer import apply
from circuitjax.prune.baselines import RANKINGS
from circuitjax.prune.config import Hyper
from circuitjax.prune.evaluate import answers
from circuitjax.prune.objective import logit_differences
from tests.prune.planted import CONFIG, PLANTED, PRUNE, TASK, planted_model, planted_problem

HYPERS = [Hyper(c, init_noise_scale=0.05, lr=0.02) for c in (0.01, 0.02)]
JOBS = [Job(index, hyper) for index, hyper in enumerate(HYPERS)]


def candidate(reached, loss, edges, nodes=3, rough=False) -> Candidate:
    choice = SimpleNamespace(reached=reached, loss=loss, rough=rough)
    return Candidate(JOBS[0], choice, {"a": np.ones((1, nodes), bool)}, {}, {}, edges)


@pytest.mark.parametrize(
    ("offered", "winner"),
    [
        # Fewest edges among those that meet the target, whatever their loss.
        ([(True, 0.14, 9), (True, 0.01, 10), (False, 0.2, 1)], 0),
        ([(False, 0.16, 1), (True, 0.15, 50)], 1),
        # Equal edges: fewer nodes.
        ([(True, 0.1, 5, 8), (True, 0.1, 5, 7)], 1),
        # None meets it: the lowest loss, however large.
        ([(False, 0.3, 1), (False, 0.2, 900), (False, 0.25, 2)], 1),
        ([(False, math.inf, 1), (False, 0.9, 900)], 1),
        # What was looked at on a few pairs only is no circuit, whatever it promises.
        ([(True, 0.1, 1, 1, True), (True, 0.1, 9)], 1),
        ([(True, 0.1, 1, 1, True), (False, 0.9, 9)], 1),
    ],
)
def test_the_pick(offered, winner):
    candidates = [candidate(*offer) for offer in offered]
    assert pick(candidates) is candidates[winner]


def test_default_jobs_are_seeds_times_settings():
    jobs = default_jobs(100, [3, 4], lr=0.5)
    assert [job.seed for job in jobs] == [3] * 8 + [4] * 8
    multiples = [job.hyper.k_coef * 100 / 18 for job in jobs[:8]]
    assert multiples == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0, 3.0])
    assert [job.hyper.k_coef for job in jobs[8:]] == [job.hyper.k_coef for job in jobs[:8]]
    assert {job.hyper.lr for job in jobs} == {0.5}
    assert [job.hyper.k_coef for job in default_jobs(100, [0], k_coef=0.7)] == [0.7]
    for seed in (-1, 2**32):
        with pytest.raises(ValueError, match="seed is"):
            default_jobs(100, [seed])


@pytest.mark.parametrize("mode", ["inside", "off"])
def test_the_empty_candidate_is_calibrated_unless_that_is_off(mode):
    problem = dataclasses.replace(
        planted_problem(), prune=dataclasses.replace(PRUNE, calibrate=mode, target_loss=0.8)
    )
    found = empty_candidate(problem, JOBS[0])
    assert found.nodes == 0
    assert found.choice.reached
    if mode == "off":
        assert (found.choice.scale, found.choice.shift) == (1, 0)
        assert found.choice.loss == found.choice.loss_uncalibrated
    else:  # both prompts of a pair end alike
        assert found.choice.loss == pytest.approx(np.log(2), abs=1e-4)


def test_one_call_finds_a_circuit_and_cleaning_up_changes_no_answer():
    problem, kept = planted_problem(), []
    state = find.train_masks(problem, find.initial_state(problem, JOBS))
    found = find.candidates_of(problem, JOBS, state)
    for one in found:
        before = answers(problem, problem.test, [one.choice.mask]).differences
        fills = {site: jnp.asarray(fill) for site, fill in one.fills.items()}
        after = answers(problem, problem.test, [one.mask], fills).differences
        np.testing.assert_allclose(before, after, atol=1e-4)
        removed = sum(int(m.sum()) for m in one.choice.mask.values()) - one.nodes
        assert removed == sum(one.removed.values())
    best = pick(found)

    model = planted_model()
    circuit = find.find_circuit(
        model, TASK, PRUNE, jobs=JOBS, on_chunk=lambda s, m: kept.append(int(s.step[0]))
    )
    assert kept == [20, 40, 60]
    for site, mask in best.mask.items():
        np.testing.assert_array_equal(circuit.mask[site], mask)
    facts = circuit.provenance
    assert circuit.model_hash == model.hash
    assert facts["task"] == TASK.name
    assert facts["reached"] is True
    assert facts["ranking"] == "learned"
    assert facts["seed"] == best.job.seed
    assert facts["hyper"] == best.job.hyper.to_dict()
    assert facts["config"] == PRUNE.to_dict()
    # Run by itself, the circuit does what its record says.
    pairs = problem.validation
    size, _, length = pairs.tokens.shape
    logits = apply(
        CONFIG,
        jax.tree.map(jnp.asarray, dict(model.params)),
        pairs.tokens.reshape(-1, length),
        circuit.gates(),
        {site: jnp.asarray(fill) for site, fill in circuit.fills.items()},
        positions=pairs.last.reshape(-1, 1),
    ).logits.reshape(size, 2, -1)
    difference = np.asarray(logit_differences(logits, pairs.answers), np.float64)
    moved = np.array([-1.0, 1.0]) * (circuit.scale * difference + circuit.shift)
    loss = float(np.mean(np.logaddexp(0, moved)))
    assert facts["validation_loss"] == pytest.approx(loss, abs=1e-4)
    assert loss <= PRUNE.target_loss


@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_planted_circuit_is_found_by_every_ranking(ranking):
    model = planted_model()
    circuit = find_baseline_circuit(model, TASK, ranking, PRUNE, seed=3)
    assert circuit.provenance["ranking"] == ranking
    assert circuit.provenance["reached"] is True
    assert circuit.provenance["hyper"]["ranking"] == ranking
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    found = answers(planted_problem(), planted_problem().test, [circuit.mask], fills).differences
    moved = circuit.scale * np.asarray(found[0], np.float64) + circuit.shift
    assert np.mean(np.logaddexp(0, moved * np.array([-1.0, 1.0]))) <= 0.2
    # Nothing but a path from the letter to the answer can do it: some node of each step is kept.
    steps = {address(CONFIG, 0, "attn.resid_delta", 1), address(CONFIG, 1, "mlp.resid_delta", 2)}
    assert steps <= set(circuit.nodes) & set(PLANTED)
