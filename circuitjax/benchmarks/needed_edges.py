"""Which residual edges matter, derived from weights and inputs under a given replacement.

Under interchange an edge whose value is the same in both runs cannot matter; under zero ablation it
can. So what is true is derived, not looked up: with all others open an edge is *needed* if closing
it alone changes what the model says by more than a tolerance. Redundant edges hide one another in
that test; `check_circuit` therefore asks of a set of edges that they suffice and that none can be
spared, and `minimal_edges` finds such a set.

Axis letters: B sequences, T positions, P positions read, O outputs, E edges, K circuits.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph, run_writers
from circuitjax.model.transformer import Params

__all__ = [
    "Ablation",
    "CircuitCheck",
    "EdgeRuns",
    "check_circuit",
    "edge_runs",
    "minimal_edges",
    "needed_edges",
]

Ablation = Literal["interchange", "mean", "zero"]

_TIE = 1e-3  # logits nearer than this are equal: rounding must not decide between two answers


@dataclasses.dataclass(frozen=True)
class EdgeRuns:
    """A model, its inputs and what replaces a closed edge: all that decides what matters.

    Attributes:
      config, params: the model.
      clean: int32 `[B, T]`.
      positions: int32 `[B, P]`, where the model is read.
      replacement: of every writer.
      full: float32 `[B, P, O]`, what the whole model says there.
      num_outputs: O, how many of the first logits mean something.
      by: `logits` compares them as numbers; `answer` asks whether what is largest (all that tie)
        was so in the whole model.
    """

    config: TransformerConfig
    params: Params
    clean: jax.Array
    positions: jax.Array
    replacement: Writers
    full: jax.Array
    num_outputs: int
    by: Literal["answer", "logits"] = "logits"

    def changes(self, masks: np.ndarray) -> np.ndarray:
        """How far circuits are from the model.

        Args:
          masks: bool `[K, E]`, the open edges of K circuits.

        Returns:
          float `[K]`: the largest difference of a logit, or the share of answers that differ.
        """
        masks = np.asarray(masks, np.float32)
        size = masks.shape[1] + 1  # room for every single closing; the loop runs over what is used
        parts = []
        for start in range(0, len(masks), size):
            some = masks[start : start + size]
            room = np.zeros((size, masks.shape[1]), np.float32)
            room[: len(some)] = some
            found = _changes(
                self.config,
                self.num_outputs,
                self.params,
                self.clean,
                self.positions,
                self.replacement,
                self.full,
                room,
                len(some),
            )
            parts.append(np.asarray(found[self.by == "answer"])[: len(some)])
        return np.concatenate(parts)

    def mask(self, edges: Iterable[str]) -> np.ndarray:
        """bool `[E]` of edges `writer->reader`; ValueError for one that the model does not have."""
        names, chosen = residual_graph(self.config).names, set(edges)
        unknown = sorted(chosen - set(names))
        if unknown:
            raise ValueError(
                f"the model has no edge {unknown[0]!r}; its {len(names)} are named like {names[0]!r}"
            )
        return np.array([name in chosen for name in names])


def _best(logits: jax.Array) -> jax.Array:
    """Which outputs are the largest, or tie with it."""
    return logits >= jnp.max(logits, axis=-1, keepdims=True) - _TIE


@functools.partial(jax.jit, static_argnums=(0, 1))
def _changes(
    config: TransformerConfig,
    num_outputs: int,
    params: Params,
    clean: jax.Array,
    positions: jax.Array,
    replacement: Writers,
    full: jax.Array,
    gates: jax.Array,
    count: int,
) -> tuple[jax.Array, jax.Array]:
    """Changes `[K]` of logits and of answers, of the first `count` circuits `[K, E]`."""

    # One circuit after another: memory stays that of one forward pass, however many edges. And one
    # program serves any number of circuits.
    def one(i: jax.Array, so_far: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        logits = apply_graph(config, params, clean, gates[i], replacement, positions)
        found = logits[..., :num_outputs]
        differs = jnp.any(_best(found) & ~_best(full), axis=-1)
        change, share = jnp.max(jnp.abs(found - full)), jnp.mean(differs.astype(jnp.float32))
        return so_far[0].at[i].set(change), so_far[1].at[i].set(share)

    zeros = jnp.zeros(len(gates))
    changes: tuple[jax.Array, jax.Array] = lax.fori_loop(0, count, one, (zeros, zeros))
    return changes


def edge_runs(
    config: TransformerConfig,
    params: Params,
    clean: np.ndarray | jax.Array,
    ablation: Ablation,
    other: np.ndarray | jax.Array | None = None,
    *,
    positions: np.ndarray | jax.Array | None = None,
    num_outputs: int | None = None,
    by: Literal["answer", "logits"] = "logits",
) -> EdgeRuns:
    """Runs the whole model and makes the replacement of every writer.

    Args:
      config, params: the model.
      clean: int32 `[B, T]`.
      ablation: what a closed edge carries.
      other: int32 `[B, T]`, the corrupted inputs, aligned with the clean ones (`interchange`), or
        any number of inputs whose mean over sequences and positions is taken (`mean`; the clean
        ones if None). `zero` takes none.
      positions: int32 `[B, P]` where the model is read; None means everywhere.
      num_outputs: how many of the first logits mean something; None means all V.
      by: see `EdgeRuns`.

    Raises:
      ValueError: inputs that are missing, misshapen or not wanted, an unknown choice, or an
        architecture without residual edges.
    """
    residual_graph(config)
    clean = jnp.asarray(clean, jnp.int32)
    if clean.ndim != 2:
        raise ValueError(f"clean inputs are shaped {clean.shape}; they must be [sequences, T]")
    if ablation not in ("interchange", "mean", "zero"):
        raise ValueError(f"ablation is {ablation!r}; choose interchange, mean or zero")
    if by not in ("answer", "logits"):
        raise ValueError(f"by is {by!r}; choose answer or logits")
    num_outputs = config.vocab_size if num_outputs is None else num_outputs
    if not 1 <= num_outputs <= config.vocab_size:
        raise ValueError(f"num_outputs is {num_outputs}; it must be from 1 to {config.vocab_size}")
    if ablation == "zero" and other is not None:
        raise ValueError("other inputs are given, but zero ablation uses none; leave them out")
    given = () if other is None else np.shape(other)
    if ablation == "interchange" and given != clean.shape:
        raise ValueError(
            f"corrupted inputs are shaped {given}; they must be {clean.shape} like the clean ones"
        )
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(clean.shape[1])[None], clean.shape)
    positions = jnp.asarray(positions, jnp.int32)
    if positions.ndim != 2 or len(positions) != len(clean):
        raise ValueError(
            f"positions are shaped {positions.shape}; they must be [{len(clean)}, positions read]"
        )
    logits, _ = _run(config, params, clean, positions)
    source = clean if other is None else jnp.asarray(other, jnp.int32)
    places = positions if source.shape == clean.shape else jnp.zeros((len(source), 1), jnp.int32)
    _, replacement = _run(config, params, source, places)
    if ablation != "interchange":
        scale, lead = 1.0 if ablation == "mean" else 0.0, clean.shape
        # Laid out like a run: one compiled program then serves every ablation.
        replacement = jax.tree.map(
            lambda x: jnp.broadcast_to(
                scale * jnp.mean(x, axis=(1, 2), keepdims=True), (len(x), *lead, x.shape[-1])
            ),
            replacement,
        )
    full = logits[..., :num_outputs]
    return EdgeRuns(config, params, clean, positions, replacement, full, num_outputs, by)


_run = jax.jit(run_writers, static_argnums=0)


def needed_edges(runs: EdgeRuns, tolerance: float = 1e-3) -> tuple[str, ...]:
    """Edges each of which alone changes what the model says when it is closed.

    Args:
      runs: see `edge_runs`.
      tolerance: a change of at most this much is none.

    Returns:
      Names, in the order of the graph.
    """
    names = residual_graph(runs.config).names
    changes = runs.changes(~np.eye(len(names), dtype=bool))
    return tuple(name for name, change in zip(names, changes, strict=True) if change > tolerance)


@dataclasses.dataclass(frozen=True)
class CircuitCheck:
    """Whether a set of edges is a circuit, and none of them one too many.

    Attributes:
      change: how far the outputs of just these edges are from the model's.
      sufficient: that is at most the tolerance.
      spare: those that can be left out, one at a time, without a change above the tolerance.
    """

    change: float
    sufficient: bool
    spare: tuple[str, ...]

    @property
    def minimal_and_sufficient(self) -> bool:
        """Just these edges do what the model does, and without any one of them they do not."""
        return self.sufficient and not self.spare


def check_circuit(runs: EdgeRuns, edges: Iterable[str], tolerance: float = 1e-3) -> CircuitCheck:
    """Keeps just these edges, then all of them but one, for each.

    Raises:
      ValueError: an edge that the model does not have.
    """
    mask = runs.mask(edges)
    kept = np.flatnonzero(mask)
    masks = np.repeat(mask[None], len(kept) + 1, axis=0)
    masks[np.arange(len(kept)) + 1, kept] = False
    changes = runs.changes(masks)
    names = residual_graph(runs.config).names
    spare = [names[i] for i, change in zip(kept, changes[1:], strict=True) if change <= tolerance]
    return CircuitCheck(float(changes[0]), bool(changes[0] <= tolerance), tuple(spare))


def minimal_edges(
    runs: EdgeRuns, tolerance: float = 1e-3, start: Iterable[str] | None = None
) -> tuple[str, ...]:
    """A sufficient set of edges none of which can be spared, by closing them one after another.

    From the logits backwards, so that what a closed edge alone carried goes with it. There may be
    other such sets: of two redundant edges the one nearer to the logits is closed.

    Args:
      runs: see `edge_runs`.
      tolerance: a change of at most this much is none.
      start: what to begin with; None means the needed edges if they suffice, else all.

    Raises:
      ValueError: a start that is not sufficient, or an edge that the model does not have.
    """
    names = residual_graph(runs.config).names
    mask = np.ones(len(names), bool) if start is None else runs.mask(start)
    if start is None:
        needed = runs.mask(needed_edges(runs, tolerance))
        mask = needed if runs.changes(needed[None])[0] <= tolerance else mask
    change = float(runs.changes(mask[None])[0])
    if change > tolerance:
        raise ValueError(
            f"the edges to start with change the outputs by {change:.3g}, more than the tolerance "
            f"of {tolerance:.3g}; start with more edges"
        )
    removed = True
    while removed:
        removed = False
        for edge in np.flatnonzero(mask)[::-1]:
            trial = mask.copy()
            trial[edge] = False
            if runs.changes(trial[None])[0] <= tolerance:
                mask, removed = trial, True
    return tuple(name for name, kept in zip(names, mask, strict=True) if kept)
