"""What the method finds where it should find nothing, or something else: the worlds of the controls.

    task        the task itself, with several seeds
    templates   the task without some of its templates; judged on these
    nonsense    the same prompts, with two fixed completions that are wrong everywhere
    shuffled    the right completion of every pair drawn by a coin
    weights     a network with the same nonzero weights in random order

All worlds have equal shapes, so that their runs are jobs of one program: pairs are stacked on axis 1,
the two networks on axis 0, and a job's hyperparameters say which of each are its own. A random network's
replacement values are its own means, over the tokens of training prompts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import Params, apply
from circuitjax.prune.config import Hyper, PruneConfig
from circuitjax.prune.gates import Tau
from circuitjax.prune.nodes import NodeMasks
from circuitjax.prune.objective import AnyPairs, OnPairs, Pairs
from circuitjax.prune.packing import Packed, Rows, training_rows
from circuitjax.prune.problem import Problem, to_pairs
from circuitjax.tasks.base import Task
from circuitjax.tasks.splits import SPLITS, draw
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "World",
    "WorldHyper",
    "WorldMasks",
    "held_out_templates",
    "make_worlds",
    "shuffle_weights",
    "stack_worlds",
]

_MEAN_PAIRS = 64  # training pairs whose tokens a random network's means are over
_LEFT_OUT = 0.05  # of a world's training rows, at most, for the sake of shorter ones
_KEPT = (
    "bigram",
    "final_bias",
)  # past every gate: shuffled, they would change the task, not the network


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A task in a network.

    Attributes:
      name: see the module docstring.
      problem: what its jobs learn on, are selected on and tested on.
      network: 0 for the model, 1 for the random one.
      note: what was held out or drawn, for the report.
    """

    name: str
    problem: Problem
    network: int = 0
    note: str = ""


@flax.struct.dataclass
class WorldHyper:
    """A job's hyperparameters, and the world it lives in.

    Attributes:
      hyper: of node pruning.
      world: index on axis 1 of the stacked pairs.
      network: index on axis 0 of the stacked networks.
    """

    hyper: Hyper
    world: Any
    network: Any

    @property
    def inv_beta2(self) -> Any:
        """Of the hyperparameters."""
        return self.hyper.inv_beta2

    @property
    def wd(self) -> Any:
        """Of the hyperparameters."""
        return self.hyper.wd


@dataclasses.dataclass(frozen=True)
class WorldMasks(OnPairs):
    """Node pruning in one of several worlds; an `Objective`.

    Its data is (parameters, fills) with networks on axis 0, its items are rows with worlds on axis 1.
    """

    config: TransformerConfig
    prune: PruneConfig

    @property
    def _plain(self) -> NodeMasks:
        return NodeMasks(self.config, self.prune)

    @property
    def separable(self) -> bool:
        """A mean over pairs."""
        return True

    def init(self, key: jax.Array, hyper: WorldHyper) -> tuple[Tau, tuple[()]]:
        """As `NodeMasks`: the same seed gives the same start in every world."""
        return self._plain.init(key, hyper.hyper)

    def data_of(self, hyper: WorldHyper, data: Any) -> Any:
        """The job's network."""
        if len(jax.tree.leaves(data)[0]) == 1:
            return jax.tree.map(lambda leaf: leaf[0], data)  # jobs side by side share it
        return _picked(data, hyper.network, 0)

    def loss(
        self,
        tau: Tau,
        multipliers: tuple[()],
        hyper: WorldHyper,
        at: tuple[jax.Array, jax.Array],
        data: Any,
        batch: AnyPairs,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """That of `NodeMasks` in the job's world."""
        own = _picked(batch, hyper.world, 1)
        return self._plain.loss(tau, multipliers, hyper.hyper, at, data, own)

    def rate(self, hyper: WorldHyper, step: jax.Array) -> jax.Array:
        """Of the hyperparameters."""
        return self._plain.rate(hyper.hyper, step)

    def project(self, tau: Tau) -> Tau:
        """Clamps to [-1, 1]."""
        return self._plain.project(tau)

    def ascend(self, multipliers: tuple[()], gradient: tuple[()], hyper: WorldHyper) -> tuple[()]:
        """Nothing to ascend."""
        del gradient, hyper
        return multipliers


def _picked(tree: Any, index: jax.Array, axis: int) -> Any:
    index = index.astype(jnp.int32)
    return jax.tree.map(
        lambda leaf: lax.dynamic_index_in_dim(leaf, index, axis, keepdims=False), tree
    )


def stack_worlds(sets: Sequence[Pairs], causal: bool, batch_size: int) -> Rows:
    """Training rows of K worlds as one: leaves `[R, K, ...]`; shorter sets are gone through again.

    All rows are as long as the longest, so where only a few of another world's are longer than the
    first's, these are left out.
    """
    size = max(pairs.size for pairs in sets)
    length = max(pairs.tokens.shape[-1] for pairs in sets)
    row = max(pairs.row_length for pairs in sets) if all(pairs.row_length for pairs in sets) else 0

    def fitted(pairs: Pairs, least: int) -> Rows:
        pairs = pairs.take(np.resize(np.arange(pairs.size), size + size % 2))
        missing = length - pairs.tokens.shape[-1]
        filler = pairs.tokens[:, :, :1]  # BOS, as in `Encoded`
        tokens = jnp.concatenate([pairs.tokens, *[filler] * missing], axis=-1)
        pairs = dataclasses.replace(pairs, tokens=tokens, row_length=row)
        return training_rows(pairs, causal, batch_size, least)

    plain = [fitted(pairs, 0) for pairs in sets]
    own = plain[0].tokens.shape[-1]
    short = [_shortened(rows, own) for rows in plain]
    slots = max(rows.tokens.shape[-1] for rows in short)
    rows = [
        few if few.tokens.shape[-1] == slots else _shortened(fitted(pairs, slots), slots)
        for few, pairs in zip(short, sets, strict=True)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *rows)


def _shortened(rows: Rows, slots: int) -> Rows:
    """As many rows of so many slots, those that need more left out; unchanged if these are many."""
    if not isinstance(rows, Packed) or rows.tokens.shape[-1] <= slots:
        return rows
    fits = np.flatnonzero(np.max(np.asarray(rows.ends), axis=1) < slots)
    if len(fits) < (1 - _LEFT_OUT) * len(rows.ends):
        return rows
    kept = rows.take(np.resize(fits, len(rows.ends)))
    layout = jax.tree.map(lambda leaf: leaf[:, :slots], kept.layout)
    return dataclasses.replace(kept, tokens=kept.tokens[:, :slots], layout=layout)


def held_out_templates(task: Task) -> tuple[str, ...]:
    """Every third template, from the second on; none where a task has fewer than two."""
    return task.templates[1::3]


def _template_world(
    model: Model, task: Task, problem: Problem, data_seed: int, pairs: int | None
) -> World:
    out = held_out_templates(task)
    if not out:
        raise ValueError("the task has one template only: its strings are held out, no template is")
    rest = tuple(name for name in task.templates if name not in out)
    tokenizer = Tokenizer.from_json(model.tokenizer_json)
    sets: dict[str, Any] = {}
    most = dict.fromkeys(SPLITS, pairs) | {
        "train": pairs and 2 * problem.prune.steps * problem.prune.batch_size
    }
    for split in SPLITS:
        size = None if task.pool else min(getattr(problem, split).size, most[split] or 2**31)
        absent = rest if split == "test" else out
        found = draw(task, tokenizer, split, size, data_seed, absent)
        length = max(found.tokens.shape[-1], problem.train.tokens.shape[-1])
        row = problem.train.row_length
        sets[split] = dataclasses.replace(to_pairs(found, length), row_length=row)
    note = f"trained without {', '.join(out)}; tested on these"
    return World("templates", dataclasses.replace(problem, **sets), note=note)


def _nonsense_world(problem: Problem, model: Model, rng: np.random.Generator) -> World:
    """Two tokens of the prompts, which are the answer of no pair, for the answers of every pair."""
    sets = [getattr(problem, split) for split in SPLITS]
    answers = np.unique(np.concatenate([np.asarray(p.answers).ravel() for p in sets]))
    used = np.unique(np.asarray(problem.train.tokens))
    free = np.setdiff1d(used, np.append(answers, int(problem.train.tokens[0, 0, 0])))
    if len(free) < 2:
        free = np.setdiff1d(np.arange(problem.config.vocab_size), answers)
    if len(free) < 2:
        raise ValueError("every token of the vocabulary is an answer: there is no wrong completion")
    first, second = (int(token) for token in rng.choice(free, 2, replace=False))
    changed: dict[str, Any] = {
        split: dataclasses.replace(
            pairs,
            answers=jnp.broadcast_to(jnp.array([[first, second]], jnp.int32), pairs.answers.shape),
        )
        for split, pairs in zip(SPLITS, sets, strict=True)
    }
    texts = [str(first), str(second)]
    if model.tokenizer_json:
        tokenizer = Tokenizer.from_json(model.tokenizer_json)
        texts = [tokenizer.decode([token]) for token in (first, second)]
    note = f"{texts[0]!r} after the positive prompt, {texts[1]!r} after the negative"
    return World("nonsense", dataclasses.replace(problem, **changed), note=note)


def _shuffled_world(problem: Problem, rng: np.random.Generator) -> World:
    changed: dict[str, Any] = {}
    for split in SPLITS:
        pairs = getattr(problem, split)
        coin = jnp.asarray(rng.random(pairs.size) < 0.5)[:, None]
        answers = jnp.where(coin, pairs.answers[:, ::-1], pairs.answers)
        changed[split] = dataclasses.replace(pairs, answers=answers)
    return World("shuffled", dataclasses.replace(problem, **changed), note="by a coin per pair")


def shuffle_weights(params: Params, rng: np.random.Generator) -> dict[str, Any]:
    """The nonzero values of every array in random order, zeros where they were.

    Layers are shuffled each by itself; a bigram table and a final bias, past every gate, stay.
    """

    def shuffled(values: np.ndarray) -> np.ndarray:
        values = np.array(values, np.float32)
        places = np.flatnonzero(values)
        values.reshape(-1)[places] = rng.permutation(values.reshape(-1)[places])
        return values

    found = {
        name: value if name in _KEPT else shuffled(np.asarray(value))
        for name, value in params.items()
        if name != "layers"
    }
    found["layers"] = {
        name: np.stack([shuffled(layer) for layer in np.asarray(stack)])
        for name, stack in params["layers"].items()
    }
    return found


def _random_world(problem: Problem, rng: np.random.Generator) -> World:
    params = jax.tree.map(jnp.asarray, shuffle_weights(problem.params, rng))
    fills: Mapping[str, jax.Array] = problem.fills
    if problem.prune.ablation == "mean":
        some = problem.train.take(np.arange(min(_MEAN_PAIRS, problem.train.size)))
        fills = _prompt_means(problem.config, params, some)
    world = dataclasses.replace(problem, params=params, fills=dict(fills))
    return World("weights", world, network=1, note="nonzero weights of each array in random order")


def _prompt_means(config: TransformerConfig, params: Params, pairs: Pairs) -> dict[str, jax.Array]:
    """{site: `[L, W]`} over the tokens of prompts."""

    @jax.jit
    def sums(batch: Pairs) -> tuple[dict[str, jax.Array], jax.Array]:
        tokens = batch.tokens.reshape(-1, batch.tokens.shape[-1])
        real = jnp.arange(tokens.shape[1])[None, :] <= batch.last.reshape(-1, 1)
        seen = apply(config, params, tokens, capture=SITES).captured
        weight = real[None, :, :, None].astype(jnp.float32)
        return {s: jnp.sum(v * weight, axis=(1, 2)) for s, v in seen.items()}, jnp.sum(real)

    parts = [
        jax.device_get(sums(pairs.take(np.arange(start, min(start + 16, pairs.size)))))
        for start in range(0, pairs.size, 16)
    ]
    tokens = sum(int(count) for _, count in parts)
    return {s: jnp.asarray(sum(found[s] for found, _ in parts) / tokens) for s in SITES}


def make_worlds(
    model: Model,
    task: Task,
    problem: Problem,
    *,
    seed: int = 0,
    data_seed: int = 0,
    pairs: int | None = None,
) -> tuple[list[World], dict[str, str]]:
    """The task itself and every control that can be made of it.

    Args:
      model, task: for templates and token texts.
      problem: of both; its settings are every world's.
      seed: of what the controls draw.
      data_seed: that of the problem's sets.
      pairs: validation and test pairs that are needed, so that a world of other pairs draws no more, and
        for training no more than twice what its steps take; None, or a task with a pool: all there are.

    Returns:
      Worlds, the task first; and, for those that cannot be, {name: why}.
    """
    rng = np.random.default_rng([seed, 77])
    worlds, absent = [World("task", problem)], {}
    makers = {
        "templates": lambda: _template_world(model, task, problem, data_seed, pairs),
        "nonsense": lambda: _nonsense_world(problem, model, rng),
        "shuffled": lambda: _shuffled_world(problem, rng),
        "weights": lambda: _random_world(problem, rng),
    }
    for name, make in makers.items():
        try:
            worlds.append(make())
        except ValueError as error:
            absent[name] = str(error)
    return worlds, absent
