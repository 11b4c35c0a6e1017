"""The edges of a circuit: nonzero weights between two kept nodes, in six families per layer.

    act_in -> q,  act_in -> k,  act_in -> v,  v -> resid_delta (through the head's output matrix),
    act_in -> post_act,  post_act -> resid_delta

A neuron that reads one channel and writes one is 3 nodes and 2 edges. The residual stream itself,
products of q and k, biases, embedding and unembedding are no edges; the nonzero weights that join
the circuit to tokens and logits are counted apart.
"""

from collections.abc import Mapping

import numpy as np

from circuitjax.core.files import cut
from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import address, shapes
from circuitjax.model.transformer import Params

__all__ = [
    "check_mask",
    "count_edges",
    "count_outer_weights",
    "edge_list",
    "edge_masks",
    "edges_at",
    "total_edges",
]


def check_mask(config: TransformerConfig, mask: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{site: bool `[L, W]`} for every site, as NumPy.

    Raises:
      ValueError: a site is missing or unknown, or has another shape.
    """
    unknown = sorted(set(mask) - set(config.sites))
    if unknown:
        raise ValueError(
            f"the mask has an unknown site {cut(unknown[0])}; choose from {config.sites}"
        )
    checked = {}
    for site, shape in shapes(config).items():
        found = np.shape(mask[site]) if site in mask else None
        if found != shape:
            raise ValueError(f"the mask of {site} is shaped {found}; this model's is {shape}")
        checked[site] = np.asarray(mask[site], bool)
    return checked


def edge_masks(
    config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Which weights are edges of the circuit.

    Args:
      config, params: the model.
      mask: {site: bool `[L, W]`} of kept nodes.

    Returns:
      {family name: bool `[L, in, out]`}, in the order of `config.families`.
    """
    mask = check_mask(config, mask)
    return {
        family.name: (np.asarray(params["layers"][family.kernel]) != 0)
        & mask[family.source][:, family.rows(config), None]
        & mask[family.target][:, None, :]
        for family in config.families
    }


def count_edges(config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray]) -> int:
    """E: how many edges the circuit has."""
    return sum(int(edges.sum()) for edges in edge_masks(config, params, mask).values())


def edges_at(
    config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{site: int `[L, W]`}: how many edges each kept node has, 0 for the others."""
    found = {site: np.zeros(shape, int) for site, shape in shapes(config).items()}
    masks = edge_masks(config, params, mask)
    for family in config.families:
        edges = masks[family.name]
        found[family.target] += edges.sum(axis=1)
        width = found[family.source].shape[1]
        for layer, counts in enumerate(edges.sum(axis=2)):
            found[family.source][layer] += np.bincount(family.rows(config), counts, width).astype(
                int
            )
    return found


def total_edges(config: TransformerConfig, params: Params) -> int:
    """How many edges the whole model has: the nonzero weights of the six families."""
    stack = params["layers"]
    return sum(
        int(np.count_nonzero(np.asarray(stack[family.kernel]))) for family in config.families
    )


def edge_list(
    config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray]
) -> list[tuple[str, str, float]]:
    """(source address, target address, weight) of every edge, layer by layer, family by family."""
    masks = edge_masks(config, params, mask)
    found = []
    for layer in range(config.num_layers):
        for family in config.families:
            rows = family.rows(config)
            kernel = np.asarray(params["layers"][family.kernel][layer])
            for source, target in np.argwhere(masks[family.name][layer]):
                found.append(
                    (
                        address(config, layer, family.source, int(rows[source])),
                        address(config, layer, family.target, int(target)),
                        float(kernel[source, target]),
                    )
                )
    return found


def count_outer_weights(
    config: TransformerConfig, params: Params, mask: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Nonzero weights that join the circuit to tokens, positions and logits.

    Returns:
      `embed` and `positions`: on channels that some kept act_in reads (0 positions where the model
      has none); `unembed`: on residual channels that some kept resid_delta writes.
    """
    mask = check_mask(config, mask)
    reads = np.any([mask["attn.act_in"], mask["mlp.act_in"]], axis=(0, 1))
    writes = np.any([mask["attn.resid_delta"], mask["mlp.resid_delta"]], axis=(0, 1))
    embed = np.asarray(params["embed"])
    unembed = embed.T if config.tied_unembedding else np.asarray(params["unembed"])
    counts = {"embed": int(np.count_nonzero(embed[:, reads[: config.d_model]])), "positions": 0}
    if config.position != "none":
        concatenated = config.position == "concatenated"
        seen = reads[config.d_model :] if concatenated else reads[: config.d_model]
        counts["positions"] = int(np.count_nonzero(np.asarray(params["positions"])[:, seen]))
    return counts | {"unembed": int(np.count_nonzero(unembed[writes]))}
