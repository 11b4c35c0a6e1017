"""The GPT-2 family, from a Hugging Face snapshot folder, without PyTorch.

A snapshot holds `config.json`, `model.safetensors` and `tokenizer.json`. Its tensors, with x @ W for
every matrix, become ours:

    wte, wpe                       embed, positions
    h.{i}.ln_1, h.{i}.ln_2         attn_norm, mlp_norm
    h.{i}.attn.c_attn              attn_q, attn_k, attn_v  (side by side in that order)
    h.{i}.attn.c_proj              attn_out
    h.{i}.mlp.c_fc, mlp.c_proj     mlp_in, mlp_out
    ln_f                           final_norm
    lm_head                        unembed, transposed; nothing where it is tied to wte

A config that asks for anything else than `TransformerConfig` can express exactly is refused.
"""

import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from circuitjax.importers.jsonfile import read_object, read_text
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["import_gpt2"]

_ACTIVATIONS = MappingProxyType(
    {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
)
# Fields that change the function and have no counterpart here: the only value that is read.
_REQUIRED = MappingProxyType(
    {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "quantization_config": None,
    }
)
_LAYER = MappingProxyType(
    {
        "ln_1.weight": "attn_norm_scale",
        "ln_1.bias": "attn_norm_bias",
        "attn.c_proj.weight": "attn_out",
        "attn.c_proj.bias": "attn_out_bias",
        "ln_2.weight": "mlp_norm_scale",
        "ln_2.bias": "mlp_norm_bias",
        "mlp.c_fc.weight": "mlp_in",
        "mlp.c_fc.bias": "mlp_in_bias",
        "mlp.c_proj.weight": "mlp_out",
        "mlp.c_proj.bias": "mlp_out_bias",
    }
)
_PREFIX = "transformer."
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which is no parameter
_TYPES = ("F32", "F16", "BF16")


def import_gpt2(path: str | os.PathLike[str], name: str | None = None) -> Model:
    """Reads a snapshot folder.

    Weights of 16 bits become float32. `means` stays None: `experiments.means` computes them.

    Args:
      path: folder with config.json, model.safetensors (one file) and tokenizer.json.
      name: the model's; None means the folder's.

    Raises:
      ValueError: a file or tensor that is missing, unreadable or misshapen, one too many, or a
        config that is not expressed exactly: one line that names it.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}: give a snapshot with config.json in it")
    config = _config(root / "config.json")
    tensors, types, digest = _tensors(root / "model.safetensors", config)
    provenance = {"imported_from": "gpt2", "weights_sha256": digest, "weights_types": types}
    return Model(
        name=name or root.resolve().name,
        config=config,
        params=_params(config, tensors),
        tokenizer_json=_tokenizer_json(root / "tokenizer.json", config),
        provenance=provenance,
    )


def _config(path: pathlib.Path) -> TransformerConfig:
    fields = read_object(path)

    def size(field: str) -> int:
        value = fields.get(field)
        if type(value) is not int or value < 1:
            raise ValueError(f"{path}: {field} is {value!r}; it must be a whole number above 0")
        return value

    if fields.get("model_type") != "gpt2":
        raise ValueError(f"{path}: model_type is {fields.get('model_type')!r}; only 'gpt2' is read")
    for field, only in _REQUIRED.items():
        if fields.get(field, only) != only:
            raise ValueError(f"{path}: {field} is {fields[field]!r}; only {only!r} is supported")
    activation = fields.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"{path}: activation_function is {activation!r}; choose one of {known}")
    eps = fields.get("layer_norm_epsilon", 1e-5)
    if type(eps) not in (int, float) or not (eps > 0 and math.isfinite(eps)):
        raise ValueError(f"{path}: layer_norm_epsilon is {eps!r}; it must be above 0")
    tied = fields.get("tie_word_embeddings", True)
    if type(tied) is not bool:
        raise ValueError(f"{path}: tie_word_embeddings is {tied!r}; it must be true or false")
    d_model, num_heads = size("n_embd"), size("n_head")
    if d_model % num_heads:
        raise ValueError(f"{path}: n_embd is {d_model}; n_head, {num_heads}, must divide it")
    return TransformerConfig(
        num_layers=size("n_layer"),
        d_model=d_model,
        num_heads=num_heads,
        d_head=d_model // num_heads,
        d_mlp=4 * d_model if fields.get("n_inner") is None else size("n_inner"),
        vocab_size=size("vocab_size"),
        context_length=size("n_positions"),
        norm="layer",
        norm_eps=float(eps),
        activation=cast(Literal["gelu", "gelu_tanh", "relu"], _ACTIVATIONS[activation]),
        tied_unembedding=tied,
    )


def _shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """{tensor: shape}, without the prefix, of everything a checkpoint must hold."""
    width, neurons = config.d_model, config.d_mlp
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.context_length, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    if not config.tied_unembedding:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    for layer in range(config.num_layers):
        for block, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, neurons),
            ("mlp.c_proj", neurons, width),
        ):
            shapes[f"h.{layer}.{block}.weight"] = (inputs, outputs)
            shapes[f"h.{layer}.{block}.bias"] = (outputs,)
        for norm in ("ln_1", "ln_2"):
            shapes[f"h.{layer}.{norm}.weight"] = shapes[f"h.{layer}.{norm}.bias"] = (width,)
    return shapes


def _tensors(
    path: pathlib.Path, config: TransformerConfig
) -> tuple[dict[str, np.ndarray], list[str], str]:
    """({tensor without prefix: float32 array}, stored types, sha256 of the file)."""
    shapes = _shapes(config)
    if not path.is_file():
        raise ValueError(f"there is no file {path}: the weights must lie in this one file")
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
        with safe_open(path, framework="numpy") as file:
            stored: dict[str, str] = {}
            for full in file.keys():  # noqa: SIM118 - it is no mapping
                plain = full.removeprefix(_PREFIX)
                if plain in stored:
                    raise ValueError(f"{path} holds both {full} and {stored[plain]}: keep one")
                if not _BUFFER.fullmatch(plain):
                    stored[plain] = full
            if "lm_head.weight" in stored:  # tied ones are compared below
                shapes["lm_head.weight"] = shapes["wte.weight"]
            _compare(path, shapes, stored)
            tensors, types = {}, set()
            for plain, full in stored.items():
                view = file.get_slice(full)
                shape, kind = tuple(view.get_shape()), view.get_dtype()
                if shape != shapes[plain]:
                    raise ValueError(
                        f"{path}: tensor {full} is shaped {shape}, the config asks for "
                        f"{shapes[plain]}"
                    )
                if kind not in _TYPES:
                    raise ValueError(f"{path}: tensor {full} is {kind}; only {_TYPES} are read")
                tensors[plain] = np.asarray(file.get_tensor(full)).astype(np.float32)
                if not np.isfinite(tensors[plain]).all():
                    raise ValueError(f"{path}: tensor {full} holds values that are not finite")
                types.add(str(kind))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if config.tied_unembedding and "lm_head.weight" in tensors:
        if not np.array_equal(tensors["lm_head.weight"], tensors["wte.weight"]):
            raise ValueError(
                f"{path}: lm_head.weight is not wte.weight, to which tie_word_embeddings ties it: "
                "set that field false to use it"
            )
        del tensors["lm_head.weight"]
    return tensors, sorted(types), digest


def _compare(path: pathlib.Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for names, what in (
        (sorted(wanted.keys() - found.keys()), "lacks the tensor"),
        (sorted(found.keys() - wanted.keys()), "holds a tensor this config has no place for:"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"{path} {what} {names[0]}{more}")


def _params(config: TransformerConfig, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Our parameters; tensors are taken out of the dict, so that none is held twice for long."""

    def stack(name: str) -> np.ndarray:
        return np.stack([tensors.pop(f"h.{layer}.{name}") for layer in range(config.num_layers)])

    layers = {ours: stack(theirs) for theirs, ours in _LAYER.items()}
    for theirs, ours in (("weight", "attn_{}"), ("bias", "attn_{}_bias")):
        for part, value in zip(
            "qkv", np.split(stack(f"attn.c_attn.{theirs}"), 3, axis=-1), strict=True
        ):
            layers[ours.format(part)] = np.ascontiguousarray(value)
    params: dict[str, Any] = {
        "embed": tensors["wte.weight"],
        "positions": tensors["wpe.weight"],
        "layers": layers,
        "final_norm_scale": tensors["ln_f.weight"],
        "final_norm_bias": tensors["ln_f.bias"],
    }
    if not config.tied_unembedding:
        params["unembed"] = np.ascontiguousarray(tensors["lm_head.weight"].T)
    return params


def _tokenizer_json(path: pathlib.Path, config: TransformerConfig) -> str:
    text = read_text(path)
    try:
        tokenizer = Tokenizer.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.vocab_size} tokens, more than the vocab_size of "
            f"{config.vocab_size}: it belongs to another model"
        )
    # Some snapshots cut or pad texts to a length; tasks must see the tokens of the whole text.
    fields = json.loads(text)
    if fields.get("truncation") is None and fields.get("padding") is None:
        return text
    return json.dumps({**fields, "truncation": None, "padding": None}, ensure_ascii=False)
