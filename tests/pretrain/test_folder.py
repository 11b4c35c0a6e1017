"""Rows of any folder of text: all of it, once, in the model's own tokens."""

import collections

import numpy as np
import pytest

from circuitjax.pretrain.folder import text_files, text_rows
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    (root / "deep").mkdir()
    (root / ".hidden").mkdir()
    for number in range(3):
        (root / "deep" / f"{number}.md").write_text(f"def f{number}(x):\n    return 'naïve'\n" * 40)
    (root / "a.txt").write_bytes(("é" * 4000).encode()[1:])  # no text from its first byte on
    (root / "b.txt").write_bytes(b"x" + "é".encode() * 4000)  # cut within a character at 4,096
    (root / "image.bin").write_bytes(b"\x89PNG\0\0")
    (root / "empty.txt").write_text("")
    (root / ".hidden" / "c.txt").write_text("never")
    return root


def test_files_of_text_are_found_and_others_passed_over(folder):
    assert [path.name for path in text_files(folder)] == ["b.txt", "0.md", "1.md", "2.md"]


def test_rows_hold_all_of_the_text_once(folder):
    own = Tokenizer.from_json(load_model("tiny-python").tokenizer_json)
    files = text_files(folder)
    batches = list(text_rows(files, own.json, 4, 24, seed=3))
    assert {batch.shape[1] for batch in batches} == {24}
    assert all(len(batch) == 4 for batch in batches[:-1])
    rows = np.concatenate(batches)
    assert (rows[:, 0] == own.bos_id).all()
    there = collections.Counter(rows[rows != own.bos_id].tolist())
    whole = collections.Counter(i for path in files for i in own.encode(path.read_text()))
    assert not there - whole
    assert (whole - there).total() < 24  # what is too short for a row at the end
    again = np.concatenate(list(text_rows(files, own.json, 4, 24, seed=3)))
    np.testing.assert_array_equal(rows, again)


def test_folders_without_text_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no folder .*absent: name one"):
        text_files(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no file of UTF-8 text"):
        text_files(tmp_path)
    (tmp_path / "a.txt").write_text("short")
    json = load_model("tiny-python").tokenizer_json
    with pytest.raises(ValueError, match=r"^1 files hold less than one row of 50 tokens"):
        list(text_rows(text_files(tmp_path), json, 2, 50, 0))
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        next(text_rows([], "", 2, 50, 0))
