"""The residual graph against the plain forward, against sums taken edge by edge, and counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model import layers
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph, run_writers
from circuitjax.model.transformer import apply, init_params

BASE = TransformerConfig(
    num_layers=2, d_model=12, num_heads=2, d_head=4, d_mlp=16, vocab_size=24, context_length=16
)
VARIANTS = {
    "weight-sparse": {"attention_sinks": True, "bigram": True},
    "gpt2": {"norm": "layer", "activation": "gelu_tanh", "tied_unembedding": True},
    "no norm, not causal": {"norm": "none", "activation": "relu", "causal": False},
    "concatenated positions": {"position": "concatenated", "d_position": 3},
    "no positions, no biases": {"position": "none", "biases": False, "final_bias": True},
    "layer norm without bias": {"norm": "layer", "norm_bias": False},
    "sparse activations": {
        "abs_top_k_fraction": 0.5,
        "abs_top_k_sites": ("attn.act_in", "attn.q", "attn.v", "mlp.post_act", "mlp.resid_delta"),
    },
    "one layer": {"num_layers": 1},
}
TOKENS = np.random.default_rng(0).integers(0, 24, (2, 3, 9)).astype(np.int32)
TOKENS[1, :, -1] = TOKENS[0, :, -1]  # what passes no reader is the same in both runs
TOKENS[1, :, 4] = TOKENS[0, :, 4]
POSITIONS = np.array([[8], [8], [4]], np.int32)

graph_logits = jax.jit(apply_graph, static_argnums=0)
writers = jax.jit(run_writers, static_argnums=0)


def make(variant: str) -> tuple[TransformerConfig, dict]:
    config = dataclasses.replace(BASE, **VARIANTS[variant])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    rng = np.random.default_rng(1)
    return config, jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes)


def plain(config, params, tokens):
    logits = apply(config, params, tokens).logits
    return np.take_along_axis(np.asarray(logits), POSITIONS[:, :, None], axis=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_open_is_the_plain_model_and_all_closed_the_corrupted_run(variant):
    config, params = make(variant)
    clean, corrupted = TOKENS
    _, replacement = writers(config, params, corrupted, POSITIONS)
    size = residual_graph(config).num_edges
    found = graph_logits(config, params, clean, jnp.ones(size), replacement, POSITIONS)
    np.testing.assert_allclose(found, plain(config, params, clean), atol=2e-5, rtol=1e-5)
    found = graph_logits(config, params, clean, jnp.zeros(size), replacement, POSITIONS)
    np.testing.assert_allclose(found, plain(config, params, corrupted), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["weight-sparse", "concatenated positions"])
def test_one_batch_gives_the_logits_of_all_and_the_writers_of_some(variant):
    config, params = make(variant)
    both, places = np.concatenate(TOKENS), np.concatenate([POSITIONS, POSITIONS])
    logits, some = run_writers(config, params, both, places, slice(3, None))
    _, alone = writers(config, params, TOKENS[1], POSITIONS)
    np.testing.assert_allclose(logits[:3], plain(config, params, TOKENS[0]), atol=1e-5)
    for found, expected in zip(some.blocks(), alone.blocks(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def by_hand(config, params, tokens, gates, replacement: Writers):
    """Every reader's sum taken edge by edge, every head by itself."""
    graph = residual_graph(config)
    gate = {graph.edges[i]: float(z) for i, z in enumerate(gates)}
    stack = params["layers"]
    closed = [np.asarray(block)[i] for block in replacement.blocks() for i in range(len(block))]
    values = [params["embed"][tokens]]
    if config.position == "learned":
        values.append(np.broadcast_to(params["positions"][: tokens.shape[1]], values[0].shape))
    constant = np.zeros_like(values[0])
    reader = 0

    def read(name, layer, number):
        total = constant.copy()
        for writer, value in enumerate(values):
            z = gate[(writer, number)]
            total = total + z * value + (1 - z) * closed[writer]
        norm = {
            part: (params if layer is None else {k: v[layer] for k, v in stack.items()})[
                f"{name}_{part}"
            ]
            for part in ("scale", "bias")
            if f"{name}_{part}" in (params if layer is None else stack)
        }
        return layers.normalise(config, jnp.asarray(total), norm)

    for layer in range(config.num_layers):
        fresh = []
        for head in range(config.num_heads):
            columns = slice(head * config.d_head, (head + 1) * config.d_head)
            parts = []
            for part, name in enumerate("qkv"):
                seen = read("attn_norm", layer, reader + part * config.num_heads + head)
                value = seen @ stack[f"attn_{name}"][layer][:, columns]
                parts.append(value + stack[f"attn_{name}_bias"][layer][columns])
            q, k, v = (np.asarray(x, np.float64) for x in parts)
            scores = np.einsum("bpc,btc->bpt", q, k) / np.sqrt(config.d_head)
            length = tokens.shape[1]
            if config.causal:
                scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
            weights = np.exp(scores)
            total = weights.sum(-1, keepdims=True)
            if config.attention_sinks:
                total = total + np.exp(stack["attn_sink"][layer][head])
            fresh.append((weights / total) @ v @ stack["attn_out"][layer][columns])
        reader += 3 * config.num_heads
        values += fresh
        constant = constant + stack["attn_out_bias"][layer]
        seen = read("mlp_norm", layer, reader)
        reader += 1
        hidden = layers.activate(
            config, seen @ stack["mlp_in"][layer] + stack["mlp_in_bias"][layer]
        )
        values.append(hidden @ stack["mlp_out"][layer] + stack["mlp_out_bias"][layer])
    x = read("final_norm", None, reader)
    logits = x @ (params["embed"].T if config.tied_unembedding else params["unembed"])
    return logits + params["bigram"][tokens] if config.bigram else logits


@pytest.mark.parametrize("variant", ["weight-sparse", "gpt2", "no norm, not causal"])
@pytest.mark.parametrize("kind", ["interchange", "mean", "zero"])
def test_any_gates_give_the_sums_taken_edge_by_edge(variant, kind):
    config, params = make(variant)
    rng = np.random.default_rng(2)
    size = residual_graph(config).num_edges
    gates = np.where(rng.random(size) < 0.5, rng.random(size), rng.random(size) < 0.5)
    _, replacement = writers(config, params, TOKENS[1], POSITIONS)
    if kind != "interchange":
        factor = 1.0 if kind == "mean" else 0.0
        replacement = jax.tree.map(
            lambda block: factor * jnp.mean(block, axis=(1, 2), keepdims=True), replacement
        )
    found = graph_logits(
        config, params, TOKENS[0], jnp.asarray(gates, jnp.float32), replacement, POSITIONS
    )
    whole = jax.tree.map(lambda b: jnp.broadcast_to(b, (b.shape[0], 3, 9, b.shape[3])), replacement)
    with jax.numpy_rank_promotion("allow"):
        expected = by_hand(config, params, TOKENS[0], gates, whole)
    expected = np.take_along_axis(np.asarray(expected), POSITIONS[:, :, None], axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)


def test_the_edges_of_gpt2_small_are_counted():
    config = TransformerConfig(12, 768, 12, 64, 3072, 50257, 1024, norm="layer")
    graph = residual_graph(config)
    assert graph.num_edges == 32_936
    assert len(set(graph.edges)) == graph.num_edges
    assert len(graph.writers) == 2 + 12 * 13
    assert graph.from_positions.sum() == len(graph.readers) == 12 * 37 + 1


def test_an_edge_goes_forward_and_every_reader_sees_all_that_came_before():
    config, _ = make("weight-sparse")
    graph = residual_graph(config)
    assert graph.writers == ("embed", "pos", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")
    seen = {
        reader: {w for w, r in graph.edges if graph.readers[r] == reader}
        for reader in graph.readers
    }
    assert seen["a0.h1<k>"] == {0, 1}
    assert seen["m0<in>"] == {0, 1, 2, 3}
    assert seen["a1.h0<v>"] == {0, 1, 2, 3, 4}
    assert seen["logits"] == set(range(8))
    assert graph.names[0] == "embed->a0.h0<q>"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"residual_activation": "relu"}, "residual_activation"),
        (
            {"abs_top_k_fraction": 0.5, "abs_top_k_sites": ("resid.post_mlp",)},
            "abs_top_k_sites",
        ),
    ],
)
def test_a_stream_that_is_no_sum_is_refused(change, field):
    with pytest.raises(ValueError, match=field):
        residual_graph(dataclasses.replace(BASE, **change))


def test_gates_of_another_shape_are_refused():
    config, params = make("one layer")
    _, replacement = run_writers(config, params, TOKENS[1], POSITIONS)
    with pytest.raises(ValueError, match="shaped"):
        apply_graph(config, params, TOKENS[0], jnp.ones(3), replacement, POSITIONS)


def test_more_heads_than_any_network_has_are_refused_at_once():
    """A record of a circuit may say anything: nothing loops over it."""
    config = dataclasses.replace(BASE, num_layers=2048, num_heads=2**24)
    with pytest.raises(
        ValueError, match=r"2048 layers of 16777216 heads, and about .* residual edges"
    ):
        residual_graph(config)
    residual_graph(dataclasses.replace(BASE, num_layers=8, num_heads=64))


@pytest.mark.slow
def test_slopes_of_a_large_network_are_those_of_forward_mode():
    """At sizes of real networks: XLA on CPU has been seen to get a transposed scan wrong there."""
    config = TransformerConfig(
        num_layers=10, d_model=256, num_heads=8, d_head=32, d_mlp=512, vocab_size=64,
        context_length=32, num_kv_heads=4, gated_mlp=True, position="none",
    )  # fmt: skip
    params = init_params(jax.random.key(0), config)
    tokens = np.random.default_rng(0).integers(0, 64, (2, 8, 24)).astype(np.int32)
    positions = np.full((8, 1), 23, np.int32)
    _, replacement = writers(config, params, tokens[1], positions)
    graph = residual_graph(config)

    @jax.jit
    def value(gates):
        logits = apply_graph(config, params, tokens[0], gates, replacement, positions)
        return jnp.sum(jnp.sin(3.0 * logits))

    rng = np.random.default_rng(1)
    gates = jnp.asarray(rng.random(graph.num_edges), jnp.float32)
    slope = np.asarray(jax.jit(jax.grad(value))(gates), np.float64)
    along = jax.jit(lambda direction: jax.jvp(value, (gates,), (direction,))[1])
    readers = np.array([graph.readers[reader].partition("<")[0] for reader in graph.targets])
    for name in sorted(set(readers)):
        direction = np.where(readers == name, rng.normal(size=graph.num_edges), 0)
        expected = float(along(jnp.asarray(direction, jnp.float32)))
        scale = np.linalg.norm(slope * direction)
        assert slope @ direction == pytest.approx(expected, abs=1e-3 * scale, rel=1e-3), name
