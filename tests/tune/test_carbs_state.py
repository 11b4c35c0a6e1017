"""A search as JSON: whole or refused in one line, whatever was changed in it."""

import json

import pytest

from circuitjax.core.records import seal
from circuitjax.tune.carbs import CarbsConfig, from_json, to_json
from tests.tune.searches import FLAT, quadratic, search


@pytest.fixture
def written():
    return json.loads(to_json(search(FLAT, 1, output=quadratic)))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: f.pop("format"), "its format is None"),
        (
            lambda f: f["config"].update(radius=0.5),
            "another config: config.radius was 0.5 and is 0.3",
        ),
        (lambda f: f["config"].pop("radius"), "another config: config.radius is on one side only"),
        (
            lambda f: f["space"]["dimensions"][1].update(maximum=3.0),
            r"another space: space.dimensions\[1\].maximum was 3.0 and is 2.0",
        ),
        (lambda f: f["space"]["dimensions"].pop(), "another space: space.dimensions was"),
        (lambda f: f.pop("seed"), "broken: .* lacks the field 'seed'"),
        (lambda f: f.update(seed="0"), "broken: seed is '0'"),
        (lambda f: f["suggestions"].pop(0), "broken: suggestion 0 has id 1"),
        (lambda f: f["suggestions"].pop(), "broken: there is no suggestion 7"),
        (
            lambda f: f["suggestions"][1]["params"].update(x0=9.0),
            "broken: x0 is 9.0; it must be in",
        ),
        (lambda f: f["suggestions"][1].update(params=3), "the state of the search is broken"),
        (lambda f: f["observations"][0].update(cost=-1.0), "broken: observation 0: cost is -1.0"),
        (lambda f: f["observations"].append(f["observations"][0]), "suggestion 0 is told twice"),
        (lambda f: f["observations"][0].update(extra=1), "the state of the search is broken"),
    ],
)
def test_a_broken_state_is_one_clear_line(written, break_it, message):
    break_it(written)
    with pytest.raises(ValueError, match=message) as caught:
        from_json(json.dumps(seal(written)), CarbsConfig(), FLAT)
    assert "\n" not in str(caught.value)


def test_a_state_that_was_changed_is_told_and_one_of_the_version_before_is_read(written):
    good = from_json(json.dumps(written), CarbsConfig(), FLAT)
    old = {name: value for name, value in written.items() if name != "record_hash"}
    old["format"] = "circuitjax.carbs.1"
    assert from_json(json.dumps(old), CarbsConfig(), FLAT) == good
    for name, value in (("cost", 2.5), ("output", 0.25), ("id", 1)):
        changed = json.loads(json.dumps(written))
        changed["observations"][0][name] = value
        with pytest.raises(ValueError, match="was changed after it was written"):
            from_json(json.dumps(changed), CarbsConfig(), FLAT)


def test_a_cut_state_is_one_clear_line():
    text = to_json(search(FLAT, 1, output=quadratic))
    with pytest.raises(ValueError, match="was cut"):
        from_json(text[: len(text) // 2], CarbsConfig(), FLAT)
    with pytest.raises(ValueError, match="no state of a search"):
        from_json("[]", CarbsConfig(), FLAT)
