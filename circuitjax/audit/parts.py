"""What each part of a circuit does by itself: every node and every edge closed, one at a time.

    effect of a part = loss without it - loss of the circuit,   in nats

by the audit's measure, under the circuit's stored calibration. A closed node holds what replaces it; a
closed edge carries what replaces its source.
"""

import dataclasses

import numpy as np

from circuitjax.audit.measure import Measure, Variants
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.prune.problem import Problem

__all__ = ["Effects", "effects"]

_MOST = 192  # parts of one kind that are closed one by one; beyond, the rest is estimated


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """What each part does by itself; losses in nats.

    Attributes:
      loss: of the circuit, on the same examples.
      nodes: {address: effect}; empty where a circuit has no gates on nodes.
      edges: {(source, target): effect}.
      estimated_nodes, estimated_edges: how many of them, those with the smallest estimates, are known
        to first order only.
    """

    loss: float
    nodes: dict[str, float]
    edges: dict[tuple[str, str], float]
    estimated_nodes: int = 0
    estimated_edges: int = 0

    def by_name(self, kind: str) -> dict[str, float]:
        """Effects of the `nodes` or the `edges` by the names of their gates."""
        if kind == "nodes":
            return self.nodes
        return {"->".join(ends): value for ends, value in self.edges.items()}


def effects(
    problem: Problem,
    measure: Measure,
    circuit: Circuit,
    examples: Examples,
    *,
    most: int = _MOST,
    edges: bool = True,
) -> Effects:
    """Closes every node and every edge of a circuit, one at a time.

    Args:
      problem: model and how its examples are cut.
      measure: the loss.
      circuit: of that model.
      examples: to measure on.
      most: nodes, and edges, that are closed one by one: those of the largest first-order estimates.
      edges: False leaves the edges out where there are nodes.
    """
    views, stored = circuit.parts(problem.model), measure.stored(circuit)
    if not edges and len(views) > 1:
        views = {"nodes": views["nodes"]}
    of_circuit: list[float] = []
    estimated = {"nodes": 0, "edges": 0}
    found: dict[str, dict[str, float]] = {"nodes": {}, "edges": {}}
    for kind, view in views.items():
        variants = Variants(problem, view, measure.kind)
        asked = variants.asked(examples)
        places = np.flatnonzero(variants.gates)
        rises, chosen = np.zeros(len(places)), np.arange(len(places))
        if len(places) > most:
            rises = variants.slopes(examples, variants.gates)[places]
            chosen = np.argsort(-np.abs(rises), kind="stable")[:most]
        rows = np.broadcast_to(variants.gates, (len(chosen) + 1, variants.gates.size)).copy()
        rows[np.arange(len(chosen)), places[chosen]] = False
        losses = measure.losses(variants.answers(asked, rows), stored)
        of_circuit.append(float(losses[-1]))
        rises[chosen] = losses[:-1] - losses[-1]
        names = variants.model.names()
        found[kind] = {names[place]: float(x) for place, x in zip(places, rises, strict=True)}
        estimated[kind] = len(places) - len(chosen)
    of_edges = {(name.split("->")[0], name.split("->")[1]): x for name, x in found["edges"].items()}
    return Effects(of_circuit[0], found["nodes"], of_edges, estimated["nodes"], estimated["edges"])
