"""The released weight-sparse models (openai/circuit_sparsity, 2025), without PyTorch.

A folder holds `beeg_config.json` and `final_model.pt`, a PyTorch state dict whose linear maps are
y = W x + b with W `[outputs, inputs]`. Its tensors become ours:

    transformer.wte, wpe                embed, positions
    lm_head                             unembed, transposed; nothing where it is tied to wte
    transformer.ln_f                    final_norm
    final_logits_bias, bigram_table     final_bias, bigram
    transformer.h.{i}.ln_1, ln_2        attn_norm, mlp_norm
    transformer.h.{i}.ln_p1, ln_p2      attn_position_norm, mlp_position_norm
    transformer.h.{i}.attn.c_attn       attn_q, attn_k, attn_v, transposed (stacked in that order)
    transformer.h.{i}.attn.c_proj       attn_out, transposed
    transformer.h.{i}.attn.attn_imp     attn_sink
    transformer.h.{i}.mlp.c_fc, c_proj  mlp_in, mlp_out, transposed

`encoder.json` and `vocab.bpe`, the tokenizer that all of these models share, may lie beside them or
elsewhere.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from circuitjax.core.files import cut, one_line
from circuitjax.importers.jsonfile import read_object
from circuitjax.importers.openai_config import read_config
from circuitjax.importers.openai_tokenizer import FILES, NAME, read_tokenizer
from circuitjax.importers.state_dict import StateDict, open_state_dict
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["import_openai"]

_LAYER = "transformer.h.{}."
_HEAD, _TABLE = "lm_head.weight", "transformer.wte.weight"
_BLOCK = 32  # rows that are transposed at a time: they fit in cache, a matrix does not
# The causal mask, which is no parameter; files written without fused attention hold it.
_MASK = re.compile(r"transformer\.h\.\d+\.attn\.bias")


def import_openai(
    path: str | os.PathLike[str],
    name: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
) -> Model:
    """Reads a folder of a released model.

    Weights of 16 bits become float32. `means` stays None: `experiments.means` computes them.

    Args:
      path: folder with beeg_config.json and final_model.pt.
      name: the model's; None means the folder's.
      tokenizer: folder with encoder.json and vocab.bpe; None means `path`, if they are there.
        Without them the model runs, but can be given no task.

    Raises:
      ValueError: a file or tensor that is missing, unreadable, misshapen or of another type, one too
        many, a config key that is unknown, or a checkpoint that would have run code: one line.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}: give one with beeg_config.json in it")
    fields = read_object(root / "beeg_config.json")
    config = read_config(str(root / "beeg_config.json"), fields)
    text = _tokenizer_json(root, tokenizer, fields, config)
    file = root / "final_model.pt"
    with open_state_dict(file) as checkpoint:
        config, tied = _check(file, checkpoint, config)
        types = sorted({checkpoint.entries[name].dtype for name in _shapes(config)})
        params = _params(checkpoint, config)
        if tied and not np.array_equal(checkpoint.read(_HEAD), params["embed"]):
            raise ValueError(
                f"{file}: {_HEAD} is not {_TABLE}, to which tied_unembed ties it: set that key "
                "false to use it"
            )
    with file.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    provenance = {
        "imported_from": "openai",
        "weights_sha256": digest,
        "weights_types": types,
        "config": fields,
    }
    return Model(
        name=name or root.resolve().name,
        config=config,
        params=params,
        tokenizer_json=text,
        provenance=provenance,
    )


def _tokenizer_json(
    root: pathlib.Path,
    folder: str | os.PathLike[str] | None,
    fields: Mapping[str, Any],
    config: TransformerConfig,
) -> str:
    where = root if folder is None else pathlib.Path(folder)
    if folder is None and not any((where / file).exists() for file in FILES):
        return ""
    asked = fields.get("tokenizer_name", NAME)
    if asked != NAME:
        raise ValueError(
            f"{root / 'beeg_config.json'}: tokenizer_name is {cut(asked)}; only {NAME!r} can be read, "
            f"so leave {' and '.join(FILES)} out"
        )
    text = read_tokenizer(where)
    size = Tokenizer.from_json(text).vocab_size
    if size > config.vocab_size:
        raise ValueError(
            f"{where / FILES[0]} has {size} tokens, more than the vocab_size of "
            f"{config.vocab_size}: it belongs to another model"
        )
    return text


def _shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """{tensor: shape} of everything a checkpoint of this config must hold, a tied head apart."""
    width, inputs, heads = config.d_model, config.d_in, config.d_attention
    shapes: dict[str, tuple[int, ...]] = {
        _TABLE: (config.vocab_size, width),
        "transformer.wpe.weight": (config.context_length, config.d_position or width),
    }
    if not config.tied_unembedding:
        shapes[_HEAD] = (config.vocab_size, width)
    if config.final_bias:
        shapes["final_logits_bias"] = (config.vocab_size,)
    if config.bigram:
        shapes["bigram_table"] = (config.vocab_size, config.vocab_size)
    norms = {"transformer.ln_f": width}
    for layer in map(_LAYER.format, range(config.num_layers)):
        norms |= {f"{layer}ln_1": width, f"{layer}ln_2": width}
        if config.position == "concatenated":
            norms |= {f"{layer}ln_p1": config.d_position, f"{layer}ln_p2": config.d_position}
        for block, size_out, size_in in (
            ("attn.c_attn", 3 * heads, inputs),
            ("attn.c_proj", width, heads),
            ("mlp.c_fc", config.d_mlp, inputs),
            ("mlp.c_proj", width, config.d_mlp),
        ):
            shapes[f"{layer}{block}.weight"] = (size_out, size_in)
            if config.biases:
                shapes[f"{layer}{block}.bias"] = (size_out,)
        if config.attention_sinks:
            shapes[f"{layer}attn.attn_imp.sink_logit"] = (config.num_heads,)
    for norm, size in norms.items():
        shapes[f"{norm}.weight"] = (size,)
        if config.norm == "layer" and config.norm_bias:
            shapes[f"{norm}.bias"] = (size,)
    return shapes


def _check(
    file: pathlib.Path, checkpoint: StateDict, config: TransformerConfig
) -> tuple[TransformerConfig, bool]:
    """The config with what only the tensors tell, and whether a tied head is written out.

    Raises:
      ValueError: the tensors are not those the config asks for, before any of them is read.
    """
    found = {name: entry.shape for name, entry in checkpoint.entries.items()}
    if "final_logits_bias" in found:
        config = dataclasses.replace(config, final_bias=True)
    if config.num_layers > len(found):
        raise ValueError(f"{file} has {len(found)} tensors, too few for {config.num_layers} layers")
    wanted = _shapes(config)
    tied = config.tied_unembedding and _HEAD in found
    if tied:
        wanted[_HEAD] = wanted[_TABLE]
    length = config.context_length
    for name in sorted(found.keys() - wanted.keys()):
        if _MASK.fullmatch(name) and found[name] == (1, 1, length, length):
            del found[name]
    for names, what in (
        (sorted(wanted.keys() - found.keys()), "lacks the tensor"),
        (sorted(found.keys() - wanted.keys()), "holds a tensor this config has no place for:"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"{file} {what} {one_line(names[0])}{more}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ValueError(
                f"{file}: tensor {name} is shaped {found[name]}, the config asks for {shape}"
            )
        checkpoint.check_type(name)
    return config, tied


def _params(checkpoint: StateDict, config: TransformerConfig) -> dict[str, Any]:
    """Our parameters, float32. There may be gigabytes: at most one kind of tensor is held twice."""

    def stack(name: str) -> Iterator[np.ndarray]:
        for layer in range(config.num_layers):
            yield checkpoint.read(_LAYER.format(layer) + name)

    def fill(shape: tuple[int, ...], parts: Iterator[np.ndarray]) -> np.ndarray:
        """The layers' tensors `[L, *shape]`, matrices transposed to [inputs, outputs]."""
        out = np.empty((config.num_layers, *shape), np.float32)
        for place, part in zip(out, parts, strict=True):
            for start in range(0, len(part), _BLOCK):
                place[..., start : start + _BLOCK] = part[start : start + _BLOCK].T
        return out

    def split(name: str, shape: tuple[int, ...], parts: Iterator[np.ndarray]) -> None:
        for letter, part in zip("qkv", np.split(fill(shape, parts), 3, axis=-1), strict=True):
            layers[name.format(letter)] = np.ascontiguousarray(part)

    inputs, heads = config.d_in, config.d_attention
    layers: dict[str, np.ndarray] = {}
    for theirs, ours, size_in, size_out in (
        ("attn.c_proj", "attn_out", heads, config.d_model),
        ("mlp.c_fc", "mlp_in", inputs, config.d_mlp),
        ("mlp.c_proj", "mlp_out", config.d_mlp, config.d_model),
    ):
        layers[ours] = fill((size_in, size_out), stack(f"{theirs}.weight"))
        if config.biases:
            layers[f"{ours}_bias"] = fill((size_out,), stack(f"{theirs}.bias"))
    split("attn_{}", (inputs, 3 * heads), stack("attn.c_attn.weight"))
    if config.biases:
        split("attn_{}_bias", (3 * heads,), stack("attn.c_attn.bias"))
    if config.attention_sinks:
        layers["attn_sink"] = fill((config.num_heads,), stack("attn.attn_imp.sink_logit"))
    norms = [("ln_1", "attn_norm", config.d_model), ("ln_2", "mlp_norm", config.d_model)]
    if config.position == "concatenated":
        norms += [
            ("ln_p1", "attn_position_norm", config.d_position),
            ("ln_p2", "mlp_position_norm", config.d_position),
        ]
    parts_of = {"weight": "scale"}
    if config.norm == "layer" and config.norm_bias:
        parts_of["bias"] = "bias"
    params: dict[str, Any] = {
        "embed": np.array(checkpoint.read(_TABLE)),
        "positions": np.array(checkpoint.read("transformer.wpe.weight")),
        "layers": layers,
    }
    for theirs, ours in parts_of.items():
        params[f"final_norm_{ours}"] = np.array(checkpoint.read(f"transformer.ln_f.{theirs}"))
        for norm, name, size in norms:
            layers[f"{name}_{ours}"] = fill((size,), stack(f"{norm}.{theirs}"))
    if not config.tied_unembedding:
        params["unembed"] = np.ascontiguousarray(checkpoint.read(_HEAD).T)
    for theirs, name, held in (
        ("final_logits_bias", "final_bias", config.final_bias),
        ("bigram_table", "bigram", config.bigram),
    ):
        if held:
            params[name] = np.array(checkpoint.read(theirs))
    return params
