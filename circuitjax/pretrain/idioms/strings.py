"""Theme: quotation marks, brackets inside strings, format strings, and files that are opened.

A string closes with the mark that opened it; a replacement field closes with a brace, a plain
parenthesis in a string with a parenthesis; `with open(...)` goes on with `as`; what was opened with
mode "w" is written and with mode "r" is read.
"""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["file_choices", "file_modes", "file_with", "formats", "quotes"]

_CALLEES = (
    *("print", "log", "run", "send", "show", "write", "open", "find", "load", "say", "warn"),
    *("input", "logger.info", "logging.info", "logger.error", "self.log", "parser.parse"),
    "queue.put",
)
_ERRORS = ("ValueError", "KeyError", "TypeError", "RuntimeError", "Exception", "NameError")
_HANDLES = ("f", "f", "f", "file", "out", "handle", "stream", "source", "output")


def quotes(p: Pen) -> list[str]:
    """Return lines with quoted arguments, the mark chosen anew on each."""
    lines = []
    for _ in range(p.integer(1, 4)):
        mark, kind, text = p.quote(), p.integer(0, 11), p.phrase(1, 5)
        quoted = mark + text + mark
        if kind <= 2:
            lines.append(f"{p.pick(_CALLEES)}({quoted})")
        elif kind == 3:
            lines.append(f"{p.function()}({quoted})")
        elif kind == 4:
            lines.append(f"{p.loose()} = {p.function()}({quoted})")
        elif kind == 5:
            lines.append(f"{p.loose()}.{p.function()}({quoted})")
        elif kind == 6:
            lines.append(f"{p.loose()} = {quoted}")
        elif kind == 7:
            lines.append(f"{p.function()}({mark}{p.phrase(1, 1)}{mark}, {quoted})")
        elif kind == 8:
            lines += [f"if {p.loose()} == {p.number()}:", f"    {p.pick(_CALLEES)}({quoted})"]
        elif kind == 9:
            lines.append(f"{p.function()}({p.loose()}, {quoted})")
        elif kind == 10:
            lines.append(f"{p.loose()} = {p.loose()}.{p.function()}({p.atom()}, {quoted})")
        else:
            lines.append(f"{p.loose()}[{mark}{p.phrase(1, 1)}{mark}] = {p.function()}({quoted})")
    draw = p.random()
    mark = p.quote()
    quoted = mark + p.phrase(1, 4) + mark
    if draw < 0.15:
        lines.append(f"raise {p.pick(_ERRORS)}({quoted})")
    elif draw < 0.3:
        head = f"def {p.function()}({p.parameters(0, 3)}):"
        inside = indent(lines if p.chance(0.5) else p.fillers(0, 2))
        lines = [head, *inside, f"    return {p.function()}({quoted})"]
    return lines


def _lead(p: Pen) -> str:
    draw = p.random()
    if draw < 0.2:
        return f"{{{p.loose()}}} "
    if draw < 0.35:
        return f"{p.phrase(1, 2)} {{{p.loose()}}} "
    return f"{p.phrase(1, 1)} ({p.phrase(1, 1)}) " if draw < 0.5 else ""


def formats(p: Pen) -> list[str]:
    """Return calls with a replacement field, or with plain brackets in a string."""
    lines = []
    for _ in range(p.integer(1, 3)):
        draw = p.random()
        call = p.pick(_CALLEES) if draw < 0.5 else p.function()
        target = f"{p.loose()} = " if p.chance(0.2) else ""
        start, end = f"{target}{call}(", ")"
        if draw > 0.85:
            start, end = f"{p.loose()} = ", ""
        elif draw > 0.8:
            start = f"raise {p.pick(_ERRORS)}("
        elif draw > 0.72:
            start = f"{target}{call}({p.atom()}, "
        elif draw > 0.65:
            start = f"{p.loose()}.{call}("
        mark = '"' if p.chance(0.8) else "'"
        text, inner = p.phrase(1, 3), p.loose()
        if p.chance(0.25):
            inner = f"{inner}.{p.pick(('name', 'size', 'value', 'key', 'count', 'path'))}"
        tail = f" {p.phrase(1, 2)}" if p.chance(0.45) else ""
        if p.chance(0.5):
            lines.append(f"{start}f{mark}{_lead(p)}{text} {{{inner}}}{tail}{mark}{end}")
        elif p.chance(0.5):
            lines.append(f"{start}f{mark}{_lead(p)}{text} ({inner}){tail}{mark}{end}")
        else:
            lead = f"({p.loose()}) " if p.chance(0.2) else ""
            lines.append(f"{start}{mark}{lead}{text} ({inner}){tail}{mark}{end}")
        if p.chance(0.3):
            lines.append(p.filler())
    return lines


def file_modes(p: Pen) -> list[str]:
    """Return a file opened to be written or to be read, and used so some lines later."""
    handle, mark = p.pick(_HANDLES), p.quote()
    p.taken.add(handle)
    where = p.loose() if p.chance(0.6) else p.filename()
    writes = p.chance(0.5)
    mode = mark + ("w" if writes else "r") + ("b" if p.chance(0.15) else "") + mark
    named = "mode=" if p.chance(0.2) else ""
    lines = [f"with open({where}, {named}{mode}) as {handle}:"]
    block = p.fillers(0, 2) if p.chance(0.6) else []
    what = p.loose() if p.chance(0.7) else p.string(1, 2)
    if writes:
        use = f"{handle}.write({what})"
    else:
        use = f"{handle}.read({p.number()})" if p.chance(0.2) else f"{handle}.read()"
    kind = p.integer(0, 5)
    if kind == 0:
        use = f"{p.loose()} = {use}"
    elif kind == 1:
        use = f"print({use})"
    elif kind == 2 and p.chance(0.5):
        block.append(f"for {p.loose()} in {p.collection()}:")
        use = f"    {use}"
    elif kind == 3 and not writes:
        use = f"{p.loose()} = {use}"
    elif kind == 4:
        block.append(f"if {p.loose()}:")
        use = f"    {use}"
    block.append(use)
    return lines + indent(block + (p.fillers(0, 1) if p.chance(0.4) else []))


def file_with(p: Pen) -> list[str]:
    """Return `with open(...) as name` statements and their blocks."""
    lines = []
    for _ in range(p.integer(1, 2)):
        handle, where = p.pick(_HANDLES), p.loose() if p.chance(0.6) else p.filename()
        call = f"open({where})"
        if p.chance(0.2):
            call = f"open({where}, encoding={p.string(1, 1)})"
        lines.append(f"with {call} as {handle}:")
        block = p.fillers(0, 1)
        uses = (
            f"{p.loose()} = {handle}.read()",
            f"for line in {handle}:\n        print(line)",
            f"{p.function()}({handle})",
            f"{p.loose()} = json.load({handle})",
        )
        block.append(p.pick(uses))
        lines += [part for line in indent(block) for part in line.split("\n")]
        lines += p.fillers(0, 1)
    return lines


def file_choices(p: Pen) -> list[str]:
    """Return assignments that open a file if a condition holds and take something else if not."""
    lines = []
    for _ in range(p.integer(1, 2)):
        target, where = p.loose(), p.loose() if p.chance(0.6) else p.filename()
        call = f"open({where})"
        if p.chance(0.3):
            mark = p.quote()
            call = f"open({where}, {mark}{p.pick(('r', 'w'))}{mark})"
        condition = p.pick((p.flag(), p.loose(), f"{p.loose()} == {p.number()}", f"not {p.flag()}"))
        other = p.pick(("None", "sys.stdin", p.loose(), "default", f"{p.function()}()"))
        lines.append(f"{target} = {call} if {condition} else {other}")
        lines += p.fillers(0, 2)
    return lines
