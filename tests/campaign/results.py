"""Readers of what the program writes itself, and of tasks: good files, and inputs made from them."""

import dataclasses
import json
import pathlib
import random
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from circuitjax.audit import record as audit
from circuitjax.audit.record import AuditFigures
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.records import seal
from circuitjax.export.benchmark_file import read_scores, scores_graph
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.report.audit_table import read_audit
from circuitjax.report.viewer.groups import Group, read_groups, write_groups
from circuitjax.run import report
from circuitjax.run.directory import STUDY, claim, holds
from circuitjax.run.observations import append_round, read_rounds
from circuitjax.run.suite import read_cell
from circuitjax.tasks import jsonl
from circuitjax.tasks.tokenizer import Tokenizer
from tests.audit.planted_audit import circuit_of, weights_of
from tests.campaign.mutations import changed_bytes, changed_value, written
from tests.prune.planted import PLANTED, planted_model, tokenizer_json

__all__ = ["READERS", "sample"]

Feed = Callable[[random.Random], Callable[[], Any]]


def sample(kind: Any) -> Any:
    """Some JSON value of an annotated type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(inner[0])
    if origin is Literal:
        return inner[0]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {field.name: sample(hints[field.name]) for field in dataclasses.fields(kind)}
    if origin is tuple and inner[-1] is not Ellipsis:
        return [sample(one) for one in inner]
    if origin in (list, tuple):
        return [sample(inner[0])] * 2
    if origin is dict:
        return {"a": sample(inner[1])}
    plain = {int: 1, float: 0.5, str: "x", bool: True, dict: {"a": 1}, list: [1], Any: "x"}
    return None if kind is type(None) else plain[kind]


def _record(form: str, good: dict[str, Any], read: Callable[[pathlib.Path], Any]) -> Any:
    """A reader of a sealed record in a file of its own."""

    def reader(root: pathlib.Path, _: Model) -> Feed:
        path = root / "record.json"
        whole = {**good, "format": form}
        path.write_text(json.dumps(seal(whole)))
        read(path)  # the good one is read

        def feed(rng: random.Random) -> Callable[[], Any]:
            value = changed_value(rng, whole)
            if isinstance(value, dict) and rng.random() < 0.8:
                value = seal(value)
            path.write_bytes(written(rng, value))
            return lambda: read(path)

        return feed

    return reader


def _circuit(root: pathlib.Path, _: Model) -> Feed:
    nodes = circuit_of(PLANTED)
    for name, circuit in (("nodes", nodes), ("weights", weights_of(nodes))):
        circuit.save(root / name, planted_model())
    goods = {name: json.loads((root / name / "circuit.json").read_text()) for name in
             ("nodes", "weights")}  # fmt: skip

    def feed(rng: random.Random) -> Callable[[], Any]:
        name = rng.choice(list(goods))
        value = changed_value(rng, goods[name])
        if isinstance(value, dict) and rng.random() < 0.8:
            value = seal(value)
        (root / name / "circuit.json").write_bytes(written(rng, value))

        def read() -> None:
            circuit = Circuit.load(root / name)
            circuit.check_model(planted_model())
            _ = circuit.num_nodes, circuit.num_edges, circuit.nodes()

        return read

    return feed


def _tasks(good: dict[str, Any]) -> Any:
    """A reader of JSONL tasks whose lines are like this one."""

    def reader(root: pathlib.Path, _: Model) -> Feed:
        tokenizer, path = Tokenizer.from_json(tokenizer_json()), root / "task.jsonl"

        def feed(rng: random.Random) -> Callable[[], Any]:
            lines = []
            for _ in range(rng.choice((1, 2, 5))):
                value = good if rng.random() < 0.4 else changed_value(rng, good)
                lines.append(json.dumps(value).encode())
            data = rng.choice((b"\n", b"\r\n", b"\n\n", b"\x0b", b"\xef\xbb\xbf\n")).join(lines)
            if rng.random() < 0.3:
                data = changed_bytes(rng, data)
            if rng.random() < 0.005:
                data += b"\n" + b"[" * 100_000
            path.write_bytes(data)
            return lambda: jsonl.load(path, tokenizer)

        return feed

    return reader


_PAIR = {
    "positive": "A-abc", "negative": "B-abc", "positive_completion": "x", "negative_completion": "y",
    "template": "one",
}  # fmt: skip
_CONTRAST = {"clean": "A-abc", "corrupted": "B-abc", "right": ["x"], "wrong": ["y"]}


def _observations(root: pathlib.Path, _: Model) -> Feed:
    row = {
        "id": 0, "round": 0, "origin": "first", "params": {"lr": 0.1}, "seed": 1, "failed": False,
        "output": 0.5, "cost": 5.0, "edges": 9, "nodes": 3, "loss_validation": None,
        "seconds_training_round": 0.1, "seconds_selection_round": 0.2,
    }  # fmt: skip
    path = root / "observations.jsonl"
    append_round(path, [{**row, "id": number} for number in range(2)])
    good = path.read_bytes()

    def feed(rng: random.Random) -> Callable[[], Any]:
        if rng.random() < 0.5:
            path.write_bytes(changed_bytes(rng, good))
        else:
            value = changed_value(rng, row)
            value = seal(value) if isinstance(value, dict) else value
            path.write_bytes(written(rng, value) + b"\n")
        return lambda: read_rounds(path, 1)

    return feed


def _directory(root: pathlib.Path, _: Model) -> Feed:
    identity = {"model": "m", "task": "t", "carbs": {"radius": 0.3}, "space": [1, 2], "seed": 0}
    claim(STUDY, root / "study", identity)
    path = root / "study" / STUDY.record
    good = json.loads(path.read_text())

    def feed(rng: random.Random) -> Callable[[], Any]:
        value = changed_value(rng, good)
        if isinstance(value, dict) and rng.random() < 0.7:
            value = seal(value)
        path.write_bytes(written(rng, value))
        return lambda: holds(STUDY, root / "study", identity)

    return feed


def _groups(root: pathlib.Path, _: Model) -> Feed:
    circuit, path = circuit_of(PLANTED), root / "groups.json"
    write_groups(path, circuit, [Group("a", PLANTED[:2]), Group("b", PLANTED[2:3])])
    good = json.loads(path.read_text())

    def feed(rng: random.Random) -> Callable[[], Any]:
        path.write_bytes(written(rng, changed_value(rng, good)))
        return lambda: read_groups(path, circuit)

    return feed


def _scores(root: pathlib.Path, model: Model) -> Feed:
    del model
    config = planted_model().config
    scores = np.linspace(-1, 1, residual_graph(config).num_edges)
    good = json.loads(json.dumps(scores_graph(config, scores)))
    return lambda rng: lambda: read_scores(_mapping(changed_value(rng, good)), config)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_CELL = {
    "cell": {"model": "m", "task": "t", "grain": "nodes", "ranking": "learned", "target": 0.15,
             "seed": 0},
    "record": {"status": "reached", "edges": 3, "nodes": 2}, "seconds": 1.5,
}  # fmt: skip
READERS: dict[str, Callable[[pathlib.Path, Model], Feed]] = {
    "circuit": _circuit,
    "pairs": _tasks(_PAIR),
    "contrasts": _tasks(_CONTRAST),
    "report": _record(report.FORMAT, sample(report.Report), report.read_report),
    "audit": _record(audit.FORMAT, sample(AuditFigures), read_audit),
    "cell": _record("circuitjax-cell-2", _CELL, read_cell),
    "observations": _observations,
    "directory": _directory,
    "groups": _groups,
    "scores": _scores,
}
