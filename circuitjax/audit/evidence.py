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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Params
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import Answers, Prober, answers, mean_binary_loss
from circuitjax.prune.gates import all_gates, num_units
from circuitjax.prune.objective import (
    AnyPairs,
    answer_logits,
    calibrated_differences,
    logit_differences,
)
from circuitjax.prune.packing import packed_batches
from circuitjax.prune.problem import Problem
from circuitjax.prune.weight_gates import close_weights

__all__ = [
    "Compared",
    "baseline",
    "compare",
    "correlations",
    "evidence",
    "gated_problem",
    "matched_random_masks",
]

_CONTROL_PAIRS = 128  # test pairs of the necessity test, whose controls cost a full forward each


class Compared(NamedTuple):
    """What a model and a circuit of it answer to the test pairs.

    Attributes:
      model, circuit: their answers, K = 1, uncalibrated.
      kl: KL(model || circuit) `[M, 2]` over the whole vocabulary, nats.
      agree: bool `[M, 2]`, whether both hold the same token to be the most probable.
    """

    model: Answers
    circuit: Answers
    kl: np.ndarray
    agree: np.ndarray


def _accuracy(values: np.ndarray) -> float:
    """Share of prompts whose right completion is preferred, from differences `[M, 2]`."""
    return float(np.mean(values * np.array([1.0, -1.0], np.float32) > 0))


def _calibrated(problem: Problem) -> bool:
    return problem.prune.loss == "binary" and problem.prune.calibrate != "off"


def baseline(problem: Problem, whole: Answers | None = None) -> dict[str, float]:
    """Test loss and accuracy of the whole model, and the calibrated loss of the empty circuit.

    Args:
      problem: the model and its pairs.
      whole: what the whole model answers to the test pairs, where it is known.
    """
    whole = whole or answers(problem, problem.test, [all_gates(problem.config, 1.0)])
    # The first 0 nodes of any order.
    nothing = Prober(problem, [np.arange(num_units(problem.config, problem.prune.tie_qk))])
    empty = nothing.answers(problem.test, 0, [0])
    if problem.prune.loss == "binary":
        fit = calibrate(nothing.answers(problem.validation, 0, [0]).differences)
        fitted = calibrated_differences(empty.differences[0], fit.scale[0], fit.shift[0])
        loss_empty = float(mean_binary_loss(fitted))
    else:
        loss_empty = float(empty.losses(problem.prune)[0])
    return {
        "loss_unpruned": float(whole.losses(problem.prune)[0]),
        "loss_empty": loss_empty,
        "accuracy_unpruned": _accuracy(whole.differences[0]),
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


def evidence(
    problem: Problem, circuit: Circuit, seed: int = 0, compared: Compared | None = None
) -> dict[str, Any]:
    """Sufficiency, necessity and faithfulness of a circuit, on the test pairs.

    Args:
      problem: the model and the task's data; its fills replace what is removed for necessity.
      circuit: a circuit of that model.
      seed: of the random controls.
      compared: `compare` of both, where it is known.

    Returns:
      JSON-able figures; see the module docstring.
    """
    prune = problem.prune
    compared = compared or compare(problem, circuit)
    found, kept = compared.circuit, circuit.gates()
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
    figures |= correlations(compared.model.differences[0], found.differences[0])
    return figures | {
        "kl_to_model": float(compared.kl.mean()),
        "argmax_agreement": float(compared.agree.mean()),
    }


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


def compare(problem: Problem, circuit: Circuit) -> Compared:
    """Runs a circuit and its model side by side over the test pairs.

    Args:
      problem: the model and its test pairs.
      circuit: of that model; what it closes holds its own fills.
    """
    gated = gated_problem(problem, circuit)
    fills = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
    gates = {site: jnp.asarray(m, jnp.float32) for site, m in circuit.gates().items()}
    batches, places = packed_batches(problem.test, problem.config.causal)
    parts = [
        _compare(problem.config, gated.config, problem.params, gated.params, fills, batch, gates)
        for batch in batches
    ]
    joined = [np.concatenate(part)[places] for part in zip(*jax.device_get(parts), strict=True)]
    of_model, of_circuit = (Answers(*(part[None] for part in joined[i : i + 2])) for i in (0, 2))
    return Compared(of_model, of_circuit, *joined[4:])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compare(
    config: TransformerConfig,
    gated_config: TransformerConfig,
    params: Params,
    gated_params: Params,
    fills: Fills,
    batch: AnyPairs,
    gates: Gates,
) -> tuple[jax.Array, ...]:
    """Differences and vocabulary losses of model and circuit, KL and agreement: `[B, 2]` each."""
    found: list[jax.Array] = []
    logits = (
        answer_logits(config, params, batch, None, None),
        answer_logits(gated_config, gated_params, batch, gates, fills),
    )
    full, part = (jax.nn.log_softmax(some) for some in logits)
    for some, log_probs in zip(logits, (full, part), strict=True):
        right = jnp.take_along_axis(log_probs, batch.answers[..., None], axis=-1)[..., 0]
        found += [logit_differences(some, batch.answers), -right]
    kl = jnp.sum(jnp.exp(full) * (full - part), axis=-1)
    return *found, kl, jnp.argmax(full, axis=-1) == jnp.argmax(part, axis=-1)
