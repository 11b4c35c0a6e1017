"""Llama 2 and 3, TinyLlama, SmolLM2; and the parts that its relatives share.

embed_tokens                                  embed
layers.{i}.input_layernorm                    attn_norm
layers.{i}.self_attn.{q,k,v,o}_proj           attn_q, attn_k, attn_v, attn_out
layers.{i}.post_attention_layernorm           mlp_norm
layers.{i}.mlp.{gate,up,down}_proj            mlp_gate, mlp_up, mlp_out
norm                                          final_norm
lm_head                                       unembed; nothing where it is tied to embed_tokens
"""

from typing import Any

from circuitjax.importers.family import Family, Stored, matrix, same, vector
from circuitjax.importers.fields import Fields
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY", "describe_like_llama", "layer_like_llama", "relative", "shared_like_llama"]


def describe_like_llama(
    fields: Fields,
    *,
    vocab_size: int = 32_000,
    hidden_size: int = 4096,
    intermediate_size: int = 11_008,
    num_layers: int = 32,
    num_heads: int = 32,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    context: int = 2048,
    tied: bool = False,
    activation: tuple[str, str] = ("hidden_act", "silu"),
    **more: Any,
) -> TransformerConfig:
    """What relatives of Llama have in common; the arguments are what a family fills in.

    Args:
      fields: the config.
      activation: the field that names it, and its default.
      more: fields of `TransformerConfig`; `rotary` is read from `fields` where it is not given.
    """
    fields.require({"quantization_config": None, "partial_rotary_factor": 1.0})
    width = fields.size("hidden_size", hidden_size)
    heads = fields.size("num_attention_heads", num_heads)
    d_head = fields.head_width(width, heads, head_dim)
    if "rotary" not in more:
        more["rotary"] = fields.rotary(d_head)
    return TransformerConfig(
        num_layers=fields.size("num_hidden_layers", num_layers),
        d_model=width,
        num_heads=heads,
        num_kv_heads=fields.heads(heads, kv_heads),
        d_head=d_head,
        d_mlp=fields.size("intermediate_size", intermediate_size),
        vocab_size=fields.size("vocab_size", vocab_size),
        context_length=fields.size("max_position_embeddings", context),
        norm="rms",
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        activation=fields.activation(*activation),
        position="rotary",
        gated_mlp=True,
        tied_unembedding=fields.flag("tie_word_embeddings", tied),
        **more,
    )


def shared_like_llama(config: TransformerConfig) -> dict[str, Stored]:
    """What lies outside the layers."""
    table = {
        "embed_tokens.weight": Stored((config.vocab_size, config.d_model), {"embed": same}),
        "norm.weight": vector("final_norm_scale", config.d_model),
    }
    if not config.tied_unembedding:
        table["lm_head.weight"] = matrix("unembed", config.vocab_size, config.d_model)
    return table


def layer_like_llama(
    config: TransformerConfig, attention_bias: str = "", mlp_bias: bool = False
) -> dict[str, Stored]:
    """One layer's tensors.

    Args:
      config: the description.
      attention_bias: which of the projections q, k, v, o have biases.
      mlp_bias: whether those of the MLP have.
    """
    width, neurons = config.d_model, config.d_mlp
    table = {
        "input_layernorm.weight": vector("attn_norm_scale", width),
        "post_attention_layernorm.weight": vector("mlp_norm_scale", width),
    }
    sizes = {part: (config.width(f"attn.{part}"), width) for part in "qkv"}
    for part, (outputs, inputs) in {**sizes, "o": (width, config.d_attention)}.items():
        ours = "attn_out" if part == "o" else f"attn_{part}"
        table[f"self_attn.{part}_proj.weight"] = matrix(ours, outputs, inputs)
        if part in attention_bias:
            table[f"self_attn.{part}_proj.bias"] = vector(f"{ours}_bias", outputs)
    for part, ours, shape in (
        ("gate", "mlp_gate", (neurons, width)),
        ("up", "mlp_up", (neurons, width)),
        ("down", "mlp_out", (width, neurons)),
    ):
        table[f"mlp.{part}_proj.weight"] = matrix(ours, *shape)
        if mlp_bias:
            table[f"mlp.{part}_proj.bias"] = vector(f"{ours}_bias", shape[0])
    return table


def relative(model_type: str, describe: Any, layer: Any, shared: Any = shared_like_llama) -> Family:
    """A family whose tensors are named as Llama's."""
    return Family(
        model_type,
        describe,
        shared,
        layer,
        layers="layers.",
        prefix="model.",
        embed="embed_tokens.weight",
        head="lm_head.weight",
    )


def _describe(fields: Fields) -> TransformerConfig:
    fields.require({"pretraining_tp": 1})
    biases = fields.flag("attention_bias", False) or fields.flag("mlp_bias", False)
    return describe_like_llama(fields, biases=biases)


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    attention_bias = "qkvo" if fields.flag("attention_bias", False) else ""
    return layer_like_llama(config, attention_bias, fields.flag("mlp_bias", False))


FAMILY = relative("llama", _describe, _layer)
