"""Scores against brute force over pairs and SciPy; derived truth on compiled programs."""

import functools
import itertools
import pathlib
import re

import numpy as np
import pytest
import scipy.stats

from circuitjax.benchmarks.ground_truth import (
    auroc,
    compare,
    tracr_edges,
    tracr_runs,
)
from circuitjax.benchmarks.needed_edges import edge_runs
from circuitjax.benchmarks.truth import check_circuit, minimal_parts, needed_alone
from circuitjax.importers.tracr import load_tracr
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.transformer import apply

FIXTURES = pathlib.Path(__file__).parents[1] / "importers" / "tracr"
NAMES = [f"e{i}" for i in range(40)]


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("num_true", [1, 7, 39])
def test_auroc_is_the_share_of_pairs(rng, levels, num_true):
    values = rng.integers(0, levels, len(NAMES)) / 7
    true = set(rng.choice(NAMES, num_true, replace=False).tolist())
    scores = dict(zip(NAMES, values.tolist(), strict=True))
    inside = [v for name, v in scores.items() if name in true]
    outside = [v for name, v in scores.items() if name not in true]
    wins = sum((a > b) + (a == b) / 2 for a, b in itertools.product(inside, outside))
    found = auroc(scores, true)
    assert found == pytest.approx(wins / (len(inside) * len(outside)), abs=1e-15)
    statistic = scipy.stats.mannwhitneyu(inside, outside, method="asymptotic").statistic
    assert found == pytest.approx(statistic / (len(inside) * len(outside)), abs=1e-12)


def test_auroc_at_its_ends(rng):
    scores = {name: float(i) for i, name in enumerate(NAMES)}
    assert auroc(scores, NAMES[30:]) == 1
    assert auroc(scores, NAMES[:10]) == 0
    assert auroc(dict.fromkeys(NAMES, 2.0), NAMES[:10]) == 0.5
    assert auroc({**scores, "e3": np.inf}, ["e3"]) == 1
    # Only the order counts.
    true = rng.choice(NAMES, 9, replace=False).tolist()
    assert auroc(scores, true) == auroc({k: np.exp(v / 5) for k, v in scores.items()}, true)


def test_compare_counts():
    found = compare(["a", "b", "c"], ["b", "c", "d", "e"], list("abcdefg"))
    assert (found.precision, found.recall) == (2 / 3, 2 / 4)
    assert found.f1 == pytest.approx(scipy.stats.hmean([2 / 3, 2 / 4]))
    assert (found.missing, found.extra, found.auroc) == (("d", "e"), ("a",), None)
    assert (found.num_true, found.num_found, found.num_right, found.num_all) == (4, 3, 2, 7)
    assert compare(["b", "c"], ["c", "b"], list("abc")).f1 == 1
    nothing = compare([], ["a"], list("abc"))
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_nothing_to_find_is_no_error():
    """Shares of nothing are none; what was found all the same is counted."""
    scores = dict.fromkeys("abc", 1.0)
    nothing = compare([], [], list("abc"), scores)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.auroc) == (None,) * 4
    assert (nothing.missing, nothing.extra, nothing.num_true, nothing.num_found) == ((), (), 0, 0)
    some = compare(["b"], [], list("abc"))
    assert (some.precision, some.recall, some.extra) == (0, None, ("b",))


def test_pairs_and_names_are_one():
    pairs = {("embed", "m0<in>"), ("m0", "logits")}
    every = ["embed->m0<in>", "embed->logits", ("m0", "logits")]
    scores = {("m0", "logits"): 2.0, "embed->m0<in>": 1.0, "embed->logits": 0.0}
    found = compare(pairs, ["m0->logits", "embed->m0<in>"], every, scores)
    assert (found.f1, found.auroc, found.num_all) == (1, 1, 3)
    assert compare(every, every, every, scores).auroc is None


EDGES = ["a", "b", "c"]
BAD = {
    "unknown truth": (lambda: compare(["a"], ["z"], EDGES), "true holds 'z', which is none of"),
    "unknown found": (lambda: compare(["z"], ["a"], EDGES), "found holds 'z', which is none of"),
    "one text": (lambda: compare("a", ["a"], EDGES), "found is the single text 'a'"),
    "triple": (lambda: compare([("a", "b", 1.0)], ["a"], EDGES), "give names or"),
    "unscored": (lambda: compare([], ["a"], EDGES, {"a": 1.0}), "scores lack 'b' (2 such)"),
    "scored but unknown": (
        lambda: compare([], ["a"], EDGES, {"z": 1.0}),
        "scores holds 'z', which is none of",
    ),
    "nan": (lambda: auroc({"a": np.nan, "b": 1.0}, ["a"]), "give 'a' the value nan"),
    "all true": (lambda: auroc({"a": 1.0}, ["a"]), "1 true and 0 other parts is undefined"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


@functools.lru_cache(maxsize=3)
def program(name):
    return load_tracr(FIXTURES / f"{name}.npz")


def test_a_record_becomes_names_of_the_graph():
    for name in ("reverse", "sort_unique", "xproportion"):
        recorded = {f"{writer}->{reader}" for writer, reader in program(name).true_edges}
        found = tracr_edges(program(name))
        assert set(found) == recorded
        order = residual_graph(program(name).model.config).names
        assert list(found) == [edge for edge in order if edge in recorded]


# What the compiler's record leaves out, and closing at zero shows: reads of the constant direction
# (thresholds of the neurons) and of BOS (what a selector's width is measured with), both the
# embedding's.
CONSTANT_OR_BOS = {
    "sort_unique": {"embed->a0.h0<v>", "embed->m0<in>"},
    "xproportion": set(),
}
# What differs between two runs: neither positions nor patterns that follow from them alone.
VARIES = {
    "sort_unique": {
        "embed->a0.h0<q>",
        "embed->a0.h0<k>",
        "a0.h0->m0<in>",
        "m0->a1.h0<k>",
        "embed->a1.h0<v>",
        "a1.h0->logits",
    },
    "xproportion": {"embed->m0<in>", "m0->a1.h0<v>", "a1.h0->logits"},
}


@pytest.mark.parametrize("name", VARIES)
@pytest.mark.parametrize("ablation", ["zero", "interchange"])
def test_what_is_needed_is_the_record_read_with_the_ablation_in_mind(name, ablation):
    recorded = set(tracr_edges(program(name)))
    expected = recorded | CONSTANT_OR_BOS[name] if ablation == "zero" else VARIES[name]
    runs = tracr_runs(program(name), ablation, draws=1)
    tolerance = 0.0 if runs.by == "answer" else 1e-3
    found = needed_alone(runs, tolerance)
    assert set(found) == expected
    assert check_circuit(runs, found, tolerance).minimal_and_sufficient
    assert minimal_parts(runs, tolerance) == found
    # One edge fewer is not sufficient; one more is, but not minimal.
    fewer = check_circuit(runs, found[1:], tolerance)
    assert not fewer.sufficient
    more = next(e for e in residual_graph(runs.config).names if e not in found)
    wider = check_circuit(runs, (*found, more), tolerance)
    assert wider.sufficient
    assert wider.spare == (more,)


@pytest.mark.slow
def test_what_is_true_of_reverse_depends_on_the_inputs_too():
    """Its first head measures the length, over all positions alike: with no q and k it still does.

    At full length zero in place of that measure reads as the longest length, which is right.
    """
    reverse = program("reverse")
    recorded = set(tracr_edges(reverse))
    alike = {"embed->a0.h0<q>", "embed->a0.h0<k>"}
    constant = {"embed->m0<in>", "embed->m1<in>"}
    at_full = recorded - alike - {"a0.h0->m0<in>"} | constant
    assert set(tracr_edges(reverse, "zero")) == at_full
    shorter = recorded - alike | constant | {"embed->a0.h0<v>"}  # the share of BOS is the measure
    assert set(tracr_edges(reverse, "zero", lengths=(3,))) == shorter
    assert set(tracr_edges(reverse, "interchange")) == {"embed->a3.h0<v>", "a3.h0->logits"}


def test_redundant_edges_hide_one_another_but_not_from_the_check(tiny_model, monkeypatch):
    """Changes made up: either of two edges carries the same, a third what neither does."""
    names = residual_graph(tiny_model.config).names
    tokens = np.zeros((1, 3), np.int32)
    runs = edge_runs(tiny_model.config, tiny_model.params, tokens, "zero")
    first, second, third = 2, 5, 9

    def changes(_, masks):
        carried = masks[:, first] | masks[:, second]
        return 1.0 - 0.5 * carried - 0.5 * masks[:, third]

    monkeypatch.setattr(type(runs), "changes", changes)
    assert needed_alone(runs, 1e-3) == (names[third],)
    assert not check_circuit(runs, [names[third]], 1e-3).sufficient
    assert minimal_parts(runs, 1e-3) == (names[first], names[third])
    both = check_circuit(runs, [names[first], names[second], names[third]], 1e-3)
    assert both.spare == (names[first], names[second])
    assert check_circuit(runs, minimal_parts(runs, 1e-3), 1e-3).minimal_and_sufficient
    with pytest.raises(ValueError, match="start with more parts"):
        minimal_parts(runs, 1e-3, start=[names[0]])


def test_all_open_changes_nothing_and_all_closed_gives_the_other_run(tiny_model, rng):
    config, params = tiny_model.config, tiny_model.params
    clean, other = rng.integers(0, 24, (2, 3, 7)).astype(np.int32)
    other[:, -1] = clean[:, -1]  # the bigram row passes no reader
    places = np.full((3, 1), 6)
    runs = edge_runs(config, params, clean, "interchange", other, positions=places)
    size = residual_graph(config).num_edges
    whole, empty = runs.changes(np.array([np.ones(size, bool), np.zeros(size, bool)]))
    gap = apply(config, params, other).logits[:, -1] - apply(config, params, clean).logits[:, -1]
    assert whole == pytest.approx(0, abs=1e-4)
    assert empty == pytest.approx(float(np.abs(gap).max()), abs=1e-3)
    np.testing.assert_allclose(
        runs.full[:, 0], apply(config, params, clean).logits[:, -1], atol=1e-4
    )


@pytest.mark.parametrize(
    ("ablation", "other", "changed", "message"),
    [
        ("noise", None, {}, "ablation is 'noise'; choose interchange, mean or zero"),
        ("zero", np.zeros((2, 4), int), {}, "zero ablation uses none"),
        ("interchange", None, {}, r"corrupted inputs are shaped \(\); they must be \(2, 4\)"),
        ("interchange", np.zeros((2, 3), int), {}, r"are shaped \(2, 3\); they must be \(2, 4\)"),
        ("zero", None, {"by": "loss"}, "by is 'loss'; choose answer or logits"),
        ("zero", None, {"num_outputs": 25}, "num_outputs is 25; it must be from 1 to 24"),
        ("zero", None, {"positions": np.zeros((1, 2), int)}, r"positions are shaped \(1, 2\)"),
    ],
)
def test_bad_runs_are_one_clear_line(tiny_model, ablation, other, changed, message):
    clean = np.zeros((2, 4), np.int32)
    with pytest.raises(ValueError, match=message):
        edge_runs(tiny_model.config, tiny_model.params, clean, ablation, other, **changed)


def test_bad_programs_and_edges(tiny_model):
    reverse = program("reverse")
    with pytest.raises(ValueError, match="length is 6; inputs of 'reverse' have from 1 to 5"):
        tracr_runs(reverse, "zero", length=6)
    with pytest.raises(ValueError, match="draws is 0"):
        tracr_runs(reverse, "interchange", draws=0)
    runs = edge_runs(tiny_model.config, tiny_model.params, np.zeros((1, 2)), "zero")
    with pytest.raises(ValueError, match="the model has no part 'm0->embed'"):
        check_circuit(runs, ["m0->embed"], 0.0)
