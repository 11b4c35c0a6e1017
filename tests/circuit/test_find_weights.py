"""Circuits of single weights: from a circuit of nodes or the whole model, saved, compact, drawn."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuitjax.circuit.cleanup import cleanup
from circuitjax.circuit.find import Job, pick
from circuitjax.circuit.find_weights import (
    as_weight_circuit,
    default_weight_jobs,
    find_weight_circuit,
    initial_weights,
    train_weights,
    weight_candidates,
    weight_problem,
)
from circuitjax.circuit.graph import edge_list
from circuitjax.prune.weight_gates import close_weights, weight_index
from circuitjax.prune.weight_paths import kept_paths

from circuitjax.audit.evidence import evidence
from circuitjax.circuit import find
from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.compact import compact
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply
from circuitjax.prune.config import Hyper
from circuitjax.prune.objective import Pairs, binary_losses, logit_differences
from circuitjax.prune.opening import GateHyper
from circuitjax.report.drawing import draw_circuit
from tests.prune.planted import CONFIG, PRUNE, TASK, planted_model, planted_problem

PRUNE_WEIGHTS = dataclasses.replace(PRUNE, steps=40, chunk=20)
JOBS = [Job(index, GateHyper(k_coef=c, lr=0.03)) for index, c in enumerate((0.01, 0.02))]


def circuit_with(draw, changes, seed=0):
    """A model and a circuit of some of its weights, paths not completed."""
    config, rng = draw.config(**changes), np.random.default_rng(seed)
    model = Model("tiny", config, draw.params(config, rng))
    weights = {f.name: rng.random(f.shape(config)) < 0.6 for f in FAMILIES}
    mask, fills = draw.mask(config, rng, 0.8), draw.fills(config, rng)
    return model, Circuit(model.name, model.hash, config, mask, fills, weights=weights)


def outputs(config, params, circuit, tokens):
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    return np.asarray(apply(config, params, tokens, circuit.gates(), fills).logits)


@pytest.fixture(scope="module")
def start() -> Circuit:
    """The planted circuit of nodes, and some nodes more."""
    model, problem = planted_model(), planted_problem()
    jobs = [Job(0, Hyper(0.01, init_noise_scale=0.05, lr=0.02))]
    state = find.train_masks(problem, find.initial_state(problem, jobs))
    best = pick(find.candidates_of(problem, jobs, state))
    rng = np.random.default_rng(0)
    more = {site: kept | (rng.random(kept.shape) < 0.25) for site, kept in best.mask.items()}
    circuit = find.as_circuit(model, best, {})
    return dataclasses.replace(circuit, mask=more)


@pytest.fixture(scope="module", params=["nodes", "whole"])
def trained(request, start):
    problem = dataclasses.replace(planted_problem(), prune=PRUNE_WEIGHTS)
    work = weight_problem(problem, start if request.param == "nodes" else None)
    assert (work.data.reduced is not None) == (request.param == "nodes")
    state = train_weights(work, initial_weights(work, JOBS))
    return problem, work, weight_candidates(work, JOBS, state)


def differences(config, params, mask, fills, pairs: Pairs):
    size, _, length = pairs.tokens.shape
    logits = apply(
        config,
        params,
        pairs.tokens.reshape(-1, length),
        {site: jnp.asarray(kept, jnp.float32) for site, kept in mask.items()},
        {site: jnp.asarray(fill, jnp.float32) for site, fill in fills.items()},
        positions=pairs.last.reshape(-1, 1),
    ).logits.reshape(size, 2, -1)
    return logit_differences(logits, pairs.answers)


def test_a_candidate_does_what_its_choice_says(trained):
    problem, work, found = trained
    model = planted_model()
    for one in found:
        circuit = as_weight_circuit(model, one, {})
        config, params = circuit.gated(model)
        after = differences(config, params, one.mask, one.fills, problem.validation)
        before = differences(config, params, one.choice.mask, work.fills, problem.validation)
        np.testing.assert_allclose(after, before, atol=1e-4)  # cleanup changed nothing
        loss = float(jnp.mean(binary_losses(one.choice.scale * after + one.choice.shift)))
        assert loss == pytest.approx(one.choice.loss, abs=1e-4)
        assert one.choice.reached == (loss <= problem.prune.target_loss)
        assert "constant" not in one.removed or one.removed["constant"] == 0
        assert one.edges == len(circuit.edges(model)) <= one.choice.selection.k
        # No smaller k that was looked at meets the target.
        smaller = [k for k, loss in one.choice.selection.curve if loss <= PRUNE.target_loss]
        assert one.choice.selection.k == min(smaller)


def test_a_start_is_only_made_smaller(trained, start):
    _, work, found = trained
    whole = work.data.reduced is None
    for one in found:
        for site, kept in one.mask.items():
            assert whole or not np.any(kept & ~start.mask[site])
    if not whole:
        assert min(one.edges for one in found) < len(start.edges(planted_model()))


@pytest.mark.parametrize("changes", [{"attention_sinks": True}, {"biases": False, "norm": "none"}])
def test_cleanup_of_whole_paths_changes_no_output_and_finds_no_constant(draw, changes):
    config, rng = draw.config(**changes), np.random.default_rng(4)
    params, fills = draw.params(config, rng, density=0.5), draw.fills(config, rng)
    model, index = Model("tiny", config, params), weight_index(config, params)
    for _ in range(3):
        opened, mask = kept_paths(
            config, index, rng.random(index.total) < 0.4, draw.mask(config, rng, 0.8)
        )
        gated = close_weights(config, params, fills, index.opened(config, opened))
        smaller, own_fills, report = cleanup(*gated, mask, fills)
        assert not report.constant
        assert sum(map(np.sum, smaller.values())) < sum(map(np.sum, mask.values()))
        for site, fill in own_fills.items():
            np.testing.assert_array_equal(fill, fills[site])
        circuits = [
            Circuit("tiny", model.hash, config, m, fills, weights=index.opened(config, opened))
            for m in (mask, smaller)
        ]
        one, other = (outputs(*gated, circuit, draw.tokens) for circuit in circuits)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_sinks": True},
        {"biases": False},
        {"norm": "layer", "biases": False, "position": "concatenated", "d_position": 3},
    ],
)
def test_the_compact_circuit_equals_the_gated_model(draw, changes):
    model, circuit = circuit_with(draw, changes)
    expected = outputs(*circuit.gated(model), circuit, draw.tokens)
    np.testing.assert_allclose(
        compact(model, circuit).logits(draw.tokens), expected, rtol=1e-3, atol=1e-3
    )


def test_saved_with_its_weights_and_without(draw, tmp_path):
    model, circuit = circuit_with(draw, {})
    circuit.save(tmp_path / "c", model)
    loaded = Circuit.load(tmp_path / "c")
    for family in FAMILIES:
        np.testing.assert_array_equal(loaded.weights[family.name], circuit.weights[family.name])
    record = json.loads((tmp_path / "c/circuit.json").read_text())
    edges = [tuple(edge) for edge in record["edges"]]
    assert edges == circuit.edges(model)
    whole = dataclasses.replace(circuit, weights=None)
    assert set(edges) < set(whole.edges(model))
    assert whole.edges(model) == edge_list(model.config, model.params, circuit.mask)
    kept = {f.name: np.asarray(model.params["layers"][f.kernel]) != 0 for f in FAMILIES}
    assert len(edges) == sum(
        int(np.sum(kept[f.name] & circuit.weights[f.name] & between(circuit, f))) for f in FAMILIES
    )
    draw_circuit(tmp_path / "c.png", model, circuit)
    # A record of before there were weights.
    whole.save(tmp_path / "c", model)
    record = json.loads((tmp_path / "c/circuit.json").read_text())
    del record["has_weights"]
    (tmp_path / "c/circuit.json").write_text(json.dumps(record))
    assert Circuit.load(tmp_path / "c").weights is None


def between(circuit, family):
    return circuit.mask[family.source][:, :, None] & circuit.mask[family.target][:, None, :]


def test_weights_of_another_kind_are_refused(draw):
    _, circuit = circuit_with(draw, {})
    with pytest.raises(ValueError, match="unknown family 'act_in->z'"):
        dataclasses.replace(circuit, weights={"act_in->z": np.ones((2, 8, 8), bool)})
    with pytest.raises(ValueError, match="weights of act_in->q are shaped None"):
        dataclasses.replace(circuit, weights={})


def test_one_call_from_a_circuit(start):
    model, seen = planted_model(), []
    circuit = find_weight_circuit(
        model,
        TASK,
        dataclasses.replace(PRUNE_WEIGHTS, calibrate="off"),
        start=start,
        jobs=JOBS,
        on_chunk=lambda state, metrics: seen.append(int(state.step[0])),
    )
    assert seen == [20, 40]
    assert circuit.provenance["reached"] is True
    assert circuit.provenance["where"] == "weights"
    # At this target one of the planted circuit's two neurons may do.
    assert 4 <= len(circuit.edges(model)) <= 6
    figures = evidence(planted_problem(), circuit)
    assert figures["loss_circuit"] <= PRUNE.target_loss + 0.05
    # Whole as a circuit: all weights open are the model itself.
    open_all = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
    nodes = {site: np.ones(shape, bool) for site, shape in shapes(CONFIG).items()}
    itself = dataclasses.replace(circuit, mask=nodes, weights=open_all)
    assert evidence(planted_problem(), itself)["kl_to_model"] == pytest.approx(0, abs=1e-6)
    pairs = planted_problem().test
    gated = circuit.gated(model)
    logits = [
        np.asarray(
            apply(*args, pairs.tokens.reshape(-1, pairs.tokens.shape[-1]), *rest).logits,
            np.float64,
        )[np.arange(2 * pairs.size), np.asarray(pairs.last).ravel()]
        for args, rest in (
            ((model.config, model.params), ()),
            (gated, (circuit.gates(), circuit.fills)),
        )
    ]
    full, part = (np.asarray(jax.nn.log_softmax(jnp.asarray(x))) for x in logits)
    kl = float(np.mean(np.sum(np.exp(full) * (full - part), axis=-1)))
    assert figures["kl_to_model"] == pytest.approx(kl, abs=1e-4)
    with pytest.raises(ValueError, match="start from one of nodes"):
        weight_problem(planted_problem(), circuit)
    nothing = {site: np.zeros(shape, bool) for site, shape in shapes(CONFIG).items()}
    with pytest.raises(ValueError, match="no nonzero weight between kept nodes"):
        weight_problem(planted_problem(), dataclasses.replace(start, mask=nothing))


def test_default_jobs_are_seeds_times_settings():
    jobs = default_weight_jobs(1000, [3, 4], control="count", lr=0.5)
    assert [job.seed for job in jobs] == [3, 3, 4, 4]
    assert {job.hyper.lr for job in jobs} == {0.5}
    assert len({job.hyper.k_coef for job in jobs}) == 2
    for control in ("count", "hold"):
        (job,) = default_weight_jobs(10, [0], control=control, k_coef=0.7)
        assert job.hyper.k_coef == 0.7
    assert [job.seed for job in default_weight_jobs(1000, [3, 4])] == [3, 4]
    with pytest.raises(ValueError, match="seed is"):
        default_weight_jobs(10, [-1])
