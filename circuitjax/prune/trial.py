"""What closing gates costs on some training examples, for backward elimination at every grain."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.policy import leaves_out_closed
from circuitjax.gated.conditions import condition_named
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune.adversary import attack
from circuitjax.prune.calibrate import calibrated_losses
from circuitjax.prune.conditions import Under
from circuitjax.prune.evaluate import references, slopes
from circuitjax.prune.objective import measured
from circuitjax.prune.problem import Problem

__all__ = ["GateTrial"]

_SLOPES = 32  # items of the estimate; the loss of a round is taken over all
_ATTACK_STEPS = 4  # of an adversary, before each estimate
_WORST = 0.2  # of the worst condition's loss: how near to it another one counts in an estimate
_SHRINK = 3  # a reduced model is built anew once so many times fewer gates are open


class GateTrial:
    """A `Trial` of open gates, by the loss that selection aims at.

    The whole model's runs are made once and kept: they are the same for every set of gates.
    """

    def __init__(
        self, problem: Problem, examples: Examples, kind: str, loss: str = "binary"
    ) -> None:
        """Takes the model and the examples.

        Args:
          problem: model and how examples are cut.
          examples: to measure on.
          kind: `task`, `calibrated` or `kl`.
          loss: kind of task loss.
        """
        whole = self._whole = problem.whole
        self._kind, self._loss = kind, loss
        conditions = problem.conditions
        if len(conditions) > 1:  # all of them together look at as many examples as one would
            examples = examples.first(max(2, examples.items // len(conditions)))
        full = kind == "kl"
        self._asked = [
            _Asked(under, examples, full, whole=len(conditions) == 1) for under in conditions
        ]
        self._reduces = (
            leaves_out_closed()
            and bool(whole.sizes())
            and not full
            and loss == "binary"
            and len(conditions) == 1
        )
        self._model: GatedModel | None = None
        self._room = np.zeros(whole.num_gates, bool)  # gates that the model can open
        # Work is that of a model of so many parts, whether they have gates or not.
        self._most = self._now = whole.work()

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open gates on a path from input to output."""
        return self._whole.alive(opened & self._whole.exists())

    def loss(self, opened: np.ndarray) -> float:
        """The loss in nats, of several conditions the worst one's under one calibration."""
        opened = self.alive(opened)
        return float(jnp.max(self._losses(opened)))

    def _losses(self, opened: np.ndarray) -> jax.Array:
        """By condition, `[C]`."""
        found, gates = [], opened.astype(np.float32)
        for asked in self._asked:
            model = self._model_for(opened) if len(self._asked) == 1 else asked.under.whole
            parts = [
                _measured(
                    model,
                    gates,
                    batch,
                    asked.left(reference),
                    kl=self._kind == "kl",
                    loss=self._loss,
                )
                for batch, reference in asked.references
            ]
            found.append(asked.joined(parts))
        return _by_condition(self._kind, found)

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`, to first order, on the first examples; 0 for gates that are on no path.

        Of several conditions those near the worst count.
        """
        opened = self.alive(opened)
        gates, total = opened.astype(np.float32), np.zeros(len(opened))
        weights = np.ones(1)
        if len(self._asked) > 1:
            losses = np.asarray(self._losses(opened), np.float64)
            worst = float(np.max(losses))
            weights = np.exp((losses - worst) / (_WORST * max(worst, 1e-3)))
        for asked, weight in zip(self._asked, weights / weights.sum(), strict=True):
            model = self._model_for(opened) if len(self._asked) == 1 else asked.under.whole
            levels = self._whole.slope_levels
            asked.attack(gates, "task" if self._kind == "task" else "calibrated")
            batch, reference = asked.few[0], asked.left(asked.few[1])
            slope = slopes(
                model, gates, batch, reference, kind=self._kind, levels=levels, loss=self._loss
            )
            total += weight * np.asarray(slope)
        return np.where(opened, -total, 0.0)

    def saves(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`, edges that go with each gate."""
        return self._whole.saves(opened)

    def _model_for(self, opened: np.ndarray) -> GatedModel:
        shrunk = self._reduces and _SHRINK * int(opened.sum()) < self._now
        if self._model is None or shrunk or bool(np.any(opened & ~self._room)):
            self._model = self._build(opened)
        return self._model

    def _build(self, opened: np.ndarray) -> GatedModel:
        # A set that is most of the model is better run by the model: it needs no program of its own.
        if self._reduces and _SHRINK * int(opened.sum()) < self._most:
            self._room, self._now = opened, int(opened.sum())
            return self._whole.reduced(opened)
        self._room, self._now = self._whole.exists(), self._most
        return self._whole


class _Asked:
    """One condition's examples with what circuits are run with: for a loss, and fewer for slopes."""

    def __init__(self, under: Under, examples: Examples, full: bool, *, whole: bool) -> None:
        rows, self._places = [under.batches.whole(examples)], np.arange(examples.size)
        if not whole or not under.batches.packs:
            rows, self._places = under.batches.even(examples)
        few = under.batches.whole(examples.first(_SLOPES))
        refer = functools.partial(references, under.whole, full=full, condition=under.name)
        self.under, self.references, self.few = under, refer(rows), refer([few])[0]
        worst = condition_named(under.name).leaves == "worst"
        self._left = np.zeros(under.whole.num_gates, np.float32) if worst else None

    def left(self, reference: Reference) -> Reference:
        """With what an adversary leaves in."""
        return reference if self._left is None else reference._replace(left=jnp.asarray(self._left))

    def attack(self, gates: np.ndarray, kind: str) -> None:
        """The adversary goes on from where it was, and from everything left in."""
        if self._left is None:
            return
        begin = (self._left, np.ones_like(gates))
        self._left, _ = attack(
            self.under.whole, gates, *self.few, begin, kind=kind, steps=_ATTACK_STEPS
        )

    def joined(self, parts: Sequence[Mapping[str, jax.Array]]) -> dict[str, jax.Array]:
        """Of each batch `{name: [M]}` as one, each example once."""
        names = parts[0]
        return {name: jnp.concatenate([p[name] for p in parts])[self._places] for name in names}


@functools.partial(jax.jit, static_argnums=0)
def _by_condition(kind: str, found: list[dict[str, jax.Array]]) -> jax.Array:
    """Losses `[C]`, compiled once: the fit of a calibration is a loop."""
    if kind != "calibrated":
        return jnp.stack([jnp.mean(part[kind]) for part in found])
    losses = calibrated_losses(jnp.concatenate([part["odds"] for part in found]))
    return jnp.mean(losses.reshape(len(found), -1), axis=1)


@functools.partial(jax.jit, static_argnames=("kl", "loss"))
def _measured(
    model: GatedModel,
    gates: jax.Array,
    batch: Batch,
    reference: Reference,
    *,
    kl: bool,
    loss: str,
) -> dict[str, jax.Array]:
    return measured(model, gates, batch, reference, kl=kl, loss=loss)
