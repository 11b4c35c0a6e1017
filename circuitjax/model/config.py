"""Static description of a decoder-only transformer: everything that shapes the program."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from circuitjax.core.files import cut
from circuitjax.model.families import FAMILIES, GATED_FAMILIES, Family
from circuitjax.model.rotary import Rotary

__all__ = ["ALL_SITES", "RESIDUAL_SITES", "SITES", "TransformerConfig"]

# Node sites of one layer in the order of the forward pass (Gao et al. 2025, A.5). What a model has is
# `TransformerConfig.sites`: one with a gated MLP has two more.
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
GATED_SITES = (*SITES[:6], "mlp.gate", "mlp.up", *SITES[6:])
ALL_SITES = GATED_SITES  # in the order of the forward pass
# The residual stream itself after each block: AbsTopK may act there, gates may not.
RESIDUAL_SITES = ("resid.post_attn", "resid.post_mlp")

_CHOICES = {
    "norm": ("rms", "layer", "none"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
    "position": ("learned", "concatenated", "rotary", "none"),
    "residual_activation": ("identity", "relu"),
    "matmul_dtype": ("float32", "bfloat16"),
}
# Fields that came later: they enter `to_dict`, and so a content hash, only where they say something.
_LATER = (
    "num_kv_heads",
    "gated_mlp",
    "parallel",
    "rotary",
    "local_rotary",
    "windows",
    "qk_norm",
    "post_norms",
    "attention_scale",
    "attention_softcap",
    "logit_softcap",
    "embed_scale",
)


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """A decoder-only transformer: every feature that a family may have is a field.

    The nodes q, k and v are what the projections give; norms of queries and keys and rotary positions
    act after them. A write (resid_delta) is what the output matrix gives; a norm after a block acts
    on it. Biases that a family lacks on some maps alone (Qwen2 has them on q, k and v) are zeros.

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
        its own and appended to each block's normalised input as `d_position` read-only channels;
        `rotary` turns queries and keys.
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
      num_kv_heads: K, heads of keys and values, each read by H / K query heads; None means H.
      gated_mlp: neurons are activation(gate) * up, of two projections, rather than activation(in).
      parallel: attention and MLP of a layer both read the stream before the layer.
      rotary: how positions turn queries and keys, where `position` is `rotary`.
      local_rotary: another in the layers that have a window; None: the same.
      windows: for each layer how many tokens, its own included, a token sees; 0 is no limit. Empty:
        none has one.
      qk_norm: RMSNorm of each query and key head, before positions turn them.
      post_norms: RMSNorm of what each block writes.
      attention_scale: of the scores; None means 1 / sqrt(C).
      attention_softcap: scores s become cap * tanh(s / cap).
      logit_softcap: likewise the unembedding's output, before `final_bias` and `bigram`.
      embed_scale: of the token embedding as the stream begins; a tied unembedding has none.
    """

    #: Whether gradients are corrected; see `model/corrected.py`.
    corrects_gradients: ClassVar[bool] = False

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
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    position: Literal["learned", "concatenated", "rotary", "none"] = "learned"
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
    num_kv_heads: int | None = None
    gated_mlp: bool = False
    parallel: bool = False
    rotary: Rotary | None = None
    local_rotary: Rotary | None = None
    windows: tuple[int, ...] = ()
    qk_norm: bool = False
    post_norms: bool = False
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embed_scale: float = 1.0

    def __post_init__(self) -> None:
        sizes = ("num_layers", "d_model", "num_heads", "d_head", "d_mlp", "vocab_size")
        for name in (*sizes, "context_length"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {cut(value)}; it must be a whole number of at least 1")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {cut(getattr(self, name))}; choose one of {allowed}")
        if (self.position == "concatenated") != (self.d_position > 0):
            raise ValueError(
                f"d_position is {self.d_position} with position={cut(self.position)}; it must be "
                "above 0 exactly when position is 'concatenated'"
            )
        unknown = sorted(set(self.abs_top_k_sites) - {*self.sites, *RESIDUAL_SITES})
        if unknown:
            choices = self.sites + RESIDUAL_SITES
            raise ValueError(f"abs_top_k_sites holds {unknown}; choose from {choices}")
        fraction = self.abs_top_k_fraction
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"abs_top_k_fraction is {fraction}; it must be in (0, 1]")
        self._check_later()

    def _check_later(self) -> None:
        heads = self.num_kv_heads
        if heads is not None and (type(heads) is not int or heads < 1 or self.num_heads % heads):
            raise ValueError(
                f"num_kv_heads is {cut(heads)}; it must divide num_heads, {self.num_heads}"
            )
        if (self.position == "rotary") != (self.rotary is not None):
            raise ValueError(
                f"position is {cut(self.position)} with rotary={self.rotary}: give both"
            )
        if self.local_rotary is not None and (self.rotary is None or not any(self.windows)):
            raise ValueError("local_rotary needs rotary, and layers with windows")
        for rotary in (self.rotary, self.local_rotary):
            if rotary is not None and rotary.dims > self.d_head:
                raise ValueError(f"rotary dims are {rotary.dims}, more than d_head, {self.d_head}")
        if None not in (self.rotary, self.local_rotary) and (
            self.rotary.dims != self.local_rotary.dims  # type: ignore[union-attr]
        ):
            raise ValueError("rotary and local_rotary must turn equally many dims")
        if self.windows and len(self.windows) != self.num_layers:
            raise ValueError(f"{len(self.windows)} windows for {self.num_layers} layers: one each")
        if any(type(window) is not int or window < 0 for window in self.windows):
            raise ValueError(f"windows are {self.windows}; they must be whole numbers from 0")
        if any(self.windows) and not self.causal:
            raise ValueError("windows need a causal model")
        if self.post_norms and self.norm != "rms":
            raise ValueError(
                f"norm is {cut(self.norm)}; norms after a block are RMSNorm: choose 'rms'"
            )
        for name in ("attention_scale", "attention_softcap", "logit_softcap", "embed_scale"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {cut(value)}; it must be above 0")

    @property
    def sites(self) -> tuple[str, ...]:
        """The node sites of a layer, in the order of the forward pass."""
        return GATED_SITES if self.gated_mlp else SITES

    @property
    def families(self) -> tuple[Family, ...]:
        """The kinds of weights between node sites."""
        return GATED_FAMILIES if self.gated_mlp else FAMILIES

    @property
    def kv_heads(self) -> int:
        """K, heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def queries_per_kv(self) -> int:
        """H / K, query heads that read one key or value head."""
        return self.num_heads // self.kv_heads

    @property
    def score_scale(self) -> float:
        """What scores are multiplied by."""
        return self.d_head**-0.5 if self.attention_scale is None else self.attention_scale

    def heads_of(self, site: str) -> int:
        """How many heads the nodes of `attn.q`, `attn.k` or `attn.v` belong to."""
        return self.num_heads if site == "attn.q" else self.kv_heads

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
            "attn.k": self.kv_heads * self.d_head,
            "attn.v": self.kv_heads * self.d_head,
            "attn.resid_delta": self.d_model,
            "mlp.act_in": self.d_in,
            "mlp.gate": self.d_mlp,
            "mlp.up": self.d_mlp,
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
        return self.num_layers * sum(self.width(site) for site in self.sites)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` is its inverse."""
        fields = dataclasses.asdict(self)
        for field in dataclasses.fields(self):
            if field.name in _LATER and getattr(self, field.name) == field.default:
                del fields[field.name]
        return fields

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
        for name in ("abs_top_k_sites", "windows"):
            if name in fields:
                fields[name] = tuple(fields[name])
        for name in ("rotary", "local_rotary"):
            if fields.get(name) is not None:
                fields[name] = Rotary.from_dict(fields[name])
        return cls(**fields)
