"""One model and one task of clean and corrupted prompts, on the device, for residual edges."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import Writers, residual_graph, run_writers
from circuitjax.prune.residual import EdgeConfig, Examples, active_edges
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask, EncodedExamples, draw_encoded
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["EdgeProblem", "fixed_replacements", "make_edge_problem", "to_examples"]

_LENGTH_STEP = 8  # prompts are padded to a multiple of this: tasks of similar length share programs
_MEAN_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeProblem:
    """What training, selection and evidence look at.

    Attributes:
      config: the model's.
      settings: static configuration.
      params: parameters on the device.
      fixed: replacements under mean or zero ablation; None under interchange.
      train, validation, test: disjoint examples.
      paired: whether examples 2i and 2i + 1 are the two prompts of one pair, each the other's
        corrupted one; then the logit difference can be calibrated.
    """

    config: TransformerConfig
    settings: EdgeConfig
    params: Mapping[str, Any]
    fixed: Writers | None
    train: Examples
    validation: Examples
    test: Examples
    paired: bool

    @property
    def calibrated(self) -> bool:
        """Whether a scale and a shift are fitted: to the task loss of a binary task, if asked for."""
        return self.paired and self.settings.calibrate and self.settings.target == "loss"


def to_examples(encoded: EncodedExamples) -> Examples:
    """Encoded examples on the device; each is answered at its last token."""
    return Examples(
        tokens=jnp.asarray(encoded.tokens),
        positions=jnp.asarray(encoded.last)[:, None],
        right=jnp.asarray(encoded.right),
        wrong=jnp.asarray(encoded.wrong),
    )


def fixed_replacements(
    config: TransformerConfig, params: Mapping[str, Any], ablation: str, examples: Examples
) -> Writers | None:
    """Replacements that are the same for every token, `[W, 1, 1, D]`, or None for interchange.

    `mean` is over all tokens of the corrupted prompts up to the last answer position.
    """
    if ablation == "interchange":
        return None
    width = config.d_model
    heads, depth = config.num_heads, config.num_layers
    first = 2 if config.position == "learned" else 1

    def block(size: int) -> jax.Array:
        return jnp.zeros((size, 1, 1, width))

    zero = Writers(block(first), (block(heads),) * depth, (block(1),) * depth)
    if ablation == "zero":
        return zero

    @jax.jit
    def add(total: Writers, batch: Examples) -> tuple[Writers, jax.Array]:
        _, found = run_writers(config, params, batch.tokens[:, 1], batch.positions)
        length = batch.tokens.shape[-1]
        counts = jnp.arange(length)[None, :] <= jnp.max(batch.positions, axis=1, keepdims=True)
        weight = counts[None, :, :, None].astype(jnp.float32)
        summed = jax.tree.map(
            lambda t, x: t + jnp.sum(x * weight, axis=(1, 2), keepdims=True), total, found
        )
        return summed, jnp.sum(counts)

    total, count = zero, 0
    for start in range(0, examples.size, _MEAN_BATCH):
        chosen = np.arange(start, min(start + _MEAN_BATCH, examples.size))
        total, tokens = add(total, examples.take(chosen))
        count += int(tokens)
    return jax.tree.map(lambda x: x / count, total)


def make_edge_problem(
    model: Model, task: Task | ContrastTask, settings: EdgeConfig, data_seed: int = 0
) -> EdgeProblem:
    """Draws the three sets and puts everything on the device.

    Args:
      model: the frozen network, with its tokenizer.
      task: a contrast task, or a binary one whose two prompts serve as each other's corrupted one.
      settings: sizes of the sets, ablation, target.
      data_seed: seed of all three draws.

    Raises:
      ValueError: an unsupported architecture, no tokenizer, a task that cannot supply so many examples
        or whose prompts are too long, a target beyond the edges that exist.
    """
    total = int(active_edges(model.config, settings.ablation).sum())
    if settings.target == "edges" and settings.target_value > total:
        raise ValueError(
            f"target_edges is {settings.target_value:g}, but only {total} of the model's "
            f"{residual_graph(model.config).num_edges} edges can matter: ask for at most {total}"
        )
    if not model.tokenizer_json:
        raise ValueError(f"model {model.name!r} has no tokenizer: tasks cannot be encoded for it")
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    pool = isinstance(task, Task) and bool(task.pool)
    sets = {
        split: draw_encoded(task, tokenizer, split, None if pool else size, data_seed)
        for split, size in (
            ("train", settings.train_examples),
            ("validation", settings.validation_examples),
            ("test", settings.test_examples),
        )
    }
    length = max(encoded.tokens.shape[-1] for encoded in sets.values())
    rounded = -(-length // _LENGTH_STEP) * _LENGTH_STEP
    length = max(length, min(rounded, model.config.context_length))
    if length > model.config.context_length:
        raise ValueError(
            f"task {task.name!r} has prompts of {length} tokens, above the context length of "
            f"{model.config.context_length} of model {model.name!r}: shorten them"
        )
    top = max(int(max(e.right.max(), e.wrong.max())) for e in sets.values())
    if top >= model.config.vocab_size:
        raise ValueError(
            f"the tokenizer makes token {top}, beyond the {model.config.vocab_size} entries of "
            f"model {model.name!r}'s vocabulary: this tokenizer belongs to another model"
        )
    right, wrong = (
        max(getattr(encoded, side).shape[-1] for encoded in sets.values())
        for side in ("right", "wrong")
    )
    examples = {
        split: to_examples(encoded.padded(length, right, wrong)) for split, encoded in sets.items()
    }
    params = jax.tree.map(jnp.asarray, dict(model.params))
    some = examples["train"].take(np.arange(min(512, examples["train"].size)))
    return EdgeProblem(
        config=model.config,
        settings=settings,
        params=params,
        fixed=fixed_replacements(model.config, params, settings.ablation, some),
        paired=isinstance(task, Task),
        **examples,
    )
