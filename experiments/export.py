"""Writes a circuit for other programs: JSON, GraphML, DOT, a benchmark's graph, the authors' viewer.

    python -m experiments.export --circuit=my_circuit --format=json,graphml,dot --out=exported

In --out: graph.json (its schema is circuitjax/circuit/schema/circuit.schema.json), graph.graphml,
graph.dot, benchmark.json; for the viewer of openai/circuit_sparsity viz/ and models/.
"""

import pathlib

from absl import flags

from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.files import require_place
from circuitjax.core.host import cache_compilations, keep_freed_memory
from circuitjax.export.formats import FORMATS, check_formats, export_circuit
from circuitjax.model.record import Model
from circuitjax.prune.config import Choices
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.provenance import data_of
from circuitjax.run.directory import AUDIT, RUN, STUDY, SUITE
from experiments.command import exit_on_bad_input, run_main
from experiments.progress import tell_next
from experiments.task_names import model_of, task_for, task_of

_CIRCUIT = flags.DEFINE_string("circuit", None, "Directory of a circuit.", required=True)
_FORMAT = flags.DEFINE_list("format", ["json"], f"Comma-separated, of {', '.join(FORMATS)}.")
_OUT = flags.DEFINE_string("out", None, "Directory to write to.", required=True)
_MODEL = flags.DEFINE_string(
    "model", None, "Built-in model, or path of a model directory. Default: as the circuit names it."
)
_TASK = flags.DEFINE_string(
    "task",
    None,
    "Format viewer: task whose prompts it shows, a name or a .jsonl file. Default: the circuit's.",
)


def _problem(circuit: Circuit, model: Model) -> Problem:
    task = task_for(task_of(circuit, _TASK.value), model)
    # What closed nodes hold is the circuit's own; of its search only the sets' sizes matter.
    return make_problem(model, task, Choices(ablation="zero"), data_of(circuit))


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    require_place(_OUT.value, folder=True)
    for kind in (RUN, AUDIT, STUDY, SUITE):
        if (pathlib.Path(_OUT.value) / kind.record).exists():
            raise ValueError(
                f"--out={_OUT.value} is the directory of a {kind.what}, with files of its own: choose "
                "another"
            )
    circuit = load_circuit(_CIRCUIT.value)
    model = model_of(circuit, _MODEL.value)
    check_formats(_FORMAT.value, circuit, model)
    if _TASK.value is not None and "viewer" not in _FORMAT.value:
        raise ValueError("--task has no meaning without --format=viewer: leave it out")
    problem = None
    if "viewer" in _FORMAT.value:
        keep_freed_memory()
        cache_compilations()
        problem = _problem(circuit, model)
    try:
        paths = export_circuit(circuit, model, _FORMAT.value, _OUT.value, problem=problem)
    except OSError as error:
        raise ValueError(f"cannot write --out={_OUT.value}: {error}") from None
    for path in paths:
        print(f"{path} ({path.stat().st_size} bytes)")
    tell_next("docs/reference/files.md says what each file holds, and what reads it")


if __name__ == "__main__":
    run_main(main)
