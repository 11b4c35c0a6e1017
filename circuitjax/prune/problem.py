"""A pruning problem: one frozen model and one task, with their data on the device."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.objective import Pairs
from circuitjax.prune.packing import row_length
from circuitjax.tasks.base import Encoded, Task
from circuitjax.tasks.splits import draw
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["Problem", "fills_for", "make_problem", "to_pairs"]


# Prompts are padded to a multiple of this, so that tasks of similar length share compiled programs.
_LENGTH_STEP = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What training, selection, calibration and audit look at.

    Attributes:
      config: the model's.
      prune: static pruning configuration.
      params: parameters on the device.
      fills: {site: float32 `[L, W]`} what a closed node holds.
      train, validation, test: pairs whose texts are disjoint between the three. Masks learn on the
        first; k and calibration are chosen on the second; every reported number is on the third.
    """

    config: TransformerConfig
    prune: PruneConfig
    params: Mapping[str, Any]
    fills: Mapping[str, jax.Array]
    train: Pairs
    validation: Pairs
    test: Pairs


def fills_for(model: Model, ablation: str) -> dict[str, np.ndarray]:
    """Replacement of closed nodes: the stored means, or zeros.

    Raises:
      ValueError: mean ablation of a model whose means were never computed.
    """
    if ablation == "zero":
        return {site: np.zeros(shape, np.float32) for site, shape in shapes(model.config).items()}
    if model.means is None:
        raise ValueError(
            f"model {model.name!r} has no activation means: compute them with "
            "`python -m experiments.means`, or use ablation=zero"
        )
    return {site: np.asarray(model.means[site], np.float32) for site in shapes(model.config)}


def to_pairs(encoded: Encoded, length: int) -> Pairs:
    """Encoded pairs on the device, padded to a common length."""
    encoded = encoded.padded(length)
    tokens, last, answers = map(jnp.asarray, (encoded.tokens, encoded.last, encoded.answers))
    return Pairs(tokens, last, answers)


def make_problem(model: Model, task: Task, prune: PruneConfig, data_seed: int = 0) -> Problem:
    """Draws the three sets and puts everything on the device.

    Args:
      model: the frozen network, with its tokenizer.
      task: where the pairs come from.
      prune: sizes of the sets, ablation.
      data_seed: seed of all three draws.

    Raises:
      ValueError: no tokenizer, no means, a task that cannot supply so many pairs or whose prompts
        exceed the model's context.
    """
    fills = fills_for(model, prune.ablation)
    if prune.loss == "vocabulary" and prune.calibrate != "off":
        raise ValueError("loss='vocabulary' has no calibration: set calibrate='off'")
    if not model.tokenizer_json:
        raise ValueError(f"model {model.name!r} has no tokenizer: tasks cannot be encoded for it")
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    sizes = {
        "train": prune.train_pairs,
        "validation": prune.validation_pairs,
        "test": prune.test_pairs,
    }
    sets = {
        split: draw(task, tokenizer, split, None if task.pool else size, data_seed)
        for split, size in sizes.items()
    }
    length = max(encoded.tokens.shape[-1] for encoded in sets.values())
    length = min(
        -(-length // _LENGTH_STEP) * _LENGTH_STEP, max(length, model.config.context_length)
    )
    if length > model.config.context_length:
        raise ValueError(
            f"task {task.name!r} has prompts of {length} tokens, above the context length of "
            f"{model.config.context_length} of model {model.name!r}: shorten them"
        )
    top = max(int(encoded.answers.max()) for encoded in sets.values())
    if top >= model.config.vocab_size:
        raise ValueError(
            f"the tokenizer makes token {top}, beyond the {model.config.vocab_size} entries of "
            f"model {model.name!r}'s vocabulary: this tokenizer belongs to another model"
        )
    pairs = {split: to_pairs(encoded, length) for split, encoded in sets.items()}
    needed = [row_length(model.config, some) for some in pairs.values()]
    row = max(needed) if all(needed) else 0
    return Problem(
        config=model.config,
        prune=prune,
        params=jax.tree.map(jnp.asarray, dict(model.params)),
        fills={site: jnp.asarray(fill) for site, fill in fills.items()},
        **{split: dataclasses.replace(some, row_length=row) for split, some in pairs.items()},
    )
