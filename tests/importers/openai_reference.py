"""The released weight-sparse models in NumPy and float64, in their own names.

Written from the description of the format and sharing no code with the package: it reads the raw
config and the raw state dict, and knows nothing of ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

DEFAULTS = {
    "block_size": 1024,
    "vocab_size": 50304,
    "n_layer": 12,
    "n_head": 12,
    "d_model": 768,
    "bias": True,
    "ln_bias": True,
    "rms_norm": False,
    "residual_activation_type": "identity",
    "activation_type": "gelu",
    "afrac": None,
    "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out",
    "tied_unembed": True,
    "enable_bigram_table": False,
    "d_pos_emb": None,
    "sink": False,
}


def sizes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every default filled in."""
    full = {**DEFAULTS, **fields}
    if full.get("d_head") is None:
        full["d_head"] = full["d_model"] // full["n_head"]
    full["d_mlp"] = full.get("n_mlp") or full.get("d_mlp") or 4 * full["d_model"]
    return full


def random_state(
    fields: Mapping[str, Any], rng: np.random.Generator, final_bias: bool = True
) -> dict[str, np.ndarray]:
    """A float32 state dict in which nothing is at its usual value: norms, biases, sinks too."""
    c = sizes(fields)
    vocabulary, width, heads = c["vocab_size"], c["d_model"], c["n_head"] * c["d_head"]
    extra = c["d_pos_emb"] or 0

    def draw(*shape: int, around: float = 0.0) -> np.ndarray:
        return (around + rng.normal(0, 0.3, shape)).astype(np.float32)

    state = {
        "transformer.wte.weight": draw(vocabulary, width),
        "transformer.wpe.weight": draw(c["block_size"], extra or width),
    }

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = draw(size, around=1.0)
        if not c["rms_norm"] and c["ln_bias"]:
            state[f"{name}.bias"] = draw(size)

    def linear(name: str, inputs: int, outputs: int) -> None:
        state[f"{name}.weight"] = draw(outputs, inputs)
        if c["bias"]:
            state[f"{name}.bias"] = draw(outputs)

    for layer in range(c["n_layer"]):
        start = f"transformer.h.{layer}"
        norm(f"{start}.ln_1", width)
        linear(f"{start}.attn.c_attn", width + extra, 3 * heads)
        linear(f"{start}.attn.c_proj", heads, width)
        if c["sink"]:
            state[f"{start}.attn.attn_imp.sink_logit"] = draw(c["n_head"])
        norm(f"{start}.ln_2", width)
        linear(f"{start}.mlp.c_fc", width + extra, c["d_mlp"])
        linear(f"{start}.mlp.c_proj", c["d_mlp"], width)
        if extra:
            norm(f"{start}.ln_p1", extra)
            norm(f"{start}.ln_p2", extra)
    norm("transformer.ln_f", width)
    tied = state["transformer.wte.weight"]
    state["lm_head.weight"] = tied if c["tied_unembed"] else draw(vocabulary, width)
    if final_bias:
        state["final_logits_bias"] = draw(vocabulary)
    if c["enable_bigram_table"]:
        state["bigram_table"] = draw(vocabulary, vocabulary)
    return state


def sinusoids(length: int, width: int) -> np.ndarray:
    """Sines and cosines of periods from 4 to `length` positions, evenly spaced in the logarithm."""
    periods = np.geomspace(4, length, width // 2)
    angles = 2 * np.pi * np.arange(length)[:, None] / periods
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def run(
    fields: Mapping[str, Any], state: Mapping[str, np.ndarray], tokens: np.ndarray
) -> dict[str, np.ndarray]:
    """{"logits": `[B, T, V]`, "{layer}.{site}": `[B, T, W]`}."""
    c = sizes(fields)
    w = {name: np.asarray(value, np.float64) for name, value in state.items()}
    rows = [_run_one(c, w, row) for row in tokens]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _run_one(c: dict[str, Any], w: dict[str, np.ndarray], tokens: np.ndarray):
    seen: dict[str, np.ndarray] = {}

    def sparse(place: str, x: np.ndarray) -> np.ndarray:
        if c["afrac"] is None or place not in c["afrac_loctypes"].split(","):
            return x
        kept = int(c["afrac"] * x.shape[-1])
        order = np.argsort(-np.abs(x), axis=-1)
        out = np.zeros_like(x)
        for row in range(len(x)):
            best = order[row, :kept]
            out[row, best] = x[row, best]
        return out

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        if c["rms_norm"]:
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + np.finfo(np.float32).eps)
        else:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w.get(f"{name}.bias", 0.0)

    def settle(place: str, x: np.ndarray) -> np.ndarray:
        if c["residual_activation_type"] == "relu":
            x = np.maximum(x, 0)
        return sparse(place, x)

    places = w["transformer.wpe.weight"][: len(tokens)]
    x = w["transformer.wte.weight"][tokens]
    if c["d_pos_emb"] is None:
        x = x + places
    for layer in range(c["n_layer"]):
        start = f"transformer.h.{layer}"

        def read(which: str, x: np.ndarray, start: str = start) -> np.ndarray:
            out = norm(f"{start}.ln_{which}", x)
            if c["d_pos_emb"] is None:
                return out
            return np.concatenate([out, norm(f"{start}.ln_p{which}", places)], axis=-1)

        inside = seen[f"{layer}.attn.act_in"] = sparse("attn_in", read("1", x))
        parts = np.split(linear(f"{start}.attn.c_attn", inside), 3, axis=-1)
        for letter, part in zip("qkv", parts, strict=True):
            seen[f"{layer}.attn.{letter}"] = sparse(f"attn_{letter}", part)
        mixed = _attend(
            c,
            *(seen[f"{layer}.attn.{z}"] for z in "qkv"),
            w.get(f"{start}.attn.attn_imp.sink_logit"),
        )
        delta = sparse("attn_out", linear(f"{start}.attn.c_proj", mixed))
        seen[f"{layer}.attn.resid_delta"] = delta
        x = settle("resid_post_attn", x + delta)
        inside = seen[f"{layer}.mlp.act_in"] = sparse("mlp_in", read("2", x))
        hidden = linear(f"{start}.mlp.c_fc", inside)
        if c["activation_type"] == "relu":
            hidden = np.maximum(hidden, 0)
        else:
            hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
        hidden = seen[f"{layer}.mlp.post_act"] = sparse("mlp_neuron", hidden)
        delta = sparse("mlp_out", linear(f"{start}.mlp.c_proj", hidden))
        seen[f"{layer}.mlp.resid_delta"] = delta
        x = settle("resid_post_mlp", x + delta)
    head = w["transformer.wte.weight" if c["tied_unembed"] else "lm_head.weight"]
    logits = norm("transformer.ln_f", x) @ head.T + w.get("final_logits_bias", 0.0)
    if c["enable_bigram_table"]:
        logits = logits + w["bigram_table"][tokens]
    return {**seen, "logits": logits}


def _attend(c: dict[str, Any], q, k, v, sinks) -> np.ndarray:
    length, width = len(q), c["d_head"]
    out = np.zeros((length, c["n_head"] * width))
    for head in range(c["n_head"]):
        part = slice(head * width, (head + 1) * width)
        for here in range(length):
            scores = k[: here + 1, part] @ q[here, part] / math.sqrt(width)
            values = v[: here + 1, part]
            if sinks is not None:
                scores = np.append(scores, sinks[head])
                values = np.vstack([values, np.zeros(width)])
            shares = np.exp(scores - scores.max())
            out[here, part] = shares @ values / shares.sum()
    return out
