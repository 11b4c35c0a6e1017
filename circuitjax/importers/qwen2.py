"""Qwen2 and 2.5: Llama with biases on q, k and v alone, and windows in the later layers if asked."""

from typing import Any

from circuitjax.importers.family import Stored
from circuitjax.importers.fields import Fields
from circuitjax.importers.llama import describe_like_llama, layer_like_llama, relative
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY", "describe_like_qwen"]


def describe_like_qwen(fields: Fields, **more: Any) -> TransformerConfig:
    """What Qwen2 and 3 have in common; `more` as `describe_like_llama` takes it."""
    layers = fields.size("num_hidden_layers", 32)
    used = fields.flag("use_sliding_window", False)
    used = used and fields.values.get("sliding_window", 4096) is not None
    window = fields.size("sliding_window", 4096) if used else None
    first = fields.values.get("max_window_layers", 28)
    if type(first) is not int or first < 0:
        raise fields.refuse("max_window_layers", "it must be a whole number from 0")
    kinds = ["full_attention"] * layers
    if window is not None:
        kinds = kinds[:first] + ["sliding_attention"] * max(0, layers - first)
    return describe_like_llama(
        fields,
        vocab_size=151_936,
        intermediate_size=22_016,
        kv_heads=32,
        context=32_768,
        windows=fields.windows(layers, window, kinds),
        **more,
    )


def _describe(fields: Fields) -> TransformerConfig:
    return describe_like_qwen(fields, biases=True)


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    del fields
    return layer_like_llama(config, attention_bias="qkv")


FAMILY = relative("qwen2", _describe, _layer)
