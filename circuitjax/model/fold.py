"""Folds closed nodes of a gated model into constants, on the host; `reduced_layers.py` runs the result.

A closed node is a constant, so what it feeds becomes part of a bias:

    closed act_in channel       fill * its row of the kernel      -> biases of q, k, v or neurons
    closed neuron               fill * its row of the kernel      -> the write's bias
    closed v channel            fill * its row * (1 - sink weight): a v channel that is always 1
    q and k channel both closed a shift of the head's scores: the sink moves the other way
    a head with no more than that a share of ones that depends on how many tokens are seen: no attention
    closed resid_delta channel  its fill                          -> the write's bias

Nodes that can reach nothing through nonzero weights are dropped as well, so a sparse model shrinks
even with everything open.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.widths import Stretch, Widths, stretches, widest

__all__ = ["fold_layers"]

# Widths are rounded up to multiples, so that few distinct shapes are ever compiled.
_WIDTH_STEP, _CHANNEL_STEP, _HEAD_STEP = 8, 4, 2


@dataclasses.dataclass
class _Plan:
    """What one layer keeps: original indices, and everything closed folded into constants.

    `channels[name][i]` are the channels of live head `heads[i]`, within that head.
    """

    heads: np.ndarray
    channels: dict[str, list[np.ndarray]]
    ones: np.ndarray  # [len(heads), D]: what the always-1 v channel writes
    sinks: np.ndarray  # [len(heads)]
    steady_ones: np.ndarray  # [heads of equal scores and constant v, D]: likewise
    steady_sinks: np.ndarray
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
    mixes = open_v.reshape(by_head).any(axis=1)
    live = mixes | np.any(ones != 0, axis=1)
    open_q, open_k, fill_q, fill_k = (
        tree[f"attn.{name}"] for tree in (keep, fill) for name in ("q", "k")
    )
    # With a sink, a q channel against a constant k moves all real keys against it; else it cancels.
    q_alone = open_q & (fill_k != 0) if config.attention_sinks else np.zeros_like(open_q)
    pairs = (open_q & open_k) | q_alone | (open_k & (fill_q != 0))
    pairs &= np.repeat(live, config.d_head)
    steady = live & ~mixes & ~pairs.reshape(by_head).any(axis=1)
    heads = np.flatnonzero(live & ~steady)
    shift = np.where(open_q | open_k, 0.0, fill_q * fill_k).reshape(by_head).sum(axis=1)
    sinks = params["attn_sink"] if config.attention_sinks else np.zeros(config.num_heads)
    sinks = sinks - shift * config.score_scale
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
        sinks=sinks[heads],
        steady_ones=ones[steady],
        steady_sinks=sinks[steady],
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


def _round_up(width: int, step: int, finely: bool = False) -> int:
    """0, or the smallest step * 2^i that is not below `width`; finely, 3/4 of that if it is enough."""
    steps = -(-width // step)
    power = 2 ** max(0, (steps - 1).bit_length())
    if finely and power > 2 and steps <= 3 * power // 4:
        power = 3 * power // 4
    return step * power if width else 0


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
    widths: Widths,
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
            others = tuple(a for a in range(matrix.ndim) if a != axis)
            present = np.expand_dims(index >= 0, others)
            matrix = np.where(present, np.take(matrix, np.maximum(index, 0), axis=axis), 0.0)
        return matrix

    reads = {
        "attn": pad(plan.reads["attn"], widths.attn_reads),
        "mlp": pad(plan.reads["mlp"], widths.mlp_reads),
    }
    for block, index in reads.items():
        nodes(f"{block}.act_in", f"{block}.act_in", index)

    heads, channels = widths.heads, widths.channels
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
    spare = widths.steady - len(plan.steady_sinks)
    packed["steady_sink"] = np.r_[plan.steady_sinks, np.zeros(spare)]
    packed["steady_out"] = np.r_[plan.steady_ones, np.zeros((spare, config.d_model))]
    packed["attn_out"], packed["attn_out_bias"] = out, plan.out_biases["attn"]

    neurons = pad(plan.neurons, widths.neurons)
    nodes("post_act", "mlp.post_act", neurons)
    packed["mlp_in"] = cut(plan.kernels["mlp_in"], reads["mlp"], neurons)
    packed["mlp_in_bias"] = cut(plan.biases["mlp_in"], neurons)
    packed["mlp_out"] = cut(plan.out_kernels["mlp"], neurons)
    packed["mlp_out_bias"] = plan.out_biases["mlp"]
    for block in ("attn", "mlp"):
        nodes(f"{block}.resid_delta", f"{block}.resid_delta", np.arange(config.d_model))
    return packed


def _widths(plan: _Plan, finely: bool) -> Widths:
    """What one layer needs, rounded up."""
    per_head = [
        len(kept) + (name == "v" and bool(np.any(plan.ones[row] != 0)))
        for name, channels in plan.channels.items()
        for row, kept in enumerate(channels)
    ]
    return Widths(
        heads=_round_up(len(plan.heads), _HEAD_STEP, finely),
        steady=_round_up(len(plan.steady_sinks), _HEAD_STEP, finely),
        channels=_round_up(max([0, *per_head]), _CHANNEL_STEP, finely),
        neurons=_round_up(len(plan.neurons), _WIDTH_STEP, finely),
        attn_reads=_round_up(len(plan.reads["attn"]), _WIDTH_STEP, finely),
        mlp_reads=_round_up(len(plan.reads["mlp"]), _WIDTH_STEP, finely),
    )


def fold_layers(
    config: TransformerConfig,
    params: Mapping[str, np.ndarray],
    keep: Mapping[str, np.ndarray],
    fills: Mapping[str, np.ndarray],
    own_widths: bool = False,
    at_least: Widths | None = None,
) -> tuple[dict[str, np.ndarray], Widths, tuple[Stretch, ...]]:
    """The layers' arrays with everything closed folded away.

    Args:
      config: the model's description; no AbsTopK at node sites.
      params: the stacked layers, `[L, ...]` each.
      keep: {site: bool `[L, W]`} for every site.
      fills: {site: `[L, W]`} for every site.
      own_widths: whether layers are to run at their own widths, rather than all at one.
      at_least: widths that none is to be below.

    Returns:
      {name: `[L, ...]`}. Kernels and biases at the widest layer's widths; for each site also `.index`
      (the original node of each padded place), `.real` (whether an open node stands there) and
      `.fill`. Then these widths, and those at which the layers can run.
    """
    stacked = {k: np.asarray(v, np.float64) for k, v in params.items()}
    opens, fillings, plans = [], [], []
    for layer in range(config.num_layers):
        opens.append({site: value[layer] for site, value in keep.items()})
        fillings.append({site: value[layer] for site, value in fills.items()})
        own = {name: value[layer] for name, value in stacked.items()}
        plans.append(_plan(config, own, opens[-1], fillings[-1]))

    each = [_widths(plan, own_widths) for plan in plans]
    if at_least is not None:
        each = [widest([own, at_least]) for own in each]
    widths = widest(each)
    packed = [
        _pack(config, *parts, widths=widths) for parts in zip(plans, opens, fillings, strict=True)
    ]
    stack: dict[str, np.ndarray] = {}
    for name in packed[0]:
        array = np.stack([layer[name] for layer in packed])
        # In the device's types: there every shape's conversion would be a program to compile.
        stack[name] = array.astype({"f": np.float32, "i": np.int32}.get(array.dtype.kind, bool))
    norms = {k: v.astype(np.float32) for k, v in stacked.items() if "norm" in k}
    return stack | norms, widths, stretches(each) if own_widths else stretches(each, 1)
