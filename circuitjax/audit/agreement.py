"""Does the circuit compute as the model does? Attention patterns and activations, on test prompts.

    divergence of a head   mean over prompts and queries of  1/2 sum_keys |pattern of model - of circuit|
                           (total variation: 0 equal, 1 disjoint; a sink counts as one more key)
    unexplained of a node  sum (model's value - circuit's)^2  /  sum (model's value - its mean)^2

Only kept heads (some v of theirs is kept) and kept nodes count, and only tokens of the prompt. A
fraction above 1 says that the node's mean would have been the better guess. Axis letters: B sequences,
T positions, L layers, H heads, W nodes of a site.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.evidence import gated_problem
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Params, apply
from circuitjax.prune.objective import Pairs
from circuitjax.prune.problem import Problem

__all__ = ["agreement"]

_BATCH = 16  # pairs per pass: every activation of two runs is held
_NAMES = (*SITES, "attn.pattern")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compare(
    config: TransformerConfig,
    gated_config: TransformerConfig,
    params: Params,
    gated_params: Params,
    gates: Gates,
    fills: Fills,
    batch: Pairs,
) -> dict[str, Any]:
    """Sums over the prompts' tokens: see the names."""
    tokens = batch.tokens.reshape(-1, batch.tokens.shape[-1])
    real = jnp.arange(tokens.shape[1])[None, :] <= batch.last.reshape(-1, 1)
    model = apply(config, params, tokens, capture=_NAMES).captured
    circuit = apply(gated_config, gated_params, tokens, gates, fills, capture=_NAMES).captured
    p, q = model["attn.pattern"], circuit["attn.pattern"]
    sink = jnp.abs(jnp.sum(p - q, axis=-1))
    distance = 0.5 * (jnp.sum(jnp.abs(p - q), axis=-1) + sink)
    count = real[None, :, :, None].astype(jnp.float32)
    sums: dict[str, Any] = {
        "tokens": jnp.sum(real),
        "distance": jnp.sum(distance * real[None, :, None, :], axis=(1, 3)),
    }
    for name, value in (
        ("error", {s: (model[s] - circuit[s]) ** 2 for s in SITES}),
        ("total", {s: model[s] for s in SITES}),
        ("square", {s: model[s] ** 2 for s in SITES}),
    ):
        sums[name] = {s: jnp.sum(v * count, axis=(1, 2)) for s, v in value.items()}
    return sums


def agreement(problem: Problem, circuit: Circuit, pairs: Pairs) -> dict[str, Any]:
    """Compares a circuit's insides with the model's.

    Args:
      problem: the model.
      circuit: of nodes or of weights.
      pairs: prompts to compare on.

    Returns:
      `heads`: {`layer.head`: divergence} of kept heads; `divergence`: their mean, None without any;
      `unexplained`: per layer the median over its kept nodes, None for a layer without any.
    """
    gated = gated_problem(problem, circuit)
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    total: Any = None
    for start in range(0, pairs.size, _BATCH):
        # The last batch at its own size: a pair that fills it up would count more than once.
        batch = pairs.take(np.arange(start, min(start + _BATCH, pairs.size)))
        found = _compare(
            problem.config,
            gated.config,
            problem.params,
            gated.params,
            circuit.gates(),
            fills,
            batch,
        )
        found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
        total = found if total is None else jax.tree.map(np.add, total, found)
    config, tokens = problem.config, total["tokens"]
    distance = total["distance"] / tokens
    kept_v = circuit.mask["attn.v"].reshape(config.num_layers, config.num_heads, -1).any(axis=-1)
    heads = {
        f"{layer}.h{head}": float(distance[layer, head]) for layer, head in np.argwhere(kept_v)
    }
    unexplained: list[float | None] = []
    for layer in range(config.num_layers):
        shares: list[np.ndarray] = []
        for site in SITES:
            error, mean, square = (total[n][site][layer] for n in ("error", "total", "square"))
            # In float32 sums a constant node's variance is rounding: it has none to explain.
            spread = square - mean * mean / tokens
            varies = spread > 1e-5 * np.maximum(square, 1e-12)
            kept = circuit.mask[site][layer] & varies
            shares.append(error[kept] / spread[kept])
        joined = np.concatenate(shares)
        unexplained.append(float(np.median(joined)) if len(joined) else None)
    return {
        "heads": heads,
        "divergence": float(np.mean(list(heads.values()))) if heads else None,
        "unexplained": unexplained,
    }
