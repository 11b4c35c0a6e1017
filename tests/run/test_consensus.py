"""The setting for all tasks: found where it was put, away from failures, blind to tasks' sizes."""

import numpy as np
import pytest

from circuitjax.tune.consensus import consensus
from circuitjax.tune.space import Dimension, Space

SPACE = Space((Dimension("a", "log", 1.0, 1e-3, 1e3), Dimension("b", "linear", 0.0, -5.0, 5.0)))
BEST = np.array([0.4, -0.5])


def studies(rng, sizes=(3.0, 5.0, 11.0), runs=40, wall=np.inf):
    """Runs around the centre; the output is a bowl around BEST on top of the task's own size."""
    found = []
    for size in sizes:
        rows = []
        for point in rng.normal(0, 0.5, (runs, 2)):
            output = size + 2.0 * np.sum((point - BEST) ** 2) + rng.normal(0, 0.1)
            failed = bool(point[0] > wall)
            rows.append(
                {
                    "params": SPACE.from_basic(point),
                    "output": None if failed else output,
                    "failed": failed,
                }
            )
        found.append(rows)
    return found


def test_the_common_optimum_is_found_whatever_the_tasks_sizes(rng):
    found = consensus(SPACE, studies(rng))
    assert np.linalg.norm(SPACE.to_basic(found.params) - BEST) < 0.25
    # At the centre the bowl is exp(2 |BEST|^2) = 2.3 times as high as at its bottom.
    assert 1.7 < found.centre_factor / found.factor < 3.0
    assert (found.tasks, found.runs) == (3, 120)
    assert consensus(SPACE, studies(np.random.default_rng(5))) == consensus(
        SPACE, studies(np.random.default_rng(5))
    )


def test_one_enormous_task_does_not_outvote_the_rest(rng):
    usual = studies(rng, sizes=(3.0, 5.0, 4.0))
    # A task with the opposite wish, and with factors of millions between its runs.
    odd = [{**row, "output": -30 * row["output"]} for row in studies(rng, sizes=(3.0,))[0]]
    found = consensus(SPACE, [*usual, odd])
    assert np.linalg.norm(SPACE.to_basic(found.params) - BEST) < 0.5


def test_settings_that_fail_are_kept_away_from(rng):
    found = consensus(SPACE, studies(rng, wall=0.1))
    assert SPACE.to_basic(found.params)[0] < 0.25
    nothing = [[{**row, "failed": True, "output": None} for row in studies(rng)[0]]]
    assert consensus(SPACE, [*nothing, *studies(rng)]).tasks == 3
    with pytest.raises(ValueError, match="nothing to agree on"):
        consensus(SPACE, nothing)
