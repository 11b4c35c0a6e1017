"""The space in which node pruning is tuned: all eight hyperparameters of Gao et al. 2025, Table 2.

Centres are the published ones, but for k_coef, whose useful value goes as one over the number of
nodes N: 18 / N is the published 1e-4 times the N it was published for. A basic unit is a decade; bounds
lie where a run cannot be told from one that does nothing, or that destroys everything at once.
"""

from circuitjax.prune.config import default_hyper
from circuitjax.tune.space import Dimension, Space

__all__ = ["pruning_space"]


def pruning_space(num_nodes: int) -> Space:
    """The eight dimensions for a model of N nodes; names are the fields of `prune.Hyper`."""
    k_coef = float(default_hyper(num_nodes).k_coef)
    return Space(
        (
            Dimension("k_coef", "log", k_coef, k_coef / 100, k_coef * 100),
            Dimension("init_noise_scale", "log", 1e-2, 1e-4, 1.0),
            Dimension("init_noise_bias", "log", 1e-1, 1e-3, 1.0),
            Dimension("wd", "log", 1e-3, 1e-6, 1.0),
            Dimension("lr", "log", 3e-3, 1e-4, 0.3),
            Dimension("inv_beta2", "log", 5e-2, 1e-4, 0.9),
            Dimension("lr_warmup_frac", "logit", 5e-2, 1e-3, 0.9),
            Dimension("heaviside_temp", "log", 1.0, 1e-2, 100.0),
        )
    )
