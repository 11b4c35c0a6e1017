"""Thinning: closes what is not needed, and asks no more than it must."""

import numpy as np
import pytest

from circuitjax.audit.thin import thin


def test_thin_finds_the_needed_set_and_stops():
    needed = np.array([1, 0, 0, 1, 0, 0, 1, 0] * 4, bool)
    seen = []

    def losses(rows):
        seen.append(len(rows))
        missing = np.sum(needed & ~rows, axis=1)
        return 0.1 + missing - 0.001 * np.sum(~needed & ~rows, axis=1)

    kept = thin(np.ones(32, bool), losses, losses, 0.2)
    np.testing.assert_array_equal(kept, needed)
    start = np.ones(32, bool)
    start[0] = False  # the target is missed: nothing is touched
    np.testing.assert_array_equal(thin(start, losses, losses, 0.2), start)
    nothing = thin(np.ones(4, bool), lambda r: np.zeros(len(r)), lambda r: np.zeros(len(r)), 0.2)
    assert not nothing.any()


def test_thin_asks_about_few_gates_twice():
    """A round asks about a few of many gates; guessed costs lead to the same set, nearly."""
    rng = np.random.default_rng(0)
    worth = np.where(rng.random(600) < 0.1, rng.uniform(0.05, 0.3, 600), rng.uniform(0, 1e-4, 600))
    asked = []

    def losses(rows):
        asked.append(len(rows))
        return 0.1 + np.sum(worth * ~rows, axis=1)

    kept = thin(np.ones(600, bool), losses, losses, 0.13)
    assert sum(asked) < 3 * 600
    np.testing.assert_array_equal(kept, worth > 1e-3)
    unguessed = sum(asked)
    asked.clear()
    guessed = thin(np.ones(600, bool), losses, losses, 0.13, guess=worth + rng.normal(0, 0.01, 600))
    assert sum(asked) < unguessed - 400  # most are never asked about one by one
    assert np.all(guessed[worth > 1e-3])
    assert guessed.sum() <= kept.sum() + 5


def test_thin_decides_on_a_gate_that_missed_alone_only_once():
    worth = np.linspace(0.02, 0.2, 12)  # the few data hold all to be cheap, all data do not
    asked = []

    def decide(rows):
        asked.extend(row.tobytes() for row in rows)
        return (~rows) @ worth + 0.1

    start = np.ones(12, bool)
    kept = thin(start, lambda rows: (~rows) @ (worth / 100) + 0.1, decide, 0.15)
    assert (~kept) @ worth + 0.1 <= 0.15
    assert not kept.all()
    # Only what was decided on in company may be decided on once more, alone.
    assert len(asked) - len(set(asked)) <= 1


@pytest.mark.parametrize("bias", [0.0, 0.05])
def test_what_the_sieve_rules_out_is_not_decided(bias):
    """The part of the data may be harder as a whole: what counts is what closing adds there."""
    worth = np.r_[np.full(6, 0.1), np.zeros(6), np.full(4, 0.012)]
    decided = []

    def exact(rows):
        return 0.1 + np.sum(worth * ~rows, axis=1)

    def decide(rows):
        decided.append(float(exact(rows)[0]))
        return exact(rows)

    def blind(rows):
        return 0.1 + np.zeros(len(rows))  # the screen sees nothing

    def sieve(rows):
        return exact(rows) + bias

    every = np.ones(16, bool)
    kept = thin(every, blind, decide, 0.13, sieve=sieve, tries=16)
    np.testing.assert_array_equal(kept, thin(every, blind, exact, 0.13, tries=16))
    assert exact(kept[None])[0] <= 0.13
    assert all(loss <= 0.13 * 1.05 for loss in decided)
