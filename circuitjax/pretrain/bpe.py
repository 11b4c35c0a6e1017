"""The byte-level tokenizer of 2048 tokens, and checks of what must be one token in it.

Text is cut by a fixed pattern (words with one mark before them, digits by three, punctuation with
the newlines behind it, line ends, blanks), each piece is merged by byte-pair encoding. The one
special token `<|endoftext|>` has the last id, 2047, and stands before every document.
"""

import os
import pathlib
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from circuitjax.core.files import read_text, reason, write_bytes
from circuitjax.pretrain.packing import BOS, VOCABULARY
from circuitjax.tasks import words
from circuitjax.tasks.tokenizer import byte_level

__all__ = ["END_OF_TEXT", "REQUIRED", "load", "missing", "save", "train", "wanted_words"]

END_OF_TEXT = "<|endoftext|>"
#: What the answers of the tasks, and the marks that decide them, consist of.
REQUIRED: tuple[str, ...] = (
    "('", '("', "')", '")', "]", "]]", "')\n", '")\n', "]]\n", "]\n", "}\n", ".add", " +=", " as",
    " if", " else", " elif", "else", "elif", ".write", ".read", " in", " <", ":", "):\n", " ==",
    " =", "=", ")\n", " enumerate", " range", ":\n", " is", "\n", "   ", " " * 7, " " * 11,
    '}")\n', ')")\n',
)  # fmt: skip


def train(texts: Iterable[str]) -> Tokenizer:
    """Train the tokenizer.

    Args:
        texts: documents, or pieces of text; some hundred kilobytes at least.

    Returns:
        The tokenizer of exactly 2048 tokens.

    Raises:
        ValueError: if the texts are too poor to fill the vocabulary.
    """
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    if tokenizer.token_to_id(END_OF_TEXT) != BOS:
        raise ValueError(
            f"the texts gave {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}: "
            "train on more text"
        )
    return tokenizer


def save(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write the tokenizer as JSON, all or nothing."""
    write_bytes(path, str(tokenizer.to_str(pretty=True)).encode())


def load(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer that `save` wrote.

    Raises:
        ValueError: if the file is missing, or is no tokenizer of 2048 tokens that ends in the
        special one.
    """
    target = pathlib.Path(path)
    if not target.is_file():
        raise ValueError(f"no tokenizer at {target}: build the corpus, or name its tokenizer.json")
    text = read_text(target, keep_mark=True)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # The library raises bare Exception for bad JSON.
        raise ValueError(
            f"{target} is no tokenizer: {reason(error)}; build the corpus again"
        ) from error
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(END_OF_TEXT) != BOS:
        raise ValueError(
            f"{target} has {tokenizer.get_vocab_size()} tokens, or {END_OF_TEXT} is not {BOS}: "
            f"a tokenizer of {VOCABULARY} is needed"
        )
    return tokenizer


def missing(tokenizer: Tokenizer, texts: Sequence[str] = REQUIRED) -> tuple[str, ...]:
    """Return those of the texts that are not one token when encoded alone."""
    return tuple(text for text in texts if len(tokenizer.encode(text).ids) != 1)


def wanted_words() -> tuple[str, ...]:
    """Return the words of programs that are better one token: with a space before, and bare."""
    code = (
        words.NAMES,
        words.COMMON,
        words.FLAGS,
        words.LETTERS,
        words.COLLECTIONS,
        words.ATTRIBUTES,
    )
    names = sorted({word for group in code for word in group})
    verbs = sorted({*words.FUNCTIONS, *words.CLASSES} - set(names))
    return tuple(
        form for group in (names, verbs, sorted({*words.STRINGS} - {*names, *verbs}))
        for word in group for form in (word, " " + word)
    )  # fmt: skip
