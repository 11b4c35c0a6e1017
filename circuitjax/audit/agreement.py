"""Does the circuit compute as the model does? Attention patterns and activations, on test prompts.

    divergence of a head   mean over prompts and queries of  1/2 sum_keys |pattern of model - of circuit|
                           (total variation: 0 equal, 1 disjoint; a sink counts as one more key)
    unexplained of a node  sum (model's value - circuit's)^2  /  sum (model's value - its mean)^2

Only kept heads (some v of theirs is kept) and kept nodes count, and only tokens of the prompt. A
fraction above 1 says that the node's mean would have been the better guess. Axis letters: B sequences,
T positions, L layers, H heads, W nodes of a site.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.record import Agreement
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.gated.replacement import refer
from circuitjax.model.transformer import apply
from circuitjax.prune.problem import Problem

__all__ = ["agreement"]

_ITEMS = 16  # per pass: every activation of two runs is held


@jax.jit
def _compare(
    whole: Any, model: Any, gates: jax.Array, batch: Examples, key: jax.Array
) -> dict[str, Any]:
    """Sums over the prompts' tokens: see the names."""
    tokens, last = batch.tokens[:, 0], batch.positions[:, -1]
    real = jnp.arange(tokens.shape[1])[None, :] <= last[:, None]
    held = refer(model, batch, key, full=False).held
    fills = model.held if held is None else held
    sites = whole.config.sites
    names = (*sites, "attn.pattern")
    of_model = apply(whole.config, whole.params, tokens, capture=names).captured
    of_circuit = apply(
        model.config, model.params, tokens, model.tree(gates), fills, capture=names
    ).captured
    p, q = of_model["attn.pattern"], of_circuit["attn.pattern"]
    sink = jnp.abs(jnp.sum(p - q, axis=-1))
    distance = 0.5 * (jnp.sum(jnp.abs(p - q), axis=-1) + sink)
    count = real[None, :, :, None].astype(jnp.float32)
    sums: dict[str, Any] = {
        "tokens": jnp.sum(real),
        "distance": jnp.sum(distance * real[None, :, None, :], axis=(1, 3)),
    }
    for name, value in (
        ("error", {s: (of_model[s] - of_circuit[s]) ** 2 for s in sites}),
        ("total", {s: of_model[s] for s in sites}),
        ("square", {s: of_model[s] ** 2 for s in sites}),
    ):
        sums[name] = {s: jnp.sum(v * count, axis=(1, 2)) for s, v in value.items()}
    return sums


def agreement(problem: Problem, circuit: Circuit, examples: Examples) -> Agreement | None:
    """Compares a circuit's insides with the model's.

    Args:
      problem: the model.
      circuit: of that model.
      examples: prompts to compare on.

    Returns:
      `heads`: {`layer.head`: divergence} of kept heads; `divergence`: their mean, None without any;
      `unexplained`: per layer the median over its kept nodes, None for a layer without any. None for
      a circuit that cannot be run as nodes: of residual edges, or of weights under replacements that
      differ from prompt to prompt.
    """
    view = circuit.parts(problem.model).get("nodes")
    if view is None:
        return None
    model: Any = view.model
    gates, total = jnp.asarray(view.gates, jnp.float32), None
    for number, start in enumerate(range(0, examples.items, _ITEMS)):
        # The last batch at its own size: an item that fills it up would count more than once.
        batch = examples.take(np.arange(start, min(start + _ITEMS, examples.items)))
        key = jax.random.fold_in(jax.random.key(0), number)
        found = _compare(problem.whole, model, gates, batch, key)
        found = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
        total = found if total is None else jax.tree.map(np.add, total, found)
    assert total is not None
    config, tokens = problem.whole.config, total["tokens"]
    mask = model.tree(view.gates)
    distance = total["distance"] / tokens
    kept_v = mask["attn.v"].reshape(config.num_layers, config.num_heads, -1).any(axis=-1)
    heads = {
        f"{layer}.h{head}": float(distance[layer, head]) for layer, head in np.argwhere(kept_v)
    }
    unexplained: list[float | None] = []
    for layer in range(config.num_layers):
        shares: list[np.ndarray] = []
        for site in problem.model.config.sites:
            error, mean, square = (total[n][site][layer] for n in ("error", "total", "square"))
            # In float32 sums a constant node's variance is rounding: it has none to explain.
            spread = square - mean * mean / tokens
            varies = spread > 1e-5 * np.maximum(square, 1e-12)
            kept = mask[site][layer] & varies
            shares.append(error[kept] / spread[kept])
        joined = np.concatenate(shares)
        unexplained.append(float(np.median(joined)) if len(joined) else None)
    return Agreement(heads, float(np.mean(list(heads.values()))) if heads else None, unexplained)
