"""Residual edges on a path from the input to the logits: closing the others costs nothing."""

import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph

__all__ = ["connected"]


def connected(config: TransformerConfig, kept: np.ndarray, ablation: str) -> np.ndarray:
    """Of the kept edges, those on a path from the input to the logits: bool `[E]`.

    Closing the others changes no output where closed edges carry what a corrupted run gives. Under
    mean or zero ablation a writer that reads nothing still writes a constant of its own, so there
    only edges without a way to the logits are closed.
    """
    graph = residual_graph(config)
    owners = [reader.split("<")[0] for reader in graph.readers]  # whose read it is
    place = {name: index for index, name in enumerate(graph.writers)}
    feeds = np.array([place.get(owner, len(graph.writers)) for owner in owners])
    kept = np.array(kept, bool)
    reached = np.zeros(len(graph.writers) + 1, bool)  # from the input; the last is the logits
    inputs = [place[name] for name in ("embed", "pos") if name in place]
    useful = np.zeros(len(graph.writers) + 1, bool)
    useful[-1] = True
    if ablation == "interchange":
        reached[inputs[:1]] = True  # positions are the same in both runs: nothing starts there
        for edge in np.argsort(graph.sources, kind="stable"):
            if kept[edge] and reached[graph.sources[edge]]:
                reached[feeds[graph.targets[edge]]] = True
    else:
        reached[:] = True
    for edge in np.argsort(-graph.sources, kind="stable"):
        if kept[edge] and useful[feeds[graph.targets[edge]]]:
            useful[graph.sources[edge]] = True
    return kept & reached[graph.sources] & useful[feeds[graph.targets]]
