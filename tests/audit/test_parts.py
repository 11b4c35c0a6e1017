"""Knock-outs in one program are those of one forward pass each; polish leaves what is needed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.audit.parts import Parts, effects
from circuitjax.audit.polish import polish
from circuitjax.audit.thin import thin
from circuitjax.circuit.graph import edge_masks
from circuitjax.model.families import FAMILIES
from circuitjax.model.sites import flatten, parse_address, shapes
from circuitjax.prune.evaluate import answers
from circuitjax.prune.weight_gates import close_weights
from tests.audit.planted_audit import DISTRACTORS, circuit_of
from tests.prune.planted import CONFIG, PLANTED, PRUNE, planted_model, planted_problem


def plain(problem):
    return dataclasses.replace(problem, prune=dataclasses.replace(PRUNE, calibrate="off"))


@pytest.fixture(scope="module")
def dense():
    """A circuit of half of all nodes, the planted ones among them, with random fills."""
    rng = np.random.default_rng(5)
    circuit = circuit_of(PLANTED, scale=1.5, shift=0.25)
    mask = {s: m | (rng.random(m.shape) < 0.5) for s, m in circuit.mask.items()}
    fills = {s: rng.normal(0, 0.1, shape) for s, shape in shapes(CONFIG).items()}
    circuit = dataclasses.replace(circuit, mask=mask, fills=fills)
    own = {s: jnp.asarray(f) for s, f in circuit.fills.items()}
    problem = dataclasses.replace(planted_problem(), fills=own)
    return problem, circuit, Parts(problem, circuit)


def loss(differences, scale, shift):
    signed = np.array([-1.0, 1.0]) * (scale * np.asarray(differences, np.float64) + shift)
    return np.mean(np.logaddexp(0, signed))


def test_every_knock_out_is_a_forward_pass_of_its_own(dense):
    problem, circuit, parts = dense
    pairs = problem.validation
    found = effects(parts, circuit, pairs, most=1024)
    assert set(found.nodes) == set(circuit.nodes)
    assert found.estimated_nodes == found.estimated_edges == 0
    base = answers(problem, pairs, [circuit.mask]).differences[0]
    assert found.loss == pytest.approx(loss(base, 1.5, 0.25), abs=1e-5)
    some = [*PLANTED, *circuit.nodes[::9]]
    masks = []
    for name in some:
        layer, site, index = parse_address(CONFIG, name)
        mask = {s: m.copy() for s, m in circuit.mask.items()}
        mask[site][layer, index] = False
        masks.append(mask)
    for name, values in zip(some, answers(problem, pairs, masks).differences, strict=True):
        expected = loss(values, 1.5, 0.25) - found.loss
        assert found.nodes[name] == pytest.approx(expected, abs=1e-5), name
    assert max(found.nodes.values()) > 0.1


def test_every_closed_edge_is_a_closed_weight(dense):
    problem, circuit, parts = dense
    found = effects(parts, circuit, problem.validation, most=1024)
    params = jax.tree.map(np.asarray, dict(problem.params))
    assert len(found.edges) == len(circuit.edges(planted_model()))
    assert set(found.edges) == {(a, b) for a, b, _ in circuit.edges(planted_model())}
    between = edge_masks(CONFIG, params, circuit.mask)
    weighted = [family for family in FAMILIES if between[family.name].any()]
    assert len(weighted) == 4  # queries and keys are zero
    for family in weighted:
        layer, source, target = np.argwhere(between[family.name])[0]
        weights = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
        weights[family.name][layer, source, target] = False
        config, closed = close_weights(CONFIG, params, circuit.fills, weights)
        other = dataclasses.replace(problem, config=config, params=closed)
        values = answers(other, problem.validation, [circuit.mask]).differences[0]
        ends = [
            next(n for n in circuit.nodes if parse_address(CONFIG, n) == (layer, site, index))
            for site, index in ((family.source, source), (family.target, target))
        ]
        expected = loss(values, 1.5, 0.25) - found.loss
        assert found.edges[tuple(ends)] == pytest.approx(expected, abs=1e-5), family.name


def test_beyond_the_bound_the_largest_are_closed_and_the_rest_estimated(dense):
    problem, circuit, parts = dense
    exact = effects(parts, circuit, problem.validation, most=1024)
    rough = effects(parts, circuit, problem.validation, most=3)
    assert rough.estimated_nodes == len(exact.nodes) - 3
    same = [n for n in exact.nodes if rough.nodes[n] == pytest.approx(exact.nodes[n], abs=1e-6)]
    assert len(same) >= 3
    small = [n for n in exact.nodes if n not in PLANTED]
    np.testing.assert_allclose(
        [rough.nodes[n] for n in small], [exact.nodes[n] for n in small], atol=0.02
    )


def test_polish_removes_exactly_the_distractors():
    problem = plain(planted_problem())
    polished = polish(problem, circuit_of((*PLANTED, *DISTRACTORS)))
    assert sorted(polished.nodes) == sorted(PLANTED)
    facts = polished.provenance["polish"]
    assert facts["removed"] == sorted(DISTRACTORS)
    assert facts["nodes_before"] == 12
    assert facts["nodes_after"] == 7
    assert facts["edges_after"] < facts["edges_before"]
    found = answers(problem, problem.test, [polished.mask]).differences[0]
    assert facts["loss_test_after"] == pytest.approx(loss(found, 1, 0), abs=1e-5)
    assert facts["loss_validation_after"] <= PRUNE.target_loss
    assert polished.provenance["task"]


def test_polish_at_the_own_loss_removes_what_costs_nothing():
    """The loss does not rise, and every node that is left is needed for it."""
    problem = plain(planted_problem())
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    facts = polish(problem, circuit, at="own").provenance["polish"]
    assert facts["loss_validation_after"] <= facts["loss_validation_before"] < PRUNE.target_loss
    assert facts["target_loss"] == pytest.approx(facts["loss_validation_before"], abs=1e-6)
    assert set(PLANTED) <= set(circuit.nodes) - set(facts["removed"])
    polished = polish(problem, circuit, at="own")
    alone = effects(Parts(problem, polished), polished, problem.validation, calibrated=False)
    assert min(alone.nodes.values()) > 0
    broken = circuit_of([n for n in PLANTED if n != "1.mlp.post_act.0"])
    assert not polish(problem, broken, at="own").provenance["polish"]["reached"]


def test_polish_that_knows_the_effects_starts_from_them(monkeypatch):
    problem = plain(planted_problem())
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    alone = effects(Parts(problem, circuit), circuit, problem.validation, calibrated=False)
    guesses = []

    def watched(*args, guess, **kwargs):
        guesses.append(guess)
        return thin(*args, guess=guess, **kwargs)

    monkeypatch.setattr("circuitjax.audit.polish.thin", watched)
    assert sorted(polish(problem, circuit, alone=alone).nodes) == sorted(PLANTED)
    for name, effect in alone.nodes.items():
        gates = {site: np.zeros(shape) for site, shape in shapes(CONFIG).items()}
        layer, site, index = parse_address(CONFIG, name)
        gates[site][layer, index] = 1
        assert guesses[0] @ np.asarray(flatten(gates)) == pytest.approx(alone.loss + effect)


def test_many_parts_are_estimated_on_training_pairs(monkeypatch):
    """Slopes of every round are taken on training pairs, and lead to the same circuit."""
    problem = plain(planted_problem())
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    rounds: list[list] = []

    def watched(self, pairs, *args):
        rounds.append([pairs.size, args[2].sum()])
        return slopes(self, pairs, *args)

    slopes = Parts.slopes
    monkeypatch.setattr(Parts, "slopes", watched)
    monkeypatch.setattr("circuitjax.audit.polish.MANY", 4)
    polished = polish(problem, circuit)
    assert sorted(polished.nodes) == sorted(PLANTED)
    assert polished.provenance["polish"]["finished"]
    sizes, opened = np.array(rounds).T
    assert list(sizes[:2]) == [problem.train.size, problem.validation.size]
    assert opened[0] == 12  # at what is left, not at the whole circuit
    assert opened[-1] == 7
    weights = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
    both = polish(problem, dataclasses.replace(circuit, weights=weights))
    assert sorted(both.nodes) == sorted(PLANTED)
    assert not polish(problem, circuit, rounds=1).provenance["polish"]["finished"]


def test_polish_sorts_on_few_pairs_and_decides_on_all(monkeypatch):
    """With sets that differ: sieved on a part, decided on all, estimated on others every time."""
    problem = plain(planted_problem())
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    seen: list[bytes] = []

    def watched(self, pairs, *args):
        seen.append(np.asarray(pairs.tokens).tobytes())
        return slopes(self, pairs, *args)

    slopes = Parts.slopes
    monkeypatch.setattr(Parts, "slopes", watched)
    for name, value in (("MANY", 4), ("_SCREENED", 4), ("_SIEVED", 8), ("_FRESH", 16)):
        monkeypatch.setattr(f"circuitjax.audit.polish.{name}", value)
    polished = polish(problem, circuit)
    assert sorted(polished.nodes) == sorted(PLANTED)
    assert len(seen) >= 4
    assert seen[0] != seen[2]  # other training pairs
    assert seen[1] == seen[3]  # the same few


def test_under_calibration_one_of_the_two_neurons_is_enough():
    polished = polish(planted_problem(), circuit_of((*PLANTED, *DISTRACTORS)))
    assert len(polished.nodes) == 6
    assert set(polished.nodes) < set(PLANTED)
    assert polished.provenance["polish"]["loss_test_after"] <= PRUNE.target_loss


def test_a_circuit_that_misses_the_target_is_left_as_it_is():
    problem = plain(planted_problem())
    broken = circuit_of([n for n in PLANTED if n != "1.mlp.post_act.0"])
    polished = polish(problem, broken)
    assert not polished.provenance["polish"]["reached"]
    assert polished.num_nodes <= broken.num_nodes
    facts = polished.provenance["polish"]
    assert facts["loss_validation_after"] == pytest.approx(
        facts["loss_validation_before"], abs=1e-5
    )


def test_weights_are_polished_too():
    problem = plain(planted_problem())
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    weights = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
    polished = polish(problem, dataclasses.replace(circuit, weights=weights))
    assert sorted(polished.nodes) == sorted(PLANTED)
    assert len(polished.edges(planted_model())) == 6
    assert polished.provenance["polish"]["loss_test_after"] <= PRUNE.target_loss


def test_polish_at_anything_else_is_refused():
    with pytest.raises(ValueError, match="at is 'mine'; choose from target, own"):
        polish(planted_problem(), circuit_of(PLANTED), at="mine")


def test_an_empty_circuit_cannot_be_polished():
    with pytest.raises(ValueError, match="there is nothing to polish"):
        polish(planted_problem(), circuit_of(()))
