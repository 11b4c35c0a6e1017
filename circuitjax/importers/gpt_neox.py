"""GPT-NeoX: Pythia and its relatives.

embed_in                                        embed
layers.{i}.input_layernorm                      attn_norm
layers.{i}.attention.query_key_value            attn_q, attn_k, attn_v  (head by head: q, k, v)
layers.{i}.attention.dense                      attn_out
layers.{i}.post_attention_layernorm             mlp_norm
layers.{i}.mlp.dense_h_to_4h, dense_4h_to_h     mlp_in, mlp_out
final_layer_norm                                final_norm
embed_out                                       unembed; nothing where it is tied to embed_in
"""

from collections.abc import Callable

import numpy as np

from circuitjax.importers.family import Family, Stored, matrix, same, vector
from circuitjax.importers.fields import Fields
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY"]


def _describe(fields: Fields) -> TransformerConfig:
    fields.require({"quantization_config": None, "add_cross_attention": False})
    width, heads = fields.size("hidden_size", 6144), fields.size("num_attention_heads", 64)
    d_head = fields.head_width(width, heads)
    if d_head * heads != width:
        raise fields.refuse("head_dim", "this family has none")
    rotary = fields.rotary(d_head, base_field="rotary_emb_base", part=0.25, part_field="rotary_pct")
    return TransformerConfig(
        num_layers=fields.size("num_hidden_layers", 44),
        d_model=width,
        num_heads=heads,
        d_head=d_head,
        d_mlp=fields.size("intermediate_size", 24_576),
        vocab_size=fields.size("vocab_size", 50_432),
        context_length=fields.size("max_position_embeddings", 2048),
        norm="layer",
        norm_eps=fields.number("layer_norm_eps", 1e-5),
        activation=fields.activation("hidden_act", "gelu"),
        position="rotary",
        rotary=rotary,
        parallel=fields.flag("use_parallel_residual", True),
        tied_unembedding=fields.flag("tie_word_embeddings", False),
    )


def _shared(config: TransformerConfig) -> dict[str, Stored]:
    table = {
        "embed_in.weight": Stored((config.vocab_size, config.d_model), {"embed": same}),
        "final_layer_norm.weight": vector("final_norm_scale", config.d_model),
        "final_layer_norm.bias": vector("final_norm_bias", config.d_model),
    }
    if not config.tied_unembedding:
        table["embed_out.weight"] = matrix("unembed", config.vocab_size, config.d_model)
    return table


def _part(config: TransformerConfig, part: int) -> Callable[[np.ndarray], np.ndarray]:
    """q, k or v of what is stored head by head, as `[D, H*C]` or `[H*C]`."""

    def take(value: np.ndarray) -> np.ndarray:
        by_head = value.reshape(config.num_heads, 3, config.d_head, *value.shape[1:])
        return by_head[:, part].reshape(config.d_attention, *value.shape[1:]).T

    return take


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    width, neurons = config.d_model, config.d_mlp
    takes = {f"attn_{name}": _part(config, index) for index, name in enumerate("qkv")}
    table = {
        "attention.query_key_value.weight": Stored((3 * width, width), takes),
        "attention.dense.weight": matrix("attn_out", width, width),
        "mlp.dense_h_to_4h.weight": matrix("mlp_in", neurons, width),
        "mlp.dense_h_to_4h.bias": vector("mlp_in_bias", neurons),
        "mlp.dense_4h_to_h.weight": matrix("mlp_out", width, neurons),
        "mlp.dense_4h_to_h.bias": vector("mlp_out_bias", width),
    }
    if fields.flag("attention_bias", True):
        biases = {f"{ours}_bias": take for ours, take in takes.items()}
        table["attention.query_key_value.bias"] = Stored((3 * width,), biases)
        table["attention.dense.bias"] = vector("attn_out_bias", width)
    for theirs, ours in (("input", "attn"), ("post_attention", "mlp")):
        for kind, name in (("weight", "scale"), ("bias", "bias")):
            table[f"{theirs}_layernorm.{kind}"] = vector(f"{ours}_norm_{name}", width)
    return table


FAMILY = Family(
    "gpt_neox",
    _describe,
    _shared,
    _layer,
    layers="layers.",
    prefix="gpt_neox.",
    embed="embed_in.weight",
    head="embed_out.weight",
    buffers=r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
)
