"""Programs of our own, compiled: the kinds on which a search for circuits goes wrong.

    constant      the answer never changes on any input: nothing to find under interchange
    brackets      8 layers; no recorded input is balanced, so the answer never changes on these
    rare          the answer changes on a few inputs only
    two_routes    two ways to the answer, one shorter; either suffices
    three_routes  three ways, one through six layers
    pointers      8 layers, one chain: positions are followed from one to the next
    parity        6 layers, each of which needs all layers before it
    neighbours    one layer of four heads, and a neuron for each combination of what three of them find
    cured         a word is repeated; heads that would block it stand beside heads that undo them, which
                  are needed as long as the others are there, and no longer

Each takes a seed for its 64 recorded inputs alone: weights are the program's. What each says is told in
plain Python by `meanings`, which knows nothing of weights.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from circuitjax.benchmarks.compiler import Compiler, Source, Variable

__all__ = ["PROGRAMS", "meanings"]

_RECORDED = 64
Words = Sequence[str]


def _draw(
    name: str,
    words: Words,
    length: int,
    seed: int,
    rare: frozenset[str] = frozenset(),
    least: int = 0,
) -> list[list[str]]:
    """Recorded inputs; just the first `least` of them have an answer that is `rare`."""
    rng = np.random.default_rng([seed, *name.encode()])
    say = meanings()[name]
    rows = [[str(w) for w in rng.choice(words, length)] for _ in range(40 * _RECORDED)]
    rarer = [row for row in rows if rare & set(say(row))][:least]
    usual = [row for row in rows if not rare & set(say(row))]
    return [*rarer, *usual][:_RECORDED]


def _shift(draft: Compiler, at: tuple[int, int], value: Variable, step: int, name: str) -> Variable:
    """A variable's value so many places before (or after)."""
    places = draft.places
    return draft.select(at, places, places, lambda q, k: int(k) == int(q) + step, value, name)


def constant(seed: int = 0) -> Source:
    """Counts the a's, then says yes whatever the count."""
    draft = Compiler("constant", ("a", "b", "c"), 5, layers=2)
    found = draft.count((0, 0), draft.places, draft.tokens, lambda q, k: k == "a", "found")
    said = draft.compute(1, [found], lambda n: "yes", ("yes", "no"), "said")
    return draft.finish(said, _draw("constant", draft.words, 5, seed))


def _balanced(words: Words) -> list[str]:
    depth = np.cumsum([{"(": 1, ")": -1}.get(word, 0) for word in words])
    return ["yes" if depth[-1] == 0 and depth.min() >= 0 else "no"] * len(words)


def _up_to(token: str, place: str, seen: str) -> bool:
    """Whether a token, seen with its place behind it, is this one and stands no later than a place."""
    return seen[0] == token and int(seen[1:]) <= int(place)


def brackets(seed: int = 0) -> Source:
    """Counts of both brackets up to each place, their difference, whether it ever falls below 0."""
    words, length = ("(", ")", "x"), 7
    draft = Compiler("brackets", words, length, layers=8, heads=2)
    places = draft.places
    both = draft.variable("seen", [f"{token}{i}" for token in words for i in range(length)])
    draft.compute(
        0,
        [draft.tokens, places],
        lambda token, i: None if token is None or i is None else f"{token}{i}",
        into=both,
    )
    counts = [
        draft.count((1, head), places, both, functools.partial(_up_to, token), name)
        for head, (token, name) in enumerate((("(", "opened"), (")", "closed")))
    ]

    def state(opened: str | None, closed: str | None) -> str:
        change = int(opened or 0) - int(closed or 0)
        return "even" if change == 0 else "below" if change < 0 else "above"

    depth = draft.compute(2, counts, state, ("even", "below", "above"), "depth")
    below = draft.count((3, 0), places, depth, lambda q, k: k == "below", "below")
    fault = draft.compute(
        4, [below], lambda n: "no" if n in ("0", None) else "yes", ("yes", "no"), "fault"
    )
    last = draft.select(
        (5, 1), places, places, lambda q, k: int(k) == length - 1, depth, "depth_at_end"
    )
    fine = draft.compute(
        6,
        [fault, last],
        lambda bad, end: "yes" if bad == "no" and end == "even" else "no",
        ("yes", "no"),
        "fine",
    )
    said = draft.compute(7, [fine], lambda value: value or "no", ("yes", "no"), "said")
    return draft.finish(said, _draw("brackets", words, length, seed, frozenset({"yes"})))


def _after_ab(words: Words) -> list[str]:
    before = [None, None, *words]
    return [
        "hit" if (before[i], before[i + 1], word) == ("a", "b", "c") else "miss"
        for i, word in enumerate(words)
    ]


def rare(seed: int = 0) -> Source:
    """Whether a place ends the words a, b, c: so on 3 of 64 recorded inputs."""
    words, length = ("a", "b", "c", "d", "e"), 4
    draft = Compiler("rare", words, length, layers=3, heads=2)
    one = _shift(draft, (0, 0), draft.tokens, -1, "before")
    two = _shift(draft, (0, 1), draft.tokens, -2, "before_that")
    pair = draft.compute(
        1,
        [one, two],
        lambda near, far: "yes" if (far, near) == ("a", "b") else "no",
        ("yes", "no"),
        "pair",
    )
    said = draft.compute(
        2,
        [pair, draft.tokens],
        lambda found, token: "hit" if (found, token) == ("yes", "c") else "miss",
        ("hit", "miss"),
        "said",
    )
    inputs = _draw("rare", words, length, seed, frozenset({"hit"}), 3)
    return draft.finish(said, inputs)


def _before(words: Words) -> list[str]:
    return ["none", *words[:-1]]


def _routes(name: str, layers: int, routes: Sequence[str], seed: int) -> Source:
    """The word before, by heads that all write the answer; some read a copy of it."""
    words, length = ("a", "b", "c"), 5
    draft = Compiler(name, words, length, layers=layers, heads=2)
    said = draft.variable("said", (*words, "none"))
    # The first word's answer: the place 0 alone says it.
    draft.compute(layers - 1, [draft.places], lambda i: "none" if i == "0" else None, into=said)
    spelled = Variable("said", words, said.places[:3])
    places = draft.places
    for route in routes:
        if route == "direct":
            where = (layers - 2, 0)
            draft.select(
                where, places, places, lambda q, k: int(k) == int(q) - 1, draft.tokens, into=spelled
            )
        elif route == "copied":
            copy = draft.compute(0, [draft.tokens], lambda token: token, words, "copy")
            draft.select(
                (layers - 1, 1),
                places,
                places,
                lambda q, k: int(k) == int(q) - 1,
                copy,
                into=spelled,
            )
        else:
            ahead = _shift(draft, (0, 1), draft.tokens, 1, "ahead")
            for layer in range(1, layers - 1):
                ahead = draft.compute(layer, [ahead], lambda token: token, words, f"again_{layer}")
            draft.select(
                (layers - 1, 0),
                places,
                places,
                lambda q, k: int(k) == int(q) - 2,
                ahead,
                into=spelled,
            )
    return draft.finish(said, _draw(name, words, length, seed))


def two_routes(seed: int = 0) -> Source:
    """The word before, straight or through a copy."""
    return _routes("two_routes", 3, ("direct", "copied"), seed)


def three_routes(seed: int = 0) -> Source:
    """The word before: straight, through a copy, or (from the third word on) through six layers."""
    return _routes("three_routes", 6, ("direct", "copied", "long"), seed)


_NEXT = {"0": "3", "1": "0", "2": "4", "3": "1", "4": "2"}


def _followed(words: Words) -> list[str]:
    at = list(words)
    for hop in range(4):
        at = [words[int(i)] for i in at] if hop % 2 == 0 else [_NEXT[i] for i in at]
    return [_NEXT[words[int(i)]] for i in at]


def pointers(seed: int = 0) -> Source:
    """Each word names a place; it is followed, turned into another name, followed again, ..."""
    words = ("0", "1", "2", "3", "4")
    draft = Compiler("pointers", words, 5, layers=8)
    at = draft.tokens
    for layer in range(8):
        if layer in (0, 3, 6):
            at = draft.select(
                (layer, 0), at, draft.places, lambda q, k: q == k, draft.tokens, f"found_{layer}"
            )
        elif layer in (2, 5, 7):
            at = draft.compute(
                layer, [at], lambda name: None if name is None else _NEXT[name], words, f"n_{layer}"
            )
    return draft.finish(at, _draw("pointers", words, 5, seed))


def _parities(words: Words) -> list[str]:
    bits = [int(word) for word in words]
    for _ in range(6):
        bits = [bit ^ (bits[i - 1] if i else 0) for i, bit in enumerate(bits)]
    return [str(bit) for bit in bits]


def parity(seed: int = 0) -> Source:
    """Every layer adds the bit before to each bit."""
    draft = Compiler("parity", ("0", "1"), 6, layers=6)
    bits = draft.tokens
    for layer in range(6):
        before = _shift(draft, (layer, 0), bits, -1, f"before_{layer}")
        bits = draft.compute(
            layer,
            [bits, before],
            lambda bit, other: None if bit is None else str(int(bit) ^ int(other or 0)),
            ("0", "1"),
            f"bits_{layer}",
        )
    return draft.finish(bits, _draw("parity", ("0", "1"), 6, seed))


def _majority(words: Words) -> list[str]:
    found = []
    for i in range(len(words)):
        around = [words[j] for j in (i - 1, i, i + 1) if 0 <= j < len(words)]
        found.append("a" if around.count("a") > around.count("b") else "b")
    return found


def neighbours(seed: int = 0) -> Source:
    """The most frequent of a word and its neighbours, b where they are even; a fourth head idles."""
    draft = Compiler("neighbours", ("a", "b"), 6, layers=1, heads=4)
    found = [
        _shift(draft, (0, head), draft.tokens, head - 1, f"at_{head - 1}") for head in range(3)
    ]
    _shift(draft, (0, 3), draft.tokens, 2, "unread")

    def most(*around: str | None) -> str:
        return "a" if around.count("a") > around.count("b") else "b"

    said = draft.compute(0, found, most, ("a", "b"), "said")
    return draft.finish(said, _draw("neighbours", ("a", "b"), 6, seed))


def cured(seed: int = 0) -> Source:
    """Says each word again. Two heads silence that, two others undo what they do."""
    words, length = ("a", "b", "c"), 4
    draft = Compiler("cured", words, length, layers=2, heads=4)
    silence = draft.variable("silence", ("on",))
    everything = Variable("silence", words, silence.places * len(words))
    for head in range(4):
        draft.select(
            (0, head),
            draft.places,
            draft.places,
            lambda q, k: q == k,
            draft.tokens,
            into=everything,
            scale=2.0 if head < 2 else -2.0,
        )
    said = draft.compute(1, [draft.tokens], lambda token: token, words, "said", unless=silence)
    return draft.finish(said, _draw("cured", words, length, seed))


@functools.cache
def meanings() -> Mapping[str, Callable[[Words], list[str]]]:
    """{program: words -> what it says at each of them}."""
    return MappingProxyType(
        {
            "constant": lambda words: ["yes"] * len(words),
            "brackets": _balanced,
            "rare": _after_ab,
            "two_routes": _before,
            "three_routes": _before,
            "pointers": _followed,
            "parity": _parities,
            "neighbours": _majority,
            "cured": list,
        }
    )


#: {name: builder of a seed}.
PROGRAMS: Mapping[str, Callable[..., Source]] = MappingProxyType(
    {
        build.__name__: build
        for build in (
            constant,
            brackets,
            rare,
            two_routes,
            three_routes,
            pointers,
            parity,
            neighbours,
            cured,
        )
    }
)
