"""A small compiler of programs to weights, in the layout that `importers/tracr.py` reads.

A program is a list of steps over variables. A variable has a few values, each a residual direction
that is 1 where the variable has the value; where it has none all are 0.

    select    out[i] = value[j] at the position j that a predicate of (query[i], key[j]) selects; none
              where it selects no position, for then the head looks at BOS, which has no values
    count     out[i] = number of positions that the predicate selects, as 1 / (1 + count)
    compute   out[i] = function of up to three variables at i, a neuron per combination of values

Attention scores are 100 and 0, BOS scores 50 (100 where positions are counted): a softmax is then a
choice to within e^-50. Thresholds of neurons are read off the direction `one`, which every token has. So
each step reads and writes known directions, as in compiled RASP (Lindner et al. 2023, "Tracr"); the code
here shares nothing with that compiler.

Axis letters: V tokens, T positions with BOS, D directions, H heads, C channels per head, F neurons.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from circuitjax.core.files import write_bytes
from circuitjax.importers.tracr_program import TracrProgram, make_program

__all__ = ["BOS", "Compiler", "Source", "Variable", "run_numpy", "write_source"]

BOS = "BOS"
_SCORE = 100.0  # of a selected position; BOS has half of it
_STEEP = 1000.0  # slope of a threshold of a count
Value = str | None


@dataclasses.dataclass(frozen=True)
class Variable:
    """Values and the residual direction of each; `places` are its rows of the stream."""

    name: str
    values: tuple[str, ...]
    places: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A compiled program as its two files hold it: everything of the JSON, and the arrays."""

    fields: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def program(self) -> TracrProgram:
        """As `importers.tracr.load_tracr` reads it from its files."""
        weights = {k: v for k, v in self.arrays.items() if k not in ("tokens", "final_residual")}
        return make_program(
            f"program {self.fields['name']!r}",
            self.fields["name"],
            self.fields,
            weights,
            inputs=self.arrays["tokens"],
            final_residual=self.arrays["final_residual"],
            decoded=tuple(tuple(row) for row in self.fields["decoded"]),
            true_edges=tuple((writer, reader) for writer, reader in self.fields["true_edges"]),
            nodes=tuple(self.fields["nodes"]),
        )


class Compiler:
    """What a program is written with: steps in any order, each in a layer that is given."""

    def __init__(self, name: str, words: Sequence[str], length: int, layers: int, heads: int = 1):
        """Takes the input words, the longest input in words, and the size of the network."""
        self.name, self.words, self.length = name, tuple(words), length
        self.layers, self.heads = layers, heads
        self.labels: list[str] = []
        self.one = self._direction("one")
        self.bos = self._direction(f"tokens:{BOS}")
        self.tokens = self.variable("tokens", self.words)
        self.places = self.variable("indices", [str(i) for i in range(length)])
        # Entries (row, column, value) of each matrix; columns of heads count from their own first.
        self._entries: dict[str, list[tuple[int, int, float]]] = {}
        self._neurons = [0] * layers
        self._reads: dict[str, set[int]] = {}
        self._writes: dict[str, set[int]] = {
            "embed": set(self.tokens.places),
            "pos": set(self.places.places),
        }

    def _direction(self, label: str) -> int:
        self.labels.append(label)
        return len(self.labels) - 1

    def variable(self, name: str, values: Sequence[str]) -> Variable:
        """A variable that no step has written yet: several may write to it."""
        places = tuple(self._direction(f"{name}:{value}") for value in values)
        return Variable(name, tuple(values), places)

    def _put(self, array: str, row: int, column: int, value: float) -> None:
        self._entries.setdefault(array, []).append((row, column, value))

    def _note(self, writer: str, writes: Sequence[int], reads: dict[str, Sequence[int]]) -> None:
        self._writes.setdefault(writer, set()).update(writes)
        for reader, places in reads.items():
            self._reads.setdefault(reader, set()).update(set(places) - {self.one, self.bos})

    def _attend(
        self,
        at: tuple[int, int],
        query: Variable,
        key: Variable,
        where: Callable[[str, str], bool],
        bos: float,
    ) -> None:
        layer, head = at
        own = len(query.values)  # BOS, which has no value, looks at itself
        self._put(f"{layer}.{head}.w_q", self.bos, own, 1.0)
        self._put(f"{layer}.{head}.w_k", self.bos, own, _SCORE)
        for c, (asked, place) in enumerate(zip(query.values, query.places, strict=True)):
            self._put(f"{layer}.{head}.w_q", place, c, 1.0)
            self._put(f"{layer}.{head}.w_k", self.bos, c, bos)
            for found, row in zip(key.values, key.places, strict=True):
                if where(asked, found):
                    self._put(f"{layer}.{head}.w_k", row, c, _SCORE)

    def select(
        self,
        at: tuple[int, int],
        query: Variable,
        key: Variable,
        where: Callable[[str, str], bool],
        value: Variable,
        name: str = "",
        into: Variable | None = None,
        scale: float = 1.0,
    ) -> Variable:
        """The value at the position selected; see the module docstring.

        Args:
          at: layer and head.
          query, key: compared by `where` (query's value, key's value).
          value: what is moved.
          name: of the result.
          into: a variable with the same values to write to instead.
          scale: what is written in a value's direction.
        """
        layer, head = at
        out = into or self.variable(name, value.values)
        self._attend(at, query, key, where, _SCORE / 2)
        for c, (source, target) in enumerate(zip(value.places, out.places, strict=True)):
            self._put(f"{layer}.{head}.w_v", source, c, 1.0)
            self._put(f"{layer}.{head}.w_o", c, target, scale)
        self._note(
            f"a{layer}.h{head}",
            out.places,
            {
                f"a{layer}.h{head}<q>": query.places,
                f"a{layer}.h{head}<k>": key.places,
                f"a{layer}.h{head}<v>": value.places,
            },
        )
        return out

    def count(
        self,
        at: tuple[int, int],
        query: Variable,
        key: Variable,
        where: Callable[[str, str], bool],
        name: str,
    ) -> Variable:
        """How many positions are selected: a head measures, the layer's MLP reads the measure."""
        layer, head = at
        measure = self._direction(f"{name}_share")
        self._attend(at, query, key, where, _SCORE)
        self._put(f"{layer}.{head}.w_v", self.bos, 0, 1.0)
        self._put(f"{layer}.{head}.w_o", 0, measure, 1.0)
        out = self.variable(name, [str(n) for n in range(self.length + 1)])
        shares = 1 / (1 + np.arange(self.length + 1))
        # Value n holds above its lower border and not above its upper one; shares fall with n.
        borders = (shares[:-1] + shares[1:]) / 2
        for n, border in enumerate(borders):
            for offset, sign in ((0.0, 1.0), (1.0, -1.0)):
                neuron = self._neuron(layer, {measure: _STEEP, self.one: -_STEEP * border - offset})
                self._put(f"{layer}.w_out", neuron, out.places[n], sign)
                self._put(f"{layer}.w_out", neuron, out.places[n + 1], -sign)
        last = self._neuron(layer, {self.one: 1.0})
        self._put(f"{layer}.w_out", last, out.places[-1], 1.0)
        self._note(
            f"a{layer}.h{head}",
            [measure],
            {f"a{layer}.h{head}<q>": query.places, f"a{layer}.h{head}<k>": key.places},
        )
        self._note(f"m{layer}", out.places, {f"m{layer}<in>": [measure]})
        return out

    def compute(
        self,
        layer: int,
        inputs: Sequence[Variable],
        function: Callable[..., Value],
        values: Sequence[str] = (),
        name: str = "",
        into: Variable | None = None,
        unless: Variable | None = None,
    ) -> Variable:
        """A function of the values of up to three variables, None standing for none; see `select`.

        Where `unless` has a value nothing is written.
        """
        out = into or self.variable(name, values)
        column = dict(zip(out.values, out.places, strict=True))
        choices = [[*zip(v.values, v.places, strict=True), (None, None)] for v in inputs]
        for combination in itertools.product(*choices):
            said = function(*(value for value, _ in combination))
            if said is None:
                continue
            rows = {place: 1.0 for _, place in combination if place is not None}
            if unless is not None:
                rows |= dict.fromkeys(unless.places, -1.0)
            absent = [v for v, (value, _) in zip(inputs, combination, strict=True) if value is None]
            rows |= {place: -1.0 for v in absent for place in v.places}
            if (present := len(inputs) - len(absent)) != 1:
                rows[self.one] = 1.0 - present
            self._put(f"{layer}.w_out", self._neuron(layer, rows), column[said], 1.0)
        reads = [place for v in (*inputs, *([unless] if unless else [])) for place in v.places]
        self._note(f"m{layer}", out.places, {f"m{layer}<in>": reads})
        return out

    def _neuron(self, layer: int, rows: dict[int, float]) -> int:
        number = self._neurons[layer]
        self._neurons[layer] += 1
        for place, weight in rows.items():
            self._put(f"{layer}.w_in", place, number, weight)
        return number

    def finish(self, output: Variable, inputs: Sequence[Sequence[str]]) -> Source:
        """The two files' contents, with the inputs `[B][T - 1]` of words recorded.

        Raises:
          ValueError: an input with a word that the program does not know.
        """
        unknown = sorted({word for row in inputs for word in row} - set(self.words))
        if unknown:
            raise ValueError(
                f"program {self.name!r} knows no word {unknown[0]!r}; its words are "
                f"{', '.join(self.words)}"
            )
        arrays, key_size = self._arrays()
        encoding = {word: i for i, word in enumerate((*self.words, BOS))}
        readers = {**self._reads, "logits": set(output.places)}
        order = ["embed", "pos"]
        for layer in range(self.layers):
            order += [*(f"a{layer}.h{h}" for h in range(self.heads)), f"m{layer}"]
        edges = [
            [writer, reader]
            for writer in order
            for reader, places in readers.items()
            if self._writes.get(writer, set()) & places and _precedes(writer, reader)
        ]
        tokens = np.array([[encoding[word] for word in (BOS, *row)] for row in inputs], np.int32)
        fields = {
            "name": self.name,
            "num_layers": self.layers,
            "num_heads": self.heads,
            "key_size": key_size,
            "mlp_hidden_size": arrays["layer_0/mlp/w_in"].shape[1],
            "d_model": len(self.labels),
            "activation": "relu",
            "layer_norm": False,
            "causal": False,
            "attention_scale": "1/sqrt(key_size)",
            "max_seq_len": self.length,
            "vocab": list(self.words),
            "encoding": encoding,
            "bos": BOS,
            "residual_labels": self.labels,
            "output_directions": [self.labels[place] for place in output.places],
            "output_encoder": {value: i for i, value in enumerate(output.values)},
            "true_edges": edges,
            "nodes": sorted({writer for writer, _ in edges} - {"embed", "pos"}),
        }
        arrays["tokens"] = tokens
        arrays["final_residual"] = run_numpy(fields, arrays, tokens)
        said = arrays["final_residual"][..., list(output.places)].argmax(-1)
        fields["decoded"] = [[BOS, *(output.values[j] for j in row[1:])] for row in said]
        return Source(fields, arrays)

    def _arrays(self) -> tuple[dict[str, np.ndarray], int]:
        columns = [c for n, e in self._entries.items() if n.endswith("w_k") for _, c, _ in e]
        columns += [c for n, e in self._entries.items() if n.endswith("w_v") for _, c, _ in e]
        width, size = len(self.labels), max(columns, default=0) + 1
        neurons, inner = max(1, *self._neurons), self.heads * size
        embed = np.zeros((len(self.words) + 1, width), np.float32)
        embed[:, self.one] = 1.0
        embed[range(len(self.words)), list(self.tokens.places)] = 1.0
        embed[-1, self.bos] = 1.0
        positions = np.zeros((self.length + 1, width), np.float32)
        positions[range(1, self.length + 1), list(self.places.places)] = 1.0
        arrays = {"token_embed": embed, "pos_embed": positions}
        shapes = {
            **{f"attn/w_{part}": (width, inner) for part in "qkv"},
            **{f"attn/b_{part}": (inner,) for part in "qkv"},
            "attn/w_o": (inner, width),
            "attn/b_o": (width,),
            "mlp/w_in": (width, neurons),
            "mlp/b_in": (neurons,),
            "mlp/w_out": (neurons, width),
            "mlp/b_out": (width,),
        }
        for layer, (name, shape) in itertools.product(range(self.layers), shapes.items()):
            arrays[f"layer_{layer}/{name}"] = np.zeros(shape, np.float32)
        for name, entries in self._entries.items():
            number, *head, array = name.split(".")
            start = size * int(head[0]) if head else 0
            block = "attn" if head else "mlp"
            by_row = array == "w_o"
            matrix = arrays[f"layer_{number}/{block}/{array}"]
            scale = size**0.5 if array == "w_q" else 1.0
            for row, column, value in entries:
                place = (start + row, column) if by_row else (row, start + column)
                matrix[place] += np.float32(scale * value)
        return arrays, size


def _precedes(writer: str, reader: str) -> bool:
    """Whether what a block writes is there when another reads."""

    def step(name: str) -> float:
        if name in ("embed", "pos"):
            return -1.0
        if name == "logits":
            return np.inf
        layer = float(name.partition(".")[0].partition("<")[0][1:])
        return layer + (0.5 if name[0] == "m" else 0.0)

    return step(writer) < step(reader)


def run_numpy(
    fields: dict[str, Any], arrays: dict[str, np.ndarray], tokens: np.ndarray
) -> np.ndarray:
    """The residual stream float32 `[B, T, D]` after the last layer, of ids `[B, T]`, in plain NumPy."""
    heads, size = fields["num_heads"], fields["key_size"]
    x = arrays["token_embed"][tokens] + arrays["pos_embed"][None, : tokens.shape[1]]
    for layer in range(fields["num_layers"]):
        own = {
            name: arrays[f"layer_{layer}/{name}"]
            for name in ("attn/w_q", "attn/w_k", "attn/w_v", "attn/w_o", "mlp/w_in", "mlp/w_out")
        }
        q, k, v = (
            (x @ own[f"attn/w_{part}"]).reshape(*x.shape[:2], heads, size).swapaxes(1, 2)
            for part in "qkv"
        )
        scores = q @ k.swapaxes(2, 3) / size**0.5
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
        x = x + mixed.swapaxes(1, 2).reshape(*x.shape[:2], -1) @ own["attn/w_o"]
        x = x + np.maximum(x @ own["mlp/w_in"], 0) @ own["mlp/w_out"]
    return np.asarray(x, np.float32)


def write_source(source: Source, stem: str | os.PathLike[str]) -> pathlib.Path:
    """Writes STEM.npz and STEM.json; returns the path of the first."""
    stem = pathlib.Path(stem)
    path = stem.with_name(f"{stem.name}.npz")
    write_bytes(stem.with_name(f"{stem.name}.json"), f"{json.dumps(source.fields)}\n".encode())
    np.savez_compressed(path, **source.arrays)  # type: ignore[arg-type]
    return path
