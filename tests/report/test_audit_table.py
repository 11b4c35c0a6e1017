"""Tables of audits say what the audits say."""

import json
import re

import pytest

from circuitjax.report.audit_table import checks_table, controls_table, polish_table, read_audits


def audit(task="a", *, passed=True, edges=(8, 2), seeds=((5, True), (9, False)), polish=True):
    def check(name, figure, ok):
        return {"group": "g", "name": name, "figure": figure, "threshold": 0.5, "at_most": True,
                "unit": "nats", "note": "", "passed": ok}  # fmt: skip

    runs = [
        {"world": "task", "seed": i, "nodes": n, "reached": ok} for i, (n, ok) in enumerate(seeds)
    ]
    runs += [
        {"world": "nonsense", "seed": 0, "nodes": 70, "reached": True},
        {"world": "shuffled", "seed": 0, "nodes": 71, "reached": False},
    ]
    done = {
        "nodes_before": 6, "nodes_after": 3, "edges_before": edges[0], "edges_after": edges[1],
        "loss_validation_before": 0.1, "loss_validation_after": 0.14, "loss_test_before": 0.11,
        "loss_test_after": 0.15,
    }  # fmt: skip
    return {
        "model": "m", "task": task, "nodes": 6, "runs": runs, "seconds": {"x": 1.4, "y": 2.0},
        "checks": [check("KL(a || b)", 0.25, passed), check("absent", None, None)],
        "polish": done if polish else None, "stability": {"jaccard": 0.5, "core": 4},
    }  # fmt: skip


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
    other["checks"] = other["checks"][1:]
    assert cells(checks_table([audit("a"), other]))[2][2:] == ["0.25", "-"]


def test_polish_with_geometric_means():
    rows = cells(polish_table([audit("a"), audit("b", edges=(2, 2)), audit("c", polish=False)]))
    assert rows[2][:5] == ["a", "6", "3", "8", "2"]
    assert rows[2][5:] == ["0.100", "0.140", "0.110", "0.150"]
    assert rows[4][:5] == ["geometric mean", "6", "3", "4", "2"]
    assert len(rows) == 5


def test_controls_and_seeds():
    rows = cells(controls_table([audit("a")]))
    assert rows[2] == ["a", "6", "5 -", "0.500", "4", "70", "never", "-", "3"]


def test_audits_are_found_below_a_directory(tmp_path):
    for task in ("b", "a"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "audit.json").write_text(json.dumps(audit(task)))
    assert [found["task"] for found in read_audits(tmp_path)] == ["a", "b"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "audit.json").write_text(json.dumps(audit("a")))
    with pytest.raises(ValueError, match="two audits of a on m"):
        read_audits(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": "m", "task": "a"}'])
def test_what_is_no_audit_is_named(tmp_path, text):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(ValueError, match=r"audit\.json is no audit that can be read"):
        read_audits(tmp_path)


def test_a_directory_without_audits_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished audit lies below"):
        read_audits(tmp_path)
    with pytest.raises(ValueError, match="is no directory"):
        read_audits(tmp_path / "absent")
