"""Audits a circuit of any grain: how far it can be trusted, check by check.

    python -m experiments.audit --circuit=runs/prune/tiny-python/bracket_brace

--circuit is a circuit's directory, or that of the run that found it. In --out: audit.md (the verdict),
audit.json, effects, supersets, searches and faithfulness as PNG and SVG, polished/ (the circuit without
what it does not need). The same command again shows what is finished.
"""

import dataclasses
import pathlib
import typing

from absl import flags

from circuitjax.audit.audit import AuditConfig
from circuitjax.audit.polish import PolishAt
from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.files import read_object
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.model.record import Model
from circuitjax.prune.config import Hyper
from circuitjax.prune.provenance import hyper_of, search_of
from circuitjax.report.audit_text import check_lines
from circuitjax.run.audit import run_audit
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from experiments.command import command, exit_on_bad_input, run_main
from experiments.devices import laid_out
from experiments.progress import say, tell_next
from experiments.task_names import load_task, task_of

_D = AuditConfig()
_CIRCUIT = flags.DEFINE_string("circuit", None, "Directory of a circuit, or of a finished run.")
_MODEL = flags.DEFINE_string(
    "model", None, "Built-in model, or path of a model directory. Default: as the circuit names it."
)
_TASK = flags.DEFINE_string(
    "task", None, "Name of a task, or a .jsonl file. Default: as the circuit names it."
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Directory. Default: of runs/prune/<x> it is runs/audit/<x>, else runs/audit/<name>.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another audit in --out.")
_POLISH = flags.DEFINE_bool("polish", True, "Remove what is not needed; writes polished/.")
_POLISH_AT = flags.DEFINE_enum(
    "polish_at",
    _D.polish_at,
    typing.get_args(PolishAt),
    "What the loss may rise to: the target, or no further than the circuit's own.",
)
_SEARCH = flags.DEFINE_bool("search", True, "Repeat the search: other seeds and the controls.")
_SEEDS = flags.DEFINE_integer("num_seeds", _D.seeds, "Seeds of the stability test, 5 or more.")
_BATCH = flags.DEFINE_integer(
    "batch_size",
    None,
    f"Items per step of every repeated search; 0: as the circuit's own. Default: {_D.batch_size}.",
)
_STEPS = flags.DEFINE_integer(
    "steps", None, "Steps of every repeated search. Default: as the circuit's own."
)
_START = flags.DEFINE_string(
    "start",
    None,
    "Directory of the circuit of nodes that the search of these weights started from.",
)
_SEED = flags.DEFINE_integer("seed", _D.seed, "Of everything random.")
_SETS = flags.DEFINE_integer(
    "random_sets", _D.random_sets, "Random sets of the test of necessity, at most."
)
_CONFIDENCE = flags.DEFINE_float(
    "confidence", None, "Asks the test loss to meet the target with this confidence, in (0, 1)."
)
_MANY, _SAMPLE = 1_000_000, 20_000


class _Prompts(flags.ArgumentParser):
    """A number of prompts; `true` and `false` are what a flag without a value is read as."""

    syntactic_help = "a whole number, or nothing"

    def parse(self, argument: typing.Any) -> int:
        """The number; -1 for all of them, 0 for none."""
        given = {"true": -1, "false": 0}.get(str(argument).lower())
        if given is None and str(argument).isdecimal():
            given = int(argument)
        if given is None:
            raise ValueError("it takes a whole number of prompts, or no value")
        return given


class _PromptsFlag(flags.Flag):
    """May stand without a value, as a flag of true and false does."""

    def __init__(self, *args: typing.Any, **more: typing.Any) -> None:
        super().__init__(*args, **more)
        self.boolean = True


def _DEFINE_prompts(name: str, text: str) -> flags.FlagHolder[int]:
    """A flag of a number of prompts, 0 by default."""
    flag = _PromptsFlag(_Prompts(), flags.ArgumentSerializer(), name, 0, text)
    return flags.DEFINE_flag(flag)


_EXHAUSTIVE = _DEFINE_prompts(
    "exhaustive",
    "Run every prompt of the task's held-out split where it has at most 1,000,000, else a sample of "
    "20,000; with =N at most N of them.",
)


def _circuit() -> Circuit:
    if _CIRCUIT.value is None:
        raise ValueError("--circuit is missing: name a circuit's directory, or a finished run's")
    root = pathlib.Path(_CIRCUIT.value)
    if not root.is_dir():
        raise ValueError(f"--circuit={root} is no directory: find a circuit first, with `prune`")
    if (root / "run.json").exists() and not (root / "circuit").exists():
        raise ValueError(f"the run in {root} is not finished: the same `prune` command goes on")
    return load_circuit(root)


def _place(circuit: pathlib.Path) -> pathlib.Path:
    """Where the audit of a circuit goes: each run's to a place of its own."""
    run = circuit.parent if circuit.name == "circuit" else circuit
    for depth, part in enumerate(run.parts[:-1]):
        if part.startswith("prune"):
            inside = run.parts[depth + 1 :]
            return pathlib.Path("runs", part.replace("prune", "audit", 1), *inside)
    return pathlib.Path("runs/audit", run.name or "circuit")


def _hyper(circuit: Circuit) -> Hyper | None:
    """Hyperparameters of the job that became the circuit, from its run's report.

    Circuits say so themselves, but those of older runs name all jobs and not the one.
    """
    report = pathlib.Path(_CIRCUIT.value or "") / "report.json"
    if "chosen" in circuit.provenance or not report.exists():
        return None
    found = read_object(report)
    for row in found.get("jobs", []):
        if all(row.get(name) == found.get(name) for name in ("seed", "nodes", "edges")):
            chosen = {"chosen": row["hyper"]}
            return hyper_of(dataclasses.replace(circuit, provenance=chosen))
    return None


def _load(task: str, model: str) -> tuple[Model, Task | ContrastTask]:
    try:
        return load_task(task, model)
    except ValueError as error:
        # What the circuit's record names may have been a file, or lie elsewhere by now.
        absent = [name for name, flag in (("task", _TASK), ("model", _MODEL)) if not flag.value]
        hint = f"; --{' and --'.join(absent)} may say what the circuit's record does not"
        raise ValueError(f"{error}{hint if absent else ''}") from None


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    config = dataclasses.replace(
        _D,
        seeds=_SEEDS.value,
        steps=_STEPS.value,
        seed=_SEED.value,
        search=_SEARCH.value,
        polish=_POLISH.value,
        polish_at=_POLISH_AT.value,  # type: ignore[arg-type]  # the flag admits no other
        random_sets=_SETS.value,
        confidence=_CONFIDENCE.value,
        exhaustive=_MANY if _EXHAUSTIVE.value == -1 else _EXHAUSTIVE.value,
        sample=_SAMPLE if _EXHAUSTIVE.value == -1 else None,
        batch_size=_D.batch_size if _BATCH.value is None else _BATCH.value or None,
    )
    if _POLISH_AT.present and not _POLISH.value:
        raise ValueError("--polish_at has no meaning with --nopolish: leave one out")
    circuit = _circuit()
    if circuit.num_nodes == 0:
        raise ValueError(f"the circuit in {_CIRCUIT.value} keeps no node: nothing to audit")
    search_of(circuit)  # refuses, before anything is loaded
    model, task = _load(task_of(circuit, _TASK.value), _MODEL.value or circuit.model_name)
    circuit.check_model(model)
    keep_freed_memory()
    cache_compilations()
    out = pathlib.Path(_OUT.value) if _OUT.value else _place(pathlib.Path(_CIRCUIT.value or ""))
    with laid_out():
        figures = run_audit(
            model,
            task,
            circuit,
            out,
            config,
            hyper=_hyper(circuit),
            start=None if _START.value is None else load_circuit(_START.value),
            overwrite=_OVERWRITE.value,
            say=say,
        )
    print(f"{figures.task} on {figures.model}: {figures.nodes} nodes, {figures.edges} edges")
    print(check_lines(figures.checks))
    print(f"  written to {out}")
    tell_next(command("view", run=_CIRCUIT.value, audit=out, task=_TASK.value, model=_MODEL.value))


if __name__ == "__main__":
    run_main(main)
