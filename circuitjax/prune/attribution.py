"""What gradients say of each gate: attribution and its relatives, a slope per gate and place on a path.

    gain of a gate  =  - dL/dz,  or  d odds/dz, averaged over places z on a path      (nats, signed)

On residual edges a read is  sum of r + z (y - r),  so that  dL/dz(u -> v) = (y_u - r_u) . dL/d read_v:
under interchange the clean minus the corrupted output of the writer times the gradient at the reader,
which is edge attribution patching. The rankings differ in where the slope is taken:

    attribution         every gate open: EAP on residual edges (Syed et al. 2023, arXiv 2310.10348),
                        attribution patching on nodes
    integrated          all gates together from 0 to 1: complete, as gains add up to L(empty) - L(whole)
    eap_ig_inputs       the token embedding from its corrupted to its clean value, all else as follows;
                        the difference that the slope is multiplied with stays clean - corrupted (EAP-IG,
                        Hanna et al. 2024, arXiv 2403.17806)
    eap_ig_activations  the writers of one depth (tokens, the heads of a layer, its MLP) from replaced to
                        own, all others open, each edge in its own writer's turn (IG on activations,
                        Marks et al. 2024, arXiv 2403.19647)
    gim                 every gate open, with a corrected gradient: `model/corrected.py`

Paths are integrated by the Gauss-Legendre rule; the published code takes equal steps. A depth at a time
costs two slopes a layer for each point, the others one.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.model.corrected import corrected
from circuitjax.model.residual_graph import Graph, Writers, first_count, run_graph
from circuitjax.prune.evaluate import references, slopes
from circuitjax.prune.problem import Problem

__all__ = ["ATTRIBUTIONS", "Place", "gains", "signed"]


class Place(NamedTuple):
    """Where a slope is taken and what it counts.

    Attributes:
      gates: `[G]` in [0, 1].
      weight: of this place in each gate's average, a number or `[G]`.
    """

    gates: np.ndarray
    weight: Any


Path = Callable[[Any, int], list[Place]]


@dataclasses.dataclass(frozen=True)
class _Attribution:
    """How one ranking takes slopes.

    Attributes:
      path: (model, points) -> places.
      points: places on each stretch of the path, if not said otherwise.
      moves_inputs: whether the places are runs on other embeddings, not other circuits.
      corrects: whether the gradient is a corrected one.
    """

    path: Path
    points: int = 1
    moves_inputs: bool = False
    corrects: bool = False


def _open(model: GatedModel, points: int) -> list[Place]:
    del points
    return [Place(np.ones(model.num_gates, np.float32), 1.0)]


def _legendre(points: int) -> list[tuple[float, float]]:
    """(place, weight) of the Gauss-Legendre rule on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(points)  # on [-1, 1]
    return [((p + 1) / 2, w / 2) for p, w in zip(places, weights, strict=True)]


def _straight(model: GatedModel, points: int) -> list[Place]:
    ones = np.ones(model.num_gates, np.float32)
    return [Place(ones * np.float32(at), weight) for at, weight in _legendre(points)]


def _inputs(model: Any, points: int) -> list[Place]:
    graph: Graph = model.graph
    embedded = np.array([graph.writers[w] == "embed" for w in graph.sources])
    return [
        Place(np.where(embedded, np.float32(at), np.float32(1)), weight)
        for at, weight in _legendre(points)
    ]


def _depths(model: Any, points: int) -> list[Place]:
    first, heads = first_count(model.config), model.config.num_heads
    later = model.graph.sources - first  # then per layer the heads, and the MLP
    layer, place = np.divmod(later, heads + 1)
    depth = np.where(later < 0, 0, 1 + 2 * layer + (place == heads))
    return [
        Place(np.where(depth == at, np.float32(value), np.float32(1)), weight * (depth == at))
        for at in range(int(depth.max()) + 1)
        for value, weight in _legendre(points)
    ]


#: Rankings by gradients; each with the path that its slopes are averaged over.
ATTRIBUTIONS: Mapping[str, _Attribution] = MappingProxyType(
    {
        "attribution": _Attribution(_open),
        "integrated": _Attribution(_straight, 16),
        "eap_ig_inputs": _Attribution(_inputs, 5, moves_inputs=True),
        "eap_ig_activations": _Attribution(_depths, 5),
        "gim": _Attribution(_open, corrects=True),
    }
)


def gains(
    problem: Problem,
    examples: Examples,
    ranking: str,
    *,
    points: int | None = None,
    of: str = "loss",
    loss: str = "binary",
) -> np.ndarray:
    """What opening each gate gains, to first order: float64 `[G]` in nats, negative where it harms.

    The mean over examples is taken before any absolute value: it is the derivative by the one gate
    that all examples share.

    Args:
      problem: the model under gates; ablation and grain are its own.
      examples: to measure on.
      ranking: a key of `ATTRIBUTIONS`.
      points: places on the path, None for the ranking's own number.
      of: `loss`, the task loss, or `odds`, the difference of logits where one completion is right and
        one wrong, which does not saturate where the model is sure.
      loss: kind of task loss.
    """
    method = ATTRIBUTIONS[ranking]
    model: Any = problem.whole
    if model.units != "channel":
        # Gates of one unit open together: to first order what each of its parts gains adds up.
        fine = dataclasses.replace(
            problem, whole=dataclasses.replace(model, units="channel"), held=(), mixed=()
        )
        return np.asarray(
            model.gathered(gains(fine, examples, ranking, points=points, of=of, loss=loss))
        )
    if method.corrects:
        model = dataclasses.replace(model, config=corrected(model.config))
    places = method.path(model, points or method.points)
    return _averaged(problem, model, examples, places, of, loss, method.moves_inputs)


def _averaged(
    problem: Problem,
    model: Any,
    examples: Examples,
    places: list[Place],
    of: str,
    loss: str,
    moves_inputs: bool,
) -> np.ndarray:
    """The gain averaged over places, `[G]`."""
    kind, sign = {"loss": ("task", -1.0), "odds": ("odds", 1.0)}[of]
    total = np.zeros(model.num_gates)
    for batch, reference in references(model, list(problem.batches.uneven(examples)), full=False):
        for gates, weight in places:
            at = reference
            if moves_inputs:
                at = Reference(None, _same_difference(model, gates, batch, reference.held))
            slope = slopes(model, gates, batch, at, kind=kind, loss=loss)
            total += weight * np.asarray(slope, np.float64) * batch.size
    return sign * total / examples.size


@jax.jit
def _same_difference(model: Any, gates: jax.Array, batch: Examples, held: Writers) -> Writers:
    """What replaces writers in a run on other embeddings so that y - r is clean - corrupted.

    The run is that of a circuit in which the token embedding alone is partly closed. A circuit with
    these replacements is the same run, and its slope by a gate is that difference times the gradient.
    """
    asked = batch.prompts
    _, clean = model.observed(asked.tokens, asked.positions)
    _, change = run_graph(model.config, model.params, asked.tokens, gates, held, asked.positions)
    found: Writers = jax.tree.map(lambda y_r, r, own: y_r + r - (own - r), change, held, clean)
    return found


def signed(gain: np.ndarray, sign: str) -> np.ndarray:
    """A ranking's scores from gains `[G]`: `absolute`, `signed` as they are, or `positive` alone.

    Signed, what harms comes last; positive, it ties with what does nothing.
    """
    if sign == "absolute":
        return np.abs(gain)
    return np.maximum(gain, 0.0) if sign == "positive" else gain
