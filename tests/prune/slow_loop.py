"""A transformer under gates, one prompt and one layer at a time: what fast forward passes must equal.

Written from the equations alone, with nothing of the package but its configuration: RMSNorm,
learned positions, biases, an attention sink, exact GELU. `z` says what is open, `held` what closed
parts hold at each token.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig

CONFIG = TransformerConfig(
    num_layers=2,
    d_model=6,
    num_heads=2,
    d_head=3,
    d_mlp=5,
    vocab_size=9,
    context_length=6,
    attention_sinks=True,
)
FAMILY = {
    "act_in->q": ("attn.act_in", "attn_q"),
    "act_in->k": ("attn.act_in", "attn_k"),
    "act_in->v": ("attn.act_in", "attn_v"),
    "v->resid_delta": ("attn.mixed", "attn_out"),
    "act_in->post_act": ("mlp.act_in", "mlp_in"),
    "post_act->resid_delta": ("mlp.post_act", "mlp_out"),
}


def broadcasting(function):
    """The equations as they are written, without an axis spelled out for each bias."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return wrapped


def _norm(x, scale):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + np.finfo(np.float32).eps) * scale


def _attend(layer, q, k, v):
    mixed, heads, width = [], CONFIG.num_heads, CONFIG.d_head
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        scores = q[:, part] @ k[:, part].T / np.sqrt(width)
        scores = jnp.where(np.tril(np.ones(scores.shape)) > 0, scores, -jnp.inf)
        sink = jnp.full((len(q), 1), layer["attn_sink"][h])
        weights = jax.nn.softmax(jnp.concatenate([scores, sink], 1), axis=1)[:, :-1]
        mixed.append(weights @ v[:, part])
    return jnp.concatenate(mixed, 1)


@broadcasting
def run(params, tokens, gate=lambda layer, site, x: x, linear=None):
    """Logits `[T, V]` and what every site held, {site: [L arrays `[T, W]`]}, `attn.mixed` among them."""
    held = {}

    def at(number, site, x):
        held.setdefault(site, []).append(x)
        return gate(number, site, x)

    def product(number, family, x):
        kernel = FAMILY[family][1]
        layer = {n: v[number] for n, v in params["layers"].items()}
        if linear is None:
            return x @ layer[kernel] + layer[f"{kernel}_bias"]
        return linear(number, family, x, layer[kernel]) + layer[f"{kernel}_bias"]

    x = jnp.asarray(params["embed"])[tokens] + params["positions"][: len(tokens)]
    for number in range(CONFIG.num_layers):
        layer = {n: v[number] for n, v in params["layers"].items()}
        read = at(number, "attn.act_in", _norm(x, layer["attn_norm_scale"]))
        q, k, v = (
            at(number, f"attn.{n}", product(number, f"act_in->{n}", read)) for n in ("q", "k", "v")
        )
        mixed = _attend(layer, q, k, v)
        held.setdefault("attn.mixed", []).append(mixed)
        x = x + at(number, "attn.resid_delta", product(number, "v->resid_delta", mixed))
        read = at(number, "mlp.act_in", _norm(x, layer["mlp_norm_scale"]))
        hidden = jax.nn.gelu(product(number, "act_in->post_act", read), approximate=False)
        hidden = at(number, "mlp.post_act", hidden)
        x = x + at(number, "mlp.resid_delta", product(number, "post_act->resid_delta", hidden))
    x = _norm(x, params["final_norm_scale"])
    return x @ params["unembed"], held


@broadcasting
def nodes(params, tokens, z, held):
    """Logits under gates {site: `[L, W]`}; `held` is {site: `[L, T or 1, W]`}."""

    def gate(number, site, x):
        return z[site][number] * x + (1 - z[site][number]) * held[site][number]

    return run(params, tokens, gate)[0]


@broadcasting
def weights(params, tokens, z, held):
    """Logits under gates {family: `[L, in, out]`}; closed weights read `held` of their sources."""

    def linear(number, family, x, kernel):
        gates = z[family][number]
        return x @ (kernel * gates) + held[FAMILY[family][0]][number] @ (kernel * (1 - gates))

    return run(params, tokens, linear=linear)[0]


@broadcasting
def writers(params, tokens, held=None):
    """What every writer puts on the stream, in forward order: a list of `[T, D]`."""
    held = run(params, tokens)[1] if held is None else held
    found = [jnp.asarray(params["embed"])[tokens], params["positions"][: len(tokens)]]
    width = CONFIG.d_head
    for number in range(CONFIG.num_layers):
        out = params["layers"]["attn_out"][number]
        for h in range(CONFIG.num_heads):
            part = slice(h * width, (h + 1) * width)
            found.append(held["attn.mixed"][number][:, part] @ out[part])
        found.append(held["mlp.resid_delta"][number])
    return found


@broadcasting
def edges(params, tokens, z, held):
    """Logits under gates {(writer, reader): scalar} with `held[w]` `[T or 1, D]` for each writer w."""
    made = [jnp.asarray(params["embed"])[tokens], params["positions"][: len(tokens)]]
    names = ["embed", "pos"]
    always = 0.0  # biases of attention outputs belong to no head
    width = CONFIG.d_head

    def read(reader):
        total = always
        for name, y, r in zip(names, made, held, strict=False):
            total = total + r + z[name, reader] * (y - r)
        return total

    for number in range(CONFIG.num_layers):
        layer = {n: v[number] for n, v in params["layers"].items()}
        written = []
        for h in range(CONFIG.num_heads):
            part = slice(h * width, (h + 1) * width)
            q, k, v = (
                _norm(read(f"a{number}.h{h}<{n}>"), layer["attn_norm_scale"])
                @ layer[f"attn_{n}"][:, part]
                + layer[f"attn_{n}_bias"][part]
                for n in ("q", "k", "v")
            )
            one = {"attn_sink": layer["attn_sink"][h : h + 1]}
            written.append(_one_head(one, q, k, v) @ layer["attn_out"][part])
        made, names = made + written, names + [f"a{number}.h{h}" for h in range(CONFIG.num_heads)]
        always = always + layer["attn_out_bias"]
        x = _norm(read(f"m{number}<in>"), layer["mlp_norm_scale"])
        hidden = jax.nn.gelu(x @ layer["mlp_in"] + layer["mlp_in_bias"], approximate=False)
        made, names = (
            [*made, hidden @ layer["mlp_out"] + layer["mlp_out_bias"]],
            [*names, f"m{number}"],
        )
    return _norm(read("logits"), params["final_norm_scale"]) @ params["unembed"]


def _one_head(layer, q, k, v):
    scores = q @ k.T / np.sqrt(CONFIG.d_head)
    scores = jnp.where(np.tril(np.ones(scores.shape)) > 0, scores, -jnp.inf)
    sink = jnp.full((len(q), 1), layer["attn_sink"][0])
    return jax.nn.softmax(jnp.concatenate([scores, sink], 1), axis=1)[:, :-1] @ v
