"""Rankings of edges on planted models: what is known about them is found where it must be."""

from circuitjax.benchmarks.ranking_truth import truth_of_rankings
from circuitjax.zoo.planted.models import key_composition


def test_a_saturated_softmax_hides_edges_from_a_gradient_and_not_from_a_path():
    found = truth_of_rankings(key_composition(0), ("attribution", "integrated", "random"), items=8)
    by_name = {(one.ranking, one.sign): one for one in found}
    assert len(by_name) == 5
    assert by_name["integrated", "absolute"].auroc == 1
    assert by_name["integrated", "absolute"].recall == 1
    assert by_name["attribution", "absolute"].auroc < 0.9
    assert {(one.num_true, one.num_all) for one in found} == {(3, 46)}
