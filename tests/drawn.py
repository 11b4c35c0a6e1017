"""Random tiny models, masks and fills: every parameter drawn, weights sparse."""

import dataclasses
from typing import Any

import jax
import numpy as np

from circuitjax.model import transformer
from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import shapes

BASE = TransformerConfig(
    num_layers=2, d_model=8, num_heads=2, d_head=3, d_mlp=10, vocab_size=11, context_length=6
)


def assert_same(one: Any, other: Any) -> None:
    """Two pytrees with equal leaves."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


class Draw:
    """Draws models and circuits of variants of one tiny architecture."""

    tokens = np.random.default_rng(0).integers(0, 11, (4, 6)).astype(np.int32)
    positions = np.array([[5, 2], [5, 5], [0, 3], [1, 4]], np.int32)

    def __init__(self) -> None:
        self._shaped: dict[TransformerConfig, Any] = {}

    def config(self, **changes: Any) -> TransformerConfig:
        return dataclasses.replace(BASE, **changes)

    def params(
        self, config: TransformerConfig, rng: np.random.Generator, density: float = 0.3
    ) -> dict[str, Any]:
        if config not in self._shaped:
            self._shaped[config] = jax.eval_shape(
                lambda: transformer.init_params(jax.random.key(0), config)
            )

        def draw(path, leaf):
            name = jax.tree_util.keystr(path)
            value = rng.normal(size=leaf.shape)
            if "layers" in name and leaf.ndim == 3:
                value *= rng.random(leaf.shape) < density
            elif "embed" in name:
                value *= rng.random(leaf.shape) < 0.7
            if "unembed" in name:
                value[rng.random(leaf.shape[0]) < 0.3] = 0
            return value.astype(np.float32) + np.float32("scale" in name)

        return jax.tree_util.tree_map_with_path(draw, self._shaped[config])

    def mask(
        self, config: TransformerConfig, rng: np.random.Generator, density: float
    ) -> dict[str, np.ndarray]:
        return {site: rng.random(shape) < density for site, shape in shapes(config).items()}

    def fills(self, config: TransformerConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A third of them exactly zero."""
        return {
            site: (rng.normal(size=shape) * (rng.random(shape) < 2 / 3)).astype(np.float32)
            for site, shape in shapes(config).items()
        }
