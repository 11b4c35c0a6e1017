"""Rows of a corpus for a model with another tokenizer: decoded, and encoded again by its own."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np

from circuitjax.pretrain.packing import Corpus
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["rows_for"]

# A row is cut from so many rows of the corpus, in case the model's tokens are the longer ones.
_STRETCH = 3


def rows_for(
    corpus: Corpus,
    tokenizer_json: str,
    batch_size: int,
    length: int,
    seed: int,
    idiom_fraction: float,
) -> Iterator[np.ndarray]:
    """Training rows without end, in the model's own tokens.

    Args:
      corpus: a finished one, with the tokenizer.json it was made with.
      tokenizer_json: the model's tokenizer.
      batch_size: B, at most.
      length: T.
      seed: of the rows.
      idiom_fraction: share of idiom rows, in [0, 1].

    Yields:
      int32 `[B, T]`, every row behind its end-of-text token, without padding. Where the tokenizers
      are the same they are the corpus's rows unchanged; else a row too short after the change is
      left out.

    Raises:
      ValueError: no tokenizer on either side, or a corpus too small for such rows.
    """
    if not tokenizer_json:
        raise ValueError("the model has no tokenizer: text cannot be encoded for it")
    own = Tokenizer.from_json(tokenizer_json)
    theirs = Tokenizer.from_file(pathlib.Path(corpus.directory) / "tokenizer.json")
    same = json.loads(own.json) == json.loads(theirs.json)
    index = 0
    while True:
        if same:
            yield corpus.batch(index, batch_size, length, seed, idiom_fraction)[:, :-1]
        else:
            batch = corpus.batch(index, batch_size, _STRETCH * length, seed, idiom_fraction)
            encoded = own.encode_batch([theirs.decode(row.tolist()) for row in batch])
            rows = [row[:length] for row in encoded if len(row) >= length]
            if not rows:
                raise ValueError(
                    f"{_STRETCH * length} tokens of the corpus are less than {length} of the model's: "
                    "build a corpus with the model's tokenizer"
                )
            yield np.array(rows, np.int32)
        index += 1
