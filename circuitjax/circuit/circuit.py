"""The circuit as a value: which nodes, what replaces the others, how its answer is calibrated.

On disk a circuit is a directory: its arrays (an Orbax checkpoint) and `circuit.json`, which names
every node and every edge for people. A circuit never holds the model: it names it by content hash
and refuses another.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.graph import check_mask, count_outer_weights, edge_list, total_edges
from circuitjax.core.checkpoints import load_arrays, save_arrays, write_json
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.sites import kept_addresses, shapes
from circuitjax.model.transformer import Params
from circuitjax.prune.weight_gates import close_weights

__all__ = ["FORMAT", "Circuit"]

FORMAT = "circuitjax-circuit-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Circuit:
    """A circuit of one model for one task.

    Attributes:
      model_name: for people; the hash decides.
      model_hash: content hash of the model it is a part of.
      config: the model's description.
      mask: {site: bool `[L, W]`}, the kept nodes.
      fills: {site: float32 `[L, W]`}, the values that closed nodes hold.
      scale, shift: calibration. The calibrated logit difference of a pair's positive and negative
        completion is scale * (l_pos - l_neg) + shift; scale > 0, logits in nats.
      provenance: JSON-able facts: task, seeds of the splits, config, hyperparameters, versions.
      weights: {family name: bool `[L, in, out]`}, the open weights; every other one contributes its
        mean, weight times the fill of its source. None: all are open.
    """

    model_name: str
    model_hash: str
    config: TransformerConfig
    mask: Mapping[str, np.ndarray]
    fills: Mapping[str, np.ndarray]
    scale: float = 1.0
    shift: float = 0.0
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", check_mask(self.config, self.mask))
        fills = {}
        for site, shape in shapes(self.config).items():
            found = np.shape(self.fills[site]) if site in self.fills else None
            if found != shape:
                raise ValueError(f"the fills of {site} are shaped {found}; they must be {shape}")
            fills[site] = np.asarray(self.fills[site], np.float32)
            if not np.all(np.isfinite(fills[site])):
                raise ValueError(f"the fills of {site} are not all finite")
        object.__setattr__(self, "fills", fills)
        if self.weights is not None:
            object.__setattr__(self, "weights", _check_weights(self.config, self.weights))
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "shift", float(self.shift))
        if not (0 < self.scale < math.inf and math.isfinite(self.shift)):
            raise ValueError(
                f"the calibration is scale {self.scale}, shift {self.shift}; scale must be above 0 "
                "and both finite"
            )

    @property
    def nodes(self) -> list[str]:
        """Addresses of the kept nodes, layer by layer in forward order."""
        return kept_addresses(self.config, self.mask)

    @property
    def num_nodes(self) -> int:
        """N of the circuit."""
        return sum(int(kept.sum()) for kept in self.mask.values())

    @property
    def content_hash(self) -> str:
        """Hash of the model, the arrays and the calibration: equal circuits have equal ones."""
        text = f"{self.model_hash} {self._arrays_hash()} {self.scale!r} {self.shift!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def gates(self) -> dict[str, jax.Array]:
        """{site: float32 `[L, W]`} of 0s and 1s, as `transformer.apply` takes them."""
        return {site: jnp.asarray(self.mask[site], jnp.float32) for site in SITES}

    def check_model(self, model: Model) -> None:
        """Refuses any model but the circuit's own.

        Raises:
          ValueError: another content hash; both are named.
        """
        if model.hash != self.model_hash:
            raise ValueError(
                f"this circuit is of model {self.model_name!r} with hash {self.model_hash}, not of "
                f"{model.name!r} with hash {model.hash}: load the model it was found in"
            )

    def gated(self, model: Model) -> tuple[TransformerConfig, Params]:
        """Configuration and parameters to run with the circuit's gates and fills.

        They are the model's own unless single weights are closed: those are zero there, and their
        means are in biases.

        Raises:
          ValueError: another model's.
        """
        self.check_model(model)
        if self.weights is None:
            return model.config, model.params
        return close_weights(self.config, model.params, self.fills, self.weights)

    def edges(self, model: Model) -> list[tuple[str, str, float]]:
        """(source address, target address, weight) of every edge; see `graph.edge_list`.

        Raises:
          ValueError: another model's.
        """
        return edge_list(*self.gated(model), self.mask)

    def save(self, directory: str | os.PathLike[str], model: Model) -> None:
        """Writes a circuit directory; `circuit.json` last and atomically.

        Args:
          directory: made if need be; a circuit there is replaced.
          model: the circuit's own, for the weights of its edges.

        Raises:
          ValueError: another model's.
        """
        edges = self.edges(model)
        root = pathlib.Path(directory)
        # Without its record a half-replaced directory is no circuit.
        (root / "circuit.json").unlink(missing_ok=True)
        arrays = {"mask": dict(self.mask), "fills": dict(self.fills)}
        if self.weights is not None:
            arrays["weights"] = dict(self.weights)
        save_arrays(root / "arrays", arrays)
        record = {
            "format": FORMAT,
            "model": {"name": self.model_name, "hash": self.model_hash},
            "config": self.config.to_dict(),
            "has_weights": self.weights is not None,
            "calibration": {"scale": self.scale, "shift": self.shift},
            "counts": {
                "nodes": self.num_nodes,
                "of_nodes": self.config.num_nodes,
                "edges": len(edges),
                "of_edges": total_edges(self.config, model.params),
                "outer_weights": count_outer_weights(self.config, model.params, self.mask),
            },
            "provenance": dict(self.provenance),
            "arrays_hash": self._arrays_hash(),
            "nodes": self.nodes,
            "edges": [list(edge) for edge in edges],
        }
        write_json(root / "circuit.json", record)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Circuit":
        """Reads a circuit directory.

        Raises:
          ValueError: no circuit there, a foreign or truncated one, or arrays that are not those of
            its record: one line.
        """
        root = pathlib.Path(directory)
        try:
            record = json.loads((root / "circuit.json").read_text(encoding="utf-8"))
            if record.get("format") != FORMAT:
                raise ValueError(f"its format is {record.get('format')!r}, not {FORMAT!r}")
            config = TransformerConfig.from_dict(record["config"])
            model, calibration = record["model"], record["calibration"]
            arrays_hash = record["arrays_hash"]
            fields = {
                "model_name": model["name"],
                "model_hash": model["hash"],
                "scale": calibration["scale"],
                "shift": calibration["shift"],
                "provenance": record["provenance"],
            }
        except KeyError as error:
            raise ValueError(f"{root} holds no readable circuit: it lacks {error}") from error
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{root} holds no readable circuit: {error}") from error
        like: dict[str, Any] = {
            name: {
                site: jax.ShapeDtypeStruct(shape, dtype) for site, shape in shapes(config).items()
            }
            for name, dtype in (("mask", np.bool_), ("fills", np.float32))
        }
        if record.get("has_weights"):
            like["weights"] = {
                family.name: jax.ShapeDtypeStruct(family.shape(config), np.bool_)
                for family in FAMILIES
            }
        circuit = cls(config=config, **load_arrays(root / "arrays", like), **fields)
        if circuit._arrays_hash() != arrays_hash:
            raise ValueError(f"{root} is damaged: its arrays are not those circuit.json speaks of")
        return circuit

    def _arrays_hash(self) -> str:
        """sha256 of masks, fills and, where there are any, weights."""
        digest = hashlib.sha256()
        for site in SITES:
            digest.update(np.ascontiguousarray(self.mask[site]).tobytes())
            digest.update(np.ascontiguousarray(self.fills[site]).tobytes())
        if self.weights is not None:
            for family in FAMILIES:
                digest.update(np.packbits(self.weights[family.name]).tobytes())
        return digest.hexdigest()


def _check_weights(
    config: TransformerConfig, weights: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    names = [family.name for family in FAMILIES]
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"the weights have an unknown family {unknown[0]!r}; choose from {names}")
    checked = {}
    for family in FAMILIES:
        name, shape = family.name, family.shape(config)
        found = np.shape(weights[name]) if name in weights else None
        if found != shape:
            raise ValueError(f"the weights of {name} are shaped {found}; this model's are {shape}")
        checked[name] = np.asarray(weights[name], bool)
    return checked
