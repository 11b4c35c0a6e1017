"""Tokens that a node is nearest to: those that feed it and those that it feeds, to first order.

    of a read or write on residual channel c    embedding[:, c]             unembedding[c, :]
    of q, k, v, a neuron                        sum_c embedding[:, c] W_c    sum_c V_c unembedding[c, :]

with W the weights from the node's kept reads and V those to its kept writes. Norms' scales of the
token at hand, positions, and what other nodes add are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["nearest_tokens", "token_texts"]

_COUNT = 8  # per node and side

Edge = tuple[str, str, float | None]


def nearest_tokens(
    model: Model, nodes: Sequence[str], edges: Sequence[Edge]
) -> list[dict[str, list[list[Any]]]]:
    """For each node `embed` and `unembed`: [token id, weight] of the largest magnitudes.

    Args:
      model: with a tokenizer; without one every list is empty.
      nodes: addresses.
      edges: (source, target, weight), as from `Circuit.edges`.
    """
    if not model.tokenizer_json:
        return [{"embed": [], "unembed": []} for _ in nodes]
    size = min(Tokenizer.from_json(model.tokenizer_json).vocab_size, model.config.vocab_size)
    into = np.asarray(model.params["embed"], np.float32)[:size]
    tied = model.config.tied_unembedding
    out = into.T if tied else np.asarray(model.params["unembed"], np.float32)[:, :size]
    reads: dict[str, list[tuple[int, float]]] = {}
    writes: dict[str, list[tuple[int, float]]] = {}
    for source, target, weight in edges:
        _, site, channel = parse_address(model.config, source)
        if site.endswith("act_in") and channel < model.config.d_model:
            reads.setdefault(target, []).append((channel, weight or 0.0))
        _, site, channel = parse_address(model.config, target)
        if site.endswith("resid_delta"):
            writes.setdefault(source, []).append((channel, weight or 0.0))
    found = []
    for name in nodes:
        _, site, channel = parse_address(model.config, name)
        on_stream = site.endswith(("act_in", "resid_delta"))
        if on_stream:
            both = [(channel, 1.0)] if channel < model.config.d_model else []
            fed, feeds = both, both
        else:
            fed, feeds = reads.get(name, []), writes.get(name, [])
        found.append(
            {
                "embed": _largest(_mixed(into.T, fed)),
                "unembed": _largest(_mixed(out, feeds)),
            }
        )
    return found


def _mixed(table: np.ndarray, parts: Sequence[tuple[int, float]]) -> np.ndarray | None:
    """Weighted sum of the rows of a table `[D, V]`."""
    if not parts:
        return None
    channels, weights = zip(*parts, strict=True)
    mixed: np.ndarray = np.asarray(weights, np.float32) @ table[list(channels)]
    return mixed


def _largest(values: np.ndarray | None) -> list[list[Any]]:
    if values is None:
        return []
    order = np.argsort(-np.abs(values), kind="stable")[:_COUNT]
    return [[int(i), float(f"{values[i]:.4g}")] for i in order if values[i] != 0]


def token_texts(model: Model, ids: set[int]) -> Mapping[str, str]:
    """{id: text} of some tokens; empty without a tokenizer."""
    if not model.tokenizer_json:
        return {}
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    size = tokenizer.vocab_size
    return {str(i): tokenizer.decode([i]) if i < size else f"token {i}" for i in sorted(ids)}
