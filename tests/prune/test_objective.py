"""Losses against NumPy, and the gradient against finite differences times the surrogate's slope."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model.sites import shapes
from circuitjax.prune import objective
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import gates_of
from circuitjax.prune.objective import Pairs


def draw_pairs(rng, count=5, length=6, vocabulary=24) -> Pairs:
    answers = [rng.choice(vocabulary, 2, replace=False) for _ in range(count)]
    return Pairs(
        jnp.asarray(rng.integers(0, vocabulary, (count, 2, length)), jnp.int32),
        jnp.asarray(rng.integers(1, length, (count, 2)), jnp.int32),
        jnp.asarray(np.array(answers), jnp.int32),
    )


def softmax_loss(logits: np.ndarray, right: int) -> float:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return float(-np.log(shifted[right] / shifted.sum()))


def test_task_losses_are_softmax_cross_entropies(rng):
    logits = rng.normal(0, 3, (7, 2, 24)).astype(np.float32)
    answers = np.asarray(draw_pairs(rng, 7).answers)
    binary, vocabulary = [], []
    for pair, (a, b) in zip(logits, answers, strict=True):
        for row, right in enumerate((a, b)):
            binary.append(softmax_loss(pair[row][[a, b]], row))
            vocabulary.append(softmax_loss(pair[row], right))
    for kind, expected in (("binary", binary), ("vocabulary", vocabulary)):
        prune = PruneConfig(loss=kind)
        found = objective.task_loss(prune, jnp.asarray(logits), jnp.asarray(answers))
        np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)
    differences = objective.logit_differences(jnp.asarray(logits), jnp.asarray(answers))
    each = objective.binary_losses(differences)
    np.testing.assert_allclose(np.ravel(each), binary, rtol=1e-4)
    # One number added to every logit changes nothing; equal logits are chance.
    moved = objective.task_loss(PruneConfig(), jnp.asarray(logits) + 3, jnp.asarray(answers))
    np.testing.assert_allclose(moved, np.mean(binary), rtol=1e-4)
    level = objective.task_loss(PruneConfig(), jnp.zeros((7, 2, 24)), jnp.asarray(answers))
    np.testing.assert_allclose(level, np.log(2), rtol=1e-6)


def test_a_scale_and_a_shift_per_completion_is_what_calibration_does(rng):
    logits = rng.normal(0, 2, (7, 2, 24)).astype(np.float32)
    answers = np.asarray(draw_pairs(rng, 7).answers)
    scale, first, second = 1.7, 0.4, -0.9
    moved = scale * logits
    for pair, (a, b) in zip(moved, answers, strict=True):
        pair[:, a] += first
        pair[:, b] += second
    expected = objective.logit_differences(jnp.asarray(moved), jnp.asarray(answers))
    plain = objective.logit_differences(jnp.asarray(logits), jnp.asarray(answers))
    found = objective.calibrated_differences(plain, scale, first - second)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_answers_are_read_at_each_prompts_own_end(tiny_model, rng):
    """What lies to the right of a prompt's last token does not matter."""
    pairs = draw_pairs(rng)
    tokens = np.array(pairs.tokens)
    for place in np.ndindex(5, 2):
        tokens[place][int(pairs.last[place]) + 1 :] = 3
    params = jax.tree.map(jnp.asarray, dict(tiny_model.params))
    logits = [
        objective.answer_logits(tiny_model.config, params, p, None, None)
        for p in (pairs, pairs.replace(tokens=jnp.asarray(tokens)))
    ]
    assert logits[0].shape == (5, 2, 24)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


@pytest.mark.parametrize("loss", ["binary", "vocabulary"])
def test_gradient_is_the_gates_derivative_times_the_surrogates_slope(tiny_model, rng, loss):
    config, prune = tiny_model.config, PruneConfig(loss=loss)
    params = jax.tree.map(jnp.asarray, dict(tiny_model.params))
    pairs, hyper = draw_pairs(rng), Hyper(k_coef=0.03, heaviside_temp=0.7)
    tau = {s: jnp.asarray(rng.normal(0, 0.5, n), jnp.float32) for s, n in shapes(config).items()}
    fills = {s: jnp.asarray(rng.normal(size=n), jnp.float32) for s, n in shapes(config).items()}

    @jax.jit
    def task_of(gates):
        logits = objective.answer_logits(config, params, pairs, gates, fills)
        return objective.task_loss(prune, logits, pairs.answers)

    def whole(t):
        return objective.pruning_loss(config, prune, params, t, hyper, fills, pairs)

    (total, parts), gradient = jax.jit(jax.value_and_grad(whole, has_aux=True))(tau)
    hard = {site: np.asarray(t > 0, np.float32) for site, t in tau.items()}
    size = sum(m.sum() for m in hard.values())
    np.testing.assert_allclose(parts["k"], size)
    np.testing.assert_allclose(parts["task"], task_of(gates_of(tau, 1.0)), rtol=1e-5)
    np.testing.assert_allclose(total, parts["task"] + 0.03 * size, rtol=1e-5)
    for site, mask in hard.items():
        for _ in range(3):
            place = tuple(rng.integers(0, n) for n in mask.shape)
            sides = []
            for step in (0.02, -0.02):
                moved = mask.copy()
                moved[place] += step
                sides.append(float(task_of({**hard, site: moved})))
            derivative = (sides[0] - sides[1]) / 0.04
            logistic = 1 / (1 + np.exp(-float(tau[site][place]) / 0.7))
            slope = logistic * (1 - logistic) / 0.7
            expected = (derivative + 0.03) * slope
            assert float(gradient[site][place]) == pytest.approx(expected, rel=0.02, abs=2e-4)
