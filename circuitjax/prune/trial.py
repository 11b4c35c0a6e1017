"""What closing gates costs on some training examples, for backward elimination at every grain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated.conditions import condition_named
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.measures import task_losses
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune.adversary import attack
from circuitjax.prune.calibrate import calibrated_losses
from circuitjax.prune.conditions import Under
from circuitjax.prune.curvature import KlRises
from circuitjax.prune.cut import scouts
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked, answered, references, slopes
from circuitjax.prune.figures import loss_kind
from circuitjax.prune.prober import can_leave_out, is_small
from circuitjax.prune.problem import Problem

__all__ = ["GateTrial", "trial_of_cut"]

_SLOPES = 32  # items of the estimate; the loss of a round is taken over all
_ATTACK_STEPS = 4  # of an adversary, before each estimate
_WORST = 0.2  # of the worst condition's loss: how near to it another one counts in an estimate
_FAR = 0.4  # of the worst condition's loss: below it the next looks at a condition are left out
_RESTS = 8  # so many
_LIGHT = 0.05  # of the worst condition's weight in an estimate: below it a condition is left out
_LEAST = 32  # items of a KL that is eliminated to second order
_SHRINK = 3  # a reduced model is built anew once so many times fewer gates are open


class GateTrial:
    """A `Trial` of open gates, by the loss that selection aims at.

    The whole model's runs are made once and kept: they are the same for every set of gates.
    """

    def __init__(
        self,
        problem: Problem,
        examples: Examples,
        kind: str,
        loss: str = "binary",
        *,
        kl_share: float = 0.0,
        curved: bool = False,
    ) -> None:
        """Takes the model and the examples.

        Args:
          problem: model and how examples are cut.
          examples: to measure on.
          kind: `task`, `calibrated` or `kl`.
          loss: kind of task loss.
          kl_share: what a nat of KL counts beside a nat of loss, where both are demanded.
          curved: whether the rise of the KL is estimated to second order, on all training items in turn;
            for kind `kl`, under one condition that leaves nothing in.
        """
        self._whole = problem.whole
        self._kind, self._loss, self._kl_share = kind, loss, kl_share
        full = kind == "kl" or loss == "vocabulary" or kl_share > 0
        # Training items are of no template that training never sees.
        asked = [u for u in problem.conditions if not condition_named(u.name).apart]
        self._asked = [_Asked(under, examples, full) for under in asked or problem.conditions]
        self._curved: KlRises | None = None
        if curved:
            (under,) = problem.conditions
            self._curved = KlRises(under.whole, under.batches, problem.train)

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open gates on a path from input to output."""
        return self._whole.alive(opened & self._whole.exists())

    def loss(self, opened: np.ndarray) -> float:
        """The loss in nats, of several conditions the worst one's under one calibration."""
        return float(np.max(self._losses(self.alive(opened))))

    def _losses(self, opened: np.ndarray) -> np.ndarray:
        """Loss, and what the KL counts beside it, by condition: `[2, C]`."""
        found = [asked.answers(opened) for asked in self._asked]
        if self._kind == "calibrated":
            losses = np.asarray(_by_condition([one.odds[0] for one in found]))
        elif self._kind == "kl":
            losses = np.array([one.kl.mean() for one in found])
        elif self._loss == "vocabulary":
            losses = np.array([one.vocabulary.mean() for one in found])
        else:
            losses = np.array([np.mean(task_losses(one.odds[0])) for one in found])
        beside = [self._kl_share * one.kl.mean() for one in found]
        return np.stack([losses, beside]).astype(np.float64)

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`, to first or second order, on the first examples; 0 for gates that are on no path.

        Of several conditions those near the worst count.
        """
        opened = self.alive(opened)
        if self._curved is not None:
            return np.where(opened, self._curved(opened), 0.0)
        total = np.zeros(len(opened))
        weights, by_kl = np.ones(1), np.zeros(1, bool)
        if len(self._asked) > 1 or self._kl_share:
            losses, beside = self._losses(opened)
            losses, by_kl = np.maximum(losses, beside), beside > losses
            weights = np.exp((losses - losses.max()) / (_WORST * max(losses.max(), 1e-3)))
            for asked, near in zip(self._asked, losses / max(losses.max(), 1e-9), strict=True):
                asked.rest_if(near < _FAR)
            weights[weights < _LIGHT] = 0
        for number in np.flatnonzero(weights):
            slope = self._asked[number].slope(
                opened,
                kind="kl" if by_kl[number] else self._kind,
                levels=self._whole.slope_levels,
                loss=self._loss,
            )
            share = self._kl_share if by_kl[number] else 1.0
            total += share * weights[number] / weights.sum() * np.asarray(slope)
        return np.where(opened, -total, 0.0)

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`, edges that go with each gate."""
        return self._whole.saves(opened)


def trial_of_cut(problem: Problem, search: Search) -> GateTrial:
    """What the search cuts by, on a few training items."""
    loss, selection = search.choices.loss, search.selection
    some, kind = scouts(problem, problem.train), loss_kind(problem, selection, loss)
    whole = search.choices.ranking == "eliminated"
    kind = "kl" if whole else kind
    # What starts from the curvature is eliminated by it.
    begun = whole or search.choices.warm_start == "fisher"
    conditions = [condition_named(under.name) for under in problem.conditions]
    plain = all(c.leaves == "nothing" and not c.frozen for c in conditions)
    curved = begun and kind == "kl" and plain and len(conditions) == 1
    if curved:
        some = problem.train.first(max(some.items, _LEAST))
    return GateTrial(problem, some, kind, loss, kl_share=selection.kl_share, curved=curved)


class _Runner(NamedTuple):
    """A model that can open the gates of a room bool `[G]`, with what it is run with."""

    model: GatedModel
    room: np.ndarray
    size: int  # of a model of so many parts, whether they have gates or not
    asked: Asked
    few: tuple[Batch, Reference]


class _Asked:
    """One condition's examples with what circuits are run with: for a loss, and fewer for slopes."""

    def __init__(self, under: Under, examples: Examples, full: bool) -> None:
        self._under, self._examples, self._full = under, examples, full
        self._few = under.batches.whole(examples.first(min(_SLOPES, under.whole.scouted_items)))
        self._reduces = not full and can_leave_out(under)
        self._whole: _Runner | None = None
        self._small: _Runner | None = None
        self._outside: np.ndarray | None = None  # the last set that the small model could not open
        worst = condition_named(under.name).leaves == "worst"
        self._left = np.zeros(under.whole.num_gates, np.float32) if worst else None
        self._rest = 0  # so many looks are left out
        self._last: Answers | None = None

    def rest_if(self, far: bool) -> None:
        """Leaves a few looks out, if the condition is far from mattering."""
        if far and self._rest <= 0:
            self._rest = _RESTS

    def answers(self, opened: np.ndarray) -> Answers:
        """Of open gates to all examples; what was answered last while the condition rests."""
        self._rest -= 1
        if self._last is None or self._rest < 0:
            run = self._runner(opened)
            asked = run.asked if self._left is None else run.asked.leaving(self._left)
            self._last = answered(run.model, asked, opened[None])
        return self._last

    def slope(self, opened: np.ndarray, **how: Any) -> jax.Array:
        """Of a loss by each gate `[G]`, at open gates, on the first examples; see `slopes`."""
        run, gates = self._runner(opened), opened.astype(np.float32)
        batch, reference = run.few
        if self._left is not None:  # the adversary goes on from where it was, and from everything
            kind = "task" if how["kind"] == "task" else "calibrated"
            begin = (self._left, np.ones_like(gates))
            attacked = attack(run.model, gates, *run.few, begin, kind=kind, steps=_ATTACK_STEPS)
            self._left = attacked.left
            reference = reference._replace(left=jnp.asarray(self._left))
        return slopes(run.model, gates, batch, reference, **how)

    def _runner(self, opened: np.ndarray) -> _Runner:
        """The small model, built anew once far fewer gates are open; the whole one beyond its room.

        A search for enough gates asks for one larger set after another, and each would be a program to
        compile: a small model is built for a set outside only if what is asked next is within that.
        """
        count, small, whole = int(opened.sum()), self._small, self._under.whole
        inside = small is not None and not np.any(opened & ~small.room)
        if small is not None and inside and _SHRINK * count >= small.size:
            return small
        begun, room = inside or small is None, opened
        if not begun and self._outside is not None and not np.any(opened & ~self._outside):
            begun, room = True, self._outside
        if begun and self._reduces and is_small(whole, int(room.sum())):
            self._small = self._made(whole.reduced(room, own_widths=True), room, int(room.sum()))
            return self._small
        self._outside = opened
        if self._whole is None:
            self._whole = self._made(whole, whole.exists(), whole.work())
        return self._whole

    def _made(self, model: GatedModel, room: np.ndarray, size: int) -> _Runner:
        under, full = self._under, self._full
        asked = Asked(model, under.batches, self._examples, full=full, condition=under.name)
        (few,) = references(model, [self._few], full=full, condition=under.name)
        return _Runner(model, room, size, asked, few)


@jax.jit
def _by_condition(found: list[np.ndarray]) -> jax.Array:
    """Losses `[C]` under one calibration, from odds; compiled once: its fit is a loop."""
    losses = calibrated_losses(jnp.concatenate([jnp.asarray(part) for part in found]))
    return jnp.mean(losses.reshape(len(found), -1), axis=1)
