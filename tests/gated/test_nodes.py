"""Gates on nodes: the flat order, tied units, and a reduced model that answers alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.cleanup import cleanup
from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates, constants, node_view
from circuitjax.gated.replacement import refer
from circuitjax.model.config import SITES
from circuitjax.model.graph import count_edges
from circuitjax.model.sites import kept_addresses, parse_address, shapes
from circuitjax.model.transformer import apply


def model_of(draw, tied=False, **changes):
    config, rng = draw.config(**changes), np.random.default_rng(0)
    params = jax.tree.map(jnp.asarray, draw.params(config, rng))
    held = jax.tree.map(jnp.asarray, draw.fills(config, rng))
    return NodeGates(params, held, config=config, tied=tied)


def batch_of(draw):
    rng = np.random.default_rng(1)
    tokens = np.stack([draw.tokens, draw.tokens[::-1]], axis=1)
    answers = rng.integers(0, 11, (2, 4, 1))
    arrays = (tokens, draw.positions, answers[0], answers[1])
    return Examples(*(jnp.asarray(x, jnp.int32) for x in arrays))


@pytest.mark.parametrize("tied", [False, True])
def test_gates_lie_in_the_order_of_their_names(draw, tied):
    model = model_of(draw, tied)
    total = model.config.num_nodes
    keys = model.config.num_layers * model.config.d_attention
    assert model.num_gates == len(model.names()) == total - tied * keys
    for place in np.random.default_rng(2).choice(model.num_gates, 12, replace=False):
        gates = np.zeros(model.num_gates)
        gates[place] = 1
        tree = model.tree(gates)
        assert set(tree) == set(SITES)
        layer, site, index = parse_address(model.config, model.names()[place])
        assert tree[site][layer, index] == 1
        both = 2 if tied and site == "attn.q" else 1
        assert sum(part.sum() for part in tree.values()) == both
        np.testing.assert_array_equal(model.flat(tree), gates)
        assert model.count(jnp.asarray(gates, jnp.float32)) == both
    np.testing.assert_array_equal(
        np.shape(model.tree(np.zeros((3, model.num_gates)))["attn.q"])[0], 3
    )


def test_sites_of_a_layer_are_groups(draw):
    model = model_of(draw)
    groups = model.groups()
    where = [parse_address(model.config, name)[:2] for name in model.names()]
    assert len(set(groups.tolist())) == len(set(where)) == len(SITES) * model.config.num_layers
    assert len(set(zip(groups.tolist(), where, strict=True))) == len(set(where))


def test_scores_start_from_standard_normal_numbers(draw):
    model = model_of(draw, d_mlp=4000)
    drawn = np.asarray(model.draw(jax.random.key(0)))
    assert abs(drawn.mean()) < 4 / len(drawn) ** 0.5
    assert abs(drawn.std() - 1) < 4 / (2 * len(drawn)) ** 0.5
    first = [np.asarray(part)[0, 0] for part in model.tree(drawn).values()]
    assert len(set(map(float, first))) == len(SITES)  # no two sites share noise


def test_logits_are_those_of_the_forward_pass_under_gates(draw):
    model, batch = model_of(draw, attention_sinks=True), batch_of(draw)
    gates = np.random.default_rng(3).random(model.num_gates).astype(np.float32)
    expected = apply(model.config, model.params, draw.tokens, model.tree(gates), model.held).logits
    picked = np.asarray(expected)[np.arange(4)[:, None], draw.positions]
    np.testing.assert_allclose(model.logits(gates, batch), picked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own_widths", [False, True])
def test_a_reduced_model_answers_as_the_whole_one(draw, own_widths):
    model, batch, rng = (
        model_of(draw, attention_sinks=True),
        batch_of(draw),
        np.random.default_rng(4),
    )
    opened = rng.random(model.num_gates) < 0.5
    small = model.reduced(opened, own_widths=own_widths)
    assert small.params is None
    gates = jnp.asarray(opened & (rng.random(model.num_gates) < 0.7), jnp.float32)
    for name in ("logits", "answers"):
        expected, found = (getattr(one, name)(gates, batch) for one in (model, small))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # What differs from prompt to prompt is worked out with the reference instead.
    whole = model.replace(held=None, ablation="resample")
    small = whole.reduced(opened, own_widths=own_widths)
    assert small is not whole
    expected, found = (
        one.logits(gates, batch, refer(one, batch, jax.random.key(6), full=False).held)
        for one in (whole, small)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_cleaning_up_is_what_cleanup_says(draw):
    model, rng = model_of(draw, attention_sinks=True), np.random.default_rng(5)
    opened = rng.random(model.num_gates) < 0.4
    mask, fills, report = cleanup(model.config, model._host(), model.tree(opened), model._fills())
    part = model.clean(opened)
    np.testing.assert_array_equal(model.flat(part.opened["mask"]), model.flat(mask))
    assert part.removed == report.counts
    assert part.nodes == model.nodes(model.flat(mask)) == len(kept_addresses(model.config, mask))
    assert (
        part.edges == model.cost(model.flat(mask)) == count_edges(model.config, model._host(), mask)
    )
    for site in SITES:
        np.testing.assert_array_equal(part.held[site], fills[site])
    np.testing.assert_array_equal(model.alive(opened), model.flat(mask))


def test_a_tied_pair_lives_while_one_of_the_two_does(draw):
    model, rng = model_of(draw, tied=True), np.random.default_rng(6)
    opened = rng.random(model.num_gates) < 0.4
    alive = model.tree(model.alive(opened))
    untied = model.replace(tied=False)
    own = untied.tree(untied.alive(untied.flat(model.tree(opened))))
    np.testing.assert_array_equal(alive["attn.q"], own["attn.q"] | own["attn.k"])
    np.testing.assert_array_equal(alive["attn.v"], own["attn.v"])


def test_constants_are_means_or_zeros(draw):
    config = draw.config()
    means = draw.fills(config, np.random.default_rng(7))
    assert all(np.all(x == 0) for x in constants(config, "zero", None).values())
    for site, fill in constants(config, "mean", means).items():
        np.testing.assert_array_equal(fill, means[site])
    assert constants(config, "resample", means) is constants(config, "interchange", None) is None
    with pytest.raises(ValueError, match="has no activation means"):
        constants(config, "mean", None)


def test_a_mask_is_seen_as_gates(draw):
    config, rng = draw.config(), np.random.default_rng(8)
    mask, params = draw.mask(config, rng, 0.5), draw.params(config, rng)
    view = node_view(config, params, mask, None, "interchange")
    assert view.gates.dtype == bool
    for site, kept in view.model.tree(view.gates).items():
        np.testing.assert_array_equal(kept, mask[site])
    assert view.gates.size == sum(np.prod(shape) for shape in shapes(config).values())
