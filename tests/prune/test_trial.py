"""What closing gates costs: the loss is that of the circuit, estimates are slopes, models shrink."""

import numpy as np
import pytest

from circuitjax.prune.calibrate import calibrated_losses
from circuitjax.prune.config import Choices
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import answers, gate_slopes
from circuitjax.prune.find import prepare
from circuitjax.prune.trial import GateTrial
from tests.prune.planted import SEARCH, TASK, planted_model, planted_problem


def searched(grain, ablation):
    sizes = {"train": 24, "validation": 8, "test": 8}
    search = default_search(grain, ablation=ablation, **sizes)
    return search, prepare(planted_model(), TASK, search)


@pytest.mark.parametrize(
    ("grain", "ablation"),
    [("nodes", "zero"), ("weights", "mean"), ("edges", "interchange"), ("nodes", "resample")],
)
@pytest.mark.parametrize("kind", ["task", "calibrated", "kl"])
def test_the_loss_is_that_of_the_circuit(grain, ablation, kind):
    _, problem = searched(grain, ablation)
    trial = GateTrial(problem, problem.train, kind)
    rng = np.random.default_rng(3)
    for share in (0.95, 0.6):
        opened = trial.alive(rng.random(problem.whole.num_gates) < share)
        found = answers(problem.whole, problem.batches, problem.train, [opened], full=True)
        expected = {
            "task": found.losses("binary")[0],
            "calibrated": calibrated_losses(found.odds[0]).mean(),
            "kl": found.kl.mean(),
        }[kind]
        assert trial.loss(opened) == pytest.approx(float(expected), abs=2e-4)


def test_estimates_are_slopes_of_open_gates():
    _, problem = searched("edges", "interchange")
    trial = GateTrial(problem, problem.train, "task")
    opened = trial.alive(np.ones(problem.whole.num_gates, bool))
    slopes = gate_slopes(problem, opened, problem.train.first(32), "task")
    np.testing.assert_allclose(trial.rises(opened), np.where(opened, -slopes, 0), atol=1e-5)


def test_a_small_set_runs_through_a_small_model_and_a_larger_one_again_through_the_whole():
    problem = planted_problem()
    trial = GateTrial(problem, problem.train, "task")
    everything = np.ones(problem.whole.num_gates, bool)
    before = trial.loss(everything)
    few = trial.alive(np.arange(everything.size) % 7 == 0)
    loss = trial.loss(few)
    assert trial._asked[0]._small is not None
    found = answers(problem.whole, problem.batches, problem.train, [few])
    assert loss == pytest.approx(float(found.losses("binary")[0]), abs=1e-4)
    assert trial.loss(everything) == pytest.approx(before, abs=1e-5)
    assert Choices().grain == SEARCH.choices.grain == "nodes"
