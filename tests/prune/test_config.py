"""Configurations refuse what cannot work, each with one clear line."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.prune.config import (
    LIMITS,
    DataConfig,
    Hyper,
    SelectionConfig,
    TrainConfig,
    check_limits,
    stack_hypers,
)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (TrainConfig, "steps", (0, -1, 2.5, math.nan, True, 10**7 + 1, 10**30)),
        (TrainConfig, "batch_size", (0, 10**12)),
        (TrainConfig, "chunk", (0,)),
        (DataConfig, "train", (0, 10**12)),
        (DataConfig, "validation", (0,)),
        (DataConfig, "test", (-3,)),
        (SelectionConfig, "grid", (2,)),
        (SelectionConfig, "random_controls", (19,)),
        (SelectionConfig, "calibrate", ("before",)),
        (SelectionConfig, "target", ("size",)),
    ],
)
def test_a_bad_configuration_is_one_line(kind, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} is ") as caught:
            kind(**{name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["loss", "kl"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_target_is_one_line(target, value):
    with pytest.raises(ValueError, match=f"^target_{target} is .* nats$"):
        SelectionConfig(target, value)


@pytest.mark.parametrize("value", [0, 2.5, -1])
def test_a_size_is_a_whole_number(value):
    with pytest.raises(ValueError, match=r"^target_edges is .* whole number"):
        SelectionConfig("edges", value)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("k_coef", (-1e-3, math.inf, math.nan, 1e39), (0.0, 3.0)),
        ("init_noise_scale", (-0.1, math.nan), (0.0,)),
        ("init_noise_bias", (-15.1, 16.0, math.nan), (-1.0, 10.0)),
        ("wd", (-1e-9, math.inf), (0.0,)),
        ("lr", (0.0, -1.0, math.nan, 1e39, 1e-50), (1e-5, 10.0)),
        ("inv_beta2", (0.0, 1.5, 1e-9, math.nan), (1e-6, 1.0)),
        ("lr_warmup_frac", (-0.1, 1.0, math.nan), (0.0, 0.99)),
        ("heaviside_temp", (0.0, -1.0, math.nan, math.inf), (1e-2,)),
    ],
)
def test_limits_of_hyperparameters(name, bad, good):
    for value in good:
        check_limits({name: value}, LIMITS)
    for value in bad:
        with pytest.raises(ValueError, match=rf"^{name} is .*; it must be in [\[(]") as caught:
            check_limits({name: value}, LIMITS)
        assert "\n" not in str(caught.value)


def test_stacked_jobs_have_a_leading_axis():
    jobs = stack_hypers([Hyper(k_coef=1.0), Hyper(k_coef=2.0, lr=0.5)])
    assert jobs.k_coef.dtype == jnp.float32
    np.testing.assert_array_equal(jobs.k_coef, [1, 2])
    np.testing.assert_allclose(jobs.lr, [0.01, 0.5])
