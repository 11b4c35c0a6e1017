"""What the benchmarks compute on: random sparse models and random pairs, as NumPy arrays.

Both `bench.py` and `bench_torch.py` read them, so that both run the same mathematics on the same
numbers. Every model has four layers (XS two), heads of 16 channels, pre-RMSNorm, exact GELU, biases,
attention sinks, a bigram table, an unembedding of its own, no positions; its matrices keep their
largest 10% of normal draws.

Axis letters: B pairs, T positions, D residual channels, V vocabulary, L layers, N nodes.
"""

import dataclasses
import math
from types import MappingProxyType

import numpy as np

__all__ = ["SITES", "WORKLOADS", "Arrays", "Workload", "draw", "measured_line", "top_k_at"]

DENSITY = 0.1
SITES = (
    "attn.act_in",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.resid_delta",
    "mlp.act_in",
    "mlp.post_act",
    "mlp.resid_delta",
)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes.

    Attributes:
      num_layers: L.
      d_model: D, residual channels, and channels of all heads together.
      d_mlp: F, neurons per layer.
      vocab_size: V.
      d_head: C, channels per head.
      length: T, tokens per sequence.
      pairs: pairs per batch; two sequences each.
      batches: batches of the validation set.
    """

    num_layers: int
    d_model: int
    d_mlp: int
    vocab_size: int
    d_head: int = 16
    length: int = 64
    pairs: int = 64
    batches: int = 20

    @property
    def num_heads(self) -> int:
        """H."""
        return self.d_model // self.d_head

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.num_layers * sum(self.width(site) for site in SITES)

    def width(self, site: str) -> int:
        """Nodes at a site of one layer."""
        return self.d_mlp if site == "mlp.post_act" else self.d_model


# XS is for tests: it measures nothing of interest.
WORKLOADS = MappingProxyType(
    {
        "XS": Workload(2, 32, 64, 64, length=8, pairs=4, batches=2),
        "S": Workload(4, 128, 512, 1024),
        "M": Workload(4, 256, 1024, 2048),
    }
)


@dataclasses.dataclass(frozen=True)
class Arrays:
    """A model and its data.

    Attributes:
      params: float32, named and nested as `circuitjax.model.transformer` names them; those of the
        layers are stacked on axis 0 under `layers`.
      fills: {site: float32 `[L, W]`}, what a closed node holds.
      train: int32 tokens `[4 B, 2, T]`.
      validation: int32 tokens `[batches * B, 2, T]`.
      answers: the two candidate tokens.
      ranks: int32 `[N]`, a random order of all nodes; 0 is the first to be opened.
    """

    params: dict
    fills: dict[str, np.ndarray]
    train: np.ndarray
    validation: np.ndarray
    answers: tuple[int, int]
    ranks: np.ndarray


def top_k_at(workload: Workload, site: str) -> int:
    """How many entries AbsTopK keeps at a site where it is on: a quarter."""
    return workload.width(site) // 4


def _sparse(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal draws of variance 1 / rows, each matrix cut to its largest `DENSITY`."""
    values = rng.normal(0, shape[-2] ** -0.5, shape).astype(np.float32)
    flat = values.reshape(-1, shape[-2] * shape[-1])
    keep = math.ceil(DENSITY * flat.shape[1])
    bound = -np.partition(-np.abs(flat), keep - 1, axis=1)[:, keep - 1 : keep]
    flat[np.abs(flat) < bound] = 0
    return values


def _tokens(rng: np.random.Generator, workload: Workload, pairs: int) -> np.ndarray:
    """Random tokens, never 0; all prompts end alike, as those of a task do."""
    tokens = rng.integers(1, workload.vocab_size, (pairs, 2, workload.length), dtype=np.int32)
    tokens[:, :, -1] = 1
    return tokens


def draw(workload: Workload, seed: int = 0) -> Arrays:
    """The arrays of a workload; the same seed gives the same ones on every machine."""
    rng = np.random.default_rng(seed)
    layers, width, neurons = workload.num_layers, workload.d_model, workload.d_mlp

    def dense(scale: float, *shape: int) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    stack = {}
    for name, shape in (
        ("attn_q", (width, width)),
        ("attn_k", (width, width)),
        ("attn_v", (width, width)),
        ("attn_out", (width, width)),
        ("mlp_in", (width, neurons)),
        ("mlp_out", (neurons, width)),
    ):
        stack[name] = _sparse(rng, layers, *shape)
        stack[f"{name}_bias"] = dense(0.1, layers, shape[1])
    stack["attn_norm_scale"] = np.ones((layers, width), np.float32)
    stack["mlp_norm_scale"] = np.ones((layers, width), np.float32)
    stack["attn_sink"] = dense(0.1, layers, workload.num_heads)
    vocabulary = workload.vocab_size
    params = {
        "embed": _sparse(rng, vocabulary, width) * np.float32(vocabulary**0.5),
        "layers": stack,
        "final_norm_scale": np.ones(width, np.float32),
        "unembed": _sparse(rng, width, vocabulary),
        "bigram": dense(1.0, vocabulary, vocabulary),
    }
    first, second = rng.choice(vocabulary - 1, 2, replace=False) + 1
    return Arrays(
        params=params,
        fills={site: dense(0.3, layers, workload.width(site)) for site in SITES},
        train=_tokens(rng, workload, 4 * workload.pairs),
        validation=_tokens(rng, workload, workload.batches * workload.pairs),
        answers=(int(first), int(second)),
        ranks=rng.permutation(workload.num_nodes).astype(np.int32),
    )


def measured_line(times: list[float], **fields: object) -> dict[str, object]:
    """The JSON line of one measurement: `fields`, then median, least and greatest time (seconds)."""
    return {
        **fields,
        "seconds": float(np.median(times)),
        "min": min(times),
        "max": max(times),
        "repeats": len(times),
    }
