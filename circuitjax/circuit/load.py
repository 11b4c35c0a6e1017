"""`load_circuit`: a circuit directory of any grain."""

import json
import os
import pathlib

from circuitjax.circuit import circuit, edge_circuit
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.edge_circuit import EdgeCircuit

__all__ = ["load_circuit"]


def load_circuit(directory: str | os.PathLike[str]) -> Circuit | EdgeCircuit:
    """Reads a circuit of nodes, of single weights or of residual edges; a run's directory holds its own.

    Raises:
      ValueError: no circuit there, a foreign or truncated one, or arrays that are not those of its
        record: one line.
    """
    root = pathlib.Path(directory)
    if (root / "circuit" / "circuit.json").exists():
        root = root / "circuit"
    try:
        record = json.loads((root / "circuit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{root} holds no readable circuit: {error}") from error
    kind = record.get("format") if isinstance(record, dict) else None
    if kind == edge_circuit.FORMAT:
        return EdgeCircuit.load(root)
    if kind == circuit.FORMAT:
        return Circuit.load(root)
    raise ValueError(
        f"{root} holds no readable circuit: its format is {kind!r}, neither {circuit.FORMAT!r} nor "
        f"{edge_circuit.FORMAT!r}"
    )
