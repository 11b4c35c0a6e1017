"""Removes from a circuit what does nothing, without changing one output.

Two rules, applied in turn until neither finds anything:

  dead      no influence on the logits is left: the node is closed.
  constant  a q, k, v, neuron or write that reads no kept node has one value, act(bias + closed
            fills through the weights): the node is closed, and that value becomes its fill.

What influences what, from the logits backwards:

  - A kept write (resid_delta) moves every later norm, the last one too, and so the logits. Without
    norms only what reads its channel counts: the unembedding's row and later act_in nodes.
  - A head's pattern matters if some kept v of it is alive; with a sink also if its closed v
    channels write something, since they are then scaled by 1 - sink weight.
  - q and k meet in products, and so do the two projections of a gated MLP: `model/matching.py` says
    which of them can matter, by the model's description.
  - Where closed nodes hold another prompt's values, these differ from token to token: nothing is
    constant then, closed k and q count as varying, and a pattern matters if any closed v writes.
  - AbsTopK lets all nodes of its site compete, closed ones too: where one of them is alive, what
    feeds any of them is. A node there is never constant. Everything else may be: gates act after
    AbsTopK, so a closed node holds its fill whatever it competes with.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from circuitjax.model import layers
from circuitjax.model.config import RESIDUAL_SITES, TransformerConfig
from circuitjax.model.graph import check_mask, count_edges
from circuitjax.model.matching import alive_gates, alive_matches, constant_products
from circuitjax.model.sites import kept_addresses, shapes
from circuitjax.model.transformer import Params

__all__ = ["CleanupReport", "cleanup"]

_Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CleanupReport:
    """What `cleanup` removed.

    Attributes:
      dead, constant: addresses of the removed nodes, in forward order.
      nodes_before, nodes_after: N of the circuit.
      edges_before, edges_after: E of the circuit.
    """

    dead: tuple[str, ...]
    constant: tuple[str, ...]
    nodes_before: int
    nodes_after: int
    edges_before: int
    edges_after: int

    @property
    def counts(self) -> dict[str, int]:
        """How many nodes each rule removed."""
        return {"dead": len(self.dead), "constant": len(self.constant)}


class _Layer:
    """One layer's weights, kept nodes and fills, and the two rules on them."""

    def __init__(
        self,
        config: TransformerConfig,
        params: _Arrays,
        keep: _Arrays,
        fill: _Arrays,
        *,
        varies: bool,
    ):
        self.config, self.params, self.keep, self.fill = config, params, keep, fill
        self.varies = varies  # whether closed nodes hold something else at every token

    def competes(self, site: str) -> bool:
        """Whether AbsTopK really drops something at a site."""
        kept = self.config.top_k_at(site)
        return kept is not None and kept < self.config.width(site)

    def needed(self, site: str, alive: np.ndarray) -> np.ndarray:
        """Which activations before AbsTopK the alive nodes `[W]` of a site depend on."""
        return np.full_like(alive, alive.any()) if self.competes(site) else alive

    def rows(self, site: str) -> np.ndarray:
        """int: the node of a site that each row of the kernel above it reads."""
        (family,) = (f for f in self.config.families if f.source == site)
        return family.rows(self.config)

    def head_constants(self) -> np.ndarray:
        """`[H, D]`: what closed v channels write while a head's weights sum to 1."""
        rows = self.rows("attn.v")
        closed = np.where(self.keep["attn.v"], 0.0, self.fill["attn.v"])[rows]
        written = self._operand(closed)[:, None] * self._operand(self.params["attn_out"])
        return written.reshape(self.config.num_heads, self.config.d_head, -1).sum(axis=1)

    def alive(self, channels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Alive nodes of each site, and of the residual channels before this layer.

        Args:
          channels: bool `[D]`, the residual channels after this layer that matter.
        """
        found: dict[str, np.ndarray] = {}
        after, config = channels, self.config
        for block, inner in (("mlp", "mlp.post_act"), ("attn", "attn.v")):
            read, write = f"{block}.act_in", f"{block}.resid_delta"
            seen = after if config.parallel else channels
            # A norm after the block mixes all that it writes.
            found[write] = self.keep[write] & (seen.any() if config.post_norms else seen)
            written = self.needed(write, found[write])
            reaches = np.any(self.params[f"{block}_out"][:, written] != 0, axis=1)
            by_node = np.zeros_like(self.keep[inner])
            np.logical_or.at(by_node, self.rows(inner), reaches)
            found[inner] = self.keep[inner] & by_node
            if block == "attn":
                self._match(found, written, reaches)
                maps = [(f"attn_{name}", f"attn.{name}") for name in "qkv"]
            elif config.gated_mlp:
                self._multiply(found)
                maps = [("mlp_gate", "mlp.gate"), ("mlp_up", "mlp.up")]
            else:
                maps = [("mlp_in", inner)]
            reaches = np.zeros_like(self.keep[read])
            for kernel, site in maps:
                asked = self.needed(site, found[site])
                reaches |= np.any(self.params[kernel][:, asked] != 0, axis=1)
            found[read] = self.keep[read] & reaches
            channels = channels | self.needed(read, found[read])[: config.d_model]
        return found, channels

    def _match(
        self, found: dict[str, np.ndarray], written: np.ndarray, reaches: np.ndarray
    ) -> None:
        """Adds the alive q and k: those whose product can change a pattern that matters."""
        config = self.config
        kept, by_head = self.keep["attn.v"][self.rows("attn.v")], (config.num_heads, config.d_head)
        matters = (kept & reaches).reshape(by_head).any(axis=1)
        if self.varies:
            matters |= (~kept & reaches).reshape(by_head).any(axis=1)
            shared = matters.reshape(config.kv_heads, config.queries_per_kv).any(axis=1)
            found["attn.q"] = self.keep["attn.q"] & np.repeat(matters, config.d_head)
            found["attn.k"] = self.keep["attn.k"] & np.repeat(shared, config.d_head)
            return
        if config.attention_sinks:
            matters |= np.any(self.head_constants()[:, written] != 0, axis=1)
        alive = alive_matches(config, self.keep, self.fill, matters)
        found["attn.q"], found["attn.k"] = alive

    def _multiply(self, found: dict[str, np.ndarray]) -> None:
        """Adds the alive gate and up nodes of a gated MLP: those whose product matters."""
        products = self.needed("mlp.post_act", found["mlp.post_act"])
        if self.varies:
            alive = tuple(self.keep[site] & products for site in ("mlp.gate", "mlp.up"))
        else:
            alive = alive_gates(self.config, self.keep, self.fill, products)
        found["mlp.gate"], found["mlp.up"] = alive

    def constants(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{site: (kept nodes that read no kept node, the values they have)}, both `[W]`."""
        found = {}
        for family in self.config.families:
            site, kernel = family.target, family.kernel
            weights, rows = self.params[kernel], family.rows(self.config)
            kept = self.keep[family.source][rows]
            constant = self.keep[site] & ~np.any(weights[kept] != 0, axis=0)
            if self.config.attention_sinks and site == "attn.resid_delta":
                constant &= ~np.any(self.head_constants() != 0, axis=0)
            closed = np.where(kept, 0.0, self.fill[family.source][rows])
            value = self._operand(closed) @ self._operand(weights)
            if self.config.biases:
                value = value + self.params[f"{kernel}_bias"]
            value = value.astype(np.float32)
            if site == "mlp.post_act":
                value = np.asarray(layers.activate(self.config, jnp.asarray(value)))
            found[site] = (constant, value)
        if self.config.gated_mlp:
            constant, value = constant_products(self.config, self.keep, self.fill)
            found["mlp.post_act"] = (self.keep["mlp.post_act"] & constant, value)
        return {
            site: (np.zeros_like(constant) if self.competes(site) else constant, value)
            for site, (constant, value) in found.items()
        }

    def _operand(self, x: np.ndarray) -> np.ndarray:
        """x as the model's matrix products round it, in float64."""
        if self.config.matmul_dtype == "bfloat16":
            x = x.astype(jnp.bfloat16)
        return x.astype(np.float64)


def _row(tree: _Arrays, layer: int) -> _Arrays:
    """One layer of {name: `[L, ...]`}; its arrays are views."""
    return {name: value[layer] for name, value in tree.items()}


def _mixes(config: TransformerConfig) -> bool:
    """Whether every residual channel that is written reaches the logits past any weight."""
    return config.norm != "none" or any(
        config.top_k_at(site) is not None for site in RESIDUAL_SITES
    )


def cleanup(
    config: TransformerConfig, params: Params, mask: _Arrays, fills: _Arrays | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], CleanupReport]:
    """Removes dead and constant nodes.

    Args:
      config, params: the model.
      mask: {site: bool `[L, W]`} of kept nodes.
      fills: {site: float `[L, W]`} replacements of closed nodes, constant over tokens; None where they
        differ from prompt to prompt.

    Returns:
      The smaller mask, the fills with the constants written in (zeros for None), and what was
      removed. Outputs are those of before to float32 rounding: only the order of sums changes.

    Raises:
      ValueError: a site is missing or misshapen.
    """
    mask = {site: value.copy() for site, value in check_mask(config, mask).items()}
    varies = fills is None
    given = {s: np.zeros(shape) for s, shape in shapes(config).items()} if fills is None else fills
    fills = dict(given)
    for site, shape in shapes(config).items():
        found = np.shape(fills[site]) if site in fills else None
        if found != shape:
            raise ValueError(
                f"the fills of {site} are shaped {found}; cleanup needs {shape}, replacements that "
                "are constant over tokens"
            )
        fills[site] = np.array(fills[site], np.float32)
    before = {site: value.copy() for site, value in mask.items()}
    removed = {
        rule: {s: np.zeros_like(m) for s, m in mask.items()} for rule in ("dead", "constant")
    }

    stack = {name: np.asarray(value) for name, value in params["layers"].items()}
    parts = [
        # Rows of the arrays above are views: what a rule closes is closed in `mask` and `fills`.
        _Layer(config, *(_row(tree, layer) for tree in (stack, mask, fills)), varies=varies)
        for layer in range(config.num_layers)
    ]
    unembed = params["embed"].T if config.tied_unembedding else params["unembed"]
    reaching = np.any(np.asarray(unembed) != 0, axis=1) | _mixes(config)
    changed = True
    while changed:
        changed = False
        channels = reaching
        for number, layer in reversed(list(enumerate(parts))):
            alive, channels = layer.alive(channels)
            for site in config.sites:
                dead = layer.keep[site] & ~alive[site]
                removed["dead"][site][number] |= dead
                layer.keep[site][dead] = False
                changed |= bool(dead.any())
        for number, layer in enumerate(() if varies else parts):
            for site, (constant, value) in layer.constants().items():
                removed["constant"][site][number] |= constant
                layer.keep[site][constant] = False
                layer.fill[site][constant] = value[constant]
                changed |= bool(constant.any())
    report = CleanupReport(
        dead=tuple(kept_addresses(config, removed["dead"])),
        constant=tuple(kept_addresses(config, removed["constant"])),
        nodes_before=sum(int(m.sum()) for m in before.values()),
        nodes_after=sum(int(m.sum()) for m in mask.values()),
        edges_before=count_edges(config, params, before),
        edges_after=count_edges(config, params, mask),
    )
    return mask, fills, report
