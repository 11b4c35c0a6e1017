"""Gates on weights: identities of the model, paths against an enumeration, circuits seen as gates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.cleanup import cleanup
from circuitjax.gated.examples import Examples
from circuitjax.gated.weight_index import biased, close_weights, gated_params, weight_index
from circuitjax.gated.weight_paths import kept_paths
from circuitjax.gated.weights import weight_gates, weight_view, weights_within
from circuitjax.model.config import SITES
from circuitjax.model.families import FAMILIES
from circuitjax.model.graph import count_edges
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply

SINKS = {"attention_sinks": True}
BARE = {"biases": False, "norm": "layer", "position": "concatenated", "d_position": 3}
VARIANTS = (SINKS, BARE)
CAPTURE = (*SITES, "attn.pattern")
forward = jax.jit(apply, static_argnums=0, static_argnames="capture")


def model_of(draw, changes, seed=0):
    config, rng = draw.config(**changes), np.random.default_rng(seed)
    params, fills = draw.params(config, rng), draw.fills(config, rng)
    return config, params, fills, weight_index(config, params), rng


def gates_of(mask):
    return {site: jnp.asarray(kept, jnp.float32) for site, kept in mask.items()}


def everything(config):
    return {site: np.ones(shape, bool) for site, shape in shapes(config).items()}


def run(draw, config, params, mask, fills):
    """Logits and captured values; with biases always, so that few programs are compiled."""
    if not config.biases:
        kernels = {f.kernel: f.shape(config)[2] for f in FAMILIES}
        zeros = {f"{k}_bias": np.zeros((config.num_layers, w), "f") for k, w in kernels.items()}
        params = {**params, "layers": zeros | dict(params["layers"])}
    return forward(biased(config), params, draw.tokens, gates_of(mask), fills, capture=CAPTURE)


@pytest.mark.parametrize("changes", VARIANTS)
def test_all_open_is_the_plain_model_and_the_host_agrees(draw, changes):
    config, params, fills, index, rng = model_of(draw, changes)
    found = gated_params(config, params, fills, index, jnp.ones(index.total))
    expected = np.asarray(apply(config, params, draw.tokens).logits)
    plain = run(draw, config, found, everything(config), fills).logits
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-5)
    assert int(np.sum(index.real())) == sum(
        np.count_nonzero(params["layers"][family.kernel]) for family in FAMILIES
    )
    z = rng.random(index.total) < 0.5
    found = gated_params(config, params, fills, index, jnp.asarray(z, jnp.float32))
    also, host = close_weights(config, params, fills, index.opened(config, z))
    assert also == biased(config)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_nodes_close_as_ever_beside_open_weights(draw):
    config, params, fills, index, rng = model_of(draw, SINKS)
    found = gated_params(config, params, fills, index, jnp.ones(index.total))
    for site in SITES:
        mask = everything(config)
        mask[site][1, rng.integers(mask[site].shape[1])] = False
        expected, gated = (run(draw, config, p, mask, fills).logits for p in (params, found))
        np.testing.assert_allclose(gated, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_closed_weight_writes_its_mean(draw, changes, family):
    """By hand: one more source that holds the mean takes over the weight."""
    config, params, fills, index, rng = model_of(draw, changes)
    kernel = params["layers"][family.kernel]
    layer, row, column = np.argwhere(kernel)[rng.integers(np.count_nonzero(kernel))]
    place = np.ravel_multi_index((layer, row, column), kernel.shape)
    z = index.split(np.ones(index.total, np.float32))
    z[family.name] = np.where(index.flat[family.name] == place, 0, 1)
    found = gated_params(config, params, fills, index, index.join(z))

    seen = run(draw, config, found, everything(config), fills).captured
    stack = {name: np.asarray(value[layer], np.float64) for name, value in params["layers"].items()}
    source = np.asarray(seen[family.source][layer], np.float64)
    contributions = source[..., :, None] * stack[family.kernel]  # [B, T, in, out]
    if family.kernel == "attn_out":
        pattern = np.asarray(seen["attn.pattern"][layer], np.float64)
        pattern = np.repeat(pattern, config.d_head, axis=1)
        mixed = np.einsum("bipt,btio->bpio", pattern, contributions)
    else:
        mixed = contributions
    mixed[..., row, column] = fills[family.source][layer, row] * kernel[layer, row, column]
    expected = mixed.sum(axis=2)
    if config.biases:
        expected = expected + stack[f"{family.kernel}_bias"]
    if family.target == "mlp.post_act":
        expected = np.asarray(jax.nn.gelu(jnp.asarray(expected, jnp.float32), approximate=False))
    np.testing.assert_allclose(seen[family.target][layer], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("site", ["attn.act_in", "mlp.act_in", "mlp.post_act"])
def test_a_source_without_open_weights_is_a_closed_node(draw, site):
    config, params, fills, index, _ = model_of(draw, SINKS)
    mask = everything(config)
    mask[site][1, 2] = False
    z = np.asarray(index.at_ends(gates_of(mask), "source"))
    assert (z < 1).any()
    found = gated_params(config, params, fills, index, jnp.asarray(z))
    expected = run(draw, config, params, mask, fills).logits
    gated = run(draw, config, found, everything(config), fills).logits
    np.testing.assert_allclose(gated, expected, rtol=1e-4, atol=1e-4)


def whole_paths(index, z, base):
    """Every complete path of open weights through a block, by enumeration: lists of (key, a, b)."""
    edges = []
    for family in FAMILIES:
        sources, targets = index.source[family.name], index.target[family.name]
        real = np.asarray(index.values[family.name]) != 0
        for number in np.flatnonzero(index.split(z)[family.name] & real):
            a, b = (family.source, int(sources[number])), (family.target, int(targets[number]))
            if base[a[0]].reshape(-1)[a[1]] and base[b[0]].reshape(-1)[b[1]]:
                edges.append(((family.name, int(number)), a, b))
    paths = [[edge] for edge in edges if edge[2][0] in ("attn.q", "attn.k")]
    return paths + [[one, other] for one in edges for other in edges if one[2] == other[1]]


@pytest.mark.parametrize("seed", range(4))
def test_kept_paths_are_those_of_an_enumeration(draw, seed):
    config, _, _, index, rng = model_of(draw, SINKS, seed)
    z, base = rng.random(index.total) < 0.35, draw.mask(config, rng, 0.8)
    opened, mask = kept_paths(config, index, z, base)
    expected = {edge for path in whole_paths(index, z, base) for edge in path}
    parts = index.split(opened)
    found = {(f.name, int(n)) for f in FAMILIES for n in np.flatnonzero(parts[f.name])}
    assert found == {key for key, _, _ in expected}
    nodes = {node for _, a, b in expected for node in (a, b)}
    kept = {(s, int(n)) for s, m in mask.items() for n in np.flatnonzero(m)}
    assert kept == nodes
    assert not kept_paths(config, index, np.zeros_like(z), base)[0].any()


def batch_of(rng):
    tokens = rng.integers(0, 11, (4, 2, 6))
    answers = rng.integers(0, 11, (2, 4, 1))
    arrays = (tokens, rng.integers(0, 6, (4, 1)), answers[0], answers[1])
    return Examples(*(jnp.asarray(x, jnp.int32) for x in arrays))


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_reduced_model_answers_as_the_whole_one(draw, changes):
    config, params, fills, _index, rng = model_of(draw, changes)
    model = weight_gates(config, params, fills, "mean", draw.mask(config, rng, 0.8))
    opened = model.alive((rng.random(model.num_gates) < 0.7) & model.exists())
    small, batch = model.reduced(opened), batch_of(rng)
    assert small.params is None
    gates = jnp.asarray(opened & (rng.random(model.num_gates) < 0.7), jnp.float32)
    for name in ("logits", "answers"):
        expected, found = (getattr(one, name)(gates, batch) for one in (model, small))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", VARIANTS)
def test_cleaning_up_changes_no_output_and_finds_no_constant(draw, changes):
    config, params, fills, _index, rng = model_of(draw, changes)
    model = weight_gates(config, params, fills, "mean")
    opened = (rng.random(model.num_gates) < 0.4) & model.exists()
    part = model.clean(opened)
    assert "constant" not in part.removed or part.removed["constant"] == 0
    weights, mask = part.opened["weights"], part.opened["mask"]
    closed = close_weights(config, params, fills, weights)
    assert part.edges == count_edges(*closed, mask)
    assert part.nodes == sum(int(kept.sum()) for kept in mask.values())
    for site, fill in part.held.items():
        np.testing.assert_array_equal(fill, fills[site])
    expected = apply(*closed, draw.tokens, gates_of(mask), fills).logits
    none = jnp.zeros((4, 1), jnp.int32)
    everywhere = jnp.broadcast_to(jnp.arange(6), (4, 6))
    batch = Examples(jnp.asarray(draw.tokens)[:, None].repeat(2, 1), everywhere, none, none)
    found = model.logits(jnp.asarray(model.alive(opened), jnp.float32), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Seen as gates again, the circuit opens what it kept, and answers alike.
    view = weight_view(config, params, part.opened, part.held, "mean")
    assert view.gates.sum() == part.edges
    found = view.model.logits(jnp.asarray(view.gates, jnp.float32), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_weights_within_a_node_circuit_are_its_edges(draw):
    config, params, fills, _, rng = model_of(draw, SINKS)
    mask, fills, _ = cleanup(config, params, draw.mask(config, rng, 0.7), fills)
    view = weights_within(config, params, mask, fills, "mean")
    assert view.gates.sum() == count_edges(config, params, mask)
    batch = batch_of(rng)
    expected = apply(
        *(config, params, batch.tokens[:, 0], gates_of(mask), fills), positions=batch.positions
    ).logits
    found = view.model.logits(jnp.asarray(view.gates, jnp.float32), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_padding_is_shared_and_never_counts(draw):
    config, params, fills, index, _rng = model_of(draw, SINKS)
    model = weight_gates(config, params, fills, "mean")
    real = model.exists()
    assert model.num_gates == index.total > real.sum()
    assert model.totals()[1] == real.sum() == model.cost(np.ones(model.num_gates, bool))
    assert float(model.count(jnp.ones(model.num_gates))) == real.sum()
    names = np.array(model.names())
    assert len(set(names[real])) == real.sum()
    assert set(names[~real]) == {""}
    assert set(model.groups()[~real]) == {-1}
    assert len(set(model.groups()[real])) == len(FAMILIES) * config.num_layers
    for family in FAMILIES:
        flat, values = index.flat[family.name], index.values[family.name]
        assert len(set(flat.tolist())) == len(flat)
        assert (flat[values == 0] >= np.prod(family.shape(config))).all()


def test_gates_on_both_ends_multiply(draw):
    config, params, fills, index, rng = model_of(draw, SINKS)
    model = weight_gates(config, params, fills, "mean")
    owners = rng.random(model.num_owners).astype(np.float32)
    tree = model._units.tree(owners)
    ends = [np.asarray(index.at_ends(tree, end)) for end in ("source", "target")]
    np.testing.assert_allclose(model.owned(owners), ends[0] * ends[1], rtol=1e-6)
    np.testing.assert_allclose(model.owned(owners, least=True), np.minimum(*ends), rtol=1e-6)


def test_a_model_without_weights_between_kept_nodes_is_refused(draw):
    config, params, fills, _, _ = model_of(draw, SINKS)
    nothing = {site: np.zeros(shape, bool) for site, shape in shapes(config).items()}
    with pytest.raises(ValueError, match="nothing can be pruned"):
        weight_gates(config, params, fills, "mean", nothing)
