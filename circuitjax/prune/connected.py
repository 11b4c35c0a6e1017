"""Residual edges taken from the logits backwards, the best first, so that what is taken is connected.

An edge can be taken once what it is read into is in the circuit: at first only edges into the logits;
taking one brings in its writer, and with it the edges into that writer. Each time the candidate of the
highest score is taken. The first k of this order lie on paths to the logits, whatever k; a cut by
scores alone may hold edges that lead nowhere, and these are lost when it is cleaned.
"""

import heapq

import numpy as np

from circuitjax.model.residual_graph import Graph

__all__ = ["connected_order"]


def connected_order(graph: Graph, scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The edges of a graph in the order in which they are taken, int `[E]`.

    Args:
      graph: writers, readers, edges.
      scores: `[E]`, larger is taken earlier.
      ties: `[E]`, smaller is taken earlier among equal scores.
    """
    into: list[list[int]] = [[] for _ in range(len(graph.writers) + 1)]  # the last is the logits
    for edge, reader in enumerate(graph.targets):
        for writer in graph.feeds[reader] or (len(graph.writers),):
            into[writer].append(edge)
    inside = np.zeros(len(graph.writers), bool)
    taken = np.zeros(graph.num_edges, bool)
    waiting: list[tuple[float, float, int]] = []

    def enter(writer: int) -> None:
        for edge in into[writer]:
            heapq.heappush(waiting, (-float(scores[edge]), float(ties[edge]), edge))

    enter(len(graph.writers))
    order = []
    while waiting:
        edge = heapq.heappop(waiting)[-1]
        if taken[edge]:
            continue  # heads that share keys or values share the edges into them
        taken[edge] = True
        order.append(edge)
        writer = graph.sources[edge]
        if not inside[writer]:
            inside[writer] = True
            enter(int(writer))
    return np.array(order, np.int64)
