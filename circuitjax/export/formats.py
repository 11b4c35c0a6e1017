"""Circuits for other programs: one call writes any of these files.

json        graph.json, of a published schema (circuit/schema/circuit.schema.json)
graphml     graph.graphml: networkx, Gephi, Cytoscape, yEd
dot         graph.dot: Graphviz
benchmark   benchmark.json: the mechanistic-interpretability benchmark's circuit track
viewer      viz/, models/: the viewer released with openai/circuit_sparsity; it knows constants as
            replacements, and no residual edges
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe
from circuitjax.core.files import cut, write_bytes
from circuitjax.export.benchmark_file import benchmark_graph
from circuitjax.export.graph_files import dot_text, graphml_text
from circuitjax.export.viewer_files import require_torch, viewer_data, viewer_files
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.model.record import Model
from circuitjax.prune.problem import Problem

__all__ = ["FORMATS", "Format", "check_formats", "export_circuit"]

Format = Literal["json", "graphml", "dot", "benchmark", "viewer"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_formats(formats: Sequence[str], circuit: Circuit, model: Model) -> None:
    """Refuses what cannot be written, before any work.

    Raises:
      ValueError: no format or an unknown one, one that has no meaning for this circuit or needs a
        package that is missing, an empty circuit, another model's.
    """
    if not formats:
        raise ValueError(f"no format is given; choose from {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"there is no format {name!r}; choose from {', '.join(FORMATS)}")
    circuit.check_model(model)
    if not circuit.num_nodes:
        task = circuit.provenance.get("task")
        raise ValueError(f"the circuit of task {cut(task)} is empty: there is nothing to export")
    if "viewer" in formats:
        if "mask" not in circuit.opened:
            raise ValueError(
                "format 'viewer' shows channels and neurons: it is for circuits of nodes or weights, "
                "not of residual edges"
            )
        if circuit.config.gated_mlp or circuit.config.queries_per_kv > 1:
            raise ValueError(
                "format 'viewer' knows plain MLPs and heads that share no keys and values: model "
                f"{cut(model.name)} is of another kind"
            )
        if is_per_prompt(circuit.ablation):
            raise ValueError(
                "format 'viewer' shows one replacement for all prompts: it is for mean and zero "
                f"ablation, not for {circuit.ablation}"
            )
        require_torch()


def export_circuit(
    circuit: Circuit,
    model: Model,
    formats: Sequence[str],
    directory: str | os.PathLike[str],
    *,
    problem: Problem | None = None,
    contexts: np.ndarray | None = None,
) -> list[pathlib.Path]:
    """Writes a circuit's files, each atomically; files that are there are replaced.

    Args:
      circuit: of nodes, weights or residual edges; not empty.
      model: the circuit's own.
      formats: some of `FORMATS`.
      directory: where to; made if need be.
      problem: the model's with the circuit's task; needed for `viewer`, which shows prompts.
      contexts: int `[R, T]` of pretraining tokens, for `viewer`; None takes the task's prompts.

    Returns:
      The files' paths.

    Raises:
      ValueError: see `check_formats`; or `viewer` without a problem; nothing is written then.

    Examples:
      >>> [path.name for path in cj.export_circuit(circuit, model, ["json"], "exported")]
      ['graph.json']
    """
    check_formats(formats, circuit, model)
    if "viewer" in formats and problem is None:
        raise ValueError("format 'viewer' shows prompts: give the problem of the circuit's task")
    contents: dict[str, bytes] = {}
    if {"json", "graphml", "dot"} & set(formats):
        described = describe(circuit, model)
        if "json" in formats:
            contents["graph.json"] = _json(described)
        if "graphml" in formats:
            contents["graph.graphml"] = graphml_text(described)
        if "dot" in formats:
            contents["graph.dot"] = dot_text(described).encode()
    if "benchmark" in formats:
        contents["benchmark.json"] = _json(benchmark_graph(circuit, model))
    if "viewer" in formats:
        assert problem is not None
        data, embeddings = viewer_files(viewer_data(circuit, model, problem, contexts), model)
        name, task = (_file_name(x) for x in (model.name, circuit.provenance.get("task")))
        contents[f"viz/{name}/{task}/circuitjax/k_optim/viz_data.pt"] = data
        contents[f"models/{name}/final_model.pt"] = embeddings
    paths = [pathlib.Path(directory) / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_bytes(path, content)
    return paths


def _json(value: Any) -> bytes:
    """ASCII JSON that stays inert inside an HTML page: `<` is spelled as an escape."""
    text = json.dumps(value, indent=1, allow_nan=False)
    return (text.replace("<", "\\u003c") + "\n").encode()


def _file_name(text: Any) -> str:
    """A name as a single path component: letters, digits, and `-`, `_`, `.` but not in front."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", pathlib.PurePath(str(text)).name or "_")
    return re.sub(r"^\.+", "_", safe)[:100]
