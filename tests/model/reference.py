"""The transformer once more, in NumPy and float64, one sequence and one layer at a time.

Written from the equations and sharing no code with the package: position by position for attention,
no fusing, no scanning. `edit(layer, site, value)` may overwrite any node activation `[T, W]` after
AbsTopK.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from circuitjax.model.config import TransformerConfig

Edit = Callable[[int, str, np.ndarray], np.ndarray]


def draw_params(shapes: Any, rng: np.random.Generator) -> Any:
    """Random float32 values for a tree of shape structs, biases, norms and sinks included."""
    if hasattr(shapes, "shape"):
        return rng.normal(0, 0.5, shapes.shape).astype(np.float32)
    return {name: draw_params(shapes[name], rng) for name in sorted(shapes)}


def run(
    config: TransformerConfig,
    params: Any,
    tokens: np.ndarray,
    edit: Edit = lambda layer, site, value: value,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits `[B, T, V]` and {name: `[L, B, T, W]`}, float64."""
    rows = [_run_one(config, params, row, edit) for row in tokens]
    names = rows[0][1].keys()
    seen = {n: np.stack([np.stack(r[1][n]) for r in rows], axis=1) for n in names}
    return np.stack([r[0] for r in rows]), seen


def _run_one(config: TransformerConfig, params: Any, tokens: np.ndarray, edit: Edit):
    f64 = {k: np.asarray(v, np.float64) for k, v in params.items() if k != "layers"}
    seen: dict[str, list[np.ndarray]] = {}
    x = f64["embed"][tokens]
    places = f64["positions"][: len(tokens)] if config.position != "none" else None
    if config.position == "learned":
        x = x + places
    for layer in range(config.num_layers):
        p = {k: np.asarray(v[layer], np.float64) for k, v in params["layers"].items()}

        def node(site: str, value: np.ndarray, layer: int = layer) -> np.ndarray:
            value = _abs_top_k(config, site, value)
            seen.setdefault(site, []).append(value)
            return edit(layer, site, value)

        def keep(name: str, value: np.ndarray) -> np.ndarray:
            seen.setdefault(name, []).append(value)
            return value

        def read(block: str, x: np.ndarray, p: dict = p) -> np.ndarray:
            out = _norm(config, x, p, f"{block}_norm")
            if config.position != "concatenated":
                return out
            return np.hstack([out, _norm(config, places, p, f"{block}_position_norm")])

        keep("resid.pre", x)
        inside = node("attn.act_in", read("attn", x))
        q, k, v = (node(f"attn.{n}", _affine(inside, p, f"attn_{n}")) for n in "qkv")
        mixed, pattern = _attention(config, q, k, v, p.get("attn_sink"))
        keep("attn.pattern", pattern)
        keep("attn.mixed", mixed)
        x = x + node("attn.resid_delta", _affine(mixed, p, "attn_out"))
        x = keep("resid.mid", _settle(config, "resid.post_attn", x))
        inside = node("mlp.act_in", read("mlp", x))
        hidden = node("mlp.post_act", _activate(config, _affine(inside, p, "mlp_in")))
        x = x + node("mlp.resid_delta", _affine(hidden, p, "mlp_out"))
        x = keep("resid.post", _settle(config, "resid.post_mlp", x))
    x = _norm(config, x, f64, "final_norm")
    logits = x @ (f64["embed"].T if config.tied_unembedding else f64["unembed"])
    if config.final_bias:
        logits = logits + f64["final_bias"]
    if config.bigram:
        logits = logits + f64["bigram"][tokens]
    return logits, seen


def _affine(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ p[name] + p.get(f"{name}_bias", 0.0)


def _norm(config: TransformerConfig, x: np.ndarray, p: dict[str, np.ndarray], name: str):
    if config.norm == "none":
        return x
    eps = config.norm_eps
    if config.norm == "rms":
        eps = 2.0**-23 if eps is None else eps
    else:
        eps = 1e-5 if eps is None else eps
        x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return x * p[f"{name}_scale"] + p.get(f"{name}_bias", 0.0)


def _activate(config: TransformerConfig, x: np.ndarray) -> np.ndarray:
    if config.activation == "relu":
        return np.where(x > 0, x, 0)
    if config.activation == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(config: TransformerConfig, q, k, v, sinks) -> tuple[np.ndarray, np.ndarray]:
    length, width = q.shape[0], config.d_head
    out = np.zeros((length, config.num_heads * width))
    pattern = np.zeros((config.num_heads, length, length))
    for head in range(config.num_heads):
        part = slice(head * width, (head + 1) * width)
        for here in range(length):
            last = here + 1 if config.causal else length
            scores = k[:last, part] @ q[here, part] / math.sqrt(width)
            extra = [] if sinks is None else [sinks[head]]
            shares = np.exp(np.concatenate([scores, extra]))
            shares /= shares.sum()
            pattern[head, here, :last] = shares[:last]
            out[here, part] = shares[:last] @ v[:last, part]
    return out, pattern


def _abs_top_k(config: TransformerConfig, site: str, x: np.ndarray) -> np.ndarray:
    if config.abs_top_k_fraction is None or site not in config.abs_top_k_sites:
        return x
    kept = int(config.abs_top_k_fraction * x.shape[1])
    out = np.zeros_like(x)
    for row, values in enumerate(x):
        best = np.argsort(-np.abs(values))[:kept]
        out[row, best] = values[best]
    return out


def _settle(config: TransformerConfig, site: str, x: np.ndarray) -> np.ndarray:
    if config.residual_activation == "relu":
        x = np.where(x > 0, x, 0)
    return _abs_top_k(config, site, x)
