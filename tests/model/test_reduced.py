"""The law of the reduction: the same function as the gated model, for every variant and density."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model import transformer
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.reduced import can_reduce, reduce_model
from circuitjax.model.reduced_forward import apply_reduced
from circuitjax.model.sites import shapes
from circuitjax.model.widths import Stretch, Widths

BASE = TransformerConfig(
    num_layers=3, d_model=16, num_heads=3, d_head=4, d_mlp=20, vocab_size=17, context_length=9
)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sinks and bigram": {"attention_sinks": True, "bigram": True},
    "sinks without norm or biases": {"attention_sinks": True, "norm": "none", "biases": False},
    "layer norm, tied": {"norm": "layer", "tied_unembedding": True, "final_bias": True},
    "layer norm without bias": {"norm": "layer", "norm_bias": False, "activation": "relu"},
    "concatenated positions": {"position": "concatenated", "d_position": 5, "bigram": True},
    "bidirectional": {"position": "none", "causal": False, "attention_sinks": True},
    "relu residual": {"residual_activation": "relu", "activation": "gelu_tanh"},
    "residual top-k": {
        "abs_top_k_fraction": 0.5,
        "abs_top_k_sites": ("resid.post_attn", "resid.post_mlp"),
        "attention_sinks": True,
    },
}
TOKENS = np.random.default_rng(0).integers(0, 17, (4, 7)).astype(np.int32)
POSITIONS = np.array([[6, 2], [5, 5], [0, 3], [1, 6]], np.int32)
CANDIDATES = np.array([[1, 2, 16], [3, 3, 0], [5, 9, 11], [0, 1, 2]], np.int32)


def _params(config: TransformerConfig, rng: np.random.Generator, density: float) -> dict[str, Any]:
    """Every parameter random, biases, norms and sinks too; layers' matrices sparse."""
    shaped = jax.eval_shape(lambda: transformer.init_params(jax.random.key(0), config))

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        value = rng.normal(size=leaf.shape) * (1 if leaf.ndim < 3 else leaf.shape[1] ** -0.5)
        if "layers" in name and leaf.ndim == 3:
            value = value * (rng.random(leaf.shape) < density)
        return value.astype(np.float32) + np.float32("scale" in name)

    return jax.tree_util.tree_map_with_path(draw, shaped)


def _masks(config: TransformerConfig, rng: np.random.Generator, density: float) -> dict:
    return {site: rng.random(shape) < density for site, shape in shapes(config).items()}


def _fills(config: TransformerConfig, rng: np.random.Generator) -> dict:
    """Random replacements, a third of them exactly zero."""
    return {
        site: (rng.normal(size=shape) * (rng.random(shape) < 2 / 3)).astype(np.float32)
        for site, shape in shapes(config).items()
    }


def _floats(mask: dict) -> dict:
    return {site: jnp.asarray(value, jnp.float32) for site, value in mask.items()}


run_reduced = jax.jit(apply_reduced)


@pytest.mark.parametrize(
    ("name", "sparsity", "density"),
    [(name, i % 2, 0.4) for i, name in enumerate(VARIANTS)]
    + [("sinks and bigram", i % 2, density) for i, density in enumerate((0.0, 0.1, 0.8, 1.0))],
)
def test_equals_the_gated_model(name, sparsity, density):
    config = dataclasses.replace(BASE, **VARIANTS[name])
    rng = np.random.default_rng(list(VARIANTS).index(name))
    params = _params(config, rng, (1.0, 0.2)[sparsity])
    keep, fills = _masks(config, rng, density), _fills(config, rng)
    # Gates in [0, 1], about half of them exactly 0 or 1: mixtures and replacements.
    more = _floats({site: np.clip(2 * rng.random(m.shape) - 0.5, 0, 1) for site, m in keep.items()})

    def full(gates):
        return transformer.apply(config, params, TOKENS, gates, fills).logits

    gates = _floats(keep)
    both = {site: gates[site] * more[site] for site in SITES}
    expected, further = np.asarray(
        jax.jit(jax.vmap(full))({site: jnp.stack([gates[site], both[site]]) for site in SITES})
    )
    reduced = reduce_model(config, params, keep, fills, own_widths=sparsity == 1)
    rows, at, few = np.arange(len(TOKENS))[:, None], POSITIONS, CANDIDATES
    np.testing.assert_allclose(run_reduced(reduced, TOKENS), expected, rtol=1e-4, atol=1e-4)
    found = run_reduced(reduced, TOKENS, more, positions=at, candidates=few)
    wanted = np.take_along_axis(further[rows, at], few[:, None, :], axis=2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sinks", [True, False])
def test_wider_than_it_needs_to_be_it_answers_the_same(sinks):
    config = dataclasses.replace(BASE, attention_sinks=sinks)
    rng = np.random.default_rng(4)
    params = _params(config, rng, 1.0)
    keep, fills = _masks(config, rng, 0.3), _fills(config, rng)
    own = reduce_model(config, params, keep, fills)
    room = Widths(*(2 * width + 4 for width in own.widths))
    for own_widths in (False, True):
        wide = reduce_model(config, params, keep, fills, own_widths=own_widths, at_least=room)
        assert wide.widths == room
        found, expected = run_reduced(wide, TOKENS), run_reduced(own, TOKENS)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_maps_over_gates_and_is_differentiable():
    config = dataclasses.replace(BASE, attention_sinks=True)
    rng = np.random.default_rng(1)
    params, keep, fills = _params(config, rng, 1.0), _masks(config, rng, 0.5), _fills(config, rng)
    reduced = reduce_model(config, params, keep, fills)
    more = {site: rng.random((2, *m.shape)).astype(np.float32) for site, m in keep.items()}

    def total(gates, run):
        return jnp.sum(run(gates) ** 2)

    def small(gates):
        return apply_reduced(reduced, TOKENS, gates)

    def full(gates):
        both = {site: gates[site] * keep[site] for site in SITES}
        return transformer.apply(config, params, TOKENS, both, fills).logits

    mapped = jax.jit(jax.vmap(jax.grad(total), (0, None)), static_argnums=1)
    found, expected = mapped(more, small), mapped(more, full)
    for site in SITES:
        scale = float(np.max(np.abs(expected[site]))) + 1
        np.testing.assert_allclose(found[site] / scale, expected[site] / scale, atol=1e-4)


def test_padding_follows_what_is_kept():
    config = dataclasses.replace(BASE, attention_sinks=True)
    params = _params(config, np.random.default_rng(2), 1.0)
    keep = {site: np.zeros(shape, bool) for site, shape in shapes(config).items()}
    assert set(reduce_model(config, params, keep).widths) == {0}
    # One neuron that reads one channel and writes one; a second neuron that writes nowhere.
    keep["mlp.act_in"][1, 3] = keep["mlp.post_act"][1, 7] = keep["mlp.resid_delta"][1, 2] = True
    keep["mlp.post_act"][0, 4] = True
    reduced = reduce_model(config, params, keep, own_widths=True)
    some = Widths(heads=0, steady=0, channels=0, neurons=8, attn_reads=0, mlp_reads=8)
    none = Widths(0, 0, 0, 0, 0, 0)
    assert reduced.widths == some
    assert reduce_model(config, params, keep).stretches == (Stretch(0, 3, some),)
    assert reduced.stretches == (Stretch(0, 1, none), Stretch(1, 2, some), Stretch(2, 3, none))


@pytest.mark.parametrize("causal", [True, False])
def test_heads_of_constant_scores_and_values_do_not_attend(causal):
    position = "learned" if causal else "none"
    config = dataclasses.replace(BASE, attention_sinks=True, causal=causal, position=position)
    rng = np.random.default_rng(3)
    params, fills = _params(config, rng, 1.0), _fills(config, rng)
    keep = _masks(config, rng, 0.7)
    for site in ("attn.q", "attn.k", "attn.v"):
        keep[site][:, 4:] = False  # of the second and third head
        keep[site][2] = False
    # Open queries against constant keys: what a sink gets still depends on the token.
    keep["attn.q"][0, 8:] = True
    reduced = reduce_model(config, params, keep, fills)
    assert reduced.widths[:2] == (2, 4)
    expected = transformer.apply(config, params, TOKENS, _floats(keep), fills).logits
    np.testing.assert_allclose(run_reduced(reduced, TOKENS), expected, rtol=1e-4, atol=1e-4)
    rows = np.arange(len(TOKENS))[:, None]
    found = run_reduced(reduced, TOKENS, positions=POSITIONS)
    np.testing.assert_allclose(found, expected[rows, POSITIONS], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_above_the_last_attention_only_the_tokens_asked_for_are_worked_out(name):
    config = dataclasses.replace(BASE, **VARIANTS[name])
    rng = np.random.default_rng(5)
    params, fills = _params(config, rng, 1.0), _fills(config, rng)
    for attending in range(3):  # layers, from the first on
        keep = _masks(config, rng, 0.6)
        keep["attn.v"][attending:] = keep["attn.q"][attending:] = False
        keep["attn.k"][attending:] = False
        reduced = reduce_model(config, params, keep, fills, own_widths=True)
        expected = transformer.apply(config, params, TOKENS, _floats(keep), fills).logits
        rows = np.arange(len(TOKENS))[:, None]
        found = run_reduced(reduced, TOKENS, positions=POSITIONS)
        np.testing.assert_allclose(found, expected[rows, POSITIONS], rtol=1e-4, atol=1e-4)
        ends = [s.stop for s in reduced.stretches if s.widths.heads]
        assert max([0, *ends]) == attending


def test_top_k_at_a_node_site_is_refused():
    config = dataclasses.replace(
        BASE, abs_top_k_fraction=0.25, abs_top_k_sites=("mlp.post_act", "resid.post_mlp")
    )
    assert not can_reduce(config)
    params = _params(config, np.random.default_rng(3), 1.0)
    keep = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
    with pytest.raises(ValueError, match="AbsTopK needs"):
        reduce_model(config, params, keep)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"attn.z": np.ones((3, 4))}, "unknown site 'attn.z'"),
        ({"attn.q": np.ones((3, 4))}, r"attn.q is shaped \(3, 4\); it must be \(3, 12\)"),
    ],
)
def test_bad_masks_are_named(keep, message):
    params = _params(BASE, np.random.default_rng(4), 1.0)
    with pytest.raises(ValueError, match=message):
        reduce_model(BASE, params, keep)
