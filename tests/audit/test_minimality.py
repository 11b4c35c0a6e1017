"""Parts against random parts: the planted ones are told apart, idle ones are not."""

import itertools

import numpy as np

from circuitjax.audit.measure import Variants
from circuitjax.audit.minimality import inflated_sets, minimality, part_changes, random_changes
from circuitjax.prune.evaluate import Asked
from circuitjax.prune.problem import batches_of
from tests.audit.planted_audit import DISTRACTORS, circuit_of, measure
from tests.prune.planted import PLANTED, planted_model, planted_problem


def test_inflated_circuits_hold_the_circuit_and_as_much_again_and_close_a_part_on_a_path():
    circuit = circuit_of(PLANTED)
    model, gates = circuit.view(planted_model())
    groups = model.groups()
    sets = list(itertools.islice(inflated_sets(model, gates, 3), 30))
    for one in sets:
        assert np.all(one.gates[gates])
        assert one.gates[one.part]
        assert not gates[one.part]
        assert model.alive(one.gates)[one.part]
        for group in np.unique(groups[groups >= 0]):
            mine = groups == group
            added = one.gates[mine].sum() - gates[mine].sum()
            assert added == min(gates[mine].sum(), (~gates[mine]).sum())
    assert len({one.gates.tobytes() for one in sets}) > 20
    again = list(itertools.islice(inflated_sets(model, gates, 3), 30))
    assert all(a.part == b.part for a, b in zip(sets, again, strict=True))


def test_a_change_is_the_mean_distance_of_the_odds():
    problem, circuit = planted_problem(), circuit_of(PLANTED)
    view = circuit.view(planted_model())
    few = problem.test.first(8)
    variants = Variants(problem, view, "task")
    asked = variants.asked(few)
    parts = np.flatnonzero(view.gates)
    found = part_changes(variants, asked, parts, scale=2.0)
    for place, part in enumerate(parts):
        row = view.gates.copy()
        row[part] = False
        odds = variants.answers(asked, np.stack([view.gates, row])).odds
        np.testing.assert_allclose(found[place], 2 * np.abs(odds[0] - odds[1]).mean(), rtol=1e-5)
    # The same through the whole model, as random parts are measured.
    whole = Asked(view.model, batches_of(view.model), few)
    sets = list(itertools.islice(inflated_sets(view.model, view.gates, 0), 3))
    closed = random_changes(view.model, whole, sets)
    assert closed.shape == (3,)
    assert np.all(closed >= 0)


def test_planted_parts_do_more_than_random_ones_and_distractors_do_not():
    problem = planted_problem()
    circuit = circuit_of(PLANTED)
    found = minimality(problem, measure(circuit), circuit, problem.test)
    assert (found.tested, found.parts, found.needed) == (7, 7, 1.0)
    assert found.low is None
    assert max(found.p.values()) < 0.05
    # Beside five that do nothing.
    more = circuit_of((*PLANTED, *DISTRACTORS))
    found = minimality(problem, measure(more), more, problem.test)
    assert {name for name, p in found.p.items() if p <= 0.05} == set(PLANTED)
    assert found.needed == 7 / 12


def test_of_many_parts_a_sample_is_tested_and_the_share_has_an_interval():
    problem = planted_problem()
    circuit = circuit_of(PLANTED)
    found = minimality(problem, measure(circuit), circuit, problem.test, most=4)
    assert (found.tested, found.parts) == (4, 7)
    assert found.low < found.needed == found.high == 1.0
    assert set(found.p) < set(PLANTED)


def test_where_nothing_random_lies_on_a_path_there_is_no_test():
    problem = planted_problem()
    whole = circuit_of(
        {site: np.ones_like(m) for site, m in circuit_of(PLANTED).opened["mask"].items()}
    )
    found = minimality(problem, measure(whole), whole, problem.test)
    assert isinstance(found, str)
    assert "no random closed part" in found
