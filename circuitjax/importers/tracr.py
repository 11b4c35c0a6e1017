"""RASP programs compiled to transformer weights by tracr: models whose circuit is known.

Two sources: a pair of files (`load_tracr`), NAME.npz with the arrays of `array_shapes` and NAME.json
with everything else, or a live model of the library (`from_tracr_model`), which is read by its
attributes alone. `tracr_program.py` says how a program becomes a `Model`.
"""

import os
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from circuitjax.core.files import cut, one_line, reason
from circuitjax.importers.jsonfile import read_object
from circuitjax.importers.tracr_program import (
    LAYER_ARRAYS,
    TracrProgram,
    check_arrays,
    make_program,
)
from circuitjax.model.bounds import check_sizes

__all__ = ["TracrProgram", "from_tracr_model", "load_tracr"]

_MOST_SIZE = 10**6
_MOST_BYTES = 2**30  # of all arrays: programs are small
_WRITER = re.compile(r"embed|pos|a\d+\.h\d+|m\d+")
_READER = re.compile(r"a\d+\.h\d+<[qkv]>|m\d+<in>|logits")
_KINDS = MappingProxyType(
    {
        **dict.fromkeys(("name", "bos", "activation", "attention_scale"), str),
        **dict.fromkeys(("num_layers", "num_heads", "key_size", "mlp_hidden_size"), int),
        **dict.fromkeys(("d_model", "max_seq_len"), int),
        **dict.fromkeys(("layer_norm", "causal"), bool),
        **dict.fromkeys(("residual_labels", "output_directions", "nodes", "true_edges"), list),
        "decoded": list,
        "encoding": dict,
    }
)


def load_tracr(path: str | os.PathLike[str], name: str | None = None) -> TracrProgram:
    """Reads a program from NAME.npz and NAME.json.

    Args:
      path: either of the two files, or their common stem.
      name: the model's; None means the one in the JSON.

    Raises:
      ValueError: a file, field or array that is missing, unreadable, misshapen or not supported, or
        an array too many: one line that names it.
    """
    path = pathlib.Path(path)
    stem = path.with_suffix("") if path.suffix in (".npz", ".json") else path
    where, source = (stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "npz"))
    fields = read_object(where)
    _check_fields(where, fields)
    check_sizes(str(where), fields)
    arrays = _read_arrays(source)
    rows, length = len(fields["decoded"]), fields["max_seq_len"] + 1
    shapes = {"tokens": (rows, length), "final_residual": (rows, length, fields["d_model"])}
    recorded = {name: arrays.pop(name) for name in shapes if name in arrays}
    check_arrays(str(source), recorded, shapes)
    numeric = fields["output_encoder"] is None
    program = make_program(
        str(stem),
        name or fields["name"],
        fields,
        arrays,
        inputs=recorded["tokens"].astype(np.int32),
        final_residual=recorded["final_residual"].astype(np.float32),
        decoded=tuple(
            tuple(value if numeric else str(value) for value in row) for row in fields["decoded"]
        ),
        true_edges=tuple((writer, reader) for writer, reader in fields["true_edges"]),
        nodes=tuple(fields["nodes"]),
    )
    inputs, tokens = recorded["tokens"], len(program.encoding)
    if inputs.dtype.kind not in "iu" or ((inputs < 0) | (inputs >= tokens)).any():
        raise ValueError(f"{source}: array tokens must hold whole numbers from 0 to {tokens - 1}")
    return program


def from_tracr_model(model: Any, *, name: str = "tracr", output: str | None = None) -> TracrProgram:
    """Reads a live assembled model of the tracr library.

    Args:
      model: has `params` ({module: {leaf: array}}), `model_config`, `residual_labels`,
        `input_encoder` and `output_encoder`.
      name: the model's.
      output: label of the s-op that is the program's output, e.g. `reverse_1`: the library's model
        does not tell it. None finds it where just one s-op has the encoder's values.

    Raises:
      ValueError: an attribute or array that is missing or misshapen, an array too many, something
        `TransformerConfig` does not express, or an output that None cannot find.
    """
    where = f"model {name!r}"
    try:
        theirs, reader = model.model_config, model.input_encoder
        fields: dict[str, Any] = {
            "num_layers": int(theirs.num_layers),
            "num_heads": int(theirs.num_heads),
            "key_size": int(theirs.key_size),
            "mlp_hidden_size": int(theirs.mlp_hidden_size),
            "causal": bool(theirs.causal),
            "layer_norm": bool(theirs.layer_norm),
            "activation": _activation(theirs.activation_function),
            "encoding": _texts(where, reader.encoding_map),
            "bos": str(reader.bos_token),
            "residual_labels": [str(label) for label in model.residual_labels],
        }
        flat = {
            (m, leaf): value for m, part in model.params.items() for leaf, value in part.items()
        }
        values = getattr(model.output_encoder, "encoding_map", None)  # a number's encoder has none
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{where} is no assembled tracr model: {error}") from None
    ours = {("token_embed", "embeddings"): "token_embed", ("pos_embed", "embeddings"): "pos_embed"}
    for layer in range(fields["num_layers"]):
        for array, (_, module, leaf) in LAYER_ARRAYS.items():
            ours[f"transformer/layer_{layer}/{module}", leaf] = f"layer_{layer}/{array}"
    arrays = {ours.get(key, "/".join(key)): np.asarray(value) for key, value in flat.items()}
    if "pos_embed" not in arrays or arrays["pos_embed"].ndim != 2:
        raise ValueError(f"{where}: params lack the matrix pos_embed/embeddings")
    encoder = None if values is None else _texts(where, values)
    fields["d_model"] = len(fields["residual_labels"])
    fields["max_seq_len"] = len(arrays["pos_embed"]) - 1
    fields["output_encoder"] = encoder
    fields["output_directions"] = _directions(where, fields["residual_labels"], encoder, output)
    return make_program(where, name, fields, arrays)


def _texts(where: str, encoding: Mapping[Any, int]) -> dict[str, int]:
    texts = {str(value): int(index) for value, index in encoding.items()}
    if len(texts) != len(encoding):
        raise ValueError(
            f"{where}: two values of an encoder read the same as text: {cut(list(encoding))}"
        )
    return texts


def _activation(function: Any) -> str:
    probe = np.linspace(-3, 3, 13, dtype=np.float32)
    relu = np.array_equal(np.asarray(function(probe)), np.maximum(probe, 0))
    return "relu" if relu else getattr(function, "__name__", repr(function))


def _directions(
    where: str, labels: Sequence[str], encoder: Mapping[str, int] | None, output: str | None
) -> list[str]:
    """The residual directions of the output, in the order of the encoder's columns."""
    if encoder is None:
        plain = [label for label in labels if ":" not in label and label != "one"]
        fitting = [[label] for label in plain if output in (None, label)]
    else:
        values = sorted(encoder, key=lambda value: encoder[value])
        stems = dict.fromkeys(label.rsplit(":", 1)[0] for label in labels if ":" in label)
        fitting = []
        for stem in stems if output is None else [output]:
            own = {label for label in labels if label.startswith(f"{stem}:")}
            found = [f"{stem}:{value}" for value in values]
            if own == set(found) or (output is not None and own >= set(found)):
                fitting.append(found)
    if len(fitting) != 1:
        stems = dict.fromkeys(label.rsplit(":", 1)[0] for label in labels)
        raise ValueError(
            f"{where}: {len(fitting)} outputs fit output={cut(output)}; name one of {cut(list(stems))}"
        )
    return fitting[0]


def _check_fields(where: pathlib.Path, fields: Mapping[str, Any]) -> None:
    for field, kind in _KINDS.items():
        if type(fields.get(field)) is not kind:
            raise ValueError(f"{where}: {field} must be of type {kind.__name__}")
        if kind is int and not 0 <= fields[field] < _MOST_SIZE:
            raise ValueError(f"{where}: {field} is {cut(fields[field])}, beyond {_MOST_SIZE}")
    if type(fields.get("output_encoder", 0)) not in (dict, type(None)):
        raise ValueError(f"{where}: output_encoder must be a dict, or null for a number")
    if fields["attention_scale"] != "1/sqrt(key_size)":
        scale = fields["attention_scale"]
        raise ValueError(
            f"{where}: attention_scale is {cut(scale)}; only '1/sqrt(key_size)' is read"
        )
    for field in ("residual_labels", "output_directions", "nodes"):
        if not all(isinstance(label, str) for label in fields[field]):
            raise ValueError(f"{where}: {field} must hold texts")
    for edge in fields["true_edges"]:
        two = isinstance(edge, list) and [type(end) for end in edge] == [str, str]
        if not two or not _WRITER.fullmatch(edge[0]) or not _READER.fullmatch(edge[1]):
            raise ValueError(f"{where}: true_edges holds {cut(edge)}, which is no [writer, reader]")
    length = fields["max_seq_len"] + 1
    encoder = fields["output_encoder"]
    for row in fields["decoded"]:
        if not isinstance(row, list) or len(row) != length or row[0] != fields["bos"]:
            raise ValueError(f"{where}: decoded holds {cut(row)}, not BOS and {length - 1} outputs")
        for value in row[1:]:
            known = type(value) in (int, float) if encoder is None else str(value) in encoder
            if not known:
                raise ValueError(f"{where}: decoded holds {cut(value)}, which is no output")


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    name = "its list of arrays"
    arrays: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array, not a .npz of several")
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > _MOST_BYTES:
                raise ValueError(f"unpacked it has {size} bytes, more than {_MOST_BYTES}")
            for name in file.files:
                arrays[name] = file[name]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:  # zip, zlib, NumPy raise many kinds; all mean the same here
        raise ValueError(f"cannot read {one_line(name)} of {path}: {reason(error)}") from None
    return arrays
