"""Gates on weights: identities of the model, paths against an enumeration, planted weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuitjax.circuit.find_weights import (
    initial_weights,
    train_weights,
    weight_candidates,
    weight_problem,
)
from circuitjax.prune.packing import training_rows
from circuitjax.prune.weight_gates import (
    WeightData,
    biased,
    close_weights,
    gated_params,
    reduce_weights,
    weight_differences,
    weight_index,
    weight_logits,
)
from circuitjax.prune.weight_paths import kept_paths
from circuitjax.prune.weight_select import WeightProber, weight_attribution
from circuitjax.prune.weights import default_weight_hyper, weight_task_loss
from tests.circuit.conftest import Draw

from circuitjax.core import checkpoints
from circuitjax.model.config import SITES
from circuitjax.model.families import FAMILIES
from circuitjax.model.sites import kept_addresses, parse_address, shapes
from circuitjax.model.transformer import apply
from circuitjax.prune import train
from circuitjax.prune.opening import GateHyper
from circuitjax.prune.train import Job, make_train_chunk
from tests.prune.planted import CONFIG, PLANTED, PRUNE, planted_problem

SINKS = {"attention_sinks": True}
BARE = {"biases": False, "norm": "layer", "position": "concatenated", "d_position": 3}
VARIANTS = (SINKS, BARE)
CAPTURE = (*SITES, "attn.pattern")
forward = jax.jit(apply, static_argnums=0, static_argnames="capture")
WEIGHTS = (
    ("act_in->v", 0, 0, 0),
    ("v->resid_delta", 0, 0, 1),
    ("act_in->post_act", 1, 1, 0),
    ("act_in->post_act", 1, 1, 1),
    ("post_act->resid_delta", 1, 0, 2),
    ("post_act->resid_delta", 1, 1, 2),
)


@pytest.fixture(scope="module")
def draw():
    return Draw()


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


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_reduced_model_answers_as_the_whole_one(draw, changes):
    config, params, fills, index, rng = model_of(draw, changes)
    some = rng.random(index.total) < 0.7
    opened, mask = kept_paths(config, index, some, draw.mask(config, rng, 0.8))
    small = reduce_weights(config, params, fills, mask, index, opened)
    z = np.asarray(opened & (rng.random(index.total) < 0.7), np.float32)
    base = gates_of(mask)
    whole = jax.tree.map(jnp.asarray, WeightData(index, base, params, fills))
    pairs = planted_problem().train.take(np.arange(4))
    tokens = rng.integers(0, 11, (4, 2, 6)).astype(np.int32)
    pairs = dataclasses.replace(
        pairs,
        tokens=jnp.asarray(tokens),
        last=jnp.asarray(rng.integers(0, 6, (4, 2))),
        answers=jnp.asarray(rng.integers(0, 11, (4, 2))),
    )
    gates = {s: m * (rng.random(m.shape) < 0.8) for s, m in base.items()}
    for function in (weight_differences, weight_logits):
        expected = np.asarray(function(config, whole, jnp.asarray(z), gates, pairs))
        found = np.asarray(function(config, small, jnp.asarray(z), gates, pairs))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def noisy():
    """The planted model with random fills, so that every closed weight matters."""
    rng = np.random.default_rng(5)
    fills = {s: jnp.asarray(rng.normal(0, 0.3, n), jnp.float32) for s, n in shapes(CONFIG).items()}
    return weight_problem(dataclasses.replace(planted_problem(), fills=fills), node_gates=True)


def test_attribution_is_the_derivative(noisy):
    problem, data = noisy.problem, noisy.data
    rng = np.random.default_rng(1)
    state = initial_weights(noisy, [Job(0, GateHyper(init=0.0, init_noise_scale=0.5))])
    job = jax.tree.map(lambda leaf: leaf[0], state)
    nodes = {site: jnp.ones_like(leaf) for site, leaf in job.tau["nodes"].items()}
    job = dataclasses.replace(job, tau={"weights": job.tau["weights"], "nodes": nodes})
    pairs = problem.validation
    found = weight_attribution(noisy.objective, job, data, pairs)
    z = np.asarray(job.tau["weights"] > 0, np.float64)
    gates = {site: jnp.ones(shape) for site, shape in shapes(CONFIG).items()}

    def loss(values):
        z = jnp.asarray(values, jnp.float32)
        return float(weight_task_loss(CONFIG, PRUNE, data, z, gates, pairs))

    largest = np.argsort(-np.abs(found))[:6]
    step = 0.05
    for place in [*largest, *rng.choice(index_real(noisy), 3, replace=False)]:
        moved = np.zeros_like(z)
        moved[place] = step
        slope = (loss(z + moved) - loss(z - moved)) / (2 * step)
        assert found[place] == pytest.approx(slope, rel=0.05, abs=2e-5)


def index_real(work):
    return np.flatnonzero(np.asarray(work.index.real()))


HYPERS = (
    GateHyper(k_coef=2e-3, lr=0.03, init_noise_scale=0.05),
    GateHyper(k_coef=5e-3, lr=0.05, init_noise_scale=0.1, inv_beta2=0.1),
)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("gate", ["heaviside", "hard_concrete"])
def test_jobs_and_restarts_change_nothing(gate, tmp_path):
    work = weight_problem(planted_problem(), gate=gate, control="lagrangian", node_gates=True)
    prune = dataclasses.replace(PRUNE, steps=6, chunk=3)
    objective = dataclasses.replace(work.objective, prune=prune)
    work = dataclasses.replace(
        work, objective=objective, problem=dataclasses.replace(work.problem, prune=prune)
    )
    jobs = [Job(seed, hyper) for seed, hyper in enumerate(HYPERS)]
    jobs = [
        dataclasses.replace(j, hyper=dataclasses.replace(j.hyper, target_sparsity=0.5))
        for j in jobs
    ]
    whole = train_weights(work, initial_weights(work, jobs))
    alone = train_weights(work, initial_weights(work, jobs[1:]))
    assert_same(alone, jax.tree.map(lambda leaf: leaf[1:], whole))
    program = make_train_chunk(objective)
    rows = training_rows(work.problem.train, True, work.problem.prune.batch_size)
    state, _ = program(initial_weights(work, jobs), 3, work.data, rows)
    checkpoints.save_step(tmp_path, 3, state)
    restored = checkpoints.load_step(tmp_path, 3, initial_weights(work, jobs))
    assert_same(train_weights(work, jax.device_put(restored)), whole)


@pytest.mark.slow
def test_side_by_side_equals_one_after_another(monkeypatch):
    work = weight_problem(planted_problem(), node_gates=True)
    jobs = [Job(seed, hyper) for seed, hyper in enumerate(HYPERS)]
    programs = [make_train_chunk.__wrapped__(work.objective)]
    rows = training_rows(work.problem.train, True, work.problem.prune.batch_size)
    monkeypatch.setattr(train, "map_jobs", jax.vmap)
    programs.append(make_train_chunk.__wrapped__(work.objective))
    one, other = (p(initial_weights(work, jobs), 20, work.data, rows) for p in programs)
    for name, values in one[1].items():
        np.testing.assert_allclose(other[1][name], values, rtol=1e-4, atol=1e-4)


def planted_weights(config, index):
    """bool `[E]` of the weights that do the task."""
    kept = {family.name: np.zeros(family.shape(config), bool) for family in FAMILIES}
    for name, *place in WEIGHTS:
        kept[name][tuple(place)] = True
    return np.concatenate(
        [
            np.r_[kept[f.name].reshape(-1), np.zeros(index.total, bool)][index.flat[f.name]]
            & (np.asarray(index.values[f.name]) != 0)
            for f in FAMILIES
        ]
    )


@pytest.mark.parametrize(
    ("gate", "node_gates", "hyper"),
    [
        ("heaviside", True, {"k_coef": 0.01, "lr": 0.02}),
        ("heaviside", False, {"k_coef": 0.01, "lr": 0.02}),
        ("hard_concrete", False, {"k_coef": 0.02, "lr": 0.2, "init": 1.0}),
    ],
)
def test_planted_weights_are_found(gate, node_gates, hyper):
    # Calibrated, one of the two neurons would do.
    prune = dataclasses.replace(PRUNE, calibrate="off", target_loss=0.1)
    work = weight_problem(planted_problem(prune), gate=gate, node_gates=node_gates)
    jobs = [Job(seed, GateHyper(**hyper)) for seed in range(3)]
    metrics = []
    state = train_weights(work, initial_weights(work, jobs), lambda s, m: metrics.append(m))
    assert metrics[-1]["k"].shape == (3, PRUNE.chunk)
    expected = planted_weights(CONFIG, work.index)
    assert expected.sum() == len(WEIGHTS)
    nodes = {parse_address(CONFIG, name) for name in PLANTED}
    for found in weight_candidates(work, jobs, state):
        assert found.choice.reached
        opened = np.concatenate(
            [
                np.r_[found.weights[f.name].reshape(-1), np.zeros(work.index.total, bool)][
                    work.index.flat[f.name]
                ]
                for f in FAMILIES
            ]
        )
        np.testing.assert_array_equal(opened, expected)
        kept = {parse_address(CONFIG, name) for name in kept_addresses(CONFIG, found.mask)}
        assert kept == nodes
        assert (found.edges, found.nodes) == (len(WEIGHTS), len(PLANTED))


def test_a_candidate_is_answered_alike_by_every_prober(noisy):
    problem = noisy.problem
    ranks = np.full(noisy.index.total, noisy.index.total)
    real = index_real(noisy)
    ranks[real] = np.random.default_rng(2).permutation(len(real))
    arguments = (problem, noisy.index, noisy.mask, noisy.fills, [ranks.astype(np.int32)])
    small, whole = (WeightProber(*arguments, reduce=reduce) for reduce in (True, False))
    small._sizes = [40, 90]
    ks = (1, 40, 60, len(real))
    found = small.answers(problem.validation, 0, ks).differences
    expected = whole.answers(problem.validation, 0, ks).differences
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sorted(small._models) == [0, 40, 90]


def test_padding_is_shared_and_never_counts():
    problem = planted_problem()
    index = weight_index(CONFIG, problem.params)
    mask = everything(CONFIG)
    mask["mlp.post_act"][1, 9] = False
    other = weight_index(CONFIG, problem.params, mask)
    assert index.total == other.total
    assert int(np.sum(index.real())) > int(np.sum(other.real()))
    for family in FAMILIES:
        flat, values = index.flat[family.name], index.values[family.name]
        assert len(set(flat.tolist())) == len(flat)
        assert (flat[values == 0] >= np.prod(family.shape(CONFIG))).all()
    with pytest.raises(ValueError, match="k_coef is -1"):
        default_weight_hyper(10, k_coef=-1.0)
