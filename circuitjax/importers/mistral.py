"""Mistral 7B and its relatives: Llama with grouped keys, and maybe a window in every layer."""

from circuitjax.importers.family import Stored
from circuitjax.importers.fields import Fields
from circuitjax.importers.llama import describe_like_llama, layer_like_llama, relative
from circuitjax.model.config import TransformerConfig

__all__ = ["FAMILY"]


def _describe(fields: Fields) -> TransformerConfig:
    fields.require({"layer_types": None})
    layers = fields.size("num_hidden_layers", 32)
    window = None
    if fields.values.get("sliding_window", 4096) is not None:
        window = fields.size("sliding_window", 4096)
    return describe_like_llama(
        fields,
        intermediate_size=14_336,
        kv_heads=8,
        context=131_072,
        biases=False,
        windows=() if window is None else (window,) * layers,
    )


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    del fields
    return layer_like_llama(config)


FAMILY = relative("mistral", _describe, _layer)
