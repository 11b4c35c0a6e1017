"""How sensitive a circuit's answers are to each gate: the diagonal of the Fisher information.

Where a circuit answers as the whole model does, the KL between them has no slope: what closing gates
costs is of second order,

    KL(whole || circuit)  ~  1/2 (1 - z)' F (1 - z),    F_g = E sum_y p(y) (d log p(y) / d z_g)^2

with p the whole model's answers and the mean over examples. A half of F_g is what closing gate g alone
costs, in nats: optimal brain damage (LeCun et al. 1990) with the Fisher information for the second
derivative (Theis et al. 2018, arXiv 1801.05787). It is taken without a sum over the vocabulary: with a
random sign s_y for each answer,

    g = d/dz sum_y c_y logit_y,   c_y = sqrt(p_y) s_y - p_y sum_y' sqrt(p_y') s_y',   has  E g^2 = F

so that every slope of a few examples is one draw of F. At a circuit that differs from the model, the KL
has a slope too, and closing a gate adds to the KL

    max(-d KL / d z_g, 0)  +  1/2 F_g      with F of the circuit's own answers (Gauss-Newton).

A slope that promises a fall is not believed: it holds for small steps, and a gate closes by a large one.
The slope alone holds the token embedding's edge into the first MLP of a language model to be harmful,
without which nothing is left.
"""

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.conditions import logits_under
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.measures import kl_divergence
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import ABLATIONS, Reference
from circuitjax.gated.rows import Batches
from circuitjax.prune.evaluate import references

__all__ = ["KlRises", "curvature"]

_SEED = 0  # of the signs
_FRESH = 16  # items of a call
_FADING = 0.75  # what a call before counts beside the next: some seven calls tell in all


def curvature(model: GatedModel, batches: Batches, examples: Examples) -> np.ndarray:
    """What closing each gate of the whole model alone costs, a half of F: float64 `[G]`, in nats.

    Args:
      model: the whole network under gates.
      batches: how examples are cut for it.
      examples: to measure on; every item is one draw.
    """
    gates, size = np.ones(model.num_gates, np.float32), _together(model, examples)
    total, draws = np.zeros(model.num_gates), examples.items // size
    for number in range(draws):
        row = batches.whole(examples.take(np.arange(number * size, (number + 1) * size)))
        ((batch, reference),) = references(model, [row], full=False)
        total += _draw(model, gates, batch, reference, number)[0]
    return total / draws


def _together(model: GatedModel, examples: Examples) -> int:
    """One item at a time gives the most draws; two where one needs a donor."""
    return 2 if ABLATIONS[model.ablation].mixes and examples.unit == 1 else 1


class KlRises:
    """What closing each gate of a circuit alone adds to the KL; the circuit shrinks from call to call.

    Every call measures on the next few items, and counts what calls before it found with a weight that
    falls: the circuit hardly changes between two calls, and an order that follows the same few items
    from the whole model down to a circuit is fitted to these.
    """

    def __init__(self, model: GatedModel, batches: Batches, examples: Examples) -> None:
        """Takes the whole network under gates, and how examples are cut for it."""
        self._model, self._batches, self._examples = model, batches, examples
        self._number, self._size = 0, _together(model, examples)
        self._half, self._slope = np.zeros(model.num_gates), np.zeros(model.num_gates)
        self._weight = 0.0

    def __call__(self, gates: np.ndarray) -> np.ndarray:
        """float64 `[G]`, in nats, of a circuit's gates `[G]`, 1 where open."""
        self._half, self._slope = _FADING * self._half, _FADING * self._slope
        self._weight *= _FADING
        for _ in range(max(min(_FRESH, self._examples.items) // self._size, 1)):
            at = np.arange(self._number * self._size, (self._number + 1) * self._size)
            row = self._batches.whole(self._examples.take(at % self._examples.items))
            ((batch, reference),) = references(self._model, [row], full=True)
            half, slope = _draw(self._model, gates, batch, reference, self._number)
            self._half, self._slope = self._half + half, self._slope + slope
            self._number, self._weight = self._number + 1, self._weight + 1
        return (self._half + np.maximum(-self._slope, 0.0)) / self._weight


def _draw(
    model: GatedModel, gates: np.ndarray, batch: Batch, reference: Reference, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """One draw of a half of F, and the slope of the KL where the whole model's answers are there."""
    key = jax.random.fold_in(jax.random.key(_SEED), number)
    along, slope, answers = _slopes(model, gates.astype(np.float32), batch, reference, key)
    return np.asarray(along, np.float64) ** 2 / (2 * int(answers)), np.asarray(slope, np.float64)


@jax.jit
def _slopes(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference, key: jax.Array
) -> tuple[jax.Array, jax.Array, int]:
    """A slope along random signs `[G]`, the KL's (0 without it), and of how many answers they are."""
    logits, pull = jax.vjp(lambda z: logits_under(model, z, batch, reference), gates)
    chance = jax.nn.softmax(logits)
    along = _along(chance, jax.random.rademacher(key, chance.shape, chance.dtype))
    # An impossible token (-inf) has no weight and no slope.
    (drawn,) = pull(jnp.where(chance > 0, along, 0.0))
    slope = jnp.zeros_like(drawn)
    full = reference.full
    if full is not None:
        away = jax.grad(lambda x: jnp.mean(kl_divergence(x, full)))(logits)
        (slope,) = pull(jnp.where(chance > 0, away, 0.0))
    return drawn, slope, logits.shape[0] * logits.shape[1]


def _along(chance: jax.Array, signs: jax.Array) -> jax.Array:
    """c `[M, P, V]`: of random signs, E c c' = diag(p) - p p', the curvature of the KL by the logits."""
    drawn = jnp.sqrt(chance) * signs
    return drawn - chance * jnp.sum(drawn, axis=-1, keepdims=True)
