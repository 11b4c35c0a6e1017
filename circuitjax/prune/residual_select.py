"""Selection of residual edges: rank them, drop what no path connects, cut at the target.

Edges are ranked by the chance that they are effectively open, ties by attribution; where a loss is
the aim, the open ones by backward elimination on training examples. A candidate "first k" is
evaluated with hard gates, after the edges on no path from the input to the logits are closed; the
number that remains is what is reported as its edges.
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
from circuitjax.model.residual_graph import apply_graph
from circuitjax.model.transformer import Params
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.eliminate import eliminate, enough, open_first
from circuitjax.prune.residual import (
    Examples,
    ResidualMasks,
    active_edges,
    compare,
)
from circuitjax.prune.residual_paths import connected
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.residual_trial import EdgeTrial, Reference, gate_slopes, references
from circuitjax.prune.select import Selection, bisect, first_grid, neighbours, rank_nodes
from circuitjax.prune.train import MaskState

__all__ = [
    "EdgeAnswers",
    "EdgeChoice",
    "choose_edges",
    "edge_answers",
    "look_at",
    "rank_edges",
]

_TIES = 64  # examples of the attribution that breaks ties
_SCOUTS = 128  # examples of the first search and of elimination
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
        return np.asarray(np.mean(np.logaddexp(0.0, -self.odds), axis=1))

    def pair_differences(self) -> np.ndarray:
        """`[K, M / 2, 2]`: positive's completion against negative's, after both prompts of a pair."""
        both = self.odds.reshape(len(self.odds), -1, 2)
        return np.asarray(both * np.array([1.0, -1.0], np.float32))


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    config: TransformerConfig, params: Params, reference: Reference, gates: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    batch, full, replacement = reference

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
    groups = [jnp.asarray(gates[rows[i : i + _GROUP]]) for i in range(0, len(rows), _GROUP)]
    batches = []
    # One batch after another: the full model runs on each once, and memory is that of one batch.
    for reference in references(problem, examples):
        parts = [_answer(problem.config, problem.params, reference, group) for group in groups]
        batches.append([np.concatenate(part) for part in zip(*parts, strict=True)])
    whole = (np.concatenate(p, axis=1)[:count, :size] for p in zip(*batches, strict=True))
    return EdgeAnswers(*whole)


def rank_edges(problem: EdgeProblem, state: MaskState) -> tuple[np.ndarray, np.ndarray, float]:
    """Orders one trained job's edges by how likely they are open, ties by attribution.

    Returns:
      Ranks `[E]` (0 is the most important; edges that cannot matter come last), bool `[E]`, which
      are open rather than closed, and how many are expected to be open.
    """
    objective = ResidualMasks(problem.config, problem.settings)
    chance = np.asarray(objective.open_probabilities(state.tau, state.hyper), np.float64)
    active = active_edges(problem.config, problem.settings.ablation)
    some = problem.validation.take(np.arange(min(_TIES, problem.validation.size)))
    gates = jnp.where(active, jnp.asarray(chance > 0.5, jnp.float32), 1.0)
    slope = np.asarray(gate_slopes(problem, problem.settings.minimise, some, gates))
    ranks = rank_nodes(np.where(active, chance, -1.0), slope)
    return ranks, active & (chance > 0.5), float(chance[active].sum())


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
      curve: (k, edges connected, KL, task loss, calibrated task loss) at every k looked at, on all
        validation examples or, far from the crossing, on the first few.
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
    aims = problem.settings.target in ("loss", "kl")
    trial = EdgeTrial(problem, _scouts(problem.train)) if aims else None
    for index in range(int(state.step.shape[0])):
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        ranks, opened, soft = rank_edges(problem, job)
        size = int(opened.sum())
        if trial is not None:
            opened = enough(trial, ranks, opened, problem.settings.target_value)
            order = eliminate(trial, opened, problem.settings.target_value)
            ranks, size = open_first(ranks, order), len(order)
        choices.append(_cut(problem, ranks, soft, size))
    return choices


def _scouts(examples: Examples) -> Examples:
    """The first examples: of the first search, and of elimination."""
    return examples.take(np.arange(min(_SCOUTS, examples.size)))


def _figures(
    problem: EdgeProblem, masks: list[np.ndarray], examples: Examples
) -> list[dict[str, float]]:
    """What edge sets do on some examples, calibrated where the target is a binary task loss."""
    idle = ~active_edges(problem.config, problem.settings.ablation)
    found = edge_answers(problem, examples, np.stack([mask | idle for mask in masks]))
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
    (at,) = _figures(problem, [kept], problem.validation)
    settings = problem.settings
    loss = at["kl" if settings.target == "kl" else "loss"]
    size = int(kept.sum())
    reached = settings.target not in ("loss", "kl") or loss <= settings.target_value
    selection = Selection(k=size, reached=reached, loss=loss, curve=((size, loss),))
    return _choice(kept, selection, {size: at}, float(size), {})


def _cut(problem: EdgeProblem, ranks: np.ndarray, soft: float, trained: int) -> EdgeChoice:
    """Cuts a ranking, among its first `trained` edges if these meet the target."""
    settings, config = problem.settings, problem.config
    total = int(active_edges(config, settings.ablation).sum())
    seen: dict[int, dict[str, float]] = {}
    rough: dict[int, dict[str, float]] = {}
    name = "kl" if settings.target == "kl" else "loss"

    def kept_at(k: int) -> np.ndarray:
        return connected(config, ranks < k, settings.ablation)

    def values(
        ks: np.ndarray, looked: dict[int, dict[str, float]], examples: Examples
    ) -> np.ndarray:
        missing = [int(k) for k in ks if int(k) not in looked]
        if missing:
            found = _figures(problem, [kept_at(k) for k in missing], examples)
            looked.update(zip(missing, found, strict=True))
        return np.array([looked[int(k)][name] for k in ks])

    def finally_at(ks: np.ndarray) -> np.ndarray:
        return values(ks, seen, problem.validation)

    if settings.target in ("loss", "kl"):
        few, grid = _scouts(problem.validation), settings.grid
        for size in (trained, total) if trained else (total,):
            extra = (size,) if size == trained else (max(1, round(soft)),)
            first = bisect(
                lambda ks: values(ks, rough, few),
                size,
                settings.target_value,
                extra=extra,
                grid=grid,
            )
            start = neighbours(first.k, size) if first.reached else ()
            selection = bisect(
                finally_at, size, settings.target_value, start=start, extra=extra, grid=grid
            )
            if selection.reached:
                break
    else:
        wanted = round(soft) if settings.target == "match_soft" else int(settings.target_value)
        k = min(max(wanted, 1), total)
        if settings.target == "edges":
            k = _largest_within(kept_at, total, k)
        finally_at(first_grid(total, settings.grid, (k,)))  # for the record and the plot
        loss = seen[k]["loss"]
        selection = Selection(k=k, reached=True, loss=loss, curve=((k, loss),))
    return _choice(kept_at(selection.k), selection, seen, soft, rough)


def _choice(
    kept: np.ndarray,
    selection: Selection,
    seen: dict[int, dict[str, float]],
    soft: float,
    rough: dict[int, dict[str, float]],
) -> EdgeChoice:
    at, looked = seen[selection.k], rough | seen
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
            (k, int(v["edges"]), v["kl"], v["raw"], v["loss"]) for k, v in sorted(looked.items())
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
