"""What a page shows of a task's prompts: activations within the circuit, answers, attention patterns."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.activations import circuit_activations
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import calibrated_odds
from circuitjax.gated.protocol import View
from circuitjax.gated.replacement import refer
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import Fills, Gates, Params, apply
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import batches_of
from circuitjax.report.viewer.packing import pack, pack_scaled

__all__ = ["SIZES", "attention", "on_prompts", "same_answers", "short"]

_MOST_MATCHED = 400_000  # queries and keys in a page: half a megabyte
SIZES = ((4, 3), (3, 2), (2, 1), (1, 1))  # contexts per end and pairs shown, the most that fit


def short(weight: float | None) -> float | None:
    return None if weight is None else float(f"{weight:.5g}")


def same_answers(pairs: Examples, used: set[int]) -> list[int] | None:
    """The completions' tokens, if they are the same for every pair."""
    found = np.stack([pairs.right[::2, 0], pairs.wrong[::2, 0]], axis=1)
    alone = pairs.right.shape[-1] == pairs.wrong.shape[-1] == 1
    if not alone or not (found == found[:1]).all():
        return None
    used.update(int(i) for i in found[0])
    return [int(i) for i in found[0]]


def on_prompts(
    circuit: Circuit,
    inside: View,
    pairs: Examples,
    nodes: tuple[np.ndarray, Mapping[str, np.ndarray]],
    some: int,
) -> dict[str, Any]:
    """Activations of chosen nodes, by their places and by the kept channels they are of."""
    chosen, kept = nodes
    length = int(pairs.positions.max()) + 1
    trimmed = pairs.replace(tokens=pairs.tokens[..., :length])  # type: ignore[attr-defined]
    found = circuit_activations(inside, trimmed, kept)
    acts = np.concatenate(list(found.values()))[chosen].reshape(-1, pairs.items, 2, length)
    rows = pairs.tokens[:, 0, :length].reshape(-1, 2, length)
    last = np.asarray(pairs.positions)[:, -1].reshape(-1, 2)
    final = np.take_along_axis(acts, last[None, :, :, None], axis=3)[..., 0]
    both_real = (np.arange(length) <= last[:, :, None]).all(axis=1)
    apart = np.where(both_real, np.abs(acts[:, :, 0] - acts[:, :, 1]), 0).max(axis=2).mean(axis=1)
    # Of both prompts the difference of the first's completion and the second's.
    few = pairs.first(SIZES[0][1])
    odds = answers(inside.model, batches_of(inside.model), few, inside.gates[None]).odds
    values = calibrated_odds(odds, circuit.scale, circuit.shift)[0].reshape(-1, 2) * [1, -1]
    inside_prompt = np.arange(length) <= last[:some, :, None]
    return {
        "tokens": pack(rows[:some], "i4"),
        "last": last[:some].tolist(),
        "answers": np.stack([pairs.right[::2, 0], pairs.wrong[::2, 0]], axis=1)[:some].tolist(),
        "differences": [[short(float(x)) for x in row] for row in values[:some]],
        "nodes": pack(chosen, "i4"),
        "values": pack_scaled(np.where(inside_prompt[None], acts[:, :some], 0)),
        "pairs": pairs.items,
        "apart": [short(float(x)) for x in apart],
        "final": [
            [[short(float(x)) for x in (side.mean(), side.std())] for side in both.T]
            for both in final
        ],
    }


@functools.partial(jax.jit, static_argnums=0)
def _looked(
    config: TransformerConfig, params: Params, tokens: jax.Array, gates: Gates, fills: Fills
) -> Mapping[str, jax.Array]:
    """Patterns `[L, B, H, T, T]`, queries and keys `[L, B, T, W]` of tokens `[B, T]`."""
    names = ("attn.pattern", "attn.q", "attn.k")
    return apply(config, params, tokens, gates, fills, capture=names).captured


def _products(
    config: TransformerConfig, seen: Mapping[str, np.ndarray], heads: list[list[int]]
) -> dict[str, Any]:
    """Queries and keys `[h, 2, T, C]` of heads: a score is scale * sum over C of their products."""
    found = {}
    for site in ("attn.q", "attn.k"):
        share = config.num_heads // config.heads_of(site)
        values = seen[site].reshape(*seen[site].shape[:3], -1, config.d_head)
        chosen = np.stack([values[layer, :, :, head // share] for layer, head in heads])
        found[site.removeprefix("attn.")] = pack_scaled(chosen)
    return found


def _why_no_products(config: TransformerConfig, values: int) -> str | None:
    """Why scores are not taken apart by channel, or None."""
    if config.rotary is not None:
        return "positions turn its queries and keys, so no channel has a product of its own"
    if config.qk_norm or config.attention_softcap is not None:
        return "its scores are no sum of the channels' products"
    if values > _MOST_MATCHED:
        return "its heads have too many channels for one page"
    return None


def _heads(circuit: Circuit) -> list[list[int]]:
    """[layer, head] of every head of which something is kept."""
    mask = circuit.opened.get("mask")
    if mask is None:
        named = [name[1:].split(".h") for name in circuit.nodes() if ".h" in name]
        return [[int(layer), int(head)] for layer, head in named]
    kept: set[tuple[int, int]] = set()
    for site in ("attn.q", "attn.k", "attn.v"):
        share = circuit.config.num_heads // circuit.config.heads_of(site)  # of keys and values
        for layer, index in np.argwhere(mask[site]):
            first = int(index) // circuit.config.d_head * share
            kept |= {(int(layer), head) for head in range(first, first + share)}
    return [list(head) for head in sorted(kept)]


def attention(
    circuit: Circuit, model: Model, inside: View | None, pairs: Examples, used: set[int]
) -> dict[str, Any] | None:
    """Patterns of the circuit's heads on the first pair, in the circuit and in the whole model."""
    heads = _heads(circuit)
    if not heads:
        return None
    last = pairs.positions[:2, -1]
    length = int(last.max()) + 1
    tokens = jnp.asarray(pairs.tokens[:2, 0, :length])
    used.update(np.unique(tokens).tolist())
    runs: dict[str, Any] = {"model": (circuit.config, model.params, None, None)}
    if inside is not None:
        gated: Any = inside.model
        first = pairs.first(1)
        some = first.replace(tokens=first.tokens[..., :length])  # type: ignore[attr-defined]
        held = refer(gated, some, jax.random.key(0), full=False).held
        gates = gated.tree(jnp.asarray(inside.gates, jnp.float32))
        runs["circuit"] = gated.config, gated.params, gates, gated.held if held is None else held
    found: dict[str, Any] = {"circuit": None}
    values = 2 * len(runs) * len(heads) * tokens.size * circuit.config.d_head
    why_not = _why_no_products(circuit.config, values)
    products: dict[str, Any] = {"circuit": None, "scale": circuit.config.score_scale}
    for name, (config, params, gates, fills) in runs.items():
        own = jax.tree.map(jnp.asarray, dict(params))
        seen = {k: np.asarray(v) for k, v in _looked(config, own, tokens, gates, fills).items()}
        pattern = seen["attn.pattern"]
        chosen = np.stack([pattern[layer, :, head] for layer, head in heads])
        found[name] = pack(np.rint(255 * chosen).astype(np.int32), "u1")
        if why_not is None:
            products[name] = _products(config, seen, heads)
    shown = {"products": products if why_not is None else None, "why_no_products": why_not}
    places = {"tokens": np.asarray(tokens).tolist(), "last": last.tolist()}
    return {"heads": heads, **places, **found, **shown}
