"""What is minimised: the task loss of the gated model, plus k_coef times the number of open nodes.

For a pair (positive, negative) with completions a and b, and logits at each prompt's last position,

    binary      mean over the two prompts of  softplus(-(right logit - wrong logit))
    vocabulary  mean over the two prompts of  -log softmax(logits)[right]

in nats (chance for `binary` is ln 2). Axis letters: B pairs, and an axis of 2 is (positive, negative).
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Params, apply
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import Tau, gates_of, open_nodes

__all__ = [
    "OnPairs",
    "Pairs",
    "answer_logits",
    "binary_losses",
    "calibrated_differences",
    "logit_differences",
    "pruning_loss",
    "task_loss",
]


class OnPairs:
    """What every `Objective` that learns on pairs reads off its settings."""

    prune: PruneConfig

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.prune.steps

    @property
    def batch_size(self) -> int:
        """Pairs per step."""
        return self.prune.batch_size


@flax.struct.dataclass
class Pairs:
    """Encoded pairs on the device.

    Attributes:
      tokens: int32 `[B, 2, T]`, right-padded.
      last: int32 `[B, 2]`, where each prompt ends.
      answers: int32 `[B, 2]`, the completions of the positive and of the negative prompt.
    """

    tokens: jax.Array
    last: jax.Array
    answers: jax.Array

    def take(self, index: jax.Array | np.ndarray) -> "Pairs":
        """The pairs at `index` `[B']`."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    @property
    def size(self) -> int:
        """Number of pairs."""
        return self.tokens.shape[0]


def answer_logits(
    config: TransformerConfig,
    params: Params,
    pairs: Pairs,
    gates: Gates | None,
    fills: Fills | None,
) -> jax.Array:
    """Logits `[B, 2, V]` after each prompt's last token."""
    batch, _, length = pairs.tokens.shape
    logits = apply(
        config,
        params,
        pairs.tokens.reshape(batch * 2, length),
        gates,
        fills,
        positions=pairs.last.reshape(batch * 2, 1),
    ).logits
    return logits.reshape(batch, 2, -1)


def logit_differences(logits: jax.Array, answers: jax.Array) -> jax.Array:
    """logit of the positive's completion minus the negative's, after both prompts.

    Args:
      logits: `[B, 2, V]`.
      answers: `[B, 2]`.

    Returns:
      `[B, 2]`: a model that does the task has [:, 0] > 0 > [:, 1].
    """
    both = jnp.take_along_axis(logits, answers[:, None, :], axis=-1)
    return both[..., 0] - both[..., 1]


def binary_losses(differences: jax.Array) -> jax.Array:
    """Loss of each prompt in nats, from differences `[..., 2]`."""
    sign = jnp.array([-1.0, 1.0]).reshape((1,) * (differences.ndim - 1) + (2,))
    return jax.nn.softplus(sign * differences)


def calibrated_differences(
    differences: jax.Array, scale: jax.Array | float, shift: jax.Array | float
) -> jax.Array:
    """scale * difference + shift: what a scale and a shift per completion do to a difference."""
    return scale * differences + shift


def task_loss(prune: PruneConfig, logits: jax.Array, answers: jax.Array) -> jax.Array:
    """Mean task loss in nats, from logits `[B, 2, V]` and answers `[B, 2]`."""
    if prune.loss == "binary":
        return jnp.mean(binary_losses(logit_differences(logits, answers)))
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probs, answers[..., None], axis=-1))


def pruning_loss(
    config: TransformerConfig,
    prune: PruneConfig,
    params: Params,
    tau: Tau,
    hyper: Hyper,
    fills: Fills,
    pairs: Pairs,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """task + k_coef * k, and {"task", "k"} apart (A.5, "Loss function")."""
    gates = gates_of(tau, hyper.heaviside_temp)
    task = task_loss(prune, answer_logits(config, params, pairs, gates, fills), pairs.answers)
    k = open_nodes(gates)
    return task + hyper.k_coef * k, {"task": task, "k": k}
