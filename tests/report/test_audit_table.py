"""Tables of audits say what the audits say."""

import dataclasses
import json
import re

import pytest

from circuitjax.audit.record import (
    FORMAT,
    AuditFigures,
    Baseline,
    CheckFigures,
    EffectFigures,
    Evidence,
    Hypothesis,
    PolishFigures,
    RunFigures,
    Stability,
)
from circuitjax.core.records import seal
from circuitjax.report.audit_table import (
    checks_table,
    controls_table,
    hypotheses_table,
    polish_table,
    read_audits,
)


def audit(task="a", *, passed=True, edges=(8, 2), seeds=((5, True), (9, False)), polish=True):
    def check(name, figure, ok):
        return CheckFigures("g", name, figure, 0.5, True, "nats", "", ok)

    def run(world, seed, size, reached):
        return RunFigures(world, seed, size, 2 * size, size, reached, 0.1, 0.1)

    runs = [run("task", i, size, ok) for i, (size, ok) in enumerate(seeds)]
    runs += [run("nonsense", 0, 70, True), run("shuffled", 0, 71, False)]
    done = PolishFigures(6, 3, *edges, 6, 3, 0.1, 0.14, 0.11, 0.15, 0.15, True, True, ["n"])
    return AuditFigures(
        format=FORMAT,
        model="m",
        model_hash="h",
        task=task,
        grain="nodes",
        ablation="mean",
        paired=True,
        unit="nodes",
        measure="calibrated",
        target=0.15,
        chance=0.69,
        nodes=6,
        nodes_total=100,
        edges=edges[0],
        edges_total=1000,
        size=6,
        size_total=100,
        own_size=6.0,
        baseline=Baseline(0.01, 0.69, 2.0, 1.0),
        evidence=Evidence(0.1, 0.2, 1.0, 1.5, [0.1], 1.0, 0.9, 0.8, 0.2, 0.9),
        sufficiency={},
        templates={},
        agreement=None,
        effects=EffectFigures(0.1, 0.0, 0.0, 0, 0, {}, []),
        polish=done if polish else None,
        supersets=None,
        runs=runs,
        worlds={},
        stability=Stability([0, 1], 0.5, [[1.0]], 0.5, 4, 0.8, 4, 0.2),
        skipped={},
        seconds={"x": 1.4, "y": 2.0},
        settings={},
        checks=[check("KL(a || b)", 0.25, passed), check("absent", None, None)],
    )


def write(folder, figures):
    """As an audit's directory has it."""
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text(json.dumps(seal(figures.to_dict())))


def cells(table):
    """Rows of a Markdown table as lists of text; an escaped bar is part of its cell."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    return [[cell.strip() for cell in row] for row in rows]


def test_checks_by_circuit():
    rows = cells(checks_table([audit("a"), audit("b", passed=False)]))
    assert rows[0] == ["check", "wanted", "a", "b"]
    assert rows[2] == [r"g: KL(a \|\| b)", "<= 0.5", "0.25", "**0.25**"]
    assert rows[3] == ["g: absent", "<= 0.5", "-", "-"]
    assert rows[4] == ["hold", "", "1 of 1", "0 of 1"]


def test_a_check_that_one_audit_lacks_is_a_dash_there():
    other = audit("b")
    other = dataclasses.replace(other, checks=other.checks[1:])
    assert cells(checks_table([audit("a"), other]))[2][2:] == ["0.25", "-"]


def test_tests_are_corrected_over_all_circuits():
    def tested(task, **values):
        tests = [Hypothesis(n, "", 0.0, p, None, None, 1, 0, p) for n, p in values.items()]
        return dataclasses.replace(audit(task), tests=tests)

    rows = cells(
        hypotheses_table(
            [tested("a", necessity=0.01, equivalence=0.3), tested("b", necessity=0.04)]
        )
    )
    assert rows[0] == ["test", "a", "b"]
    assert rows[2] == ["necessity", "**0.03**", "0.06"]
    assert rows[3] == ["equivalence", "0.3", "-"]
    assert rows[4] == ["share of parts needed", "-", "-"]
    assert cells(hypotheses_table([audit("a")]))[2:] == [["share of parts needed", "-"]]


def test_polish_with_geometric_means():
    rows = cells(polish_table([audit("a"), audit("b", edges=(2, 2)), audit("c", polish=False)]))
    assert rows[2][:5] == ["a", "6", "3", "8", "2"]
    assert rows[2][5:] == ["0.100", "0.140", "0.110", "0.150"]
    assert rows[4][:5] == ["geometric mean", "6", "3", "4", "2"]
    assert len(rows) == 5


def test_controls_and_seeds():
    rows = cells(controls_table([audit("a")]))
    assert rows[2] == ["a", "6 nodes", "5 -", "0.500", "4", "70", "never", "-", "3"]


def test_audits_are_found_below_a_directory(tmp_path):
    for task in ("b", "a"):
        write(tmp_path / task, audit(task))
    assert read_audits(tmp_path) == [audit("a"), audit("b")]
    write(tmp_path / "again", audit("a"))
    with pytest.raises(ValueError, match="two audits of a on m"):
        read_audits(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "m", "task": "a"}'])
def test_what_is_no_audit_is_named(tmp_path, text):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(ValueError, match=r"audit\.json") as caught:
        read_audits(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_without_audits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished audit lies below"):
        read_audits(tmp_path)
    with pytest.raises(ValueError, match="is no directory"):
        read_audits(tmp_path / "absent")
