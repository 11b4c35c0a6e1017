"""A circuit as its own small dense model: only kept channels, in the residual stream too.

`model.reduced` already drops what is closed inside the layers. Here the residual stream is cut as
well: the layers carry only the S channels that some kept node writes or reads. Each of the others
holds its embedding plus the constants of closed writes, so it depends on token and position alone;
all of them are worked out once, ahead of the layers, and enter each norm as a sum and a sum of
squares.

What stays at full size: the token and position embedding, the final norm and the unembedding (every
channel holds something of the token, and the logits read them all), and the bigram table and final
bias where the model has them. If AbsTopK acts on the residual stream, every channel competes with
every other and all D are carried.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model import reduced_forward as forward
from circuitjax.model.bounds import check_tokens
from circuitjax.model.config import RESIDUAL_SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.reduced import Reduced, reduce_model
from circuitjax.model.reduced_layers import run_layers

__all__ = ["CompactCircuit", "compact"]

_PARTS = ("attn", "mlp")


@dataclasses.dataclass(frozen=True, eq=False)
class CompactCircuit:
    """A runnable circuit that needs its model no more.

    Attributes:
      reduced: layers over S residual channels; what no layer owns over all D, the S carried ones
        first.
      beside: constants `[L, 2, D - S]` that each block's closed writes add to the other channels.
      channels: the original residual channels that are carried, `[S]`.
    """

    reduced: Reduced
    beside: jax.Array
    channels: np.ndarray

    @property
    def config(self) -> TransformerConfig:
        """The original model's description; with biases, where single weights are closed."""
        return self.reduced.config

    @property
    def num_parameters(self) -> dict[str, int]:
        """Stored numbers, padding included: of the `layers`, and of what is `shared` by all."""
        kernels = [v for v in self.reduced.stack.values() if jnp.issubdtype(v.dtype, jnp.floating)]
        return {
            "layers": sum(int(value.size) for value in kernels) + int(self.beside.size),
            "shared": sum(int(value.size) for value in self.reduced.shared.values()),
        }

    def logits(self, tokens: jax.Array, positions: jax.Array | None = None) -> jax.Array:
        """float32 `[B, T, V]` for tokens `[B, T]`, or `[B, P, V]` at `positions` `[B, P]`.

        They equal those of the model under the circuit's gates and fills to float32 rounding.

        Raises:
          ValueError: more tokens than the context length, or ids that the model does not have.
        """
        check_tokens(self.config, tokens, positions)
        tokens = jnp.asarray(tokens)
        return _run(self.reduced, self.beside, tokens, positions)


@jax.jit
def _run(
    reduced: Reduced,
    beside: jax.Array,
    tokens: jax.Array,
    positions: jax.Array | None,
) -> jax.Array:
    x, places = forward.embed_tokens(reduced, tokens)
    carried = x.shape[-1] - beside.shape[-1]
    x, others = x[..., :carried], x[..., carried:]

    def step(others: jax.Array, constants: jax.Array) -> tuple[jax.Array, dict]:
        """The other channels through one layer, and their moments before each block."""
        seen = {}
        for block, constant in zip(_PARTS, constants, strict=True):
            total = jnp.sum(others, axis=-1, keepdims=True)
            seen[block] = total, jnp.sum(others * others, axis=-1, keepdims=True)
            others = others + constant[None, None, :]
            if reduced.config.residual_activation == "relu":
                others = jax.nn.relu(others)
        return others, seen

    others, outside = jax.lax.scan(step, others, beside)
    x = run_layers(reduced, x, places, None, positions, outside)
    last = tokens
    if positions is not None:
        last = jnp.take_along_axis(tokens, positions, axis=1)
        others = jnp.take_along_axis(others, positions[:, :, None], axis=1)
    return forward.unembed(reduced, jnp.concatenate([x, others], axis=-1), last)


def _carried(
    config: TransformerConfig, mask: Mapping[str, np.ndarray], stack: Mapping[str, jax.Array]
) -> np.ndarray:
    """bool `[D]`: residual channels that some kept node writes, or reads to some effect."""
    if any(config.top_k_at(site) is not None for site in RESIDUAL_SITES):
        return np.ones(config.d_model, bool)
    carried = np.zeros(config.d_in, bool)
    for block in _PARTS:
        carried[: config.d_model] |= mask[f"{block}.resid_delta"].any(axis=0)
        index, real = (np.asarray(stack[f"{block}.act_in.{part}"]) for part in ("index", "real"))
        carried[index[real]] = True
    return carried[: config.d_model]


def compact(model: Model, circuit: Circuit) -> CompactCircuit:
    """Builds the circuit's own small model.

    Raises:
      ValueError: another model than the circuit's; AbsTopK at a node site (every activation competes
        there, so nothing can be left out); a circuit of residual edges, or one whose closed parts hold
        something else in every prompt.

    Examples:
      >>> small = cj.compact(model, circuit)
      >>> small.logits(problem.test.tokens[:2, 0]).shape[-1] == model.config.vocab_size
      True
    """
    view = circuit.parts(model).get("nodes")
    if view is None or view.model.held is None:
        raise ValueError(
            f"a circuit of {circuit.grain} under {circuit.ablation} ablation has no compact form: it "
            "takes gates on nodes or weights, and constants for what is closed"
        )
    gated: Any = view.model
    config, mask = gated.config, gated.tree(view.gates)
    params, fills = (jax.tree.map(np.asarray, dict(x)) for x in (gated.params, gated.held))
    reduced = reduce_model(config, params, mask, fills, own_widths=True)
    carried = _carried(config, mask, reduced.stack)
    channels, others = np.flatnonzero(carried), np.flatnonzero(~carried)
    order = np.concatenate([channels, others])

    # Where an original input (residual channel or concatenated position) lies after the cut.
    place = np.zeros(config.d_in, np.int32)
    place[channels] = np.arange(len(channels))
    place[config.d_model :] = len(channels) + np.arange(config.d_position)

    stack: dict[str, jax.Array] = {}
    for name, value in reduced.stack.items():
        if name.endswith((".real", ".fill")) or (name.endswith(".index") and "act_in" not in name):
            continue  # only further gates need them
        if name.endswith(".index"):
            value = jnp.asarray(place[np.asarray(value)])
        elif name.endswith(("_out", "_out_bias")) or (
            "_norm_" in name and "_position_norm_" not in name
        ):
            value = value[..., channels]
        stack[name] = value
    shared = dict(reduced.shared)
    for name, value in shared.items():
        if name == "unembed":
            shared[name] = value[order]
        elif name == "embed" or name.startswith("final_norm"):
            shared[name] = value[..., order]
        elif name == "positions" and config.position == "learned":
            shared[name] = value[:, order]
    beside = jnp.stack([reduced.stack[f"{block}_out_bias"][:, others] for block in _PARTS], axis=1)
    return CompactCircuit(
        reduced=dataclasses.replace(reduced, shared=shared, stack=stack),
        beside=beside,
        channels=channels,
    )
