"""Theme: a variable is used as what it was set to, some lines later.

A set is added to, a string is appended to with `+=`, a list with `.append`; a flag that began as
True or False is tested alone, one that began as None is compared with None.
"""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["flags", "kinds", "swaps"]

_STRING_STARTS = ('""', "''", "str()", "str()", "str()")
_OTHERS = ("list", "dict", "number")


def _start(p: Pen, kind: str) -> str:
    if kind == "set":
        return f"set({p.loose()})" if p.chance(0.15) else "set()"
    if kind == "string":
        return f"str({p.loose()})" if p.chance(0.12) else p.pick(_STRING_STARTS)
    if kind == "list":
        return p.pick(("[]", "list()"))
    if kind == "dict":
        return p.pick(("{}", "dict()"))
    return p.pick(("0", "0", "int()"))


def _use(p: Pen, name: str, kind: str, item: str) -> str:
    if kind == "set":
        return f"{name}.add({item})"
    if kind == "string":
        return f"{name} += {p.string(1, 1) if p.chance(0.25) else item}"
    if kind == "list":
        return f"{name}.append({item})"
    if kind == "dict":
        return f"{name}[{item}] = {p.loose()}"
    return f"{name} += {p.number()}"


def _track(p: Pen) -> str:
    if p.chance(0.25) and "current" not in p.taken:
        p.taken.add("current")
        return "current"
    return p.name()


def kinds(p: Pen) -> list[str]:
    """Return one or two variables of different kinds that are filled some lines later."""
    count = 1 if p.chance(0.5) else 2
    pool = ["set", "string"] if p.chance(0.7) else [p.pick(("set", "string")), p.pick(_OTHERS)]
    if p.chance(0.5):
        pool.reverse()
    tracked = [(_track(p), kind) for kind in pool[:count]]
    lines: list[str] = []
    for name, kind in tracked:
        lines.append(f"{name} = {_start(p, kind)}")
        if p.chance(0.4):
            lines += p.fillers(1, 2)
    if p.chance(0.35):
        lines += p.fillers(1, 3)
    if p.chance(0.5):
        tracked.reverse()
    uses = [(name, kind) for name, kind in tracked for _ in range(p.integer(1, 2))]
    form = p.integer(0, 4)
    if form == 0:
        return lines + [_use(p, name, kind, p.loose()) for name, kind in uses]
    item = p.loose()
    block = [_use(p, name, kind, item if p.chance(0.7) else p.loose()) for name, kind in uses]
    if form == 1:
        lines.append(f"for {item} in {p.loose()}:")
    elif form == 2:
        lines.append(f"for {item} in range({p.atom()}):")
    elif form == 3:
        lines.append(f"while {item} < {p.atom()}:")
        block.append(f"{item} += 1")
    else:
        lines.append(f"if {item}:")
    if p.chance(0.3):
        lines += p.body(1, 2)
    if p.chance(0.3):
        lines.append(f"    if {p.loose()} == {p.atom()}:")
        block = indent(block)
    lines += indent(block)
    if p.chance(0.3):
        lines.append(_use(p, *uses[0], p.loose()))
    if p.chance(0.4):
        lines.append(f"print({tracked[-1][0]})")
    return lines


def flags(p: Pen) -> list[str]:
    """Return flags that begin as a truth value or as None, and are tested accordingly later."""
    count = 1 if p.chance(0.7) else 2
    tracked = [
        (
            p.flag() if p.chance(0.5) else p.name(),
            "None" if p.chance(0.5) else p.pick(("True", "False", "True")),
        )
        for _ in range(count)
    ]
    lines: list[str] = []
    defaults = p.chance(0.2)
    if defaults:
        listed = [p.loose() for _ in range(p.integer(0, 1))] + [f"{n}={s}" for n, s in tracked]
        header = f"def {p.function()}({', '.join(listed)}):"
        lines += p.fillers(0, 2)
    for name, start in tracked:
        if not defaults:
            lines.append(f"{name} = {start}")
        if p.chance(0.4):
            lines += p.fillers(1, 3)
    if p.chance(0.5):
        tracked.reverse()
    for name, start in tracked:
        test = f"if {name} is None:" if start == "None" else f"if {name}:"
        block = p.fillers(1, 2)
        if p.chance(0.3):
            value = f"{p.function()}()" if start == "None" else p.pick(("True", "False"))
            block.append(f"{name} = {value}")
        if p.chance(0.25):
            lines.append(f"for {p.loose()} in {p.loose()}:")
            lines += p.body(0, 1)
            lines += ["    " + test, *indent(block, 2)]
        else:
            lines += [test, *indent(block)]
    return [header, *indent(lines)] if defaults else lines


def swaps(p: Pen) -> list[str]:
    """Return exchanges of two places: names, attributes or elements."""
    lines: list[str] = []
    for _ in range(p.integer(1, 3)):
        kind = p.integer(0, 9)
        one, two = p.names(2) if p.chance(0.7) else p.letters(2)
        left, right = one, two
        if kind == 0:
            base = p.loose()
            left, right = f"{base}[{one}]", f"{base}[{two}]"
        elif kind == 1:
            base = "self" if p.chance(0.5) else p.loose()
            left, right = f"{base}.{one}", f"{base}.{two}"
        elif kind == 2:
            field = p.loose()
            left, right = f"{one}.{field}", f"{two}.{field}"
        if p.chance(0.4) and kind > 2:
            lines.append(f"{left} = {p.atom() if p.chance(0.5) else p.expression()}")
            lines += p.fillers(0, 1)
            lines.append(f"{right} = {p.atom() if p.chance(0.5) else p.expression()}")
        lines += p.fillers(0, 1)
        swap = f"{left}, {right} = {right}, {left}"
        form = p.integer(0, 5)
        if form == 0:
            lines += [f"if {left} > {right}:", f"    {swap}"]
        elif form == 1:
            lines += [f"for {p.loose()} in range({p.atom()}):", *p.body(0, 1), f"    {swap}"]
        elif form == 2:
            head = f"while {left} < {right}:" if p.chance(0.5) else f"if {right}:"
            lines += [head, f"    {swap}", *p.body(0, 1)]
        else:
            lines.append(swap)
        if p.chance(0.3):
            lines.append(f"print({left}, {right})")
    return lines
