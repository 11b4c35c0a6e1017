"""What a family's file says of itself, and how its tensors become our parameters.

A family is a description of its config (`describe`) and two tables of tensors (`shared`, `layer`):
each stored tensor's shape, and which of our arrays come of it. Tensors are read one at a time into
arrays that hold all layers, so the most memory taken is that of the model and one tensor.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from circuitjax.importers.fields import Fields
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import init_params

__all__ = ["Family", "Stored", "Tensors", "Weights", "matrix", "read_params", "same", "vector"]

Convert = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: its shape, and {our array: how it comes of the tensor}."""

    shape: tuple[int, ...]
    parts: Mapping[str, Convert]


Tensors = Mapping[str, Stored]


@dataclasses.dataclass(frozen=True)
class Family:
    """One model type.

    Attributes:
      model_type: as config.json has it.
      describe: the description; raises ValueError for what is not expressed exactly.
      shared: {tensor: what it is} outside layers, without `prefix`; the unembedding too, tied or not.
      layer: {tensor: what it is} of a layer; from the config too, since it says which biases there are.
      layers: what precedes a layer's number, such as `layers.`.
      prefix: what precedes all names but the head's, if the checkpoint has a head.
      embed, head: names of the token embedding and of the unembedding.
      buffers: a pattern of tensors that are no parameters.
    """

    model_type: str
    describe: Callable[[Fields], TransformerConfig]
    shared: Callable[[TransformerConfig], Tensors]
    layer: Callable[[Fields, TransformerConfig], Tensors]
    layers: str
    prefix: str
    embed: str
    head: str
    buffers: str = r".*rotary_emb\.inv_freq"

    def tensors(
        self, fields: Fields, config: TransformerConfig
    ) -> Iterator[tuple[str, Stored, int | None]]:
        """(name without prefix, what it is, its layer or None) of everything."""
        for name, stored in self.shared(config).items():
            yield name, stored, None
        table = self.layer(fields, config)
        for number in range(config.num_layers):
            for name, stored in table.items():
                yield f"{self.layers}{number}.{name}", stored, number


class Weights(Protocol):
    """Tensors of a checkpoint, read one at a time.

    Attributes:
      path: for messages.
    """

    path: pathlib.Path

    def names(self) -> list[str]:
        """The tensors' names, as stored."""

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""

    def read(self, name: str) -> np.ndarray:
        """A tensor as finite float32 numbers, else a ValueError of one line."""


def same(value: np.ndarray) -> np.ndarray:
    """The tensor as it is."""
    return value


def transposed(value: np.ndarray) -> np.ndarray:
    """The tensor's transpose: stored matrices are `[out, in]`, ours `[in, out]`."""
    return value.T


def matrix(ours: str, outputs: int, inputs: int) -> Stored:
    """A matrix stored `[out, in]`."""
    return Stored((outputs, inputs), {ours: transposed})


def vector(ours: str, width: int, convert: Convert = same) -> Stored:
    """A bias or scale."""
    return Stored((width,), {ours: convert})


def read_params(
    family: Family, fields: Fields, config: TransformerConfig, weights: Weights
) -> dict[str, Any]:
    """Our parameters, from a checkpoint.

    A bias that a family lacks on some maps alone is zero.

    Raises:
      ValueError: a tensor that is missing, one too many, misshapen, or not as another that it is
        tied to: one line that names it.
    """
    wanted = {name: (stored, layer) for name, stored, layer in family.tensors(fields, config)}
    found = _plain_names(family, weights)
    tied = config.tied_unembedding
    head = family.head
    table = wanted[family.embed][0]
    if tied:
        if head in found and family.embed in found:
            _check_shape(weights, found[head], table.shape)
            if not np.array_equal(weights.read(found[head]), weights.read(found[family.embed])):
                raise ValueError(
                    f"{weights.path}: {head} is not {family.embed}, to which tie_word_embeddings ties "
                    "it: set that field false to use it"
                )
            del found[head]
        elif head in found:  # a tied weight, under the other of its names
            found[family.embed] = found.pop(head)
    _compare(weights.path, wanted, found)
    for plain, (stored, _) in wanted.items():
        _check_shape(weights, found[plain], stored.shape)

    abstract = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    params: dict[str, Any] = {k: None for k in abstract if k != "layers"}
    stack = {name: np.zeros(like.shape, np.float32) for name, like in abstract["layers"].items()}
    for plain, (stored, layer) in wanted.items():
        value = weights.read(found[plain])
        for ours, convert in stored.parts.items():
            if layer is None:
                params[ours] = np.ascontiguousarray(convert(value), np.float32)
            else:
                stack[ours][layer] = convert(value)
    return params | {"layers": stack}


def _plain_names(family: Family, weights: Weights) -> dict[str, str]:
    """{name without prefix: name as stored}, buffers left out."""
    found: dict[str, str] = {}
    for full in weights.names():
        plain = full.removeprefix(family.prefix)
        if plain in found:
            raise ValueError(f"{weights.path} holds both {full} and {found[plain]}: keep one")
        if not re.fullmatch(family.buffers, plain):
            found[plain] = full
    return found


def _check_shape(weights: Weights, full: str, shape: tuple[int, ...]) -> None:
    if weights.shape(full) != shape:
        raise ValueError(
            f"{weights.path}: tensor {full} is shaped {weights.shape(full)}, the config asks for "
            f"{shape}"
        )


def _compare(path: pathlib.Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for names, what in (
        (sorted(wanted.keys() - found.keys()), "lacks the tensor"),
        (sorted(found.keys() - wanted.keys()), "holds a tensor this config has no place for:"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(f"{path} {what} {names[0]}{more}")
