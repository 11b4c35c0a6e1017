"""What each node of a circuit is worth: the change of its loss when that node alone is replaced.

    effect of a node = loss(circuit without it) - loss(circuit),   in nats

under the circuit's own replacement values and calibration. All knock-outs are one program: they are
mapped over the index of the node that is closed, through the reduced model where there is one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.reduced import Reduced, apply_reduced, can_reduce, reduce_model
from circuitjax.model.sites import address, flatten, shapes, unflatten
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import (
    Pairs,
    answer_logits,
    calibrated_differences,
    logit_differences,
)

__all__ = ["node_effects"]

_MASKS = 8  # side by side on an accelerator; on CPU they follow one another


def node_effects(circuit: Circuit, model: Model, pairs: Pairs) -> tuple[float, dict[str, float]]:
    """The circuit's loss, and by how much each knock-out raises it.

    Args:
      circuit: of nodes or weights.
      model: the circuit's own.
      pairs: M of them, all of equal weight.

    Returns:
      (loss in nats, {address: change in nats}). The loss is the mean over both prompts of a pair of
      the softmax over the two completions; a negative change means that the circuit does better
      without the node.

    Raises:
      ValueError: another model's.
    """
    config, params = circuit.gated(model)
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    mask = flatten(circuit.gates())
    kept = np.flatnonzero(np.asarray(mask))
    # One index beyond the last node closes nothing: the circuit itself.
    removed = jnp.asarray([config.num_nodes, *kept], jnp.int32)
    run: Any
    if can_reduce(config):
        run = reduce_model(config, params, circuit.mask, circuit.fills)
    else:
        run = (jax.tree.map(jnp.asarray, dict(params)), fills)
    width = 1 if jax.default_backend() == "cpu" else min(_MASKS, len(removed))
    calibration = jnp.float32(circuit.scale), jnp.float32(circuit.shift)
    losses = np.asarray(_losses(config, width, run, mask, removed, pairs, calibration), np.float64)
    changes = dict(zip(kept.tolist(), losses[1:] - losses[0], strict=True))
    return float(losses[0]), {
        name: float(changes[index]) for index, name in _names(config) if index in changes
    }


def _names(config: TransformerConfig) -> list[tuple[int, str]]:
    """(flat index, address) of every node, layer by layer in forward order."""
    names, start = [], 0
    for place, (site, (layers, width)) in enumerate(shapes(config).items()):
        for layer in range(layers):
            for index in range(width):
                flat = start + layer * width + index
                names.append(((layer, place, index), flat, address(config, layer, site, index)))
        start += layers * width
    return [(flat, name) for _, flat, name in sorted(names)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _losses(
    config: TransformerConfig,
    width: int,
    run: Any,
    mask: jax.Array,
    removed: jax.Array,
    pairs: Pairs,
    calibration: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Loss `[K]` with each of the nodes `removed` `[K]` closed; `width` of them at a time."""

    def loss(index: jax.Array) -> jax.Array:
        gates = unflatten(config, mask.at[index].set(0.0, mode="drop"))
        if isinstance(run, Reduced):
            found = _reduced_differences(run, pairs, gates)
        else:
            params, fills = run
            logits = answer_logits(config, params, pairs, gates, fills)
            found = logit_differences(logits, pairs.answers)
        return mean_binary_loss(calibrated_differences(found, *calibration))

    return jax.lax.map(loss, removed, batch_size=width)


def _reduced_differences(reduced: Reduced, pairs: Pairs, gates: dict[str, jax.Array]) -> jax.Array:
    size, _, length = pairs.tokens.shape
    logits = apply_reduced(
        reduced,
        pairs.tokens.reshape(size * 2, length),
        gates,
        positions=pairs.last.reshape(size * 2, 1),
        candidates=jnp.repeat(pairs.answers, 2, axis=0),
    ).reshape(size, 2, 2)
    return logits[..., 0] - logits[..., 1]
