"""Residual edges as an objective: gates on edges and writers, KL to the full model (or the task loss).

    z_effective(writer -> reader) = z_edge(writer -> reader) * z_node(writer)

Bhaskar et al. 2024, sections 2.1-2.4. Gates are drawn once per step for the whole batch. The full
model's run on the clean prompts and the run on the corrupted ones, which gives the replacements of
an interchange ablation, are one batch. Under interchange the position embedding is the same in both
runs: its edges carry nothing, are always open and count apart.

Axis letters: M examples, B of them in a batch, P answer positions, R right and R' wrong completions.
"""

import dataclasses
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import Writers, apply_graph, residual_graph, run_writers
from circuitjax.model.transformer import Params
from circuitjax.prune.opening import (
    Control,
    GateHyper,
    GateKind,
    ascend,
    expected,
    initial,
    learning_rate,
    open_gates,
    project,
    size_term,
    start_multipliers,
)

__all__ = [
    "EdgeConfig",
    "Examples",
    "ResidualMasks",
    "active_edges",
    "compare",
    "reference_run",
]


@flax.struct.dataclass
class Examples:
    """Encoded examples on the device.

    Attributes:
      tokens: int32 `[M, 2, T]`, the clean prompt and the corrupted one.
      positions: int32 `[M, P]`, where answers are read.
      right, wrong: int32 `[M, R]` and `[M, R']`, completions at the first of them, padded with -1.
    """

    tokens: jax.Array
    positions: jax.Array
    right: jax.Array
    wrong: jax.Array

    def take(self, index: jax.Array | np.ndarray) -> "Examples":
        """The examples at `index` `[B]`."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def draw(self, key: jax.Array, count: int) -> "Examples":
        """`count` examples, drawn with replacement."""
        return self.take(jax.random.randint(key, (count,), 0, self.size))

    @property
    def size(self) -> int:
        """M."""
        return self.tokens.shape[0]

    @property
    def slices(self) -> int:
        """Parts in which a batch is best worked out on CPU: every edge is an activation in memory."""
        return 4 if self.size % 4 == 0 else 1


@dataclasses.dataclass(frozen=True)
class EdgeConfig:
    """Static configuration of residual-edge pruning: another value is another program.

    Attributes:
      gate: how gates open.
      control: what keeps them closed.
      minimise: KL(full || circuit) over the vocabulary, or the task loss, in nats.
      ablation: closed edges carry the writer's output on the corrupted prompt, its mean, or zero.
      node_gates: whether writers have gates of their own.
      steps, batch_size, chunk: training steps, examples per step, steps per call of the program.
      target: what selection aims at: `loss` and `kl` (nats, at most `target_value`), `edges` (at most
        that many), or `match_soft` (as many as the soft gates are expected to leave open).
      target_value: see `target`; unused by `match_soft`.
      calibrate: whether a scale and a shift of the logit difference are fitted (binary tasks, `loss`).
      train_examples, validation_examples, test_examples: sizes of the disjoint sets.
      grid: candidate numbers of edges per round of the bisection.
      random_controls: size-matched random edge sets for the necessity test.
    """

    gate: GateKind = "hard_concrete"
    control: Control = "lagrangian"
    minimise: Literal["kl", "task"] = "kl"
    ablation: Literal["interchange", "mean", "zero"] = "interchange"
    node_gates: bool = True
    steps: int = 300
    batch_size: int = 32
    chunk: int = 25
    target: Literal["loss", "kl", "edges", "match_soft"] = "loss"
    target_value: float = 0.15
    calibrate: bool = True
    train_examples: int = 4096
    validation_examples: int = 512
    test_examples: int = 512
    grid: int = 12
    random_controls: int = 20

    def __post_init__(self) -> None:
        sizes = ("steps", "batch_size", "chunk", "train_examples", "validation_examples")
        for name in (*sizes, "test_examples", "random_controls"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least 1")
        if self.grid < 3:
            raise ValueError(f"grid is {self.grid}; it must be at least 3 candidates per round")
        for name, allowed in (
            ("gate", ("heaviside", "hard_concrete")),
            ("control", ("count", "lagrangian")),
            ("minimise", ("kl", "task")),
            ("ablation", ("interchange", "mean", "zero")),
            ("target", ("loss", "kl", "edges", "match_soft")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        if self.target != "match_soft" and not 0 < self.target_value < float("inf"):
            raise ValueError(f"target_{self.target} is {self.target_value}; it must be in (0, inf)")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return dataclasses.asdict(self)


def active_edges(config: TransformerConfig, ablation: str) -> np.ndarray:
    """Edges that can matter, bool `[E]`: all, but those from positions under interchange."""
    graph = residual_graph(config)
    if ablation == "interchange":
        return ~graph.from_positions
    return np.ones(graph.num_edges, bool)


def reference_run(
    config: TransformerConfig, params: Params, batch: Examples, fixed: Writers | None
) -> tuple[jax.Array, Writers]:
    """The full model's logits `[B, P, V]` on the clean prompts, and what replaces the writers.

    Args:
      config, params: the model.
      batch: B examples.
      fixed: replacements that do not depend on the prompt, or None for interchange.
    """
    if fixed is not None:
        logits, _ = run_writers(config, params, batch.tokens[:, 0], batch.positions, slice(0, 0))
        return logits, fixed
    both = jnp.concatenate([batch.tokens[:, 0], batch.tokens[:, 1]])
    places = jnp.concatenate([batch.positions, batch.positions])
    logits, writers = run_writers(config, params, both, places, slice(batch.size, None))
    return logits[: batch.size], writers


def compare(logits: jax.Array, full: jax.Array, batch: Examples) -> tuple[jax.Array, jax.Array]:
    """KL to the full model and log odds of the right completions, `[B]` each.

    The KL, in nats, is the mean over the answer positions. The log odds d are those of the right
    completions among the right and the wrong ones; softplus(-d) is the task loss in nats, which for one
    completion of each is the binary loss of node pruning.

    Args:
      logits, full: `[B, P, V]` of the circuit and of the full model.
      batch: B examples.
    """
    circuit, whole = jax.nn.log_softmax(logits), jax.nn.log_softmax(full)
    kl = jnp.mean(jnp.sum(jnp.exp(whole) * (whole - circuit), axis=-1), axis=-1)

    def total(tokens: jax.Array) -> jax.Array:
        values = jnp.take_along_axis(logits[:, 0], jnp.maximum(tokens, 0), axis=-1)
        return jax.nn.logsumexp(values, axis=-1, where=tokens >= 0)

    return kl, total(batch.right) - total(batch.wrong)


@dataclasses.dataclass(frozen=True)
class ResidualMasks:
    """An `Objective` of the training loop.

    Its data is (parameters, fixed replacements or None), its items are `Examples`. Parameters: `edges`
    `[E]` and, with node gates, `nodes` `[W]`. Metrics: `kl`, `task` (nats), `k` (expected open edges),
    `sparsity` (expected fraction closed).
    """

    config: TransformerConfig
    settings: EdgeConfig

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.settings.steps

    @property
    def batch_size(self) -> int:
        """Examples per step."""
        return self.settings.batch_size

    @property
    def separable(self) -> bool:
        """A mean over examples."""
        return True

    def init(self, key: jax.Array, hyper: GateHyper) -> tuple[dict[str, jax.Array], Any]:
        """Gaussian scores and multipliers at 0."""
        graph = residual_graph(self.config)
        sizes = {"edges": graph.num_edges}
        if self.settings.node_gates:
            sizes["nodes"] = len(graph.writers)
        tau = {
            name: initial(self.settings.gate, jax.random.fold_in(key, index), (size,), hyper)
            for index, (name, size) in enumerate(sizes.items())
        }
        total = int(active_edges(self.config, self.settings.ablation).sum())
        return tau, start_multipliers(self.settings.control, total)

    def open_probabilities(self, tau: dict[str, jax.Array], hyper: GateHyper) -> jax.Array:
        """Chance that each edge is effectively open, `[E]`."""
        graph = residual_graph(self.config)
        chance = expected(self.settings.gate, tau["edges"], hyper)
        if self.settings.node_gates:
            chance = chance * expected(self.settings.gate, tau["nodes"], hyper)[graph.sources]
        return chance

    def data_of(self, hyper: GateHyper, data: Any) -> Any:
        """All jobs share one model."""
        del hyper
        return data

    def loss(
        self,
        tau: dict[str, jax.Array],
        multipliers: Any,
        hyper: GateHyper,
        at: tuple[jax.Array, jax.Array],
        data: Any,
        batch: Examples,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """KL or task loss of the sampled gates, plus the size term of the expected ones."""
        (key, step), (params, fixed), settings = at, data, self.settings
        graph = residual_graph(self.config)
        active = active_edges(self.config, settings.ablation)
        gates = open_gates(settings.gate, jax.random.fold_in(key, 0), tau["edges"], hyper)
        if settings.node_gates:
            nodes = open_gates(settings.gate, jax.random.fold_in(key, 1), tau["nodes"], hyper)
            gates = gates * nodes[graph.sources]
        gates = jnp.where(active, gates, 1.0)
        full, replacement = reference_run(self.config, params, batch, fixed)
        logits = apply_graph(
            self.config, params, batch.tokens[:, 0], gates, replacement, batch.positions
        )
        kl, odds = compare(logits, full, batch)
        kl, task = jnp.mean(kl), jnp.mean(jax.nn.softplus(-odds))
        opened = jnp.sum(self.open_probabilities(tau, hyper) * active)
        total = int(active.sum())
        size = size_term(settings.control, opened, total, multipliers, hyper, step, settings.steps)
        metrics = {"kl": kl, "task": task, "k": opened, "sparsity": 1 - opened / total}
        return (kl if settings.minimise == "kl" else task) + size, metrics

    def rate(self, hyper: GateHyper, step: jax.Array) -> jax.Array:
        """See `opening.learning_rate`."""
        return learning_rate(self.settings.control, hyper, step, self.settings.steps)

    def project(self, tau: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Within bounds."""
        return project(self.settings.gate, tau)

    def ascend(self, multipliers: Any, gradient: Any, hyper: GateHyper) -> Any:
        """Gradient ascent of the multipliers."""
        return ascend(self.settings.control, multipliers, gradient, hyper)
