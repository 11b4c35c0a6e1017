"""Layers at their own widths: cutting is exact, and joining wastes as little as it can."""

import itertools

import numpy as np
import pytest

from circuitjax.model.widths import Stretch, Widths, narrow, stretches, widest

WIDTHS = [
    Widths(4, 2, 8, 16, 24, 8),
    Widths(4, 2, 8, 16, 24, 8),
    Widths(0, 0, 0, 8, 0, 8),
    Widths(2, 0, 4, 0, 8, 0),
    Widths(2, 2, 4, 8, 8, 8),
    Widths(6, 0, 4, 8, 16, 8),
]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 6])
def test_stretches_cover_every_layer_once_and_hold_its_widths(most):
    found = stretches(WIDTHS, most)
    assert len(found) <= most
    assert [layer for s in found for layer in range(s.start, s.stop)] == list(range(len(WIDTHS)))
    for stretch in found:
        assert stretch.widths == widest(WIDTHS[stretch.start : stretch.stop])


def test_equal_neighbours_are_joined_and_others_are_not():
    assert [(s.start, s.stop) for s in stretches(WIDTHS, 9)] == [
        (0, 2), (2, 3), (3, 4), (4, 5), (5, 6)
    ]  # fmt: skip


def _products(found):
    """Multiplications of a token: the kernels of `reduced_layers`, written out once more."""
    total = 0
    for start, stop, (heads, steady, channels, neurons, attn, mlp) in found:
        columns = heads * channels
        inside = attn * 3 * columns + mlp * neurons
        total += (stop - start) * (inside + (columns + steady + neurons) * (attn + mlp))
    return total


def test_two_stretches_waste_no_more_than_other_ways_to_cut():
    wide, thin = Widths(8, 0, 16, 64, 128, 64), Widths(2, 0, 4, 8, 16, 16)
    layers = [wide, wide, thin, thin, thin]

    def cut(at):
        return [
            Stretch(a, b, widest(layers[a:b])) for a, b in itertools.pairwise((0, at, len(layers)))
        ]

    best = min((cut(at) for at in range(1, len(layers))), key=_products)
    assert list(stretches(layers, 2)) == best == cut(2)


def test_split_keeps_the_layers_in_order():
    stretch = Stretch(2, 6, WIDTHS[0])
    borders = {layer: [(s.start, s.stop) for s in stretch.split(layer)] for layer in range(1, 7)}
    whole = [(2, 6)]
    assert borders == {
        1: whole,
        2: [(2, 3), (3, 6)],
        3: [(2, 3), (3, 4), (4, 6)],
        4: [(2, 4), (4, 5), (5, 6)],
        5: [(2, 5), (5, 6)],
        6: whole,
    }


def test_narrowing_takes_the_first_channels_of_the_first_heads():
    stored, own = Widths(3, 2, 4, 8, 6, 5), Widths(2, 1, 3, 4, 5, 2)
    columns = np.arange(12).reshape(3, 4)
    rng = np.random.default_rng(0)
    stack = {
        "q.kernel": rng.normal(size=(3, 6, 12)),
        "v.bias": np.tile(columns.reshape(-1), (3, 1)),
        "attn_out": rng.normal(size=(3, 12, 7)),
        "steady_out": rng.normal(size=(3, 2, 7)),
        "mlp_in": rng.normal(size=(3, 5, 8)),
        "mlp_out_bias": rng.normal(size=(3, 7)),
    }
    found = narrow(stack, stored, Stretch(1, 3, own))
    kept = columns[:2, :3].reshape(-1)
    np.testing.assert_array_equal(found["v.bias"], np.tile(kept, (2, 1)))
    np.testing.assert_array_equal(found["q.kernel"], stack["q.kernel"][1:, :5][:, :, kept])
    np.testing.assert_array_equal(found["attn_out"], stack["attn_out"][1:, kept])
    np.testing.assert_array_equal(found["steady_out"], stack["steady_out"][1:, :1])
    np.testing.assert_array_equal(found["mlp_in"], stack["mlp_in"][1:, :2, :4])
    np.testing.assert_array_equal(found["mlp_out_bias"], stack["mlp_out_bias"][1:])
