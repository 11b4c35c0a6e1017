"""Models in GGUF, llama.cpp's format: weights, description and tokenizer in one file.

The file is memory-mapped and one tensor at a time is dequantized (`gguf`, the package of the format's
authors, knows all its types); results on such a model are results on the dequantized weights. What a
GGUF says is put as config.json would say it, and tensors get the names of snapshots, so a family's
one file serves both:

    token_embd, output_norm, output              embed_tokens, norm, lm_head
    blk.{i}.attn_{q,k,v,output}                  self_attn.{q,k,v,o}_proj
    blk.{i}.attn_norm, ffn_norm                  norms before attention and MLP
    blk.{i}.post_attention_norm, post_ffw_norm   norms after them
    blk.{i}.ffn_{gate,up,down}                   mlp.{gate,up,down}_proj

Two things differ inside: rows of q and k of `llama` stand in pairs that turn (channel 2i beside 2i + 1,
not i beside i + C/2), and Gemma's norms have their 1 added.
"""

import contextlib
import hashlib
import importlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from circuitjax.core.files import cut, reason
from circuitjax.importers.family import read_params
from circuitjax.importers.fields import Fields
from circuitjax.importers.gguf_tokenizer import tokenizer_json
from circuitjax.importers.snapshot import FAMILIES
from circuitjax.importers.vocabulary import chat_facts, check_tokenizer
from circuitjax.model.record import Model
from circuitjax.model.rotary import Rotary

__all__ = ["import_gguf"]

# Architectures by our families' model types.
_ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
_FIELDS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_SHARED = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER = {
    **_LAYER,
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_FREQUENCIES = "rope_freqs.weight"
# Layers of the largest Gemma 2 and 3, whose scores have another scale than 1 / sqrt(head_dim).
_LARGEST = {"gemma2": 46, "gemma3": 62}


def _package() -> Any:
    """The package that knows the format; an installation older than this file may lack it."""
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise ValueError(
            "reading GGUF needs the package gguf: pip install 'gguf>=0.17,<1'"
        ) from None


def _bounded(reader: Any) -> Any:
    """The package's reader, which loops over as many items as a file says: here they must be there."""

    class Bounded(reader):
        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, within a field")
            return super()._get(offset, dtype, count, *more, **named)

    return Bounded


class GgufWeights:
    """The tensors of a GGUF under the names of snapshots; see `family.Weights`."""

    def __init__(self, path: pathlib.Path, reader: Any, architecture: str, heads: int, shared: int):
        self.path = path
        self.types: set[str] = set()
        self._gemma = architecture.startswith("gemma")
        self._pairs = {"q": heads, "k": shared} if architecture == "llama" else {}
        self._tensors = {_snapshot_name(t.name, self._gemma): t for t in reader.tensors}
        self.frequencies = self._tensors.pop(_FREQUENCIES, None)

    def names(self) -> list[str]:
        """The tensors' names, as a snapshot has them."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; GGUF counts axes from the last."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str) -> np.ndarray:
        """A tensor as finite float32 numbers."""
        tensor = self._tensors[name]
        kind = tensor.tensor_type.name
        with _one_line(self.path, f"tensor {tensor.name} of type {kind}: "):
            value = np.asarray(_package().dequantize(tensor.data, tensor.tensor_type), np.float32)
            value = value.reshape(self.shape(name))
        if not np.isfinite(value).all():
            raise ValueError(f"{self.path}: tensor {tensor.name} holds values that are not finite")
        self.types.add(kind)
        if self._gemma and name.endswith("norm.weight"):
            return value - np.float32(1)
        found = re.search(r"self_attn\.([qk])_proj\.", name)
        if found and found[1] in self._pairs:
            by_head = value.reshape(self._pairs[found[1]], -1, 2, *value.shape[1:])
            return by_head.swapaxes(1, 2).reshape(value.shape)
        return value


def _snapshot_name(name: str, gemma: bool) -> str:
    found = _NAME.fullmatch(name)
    table = _GEMMA_LAYER if gemma else _LAYER
    if found and found[2] in table:
        return f"layers.{found[1]}.{table[found[2]]}.{found[3]}"
    return _SHARED.get(name, name)


def import_gguf(
    path: str | os.PathLike[str], name: str | None = None, bos: str | None = None
) -> Model:
    """Reads a GGUF.

    Args:
      path: the file, of one part.
      name: the model's; None means the file's.
      bos: the token to begin texts with; None means as the file says.

    Raises:
      ValueError: no GGUF, a cut one, a family or type of numbers that is not known, or what the
        description cannot express exactly: one line that names it.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    package = _package()
    with _one_line(file):
        reader = _bounded(package.GGUFReader)(file)
        values = {key: field.contents() for key, field in reader.fields.items()}
    architecture = values.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ValueError(
            f"{file}: general.architecture is {cut(architecture)}; choose one of {known}"
        )
    names = {tensor.name for tensor in reader.tensors}
    fields = Fields(file, _config(file, architecture, values, names, reader))
    family = FAMILIES[_ARCHITECTURES[architecture]]
    config = family.describe(fields)
    weights = GgufWeights(file, reader, architecture, config.num_heads, config.kv_heads)
    if weights.frequencies is not None:
        _check_frequencies(file, config.rotary, weights.frequencies)
    try:
        text, own = tokenizer_json(values)
        text = check_tokenizer(text, config, bos or own)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    params = read_params(family, fields, config, weights)
    types = sorted(weights.types)
    with _one_line(file), file.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    return Model(
        name=name or file.stem,
        config=config,
        params=params,
        tokenizer_json=text,
        provenance={
            "imported_from": f"gguf/{architecture}",
            "weights_sha256": digest,
            "weights_types": types,
            "quantised": not set(types) <= {"F32", "F16", "BF16"},
            **chat_facts(values.get("tokenizer.chat_template")),
        },
    )


def _config(
    file: pathlib.Path, architecture: str, values: Mapping[str, Any], names: set[str], reader: Any
) -> dict[str, Any]:
    """What a config.json would say."""

    def own(key: str, default: Any = None) -> Any:
        return values.get(f"{architecture}.{key}", default)

    if int(values.get("split.count", 1) or 1) > 1:
        raise ValueError(f"{file}: it is one of several parts; only a GGUF in one file is read")
    if own("expert_count", 0):
        raise ValueError(
            f"{file}: expert_count is {own('expert_count')}; experts are not supported"
        )
    found = {ours: own(key) for key, ours in _FIELDS.items() if own(key) is not None}
    for tensor in reader.tensors:
        if tensor.name == "token_embd.weight":
            found["vocab_size"] = int(tensor.shape[1])
    found["model_type"] = _ARCHITECTURES[architecture]
    found["tie_word_embeddings"] = "output.weight" not in names
    if architecture == "llama":
        if "sliding_window" in found:
            raise ValueError(f"{file}: llama.attention.sliding_window is not supported")
        found["attention_bias"] = "blk.0.attn_output.bias" in names
        found["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    width, heads = found.get("hidden_size"), found.get("num_attention_heads")
    if type(width) is not int or type(heads) is not int or heads < 1:
        raise ValueError(
            f"{file}: embedding_length is {cut(width)}, attention.head_count {cut(heads)}"
        )
    head = found.get("head_dim", width // heads)
    for key in ("rope.dimension_count", "attention.value_length"):
        if own(key, head) != head:
            raise ValueError(
                f"{file}: {architecture}.{key} is {own(key)}; only {head} is supported"
            )
    found["head_dim"] = head
    if architecture in _LARGEST:
        largest = found.get("num_hidden_layers") == _LARGEST[architecture]
        found["query_pre_attn_scalar"] = width / heads if largest else head
    if architecture == "gemma3":
        found["sliding_window_pattern"] = own("attention.sliding_window_pattern", 6)
        found.setdefault("rope_local_base_freq", own("rope.freq_base_swa", 10_000.0))
    if architecture == "gemma2":  # a file without them means none
        found.setdefault("attn_logit_softcapping", None)
        found.setdefault("final_logit_softcapping", None)
    kind = own("rope.scaling.type", "none")
    if kind not in ("none", None):
        found["rope_scaling"] = {"rope_type": kind, "factor": own("rope.scaling.factor", 0.0)}
    elif (
        _FREQUENCIES in names
    ):  # Llama 3's scaling: a factor for each frequency, the last the largest
        tensor = next(tensor for tensor in reader.tensors if tensor.name == _FREQUENCIES)
        found["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": float(np.max(tensor.data)),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    return found


def _check_frequencies(file: pathlib.Path, rotary: Rotary | None, tensor: Any) -> None:
    """That the factors are those which Llama 3's scaling gives."""
    assert rotary is not None
    plain = Rotary(rotary.dims, rotary.base).frequencies()
    expected = plain / rotary.frequencies()
    found = np.asarray(tensor.data, np.float32)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
        raise ValueError(f"{file}: {_FREQUENCIES} is not Llama 3's scaling, the only one read so")


@contextlib.contextmanager
def _one_line(path: pathlib.Path, what: str = "") -> Iterator[None]:
    """Whatever the package raises on a cut or foreign file is a ValueError of one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot read {path}: {what}{reason(error)}") from None
