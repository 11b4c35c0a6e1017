"""What is minimised: the task loss of the gated model, plus k_coef times the number of open nodes.

For a pair (positive, negative) with completions a and b, and logits at each prompt's last position,

    binary      mean over the two prompts of  softplus(-(right logit - wrong logit))
    vocabulary  mean over the two prompts of  -log softmax(logits)[right]

in nats (chance for `binary` is ln 2). Axis letters: B pairs, and an axis of 2 is (positive, negative).
"""

from typing import Any, NamedTuple, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.layout import Layout
from circuitjax.model.reduced import Reduced
from circuitjax.model.reduced_forward import apply_reduced
from circuitjax.model.transformer import Fills, Gates, Params, apply
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import Tau, gates_of, open_nodes

__all__ = [
    "AnyPairs",
    "OnPairs",
    "Pairs",
    "Prompts",
    "answer_logits",
    "binary_losses",
    "calibrated_differences",
    "logit_differences",
    "pruning_loss",
    "reduced_logits",
    "slices_of",
    "task_loss",
]

_SLICE = 1024  # tokens of a slice of a batch, at least: smaller products are slower ones


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

    def data_of(self, hyper: Any, data: Any) -> Any:
        """All jobs share one model."""
        del hyper
        return data


@flax.struct.dataclass
class Pairs:
    """Encoded pairs on the device.

    Attributes:
      tokens: int32 `[B, 2, T]`, right-padded.
      last: int32 `[B, 2]`, where each prompt ends.
      answers: int32 `[B, 2]`, the completions of the positive and of the negative prompt.
      row_length: slots of a row of two packed pairs (static); 0 where every prompt has a row of its
        own. See `packing.py`.
    """

    tokens: jax.Array
    last: jax.Array
    answers: jax.Array
    row_length: int = flax.struct.field(pytree_node=False, default=0)

    def take(self, index: jax.Array | np.ndarray) -> "Pairs":
        """The pairs at `index` `[B']`, on the host if the index is there."""
        # Every size of a slice would be a program of its own to compile on the device.
        host = isinstance(index, np.ndarray)
        return jax.tree.map(lambda leaf: (np.asarray(leaf) if host else leaf)[index], self)

    def draw(self, key: jax.Array, count: int) -> "Pairs":
        """`count` pairs, drawn with replacement."""
        return self.take(jax.random.randint(key, (count,), 0, self.size))

    @property
    def size(self) -> int:
        """Number of pairs."""
        return self.tokens.shape[0]

    @property
    def slices(self) -> int:
        """See `slices_of`."""
        return slices_of(self.tokens.shape[0], 2 * self.tokens.shape[-1])

    @property
    def prompts(self) -> "Prompts":
        """What goes through a model: a row for each prompt."""
        size, _, length = self.tokens.shape
        return Prompts(
            self.tokens.reshape(size * 2, length),
            self.last.reshape(size * 2, 1),
            jnp.repeat(self.answers, 2, axis=0)[:, None],
        )


class Prompts(NamedTuple):
    """Tokens of R rows, each of P prompts, and what is asked of them.

    Attributes:
      tokens: int32 `[R, T]`.
      positions: int32 `[R, P]`, the slot of each prompt's last token.
      candidates: int32 `[R, P, 2]`, the completions of a prompt's pair.
      layout: where the tokens stand, if rows hold more than a prompt.
    """

    tokens: jax.Array
    positions: jax.Array
    candidates: jax.Array
    layout: Layout | None = None


class AnyPairs(Protocol):
    """Pairs in rows of any kind: `Pairs`, `packing.Packed`."""

    @property
    def size(self) -> int:
        """B, the number of pairs."""

    @property
    def answers(self) -> jax.Array:
        """int32 `[B, 2]`, the completions of the positive and of the negative prompt."""

    @property
    def prompts(self) -> Prompts:
        """What goes through a model; in order of the pairs, positive before negative."""


def slices_of(rows: int, slots: int) -> int:
    """Parts in which a batch is best worked out on CPU: rows of a part stay in cache, if not too few."""
    return next((n for n in (4, 2) if rows % n == 0 and rows * slots >= n * _SLICE), 1)


def answer_logits(
    config: TransformerConfig,
    params: Params,
    pairs: AnyPairs,
    gates: Gates | None,
    fills: Fills | None,
) -> jax.Array:
    """Logits `[B, 2, V]` after each prompt's last token."""
    asked = pairs.prompts
    logits = apply(
        config,
        params,
        asked.tokens,
        gates,
        fills,
        positions=asked.positions,
        layout=asked.layout,
    ).logits
    return logits.reshape(pairs.size, 2, -1)


def reduced_logits(
    reduced: Reduced, pairs: AnyPairs, gates: Gates | None = None, *, candidates: bool = False
) -> jax.Array:
    """Logits `[B, 2, V]` of a reduced model; of each pair's completions alone, `[B, 2, 2]`."""
    asked = pairs.prompts
    logits = apply_reduced(
        reduced,
        asked.tokens,
        gates,
        positions=asked.positions,
        candidates=asked.candidates if candidates else None,
        layout=asked.layout,
    )
    return logits.reshape(pairs.size, 2, -1)


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


def calibrated_differences(differences: Any, scale: Any, shift: Any) -> Any:
    """scale * difference + shift: what a scale and a shift per completion do to a difference.

    Where the differences are, on the host or on the device, there the result is.
    """
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
    pairs: AnyPairs,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """task + k_coef * k, and {"task", "k"} apart (A.5, "Loss function")."""
    gates = gates_of(tau, hyper.heaviside_temp)
    task = task_loss(prune, answer_logits(config, params, pairs, gates, fills), pairs.answers)
    k = open_nodes(gates)
    return task + hyper.k_coef * k, {"task": task, "k": k}
