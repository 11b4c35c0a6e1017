"""Logits of rows of prompts under gates on nodes, by the whole network or by a reduced one.

Axis letters: M examples, P positions read, V vocabulary, R right and R' wrong completions.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from circuitjax.gated.examples import Batch
from circuitjax.model.config import TransformerConfig
from circuitjax.model.reduced import Reduced
from circuitjax.model.reduced_forward import apply_reduced
from circuitjax.model.reduced_tokens import TokenReduced
from circuitjax.model.transformer import Fills, Params, apply

__all__ = ["reduced_answers", "reduced_rows", "whole_rows"]


def whole_rows(
    config: TransformerConfig,
    params: Params,
    batch: Batch,
    gates: Fills | None = None,
    held: Fills | None = None,
    **more: Any,
) -> jax.Array:
    """Logits `[M, P, V]` of a whole network, maybe under gates; `more` as in `transformer.apply`."""
    asked = batch.prompts
    found = apply(
        config,
        params,
        asked.tokens,
        gates,
        held,
        positions=asked.positions,
        layout=asked.layout,
        **more,
    ).logits
    return found.reshape(batch.size, -1, found.shape[-1])


def _within(small: Reduced | TokenReduced) -> Reduced:
    return small.small if isinstance(small, TokenReduced) else small


def reduced_rows(
    small: Reduced | TokenReduced,
    batch: Batch,
    gates: Mapping[str, jax.Array],
    held: Fills | None = None,
) -> jax.Array:
    """Logits `[M, P, V]` of a reduced model under further gates."""
    asked = batch.prompts
    found = apply_reduced(
        _within(small),
        asked.tokens,
        gates,
        positions=asked.positions,
        layout=asked.layout,
        held=held,
    )
    return found.reshape(batch.size, -1, found.shape[-1])


def reduced_answers(
    small: Reduced | TokenReduced,
    batch: Batch,
    gates: Mapping[str, jax.Array],
    held: Fills | None = None,
) -> jax.Array:
    """Logits of the right and wrong completions alone, `[M, R + R']`."""
    asked = batch.prompts
    wanted = jnp.maximum(jnp.concatenate([batch.right, batch.wrong], axis=-1), 0)
    per_row = asked.positions.shape[0]
    wanted = jnp.broadcast_to(wanted[:, None], (batch.size, _positions(batch), wanted.shape[-1]))
    found = apply_reduced(
        _within(small),
        asked.tokens,
        gates,
        positions=asked.positions,
        held=held,
        candidates=wanted.reshape(per_row, -1, wanted.shape[-1]),
        layout=asked.layout,
    )
    return found.reshape(batch.size, -1, found.shape[-1])[:, 0]


def _positions(batch: Batch) -> int:
    rows, each = batch.prompts.positions.shape
    return rows * each // batch.size
