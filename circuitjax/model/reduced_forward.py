"""What a reduced model answers: from tokens through its layers to logits."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from circuitjax.model import layers
from circuitjax.model.config import SITES
from circuitjax.model.layout import Layout
from circuitjax.model.reduced import Reduced
from circuitjax.model.reduced_layers import run_layers
from circuitjax.model.transformer import Gates

__all__ = ["apply_reduced", "embed_tokens", "unembed"]


def embed_tokens(
    reduced: Reduced, tokens: jax.Array, layout: Layout | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """The residual stream at its start `[B, T, D]`, and concatenated positions or None.

    Raises:
      ValueError: more tokens than the context length.
    """
    config, shared = reduced.config, reduced.shared
    if layout is None and tokens.shape[1] > config.context_length:
        raise ValueError(
            f"{tokens.shape[1]} tokens exceed the model's context length of {config.context_length}"
        )
    x = layers.embed(config, shared["embed"], tokens)
    if config.position == "none":
        return x, None
    if layout is None:
        embedding = shared["positions"][None, : tokens.shape[1]]
    else:
        embedding = shared["positions"][layout.places]
    if config.position == "learned":
        return x + embedding, None
    return x, jnp.broadcast_to(embedding, (*tokens.shape, config.d_position))


def unembed(
    reduced: Reduced, x: jax.Array, last: jax.Array, candidates: jax.Array | None = None
) -> jax.Array:
    """Logits of x `[B, P, D]` above tokens `[B, P]`: all of V, or `candidates` `[B, [P,] Q]` only."""
    config, shared = reduced.config, reduced.shared
    if candidates is not None and candidates.ndim == 3:
        batch, asked, width = x.shape
        alone = batch * asked, 1
        x, last = x.reshape(*alone, width), last.reshape(alone)
        logits = unembed(reduced, x, last, candidates.reshape(batch * asked, -1))
        return logits.reshape(candidates.shape)
    x = layers.normalise(config, x, layers.norm_params(shared, "final_norm"))
    kernel = shared["embed"].T if config.tied_unembedding else shared["unembed"]
    if candidates is None:
        logits = layers.cap_logits(config, layers.linear(config, x, kernel))
        if config.final_bias:
            logits = logits + shared["final_bias"][None, None, :]
        return logits + shared["bigram"][last] if config.bigram else logits
    columns = jnp.moveaxis(kernel[:, candidates], 0, 1)
    if config.matmul_dtype == "bfloat16":
        x, columns = x.astype(jnp.bfloat16), columns.astype(jnp.bfloat16)
    logits = jnp.einsum(
        "bpd,bdq->bpq",
        x,
        columns,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    logits = layers.cap_logits(config, logits)
    if config.final_bias:
        logits = logits + shared["final_bias"][candidates][:, None, :]
    if config.bigram:
        logits = logits + shared["bigram"][last[:, :, None], candidates[:, None, :]]
    return logits


def apply_reduced(
    reduced: Reduced,
    tokens: jax.Array,
    gates: Gates | None = None,
    *,
    positions: jax.Array | None = None,
    candidates: jax.Array | None = None,
    layout: Layout | None = None,
    held: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """Runs a reduced model.

    It equals `transformer.apply` with gates `keep` (times `gates`, where given) and the fills given
    to `reduce_model`. Gates may be traced and mapped over; gradients reach only nodes that can
    change the logits within `keep`.

    Args:
      reduced: as from `reduce_model`.
      tokens: int32 `[B, T]`.
      gates: {site: float `[L, W]`} over the original nodes, applied on top of `keep`; a node
        closed here takes its fill as in the full model. An absent site is as `keep` says.
      positions: int32 `[B, P]`: logits only there; from the last layer that attends on, no
        other token is worked out.
      candidates: int32 `[B, Q]`, or `[B, P, Q]` for each position: the vocabulary entries whose
        logits are wanted.
      layout: where tokens stand, if a row of tokens is more than one prompt.
      held: what closed nodes hold where that differs from token to token; see `reduced_tokens.py`.

    Returns:
      float32 logits `[B, T, V]`; P instead of T with `positions`, Q instead of V with `candidates`.

    Raises:
      ValueError: an unknown site in `gates`, or more tokens than the context length.
    """
    unknown = sorted(set(gates or {}) - set(SITES))
    if unknown:
        raise ValueError(f"unknown site {unknown[0]!r}; choose from {SITES}")
    x, places = embed_tokens(reduced, tokens, layout)
    x = run_layers(reduced, x, places, gates, positions, layout=layout, tokens=held)
    last = tokens if positions is None else jnp.take_along_axis(tokens, positions, axis=1)
    return unembed(reduced, x, last, candidates)
