"""Known circuits are found again: planted ones at every grain, compiled programs by their edges."""

import pathlib

import pytest

from circuitjax.audit.recovery import (
    recover_edges,
    recover_nodes,
    recover_program,
    recover_weights,
)
from circuitjax.importers.tracr import load_tracr
from circuitjax.zoo.planted.models import planted_models

PROGRAMS = pathlib.Path(__file__).parents[1] / "importers" / "tracr"
BUILD = {build.__name__: build for build in planted_models()}


@pytest.mark.parametrize("name", ["two_hop", pytest.param("conjunction", marks=pytest.mark.slow)])
def test_planted_residual_edges(name):
    found = recover_edges(BUILD[name](0), range(3))
    assert found.reached == (True,) * 3
    assert found.exact == 3
    assert all(result.auroc == 1 for result in found.results)


@pytest.mark.slow
@pytest.mark.parametrize("recover", [recover_nodes, recover_weights])
def test_planted_nodes_and_weights(recover):
    found = recover(BUILD["position_head"](0), range(3))
    assert all(result.recall == 1 for result in found.results)
    assert found.exact == 3


@pytest.mark.slow
@pytest.mark.parametrize(("ablation", "size"), [("interchange", 2), ("zero", 9)])
def test_the_reversing_program(ablation, size):
    found = recover_program(load_tracr(PROGRAMS / "reverse.npz"), ablation, range(2))
    assert found.exact == 2
    assert found.results[0].num_true == size
