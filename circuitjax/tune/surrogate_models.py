"""Gaussian processes of output, log cost and success over the space, by scikit-learn.

    kernel = a Matern(3/2; one length scale per dimension) + b (1 + x . x') + noise

Outputs are mapped to a normal distribution by their quantiles, so that one disastrous run does not
flatten the rest; costs enter by their logarithm, standardised. Success is regressed as +1 or -1 and read
as a probability through the normal distribution.

Kernel parameters maximise the marginal likelihood times a wide log-normal prior: with ten points in
eight dimensions the likelihood alone switches dimensions off at will. They are fitted to what came
back only; `add` conditions on more points under the same parameters.

Axes: N observations, D dimensions, M points.
Source: Fetterman et al. 2023 (arXiv 2306.08055), section 3.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

__all__ = ["Process", "fit_process", "normal_scores", "success_probability"]

# Of each kernel parameter: its bounds, the prior's median, and the prior's spread in log units.
_AMPLITUDE = (1e-3, 1e2), 1.0, 1.0
_LENGTH = (1e-2, 1e3), 2.0, 1.0
_LINEAR = (1e-6, 1e1), 1e-2, 1.5
_NOISE = (1e-6, 1.0), 1e-2, 2.0
_MOST_STEPS = 60  # of L-BFGS per fit, unless the caller makes do with fewer


@dataclasses.dataclass(frozen=True)
class Process:
    """A Gaussian process with its kernel parameters fixed, conditioned on points.

    Attributes:
      kernel: without the noise; None for a constant.
      noise: variance of an observation about the process.
      inputs: `[N, D]` in basic units.
      targets: `[N]`.
    """

    kernel: Any
    noise: float
    inputs: np.ndarray
    targets: np.ndarray

    @functools.cached_property
    def _regressor(self) -> GaussianProcessRegressor:
        regressor = GaussianProcessRegressor(
            self.kernel, alpha=self.noise, optimizer=None, copy_X_train=False
        )
        return regressor.fit(self.inputs, self.targets)

    def predict(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) of the process itself, without noise, at `[M, D]`; each `[M]`."""
        with warnings.catch_warnings():
            # Rounding may leave a variance just below 0 at a point that was measured; it is 0 then.
            warnings.filterwarnings("ignore", "Predicted variances smaller than 0")
            mean, deviation = self._regressor.predict(inputs, return_std=True)
        return mean, np.maximum(deviation, 1e-9)

    def add(self, inputs: np.ndarray, targets: np.ndarray) -> "Process":
        """The same process, conditioned on more points `[M, D]`, `[M]`."""
        return dataclasses.replace(
            self,
            inputs=np.concatenate([self.inputs, inputs]),
            targets=np.concatenate([self.targets, targets]),
        )


def fit_process(inputs: np.ndarray, targets: np.ndarray, most_steps: int = _MOST_STEPS) -> Process:
    """Fits kernel parameters to points.

    Args:
      inputs: `[N, D]` in basic units.
      targets: `[N]`, of mean near 0 and spread near 1 or 0.
      most_steps: of the optimiser; nearly all the time goes there.
    """
    dimensions = inputs.shape[1]
    length_bounds, length, length_spread = _LENGTH
    length *= math.sqrt(dimensions)
    kernel = (
        ConstantKernel(_AMPLITUDE[1], _AMPLITUDE[0])
        * Matern(np.full(dimensions, length), length_bounds, nu=1.5)
        + ConstantKernel(_LINEAR[1], _LINEAR[0]) * DotProduct(1.0, "fixed")
        + WhiteKernel(_NOISE[1], _NOISE[0])
    )
    spreads = np.array([_AMPLITUDE[2], *[length_spread] * dimensions, _LINEAR[2], _NOISE[2]])
    regressor = GaussianProcessRegressor(kernel, alpha=1e-10, optimizer=None, copy_X_train=False)
    regressor.fit(inputs, targets)
    start = kernel.theta

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = regressor.log_marginal_likelihood(theta, True, clone_kernel=False)
        pull = (theta - start) / spreads
        return float(pull @ pull / 2 - value), pull / spreads - gradient

    theta = _lowest(loss, start, kernel.bounds, most_steps)
    fitted = kernel.clone_with_theta(theta)
    return Process(fitted.k1, float(fitted.k2.noise_level), inputs, targets)


def _lowest(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    bounds: np.ndarray,
    most_steps: int,
) -> np.ndarray:
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": most_steps}
    )
    return found.x if np.all(np.isfinite(found.x)) else start


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Values `[N]` mapped to a standard normal distribution by their quantiles.

    The i-th smallest of N goes to the quantile i / (N + 1), equal ones to the middle of theirs. So the
    best run so far is no outlier whatever it is worth; scikit-learn's QuantileTransformer would send it
    to the 1e-7 quantile, and equal values to where its rounding falls.
    """
    return ndtri(rankdata(values) / (values.size + 1))


def success_probability(process: Process, inputs: np.ndarray) -> np.ndarray:
    """P(success) `[M]` at `[M, D]`, by a process fitted to +1 (success) and -1 (failure)."""
    mean, deviation = process.predict(inputs)
    return ndtr(mean / np.sqrt(deviation**2 + process.noise))
