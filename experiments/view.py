"""Draws a circuit as one HTML page that opens anywhere: no server, no network.

    python -m experiments.view --run=runs/prune/tiny-python/single_double_quote
    python -m experiments.view --run=runs/a --compare=runs/b --out=both.html

Given a run's directory it also shows the run's figures, its curve of loss against k, and the checks of
its report, or of --audit; given a circuit's directory, the circuit. The page is written into that
directory as circuit.html. On the page nodes can be put into groups with names; it saves them as
groups.json, which --groups keeps beside the circuit, so that every later page has them.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.files import read_object, require_place
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.model.record import Model
from circuitjax.pretrain.packing import Corpus
from circuitjax.pretrain.translate import rows_for
from circuitjax.report.audit_table import read_audit
from circuitjax.report.viewer.compare import compared
from circuitjax.report.viewer.groups import Group, read_groups, write_groups
from circuitjax.report.viewer.show import circuit_page, require_own
from circuitjax.report.viewer.texts import Contexts
from circuitjax.run.report import read_report
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from experiments.command import command, exit_on_bad_input, run_main
from experiments.progress import say, tell_next
from experiments.task_names import is_file, model_of, task_for

_RUN = flags.DEFINE_string("run", None, "Directory of a run or of a circuit.", required=True)
_OUT = flags.DEFINE_string("out", None, "File to write. Default: circuit.html in --run.")
_MODEL = flags.DEFINE_string(
    "model", None, "Built-in model, or path of a model directory. Default: as the circuit names it."
)
_TASK = flags.DEFINE_string(
    "task", None, "Task whose prompts are shown, a name or a .jsonl file. Default: the circuit's."
)
_CORPUS = flags.DEFINE_string(
    "corpus",
    None,
    "Folder written by experiments.corpus, for the contexts. Default: text like a built-in model's "
    "pretraining mix; for other models the task's training prompts.",
)
_COMPARE = flags.DEFINE_string(
    "compare", None, "Directory of another run or circuit of the same model: what both keep."
)
_GROUPS = flags.DEFINE_string(
    "groups", None, "groups.json that a page saved, to keep. Default: the one beside the circuit."
)

_AUDIT = flags.DEFINE_string(
    "audit", None, "Directory of an audit of the circuit, to show instead of the report's checks."
)

_ROWS, _SEED, _IDIOMS = 128, 7, 0.75


def _find(run: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """(directory of the circuit, directory of its run or None)."""
    if (run / "circuit" / "circuit.json").is_file():
        return run / "circuit", run
    if (run / "circuit.json").is_file():
        return run, run.parent if (run.parent / "report.json").is_file() else None
    if (run / "run.json").is_file():
        raise ValueError(f"{run} is a run without a circuit yet: finish it with experiments.prune")
    raise ValueError(f"{run} holds neither a run nor a circuit: name a directory that does")


def _beside(
    circuit: Circuit, run: pathlib.Path | None, name: str, read: Callable[[Any], Any]
) -> Any:
    """The fields of a record of the run; None where there is none, or one of before versions."""
    if run is None or not (run / name).exists():
        return None
    path = run / name
    try:
        if "format" not in (fields := read_object(path)) and "task" in fields:
            say(f"warning: {path} is of an earlier version: the page is made without its figures")
            return None
        found = read(path).to_dict()
        require_own(circuit, found, str(path))
        return found
    except ValueError as error:
        named = error if str(path) in str(error) else f"{path}: {error}"
        raise ValueError(f"{named}; moved away, the page is made without it") from None


def _task(model: Model) -> Task | ContrastTask | str | None:
    if _TASK.value is not None and is_file(_TASK.value):
        return task_for(_TASK.value, model)
    return _TASK.value


def _contexts(model: Model) -> Contexts | None:
    if _CORPUS.value is None:
        return None
    length = min(128, model.config.context_length)
    corpus = Corpus.open(_CORPUS.value)
    batches = rows_for(corpus, model.tokenizer_json, _ROWS, length, _SEED, _IDIOMS)
    rows = np.asarray(next(batches), np.int32)
    return Contexts(rows, np.full(len(rows), rows.shape[1]), f"the corpus {_CORPUS.value}")


def _groups(circuit: Circuit, where: pathlib.Path) -> tuple[Group, ...]:
    """The named groups of nodes, those of --groups kept beside the circuit from now on."""
    kept = where / "groups.json"
    if _GROUPS.value is None:
        return read_groups(kept, circuit) if kept.exists() else ()
    groups = read_groups(_GROUPS.value, circuit)
    require_place(kept)
    write_groups(kept, circuit, groups)
    return groups


def _audit(circuit: Circuit, run: pathlib.Path | None) -> Any:
    """The fields of the audit that is asked for, or lies beside the run; None where there is none.

    Raises:
      ValueError: it is of another circuit, or no audit.
    """
    if _AUDIT.value is None:
        return _beside(circuit, run, "audit.json", read_audit)
    found = read_audit(pathlib.Path(_AUDIT.value) / "audit.json").to_dict()
    try:
        require_own(circuit, found, f"--audit={_AUDIT.value}")
    except ValueError as error:
        raise ValueError(f"{error}: audit this one") from None
    return found


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    root = pathlib.Path(_RUN.value)
    where, run = _find(root)
    out = pathlib.Path(_OUT.value) if _OUT.value else root / "circuit.html"
    require_place(out)
    circuit = load_circuit(where)
    if not circuit.num_nodes:
        name = circuit.provenance.get("task")
        raise ValueError(f"the circuit of task {name!r} is empty: there is nothing to show")
    model = model_of(circuit, _MODEL.value)
    circuit.check_model(model)
    other = None if _COMPARE.value is None else load_circuit(_find(pathlib.Path(_COMPARE.value))[0])
    if other is not None:
        compared(circuit, other)  # refuses, before any work
    groups = _groups(circuit, where)
    keep_freed_memory()
    cache_compilations()
    report = _beside(circuit, run, "report.json", read_report)
    audit = _audit(circuit, run)
    page = circuit_page(
        circuit,
        model,
        task=_task(model),
        contexts=_contexts(model),
        report=report,
        audit=report if audit is None else audit,  # a report has the checks of the short form
        other=other,
        groups=groups,
    )
    print(f"{out} ({page.save(out)} bytes): open it in a browser")
    if page.data["note"]:
        print(f"  note: {page.data['note']}")
    if audit is None:
        tell_next(command("audit", circuit=_RUN.value, task=_TASK.value, model=_MODEL.value))
    else:
        tell_next(
            "name groups on the page, and keep them with --groups; --compare sets a circuit beside"
        )


if __name__ == "__main__":
    run_main(main)
