"""Times a mask-training step on a task with a row a prompt, and with pairs packed in rows.

    python -m experiments.bench_rows --tasks=single_double_quote,class_init --batch_size=64 --jobs=1

A JSON line per task and kind of row: `seconds` of a step of all jobs (median of the repeats, after a
first call that compiles), `slots` of a pair (what goes through the model), and, on the packed line,
`ratio`, the plain rows' seconds over its own.
"""

import dataclasses
import sys

import jax
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.prune.defaults import Search, default_hyper, default_search
from circuitjax.prune.jobs import initial_state, objective_of
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import Job, make_train_chunk
from circuitjax.tasks.base import Task
from experiments import bench_timing
from experiments.bench_timing import (
    Timed,
    check_repeats,
    measured_line,
    peak_memory,
    print_line,
    timed,
)
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import MOST_JOBS, check_numbers
from experiments.progress import LINES, tell_next
from experiments.task_names import load_task

flags.adopt_module_key_flags(bench_timing)
_MODEL = flags.DEFINE_string(
    "model", "tiny-python", "Built-in model, or path of a model directory."
)
_TASKS = flags.DEFINE_list("tasks", ["single_double_quote"], "Names of tasks.")
_BATCH = flags.DEFINE_integer("batch_size", 64, "Pairs per step.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Jobs in one program.")
_CHUNK = flags.DEFINE_integer("chunk", 4, "Training steps per call of the program.")


def _time(problem: Problem, search: Search) -> tuple[Timed, float]:
    """What steps took, and slots of a pair."""
    rows = problem.batches.training(problem.train, search.train.batch_size)
    train_chunk = make_train_chunk(objective_of(problem, search))
    hyper = default_hyper(search, problem.whole.num_gates)
    state = initial_state(problem, search, [Job(seed, hyper) for seed in range(_JOBS.value)])

    def advance() -> jax.Array:
        nonlocal state
        state, metrics = train_chunk(state, _CHUNK.value, problem.trained, rows)
        return metrics["loss"]

    found = timed(advance, jax.block_until_ready)
    slots = rows.prompts.tokens.size / problem.train.items
    return found.per(_CHUNK.value), slots


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_repeats()
    check_numbers(_BATCH, _CHUNK)
    check_numbers(_JOBS, most=MOST_JOBS)
    about = {
        "version": jax.__version__,
        "device": jax.local_devices()[0].device_kind,
        "freed_memory_kept": keep_freed_memory(),
        "memory_before_mib": peak_memory(),
        "batch_size": _BATCH.value,
        "jobs": _JOBS.value,
    }
    for name in _TASKS.value:
        model, task = load_task(name, _MODEL.value)
        assert isinstance(task, Task)
        search = default_search(steps=100_000, batch_size=_BATCH.value)
        packed = make_problem(model, task, search.choices, search.data)
        plain = dataclasses.replace(packed, train=dataclasses.replace(packed.train, row_length=0))
        alone = None
        for rows, problem in (("plain", plain), ("packed", packed)):
            took, slots = _time(problem, search)
            line = measured_line(took, measurement=rows, task=name, cold=took.cold, slots=slots)
            line |= {} if alone is None else {"ratio": alone / took.median}
            alone = took.median
            print_line(None, **about, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
