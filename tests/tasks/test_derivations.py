"""Every path is followed once: against loops written out, and against many random draws."""

import itertools
import random

import pytest

from circuitjax.tasks import context, names
from circuitjax.tasks.derivations import Unlisted, derivations, estimate
from circuitjax.tasks.suite import TASKS


def test_every_kind_of_draw_is_every_value_once():
    cases = {
        lambda r: r.choice("abc"): ["a", "b", "c"],
        lambda r: int(r.random() * 4): [0, 1, 2, 3],
        lambda r: 2 + int(5 * r.random()): [2, 3, 4, 5, 6],
        lambda r: r.randint(1, 3): [1, 2, 3],
        lambda r: r.randrange(0, 6, 2): [0, 2, 4],
        lambda r: tuple(r.sample("xyz", 2)): list(itertools.permutations("xyz", 2)),
        lambda r: r.random() < 0.3: [True, False],
        lambda r: r.random() > 0.3: [False, True],
    }
    for make, wanted in cases.items():
        assert list(derivations(make)) == wanted
        assert estimate(make, probes=3) == len(wanted)


def shuffled(rng):
    row = [1, 2, 3, 4]
    rng.shuffle(row)
    return tuple(row)


def test_a_shuffle_is_every_order():
    assert sorted(derivations(shuffled)) == sorted(itertools.permutations([1, 2, 3, 4]))


def banded(rng):
    """A number looked at more than once: what is known of it rules out ways."""
    number = rng.random()
    if number < 0.2:
        return "low", int(number * 10)
    if number < 0.35:
        return "middle", number < 0.1
    return "high", number > 0.5, int(number * 2)


def test_what_is_known_of_a_number_stays_known():
    assert set(derivations(banded)) == {
        *(("low", 0), ("low", 1), ("middle", False)),
        *(("high", False, 0), ("high", True, 1)),
    }


def nested(rng):
    count = int(rng.random() * 3)
    return tuple(rng.choice("ab") for _ in range(count)), rng.random() < 0.5


@pytest.mark.parametrize("make", [banded, nested, context.number])
def test_what_is_listed_is_what_is_drawn(make):
    listed = set(derivations(make))
    rng = random.Random(0)
    assert {make(rng) for _ in range(20_000)} == listed


def test_the_number_of_paths_is_estimated_without_bias():
    exact = len(list(derivations(nested)))
    assert exact == 2 * (1 + 2 + 4)
    assert estimate(nested, probes=4000) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("name", names())
def test_the_templates_of_a_built_in_task_can_be_followed(name):
    task = TASKS[name]
    assert estimate(task.sample, probes=5) > 1e12
    # A path is a pair that the task may draw: of its first template.
    pair = next(derivations(task.sample))
    assert pair.template == task.templates[0]
    assert pair.positive != pair.negative


def test_what_cannot_be_followed_says_so():
    for make in (
        lambda r: r.gauss(0, 1),
        lambda r: r.random() + 1,
        lambda r: r.getrandbits(3),
        lambda r: r.choice(""),
        lambda r: r.sample("ab", 1, counts=[1, 2]),
    ):
        with pytest.raises(Unlisted):
            list(derivations(make))
    with pytest.raises(Unlisted, match="too many choices"):
        list(derivations(lambda r: all(r.choice("a") for _ in iter(int, 1))))
