"""Times the answers of a circuit: in the whole model, folded at one width, folded at each layer's own.

    python -m experiments.bench_circuit --circuits=runs/prune/tiny-python/single_double_quote

A JSON line per circuit and way to run it: `seconds` for --pairs pairs of the task (median of the
repeats, after a first call, `cold`, that compiles), `ratio`, how many times faster than the whole model
that is, and `apart`, how far its log odds are from the whole model's at most. An audit's
knock-outs and the steps of polish are such runs, thousands of them.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from circuitjax.circuit.circuit import Circuit, load_circuit
from circuitjax.core.host import keep_freed_memory
from circuitjax.gated.measures import odds_of
from circuitjax.gated.protocol import View
from circuitjax.prune.config import Choices
from circuitjax.prune.problem import Problem, batches_of, make_problem
from circuitjax.prune.provenance import data_of
from experiments import bench_timing
from experiments.bench_timing import check_repeats, measured_line, print_line, timed
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_numbers
from experiments.progress import LINES, tell_next
from experiments.task_names import load_task, task_of

flags.adopt_module_key_flags(bench_timing)
_CIRCUITS = flags.DEFINE_list("circuits", None, "Directories of circuits, or of finished runs.")
_MODEL = flags.DEFINE_string("model", None, "Default: as each circuit names it.")
_TASK = flags.DEFINE_string("task", None, "Default: as each circuit names it.")
_PAIRS = flags.DEFINE_integer("pairs", 64, "Validation pairs that are answered.")


def _read() -> list[tuple[str, Circuit, View, Problem]]:
    if not _CIRCUITS.value:
        raise ValueError("--circuits is missing: name directories of circuits, or of finished runs")
    found = []
    for name in _CIRCUITS.value:
        circuit = load_circuit(name)
        model, task = load_task(task_of(circuit, _TASK.value), _MODEL.value or circuit.model_name)
        view = circuit.parts(model).get("nodes")
        if view is None or not view.model.sizes():
            raise ValueError(f"{name} is no circuit of nodes or weights whose model can be folded")
        data = data_of(circuit)
        problem = make_problem(model, task, Choices(ablation="zero"), data)
        found.append((task.name, circuit, view, problem))
    return found


@jax.jit
def _odds(model: Any, gates: jax.Array, batch: Any) -> jax.Array:
    return odds_of(model.answers(gates, batch), batch)


def _ways(view: View, problem: Problem) -> dict[str, Callable[[], Any]]:
    """{name: what answers}; each returns the log odds of all prompts, on the device."""
    whole, cut = view.model, batches_of(view.model)
    batches, _ = cut.even(cut.some(problem.validation, _PAIRS.value))
    gates = jnp.asarray(view.gates, jnp.float32)
    models = {
        "whole": whole,
        "one width": whole.reduced(view.gates),
        "own widths": whole.reduced(view.gates, own_widths=True),
    }

    def answer(model: Any) -> list[jax.Array]:
        return [_odds(model, gates, batch) for batch in batches]

    return {name: functools.partial(answer, model) for name, model in models.items()}


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_repeats()
    check_numbers(_PAIRS)
    circuits = _read()
    keep_freed_memory()
    about = {"version": jax.__version__, "device": jax.local_devices()[0].device_kind}
    for task, circuit, view, problem in circuits:
        known, seconds = None, 0.0
        for way, answer in _ways(view, problem).items():
            took = timed(answer, jax.block_until_ready)
            found = np.concatenate(jax.device_get(answer()))
            known = found if known is None else known
            line = measured_line(took, measurement=way, task=task, cold=took.cold)
            seconds = seconds or took.median
            line |= {
                "ratio": seconds / took.median,
                "apart": float(np.max(np.abs(found - known))),
            }
            print_line(None, **about, nodes=circuit.num_nodes, pairs=_PAIRS.value, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
