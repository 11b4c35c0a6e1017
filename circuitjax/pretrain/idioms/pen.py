"""A pen: seeded choices of names, values, strings and ordinary statements.

Every theme writes with one pen a document. The pen remembers the names that a document tracks
(`name`), so that the ordinary statements around them (`filler`) never touch those. Other names come
half from a small pool of the document's own, as programs use few names many times.
"""

import random
from collections.abc import Sequence

from circuitjax.tasks import words

__all__ = ["Pen", "indent"]

_FILES = tuple(
    f"{stem}.{ending}"
    for stem in [
        "data",
        "log",
        "notes",
        "report",
        "users",
        "config",
        "words",
        "table",
        "output",
        "input",
    ]
    for ending in ("txt", "csv", "json", "log")
)
_TYPES = ("int", "str", "float", "bool", "list", "dict")
_ANY_NAMES = words.NAMES + words.COLLECTIONS


def indent(lines: Sequence[str], levels: int = 1) -> list[str]:
    """Return the lines moved right by `levels` steps of four spaces; empty lines stay empty."""
    pad = "    " * levels
    return [pad + line if line else line for line in lines]


class Pen:
    """Draws the words of one document from a seeded generator.

    Attributes:
        random: the generator's uniform draw in [0, 1).
        taken: names the document tracks; no filler assigns or reads them.
    """

    def __init__(self, rng: random.Random) -> None:
        self.random = rng.random
        self.taken: set[str] = set()
        self._pool = [self._draw() for _ in range(self.integer(2, 6))]

    def pick(self, choices: Sequence[str]) -> str:
        """Return one of the choices, uniformly."""
        return choices[int(self.random() * len(choices))]

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high], both ends included."""
        return low + int(self.random() * (high - low + 1))

    def loose(self) -> str:
        """Return a variable name that the document does not track."""
        found = self.pick(self._pool) if self.random() < 0.45 else self._draw()
        while found in self.taken:
            found = self._draw()
        return found

    def name(self) -> str:
        """Return a new variable name and track it."""
        found = self._draw()
        while found in self.taken:
            found = self._draw()
        self.taken.add(found)
        return found

    def names(self, count: int) -> list[str]:
        """Return `count` distinct new variable names and track them."""
        return [self.name() for _ in range(count)]

    def letters(self, count: int) -> list[str]:
        """Return `count` distinct new one-letter names and track them."""
        return [self._fresh(words.LETTERS) for _ in range(count)]

    def flag(self) -> str:
        """Return a new name of a truth value and track it."""
        return self._fresh(words.FLAGS)

    def collection(self) -> str:
        """Return a new plural name and track it."""
        return self._fresh(words.COLLECTIONS)

    def attributes(self, count: int) -> list[str]:
        """Return `count` distinct names of attributes and track them."""
        return [self._fresh(words.ATTRIBUTES) for _ in range(count)]

    def function(self) -> str:
        """Return the name of a function: a verb, with a noun behind it, or a noun."""
        draw = self.random()
        if draw < 0.08:
            return self._draw()
        verb = self.pick(words.FUNCTIONS)
        return f"{verb}_{self.pick(_ANY_NAMES)}" if draw < 0.2 else verb

    def klass(self) -> str:
        """Return the name of a class, of one word or two."""
        found = self.pick(words.CLASSES)
        return found + self.pick(words.CLASSES) if self.chance(0.1) else found

    def quote(self) -> str:
        """Return one of the two quotation marks."""
        return "'" if self.random() < 0.5 else '"'

    def phrase(self, low: int = 1, high: int = 4) -> str:
        """Return between `low` and `high` words, separated by spaces."""
        return " ".join([self.pick(words.STRINGS) for _ in range(self.integer(low, high))])

    def string(self, low: int = 1, high: int = 3) -> str:
        """Return a quoted phrase."""
        mark = self.quote()
        return mark + self.phrase(low, high) + mark

    def filename(self) -> str:
        """Return a quoted file name."""
        mark = self.quote()
        return mark + self.pick(_FILES) + mark

    def number(self) -> str:
        """Return a small number, mostly of one digit."""
        draw = self.random()
        if draw < 0.6:
            return str(int(self.random() * 10))
        return str(int(self.random() * (100 if draw < 0.9 else 1000)))

    def type(self) -> str:
        """Return the name of a type for an annotation."""
        return self.pick(_TYPES)

    def atom(self) -> str:
        """Return a name or a number."""
        return self.loose() if self.chance(0.6) else self.number()

    def value(self) -> str:
        """Return a name, a number or a string."""
        draw = self.random()
        if draw < 0.4:
            return self.number()
        return self.loose() if draw < 0.75 else self.string(1, 2)

    def expression(self) -> str:
        """Return a short expression over names that the document does not track."""
        kind = self.integer(0, 7)
        one = self.loose()
        if kind == 0:
            return f"{one} + {self.atom()}"
        if kind == 1:
            return f"{one} * {self.atom()}"
        if kind == 2:
            return f"{one} - {self.atom()}"
        if kind == 3:
            return f"{self.function()}({one})"
        if kind == 4:
            return f"len({self.pick(words.COLLECTIONS)})"
        if kind == 5:
            return f"{one}.{self.pick(words.ATTRIBUTES)}"
        if kind == 6:
            return f"{one}[{self.atom()}]"
        return one

    def filler(self) -> str:
        """Return one ordinary statement on a line of its own."""
        kind = self.integer(0, 33)
        one = self.loose()
        if kind <= 3:
            return f"{one} = {self.expression()}"
        if kind <= 5:
            return f"{one} = {self.number()}"
        if kind <= 7:
            return f"{one} = {self.string()}"
        if kind == 8:
            return f"print({one})"
        if kind <= 10:
            return f"{self.function()}({one})"
        if kind == 11:
            return f"{one}.{self.function()}({self.loose()})"
        if kind <= 13:
            return f"{one} = {self.function()}({self.loose()}, {self.atom()})"
        if kind == 14:
            return f"{one} += {self.atom()}"
        if kind <= 16:
            return f"print({self.string(1, 4)})"
        if kind <= 18:
            return f"{one} = {self.function()}()"
        if kind == 19:
            return f"{one}.{self.pick(words.ATTRIBUTES)} = {self.atom()}"
        if kind == 20:
            return f"{one} -= {self.atom()}"
        if kind == 21:
            return f"{self.pick(words.COLLECTIONS)}.append({one})"
        if kind == 22:
            return f"print({self.string(1, 2)}, {one})"
        if kind == 23:
            return f"{one} = {self.klass()}({self.loose()}={self.atom()})"
        if kind == 24:
            return f"{one} = not {self.pick(words.FLAGS)}"
        if kind == 25:
            return f"{one} = ({self.loose()}, {self.atom()})"
        if kind == 26:
            return f"{one} = {self.pick(words.COLLECTIONS)}[{self.atom()}]"
        if kind == 27:
            return f"{one}, {self.loose()} = {self.function()}({self.atom()})"
        if kind == 28:
            return self.pick((f"assert {one}", f"del {one}", f"assert {one} > {self.number()}"))
        if kind == 29:
            return f"{one} = {self.klass()}({self.loose()})"
        if kind == 30:
            return f"{one} = {self.pick(('[]', '{}', '()', '{}', '[]', 'dict()'))}"
        if kind == 31:
            return f"{one} = [{self.loose()}, {self.atom()}]"
        if kind == 32:
            return f"{one} = {{{self.loose()}, {self.atom()}}}"
        return f"{one} = {self.pick(('max', 'min', 'abs', 'sum'))}({self.loose()})"

    def fillers(self, low: int, high: int) -> list[str]:
        """Return `low` to `high` ordinary statements, at times under a comment or in a block."""
        lines = [self.filler() for _ in range(self.integer(low, high))]
        if lines and self.random() < 0.1:
            if self.random() < 0.4:
                lines.insert(0, f"# {self.phrase(2, 4)}")
            else:
                lines[-1:] = [self.header(), "    " + lines[-1]]
        return lines

    def header(self) -> str:
        """Return the first line of a block."""
        kind, one = self.integer(0, 6), self.loose()
        if kind == 0:
            return f"if {one}:"
        if kind == 1:
            return f"if {one} {self.pick(('==', '==', '>', '<', '!=', 'in'))} {self.loose()}:"
        if kind == 2:
            return f"for {one} in {self.pick(words.COLLECTIONS)}:"
        if kind == 3:
            return f"for {one} in range({self.atom()}):"
        if kind == 4:
            return f"while {one} < {self.atom()}:"
        if kind == 5:
            return f"with {self.function()}({one}) as {self.loose()}:"
        return f"if not {self.pick(words.FLAGS)}:"

    def body(self, low: int = 1, high: int = 2) -> list[str]:
        """Return an indented block of ordinary statements."""
        return indent(self.fillers(low, high))

    def parameters(self, low: int = 0, high: int = 3) -> str:
        """Return the parameter list of a function, of loose distinct names."""
        chosen: list[str] = []
        for _ in range(self.integer(low, high)):
            one = self.loose()
            if one not in chosen:
                chosen.append(one)
        return ", ".join(chosen)

    def _draw(self) -> str:
        draw = self.random()
        if draw < 0.4:
            return self.pick(words.COMMON)
        if draw < 0.75:
            return self.pick(words.NAMES)
        if draw < 0.88:
            return self.pick(words.LETTERS)
        return self.pick(words.COLLECTIONS if draw < 0.95 else words.FLAGS)

    def _fresh(self, choices: Sequence[str]) -> str:
        while True:
            found = self.pick(choices)
            if found not in self.taken:
                self.taken.add(found)
                return found
