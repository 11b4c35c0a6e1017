"""Laws of the tokenizer: lossless, cut as the pattern says, its special token last."""

import pathlib
import re
import subprocess
import sys

import pytest
from tokenizers import Tokenizer

from circuitjax.pretrain import bpe, idioms
from circuitjax.pretrain.packing import BOS, VOCABULARY
from circuitjax.tasks.tokenizer import PATTERN


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.train(idioms.documents(0, 6000))


@pytest.mark.parametrize(
    "text",
    [
        "x = [[1, 2], [3]]\n\n\nprint('a')\n",
        "    \t  \r\n\x0b mixed\u00e9 \u4e2d\u6587 \U0001f600 'x'  \n",
        "",
        "def f(a):\n            return a\n",
        "a  b   c\n   ",
    ],
)
def test_any_text_survives(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_idioms_survive(tokenizer: Tokenizer) -> None:
    for text in idioms.documents(3, 200):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_special_token_is_the_last(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == VOCABULARY
    ids = tokenizer.encode(f"a{bpe.END_OF_TEXT}b").ids
    assert ids.count(BOS) == 1
    assert max(ids) == BOS == VOCABULARY - 1
    assert BOS not in tokenizer.encode("<|endoftext").ids


def test_no_token_crosses_a_cut(tokenizer: Tokenizer) -> None:
    """Cut by the standard library's engine, with ASCII classes in the place of the Unicode ones."""
    ascii_pattern = PATTERN.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")
    ascii_pattern = re.sub(r"(?<!\[)(?<!\\n)(?<!\\s)A-Za-z\+", "[A-Za-z]+", ascii_pattern)
    ascii_pattern = ascii_pattern.replace("0-9{1,3}", "[0-9]{1,3}")
    for text in idioms.documents(4, 100):
        pieces = re.findall(ascii_pattern, text)
        assert "".join(pieces) == text
        cuts, at = set(), 0
        for piece in pieces:
            at += len(piece)
            cuts.add(at)
        assert cuts <= {end for _, end in tokenizer.encode(text).offsets}


def test_marks_that_decide_the_tasks_are_single_tokens(tokenizer: Tokenizer) -> None:
    rare = set(bpe.missing(tokenizer))
    assert rare <= {
        "]]",
        ')")\n',
        '}")\n',
        " " * 11,
        " elif",
        " else",
    }  # A big corpus has these too.
    assert bpe.missing(tokenizer, ["certainlynotonetoken"]) == ("certainlynotonetoken",)


def test_wanted_words_come_bare_and_with_a_space() -> None:
    wanted = bpe.wanted_words()
    assert len(wanted) == len(set(wanted))
    assert {w.strip() for w in wanted[::2]} == {w.strip() for w in wanted[1::2]}


def test_saved_is_loaded(tokenizer: Tokenizer, tmp_path: pathlib.Path) -> None:
    bpe.save(tokenizer, tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    assert bpe.load(tmp_path / "tokenizer.json").to_str() == tokenizer.to_str()


def test_training_is_deterministic(tmp_path: pathlib.Path) -> None:
    code = (
        "import hashlib; from circuitjax.pretrain import bpe, idioms; "
        "print(hashlib.sha256(bpe.train(idioms.documents(0, 6000)).to_str().encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(seen) == 1


def test_bad_files_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer at"):
        bpe.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer"):
        bpe.load(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="train on more text"):
        bpe.train(["too little text"])
