"""A circuit of residual edges as a value: which edges, what the closed ones carry, its calibration.

On disk: its arrays (an Orbax checkpoint) and `circuit.json`, which names every edge for people.
Like a node circuit it names its model by content hash and refuses another.
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

from circuitjax.core.checkpoints import load_arrays, save_arrays, write_json
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph, run_writers

__all__ = ["FORMAT", "EdgeCircuit", "flatten_writers", "unflatten_writers"]

FORMAT = "circuitjax-edge-circuit-1"


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeCircuit:
    """A set of residual edges of one model for one task.

    Attributes:
      model_name: for people; the hash decides.
      model_hash: content hash of the model it is a part of.
      config: the model's description.
      kept: bool `[E]` in the order of `residual_graph(config).edges`.
      ablation: `interchange` (closed edges carry the corrupted run's value), `mean` or `zero`.
      fixed: float32 `[W, D]` what the writers are replaced by under mean or zero ablation, else None.
      scale, shift: calibration of the logit difference of a pair; 1 and 0 without.
      provenance: JSON-able facts: task, seeds, config, hyperparameters, versions.
    """

    model_name: str
    model_hash: str
    config: TransformerConfig
    kept: np.ndarray
    ablation: str
    fixed: np.ndarray | None = None
    scale: float = 1.0
    shift: float = 0.0
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = residual_graph(self.config)
        if np.shape(self.kept) != (graph.num_edges,):
            raise ValueError(
                f"the edges are shaped {np.shape(self.kept)}; this model's are ({graph.num_edges},)"
            )
        if self.ablation not in ("interchange", "mean", "zero"):
            raise ValueError(f"ablation is {self.ablation!r}; it is interchange, mean or zero")
        object.__setattr__(self, "kept", np.asarray(self.kept, bool))
        shape = (len(graph.writers), self.config.d_model)
        if self.ablation != "interchange":
            if self.fixed is None or np.shape(self.fixed) != shape:
                found = None if self.fixed is None else np.shape(self.fixed)
                raise ValueError(f"the replacements are shaped {found}; they must be {shape}")
            object.__setattr__(self, "fixed", np.asarray(self.fixed, np.float32))
        if not (0 < self.scale < math.inf and math.isfinite(self.shift)):
            raise ValueError(
                f"the calibration is scale {self.scale}, shift {self.shift}; scale must be above 0 "
                "and both finite"
            )

    @property
    def num_edges(self) -> int:
        """How many edges are kept."""
        return int(self.kept.sum())

    @property
    def nodes(self) -> list[str]:
        """Writers and readers' owners that some kept edge touches, in forward order."""
        graph = residual_graph(self.config)
        touched = {graph.writers[w] for w in graph.sources[self.kept]}
        touched |= {graph.readers[r].split("<")[0] for r in graph.targets[self.kept]}
        return [name for name in (*graph.writers, "logits") if name in touched]

    def edges(self) -> list[str]:
        """Names `writer->reader` of the kept edges."""
        names = residual_graph(self.config).names
        return [name for name, kept in zip(names, self.kept, strict=True) if kept]

    def check_model(self, model: Model) -> None:
        """Refuses any model but the circuit's own; raises ValueError naming both hashes."""
        if model.hash != self.model_hash:
            raise ValueError(
                f"this circuit is of model {self.model_name!r} with hash {self.model_hash}, not of "
                f"{model.name!r} with hash {model.hash}: load the model it was found in"
            )

    def logits(self, model: Model, clean: Any, corrupted: Any, positions: Any) -> jax.Array:
        """Logits of the circuit at positions.

        Args:
          model: the circuit's own.
          clean: int32 `[B, T]`.
          corrupted: int32 `[B, T]`; used under interchange only.
          positions: int32 `[B, P]`.

        Returns:
          float32 `[B, P, V]`, not calibrated.

        Raises:
          ValueError: another model.
        """
        self.check_model(model)
        params = jax.tree.map(jnp.asarray, dict(model.params))
        replacement = self.writers()
        if replacement is None:
            _, replacement = run_writers(self.config, params, corrupted, positions)
        gates = jnp.asarray(self.gates())
        return apply_graph(self.config, params, clean, gates, replacement, positions)

    def gates(self) -> np.ndarray:
        """float32 `[E]` of 0s and 1s; what cannot matter under interchange is open."""
        idle = residual_graph(self.config).from_positions & (self.ablation == "interchange")
        return (self.kept | idle).astype(np.float32)

    def writers(self) -> Writers | None:
        """The fixed replacements as `apply_graph` takes them; None under interchange."""
        return None if self.fixed is None else unflatten_writers(self.config, self.fixed)

    def save(self, directory: str | os.PathLike[str], model: Model) -> None:
        """Writes a circuit directory; `circuit.json` last and atomically.

        Raises:
          ValueError: another model's.
        """
        self.check_model(model)
        root = pathlib.Path(directory)
        (root / "circuit.json").unlink(missing_ok=True)
        graph = residual_graph(self.config)
        arrays = {"kept": self.kept}
        if self.fixed is not None:
            arrays["fixed"] = self.fixed
        save_arrays(root / "arrays", arrays)
        record = {
            "format": FORMAT,
            "model": {"name": self.model_name, "hash": self.model_hash},
            "config": self.config.to_dict(),
            "ablation": self.ablation,
            "calibration": {"scale": self.scale, "shift": self.shift},
            "counts": {
                "nodes": len(self.nodes),
                "of_nodes": len(graph.writers) + 1,
                "edges": self.num_edges,
                "of_edges": graph.num_edges,
                "of_position_edges": int(graph.from_positions.sum()),
            },
            "provenance": dict(self.provenance),
            "arrays_hash": self._arrays_hash(),
            "nodes": self.nodes,
            "edges": self.edges(),
        }
        write_json(root / "circuit.json", record)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "EdgeCircuit":
        """Reads a circuit directory.

        Raises:
          ValueError: no such circuit there, a foreign or truncated one, or arrays that are not those
            of its record: one line.
        """
        root = pathlib.Path(directory)
        try:
            record = json.loads((root / "circuit.json").read_text(encoding="utf-8"))
            if record.get("format") != FORMAT:
                raise ValueError(f"its format is {record.get('format')!r}, not {FORMAT!r}")
            config = TransformerConfig.from_dict(record["config"])
            fields = {
                "model_name": record["model"]["name"],
                "model_hash": record["model"]["hash"],
                "ablation": record["ablation"],
                "scale": record["calibration"]["scale"],
                "shift": record["calibration"]["shift"],
                "provenance": record["provenance"],
            }
            arrays_hash = record["arrays_hash"]
        except KeyError as error:
            raise ValueError(f"{root} holds no readable circuit: it lacks {error}") from error
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{root} holds no readable circuit: {error}") from error
        graph = residual_graph(config)
        expected = {"kept": jax.ShapeDtypeStruct((graph.num_edges,), np.bool_)}
        if fields["ablation"] != "interchange":
            shape = (len(graph.writers), config.d_model)
            expected["fixed"] = jax.ShapeDtypeStruct(shape, np.float32)
        circuit = cls(config=config, **load_arrays(root / "arrays", expected), **fields)
        if circuit._arrays_hash() != arrays_hash:
            raise ValueError(f"{root} is damaged: its arrays are not those circuit.json speaks of")
        return circuit

    def _arrays_hash(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.kept).tobytes())
        if self.fixed is not None:
            digest.update(np.ascontiguousarray(self.fixed).tobytes())
        return digest.hexdigest()


def flatten_writers(writers: Writers) -> np.ndarray:
    """Fixed replacements `[W, D]` from blocks `[., 1, 1, D]`."""
    return np.concatenate([np.asarray(block)[:, 0, 0] for block in writers.blocks()])


def unflatten_writers(config: TransformerConfig, fixed: np.ndarray) -> Writers:
    """The inverse of `flatten_writers`."""
    first = 2 if config.position == "learned" else 1
    rows = jnp.asarray(fixed)[:, None, None, :]
    step = config.num_heads + 1
    starts = range(first, len(fixed), step)
    return Writers(
        rows[:first],
        tuple(rows[start : start + step - 1] for start in starts),
        tuple(rows[start + step - 1 : start + step] for start in starts),
    )
