"""`circuit.json`: the typed record of a circuit, and how those of earlier versions are read.

Versions 1 (`circuitjax-circuit-1` for nodes and weights, `circuitjax-edge-circuit-1` for residual edges)
had no hash of the record; their arrays had other names. They keep the hash that they were written with.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from circuitjax.core.files import cut
from circuitjax.core.records import Fields, check_types, open_sealed
from circuitjax.gated import replacement

__all__ = ["FORMAT", "OLDER", "ArrayNames", "CircuitRecord", "read_record"]

FORMAT = "circuitjax-circuit-2"
OLDER = ("circuitjax-circuit-1", "circuitjax-edge-circuit-1")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CircuitRecord:
    """What `circuit.json` says.

    Attributes:
      format: of the record, with its version.
      grain: of the circuit.
      model: `name` and content `hash`.
      config: the model's description.
      ablation: what closed parts hold.
      calibration: `scale` and `shift`.
      counts: `nodes`, `of_nodes`, `edges`, `of_edges`, and weights to tokens and logits.
      provenance: how it was found.
      arrays_hash: sha256 of the arrays.
      nodes: addresses.
      edges: [source, target, weight or null].
    """

    format: str
    grain: str
    model: dict[str, str]
    config: dict[str, Any]
    ablation: str
    calibration: dict[str, float]
    counts: dict[str, Any]
    provenance: dict[str, Any]
    arrays_hash: str
    nodes: list[str]
    edges: list[list[Any]]


@dataclasses.dataclass(frozen=True)
class ArrayNames:
    """How a version calls the arrays on disk: {our path: the path there}."""

    paths: Mapping[tuple[str, ...], tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def written(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Our tree as it lies on disk."""
        return self._moved(tree, dict(self.paths))

    def read(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """What lies on disk as our tree."""
        return self._moved(tree, {theirs: ours for ours, theirs in self.paths.items()})

    def _moved(
        self, tree: Mapping[str, Any], paths: Mapping[tuple[str, ...], tuple[str, ...]]
    ) -> dict[str, Any]:
        if not paths:
            return dict(tree)
        found: dict[str, Any] = {}
        for source, target in paths.items():
            value: Any = tree
            for name in source:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is None:
                continue
            place = found
            for name in target[:-1]:
                place = place.setdefault(name, {})
            place[target[-1]] = value
        return found


_NODES_1 = ArrayNames(
    {("opened", "mask"): ("mask",), ("opened", "weights"): ("weights",), ("held",): ("fills",)}
)
_EDGES_1 = ArrayNames({("opened", "kept"): ("kept",), ("held",): ("fixed",)})


def read_record(directory: pathlib.Path) -> tuple[CircuitRecord, ArrayNames]:
    """The record in a circuit's directory, and how its arrays are called.

    One of an earlier version is read as it was written: its arrays are checked, its config, calibration
    and provenance are not, and a warning says so.

    Raises:
      ValueError: no circuit there, or one that is foreign, damaged or newer: one line.
    """
    path = directory / "circuit.json"
    try:
        fields = open_sealed(path, FORMAT, older=OLDER)
    except ValueError as error:
        raise ValueError(f"{directory} holds no readable circuit: {error}") from error
    names = ArrayNames()
    values = fields.to_dict()
    if values["format"] != FORMAT:
        values, names = _of_first_version(fields)
    check_types(CircuitRecord, values, str(path))
    if not fields.sealed:
        _log.warning(
            "%s was written by an earlier version: no hash covers its config, calibration and "
            "provenance; cj.load_circuit(path).save(path, model) adds it",
            directory,
        )
    known = {field.name for field in dataclasses.fields(CircuitRecord)}
    missing = sorted(known - set(values))
    if missing:
        raise ValueError(f"{directory} holds no readable circuit: it lacks {cut(missing[0])}")
    for name, inner in (("model", ("name", "hash")), ("calibration", ("scale", "shift"))):
        part = Fields(values, str(path)).object(name)
        for key in inner:
            part.text(key) if name == "model" else part.number(key)
    Fields(values, str(path)).object("counts").whole("nodes", 0)
    Fields(values, str(path)).one_of("ablation", *replacement.ABLATIONS)
    for edge in values["edges"]:
        if len(edge) != 3 or [type(end) for end in edge[:2]] != [str, str]:
            raise ValueError(f"{path}: an edge is {cut(edge)}; it must be [source, target, weight]")
    return CircuitRecord(**{name: values[name] for name in known}), names


def _of_first_version(fields: Fields) -> tuple[dict[str, Any], ArrayNames]:
    values = fields.to_dict()
    if values["format"] == OLDER[1]:
        edges = [[*str(name).split("->", 1), None] for name in fields.list("edges")]
        return {**values, "grain": "edges", "edges": edges}, _EDGES_1
    facts = fields.object("provenance").to_dict()
    settings = facts.get("prune", facts.get("config"))
    ablation = settings.get("ablation", "mean") if isinstance(settings, Mapping) else "mean"
    grain = "weights" if fields.get("has_weights") else "nodes"
    return {**values, "grain": grain, "ablation": ablation}, _NODES_1
