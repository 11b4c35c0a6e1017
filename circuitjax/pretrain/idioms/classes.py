"""Theme: classes whose initialiser stores its parameters under their own names."""

from circuitjax.pretrain.idioms.pen import Pen, indent

__all__ = ["initialisers", "setters"]

_STARTS = ("[]", "0", "None", "{}", "False", "set()")


def _stores(p: Pen, names: list[str], gaps: float) -> list[str]:
    lines: list[str] = []
    order = list(names)
    if p.chance(0.4):
        order.sort(key=lambda _: p.random())
    for name in order:
        if p.chance(gaps):
            other = p.loose()
            lines.append(f"self.{other} = {p.pick(_STARTS)}")
        lines.append(f"self.{name} = {name}")
    return lines


def initialisers(p: Pen) -> list[str]:
    """Return a class with an `__init__` that stores each parameter."""
    count = p.integer(1, 5)
    names = p.attributes(count) if p.chance(0.35) else p.names(count)
    style = p.integer(0, 5)
    if style == 0:
        listed = [f"{name}: {p.type()}" for name in names]
    elif style == 1:
        cut = p.integer(0, count - 1)
        listed = [
            name if k < cut else f"{name}={p.pick(('None', '0', '1', 'True', p.number()))}"
            for k, name in enumerate(names)
        ]
    else:
        listed = names
    base = p.pick((":", ":", "(object):", f"({p.klass()}):"))
    lines = [f"class {p.klass()}{base}"]
    if p.chance(0.15):
        lines.append(f"    {p.pick(names)} = {p.pick(('None', '0'))}")
    lines.append(f"    def __init__(self, {', '.join(listed)}):")
    if p.chance(0.2):
        lines.append("        super().__init__()")
    if p.chance(0.15):
        lines += indent(p.fillers(1, 1), 2)
    lines += indent(_stores(p, names, 0.12), 2)
    if p.chance(0.2):
        lines.append(f"        self.{p.loose()} = {p.pick(_STARTS)}")
    for _ in range(p.integer(0, 2) if p.chance(0.4) else 0):
        one = p.pick(names)
        lines.append(f"    def {p.function()}(self):")
        lines.append(
            f"        {p.pick((f'return self.{one}', f'print(self.{one})', f'self.{one} = None'))}"
        )
    if p.chance(0.15):
        lines.append(f"{p.loose()} = {p.klass()}({', '.join([p.atom() for _ in names])})")
    return lines


def setters(p: Pen) -> list[str]:
    """Return methods or functions that store their parameters in an object."""
    names = p.names(p.integer(1, 4))
    owner = "self" if p.chance(0.7) else p.loose()
    lines = [f"def {p.function()}({', '.join([owner, *names])}):", *p.body(0, 1)]
    for name in names:
        lines.append(f"    {owner}.{name} = {name}")
        if p.chance(0.15):
            lines += p.body(1, 1)
    if p.chance(0.4):
        lines.append(f"    return {owner}")
    return lines
