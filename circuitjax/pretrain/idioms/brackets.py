"""Theme: lists, lists of lists, dictionaries and sets close with what opened them."""

from collections.abc import Callable

from circuitjax.pretrain.idioms.pen import Pen

__all__ = ["flat", "nested"]


def _item(p: Pen) -> Callable[[], str]:
    kind = p.integer(0, 4)
    if kind <= 1:
        return p.number
    if kind <= 3:
        return p.loose
    mark = p.quote()
    return lambda: mark + p.phrase(1, 1) + mark


def _row(item: Callable[[], str], count: int) -> str:
    return "[" + ", ".join([item() for _ in range(count)]) + "]"


def _place(p: Pen, text: str) -> str:
    kind = p.integer(0, 17)
    if kind <= 6:
        return f"{p.loose()} = {text}"
    if kind in (12, 13):
        return f"{p.loose()}.{p.loose()} = {text}"
    if kind == 14:
        return f"assert {p.loose()} in {text}"
    if kind == 15:
        return f"{p.loose()} = {p.loose()} or {text}"
    if kind == 16:
        return f"{p.loose()} += {text}"
    if kind == 17:
        return f"{p.loose()} = {p.loose()} in {text}"
    if kind == 10:
        return f"{p.loose()} = {text} + {p.loose()}"
    if kind == 11:
        place = f"{p.loose()} = {p.loose()}[{p.loose()}[{p.atom()}]]"
        return f"{place} {p.pick(('+', '*', '-'))} {p.atom()}"
    if kind == 7:
        return f"print({text})"
    if kind == 8:
        return f"{p.loose()} = {p.function()}({text})"
    return f"for {p.loose()} in {text}:"


def _element(p: Pen) -> str:
    """Return one element that may hold brackets of its own, all closed."""
    kind = p.integer(0, 11)
    if kind <= 4:
        return p.loose()
    if kind == 5:
        return p.number()
    if kind == 6:
        return f"{p.function()}({p.loose()})"
    if kind == 7:
        return f"{p.loose()}[{p.atom()}]"
    if kind == 8:
        return p.string(1, 1)
    if kind == 9:
        return f"{p.loose()} {p.pick(('+', '-', '*'))} {p.atom()}"
    if kind == 10:
        return f"({p.loose()}, {p.atom()})"
    return f"{p.loose()}.{p.loose()}"


def _mixed(p: Pen) -> str:
    """Return a list of plain elements and lists, which ends in either as often."""
    draw = p.random()
    plain = p.number if draw < 0.3 else p.loose
    one = plain if draw < 0.75 else lambda: _element(p)
    count = p.integer(2, 5)
    parts = [one() for _ in range(count)]
    for _ in range(p.integer(1, 2)):
        at = p.integer(0, count - 1)
        parts[at] = _row(plain, p.integer(1, 4))
    if p.chance(0.5):
        parts[-1] = _row(plain, p.integer(1, 4))
    else:
        parts[-1] = plain()
        if all(part[0] != "[" for part in parts):
            parts[0] = _row(plain, p.integer(1, 4))
    return "[" + ", ".join(parts) + "]"


def _lines(p: Pen, texts: list[str]) -> list[str]:
    lines: list[str] = []
    if p.chance(0.2):
        lines = [f"def {p.function()}({p.parameters(0, 3)}):", *p.body(0, 2)]
        return [*lines, f"    return {texts[0]}"]
    for text in texts:
        if p.chance(0.3):
            lines += p.fillers(1, 2)
        line = _place(p, text)
        lines.append(line)
        if line.endswith(":"):
            lines += p.body(1, 2)
    return lines


def flat(p: Pen) -> list[str]:
    """Return lists, dictionaries and sets, one bracket deep."""
    texts = []
    for _ in range(p.integer(1, 3)):
        item = _item(p) if p.chance(0.7) else lambda: _element(p)
        count = p.integer(1, 6)
        kind = p.integer(0, 6)
        if kind <= 2:
            texts.append(_row(item, count))
        elif kind <= 5:
            texts.append("{" + ", ".join([item() for _ in range(count)]) + "}")
        else:
            mark = p.quote()
            pairs = [f"{mark}{p.phrase(1, 1)}{mark}: {item()}" for _ in range(p.integer(1, 4))]
            texts.append("{" + ", ".join(pairs) + "}")
    return _lines(p, texts)


def nested(p: Pen) -> list[str]:
    """Return lists at depth one, two and now and then three."""
    texts = []
    for _ in range(p.integer(1, 3)):
        item = _item(p)
        draw = p.random()
        if draw < 0.25:
            texts.append(_row(item, p.integer(1, 7)))
        elif draw < 0.65:
            texts.append(_mixed(p))
        elif draw < 0.95:
            width = p.integer(1, 4)
            ragged = p.chance(0.5)
            rows = [
                _row(item, p.integer(1, 4) if ragged else width) for _ in range(p.integer(1, 4))
            ]
            texts.append("[" + ", ".join(rows) + "]")
        else:
            rows = [_row(item, p.integer(1, 2)) for _ in range(p.integer(1, 2))]
            texts.append("[[" + ", ".join(rows) + "], " + "[" + _row(item, 2) + "]]")
    return _lines(p, texts)
