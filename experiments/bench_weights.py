"""Times and weighs the pruning of single weights in a large sparse model: one JSON line.

    python -m experiments.bench_weights --nonzeros=10_000_000 --jobs=8

One training step of all jobs in one program, on a model with random weights of which `nonzeros` are
not zero, each with a gate of its own, on 8 pairs of 32 tokens in float32. `seconds` is the median of the
repeats after a warm-up, `cold` the first call with its compilation; peak memory is that of the process.
"""

import dataclasses
import sys

import jax
import numpy as np
from absl import flags

from circuitjax.core.host import keep_freed_memory
from circuitjax.gated.examples import Examples
from circuitjax.gated.weights import WeightGates, weight_gates
from circuitjax.model.config import TransformerConfig
from circuitjax.model.families import FAMILIES
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params
from circuitjax.prune.defaults import default_hyper, default_search
from circuitjax.prune.objective import Objective
from circuitjax.prune.train import Job, make_train_chunk, start_jobs
from experiments import bench_timing
from experiments.bench_timing import check_repeats, measured_line, peak_memory, print_line, timed
from experiments.command import exit_on_bad_input, run_main
from experiments.limits import MOST_JOBS, check_numbers
from experiments.progress import LINES, tell_next

flags.adopt_module_key_flags(bench_timing)
_NONZEROS = flags.DEFINE_integer("nonzeros", 10_000_000, "Weights that are not zero.")
_JOBS = flags.DEFINE_integer("jobs", 8, "Jobs in one program.")
_LAYERS = flags.DEFINE_integer("layers", 4, "Layers.")
_WIDTH = flags.DEFINE_integer("d_model", 1024, "Residual channels, a multiple of 64.")
_CHUNK = flags.DEFINE_integer("chunk", 1, "Training steps per call of the program.")

PAIRS, LENGTH, VOCABULARY = 8, 32, 2048


def sparse_model(config: TransformerConfig, nonzeros: int) -> dict[str, np.ndarray]:
    """Random parameters whose gated kernels hold `nonzeros` weights, spread evenly over their entries.

    Raises:
      ValueError: more nonzeros than entries.
    """
    params = jax.tree.map(np.asarray, init_params(jax.random.key(0), config))
    sizes = [params["layers"][family.kernel].size for family in FAMILIES]
    if not 1 <= nonzeros <= sum(sizes):
        raise ValueError(
            f"--nonzeros={nonzeros} must be from 1 to {sum(sizes)}, the entries of all kernels"
        )
    kept = np.zeros(sum(sizes), bool)
    kept[np.linspace(0, kept.size - 1, nonzeros).astype(np.int64)] = True
    start, layers = 0, dict(params["layers"])
    for family, size in zip(FAMILIES, sizes, strict=True):
        kernel = layers[family.kernel]
        layers[family.kernel] = kernel * kept[start : start + size].reshape(kernel.shape)
        start += size
    return {**params, "layers": layers}


def random_pairs() -> Examples:
    """`PAIRS` pairs of random tokens."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCABULARY, (PAIRS, 2, LENGTH))
    answers = rng.integers(0, VOCABULARY, (PAIRS, 2))
    return Examples.of_pairs(tokens, np.full((PAIRS, 2), LENGTH - 1), answers)


def build(config: TransformerConfig, nonzeros: int) -> WeightGates:
    """The model with a gate on every weight, means at zero."""
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(config).items()}
    return weight_gates(config, sparse_model(config, nonzeros), fills, "mean")


@exit_on_bad_input
def main(argv: list[str]) -> None:
    del argv
    check_repeats()
    check_numbers(_CHUNK, _NONZEROS)
    check_numbers(_JOBS, _LAYERS, most=MOST_JOBS)
    check_numbers(_WIDTH, least=64, most=2**16)
    if _WIDTH.value < 64 or _WIDTH.value % 64:
        raise ValueError(f"--d_model={_WIDTH.value} must be a multiple of 64")
    width = _WIDTH.value
    config = TransformerConfig(
        _LAYERS.value, width, width // 64, 64, 4 * width, VOCABULARY, 2 * LENGTH
    )
    about = {
        "framework": "jax",
        "version": jax.__version__,
        "backend": jax.default_backend(),
        "device": jax.local_devices()[0].device_kind,
        "freed_memory_kept": keep_freed_memory(),
        "memory_before_mib": peak_memory(),
        **{name: dataclasses.asdict(config)[name] for name in ("num_layers", "d_model")},
    }
    gated = build(config, _NONZEROS.value)
    hyper = default_hyper(default_search("weights", control="count"), _NONZEROS.value)
    objective = Objective(
        "heaviside", "task", "count", "binary", False, True, "loss", steps=100_000, batch_size=PAIRS
    )
    train_chunk = make_train_chunk(objective)
    state = start_jobs(objective, [Job(seed, hyper) for seed in range(_JOBS.value)], gated)
    pairs = random_pairs()

    def advance() -> jax.Array:
        nonlocal state
        state, metrics = train_chunk(state, _CHUNK.value, gated, pairs)
        return metrics["loss"]

    found = timed(advance, jax.block_until_ready)
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    line = measured_line(found.per(_CHUNK.value), measurement="step", cold=found.cold)
    line |= {"nonzeros": _NONZEROS.value, "gates": gated.num_gates, "jobs": _JOBS.value}
    print_line(None if peak is None else peak / 2**20, **about, **line)
    tell_next(LINES, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
