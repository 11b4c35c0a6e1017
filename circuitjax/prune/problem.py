"""What is searched: one frozen model under gates, and one task's three disjoint sets, on the device."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.core.host import available_memory, forget_programs
from circuitjax.core.mesh import placed_params
from circuitjax.gated.conditions import condition_named, refills
from circuitjax.gated.edges import EdgeGates, bytes_of_slope, fixed_writers
from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates, constants
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.gated.rows import Batches, row_length
from circuitjax.gated.weights import weight_gates
from circuitjax.model.record import Model
from circuitjax.prune.conditions import Under, base_of, held_under, trained_under
from circuitjax.prune.config import Choices, DataConfig
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask, EncodedExamples, draw_encoded
from circuitjax.tasks.splits import SPLITS
from circuitjax.tasks.templates import held_out_templates, templates_of
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = [
    "Problem",
    "assembled",
    "batches_of",
    "check_memory",
    "draw_sets",
    "gated_model",
    "make_problem",
]

_LENGTH_STEP = 8  # prompts are padded to a multiple of this: tasks of similar length share programs
_MEAN_ITEMS = 256  # training items that the means of writers are over


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What training, selection, evidence and audit look at.

    Attributes:
      model: the frozen network.
      whole: the network under gates.
      trained: what the training looks at: the same, or reduced to the circuit it starts from.
      train, validation, test: examples whose texts are disjoint between the three.
      batches: how they are cut for the model.
      held: the conditions of the cut; () for the ablation of `whole` alone.
      mixed: the conditions of training; () likewise.
    """

    model: Model
    whole: GatedModel
    trained: GatedModel
    train: Examples
    validation: Examples
    test: Examples
    batches: Batches
    held: tuple[Under, ...] = ()
    mixed: tuple[Under, ...] = ()

    @property
    def conditions(self) -> tuple[Under, ...]:
        """Those that the cut demands its target under, at least one."""
        return self.held or (Under(self.whole.ablation, self.whole, self.trained, self.batches),)

    @property
    def judged(self) -> Examples:
        """Validation examples that a cut is made on.

        Several conditions together look at as many as one would, each of them at least at a scout's.
        """
        count = max(self.validation.items // len(self.conditions), self.whole.scouted_items)
        return self.validation.first(count)

    @property
    def data(self) -> Any:
        """What training looks at: one gated model, or one for each condition of a mix."""
        return tuple(under.trained for under in self.mixed) or self.trained

    def items(self, *sizes: int) -> Any:
        """What training draws so many items from: rows, or rows for each condition of a mix."""
        if not self.mixed:
            return self.batches.training(self.train, *sizes)
        asked = zip(self.mixed, sizes, strict=True)
        return tuple(under.batches.training(self.train, size) for under, size in asked)

    @property
    def paired(self) -> bool:
        """Whether examples come in pairs, so that a scale and a shift can be fitted."""
        return self.train.paired

    def with_sets(self, sets: Mapping[str, Examples]) -> "Problem":
        """The same model with other sets."""
        return dataclasses.replace(self, **dict(sets))  # type: ignore[arg-type]


def batches_of(model: GatedModel) -> Batches:
    """Rows hold several prompts only where nothing is replaced per prompt and the grain allows it."""
    packs = model.shares_rows and not is_per_prompt(model.ablation)
    return Batches(model.config.causal, packs, model.eval_items)


def _edges(model: Model, choices: Choices, train: Examples, start: Any) -> GatedModel:
    params = placed_params(dict(model.params))
    some = train.first(_MEAN_ITEMS)
    held = fixed_writers(model.config, params, choices.ablation, some)
    return EdgeGates(
        params,
        held,
        config=model.config,
        ablation=choices.ablation,
        units=choices.units,
        coarse=choices.coarse,
    )


def _nodes(model: Model, choices: Choices, train: Examples, start: Any) -> GatedModel:
    params = placed_params(dict(model.params))
    fills = constants(model.config, choices.ablation, model.means)
    held = None if fills is None else {s: jnp.asarray(f) for s, f in fills.items()}
    return NodeGates(
        params,
        held,
        config=model.config,
        ablation=choices.ablation,
        tied=choices.tie_qk,
        units=choices.units,
        coarse=choices.coarse,
    )


def _weights(model: Model, choices: Choices, train: Examples, start: Any) -> GatedModel:
    held = constants(model.config, choices.ablation, model.means)
    mask = None
    if start is not None:
        mask, held = start.opened["mask"], start.held if held is not None else None
    return weight_gates(
        model.config, model.params, held, choices.ablation, mask, tied=choices.tie_qk
    )


_MAKERS: dict[str, Callable[[Model, Choices, Examples, Any], GatedModel]] = {
    "nodes": _nodes,
    "weights": _weights,
    "edges": _edges,
}


def gated_model(
    model: Model, choices: Choices, train: Examples, start: Circuit | None = None
) -> tuple[GatedModel, GatedModel]:
    """The network under gates, whole, and as the training looks at it.

    Args:
      model: the frozen network.
      choices: grain, ablation, ties.
      train: examples that the means of residual edges' writers are over.
      start: a circuit of nodes whose weights are pruned further; its closed nodes stay closed.

    Raises:
      ValueError: a start at another grain than weights, one that is no circuit of nodes of this model,
        or one under another ablation.
    """
    if start is not None:
        start.check_model(model)
        if choices.grain != "weights":
            raise ValueError(f"grain {choices.grain} cannot start from a circuit: only weights can")
        if start.grain != "nodes":
            raise ValueError(
                f"the circuit to start from is of {start.grain}: start from one of nodes"
            )
        if start.ablation != choices.ablation:
            raise ValueError(
                f"the circuit to start from is under {start.ablation} ablation, not "
                f"{choices.ablation}: choose --ablation={start.ablation}"
            )
    whole = _MAKERS[choices.grain](model, choices, train, start)
    if start is None or 2 * start.num_nodes >= model.config.num_nodes:
        return whole, whole
    return whole, whole.reduced(whole.exists(), own_widths=True)


def draw_sets(
    model: Model,
    task: Task | ContrastTask,
    data: DataConfig,
    *,
    exclude: Mapping[str, tuple[str, ...]] | None = None,
    least_length: int = 0,
    unseen: Sequence[str] = (),
) -> dict[str, Examples]:
    """Train, validation and test examples of a task, padded alike.

    Args:
      model: whose tokenizer encodes them.
      task: of either kind.
      data: sizes and seed.
      exclude: {split: templates to leave out}.
      least_length: positions, at least.
      unseen: templates that training is to know nothing of.

    Raises:
      ValueError: no tokenizer, a task that cannot supply so many examples or whose prompts are too long,
        a prompt or answer with a token beyond the embedding's rows.
    """
    if not model.tokenizer_json:
        raise ValueError(f"model {model.name!r} has no tokenizer: tasks cannot be encoded for it")
    tokenizer, config = Tokenizer.from_json(model.tokenizer_json), model.config
    unit = 2 if isinstance(task, Task) else 1
    templates = templates_of(task, tokenizer)
    exclude = {**({"train": tuple(unseen)} if unseen else {}), **(exclude or {})}
    sets: dict[str, EncodedExamples] = {}
    for split in SPLITS:
        size = None if task.pool else unit * getattr(data, split)
        absent = exclude.get(split, ())
        sets[split] = draw_encoded(task, tokenizer, split, size, data.seed, absent)
        _check_tokens(sets[split], config.vocab_size, tokenizer, model.name)
    length = max(encoded.tokens.shape[-1] for encoded in sets.values())
    rounded = -(-length // _LENGTH_STEP) * _LENGTH_STEP
    length = max(length, min(rounded, config.context_length), least_length)
    if length > config.context_length:
        raise ValueError(
            f"task {task.name!r} has prompts of {length} tokens, above the context length of "
            f"{config.context_length} of model {model.name!r}: shorten them"
        )
    widths = [
        max(e.right.shape[-1] for e in sets.values()),
        max(e.wrong.shape[-1] for e in sets.values()),
    ]
    examples = {
        split: to_examples(
            encoded.padded(length, *widths),
            paired=unit == 2,
            templates=templates,
            left_out=tuple(templates.index(name) for name in unseen),
        )
        for split, encoded in sets.items()
    }
    needed = [row_length(config, some) for some in examples.values()]
    row = max(needed) if all(needed) else 0
    return {s: dataclasses.replace(some, row_length=row) for s, some in examples.items()}


def _check_tokens(
    encoded: EncodedExamples, rows: int, tokenizer: Tokenizer, model_name: str
) -> None:
    """Refuses tokens that the model has no row for: the last row would stand in for them, silently."""
    for what, ids in (
        ("a prompt", encoded.tokens),
        ("an answer", encoded.right),
        ("an answer", encoded.wrong),
    ):
        top = int(ids.max())
        if top >= rows:
            raise ValueError(
                f"{what} holds token {tokenizer.decode([top])!r} with id {top}, beyond the {rows} rows "
                f"of model {model_name!r}'s embedding: this tokenizer belongs to another model"
            )


def to_examples(
    encoded: EncodedExamples,
    *,
    paired: bool,
    templates: Sequence[str] = (),
    left_out: tuple[int, ...] = (),
) -> Examples:
    """Encoded examples on the device; each is answered at its last token.

    Args:
      encoded: M of them.
      paired: whether they come in pairs.
      templates: names of the task's; an example of none of them has number -1.
      left_out: numbers of those that training never sees.
    """
    number = {name: index for index, name in enumerate(templates)}
    template = np.array([number.get(name, -1) for name in encoded.templates], np.int32)
    return Examples(
        tokens=jnp.asarray(encoded.tokens),
        positions=jnp.asarray(encoded.last)[:, None],
        right=jnp.asarray(encoded.right),
        wrong=jnp.asarray(encoded.wrong),
        paired=paired,
        template=jnp.asarray(template) if len(template) else None,
        left_out=left_out,
    )


def check_memory(model: GatedModel, length: int, unit: int = 1) -> None:
    """Refuses residual edges of prompts that this host's memory will not hold, before any work.

    Args:
      model: of any grain; the others hold little beside the model.
      length: T of the prompts.
      unit: examples of an item.

    Raises:
      ValueError: how much one pass needs, how much there is, and how many edges it is of.
    """
    free = available_memory()
    if model.grain != "edges" or free is None or jax.default_backend() != "cpu":
        return
    needed = model.eval_items * unit * bytes_of_slope(model.config, length)
    if needed > free:
        raise ValueError(
            f"{model.num_gates} residual edges on {model.eval_items * unit} prompts of {length} tokens "
            f"at a time need about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: "
            "shorten the prompts, or choose grain=nodes"
        )


def make_problem(
    model: Model,
    task: Task | ContrastTask,
    choices: Choices | None = None,
    data: DataConfig | None = None,
    *,
    start: Circuit | None = None,
) -> Problem:
    """Draws the three sets and puts everything on the device.

    Args:
      model: the frozen network, with its tokenizer.
      task: of either kind.
      choices: grain, ablation, ties; None for the defaults.
      data: sizes of the sets; None for the defaults.
      start: see `gated_model`.

    Raises:
      ValueError: see `draw_sets` and `gated_model`; mean ablation of a model without means.
    """
    choices, data = choices or Choices(), data or DataConfig()
    sets = draw_sets(model, task, data, unseen=_unseen(model, task, choices))
    found = assembled(model, choices, sets, start)
    check_memory(found.whole, sets["train"].tokens.shape[-1], sets["train"].unit)
    return found


def _unseen(model: Model, task: Task | ContrastTask, choices: Choices) -> tuple[str, ...]:
    """Templates that training is to know nothing of, for the cut is asked about them."""
    if not any(condition_named(name).apart for name in held_under(choices)):
        return ()
    out = held_out_templates(templates_of(task, Tokenizer.from_json(model.tokenizer_json)))
    if not out:
        raise ValueError(
            f"hold_under names templates, but task {task.name!r} has fewer than two: leave it out"
        )
    return out


def assembled(
    model: Model, choices: Choices, sets: Mapping[str, Examples], start: Circuit | None = None
) -> Problem:
    """A model and drawn sets as a problem, with the conditions of training and of the cut."""
    forget_programs()
    names, held = [name for name, _ in trained_under(choices)], held_under(choices)
    wanted = dict.fromkeys([*held, *names])
    folds = not any(refills(name, choices.ablation) for name in wanted)

    def gated(ablation: str) -> tuple[Any, Any]:
        own = dataclasses.replace(choices, ablation=ablation)
        both: list[Any] = list(gated_model(model, own, sets["train"], start))
        whole, trained = (one if folds else dataclasses.replace(one, folds=False) for one in both)
        return whole, whole if both[0] is both[1] else trained

    made = {
        fills: gated(fills) for fills in {choices.ablation} | {base_of(choices, n) for n in wanted}
    }

    def under(name: str) -> Under:
        whole, trained = made[base_of(choices, name)]
        rows = batches_of(whole)
        # Where norms are those of another run, each of its tokens needs a place of its own.
        rows = dataclasses.replace(rows, packs=rows.packs and not condition_named(name).frozen)
        return Under(name, whole, trained, rows)

    def several(conditions: Sequence[str]) -> tuple[Under, ...]:
        alone = list(conditions) == [choices.ablation]
        return () if alone else tuple(under(name) for name in conditions)

    whole, trained = made[choices.ablation]
    return Problem(
        model,
        whole,
        trained,
        sets["train"],
        sets["validation"],
        sets["test"],
        batches_of(whole),
        several(held),
        several(names),
    )
