"""Laws of tasks from files: good lines become pairs, every bad line is named with its reason."""

import json
import pathlib

import pytest

from circuitjax.tasks import contrast, jsonl, splits, suite
from circuitjax.tasks.tokenizer import Tokenizer

GOOD = {
    "positive": "count = [total, name",
    "negative": "count = {total, name",
    "positive_completion": "]\n",
    "negative_completion": "}\n",
}


def without(key: str) -> dict[str, str]:
    return {name: value for name, value in GOOD.items() if name != key}


def test_pairs_of_the_suite_come_back(tokenizer: Tokenizer, tmp_path: pathlib.Path) -> None:
    pairs = splits.draw_pairs(suite.get("lambda_func"), tokenizer, "train", 60, 0)
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n".join(json.dumps(pair._asdict()) for pair in pairs) + "\n")
    task = jsonl.load(path, tokenizer)
    assert (task.name, task.pool) == ("mine", pairs)
    assert set(task.templates) == set(suite.get("lambda_func").templates)
    assert jsonl.load(path, tokenizer, name="other").name == "other"
    encoded = splits.draw(task, tokenizer, "train", 20, 0)
    assert encoded.tokens.shape[:2] == (20, 2)
    with pytest.raises(ValueError, match="train pairs of 61 asked for"):
        splits.draw(task, tokenizer, "train", 61, 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"positive":' * 100_000, "nested too deep"),
        ("[1]", "not a JSON object"),
        (json.dumps(without("negative")), "'negative' is missing"),
        (json.dumps(without("positive_completion")), "'positive_completion' is missing"),
        (json.dumps(GOOD | {"positive": 3}), "must be a string"),
        (json.dumps(GOOD | {"positive": ""}), "'positive' is empty"),
        (json.dumps(GOOD | {"label": "x"}), "'label' is none of"),
        (json.dumps(GOOD | {"negative": GOOD["positive"]}), "the same"),
        (json.dumps(GOOD | {"negative": "x = {1"}), "tokens, the negative"),
        (json.dumps(GOOD | {"negative_completion": "}} no token"}), "not one token"),
        (json.dumps(GOOD), "repeats line 1"),
    ],
)
def test_a_bad_line_is_named(tokenizer: Tokenizer, line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"1 bad line: line 3: .*{reason}") as caught:
        jsonl.parse([json.dumps(GOOD), "", line], tokenizer, "mine")
    assert "\n" not in str(caught.value)


def test_all_bad_lines_are_counted(tokenizer: Tokenizer) -> None:
    lines = [json.dumps(GOOD | {"negative": f"x = {{{n}, 2, 3, 4"}) for n in range(4)] + ["{"] * 5
    with pytest.raises(
        ValueError, match=r"9 bad lines: line 1 \(and 3 others\): .*; line 5 \(and 4 others\): "
    ):
        jsonl.parse(lines, tokenizer, "mine")


def test_an_empty_or_missing_file_is_refused(tokenizer: Tokenizer, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        jsonl.parse(["", " "], tokenizer, "mine")
    with pytest.raises(ValueError, match="cannot read"):
        jsonl.load(tmp_path / "none.jsonl", tokenizer)


CONTRAST = {
    "clean": "count = [total, name",
    "corrupted": "count = {total, name",
    "right": ["]\n"],
    "wrong": ["}\n"],
}


def test_contrasts_become_examples(tokenizer: Tokenizer, tmp_path: pathlib.Path) -> None:
    pairs = splits.draw_pairs(suite.get("lambda_func"), tokenizer, "train", 30, 0)
    examples = contrast.from_pairs(pairs)
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(one._asdict()) for one in examples))
    task = jsonl.load(path, tokenizer)
    assert isinstance(task, contrast.ContrastTask)
    assert (task.name, task.pool) == ("mine", tuple(examples))
    assert task.corrupts
    encoded = contrast.draw_encoded(task, tokenizer, "train", 20, 0)
    assert encoded.tokens.shape[:2] == (20, 2)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (CONTRAST | {"corrupted": "x = {1"}, "the clean prompt has . tokens, the corrupted"),
        (CONTRAST | {"right": []}, "the list 'right' is empty"),
        (CONTRAST | {"wrong": []}, "the list 'wrong' is empty"),
        (CONTRAST | {"right": "]\n"}, "'right' must be a list of strings"),
        (CONTRAST | {"right": ["]\n", 3]}, "'right' must be a list of strings"),
        (CONTRAST | {"right": ["]\n", "]\n"]}, "a right completion is given twice"),
        (CONTRAST | {"wrong": ["]\n"]}, "both right and wrong"),
        (CONTRAST | {"wrong": ["}} no token"]}, "not one token"),
        (CONTRAST | {"corrupted": CONTRAST["clean"]}, "the same"),
        (CONTRAST | {"label": "x"}, "'label' is none of clean, corrupted, right, wrong, template"),
        ({"clean": "x", "corrupted": "y", "right": ["a"]}, "'wrong' is missing"),
        (GOOD, "is of another kind than line 1"),
        (CONTRAST, "repeats line 1"),
    ],
)
def test_a_bad_contrast_is_named(tokenizer: Tokenizer, line: object, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"1 bad line: line 2: .*{reason}") as caught:
        jsonl.parse([json.dumps(CONTRAST), json.dumps(line)], tokenizer, "mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [GOOD, CONTRAST])
def test_a_byte_order_mark_is_passed_over(
    tokenizer: Tokenizer, tmp_path: pathlib.Path, row: dict[str, object]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n")
    assert len(jsonl.load(path, tokenizer).pool) == 1
