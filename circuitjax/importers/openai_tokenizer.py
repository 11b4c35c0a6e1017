"""The tokenizer of the released weight-sparse models, from its two files in GPT-2's format.

`encoder.json` maps each token to its id, bytes written as GPT-2 writes them (printable characters
stand for themselves, a blank is U+0120); `vocab.bpe` lists, one a line behind an optional version
line, the pairs of tokens that are merged, the earliest first. Text is cut by the pattern of
`tasks/tokenizer.py`. The end of text has the last id, 2047 of 2,048, whether encoder.json lists it
or leaves it out.
"""

import pathlib
from typing import Any

from tokenizers import AddedToken, models, pre_tokenizers

from circuitjax.importers.jsonfile import read_object, read_text
from circuitjax.tasks.tokenizer import BOS, byte_level

__all__ = ["FILES", "NAME", "read_tokenizer"]

NAME = "tinypython_2k"
FILES = ("encoder.json", "vocab.bpe")


def read_tokenizer(folder: pathlib.Path) -> str:
    """The tokenizer as JSON text for `tasks.tokenizer.Tokenizer`.

    Args:
      folder: where both files lie.

    Raises:
      ValueError: one of them is missing, unreadable or does not fit the other: one line.
    """
    encoder_path, merges_path = (folder / file for file in FILES)
    encoder = _encoder(encoder_path)
    merges = _merges(merges_path, encoder)
    end = encoder.pop(BOS, len(encoder))
    if end != len(encoder):
        raise ValueError(f"{encoder_path}: {BOS} has id {end}; it must be the last, {len(encoder)}")
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - encoder.keys())
    if missing:
        raise ValueError(
            f"{encoder_path} lacks {len(missing)} of the 256 single bytes, such as {missing[0]!r}: "
            "not every text could be encoded"
        )
    tokenizer = byte_level(models.BPE(vocab=encoder, merges=merges))
    tokenizer.add_special_tokens([AddedToken(BOS, special=True, normalized=False)])
    return str(tokenizer.to_str())


def _encoder(path: pathlib.Path) -> dict[str, Any]:
    encoder = read_object(path)
    ids = list(encoder.values())
    if not all(type(value) is int for value in ids) or sorted(ids) != list(range(len(ids))):
        raise ValueError(f"{path} must number its {len(ids)} tokens from 0, each once")
    return encoder


def _merges(path: pathlib.Path, encoder: dict[str, Any]) -> list[tuple[str, str]]:
    lines = read_text(path).split("\n")
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or "" in pair:
            raise ValueError(f"{path}, line {number}: {line[:80]!r} is no pair of tokens")
        unknown = [token for token in (*pair, "".join(pair)) if token not in encoder]
        if unknown:
            raise ValueError(
                f"{path}, line {number}: {unknown[0][:80]!r} is no token of {FILES[0]}: the two "
                "files must belong together"
            )
        merges.append((pair[0], pair[1]))
    return merges
