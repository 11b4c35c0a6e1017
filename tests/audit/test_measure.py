"""What a circuit is held to: its search's target; its own loss, within reason, where that was a size."""

import dataclasses

import pytest

from tests.audit.planted_audit import circuit_of, mask_of, measure
from tests.prune.planted import PLANTED, SEARCH

BY_SIZE = dataclasses.replace(
    SEARCH, selection=dataclasses.replace(SEARCH.selection, target="edges", value=6)
)


def test_a_circuit_that_was_cut_to_a_loss_is_held_to_it():
    assert measure(circuit_of(PLANTED)).target == SEARCH.selection.value


def test_a_circuit_that_was_cut_to_a_size_is_held_to_its_own_loss():
    nothing = circuit_of(mask_of(()), search=BY_SIZE)
    assert measure(nothing, BY_SIZE).target == pytest.approx(0.693, abs=1e-3)


def test_no_circuit_is_held_to_a_loss_that_only_a_calibration_reaches():
    perfect = circuit_of(PLANTED, search=BY_SIZE, scale=50.0)
    assert measure(perfect, BY_SIZE).target == 0.01
