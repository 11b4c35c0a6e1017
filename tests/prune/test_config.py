"""Configurations refuse what cannot work, each with one clear line."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.prune.config import Hyper, PruneConfig, default_hyper, stack_hypers


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("target_loss", (0.0, -1.0, math.inf, math.nan)),
        ("steps", (0, -1, 2.5, math.nan)),
        ("batch_size", (0,)),
        ("train_pairs", (0,)),
        ("validation_pairs", (0,)),
        ("test_pairs", (-3,)),
        ("chunk", (0,)),
        ("grid", (2,)),
        ("random_controls", (19,)),
        ("ablation", ("median",)),
        ("calibrate", ("before",)),
        ("loss", ("kl",)),
    ],
)
def test_a_bad_configuration_is_one_line(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} is ") as caught:
            PruneConfig(**{name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("k_coef", (-1e-3, math.inf, math.nan, 1e39), (0.0, 3.0)),
        ("init_noise_scale", (-0.1, math.nan), (0.0,)),
        ("init_noise_bias", (-1.1, 1.01, math.nan), (-1.0, 1.0)),
        ("wd", (-1e-9, math.inf), (0.0,)),
        ("lr", (0.0, -1.0, math.nan, 1e39, 1e-50), (1e-5, 10.0)),
        ("inv_beta2", (0.0, 1.5, 1e-9, math.nan), (1e-6, 1.0)),
        ("lr_warmup_frac", (-0.1, 1.0, math.nan), (0.0, 0.99)),
        ("heaviside_temp", (0.0, -1.0, math.nan, math.inf), (1e-2,)),
    ],
)
def test_limits_of_hyperparameters(name, bad, good):
    for value in good:
        default_hyper(100, **{name: value})
    for value in bad:
        with pytest.raises(ValueError, match=rf"^{name} is .*; it must be in [\[(]") as caught:
            default_hyper(100, **{name: value})
        assert "\n" not in str(caught.value)


def test_the_default_weight_of_size_goes_as_one_over_the_nodes():
    assert default_hyper(180_224).k_coef == pytest.approx(1e-4, rel=1e-2)  # the published centre
    assert default_hyper(900).k_coef * 900 == pytest.approx(18)
    assert default_hyper(900, k_coef=0.5).k_coef == 0.5


def test_stacked_jobs_have_a_leading_axis():
    jobs = stack_hypers([Hyper(k_coef=1.0), Hyper(k_coef=2.0, lr=0.5)])
    assert jobs.k_coef.dtype == jnp.float32
    np.testing.assert_array_equal(jobs.k_coef, [1, 2])
    np.testing.assert_allclose(jobs.lr, [0.01, 0.5])
