"""A checkpoint's config.json, field by field: each is read as what it must be, or refused by name.

What a file leaves out is as the reference library fills it in: the defaults stand in each family's file.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, cast

from circuitjax.core.files import cut
from circuitjax.core.records import is_number
from circuitjax.importers.jsonfile import read_object
from circuitjax.model.bounds import check_sizes
from circuitjax.model.rotary import Rotary

__all__ = ["Activation", "Fields"]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields of one config.

    Attributes:
      path: of the file, for messages.
      values: the JSON object.
    """

    path: pathlib.Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: pathlib.Path) -> "Fields":
        """Of a file; a ValueError names it if it holds no JSON object."""
        return cls(path, read_object(path))

    def refuse(self, field: str, what: str) -> ValueError:
        """The error to raise about a field."""
        return ValueError(f"{self.path}: {field} is {cut(self.values.get(field))}; {what}")

    def size(self, field: str, default: int | None = None) -> int:
        """A whole number above 0, no larger than any network's; null is as good as absent."""
        value = self.values.get(field)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise self.refuse(field, "it must be a whole number above 0")
        check_sizes(str(self.path), {field: value}, layers=field if "layer" in field else "")
        return value

    def number(self, field: str, default: float) -> float:
        """A finite number above 0."""
        value = self.values.get(field, default)
        if not is_number(value) or not value > 0:
            raise self.refuse(field, "it must be above 0")
        return float(value)

    def optional(self, field: str, default: float | None = None) -> float | None:
        """A finite number above 0, or None where the file says null."""
        if self.values.get(field, default) is None:
            return None
        return self.number(field, 0.0 if default is None else default)

    def flag(self, field: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(field, default)
        if type(value) is not bool:
            raise self.refuse(field, "it must be true or false")
        return value

    def activation(self, field: str, default: str) -> Activation:
        """The nonlinearity by our name."""
        value = self.values.get(field, default)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise self.refuse(field, f"choose one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def require(self, only: Mapping[str, Any]) -> None:
        """Refuses fields that change the function in a way we have not, by their only good value."""
        for field, value in only.items():
            if self.values.get(field, value) != value:
                raise self.refuse(field, f"only {value!r} is supported")

    def heads(self, query: int, default: int | None) -> int | None:
        """`num_key_value_heads`, or None where each query head has its own."""
        if self.values.get("num_key_value_heads", default) is None:
            return None
        shared = self.size("num_key_value_heads", default)
        if query % shared:
            raise self.refuse("num_key_value_heads", f"it must divide num_attention_heads, {query}")
        return None if shared == query else shared

    def head_width(self, width: int, heads: int, default: int | None = None) -> int:
        """`head_dim`, or what the model's width leaves for each head."""
        if self.values.get("head_dim", default) is not None:
            return self.size("head_dim", default)
        if width % heads:
            raise ValueError(
                f"{self.path}: hidden_size is {width}; num_attention_heads, {heads}, must divide it"
            )
        return width // heads

    def windows(self, layers: int, size: int | None, types: list[str]) -> tuple[int, ...]:
        """The window of each layer, of `layer_types` or else of `types`; empty if none has one."""
        chosen = self.values.get("layer_types")
        chosen = types if chosen is None else chosen
        known = ("full_attention", "sliding_attention")
        fits = isinstance(chosen, list) and len(chosen) == layers
        if not fits or not all(kind in known for kind in chosen):
            raise self.refuse("layer_types", f"it must hold one of {known} for each layer")
        if "sliding_attention" not in chosen:
            return ()
        if size is None:
            raise self.refuse("sliding_window", "layers of sliding_attention need a number")
        return tuple(size if kind == "sliding_attention" else 0 for kind in chosen)

    def rotary(
        self,
        width: int,
        base: float = 10_000.0,
        base_field: str = "rope_theta",
        part: float = 1.0,
        part_field: str = "partial_rotary_factor",
    ) -> Rotary:
        """Rotary positions of heads so wide.

        Both forms are read: `rope_parameters`, and the older `rope_theta` beside `rope_scaling`.

        Args:
          width: channels of a head.
          base, part: what is filled in for the base, and for the share of channels that turn.
          base_field, part_field: what these are called beside `rope_scaling`.
        """
        found = self.values.get("rope_scaling") or self.values.get("rope_parameters") or {}
        if not isinstance(found, dict):
            raise self.refuse("rope_parameters", "it must be an object")
        rope = Fields(self.path, found)
        outer = self.number(base_field, base)
        share = self.number(part_field, part)
        if share > 1:
            raise self.refuse(part_field, "it must be at most 1")
        return rope._rotary(width, rope.number("rope_theta", outer), share, self)

    def _rotary(self, width: int, base: float, share: float, outer: "Fields") -> Rotary:
        """Of the rope's own fields."""
        share = self.number("partial_rotary_factor", share)
        if share > 1:
            raise self.refuse("partial_rotary_factor", "it must be at most 1")
        dims = int(width * share)
        kind = self.values.get("rope_type", self.values.get("type", "default"))
        if kind in (None, "default"):
            return Rotary(dims, base)
        if kind not in ("linear", "llama3"):
            raise ValueError(
                f"{self.path}: rope_type is {cut(kind)}; choose one of default, linear, llama3"
            )
        factor = self.number("factor", 0.0)
        if kind == "linear":
            return Rotary(dims, base, "linear", factor)
        context = self.values.get("original_max_position_embeddings")
        return Rotary(
            dims,
            base,
            "llama3",
            factor,
            low_freq_factor=self.number("low_freq_factor", 0.0),
            high_freq_factor=self.number("high_freq_factor", 0.0),
            original_context=outer.size("max_position_embeddings")
            if context is None
            else self.size("original_max_position_embeddings"),
        )

    def inner(self, field: str, key: str) -> "Fields":
        """The object at `key` of the object at `field`; empty where there is none."""
        whole = self.values.get(field) or {}
        value = whole.get(key) or {} if isinstance(whole, dict) else None
        if not isinstance(value, dict):
            raise self.refuse(field, f"its {key} must be an object")
        return Fields(self.path, cast(Mapping[str, Any], value))
