"""Calibration against SciPy over scale > 0 and any shift, on easy and on nasty differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from circuitjax.core import policy
from circuitjax.prune import calibrate as module
from circuitjax.prune.calibrate import Calibration

SIGN = np.array([1.0, -1.0])


def calibrate(differences) -> Calibration:
    """Of the differences `[..., B, 2]` of both completions' logits, as odds of what is right."""
    odds = np.asarray(differences) * SIGN.astype(np.float32)
    return module.calibrate(odds.reshape(*odds.shape[:-2], -1))


def loss_of(differences: np.ndarray, scale: float, shift: float) -> float:
    return float(np.mean(np.logaddexp(0, -SIGN * (scale * differences + shift))))


def best_loss(differences: np.ndarray) -> float:
    """The least loss over scale > 0, from several starts; its limit at scale 0 is ln 2."""
    spread, centre = differences.std() + 1e-9, differences.mean()
    found = [np.log(2), loss_of(differences, 1, 0)]
    for start in (0.05, 1.0, 20.0):
        log_scale = np.clip(np.log(start / spread), -30, 30)

        def objective(theta, origin=log_scale):
            scale = np.exp(theta[0] + origin)
            return loss_of(differences, scale, theta[1] - scale * centre)

        options = {"maxiter": 2000, "xatol": 1e-8, "fatol": 1e-11}
        found.append(minimize(objective, [0, 0], method="Nelder-Mead", options=options).fun)
    return min(found)


def cases() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(64, 2))
    sets = {
        f"spread {spread} signal {signal} offset {offset}": spread
        * (noise + signal * SIGN + offset)
        for spread in (0.01, 1.0, 30.0)
        for signal, offset in ((0.3, 0), (1.0, -40.0), (3.0, 5.0), (0.0, 5.0))
    }
    margin = 1 + rng.random((64, 2))
    sets |= {f"separable {m}": m * margin * SIGN for m in (0.01, 1.0, 50.0)}
    sets |= {f"backwards {m}": -m * margin * SIGN for m in (0.01, 1.0, 50.0)}
    sets |= {f"constant {c}": np.full((64, 2), c) for c in (0.0, 0.5, -30.0)}
    outlier = 2 * SIGN + 0.3 * noise
    outlier[0] = -40 * SIGN
    sets["an outlier"] = outlier
    return {name: value.astype(np.float32) for name, value in sets.items()}


@pytest.fixture(scope="module")
def fitted():
    sets = cases()
    found = calibrate(jnp.asarray(np.stack(list(sets.values()))))
    rows = zip(*(np.asarray(x) for x in (found.scale, found.shift, found.loss)), strict=True)
    return {name: (sets[name], *row) for name, row in zip(sets, rows, strict=True)}


def test_as_good_as_scipy(fitted):
    worse = {
        name: float(loss - best_loss(differences.astype(float)))
        for name, (differences, _, _, loss) in fitted.items()
    }
    assert max(worse.values()) < 1e-4, worse


def test_the_scale_is_positive_and_the_loss_is_that_of_what_is_returned(fitted):
    for name, (differences, scale, shift, loss) in fitted.items():
        assert 0 < scale < np.inf, name
        assert np.isfinite(shift), name
        assert loss == pytest.approx(loss_of(differences.astype(float), scale, shift), abs=2e-4)
        assert loss <= loss_of(differences.astype(float), 1, 0) + 1e-6, name


def test_answering_backwards_is_worth_no_more_than_chance(fitted):
    for name in ("backwards 0.01", "backwards 1.0", "backwards 50.0"):
        assert fitted[name][3] > np.log(2) - 1e-5


def test_a_batch_is_fitted_row_by_row(fitted):
    chosen = list(fitted.values())[:6]
    several = calibrate(jnp.asarray(np.stack([row[0] for row in chosen]).reshape(2, 3, 64, 2)))
    assert several.loss.shape == (2, 3)
    np.testing.assert_allclose(several.loss.ravel(), [row[3] for row in chosen], atol=1e-6)
    single = calibrate(jnp.asarray(chosen[1][0]))
    assert single.scale.shape == ()
    assert float(single.loss) == pytest.approx(chosen[1][3], abs=1e-6)


def test_side_by_side_is_one_after_another(monkeypatch):
    rng = np.random.default_rng(3)
    differences = rng.normal(0, 2, (20, 50, 2)) + SIGN  # two calls, the second not full
    looped = calibrate(differences)
    monkeypatch.setattr(module, "side_by_side", lambda: True)
    assert not policy.side_by_side()
    mapped = calibrate(differences)
    np.testing.assert_allclose(looped.loss, mapped.loss, atol=1e-6)
    np.testing.assert_allclose(looped.scale, mapped.scale, rtol=1e-3)
    assert looped.loss.shape == (20,)
    one = calibrate(differences[17])
    assert one.loss == pytest.approx(looped.loss[17], abs=1e-6)


TRAINED = ("spread 30.0 signal 0.3 offset 0", "spread 1.0 signal 1.0 offset -40.0", "an outlier")


@pytest.mark.parametrize("name", TRAINED)
def test_within_a_training_step_it_is_as_good_and_held_fixed_for_the_gradient(fitted, name):
    differences, scale, shift, _ = fitted[name]
    odds = (differences * SIGN).reshape(-1).astype(np.float32)
    loss, slopes = jax.value_and_grad(lambda o: module.calibrated_losses(o).mean())(
        jnp.asarray(odds)
    )
    best = best_loss(differences.astype(float))
    assert best - 1e-5 < float(loss) < best + 3e-4  # it is pulled a little to scale 0
    chance = 1 / (1 + np.exp(scale * odds + shift * np.tile(SIGN, len(differences))))
    expected = -scale * chance / odds.size
    np.testing.assert_allclose(slopes, expected, atol=0.05 * np.abs(expected).max())


def test_within_a_training_step_answering_backwards_is_worth_no_more_than_chance():
    odds = jnp.asarray(np.random.default_rng(4).uniform(1, 2, 64), jnp.float32)
    assert float(module.calibrated_losses(-odds).mean()) > np.log(2) - 1e-5
    # What is told apart perfectly has a gradient still.
    loss, slopes = jax.value_and_grad(lambda o: module.calibrated_losses(o).mean())(odds)
    assert float(loss) < 0.02
    assert np.all(slopes < 0)
    assert np.abs(slopes).max() > 1e-4
