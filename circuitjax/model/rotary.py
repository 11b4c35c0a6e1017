"""Rotary positions: a query and a key are turned by angles that grow with their places.

    x1' = x1 cos - x2 sin,   x2' = x2 cos + x1 sin,   angle = place * frequency_i

with x1 and x2 the first and second half of a head's first `dims` channels (channel i pairs with
i + dims/2), frequency_i = base^(-2i/dims), and the other channels left alone (GPT-NeoX). So a score
depends on how far apart two tokens are, and a constant query times a constant key varies with that.

References: Su et al. 2021 (RoFormer); Llama 3's scaling as the released code has it: frequencies of
long wavelengths are divided by `factor`, those of short ones stay, and between them they blend.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.files import cut

__all__ = ["Rotary", "turn"]


@dataclasses.dataclass(frozen=True)
class Rotary:
    """How positions turn queries and keys.

    Attributes:
      dims: channels of a head that turn, the first ones; even.
      base: the frequencies' base.
      scaling: `linear` divides all of them by `factor`; `llama3` those of long wavelengths only.
      factor: see `scaling`.
      low_freq_factor, high_freq_factor, original_context: of `llama3`: wavelengths above
        original_context / low are long, below original_context / high short.
    """

    dims: int
    base: float = 10_000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if self.dims < 2 or self.dims % 2:
            raise ValueError(f"rotary dims are {self.dims}; they must be even and at least 2")
        if self.scaling not in ("none", "linear", "llama3"):
            raise ValueError(
                f"rotary scaling is {cut(self.scaling)}; choose none, linear or llama3"
            )
        for name in ("base", "factor", "low_freq_factor", "high_freq_factor", "original_context"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"rotary {name} is {getattr(self, name)}; it must be above 0")
        if self.scaling == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"rotary high_freq_factor is {self.high_freq_factor}; it must be above "
                f"low_freq_factor, {self.low_freq_factor}"
            )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Rotary":
        """The inverse of `dataclasses.asdict`; an unknown field is a ValueError that names it."""
        if not isinstance(fields, dict):
            raise ValueError(f"rotary is {cut(fields)}; it must be an object with its fields")
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown or "dims" not in fields:
            raise ValueError(f"rotary has unknown fields {unknown}, or no dims: {sorted(fields)}")
        return cls(**fields)

    def frequencies(self) -> np.ndarray:
        """float32 `[dims / 2]`, radians a token."""
        powers = np.arange(0, self.dims, 2, dtype=np.float32) / np.float32(self.dims)
        plain = (1.0 / np.float32(self.base) ** powers).astype(np.float32)
        if self.scaling == "none":
            return plain
        slow = plain / np.float32(self.factor)
        if self.scaling == "linear":
            return slow
        waves = 2 * math.pi / plain
        low, high = self.low_freq_factor, self.high_freq_factor
        blend = np.clip((self.original_context / waves - low) / (high - low), 0.0, 1.0)
        return ((1 - blend) * slow + blend * plain).astype(np.float32)


def turn(x: jax.Array, heads: int, places: jax.Array, frequencies: jax.Array) -> jax.Array:
    """Turns queries or keys.

    Args:
      x: `[B, T, heads * C]`.
      heads: how many heads x holds.
      places: `[B, T]` or `[1, T]`, the tokens' positions in their prompts.
      frequencies: `[dims / 2]`, dims <= C.

    Returns:
      As x.
    """
    angles = places.astype(jnp.float32)[:, :, None, None] * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    by_head = x.reshape(*x.shape[:2], heads, -1)
    half = frequencies.shape[-1]
    one, two, rest = by_head[..., :half], by_head[..., half : 2 * half], by_head[..., 2 * half :]
    turned = jnp.concatenate([one * cos - two * sin, two * cos + one * sin, rest], axis=-1)
    return turned.reshape(x.shape)
