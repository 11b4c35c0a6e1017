"""The circuit as a value: what is open, what replaces the rest, how its answer is calibrated.

On disk a circuit is a directory: its arrays (an Orbax checkpoint) and `circuit.json`, a sealed record
that names every node and every edge for people. A circuit never holds the model: it names it by content
hash and refuses another. What differs between the grains is `gated/grains.py`.
"""

import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.record import FORMAT, CircuitRecord, read_record
from circuitjax.core.checkpoints import load_arrays, save_arrays
from circuitjax.core.files import cut, write_json
from circuitjax.core.records import seal
from circuitjax.gated import replacement
from circuitjax.gated.examples import Examples
from circuitjax.gated.grains import Grain, grain_named
from circuitjax.gated.protocol import View
from circuitjax.gated.replacement import is_per_prompt, refer
from circuitjax.model.bounds import check_tokens
from circuitjax.model.config import TransformerConfig
from circuitjax.model.graph import count_outer_weights
from circuitjax.model.record import Model, read_config

__all__ = ["Circuit", "load_circuit"]

Edge = tuple[str, str, float | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Circuit:
    """A part of one model that does one task. Make one with `Circuit.of`.

    Attributes:
      model_name: for people; the hash decides.
      model_hash: content hash of the model it is a part of.
      config: the model's description.
      grain: `nodes`, `weights` or `edges` (of the residual graph).
      opened: {name: bool arrays}, what is open: `mask` {site: `[L, W]`} of nodes, with `weights`
        {family: `[L, in, out]`} at that grain; `kept` `[E]` of residual edges.
      ablation: what the rest holds: `mean` or `zero`, constants of `held`; `resample` or `interchange`.
      held: {site: float32 `[L, W]`}, or `[W, D]` of the writers of residual edges; None if per prompt.
      links: (source, target, weight) of every edge; residual edges have no weight.
      scale, shift: calibration: the logit difference of a pair's two completions becomes
        scale * difference + shift; scale > 0, in nats.
      provenance: JSON-able facts: task, seeds, configuration, versions.
    """

    model_name: str
    model_hash: str
    config: TransformerConfig
    grain: str
    opened: Mapping[str, Any]
    ablation: str
    held: Any
    links: tuple[Edge, ...]
    scale: float = 1.0
    shift: float = 0.0
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.ablation not in replacement.ABLATIONS:
            known = ", ".join(replacement.ABLATIONS)
            raise ValueError(f"ablation is {cut(self.ablation)}; it is one of {known}")
        object.__setattr__(self, "opened", self._grain.check(self.config, self.opened))
        object.__setattr__(self, "held", _check_held(self._grain, self))
        object.__setattr__(self, "links", tuple(self.links))
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "shift", float(self.shift))
        if not (0 < self.scale < math.inf and math.isfinite(self.shift)):
            raise ValueError(
                f"the calibration is scale {self.scale}, shift {self.shift}; scale must be above 0 "
                "and both finite"
            )

    @classmethod
    def of(cls, model: Model, grain: str, opened: Mapping[str, Any], **fields: Any) -> "Circuit":
        """A circuit of a model; see the class for the other fields (`ablation`, `held`, ...).

        Raises:
          ValueError: arrays that are not shaped as this model's, an unknown grain or ablation.
        """
        fields = {"ablation": "mean", "held": None, **fields}
        checked = grain_named(grain).check(model.config, opened)
        links = grain_named(grain).edges(model.config, model.params, checked, fields["held"])
        return cls(
            model_name=model.name,
            model_hash=model.hash,
            config=model.config,
            grain=grain,
            opened=checked,
            links=tuple(links),
            **fields,
        )

    def changed(self, model: Model, opened: Mapping[str, Any], **fields: Any) -> "Circuit":
        """The same circuit with something else open, and maybe other fields.

        Raises:
          ValueError: another model's.
        """
        self.check_model(model)
        kept = ("ablation", "held", "scale", "shift", "provenance")
        return Circuit.of(
            model, self.grain, opened, **({n: getattr(self, n) for n in kept} | fields)
        )

    @property
    def _grain(self) -> Grain:
        return grain_named(self.grain)

    def nodes(self) -> list[str]:
        """Addresses of the kept nodes in forward order; of residual edges, the ends."""
        return self._grain.nodes(self.config, self.opened)

    def edges(self) -> list[Edge]:
        """(source, target, weight) of every edge; the weight is None for residual edges."""
        return list(self.links)

    @property
    def num_nodes(self) -> int:
        """How many nodes it keeps."""
        return len(self.nodes())

    @property
    def num_edges(self) -> int:
        """How many edges it has."""
        return len(self.links)

    @property
    def content_hash(self) -> str:
        """Hash of the model, the arrays and the calibration: equal circuits have equal ones."""
        text = f"{self.model_hash} {self._arrays_hash()} {self.scale!r} {self.shift!r}"
        if is_per_prompt(self.ablation) or self.grain == "edges":
            text += f" {self.grain} {self.ablation}"
        return hashlib.sha256(text.encode()).hexdigest()

    def check_model(self, model: Model) -> None:
        """Refuses any model but the circuit's own.

        Raises:
          ValueError: another content hash; both are named. Or another config: a record of an earlier
            version, which no hash covers, may have been changed.
        """
        if model.hash != self.model_hash:
            raise ValueError(
                f"this circuit is of model {cut(self.model_name)} with hash {self.model_hash[:80]}, "
                f"not of {cut(model.name)} with hash {model.hash}: load the model it was found in"
            )
        if model.config != self.config:
            ours, theirs = self.config.to_dict(), model.config.to_dict()
            name = next(name for name in theirs if ours[name] != theirs[name])
            raise ValueError(
                f"this circuit's record says {name} {cut(ours[name])}, and its model "
                f"{cut(model.name)} has {cut(theirs[name])}: it was changed; find the circuit anew"
            )

    def view(self, model: Model) -> View:
        """The circuit as open gates of its whole model; ValueError for another model."""
        self.check_model(model)
        return self._grain.view(self.config, model.params, self.opened, self.held, self.ablation)

    def parts(self, model: Model) -> dict[str, View]:
        """Its own nodes and edges as gates that are all open, {"nodes" or "edges": view}."""
        self.check_model(model)
        return self._grain.parts(self.config, model.params, self.opened, self.held, self.ablation)

    def logits(
        self,
        model: Model,
        tokens: Any,
        positions: Any = None,
        corrupted: Any = None,
        *,
        seed: int = 0,
    ) -> jax.Array:
        """Logits of the circuit, not calibrated.

        Args:
          model: the circuit's own.
          tokens: int `[B, T]`.
          positions: int `[B, P]`; None means everywhere.
          corrupted: int `[B, T]`, for interchange.
          seed: of the choice of donors, for resample.

        Returns:
          float32 `[B, P, V]`.

        Raises:
          ValueError: another model, ids or positions out of range, or an ablation that needs corrupted
            prompts without them.
        """
        view = self.view(model)
        check_tokens(self.config, tokens, positions)
        if corrupted is not None:
            check_tokens(self.config, corrupted)
        tokens = jnp.asarray(tokens, jnp.int32)
        if replacement.needs_corrupted(self.ablation) and corrupted is None:
            raise ValueError(f"the circuit's ablation is {self.ablation}: give corrupted prompts")
        other = tokens if corrupted is None else jnp.asarray(corrupted, jnp.int32)
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        chex.assert_rank(positions, 2)
        chex.assert_equal_shape([tokens, other])
        none = jnp.zeros((len(tokens), 1), jnp.int32)
        both = jnp.stack([tokens, other], axis=1)
        batch = Examples(both, jnp.asarray(positions, jnp.int32), none, none)
        held = refer(view.model, batch, jax.random.key(seed), full=False).held
        return view.model.logits(jnp.asarray(view.gates, jnp.float32), batch, held)

    def save(self, directory: str | os.PathLike[str], model: Model) -> None:
        """Writes a circuit directory; `circuit.json` last and atomically.

        Args:
          directory: made if need be; a circuit there is replaced.
          model: the circuit's own.

        Raises:
          ValueError: another model's.
        """
        self.check_model(model)
        root = pathlib.Path(directory)
        # Without its record a half-replaced directory is no circuit.
        (root / "circuit.json").unlink(missing_ok=True)
        arrays = {"opened": dict(self.opened)}
        if self.held is not None:
            arrays["held"] = self.held
        save_arrays(root / "arrays", arrays)
        of_nodes, of_edges = self._grain.totals(self.config, model.params)
        counts: dict[str, Any] = {
            "nodes": self.num_nodes,
            "of_nodes": of_nodes,
            "edges": self.num_edges,
            "of_edges": of_edges,
        }
        if "mask" in self.opened:
            outer = count_outer_weights(self.config, model.params, self.opened["mask"])
            counts["outer_weights"] = outer
        record = CircuitRecord(
            format=FORMAT,
            grain=self.grain,
            model={"name": self.model_name, "hash": self.model_hash},
            config=self.config.to_dict(),
            ablation=self.ablation,
            calibration={"scale": self.scale, "shift": self.shift},
            counts=counts,
            provenance=dict(self.provenance),
            arrays_hash=self._arrays_hash(),
            nodes=self.nodes(),
            edges=[list(edge) for edge in self.links],
        )
        write_json(root / "circuit.json", seal(dataclasses.asdict(record)))

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Circuit":
        """Reads a circuit directory, of this version or an earlier one.

        Raises:
          ValueError: no circuit there, a foreign, damaged or newer one, or arrays that are not those of
            its record: one line.
        """
        root = pathlib.Path(directory)
        record, names = read_record(root)
        config = read_config(str(root / "circuit.json"), record.config)
        grain = grain_named(record.grain)
        like: dict[str, Any] = {"opened": grain.opened(config)}
        if not is_per_prompt(record.ablation):
            like["held"] = grain.held(config)
        arrays = load_arrays(root / "arrays", names.written(like))
        found = names.read(arrays)
        circuit = cls(
            model_name=record.model["name"],
            model_hash=record.model["hash"],
            config=config,
            grain=record.grain,
            opened=found["opened"],
            ablation=record.ablation,
            held=found.get("held"),
            links=tuple((edge[0], edge[1], edge[2]) for edge in record.edges),
            scale=record.calibration["scale"],
            shift=record.calibration["shift"],
            provenance=record.provenance,
        )
        if circuit._arrays_hash() != record.arrays_hash:
            raise ValueError(f"{root} is damaged: its arrays are not those circuit.json speaks of")
        if circuit.nodes() != record.nodes or circuit.num_nodes != record.counts["nodes"]:
            raise ValueError(f"{root} is damaged: its nodes are not those circuit.json lists")
        return circuit

    def _arrays_hash(self) -> str:
        """sha256 of what is open and of what closed parts hold."""
        digest = hashlib.sha256()
        for site, mask in self.opened.get("mask", {}).items():
            digest.update(np.ascontiguousarray(mask).tobytes())
            if self.held is not None:
                digest.update(np.ascontiguousarray(self.held[site]).tobytes())
        for weights in self.opened.get("weights", {}).values():
            digest.update(np.packbits(weights).tobytes())
        if "kept" in self.opened:
            digest.update(np.ascontiguousarray(self.opened["kept"]).tobytes())
            if self.held is not None:
                digest.update(np.ascontiguousarray(self.held).tobytes())
        return digest.hexdigest()


def _check_held(grain: Grain, circuit: Circuit) -> Any:
    """Constants of the grain's shapes as float32; None where replacements are per prompt."""
    if is_per_prompt(circuit.ablation):
        if circuit.held is not None:
            raise ValueError(
                f"under {circuit.ablation} closed parts hold no constants: leave `held` out"
            )
        return None
    like = grain.held(circuit.config)
    named = isinstance(like, dict)
    given = circuit.held if named and circuit.held is not None else {"": circuit.held}
    checked = {}
    for name, wanted in (like if named else {"": like}).items():
        value = given.get(name)
        shape = None if value is None else np.shape(value)
        if shape != wanted.shape:
            what = f"fills of {name}" if named else "replacements"
            raise ValueError(f"the {what} are shaped {shape}; they must be {wanted.shape}")
        checked[name] = np.asarray(value, np.float32)
        if not np.all(np.isfinite(checked[name])):
            raise ValueError(f"the fills of {name or 'the writers'} are not all finite")
    return checked if named else checked[""]


def load_circuit(directory: str | os.PathLike[str]) -> Circuit:
    """Reads a circuit of any grain; a run's directory holds its own.

    Raises:
      ValueError: see `Circuit.load`.

    Examples:
      >>> circuit.save("my_circuit", model)
      >>> cj.load_circuit("my_circuit").content_hash == circuit.content_hash
      True
    """
    root = pathlib.Path(directory)
    inner = root / "circuit"
    return Circuit.load(inner if (inner / "circuit.json").exists() else root)
