"""Inputs that nobody would write: bytes and JSON values, changed at random from good ones."""

import copy
import json
import random
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.0, -0.5, 1.0, 1e308, 10**6, 10**12, 10**18, 10**30, 10**4000,
    "", "x", "\x00", "\ud83d", "é" * 50, "a" * 5000, "../../etc/passwd", "true", "1", "NaN", [], {},
    [[]], [1, "a", None], {"": {}}, {"a": [1]}, "gelu", "relu", ["attn.q"], "none", "learned",
)  # fmt: skip


def deep(rng: random.Random) -> Any:
    value: Any = rng.choice(NASTY[:3])
    for _ in range(rng.choice((3, 50, 500))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def nasty(rng: random.Random) -> Any:
    return deep(rng) if rng.random() < 0.03 else copy.deepcopy(rng.choice(NASTY))


def changed_value(rng: random.Random, value: Any) -> Any:
    """A JSON value with one to three places changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _change(rng, value)
    return value


def _change(rng: random.Random, value: Any) -> Any:
    inside = isinstance(value, dict | list) and value and rng.random() < 0.85
    if not inside:
        return nasty(rng)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.12:
            del value[key]
        elif kind < 0.2:
            value[rng.choice(("more", "", "a" * 300, key + " "))] = nasty(rng)
        elif kind < 0.25:
            value[key + "x"] = value.pop(key)
        else:
            value[key] = _change(rng, value[key])
        return value
    place = rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.1:
        del value[place]
    elif kind < 0.2:
        value.insert(place, nasty(rng))
    elif kind < 0.25:
        value[place:place] = value[:50]
    else:
        value[place] = _change(rng, value[place])
    return value


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few flipped, cut, doubled, put in or taken out."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 9))):
        if not raw:
            break
        place, kind = rng.randrange(len(raw)), rng.randrange(6)
        if kind <= 1:
            raw[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            raw[place] = rng.choice(b'\x00\xff\x80\n"[]{}()0.Rtu}')
        elif kind == 3:
            del raw[place : place + rng.choice((1, 4, 100, len(raw)))]
        elif kind == 4:
            raw[place:place] = raw[place : place + rng.choice((1, 8, 200))] * rng.choice((1, 2, 30))
        else:
            raw[place:place] = rng.randbytes(rng.choice((1, 4, 16)))
    return bytes(raw)


def written(rng: random.Random, value: Any) -> bytes:
    """A JSON value as a file's bytes, now and then no JSON any more."""
    text = json.dumps(value)
    if rng.random() < 0.02:
        text = text.replace("0", rng.choice(("NaN", "Infinity", "1e999", "00", "-")), 1)
    if rng.random() < 0.01:
        text = "[" * 100_000
    data = text.encode()
    return changed_bytes(rng, data) if rng.random() < 0.3 else data
