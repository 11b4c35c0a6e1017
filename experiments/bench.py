"""Times mask training, selection and calibration: one JSON line per measurement.

    python -m experiments.bench --workloads=S,M --measurements=step,select,calibrate,jobs

    step       one mask-training step on a batch of 64 pairs (128 sequences of 64 tokens)
    select     a whole selection on 20 batches, calibrated at every k it looks at
    probe      the selection's time per circuit evaluated
    calibrate  the circuit's forward passes over 20 batches, and 16 L-BFGS steps on the log odds
               they give; `calibrate_forward` and `calibrate_fit` are its parts
    jobs       8 jobs as one program; `ratio` is 8 jobs one after another over it

    python -m experiments.bench --against=torch --workloads=M --measurements=step,select,calibrate

runs this program and `bench_torch.py` in turn, and tells ratios with their spread, CPU seconds, memory,
and the share of a plain matrix product's rate that a step attains. Both keep to the cores that they are
given (`taskset -c 0`).

`seconds` is the median of the repeats after a warm-up, `cold` the first call with its compilation.
Peak memory is that of the
process so far: for one measurement's own, ask for it alone. The task is
made so that a selection has something to find: pairs are labelled by the circuit of the first 5% of
the nodes in a random ranking, the selection is given that ranking and a target of 0.15 nats.
`bench_torch.py` times the same work in PyTorch.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.cut import Choice, choose
from circuitjax.prune.defaults import default_hyper, default_search
from circuitjax.prune.jobs import initial_state, objective_of
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import Problem, batches_of
from circuitjax.prune.rank import Ranked
from circuitjax.prune.train import Job, MaskState, make_train_chunk
from experiments import bench_timing, bench_workloads
from experiments.bench_against import COMPARED, against, table
from experiments.bench_timing import measured_line, peak_memory, print_line, timed
from experiments.bench_workloads import (
    LABELLED_BY,
    WORKLOADS,
    Arrays,
    Workload,
    chosen,
    draw,
    make_config,
)
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_numbers
from experiments.progress import LINES, tell_next

flags.adopt_module_key_flags(bench_timing)
flags.adopt_module_key_flags(bench_workloads)
_MEASUREMENTS = flags.DEFINE_list(
    "measurements", ["step", "select", "calibrate", "jobs"], "Which of the four."
)
_CHUNK = flags.DEFINE_integer("chunk", 4, "Training steps per call of the program, at least 2.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Operands of matrix products."
)

_AGAINST = flags.DEFINE_enum(
    "against", None, ["torch"], "Run the same work in PyTorch in turn, and compare."
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "With --against: how often both run.")

JOBS = 8


def to_pairs(tokens: np.ndarray, answers: tuple[int, int]) -> Examples:
    """Tokens `[B, 2, T]` as pairs that share their answers."""
    shape, length = tokens.shape[:2], tokens.shape[2]
    return Examples.of_pairs(tokens, np.full(shape, length - 1), np.broadcast_to(answers, shape))


def make_problem(workload: Workload, arrays: Arrays, config: TransformerConfig) -> Problem:
    """The problem, its validation prompts sorted into positives and negatives by a circuit."""
    validation = to_pairs(arrays.validation, arrays.answers)
    params, fills = jax.tree.map(jnp.asarray, (arrays.params, arrays.fills))
    whole = NodeGates(params, fills, config=config)
    problem = Problem(
        model=Model("random", config, arrays.params),
        whole=whole,
        trained=whole,
        train=to_pairs(arrays.train, arrays.answers),
        validation=validation,
        test=validation,
        batches=batches_of(whole),
    )
    odds = circuit_odds(problem, arrays.ranks, circuit_size(workload))
    differences = odds.reshape(-1, 2) * [1, -1]  # of the same two completions after each prompt
    order = np.argsort(-differences.reshape(-1), kind="stable")
    positives, negatives = np.split(arrays.validation.reshape(-1, workload.length)[order], 2)
    labelled = to_pairs(np.stack([positives, negatives], axis=1), arrays.answers)
    return dataclasses.replace(problem, validation=labelled, test=labelled)


def circuit_odds(problem: Problem, ranks: np.ndarray, k: int) -> np.ndarray:
    """Log odds `[1, M]` of the first k nodes' circuit on the prompts of the validation pairs."""
    return Prober(problem, [ranks]).answers(problem.validation, 0, [k]).odds


def circuit_size(workload: Workload) -> int:
    """Nodes of the circuit that labels the pairs."""
    return int(LABELLED_BY * workload.num_nodes)


def _stepper(problem: Problem, jobs: int) -> Callable[[], MaskState]:
    """Takes `--chunk` steps of `jobs` jobs at each call."""
    search = default_search(batch_size=problem.train.items // 4, steps=10_000)
    hyper = default_hyper(search, problem.whole.num_gates)
    state = initial_state(problem, search, [Job(seed, hyper) for seed in range(jobs)])
    train_chunk = make_train_chunk(objective_of(problem, search))

    def advance() -> MaskState:
        nonlocal state
        state, _ = train_chunk(state, _CHUNK.value, problem.trained, problem.train)
        return state

    return advance


def time_step(problem: Problem, arrays: Arrays, size: int) -> list[dict[str, Any]]:
    """One job's training step."""
    del arrays, size
    took, steps = timed(_stepper(problem, 1), jax.block_until_ready), _CHUNK.value
    return [
        measured_line(took.per(steps), measurement="step", cold=took.cold, steps_per_call=steps)
    ]


def time_select(problem: Problem, arrays: Arrays, size: int) -> list[dict[str, Any]]:
    """A whole selection, and its time per probe."""
    found: list[Choice] = []
    ranked = Ranked(arrays.ranks, arrays.ranks < size, trained=size)

    def select() -> None:
        found.extend(choose(problem, default_search().selection, [ranked]))

    took = timed(select, jax.block_until_ready)
    choice, probes = found[-1], len(found[-1].curve)
    facts = {"probes": probes, "nodes_chosen": choice.selection.k, "reached": choice.reached}
    return [
        measured_line(took, measurement="select", cold=took.cold, **facts),
        measured_line(took.per(probes), measurement="probe", **facts),
    ]


def time_calibrate(problem: Problem, arrays: Arrays, size: int) -> list[dict[str, Any]]:
    """Forward passes of one circuit and its fit: together, then apart."""

    def forward() -> np.ndarray:
        return circuit_odds(problem, arrays.ranks, size)

    values = forward()
    lines = []
    for name, run in (
        ("calibrate", lambda: calibrate(forward())),
        ("calibrate_forward", forward),
        ("calibrate_fit", lambda: calibrate(values)),
    ):
        took = timed(run, jax.block_until_ready)
        lines.append(measured_line(took, measurement=name, nodes=size))
    return lines


def time_jobs(problem: Problem, arrays: Arrays, size: int) -> list[dict[str, Any]]:
    """8 jobs as one program against the same 8, each run by itself."""
    del arrays, size
    together = timed(_stepper(problem, JOBS), jax.block_until_ready)
    alone = _stepper(problem, 1)

    def one_after_another() -> None:
        for _ in range(JOBS):
            jax.block_until_ready(alone())

    apart = timed(one_after_another, jax.block_until_ready)
    steps = _CHUNK.value
    line = measured_line(
        together.per(steps),
        measurement="jobs",
        cold=together.cold,
        steps_per_call=steps,
        jobs=JOBS,
    )
    line |= {"seconds_apart": apart.median / steps}
    return [line | {"ratio": apart.median / together.median}]


_MEASURE = {
    "step": time_step,
    "select": time_select,
    "calibrate": time_calibrate,
    "jobs": time_jobs,
}


def _device_memory() -> float | None:
    """Greatest memory in use on the device so far in MiB, or None where it does not tell."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else peak / 2**20


def _compare(peer: str) -> None:
    """Both programs in turn: a JSON line for each row on stdout, and a table on stderr."""
    asked = [name for name in _MEASUREMENTS.value if name != "jobs" or _MEASUREMENTS.present]
    if _DTYPE.value != "float32":
        raise ValueError(f"--dtype={_DTYPE.value} is not compared: PyTorch's loop is float32")
    rows = []
    for name, top_k in chosen(tuple(COMPARED.values()), asked):
        rows += against(
            peer, name, "on" if top_k else "off", asked, _ROUNDS.value,
            flags.FLAGS.repeats,
        )  # fmt: skip
    for row in rows:
        print(json.dumps(row))
    print(table(peer, rows), file=sys.stderr)
    tell_next(LINES, file=sys.stderr)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_numbers(_CHUNK, least=2)
    check_numbers(_ROUNDS)
    if _AGAINST.value:
        _compare(_AGAINST.value)
        return
    asked = chosen(tuple(_MEASURE), _MEASUREMENTS.value)
    about = {
        "framework": "jax",
        "version": jax.__version__,
        "backend": jax.default_backend(),
        "device": jax.local_devices()[0].device_kind,
        "dtype": _DTYPE.value,
        "freed_memory_kept": keep_freed_memory(),
        "memory_before_mib": peak_memory(),
    }
    for name, abs_top_k in asked:
        workload = WORKLOADS[name]
        arrays = draw(workload)
        problem = make_problem(workload, arrays, make_config(workload, abs_top_k, _DTYPE.value))
        which = {"workload": name, "abs_top_k": "on" if abs_top_k else "off"}
        for measurement in _MEASUREMENTS.value:
            for line in _MEASURE[measurement](problem, arrays, circuit_size(workload)):
                print_line(_device_memory(), **about, **which, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
