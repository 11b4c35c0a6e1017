"""From themes to documents: which theme, inside what, with which statements around.

document = [fillers] + theme   |   function(theme)   |   method(theme)   |   theme + theme
"""

import bisect
import itertools
import random
from collections.abc import Callable, Iterator

from circuitjax.pretrain.idioms import brackets, branches, calls, classes, loops, strings, variables
from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["THEMES", "documents", "generate", "generate_with_theme"]

#: (name, theme, weight). A weight of 2 marks what a small model learns last: copying and counting.
THEMES: tuple[tuple[str, Callable[[Pen], list[str]], float], ...] = (
    ("quotes", strings.quotes, 1.0),
    ("formats", strings.formats, 1.0),
    ("file_modes", strings.file_modes, 1.0),
    ("file_with", strings.file_with, 0.4),
    ("file_choices", strings.file_choices, 0.4),
    ("arguments", calls.arguments, 1.0),
    ("lambdas", calls.lambdas, 1.0),
    ("definitions", calls.definitions, 1.0),
    ("returns_and_loops", calls.returns_and_loops, 1.0),
    ("choices", calls.choices, 0.8),
    ("kinds", variables.kinds, 2.0),
    ("flags", variables.flags, 1.0),
    ("swaps", variables.swaps, 2.0),
    ("initialisers", classes.initialisers, 1.6),
    ("setters", classes.setters, 0.4),
    ("flat", brackets.flat, 1.0),
    ("nested", brackets.nested, 2.0),
    ("chains", branches.chains, 2.0),
    ("comparisons", branches.comparisons, 0.9),
    ("conditionals", branches.conditionals, 1.0),
    ("filters", branches.filters, 0.5),
    ("walking", loops.walking, 1.0),
    ("counting", loops.counting, 1.0),
    ("nesting", loops.nesting, 1.0),
    ("blocks", loops.blocks, 1.2),
)

_CUMULATIVE = tuple(itertools.accumulate(weight for _, _, weight in THEMES))


def _draw_theme(p: Pen) -> int:
    return bisect.bisect_right(_CUMULATIVE, p.random() * _CUMULATIVE[-1])


def _function(p: Pen, block: list[str], first: str = "") -> list[str]:
    listed = p.parameters(0, 3)
    inner = ", ".join([part for part in (first, listed) if part])
    lines = [f"def {p.function()}({inner}):", *indent(block)]
    if p.chance(0.4):
        lines.append(
            f"    return {p.pick((p.loose(), p.loose(), p.expression(), 'None', 'True', 'False'))}"
        )
    return lines


def generate_with_theme(rng: random.Random) -> tuple[str, str]:
    """Return one document and the name of its first theme.

    Args:
        rng: source of all choices; the same state gives the same document.

    Returns:
        `(document, theme)`; the document ends with a newline and compiles.
    """
    p = Pen(rng)
    label, theme, _ = THEMES[_draw_theme(p)]
    form = p.random()
    if form < 0.35:
        lines = theme(p)
    elif form < 0.6:
        before = p.fillers(1, 4)
        lines = before + theme(p)
        if p.chance(0.3):
            lines += p.fillers(1, 2)
    elif form < 0.78:
        block = theme(p)
        lines = _function(p, p.fillers(0, 1) + block)
    elif form < 0.86:
        block = theme(p)
        lines = [f"class {p.klass()}:", *indent(_function(p, block, "self"))]
    elif form < 0.9:
        lines = [p.header(), *indent(p.fillers(0, 1) + theme(p))]
    else:
        lines = theme(p)
        if p.chance(0.3):
            lines.append("")
        p.taken.clear()
        lines += THEMES[_draw_theme(p)][1](p)
    return "\n".join(lines) + "\n", label


def generate(rng: random.Random) -> str:
    """Return one document: see `generate_with_theme`."""
    return generate_with_theme(rng)[0]


def documents(seed: int, count: int, start: int = 0) -> Iterator[str]:
    """Yield documents `start` to `start + count` of the endless sequence that belongs to a seed.

    Document n depends on (seed, n) alone, so the sequence may be made in pieces by several
    processes.

    Args:
        seed: which sequence, >= 0.
        count: how many, >= 0.
        start: number of the first, >= 0.

    Raises:
        ValueError: if an argument is negative.
    """
    if seed < 0 or count < 0 or start < 0:
        raise ValueError(f"seed {seed}, count {count} and start {start} must not be negative")
    for number in range(start, start + count):
        yield generate(random.Random((seed << 40) | number))
