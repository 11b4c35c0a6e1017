"""The fixed bigram table: smoothed log counts of the training stream, never trained.

    table[a, b] = log (n(a, b) + s p(b)) / (n(a) + s)

with counts n, the add-one unigram distribution p, and s = `smoothing` prior counts. Stored as
sparse counts: the dense table of a 2,048-token vocabulary is 16 MiB, its counts well below one.
"""

import numpy as np

__all__ = ["bigram_table", "count_bigrams"]


def count_bigrams(streams: list[tuple[np.ndarray, float]], vocab_size: int) -> np.ndarray:
    """Counts adjacent token pairs.

    Args:
      streams: flat token arrays with the weight of each: how often the training reads it relative
        to its length.
      vocab_size: V.

    Returns:
      float64 counts `[V, V]`, first axis the current token.
    """
    counts = np.zeros((vocab_size, vocab_size))
    for tokens, weight in streams:
        flat = tokens[:-1].astype(np.int64) * vocab_size + tokens[1:]
        counts += weight * np.bincount(flat, minlength=vocab_size**2).reshape(counts.shape)
    return counts


def bigram_table(counts: np.ndarray, smoothing: float = 1.0) -> np.ndarray:
    """Smoothed log probabilities, float32 `[V, V]`, from counts `[V, V]`.

    Rounded to multiples of 2^-10 nats, so that logarithms that differ in the last bit between
    machines give the same table and hence the same content hash.
    """
    counts = np.asarray(counts, np.float64)
    unigram = counts.sum(axis=0) + 1
    unigram /= unigram.sum()
    total = counts.sum(axis=1, keepdims=True)
    table = np.log((counts + smoothing * unigram) / (total + smoothing))
    return (np.round(table * 1024) / 1024).astype(np.float32)
