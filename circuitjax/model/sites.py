"""Node addresses and the order of nodes: one place that turns {site: [L, W]} into a list and back.

An address is `{layer}.{site}.{index}`, with heads spelled out for q, k and v:
`3.attn.q.h5.c12`, `0.mlp.post_act.863`, `1.attn.act_in.7`, `2.mlp.resid_delta.30`.
A key or value head that several queries read has one number, that among its own kind. Flat order:
site by site (as in `TransformerConfig.sites`), layer by layer, index by index.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import ALL_SITES, SITES, TransformerConfig

__all__ = ["address", "flatten", "kept_addresses", "parse_address", "shapes", "unflatten"]

_HEADED = ("attn.q", "attn.k", "attn.v")
_ADDRESS = re.compile(r"(\d+)\.(attn|mlp)\.(\w+)\.(?:h(\d+)\.c)?(\d+)")


def shapes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """{site: (L, W)} for every node site."""
    return {site: (config.num_layers, config.width(site)) for site in config.sites}


def flatten(tree: Mapping[str, jax.Array]) -> jax.Array:
    """{site: `[..., L, W]`} over all sites of a model to `[..., N]`."""
    sites = [site for site in ALL_SITES if site in SITES or site in tree]
    parts = [tree[site].reshape(*tree[site].shape[:-2], -1) for site in sites]
    return jnp.concatenate(parts, axis=-1)


def unflatten(config: TransformerConfig, flat: Any) -> dict[str, Any]:
    """`[..., N]` to {site: `[..., L, W]`}: the inverse of `flatten`, for NumPy or JAX arrays."""
    if flat.shape[-1] != config.num_nodes:
        raise ValueError(f"{flat.shape[-1]} values do not fit a model of {config.num_nodes} nodes")
    tree, start = {}, 0
    for site, (num_layers, width) in shapes(config).items():
        stop = start + num_layers * width
        tree[site] = flat[..., start:stop].reshape(*flat.shape[:-1], num_layers, width)
        start = stop
    return tree


def address(config: TransformerConfig, layer: int, site: str, index: int) -> str:
    """The name of one node, such as `3.attn.q.h5.c12`."""
    if site in _HEADED:
        head, channel = divmod(index, config.d_head)
        return f"{layer}.{site}.h{head}.c{channel}"
    return f"{layer}.{site}.{index}"


def parse_address(config: TransformerConfig, name: str) -> tuple[int, str, int]:
    """(layer, site, index) of an address.

    Raises:
      ValueError: it is malformed or names no node of this model.
    """
    match = _ADDRESS.fullmatch(name)
    if match:
        layer, site = int(match[1]), f"{match[2]}.{match[3]}"
        index = int(match[5])
        headed = match[4] is not None
        if site in config.sites and headed == (site in _HEADED):
            fits = not headed or index < config.d_head
            if headed:
                index += int(match[4]) * config.d_head
            if fits and layer < config.num_layers and index < config.width(site):
                return layer, site, index
    raise ValueError(
        f"{name!r} names no node of this model; addresses look like 0.mlp.post_act.12 or "
        f"0.attn.q.h1.c3, with {config.num_layers} layers and {config.num_heads} heads"
    )


def kept_addresses(config: TransformerConfig, mask: Mapping[str, np.ndarray]) -> list[str]:
    """Addresses of the nodes where {site: `[L, W]`} is true, layer by layer in forward order."""
    found = []
    for layer in range(config.num_layers):
        for site in config.sites:
            kept = np.flatnonzero(mask[site][layer])
            found += [address(config, layer, site, int(index)) for index in kept]
    return found
