"""A gated model without the work for what is closed: the same function, smaller matrices.

A closed node is a constant, so what it feeds is folded, once and on the host, into biases:

    closed act_in channel       fill * its row of the kernel      -> biases of q, k, v, or of the neurons
    closed neuron               fill * its row of the kernel      -> the write's bias
    closed v channel            fill * its row * (1 - sink weight): a v channel that is always 1
    q and k channel both closed a shift of the head's scores: the sink moves the other way
    closed resid_delta channel  its fill                          -> the write's bias

Nodes that can reach nothing through nonzero weights are dropped as well, so a sparse model shrinks
even with everything open. What remains of each layer is padded to one width over all layers and
scanned. The residual stream keeps its full width, because every norm needs its sum of squares.

Axis letters as in `layers.py`; primes are reduced widths: H' heads, C' channels per head, F' neurons,
R channels read by a block.
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
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import Gates, Params

__all__ = ["Reduced", "apply_reduced", "can_reduce", "reduce_model"]

# Widths are rounded up to multiples, so that few distinct shapes are ever compiled.
_WIDTH_STEP, _CHANNEL_STEP, _HEAD_STEP = 8, 4, 2


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
        """Padded sizes: `heads` H', `channels` C', `neurons` F', `attn.reads` and `mlp.reads` R."""
        return {
            "heads": self.stack["attn_sink"].shape[1],
            "channels": self.stack["v.index"].shape[1] // max(1, self.stack["attn_sink"].shape[1]),
            "neurons": self.stack["post_act.index"].shape[1],
            "attn.reads": self.stack["attn.act_in.index"].shape[1],
            "mlp.reads": self.stack["mlp.act_in.index"].shape[1],
        }


def can_reduce(config: TransformerConfig) -> bool:
    """Whether an exact reduction exists: not where AbsTopK acts at a node site.

    There every activation competes with every other, so even those of closed nodes are needed.
    """
    return all(config.top_k_at(site) is None for site in SITES)


@dataclasses.dataclass
class _Plan:
    """What one layer keeps: original indices, and everything closed folded into constants.

    `channels[name][i]` are the channels of live head `heads[i]`, within that head.
    """

    heads: np.ndarray
    channels: dict[str, list[np.ndarray]]
    ones: np.ndarray  # [len(heads), D]: what the always-1 v channel writes
    sinks: np.ndarray  # [len(heads)]
    neurons: np.ndarray
    reads: dict[str, np.ndarray]
    kernels: dict[str, np.ndarray]  # q, k, v, mlp_in: full width, closed columns zero
    biases: dict[str, np.ndarray]  # likewise; a closed q or k column holds its fill
    out_kernels: dict[str, np.ndarray]  # attn, mlp: closed columns zero
    out_biases: dict[str, np.ndarray]


def _plan(
    config: TransformerConfig,
    params: Mapping[str, np.ndarray],
    keep: Mapping[str, np.ndarray],
    fill: Mapping[str, np.ndarray],
) -> _Plan:
    """Decides, from the writes backwards, what one layer has to compute."""

    def bias(name: str, width: int) -> np.ndarray:
        return params[name] if config.biases else np.zeros(width)

    def fold(block: str, name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of a map out of act_in, its closed inputs moved into the bias."""
        site, kernel = f"{block}.act_in", params[name]
        constant = np.where(keep[site], 0.0, fill[site])
        return kernel, bias(f"{name}_bias", width) + constant @ kernel

    def fold_write(block: str, inner: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kernel into the open writes, bias of all writes, and which open inputs reach one."""
        opened = keep[f"{block}.resid_delta"]
        kernel = np.where(opened, params[f"{block}_out"], 0.0)
        closed = np.where(opened, 0.0, fill[f"{block}.resid_delta"])
        reaching = keep[inner] & np.any(kernel != 0, axis=1)
        return kernel, np.where(opened, bias(f"{block}_out_bias", config.d_model), closed), reaching

    # Attention, from its write back to its reads.
    by_head = (config.num_heads, config.d_head)
    out_kernel, out_bias, open_v = fold_write("attn", "attn.v")
    constant_v = np.where(keep["attn.v"], 0.0, fill["attn.v"])
    ones = (constant_v[:, None] * out_kernel).reshape(*by_head, -1).sum(axis=1)
    if not config.attention_sinks:  # the weights sum to 1: a constant v is a constant write
        out_bias, ones = out_bias + ones.sum(axis=0), np.zeros_like(ones)
    live = open_v.reshape(by_head).any(axis=1) | np.any(ones != 0, axis=1)
    open_q, open_k, fill_q, fill_k = (
        tree[f"attn.{name}"] for tree in (keep, fill) for name in ("q", "k")
    )
    # With a sink, a q channel against a constant k moves all real keys against it; else it cancels.
    q_alone = open_q & (fill_k != 0) if config.attention_sinks else np.zeros_like(open_q)
    pairs = (open_q & open_k) | q_alone | (open_k & (fill_q != 0))
    pairs &= np.repeat(live, config.d_head)
    heads = np.flatnonzero(live)
    shift = np.where(open_q | open_k, 0.0, fill_q * fill_k).reshape(by_head).sum(axis=1)
    sinks = params["attn_sink"] if config.attention_sinks else np.zeros(config.num_heads)
    kernels, biases = {}, {}
    for name, opened in (("q", open_q & pairs), ("k", open_k & pairs), ("v", open_v)):
        kernel, folded = fold("attn", f"attn_{name}", config.d_attention)
        kernels[name] = np.where(opened, kernel, 0.0)
        biases[name] = np.where(opened, folded, fill[f"attn.{name}"])
    in_heads = {"qk": pairs.reshape(by_head), "v": open_v.reshape(by_head)}

    # MLP, likewise.
    mlp_kernel, mlp_bias, open_neurons = fold_write("mlp", "mlp.post_act")
    mlp_bias = mlp_bias + np.where(keep["mlp.post_act"], 0.0, fill["mlp.post_act"]) @ mlp_kernel
    kernel, folded = fold("mlp", "mlp_in", config.d_mlp)
    kernels["mlp_in"] = np.where(open_neurons, kernel, 0.0)
    biases["mlp_in"] = folded

    attn_used = np.any([np.any(kernels[name] != 0, axis=1) for name in "qkv"], axis=0)
    mlp_used = np.any(kernels["mlp_in"] != 0, axis=1)
    return _Plan(
        heads=heads,
        channels={k: [np.flatnonzero(v[head]) for head in heads] for k, v in in_heads.items()},
        ones=ones[heads],
        sinks=(sinks - shift * config.d_head**-0.5)[heads],
        neurons=np.flatnonzero(open_neurons),
        reads={
            "attn": np.flatnonzero(keep["attn.act_in"] & attn_used),
            "mlp": np.flatnonzero(keep["mlp.act_in"] & mlp_used),
        },
        kernels=kernels,
        biases=biases,
        out_kernels={"attn": out_kernel, "mlp": mlp_kernel},
        out_biases={"attn": out_bias, "mlp": mlp_bias},
    )


def _round_up(width: int, step: int) -> int:
    return -(-width // step) * step


def _place(config: TransformerConfig, plan: _Plan, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Original index of every padded channel `[H', C']` of q/k and of v; -1 where there is none."""
    placed = {name: np.full(size, -1) for name in plan.channels}
    for name, channels in plan.channels.items():
        for row, (head, kept) in enumerate(zip(plan.heads, channels, strict=True)):
            placed[name][row, : len(kept)] = head * config.d_head + kept
    return {name: index.reshape(-1) for name, index in placed.items()}


def _pack(
    config: TransformerConfig,
    plan: _Plan,
    keep: Mapping[str, np.ndarray],
    fill: Mapping[str, np.ndarray],
    widths: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """One layer's folded arrays at the common widths."""
    packed: dict[str, np.ndarray] = {}

    def nodes(name: str, site: str, index: np.ndarray) -> None:
        """What a further gate needs: where its value comes from, whether it acts, what replaces."""
        real = (index >= 0) & keep[site][index]
        packed[f"{name}.index"] = np.maximum(index, 0).astype(np.int32)
        packed[f"{name}.real"] = real
        packed[f"{name}.fill"] = np.where(real, fill[site][index], 0.0)

    def pad(index: np.ndarray, width: int) -> np.ndarray:
        return np.r_[index, np.full(width - len(index), -1, index.dtype)]

    def cut(matrix: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        """The entries at the indices along each leading axis; zero where an index is -1."""
        for axis, index in enumerate(indices):
            present = np.expand_dims(index >= 0, [a for a in range(matrix.ndim) if a != axis])
            matrix = np.where(present, np.take(matrix, np.maximum(index, 0), axis=axis), 0.0)
        return matrix

    reads = {block: pad(plan.reads[block], widths[f"{block}.reads"]) for block in ("attn", "mlp")}
    for block, index in reads.items():
        nodes(f"{block}.act_in", f"{block}.act_in", index)

    heads, channels = widths["heads"], widths["channels"]
    placed = _place(config, plan, (heads, channels))
    for name in "qkv":
        index = placed["v" if name == "v" else "qk"]
        nodes(name, f"attn.{name}", index)
        packed[f"{name}.kernel"] = cut(plan.kernels[name], reads["attn"], index)
        packed[f"{name}.bias"] = cut(plan.biases[name], index)
    out = cut(plan.out_kernels["attn"], placed["v"])
    for row, (kept, write) in enumerate(zip(plan.channels["v"], plan.ones, strict=True)):
        if np.any(write != 0):
            packed["v.bias"][row * channels + len(kept)] = 1.0
            out[row * channels + len(kept)] = write
    packed["attn_sink"] = np.r_[plan.sinks, np.zeros(heads - len(plan.sinks))]
    packed["attn_out"], packed["attn_out_bias"] = out, plan.out_biases["attn"]

    neurons = pad(plan.neurons, widths["neurons"])
    nodes("post_act", "mlp.post_act", neurons)
    packed["mlp_in"] = cut(plan.kernels["mlp_in"], reads["mlp"], neurons)
    packed["mlp_in_bias"] = cut(plan.biases["mlp_in"], neurons)
    packed["mlp_out"] = cut(plan.out_kernels["mlp"], neurons)
    packed["mlp_out_bias"] = plan.out_biases["mlp"]
    for block in ("attn", "mlp"):
        nodes(f"{block}.resid_delta", f"{block}.resid_delta", np.arange(config.d_model))
    return packed


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

    stacked = {k: np.asarray(v, np.float64) for k, v in params["layers"].items()}
    opens, fillings, plans = [], [], []
    for layer in range(config.num_layers):
        opens.append({site: value[layer] for site, value in opened.items()})
        fillings.append({site: value[layer] for site, value in filled.items()})
        own = {name: value[layer] for name, value in stacked.items()}
        plans.append(_plan(config, own, opens[-1], fillings[-1]))

    def most(sizes: list[int], step: int) -> int:
        return _round_up(max([0, *sizes]), step)

    per_head = [
        len(kept) + (name == "v" and bool(np.any(plan.ones[row] != 0)))
        for plan in plans
        for name, channels in plan.channels.items()
        for row, kept in enumerate(channels)
    ]
    widths = {
        "heads": most([len(plan.heads) for plan in plans], _HEAD_STEP),
        "channels": most(per_head, _CHANNEL_STEP),
        "neurons": most([len(plan.neurons) for plan in plans], _WIDTH_STEP),
        "attn.reads": most([len(plan.reads["attn"]) for plan in plans], _WIDTH_STEP),
        "mlp.reads": most([len(plan.reads["mlp"]) for plan in plans], _WIDTH_STEP),
    }
    packed = [
        _pack(config, *parts, widths=widths) for parts in zip(plans, opens, fillings, strict=True)
    ]
    stack: dict[str, np.ndarray] = {}
    for name in packed[0]:
        array = np.stack([layer[name] for layer in packed])
        stack[name] = array.astype(np.float32) if array.dtype == np.float64 else array
    stack |= {k: np.float32(v) for k, v in stacked.items() if "norm" in k}
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


def _read(
    config: TransformerConfig,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    block: str,
    x: jax.Array,
    places: jax.Array | None,
) -> jax.Array:
    """The normalised channels `[B, T, R]` that a block reads of x `[B, T, D]`."""
    x = layers.normalise(config, x, _norm(layer, f"{block}_norm"))
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


def _block(
    reduced: Reduced,
    layer: Mapping[str, jax.Array],
    gates: Gates,
    x: jax.Array,
    places: jax.Array | None,
    positions: jax.Array | None = None,
) -> jax.Array:
    """One layer: x `[B, T, D]` to the same, or to `[B, P, D]` at `positions`."""
    config, widths = reduced.config, reduced.widths

    def at(value: jax.Array | None) -> jax.Array | None:
        if positions is None or value is None:
            return value
        return layers.take_positions(value, positions)

    if widths["heads"]:
        read = _read(config, layer, gates, "attn", x, places)
        asked = {"q": at(read), "k": read, "v": read}
        q, k, v = (
            _node(
                layer,
                gates,
                name,
                f"attn.{name}",
                _linear(config, value, layer[f"{name}.kernel"], layer[f"{name}.bias"]),
            )
            for name, value in asked.items()
        )
        small = dataclasses.replace(config, num_heads=widths["heads"], d_head=widths["channels"])
        q = q * (small.d_head / config.d_head) ** 0.5  # the scores' scale is the original head's
        sinks = layer["attn_sink"] if config.attention_sinks else None
        mixed, _ = layers.attend(small, q, k, v, sinks, positions)
        x = _write(config, layer, gates, "attn", at(x), mixed)
    else:
        x = at(x)
        x = _write(config, layer, gates, "attn", x, jnp.zeros((*x.shape[:2], 0), x.dtype))
    read = _read(config, layer, gates, "mlp", x, at(places))
    hidden = _linear(config, read, layer["mlp_in"], layer["mlp_in_bias"])
    hidden = layers.activate(config, hidden)
    hidden = _node(layer, gates, "post_act", "mlp.post_act", hidden)
    return _write(config, layer, gates, "mlp", x, hidden)


def _logits(
    reduced: Reduced, x: jax.Array, last: jax.Array, candidates: jax.Array | None
) -> jax.Array:
    """Unembeds x `[B, P, D]` above tokens `[B, P]`: all of V, or `candidates` `[B, Q]` only."""
    config, shared = reduced.config, reduced.shared
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
    logits = jnp.matmul(
        x, columns, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
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
      candidates: int32 `[B, Q]`: the vocabulary entries whose logits are wanted.

    Returns:
      float32 logits `[B, T, V]`; P instead of T with `positions`, Q instead of V with `candidates`.

    Raises:
      ValueError: an unknown site in `gates`, or more tokens than the context length.
    """
    config, shared, stack = reduced.config, reduced.shared, reduced.stack
    gates = dict(gates or {})
    unknown = sorted(set(gates) - set(SITES))
    if unknown:
        raise ValueError(f"unknown site {unknown[0]!r}; choose from {SITES}")
    if tokens.shape[1] > config.context_length:
        raise ValueError(
            f"{tokens.shape[1]} tokens exceed the model's context length of {config.context_length}"
        )
    x, places = shared["embed"][tokens], None
    if config.position != "none":
        embedding = shared["positions"][None, : tokens.shape[1]]
        if config.position == "learned":
            x = x + embedding
        else:
            places = jnp.broadcast_to(embedding, (*tokens.shape, config.d_position))

    def step(carry: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        return _block(reduced, *layer, carry, places), None

    if positions is None:
        x, _ = lax.scan(step, x, (stack, gates))
        last = tokens
    else:
        x, _ = lax.scan(step, x, jax.tree.map(lambda leaf: leaf[:-1], (stack, gates)))
        final = jax.tree.map(lambda leaf: leaf[-1], (stack, gates))
        x = _block(reduced, *final, x, places, positions)
        last = jnp.take_along_axis(tokens, positions, axis=1)
    return _logits(reduced, x, last, candidates)
