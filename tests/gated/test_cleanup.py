"""Cleanup's two laws: no output changes, and nothing that is left could have gone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.cleanup import cleanup
from circuitjax.model import transformer
from circuitjax.model.config import SITES
from circuitjax.model.sites import shapes

VARIANTS = {
    "rms": {},
    "rms with sinks": {"attention_sinks": True},
    "no norm, no biases, sinks": {"norm": "none", "biases": False, "attention_sinks": True},
    "layer norm, relu residual, tied": {
        "norm": "layer",
        "residual_activation": "relu",
        "tied_unembedding": True,
    },
    "no norm, relu residual, concatenated": {
        "norm": "none",
        "residual_activation": "relu",
        "position": "concatenated",
        "d_position": 3,
    },
    "top-k at every site": {
        "abs_top_k_fraction": 0.5,
        "abs_top_k_sites": SITES,
        "norm": "none",
        "attention_sinks": True,
    },
    "top-k at some sites and the residual": {
        "abs_top_k_fraction": 0.5,
        "abs_top_k_sites": ("attn.q", "mlp.act_in", "resid.post_mlp"),
        "norm": "none",
    },
}
MODELS = 48


def _stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_output_changes(draw, name):
    config = draw.config(**VARIANTS[name])
    rng = np.random.default_rng(list(VARIANTS).index(name))
    before, after, removed = [], [], {"dead": 0, "constant": 0}
    for number in range(MODELS):
        density = (0.1, 0.3, 0.6, 0.9)[number % 4]
        params = draw.params(config, rng, density=(0.1, 0.3)[number % 2])
        mask, fills = draw.mask(config, rng, density), draw.fills(config, rng)
        cleaned, filled, report = cleanup(config, params, mask, fills)
        before.append((params, mask, fills))
        after.append((params, cleaned, filled))
        for rule, count in report.counts.items():
            removed[rule] += count
        assert all(np.all(mask[site] | ~cleaned[site]) for site in SITES)
        gone = len(report.dead) + len(report.constant)
        assert (
            report.nodes_before - gone == report.nodes_after == sum(map(np.sum, cleaned.values()))
        )
        assert report.edges_after <= report.edges_before

    @jax.jit
    @jax.vmap
    def run(params, mask, fills):
        gates = {site: jnp.asarray(m, jnp.float32) for site, m in mask.items()}
        return transformer.apply(config, params, draw.tokens, gates, fills).logits

    expected, found = run(*_stack(before)), run(*_stack(after))
    scale = jnp.maximum(1, jnp.max(jnp.abs(expected), axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-5)
    assert removed["dead"] > MODELS
    # Where AbsTopK acts at every site, nothing is ever constant.
    assert removed["constant"] == 0 if "every site" in name else removed["constant"] > MODELS


@pytest.mark.parametrize("name", ["rms", "rms with sinks", "no norm, no biases, sinks"])
def test_every_node_that_is_left_moves_the_logits(draw, name):
    config = draw.config(**VARIANTS[name])
    rng = np.random.default_rng(7)
    sizes = [np.prod(shape) for shape in shapes(config).values()]
    offsets = dict(zip(SITES, np.cumsum([0, *sizes]), strict=False))

    @jax.jit
    def run(params, mask, fills, flips):
        """Logits with each node of `flips` `[N]` replaced by something else, one at a time."""

        def one(number):
            gates, values = {}, {}
            for site, shape in shapes(config).items():
                hit = (offsets[site] + jnp.arange(np.prod(shape)) == number).reshape(shape)
                gates[site] = jnp.where(hit, 0.0, mask[site].astype(jnp.float32))
                values[site] = jnp.where(hit, 3.7, fills[site])
            return transformer.apply(config, params, draw.tokens, gates, values).logits

        return jax.lax.map(one, flips, batch_size=32)

    for density in (0.2, 0.4, 0.7):
        params = draw.params(config, rng)
        mask, fills = draw.mask(config, rng, density), draw.fills(config, rng)
        mask, fills, _ = cleanup(config, params, mask, fills)
        flips = np.full(sum(sizes) + 1, -1)
        kept = np.concatenate([mask[site].ravel() for site in SITES])
        flips[1:][kept] = np.flatnonzero(kept)
        logits = run(params, mask, fills, flips)
        moved = np.max(np.abs(logits[1:] - logits[:1]), axis=(1, 2, 3))
        assert np.all(moved[kept] > 1e-7)


def _one_neuron(draw, config, rng):
    """A kept neuron that reads one kept channel and writes one."""
    params = draw.params(config, rng, density=0.0)
    params["layers"]["mlp_in"][0, 2, 4] = 1.5
    params["layers"]["mlp_out"][0, 4, 6] = -2.0
    mask = {site: np.zeros(shape, bool) for site, shape in shapes(config).items()}
    mask["mlp.act_in"][0, 2] = mask["mlp.post_act"][0, 4] = mask["mlp.resid_delta"][0, 6] = True
    return params, mask


def test_a_chain_stays_and_falls_as_a_whole(draw):
    config, rng = draw.config(), np.random.default_rng(8)
    params, mask = _one_neuron(draw, config, rng)
    fills = draw.fills(config, rng)
    _, _, report = cleanup(config, params, mask, fills)
    assert report.counts == {"dead": 0, "constant": 0}
    assert (report.nodes_after, report.edges_after) == (3, 2)
    # Without its read the neuron is constant; without the neuron the write is.
    mask["mlp.act_in"][0, 2] = False
    cleaned, filled, report = cleanup(config, params, mask, fills)
    assert report.constant == ("0.mlp.post_act.4", "0.mlp.resid_delta.6")
    bias = params["layers"]["mlp_in_bias"][0, 4]
    hidden = jax.nn.gelu(bias + 1.5 * fills["mlp.act_in"][0, 2], approximate=False)
    np.testing.assert_allclose(filled["mlp.post_act"][0, 4], hidden, rtol=1e-6)
    written = params["layers"]["mlp_out_bias"][0, 6] - 2.0 * hidden
    np.testing.assert_allclose(filled["mlp.resid_delta"][0, 6], written, rtol=1e-6)
    assert not any(m.any() for m in cleaned.values())
    # Without its write the neuron is dead, and then its read.
    params, mask = _one_neuron(draw, config, rng)
    mask["mlp.resid_delta"][0, 6] = False
    _, _, report = cleanup(config, params, mask, fills)
    assert report.dead == ("0.mlp.act_in.2", "0.mlp.post_act.4")


def test_without_norms_a_write_must_be_read(draw):
    config, rng = draw.config(norm="none"), np.random.default_rng(9)
    params, mask = _one_neuron(draw, config, rng)
    params["unembed"][6] = 0
    _, _, report = cleanup(config, params, mask, draw.fills(config, rng))
    assert report.counts == {"dead": 3, "constant": 0}
    # With a norm the same write moves every channel.
    config = draw.config(norm="rms")
    params = draw.params(config, rng) | {"unembed": params["unembed"], "layers": params["layers"]}
    scales = {f"{block}_norm_scale": np.ones((2, 8), np.float32) for block in ("attn", "mlp")}
    params["layers"] = params["layers"] | scales
    _, _, report = cleanup(config, params, mask, draw.fills(config, rng))
    assert report.counts == {"dead": 0, "constant": 0}


def test_fills_that_vary_over_tokens_are_refused(draw):
    config, rng = draw.config(), np.random.default_rng(10)
    params, mask = _one_neuron(draw, config, rng)
    fills = draw.fills(config, rng) | {"attn.q": np.zeros((2, 4, 6, 6), np.float32)}
    with pytest.raises(ValueError, match=r"fills of attn.q are shaped \(2, 4, 6, 6\)"):
        cleanup(config, params, mask, fills)


@pytest.mark.parametrize("name", ["rms", "no norm, no biases, sinks"])
def test_where_replacements_differ_from_token_to_token_only_dead_nodes_go(draw, name):
    """Whatever closed nodes hold at each token, no output changes."""
    config = draw.config(**VARIANTS[name])
    rng = np.random.default_rng(11)
    run = jax.jit(functools.partial(transformer.apply, config))
    removed = 0
    for number in range(12):
        density = (0.1, 0.3, 0.6)[number % 3]
        params, mask = draw.params(config, rng), draw.mask(config, rng, density)
        cleaned, _, report = cleanup(config, params, mask, None)
        assert report.constant == ()
        removed += len(report.dead)
        held = {
            site: rng.normal(size=(layers, 4, 6, width)).astype(np.float32)
            for site, (layers, width) in shapes(config).items()
        }
        before, after = (
            run(params, draw.tokens, {s: jnp.asarray(x, jnp.float32) for s, x in m.items()}, held)
            for m in (mask, cleaned)
        )
        np.testing.assert_allclose(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    assert removed > 12
