"""Which words of a list a tokenizer takes as one token after a space."""

from collections.abc import Sequence

from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["require", "single", "token_counts"]


def token_counts(tokenizer: Tokenizer, words: Sequence[str]) -> dict[str, int]:
    """Returns for each word the number of tokens it makes with a space before it."""
    ids = tokenizer.encode_after([f" {word}" for word in words])
    return dict(zip(words, map(len, ids), strict=True))


def require(found: int, of: int, least: int, what: str) -> None:
    """Raises ValueError if fewer than `least` were found; `what` goes on from "of 100"."""
    if found < least:
        raise ValueError(
            f"the tokenizer makes only {found} of {of} {what}, at least {least} are needed: "
            "take a model with another tokenizer"
        )


def single(tokenizer: Tokenizer, words: Sequence[str], least: int, what: str) -> tuple[str, ...]:
    """Returns the words that are one token after a space, in their order.

    Args:
      tokenizer: Any tokenizer.
      words: The words to choose from, without a space.
      least: The number of words that must remain.
      what: What the words are, for the message.

    Raises:
      ValueError: If fewer than `least` remain.
    """
    counts = token_counts(tokenizer, words)
    found = tuple(
        word for word in words if counts[word] == 1 and tokenizer.token_id(f" {word}") is not None
    )
    require(len(found), len(words), least, f"{what} one token each")
    return found
