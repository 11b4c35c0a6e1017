"""Hypothesis tests of a circuit against its model, in the sense of Shi et al. 2024.

    necessity       H0: the circuit is any random set of its shape (`evidence.necessity`);
                    rejecting it speaks for the circuit
    equivalence     H0: on a random item, circuit and model do better than each other equally often, give
                    or take a tolerance: |P(circuit better) - 1/2| <= 0.1, a sign test; rejecting it
                    speaks against the circuit
    independence    H0: how well the rest of the model does on an item, the circuit taken out, is
                    independent of how well the model does, by the Hilbert-Schmidt criterion and random
                    permutations; rejecting it speaks against the circuit: the rest knows something of
                    the outcome

        HSIC = sum_ij Kc_ij Lc_ij / I^2,   K_ij = exp(-(x_i - x_j)^2 / 2 s^2),  Kc its centred form,
        s the median distance of two items

A score of an item is the mean over its prompts: of the task loss for equivalence (what decides is who is
better), of the log odds of the right completion for independence. What favours one completion after both
prompts of a pair cancels in it. Axis letters: M examples, I items.

Reference: Shi, Beltran-Velez, Nazaret, Zheng, Garriga-Alonso, Jesson, Makar and Blei 2024, "Hypothesis
testing the circuit hypothesis in LLMs", NeurIPS. The third of their tests is `minimality.py`.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from circuitjax.audit.evidence import Compared, among_all
from circuitjax.audit.measure import Measure, item_losses, per_item
from circuitjax.audit.minimality import minimality
from circuitjax.audit.record import Hypothesis, Minimality
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import adjusted, sequential_p, sign_p
from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import calibrated_odds
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import Problem

__all__ = ["TOLERANCE", "correct", "equivalence", "hypotheses", "independence"]

TOLERANCE = 0.1  # of how often one may do better than the other, about a half
_PERMUTATIONS = 1000  # at most
_EXCEEDANCES = 20
_ITEMS = 256  # of an independence test: its cost grows with their square


def equivalence(
    model: np.ndarray, circuit: np.ndarray, unit: int, *, tolerance: float = TOLERANCE
) -> Hypothesis:
    """Tests whether circuit and model do equally well, item by item.

    Args:
      model: log odds `[M]` of the whole model, nats.
      circuit: of the circuit, calibrated if it is.
      unit: examples of an item.
      tolerance: see the module docstring; in [0, 1/2).
    """
    gain = item_losses(model, unit) - item_losses(circuit, unit)
    wins = float(np.sum(gain > 0) + 0.5 * np.sum(gain == 0))
    share = wins / len(gain)
    return Hypothesis(
        name="equivalence",
        null=f"the circuit does better than the model on half of the items, within {tolerance:g}",
        statistic=share,
        p=sign_p(gain, tolerance),
        low=None,
        high=None,
        draws=len(gain),
        exceeded=wins,
        note=f"the circuit does better on {100 * share:.0f}% of {len(gain)} items",
    )


def independence(
    model: np.ndarray,
    rest: np.ndarray,
    unit: int,
    *,
    permutations: int = _PERMUTATIONS,
    seed: int = 0,
) -> Hypothesis:
    """Tests whether what the model does without the circuit says anything of what it does with it.

    Args:
      model: log odds `[M]` of the whole model, nats.
      rest: of the model from which the circuit's parts are taken.
      unit: examples of an item.
      permutations: at most.
      seed: of the permutations.
    """
    x, y = (per_item(odds, unit)[:_ITEMS] for odds in (model, rest))
    first, second = _centred(x), _centred(y)
    size = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))

    def draws() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(x))
            yield np.array([np.sum(first * second[np.ix_(order, order)])])

    observed = float(np.sum(first * second))
    # Sums in another order differ by rounding, and a draw that only differs by it is a tie.
    found = sequential_p(
        itertools.islice(draws(), permutations),
        observed - 1e-9 * max(size, 1e-30),
        exceedances=_EXCEEDANCES,
        most=permutations,
    )
    share = observed / size if size > 0 else 0.0
    return Hypothesis(
        name="independence",
        null="what the model does without the circuit is independent of what it does",
        statistic=share,
        p=found.p,
        low=found.low,
        high=found.high,
        draws=found.draws,
        exceeded=found.exceeded,
        note=f"normalised HSIC {share:.3f} on {len(x)} items, {found.draws} permutations",
    )


def _centred(values: np.ndarray) -> np.ndarray:
    """The centred Gaussian kernel matrix `[I, I]` of values `[I]`; zeros for a constant."""
    apart = np.abs(values[:, None] - values[None, :])
    off = apart[np.triu_indices(len(values), 1)]
    width = float(np.median(off)) if len(off) else 0.0
    width = width or float(np.mean(off)) if len(off) else 0.0
    if width <= 1e-12 * max(1.0, float(np.max(np.abs(values), initial=0.0))):
        return np.zeros_like(apart)
    kernel = np.exp(-0.5 * (apart / width) ** 2)
    kernel -= kernel.mean(axis=0, keepdims=True)
    centred: np.ndarray = kernel - kernel.mean(axis=1, keepdims=True)
    return centred


def hypotheses(
    problem: Problem,
    measure: Measure,
    circuit: Circuit,
    compared: Compared,
    necessity: Hypothesis | None,
    test: Examples,
    seed: int = 0,
) -> tuple[list[Hypothesis], Minimality | str]:
    """All tests of a circuit of any grain, corrected for how many there are; minimality has its own.

    Args:
      problem: the model and the task's data.
      measure: whether circuits are calibrated.
      circuit: of that model.
      compared: answers of both to all test examples.
      necessity: that test, where it was done.
      test: examples on which the rest of the model is run, and parts are closed.
      seed: of everything random.

    Returns:
      The tests; and the minimality of the circuit's parts, or why it has none.
    """
    unit, (odds,) = problem.test.unit, compared.circuit.odds
    if measure.kind == "calibrated":
        odds = calibrated_odds(odds, circuit.scale, circuit.shift)
    view = among_all(problem, circuit)
    rows = [np.ones_like(view.gates), ~view.gates]
    whole, rest = answers(view.model, problem.batches, test, rows).odds
    found = [
        *([] if necessity is None else [necessity]),
        equivalence(compared.model.odds[0], odds, unit),
        independence(whole, rest, unit, seed=seed),
    ]
    return correct(found), minimality(problem, measure, circuit, test, seed=seed)


def correct(tests: Sequence[Hypothesis]) -> list[Hypothesis]:
    """The tests of one circuit, each with its p after Benjamini and Hochberg."""
    values = adjusted([test.p for test in tests])
    return [dataclasses.replace(t, adjusted=p) for t, p in zip(tests, values, strict=True)]
