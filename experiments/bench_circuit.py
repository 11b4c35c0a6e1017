"""Times the answers of a circuit: in the whole model, folded at one width, folded at each layer's own.

    python -m experiments.bench_circuit --circuits=runs/prune/tiny-python/single_double_quote

A JSON line per circuit and way to run it: `seconds` for --pairs pairs of the task (median of the
repeats, after a first call, `cold`, that compiles), `ratio`, how many times faster than the whole model
that is, and `apart`, how far its logit differences are from the whole model's at most. An audit's
knock-outs and the steps of polish are such runs, thousands of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from circuitjax.audit.audit import settings_of
from circuitjax.audit.evidence import gated_problem
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.load import load_circuit
from circuitjax.core.host import keep_freed_memory
from circuitjax.model.reduced import can_reduce, reduce_model
from circuitjax.prune.objective import answer_logits, logit_differences, reduced_logits
from circuitjax.prune.packing import packed_batches, some_of
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.tasks.base import Task
from experiments import bench_timing
from experiments.bench_timing import check_repeats, measured_line, print_line, timed
from experiments.command import exit_on_bad_input
from experiments.task_names import load_task

flags.adopt_module_key_flags(bench_timing)
_CIRCUITS = flags.DEFINE_list("circuits", None, "Directories of circuits, or of finished runs.")
_MODEL = flags.DEFINE_string("model", None, "Default: as each circuit names it.")
_TASK = flags.DEFINE_string("task", None, "Default: as each circuit names it.")
_PAIRS = flags.DEFINE_integer("pairs", 64, "Validation pairs that are answered.")


def _read() -> list[tuple[str, Circuit, Problem]]:
    if not _CIRCUITS.value:
        raise ValueError("--circuits is missing: name directories of circuits, or of finished runs")
    found = []
    for name in _CIRCUITS.value:
        circuit = load_circuit(name)
        if not isinstance(circuit, Circuit) or not can_reduce(circuit.config):
            raise ValueError(f"{name} is no circuit of nodes or weights whose model can be folded")
        named = _TASK.value or circuit.provenance.get("task")
        if named is None:
            raise ValueError(f"{name} does not say what it was found for: give --task")
        model, task = load_task(str(named), _MODEL.value or circuit.model_name)
        assert isinstance(task, Task)
        circuit.check_model(model)
        problem = gated_problem(make_problem(model, task, settings_of(circuit)), circuit)
        found.append((task.name, circuit, problem))
    return found


def _ways(circuit: Circuit, problem: Problem) -> dict[str, Callable[[], Any]]:
    """{name: what answers}; each returns differences of all pairs, on the device."""
    config = problem.config
    some = some_of(problem.validation, config.causal, _PAIRS.value)
    batches, _ = packed_batches(some, config.causal)
    params = jax.tree.map(np.asarray, dict(problem.params))
    gates = circuit.gates()
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}

    @jax.jit
    def whole(batch: Any) -> jax.Array:
        logits = answer_logits(config, problem.params, batch, gates, fills)
        return logit_differences(logits, batch.answers)

    @jax.jit
    def reduced(model: Any, batch: Any) -> jax.Array:
        logits = reduced_logits(model, batch, gates, candidates=True)
        return logits[..., 0] - logits[..., 1]

    ways: dict[str, Callable[[], Any]] = {"whole": lambda: [whole(batch) for batch in batches]}
    for name, own in (("one width", False), ("own widths", True)):
        small = reduce_model(config, params, circuit.mask, circuit.fills, own_widths=own)
        ways[name] = functools.partial(lambda model: [reduced(model, b) for b in batches], small)
    return ways


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_repeats()
    if _PAIRS.value < 1:
        raise ValueError(f"--pairs={_PAIRS.value} must be at least 1")
    circuits = _read()
    keep_freed_memory()
    about = {"version": jax.__version__, "device": jax.local_devices()[0].device_kind}
    for task, circuit, problem in circuits:
        known, seconds = None, 0.0
        for way, answer in _ways(circuit, problem).items():
            times, cold = timed(answer, jax.block_until_ready)
            found = np.concatenate(jax.device_get(answer()))
            known = found if known is None else known
            line = measured_line(times, measurement=way, task=task, cold=cold)
            seconds = seconds or float(np.median(times))
            line |= {
                "ratio": seconds / float(np.median(times)),
                "apart": float(np.max(np.abs(found - known))),
            }
            print_line(None, **about, nodes=circuit.num_nodes, pairs=_PAIRS.value, **line)


if __name__ == "__main__":
    app.run(main)
