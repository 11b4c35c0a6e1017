"""Truth on made-up models, where a table over all sets of parts decides."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from circuitjax.benchmarks.truth import (
    check_circuit,
    judge,
    mask_of,
    minimal_parts,
    needed_alone,
    truth_of,
)

TOLERANCE = 0.1


@dataclasses.dataclass
class Made:
    """A model of some parts, by whether a set of open ones does the task."""

    names: tuple
    works: object
    runs: int = 0

    def changes(self, masks):
        self.runs += len(masks)
        return np.array([0.0 if self.works(self.open(mask)) else 1.0 for mask in masks])

    def open(self, mask):
        return {name for name, kept in zip(self.names, mask, strict=True) if kept}

    def can_matter(self):
        return np.ones(len(self.names), bool)

    def all_minimal(self):
        """By brute force: every set that suffices and of which no single part can go."""
        found = set()
        for kept in itertools.product((False, True), repeat=len(self.names)):
            chosen = self.open(kept)
            if self.works(chosen) and not any(self.works(chosen - {part}) for part in chosen):
                found.add(tuple(name for name in self.names if name in chosen))
        return found


# Whether just these parts do the task.
WORLDS = {
    "chain": lambda kept: {"b", "d", "e"} <= kept,
    "either of two": lambda kept: "a" in kept and bool(kept & {"c", "f"}),
    # c undoes what b does: closing b alone, or c alone, is noticed; closing both is not.
    "a pair that undoes itself": lambda kept: "a" in kept and ("b" in kept) == ("c" in kept),
    # d spoils the answer unless e is there too: e is needed only beside d.
    "a spoiler and its cure": lambda kept: {"a", "b"} <= kept and ("d" not in kept or "e" in kept),
    "always the same answer": lambda kept: True,
    # The answer never changes, but a half-closed network is confused.
    "the same answer, but confused": lambda kept: not kept or kept >= set("abc"),
    "long way, short way": lambda kept: {"a", "b", "c"} <= kept or {"d", "e"} <= kept,
}


def made(name):
    return Made(tuple("abcdef"), WORLDS[name])


@pytest.mark.parametrize("name", WORLDS)
def test_truth_is_minimal_and_sufficient_and_no_smaller_one_is_known(name):
    model = made(name)
    truth = truth_of(model, TOLERANCE)
    every = model.all_minimal()
    assert set(truth.sets) <= every
    assert truth.sets == tuple(sorted(truth.sets, key=lambda one: (len(one), one)))
    if truth.least == 0:
        assert truth.sets == ((),)
        assert truth.alone == ()
    for one in truth.sets:
        assert judge(model, one, truth, TOLERANCE).check.minimal_and_sufficient
        assert judge(model, one, truth, TOLERANCE).exact == (len(one) == truth.least)


def test_what_is_needed_alone_is_not_what_is_true():
    spoiled = made("a spoiler and its cure")
    truth = truth_of(spoiled, TOLERANCE)
    assert truth.alone == ("a", "b", "e")
    assert truth.sets == (("a", "b"),)
    assert truth.unique
    # The surplus can be closed: so says the verdict on what is needed alone.
    verdict = judge(spoiled, truth.alone, truth, TOLERANCE)
    assert verdict.check.spare == ("e",)
    assert not verdict.exact
    undone = made("a pair that undoes itself")
    assert needed_alone(undone, TOLERANCE) == ("a", "b", "c")
    assert truth_of(undone, TOLERANCE).least == 1


def test_several_sets_are_known_and_the_larger_is_not_exact():
    model = made("long way, short way")
    truth = truth_of(model, TOLERANCE, [("a", "b", "c"), ("d", "e", "f")])
    assert truth.sets == (("d", "e"), ("a", "b", "c"))
    assert not truth.unique
    assert truth.alone == ()
    long = judge(model, "abc", truth, TOLERANCE)
    assert long.check.minimal_and_sufficient
    assert not long.exact
    assert judge(model, "de", truth, TOLERANCE).exact
    assert truth.nearest("abf") == ("d", "e")  # of the smallest only
    either = truth_of(made("either of two"), TOLERANCE)
    assert either.nearest("ac") in (("a", "c"), ("a", "f"))


def test_nothing_to_find():
    for name in ("always the same answer", "the same answer, but confused"):
        model = made(name)
        truth = truth_of(model, TOLERANCE)
        assert truth.least == 0
        assert truth.unique
        assert judge(model, [], truth, TOLERANCE).exact
        assert not judge(model, "abc", truth, TOLERANCE).exact


def test_closing_many_at_a_time_asks_less_than_one_at_a_time():
    names = tuple(f"p{i:03}" for i in range(400))
    model = Made(names, lambda kept: {"p017", "p200", "p399"} <= kept)
    assert minimal_parts(model, TOLERANCE) == ("p017", "p200", "p399")
    assert model.runs < 80


def test_forwards_keeps_what_comes_last():
    model = made("either of two")
    assert minimal_parts(model, TOLERANCE) == ("a", "c")
    assert minimal_parts(model, TOLERANCE, forwards=True) == ("a", "f")


def test_bad_input_is_one_clear_line():
    model = made("chain")
    with pytest.raises(ValueError, match="the model has no part 'z'; its 6 are named like 'a'"):
        mask_of(model, ["a", "z"])
    with pytest.raises(ValueError, match=re.escape("change the outcome by 1, more than")):
        minimal_parts(model, TOLERANCE, ["a"])
    assert not check_circuit(model, ["a"], TOLERANCE).sufficient
    never = Made(("a",), lambda kept: False)
    with pytest.raises(ValueError, match="start with more parts"):
        truth_of(never, TOLERANCE)
