"""What families differ in, as laws: on tiny random models of every feature, without any reference."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model import layers
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.layout import Layout
from circuitjax.model.record import content_hash
from circuitjax.model.reduced import can_reduce, reduce_model
from circuitjax.model.residual_graph import apply_graph, residual_graph, run_writers
from circuitjax.model.rotary import Rotary, turn
from circuitjax.model.sites import address, flatten, parse_address, shapes, unflatten
from circuitjax.model.transformer import apply, init_params

BASE = TransformerConfig(
    num_layers=3, d_model=12, num_heads=4, d_head=6, d_mlp=16, vocab_size=24, context_length=16
)
ROTARY = {"position": "rotary", "rotary": Rotary(6, 50.0)}
LLAMA = {**ROTARY, "gated_mlp": True, "num_kv_heads": 2, "activation": "silu", "biases": False}
VARIANTS = {
    "rotary": ROTARY,
    "llama": LLAMA,
    "qwen": {**LLAMA, "biases": True, "qk_norm": True},
    "neox": {**ROTARY, "norm": "layer", "parallel": True, "rotary": Rotary(2)},
    "gemma": {
        **LLAMA,
        "local_rotary": Rotary(6, 3.0, "linear", 2.0),
        "windows": (3, 0, 2),
        "qk_norm": True,
        "post_norms": True,
        "attention_scale": 0.3,
        "attention_softcap": 2.0,
        "logit_softcap": 3.0,
        "embed_scale": 3.5,
        "num_kv_heads": 1,
    },
    "gemma, biased": {**LLAMA, "post_norms": True, "biases": True, "tied_unembedding": True},
    "parallel, learned positions": {"parallel": True, "gated_mlp": True},
}
TOKENS = np.random.default_rng(0).integers(0, 24, (2, 3, 9)).astype(np.int32)
POSITIONS = np.array([[8], [8], [4]], np.int32)

run = jax.jit(apply, static_argnums=0, static_argnames="capture")
graph_logits = jax.jit(apply_graph, static_argnums=0)
writers = jax.jit(run_writers, static_argnums=0)


def make(variant: str) -> tuple[TransformerConfig, dict]:
    config = dataclasses.replace(BASE, **VARIANTS[variant])
    like = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    rng = np.random.default_rng(1)
    return config, jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), like)


def at_positions(logits):
    return np.take_along_axis(np.asarray(logits), POSITIONS[:, :, None], axis=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_description_survives_json(variant):
    config, _ = make(variant)
    text = json.dumps(config.to_dict())
    assert TransformerConfig.from_dict(json.loads(text)) == config


def test_what_came_later_does_not_enter_old_hashes():
    fields = BASE.to_dict()
    assert len(fields) == 23
    assert not {"gated_mlp", "rotary", "windows", "embed_scale"} & fields.keys()
    params = {"embed": np.arange(6, dtype=np.float32).reshape(3, 2), "layers": {"x": np.ones(2)}}
    found = content_hash(BASE, params)
    assert found.startswith("a0c31046f7553c34")  # as before these fields came


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_at_positions_are_those_of_all(variant):
    config, params = make(variant)
    whole = run(config, params, TOKENS[0]).logits
    some = run(config, params, TOKENS[0], positions=POSITIONS).logits
    np.testing.assert_allclose(some, at_positions(whole), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["llama", "gemma", "neox"])
def test_two_prompts_in_a_row_are_two_prompts(variant):
    """A layout: tokens turn by their place in their prompt, and windows count from there."""
    config, params = make(variant)
    one, two = TOKENS[0, 0, :9], TOKENS[1, 0, :6]
    slots = np.concatenate([one, two])[None]
    row = jnp.asarray
    places = row(np.r_[np.arange(9), np.arange(6)][None].astype(np.int32))
    prompt = row(np.r_[np.zeros(9), np.ones(6)][None].astype(np.int32))
    layout = Layout(places, prompt, prompt, jnp.zeros_like(prompt))
    found = np.asarray(run(config, params, slots, layout=layout).logits)[0]
    expected = [np.asarray(run(config, params, part[None]).logits)[0] for part in (one, two)]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_closed_nodes_hold_what_they_are_given(variant):
    """All open: the model. All closed, filled from another run: what that run's blocks write."""
    config, params = make(variant)
    stream = ("resid.pre", "resid.post")
    other = run(config, params, TOKENS[1], capture=(*config.sites, *stream)).captured
    fills = {site: other[site] for site in config.sites}
    gates = {site: jnp.ones(shape) for site, shape in shapes(config).items()}
    found = run(config, params, TOKENS[0], gates, fills).logits
    expected = run(config, params, TOKENS[0]).logits
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    gates = {site: jnp.zeros(shape) for site, shape in shapes(config).items()}
    closed = run(config, params, TOKENS[0], gates, fills, capture=stream).captured
    written, expected = (run["resid.post"][-1] - run["resid.pre"][0] for run in (closed, other))
    np.testing.assert_allclose(written, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_residual_edges_open_are_the_model_and_closed_the_corrupted_run(variant):
    config, params = make(variant)
    _, replacement = writers(config, params, TOKENS[1], POSITIONS)
    size = residual_graph(config).num_edges
    for value, tokens in ((1.0, TOKENS[0]), (0.0, TOKENS[1])):
        gates = jnp.full(size, value)
        found = graph_logits(config, params, TOKENS[0], gates, replacement, POSITIONS)
        expected = at_positions(run(config, params, tokens).logits)
        np.testing.assert_allclose(found, expected, atol=3e-5, rtol=1e-4)


def by_hand(config, params, tokens, gate, closed):
    """Every reader's sum taken edge by edge by name, every query head by itself."""
    values = {"embed": np.asarray(params["embed"])[tokens] * config.embed_scale}
    constant = np.zeros_like(values["embed"])
    length = tokens.shape[1]
    places = jnp.arange(length)[None]
    stack = params["layers"]

    def rms(x, scale):
        factor = 1 / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + np.finfo(np.float32).eps)
        return x * factor * scale

    def read(reader, seen, scale):
        total = constant.copy()
        for writer in seen:
            z = gate[f"{writer}->{reader}"]
            total = total + z * values[writer] + (1 - z) * closed[writer]
        return rms(total, scale)

    for index in range(config.num_layers):
        own = {name: np.asarray(value[index]) for name, value in stack.items()}
        before, window = list(values), (config.windows or (0,) * config.num_layers)[index]
        rotary = config.local_rotary if window and config.local_rotary else config.rotary
        fresh, width = {}, config.d_head
        for head in range(config.num_heads):
            group = head // config.queries_per_kv
            shared = f"kv{group}" if config.queries_per_kv > 1 else f"h{group}"
            parts = {}
            for part, name, number in (
                ("q", f"h{head}", head),
                ("k", shared, group),
                ("v", shared, group),
            ):
                columns = slice(number * width, (number + 1) * width)
                seen = read(f"a{index}.{name}<{part}>", before, own["attn_norm_scale"])
                parts[part] = seen @ own[f"attn_{part}"][:, columns]
                if part != "v":
                    if config.qk_norm:
                        parts[part] = rms(parts[part], own[f"attn_{part}_norm_scale"])
                    turned = turn(
                        jnp.asarray(parts[part]), 1, places, jnp.asarray(rotary.frequencies())
                    )
                    parts[part] = np.asarray(turned)
            scores = np.einsum("bpc,btc->bpt", parts["q"], parts["k"]) * config.score_scale
            if config.attention_softcap:
                scores = config.attention_softcap * np.tanh(scores / config.attention_softcap)
            far = np.arange(length)[:, None] - np.arange(length)[None, :]
            seen = (far >= 0) & ((far < window) if window else True)
            weights = np.where(seen, np.exp(scores), 0.0)
            weights = weights / weights.sum(-1, keepdims=True)
            rows = slice(head * width, (head + 1) * width)
            fresh[f"a{index}.h{head}"] = weights @ parts["v"] @ own["attn_out"][rows]
        if config.post_norms:
            total = sum(fresh.values())
            factor = rms(total, own["attn_post_norm_scale"]) / total
            fresh = {name: value * factor for name, value in fresh.items()}
        values |= fresh
        seen = read(f"m{index}<in>", list(values), own["mlp_norm_scale"])
        gated = np.asarray(layers.activate(config, jnp.asarray(seen @ own["mlp_gate"])))
        write = (gated * (seen @ own["mlp_up"])) @ own["mlp_out"]
        values[f"m{index}"] = rms(write, own["mlp_post_norm_scale"]) if config.post_norms else write
    logits = read("logits", list(values), np.asarray(params["final_norm_scale"]))
    logits = logits @ np.asarray(params["unembed"])
    cap = config.logit_softcap
    return cap * np.tanh(logits / cap) if cap else logits


@pytest.mark.parametrize("variant", ["llama", "gemma"])
def test_any_edges_give_the_sums_taken_edge_by_edge(variant):
    config, params = make(variant)
    graph = residual_graph(config)
    gates = np.random.default_rng(2).random(graph.num_edges)
    _, replacement = writers(config, params, TOKENS[1], POSITIONS)
    found = graph_logits(
        config, params, TOKENS[0], jnp.asarray(gates, jnp.float32), replacement, POSITIONS
    )
    flat = [np.asarray(part) for block in replacement.blocks() for part in block]
    closed = dict(zip(graph.writers, flat, strict=True))
    gate = dict(zip(graph.names, gates, strict=True))
    with jax.numpy_rank_promotion("allow"):
        expected = by_hand(config, params, TOKENS[0], gate, closed)
    np.testing.assert_allclose(found, at_positions(expected), atol=2e-4, rtol=2e-4)


def test_shared_heads_are_one_reader_that_feeds_several():
    config, _ = make("llama")
    graph = residual_graph(config)
    assert graph.num_edges == 8 * 1 + 5 + 8 * 6 + 10 + 8 * 11 + 15 + 16
    reader = graph.readers.index("a1.kv1<v>")
    assert [graph.writers[w] for w in graph.feeds[reader]] == ["a1.h2", "a1.h3"]
    assert graph.feeds[graph.readers.index("logits")] == ()
    assert "a0.h0->m0<in>" in graph.names
    neox = residual_graph(make("neox")[0])
    assert "a0.h0->m0<in>" not in neox.names
    assert "m0->a1.h0<q>" in neox.names


def test_nodes_of_a_gated_mlp_and_of_shared_heads():
    config, _ = make("llama")
    assert config.sites == (*SITES[:6], "mlp.gate", "mlp.up", *SITES[6:])
    assert config.width("attn.q") == 24
    assert config.width("attn.k") == config.width("attn.v") == 12
    tree = {site: np.arange(np.prod(s)).reshape(s) for site, s in shapes(config).items()}
    back = unflatten(config, np.asarray(flatten(tree)))
    for site, value in tree.items():
        np.testing.assert_array_equal(back[site], value)
        name = address(config, 1, site, value.shape[1] - 1)
        assert parse_address(config, name) == (1, site, value.shape[1] - 1)
    assert address(config, 1, "attn.k", 11) == "1.attn.k.h1.c5"
    for name in ("0.attn.k.h2.c0", "0.mlp.gate.16"):
        with pytest.raises(ValueError, match="names no node"):
            parse_address(config, name)
    with pytest.raises(ValueError, match="names no node"):
        parse_address(BASE, "0.mlp.gate.0")


@pytest.mark.parametrize("variant", VARIANTS)
def test_families_join_sites_by_kernels_that_exist(variant):
    config, params = make(variant)
    assert {f.source for f in config.families} | {f.target for f in config.families} == set(
        config.sites
    )
    for family in config.families:
        assert params["layers"][family.kernel].shape == family.shape(config)
        assert len(family.rows(config)) == family.shape(config)[1]
    (write,) = (family for family in config.families if family.source == "attn.v")
    head, channel = np.divmod(np.arange(24), 6)
    expected = (head // config.queries_per_kv) * 6 + channel
    np.testing.assert_array_equal(write.rows(config), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reduction_that_is_not_exact_is_refused_by_name(variant):
    config, params = make(variant)
    assert not can_reduce(config)
    with pytest.raises(ValueError, match="which no reduction folds") as caught:
        reduce_model(config, params, {})
    assert ("rotary positions" in str(caught.value)) == (config.position == "rotary")
    assert can_reduce(dataclasses.replace(BASE, embed_scale=2.0, logit_softcap=4.0))


def test_a_window_that_is_wide_enough_changes_nothing():
    config, params = make("llama")
    wide = dataclasses.replace(config, windows=(9, 9, 0))
    narrow = dataclasses.replace(config, windows=(9, 8, 0))
    expected = np.asarray(run(config, params, TOKENS[0]).logits)
    np.testing.assert_allclose(run(wide, params, TOKENS[0]).logits, expected, atol=1e-6)
    found = np.asarray(run(narrow, params, TOKENS[0]).logits)
    np.testing.assert_allclose(found[:, :8], expected[:, :8], atol=1e-6)
    assert np.abs(found[:, 8] - expected[:, 8]).max() > 1e-3


def test_rotary_scores_depend_on_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 12)), jnp.float32) for _ in range(2))
    rotary = Rotary(4, 100.0)

    def score(query, key):
        a, b = (
            turn(x, 2, jnp.full((1, 1), place), jnp.asarray(rotary.frequencies()))
            for x, place in ((q, query), (k, key))
        )
        return float(jnp.sum(a * b))

    assert score(7, 3) == pytest.approx(score(4, 0), abs=1e-4)
    assert abs(score(7, 3) - score(7, 4)) > 1e-3
    turned = turn(q, 2, jnp.full((1, 1), 5), jnp.asarray(rotary.frequencies()))
    kept = np.asarray(turned).reshape(2, 6)[:, 4:]  # channels beyond dims stay
    np.testing.assert_array_equal(kept, np.asarray(q).reshape(2, 6)[:, 4:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads is 3; it must divide"),
        ({"position": "rotary"}, "give both"),
        ({**ROTARY, "rotary": Rotary(8)}, "more than d_head"),
        ({"windows": (1,)}, "1 windows for 3 layers"),
        ({"windows": (1, -1, 0)}, "whole numbers from 0"),
        ({"post_norms": True, "norm": "layer"}, "choose 'rms'"),
        ({"logit_softcap": 0.0}, "logit_softcap is 0.0"),
        ({**ROTARY, "local_rotary": Rotary(6)}, "layers with windows"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **change)
