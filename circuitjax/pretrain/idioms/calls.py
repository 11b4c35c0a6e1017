"""Theme: keyword and positional arguments, anonymous and named functions.

A call whose arguments have keywords gives every argument one; `lambda` takes its parameters up to a
colon, `def` up to a closing parenthesis.
"""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["arguments", "choices", "definitions", "lambdas", "returns_and_loops"]

_OPERATORS = ("+", "-", "*", "+", "*", "/", "%")
_SORTERS = ("sorted", "max", "min")


def arguments(p: Pen) -> list[str]:
    """Return calls with keywords throughout, or with none."""
    lines = []
    for _ in range(p.integer(1, 3)):
        count = p.integer(2, 5)
        keys: list[str] = []
        while len(keys) < count:
            key = p.loose()
            if key not in keys:
                keys.append(key)
        if p.chance(0.5):
            same = p.chance(0.25)
            cut = 1 if p.chance(0.25) else 0
            inner = ", ".join(
                [
                    key if k < cut else f"{key}={key if same else p.value()}"
                    for k, key in enumerate(keys)
                ]
            )
        else:
            inner = ", ".join([_positional(p, key) for key in keys])
        kind = p.integer(0, 5)
        callee = p.function() if p.chance(0.7) else p.klass()
        if kind == 0:
            callee = f"{p.loose()}.{p.function()}"
        elif kind == 1:
            callee = f"self.{p.function()}"
        target = f"{p.loose()} = " if p.chance(0.5) else ""
        lines.append(f"{target}{callee}({inner})")
        lines += p.fillers(0, 1)
    return lines


def _positional(p: Pen, key: str) -> str:
    draw = p.random()
    if draw < 0.5:
        return key
    if draw < 0.8:
        sign = p.pick(("+", "-", "*", "+", " + ", " * "))
        return f"{key}{sign}{p.value() if p.chance(0.3) else p.number()}"
    return p.value()


def _combine(p: Pen, parameters: list[str]) -> str:
    if not parameters:
        return p.pick((p.number(), p.loose(), f"{p.function()}()"))
    kind = p.integer(0, 5)
    if len(parameters) == 1:
        one = parameters[0]
        return p.pick((f"{one} * {p.number()}", f"{one} + {p.atom()}", f"{one}[{p.integer(0, 2)}]",
                       f"{p.function()}({one})", f"{one}.{p.loose()}", f"-{one}"))  # fmt: skip
    if kind <= 3:
        return f" {p.pick(_OPERATORS)} ".join(parameters)
    return f"{p.function()}({', '.join(parameters)})"


def lambdas(p: Pen) -> list[str]:
    """Return anonymous functions: bound to a name, as a key, or handed to a call."""
    lines = []
    for _ in range(p.integer(1, 3)):
        count = p.integer(1, 4)
        parameters = p.letters(count) if p.chance(0.5) else p.names(count)
        text = f"lambda {', '.join(parameters)}: {_combine(p, parameters)}"
        kind = p.integer(0, 6)
        if kind <= 2:
            lines.append(f"{p.loose() if p.chance(0.5) else p.function()} = {text}")
        elif kind == 3:
            lines.append(f"{p.loose()} = {p.pick(_SORTERS)}({p.loose()}, key={text})")
        elif kind == 4:
            lines.append(f"{p.loose()} = map({text}, {p.collection()})")
        elif kind == 5:
            lines.append(f"{p.loose()}.sort(key={text})")
        else:
            lines.append(f"{p.function()}({text})")
        p.taken.difference_update(parameters)
        lines += p.fillers(0, 1)
    return lines


def definitions(p: Pen) -> list[str]:
    """Return named functions that combine their parameters."""
    lines: list[str] = []
    for _ in range(p.integer(1, 2)):
        count = p.integer(1, 4)
        parameters = p.letters(count) if p.chance(0.5) else p.names(count)
        lines.append(f"def {p.function()}({', '.join(parameters)}):")
        block = p.fillers(0, 1)
        kind = p.integer(0, 3)
        if kind <= 1:
            block.append(f"return {_combine(p, parameters)}")
        elif kind == 2:
            target = p.loose()
            block += [f"{target} = {_combine(p, parameters)}", f"return {target}"]
        else:
            block.append(p.pick(("pass", f"print({parameters[0]})", f"yield {parameters[-1]}")))
        lines += indent(block)
        p.taken.difference_update(parameters)
        if p.chance(0.2):
            lines.append("")
    while not lines[-1]:
        lines.pop()
    return lines


def choices(p: Pen) -> list[str]:
    """Return calls entered by `with`, next to calls returned or kept on a condition."""
    lines: list[str] = []
    inside = p.chance(0.6)
    for _ in range(p.integer(1, 2)):
        inner = p.parameters(0, 2)
        kind = p.integer(0, 5)
        if kind == 0:
            call = f"open({p.loose()})"
        elif kind == 1:
            mark = p.quote()
            call = f"open({p.loose()}, {mark}{p.pick(('r', 'w', 'rb', 'wb', 'a'))}{mark})"
        elif kind == 2:
            call = f"{p.klass()}({inner})"
        elif kind == 3:
            call = f"{p.loose()}.{p.function()}({inner})"
        else:
            call = f"{p.function()}({inner})"
        lines += p.fillers(0, 2)
        if p.chance(0.5):
            lines += [f"with {call} as {p.loose()}:", *p.body(1, 2)]
        elif inside and p.chance(0.7):
            lines.append(f"return {call} if {p.loose()} else {p.value()}")
            break
        else:
            lines.append(f"{p.loose()} = {call} if {p.loose()} else {p.value()}")
    return [f"def {p.function()}({p.parameters(0, 3)}):", *indent(lines)] if inside else lines


def returns_and_loops(p: Pen) -> list[str]:
    """Return functions that loop without end, or that answer True or False."""
    lines = [f"def {p.function()}({p.parameters(0, 3)}):", *p.body(0, 2)]
    kind = p.integer(0, 7)
    one = p.loose()
    if kind >= 6:
        word = p.pick(("while True:", "return True", "return False"))
        head = p.header() if p.chance(0.6) else f"for {one} in {p.collection()}:"
        lines += [f"    {head}", *indent(p.fillers(0, 1), 2), f"        {word}"]
        if word[0] == "w":
            lines += indent(p.fillers(1, 2), 3)
        lines += p.body(0, 1)
    elif kind == 0:
        lines += [f"    if {one} == {p.atom()}:", "        return True", "    return False"]
    elif kind == 1:
        lines += ["    while True:", *indent(p.fillers(1, 2), 2)]
        lines.append(f"        if {one} == {p.atom()}:")
        lines.append(f"            {p.pick(('break', 'return True'))}")
    elif kind == 2:
        lines += [f"    for {one} in {p.collection()}:", f"        if {one}.{p.function()}():",
                  "            return True", "    return False"]  # fmt: skip
    elif kind == 3:
        lines += [*p.body(0, 1), "    return True"]
    elif kind == 4:
        lines += ["    while True:", *indent(p.fillers(1, 3), 2)]
    else:
        lines += [f"    if {one}:", *indent(p.fillers(0, 1), 2), "        return True",
                  "    while True:", *indent(p.fillers(1, 2), 2)]  # fmt: skip
    if p.chance(0.3):
        lines += [p.filler()]
    return lines
