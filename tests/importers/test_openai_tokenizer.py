"""Their tokenizer from its two files, against plain byte-pair encoding; the tasks on it."""

import itertools
import json
import pathlib
import re

import pytest

from circuitjax.importers.openai_tokenizer import read_tokenizer
from circuitjax.tasks import jsonl, suite
from circuitjax.tasks.splits import draw_pairs
from circuitjax.tasks.tokenizer import BOS, Tokenizer
from circuitjax.zoo.load import load_model
from tests.importers.openai_files import write_tokenizer

TEXT = (
    "class A:\n    def f(self, xs):\n        for i, x in enumerate(xs):\n            return x\n\n"
    'print("it\'s", [[1, 22], [3333]])  \n\t naïve €uro \U0001f600\r\n   \n  x=1'
)


@pytest.fixture(scope="module")
def built_in() -> Tokenizer:
    return Tokenizer.from_json(load_model("tiny-python").tokenizer_json)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, built_in) -> pathlib.Path:
    """The built-in tokenizer of 2,048 tokens, in GPT-2's two files."""
    root = tmp_path_factory.mktemp("tokenizer")
    model = json.loads(built_in.json)["model"]
    write_tokenizer(root, model["vocab"], model["merges"])
    return root


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_json(read_tokenizer(folder))


def byte_letters() -> dict[int, str]:
    """GPT-2's spelling of bytes: printable Latin-1 as it is, the others from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {b: chr(256 + n) for n, b in enumerate(others)}


def encode_by_hand(folder: pathlib.Path, pieces: list[str]) -> list[int]:
    """Byte-pair encoding of pieces: the earliest merge that occurs, everywhere from the left."""
    encoder = json.loads((folder / "encoder.json").read_text())
    lines = (folder / "vocab.bpe").read_text().split("\n")
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines[1:]) if line}
    letters, ids = byte_letters(), []
    for piece in pieces:
        parts = [letters[byte] for byte in piece.encode()]
        while True:
            pairs = [pair for pair in itertools.pairwise(parts) if pair in ranks]
            if not pairs:
                break
            best = min(pairs, key=ranks.__getitem__)
            merged, index = [], 0
            while index < len(parts):
                width = 2 if tuple(parts[index : index + 2]) == best else 1
                merged.append("".join(parts[index : index + width]))
                index += width
            parts = merged
        ids += [encoder[part] for part in parts]
    return ids


def test_byte_pair_encoding_of_the_patterns_pieces(folder, tokenizer):
    # The published pattern, with letters and digits spelled for Python's engine.
    letter, digit = r"[^\W\d_]", r"\d"
    cut = re.compile(
        rf"(?:(?![\r\n]|{letter}|{digit})[\s\S])?{letter}+|{digit}{{1,3}}"
        rf"| ?(?:(?!\s|{letter}|{digit})[\s\S])+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    pieces = cut.findall(TEXT)
    assert "".join(pieces) == TEXT
    assert tokenizer.encode(TEXT) == encode_by_hand(folder, pieces)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_end_of_text_is_the_last_token(tokenizer):
    assert (tokenizer.vocab_size, tokenizer.bos_id) == (2048, 2047)
    assert tokenizer.encode(f"a{BOS}\n")[1] == 2047


def test_the_built_in_tasks_are_what_they_are_for_the_built_in_tokenizer(tokenizer, built_in):
    for name, task in suite.TASKS.items():
        theirs = draw_pairs(task, tokenizer, "validation", 8, 0)
        assert theirs == draw_pairs(task, built_in, "validation", 8, 0), name


def test_tasks_from_lines(tokenizer):
    row = {
        "positive": "x = 'a",
        "negative": 'x = "a',
        "positive_completion": "'\n",
        "negative_completion": '"\n',
    }
    assert jsonl.parse([json.dumps(row)], tokenizer, "quotes").pool[0].positive == row["positive"]
    with pytest.raises(ValueError, match="is not one token"):
        jsonl.parse([json.dumps({**row, "positive_completion": "'\nxyz"})], tokenizer, "quotes")


def test_the_end_of_text_may_be_listed_and_the_version_left_out(tmp_path, folder, tokenizer):
    encoder = json.loads((folder / "encoder.json").read_text())
    lines = (folder / "vocab.bpe").read_text()
    (tmp_path / "encoder.json").write_text(json.dumps({**encoder, BOS: 2047}))
    (tmp_path / "vocab.bpe").write_text(lines.split("\n", 1)[1].replace("\n", "\r\n"))
    assert json.loads(read_tokenizer(tmp_path)) == json.loads(tokenizer.json)


BAD = {
    "no encoder": ({"encoder.json": None}, "there is no file .*encoder.json"),
    "no merges": ({"vocab.bpe": None}, "there is no file .*vocab.bpe"),
    "no JSON": ({"encoder.json": "{"}, "encoder.json is not JSON"),
    "a list": ({"encoder.json": "[]"}, "encoder.json holds a JSON list"),
    "a gap": ({"encoder.json": '{"a": 0, "b": 2}'}, "number its 2 tokens from 0, each once"),
    "a text": ({"encoder.json": '{"a": 0, "b": "1"}'}, "number its 2 tokens from 0"),
    "few bytes": ({"encoder.json": '{"a": 0}', "vocab.bpe": ""}, "lacks 255 of the 256 single"),
    "end first": (
        {"encoder.json": '{"<|endoftext|>": 0, "a": 1}', "vocab.bpe": ""},
        "id 0; it must",
    ),
    "three": ({"vocab.bpe": "#version: 0.2\na b c\n"}, "line 2: 'a b c' is no pair"),
    "one": ({"vocab.bpe": "a"}, "line 1: 'a' is no pair"),
    "foreign": ({"vocab.bpe": "q qqq\n"}, "line 1: 'qqq' is no token of encoder.json"),
    "foreign sum": ({"vocab.bpe": "q z\n"}, "line 1: 'qz' is no token of encoder.json"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_one_line(tmp_path, folder, case):
    changes, message = BAD[case]
    for file in ("encoder.json", "vocab.bpe"):
        content = changes.get(file, (folder / file).read_text())
        if content is not None:
            (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
