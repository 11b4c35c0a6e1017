"""Python source without what a model of code need not learn: docstrings and full-line comments.

Positions come from the syntax tree, so strings that look like comments stay; what the program means
stays the same, up to its docstrings. Also here: exact and near de-duplication of documents.
"""

import ast
import hashlib
import re
import warnings

__all__ = ["Deduplicator", "strip_source"]

_BLANKS = re.compile(r"\n{4,}")
_Owner = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def strip_source(source: str) -> str | None:
    """Return the source without docstrings, full-line comments and trailing blanks.

    A docstring that is all of its body becomes `pass`. Lines inside other strings are left alone.

    Args:
        source: the text of a module.

    Returns:
        The stripped text, ending with one newline and "" if nothing is left; None where it does not
        parse.
    """
    source = source.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "").lstrip("\ufeff")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    lines = source.split("\n")
    protected = bytearray(len(lines) + 2)  # Lines that begin inside a string.
    clipped = bytearray(len(lines) + 2)  # Lines that end inside a string.
    docstrings: list[tuple[int, int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            first, last = node.lineno, node.end_lineno or node.lineno
            for line in range(first, last):
                clipped[line] = protected[line + 1] = 1
        elif isinstance(node, _Owner):
            found = _docstring(node, lines)
            if found is not None:
                docstrings.append(found)
    removed: dict[int, str] = {}
    for begin, end, instead in docstrings:
        removed.update((number, "") for number in range(begin, end + 1))
        removed[begin] = instead
    kept: list[str] = []
    for number, written in enumerate(lines, start=1):
        if number in removed:
            if removed[number]:
                kept.append(removed[number])
        elif protected[number] or not written.lstrip().startswith("#"):
            kept.append(written if clipped[number] else _right(written))
    text = "\n".join(kept).strip("\n")
    if not any(protected):
        text = _BLANKS.sub("\n\n\n", text)
    return text + "\n" if text else ""


def _right(line: str) -> str:
    """Strip the right of a line, unless that would lay bare a backslash at its end."""
    bare = line.rstrip()
    return line if bare.endswith("\\") and bare != line else bare


def _docstring(node: _Owner, lines: list[str]) -> tuple[int, int, str] | None:
    """Return (first line, last line, what to put there) of a docstring alone on its lines."""
    if not node.body:
        return None
    first = node.body[0]
    if not (isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)):
        return None
    if not isinstance(first.value.value, str):
        return None
    end_line, end_column = first.end_lineno or first.lineno, first.end_col_offset or 0
    before = lines[first.lineno - 1].encode()[: first.col_offset]
    behind = lines[end_line - 1].encode()[end_column:].strip()
    if before.strip() or (behind and not behind.startswith(b"#")):
        return None
    alone = len(node.body) == 1 and not isinstance(node, ast.Module)
    return first.lineno, end_line, before.decode() + "pass" if alone else ""


class Deduplicator:
    """Remembers documents, and tells which are new.

    A document is a near duplicate if most of its longer lines stood in documents kept before.
    """

    def __init__(self, seen_fraction: float = 0.75, minimum_line: int = 24) -> None:
        """Start empty.

        Args:
            seen_fraction: a document with more than this share of lines seen is refused, in (0, 1].
            minimum_line: characters from which a line counts, >= 1.

        Raises:
            ValueError: if an argument is out of range.
        """
        if not 0.0 < seen_fraction <= 1.0 or minimum_line < 1:
            raise ValueError(
                f"seen_fraction {seen_fraction} must lie in (0, 1] and minimum_line {minimum_line} "
                "be at least 1"
            )
        self._seen_fraction = seen_fraction
        self._minimum_line = minimum_line
        self._documents: set[bytes] = set()
        self._lines: set[int] = set()

    def is_new(self, text: str) -> bool:
        """Return whether the text is unlike all kept so far; if so, keep it."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest in self._documents:
            return False
        hashed = {
            int.from_bytes(hashlib.blake2b(bare.encode(), digest_size=8).digest(), "little")
            for bare in (line.strip() for line in text.split("\n"))
            if len(bare) >= self._minimum_line
        }
        if hashed and len(hashed & self._lines) > self._seen_fraction * len(hashed):
            return False
        self._documents.add(digest)
        self._lines |= hashed
        return True
