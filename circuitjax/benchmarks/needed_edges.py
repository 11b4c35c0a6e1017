"""Residual edges of any model and inputs, asked what closing them changes: logits, or answers.

Under interchange an edge whose value is the same in both runs cannot matter; under zero ablation it
can. So what is true is derived, not looked up: see `truth.py`.

Axis letters: B sequences, T positions, P positions read, O outputs, E edges, K circuits.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph, run_writers
from circuitjax.model.transformer import Params

__all__ = ["NOTHING", "Ablation", "EdgeRuns", "edge_runs", "silent_edges"]

Ablation = Literal["interchange", "mean", "zero"]

#: A difference of activations that is none: what a softmax leaves of what it does not choose.
NOTHING = 1e-12
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

    @property
    def names(self) -> list[str]:
        """Edges `writer->reader`, in the order of the graph."""
        return residual_graph(self.config).names

    def can_matter(self) -> np.ndarray:
        """bool `[E]`: all but `silent_edges`."""
        _, written = _run(self.config, self.params, self.clean, self.positions)
        return ~silent_edges(self.config, self.params, written, self.replacement)


def silent_edges(
    config: TransformerConfig, params: Params, written: Writers, replacement: Writers
) -> np.ndarray:
    """Edges that may be closed, all of them together, without any effect: bool `[E]`.

    A writer whose replacement is what it writes; and, in a model without norms, a reader whose weights
    have nothing to do with what differs. As no reader is any the wiser, no writer writes anything else.

    Args:
      config, params: the model.
      written: by all writers on the inputs.
      replacement: of them, shaped alike or broadcasting to it.
    """
    graph = residual_graph(config)
    # bool [W, D]: channels on which closing a writer changes anything.
    change = np.concatenate(
        [
            np.asarray(jnp.max(jnp.abs(y - r), axis=(1, 2))) > NOTHING
            for y, r in zip(written.blocks(), replacement.blocks(), strict=True)
        ]
    )
    silent = ~np.asarray(np.any(change, axis=1))[graph.sources]
    if config.norm != "none" or config.gated_mlp or config.abs_top_k_sites:
        return silent
    layers = {name: np.asarray(value) for name, value in params["layers"].items()}
    kernels: dict[str, np.ndarray] = {}
    if not config.tied_unembedding:
        kernels["logits"] = np.asarray(params["unembed"])
    for layer in range(config.num_layers):
        kernels[f"m{layer}<in>"] = layers["mlp_in"][layer]
        for part in "qkv":
            own = layers[f"attn_{part}"][layer]
            name = "h" if part == "q" or config.queries_per_kv == 1 else "kv"
            for head, columns in enumerate(np.split(own, own.shape[1] // config.d_head, axis=1)):
                kernels[f"a{layer}.{name}{head}<{part}>"] = columns
    for edge, (writer, reader) in enumerate(graph.edges):
        kernel = kernels.get(graph.readers[reader])
        if kernel is not None and not silent[edge]:  # no channel in common
            silent[edge] = not np.any(kernel[: config.d_model][change[writer]])
    return silent


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
