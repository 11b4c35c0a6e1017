"""Graphs of real-valued scores in the benchmark's format: a file of its own code, and back again."""

import copy
import json
import pathlib
import re

import numpy as np
import pytest

from circuitjax.export.benchmark_file import read_scores, scores_graph
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph
from tests.prune.test_attribution import CONFIG

FILE = pathlib.Path(__file__).resolve().parents[1] / "data" / "benchmark" / "graph.json"
SHARED = TransformerConfig(
    num_layers=2, d_model=8, num_heads=4, d_head=2, d_mlp=8, vocab_size=8, context_length=8,
    num_kv_heads=2, position="none",
)  # fmt: skip


def test_a_graph_that_the_benchmarks_code_wrote_comes_back_as_it_was():
    graph = json.loads(FILE.read_text())
    scores, inside = read_scores(graph, CONFIG)
    again = scores_graph(CONFIG, scores, inside)
    assert again["cfg"] == graph["cfg"]
    assert set(again["edges"]) == set(graph["edges"])
    assert set(again["nodes"]) == set(graph["nodes"])
    for name, edge in graph["edges"].items():
        assert again["edges"][name]["in_graph"] == edge["in_graph"]
        assert again["edges"][name]["score"] == pytest.approx(edge["score"])


def test_scores_of_shared_heads_add_up():
    size = residual_graph(SHARED).num_edges
    scores = np.random.default_rng(0).normal(size=size)
    graph = scores_graph(SHARED, scores, scores > 0)
    assert graph["edges"]["input->a1.h0<k>"] == graph["edges"]["input->a1.h1<k>"]
    back, inside = read_scores(graph, SHARED)
    np.testing.assert_allclose(back, scores, rtol=1e-12)
    np.testing.assert_array_equal(inside, scores > 0)
    assert sum(e["score"] for e in graph["edges"].values()) == pytest.approx(scores.sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.pop("edges"), "the graph has no 'cfg' and 'edges'"),
        (lambda g: g["cfg"].update(n_layers=3), "the graph is of a model with n_layers=3, and"),
        (lambda g: g["edges"].pop("m0->logits"), "the graph has no edge 'm0->logits'"),
        (lambda g: g["edges"].update(x={"score": 1}), "the graph has unknown edge 'x'"),
        (
            lambda g: g["edges"]["m0->logits"].update(score="1"),
            "edge 'm0->logits' has the score '1'",
        ),
        (lambda g: g["edges"].update({"m0->logits": 1}), "edge 'm0->logits' has the score None"),
    ],
)
def test_another_graph_is_one_line(change, message):
    graph = copy.deepcopy(json.loads(FILE.read_text()))
    change(graph)
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}[^\n]*$"):
        read_scores(graph, CONFIG)


@pytest.mark.parametrize("scores", [np.zeros(3), np.full(residual_graph(SHARED).num_edges, np.nan)])
def test_scores_of_another_shape_are_one_line(scores):
    with pytest.raises(ValueError, match=r"^scores are shaped .*; they must be 82 finite numbers"):
        scores_graph(SHARED, scores)
