"""Selection of residual edges: rank them, drop what no path connects, cut at the target.

Edges are ranked by the chance that they are effectively open, ties by attribution. A candidate
"first k" is evaluated with hard gates, after the edges on no path from the input to the logits are
closed; the number that remains is what is reported as its edges.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph
from circuitjax.model.transformer import Params
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.residual import (
    Examples,
    ResidualMasks,
    active_edges,
    compare,
    reference_run,
)
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.select import Selection, bisect, first_grid, rank_nodes
from circuitjax.prune.train import MaskState

__all__ = [
    "EdgeAnswers",
    "EdgeChoice",
    "choose_edges",
    "connected",
    "edge_answers",
    "look_at",
    "rank_edges",
]

_BATCH = 32  # examples per forward pass of an evaluation
_GROUP = 4  # candidates per compiled call; the last group is filled up


class EdgeAnswers(NamedTuple):
    """What K edge sets answer to M examples, each `[K, M]`.

    Attributes:
      kl: to the full model, in nats.
      odds: log odds of the right completions among right and wrong ones.
      agree: whether the most probable token at the first answer position is the full model's.
    """

    kl: np.ndarray
    odds: np.ndarray
    agree: np.ndarray

    def task_losses(self) -> np.ndarray:
        """Mean task loss `[K]` in nats."""
        return np.asarray(jnp.mean(jax.nn.softplus(-jnp.asarray(self.odds)), axis=1))

    def pair_differences(self) -> jax.Array:
        """`[K, M / 2, 2]`: positive's completion against negative's, after both prompts of a pair."""
        both = jnp.asarray(self.odds).reshape(len(self.odds), -1, 2)
        return both * jnp.array([[[1.0, -1.0]]])


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    config: TransformerConfig,
    params: Params,
    fixed: Writers | None,
    batch: Examples,
    gates: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    full, replacement = reference_run(config, params, batch, fixed)

    def one(gate: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = apply_graph(config, params, batch.tokens[:, 0], gate, replacement, batch.positions)
        same = jnp.argmax(logits[:, 0], axis=-1) == jnp.argmax(full[:, 0], axis=-1)
        return *compare(logits, full, batch), same

    return lax.map(one, gates)


def edge_answers(problem: EdgeProblem, examples: Examples, gates: np.ndarray) -> EdgeAnswers:
    """Runs K edge sets over M examples.

    Args:
      problem: model and replacements.
      examples: M of them.
      gates: `[K, E]`, bool or numbers in [0, 1].
    """
    gates = np.asarray(gates, np.float32)
    count, size = len(gates), examples.size
    rows = np.minimum(np.arange(-(-count // _GROUP) * _GROUP), count - 1)
    width = min(_BATCH, size)
    groups = []
    for start in range(0, len(rows), _GROUP):
        chosen = jnp.asarray(gates[rows[start : start + _GROUP]])
        parts = []
        for first in range(0, size, width):
            index = np.minimum(np.arange(first, first + width), size - 1)
            parts.append(
                _answer(problem.config, problem.params, problem.fixed, examples.take(index), chosen)
            )
        groups.append([np.concatenate(part, axis=1) for part in zip(*parts, strict=True)])
    whole = (np.concatenate(part)[:count, :size] for part in zip(*groups, strict=True))
    return EdgeAnswers(*whole)


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


def rank_edges(problem: EdgeProblem, state: MaskState) -> tuple[np.ndarray, float]:
    """Ranks `[E]` of one trained job (0 is the most important) and its expected open edges.

    Edges that cannot matter come last.
    """
    objective = ResidualMasks(problem.config, problem.settings)
    chance = np.asarray(objective.open_probabilities(state.tau, state.hyper), np.float64)
    active = active_edges(problem.config, problem.settings.ablation)
    some = problem.validation.take(np.arange(min(2 * _BATCH, problem.validation.size)))
    gates = jnp.where(active, jnp.asarray(chance > 0.5, jnp.float32), 1.0)
    slope = np.asarray(
        _gate_gradient(
            problem.config,
            problem.settings.minimise,
            problem.params,
            problem.fixed,
            some,
            gates,
        )
    )
    return rank_nodes(np.where(active, chance, -1.0), slope), float(chance[active].sum())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gate_gradient(
    config: TransformerConfig,
    minimise: str,
    params: Params,
    fixed: Writers | None,
    batch: Examples,
    gates: jax.Array,
) -> jax.Array:
    full, replacement = reference_run(config, params, batch, fixed)

    def loss_of(gate: jax.Array) -> jax.Array:
        logits = apply_graph(config, params, batch.tokens[:, 0], gate, replacement, batch.positions)
        kl, odds = compare(logits, full, batch)
        return jnp.mean(kl if minimise == "kl" else jax.nn.softplus(-odds))

    return jax.grad(loss_of)(gates)


@dataclasses.dataclass(frozen=True)
class EdgeChoice:
    """The edge set chosen for one ranking; figures on the validation examples.

    Attributes:
      kept: bool `[E]`, connected edges only.
      selection: the bisection whose k was taken; its losses are of the kind aimed at.
      scale, shift: calibration of the logit difference (1 and 0 without).
      kl: to the full model, nats.
      loss, loss_uncalibrated: task loss with and without calibration, nats.
      soft: expected number of open edges at the end of training.
      unconnected: edges that were chosen but lie on no path.
      curve: (k, edges connected, KL, task loss, calibrated task loss) at every k looked at.
    """

    kept: np.ndarray
    selection: Selection
    scale: float
    shift: float
    kl: float
    loss: float
    loss_uncalibrated: float
    soft: float
    unconnected: int
    curve: tuple[tuple[int, int, float, float, float], ...]

    @property
    def reached(self) -> bool:
        """Whether the target is met on validation."""
        return self.selection.reached


def choose_edges(problem: EdgeProblem, state: MaskState) -> list[EdgeChoice]:
    """Cuts the rankings of J trained jobs at the target."""
    choices = []
    for index in range(int(state.step.shape[0])):
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        choices.append(_cut(problem, *rank_edges(problem, job)))
    return choices


def _figures(problem: EdgeProblem, masks: list[np.ndarray]) -> list[dict[str, float]]:
    """What edge sets do on validation, calibrated where the target is a binary task loss."""
    idle = ~active_edges(problem.config, problem.settings.ablation)
    found = edge_answers(problem, problem.validation, np.stack([mask | idle for mask in masks]))
    raw = found.task_losses()
    fit = None
    if problem.calibrated:
        fit = calibrate(found.pair_differences())
    return [
        {
            "edges": float(mask.sum()),
            "kl": float(found.kl[row].mean()),
            "raw": float(raw[row]),
            "loss": float(raw[row] if fit is None else fit.loss[row]),
            "scale": 1.0 if fit is None else float(fit.scale[row]),
            "shift": 0.0 if fit is None else float(fit.shift[row]),
        }
        for row, mask in enumerate(masks)
    ]


def look_at(problem: EdgeProblem, kept: np.ndarray) -> EdgeChoice:
    """A given edge set bool `[E]` as a choice, without a search."""
    (at,) = _figures(problem, [kept])
    settings = problem.settings
    loss = at["kl" if settings.target == "kl" else "loss"]
    size = int(kept.sum())
    reached = settings.target not in ("loss", "kl") or loss <= settings.target_value
    selection = Selection(k=size, reached=reached, loss=loss, curve=((size, loss),))
    return _choice(kept, selection, {size: at}, float(size))


def _cut(problem: EdgeProblem, ranks: np.ndarray, soft: float) -> EdgeChoice:
    settings, config = problem.settings, problem.config
    total = int(active_edges(config, settings.ablation).sum())
    seen: dict[int, dict[str, float]] = {}

    def kept_at(k: int) -> np.ndarray:
        return connected(config, ranks < k, settings.ablation)

    def values(ks: np.ndarray) -> np.ndarray:
        missing = [int(k) for k in ks if int(k) not in seen]
        if missing:
            found = _figures(problem, [kept_at(k) for k in missing])
            seen.update(zip(missing, found, strict=True))
        name = "kl" if settings.target == "kl" else "loss"
        return np.array([seen[int(k)][name] for k in ks])

    extra = (max(1, round(soft)),)
    if settings.target in ("loss", "kl"):
        selection = bisect(values, total, settings.target_value, grid=settings.grid, extra=extra)
    else:
        wanted = round(soft) if settings.target == "match_soft" else int(settings.target_value)
        k = min(max(wanted, 1), total)
        if settings.target == "edges":
            k = _largest_within(kept_at, total, k)
        values(first_grid(total, settings.grid, (k,)))  # for the record and the plot
        loss = seen[k]["loss"]
        selection = Selection(k=k, reached=True, loss=loss, curve=((k, loss),))
    return _choice(kept_at(selection.k), selection, seen, soft)


def _choice(
    kept: np.ndarray, selection: Selection, seen: dict[int, dict[str, float]], soft: float
) -> EdgeChoice:
    at = seen[selection.k]
    return EdgeChoice(
        kept=kept,
        selection=selection,
        scale=at["scale"],
        shift=at["shift"],
        kl=at["kl"],
        loss=at["loss"],
        loss_uncalibrated=at["raw"],
        soft=soft,
        unconnected=selection.k - int(kept.sum()),
        curve=tuple(
            (k, int(v["edges"]), v["kl"], v["raw"], v["loss"]) for k, v in sorted(seen.items())
        ),
    )


def _largest_within(kept_at: Callable[[int], np.ndarray], total: int, limit: int) -> int:
    """The largest k whose connected edges number at most `limit`; they grow with k."""
    low, high = limit, total
    while low < high:
        middle = (low + high + 1) // 2
        if int(kept_at(middle).sum()) <= limit:
            low = middle
        else:
            high = middle - 1
    return low
