"""The evidence for one circuit, on the test split: sufficiency, necessity, faithfulness.

All losses in nats, under the circuit's own replacement values:

    loss_unpruned          the whole model
    loss_empty             nothing kept (calibrated on validation): what no gate touches does this
    loss_circuit           only the circuit kept, calibrated as stored (and uncalibrated)
    loss_without_circuit   the whole model with only the circuit's nodes replaced (inverse pruning)
    loss_without_random    the same for random node sets of the same size at every layer and site
    kl_to_model            KL(model || circuit) over the whole vocabulary at the answer positions
    correlation            of the model's and the circuit's logit differences, prompt by prompt
    correlation_within     the same among positive and among negative prompts, averaged: what is left
                           once both do the task, which alone makes the first one large
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Params
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import answers, mean_binary_loss
from circuitjax.prune.gates import all_gates
from circuitjax.prune.objective import AnyPairs, answer_logits, calibrated_differences
from circuitjax.prune.packing import packed_batches
from circuitjax.prune.problem import Problem
from circuitjax.prune.weight_gates import close_weights

__all__ = [
    "baseline",
    "correlations",
    "evidence",
    "faithfulness",
    "gated_problem",
    "matched_random_masks",
]


_CONTROL_PAIRS = 128  # test pairs of the necessity test, whose controls cost a full forward each


def _accuracy(values: np.ndarray) -> float:
    """Share of prompts whose right completion is preferred, from differences `[M, 2]`."""
    return float(np.mean(values * np.array([1.0, -1.0], np.float32) > 0))


def _calibrated(problem: Problem) -> bool:
    return problem.prune.loss == "binary" and problem.prune.calibrate != "off"


def baseline(problem: Problem) -> dict[str, float]:
    """Test loss and accuracy of the whole model, and the calibrated loss of the empty circuit."""
    whole, empty = all_gates(problem.config, 1.0), all_gates(problem.config, 0.0)
    found = answers(problem, problem.test, [whole, empty])
    losses = found.losses(problem.prune)
    loss_empty = float(losses[1])
    if problem.prune.loss == "binary":
        fit = calibrate(answers(problem, problem.validation, [empty]).differences)
        fitted = calibrated_differences(found.differences[1], fit.scale[0], fit.shift[0])
        loss_empty = float(mean_binary_loss(fitted))
    return {
        "loss_unpruned": float(losses[0]),
        "loss_empty": loss_empty,
        "accuracy_unpruned": _accuracy(found.differences[0]),
    }


def matched_random_masks(circuit: Circuit, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Random node sets with as many nodes as the circuit at every layer and site."""
    rng = np.random.default_rng(seed)
    sets = []
    for _ in range(count):
        chosen = {site: np.zeros_like(mask, bool) for site, mask in circuit.mask.items()}
        for site, mask in circuit.mask.items():
            for layer, row in enumerate(mask):
                size = int(row.sum())
                chosen[site][layer, rng.choice(row.size, size, replace=False)] = True
        sets.append(chosen)
    return sets


def evidence(problem: Problem, circuit: Circuit, seed: int = 0) -> dict[str, Any]:
    """Sufficiency, necessity and faithfulness of a circuit, on the test pairs.

    Args:
      problem: the model and the task's data; its fills replace what is removed for necessity.
      circuit: a circuit of that model.
      seed: of the random controls.

    Returns:
      JSON-able figures; see the module docstring. `beats_model` flags a circuit that does the task
      better than the model it was cut from: then it is not the model's way of doing it.
    """
    prune = problem.prune
    own_fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    kept, gated = circuit.gates(), gated_problem(problem, circuit)
    found = answers(gated, problem.test, [kept], own_fills)
    fitted = calibrated_differences(found.differences[0], circuit.scale, circuit.shift)
    uncalibrated = float(found.losses(prune)[0])
    removed = [{site: 1 - np.asarray(m) for site, m in kept.items()}]
    controls = matched_random_masks(circuit, prune.random_controls, seed)
    removed += [{site: ~mask for site, mask in control.items()} for control in controls]
    some = problem.test.take(np.arange(min(_CONTROL_PAIRS, problem.test.size)))
    without = answers(problem, some, removed).losses(prune)
    random = [float(loss) for loss in without[1:]]
    figures = {
        "loss_circuit": float(mean_binary_loss(fitted)) if _calibrated(problem) else uncalibrated,
        "loss_circuit_uncalibrated": uncalibrated,
        "accuracy_circuit": _accuracy(fitted),
        "loss_without_circuit": float(without[0]),
        "loss_without_random": random,
        # Share of the random sets whose removal hurts less than the circuit's.
        "necessity_percentile": float(np.mean(np.array(random) < without[0])),
    }
    whole = answers(problem, problem.test, [all_gates(problem.config, 1.0)])
    figures |= correlations(whole.differences[0], found.differences[0])
    return figures | faithfulness(problem, kept, own_fills, gated)


def correlations(model: np.ndarray, circuit: np.ndarray) -> dict[str, float | None]:
    """Pearson correlation of logit differences `[M, 2]`; None where either is constant.

    Returns:
      `correlation` over all prompts, `correlation_within` the mean of that among positive and that
      among negative ones.
    """

    def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
        x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
        x, y = x - x.mean(), y - y.mean()
        size = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
        return float(np.sum(x * y)) / size if size > 1e-12 else None

    sides = [pearson(model[:, side], circuit[:, side]) for side in (0, 1)]
    known = [value for value in sides if value is not None]
    return {
        "correlation": pearson(model, circuit),
        "correlation_within": sum(known) / len(known) if known else None,
    }


def gated_problem(problem: Problem, circuit: Circuit) -> Problem:
    """The problem of the model whose weights are closed where the circuit's are."""
    if circuit.weights is None:
        return problem
    config, params = close_weights(problem.config, problem.params, circuit.fills, circuit.weights)
    return dataclasses.replace(problem, config=config, params=jax.tree.map(jnp.asarray, params))


def faithfulness(
    problem: Problem, gates: Gates, fills: Fills, gated: Problem | None = None
) -> dict[str, float]:
    """KL(model || circuit) in nats and agreement of the argmax, over the whole vocabulary.

    Args:
      problem: the model and its test pairs.
      gates, fills: of the circuit's nodes.
      gated: the model they act on, if it is another: one with closed weights.
    """
    gated = gated or problem
    gates = {site: jnp.asarray(m, jnp.float32) for site, m in gates.items()}
    kl: list[np.ndarray] = []
    agree: list[np.ndarray] = []
    batches, places = packed_batches(problem.test, problem.config.causal)
    for batch in batches:
        parts = _faithfulness(
            problem.config, gated.config, problem.params, gated.params, fills, batch, gates
        )
        for total, part in zip((kl, agree), parts, strict=True):
            total.append(np.asarray(part))
    return {
        name: float(np.concatenate(values)[places].mean())
        for name, values in (("kl_to_model", kl), ("argmax_agreement", agree))
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _faithfulness(
    config: TransformerConfig,
    gated_config: TransformerConfig,
    params: Params,
    gated_params: Params,
    fills: Fills,
    batch: AnyPairs,
    gates: Gates,
) -> tuple[jax.Array, jax.Array]:
    full = jax.nn.log_softmax(answer_logits(config, params, batch, None, None))
    logits = answer_logits(gated_config, gated_params, batch, gates, fills)
    part = jax.nn.log_softmax(logits)
    kl = jnp.sum(jnp.exp(full) * (full - part), axis=-1)
    return kl, jnp.argmax(full, axis=-1) == jnp.argmax(part, axis=-1)
