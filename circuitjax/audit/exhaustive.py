"""A circuit on the whole held-out split of its task: the share answered right, and the worst prompts.

Every prompt is run where the split has at most so many, else so many of them, drawn as the test set is
(`tasks/domain.py`); what is said of a sample has an interval: that of Clopper and Pearson for the share
of items (pairs, not single prompts) that are answered right after each of their prompts, of which the
share of prompts is no smaller. The circuit runs reduced to its own widths; the whole model runs on the
worst prompts alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from circuitjax.audit.measure import Measure, Variants, item_losses
from circuitjax.audit.record import Exhaustive, Worst
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import clopper_pearson, mean_interval
from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import calibrated_odds
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import Problem, to_examples
from circuitjax.tasks.base import Encoded, Task
from circuitjax.tasks.contrast import ContrastTask, EncodedExamples
from circuitjax.tasks.domain import whole_split
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["exhaustive"]

_WORST = 10
_STEP = 8  # prompts are padded to a multiple of this, so that blocks share a program


class _Low(NamedTuple):
    """A prompt answered badly: its odds, the item it is of, which of the item's prompts it is."""

    odds: float
    item: Examples
    side: int


def exhaustive(
    task: Task | ContrastTask,
    problem: Problem,
    search: Search,
    measure: Measure,
    circuit: Circuit,
    most: int,
    sample: int | None = None,
    split: str = "test",
) -> Exhaustive:
    """Runs a circuit on every prompt of a split, or on a sample.

    Args:
      task: the circuit's.
      problem: the model.
      search: for the seed of the task's draws.
      measure: whether circuits are calibrated.
      circuit: of that model.
      most: prompts that are run at most.
      sample: prompts that are drawn where there are more; None: `most`.
      split: of the task.

    Raises:
      ValueError: a split without an item, or `most` below one item.
    """
    unit = problem.test.unit
    tokenizer = Tokenizer.from_json(problem.model.tokenizer_json)
    drawn = None if sample is None else min(sample, most) // unit
    domain = whole_split(task, tokenizer, split, most // unit, drawn, seed=search.data.seed)
    variants = Variants(problem, circuit.view(problem.model), "task")
    length, losses, right = problem.test.tokens.shape[-1], [], []
    worst: list[_Low] = []
    for examples in _examples(domain.blocks, length, problem.test):
        odds = variants.answers(variants.asked(examples), variants.gates[None]).odds[0]
        if measure.kind == "calibrated":
            odds = calibrated_odds(odds, circuit.scale, circuit.shift)
        losses.append(item_losses(odds, unit))
        right.append((odds > 0).reshape(-1, unit))
        for place in np.argsort(odds, kind="stable")[:_WORST]:
            item = examples.take(np.array([place // unit]))
            worst.append(_Low(float(odds[place]), item, int(place % unit)))
        worst = sorted(worst, key=lambda low: low.odds)[:_WORST]
    if not losses:
        raise ValueError(f"task {task.name!r} has no {split} item that can be encoded")
    every, answered = np.concatenate(losses), np.concatenate(right)
    whole = np.asarray(answered.all(axis=1))
    share, loss = float(whole.mean()), float(every.mean())
    bounds, ends = (share, share), (loss, loss)
    if not domain.exact:
        bounds = clopper_pearson(int(whole.sum()), len(whole))
        if len(every) > 1:
            low, high = mean_interval(every, samples=_samples(len(every)))
            ends = float(low), float(high)
    return Exhaustive(
        exact=domain.exact,
        how=domain.how,
        derivations=domain.derivations,
        prompts=int(answered.size),
        items=len(whole),
        right=float(answered.mean()),
        items_right=share,
        low=bounds[0],
        high=bounds[1],
        loss=loss,
        loss_low=ends[0],
        loss_high=ends[1],
        worst=[_told(problem, tokenizer, low) for low in worst],
    )


def _samples(items: int) -> int:
    """Resamples of an interval: fewer of many items, whose mean is nearly normal."""
    return max(200, min(2000, 10**8 // items))


def _examples(
    blocks: Iterator[Encoded | EncodedExamples], length: int, like: Examples
) -> Iterator[Examples]:
    """Blocks as examples, padded alike; they share rows as those of the test set do."""
    for block in blocks:
        longest = max(length, -(-block.tokens.shape[-1] // _STEP) * _STEP)
        padded = block.padded(longest)
        if isinstance(padded, Encoded):
            yield Examples.of_pairs(*padded, row_length=like.row_length)
        else:
            yield to_examples(padded, paired=False)


def _told(problem: Problem, tokenizer: Tokenizer, low: _Low) -> Worst:
    """A prompt as text, and what the whole model makes of it."""
    item = low.item
    every = np.ones((1, problem.whole.num_gates), bool)
    odds = answers(problem.whole, problem.batches, item, every).odds[0, low.side]
    end = int(np.asarray(item.positions)[low.side, -1])
    tokens = [int(token) for token in np.asarray(item.tokens)[low.side, 0, 1 : end + 1]]

    def text(ids: np.ndarray) -> str:
        return " | ".join(tokenizer.decode([int(token)]) for token in ids if token >= 0)

    right, wrong = (np.asarray(x)[low.side] for x in (item.right, item.wrong))
    return Worst(tokenizer.decode(tokens), text(right), text(wrong), low.odds, float(odds))
