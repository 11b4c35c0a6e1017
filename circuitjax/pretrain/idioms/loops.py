"""Theme: loops. `for ... in`, `while ... <`, counting and enumerating, nesting up to three deep."""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["blocks", "counting", "nesting", "walking"]

_INDICES = (
    "i",
    "j",
    "k",
    "n",
    "i",
    "j",
    "index",
    "count",
    "number",
    "row",
    "line",
    "step",
    "column",
    "position",
)


def _bound(p: Pen) -> str:
    return p.pick(
        (p.number(), p.loose(), p.loose(), f"len({p.loose()})", f"{p.loose()} + {p.number()}")
    )


def _head(p: Pen) -> tuple[str, list[str]]:
    """Return a loop's head and the statements its body must begin with."""
    kind = p.integer(0, 5)
    if kind <= 1:
        return f"for {p.loose()} in {p.loose()}:", []
    if kind == 2:
        return f"for {p.pick(_INDICES)} in range({_bound(p)}):", []
    if kind == 3:
        return f"for {p.pick(_INDICES)}, {p.loose()} in enumerate({p.loose()}):", []
    if kind == 4:
        name = p.loose()
        return f"while {name} < {_bound(p)}:", [f"{name} += {p.pick(('1', '1', '2', p.loose()))}"]
    return f"for {p.loose()} in {p.loose()}.{p.function()}():", []


def walking(p: Pen) -> list[str]:
    """Return loops over collections and loops that run while a number is below another."""
    lines: list[str] = []
    for _ in range(p.integer(1, 3)):
        lines += p.fillers(0, 2) if p.chance(0.5) else []
        name = p.loose()
        if p.chance(0.5):
            lines += [
                f"for {name} in {p.loose() if p.chance(0.8) else p.expression()}:",
                *p.body(1, 2),
            ]
        else:
            if p.chance(0.3):
                lines.append(f"{name} = {p.number()}")
            lines += [f"while {name} < {_bound(p)}:", *p.body(0, 1), f"    {name} += {p.atom()}"]
    return lines


def counting(p: Pen) -> list[str]:
    """Return loops that count with `range` and loops that number their items with `enumerate`."""
    lines: list[str] = []
    for _ in range(p.integer(1, 3)):
        index = p.pick(_INDICES) if p.chance(0.6) else p.loose()
        if p.chance(0.5):
            item = p.loose()
            while item == index:
                item = p.loose()
            many = p.loose() if p.chance(0.8) else p.expression()
            lines.append(f"for {index}, {item} in enumerate({many}):")
            use = p.pick(
                (
                    f"print({index}, {item})",
                    f"{p.loose()}[{index}] = {item}",
                    f"{p.function()}({item})",
                )
            )
        else:
            arguments = p.pick((_bound(p), _bound(p), f"{p.number()}, {_bound(p)}"))
            lines.append(f"for {index} in range({arguments}):")
            use = p.pick(
                (
                    f"print({index})",
                    f"{p.loose()}[{index}] = {p.value()}",
                    f"{p.loose()} += {index}",
                )
            )
        block = p.fillers(0, 1)
        block.append(use if p.chance(0.6) else p.filler())
        lines += indent(block)
        lines += p.fillers(0, 1) if p.chance(0.4) else []
    return lines


def _grow(p: Pen, depth: int, deepest: int) -> list[str]:
    """Return statements and blocks that open and close at random, down to `deepest`."""
    lines: list[str] = []
    count = p.integer(1, 3 if depth == 0 else 2)
    for position in range(count):
        if depth < deepest and (p.chance(0.55) or depth + position == 0):
            head, first = _head(p) if p.chance(0.7) else (p.header(), [])
            if p.chance(0.15):
                head, first = f"with open({p.loose()}) as {p.loose()}:", []
            lines += [head, *indent(first + _grow(p, depth + 1, deepest))]
        else:
            lines += p.fillers(1, 2)
    return lines


def blocks(p: Pen) -> list[str]:
    """Return a function or a loop whose blocks close and open again at several depths."""
    grown = _grow(p, 0, p.integer(1, 2))
    if p.chance(0.3):
        grown += [f"for {p.loose()} in {p.loose()}:", *p.body(1, 2)]
    draw = p.random()
    if draw < 0.55:
        return [f"def {p.function()}({p.parameters(0, 3)}):", *indent(grown)]
    return [f"for {p.loose()} in {p.loose()}:", *indent(grown)] if draw < 0.7 else grown


def nesting(p: Pen) -> list[str]:
    """Return loops and branches inside each other, with statements at every depth on the way."""
    lines = p.fillers(0, 2) if p.chance(0.5) else []
    depth = p.integer(1, 3)
    after: list[list[str]] = []
    for level in range(depth):
        head, first = _head(p)
        if p.chance(0.15):
            head, first = f"if {p.loose()} == {p.value()}:", []
        lines += indent([head], level)
        inner = first + (p.fillers(1, 2) if p.chance(0.35) else [])
        lines += indent(inner, level + 1)
        after.append(indent(p.fillers(1, 2), level + 1) if p.chance(0.3) else [])
    lines += indent(p.fillers(1, 2), depth)
    for tail in reversed(after[:-1]):
        lines += tail
    return lines + p.fillers(0, 1)
