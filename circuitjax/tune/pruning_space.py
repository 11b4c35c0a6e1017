"""The space in which a search is tuned: the hyperparameters that its gate and its control read.

For node pruning these are the eight of Gao et al. 2025, Table 2, and centres are the published ones, but
for k_coef, whose useful value goes as one over the number of nodes N: 18 / N is the published 1e-4 times
the N it was published for. They suit long runs; a study of few rounds and short runs may start from the
larger lr of the defaults instead. Everything else starts at the defaults. A basic unit is a decade, or a
decade of the odds of what lies between 0 and 1; bounds lie where a run cannot be told from one that does
nothing, or that destroys everything at once.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from circuitjax.prune.defaults import SPARSITIES, Search, default_hyper
from circuitjax.tune.space import Dimension, Space

__all__ = ["CENTRES", "Centre", "pruning_space"]

Centre = Literal["published", "default"]
CENTRES: tuple[Centre, ...] = get_args(Centre)
# Where they differ, for Heaviside gates on nodes. The default has no warm-up, which has no logit.
_CHOSEN: dict[Centre, dict[str, float]] = {
    "published": {"lr": 3e-3, "lr_warmup_frac": 5e-2},
    "default": {"lr": 1e-2, "lr_warmup_frac": 1e-2},
}


def pruning_space(
    num_gates: int, centre: Centre = "published", search: Search | None = None
) -> Space:
    """The dimensions for a search over G gates; names are the fields of `prune.config.Hyper`.

    Args:
      num_gates: G, see `run.search.gates_of`.
      centre: where node pruning starts; other searches start at their defaults.
      search: what is tuned; None for the defaults of nodes.

    Raises:
      ValueError: a centre that is neither the published one nor the default.
    """
    if centre not in CENTRES:
        raise ValueError(f"centre is {centre!r}; choose one of {', '.join(CENTRES)}")
    search = search or Search()
    choices, start = search.choices, default_hyper(search, num_gates)
    published = (choices.grain, choices.gate, choices.control) == ("nodes", "heaviside", "count")
    at = {name: float(value) for name, value in start.to_dict().items()}
    at |= _CHOSEN[centre] if published else {"lr_warmup_frac": 1e-2}
    heaviside = choices.gate == "heaviside"
    low, high = (1e-3, 1.0) if heaviside else (-3.0, 10.0)
    dimensions = [
        *_controlled(search, at),
        Dimension("init_noise_scale", "log", at["init_noise_scale"], 1e-4, 1.0),
        Dimension(
            "init_noise_bias", "log" if heaviside else "linear", at["init_noise_bias"], low, high
        ),
        Dimension("wd", "log", at["wd"], 1e-6, 1.0),
        Dimension("lr", "log", at["lr"], 1e-4, 0.3 if heaviside else 3.0),
        Dimension("inv_beta2", "log", at["inv_beta2"], 1e-4, 0.9),
        Dimension("lr_warmup_frac", "logit", at["lr_warmup_frac"], 1e-3, 0.9),
    ]
    if heaviside:
        dimensions.append(Dimension("heaviside_temp", "log", at["heaviside_temp"], 1e-2, 100.0))
    if choices.minimise == "both":
        dimensions.append(Dimension("kl_weight", "log", at["kl_weight"], 1e-3, 1e3))
    return Space(tuple(dimensions))


def _controlled(search: Search, at: dict[str, float]) -> Sequence[Dimension]:
    """What the control reads."""
    if search.choices.control == "lagrangian":
        sparsity = SPARSITIES[search.choices.grain][0]
        return [
            Dimension("target_sparsity", "logit", sparsity, 0.05, 0.9999),
            Dimension("target_warmup_frac", "logit", at["target_warmup_frac"], 0.05, 0.95),
            Dimension("multiplier_lr", "log", at["multiplier_lr"], 1e-3, 10.0),
        ]
    k_coef = at["k_coef"]
    found = [Dimension("k_coef", "log", k_coef, k_coef / 100, k_coef * 100)]
    if search.choices.control == "hold":
        found.append(Dimension("aim", "logit", at["aim"], 0.02, 0.98))
    return found
