"""The pretraining optimiser: RMS-normalised gradients, AdamW, the sharkfin schedule, projection.

    lr(n) = peak * warmup_linear_decay(n) / sqrt(density(n))        (Gao et al. 2025, A.2)

The division by sqrt(density) on the way down to the final density is the "sharkfin".
"""

import jax
import jax.numpy as jnp
import optax

from circuitjax.core.schedules import anneal_density, warmup_linear_decay
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.sparsify import is_sparse, sparsify

__all__ = ["make_optimizer", "scale_to_rms"]


def scale_to_rms(limit: float = 1.0, always: bool = True) -> optax.GradientTransformation:
    """Scales the whole gradient to a root-mean-square of `limit`.

    Args:
      limit: RMS after scaling, over every entry of the tree.
      always: False clips only, that is, leaves smaller gradients alone. The raw RMS of a language
        model's gradient is about 3e-4, so a mere clip to 1 never acts.
    """

    def update(
        updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params
        size = sum(leaf.size for leaf in jax.tree.leaves(updates))
        rms = optax.tree.norm(updates) / size**0.5
        scale = limit / jnp.maximum(rms, 1e-20)
        if not always:
            scale = jnp.minimum(scale, 1.0)
        return jax.tree.map(lambda leaf: leaf * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config: PretrainConfig) -> optax.GradientTransformation:
    """The whole chain; its last link keeps the parameters sparse."""

    def density_at(step: jax.Array) -> jax.Array:
        return anneal_density(step, config.steps, config.density, config.anneal_fraction)

    def rate_at(step: jax.Array) -> jax.Array:
        decay = warmup_linear_decay(step, config.steps, config.warmup_fraction)
        return config.learning_rate * decay / jnp.sqrt(density_at(step))

    def decayed(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(lambda path, _: is_sparse(path), params)

    return optax.chain(
        scale_to_rms(1.0, always=config.normalise_gradient),
        optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.scale_by_learning_rate(rate_at),
        sparsify(density_at, config.min_per_neuron) if config.density < 1 else optax.identity(),
    )
