"""Knock-outs are those of one forward pass each; polish leaves what is needed."""

import dataclasses

import numpy as np
import pytest

from circuitjax.audit.measure import Variants
from circuitjax.audit.parts import effects
from circuitjax.audit.polish import polish
from circuitjax.audit.thin import thin
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.weight_index import close_weights
from circuitjax.model.families import FAMILIES
from circuitjax.model.graph import edge_masks
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address, shapes
from tests.audit.planted_audit import DISTRACTORS, PLAIN, circuit_of, measure, weights_of
from tests.prune.planted import CONFIG, PLANTED, SEARCH, planted_model, planted_problem

TARGET = SEARCH.selection.value


@pytest.fixture(scope="module")
def dense() -> Circuit:
    """A cleaned circuit of half of all nodes, the planted ones among them, with random constants."""
    rng = np.random.default_rng(5)
    circuit = circuit_of(PLANTED)
    mask = {s: m | (rng.random(m.shape) < 0.5) for s, m in circuit.opened["mask"].items()}
    fills = {s: rng.normal(0, 0.1, shape) for s, shape in shapes(CONFIG).items()}
    model, gates = circuit_of(mask, held=fills).view(planted_model())
    part = model.clean(gates)
    return circuit_of(part.opened["mask"], held=part.held, scale=1.5, shift=0.25)


def loss(circuit: Circuit, examples, model: Model | None = None) -> float:
    """Through the public door, in float64, under the circuit's calibration."""
    model = model or planted_model()
    logits = circuit.logits(model, examples.tokens[:, 0], examples.positions)[:, 0]
    right, wrong = (
        np.take_along_axis(np.asarray(logits, np.float64), np.asarray(x), axis=-1)[:, 0]
        for x in (examples.right, examples.wrong)
    )
    sides = np.tile([1.0, -1.0], len(right) // 2)
    return float(
        np.mean(np.logaddexp(0, -(circuit.scale * (right - wrong) + circuit.shift * sides)))
    )


def without(circuit: Circuit, name: str) -> Circuit:
    layer, site, index = parse_address(CONFIG, name)
    mask = {s: m.copy() for s, m in circuit.opened["mask"].items()}
    mask[site][layer, index] = False
    return circuit.changed(planted_model(), {**circuit.opened, "mask": mask})


def test_every_knock_out_is_a_forward_pass_of_its_own(dense):
    problem = planted_problem()
    found = effects(problem, measure(dense), dense, problem.validation, most=1024)
    assert set(found.nodes) == set(dense.nodes())
    assert found.estimated_nodes == found.estimated_edges == 0
    assert found.loss == pytest.approx(loss(dense, problem.validation), abs=1e-5)
    for name in [*PLANTED, *dense.nodes()[::9]]:
        expected = loss(without(dense, name), problem.validation) - found.loss
        assert found.nodes[name] == pytest.approx(expected, abs=1e-5), name
    assert max(found.nodes.values()) > 0.1


def test_every_closed_edge_is_a_closed_weight(dense):
    problem = planted_problem()
    found = effects(problem, measure(dense), dense, problem.validation, most=1024)
    mask, params = dense.opened["mask"], planted_model().params
    ends = [(source, target) for source, target, _ in dense.edges()]
    entered = {target: sum(end == target for _, end in ends) for _, target in ends}
    assert set(found.edges) == set(ends)
    between = edge_masks(CONFIG, params, mask)
    weighted = [family for family in FAMILIES if between[family.name].any()]
    assert len(weighted) == 4  # queries and keys are zero
    for family in weighted:
        for layer, source, target in np.argwhere(between[family.name])[:4]:
            names = [
                next(n for n in dense.nodes() if parse_address(CONFIG, n) == (layer, site, index))
                for site, index in ((family.source, source), (family.target, target))
            ]
            if entered[names[1]] < 2:
                continue  # its only entry: the node closes with it
            weights = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
            weights[family.name][layer, source, target] = False
            config, closed = close_weights(CONFIG, params, dense.held, weights)
            other = dataclasses.replace(planted_model(), config=config, params=closed)
            changed = Circuit.of(
                other,
                "nodes",
                dense.opened,
                ablation="zero",
                held=dense.held,
                scale=1.5,
                shift=0.25,
            )
            expected = loss(changed, problem.validation, other) - found.loss
            assert found.edges[tuple(names)] == pytest.approx(expected, abs=1e-5), family.name


def test_beyond_the_bound_the_largest_are_closed_and_the_rest_estimated(dense):
    problem = planted_problem()
    exact = effects(problem, measure(dense), dense, problem.validation, most=1024)
    rough = effects(problem, measure(dense), dense, problem.validation, most=3)
    assert rough.estimated_nodes == len(exact.nodes) - 3
    same = [n for n in exact.nodes if rough.nodes[n] == pytest.approx(exact.nodes[n], abs=1e-6)]
    assert len(same) >= 3
    small = [n for n in exact.nodes if n not in PLANTED]
    np.testing.assert_allclose(
        [rough.nodes[n] for n in small], [exact.nodes[n] for n in small], atol=0.03
    )


def test_polish_removes_exactly_the_distractors():
    problem = planted_problem(PLAIN)
    polished = polish(problem, PLAIN, circuit_of((*PLANTED, *DISTRACTORS)))
    assert sorted(polished.nodes()) == sorted(PLANTED)
    facts = polished.provenance["polish"]
    assert facts["removed"] == sorted(DISTRACTORS)
    assert facts["nodes_before"] == facts["size_before"] == 12
    assert facts["nodes_after"] == facts["size_after"] == 7
    assert facts["edges_after"] < facts["edges_before"]
    assert facts["loss_test_after"] == pytest.approx(loss(polished, problem.test), abs=1e-5)
    assert facts["loss_validation_after"] <= TARGET
    assert polished.provenance["task"]


def test_polish_at_the_own_loss_removes_what_costs_nothing():
    """The loss does not rise, and every node that is left is needed for it."""
    problem = planted_problem(PLAIN)
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    polished = polish(problem, PLAIN, circuit, at="own")
    facts = polished.provenance["polish"]
    assert facts["loss_validation_after"] <= facts["loss_validation_before"] + 2e-7 < TARGET
    assert facts["target"] == pytest.approx(facts["loss_validation_before"], abs=1e-6)
    assert set(PLANTED) <= set(circuit.nodes()) - set(facts["removed"])
    alone = effects(problem, measure(polished, PLAIN), polished, problem.validation)
    assert min(alone.nodes.values()) > 0
    broken = circuit_of([n for n in PLANTED if n != "1.mlp.post_act.0"])
    assert not polish(problem, PLAIN, broken, at="own").provenance["polish"]["reached"]


def test_a_circuit_cut_to_a_size_is_held_to_its_own_loss():
    """It has no target: what goes costs nothing."""
    selection = dataclasses.replace(PLAIN.selection, target="nodes", value=12)
    search = dataclasses.replace(PLAIN, selection=selection)
    problem = planted_problem(search)
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    assert measure(circuit, search).target == pytest.approx(
        loss(circuit, problem.validation), abs=1e-5
    )
    facts = polish(problem, search, circuit).provenance["polish"]
    assert facts["reached"]
    assert facts["loss_validation_after"] <= facts["loss_validation_before"] + 2e-7


def test_polish_that_knows_the_effects_starts_from_them(monkeypatch):
    problem = planted_problem(PLAIN)
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    alone = effects(problem, measure(circuit, PLAIN), circuit, problem.validation)
    guesses = []

    def watched(*args, guess, **kwargs):
        guesses.append(guess)
        return thin(*args, guess=guess, **kwargs)

    monkeypatch.setattr("circuitjax.audit.polish.thin", watched)
    polished = polish(problem, PLAIN, circuit, alone=alone)
    assert sorted(polished.nodes()) == sorted(PLANTED)
    names = circuit.view(planted_model()).model.names()
    for name, effect in alone.nodes.items():
        assert guesses[0][names.index(name)] == pytest.approx(alone.loss + effect)


def test_many_parts_are_estimated_on_training_items(monkeypatch):
    """Slopes of every round are taken on training items, and lead to the same circuit."""
    problem = planted_problem(PLAIN)
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    rounds: list[list] = []

    def watched(self, examples, row):
        rounds.append([examples.items, row.sum()])
        return slopes(self, examples, row)

    slopes = Variants.slopes
    monkeypatch.setattr(Variants, "slopes", watched)
    monkeypatch.setattr("circuitjax.audit.polish.MANY", 4)
    polished = polish(problem, PLAIN, circuit)
    assert sorted(polished.nodes()) == sorted(PLANTED)
    assert polished.provenance["polish"]["finished"]
    sizes, opened = np.array(rounds).T
    assert list(sizes[:2]) == [problem.train.items, problem.validation.items]
    assert opened[0] == 12  # at what is left, not at the whole circuit
    assert opened[-1] == 7
    both = polish(problem, PLAIN, weights_of(circuit))
    assert sorted(both.nodes()) == sorted(PLANTED)
    assert not polish(problem, PLAIN, circuit, rounds=1).provenance["polish"]["finished"]


def test_polish_sorts_on_few_items_and_decides_on_all(monkeypatch):
    """With sets that differ: sieved on a part, decided on all, estimated on others every time."""
    problem = planted_problem(PLAIN)
    circuit = circuit_of((*PLANTED, *DISTRACTORS))
    seen: list[bytes] = []

    def watched(self, examples, row):
        seen.append(np.asarray(examples.tokens).tobytes())
        return slopes(self, examples, row)

    slopes = Variants.slopes
    monkeypatch.setattr(Variants, "slopes", watched)
    for name, value in (("MANY", 4), ("_SCREENED", 4), ("_SIEVED", 8), ("_FRESH", 16)):
        monkeypatch.setattr(f"circuitjax.audit.polish.{name}", value)
    polished = polish(problem, PLAIN, circuit)
    assert sorted(polished.nodes()) == sorted(PLANTED)
    assert len(seen) >= 4
    assert seen[0] != seen[2]  # other training items
    assert seen[1] == seen[3]  # the same few


def test_under_calibration_one_of_the_two_neurons_is_enough():
    polished = polish(planted_problem(), SEARCH, circuit_of((*PLANTED, *DISTRACTORS)))
    assert len(polished.nodes()) == 6
    assert set(polished.nodes()) < set(PLANTED)
    assert polished.provenance["polish"]["loss_test_after"] <= TARGET


def test_a_circuit_that_misses_the_target_is_left_as_it_is():
    broken = circuit_of([n for n in PLANTED if n != "1.mlp.post_act.0"])
    polished = polish(planted_problem(PLAIN), PLAIN, broken)
    facts = polished.provenance["polish"]
    assert not facts["reached"]
    assert polished.num_nodes <= broken.num_nodes
    assert facts["loss_validation_after"] == pytest.approx(
        facts["loss_validation_before"], abs=1e-5
    )


def test_weights_are_polished_too():
    problem = planted_problem(PLAIN)
    polished = polish(problem, PLAIN, weights_of(circuit_of((*PLANTED, *DISTRACTORS))))
    assert sorted(polished.nodes()) == sorted(PLANTED)
    assert len(polished.edges()) == 6
    facts = polished.provenance["polish"]
    assert facts["size_after"] == facts["edges_after"] == 6
    assert facts["loss_test_after"] == pytest.approx(loss(polished, problem.test), abs=1e-5)
    assert facts["loss_test_after"] <= TARGET


def test_polish_at_anything_else_is_refused():
    with pytest.raises(ValueError, match="at is 'mine'; choose from target, own"):
        polish(planted_problem(), SEARCH, circuit_of(PLANTED), at="mine")


def test_an_empty_circuit_cannot_be_polished():
    with pytest.raises(ValueError, match="there is nothing to polish"):
        polish(planted_problem(), SEARCH, circuit_of(()))
