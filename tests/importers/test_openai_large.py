"""A released model at full size: written, imported, and one pruning step taken within 24 GiB."""

import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuitjax.prune.nodes import NodeMasks

from circuitjax.importers.openai import import_openai
from circuitjax.model.sites import shapes
from circuitjax.prune.config import PruneConfig, default_hyper
from circuitjax.prune.objective import Pairs
from circuitjax.prune.train import Job, run_chunks, start_jobs
from tests.importers import openai_reference as reference
from tests.importers.openai_files import write_folder

FIELDS = {
    "block_size": 256, "vocab_size": 2048, "n_layer": 8, "n_head": 128, "d_head": 16,
    "d_model": 2048, "d_mlp": 8192, "d_pos_emb": 512, "rms_norm": True, "tied_unembed": False,
    "enable_bigram_table": True, "learnable_bigram_table": True, "sink": True, "afrac": 0.25,
}  # fmt: skip


def peak_gib() -> float:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@pytest.mark.slow
def test_475_million_parameters_take_a_pruning_step(tmp_path):
    rng = np.random.default_rng(0)
    state = reference.random_state(FIELDS, rng, False)
    write_folder(tmp_path, FIELDS, state)
    del state
    started = time.perf_counter()
    model = import_openai(tmp_path)
    imported = time.perf_counter() - started
    config = model.config
    assert 474e6 < sum(np.size(leaf) for leaf in jax.tree.leaves(model.params)) < 476e6
    tokens = rng.integers(0, 2048, (8, 2, 32)).astype(np.int32)
    last, answers = np.full((8, 2), 31, np.int32), rng.integers(0, 2048, (8, 2)).astype(np.int32)
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(config).items()}
    objective = NodeMasks(config, PruneConfig(steps=1, batch_size=4))
    before = start_jobs(objective, [Job(0, default_hyper(config.num_nodes))])
    held = {site: np.asarray(tau) for site, tau in before.tau.items()}
    started = time.perf_counter()
    pairs = Pairs(*map(jnp.asarray, (tokens, last, answers)))
    after = run_chunks(objective, before, (dict(model.params), fills), pairs, 1)
    stepped = time.perf_counter() - started
    moved = sum(int(np.sum(np.asarray(after.tau[site]) != held[site])) for site in held)
    assert moved > 0.9 * config.num_nodes
    assert peak_gib() < 24
    print(f"\nimport {imported:.0f} s, step {stepped:.0f} s, peak {peak_gib():.1f} GiB")
