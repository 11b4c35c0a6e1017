"""A gated model without the work for what is closed: the same function, smaller matrices.

`fold.py` turns closed nodes into biases on the host, once; `reduced_layers.py` runs what remains, each
layer at its own widths if asked (`widths.py`), and `reduced_forward.py` gives its logits. The residual
stream keeps its full width, because every norm needs its sum of squares; who knows what the other
channels hold may pass their moments (`reduced_layers.Outside`) and run the layers on fewer.

Axis letters as in `layers.py`; primes are reduced widths: H' heads that attend, H" steady ones (of
equal scores and constant v), C' channels per head, F' neurons, R channels read by a block, S residual
channels that are carried (D unless cut).
"""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.fold import fold_layers
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import Params
from circuitjax.model.widths import Stretch, Widths

__all__ = ["Reduced", "can_reduce", "reduce_model", "why_not"]


@flax.struct.dataclass
class Reduced:
    """A model whose closed nodes are folded away; a pytree of arrays.

    Attributes:
      shared: what no layer owns, as in `transformer.Params`: embeddings, final norm, unembedding.
      stack: {name: `[L, ...]`} folded arrays of the layers.
      config: the original model's description (static).
      widths: padded sizes of the stack (static).
      stretches: the layers' own (static).
    """

    shared: dict[str, jax.Array]
    stack: dict[str, jax.Array]
    config: TransformerConfig = flax.struct.field(pytree_node=False)
    widths: Widths = flax.struct.field(pytree_node=False)
    stretches: tuple[Stretch, ...] = flax.struct.field(pytree_node=False)


def can_reduce(config: TransformerConfig) -> bool:
    """Whether an exact reduction exists here: `why_not` has nothing to say."""
    return why_not(config) is None


def why_not(config: TransformerConfig) -> str | None:
    """Why a model is not reduced, or None.

    AbsTopK lets closed nodes compete with open ones; norms of queries, keys and after blocks mix them;
    rotary positions make a closed q times a closed k vary with distance, and soft caps and windows
    stand between a sum of scores and its softmax. Of the rest (grouped heads, gated MLPs, parallel
    blocks), nothing but a folding of its own is missing.
    """
    for site in config.sites:
        if config.top_k_at(site) is not None:
            return (
                f"abs_top_k_sites {config.abs_top_k_sites} include node sites, where AbsTopK needs "
                "the activations of closed nodes too"
            )
    has = {
        "rotary positions": config.position == "rotary",
        "windows": any(config.windows),
        "query and key norms": config.qk_norm,
        "norms after blocks": config.post_norms,
        "an attention soft cap": config.attention_softcap is not None,
        "grouped keys and values": config.queries_per_kv > 1,
        "a gated MLP": config.gated_mlp,
        "parallel blocks": config.parallel,
    }
    found = [feature for feature, present in has.items() if present]
    return f"this model has {', '.join(found)}, which no reduction folds" if found else None


def reduce_model(
    config: TransformerConfig,
    params: Params,
    keep: Mapping[str, np.ndarray],
    fills: Mapping[str, np.ndarray] | None = None,
    *,
    own_widths: bool = False,
    at_least: Widths | None = None,
) -> Reduced:
    """Folds closed nodes away; `apply_reduced` then equals the gated model to float32 rounding.

    Args:
      config: the model's description.
      params: as from `transformer.init_params`.
      keep: {site: bool `[L, W]`} of the nodes that stay, a superset of what later gates open; an
        absent site stays whole.
      fills: {site: `[L, W]`} replacements, constant over tokens; an absent site's are zero.
      own_widths: whether each layer runs at about its own widths, rather than all at the widest's, one
        of few: two to six times faster for a circuit, but a program that few others share, for
        a reduced model that answers many times.
      at_least: widths that none is to be below, so that several reduced models are of one shape and
        share a program.

    Raises:
      ValueError: an architecture that is not reduced; an unknown site; or a wrong shape.
    """
    reason = why_not(config)
    if reason is not None:
        raise ValueError(f"{reason}: run transformer.apply with gates instead")
    opened, filled = {}, {}
    for name, tree in (("keep", keep), ("fills", fills or {})):
        for site in tree:
            if site not in SITES:
                raise ValueError(f"{name} has an unknown site {site!r}; choose from {SITES}")
    for site, shape in shapes(config).items():
        opened[site] = np.asarray(keep.get(site, np.ones(shape)), bool)
        filled[site] = np.asarray((fills or {}).get(site, np.zeros(shape)), np.float64)
        for name, value in (("keep", opened[site]), ("fills", filled[site])):
            if value.shape != shape:
                raise ValueError(f"{name} of {site} is shaped {value.shape}; it must be {shape}")

    stack, widths, stretches = fold_layers(
        config, params["layers"], opened, filled, own_widths, at_least
    )
    shared = {name: value for name, value in params.items() if name != "layers"}
    return Reduced(
        shared={name: jnp.asarray(value) for name, value in shared.items()},
        stack={name: jnp.asarray(value) for name, value in stack.items()},
        config=config,
        widths=widths,
        stretches=stretches,
    )
