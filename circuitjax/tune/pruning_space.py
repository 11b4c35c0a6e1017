"""The space in which node pruning is tuned: all eight hyperparameters of Gao et al. 2025, Table 2.

Centres are the published ones, but for k_coef, whose useful value goes as one over the number of
nodes N: 18 / N is the published 1e-4 times the N it was published for. They suit long runs; a study of
few rounds and short runs may start from the larger lr of the defaults instead. A basic unit is a
decade; bounds lie where a run cannot be told from one that does nothing, or that destroys everything
at once.
"""

from typing import Literal, get_args

from circuitjax.prune.config import default_hyper
from circuitjax.tune.space import Dimension, Space

__all__ = ["CENTRES", "Centre", "pruning_space"]

Centre = Literal["published", "default"]
CENTRES: tuple[Centre, ...] = get_args(Centre)
# Where they differ. The default has no warm-up, which has no logit.
_CHOSEN: dict[Centre, dict[str, float]] = {
    "published": {"lr": 3e-3, "lr_warmup_frac": 5e-2},
    "default": {"lr": 1e-2, "lr_warmup_frac": 1e-2},
}


def pruning_space(num_nodes: int, centre: Centre = "published") -> Space:
    """The eight dimensions for a model of N nodes; names are the fields of `prune.Hyper`.

    Raises:
      ValueError: a centre that is neither the published one nor the default.
    """
    if centre not in CENTRES:
        raise ValueError(f"centre is {centre!r}; choose one of {', '.join(CENTRES)}")
    chosen, published = _CHOSEN[centre], float(default_hyper(num_nodes).k_coef)
    return Space(
        (
            Dimension("k_coef", "log", published, published / 100, published * 100),
            Dimension("init_noise_scale", "log", 1e-2, 1e-4, 1.0),
            Dimension("init_noise_bias", "log", 1e-1, 1e-3, 1.0),
            Dimension("wd", "log", 1e-3, 1e-6, 1.0),
            Dimension("lr", "log", chosen["lr"], 1e-4, 0.3),
            Dimension("inv_beta2", "log", 5e-2, 1e-4, 0.9),
            Dimension("lr_warmup_frac", "logit", chosen["lr_warmup_frac"], 1e-3, 0.9),
            Dimension("heaviside_temp", "log", 1.0, 1e-2, 100.0),
        )
    )
