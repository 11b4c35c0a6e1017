"""A frozen tokenizer: text to token ids and back, from one JSON file.

The JSON is the format of the `tokenizers` library; any of its kinds will do (bytes and merges, pieces
with `▁` for a space, words). A text begins with the token that the tokenizer's own template puts there;
where it has none, with `<|endoftext|>`, which also separates documents.
"""

import dataclasses
import functools
import os
import re
from array import array
from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from circuitjax.core.files import cut, parse_json, read_text, reason

__all__ = ["BOS", "PATTERN", "Tokenizer", "byte_level", "with_bos"]

BOS = "<|endoftext|>"
# What begins a text where neither a template nor `BOS` says: names that families have for it.
_OTHERS = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>")
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 4  # tokens, in a message
_BLOCK = 4096  # texts encoded at a time
_REMEMBERED = 2**19  # texts whose tokens are kept, per tokenizer


@functools.lru_cache(maxsize=2)
def _known(tokenizer_json: str) -> "dict[str, array[int]]":
    """{text: its token ids} of a tokenizer, filled as it encodes."""
    return {}


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


def with_bos(text: str, bos: str) -> str:
    """The JSON of a tokenizer whose template begins every text with a token.

    Raises:
      ValueError: `text` is no tokenizer, or has no such token.
    """
    rust = _parse(text)
    index = rust.token_to_id(bos)
    if index is None:
        raise ValueError(f"the tokenizer has no token {bos!r} to begin a text with")
    rust.post_processor = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, index)]
    )
    return str(rust.to_str())


# The field's name, or letters of a field's name that are escaped.
_PREFIXED = re.compile(r'"continuing_subword_prefix"\s*:\s*"|\\u00[5-7][0-9a-fA-F]')


def _refuse_fatal(text: str) -> None:
    """Refuses what ends the process in the library's hands, where no exception could be caught.

    It takes a prefix off the second piece of every merge without looking whether it is there.
    """
    if not _PREFIXED.search(text):
        return
    fields = parse_json(text, "it")
    model = fields.get("model") if isinstance(fields, dict) else None
    prefix = model.get("continuing_subword_prefix") if isinstance(model, dict) else None
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(prefix, str) or not isinstance(merges, list):
        return
    for merge in merges:
        pieces = merge.split(" ") if isinstance(merge, str) else merge
        second = pieces[1] if isinstance(pieces, list) and len(pieces) == 2 else prefix
        if not prefix.isascii() or not str(second).startswith(prefix):
            raise ValueError(
                f"not a tokenizer in the JSON of `tokenizers`: the merge {cut(merge)} does not go on "
                f"with the continuing_subword_prefix {cut(prefix)}"
            )


def _parse(text: str) -> tokenizers.Tokenizer:
    _refuse_fatal(text)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises the bare Exception
        raise ValueError(f"not a tokenizer in the JSON of `tokenizers`: {reason(error)}") from None


def _encodable(text: str) -> bool:
    return isinstance(text, str) and not _SURROGATE.search(text)


def _unencodable(text: object) -> str:
    if not isinstance(text, str):
        return f"a tokenizer takes text, not {cut(text)}"
    half = _SURROGATE.search(text)
    where = f" at character {half.start()} ({cut(half.group())})" if half else ""
    return f"the text {cut(text)} holds half a character{where}: a lone surrogate, no bytes stand for it"


def _no_tokens(error: Exception) -> str:
    return f"the tokenizer makes no tokens of a text: {reason(error)}"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, known by its JSON text: equal texts are equal tokenizers.

    Attributes:
      json: The tokenizer in the JSON format of the `tokenizers` library.
    """

    json: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if self._find_bos() is None:
            raise ValueError(
                f"the tokenizer has no token {BOS!r}, nor a template that begins a text: add it as a "
                "special token"
            )

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Makes a tokenizer of its JSON text; raises ValueError if that is broken."""
        return cls(text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Reads a tokenizer's JSON file; raises ValueError if it cannot be read or is broken."""
        try:
            return cls(read_text(path, keep_mark=True))
        except ValueError as error:
            raise ValueError(f"cannot read the tokenizer {os.fspath(path)!r}: {error}") from None

    @functools.cached_property
    def _rust(self) -> tokenizers.Tokenizer:
        return _parse(self.json)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, with no BOS before them.

        Raises:
          ValueError: a lone surrogate, which is half a character: no bytes stand for it.
        """
        rust = self._rust
        try:
            return list(rust.encode(text, add_special_tokens=False).ids)
        except (TypeError, UnicodeError):
            raise ValueError(_unencodable(text)) from None
        except Exception as error:  # the library raises the bare Exception
            raise ValueError(_no_tokens(error)) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text: `encode`, many at once, in blocks of bounded memory.

        Texts are remembered, some hundred megabytes of them at most: a task of many lines is checked
        as a whole and then drawn from split by split.
        """
        known = _known(self.json)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if len(known) + len(missing) > _REMEMBERED:
            known.clear()
            missing = list(dict.fromkeys(texts))
        rust = self._rust
        fresh: dict[str, array[int]] = {}
        for start in range(0, len(missing), _BLOCK):
            block = missing[start : start + _BLOCK]
            try:
                encodings = rust.encode_batch_fast(block, add_special_tokens=False)
            except (TypeError, UnicodeError):
                bad = next((text for text in block if not _encodable(text)), block[0])
                raise ValueError(_unencodable(bad)) from None
            except Exception as error:
                raise ValueError(_no_tokens(error)) from None
            ids = (array("i", encoding.ids) for encoding in encodings)
            fresh.update(zip(block, ids, strict=True))
        if len(fresh) <= _REMEMBERED:
            known.update(fresh)
        return [(fresh[text] if text in fresh else known[text]).tolist() for text in texts]

    def encode_after(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids that each text makes after a word, rather than as a text's beginning.

        They differ where the tokenizer puts a space before every text, so that one that begins with a
        space has two.
        """
        before = self.encode("a")
        rows = self.encode_batch([f"a{text}" for text in texts])
        return [row[len(before) :] if row[: len(before)] == before else row for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, special tokens included."""
        return str(self._rust.decode(list(ids), skip_special_tokens=False))

    def token_id(self, text: str) -> int | None:
        """Returns the id of the token that is `text` within a text, or None if there is none.

        Of `" Mary"` that is the token with the space: `▁Mary` where spaces are written so, since a text
        that begins with it loses its space only there. Whether the tokenizer really makes this token
        at a place is for the caller to check, on the whole text.
        """
        return self._texts.get(text)

    def why_not_one(self, text: str) -> str:
        """One line about a completion that is not one token: into what it is cut."""
        pieces = [repr(self.decode([index])) for index in self.encode(text)]
        more = ", ..." if len(pieces) > _SHOWN else ""
        cut_into = f"{', '.join(pieces[:_SHOWN])}{more}" if pieces else "nothing"
        return (
            f"the completion {cut(text)} is not one token: this model's tokenizer makes {cut_into}"
        )

    @functools.cached_property
    def _texts(self) -> dict[str, int]:
        # A byte that stands in for want of a piece comes last: where there is a piece, that is made.
        order = sorted(
            self.ids, key=lambda i: _BYTE.fullmatch(self._rust.id_to_token(i) or "") is not None
        )
        before = self.encode("a")[-1:]
        start = len(self.decode(before))
        within = self._rust.decode_batch([[*before, i] for i in order], skip_special_tokens=False)
        alone = self._rust.decode_batch([[i] for i in order], skip_special_tokens=False)
        found: dict[str, int] = {}
        for index, text in zip(order, within, strict=True):
            found.setdefault(text[start:], index)
        for index, text in zip(order, alone, strict=True):
            found.setdefault(text, index)
        found.pop("\N{REPLACEMENT CHARACTER}", None)  # bytes that are no text by themselves
        return found

    @functools.cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids of all tokens, the special ones included, in order; there may be gaps."""
        return tuple(sorted(set(self._rust.get_vocab(with_added_tokens=True).values())))

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id: the rows V that an embedding of all tokens needs."""
        return self.ids[-1] + 1

    @property
    def bos_id(self) -> int:
        """The id of the token that begins a text."""
        found = self._find_bos()
        assert found is not None  # as `__post_init__` saw
        return found

    def _find_bos(self) -> int | None:
        plain = self.encode("a")
        try:
            framed = self._rust.encode("a", add_special_tokens=True).ids
        except Exception as error:
            raise ValueError(_no_tokens(error)) from None
        if len(framed) > len(plain) and (not plain or framed[: len(plain)] != plain):
            return int(framed[0])
        for name in (BOS, *_OTHERS):
            index = self._rust.token_to_id(name)
            if index is not None:
                return int(index)
        return None
