"""The verdict: a figure beside its threshold, and never a word in its place."""

import dataclasses
import json
import math

import jsonschema
import pytest

from circuitjax.audit.audit import AuditConfig
from circuitjax.audit.checks import Check, full_checks, loose_loss, short_checks
from circuitjax.audit.record import (
    FORMAT,
    Agreement,
    AuditFigures,
    Baseline,
    EffectFigures,
    Evidence,
    Exhaustive,
    Hypothesis,
    Minimality,
    PolishFigures,
    RunFigures,
    Stability,
    Sufficiency,
    SupersetFigures,
    Template,
)
from circuitjax.core.records import seal
from circuitjax.prune.defaults import default_hyper, default_search
from circuitjax.prune.provenance import hyper_of, search_of
from circuitjax.report.audit_table import read_audit
from tests.audit.planted_audit import circuit_of
from tests.prune.planted import PLANTED, SEARCH

EVIDENCE = Evidence(
    loss_circuit=0.14,
    loss_circuit_uncalibrated=0.5,
    accuracy_circuit=1.0,
    loss_without_circuit=0.7,
    loss_without_random=[0.1],
    necessity_percentile=1.0,
    correlation=0.9,
    correlation_within=0.8,
    kl_to_model=0.1,
    argmax_agreement=0.95,
    intervals={"loss_circuit": (0.13, 0.16), "kl_to_model": (0.05, 0.2)},
    necessity=Hypothesis("necessity", "", 0.7, 0.005, 0.0, 0.02, 200, 0),
)
BASE = Baseline(loss_unpruned=0.01, loss_empty=0.69, kl_empty=2.0, accuracy_unpruned=1.0)
FIGURES = {**vars(BASE), **vars(EVIDENCE)}
TESTS = [
    dataclasses.replace(EVIDENCE.necessity, adjusted=0.01),
    Hypothesis("equivalence", "", 0.5, 0.9, None, None, 40, 20, 0.9),
    Hypothesis("independence", "", 0.01, 0.3, 0.2, 0.4, 60, 20, 0.4),
]
RUN = RunFigures("task", 0, 10, 12, 10, True, 0.14, 0.15)
POLISH = PolishFigures(
    nodes_before=10,
    nodes_after=8,
    edges_before=12,
    edges_after=9,
    size_before=10,
    size_after=8,
    loss_validation_before=0.14,
    loss_validation_after=0.15,
    loss_test_before=0.14,
    loss_test_after=0.15,
    target=0.15,
    reached=True,
    finished=True,
    removed=["a", "b"],
)
AUDIT = AuditFigures(
    format=FORMAT,
    model="m",
    model_hash="0",
    task="t",
    grain="nodes",
    ablation="mean",
    paired=True,
    unit="nodes",
    measure="calibrated",
    target=0.15,
    chance=math.log(2),
    nodes=10,
    nodes_total=1000,
    edges=12,
    edges_total=5000,
    size=10,
    size_total=1000,
    own_size=10.0,
    baseline=BASE,
    evidence=EVIDENCE,
    sufficiency={"zero": {"free": Sufficiency(0.2, 0.3), "frozen": Sufficiency(0.6, 0.7)}},
    templates={"a": Template(0.1, 3), "b": Template(0.5, 4)},
    agreement=Agreement({"0.h0": 0.1}, 0.1, [None, 0.2]),
    effects=EffectFigures(0.14, 0.0, None, 0, 0, {"x": 0.1}, [("x", "y", 0.1)]),
    polish=POLISH,
    supersets=SupersetFigures(
        [0.0, 0.5, 1.0], [[0.1], [0.2, 0.4], [0.01]], 0.69, 0.5, "search", [[0.1]]
    ),
    runs=[
        RUN,
        dataclasses.replace(RUN, world="nonsense", nodes=15, size=15),
        dataclasses.replace(RUN, world="shuffled", reached=False),
    ],
    worlds={},
    stability=Stability([0, 1], 0.2, [[1.0]], 0.3, 5, 0.5, 4, 0.1),
    skipped={"weights": "why not", "templates": "one template"},
    seconds={"data": 1.0},
    settings={},
    checks=[],
    tests=TESTS,
    minimality=Minimality(5, 10, 100, 0.95, 0.9, 0.99, 0.1, {"x": 0.01}),
)


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


def test_an_audit_of_the_version_before_is_read_without_what_it_lacks(tmp_path):
    fields = json.loads(json.dumps(AUDIT.to_dict()))
    for name in ("tests", "minimality", "exhaustive", "bound"):
        del fields[name]
    for part in ("evidence", "baseline"):
        fields[part].pop("intervals")
    fields["evidence"].pop("necessity")
    fields["stability"].pop("core_interval")
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(seal(fields)))
    with pytest.raises(ValueError, match="lacks field"):
        read_audit(path)  # a record of this version lacks nothing
    path.write_text(json.dumps(seal({**fields, "format": "circuitjax-audit-2"})))
    found = read_audit(path)
    assert found.tests == []
    assert found.evidence.loss_circuit == EVIDENCE.loss_circuit
    checks = {check.name: check for check in full_checks(found)}
    assert checks["test loss"].passed
    assert checks["p of the circuit among random sets of its shape"].passed is None
    del fields["grain"]
    path.write_text(json.dumps(seal({**fields, "format": "circuitjax-audit-2"})))
    with pytest.raises(ValueError, match="lacks field 'grain'"):
        read_audit(path)


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
        ({"random_sets": 0}, "random_sets is 0"),
        ({"confidence": 1.0}, r"confidence is 1.0; it must be in \(0, 1\)"),
        ({"confidence": 0.0}, r"confidence is 0.0; it must be in \(0, 1\)"),
        ({"exhaustive": -1}, "exhaustive is -1"),
    ],
)
def test_a_bad_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AuditConfig(**changes)


def test_a_circuits_record_says_how_it_was_found():
    circuit = circuit_of(PLANTED)
    assert search_of(circuit) == SEARCH
    assert hyper_of(circuit) is None
    hyper = default_hyper(SEARCH, 288, lr=0.02)
    job = {"seed": 3, **hyper.to_dict()}
    for facts in ({"chosen": job}, {"hyper": hyper.to_dict()}, {"jobs": [job, {}]}):
        found = hyper_of(circuit_of(PLANTED, provenance=facts))
        assert found.to_dict() == pytest.approx(hyper.to_dict())
    with pytest.raises(ValueError, match="does not say by what search"):
        search_of(circuit_of(PLANTED, provenance={}))


def test_settings_of_the_first_version_are_those_of_now():
    first = {"target_loss": 0.2, "steps": 60, "train_pairs": 64, "calibrate": "off", "chunk": 20}
    found = search_of(circuit_of(PLANTED, provenance={"prune": first}))
    want = default_search(
        target_loss=0.2, steps=60, train=64, calibrate="off", chunk=20, ablation="zero"
    )
    assert found == want
    assert search_of(circuit_of(PLANTED, provenance={"config": {}})) == default_search(
        ablation="zero"
    )


def test_figures_come_back_from_json_and_fit_their_schema():
    fields = json.loads(json.dumps(AUDIT.to_dict()))
    assert AuditFigures.from_dict(fields) == AUDIT
    jsonschema.validate(fields, AuditFigures.schema())
    with pytest.raises(ValueError, match=r"audit.json lacks field 'unit'"):
        AuditFigures.from_dict({k: v for k, v in fields.items() if k != "unit"})
    with pytest.raises(ValueError, match=r"audit.json: evidence: loss_circuit is 'x'"):
        AuditFigures.from_dict({**fields, "evidence": {**fields["evidence"], "loss_circuit": "x"}})
    with pytest.raises(ValueError, match=r"audit.json has the unknown field 'more'"):
        AuditFigures.from_dict({**fields, "more": 1})


def test_a_circuit_cut_to_a_kl_is_held_to_it():
    checks = audit(measure="kl", unit="edges", target=0.05, chance=2.0)
    assert checks["test KL"].figure == EVIDENCE.kl_to_model
    assert checks["zero replacement"].threshold == pytest.approx(0.1)
    assert checks["adversarial superset"].threshold == pytest.approx(1.8)
    assert checks["loss on its worst template"].figure is None
    assert "edges that polish removes" in checks
    assert "Jaccard of edge sets between seeds" in checks
