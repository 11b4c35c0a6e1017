"""Defaults and presets: what each grain's method is, and what may be asked for by name."""

import dataclasses

import pytest

from circuitjax.gated.edges import EdgeGates
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph
from circuitjax.prune.defaults import (
    PRESETS,
    Search,
    default_hyper,
    default_jobs,
    default_search,
)


def test_the_methods_of_the_grains():
    nodes, weights, edges = (
        default_search(grain).choices for grain in ("nodes", "weights", "edges")
    )
    assert (nodes.gate, nodes.ablation, nodes.minimise, nodes.control) == (
        "heaviside", "mean", "task", "hold",
    )  # fmt: skip
    assert (weights.gate, weights.control) == ("heaviside", "hold")
    assert (edges.gate, edges.ablation, edges.minimise, edges.control, edges.owners) == (
        "hard_concrete", "interchange", "kl", "lagrangian", True,
    )  # fmt: skip


def test_a_pair_is_two_examples():
    pairs, examples = (default_search("edges", paired=paired) for paired in (True, False))
    assert 2 * pairs.data.train == examples.data.train
    assert 2 * pairs.train.batch_size == examples.train.batch_size
    assert examples.selection.calibrate == "off"


@pytest.mark.parametrize(
    ("given", "target", "value"),
    [
        ({"target_loss": 0.05}, "loss", 0.05),
        ({"target_kl": 0.2}, "kl", 0.2),
        ({"target_edges": 40}, "edges", 40),
        ({"target_nodes": 9}, "nodes", 9),
        ({"threshold": "match_soft", "gate": "hard_concrete"}, "match_soft", 0.15),
    ],
)
def test_one_target_is_asked_for_by_its_name(given, target, value):
    selection = default_search("edges", **given).selection
    assert (selection.target, selection.value) == (target, value)
    assert selection.eliminate == (target in ("loss", "kl"))


def test_what_is_learned_is_eliminated_and_certified_where_that_is_not_dear():
    def of(**given):
        selection = default_search("nodes", **given).selection
        return selection.eliminate, selection.certify

    assert of() == (True, True)
    assert of(control="count") == (False, False)  # as published
    assert of(target_nodes=9) == (False, False)
    assert of(ranking="attribution")[1] is False
    assert of(hold_under="mean,resample") == (True, False)


def test_what_is_unknown_or_asked_for_twice_is_one_line():
    with pytest.raises(
        ValueError, match=r"^target_loss and target_kl are both given: choose one, "
    ):
        default_search("edges", target_loss=0.1, target_kl=0.1)
    with pytest.raises(
        ValueError, match=r"^target_loss and target_edges are both given: choose one$"
    ):
        default_search("edges", target_loss=0.1, target_edges=9)
    with pytest.raises(ValueError, match=r"^there is no setting 'stepz'$"):
        default_search("nodes", stepz=3)


def test_a_loss_and_a_kl_are_both_demanded_under_conditions():
    search = default_search("nodes", hold_under="mean", target_loss=0.2, target_kl=0.5)
    assert (search.selection.target, search.selection.value, search.selection.kl) == (
        "loss",
        0.2,
        0.5,
    )
    assert search.choices.minimise == "both"
    assert float(default_hyper(search, 100).kl_weight) == pytest.approx(0.4)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_pins_all_five_choices(name):
    preset = dict(PRESETS[name])
    assert {"grain", "gate", "minimise", "control"} <= preset.keys()
    assert ("ablation" in preset) != ("train_under" in preset)
    hypers = {k: preset.pop(k) for k in list(preset) if k in default_hyper(Search(), 9).to_dict()}
    search = default_search(**preset)
    jobs = default_jobs(search, 100, [0], **hypers)
    assert all(
        job.hyper.to_dict()[k] == pytest.approx(v) for job in jobs for k, v in hypers.items()
    )


def test_the_default_weight_of_size_goes_as_one_over_the_nodes():
    search = default_search("nodes", control="count")
    assert default_hyper(search, 180_224).k_coef == pytest.approx(1e-4, rel=1e-2)  # as published
    assert default_hyper(search, 900).k_coef * 900 == pytest.approx(18)
    assert default_hyper(search, 900, k_coef=0.5).k_coef == 0.5


def test_jobs_are_seeds_times_settings():
    assert len(default_jobs(default_search("nodes"), 900, [4, 5])) == 2  # no coefficient to find
    search = default_search("nodes", control="count")
    jobs = default_jobs(search, 900, [4, 5])
    assert [job.seed for job in jobs] == [4] * 8 + [5] * 8
    assert len({float(job.hyper.k_coef) for job in jobs}) == 8
    assert len(default_jobs(search, 900, [4], k_coef=0.1)) == 1
    edges = default_jobs(default_search("edges"), 100, [0])
    assert [float(job.hyper.target_sparsity) for job in edges] == [0.95, 0.99]


def test_a_search_survives_its_record():
    search = default_search("weights", target_loss=0.3, tie_qk=True, steps=7)
    assert Search.from_dict(search.to_dict()) == search
    with pytest.raises(ValueError, match=r"^a search has the parts "):
        Search.from_dict({"choices": {}})


def test_sets_and_jobs_of_large_networks_are_smaller():
    """A llama of 135 million parameters: an example's slope by all its edges is over half a GiB."""
    small = TransformerConfig(num_layers=2, d_model=64, num_heads=2, d_head=32, d_mlp=128,
                              vocab_size=100, context_length=32)  # fmt: skip
    large = dataclasses.replace(small, num_layers=30, d_model=576, num_heads=9, d_head=64,
                                d_mlp=1536, num_kv_heads=3, gated_mlp=True)  # fmt: skip
    assert default_search("edges", config=small) == default_search("edges")
    assert default_search("nodes", config=large) == default_search("nodes")
    sizes = default_search("edges", config=large, paired=False).data
    assert (sizes.train, sizes.validation, sizes.test) == (1024, 128, 128)
    assert default_search("edges", config=large, target_kl=0.1).choices.ranking == "eliminated"
    search = default_search("edges", config=large, target_kl=0.1, steps=150)
    choices, selection = search.choices, search.selection
    assert (choices.ranking, choices.gate) == ("learned", "heaviside")
    assert (choices.control, choices.warm_start) == ("hold", "fisher")
    assert (selection.eliminate, selection.certify) == (True, False)
    assert default_hyper(search, 70_651).k_coef == pytest.approx(1e-3 * 2746 / 70_651)
    assert default_hyper(search, 70_651).aim == 0.8
    for other in ({"target_kl": 0.1, "warm_start": "gim"}, {"target_loss": 0.1}):
        found = default_search("edges", config=large, **other)
        assert (found.choices.ranking, found.selection.eliminate) == ("learned", False)
    search = default_search("edges", config=large, target_kl=0.1, control="lagrangian")
    assert (search.choices.warm_start, search.selection.eliminate) == ("none", False)
    edges = residual_graph(large).num_edges
    assert [job.hyper.target_sparsity for job in default_jobs(search, edges, [0])] == [0.97]
    assert len(default_jobs(search, 1000, [0])) == 2
    model = EdgeGates(None, None, config=large)
    assert (model.eval_items, model.scouted_items) == (4, 16)
