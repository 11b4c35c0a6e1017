"""The binary prints what the tables say, writes the same, and turns bad input into one line."""

from tests.experiments.drive import drive
from tests.report.test_audit_table import audit, write


def test_tables_of_audits(tmp_path):
    write(tmp_path / "audits/a", audit("a"))
    (tmp_path / "none").mkdir()
    done, absent, none, folder = drive(
        "audit_table",
        [
            ["--audits=audits", "--out=made/table.md"],
            ["--audits=absent"],
            ["--audits=none"],
            ["--audits=audits", "--out=none"],
        ],
        tmp_path,
    )
    assert done[0] == 0
    assert "| hold" in done[1]
    assert (tmp_path / "made/table.md").read_text() == done[1]
    for outcome, text in (
        (absent, "absent is no directory: give one that holds audits"),
        (none, "no finished audit lies below none: run experiments.audit first"),
        (folder, "none is a directory: choose another --out, a file"),
    ):
        assert outcome[0] == 2
        assert outcome[2] == f"error: {text}\n"
