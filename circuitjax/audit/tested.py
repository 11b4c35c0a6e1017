"""What the tests and the run over the whole held-out split found: parts of the record of an audit."""

import dataclasses

__all__ = ["Exhaustive", "Hypothesis", "Interval", "Minimality", "Worst"]

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One hypothesis test; see `hypotheses.py`.

    Attributes:
      name: `necessity`, `equivalence` or `independence`.
      null: the null hypothesis, in words.
      statistic: what was compared; its meaning is in `note`.
      p: chance of a statistic as extreme under the null, at most.
      low, high: interval of that chance where it comes from random draws, else None.
      draws: random sets or permutations; items of a sign test.
      exceeded: draws that are as extreme; items that speak for the circuit, ties counted half.
      adjusted: p after Benjamini and Hochberg, over the tests of one audit; None before.
      note: what to know of it.
    """

    name: str
    null: str
    statistic: float
    p: float
    low: float | None
    high: float | None
    draws: int
    exceeded: float
    adjusted: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Minimality:
    """Parts of the circuit against random parts of inflated circuits; see `minimality.py`.

    Attributes:
      tested: parts that were closed one by one, of `parts` in all.
      inflated: inflated circuits, each with one random part closed.
      needed: share of the tested parts that do more than random ones, at a false discovery rate of 5%.
      low, high: its interval where only a sample was tested; else None.
      random: median change of a random part, of the log odds in nats.
      p: {part: p-value}.
    """

    tested: int
    parts: int
    inflated: int
    needed: float
    low: float | None
    high: float | None
    random: float
    p: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Worst:
    """A prompt of the whole split that the circuit answers worst.

    Attributes:
      prompt, right, wrong: texts.
      odds: calibrated log odds of the right completion by the circuit, nats.
      odds_model: by the whole model.
    """

    prompt: str
    right: str
    wrong: str
    odds: float
    odds_model: float


@dataclasses.dataclass(frozen=True)
class Exhaustive:
    """The circuit on the whole held-out split, or a sample of it; see `exhaustive.py`.

    Attributes:
      exact: whether every prompt of the split was run.
      how: in words, how the prompts were got.
      derivations: how many ways the task's grammar has to make an item of any split; estimated where it
        is too many to count, None where that is unknown.
      prompts, items: that were run.
      right: share of the prompts whose right completion is preferred.
      items_right: share of the items all of whose prompts are.
      low, high: interval of `items_right`: itself where exact, else Clopper and Pearson's at 95%.
      loss: mean calibrated task loss, nats.
      loss_low, loss_high: its bootstrap interval; itself where exact.
      worst: prompts, the worst first.
    """

    exact: bool
    how: str
    derivations: float | None
    prompts: int
    items: int
    right: float
    items_right: float
    low: float
    high: float
    loss: float
    loss_low: float
    loss_high: float
    worst: list[Worst]
