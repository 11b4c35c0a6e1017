"""The six kinds of weights between node sites: which kernel joins which two sites of a layer."""

import dataclasses

from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILIES", "Family"]


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of edge: from nodes at `source` to those at `target` by `kernel` `[L, in, out]`."""

    name: str
    source: str
    target: str
    kernel: str

    def shape(self, config: TransformerConfig) -> tuple[int, int, int]:
        """(L, in, out) of the kernel."""
        return config.num_layers, config.width(self.source), config.width(self.target)


FAMILIES = (
    Family("act_in->q", "attn.act_in", "attn.q", "attn_q"),
    Family("act_in->k", "attn.act_in", "attn.k", "attn_k"),
    Family("act_in->v", "attn.act_in", "attn.v", "attn_v"),
    Family("v->resid_delta", "attn.v", "attn.resid_delta", "attn_out"),
    Family("act_in->post_act", "mlp.act_in", "mlp.post_act", "mlp_in"),
    Family("post_act->resid_delta", "mlp.post_act", "mlp.resid_delta", "mlp_out"),
)
