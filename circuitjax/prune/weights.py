"""Weight masks as an objective: gates on single nonzero weights, alone or with gates on nodes.

    minimised   task loss + size term of the number of open weights

A weight counts as open when it and both of its ends are: closing a node saves all its weights. A
closed node holds its fill, and a closed v closes the weights it is read by. A node that no open
weight enters is closed as well: both as in the final cut, which else would cut another circuit.

Where selection calibrates every candidate, the loss is one under its own best calibration here too:
training would otherwise spend weights on moving the logits, which the calibration does for nothing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import shapes
from circuitjax.prune import opening
from circuitjax.prune.calibrate import calibrated_loss
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.gates import tie
from circuitjax.prune.objective import AnyPairs, OnPairs, binary_losses, task_loss
from circuitjax.prune.opening import Control, GateHyper, GateKind
from circuitjax.prune.weight_gates import WeightData, weight_differences, weight_logits

__all__ = ["WeightMasks", "closed_v", "default_weight_hyper", "weight_task_loss"]

Tau = dict[str, Any]


def default_weight_hyper(
    num_weights: int, gate: GateKind = "heaviside", control: Control = "hold", **changes: float
) -> GateHyper:
    """Defaults that suit the control and the gate.

    k_coef is 3e-3 nats per open weight where it adapts. Where it is fixed it is 0.04 E^-0.4, 3e-4
    for 10^5 weights and 5e-3 for a small circuit's: a fixed number of nats over E would close every
    gate of a small start at once. The scores of hard-concrete gates are log odds: they start higher
    and move faster.
    """
    own = {"lr": 0.2, "init": 1.0, "init_noise_scale": 0.01} if gate == "hard_concrete" else {}
    k_coef = 3e-3 if control == "hold" else 0.04 * max(num_weights, 1) ** -0.4
    hyper = GateHyper(**{"k_coef": k_coef, **own, **changes})
    hyper.check()
    return hyper


def weight_task_loss(
    config: TransformerConfig,
    prune: PruneConfig,
    data: WeightData,
    z: jax.Array,
    gates: dict[str, jax.Array],
    pairs: AnyPairs,
) -> jax.Array:
    """Mean task loss in nats under gates of weights z `[E]` and of nodes {site: `[L, W]`}.

    A binary loss is one under its best calibration if every candidate is to be calibrated.
    """
    if prune.loss == "binary":
        differences = weight_differences(config, data, z, gates, pairs)
        if prune.calibrate == "inside":
            return calibrated_loss(differences)
        return jnp.mean(binary_losses(differences))
    return task_loss(prune, weight_logits(config, data, z, gates, pairs), pairs.answers)


@dataclasses.dataclass(frozen=True)
class WeightMasks(OnPairs):
    """An `Objective` of the training loop.

    Its data is `WeightData`, its items are pairs in rows of any kind; tau is {"weights": `[E]`}
    and, with `node_gates`, {"nodes": {site: `[L, W]`}}. Metrics: `task` (nats) and `k`, the (expected)
    number of open weights.

    Attributes:
      config, prune: model and static configuration.
      total: E, the number of gates on weights, padding included.
      gate: how a gate opens.
      control: what keeps gates closed; a target sparsity is one of all weights that have a gate.
      node_gates: whether nodes have gates as well.
    """

    config: TransformerConfig
    prune: PruneConfig
    total: int
    gate: GateKind = "heaviside"
    control: Control = "hold"
    node_gates: bool = False

    @property
    def separable(self) -> bool:
        """A mean over pairs, unless it is calibrated on the batch."""
        return self.prune.calibrate != "inside"

    def init(self, key: jax.Array, hyper: GateHyper) -> tuple[Tau, Any]:
        """Gaussian scores, and multipliers where a sparsity is held."""
        tau: Tau = {"weights": opening.initial(self.gate, key, (self.total,), hyper)}
        if self.node_gates:
            tau["nodes"] = {
                site: opening.initial(self.gate, jax.random.fold_in(key, index + 1), shape, hyper)
                for index, (site, shape) in enumerate(shapes(self.config).items())
                if not (self.prune.tie_qk and site == "attn.k")
            }
        return tau, opening.start_multipliers(self.control, self.total)

    def gates(
        self, tau: Tau, hyper: GateHyper, key: jax.Array, data: WeightData
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        """Gates of one step: of weights `[E]`, of nodes, and how many weights are open."""
        scores, index = tau["weights"], data.index
        z = opening.open_gates(self.gate, key, scores, hyper)
        opened = opening.expected(self.gate, scores, hyper) * index.real()
        entered = index.entered(self.config, z)
        if not self.node_gates:
            return *closed_v(data, z, entered), jnp.sum(opened)
        drawn = {
            site: opening.open_gates(self.gate, jax.random.fold_in(key, number + 1), score, hyper)
            for number, (site, score) in enumerate(tau["nodes"].items())
        }
        chance = {s: opening.expected(self.gate, score, hyper) for s, score in tau["nodes"].items()}
        drawn, chance = tie(drawn), tie(chance)
        for end in ("source", "target"):
            opened = opened * index.at_ends(chance, end)
        nodes = {site: gates * entered[site] for site, gates in drawn.items()}
        return *closed_v(data, z, nodes), jnp.sum(opened)

    def loss(
        self,
        tau: Tau,
        multipliers: Any,
        hyper: GateHyper,
        at: tuple[jax.Array, jax.Array],
        data: WeightData,
        batch: AnyPairs,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Task loss and the cost of the open weights."""
        key, step = at
        z, gates, opened = self.gates(tau, hyper, key, data)
        task = weight_task_loss(self.config, self.prune, data, z, gates, batch)
        there: Any = jnp.maximum(jnp.sum(data.index.real()), 1)
        size = opening.size_term(
            self.control,
            opened,
            there,
            multipliers,
            hyper,
            step,
            self.prune.steps,
            (task, self._aim(hyper)),
        )
        return task + size, {"task": task, "k": opened}

    def rate(self, hyper: GateHyper, step: jax.Array) -> jax.Array:
        """See `opening.learning_rate`."""
        return opening.learning_rate(self.control, hyper, step, self.prune.steps)

    def project(self, tau: Tau) -> Tau:
        """Scores back within bounds."""
        return opening.project(self.gate, tau)

    def ascend(self, multipliers: Any, gradient: Any, hyper: GateHyper) -> Any:
        """Gradient ascent of the multipliers, if any."""
        return opening.ascend(self.control, multipliers, gradient, hyper, self._aim(hyper))

    def _aim(self, hyper: GateHyper) -> jax.Array:
        """Nats at which `hold` holds the task loss."""
        return hyper.aim * self.prune.target_loss


def closed_v(
    data: WeightData, z: jax.Array, nodes: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Gates of weights and nodes, those of v nodes moved to the weights that read them."""
    parts, index = data.index.split(z), data.index
    name = "v->resid_delta"
    parts[name] = parts[name] * nodes["attn.v"].reshape(-1)[index.source[name]]
    gates = {s: base * nodes[s] if s != "attn.v" else base for s, base in data.base.items()}
    return index.join(parts), gates
