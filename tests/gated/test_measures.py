"""Measures against loops over single examples in float64, and against SciPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from circuitjax.gated import measures

BATCH, VOCABULARY, RIGHT, WRONG = 40, 23, 5, 7
OF_SETS = (
    measures.logit_difference,
    measures.probability_difference,
    lambda logits, batch: measures.odds_of(picked(logits, batch), batch),
    measures.vocabulary_losses,
)


@pytest.fixture
def logits(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, (BATCH, 1, VOCABULARY)).astype(np.float32)


@pytest.fixture
def full() -> np.ndarray:
    return np.random.default_rng(9).normal(0, 3, (BATCH, 1, VOCABULARY)).astype(np.float32)


@pytest.fixture
def sets(rng: np.random.Generator) -> tuple[list[list[int]], list[list[int]]]:
    """Right and wrong completions of each example: disjoint, 1 to 5 and 1 to 7 of them."""
    right, wrong = [], []
    for _ in range(BATCH):
        order = rng.permutation(VOCABULARY).tolist()
        right.append(order[: rng.integers(1, RIGHT + 1)])
        wrong.append(order[RIGHT : RIGHT + rng.integers(1, WRONG + 1)])
    return right, wrong


def batch_of(sets, more: int = 0) -> SimpleNamespace:
    def padded(lists, width):
        return jnp.array([row + [-1] * (width - len(row)) for row in lists], jnp.int32)

    return SimpleNamespace(
        right=padded(sets[0], RIGHT + more), wrong=padded(sets[1], WRONG + 2 * more)
    )


def picked(logits, batch):
    tokens = jnp.concatenate([batch.right, batch.wrong], axis=1)
    return jnp.take_along_axis(jnp.asarray(logits)[:, 0], jnp.maximum(tokens, 0), axis=1)


def rows(logits, sets):
    return zip(logits[:, 0].astype(float), *sets, strict=True)


def test_logit_difference(logits, sets):
    found = measures.logit_difference(jnp.asarray(logits), batch_of(sets))
    expected = [row[right].mean() - row[wrong].mean() for row, right, wrong in rows(logits, sets)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_probability_difference(logits, sets):
    found = measures.probability_difference(jnp.asarray(logits), batch_of(sets))
    expected = []
    for row, right, wrong in rows(logits, sets):
        p = scipy.special.softmax(row)
        expected.append(p[right].sum() - p[wrong].sum())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_task_loss_is_that_of_a_choice_between_right_and_wrong(logits, sets):
    batch = batch_of(sets)
    odds = measures.odds_of(picked(logits, batch), batch)
    expected = []
    for row, right, wrong in rows(logits, sets):
        p = scipy.special.softmax(row)
        expected.append(-np.log(p[right].sum() / (p[right].sum() + p[wrong].sum())))
    np.testing.assert_allclose(measures.task_losses(odds), expected, rtol=1e-4, atol=1e-6)
    assert measures.mean_task_loss(np.asarray(odds)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_one_right_and_one_wrong_are_a_difference_of_logits(logits):
    batch = SimpleNamespace(right=jnp.full((BATCH, 1), 3), wrong=jnp.full((BATCH, 1), 8))
    odds = measures.odds_of(picked(logits, batch), batch)
    np.testing.assert_array_equal(odds, logits[:, 0, 3] - logits[:, 0, 8])


def test_the_vocabulary_loss_is_that_of_the_right_completions(logits, sets):
    found = measures.vocabulary_losses(jnp.asarray(logits), batch_of(sets))
    expected = [
        -np.log(scipy.special.softmax(row)[right].sum()) for row, right, _ in rows(logits, sets)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_shift_favours_one_completion_after_both_prompts_of_a_pair():
    """With answers a and b, the calibrated difference of a against b is scale * difference + shift."""
    rng = np.random.default_rng(2)
    differences = rng.normal(size=(6, 2))  # of a against b, after each prompt of a pair
    odds = (differences * [1, -1]).reshape(-1).astype(np.float32)  # of each prompt's own answer
    for numbers in (np.asarray, jnp.asarray):
        found = np.asarray(measures.calibrated_odds(numbers(odds), 1.5, 0.25))
        expected = (1.5 * differences + 0.25) * [1, -1]
        np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-5, atol=1e-6)
    several = measures.calibrated_odds(np.stack([odds, odds]), np.array([1.0, 2.0]), np.zeros(2))
    np.testing.assert_allclose(several, np.stack([odds, 2 * odds]), rtol=1e-6)


def test_agreement_is_on_the_most_probable_token(logits, full):
    full[::2] = logits[::2] + 5.0
    found = np.asarray(measures.agreement(jnp.asarray(logits), jnp.asarray(full)))
    np.testing.assert_array_equal(found, logits[:, 0].argmax(1) == full[:, 0].argmax(1))
    assert found[::2].all()
    assert not found.all()


def test_kl_is_the_full_models_relative_to_the_circuit(logits, full):
    found = measures.kl_divergence(jnp.asarray(logits), jnp.asarray(full))
    circuit, whole = (scipy.special.softmax(x[:, 0].astype(float), axis=-1) for x in (logits, full))
    expected = [scipy.stats.entropy(q, p) for q, p in zip(whole, circuit, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    same = measures.kl_divergence(jnp.asarray(full), jnp.asarray(full))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    both = [np.concatenate([x, y], axis=1) for x, y in ((logits, full), (full, logits))]
    back = measures.kl_divergence(jnp.asarray(full), jnp.asarray(logits))
    mean = measures.kl_divergence(*map(jnp.asarray, both))
    np.testing.assert_allclose(mean, (found + back) / 2, rtol=1e-4)


def test_kl_where_the_full_model_rules_a_token_out(logits, full):
    full[..., 3] = -np.inf
    circuit, whole = (scipy.special.softmax(x[:, 0].astype(float), axis=-1) for x in (logits, full))
    expected = scipy.special.rel_entr(whole, circuit).sum(axis=-1)
    found = measures.kl_divergence(jnp.asarray(logits), jnp.asarray(full))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    logits[..., 3] = -np.inf
    assert np.isfinite(measures.kl_divergence(jnp.asarray(logits), jnp.asarray(full))).all()
    logits[..., 4] = -np.inf
    assert np.isposinf(measures.kl_divergence(jnp.asarray(logits), jnp.asarray(full))).all()


@pytest.mark.parametrize("measure", OF_SETS)
def test_padding_and_a_constant_change_nothing(logits, sets, measure):
    one = measure(jnp.asarray(logits), batch_of(sets))
    wide = measure(jnp.asarray(logits), batch_of(sets, more=4))
    np.testing.assert_allclose(wide, one, rtol=1e-6)
    moved = measure(jnp.asarray(logits) + 2.0, batch_of(sets))
    np.testing.assert_allclose(moved, one, atol=1e-5)


def test_what_padding_would_pick_cannot_leak(logits, sets):
    """Neither the first nor the last token, which -1 could stand for, counts when it is in no set."""
    edges = (0, VOCABULARY - 1)
    sets = [[[1 if t in edges else t for t in row] for row in side] for side in sets]
    changed = logits.copy()
    changed[..., list(edges)] = 1e4
    for measure in (OF_SETS[0], OF_SETS[2]):
        np.testing.assert_array_equal(
            measure(jnp.asarray(changed), batch_of(sets)),
            measure(jnp.asarray(logits), batch_of(sets)),
        )


def test_under_jit_and_vmap(logits, full, sets):
    batch = batch_of(sets)
    both = jnp.stack([jnp.asarray(logits), jnp.asarray(full)])
    for measure in OF_SETS:
        mapped = jax.jit(jax.vmap(lambda x, measure=measure: measure(x, batch)))(both)
        for one, row in zip(both, mapped, strict=True):
            np.testing.assert_allclose(row, measure(one, batch), atol=1e-5)
