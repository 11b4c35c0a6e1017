"""The verdict: a figure beside its threshold, and never a word in its place."""

import math

import pytest

from circuitjax.audit.audit import AuditConfig, hyper_of, settings_of
from circuitjax.audit.checks import Check, full_checks, loose_loss, short_checks
from circuitjax.prune.config import PruneConfig, default_hyper
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, PRUNE

FIGURES = {
    "loss_unpruned": 0.01,
    "loss_circuit": 0.14,
    "loss_circuit_uncalibrated": 0.5,
    "necessity_percentile": 1.0,
    "kl_to_model": 0.1,
    "argmax_agreement": 0.95,
    "correlation_within": 0.8,
}
RUN = {"world": "task", "seed": 0, "nodes": 10, "reached": True, "loss": 0.14, "loss_test": 0.15}


def audit(**changes):
    found = {
        "target_loss": 0.15,
        "nodes_total": 1000,
        "own_nodes": 10,
        "baseline": {},
        "evidence": FIGURES,
        "sufficiency": {"zero": {"free": {"loss": 0.2}, "frozen": {"loss": 0.6}}},
        "templates": {"a": {"loss": 0.1}, "b": {"loss": 0.5}},
        "effects": {"idle_nodes": 0.0, "idle_edges": None},
        "polish": {
            "nodes_before": 10,
            "nodes_after": 8,
            "loss_test_before": 0.14,
            "loss_test_after": 0.15,
            "target_loss": 0.15,
            "reached": True,
            "finished": True,
        },
        "agreement": {"divergence": 0.1, "unexplained": [None, 0.2]},
        "supersets": {"random": [[0.1], [0.2, 0.4], [0.01]], "adversarial": 0.69},
        "runs": [
            RUN,
            {**RUN, "world": "nonsense", "nodes": 15},
            {**RUN, "world": "shuffled", "reached": False},
        ],
        "worlds": {},
        "stability": {"jaccard": 0.2, "core_loss": 0.1, "core": 5, "seeds": [0, 1]},
        "skipped": {"weights": "why not", "templates": "one template"},
    }
    return {check.name: check for check in full_checks({**found, **changes})}


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
        ("loss_circuit", 0.2),
        ("loss_circuit", 0.005),  # better than the model
        ("necessity_percentile", 0.9),
        ("kl_to_model", 3.0),
        ("argmax_agreement", 0.2),
        ("correlation_within", 0.1),
    ):
        checks = short_checks({**FIGURES, name: value}, 0.15)
        assert sum(check.passed is False for check in checks) == 1, name
    without = short_checks({k: v for k, v in FIGURES.items() if k != "correlation_within"}, None)
    assert len(without) == len(short_checks(FIGURES, 0.15)) - 2


@pytest.mark.parametrize(("after", "passed"), [(8, False), (95, None)])
def test_a_polish_cut_short_shows_that_nodes_are_idle_and_not_that_none_are(after, passed):
    polish = {
        "nodes_before": 10 if after == 8 else 100,
        "nodes_after": after,
        "loss_test_before": 0.14,
        "loss_test_after": 0.15,
        "target_loss": 0.15,
        "reached": True,
        "finished": False,
    }
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 4}, "seeds is 4; it must be at least 5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"pairs": 0}, "pairs is 0"),
        ({"fractions": (0.5, 1.0)}, "each must be in"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_bad_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AuditConfig(**changes)


def test_a_circuits_record_says_how_it_was_found():
    circuit = circuit_of(PLANTED)
    assert settings_of(circuit) == PRUNE
    assert hyper_of(circuit) is None
    hyper = default_hyper(288, lr=0.02)
    job = {"seed": 3, **hyper.to_dict()}
    for facts in ({"chosen": job}, {"hyper": hyper.to_dict()}, {"jobs": [job, {}]}):
        found = hyper_of(circuit_of(PLANTED, provenance=facts))
        assert found.to_dict() == pytest.approx(hyper.to_dict())
    with pytest.raises(ValueError, match="does not say with what settings"):
        settings_of(circuit_of(PLANTED, provenance={}))
    assert settings_of(circuit_of(PLANTED, provenance={"config": {}})) == PruneConfig()
