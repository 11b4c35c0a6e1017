"""The GPT-2 family, from a Hugging Face snapshot folder, without PyTorch.

Its tensors, with x @ W for every matrix, become ours:

    wte, wpe                       embed, positions
    h.{i}.ln_1, h.{i}.ln_2         attn_norm, mlp_norm
    h.{i}.attn.c_attn              attn_q, attn_k, attn_v  (side by side in that order)
    h.{i}.attn.c_proj              attn_out
    h.{i}.mlp.c_fc, mlp.c_proj     mlp_in, mlp_out
    ln_f                           final_norm
    lm_head                        unembed, transposed; nothing where it is tied to wte

A config that asks for anything else than `TransformerConfig` can express exactly is refused.
"""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from circuitjax.importers.family import Family, Stored, matrix, same, vector
from circuitjax.importers.fields import Fields
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY"]

# Fields that change the function and have no counterpart here: the only value that is read.
_REQUIRED = MappingProxyType(
    {
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "quantization_config": None,
    }
)


def _describe(fields: Fields) -> TransformerConfig:
    fields.require(_REQUIRED)
    d_model, num_heads = fields.size("n_embd", 768), fields.size("n_head", 12)
    if d_model % num_heads:
        raise fields.refuse("n_embd", f"n_head, {num_heads}, must divide it")
    scaled = fields.flag("scale_attn_weights", True)
    return TransformerConfig(
        num_layers=fields.size("n_layer", 12),
        d_model=d_model,
        num_heads=num_heads,
        d_head=d_model // num_heads,
        d_mlp=fields.size("n_inner", 4 * d_model),
        vocab_size=fields.size("vocab_size", 50_257),
        context_length=fields.size("n_positions", 1024),
        norm="layer",
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        activation=fields.activation("activation_function", "gelu_new"),
        attention_scale=None if scaled else 1.0,
        tied_unembedding=fields.flag("tie_word_embeddings", True),
    )


def _shared(config: TransformerConfig) -> dict[str, Stored]:
    width = config.d_model
    table = {
        "wte.weight": Stored((config.vocab_size, width), {"embed": same}),
        "wpe.weight": Stored((config.context_length, width), {"positions": same}),
        "ln_f.weight": vector("final_norm_scale", width),
        "ln_f.bias": vector("final_norm_bias", width),
    }
    if not config.tied_unembedding:
        table["lm_head.weight"] = matrix("unembed", config.vocab_size, width)
    return table


def _part(index: int) -> Callable[[np.ndarray], np.ndarray]:
    """q, k or v of what is stored side by side."""
    return lambda value: np.split(value, 3, axis=-1)[index]


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    del fields
    width, neurons = config.d_model, config.d_mlp
    table: dict[str, Stored] = {}
    for kind, end, lead in (("weight", "", True), ("bias", "_bias", False)):
        parts = {f"attn_{part}{end}": _part(index) for index, part in enumerate("qkv")}
        table[f"attn.c_attn.{kind}"] = Stored((*((width,) * lead), 3 * width), parts)
        for theirs, ours, inputs, outputs in (
            ("attn.c_proj", "attn_out", width, width),
            ("mlp.c_fc", "mlp_in", width, neurons),
            ("mlp.c_proj", "mlp_out", neurons, width),
        ):
            shape = (*((inputs,) * lead), outputs)
            table[f"{theirs}.{kind}"] = Stored(shape, {f"{ours}{end}": same})
    for theirs, ours in (("ln_1", "attn_norm"), ("ln_2", "mlp_norm")):
        table[f"{theirs}.weight"] = vector(f"{ours}_scale", width)
        table[f"{theirs}.bias"] = vector(f"{ours}_bias", width)
    return table


FAMILY = Family(
    "gpt2",
    _describe,
    _shared,
    _layer,
    layers="h.",
    prefix="transformer.",
    embed="wte.weight",
    head="lm_head.weight",
    buffers=r"h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask, which is no parameter
)
