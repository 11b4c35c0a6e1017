"""A compiled RASP program as a `Model`, with the names that make it readable.

Such a model has residual directions with names, no normalisation, ReLU neurons, and attention over
all positions (BOS is the first). Its output is read off a few named directions: an argmax over them
if the output is categorical, else the value of the one direction. Here they are the first columns
of the unembedding, in the order of `TracrProgram.output_directions`:

    logits[..., j] = residual[..., place of output_directions[j]]

Where a program has more input tokens than outputs the columns beyond are zero and mean nothing;
where it has more outputs, rows of zeros fill the token embedding up: `vocab_size` is the larger
number of the two. Names of tokens, outputs and directions are text throughout.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from circuitjax.core.files import cut, one_line
from circuitjax.model.bounds import check_sizes
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model

__all__ = ["LAYER_ARRAYS", "TracrProgram", "array_shapes", "check_arrays", "make_program"]

# Array of one layer: (our parameter, the library's module, its leaf).
LAYER_ARRAYS = MappingProxyType(
    {
        "attn/w_q": ("attn_q", "attn/query", "w"),
        "attn/b_q": ("attn_q_bias", "attn/query", "b"),
        "attn/w_k": ("attn_k", "attn/key", "w"),
        "attn/b_k": ("attn_k_bias", "attn/key", "b"),
        "attn/w_v": ("attn_v", "attn/value", "w"),
        "attn/b_v": ("attn_v_bias", "attn/value", "b"),
        "attn/w_o": ("attn_out", "attn/linear", "w"),
        "attn/b_o": ("attn_out_bias", "attn/linear", "b"),
        "mlp/w_in": ("mlp_in", "mlp/linear_1", "w"),
        "mlp/b_in": ("mlp_in_bias", "mlp/linear_1", "b"),
        "mlp/w_out": ("mlp_out", "mlp/linear_2", "w"),
        "mlp/b_out": ("mlp_out_bias", "mlp/linear_2", "b"),
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class TracrProgram:
    """A compiled program.

    Attributes:
      model: the network, without tokenizer and means; its provenance repeats the names below.
      encoding: {input token: its id}, BOS and padding included.
      bos: the token that begins every input.
      residual_labels: names of the D residual directions.
      output_directions: names of those that hold the output: the first columns of the logits.
      output_encoder: {output value: its column}, or None where the output is a number.
      inputs: int32 `[B, T]` recorded inputs, BOS first, or None.
      final_residual: float32 `[B, T, D]` after the last layer on these inputs, as the compiler's own
        forward pass gave it, or None.
      decoded: the compiler's outputs on these inputs: BOS, then a name of `output_encoder` or a
        number for each position, or None.
      true_edges: the circuit as (writer, reader) pairs, or None if not known. Writers are `embed`,
        `pos`, `a{layer}.h{head}`, `m{layer}`; readers `a{layer}.h{head}<q|k|v>`, `m{layer}<in>`,
        `logits`. Reads of BOS and of the constant direction do not count.
      nodes: heads and MLPs of that circuit, or None.
    """

    model: Model
    encoding: Mapping[str, int]
    bos: str
    residual_labels: tuple[str, ...]
    output_directions: tuple[str, ...]
    output_encoder: Mapping[str, int] | None
    inputs: np.ndarray | None = None
    final_residual: np.ndarray | None = None
    decoded: tuple[tuple[str | float, ...], ...] | None = None
    true_edges: tuple[tuple[str, str], ...] | None = None
    nodes: tuple[str, ...] | None = None

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """int32 `[T]`: ids of BOS and the words; raises ValueError for an unknown or one too many."""
        unknown = sorted(set(words) - self.encoding.keys())
        if unknown:
            raise ValueError(
                f"unknown tokens {cut(unknown)}; choose from {cut(sorted(self.encoding))}"
            )
        longest = self.model.config.context_length - 1
        if len(words) > longest:
            raise ValueError(f"{len(words)} tokens are too many: the program takes {longest}")
        return np.array([self.encoding[word] for word in (self.bos, *words)], np.int32)

    def decode(self, logits: np.ndarray) -> list[list[str | float]]:
        """Logits `[B, T, V]` to what the program says at each position; BOS stands for itself."""
        outputs = np.asarray(logits)[..., : len(self.output_directions)]
        rows: list[list[Any]]
        if self.output_encoder is None:
            rows = outputs[..., 0].tolist()
        else:
            value_of = {column: value for value, column in self.output_encoder.items()}
            rows = [[value_of[j] for j in row] for row in outputs.argmax(-1).tolist()]
        return [[self.bos, *row[1:]] for row in rows]


def array_shapes(config: TransformerConfig, num_tokens: int) -> dict[str, tuple[int, ...]]:
    """{array: shape} of a program's weights in files.

    Tokens `[V, D]` of the program's own V, positions `[T, D]`, and per layer `w_q`, `w_k`, `w_v`
    `[D, H*C]` with their biases, `w_o` `[H*C, D]`, `w_in` `[D, F]`, `w_out` `[F, D]`.
    """
    width, heads, neurons = config.d_model, config.d_attention, config.d_mlp
    shapes: dict[str, tuple[int, ...]] = {
        "token_embed": (num_tokens, width),
        "pos_embed": (config.context_length, width),
    }
    for layer in range(config.num_layers):
        for letter in "qkv":
            shapes[f"layer_{layer}/attn/w_{letter}"] = (width, heads)
            shapes[f"layer_{layer}/attn/b_{letter}"] = (heads,)
        shapes[f"layer_{layer}/attn/w_o"] = (heads, width)
        shapes[f"layer_{layer}/attn/b_o"] = (width,)
        shapes[f"layer_{layer}/mlp/w_in"] = (width, neurons)
        shapes[f"layer_{layer}/mlp/b_in"] = (neurons,)
        shapes[f"layer_{layer}/mlp/w_out"] = (neurons, width)
        shapes[f"layer_{layer}/mlp/b_out"] = (width,)
    return shapes


def check_arrays(
    where: str, arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ValueError unless the arrays are exactly those of the shapes, of finite numbers."""
    for name in sorted(shapes.keys() | arrays.keys()):
        if name not in arrays:
            raise ValueError(f"{where} lacks the array {name}, shaped {shapes[name]}")
        if name not in shapes:
            raise ValueError(
                f"{where} holds an array with no place in the program: {one_line(name)}"
            )
        if arrays[name].shape != shapes[name]:
            shape = arrays[name].shape
            raise ValueError(f"{where}: array {name} is shaped {shape}; it must be {shapes[name]}")
        if arrays[name].dtype.kind not in "fiu" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{where}: array {name} must hold finite numbers")


def make_program(
    where: str,
    name: str,
    fields: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    **recorded: Any,
) -> TracrProgram:
    """Puts a program together and checks that its parts fit.

    Args:
      where: what an error message calls the source.
      name: the model's.
      fields: `num_layers`, `num_heads`, `key_size`, `mlp_hidden_size`, `d_model`, `max_seq_len`,
        `causal`, `layer_norm`, `activation`, `encoding`, `bos`, `residual_labels`,
        `output_directions` and `output_encoder`, each of its right type.
      arrays: the weights; see `array_shapes`.
      **recorded: the fields of `TracrProgram` that have a default.

    Raises:
      ValueError: parts that do not fit, or a network that `TransformerConfig` does not express.
    """
    check_sizes(where, fields)
    encoding, encoder = dict(fields["encoding"]), fields["output_encoder"]
    labels, directions = list(fields["residual_labels"]), list(fields["output_directions"])
    if fields["layer_norm"]:
        raise ValueError(f"{where}: layer_norm is true; only programs without it are read")
    if fields["activation"] != "relu":
        raise ValueError(f"{where}: activation is {cut(fields['activation'])}; only 'relu' is read")
    if not _numbers(encoding) or fields["bos"] not in encoding:
        raise ValueError(
            f"{where}: encoding must number tokens from 0, {cut(fields['bos'])} with them"
        )
    if len(set(labels)) != len(labels) or len(labels) != fields["d_model"]:
        raise ValueError(f"{where}: residual_labels must be {fields['d_model']} different names")
    if not directions or not set(directions) <= set(labels):
        raise ValueError(
            f"{where}: output_directions {cut(directions)} are not among residual_labels"
        )
    width = len(directions)
    if (width != 1) if encoder is None else (not _numbers(encoder) or len(encoder) != width):
        raise ValueError(f"{where}: output_encoder does not number the {width} output_directions")
    try:
        config = TransformerConfig(
            num_layers=fields["num_layers"],
            d_model=fields["d_model"],
            num_heads=fields["num_heads"],
            d_head=fields["key_size"],
            d_mlp=fields["mlp_hidden_size"],
            vocab_size=max(len(encoding), width),
            context_length=fields["max_seq_len"] + 1,
            norm="none",
            activation="relu",
            causal=fields["causal"],
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    check_arrays(where, arrays, array_shapes(config, len(encoding)))
    true_edges = recorded.get("true_edges")
    provenance = {
        "imported_from": "tracr",
        "encoding": encoding,
        "bos": fields["bos"],
        "residual_labels": labels,
        "output_directions": directions,
        "output_encoder": None if encoder is None else dict(encoder),
        "true_edges": None if true_edges is None else [list(edge) for edge in true_edges],
    }
    params = _params(config, arrays, [labels.index(label) for label in directions])
    return TracrProgram(
        model=Model(name=name, config=config, params=params, provenance=provenance),
        encoding=MappingProxyType(encoding),
        bos=fields["bos"],
        residual_labels=tuple(labels),
        output_directions=tuple(directions),
        output_encoder=None if encoder is None else MappingProxyType(dict(encoder)),
        **recorded,
    )


def _numbers(encoding: Mapping[str, Any]) -> bool:
    """Whether the values are the whole numbers from 0 on, each once."""
    values = list(encoding.values())
    return all(type(v) is int for v in values) and sorted(values) == list(range(len(values)))


def _params(
    config: TransformerConfig, arrays: Mapping[str, np.ndarray], places: Sequence[int]
) -> dict[str, Any]:
    embed = np.zeros((config.vocab_size, config.d_model), np.float32)
    embed[: len(arrays["token_embed"])] = arrays["token_embed"]
    unembed = np.zeros((config.d_model, config.vocab_size), np.float32)
    unembed[list(places), range(len(places))] = 1
    layers = {
        ours: np.stack([arrays[f"layer_{i}/{name}"] for i in range(config.num_layers)])
        for name, (ours, _, _) in LAYER_ARRAYS.items()
    }
    return {
        "embed": embed,
        "positions": arrays["pos_embed"].astype(np.float32),
        "layers": {ours: value.astype(np.float32) for ours, value in layers.items()},
        "unembed": unembed,
    }
