"""Known circuits are found again: planted ones at every grain, compiled programs by their edges."""

import pathlib

import pytest

from circuitjax.benchmarks.ground_truth import tracr_edges
from circuitjax.benchmarks.recovery import recover_planted, recover_program
from circuitjax.importers.tracr import load_tracr
from circuitjax.zoo.planted.models import planted_models

PROGRAMS = pathlib.Path(__file__).parents[1] / "importers" / "tracr"
BUILD = {build.__name__: build for build in planted_models()}


@pytest.mark.parametrize("name", ["two_hop", pytest.param("conjunction", marks=pytest.mark.slow)])
def test_planted_residual_edges(name):
    found = recover_planted(BUILD[name](0), "edges", "interchange", range(2))
    assert found.reached == (True,) * 2
    assert found.exact == 2
    assert all(result.auroc == 1 for result in found.results)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["position_head", "two_hop"])
@pytest.mark.parametrize(
    ("grain", "ablation"),
    [
        ("nodes", "mean"),
        ("nodes", "zero"),
        ("nodes", "resample"),
        ("nodes", "interchange"),
        ("weights", "mean"),
    ],
)
def test_planted_nodes_and_weights(name, grain, ablation):
    found = recover_planted(BUILD[name](0), grain, ablation, range(2))
    assert all(result.recall == 1 for result in found.results)
    assert found.exact == 2


@pytest.mark.parametrize(
    ("name", "ablation", "size"),
    [
        ("reverse", "zero", 9),
        pytest.param("reverse", "interchange", 2, marks=pytest.mark.slow),
        pytest.param("sort_unique", "zero", 11, marks=pytest.mark.slow),
        pytest.param("sort_unique", "interchange", 6, marks=pytest.mark.slow),
        pytest.param("xproportion", "zero", 5, marks=pytest.mark.slow),
        pytest.param("xproportion", "interchange", 3, marks=pytest.mark.slow),
    ],
)
def test_compiled_programs(name, ablation, size):
    program = load_tracr(PROGRAMS / f"{name}.npz")
    found = recover_program(program, ablation, range(2))
    assert found.exact == 2
    assert found.results[0].num_true == size
    # What other answers alone show to be needed is part of it.
    assert len(tracr_edges(program, ablation)) == size - 2 * (size == 11)
    assert all(result.recall == 1 for result in found.results)
