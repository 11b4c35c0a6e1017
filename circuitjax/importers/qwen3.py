"""Qwen3, dense: Qwen2 with norms of queries and keys, and biases all over attention or nowhere.

layers.{i}.self_attn.{q,k}_norm     attn_q_norm, attn_k_norm
"""

from circuitjax.importers.family import Stored, vector
from circuitjax.importers.fields import Fields
from circuitjax.importers.llama import layer_like_llama, relative
from circuitjax.importers.qwen2 import describe_like_qwen
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY"]


def _describe(fields: Fields) -> TransformerConfig:
    biases = fields.flag("attention_bias", False)
    return describe_like_qwen(fields, head_dim=128, biases=biases, qk_norm=True)


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    biases = "qkvo" if fields.flag("attention_bias", False) else ""
    norms = {
        f"self_attn.{part}_norm.weight": vector(f"attn_{part}_norm_scale", config.d_head)
        for part in "qk"
    }
    return layer_like_llama(config, biases) | norms


FAMILY = relative("qwen3", _describe, _layer)
