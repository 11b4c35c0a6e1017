"""Finished runs, audits, studies, suites and trainings, every file flipped in 200 places.

What a directory says when it is shown again is what it said, or it is refused in one line. A file that
nothing opens is tried in fewer places: nothing can come of it. Nothing may be computed meanwhile, so
what would be done again counts as refused.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from circuitjax.audit.config import AuditConfig
from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.pretrain import train as training
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.packing import Corpus
from circuitjax.report.suite_report import parts_of
from circuitjax.report.suite_table import record_of
from circuitjax.run import audit, search, study, winner
from circuitjax.run.prune import run_pruning
from circuitjax.run.suite import Cell, Suite, run_suite
from circuitjax.tune.carbs import to_json
from tests.audit.planted_audit import circuit_of
from tests.campaign.flips import flip, is_refused
from tests.pretrain.synthetic import write_corpus
from tests.prune.planted import PLANTED, TASK, planted_model
from tests.run import planted_study
from tests.run.runs import changed, run_in
from tests.run.test_grains import run_of

PLACES, UNREAD = int(os.environ.get("CIRCUITJAX_FLIPS", "200")), 3


class ComputedAgainError(ValueError):
    """Something that was finished would have been done anew."""


def forbidden(*args: Any, **more: Any) -> None:
    raise ComputedAgainError("computed again")


class Opened:
    """Which files of a directory are opened by Python, while it is asked to listen."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root, self._listening = str(root), False
        self.names: set[str] = set()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._listening and event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            self.names.add(os.fsdecode(args[0]))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self._listening = True
        try:
            yield
        finally:
            self._listening = False


def flipped(root: pathlib.Path, read: Callable[[], Any], places: int) -> dict[str, int]:
    """How many flips were refused, and read as before, of files that are opened and of others."""
    opened, expected = Opened(root), None
    with opened.listening():
        expected = read()
    rng = random.Random(0)
    found = {"refused": 0, "as before": 0, "unread files": 0, "flips": 0}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name != ".lock"):
        is_read = str(path) in opened.names
        found["unread files"] += not is_read
        for _ in range((places if is_read else UNREAD) if path.stat().st_size else 0):
            with flip(path, rng) as where:
                refused = is_refused(read, expected, where)
            found["refused" if refused else "as before"] += 1
            found["flips"] += 1
    return found


def facts_of(circuit: Circuit) -> list[Any]:
    leaves = jax.tree.leaves((circuit.opened, circuit.held))
    described = [circuit.content_hash, circuit.nodes(), circuit.edges(), dict(circuit.provenance)]
    return [*described, circuit.scale, circuit.shift, [np.asarray(x).tobytes() for x in leaves]]


def _run(name: str) -> Callable[[pathlib.Path, pytest.MonkeyPatch], Callable[[], Any]]:
    def finished(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
        run = run_in(root) if name == "nodes" else run_of(root, name)
        run_pruning(run)
        patch.setattr(search, "prepare", forbidden)
        return lambda: (run_pruning(run).to_dict(), facts_of(load_circuit(root)))

    return finished


def _suite(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    cell = Cell("planted", TASK.name)
    suite = Suite(root, {"one": [cell]}, {"models": {"planted": "x"}, "seeds": [0]})
    place = suite.run_directory(cell)
    run_suite(suite, lambda cell, directory, unit: record_of(run_pruning(run_in(directory))))
    return lambda: (
        [(one.cell, one.record, one.error, one.seconds) for one in run_suite(suite, forbidden)],
        parts_of(place / "circuit"),
    )


def _study(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    ours = planted_study.study(root)
    ours = dataclasses.replace(ours, rounds=2, search=changed(ours.search, steps=60, chunk=30))
    state = study.run_study(ours)
    winner.run_winner(ours, state, 1)
    patch.setattr(study, "prepare", forbidden)
    patch.setattr(winner, "plot_study", lambda *args: None)  # a second each time
    patch.setattr(search, "prepare", forbidden)

    def read() -> Any:
        found = study.run_study(ours)
        tuned, report = winner.run_winner(ours, found, 1)
        shown = dataclasses.asdict(tuned), report.to_dict()
        return to_json(found), shown, facts_of(load_circuit(root / "winner"))

    return read


def _audit(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    asked = planted_model(), TASK, circuit_of(PLANTED), root, AuditConfig(search=False)
    audit.run_audit(*asked)
    patch.setattr(audit, "audit_circuit", forbidden)
    return lambda: (
        audit.run_audit(*asked).to_dict(),
        facts_of(Circuit.load(root / "polished")),
    )


def _pretrain(root: pathlib.Path, patch: pytest.MonkeyPatch) -> Callable[[], Any]:
    corpus = Corpus.open(write_corpus(root.parent / "corpus"))
    model = {"num_layers": 1, "d_model": 8, "num_heads": 1, "d_head": 8, "d_mlp": 8,
             "vocab_size": 2048, "context_length": 8}  # fmt: skip
    config = PretrainConfig.from_dict(
        {"model": model, "steps": 3, "batch_size": 8, "length": 8, "density": 0.5, "eval_rows": 32}
    )
    training.train(config, corpus, root)
    patch.setattr(training, "make_step", lambda config, fixed: forbidden)
    patch.setitem(sys.modules, "tensorboardX", None)  # only writes

    def read() -> Any:
        leaves = jax.tree.leaves(training.train(config, corpus, root))
        return [leaf.tobytes() for leaf in leaves]

    return read


FINISHED = {
    "nodes": _run("nodes"),
    "weights": _run("weights"),
    "edges": _run("edges"),
    "suite": _suite,
    "study": _study,
    "audit": _audit,
    "pretrain": _pretrain,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FINISHED)
def test_flipped(name, tmp_path, monkeypatch):
    root = tmp_path / "finished"
    found = flipped(root, FINISHED[name](root, monkeypatch), PLACES)
    print(f"{name}: {found}")
    assert found["refused"] > found["as before"]
