"""The parts of one layer as pure functions of arrays; `transformer.py` puts them together.

Axis letters: B sequences, T positions (keys), P positions asked for (queries), D residual channels,
H heads, C channels per head, F neurons. Matrix products are done on two-dimensional operands
`[B*T, D]`: XLA's CPU backend runs them about twice as fast as on `[B, T, D]`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from circuitjax.core.magnitude import abs_top_k
from circuitjax.model.config import TransformerConfig
from circuitjax.model.corrected import pattern, share

__all__ = [
    "activate",
    "attend",
    "cap_logits",
    "embed",
    "gated",
    "keep_largest",
    "linear",
    "norm_factor",
    "norm_factors",
    "norm_params",
    "normalise",
    "replace_closed",
    "rms",
    "soft_cap",
    "take_positions",
]

_NEGATIVE = jnp.finfo(jnp.float32).min / 2


def linear(
    config: TransformerConfig, x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """x `[..., D]` times kernel `[D, F]` plus bias `[F]`, accumulated in float32: `[..., F]`."""
    rows = x.reshape(-1, x.shape[-1])
    if config.matmul_dtype == "bfloat16":
        rows, kernel = rows.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
        out = jnp.matmul(rows, kernel, preferred_element_type=jnp.float32)
    else:
        out = jnp.matmul(rows, kernel, precision=lax.Precision.HIGHEST)
    out = out.reshape(*x.shape[:-1], kernel.shape[-1])
    return out if bias is None else out + jnp.expand_dims(bias, range(out.ndim - 1))


def norm_params(params: Mapping[str, jax.Array], name: str) -> dict[str, jax.Array]:
    """What `normalise` takes, of `<name>_scale` and `<name>_bias`, as far as there are any."""
    found = {part: params.get(f"{name}_{part}") for part in ("scale", "bias")}
    return {part: value for part, value in found.items() if value is not None}


def norm_factor(config: TransformerConfig, x: jax.Array) -> jax.Array:
    """What RMSNorm or LayerNorm multiplies its (centred) input x `[..., D]` by: `[..., 1]`."""
    if config.norm == "none":
        return jnp.ones((*x.shape[:-1], 1))
    if config.norm == "layer":
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    return _factor(config, x)


def _factor(config: TransformerConfig, centred: jax.Array) -> jax.Array:
    eps = config.norm_eps
    if eps is None:
        eps = 1e-5 if config.norm == "layer" else float(jnp.finfo(jnp.float32).eps)
    factor = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return lax.stop_gradient(factor) if config.corrects_gradients else factor


def rms(config: TransformerConfig, x: jax.Array) -> jax.Array:
    """x `[..., D]` over its root mean square, as RMSNorm before its scale."""
    return x * _factor(config, x)


def normalise(
    config: TransformerConfig,
    x: jax.Array,
    params: Mapping[str, jax.Array],
    factor: jax.Array | None = None,
) -> jax.Array:
    """RMSNorm or LayerNorm of the last axis, or x.

    Args:
      config: which norm.
      x: `[..., D]`.
      params: `scale` and maybe `bias`.
      factor: `[..., 1]` instead of `norm_factor` of x: a norm frozen at another run's.
    """
    if config.norm == "none":
        return x
    if config.norm == "layer":
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * (_factor(config, x) if factor is None else factor)
    lead = range(x.ndim - 1)
    x = x * jnp.expand_dims(params["scale"], lead)
    return x + jnp.expand_dims(params["bias"], lead) if "bias" in params else x


def activate(config: TransformerConfig, x: jax.Array) -> jax.Array:
    """The MLP's nonlinearity."""
    if config.activation == "relu":
        return jax.nn.relu(x)
    if config.activation == "silu":
        return jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=config.activation == "gelu_tanh")


def gated(config: TransformerConfig, gate: jax.Array, up: jax.Array) -> jax.Array:
    """Neurons of a gated MLP, `[..., F]`."""
    return activate(config, share(config, gate, 0.5)) * share(config, up, 0.5)


def take_positions(x: jax.Array, positions: jax.Array) -> jax.Array:
    """x `[B, T, D]` at positions `[B, P]`: `[B, P, D]`."""
    return jnp.take_along_axis(x, positions[:, :, None], axis=1)


def replace_closed(
    x: jax.Array, gate: jax.Array | None, fill: jax.Array | None, positions: jax.Array | None = None
) -> jax.Array:
    """m x + (1 - m) r: a closed gate's activation becomes its replacement.

    Args:
      x: activations `[B, T, W]`.
      gate: m, `[W]`, or None (all open).
      fill: r, `[W]` (the same for every token) or `[B, T, W]`; None means zero.
      positions: where x holds only some positions `[B, P]`, which ones; a per-token fill is cut
        alike.
    """
    if gate is None:
        return x
    gate = gate[None, None, :]
    if fill is None:
        return x * gate
    if fill.ndim == 1:
        fill = fill[None, None, :]
    elif positions is not None:
        fill = take_positions(fill, positions)
    return gate * x + (1 - gate) * fill


def attend(
    config: TransformerConfig,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    sinks: jax.Array | None,
    positions: jax.Array | None,
    visible: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Softmax attention, scaled by 1/sqrt(C), with an optional sink in the denominator.

    Args:
      q: `[B, P, H*C]`. k, v: `[B, T, K*C]`, each head of which H/K query heads in a row read.
      sinks: logits `[H]` of an extra key that every query sees and whose value is zero, or None.
      positions: the queries' places `[B, P]`; None means P = T, in order.
      visible: bool `[B, P, T]`, what each query sees; None means as the config says.

    Returns:
      Output `[B, P, H*C]` and pattern `[B, H, P, T]` (rows sum to less than 1 with a sink).
    """
    batch, num_keys, _ = k.shape
    num_asked = q.shape[1]
    # Heads beside the batch, and the division after the product with v: both are faster on CPU.
    q, k, v = (x.reshape(batch, -1, x.shape[-1] // config.d_head, config.d_head) for x in (q, k, v))
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    q, k, v = share(config, q, 0.25), share(config, k, 0.25), share(config, v, 0.5)
    if config.queries_per_kv > 1:
        k, v = (jnp.repeat(x, config.queries_per_kv, axis=1) for x in (k, v))
    exact = lax.Precision.HIGHEST
    scores = jnp.matmul(q * config.score_scale, k.swapaxes(-1, -2), precision=exact)
    if config.attention_softcap is not None:
        scores = soft_cap(scores, config.attention_softcap)
    if visible is None and config.causal:
        places = jnp.arange(num_keys)
        asked = places[None, :] if positions is None else positions
        visible = places[None, None, :] <= asked[:, :, None]
    if visible is not None:
        scores = jnp.where(visible[:, None], scores, _NEGATIVE)
    top = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    if sinks is not None:
        sinks = sinks[None, :, None, None]
        top = jnp.maximum(top, lax.stop_gradient(sinks))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + jnp.exp(sinks - top)
    if config.corrects_gradients:
        weights, total = pattern(weights / total, scores, sinks), jnp.ones_like(total)
    out = jnp.matmul(weights, v, precision=exact) / total
    out = out.swapaxes(1, 2).reshape(batch, num_asked, config.d_attention)
    return out, weights / total


def soft_cap(x: jax.Array, cap: float) -> jax.Array:
    """cap * tanh(x / cap): about x where that is small, and never beyond the cap."""
    return cap * jnp.tanh(x / cap)


def embed(config: TransformerConfig, table: jax.Array, tokens: jax.Array) -> jax.Array:
    """The stream at its start `[..., D]`, positions apart, of tokens `[...]`."""
    x = jnp.asarray(table)[tokens]  # a table of numpy refuses traced tokens
    return x if config.embed_scale == 1.0 else x * config.embed_scale


def cap_logits(config: TransformerConfig, logits: jax.Array) -> jax.Array:
    """The unembedding's output under the model's soft cap, if it has one."""
    return logits if config.logit_softcap is None else soft_cap(logits, config.logit_softcap)


def keep_largest(config: TransformerConfig, x: jax.Array, site: str) -> jax.Array:
    """AbsTopK where the config puts it, else x."""
    k = config.top_k_at(site)
    return x if k is None else abs_top_k(x, k)


def norm_factors(config: TransformerConfig, captured: Mapping[str, jax.Array]) -> dict:
    """Factors of every norm on the residual stream in one run, as `apply` takes them in `norms`.

    Args:
      config: the model's.
      captured: `resid.pre`, `resid.mid` and `resid.post` of that run.
    """
    streams = {"attn": captured["resid.pre"], "mlp": captured["resid.mid"]}
    streams["final"] = captured["resid.post"][-1]
    return {name: norm_factor(config, stream) for name, stream in streams.items()}
