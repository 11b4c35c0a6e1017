"""Times residual-edge pruning: one JSON line per measurement.

    python -m experiments.bench_edges --sizes=small,gpt2 --measurements=step,jobs

    step   one training step on 8 examples (clean and corrupted prompts of --tokens, float32): the full
           model's and the corrupted run in one batch, the circuit's run, its gradient, the update
    parts  the same step's runs of the full and the corrupted model alone, and the circuit's run alone
    jobs   8 jobs as one program; `ratio` is 8 jobs one after another over it
    targets (only if asked for) no time but what is reached: 8 target sparsities trained as jobs of one
           program, the expected sparsity at the end, KL against edges of the sets that the soft gates
           are expected to leave open, on 64 examples

small: 4 layers, 4 heads, d_model 128, vocabulary 1024. gpt2, smollm2: the sizes of GPT-2 small and of
SmolLM2-135M. All with random weights. `seconds` is the median of the repeats after a warm-up, `cold` the
first call with its compilation; peak memory is that of the process so far.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.gated.edges import EdgeGates
from circuitjax.gated.examples import Examples
from circuitjax.gated.replacement import refer
from circuitjax.model.config import Rotary, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import init_params
from circuitjax.prune.candidates import candidates_of
from circuitjax.prune.defaults import Search, default_hyper, default_search
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.problem import Problem, batches_of
from circuitjax.prune.train import Job, MaskState, make_train_chunk
from experiments import bench_timing
from experiments.bench_timing import check_repeats, measured_line, peak_memory, print_line, timed
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import check_names, check_numbers
from experiments.progress import LINES, tell_next

SIZES: Mapping[str, TransformerConfig] = MappingProxyType(
    {
        "small": TransformerConfig(4, 128, 4, 32, 512, 1024, 64, norm="layer"),
        "gpt2": TransformerConfig(
            12, 768, 12, 64, 3072, 50257, 1024, norm="layer", tied_unembedding=True
        ),
        "smollm2": TransformerConfig(
            30,
            576,
            9,
            64,
            1536,
            49152,
            8192,
            activation="silu",
            position="rotary",
            biases=False,
            rotary=Rotary(64, 100_000.0),
            num_kv_heads=3,
            gated_mlp=True,
            tied_unembedding=True,
        ),
    }
)
flags.adopt_module_key_flags(bench_timing)
_SIZES = flags.DEFINE_list("sizes", ["small", "gpt2"], "Which models.")
_TOKENS = flags.DEFINE_integer("tokens", 32, "Length of the prompts.")
_MEASUREMENTS = flags.DEFINE_list("measurements", ["step", "parts", "jobs"], "Which ones.")
_CHUNK = flags.DEFINE_integer("chunk", 2, "Training steps per call of the program.")
_STEPS = flags.DEFINE_integer("steps", 300, "Training steps of `targets`.")

JOBS, BATCH = 8, 8


def _search(**changes: Any) -> Search:
    settings = {"steps": 100_000, "batch_size": BATCH, **changes}
    return default_search("edges", paired=False, **settings)


def _problem(name: str) -> Problem:
    config = SIZES[name]
    params = jax.jit(functools.partial(init_params, config=config))(jax.random.key(0))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (64, 2, _TOKENS.value))
    right, wrong = rng.integers(0, config.vocab_size, (2, 64, 1))
    examples = Examples(
        tokens=jnp.asarray(tokens, jnp.int32),
        positions=jnp.full((64, 1), _TOKENS.value - 1, jnp.int32),
        right=jnp.asarray(right, jnp.int32),
        wrong=jnp.asarray(wrong, jnp.int32),
    )
    whole = EdgeGates(params, None, config=config)
    model = Model(name, config, jax.tree.map(np.asarray, params))
    return Problem(model, whole, whole, examples, examples, examples, batches_of(whole))


def _stepper(problem: Problem, jobs: int) -> Callable[[], MaskState]:
    search = _search()
    hyper = default_hyper(search, problem.whole.num_gates)
    state = initial_state(problem, search, [Job(seed, hyper) for seed in range(jobs)])
    train_chunk = make_train_chunk(objective_of(problem, search))

    def advance() -> MaskState:
        nonlocal state
        state, _ = train_chunk(state, _CHUNK.value, problem.trained, problem.train)
        return state

    return advance


def time_step(problem: Problem) -> list[dict[str, Any]]:
    """One job's training step."""
    found, steps = timed(_stepper(problem, 1), jax.block_until_ready), _CHUNK.value
    return [
        measured_line(found.per(steps), measurement="step", cold=found.cold, steps_per_call=steps)
    ]


def time_parts(problem: Problem) -> list[dict[str, Any]]:
    """The forward passes of a step."""
    model, batch = problem.whole, problem.train.first(BATCH)
    references = jax.jit(lambda model, batch: refer(model, batch, jax.random.key(0), full=True))
    _, writers = references(model, batch)
    gates = jnp.ones(model.num_gates)
    run = jax.jit(lambda model, held, z: model.logits(z, batch, held))
    lines = []
    for name, call in (
        ("full_and_corrupted_forward", lambda: references(model, batch)),
        ("circuit_forward", lambda: run(model, writers, gates)),
    ):
        found = timed(call, jax.block_until_ready)
        lines.append(measured_line(found, measurement=name, cold=found.cold))
    return lines


def time_jobs(problem: Problem) -> list[dict[str, Any]]:
    """8 jobs as one program against the same 8, each run by itself."""
    together = timed(_stepper(problem, JOBS), jax.block_until_ready)
    alone = _stepper(problem, 1)

    def one_after_another() -> None:
        for _ in range(JOBS):
            jax.block_until_ready(alone())

    apart = timed(one_after_another, jax.block_until_ready)
    steps = _CHUNK.value
    line = measured_line(together.per(steps), measurement="jobs", cold=together.cold, jobs=JOBS)
    ratio = apart.median / together.median
    return [line | {"seconds_apart": apart.median / steps, "ratio": ratio}]


def reach_targets(problem: Problem) -> list[dict[str, Any]]:
    """Requested and achieved sparsity, and KL against edges, of 8 jobs."""
    search, total = _search(steps=_STEPS.value, threshold="match_soft"), problem.whole.totals()[1]
    targets = 1 - np.geomspace(0.3, 0.01, JOBS)
    jobs = [Job(0, default_hyper(search, total, target_sparsity=float(t))) for t in targets]
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    lines = []
    for target, found in zip(targets, candidates_of(problem, search, jobs, state), strict=True):
        lines.append(
            {
                "measurement": "targets",
                "steps": _STEPS.value,
                "requested": float(target),
                "expected": 1 - found.choice.soft / total,
                "kept": found.edges,
                "kl": found.choice.kl,
            }
        )
    return lines


_MEASURE = MappingProxyType(
    {"step": time_step, "parts": time_parts, "jobs": time_jobs, "targets": reach_targets}
)


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_repeats()
    check_numbers(_CHUNK, _STEPS, _TOKENS)
    for flag, values, known in (
        ("sizes", _SIZES.value, SIZES),
        ("measurements", _MEASUREMENTS.value, _MEASURE),
    ):
        check_names(flag, values, known)
    about = {
        "framework": "jax",
        "version": jax.__version__,
        "backend": jax.default_backend(),
        "device": jax.local_devices()[0].device_kind,
        "freed_memory_kept": keep_freed_memory(),
        "memory_before_mib": peak_memory(),
    }
    for name in _SIZES.value:
        problem = _problem(name)
        edges = problem.whole.num_gates
        for measurement in _MEASUREMENTS.value:
            for line in _MEASURE[measurement](problem):
                stats = jax.local_devices()[0].memory_stats() or {}
                peak = stats.get("peak_bytes_in_use")
                device = None if peak is None else peak / 2**20
                print_line(device, **about, size=name, edges=edges, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
