"""Records: the hash covers every field, types are strict, versions are told apart."""

import dataclasses
import json
import random
from typing import Literal

import pytest

from circuitjax.core.files import write_json
from circuitjax.core.records import (
    HASH,
    Fields,
    canonical,
    check_types,
    open_sealed,
    record_hash,
    seal,
)

FORM = "circuitjax-thing-2"
RECORD = {
    "format": FORM,
    "name": "é",
    "config": {"width": 4, "eps": 1e-5, "causal": True, "sites": ("a", "b")},
    "nothing": None,
    "list": [1, 2.5, "x"],
}


def refusal(path, form=FORM, **options) -> str:
    with pytest.raises(ValueError, match=str(path)) as caught:
        open_sealed(path, form, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    return str(caught.value)


def test_round_trip(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, seal(RECORD))
    record = open_sealed(path, FORM)
    assert record.sealed
    assert record.to_dict() == seal(record.to_dict()) == seal(RECORD)
    assert record.object("config").texts("sites") == ("a", "b")
    assert record.text("name") == "é"


def test_the_hash_is_of_the_values_not_of_their_layout():
    assert record_hash(seal(RECORD)) == record_hash(json.loads(json.dumps(RECORD)))
    assert record_hash({"a": 1, "b": 2}) == record_hash({"b": 2, "a": 1})
    assert (
        canonical({"b": [0.1, 1e22], "a": "é\ud83d"}) == b'{"a":"\\u00e9\\ud83d","b":[0.1,1e+22]}'
    )
    assert len({record_hash({"a": value}) for value in (1, 1.0, True, "1", None, [1])}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"name": "e"},
        {"config": {**RECORD["config"], "width": 5}},
        {"config": {**RECORD["config"], "causal": 1}},
        {"nothing": 0},
        {"list": [1, 2.5]},
        {"more": 1},
        {HASH: "0" * 64},
        {HASH: None},
    ],
)
def test_an_edited_field_is_refused(tmp_path, change):
    path = tmp_path / "r.json"
    write_json(path, {**seal(RECORD), **change})
    assert "changed after it was written" in refusal(path)


def test_no_bit_flips_unseen(tmp_path):
    """Every bit of a small file: refused, or the same values (a digit beyond a float's last)."""
    path = tmp_path / "r.json"
    write_json(path, seal(RECORD))
    raw, before = path.read_bytes(), seal(RECORD)
    passed = 0
    for place in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert open_sealed(path, FORM, older=("circuitjax-thing-1",)).to_dict() == before
            passed += 1
        except ValueError:
            continue
    assert passed <= 16  # `e-05` as `E-05`; an escaped letter's case


def test_versions(tmp_path):
    path = tmp_path / "r.json"
    write_json(path, seal({**RECORD, "format": "circuitjax-thing-3"}))
    assert "newer than 'circuitjax-thing-2'" in refusal(path)
    old = {**RECORD, "format": "circuitjax-thing-1"}
    write_json(path, old)
    assert "its format is 'circuitjax-thing-1'" in refusal(path)
    record = open_sealed(path, FORM, older=("circuitjax-thing-1",))
    assert not record.sealed
    assert not record.object("config").sealed
    write_json(path, {"a": 1})
    assert "its format is None" in refusal(path, older=("circuitjax-thing-1",))
    assert not open_sealed(path, FORM, older=(None,)).sealed
    # An older record with a hash is held to it, and one of ours without is damaged.
    for changed in ({**seal(old), "name": "x"}, {**seal(RECORD), "format": old["format"]}):
        write_json(path, changed)
        assert "changed after" in refusal(path, older=("circuitjax-thing-1",))
    write_json(path, RECORD)
    assert "lacks the field 'record_hash'" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        ("", "was cut"),
        ('{"a": ', "was cut"),
        ("[1]", "JSON list"),
        ("3", "JSON int"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "1e999"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        (b"\xff\xfe\x00", "not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_record(tmp_path, content, words):
    path = tmp_path / "r.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    assert words in refusal(path)


def test_a_file_too_large_is_not_read(tmp_path):
    write_json(tmp_path / "r.json", seal(RECORD))
    assert "more than the 10 that are read" in refusal(tmp_path / "r.json", most_bytes=10)


WRONG = (True, 1, 1.5, "x", None, [1], {"a": 1}, 10**400, float("nan"), float("inf"))
READERS = {
    "text": (lambda f: f.text("x"), ("x",)),
    "truth": (lambda f: f.truth("x"), (True,)),
    "whole": (lambda f: f.whole("x", 1, 9), (1,)),
    "number": (lambda f: f.number("x", 0, 2), (1, 1.5)),
    "list": (lambda f: f.list("x"), ([1],)),
    "texts": (lambda f: f.texts("x"), ()),
    "object": (lambda f: f.object("x").to_dict(), ({"a": 1},)),
    "one_of": (lambda f: f.one_of("x", "x", "y"), ("x",)),
}


@pytest.mark.parametrize("reader", READERS)
def test_types_are_strict(reader):
    read, right = READERS[reader]
    for value in WRONG:
        if any(value == one and type(value) is type(one) for one in right):
            assert read(Fields({"x": value}, "file")) == value
        else:
            with pytest.raises(ValueError, match=r"^file: x is .{1,130}; it must be"):
                read(Fields({"x": value}, "file"))
    with pytest.raises(ValueError, match="file lacks the field 'x'"):
        read(Fields({}, "file"))


def test_unknown_fields_are_named():
    fields = Fields({"a": 1, "b": 2}, "file")
    fields.only("a", "b", "c")
    with pytest.raises(ValueError, match="file has the unknown field 'b'"):
        fields.only("a")


@dataclasses.dataclass(frozen=True)
class Config:
    width: int
    eps: float | None = None
    causal: bool = True
    norm: Literal["rms", "layer"] = "rms"
    sites: tuple[str, ...] = ()
    pair: tuple[int, float] = (0, 0.0)


def test_a_dataclass_says_what_its_fields_are():
    good = {"width": 3, "eps": 1, "causal": False, "norm": "layer", "sites": ["a"], "pair": [1, 2]}
    check_types(Config, good, "file")
    check_types(Config, {"eps": None, "unknown": object()}, "file")
    for bad in (
        {"width": True},
        {"width": 3.0},
        {"width": "3"},
        {"eps": True},
        {"eps": float("inf")},
        {"causal": 1},
        {"causal": None},
        {"norm": "none"},
        {"sites": "ab"},
        {"sites": [1]},
        {"pair": [1]},
        {"pair": [1, "2"]},
    ):
        (name,) = bad
        with pytest.raises(ValueError, match=rf"^file: {name} is .*; it must be of type"):
            check_types(Config, {**good, **bad}, "file")


def test_random_values_survive_the_seal():
    rng = random.Random(0)

    def draw(depth: int = 0):
        kind = rng.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [draw(depth + 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {chr(rng.randrange(0x3000)): draw(depth + 1) for _ in range(rng.randrange(4))}
        return [None, True, rng.randrange(-(10**30), 10**30), rng.gauss(0, 1e10), "\ud800é\n"][kind]

    for _ in range(300):
        record = {"a": draw(), "b": draw()}
        sealed = seal(record)
        again = json.loads(json.dumps(sealed))
        assert again == sealed
        assert record_hash(again) == sealed[HASH]


def test_whole_numbers_of_a_record_have_64_bits():
    """No arithmetic on them is slow, and no message that holds one is long."""

    @dataclasses.dataclass
    class Sizes:
        width: int = 1

    for value in (2**63 - 1, -(2**63)):
        check_types(Sizes, {"width": value}, "file")
    for value in (2**63, 10**400, -(10**400)):
        with pytest.raises(
            ValueError, match=r"width is .{1,120}; it must be of type int of 64 bits$"
        ):
            check_types(Sizes, {"width": value}, "file")
