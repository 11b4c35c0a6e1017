"""Eight virtual CPU devices, strict ranks, and what most tests need."""

import os

from tests.compiler import XLA_FLAGS, forget_programs

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)

import jax
import numpy as np
import pytest

from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import init_params
from tests.drawn import Draw

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """See `forget_programs`."""
    yield
    forget_programs()


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_config() -> TransformerConfig:
    """2 layers, 12 channels, 2 heads of 4, 16 neurons, 24 tokens: with sinks and a bigram table."""
    return TransformerConfig(
        num_layers=2,
        d_model=12,
        num_heads=2,
        d_head=4,
        d_mlp=16,
        vocab_size=24,
        context_length=16,
        attention_sinks=True,
        bigram=True,
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: TransformerConfig) -> Model:
    """A model of `tiny_config` with every parameter random, biases, norms and sinks too."""
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), tiny_config))
    rng = np.random.default_rng(1)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return rng.normal(0, 0.5, leaf.shape).astype(np.float32)

    return Model(name="tiny", config=tiny_config, params=jax.tree.map(draw, shapes))


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Draws random tiny models, masks and fills."""
    return Draw()
