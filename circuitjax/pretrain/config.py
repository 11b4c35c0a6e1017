"""Static configuration of a pretraining run."""

import dataclasses
from typing import Any

from circuitjax.core.files import cut
from circuitjax.core.records import check_types
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import read_config

__all__ = ["PretrainConfig"]

_MOST_STEPS = 10**9  # they are counted in 32 bits
_MOST_ROWS = 2**20  # all of them are made room for at once


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """One run: the same config, corpus and machine give the same model.

    Attributes:
      model: the transformer.
      steps: optimiser steps.
      batch_size: rows per step, over all devices.
      length: tokens per row that are predicted.
      density: final fraction of nonzero entries in every matrix; 1 trains a dense model.
      anneal_fraction: share of the steps over which the density falls from 1.
      min_per_neuron: entries each neuron or channel keeps at least; 0 for none.
      learning_rate: peak, before the 1/sqrt(density) factor.
      warmup_fraction: share of the steps with a rising rate.
      weight_decay: decoupled, on the sparse matrices.
      b1, b2, eps: Adam's.
      normalise_gradient: scale the gradient to RMS 1 always (False: only when it is above 1).
      idiom_fraction: share of the rows drawn from the idiom generator's documents.
      bigram_smoothing: weight of the unigram prior in the fixed bigram table, in counts.
      seed: of parameters and of the order of the data.
      eval_every, checkpoint_every: in steps.
      eval_rows: rows of each held-out stream.
    """

    model: TransformerConfig
    steps: int = 3000
    batch_size: int = 64
    length: int = 128
    density: float = 1 / 16
    anneal_fraction: float = 0.5
    min_per_neuron: int = 0
    learning_rate: float = 3e-3
    warmup_fraction: float = 0.01
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-3
    normalise_gradient: bool = True
    idiom_fraction: float = 0.75
    bigram_smoothing: float = 1.0
    seed: int = 0
    eval_every: int = 200
    checkpoint_every: int = 200
    eval_rows: int = 128

    def __post_init__(self) -> None:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        check_types(type(self), own, "the pretraining config")
        steps, rows = (
            ("steps", "eval_every", "checkpoint_every"),
            ("batch_size", "length", "eval_rows"),
        )
        for names, most in ((steps, _MOST_STEPS), (rows, _MOST_ROWS)):
            for name in names:
                if not 1 <= getattr(self, name) <= most:
                    raise ValueError(
                        f"{name} is {cut(getattr(self, name))}; it must be from 1 to {most}"
                    )
        if not 0 < self.density <= 1:
            raise ValueError(f"density is {self.density}; it must be in (0, 1]")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1)")
        for name in ("weight_decay", "min_per_neuron", "bigram_smoothing", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("anneal_fraction", "warmup_fraction", "idiom_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("learning_rate", "eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in (0, inf)")
        if self.length > self.model.context_length:
            raise ValueError(
                f"length is {self.length}, above the model's context of {self.model.context_length}"
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "PretrainConfig":
        """Builds a config; a field unknown or of the wrong type is a ValueError that names it."""
        if not isinstance(fields, dict) or not isinstance(fields.get("model"), dict):
            raise ValueError("a pretraining config is an object whose field `model` is one too")
        unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"pretraining config has unknown fields {cut(unknown)}")
        model = read_config("the config's model", fields["model"])
        return cls(**{**fields, "model": model})
