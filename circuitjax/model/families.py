"""The kinds of weights between node sites: which kernel joins which two sites of a layer.

A plain MLP has six, a gated one seven: its gate times its up projection is no edge, as q times k is
none. Where several query heads share a value head, each has rows of its own in the output matrix, so
a value channel has edges in every one of these: `rows` says which channel a row belongs to.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from circuitjax.model.config import TransformerConfig

__all__ = ["ALL_FAMILIES", "FAMILIES", "GATED_FAMILIES", "Family"]


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of edge: from nodes at `source` to those at `target` by `kernel` `[L, in, out]`."""

    name: str
    source: str
    target: str
    kernel: str

    def shape(self, config: "TransformerConfig") -> tuple[int, int, int]:
        """(L, in, out) of the kernel."""
        inputs = config.width(self.source)
        if self.source == "attn.v":
            inputs = config.d_attention
        return config.num_layers, inputs, config.width(self.target)

    def rows(self, config: "TransformerConfig") -> np.ndarray:
        """int `[in]`: the node at `source` that each row of the kernel reads."""
        _, inputs, _ = self.shape(config)
        if inputs == config.width(self.source):
            return np.arange(inputs)
        by_head = np.arange(config.width(self.source)).reshape(config.kv_heads, config.d_head)
        return np.repeat(by_head, config.queries_per_kv, axis=0).reshape(-1)


_ATTENTION = (
    Family("act_in->q", "attn.act_in", "attn.q", "attn_q"),
    Family("act_in->k", "attn.act_in", "attn.k", "attn_k"),
    Family("act_in->v", "attn.act_in", "attn.v", "attn_v"),
    Family("v->resid_delta", "attn.v", "attn.resid_delta", "attn_out"),
)
_WRITE = Family("post_act->resid_delta", "mlp.post_act", "mlp.resid_delta", "mlp_out")
# Of a plain MLP, and of a gated one.
FAMILIES = (*_ATTENTION, Family("act_in->post_act", "mlp.act_in", "mlp.post_act", "mlp_in"), _WRITE)
GATED_FAMILIES = (
    *_ATTENTION,
    Family("act_in->gate", "mlp.act_in", "mlp.gate", "mlp_gate"),
    Family("act_in->up", "mlp.act_in", "mlp.up", "mlp_up"),
    _WRITE,
)
ALL_FAMILIES = tuple(dict.fromkeys((*FAMILIES, *GATED_FAMILIES)))
