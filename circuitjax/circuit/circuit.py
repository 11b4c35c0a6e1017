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
from circuitjax.model.record import Model
from circuitjax.model.sites import kept_addresses, shapes

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
    """

    model_name: str
    model_hash: str
    config: TransformerConfig
    mask: Mapping[str, np.ndarray]
    fills: Mapping[str, np.ndarray]
    scale: float = 1.0
    shift: float = 0.0
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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

    def edges(self, model: Model) -> list[tuple[str, str, float]]:
        """(source address, target address, weight) of every edge; see `graph.edge_list`.

        Raises:
          ValueError: another model's.
        """
        self.check_model(model)
        return edge_list(self.config, model.params, self.mask)

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
        save_arrays(root / "arrays", {"mask": dict(self.mask), "fills": dict(self.fills)})
        record = {
            "format": FORMAT,
            "model": {"name": self.model_name, "hash": self.model_hash},
            "config": self.config.to_dict(),
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
        arrays = load_arrays(
            root / "arrays",
            {
                name: {
                    site: jax.ShapeDtypeStruct(shape, dtype)
                    for site, shape in shapes(config).items()
                }
                for name, dtype in (("mask", np.bool_), ("fills", np.float32))
            },
        )
        circuit = cls(config=config, mask=arrays["mask"], fills=arrays["fills"], **fields)
        if circuit._arrays_hash() != arrays_hash:
            raise ValueError(f"{root} is damaged: its arrays are not those circuit.json speaks of")
        return circuit

    def _arrays_hash(self) -> str:
        """sha256 of masks and fills."""
        digest = hashlib.sha256()
        for site in SITES:
            digest.update(np.ascontiguousarray(self.mask[site]).tobytes())
            digest.update(np.ascontiguousarray(self.fills[site]).tobytes())
        return digest.hexdigest()
