"""Backward elimination against losses whose best order is known."""

import itertools

import numpy as np
import pytest

from circuitjax.prune.eliminate import eliminate, enough


class Additive:
    """Every gate saves its own share of the loss; gates in `chain` matter only all together."""

    def __init__(self, worth, chain=(), edges=1):
        self.worth, self.chain, self.asked = np.asarray(worth, float), np.array(chain, int), 0
        self.edges = edges

    def alive(self, opened):
        opened = opened.copy()
        if len(self.chain) and not opened[self.chain].all():
            opened[self.chain] = False
        return opened

    def loss(self, opened):
        self.asked += 1
        return float(self.worth[~opened].sum())

    def rises(self, opened):
        return np.where(opened, self.worth, 0.0)

    def saves(self, opened):
        return opened.astype(int) * self.edges


def test_the_order_is_that_of_what_gates_are_worth():
    worth = np.random.default_rng(0).permutation(np.linspace(1e-4, 0.02, 60))
    trial = Additive(worth)
    order = eliminate(trial, np.ones(60, bool), 0.3).gates
    assert sorted(order) == list(range(60))
    # What is left at the end is in order too: all of it is.
    np.testing.assert_array_equal(order, np.argsort(worth)[::-1])


def test_what_saves_more_edges_goes_first():
    edges = np.tile([1, 10], 30)
    order = eliminate(Additive(np.full(60, 0.002), edges=edges), np.ones(60, bool), 0.05).gates
    # The target leaves room for 40 gates, and those of ten edges are closed before any other.
    assert set(order[:30]) == set(np.flatnonzero(edges == 1))


def test_a_prefix_is_the_smallest_that_meets_the_target():
    rng = np.random.default_rng(1)
    worth = np.r_[rng.uniform(0.01, 0.2, 8), np.zeros(4)]
    order = eliminate(Additive(worth), np.ones(12, bool), 0.3).gates
    sizes = [k for k in range(13) if worth[order[k:]].sum() <= 0.3]
    best = min(
        len(some)
        for k in range(13)
        for some in itertools.combinations(range(12), k)
        if worth[[i for i in range(12) if i not in some]].sum() <= 0.3
    )
    assert min(sizes) == best


def test_dead_gates_go_with_those_they_hang_on_and_closed_ones_are_left_out():
    worth = np.r_[np.full(20, 0.05), 0.001, 0.2, 0.2]
    opened = np.ones(23, bool)
    opened[:5] = False
    trial = Additive(worth, chain=(20, 21, 22))
    order = eliminate(trial, opened, 0.5).gates
    assert sorted(order) == list(range(5, 23))
    # A gate of hardly any worth of its own would take the whole chain along, which the loss shows.
    assert {20, 21, 22} <= set(order[:7])


def test_what_dies_with_a_gate_is_closed_with_it():
    trial = Additive(np.full(40, 1e-3), chain=tuple(range(10, 40)))
    order = eliminate(trial, np.ones(40, bool), 0.005).gates
    assert sorted(order) == list(range(40))
    assert set(order[-30:]) == set(range(10, 40)) or set(order[:30]) == set(range(10, 40))


@pytest.mark.parametrize("target", [1e-6, 100.0])
def test_it_ends_where_nothing_or_everything_may_close(target):
    trial = Additive(np.full(40, 0.1))
    opened = np.ones(40, bool)
    opened[3] = False
    assert sorted(eliminate(trial, opened, target).gates) == [i for i in range(40) if i != 3]
    assert eliminate(trial, np.zeros(40, bool), target).gates.size == 0


def test_a_round_that_costs_too_much_is_taken_back():
    class Misled(Additive):
        """Estimates say that nothing matters."""

        def rises(self, opened):
            return np.zeros(len(opened))

    worth = np.zeros(200)
    worth[:14] = 0.5  # the first that a round of 14 would close
    order = eliminate(Misled(worth), np.ones(200, bool), 0.15).gates
    assert len(order) == 200


def test_the_loss_decides_among_the_last_gates():
    class Misled(Additive):
        """Estimates turn the order of the gates around."""

        def rises(self, opened):
            return np.where(opened, self.worth.max() - self.worth, 0.0)

    worth = np.random.default_rng(2).permutation(np.linspace(0.01, 0.1, 8))
    order = eliminate(Misled(worth), np.ones(8, bool), 10.0).gates
    np.testing.assert_array_equal(order[1:], np.argsort(worth)[::-1][1:])


class ByCount:
    """A loss of nothing but how many gates are open."""

    def __init__(self, losses):
        self.losses = losses

    def alive(self, opened):
        return opened

    def loss(self, opened):
        return float(self.losses[int(opened.sum())])

    def rises(self, opened):
        return np.zeros(len(opened))


@pytest.mark.parametrize(
    ("drops", "opened", "start"),
    [
        ({0: 1.0, 30: 0.1}, 50, 50),  # with room already
        ({0: 1.0, 30: 0.14, 70: 0.1}, 50, 70),  # room for a few more gates
        ({0: 1.0, 30: 0.14, 5000: 0.1}, 50, 50),  # room only for very many more
        ({0: 1.0, 300: 0.14, 400: 0.1}, 50, 400),  # too few open: the target, then room
        ({0: 1.0, 300: 0.14, 5000: 0.1}, 50, 300),
        ({0: 1.0, 2: 0.14, 9: 0.1}, 2, 9),  # twice a handful is nothing
        ({0: 1.0}, 50, 50),  # nothing meets it
    ],
)
def test_elimination_starts_with_room_only_where_few_more_gates_give_it(drops, opened, start):
    losses = np.empty(8001)
    for count, loss in sorted(drops.items()):
        losses[count:] = loss
    ranks = np.random.default_rng(3).permutation(8000)
    found = enough(ByCount(losses), ranks, ranks < opened, 0.15)
    np.testing.assert_array_equal(found, ranks < start)


def test_it_says_how_many_met_the_target_and_goes_no_further_than_it_is_told_to():
    """Each gate is worth 0.01 nats: thirty of sixty may close within the target."""
    asked = []
    for beyond in (1.0, 1.6):
        trial = Additive(np.full(60, 0.01))
        order = eliminate(trial, np.ones(60, bool), 0.3005, beyond=beyond)
        assert order.met == 30
        asked.append(trial.asked)
    assert asked[0] < asked[1]


def test_little_patience_ends_it_once_gates_prove_to_be_needed():
    worth = np.r_[np.full(40, 1.0), np.full(10, 1e-6)]
    asked = []
    for patience in (4, 32):
        trial = Additive(worth)
        order = eliminate(trial, np.ones(50, bool), 0.3, patience=patience)
        assert set(order.gates[:40]) == set(range(40))
        asked.append(trial.asked)
    assert asked[0] < asked[1]
