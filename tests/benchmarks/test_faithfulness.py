"""Faithfulness curves and their areas against the benchmark's own code on a graph of known worth."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from circuitjax.benchmarks.faithfulness import FRACTIONS, Curve, area, faithfulness_curve, sizes_of
from circuitjax.gated.edges import EdgeGates
from circuitjax.model.config import TransformerConfig
from circuitjax.prune.connected import connected_order
from circuitjax.prune.rank import rank_scores
from tests.prune.test_attribution import make

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "benchmark"
SELECTION = json.loads((DATA / "selection.json").read_text())


def benchmark_order():
    """Gates of a model of that shape, and the benchmark's number of each that it has."""
    config = TransformerConfig(
        num_layers=4, d_model=8, num_heads=4, d_head=2, d_mlp=8, vocab_size=8, context_length=8,
        position="none",
    )  # fmt: skip
    model = EdgeGates(None, None, config=config)
    known = {name: index for index, name in enumerate(SELECTION["names"])}
    names = (name.replace("embed->", "input->") for name in model.names())
    return model, np.array([known[name.removesuffix("<in>")] for name in names])


@pytest.mark.parametrize("walk", ["top", "greedy"])
@pytest.mark.parametrize("sign", ["absolute", "signed"])
def test_selection_and_areas_are_the_benchmarks(walk, sign):
    model, numbers = benchmark_order()
    expected = SELECTION["results"][f"{walk}_{sign}"]
    scores, worth = (np.array(SELECTION[name])[numbers] for name in ("scores", "worth"))
    scores = np.abs(scores) if sign == "absolute" else scores
    order = np.argsort(-scores, kind="stable")
    if walk == "greedy":
        order = connected_order(model.graph, scores, np.arange(len(scores)))
    ranks = np.argsort(order)
    total = len(scores)
    opened = [model.cut(ranks < size) for size in sizes_of(total)]
    assert [model.cost(one) for one in opened] == expected["edges"]
    for index, kept in zip((3, 5, 6, 7), expected["sets"], strict=True):
        assert sorted(numbers[opened[index]]) == kept
    measured = tuple(float(worth[one].sum()) for one in opened)
    curve = Curve(FRACTIONS, tuple(expected["edges"]), measured, float(worth.sum()), 0.0)
    np.testing.assert_allclose(curve.faithfulness, expected["faithfulness"], atol=1e-5)
    assert curve.cpr == pytest.approx(expected["cpr"], abs=1e-5)
    assert curve.cmd == pytest.approx(expected["cmd"], abs=1e-5)


def test_areas_of_the_model_itself_and_of_nothing():
    full = Curve(FRACTIONS, (1,) * 10, (3.0,) * 10, whole=3.0, empty=1.0)
    none = dataclasses.replace(full, measured=(1.0,) * 10)
    assert (full.cpr, full.cmd) == (pytest.approx(0.999), 0)
    assert (none.cpr, none.cmd) == (0, pytest.approx(0.999))
    assert area((0, 1), (0, 1)) == 0.5
    assert set(full.to_dict()) >= {"cpr", "cmd", "faithfulness", "edges"}


def test_a_measure_that_nothing_changes_is_refused():
    curve = Curve((0.5, 1.0), (1, 2), (1.0, 1.0), whole=1.0, empty=1.0)
    with pytest.raises(ValueError, match=r"^the whole model measures 1 and the empty circuit 1: "):
        _ = curve.faithfulness


@pytest.mark.parametrize("given", [(0.5,), (0.5, 0.2), (0.1, 1.5), (-0.1, 1.0)])
def test_bad_fractions_are_one_line(given):
    with pytest.raises(ValueError, match=r"^fractions are .*; they must rise"):
        sizes_of(10, given)


def test_a_curve_ends_at_the_model_and_begins_at_the_empty_circuit():
    problem = make()
    scores = np.random.default_rng(0).normal(size=problem.whole.num_gates)
    ranks = rank_scores(problem, scores, 0).ranks
    curve = faithfulness_curve(problem, ranks, problem.test, (0.0, 0.5, 1.0))
    assert curve.faithfulness[0] == pytest.approx(0, abs=1e-6)
    assert curve.faithfulness[-1] == pytest.approx(1, abs=1e-6)
    assert curve.edges[-1] == problem.whole.exists().sum()
