"""What the benchmarks share: their flags, and random sparse models and pairs as NumPy arrays.

Both `bench.py` and `bench_torch.py` read them, so that both run the same mathematics on the same
numbers. Every model has four layers (XS two), heads of 16 channels, pre-RMSNorm, exact GELU,
biases, attention sinks, a bigram table, an unembedding of its own, no positions; its matrices keep
their largest 10% of normal draws.

Axis letters: B pairs, T positions, D residual channels, V vocabulary, L layers, N nodes.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from absl import flags

from circuitjax.model.config import SITES, TransformerConfig
from experiments.bench_timing import check_repeats
from experiments.limits import check_names

__all__ = [
    "LABELLED_BY",
    "WORKLOADS",
    "Arrays",
    "Workload",
    "chosen",
    "draw",
    "make_config",
    "reference_gradient",
]

_WORKLOADS = flags.DEFINE_list("workloads", ["S", "M"], "Which of S, M.")
_TOP_K = flags.DEFINE_list("abs_top_k", ["off", "on"], "AbsTopK at a quarter of every node site.")

DENSITY = 0.1
LABELLED_BY = 0.05  # fraction of the nodes whose circuit the data are made for


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

    def forward_flops(self) -> int:
        """Of the matrix products that the logits at the last position of a sequence need.

        In the last layer these are the keys and values of every position, and all else at one. Additions
        and products count one each.
        """
        width, length = self.d_model, self.length
        mlp, scores = 2 * width * self.d_mlp, 2 * length * width
        layer = length * (4 * width**2 + mlp + scores)
        last = length * 2 * width**2 + 2 * width**2 + mlp + scores
        return 2 * ((self.num_layers - 1) * layer + last + width * self.vocab_size)

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


def make_config(workload: Workload, abs_top_k: bool, dtype: Any = "float32") -> TransformerConfig:
    """The model's description; AbsTopK, where on, keeps a quarter of every node site."""
    return TransformerConfig(
        num_layers=workload.num_layers,
        d_model=workload.d_model,
        num_heads=workload.num_heads,
        d_head=workload.d_head,
        d_mlp=workload.d_mlp,
        vocab_size=workload.vocab_size,
        context_length=workload.length,
        position="none",
        attention_sinks=True,
        bigram=True,
        abs_top_k_fraction=0.25 if abs_top_k else None,
        abs_top_k_sites=SITES if abs_top_k else (),
        matmul_dtype=dtype,
    )


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


def reference_gradient(
    workload: Workload,
    arrays: Arrays,
    abs_top_k: bool,
    tau: dict[str, np.ndarray],
    tokens: np.ndarray,
) -> tuple[float, dict[str, np.ndarray]]:
    """circuitjax's pruning loss (nats) and its derivative by mask parameters `tau`.

    Args:
      workload, arrays, abs_top_k: the model.
      tau: {site: `[L, W]`}.
      tokens: int32 `[B, 2, T]`.
    """
    import jax
    import jax.numpy as jnp

    from circuitjax.gated.examples import Examples
    from circuitjax.gated.nodes import NodeGates
    from circuitjax.prune.defaults import default_hyper, default_search
    from circuitjax.prune.objective import Objective

    params, fills = jax.tree.map(jnp.asarray, (arrays.params, arrays.fills))
    model = NodeGates(params, fills, config=make_config(workload, abs_top_k))
    shape, last = tokens.shape[:2], workload.length - 1
    answers = np.broadcast_to(arrays.answers, shape)
    pairs = Examples.of_pairs(tokens, np.full(shape, last), answers)
    hyper = default_hyper(default_search(), model.num_gates)
    objective = Objective(
        "heaviside",
        "task",
        "count",
        "binary",
        False,
        False,
        "loss",
        steps=100,
        batch_size=len(tokens),
    )

    @jax.jit
    def run(tau: jax.Array, model: Any, pairs: Any) -> Any:
        def loss_of(scores: jax.Array) -> jax.Array:
            at = (jax.random.key(0), jnp.zeros((), jnp.int32))
            return objective.loss({"gates": scores}, (), hyper, at, model, pairs)[0]

        return jax.value_and_grad(loss_of)(tau)

    loss, slope = run(jnp.asarray(model.flat(tau)), model, pairs)
    return float(loss), {site: np.asarray(part) for site, part in model.tree(slope).items()}


def chosen(measurable: Sequence[str], measurements: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The names of the workloads asked for, each with AbsTopK off or on; flags are checked first.

    Raises:
      ValueError: an unknown workload, measurement or AbsTopK setting; under 5 repeats.
    """
    for flag, values, known in (
        ("workloads", _WORKLOADS.value, tuple(WORKLOADS)),
        ("measurements", measurements, measurable),
        ("abs_top_k", _TOP_K.value, ("off", "on")),
    ):
        check_names(flag, values, known)
    check_repeats()
    return itertools.product(_WORKLOADS.value, (top_k == "on" for top_k in _TOP_K.value))
