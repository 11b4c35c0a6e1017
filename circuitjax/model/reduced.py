"""A gated model without the work for what is closed: the same function, smaller matrices.

`fold.py` turns closed nodes into biases on the host, once; this module runs what remains. The
layers are padded to one width and scanned. The residual stream keeps its full width, because every
norm needs its sum of squares; who knows what the other channels hold may pass their moments
(`Outside`) and run the layers on fewer.

Axis letters as in `layers.py`; primes are reduced widths: H' heads that attend, H" steady ones (of
equal scores and constant v), C' channels per head, F' neurons, R channels read by a block, S residual
channels that are carried (D unless cut).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model import layers
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.fold import fold_layers
from circuitjax.model.layout import Layout
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import Gates, Params

__all__ = [
    "Outside",
    "Reduced",
    "apply_reduced",
    "can_reduce",
    "embed_tokens",
    "reduce_model",
    "run_layers",
    "unembed",
]

# {"attn" or "mlp": (sum, sum of squares), each `[L, B, T, 1]`} of the residual channels that are
# not carried, as that block's norm finds them.
Outside = Mapping[str, tuple[jax.Array, jax.Array]]


@flax.struct.dataclass
class Reduced:
    """A model whose closed nodes are folded away; a pytree of arrays.

    Attributes:
      shared: what no layer owns, as in `transformer.Params`: embeddings, final norm, unembedding.
      stack: {name: `[L, ...]`} folded arrays of the layers.
      config: the original model's description (static).
    """

    shared: dict[str, jax.Array]
    stack: dict[str, jax.Array]
    config: TransformerConfig = flax.struct.field(pytree_node=False)

    @property
    def widths(self) -> dict[str, int]:
        """Padded sizes: `heads` H', `steady` H", `channels` C', `neurons` F', reads of both blocks R."""
        return {
            "heads": self.stack["attn_sink"].shape[1],
            "steady": self.stack["steady_sink"].shape[1],
            "channels": self.stack["v.bias"].shape[1] // max(1, self.stack["attn_sink"].shape[1]),
            "neurons": self.stack["mlp_in_bias"].shape[1],
            "attn.reads": self.stack["attn.act_in.index"].shape[1],
            "mlp.reads": self.stack["mlp.act_in.index"].shape[1],
        }


def can_reduce(config: TransformerConfig) -> bool:
    """Whether an exact reduction exists: not where AbsTopK acts at a node site.

    There every activation competes with every other, so even those of closed nodes are needed.
    """
    return all(config.top_k_at(site) is None for site in SITES)


def reduce_model(
    config: TransformerConfig,
    params: Params,
    keep: Mapping[str, np.ndarray],
    fills: Mapping[str, np.ndarray] | None = None,
) -> Reduced:
    """Folds closed nodes away, so that `apply_reduced` equals the gated model to float32 rounding.

    Args:
      config: the model's description.
      params: as from `transformer.init_params`.
      keep: {site: bool `[L, W]`} of the nodes that stay, a superset of what later gates open; an
        absent site stays whole.
      fills: {site: `[L, W]`} replacements, constant over tokens; an absent site's are zero.

    Raises:
      ValueError: AbsTopK acts at a node site; an unknown site; or a wrong shape.
    """
    if not can_reduce(config):
        raise ValueError(
            f"abs_top_k_sites {config.abs_top_k_sites} include node sites, where AbsTopK needs the "
            "activations of closed nodes too: run transformer.apply with gates instead"
        )
    opened, filled = {}, {}
    for name, tree in (("keep", keep), ("fills", fills or {})):
        for site in tree:
            if site not in SITES:
                raise ValueError(f"{name} has an unknown site {site!r}; choose from {SITES}")
    for site, shape in shapes(config).items():
        opened[site] = np.asarray(keep.get(site, np.ones(shape)), bool)
        filled[site] = np.asarray((fills or {}).get(site, np.zeros(shape)), np.float64)
        for name, value in (("keep", opened[site]), ("fills", filled[site])):
            if value.shape != shape:
                raise ValueError(f"{name} of {site} is shaped {value.shape}; it must be {shape}")

    stack = fold_layers(config, params["layers"], opened, filled)
    shared = {name: value for name, value in params.items() if name != "layers"}
    return Reduced(
        shared={name: jnp.asarray(value) for name, value in shared.items()},
        stack={name: jnp.asarray(value) for name, value in stack.items()},
        config=config,
    )


def _linear(
    config: TransformerConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> jax.Array:
    """`layers.linear`, where the width read may be 0: the bias alone."""
    if kernel.shape[0] == 0:
        return jnp.broadcast_to(bias[None, None, :], (*x.shape[:-1], len(bias)))
    return layers.linear(config, x, kernel, bias)


def _norm(params: Mapping[str, jax.Array], name: str) -> dict[str, jax.Array]:
    found = {part: params.get(f"{name}_{part}") for part in ("scale", "bias")}
    return {part: value for part, value in found.items() if value is not None}


def _node(
    layer: Mapping[str, jax.Array], gates: Gates, name: str, site: str, value: jax.Array
) -> jax.Array:
    """Applies a further gate `[W]` over original nodes to reduced activations `[B, T, W']`."""
    gate = gates.get(site)
    if gate is None:
        return value
    gate = jnp.where(layer[f"{name}.real"], gate[layer[f"{name}.index"]], 1.0)
    return layers.replace_closed(value, gate, layer[f"{name}.fill"])


def _normalise(
    config: TransformerConfig,
    x: jax.Array,
    params: Mapping[str, jax.Array],
    outside: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """`layers.normalise` of x `[B, T, S]`, where D - S more channels have the moments `outside`."""
    if outside is None or config.norm == "none":
        return layers.normalise(config, x, params)
    total, squares = outside
    if config.norm == "layer":
        mean = (jnp.sum(x, axis=-1, keepdims=True) + total) / config.d_model
        others = config.d_model - x.shape[-1]
        x, squares = x - mean, squares - mean * (2 * total - others * mean)
    eps = config.norm_eps
    if eps is None:
        eps = 1e-5 if config.norm == "layer" else float(jnp.finfo(jnp.float32).eps)
    squares = squares + jnp.sum(x * x, axis=-1, keepdims=True)
    x = x * lax.rsqrt(squares / config.d_model + eps) * params["scale"][None, None, :]
    return x + params["bias"][None, None, :] if "bias" in params else x


def _read(
    config: TransformerConfig,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    block: str,
    x: jax.Array,
    places: jax.Array | None,
    outside: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    """The normalised channels `[B, T, R]` that a block reads of x `[B, T, S]`."""
    x = _normalise(config, x, _norm(layer, f"{block}_norm"), outside)
    if places is not None:
        places = layers.normalise(config, places, _norm(layer, f"{block}_position_norm"))
        x = jnp.concatenate([x, places], axis=-1)
    x = jnp.take(x, layer[f"{block}.act_in.index"], axis=-1)
    return _node(layer, gates, f"{block}.act_in", f"{block}.act_in", x)


def _write(
    config: TransformerConfig,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    block: str,
    x: jax.Array,
    hidden: jax.Array,
) -> jax.Array:
    delta = _linear(config, hidden, layer[f"{block}_out"], layer[f"{block}_out_bias"])
    x = x + _node(layer, gates, f"{block}.resid_delta", f"{block}.resid_delta", delta)
    if config.residual_activation == "relu":
        x = jax.nn.relu(x)
    return layers.keep_largest(config, x, f"resid.post_{block}")


def _steady(
    config: TransformerConfig,
    sinks: jax.Array,
    here: jax.Array,
    num_keys: int,
    positions: jax.Array | None,
    visible: jax.Array | None,
) -> jax.Array:
    """What heads give to tokens, rather than to their sinks, if all scores are 0: `[B, P, H"]`."""
    if visible is not None:
        seen = jnp.sum(visible, axis=-1)
    else:
        asked = jnp.arange(num_keys)[None] if positions is None else positions
        seen = jnp.broadcast_to(asked + 1 if config.causal else num_keys, here.shape[:2])
    return jax.nn.sigmoid(jnp.log(seen.astype(here.dtype))[..., None] - sinks[None, None, :])


def _block(
    reduced: Reduced,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    outside: Outside,
    x: jax.Array,
    places: jax.Array | None,
    positions: jax.Array | None = None,
    visible: jax.Array | None = None,
) -> jax.Array:
    """One layer: x `[B, T, S]` to the same, or to `[B, P, S]` at `positions`."""
    config, widths = reduced.config, reduced.widths
    here, asked_places, beside_mlp = x, places, outside.get("mlp")
    if positions is not None:
        here = layers.take_positions(x, positions)
        if places is not None:
            asked_places = layers.take_positions(places, positions)
        if beside_mlp is not None:
            total, squares = (layers.take_positions(part, positions) for part in beside_mlp)
            beside_mlp = total, squares

    if visible is not None and positions is not None:
        visible = layers.take_positions(visible, positions)
    if widths["heads"]:
        read = _read(config, layer, gates, "attn", x, places, outside.get("attn"))
        asked = read if positions is None else layers.take_positions(read, positions)
        q, k, v = (
            _node(
                layer,
                gates,
                name,
                f"attn.{name}",
                _linear(config, value, layer[f"{name}.kernel"], layer[f"{name}.bias"]),
            )
            for name, value in (("q", asked), ("k", read), ("v", read))
        )
        small = dataclasses.replace(config, num_heads=widths["heads"], d_head=widths["channels"])
        q = q * (small.d_head / config.d_head) ** 0.5  # the scores' scale is the original head's
        sinks = layer["attn_sink"] if config.attention_sinks else None
        mixed, _ = layers.attend(small, q, k, v, sinks, positions, visible)
    else:
        mixed = jnp.zeros((*here.shape[:2], 0), x.dtype)
    if widths["steady"]:
        shares = _steady(config, layer["steady_sink"], here, x.shape[1], positions, visible)
        mixed = jnp.concatenate([mixed, shares], axis=-1)
        layer = {**layer, "attn_out": jnp.concatenate([layer["attn_out"], layer["steady_out"]])}
    x = _write(config, layer, gates, "attn", here, mixed)
    read = _read(config, layer, gates, "mlp", x, asked_places, beside_mlp)
    hidden = _linear(config, read, layer["mlp_in"], layer["mlp_in_bias"])
    hidden = layers.activate(config, hidden)
    hidden = _node(layer, gates, "post_act", "mlp.post_act", hidden)
    return _write(config, layer, gates, "mlp", x, hidden)


def embed_tokens(
    reduced: Reduced, tokens: jax.Array, layout: Layout | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """The residual stream at its start `[B, T, D]`, and concatenated positions or None.

    Raises:
      ValueError: more tokens than the context length.
    """
    config, shared = reduced.config, reduced.shared
    if layout is None and tokens.shape[1] > config.context_length:
        raise ValueError(
            f"{tokens.shape[1]} tokens exceed the model's context length of {config.context_length}"
        )
    x = shared["embed"][tokens]
    if config.position == "none":
        return x, None
    if layout is None:
        embedding = shared["positions"][None, : tokens.shape[1]]
    else:
        embedding = shared["positions"][layout.places]
    if config.position == "learned":
        return x + embedding, None
    return x, jnp.broadcast_to(embedding, (*tokens.shape, config.d_position))


def run_layers(
    reduced: Reduced,
    x: jax.Array,
    places: jax.Array | None,
    gates: Gates | None = None,
    positions: jax.Array | None = None,
    outside: Outside | None = None,
    layout: Layout | None = None,
) -> jax.Array:
    """All layers: x `[B, T, S]` to the same, or to `[B, P, S]` at `positions` `[B, P]`."""
    visible = None if layout is None else layout.visible(reduced.config.causal)

    def step(carry: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        stack, gates, outside = layer
        return _block(reduced, stack, gates, outside, carry, places, None, visible), None

    everything = (reduced.stack, dict(gates or {}), dict(outside or {}))
    if positions is None:
        return lax.scan(step, x, everything)[0]
    # The last layer works only where logits are asked for.
    x, _ = lax.scan(step, x, jax.tree.map(lambda leaf: leaf[:-1], everything))
    stack, last_gates, beside = jax.tree.map(lambda leaf: leaf[-1], everything)
    return _block(reduced, stack, last_gates, beside, x, places, positions, visible)


def unembed(
    reduced: Reduced, x: jax.Array, last: jax.Array, candidates: jax.Array | None = None
) -> jax.Array:
    """Logits of x `[B, P, D]` above tokens `[B, P]`: all of V, or `candidates` `[B, [P,] Q]` only."""
    config, shared = reduced.config, reduced.shared
    if candidates is not None and candidates.ndim == 3:
        batch, asked, width = x.shape
        alone = batch * asked, 1
        x, last = x.reshape(*alone, width), last.reshape(alone)
        logits = unembed(reduced, x, last, candidates.reshape(batch * asked, -1))
        return logits.reshape(candidates.shape)
    x = layers.normalise(config, x, _norm(shared, "final_norm"))
    kernel = shared["embed"].T if config.tied_unembedding else shared["unembed"]
    if candidates is None:
        logits = layers.linear(config, x, kernel)
        if config.final_bias:
            logits = logits + shared["final_bias"][None, None, :]
        return logits + shared["bigram"][last] if config.bigram else logits
    columns = jnp.moveaxis(kernel[:, candidates], 0, 1)
    if config.matmul_dtype == "bfloat16":
        x, columns = x.astype(jnp.bfloat16), columns.astype(jnp.bfloat16)
    logits = jnp.einsum(
        "bpd,bdq->bpq",
        x,
        columns,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    if config.final_bias:
        logits = logits + shared["final_bias"][candidates][:, None, :]
    if config.bigram:
        logits = logits + shared["bigram"][last[:, :, None], candidates[:, None, :]]
    return logits


def apply_reduced(
    reduced: Reduced,
    tokens: jax.Array,
    gates: Gates | None = None,
    *,
    positions: jax.Array | None = None,
    candidates: jax.Array | None = None,
    layout: Layout | None = None,
) -> jax.Array:
    """Runs a reduced model.

    It equals `transformer.apply` with gates `keep` (times `gates`, where given) and the fills given
    to `reduce_model`. Gates may be traced and mapped over; gradients reach only nodes that can
    change the logits within `keep`.

    Args:
      reduced: as from `reduce_model`.
      tokens: int32 `[B, T]`.
      gates: {site: float `[L, W]`} over the original nodes, applied on top of `keep`; a node
        closed here takes its fill as in the full model. An absent site is as `keep` says.
      positions: int32 `[B, P]`: logits only there; the last layer works only there.
      candidates: int32 `[B, Q]`, or `[B, P, Q]` for each position: the vocabulary entries whose
        logits are wanted.
      layout: where tokens stand, if a row of tokens is more than one prompt.

    Returns:
      float32 logits `[B, T, V]`; P instead of T with `positions`, Q instead of V with `candidates`.

    Raises:
      ValueError: an unknown site in `gates`, or more tokens than the context length.
    """
    unknown = sorted(set(gates or {}) - set(SITES))
    if unknown:
        raise ValueError(f"unknown site {unknown[0]!r}; choose from {SITES}")
    x, places = embed_tokens(reduced, tokens, layout)
    x = run_layers(reduced, x, places, gates, positions, layout=layout)
    last = tokens if positions is None else jnp.take_along_axis(tokens, positions, axis=1)
    return unembed(reduced, x, last, candidates)
