"""A corrected gradient: the forward pass as ever, but what gradients see of it is changed (GIM).

Where two factors are multiplied, or a sum normalises, a gradient asks what one part does while all
others stay, though in a circuit they go together: it counts a product twice, and misses what a softmax
or a norm makes up for. Gradient interaction modifications (Edin et al. 2025, "GIM: Improved
Interpretability for Large Language Models", arXiv 2505.17630, section 4) change three derivatives:

    norms       the factor that a norm multiplies by is a constant
    softmax     s(x)' as that of s(x / T), T = 2:  g -> s_T (g - sum of s_T g),  s_T = softmax(x / T)
    products    each of two factors has half of the gradient: attention pattern and v, the two sides of
                a gated MLP; q and k share the pattern's half, a quarter each

No answer changes. Why this one and not relevance patching (RelP, arXiv 2508.21258): RelP holds the
attention pattern constant, so every edge into a query or a key scores zero, and these are two thirds of
the edges into heads, among them those that decide where a head looks; GIM ranks them.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from circuitjax.model.config import TransformerConfig

__all__ = ["CorrectedConfig", "corrected", "pattern", "share"]

_TEMPERATURE = 2.0


@dataclasses.dataclass(frozen=True)
class CorrectedConfig(TransformerConfig):
    """The same model, with corrected gradients: another static key, so another compiled program."""

    corrects_gradients: ClassVar[bool] = True


def corrected(config: TransformerConfig) -> CorrectedConfig:
    """The same model with corrected gradients.

    Examples:
      >>> corrected(model.config).corrects_gradients, model.config.corrects_gradients
      (True, False)
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return CorrectedConfig(**fields)


def share(config: TransformerConfig, x: jax.Array, part: float) -> jax.Array:
    """x itself, with only a part of its gradient where gradients are corrected."""
    if not config.corrects_gradients:
        return x
    fixed = lax.stop_gradient(x)
    return fixed + part * (x - fixed)


def pattern(weights: jax.Array, scores: jax.Array, sinks: jax.Array | None) -> jax.Array:
    """An attention pattern `[B, H, P, T]` with the gradient of a softer one.

    Args:
      weights: the pattern.
      scores: `[B, H, P, T]`, what it is the softmax of; hugely negative where nothing is seen.
      sinks: `[1, H, 1, 1]`, score of an extra key without a value, or None.
    """
    soft = scores / _TEMPERATURE
    if sinks is not None:
        extra = jnp.broadcast_to(sinks / _TEMPERATURE, (*soft.shape[:-1], 1))
        soft = jnp.concatenate([soft, extra], axis=-1)
    soft = jax.nn.softmax(soft, axis=-1)[..., : scores.shape[-1]]
    return lax.stop_gradient(weights) + _TEMPERATURE * (soft - lax.stop_gradient(soft))
