"""Gemma 3, text: Gemma 2, but norms of queries and keys for soft caps; rotary positions of two kinds.

    layers.{i}.self_attn.{q,k}_norm     attn_q_norm, attn_k_norm

The models that see images (`gemma3` rather than `gemma3_text`) are refused.
"""

from circuitjax.importers.family import Stored, vector
from circuitjax.importers.fields import Fields
from circuitjax.importers.gemma2 import (
    describe_like_gemma,
    layer_like_gemma,
    one_plus,
    shared_like_gemma,
)
from circuitjax.importers.llama import relative
from circuitjax.model.config import TransformerConfig
from circuitjax.model.rotary import Rotary

__all__ = ["FAMILY"]

_KINDS = ("full_attention", "sliding_attention")


def _rotaries(fields: Fields, d_head: int) -> tuple[Rotary, Rotary]:
    """Of the layers without a window, and of those with one."""
    whole = fields.values.get("rope_parameters") or {}
    if not isinstance(whole, dict) or not set(whole) <= {*_KINDS}:
        raise fields.refuse("rope_parameters", f"its keys must be of {_KINDS}")
    full = dict(fields.inner("rope_parameters", _KINDS[0]).values)
    local = dict(fields.inner("rope_parameters", _KINDS[1]).values)
    scaling = fields.values.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise fields.refuse("rope_scaling", "it must be an object")
    full |= scaling
    full.setdefault("rope_theta", fields.number("rope_theta", 1_000_000.0))
    local.setdefault("rope_theta", fields.number("rope_local_base_freq", 10_000.0))
    context = {"max_position_embeddings": fields.values.get("max_position_embeddings", 131_072)}
    one, other = (
        Fields(fields.path, {"rope_parameters": part, **context}).rotary(d_head)
        for part in (full, local)
    )
    return one, other


def _describe(fields: Fields) -> TransformerConfig:
    fields.require({"attn_logit_softcapping": None})
    layers = fields.size("num_hidden_layers", 26)
    pattern = Fields(
        fields.path,
        {
            "pattern": fields.values.get(
                "sliding_window_pattern", fields.values.get("_sliding_window_pattern")
            )
        },
    ).size("pattern", 6)
    kinds = [_KINDS[(i + 1) % pattern > 0] for i in range(layers)]
    windows = fields.windows(layers, fields.size("sliding_window", 4096), kinds)
    full, local = _rotaries(fields, fields.size("head_dim", 256))
    return describe_like_gemma(
        fields,
        vocab_size=262_208,
        context=131_072,
        windows=windows,
        rotary=full,
        local_rotary=local if any(windows) and local != full else None,
        qk_norm=True,
        logit_softcap=fields.optional("final_logit_softcapping"),
    )


def _layer(fields: Fields, config: TransformerConfig) -> dict[str, Stored]:
    norms = {
        f"self_attn.{part}_norm.weight": vector(f"attn_{part}_norm_scale", config.d_head, one_plus)
        for part in "qk"
    }
    return layer_like_gemma(fields, config) | norms


FAMILY = relative("gemma3_text", _describe, _layer, shared_like_gemma)
