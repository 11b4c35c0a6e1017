"""What closing gates costs on some training examples, for backward elimination at every grain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.core.policy import leaves_out_closed
from circuitjax.gated.examples import Batch, Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune.evaluate import references, slopes, total_loss
from circuitjax.prune.objective import measured
from circuitjax.prune.problem import Problem

__all__ = ["GateTrial"]

_SLOPES = 32  # items of the estimate; the loss of a round is taken over all
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
        self._kind, self._loss, self._size = kind, loss, examples.size
        rows = [problem.batches.whole(examples)]
        if not problem.batches.packs:
            rows, _ = problem.batches.even(examples)
        full = kind == "kl"
        self._references = references(whole, rows, full=full)
        few = problem.batches.whole(examples.first(_SLOPES))
        self._few = references(whole, [few], full=full)[0]
        self._reduces = (
            leaves_out_closed() and bool(whole.sizes()) and not full and loss == "binary"
        )
        self._model: GatedModel | None = None
        self._room = np.zeros(whole.num_gates, bool)  # gates that the model can open
        # Work is that of a model of so many parts, whether they have gates or not.
        self._most = self._now = whole.work()

    def alive(self, opened: np.ndarray) -> np.ndarray:
        """The open gates on a path from input to output."""
        return self._whole.alive(opened & self._whole.exists())

    def loss(self, opened: np.ndarray) -> float:
        """The loss in nats."""
        opened = self.alive(opened)
        model, gates = self._model_for(opened), opened.astype(np.float32)
        found = [
            _measured(model, gates, *pair, kl=self._kind == "kl", loss=self._loss)
            for pair in self._references
        ]
        joined = {
            name: jnp.concatenate([part[name] for part in found])[: self._size] for name in found[0]
        }
        return float(_total(self._kind, joined))

    def rises(self, opened: np.ndarray) -> np.ndarray:
        """`[G]`, to first order, on the first examples; 0 for gates that are on no path."""
        opened = self.alive(opened)
        model, gates = self._model_for(opened), opened.astype(np.float32)
        levels = self._whole.slope_levels
        slope = slopes(model, gates, *self._few, kind=self._kind, levels=levels, loss=self._loss)
        return np.where(opened, -np.asarray(slope), 0.0)

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


# Compiled once: the fit of a calibration is a loop, which would be compiled anew in every call.
_total = jax.jit(total_loss, static_argnums=0)


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
