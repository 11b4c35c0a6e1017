"""Theme: conditions. Chains of branches, comparisons, conditional expressions and filters.

In a chain the `if` branch is followed by an `elif` and the `elif` branch by an `else`, always; so
which comes next is decided by the last branch at the same indentation.
"""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["chains", "comparisons", "conditionals", "filters"]

_SIGNS = ("==", "==", "==", ">", "<", "!=", "in", "==")


def _condition(p: Pen) -> str:
    kind = p.integer(0, 5)
    if kind <= 2:
        return f"{p.loose()} {p.pick(_SIGNS)} {p.loose() if p.chance(0.5) else p.string(1, 1)}"
    if kind == 3:
        return f"{p.loose()}.{p.function()}({p.loose()})"
    if kind == 4:
        return f"{p.loose()} == {p.number()}"
    return p.loose() if p.chance(0.6) else f"not {p.loose()}"


def _block(p: Pen, last: str) -> list[str]:
    lines = p.fillers(1, 2) if p.chance(0.75) else []
    if last and (p.chance(0.3) or not lines):
        lines.append(last)
    return lines or ["pass"]


def _chain(p: Pen, depth: int) -> list[str]:
    subject = p.loose()
    same = p.chance(0.5)

    def test() -> str:
        if same:
            return f"{subject} == {p.number() if p.chance(0.5) else p.string(1, 1)}"
        return _condition(p)

    last = p.pick(("", "", "pass", p.filler()))
    target = p.loose() if p.chance(0.4) else ""
    lines: list[str] = []
    for head in (f"if {test()}:", f"elif {test()}:", "else:"):
        lines.append(head)
        if depth and p.chance(0.3):
            lines += indent(_chain(p, depth - 1))
        elif target:
            lines += ["    " + f"{target} = {p.value()}", *(p.body(1, 1) if p.chance(0.2) else [])]
        else:
            lines += indent(_block(p, last))
    return lines


def chains(p: Pen) -> list[str]:
    """Return a chain of three branches, at times inside a loop or holding another chain."""
    lines = p.fillers(0, 2) if p.chance(0.5) else []
    chain = _chain(p, 1 if p.chance(0.2) else 0)
    while p.chance(0.3):
        chain = [
            f"if {_condition(p)}:",
            *p.body(1, 2),
            *(p.fillers(1, 1) if p.chance(0.3) else []),
            *chain,
        ]
    draw = p.random()
    if draw < 0.15:
        lines += [f"for {p.loose()} in {p.loose()}:", *indent(chain)]
    elif draw < 0.25:
        lines += [f"while {p.loose()} < {p.atom()}:", *indent(chain)]
    elif draw < 0.3:
        one = p.loose()
        lines += [f"for {one} in {p.loose()}:", f"    for {p.loose()} in {one}:", *indent(chain, 2)]
    else:
        lines += chain
    return lines + p.fillers(0, 1)


def comparisons(p: Pen) -> list[str]:
    """Return tests for equality among assignments to the same names."""
    lines: list[str] = []
    for _ in range(p.integer(1, 3)):
        one = p.loose()
        if p.chance(0.5):
            lines.append(f"{one} = {p.value()}")
        lines += p.fillers(0, 1)
        if p.chance(0.4):
            lines += [p.header(), *p.body(1, 2)]
        other = p.loose() if p.chance(0.5) else one
        lines.append(f"if {other} == {p.value()}:")
        block = p.fillers(0, 1)
        block.append(f"{p.loose() if p.chance(0.5) else other} = {p.value()}")
        lines += indent(block)
    return lines


def conditionals(p: Pen) -> list[str]:
    """Return conditional expressions and plain `if` statements on the same sort of flags."""
    lines: list[str] = []
    for _ in range(p.integer(1, 3)):
        flag = p.flag() if p.chance(0.6) else p.loose()
        kind = p.integer(0, 5)
        if kind <= 1:
            value = p.value() if p.chance(0.3) else p.expression()
            target = p.pick((p.loose(), p.loose(), p.loose(), f"{p.loose()}.{p.loose()}"))
            sign = "+=" if p.chance(0.2) else "="
            lines.append(
                f"{target} {sign} {value} if {flag} else {p.atom() if p.chance(0.5) else p.value()}"
            )
        elif kind == 5 and p.chance(0.6):
            call = p.pick((p.expression(), f"{p.function()}({p.parameters(1, 2)})",
                           f"{p.loose()}.{p.function()}({p.loose()})"))  # fmt: skip
            head = f"def {p.function()}({p.parameters(0, 2)}):"
            lines = [head, *indent(lines), f"    return {call} if {flag} else {p.value()}"]
            return lines
        elif kind == 2:
            lines.append(f"print({p.value()} if {flag} else {p.value()})")
        else:
            lines += [f"if {flag}:", *p.body(1, 2)]
        lines += p.fillers(0, 1)
    return lines


def filters(p: Pen) -> list[str]:
    """Return comprehensions with a filter, next to loops that filter by a statement."""
    lines: list[str] = []
    for _ in range(p.integer(1, 2)):
        one, many = p.loose(), p.loose()
        shown = p.pick(
            (one, one, f"{one} * {p.number()}", f"{p.function()}({one})", f"{one}.{p.loose()}")
        )
        test = p.pick(
            (one, f"{one} == {p.atom()}", f"{one} > {p.number()}", f"{one}.{p.function()}()")
        )
        target = p.loose()
        kind = p.integer(0, 5)
        if kind <= 2:
            lines.append(f"{target} = [{shown} for {one} in {many} if {test}]")
        elif kind == 3:
            lines.append(f"{target} = {{{shown} for {one} in {many} if {test}}}")
        elif kind == 4:
            lines.append(f"{target} = [{shown} for {one} in {many}]")
        else:
            lines += [f"for {one} in {many}:", f"    if {test}:", *indent(p.fillers(1, 2), 2)]
        lines += p.fillers(0, 1)
    return lines
