"""What training minimises: task loss or KL of the gated model, and the cost of open gates.

    gates        one z per gate, drawn once per step for the whole batch; times those of its owners
    minimised    task, KL(full || circuit), or task + kl_weight KL;  plus the control's cost
    calibrated   the task loss is one under its own best scale and shift, as in a cut that calibrates:
                 training would otherwise spend gates on what a calibration does for nothing

What the gates sit on is the gated model's (`gated/protocol.py`), which is the training's data.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from circuitjax.gated import replacement
from circuitjax.gated.examples import Batch, picked
from circuitjax.gated.measures import (
    kl_divergence,
    odds_of,
    task_losses,
    vocabulary_losses,
)
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference, refer
from circuitjax.prune import opening
from circuitjax.prune.calibrate import calibrated_loss
from circuitjax.prune.config import Hyper

__all__ = ["Objective", "measured"]

Tau = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What shapes the training program: equal objectives share a compiled one.

    Attributes:
      gate, minimise, control, task_loss, owners: see `config.Choices`.
      calibrated: whether the task loss is one under its best calibration.
      holds: what `hold` holds: `loss` or `kl`.
      steps, batch_size: of the training.
    """

    gate: str
    minimise: str
    control: str
    task_loss: str
    owners: bool
    calibrated: bool
    holds: str
    steps: int
    batch_size: int

    def separable(self, model: GatedModel) -> bool:
        """Whether the loss is a mean over items, so that a batch may be taken apart."""
        return not self.calibrated and not replacement.ABLATIONS[model.ablation].mixes

    def init(self, key: jax.Array, hyper: Hyper, model: GatedModel) -> tuple[Tau, Any]:
        """Gaussian scores, and multipliers where something is held."""

        def scores(noise: jax.Array) -> jax.Array:
            start = hyper.init_noise_bias + hyper.init_noise_scale * noise
            return opening.GATES[self.gate].project(start)

        tau = {"gates": scores(model.draw(key))}
        if self.owners:
            noise = jax.random.normal(jax.random.fold_in(key, 1), (model.num_owners,))
            tau["owners"] = scores(noise)
        total = model.count(jnp.ones(model.num_gates))
        return tau, opening.CONTROLS[self.control].start(total)

    def data_of(self, hyper: Hyper, data: Any) -> Any:
        """All jobs share one model."""
        del hyper
        return data

    def chances(self, tau: Tau, hyper: Hyper, model: GatedModel) -> jax.Array:
        """Chance that each gate is effectively open, `[G]`."""
        chance = opening.GATES[self.gate].chance(tau["gates"], hyper)
        if self.owners:
            chance = chance * model.owned(opening.GATES[self.gate].chance(tau["owners"], hyper))
        return chance

    def gates(self, tau: Tau, hyper: Hyper, model: GatedModel, key: jax.Array) -> jax.Array:
        """Gates of one step, `[G]`."""
        sample = opening.GATES[self.gate].sample
        z = sample(jax.random.fold_in(key, 0), tau["gates"], hyper)
        if self.owners:
            z = z * model.owned(sample(jax.random.fold_in(key, 1), tau["owners"], hyper))
        return z

    def loss_of(
        self, z: jax.Array, hyper: Hyper, model: GatedModel, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """What is minimised but for the gates' cost, and `task` and maybe `kl` apart, in nats."""
        kinds = {"task": self.minimise != "kl", "kl": self.minimise != "task"}
        kinds["kl"] |= self.control == "hold" and self.holds == "kl"
        reference = refer(model, batch, key, full=kinds["kl"])
        found = measured(model, z, batch, reference, kl=kinds["kl"], loss=self.task_loss)
        task = calibrated_loss(found["odds"]) if self.calibrated else jnp.mean(found["task"])
        parts = {"task": task}
        if kinds["kl"]:
            parts["kl"] = jnp.mean(found["kl"])
        if self.minimise == "task":
            return task, parts
        return (
            parts["kl"] if self.minimise == "kl" else task + hyper.kl_weight * parts["kl"]
        ), parts

    def loss(
        self,
        tau: Tau,
        multipliers: Any,
        hyper: Hyper,
        at: tuple[jax.Array, jax.Array],
        model: GatedModel,
        batch: Batch,
    ) -> tuple[jax.Array, Metrics]:
        """What is minimised over tau and maximised over the multipliers, and figures to record.

        `at` is (random key of the step, step).
        """
        key, step = at
        z = self.gates(tau, hyper, model, key)
        loss, parts = self.loss_of(z, hyper, model, batch, jax.random.fold_in(key, 2))
        opened = model.count(self.chances(tau, hyper, model))
        total = model.count(jnp.ones(model.num_gates))
        held = parts.get("kl" if self.holds == "kl" else "task", parts["task"])
        cost = opening.CONTROLS[self.control].cost(
            opened, total, multipliers, hyper, (step, self.steps), (held, self._aim(hyper))
        )
        return loss + cost, {**parts, "k": opened, "sparsity": 1 - opened / total}

    def rate(self, hyper: Hyper, step: jax.Array) -> jax.Array:
        """Learning rate at a step."""
        return opening.learning_rate(self.control, hyper, step, self.steps)

    def project(self, tau: Tau) -> Tau:
        """Scores back within bounds."""
        found: Tau = opening.GATES[self.gate].project(tau)
        return found

    def ascend(self, multipliers: Any, gradient: Any, hyper: Hyper) -> Any:
        """Multipliers after a step of gradient ascent."""
        return opening.CONTROLS[self.control].ascend(multipliers, gradient, hyper, self._aim(hyper))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the training metrics worth keeping."""
        kl = self.minimise != "task" or (self.control == "hold" and self.holds == "kl")
        return ("loss", *(["kl"] if kl else []), "task", "k", "sparsity", "gradient_rms")

    def _aim(self, hyper: Hyper) -> Any:
        return hyper.aim * hyper.held


def measured(
    model: GatedModel,
    gates: jax.Array,
    batch: Batch,
    reference: Reference,
    *,
    kl: bool,
    loss: str = "binary",
) -> dict[str, jax.Array]:
    """What a circuit answers, example by example: `odds`, `task` and, if asked for, `kl`, each `[M]`."""
    if not kl and loss == "binary":
        odds = odds_of(model.answers(gates, batch, reference.held), batch)
        return {"odds": odds, "task": task_losses(odds)}
    logits = model.logits(gates, batch, reference.held)
    odds = odds_of(picked(logits, batch), batch)
    found = {"odds": odds, "task": task_losses(odds)}
    if loss == "vocabulary":
        found["task"] = vocabulary_losses(logits, batch)
    if kl:
        assert reference.full is not None
        found["kl"] = kl_divergence(logits, reference.full)
    return found
