"""What training minimises: task loss or KL of the gated model, and the cost of open gates.

    gates        one z per gate, drawn once per step for the whole batch; times those of its owners
    minimised    task, KL(full || circuit), or task + kl_weight KL;  plus the control's cost
    calibrated   the task loss is one under its own best scale and shift, as in a cut that calibrates:
                 training would otherwise spend gates on what a calibration does for nothing
    conditions   the items of a step may be shared out among several conditions, each a forward pass of
                 its own; one calibration serves them all. `adversary` leaves in what a vector u in
                 [0, 1]^G says, which goes up the gradient of the loss, from step to step

What the gates sit on is the gated model's (`gated/protocol.py`), which is the training's data: one
model, or a tuple of them, one for each condition.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.gated import replacement
from circuitjax.gated.conditions import (
    answers_under,
    condition_named,
    logits_under,
    refer_under,
)
from circuitjax.gated.examples import Batch, picked
from circuitjax.gated.measures import (
    kl_divergence,
    odds_of,
    task_losses,
    vocabulary_losses,
)
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import Reference
from circuitjax.prune import opening
from circuitjax.prune.calibrate import calibrated_losses
from circuitjax.prune.config import Hyper

__all__ = ["Objective", "measured", "total_loss"]

Tau = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Data = GatedModel | tuple[GatedModel, ...]

_ATTACK = 0.1  # how far a step moves what an adversary leaves in, in [0, 1]


@dataclasses.dataclass(frozen=True)
class Objective:
    """What shapes the training program: equal objectives share a compiled one.

    Attributes:
      gate, minimise, control, task_loss, owners: see `config.Choices`.
      calibrated: whether the task loss is one under its best calibration.
      holds: what `hold` holds: `loss`, `kl`, or `both`: the larger of the loss and the weighted KL.
      steps, batch_size: of the training.
      under: (condition, items of a step) of a mix; () where the model's own ablation is the only one.
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
    under: tuple[tuple[str, int], ...] = ()

    def separable(self, data: Data) -> bool:
        """Whether the loss is a mean over items, so that a batch may be taken apart."""
        mixes = self.under or replacement.ABLATIONS[_first(data).ablation].mixes
        return not self.calibrated and not mixes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Items of one step: of a mix those of each condition, else one number."""
        return tuple(size for _, size in self.under) or (self.batch_size,)

    def draw(self, items: Any, key: jax.Array) -> Any:
        """Items of one step, of a mix for each condition its own."""
        if not self.under:
            return items.draw(key, self.batch_size)
        return tuple(
            rows.draw(jax.random.fold_in(key, n), size)
            for n, (rows, size) in enumerate(zip(items, self.sizes, strict=True))
        )

    def init(self, key: jax.Array, hyper: Hyper, data: Data) -> tuple[Tau, Any]:
        """Gaussian scores, and multipliers where something is held or attacked."""
        model = _first(data)

        def scores(noise: jax.Array) -> jax.Array:
            start = hyper.init_noise_bias + hyper.init_noise_scale * noise
            return opening.GATES[self.gate].project(start)

        tau = {"gates": scores(model.draw(key))}
        if self.owners:
            noise = jax.random.normal(jax.random.fold_in(key, 1), (model.num_owners,))
            tau["owners"] = scores(noise)
        total = model.count(jnp.ones(model.num_gates))
        multipliers = opening.CONTROLS[self.control].start(total)
        if self._attacked:
            multipliers = {"control": multipliers, "left": jnp.full(model.num_gates, 0.5)}
        return tau, multipliers

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
        self,
        z: jax.Array,
        hyper: Hyper,
        data: Data,
        batch: Batch | tuple[Batch, ...],
        key: jax.Array,
        left: jax.Array | None = None,
    ) -> tuple[jax.Array, Metrics]:
        """What is minimised but for the gates' cost, and figures of it, in nats.

        `task` and maybe `kl` are means over all items, `worst` is the largest condition's of what is
        held. `left` `[G]` is what an adversary leaves in.
        """
        kl = self._compares
        names = [name for name, _ in self.under] or [_first(data).ablation]
        found = []
        for number, (name, model, some) in enumerate(
            zip(names, _each(data), _each(batch), strict=True)
        ):
            own = jax.random.fold_in(key, number) if self.under else key
            reference = refer_under(name, model, some, own, full=kl)
            if condition_named(name).leaves == "worst":
                reference = reference._replace(left=left)
            found.append(measured(model, z, some, reference, kl=kl, loss=self.task_loss))
        every = {name: jnp.concatenate([f[name] for f in found]) for name in found[0]}
        task = calibrated_losses(every["odds"]) if self.calibrated else every["task"]
        ends = np.cumsum([f["odds"].size for f in found])[:-1]

        def worst(values: jax.Array) -> jax.Array:
            return jnp.max(jnp.stack([jnp.mean(x) for x in jnp.split(values, ends)]))

        held = worst(every["kl"] if self.holds == "kl" and kl else task)
        if self.holds == "both" and kl:
            held = jnp.maximum(held, hyper.kl_weight * worst(every["kl"]))
        parts = {"task": jnp.mean(task), "worst": held}
        if kl:
            parts["kl"] = jnp.mean(every["kl"])
        if self.minimise == "task":
            return parts["task"], parts
        if self.minimise == "kl":
            return parts["kl"], parts
        return parts["task"] + hyper.kl_weight * parts["kl"], parts

    def loss(
        self,
        tau: Tau,
        multipliers: Any,
        hyper: Hyper,
        at: tuple[jax.Array, jax.Array],
        data: Data,
        batch: Batch | tuple[Batch, ...],
    ) -> tuple[jax.Array, Metrics]:
        """What is minimised over tau and maximised over the multipliers, and figures to record.

        `at` is (random key of the step, step).
        """
        (key, step), model = at, _first(data)
        left = multipliers["left"] if self._attacked else None
        z = self.gates(tau, hyper, model, key)
        loss, parts = self.loss_of(z, hyper, data, batch, jax.random.fold_in(key, 2), left)
        chances, control = self.chances(tau, hyper, model), opening.CONTROLS[self.control]
        opened, total = model.count(chances), model.count(jnp.ones(model.num_gates))
        cost = control.cost(
            model.size(chances) if control.sizes else opened,
            total,
            self._controlled(multipliers),
            hyper,
            (step, self.steps),
            (parts.pop("worst"), self._aim(hyper)),
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
        """Multipliers after a step of gradient ascent; what is left in goes by the gradient's sign."""
        held = opening.CONTROLS[self.control].ascend(
            self._controlled(multipliers), self._controlled(gradient), hyper, self._aim(hyper)
        )
        if not self._attacked:
            return held
        left = multipliers["left"] + _ATTACK * jnp.sign(gradient["left"])
        return {"control": held, "left": jnp.clip(left, 0.0, 1.0)}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the training metrics worth keeping."""
        kl = self._compares
        return ("loss", *(["kl"] if kl else []), "task", "k", "sparsity", "gradient_rms")

    @property
    def _compares(self) -> bool:
        """Whether a step takes the KL to the whole model."""
        return self.minimise != "task" or (self.control == "hold" and self.holds != "loss")

    @property
    def _attacked(self) -> bool:
        return any(condition_named(name).leaves == "worst" for name, _ in self.under)

    def _controlled(self, multipliers: Any) -> Any:
        return multipliers["control"] if self._attacked else multipliers

    def _aim(self, hyper: Hyper) -> Any:
        return hyper.aim * hyper.held


def _each(of: Any) -> tuple[Any, ...]:
    """A tuple of conditions, or the only one."""
    return of if type(of) is tuple else (of,)


def _first(data: Data) -> GatedModel:
    found: GatedModel = _each(data)[0]
    return found


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
        odds = odds_of(answers_under(model, gates, batch, reference), batch)
        return {"odds": odds, "task": task_losses(odds)}
    logits = logits_under(model, gates, batch, reference)
    odds = odds_of(picked(logits, batch), batch)
    found = {"odds": odds, "task": task_losses(odds)}
    if loss == "vocabulary":
        found["task"] = vocabulary_losses(logits, batch)
    if kl:
        assert reference.full is not None
        found["kl"] = kl_divergence(logits, reference.full)
    return found


def total_loss(kind: str, found: dict[str, jax.Array]) -> jax.Array:
    """One loss in nats of what `objective.measured` found: `task`, `calibrated`, `kl`."""
    if kind == "calibrated":
        return jnp.mean(calibrated_losses(found["odds"]))
    return jnp.mean(found[kind])
