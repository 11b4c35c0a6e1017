"""Static description of a decoder-only transformer: everything that shapes the program."""

import dataclasses
from typing import Any, Literal

__all__ = ["RESIDUAL_SITES", "SITES", "TransformerConfig"]

# Node sites of one layer in the order of the forward pass (Gao et al. 2025, A.5).
SITES = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)
# The residual stream itself after each block: AbsTopK may act there, gates may not.
RESIDUAL_SITES = ("resid.post_attn", "resid.post_mlp")

_CHOICES = {
    "norm": ("rms", "layer", "none"),
    "activation": ("gelu", "gelu_tanh", "relu"),
    "position": ("learned", "concatenated", "none"),
    "residual_activation": ("identity", "relu"),
    "matmul_dtype": ("float32", "bfloat16"),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A GPT-2 style transformer and its variants.

    Attributes:
      num_layers: L.
      d_model: D, residual channels.
      num_heads: H.
      d_head: C, channels per head (H * C need not be D).
      d_mlp: F, neurons per layer.
      vocab_size: V.
      context_length: longest sequence, in tokens.
      norm: pre-normalisation of both blocks and before the unembedding.
      norm_eps: None means the family's own: float32's machine epsilon for RMSNorm, 1e-5 for
        LayerNorm.
      norm_bias: whether LayerNorm has a bias.
      activation: `gelu` is the exact one.
      position: `learned` is added to the token embedding; `concatenated` is normalised by a norm of
        its own and appended to each block's normalised input as `d_position` read-only channels.
      d_position: width of the concatenated embedding; 0 otherwise.
      tied_unembedding: the unembedding is the token embedding's transpose.
      biases: on all linear maps inside the layers.
      attention_sinks: one learnable logit per head in the softmax's denominator, its value zero.
      bigram: a [V, V] table whose row of the current token is added to the logits.
      final_bias: one value per vocabulary entry added to the logits.
      abs_top_k_fraction: AbsTopK keeps int(fraction * width) entries; None turns it off.
      abs_top_k_sites: where it acts: names of `SITES` and `RESIDUAL_SITES`.
      residual_activation: applied to the residual stream after each block's write.
      causal: whether a position sees only itself and earlier ones.
      matmul_dtype: type of the operands of matrix products; sums, norms, masks are float32.
    """

    num_layers: int
    d_model: int
    num_heads: int
    d_head: int
    d_mlp: int
    vocab_size: int
    context_length: int
    norm: Literal["rms", "layer", "none"] = "rms"
    norm_eps: float | None = None
    norm_bias: bool = True
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    position: Literal["learned", "concatenated", "none"] = "learned"
    d_position: int = 0
    tied_unembedding: bool = False
    biases: bool = True
    attention_sinks: bool = False
    bigram: bool = False
    final_bias: bool = False
    abs_top_k_fraction: float | None = None
    abs_top_k_sites: tuple[str, ...] = ()
    residual_activation: Literal["identity", "relu"] = "identity"
    causal: bool = True
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        sizes = ("num_layers", "d_model", "num_heads", "d_head", "d_mlp", "vocab_size")
        for name in (*sizes, "context_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        if (self.position == "concatenated") != (self.d_position > 0):
            raise ValueError(
                f"d_position is {self.d_position} with position={self.position!r}; it must be "
                "above 0 exactly when position is 'concatenated'"
            )
        unknown = sorted(set(self.abs_top_k_sites) - {*SITES, *RESIDUAL_SITES})
        if unknown:
            choices = SITES + RESIDUAL_SITES
            raise ValueError(f"abs_top_k_sites holds {unknown}; choose from {choices}")
        fraction = self.abs_top_k_fraction
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"abs_top_k_fraction is {fraction}; it must be in (0, 1]")

    @property
    def d_in(self) -> int:
        """Channels a block reads: D, plus the concatenated position channels."""
        return self.d_model + self.d_position

    @property
    def d_attention(self) -> int:
        """H * C."""
        return self.num_heads * self.d_head

    def width(self, site: str) -> int:
        """Number of nodes at a site of one layer."""
        return {
            "attn.act_in": self.d_in,
            "attn.q": self.d_attention,
            "attn.k": self.d_attention,
            "attn.v": self.d_attention,
            "attn.resid_delta": self.d_model,
            "mlp.act_in": self.d_in,
            "mlp.post_act": self.d_mlp,
            "mlp.resid_delta": self.d_model,
        }[site]

    def top_k_at(self, site: str) -> int | None:
        """How many entries AbsTopK keeps at a site, or None where it does not act."""
        if self.abs_top_k_fraction is None or site not in self.abs_top_k_sites:
            return None
        width = self.d_model if site in RESIDUAL_SITES else self.width(site)
        return int(self.abs_top_k_fraction * width)

    @property
    def num_nodes(self) -> int:
        """N, over all layers and sites."""
        return self.num_layers * sum(self.width(site) for site in SITES)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TransformerConfig":
        """Builds a config; an unknown or missing field is a ValueError that names it."""
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            names = sorted(known)
            raise ValueError(f"model config has unknown fields {unknown}; known are {names}")
        missing = [
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        ]
        if missing:
            raise ValueError(f"model config lacks the fields {missing}")
        fields = dict(fields)
        if "abs_top_k_sites" in fields:
            fields["abs_top_k_sites"] = tuple(fields["abs_top_k_sites"])
        return cls(**fields)
