"""Rows for a model with another tokenizer: the same text, in its own tokens."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from circuitjax.pretrain import corpus as building
from circuitjax.pretrain.packing import SOURCES, SPLITS, Corpus, stream_files
from circuitjax.pretrain.translate import rows_for
from circuitjax.tasks.tokenizer import BOS, Tokenizer, byte_level
from circuitjax.zoo.load import load_model

DOCUMENTS = [f"def f{n}(x):\n    return [x, {n}, 'naïve']\n" * 9 for n in range(40)]


@pytest.fixture(scope="module")
def built_in() -> Tokenizer:
    return Tokenizer.from_json(load_model("tiny-python").tokenizer_json)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, built_in) -> Corpus:
    root: pathlib.Path = tmp_path_factory.mktemp("corpus")
    (root / "tokenizer.json").write_text(built_in.json, encoding="utf-8")
    (root / "manifest.json").write_text(json.dumps({"made": "for a test"}))
    tokens, starts = building.encode_documents(built_in._rust, DOCUMENTS)
    for source, split in itertools.product(SOURCES, SPLITS):
        for name, array in zip(stream_files(source, split), (tokens, starts), strict=True):
            np.save(root / name, array)
    return Corpus.open(root)


@pytest.fixture(scope="module")
def by_byte(built_in) -> str:
    """A tokenizer that merges nothing."""
    from tokenizers import models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = byte_level(models.BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    found.add_special_tokens([BOS])
    return str(found.to_str())


def test_the_same_tokenizer_changes_nothing(corpus, built_in):
    spelled_otherwise = json.dumps(json.loads(built_in.json), indent=3)
    rows = rows_for(corpus, spelled_otherwise, 4, 20, 7, 0.5)
    for index, batch in enumerate(itertools.islice(rows, 3)):
        np.testing.assert_array_equal(batch, corpus.batch(index, 4, 20, 7, 0.5)[:, :-1])


def test_another_tokenizer_reads_the_same_text(corpus, built_in, by_byte):
    own = Tokenizer.from_json(by_byte)
    (batch,) = itertools.islice(rows_for(corpus, by_byte, 6, 30, 7, 0.5), 1)
    assert batch.shape == (6, 30)
    assert (batch[:, 0] == own.bos_id).all()
    for row, wide in zip(batch, corpus.batch(0, 6, 90, 7, 0.5), strict=True):
        assert built_in.decode(wide).encode().startswith(own.decode(row).rstrip("\ufffd").encode())


def test_rows_that_cannot_be_made_are_told(corpus, built_in, by_byte, tmp_path):
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        next(rows_for(corpus, "", 4, 20, 0, 0.5))
    with pytest.raises(ValueError, match="does not fit the idioms"):
        next(rows_for(corpus, by_byte, 4, 10_000, 0, 0.5))
