"""How sensitive a circuit's answers are to each gate: the diagonal of the Fisher information.

Where a circuit answers as the whole model does, the KL between them has no slope: what closing gates
costs is of second order,

    KL(whole || circuit)  ~  1/2 (1 - z)' F (1 - z),    F_g = E sum_y p(y) (d log p(y) / d z_g)^2

with p the whole model's answers and the mean over examples. A half of F_g is what closing gate g alone
costs, in nats: optimal brain damage (LeCun et al. 1990) with the Fisher information for the second
derivative (Theis et al. 2018, arXiv 1801.05787). It is taken without a sum over the vocabulary: with a
random sign s_y for each answer,

    g = d/dz sum_y c_y logit_y,   c_y = sqrt(p_y) s_y - p_y sum_y' sqrt(p_y') s_y',   has  E g^2 = F

so that every slope of a few examples is one draw of F. A slope of the KL itself, at a circuit that
differs from the model, tells less: it holds the token embedding's edge into the first MLP of a language
model to be harmful, without which nothing is left.
"""

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.conditions import logits_under
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import ABLATIONS, Reference
from circuitjax.gated.rows import Batches
from circuitjax.prune.evaluate import references

__all__ = ["curvature"]

_SEED = 0  # of the signs


def curvature(model: GatedModel, batches: Batches, examples: Examples) -> np.ndarray:
    """What closing each gate of the whole model alone costs, a half of F: float64 `[G]`, in nats.

    Args:
      model: the whole network under gates.
      batches: how examples are cut for it.
      examples: to measure on; every item is one draw.
    """
    # One item at a time gives the most draws; a donor is another prompt of the batch.
    size = 2 if ABLATIONS[model.ablation].mixes and examples.unit == 1 else 1
    gates = np.ones(model.num_gates, np.float32)
    total, number = np.zeros(model.num_gates), 0
    for start in range(0, examples.items - size + 1, size):
        rows = [batches.whole(examples.take(np.arange(start, start + size)))]
        for batch, reference in references(model, rows, full=True):
            key = jax.random.fold_in(jax.random.key(_SEED), number)
            slope = np.asarray(_signed(model, gates, batch, reference, key), np.float64)
            assert reference.full is not None
            total += slope**2 / (2 * np.prod(reference.full.shape[:2]))
            number += 1
    return total / number


@jax.jit
def _signed(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference, key: jax.Array
) -> jax.Array:
    assert reference.full is not None
    chance = jax.nn.softmax(reference.full)
    along = _along(chance, jax.random.rademacher(key, chance.shape, chance.dtype))

    def moved(z: jax.Array) -> jax.Array:
        logits = logits_under(model, z, batch, reference)
        # An impossible token (-inf) has no weight and no slope.
        return jnp.sum(jnp.where(chance > 0, along * logits, 0.0))

    slope: jax.Array = jax.grad(moved)(gates)
    return slope


def _along(chance: jax.Array, signs: jax.Array) -> jax.Array:
    """c `[M, P, V]`: of random signs, E c c' = diag(p) - p p', the curvature of the KL by the logits."""
    drawn = jnp.sqrt(chance) * signs
    return drawn - chance * jnp.sum(drawn, axis=-1, keepdims=True)
