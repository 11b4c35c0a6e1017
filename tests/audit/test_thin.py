"""Thinning: closes what is not needed, and asks no more than it must."""

import numpy as np
import pytest

from circuitjax.audit.thin import Estimate, thin


def test_thin_finds_the_needed_set_and_stops():
    needed = np.array([1, 0, 0, 1, 0, 0, 1, 0] * 4, bool)
    seen = []

    def losses(rows):
        seen.append(len(rows))
        missing = np.sum(needed & ~rows, axis=1)
        return 0.1 + missing - 0.001 * np.sum(~needed & ~rows, axis=1)

    kept = thin(np.ones(32, bool), losses, losses, 0.2).gates
    np.testing.assert_array_equal(kept, needed)
    start = np.ones(32, bool)
    start[0] = False  # the target is missed: nothing is touched
    np.testing.assert_array_equal(thin(start, losses, losses, 0.2).gates, start)
    nothing = thin(np.ones(4, bool), lambda r: np.zeros(len(r)), lambda r: np.zeros(len(r)), 0.2)
    assert not nothing.gates.any()
    assert nothing.finished


def test_thin_asks_about_few_gates_twice():
    """A round asks about a few of many gates; guessed costs lead to the same set, nearly."""
    rng = np.random.default_rng(0)
    worth = np.where(rng.random(600) < 0.1, rng.uniform(0.05, 0.3, 600), rng.uniform(0, 1e-4, 600))
    asked = []

    def losses(rows):
        asked.append(len(rows))
        return 0.1 + np.sum(worth * ~rows, axis=1)

    kept = thin(np.ones(600, bool), losses, losses, 0.13).gates
    assert sum(asked) < 3 * 600
    np.testing.assert_array_equal(kept, worth > 1e-3)
    unguessed = sum(asked)
    asked.clear()
    guess = worth + rng.normal(0, 0.01, 600)
    guessed = thin(np.ones(600, bool), losses, losses, 0.13, guess=guess).gates
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
    kept = thin(start, lambda rows: (~rows) @ (worth / 100) + 0.1, decide, 0.15).gates
    assert (~kept) @ worth + 0.1 <= 0.15
    assert not kept.all()
    # All gates open are decided on before there is anything to remember.
    assert len(asked) - len(set(asked)) <= 1


def test_gates_that_missed_make_room_for_the_next():
    """Eight look cheapest and are dear; only who remembers that comes to the ninth, which is free."""
    worth = np.r_[np.full(8, 0.2), 0.0]

    def screen(rows):
        return 0.1 + (~rows) @ (0.001 * np.arange(1, 10))

    def decide(rows):
        return 0.1 + (~rows) @ worth

    kept = thin(np.ones(9, bool), screen, decide, 0.15, tries=8).gates
    np.testing.assert_array_equal(kept, worth > 0)


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
    kept = thin(every, blind, decide, 0.13, sieve=sieve, tries=16).gates
    np.testing.assert_array_equal(kept, thin(every, blind, exact, 0.13, tries=16).gates)
    assert exact(kept[None])[0] <= 0.13
    assert all(loss <= 0.13 * 1.05 for loss in decided)


def noisy(size, rng):
    """Worth of gates, most of them nothing, and losses `[K]` on any number of data points."""
    worth = np.where(rng.random(size) < 0.1, rng.uniform(0.01, 0.1, size), 0.0)
    noise = rng.normal(0, 0.05, (1024, size))

    def losses(data):
        return lambda rows: 0.1 + (~rows) @ (worth + noise[data].mean(axis=0))

    return worth, noise, losses


def test_estimates_take_the_place_of_asking_about_every_gate():
    rng = np.random.default_rng(1)
    worth, noise, losses = noisy(500, rng)
    asked, estimated = [], []

    def screen(rows):
        asked.append(len(rows))
        return losses(slice(0, 64))(rows)

    def estimate(row):
        estimated.append(row.sum())
        fresh = worth + noise[rng.choice(1024, 256)].mean(axis=0)
        return Estimate(fresh, worth + noise[:64].mean(axis=0))

    decide = losses(slice(0, 1024))
    found = thin(np.ones(500, bool), screen, decide, 0.13, estimate=estimate)
    assert decide(found.gates[None])[0] <= 0.13
    assert np.all(found.gates[worth > 0.03])
    assert sum(asked) < 500  # without estimates it is 1,285
    assert estimated[0] == 500 > estimated[-1]  # of what is left
    few = thin(np.ones(500, bool), screen, decide, 0.13, estimate=estimate, rounds=1)
    assert not few.finished
    assert few.gates.sum() > found.gates.sum()


def test_what_the_screen_says_corrects_an_estimate():
    """Some gates cost less than nothing at first order, and too much in truth."""
    needed = np.zeros(300, bool)
    needed[:20] = True
    first = np.where(needed, -0.01, 0.0)

    def exact(rows):
        return 0.1 + np.sum(needed & ~rows, axis=1)

    found = thin(
        np.ones(300, bool), exact, exact, 0.15, estimate=lambda row: Estimate(first, first)
    )
    np.testing.assert_array_equal(found.gates, needed)


@pytest.mark.parametrize(("known", "closed"), [(0.1, 8), (0.0, 0)])
def test_what_first_order_says_of_the_few_data_corrects_the_screen(known, closed):
    """On the few data every gate seems dear; where first order says so too, it is the data's doing."""

    def exact(rows):
        return np.full(len(rows), 0.1)

    def screen(rows):
        return exact(rows) + 0.1 * np.sum(~rows, axis=1)

    estimate = Estimate(np.zeros(12), np.full(12, known))  # so few that all are screened
    found = thin(np.ones(12, bool), screen, exact, 0.15, estimate=lambda row: estimate, rounds=1)
    assert (~found.gates).sum() == closed


def test_noise_of_an_estimate_rules_nothing_out():
    """A wild estimate of gates that cost nothing delays them by a round or so."""
    rng = np.random.default_rng(2)

    def exact(rows):
        return np.full(len(rows), 0.1)

    def wild(row):
        return Estimate(rng.normal(0, 1, row.size), np.zeros(row.size))

    assert not thin(np.ones(260, bool), exact, exact, 0.15, estimate=wild, tries=64).gates.any()


def test_what_the_sieve_lets_pass_is_taken_back_when_all_data_object():
    worth = np.r_[np.zeros(5), 0.02, 0.02, 0.02, np.full(8, 0.5)]
    decided = []

    def exact(rows):
        return 0.1 + np.sum(worth * ~rows, axis=1)

    def decide(rows):
        decided.append(1)
        return exact(rows)

    def blind(rows):
        return 0.1 + np.sum((worth > 0.1) * ~rows, axis=1)

    found = thin(np.ones(16, bool), blind, decide, 0.13, sieve=blind, guess=np.arange(16.0) / 1000)
    assert exact(found.gates[None])[0] <= 0.13
    assert (~found.gates).sum() == 6  # the five that cost nothing, and one of the three
    assert len(decided) < 16
