"""Run as a process of its own: what a search says on however many devices there are, as arrays.

python -m tests.prune.on_devices MESH FILE.npz
"""

import sys

import jax
import numpy as np

from circuitjax.core.mesh import on_devices
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import answers, gate_slopes
from circuitjax.prune.find import prepare
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.train import Job
from tests.prune.planted import TASK, planted_model

ASKED = (("nodes", "mean"), ("nodes", "resample"), ("weights", "mean"), ("edges", "mean"))
SIZES = {"train": 64, "validation": 24, "test": 40, "steps": 4, "batch_size": 16, "chunk": 2}


def figures(grain: str, ablation: str) -> dict[str, np.ndarray]:
    """Logits, gradients and a short training of one grain."""
    search = default_search(grain, ablation=ablation, calibrate="off", **SIZES)
    problem = prepare(planted_model(), TASK, search)
    rng = np.random.default_rng(0)
    opened = rng.random((3, problem.whole.num_gates)) < 0.7
    found = answers(problem.whole, problem.batches, problem.validation, opened, full=True)
    slope = gate_slopes(problem, opened[0], problem.validation, "task")
    jobs = [Job(seed, Hyper(0.003, init_noise_scale=0.05, lr=0.02)) for seed in range(4)]
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    cut = [
        any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(tree))
        for tree in (state.tau, problem.whole.params)
    ]
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.tau)]
    return {
        "cut": np.array(cut),
        "odds": found.odds,
        "kl": found.kl,
        "slope": slope,
        **{f"tau{number}": leaf for number, leaf in enumerate(leaves)},
    }


def main(mesh: str, path: str) -> None:
    """Writes what all grains say."""
    with on_devices(mesh):
        every = {
            f"{grain}/{ablation}/{name}": value
            for grain, ablation in ASKED
            for name, value in figures(grain, ablation).items()
        }
    np.savez(path, devices=jax.device_count(), **every)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
