"""Is this set of residual edges the circuit? Sufficiency, necessity, faithfulness on test examples.

All losses in nats, under the circuit's own ablation:

    loss_unpruned          the whole model
    loss_empty             every edge closed (calibrated where the circuit is)
    loss_circuit           only the circuit's edges open, calibrated as stored (and uncalibrated)
    loss_without_circuit   every edge open but the circuit's
    loss_without_random    the same for random edge sets of the same size
    kl_to_model            KL(model || circuit) over the whole vocabulary at the answer positions
"""

from typing import Any

import numpy as np

from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import calibrated_differences
from circuitjax.prune.residual import active_edges
from circuitjax.prune.residual_problem import EdgeProblem
from circuitjax.prune.residual_select import edge_answers

__all__ = ["edge_baseline", "edge_evidence"]

_CONTROLS = 128  # test examples of the necessity test, whose controls cost a full forward each


def edge_baseline(problem: EdgeProblem) -> dict[str, float]:
    """Test loss and accuracy of the whole model, and the loss of the graph with all edges closed."""
    size = len(active_edges(problem.config, problem.settings.ablation))
    ends = np.stack([np.ones(size), _closed(problem)])
    found = edge_answers(problem, problem.test, ends)
    losses = found.task_losses()
    empty = float(losses[1])
    if problem.calibrated:
        fit = calibrate(edge_answers(problem, problem.validation, ends[1:]).pair_differences())
        fitted = calibrated_differences(found.pair_differences()[1], fit.scale[0], fit.shift[0])
        empty = float(mean_binary_loss(fitted))
    return {
        "loss_unpruned": float(losses[0]),
        "loss_empty": empty,
        "kl_empty": float(found.kl[1].mean()),
        "accuracy_unpruned": float(np.mean(found.odds[0] > 0)),
    }


def _closed(problem: EdgeProblem) -> np.ndarray:
    """Gates with every edge closed that can matter."""
    return (~active_edges(problem.config, problem.settings.ablation)).astype(np.float32)


def edge_evidence(problem: EdgeProblem, circuit: EdgeCircuit, seed: int = 0) -> dict[str, Any]:
    """Figures of a circuit on the test examples; see the module docstring.

    Args:
      problem: the model and the task's data.
      circuit: of that model.
      seed: of the random controls.
    """
    active = active_edges(problem.config, problem.settings.ablation)
    found = edge_answers(problem, problem.test, circuit.gates()[None])
    raw = float(found.task_losses()[0])
    loss, odds = raw, found.odds[0]
    if problem.calibrated:
        fitted = calibrated_differences(found.pair_differences()[0], circuit.scale, circuit.shift)
        loss = float(mean_binary_loss(fitted))
        odds = (fitted * np.array([1.0, -1.0], np.float32)).ravel()
    rng = np.random.default_rng(seed)
    removed = [~circuit.kept]
    for _ in range(problem.settings.random_controls):
        mask = np.ones(len(active), bool)
        mask[rng.choice(np.flatnonzero(active), circuit.num_edges, replace=False)] = False
        removed.append(mask)
    some = problem.test.take(np.arange(min(_CONTROLS, problem.test.size)))
    without = edge_answers(problem, some, np.stack(removed)).task_losses()
    return {
        "loss_circuit": loss,
        "loss_circuit_uncalibrated": raw,
        "accuracy_circuit": float(np.mean(odds > 0)),
        "loss_without_circuit": float(without[0]),
        "loss_without_random": [float(value) for value in without[1:]],
        "necessity_percentile": float(np.mean(without[1:] < without[0])),
        "kl_to_model": float(found.kl[0].mean()),
        "argmax_agreement": float(found.agree[0].mean()),
    }
