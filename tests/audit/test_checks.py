"""The verdict: a figure beside its threshold, and never a word in its place."""

import dataclasses
import math

import pytest

from circuitjax.audit.checks import Check, full_checks, loose_loss, short_checks
from circuitjax.audit.record import (
    Agreement,
    Exhaustive,
    Minimality,
    Sufficiency,
    SupersetFigures,
)
from tests.audit.figures import AUDIT, EVIDENCE, FIGURES, POLISH, RUN, TESTS


def audit(**changes):
    checks = full_checks(dataclasses.replace(AUDIT, **changes))
    return {check.name: check for check in checks}


def test_a_check_holds_when_its_figure_is_on_the_right_side():
    assert Check("g", "n", 1.0, 1.0).passed
    assert not Check("g", "n", 1.01, 1.0).passed
    assert Check("g", "n", 1.0, 1.0, at_most=False).passed
    assert not Check("g", "n", 0.99, 1.0, at_most=False).passed
    assert Check("g", "n", None, 1.0).passed is None
    assert Check("g", "n", math.nan, 1.0).passed is None
    assert Check("g", "n", math.nan, 1.0).to_dict()["figure"] is None


def test_loose_is_between_the_target_and_chance():
    assert loose_loss(0.15) == pytest.approx(0.3)
    for target in (0.01, 0.3, 0.5, 0.69):
        assert target < loose_loss(target) < math.log(2)
    assert loose_loss(0.8) == 0.8


def test_the_short_form_fails_what_the_figures_fail():
    assert all(check.passed for check in short_checks(FIGURES, 0.15))
    for name, value in (
        ("loss_circuit", 0.19),  # above 1.25 times the target
        ("loss_circuit", 0.005),  # better than the model
        ("necessity", dataclasses.replace(EVIDENCE.necessity, p=0.06)),
        ("kl_to_model", 0.51),
        ("argmax_agreement", 0.89),
        ("correlation_within", 0.49),
    ):
        checks = short_checks({**FIGURES, name: value}, 0.15)
        assert sum(check.passed is False for check in checks) == 1, name
    assert len(short_checks(FIGURES, None)) == len(short_checks(FIGURES, 0.15)) - 1
    by_kl = short_checks(FIGURES, 0.05, "kl")[0]
    assert (by_kl.name, by_kl.figure, by_kl.passed) == ("test KL", 0.1, False)
    constant = {**FIGURES, "correlation_within": None}
    assert short_checks(constant, 0.15)[-1].figure is None
    # Without pairs there are no sides, and the correlation over all prompts is the one.
    assert short_checks(constant, 0.15, paired=False)[-1].figure == FIGURES["correlation"]


@pytest.mark.parametrize(("after", "passed"), [(8, False), (95, None)])
def test_a_polish_cut_short_shows_that_nodes_are_idle_and_not_that_none_are(after, passed):
    polish = dataclasses.replace(
        POLISH, size_before=10 if after == 8 else 100, size_after=after, finished=False
    )
    check = audit(polish=polish)["nodes that polish removes"]
    assert check.passed is passed
    assert "polish was cut short: at least" in check.note
    assert f"{20 if after == 8 else 5}%" in check.note


def test_the_verdict_reads_every_figure():
    checks = audit()
    assert {check.name for check in short_checks(FIGURES, 0.15)} < set(checks)
    assert checks["zero replacement"].passed
    assert not checks["zero replacement, norms frozen"].passed
    assert checks["loss on its worst template"].note == "b"
    assert not checks["loss on its worst template"].passed
    assert checks["templates held out from a search of its own"].note == "one template"
    assert checks["nodes that polish removes"].figure == pytest.approx(0.2)
    assert checks["test loss after polish, above target and circuit"].figure == pytest.approx(0.0)
    assert checks["random supersets, worst mean over fractions"].figure == pytest.approx(0.3)
    assert not checks["adversarial superset"].passed
    assert checks["size of nonsense task, of the task's"].figure == 1.5
    assert not checks["size of nonsense task, of the task's"].passed
    assert checks["size of shuffled labels, of the task's"].figure == 100
    assert checks["size of random weights, of the task's"].passed is None
    assert not checks["Jaccard of node sets between seeds"].passed
    assert checks["loss of the core alone"].passed


def reached(count):
    return {"runs": [dataclasses.replace(RUN, seed=n, reached=n < count) for n in range(5)]}


def polished(**changes):
    return {"polish": dataclasses.replace(POLISH, **changes)}


def core(**changes):
    return {"stability": dataclasses.replace(AUDIT.stability, **changes)}


def effects(**changes):
    return {"effects": dataclasses.replace(AUDIT.effects, **changes)}


def inside(divergence, unexplained):
    return {"agreement": Agreement({}, divergence, unexplained)}


def control(size):
    return {"runs": [RUN, dataclasses.replace(RUN, world="weights", size=size)]}


def among(random, adversarial):
    return {"supersets": SupersetFigures([0.0, 0.5, 1.0], random, adversarial, 0.5, "search", [])}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("seeds that reach the target", reached(4), reached(3)),
        ("divergence of attention patterns", inside(0.19, []), inside(0.21, [])),
        (
            "variance unexplained in its worst layer",
            inside(0.0, [0.1, None, 0.49]),
            inside(0.0, [0.1, None, 0.51]),
        ),
        (
            "nodes whose removal costs under 1% of the target",
            effects(idle_nodes=0.09),
            effects(idle_nodes=0.11),
        ),
        (
            "edges whose removal costs under 1% of the target",
            effects(idle_edges=0.09),
            effects(idle_edges=0.11),
        ),
        ("nodes that polish removes", polished(size_after=9), polished(size_after=8)),
        (
            "test loss after polish, above target and circuit",
            polished(loss_test_after=0.18),
            polished(loss_test_after=0.19),
        ),
        ("size of random weights, of the task's", control(20), control(19)),
        ("Jaccard of node sets between seeds", core(jaccard=0.51), core(jaccard=0.49)),
        ("loss of the core alone", core(core_loss=0.29), core(core_loss=0.31)),
        (
            "random supersets, worst mean over fractions",
            among([[9.0], [0.28], [0.2, 0.38], [9.0]], 0.0),
            among([[9.0], [0.32], [0.2, 0.38], [9.0]], 0.0),
        ),
        ("adversarial superset", among([[0.1]] * 3, 0.62), among([[0.1]] * 3, 0.63)),
        (
            "templates held out from a search of its own",
            {"runs": [dataclasses.replace(RUN, world="templates", loss_test=0.29)]},
            {"runs": [dataclasses.replace(RUN, world="templates", loss_test=0.31)]},
        ),
    ],
)
def test_every_figure_is_held_to_its_threshold_from_both_sides(name, good, bad):
    assert audit(**good)[name].passed
    assert audit(**bad)[name].passed is False


def with_p(name, adjusted):
    tests = [dataclasses.replace(t, adjusted=adjusted) if t.name == name else t for t in TESTS]
    return {"tests": tests}


def answered(share, exact=True):
    facts = (0.99, share, 0.93, 0.97, 0.1, 0.1, 0.1, [])
    return {"exhaustive": Exhaustive(exact, "all", None, 200, 100, *facts)}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "p of the circuit among random sets of its shape",
            with_p("necessity", 0.05),
            with_p("necessity", 0.051),
        ),
        (
            "p of the circuit against the model, item by item",
            with_p("equivalence", 0.05),
            with_p("equivalence", 0.049),
        ),
        (
            "p of the model's outcome against what is left without the circuit",
            with_p("independence", 0.05),
            with_p("independence", 0.049),
        ),
        (
            "parts that do no more than random parts",
            {"minimality": Minimality(9, 9, 100, 0.91, None, None, 0.1, {})},
            {"minimality": Minimality(9, 9, 100, 0.89, None, None, 0.1, {})},
        ),
        ("answered right on the whole split", answered(0.95), answered(0.94)),
        (
            "answered right on a sample of the whole split",
            answered(0.95, exact=False),
            answered(0.94, exact=False),
        ),
    ],
)
def test_tests_are_held_to_their_level_after_correction(name, good, bad):
    assert audit(**good)[name].passed
    assert audit(**bad)[name].passed is False


def test_a_bound_is_a_check_where_it_was_asked_for():
    name = "test loss at most, with confidence 0.95"
    assert name not in audit()
    asked = {"settings": {"audit": {"confidence": 0.95}}}
    assert audit(**asked, bound=0.15)[name].passed
    assert audit(**asked, bound=0.151)[name].passed is False


def test_losses_have_their_intervals():
    checks = audit()
    assert (checks["test loss"].low, checks["test loss"].high) == (0.13, 0.16)
    assert checks["test loss without calibration"].low is None
    sufficient = {"zero": {"free": Sufficiency(0.2, 0.3, (0.1, 0.4))}}
    assert audit(sufficiency=sufficient)["zero replacement"].high == 0.4
    around = dataclasses.replace(
        AUDIT.supersets,
        random_intervals=[(0.0, 0.1), (0.2, 0.5), None],
        adversarial_interval=(0.6, 0.7),
    )
    checks = audit(supersets=around)
    assert checks["random supersets, worst mean over fractions"].high == 0.5
    assert checks["adversarial superset"].low == 0.6
    after = dataclasses.replace(POLISH, loss_test_interval=(0.14, 0.17))
    check = audit(polish=after)["test loss after polish, above target and circuit"]
    assert (check.low, check.high) == pytest.approx((-0.01, 0.02))
    sampled = audit()["parts that do no more than random parts"]
    assert (sampled.low, sampled.high) == pytest.approx((0.01, 0.1))


def test_what_was_not_done_is_not_judged():
    skipped = dict.fromkeys(("polish", "supersets", "nonsense", "stability"), "not asked for")
    checks = audit(polish=None, supersets=None, runs=[], stability=None, skipped=skipped)
    for name in (
        "nodes that polish removes",
        "adversarial superset",
        "size of nonsense task, of the task's",
        "loss of the core alone",
    ):
        assert checks[name].passed is None
        assert checks[name].note == "not asked for"


def test_a_circuit_cut_to_a_kl_is_held_to_it():
    checks = audit(measure="kl", unit="edges", target=0.05, chance=2.0)
    assert checks["test KL"].figure == EVIDENCE.kl_to_model
    assert checks["zero replacement"].threshold == pytest.approx(0.1)
    assert checks["adversarial superset"].threshold == pytest.approx(1.8)
    assert checks["loss on its worst template"].figure is None
    assert "edges that polish removes" in checks
    assert "Jaccard of edge sets between seeds" in checks
