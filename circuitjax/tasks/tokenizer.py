"""A frozen byte-level tokenizer: text to token ids and back, from one JSON file.

The JSON is the format of the `tokenizers` library. The special token `<|endoftext|>` must be in the
vocabulary: it both begins a sequence and separates documents.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

__all__ = ["BOS", "PATTERN", "Tokenizer", "byte_level"]

BOS = "<|endoftext|>"
# How text is cut before pairs are merged: words with one mark before them, digits by three,
# punctuation with the newlines behind it, line ends, blanks.
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(bpe: models.BPE) -> tokenizers.Tokenizer:
    """A tokenizer that cuts text by `PATTERN` and merges the bytes of each piece by `bpe`."""
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, known by its JSON text: equal texts are equal tokenizers.

    Attributes:
      json: The tokenizer in the JSON format of the `tokenizers` library.
    """

    json: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if self._rust.token_to_id(BOS) is None:
            raise ValueError(f"the tokenizer has no token {BOS!r}: add it as a special token")

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Makes a tokenizer of its JSON text; raises ValueError if that is broken."""
        return cls(text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Reads a tokenizer's JSON file; raises ValueError if it cannot be read or is broken."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the tokenizer {os.fspath(path)!r}: {error}") from None
        return cls(text)

    @functools.cached_property
    def _rust(self) -> tokenizers.Tokenizer:
        try:
            return tokenizers.Tokenizer.from_str(self.json)
        except Exception as error:  # the library raises the bare Exception
            reason = " ".join(str(error).split())
            raise ValueError(f"not a tokenizer in the JSON of `tokenizers`: {reason}") from None

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, with no BOS before them."""
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text: `encode`, many at once."""
        encodings = self._rust.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, special tokens included."""
        return str(self._rust.decode(list(ids), skip_special_tokens=False))

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token that is exactly `text`, or None if there is no such token."""
        return self._ids.get(text)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        ids: dict[str, int] = {}
        for index in range(self.vocab_size):
            ids.setdefault(self.decode([index]), index)
        ids.pop("\N{REPLACEMENT CHARACTER}", None)  # bytes that are no text by themselves
        return ids

    @property
    def vocab_size(self) -> int:
        """The number V of tokens, the special ones included."""
        return int(self._rust.get_vocab_size(with_added_tokens=True))

    @property
    def bos_id(self) -> int:
        """The id of `<|endoftext|>`."""
        return self._ids[BOS]
