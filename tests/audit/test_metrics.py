"""Metrics against loops over single examples in float64, and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from circuitjax.audit import metrics

BATCH, VOCABULARY, RIGHT, WRONG = 40, 23, 5, 7


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, (BATCH, VOCABULARY)).astype(np.float32)


@pytest.fixture
def full(rng: np.random.Generator) -> np.ndarray:
    return np.random.default_rng(9).normal(0, 3, (BATCH, VOCABULARY)).astype(np.float32)


@pytest.fixture
def sets(rng: np.random.Generator) -> tuple[list[list[int]], list[list[int]]]:
    """Right and wrong completions of each example: disjoint, 1 to 5 and 1 to 7 of them."""
    right, wrong = [], []
    for _ in range(BATCH):
        order = rng.permutation(VOCABULARY).tolist()
        right.append(order[: rng.integers(1, RIGHT + 1)])
        wrong.append(order[RIGHT : RIGHT + rng.integers(1, WRONG + 1)])
    return right, wrong


def padded(lists: list[list[int]], width: int) -> jax.Array:
    return jnp.array([row + [-1] * (width - len(row)) for row in lists], jnp.int32)


@pytest.fixture
def tokens(sets) -> tuple[jax.Array, jax.Array]:
    return padded(sets[0], RIGHT), padded(sets[1], WRONG)


def test_logit_difference(logits, sets, tokens):
    found = metrics.logit_difference(jnp.asarray(logits), *tokens)
    assert found.dtype == jnp.float32
    for row, right, wrong, value in zip(logits.astype(float), *sets, found, strict=True):
        assert value == pytest.approx(row[right].mean() - row[wrong].mean(), abs=1e-5)


def test_probability_difference(logits, sets, tokens):
    found = metrics.probability_difference(jnp.asarray(logits), *tokens)
    for row, right, wrong, value in zip(logits.astype(float), *sets, found, strict=True):
        p = scipy.special.softmax(row)
        assert value == pytest.approx(p[right].sum() - p[wrong].sum(), abs=1e-6)


def test_accuracy(logits, sets, tokens):
    found = metrics.accuracy(jnp.asarray(logits), *tokens)
    for row, right, wrong, value in zip(logits, *sets, found, strict=True):
        assert value == float(max(right + wrong, key=lambda token: row[token]) in right)
    assert 0 < float(found.mean()) < 1


def test_a_tie_is_not_accurate():
    one = jnp.array([[0]])
    assert metrics.accuracy(jnp.zeros((1, 3)), one, one + 1)[0] == 0


def test_exact_match(logits, full):
    full[::2] = logits[::2] + 5.0
    found = metrics.exact_match(jnp.asarray(logits), jnp.asarray(full))
    for row, other, value in zip(logits, full, found, strict=True):
        assert value == float(row.argmax() == other.argmax())
    assert (np.asarray(found)[::2] == 1).all()


def test_kl_is_the_full_models_relative_to_the_circuit(logits, full):
    found = metrics.kl(jnp.asarray(logits), jnp.asarray(full))
    for row, other, value in zip(logits.astype(float), full.astype(float), found, strict=True):
        want = scipy.stats.entropy(scipy.special.softmax(other), scipy.special.softmax(row))
        assert value == pytest.approx(want, rel=1e-4)
    np.testing.assert_allclose(metrics.kl(jnp.asarray(full), jnp.asarray(full)), 0, atol=1e-6)


def test_kl_where_the_full_model_rules_a_token_out(logits, full):
    full[:, 3] = -np.inf
    want = scipy.special.rel_entr(
        scipy.special.softmax(full.astype(float), axis=-1),
        scipy.special.softmax(logits.astype(float), axis=-1),
    ).sum(axis=-1)
    np.testing.assert_allclose(metrics.kl(jnp.asarray(logits), jnp.asarray(full)), want, rtol=1e-4)
    logits[:, 3] = -np.inf
    assert np.isfinite(metrics.kl(jnp.asarray(logits), jnp.asarray(full))).all()
    logits[:, 4] = -np.inf
    assert np.isposinf(metrics.kl(jnp.asarray(logits), jnp.asarray(full))).all()


def test_padding_and_a_constant_change_nothing(logits, sets, tokens):
    wide = padded(sets[0], RIGHT + 4), padded(sets[1], WRONG + 9)
    for metric in (*metrics.TASK_METRICS.values(), metrics.accuracy):
        one = metric(jnp.asarray(logits), *tokens)
        np.testing.assert_array_equal(metric(jnp.asarray(logits), *wide), one)
        np.testing.assert_allclose(metric(jnp.asarray(logits) + 2.0, *tokens), one, atol=1e-5)


def test_what_padding_would_pick_cannot_leak(logits, tokens):
    """Neither the first nor the last token, which -1 could stand for, counts when it is in no set."""
    right, wrong = (jnp.where((t == 0) | (t == VOCABULARY - 1), 1, t) for t in tokens)
    changed = logits.copy()
    changed[:, [0, -1]] = 1e4
    for metric in (metrics.logit_difference, metrics.accuracy):
        np.testing.assert_array_equal(
            metric(jnp.asarray(changed), right, wrong), metric(jnp.asarray(logits), right, wrong)
        )


def test_half_precision_is_summed_in_single(logits, tokens):
    half = jnp.asarray(logits, jnp.bfloat16)
    for metric in metrics.TASK_METRICS.values():
        found = metric(half, *tokens)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, metric(half.astype(jnp.float32), *tokens))
    assert metrics.kl(half, half).dtype == jnp.float32


def test_under_jit_and_vmap(logits, full, tokens):
    both = jnp.stack([jnp.asarray(logits), jnp.asarray(full)])
    for metric in metrics.TASK_METRICS.values():
        mapped = jax.jit(jax.vmap(metric, in_axes=(0, None, None)))(both, *tokens)
        for one, row in zip(both, mapped, strict=True):
            np.testing.assert_allclose(row, metric(one, *tokens), atol=1e-5)
