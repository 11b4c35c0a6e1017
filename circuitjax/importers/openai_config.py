"""`beeg_config.json` of the released weight-sparse models as a `TransformerConfig`.

Every key has a default (GPT-2's sizes), so an empty object is a config. A key that is not known is
refused, because it might change the function; those that concern training alone are passed over.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

from circuitjax.core.files import cut
from circuitjax.model.bounds import check_sizes
from circuitjax.model.config import TransformerConfig

__all__ = ["read_config"]

_SITES = MappingProxyType(
    {
        "attn_in": "attn.act_in",
        "attn_q": "attn.q",
        "attn_k": "attn.k",
        "attn_v": "attn.v",
        "attn_out": "attn.resid_delta",
        "mlp_in": "mlp.act_in",
        "mlp_neuron": "mlp.post_act",
        "mlp_out": "mlp.resid_delta",
        "resid_post_attn": "resid.post_attn",
        "resid_post_mlp": "resid.post_mlp",
    }
)
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "block_size": 1024,
        "vocab_size": 50304,
        "n_layer": 12,
        "n_head": 12,
        "d_head": None,
        "d_model": 768,
        "d_mlp": None,
        "n_mlp": None,  # the older name of d_mlp
        "bias": True,
        "ln_bias": True,
        "rms_norm": False,
        "residual_activation_type": "identity",
        "activation_type": "gelu",
        "afrac": None,
        "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
        "tied_unembed": True,
        "enable_bigram_table": False,
        "learnable_bigram_table": False,  # the table is read as it is
        "d_pos_emb": None,
        "sinusoidal_cat_pos_emb": False,  # the sinusoids are in the checkpoint, as wpe
        "sink": False,
        "tokenizer_name": "tinypython_2k",
        "use_tied_aux_matrix": False,
    }
)
# Of no consequence to what the trained network computes; so is all that begins with "dropout".
_IGNORED = ("debug_nans", "grad_checkpointing", "flash", "enable_sparse_kernels")


def read_config(where: str, fields: Mapping[str, Any]) -> TransformerConfig:
    """The config, but for `final_bias`, which only the checkpoint's tensors tell.

    Args:
      where: what an error message calls the file.
      fields: the parsed JSON object.

    Raises:
      ValueError: an unknown key, or a value of another kind or out of range, named in one line.
    """
    for key in fields:
        if key not in _DEFAULTS and key not in _IGNORED and not key.startswith("dropout"):
            raise ValueError(
                f"{where}: unknown key {cut(key)}: it might change what the model computes"
            )
    values = {**_DEFAULTS, **fields}
    check_sizes(where, fields, layers="n_layer")

    def number(key: str, otherwise: int | None = None) -> int:
        value = values[key]
        if value is None and otherwise is not None:
            return otherwise
        if type(value) is not int or value < 1:
            raise ValueError(f"{where}: {key} is {cut(value)}; it must be a whole number above 0")
        return value

    def truth(key: str) -> bool:
        if type(values[key]) is not bool:
            raise ValueError(f"{where}: {key} is {cut(values[key])}; it must be true or false")
        return bool(values[key])

    def one_of(key: str, *choices: str) -> str:
        if type(values[key]) is not str or values[key] not in choices:
            known = " or ".join(choices)
            raise ValueError(f"{where}: {key} is {cut(values[key])}; it must be {known}")
        return str(values[key])

    if truth("use_tied_aux_matrix"):
        raise ValueError(f"{where}: use_tied_aux_matrix is true; only false is supported")
    truth("learnable_bigram_table")
    truth("sinusoidal_cat_pos_emb")
    rms, ln_bias = truth("rms_norm"), truth("ln_bias")
    if type(values["tokenizer_name"]) is not str:
        raise ValueError(
            f"{where}: tokenizer_name is {cut(values['tokenizer_name'])}; it must be text"
        )
    d_model, num_heads = number("d_model"), number("n_head")
    if values["d_head"] is None and d_model % num_heads:
        raise ValueError(
            f"{where}: d_model is {d_model}; n_head, {num_heads}, must divide it where there is no "
            "d_head"
        )
    d_mlp = number("n_mlp", number("d_mlp", 4 * d_model))
    if values["d_mlp"] is not None and d_mlp != values["d_mlp"]:
        raise ValueError(f"{where}: d_mlp is {values['d_mlp']} and n_mlp {d_mlp}: keep one of them")
    d_position = 0 if values["d_pos_emb"] is None else number("d_pos_emb")
    fraction, sites = _abs_top_k(where, values["afrac"], values["afrac_loctypes"])
    return TransformerConfig(
        num_layers=number("n_layer"),
        d_model=d_model,
        num_heads=num_heads,
        d_head=number("d_head", max(1, d_model // num_heads)),
        d_mlp=d_mlp,
        vocab_size=number("vocab_size"),
        context_length=number("block_size"),
        norm="rms" if rms else "layer",
        norm_bias=rms or ln_bias,
        activation=cast(Literal["gelu", "relu"], one_of("activation_type", "gelu", "relu")),
        position="concatenated" if d_position else "learned",
        d_position=d_position,
        tied_unembedding=truth("tied_unembed"),
        biases=truth("bias"),
        attention_sinks=truth("sink"),
        bigram=truth("enable_bigram_table"),
        abs_top_k_fraction=fraction,
        abs_top_k_sites=sites,
        residual_activation=cast(
            Literal["identity", "relu"], one_of("residual_activation_type", "identity", "relu")
        ),
    )


def _abs_top_k(where: str, fraction: Any, places: Any) -> tuple[float | None, tuple[str, ...]]:
    """What AbsTopK keeps, and at which of our sites; nowhere if there is no fraction."""
    if type(places) is not str:
        raise ValueError(
            f"{where}: afrac_loctypes is {cut(places)}; it must be text, commas between"
        )
    names = [place for place in places.split(",") if place]
    for name in names:
        if name not in _SITES:
            known = ", ".join(_SITES)
            raise ValueError(f"{where}: afrac_loctypes has {cut(name)}; known are {known}")
    if fraction is None:
        return None, ()
    if type(fraction) not in (int, float) or not (0 < fraction <= 1 and math.isfinite(fraction)):
        raise ValueError(f"{where}: afrac is {cut(fraction)}; it must be above 0 and at most 1")
    return float(fraction), tuple(site for name, site in _SITES.items() if name in names)
