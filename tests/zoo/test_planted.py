"""The planted circuits are what they are said to be: sufficient, and no part of them can be spared.

Three grains: nodes (the others mean-ablated), single weights, and residual edges under interchange
of the two prompts of a pair. All losses are binary, in nats, on the test split.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.benchmarks.needed_edges import edge_runs
from circuitjax.benchmarks.truth import check_circuit, needed_alone
from circuitjax.model.graph import edge_list
from circuitjax.model.residual_graph import apply_graph, residual_graph, run_writers
from circuitjax.model.sites import parse_address, shapes
from circuitjax.model.transformer import apply
from circuitjax.zoo.planted.draft import SPLITS, Planted
from circuitjax.zoo.planted.models import planted_models

WORKS, SUFFICES, BREAKS, EMPTY = 0.05, 0.1, 0.15, 0.5
PAIRS = 128
# By default one seed of each, which make two architectures: one layer without norms, and two with
# RMSNorm, biases and sinks. Seeds 0 to 3 go through every architecture, and one to three layers.
DEFAULT = {
    "neuron_copy": 1,
    "position_head": 0,
    "two_hop": 0,
    "conjunction": 1,
    "value_composition": 1,
    "key_composition": 1,
    "decoys": 0,
}
CASES = [
    pytest.param(
        (name, build, seed),
        id=f"{name}-{seed}",
        marks=[] if seed == DEFAULT[name] else pytest.mark.slow,
    )
    for name, build in zip(DEFAULT, planted_models(), strict=True)
    for seed in range(4)
]


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens, gates, fills, last):
    return apply(config, params, tokens, gates, fills, positions=last).logits[:, 0]


graph_forward = jax.jit(apply_graph, static_argnums=0)
writers = jax.jit(run_writers, static_argnums=0)


class Bench:
    """Losses of one planted model under any gates."""

    def __init__(self, planted: Planted, split: str = "test"):
        self.planted, self.config = planted, planted.model.config
        self.params = jax.tree.map(jnp.asarray, dict(planted.model.params))
        tokens, last, answers = planted.pairs(split, PAIRS)
        self.tokens = tokens.reshape(2 * PAIRS, -1)
        self.last = last.reshape(-1, 1)
        self.right, self.wrong = answers.ravel(), answers[:, ::-1].ravel()
        swapped = tokens[:, ::-1].reshape(2 * PAIRS, -1)
        _, self.replacement = writers(self.config, self.params, swapped, self.last)
        self.true = {site: np.zeros(shape, bool) for site, shape in shapes(self.config).items()}
        for name in planted.nodes:
            layer, site, index = parse_address(self.config, name)
            self.true[site][layer, index] = True
        self.whole = {site: np.ones_like(mask) for site, mask in self.true.items()}

    def loss(self, logits) -> float:
        rows, logits = np.arange(len(self.right)), np.asarray(logits, np.float64)
        difference = logits[rows, self.right] - logits[rows, self.wrong]
        return float(np.logaddexp(0, -difference).mean())

    def nodes(self, mask, params=None) -> float:
        gates = {site: jnp.asarray(m, jnp.float32) for site, m in mask.items()}
        params = self.params if params is None else params
        means = self.planted.model.means
        return self.loss(forward(self.config, params, self.tokens, gates, means, self.last))

    def without_node(self, mask, name: str) -> float:
        layer, site, index = parse_address(self.config, name)
        changed = mask[site].copy()
        changed[layer, index] = False
        return self.nodes({**mask, site: changed})

    def without_weight(self, mask, source: str, target: str) -> float:
        layer, one, i = parse_address(self.config, source)
        _, other, j = parse_address(self.config, target)
        kernel = {
            "attn.v>attn.resid_delta": "attn_out",
            "mlp.act_in>mlp.post_act": "mlp_in",
            "mlp.post_act>mlp.resid_delta": "mlp_out",
        }.get(f"{one}>{other}", other.replace(".", "_"))
        values = np.array(self.params["layers"][kernel])
        assert values[layer, i, j] != 0
        values[layer, i, j] = 0
        stack = {**self.params["layers"], kernel: jnp.asarray(values)}
        return self.nodes(mask, {**self.params, "layers": stack})

    def edges(self, open_edges: np.ndarray) -> float:
        gates = jnp.asarray(open_edges, jnp.float32)
        arguments = (self.tokens, gates, self.replacement, self.last)
        return self.loss(graph_forward(self.config, self.params, *arguments)[:, 0])


@pytest.fixture(scope="module", params=CASES)
def bench(request) -> Bench:
    name, build, seed = request.param
    planted = build(seed)
    assert planted.name == name
    return Bench(planted)


def test_the_model_does_the_task_and_nodes_alone_do(bench):
    assert bench.nodes(bench.whole) < WORKS
    assert bench.nodes(bench.true) < SUFFICES
    empty = {site: np.zeros_like(mask) for site, mask in bench.true.items()}
    assert bench.nodes(empty) > EMPTY


def test_no_node_can_be_spared(bench):
    for name in bench.planted.nodes:
        assert bench.without_node(bench.true, name) > BREAKS, name
        assert bench.without_node(bench.whole, name) > BREAKS, name


def test_no_other_node_matters(bench):
    rest = {site: ~mask for site, mask in bench.true.items()}
    rng = np.random.default_rng(0)
    for _ in range(5):
        half = {s: bench.true[s] | (m & (rng.random(m.shape) < 0.5)) for s, m in rest.items()}
        assert bench.nodes(half) < SUFFICES


def test_the_weights_are_all_there_are_between_the_nodes_and_none_can_be_spared(bench):
    model = bench.planted.model
    found = edge_list(bench.config, model.params, bench.true)
    assert sorted((source, target) for source, target, _ in found) == list(bench.planted.weights)
    for source, target in bench.planted.weights:
        assert bench.without_weight(bench.true, source, target) > BREAKS, (source, target)
        assert bench.without_weight(bench.whole, source, target) > BREAKS, (source, target)


def test_residual_edges_suffice_and_just_they_are_needed(bench):
    names = residual_graph(bench.config).names
    true = np.isin(names, bench.planted.edges)
    assert true.sum() == len(bench.planted.edges)
    assert bench.edges(np.ones_like(true)) < WORKS
    assert bench.edges(true) < SUFFICES
    assert bench.edges(np.zeros_like(true)) > EMPTY
    for index, name in enumerate(names):
        one = np.arange(len(names)) == index
        if true[index]:
            assert bench.edges(~one) > BREAKS, name
            assert bench.edges(true & ~one) > BREAKS, name
        else:
            assert bench.edges(~one) < WORKS, name


def test_the_general_derivation_finds_the_planted_edges():
    bench = Bench(planted_models()[1](0))
    places = np.asarray(bench.last)
    swapped = bench.tokens.reshape(PAIRS, 2, -1)[:, ::-1].reshape(2 * PAIRS, -1)
    runs = edge_runs(
        bench.config, bench.params, bench.tokens, "interchange", swapped, positions=places
    )
    found = needed_alone(runs, tolerance=1.0)  # a distractor's noise is less than one nat
    assert set(found) == set(bench.planted.edges)
    assert check_circuit(runs, found, tolerance=1.0).minimal_and_sufficient


def test_pairs_are_aligned_and_splits_share_no_text(bench):
    texts = {}
    for split in SPLITS:
        tokens, last, answers = bench.planted.pairs(split, PAIRS, seed=3)
        assert tokens.dtype == last.dtype == answers.dtype == np.int32
        assert tokens.shape == (PAIRS, 2, last[0, 0] + 1)
        assert (tokens[:, 0, -1] == tokens[:, 1, -1]).all()
        assert (tokens[:, 0] != tokens[:, 1]).any(axis=1).all()
        assert (answers[:, 0] != answers[:, 1]).all()
        texts[split] = {row.tobytes() for row in tokens.reshape(2 * PAIRS, -1)}
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]


def test_a_seed_deals_the_parts():
    build = planted_models()[0]
    one, other = build(0), build(1)
    assert one is build(0)
    assert one.model.hash != other.model.hash
    assert one.nodes != other.nodes
