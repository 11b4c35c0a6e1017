"""The controls of an audit: the same search where it should find nothing, or something else.

    task        the task itself, with several seeds
    templates   the task without some of its templates; judged on these
    nonsense    the same prompts, with two fixed completions that are wrong everywhere
    shuffled    the right completion of every pair drawn by a coin
    weights     a network with the same nonzero weights in random order

All worlds have equal shapes, so that their runs are jobs of one program: training rows are stacked on
axis 1, the two networks under gates on axis 0, and a job's hyperparameters say which of each are its
own. A random network's replacement values are its own means, over the tokens of training prompts.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.gated.examples import Examples
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.gated.rows import Rows, shortened, stacked
from circuitjax.model.transformer import Params
from circuitjax.prune.config import DataConfig, Hyper
from circuitjax.prune.defaults import Search
from circuitjax.prune.objective import Objective
from circuitjax.prune.problem import Problem, draw_sets, gated_model
from circuitjax.prune.rank import activation_moments
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.splits import SPLITS
from circuitjax.tasks.templates import held_out_templates, templates_of
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "InWorld",
    "World",
    "WorldHyper",
    "make_worlds",
    "shuffle_weights",
    "stack_worlds",
]

_MEAN_ITEMS = 64  # training items whose tokens a random network's means are over
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
      hyper: of the search.
      world: index on axis 1 of the stacked training rows.
      network: index on axis 0 of the stacked networks.
    """

    hyper: Hyper
    world: Any
    network: Any

    @property
    def inv_beta2(self) -> Any:
        """1 - b2 of Adam."""
        return self.hyper.inv_beta2

    @property
    def wd(self) -> Any:
        """Weight decay of the scores."""
        return self.hyper.wd


@dataclasses.dataclass(frozen=True)
class InWorld:
    """An objective in one of several worlds; `train.Trained`.

    Its data are gated models with networks on axis 0, its items are rows with worlds on axis 1.

    Attributes:
      plain: the objective of the search.
    """

    plain: Objective

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.plain.steps

    @property
    def batch_size(self) -> int:
        """Items per step."""
        return self.plain.batch_size

    def separable(self, model: Any) -> bool:
        """Whether the loss is a mean over items."""
        return self.plain.separable(model)

    def draw(self, items: Any, key: jax.Array) -> Any:
        """The items of one step, of every world."""
        return self.plain.draw(items, key)

    def init(self, key: jax.Array, hyper: WorldHyper, data: Any) -> tuple[Any, Any]:
        """Scores and multipliers; the same seed gives the same start in every world."""
        return self.plain.init(key, hyper.hyper, data)

    def data_of(self, hyper: WorldHyper, data: Any) -> Any:
        """The job's network."""
        if len(jax.tree.leaves(data)[0]) == 1:
            return jax.tree.map(lambda leaf: leaf[0], data)  # jobs side by side share it
        return _picked(data, hyper.network, 0)

    def loss(
        self,
        tau: Any,
        multipliers: Any,
        hyper: WorldHyper,
        at: tuple[jax.Array, jax.Array],
        model: Any,
        batch: Any,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The search's loss on the rows of the job's world."""
        own = _picked(batch, hyper.world, 1)
        return self.plain.loss(tau, multipliers, hyper.hyper, at, model, own)

    def rate(self, hyper: WorldHyper, step: jax.Array) -> jax.Array:
        """Learning rate at a step."""
        return self.plain.rate(hyper.hyper, step)

    def project(self, tau: Any) -> Any:
        """Scores back within bounds."""
        return self.plain.project(tau)

    def ascend(self, multipliers: Any, gradient: Any, hyper: WorldHyper) -> Any:
        """Multipliers after a step of gradient ascent."""
        return self.plain.ascend(multipliers, gradient, hyper.hyper)


def _picked(tree: Any, index: jax.Array, axis: int) -> Any:
    index = index.astype(jnp.int32)
    return jax.tree.map(
        lambda leaf: lax.dynamic_index_in_dim(leaf, index, axis, keepdims=False), tree
    )


def stack_worlds(problems: Sequence[Problem], batch_size: int) -> Rows:
    """Training rows of K worlds as one: leaves `[R, K, ...]`; shorter sets are gone through again.

    All rows are as long as the longest, so where only a few of another world's are longer than the
    first's, these are left out.
    """
    sets, batches = [problem.train for problem in problems], problems[0].batches
    size = max(some.items for some in sets)
    length = max(some.tokens.shape[-1] for some in sets)
    widths = [max(getattr(s, name).shape[-1] for s in sets) for name in ("right", "wrong")]
    row = max(some.row_length for some in sets) if all(some.row_length for some in sets) else 0

    def fitted(some: Examples, least: int) -> Rows:
        some = some.take(np.resize(np.arange(some.items), size + size % 2))
        missing = length - some.tokens.shape[-1]
        filler = some.tokens[:, :, :1]  # BOS, as the task's own padding
        tokens = jnp.concatenate([some.tokens, *[filler] * missing], axis=-1)
        right, wrong = (
            jnp.pad(jnp.asarray(x), ((0, 0), (0, width - x.shape[-1])), constant_values=-1)
            for x, width in zip((some.right, some.wrong), widths, strict=True)
        )
        some = dataclasses.replace(some, tokens=tokens, right=right, wrong=wrong, row_length=row)
        return batches.training(some, batch_size, least)

    plain = [fitted(some, 0) for some in sets]
    own = plain[0].tokens.shape[-1]
    short = [shortened(rows, own, _LEFT_OUT) for rows in plain]
    slots = max(rows.tokens.shape[-1] for rows in short)
    rows = [
        few if few.tokens.shape[-1] == slots else shortened(fitted(some, slots), slots, _LEFT_OUT)
        for few, some in zip(short, sets, strict=True)
    ]
    return stacked(rows)


def _template_world(
    task: Task | ContrastTask, problem: Problem, search: Search, items: int | None
) -> World:
    every = templates_of(task, Tokenizer.from_json(problem.model.tokenizer_json))
    out = held_out_templates(every)
    if not out:
        raise ValueError("the task has one template only: its strings are held out, no template is")
    rest = tuple(name for name in every if name not in out)
    most = {"train": 2 * search.train.steps * search.train.batch_size} if items else {}
    sizes = {
        split: min(getattr(problem, split).items, most.get(split, items or 2**31))
        for split in SPLITS
    }
    data = DataConfig(**sizes, seed=search.data.seed)
    absent = {"train": out, "validation": out, "test": rest}
    length = problem.train.tokens.shape[-1]
    sets = draw_sets(problem.model, task, data, exclude=absent, least_length=length)
    row = problem.train.row_length
    sets = {split: dataclasses.replace(some, row_length=row) for split, some in sets.items()}
    note = f"trained without {', '.join(out)}; tested on these"
    return World("templates", problem.with_sets(sets), note=note)


def _completions(problem: Problem, search: Search) -> None:
    """Refuses a world of other completions where the search reads none, or where there is no other."""
    if search.choices.minimise == "kl":
        raise ValueError("the search minimises the KL to the model: it reads no completions")
    if not problem.paired:
        raise ValueError("the task's prompts are no pairs that could exchange their completions")


def _nonsense_world(problem: Problem, rng: np.random.Generator) -> World:
    """Two tokens of the prompts, which are the answer of no pair, for the answers of every pair."""
    sets = [getattr(problem, split) for split in SPLITS]
    answers = np.unique(np.concatenate([np.asarray(some.right).ravel() for some in sets]))
    used = np.unique(np.asarray(problem.train.tokens))
    free = np.setdiff1d(used, np.append(answers, int(problem.train.tokens[0, 0, 0])))
    if len(free) < 2:
        free = np.setdiff1d(np.arange(problem.whole.config.vocab_size), answers)
    if len(free) < 2:
        raise ValueError("every token of the vocabulary is an answer: there is no wrong completion")
    first, second = (int(token) for token in rng.choice(free, 2, replace=False))

    def changed(some: Examples) -> Examples:
        both = np.tile(np.array([[first], [second]], np.int32), (some.items, 1))
        return some.replace_answers(both, both.reshape(-1, 2)[:, ::-1].reshape(-1, 1))

    texts = [str(first), str(second)]
    if problem.model.tokenizer_json:
        tokenizer = Tokenizer.from_json(problem.model.tokenizer_json)
        texts = [tokenizer.decode([token]) for token in (first, second)]
    note = f"{texts[0]!r} after the positive prompt, {texts[1]!r} after the negative"
    sets_of = {split: changed(some) for split, some in zip(SPLITS, sets, strict=True)}
    return World("nonsense", problem.with_sets(sets_of), note=note)


def _shuffled_world(problem: Problem, rng: np.random.Generator) -> World:
    changed: dict[str, Examples] = {}
    for split in SPLITS:
        some = getattr(problem, split)
        coin = np.repeat(rng.random(some.items) < 0.5, 2)[:, None]
        right, wrong = np.asarray(some.right), np.asarray(some.wrong)
        changed[split] = some.replace_answers(
            np.where(coin, wrong, right), np.where(coin, right, wrong)
        )
    return World("shuffled", problem.with_sets(changed), note="by a coin per pair")


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


def _random_world(problem: Problem, search: Search, rng: np.random.Generator) -> World:
    if search.selection.target == "kl":
        raise ValueError("a network that answers all prompts alike has a KL of 0 without a circuit")
    if problem.trained is not problem.whole:
        raise ValueError("the search starts from a circuit, which no other network has")
    model = problem.model
    params = shuffle_weights(model.params, rng)
    means: Mapping[str, np.ndarray] | None = None
    if model.means is not None and not is_per_prompt(search.choices.ablation):
        means, _ = activation_moments(model.config, params, problem.train.first(_MEAN_ITEMS))
    model = dataclasses.replace(model, params=params, means=means)
    whole, trained = gated_model(model, search.choices, problem.train)
    world = dataclasses.replace(problem, model=model, whole=whole, trained=trained)
    return World("weights", world, network=1, note="nonzero weights of each array in random order")


def make_worlds(
    task: Task | ContrastTask,
    problem: Problem,
    search: Search,
    *,
    seed: int = 0,
    items: int | None = None,
) -> tuple[list[World], dict[str, str]]:
    """The task itself and every control that can be made of it.

    Args:
      task: for its templates.
      problem: the model and the task's data.
      search: the settings of every world's runs.
      seed: of what the controls draw.
      items: validation and test items that are needed, so that a world of other items draws no more, and
        for training no more than twice what its steps take; None, or a task with a pool: all there are.

    Returns:
      Worlds, the task first; and, for those that cannot be, {name: why}.
    """
    rng = np.random.default_rng([seed, 77])
    worlds, absent = [World("task", problem)], {}

    def exchanged(make: Callable[[Problem, np.random.Generator], World]) -> World:
        _completions(problem, search)
        return make(problem, rng)

    makers = {
        "templates": lambda: _template_world(task, problem, search, items),
        "nonsense": lambda: exchanged(_nonsense_world),
        "shuffled": lambda: exchanged(_shuffled_world),
        "weights": lambda: _random_world(problem, search, rng),
    }
    for name, make in makers.items():
        try:
            worlds.append(make())
        except ValueError as error:
            absent[name] = str(error)
    return worlds, absent
