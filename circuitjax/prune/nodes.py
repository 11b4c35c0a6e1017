"""Node masks as an objective: Heaviside gates at node sites, task loss plus k_coef per open node."""

import dataclasses
from typing import Any

import jax

from circuitjax.core.schedules import warmup_linear_decay
from circuitjax.model.config import TransformerConfig
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import Tau, clamp, init_tau
from circuitjax.prune.objective import AnyPairs, OnPairs, pruning_loss

__all__ = ["NodeMasks"]


@dataclasses.dataclass(frozen=True)
class NodeMasks(OnPairs):
    """Gao et al. 2025, section A.5; an `Objective` of the training loop.

    Its data is (parameters, fills), its items are pairs in rows of any kind, its metrics `task`
    (nats) and `k` (nodes).
    """

    config: TransformerConfig
    prune: PruneConfig

    @property
    def separable(self) -> bool:
        """A mean over pairs."""
        return True

    def init(self, key: jax.Array, hyper: Hyper) -> tuple[Tau, tuple[()]]:
        """Gaussian mask parameters; there are no multipliers."""
        return init_tau(key, self.config, hyper, self.prune.tie_qk), ()

    def loss(
        self,
        tau: Tau,
        multipliers: tuple[()],
        hyper: Hyper,
        at: tuple[jax.Array, jax.Array],
        data: Any,
        batch: AnyPairs,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """task + k_coef * k."""
        del multipliers, at
        params, fills = data
        return pruning_loss(self.config, self.prune, params, tau, hyper, fills, batch)

    def rate(self, hyper: Hyper, step: jax.Array) -> jax.Array:
        """Warm-up, then linear decay."""
        return hyper.lr * warmup_linear_decay(step, self.prune.steps, hyper.lr_warmup_frac)

    def project(self, tau: Tau) -> Tau:
        """Clamps to [-1, 1]."""
        return clamp(tau)

    def ascend(self, multipliers: tuple[()], gradient: tuple[()], hyper: Hyper) -> tuple[()]:
        """Nothing to ascend."""
        del gradient, hyper
        return multipliers
