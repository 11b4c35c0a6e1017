"""Directories: what is ours can be told, replaced and emptied; nothing else is ever touched."""

import json

import pytest

from circuitjax.run.directory import (
    AUDIT,
    RANKINGS,
    RUN,
    STUDY,
    SUITE,
    UNIQUENESS,
    claim,
    digest_of,
    holds,
    stay_in,
)

KINDS = (RUN, AUDIT, STUDY, SUITE, UNIQUENESS, RANKINGS)
ONE, TWO = {"model": "m", "seed": 0}, {"model": "m", "seed": 1}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_what_is_claimed_is_held(kind, tmp_path):
    at = tmp_path / "here"
    assert not holds(kind, at, ONE)
    at.mkdir()
    (at / ".lock").touch()
    assert not holds(kind, at, ONE)
    claim(kind, at, ONE)
    assert holds(kind, at, ONE)
    record = json.loads((at / kind.record).read_text())
    assert record["record_hash"] == digest_of(kind, ONE) != digest_of(kind, TWO)
    with pytest.raises(ValueError, match="with another seed: choose another --out"):
        holds(kind, at, TWO)
    if kind.replaced:
        assert not holds(kind, at, TWO, overwrite=True)
    else:
        with pytest.raises(ValueError, match="with another seed"):
            holds(kind, at, TWO, overwrite=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_where_nothing_can_be_written_is_refused_before_the_work(kind, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file: choose another --out, a directory"):
        holds(kind, tmp_path / "file", ONE)
    with pytest.raises(ValueError, match="lies below a file"):
        holds(kind, tmp_path / "file" / "a" / "b", ONE)

    def refused(dir):  # root may write anywhere
        raise PermissionError(13, "denied", dir)

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(ValueError, match=r"nothing can be written in .* \(this user may not\)"):
        holds(kind, tmp_path / "a" / "b", ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_claiming_empties_and_keeps_the_directory_and_its_lock(tmp_path):
    claim(RUN, tmp_path, ONE)
    (tmp_path / ".lock").touch()
    (tmp_path / "circuit").mkdir()
    (tmp_path / "circuit" / "circuit.json").write_text("{}")
    (tmp_path / "report.json").write_text("{}")
    place = tmp_path.stat().st_ino
    claim(RUN, tmp_path, TWO)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "run.json"}
    assert tmp_path.stat().st_ino == place
    assert holds(RUN, tmp_path, TWO)


def test_a_link_among_our_files_is_removed_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    at = tmp_path / "run"
    claim(RUN, at, ONE)
    (at / "circuit").symlink_to(outside)
    claim(RUN, at, TWO)
    assert not (at / "circuit").exists()
    assert (outside / "kept.txt").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"training_notes.txt": "mine"},
        {"run.json": '{"a": 1}'},
        {"run.json": "{"},
        {"training": ""},
        {"report.json": "{}"},
        {".hidden": ""},
    ],
)
def test_foreign_files_are_never_removed(files, overwrite, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no run of ours"):
        holds(RUN, tmp_path, ONE, overwrite=overwrite)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == files


def test_nor_beside_a_run_of_ours(tmp_path):
    claim(RUN, tmp_path, ONE)
    (tmp_path / "thesis.txt").write_text("mine")
    assert holds(RUN, tmp_path, ONE)
    with pytest.raises(ValueError, match=r"such as 'thesis\.txt'"):
        holds(RUN, tmp_path, TWO, overwrite=True)
    claim(RUN, tmp_path, TWO)  # whoever does not ask removes no foreign file either
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="is a file"):
        holds(RUN, tmp_path / "thesis.txt", ONE)


DAMAGES = {
    "changed": lambda text: text.replace('"seed": 0', '"seed": 1'),
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: "[]",
    "an object": lambda text: "{}",
    "empty": lambda text: "",
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_what_lost_its_record_is_named_and_can_be_done_anew(kind, damage, tmp_path):
    """A directory is known as ours by its lock, or by what lies there, not by the record alone."""
    claim(kind, tmp_path, ONE)
    (tmp_path / ".lock").touch()
    record = tmp_path / kind.record
    change = DAMAGES[damage]
    record.unlink() if change is None else record.write_text(change(record.read_text()))
    below = tmp_path / kind.files[0]
    below.write_text('{"format": "circuitjax-')
    mend = "--overwrite does it anew" if kind.replaced else "remove the directory"
    with pytest.raises(ValueError, match=f"whose {kind.record} is gone, or was changed: {mend}"):
        holds(kind, tmp_path, ONE)
    if kind.replaced:
        assert not holds(kind, tmp_path, ONE, overwrite=True)
        claim(kind, tmp_path, ONE)
        assert holds(kind, tmp_path, ONE)
        assert not below.exists()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_work_that_outlives_its_directory_says_again_what_it_is_for(kind, tmp_path):
    at = tmp_path / "out"
    claim(kind, at, ONE)
    stay_in(kind, at, ONE)
    at.rename(tmp_path / "elsewhere")
    if kind.replaced:
        stay_in(kind, at, ONE)
        assert holds(kind, at, ONE)
    else:  # it would add to what is gone
        with pytest.raises(ValueError, match=r"was moved or removed while its .* ran: put it back"):
            stay_in(kind, at, ONE)
    claim(kind, tmp_path / "another", TWO)
    with pytest.raises(ValueError, match="with another seed"):
        stay_in(kind, tmp_path / "another", ONE)


def test_a_link_to_nothing_is_refused_before_the_work(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(ValueError, match="link is a link to nothing"):
        holds(RUN, tmp_path / "link" / "run", ONE)


def test_versions_before_and_after(tmp_path):
    """A run of the version before may be replaced; one of a newer version is left alone."""
    old = {"model": "m", "model_hash": "h", "task": "t", "prune": {}, "jobs": []}
    (tmp_path / "run.json").write_text(json.dumps(old))
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ValueError, match="of an earlier version"):
        holds(RUN, tmp_path, ONE)
    assert not holds(RUN, tmp_path, ONE, overwrite=True)
    claim(RUN, tmp_path, ONE)
    newer = json.loads((tmp_path / "run.json").read_text()) | {"format": "circuitjax-run-99"}
    (tmp_path / "run.json").write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="install a newer one"):
        holds(RUN, tmp_path, ONE, overwrite=True)


def test_a_suite_that_two_processes_begin_loses_nothing(tmp_path):
    """The second may have looked before the first had written anything."""
    claim(SUITE, tmp_path, ONE)
    (tmp_path / "cells").mkdir()
    claim(SUITE, tmp_path, ONE)
    assert (tmp_path / "cells").exists()


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"seed": True}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"more": None}, "more"),
        ({"m" * 500: 1}, "mmm"),
    ],
)
def test_what_python_calls_equal_and_json_does_not_is_another_piece_of_work(tmp_path, held, named):
    identity = {"model": "m", "seed": 1}
    claim(STUDY, tmp_path, {**identity, **held})
    with pytest.raises(ValueError, match=f"a study with another .*{named}") as caught:
        holds(STUDY, tmp_path, identity)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))
