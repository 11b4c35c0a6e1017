"""Complete paths of open weights through a block: what is on none can be closed for nothing."""

from collections.abc import Mapping

import numpy as np

from circuitjax.gated.weight_index import WeightIndex
from circuitjax.model.config import TransformerConfig

__all__ = ["kept_paths"]

# Where paths through a block begin and end.
_BEGIN = frozenset({"attn.act_in", "mlp.act_in"})
_END = frozenset({"attn.q", "attn.k", "attn.resid_delta", "mlp.resid_delta"})


def kept_paths(
    config: TransformerConfig,
    index: WeightIndex,
    z: np.ndarray,
    base: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Removes weights and nodes that lie on no complete path through their block.

    A q or k stays if an open weight enters it, a v or neuron if one enters and one leaves, an
    act_in if one leaves, a resid_delta if one enters; a weight stays if both its ends do.

    Args:
      config: the model's.
      index: where the weights are.
      z: bool `[E]`, open weights.
      base: {site: bool `[L, W]`}, nodes that may be kept.

    Returns:
      z `[E]` and {site: bool `[L, W]`} of kept nodes, smaller or equal.
    """
    opened = index.split(np.asarray(z, bool) & np.asarray(index.real()))
    mask = {site: np.array(base[site], bool).reshape(-1) for site in config.sites}
    ends = {
        family.name: (np.asarray(index.source[family.name]), np.asarray(index.target[family.name]))
        for family in index.families
    }
    while True:
        entered = {site: np.zeros_like(kept) for site, kept in mask.items()}
        left = {site: np.zeros_like(kept) for site, kept in mask.items()}
        for family in index.families:
            source, target = ends[family.name]
            alive = opened[family.name] & mask[family.source][source] & mask[family.target][target]
            opened[family.name] = alive
            left[family.source][source[alive]] = True
            entered[family.target][target[alive]] = True
        before = sum(int(kept.sum()) for kept in mask.values())
        for site, kept in mask.items():
            if site not in _BEGIN:
                kept &= entered[site]
            if site not in _END:
                kept &= left[site]
        if sum(int(kept.sum()) for kept in mask.values()) == before:
            break
    shaped = {site: kept.reshape(config.num_layers, -1) for site, kept in mask.items()}
    return np.concatenate([opened[family.name] for family in index.families]), shaped
