"""Gemma 2: norms before and after each block, scaled by 1 + weight; soft caps; windows.

    layers.{i}.input_layernorm, post_attention_layernorm         attn_norm, attn_post_norm
    layers.{i}.pre_feedforward_layernorm, post_feedforward_...   mlp_norm, mlp_post_norm

The 1 is added to the scales here, in float32, as the reference does in each pass. The embedding is
scaled by sqrt(D) in float32; a reference in bfloat16 rounds that number.
"""

from typing import Any

import numpy as np

from circuitjax.importers.family import Stored, vector
from circuitjax.importers.fields import Fields
from circuitjax.importers.llama import (
    describe_like_llama,
    layer_like_llama,
    relative,
    shared_like_llama,
)
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY", "describe_like_gemma", "layer_like_gemma", "one_plus", "shared_like_gemma"]


def one_plus(weight: np.ndarray) -> np.ndarray:
    """A norm's scale."""
    return np.float32(1) + weight


def describe_like_gemma(fields: Fields, **more: Any) -> TransformerConfig:
    """What Gemma 2 and 3 have in common; `more` as `describe_like_llama` takes it."""
    if fields.values.get("use_bidirectional_attention") not in (None, False):
        raise fields.refuse("use_bidirectional_attention", "only false is supported")
    width = fields.size("hidden_size", 2304)
    return describe_like_llama(
        fields,
        hidden_size=2304,
        intermediate_size=9216,
        num_layers=26,
        num_heads=8,
        kv_heads=4,
        head_dim=256,
        tied=True,
        activation=("hidden_activation", "gelu_pytorch_tanh"),
        biases=fields.flag("attention_bias", False),
        post_norms=True,
        attention_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=float(np.float32(width**0.5)),
        **more,
    )


def shared_like_gemma(config: TransformerConfig) -> dict[str, Stored]:
    """What lies outside the layers."""
    norm = vector("final_norm_scale", config.d_model, one_plus)
    return {**shared_like_llama(config), "norm.weight": norm}


def layer_like_gemma(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    """One layer's tensors."""
    biases = "qkvo" if fields.flag("attention_bias", False) else ""
    norms = {
        f"{theirs}_layernorm.weight": vector(f"{ours}_scale", config.d_model, one_plus)
        for theirs, ours in (
            ("input", "attn_norm"),
            ("post_attention", "attn_post_norm"),
            ("pre_feedforward", "mlp_norm"),
            ("post_feedforward", "mlp_post_norm"),
        )
    }
    return layer_like_llama(config, biases) | norms


def _describe(fields: Fields) -> TransformerConfig:
    layers = fields.size("num_hidden_layers", 26)
    kinds = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    window = fields.size("sliding_window", 4096)
    return describe_like_gemma(
        fields,
        vocab_size=256_000,
        context=8192,
        windows=fields.windows(layers, window, kinds),
        attention_softcap=fields.optional("attn_logit_softcapping", 50.0),
        logit_softcap=fields.optional("final_logit_softcapping", 30.0),
    )


FAMILY = relative("gemma2", _describe, layer_like_gemma, shared_like_gemma)
