"""Mean activations against plain averages of captured ones."""

import numpy as np
import pytest

from circuitjax.model import means
from circuitjax.model.bigram import bigram_table, count_bigrams
from circuitjax.model.config import SITES
from circuitjax.model.transformer import apply


def test_means_pool_over_all_tokens(tiny_model, rng, monkeypatch):
    monkeypatch.setattr(means, "MIN_TOKENS", 100)
    batches = [
        rng.integers(0, 24, (5, 8)),
        rng.integers(0, 24, (5, 8)),
        rng.integers(0, 24, (5, 8)),
    ]
    found, tokens = means.activation_means(tiny_model.config, tiny_model.params, batches)
    assert tokens == 120
    rows = np.concatenate(batches)
    seen = apply(tiny_model.config, tiny_model.params, rows, capture=SITES).captured
    for site in SITES:
        expected = np.asarray(seen[site], np.float64).mean(axis=(1, 2))
        np.testing.assert_allclose(found[site], expected, atol=1e-5)


def test_batches_of_unequal_size_weigh_by_their_tokens(tiny_model, rng, monkeypatch):
    monkeypatch.setattr(means, "MIN_TOKENS", 1)
    rows = rng.integers(0, 24, (6, 8))
    whole, _ = means.activation_means(tiny_model.config, tiny_model.params, [rows])
    parts, _ = means.activation_means(tiny_model.config, tiny_model.params, [rows[:1], rows[1:]])
    for site in SITES:
        np.testing.assert_allclose(parts[site], whole[site], atol=1e-5)


def test_too_few_tokens_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"means over 16 tokens are too few: give at least 262144"):
        means.activation_means(tiny_model.config, tiny_model.params, [np.zeros((2, 8), int)])


def test_bigrams_are_counted_and_smoothed():
    tokens = np.array([0, 1, 0, 1, 2, 0], np.uint16)
    counts = count_bigrams([(tokens, 2.0), (tokens[:2], 1.0)], 3)
    np.testing.assert_array_equal(counts, [[0, 5, 0], [2, 0, 2], [2, 0, 0]])
    table = bigram_table(counts)
    assert table.dtype == np.float32
    np.testing.assert_allclose(np.exp(table.astype(float)).sum(axis=1), 1, atol=2e-3)
    # Row 0: 5 of 5 go to 1; the prior is (4+1, 5+1, 2+1) / 14.
    expected = np.log((np.array([0, 5, 0]) + np.array([5, 6, 3]) / 14) / 6)
    np.testing.assert_allclose(table[0], expected, atol=2**-11 + 1e-6)
    np.testing.assert_array_equal(table * 1024, np.round(table * 1024))
