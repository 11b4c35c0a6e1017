"""Answers of "the first k gates of a ranking", under every condition that the cut demands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from circuitjax.core.policy import leaves_out_closed
from circuitjax.gated.conditions import condition_named
from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.prune.adversary import attack, starts
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.conditions import Under
from circuitjax.prune.evaluate import Answers, Asked, answered, references
from circuitjax.prune.problem import Problem

__all__ = ["Prober", "answers_under_condition", "can_leave_out", "is_small", "worst_left"]

_PAYS = 3  # times fewer gates than the network has parts
_ASKED = 2  # sets of examples of each condition that stay cut
_ATTACKED = 32  # items that an adversary sees


class Prober:
    """Answers of "the first k gates of a ranking", for several rankings over any examples.

    Where closed gates are left out of the arithmetic, a small k runs through a smaller model: for
    each of a few sizes, the gates that any ranking puts among its first so many are the reduced
    model's, folded once, and the set within it is traced. So a handful of programs is compiled
    whatever the number of rankings, k and rounds.

    Where the problem has several conditions, M counts the examples once for each of them.
    """

    def __init__(
        self,
        problem: Problem,
        rankings: Sequence[np.ndarray],
        *,
        full: bool = False,
        reduce: bool | None = None,
        memory: AnswerMemory | None = None,
        room: Callable[[int], Any] | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        """Takes the rankings; reduced models are folded when first needed.

        Args:
          problem: the model and its data.
          rankings: each `[G]`, 0 is the most important gate.
          full: see `answers`.
          reduce: None reduces where that pays and an exact reduction exists; False never.
          memory: of answers under the same model and replacements; added to.
          room: how wide the reduced model of so many gates is at least.
          sizes: of reduced models, instead of the model's own; their layers run at their own widths.
        """
        reduce = leaves_out_closed() if reduce is None else reduce
        self._problem, self._rankings, self._memory = problem, rankings, memory
        self._models: dict[tuple[int, int], GatedModel] = {}
        self._asked: dict[tuple[int, int, int], tuple[Any, ...]] = {}  # the latest are kept
        self._full, self._room = full, room
        own = tuple(problem.whole.sizes())
        self._sizes = (tuple(sizes) if sizes and own else own) if reduce and not full else ()
        self._own_widths = bool(sizes)

    def opened(self, ranking: int, k: int) -> np.ndarray:
        """bool `[G]`: what a cut at k opens; see `GatedModel.cut`."""
        return self._problem.whole.cut(self._rankings[ranking] < k)

    def widths(self, size: int) -> Any:
        """Of the reduced model of the first so many gates of every ranking."""
        return self._fold(size).small.widths  # type: ignore[attr-defined]

    def _fold(self, size: int, room: Any = None, condition: int = 0) -> GatedModel:
        sets = [self.opened(index, size) for index in range(len(self._rankings))]
        more: dict[str, Any] = {"own_widths": self._own_widths}
        more |= {} if room is None else {"at_least": room}
        whole = self._problem.conditions[condition].whole
        return whole.reduced(np.any(sets, axis=0), **more)

    def _model_for(self, k: int, condition: int = 0) -> GatedModel:
        under = self._problem.conditions[condition]
        size = next((size for size in self._sizes if k <= size), None)
        if size is None or not can_leave_out(under):
            return under.whole
        if (condition, size) not in self._models:
            room = None if self._room is None else self._room(size)
            self._models[condition, size] = self._fold(size, room, condition)
        return self._models[condition, size]

    def answers(self, examples: Examples, ranking: int, ks: Sequence[int]) -> Answers:
        """Answers of the first k gates of a ranking to M examples, for each k `[K]`."""
        if self._memory is None:
            return self._look(examples, ranking, ks)
        found = self._memory.answers(
            self._rankings[ranking], examples, ks, lambda ks: self._look(examples, ranking, ks)
        )
        return Answers(*found)

    def _look(self, examples: Examples, ranking: int, ks: Sequence[int]) -> Answers:
        sets = {int(k): self.opened(ranking, int(k)) for k in ks}
        conditions = range(len(self._problem.conditions))
        found = [self._under(number, examples, sets) for number in conditions]
        return Answers(*(np.concatenate(part, axis=1) for part in zip(*found, strict=True)))

    def _ask(self, condition: int, model: GatedModel, examples: Examples) -> Asked:
        """The examples cut and referred to before, or now."""
        name = condition, id(model), id(examples)
        if name not in self._asked:
            while len(self._asked) >= _ASKED * len(self._problem.conditions):
                self._asked.pop(next(iter(self._asked)))
            under = self._problem.conditions[condition]
            asked = Asked(model, under.batches, examples, full=self._full, condition=under.name)
            self._asked[name] = asked, model, examples  # these two keep their ids
        found: Asked = self._asked[name][0]
        return found

    def _under(self, condition: int, examples: Examples, sets: Mapping[int, np.ndarray]) -> Answers:
        parts = []
        alike: list[list[int]] = []  # neighbours that run through the same model
        for k in sets:
            own = self._model_for(k, condition)
            if alike and self._model_for(alike[-1][0], condition) is own:
                alike[-1].append(k)
            else:
                alike.append([k])
        for group in alike:
            model, rows = self._model_for(group[0], condition), [sets[k] for k in group]
            asked = self._ask(condition, model, examples)
            parts.append(
                answers_under_condition(self._problem, condition, model, asked, rows, examples)
            )
        return Answers(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def is_small(model: GatedModel, count: int) -> bool:
    """Whether so few of a whole network's gates are worth a reduced model, a program of its own."""
    return 0 < _PAYS * count < model.work()


def can_leave_out(under: Under) -> bool:
    """Whether circuits can run without the work for what is closed, and that pays here."""
    condition = condition_named(under.name)
    reducible = leaves_out_closed() and bool(under.whole.sizes())
    return reducible and condition.leaves == "nothing" and not condition.frozen


def answers_under_condition(
    problem: Problem,
    condition: int,
    model: GatedModel,
    asked: Asked,
    rows: Sequence[np.ndarray],
    examples: Examples,
) -> Answers:
    """Answers `[K, M]` of K sets of open gates; under an adversary each against its own attack.

    Args:
      problem: model and conditions.
      condition: number of the condition among the problem's.
      model: that is run; maybe a reduced one.
      asked: the examples under the condition.
      rows: K sets bool `[G]`.
      examples: the same M, for the adversary.
    """
    if condition_named(problem.conditions[condition].name).leaves != "worst":
        return answered(model, asked, rows)
    found = []
    for row in rows:
        left = worst_left(problem, condition, row, examples)
        found.append(answered(model, asked.leaving(left), [row]))
    return Answers(*(np.concatenate(part) for part in zip(*found, strict=True)))


def worst_left(
    problem: Problem,
    condition: int,
    gates: np.ndarray,
    examples: Examples,
    begin: Sequence[np.ndarray] | None = None,
    *,
    steps: int = 8,
) -> np.ndarray:
    """What an adversary who sees the first of some examples leaves in, 0 or 1 `[G]`.

    Args:
      problem: model and conditions.
      condition: number of the adversary among the problem's.
      gates: `[G]`, the circuit's.
      examples: M of them; it sees 32 items.
      begin: where searches start; None for two of `adversary.starts`.
      steps: of each search.
    """
    under = problem.conditions[condition]
    rows = [under.batches.whole(examples.first(_ATTACKED))]
    (pair,) = references(under.whole, rows, full=False, condition=under.name)
    begin = list(starts(under.whole.num_gates, 2)) if begin is None else begin
    kind = "calibrated" if problem.paired else "task"
    return attack(under.whole, gates, *pair, begin, kind=kind, steps=steps).left
