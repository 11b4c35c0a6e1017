"""What goes with what: the one table that refuses a combination, with its reason, before any work.

Any answer to one of the five questions goes with any answer to another, unless a row below applies.
`--helpfull` and the tests read these rows; a test holds the README to them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from circuitjax.core.files import cut
from circuitjax.gated import replacement
from circuitjax.gated.conditions import condition_named
from circuitjax.gated.grains import GRAINS
from circuitjax.gated.units import UNITS
from circuitjax.model.config import TransformerConfig
from circuitjax.model.residual_graph import residual_graph
from circuitjax.prune import opening
from circuitjax.prune.attribution import ATTRIBUTIONS
from circuitjax.prune.conditions import held_under, shares, trained_under
from circuitjax.prune.config import SYNONYMS, UNTRAINED, Choices, Hyper, SelectionConfig
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.templates import templates_of

__all__ = [
    "READ_BY",
    "RULES",
    "Case",
    "Rule",
    "answers",
    "refuse",
    "refuse_unused",
    "table",
    "table_text",
]


def answers() -> dict[str, tuple[str, ...]]:
    """What each question can be answered with."""
    return {
        "grain": tuple(GRAINS),
        "gate": tuple(opening.GATES),
        "ablation": tuple(replacement.ABLATIONS),
        "minimise": ("task", "kl", "both"),
        "control": tuple(opening.CONTROLS),
        "ranking": ("learned", *ATTRIBUTIONS, *SYNONYMS, *UNTRAINED),
        "sign": ("absolute", "signed", "positive"),
        "attribute_to": ("loss", "odds"),
        "warm_start": ("none", *ATTRIBUTIONS, *SYNONYMS, "fisher"),
        "loss": ("binary", "vocabulary"),
        "units": UNITS,
        "coarse": ("none", *UNITS[1:]),
    }


class Case(NamedTuple):
    """What is asked for.

    Attributes:
      choices, selection: of the search.
      config: the model's description.
      task: its name.
      paired: whether the task's prompts come in pairs, each the other's corrupted one.
      corrupts: whether it has corrupted prompts at all.
      has_means: whether the model has activation means.
      batch_size: examples of a step.
      templates: how many the task has.
    """

    choices: Choices
    selection: SelectionConfig
    config: TransformerConfig
    task: str
    paired: bool
    corrupts: bool = True
    has_means: bool = True
    batch_size: int = 2
    templates: int = 2


@dataclasses.dataclass(frozen=True)
class Rule:
    """One combination that cannot be.

    Attributes:
      what: the combination, as users name it.
      why: the reason, and the mend.
      holds: whether it is asked for; a text is a closer reason than `why`.
    """

    what: str
    why: str
    holds: Callable[[Case], bool | str]


def _conditions(choices: Choices) -> list[str]:
    """Every condition that is asked for."""
    trained = [name for name, _ in trained_under(choices)]
    return list(dict.fromkeys([choices.ablation, *trained, *held_under(choices)]))


def _fills(case: Case) -> list[str]:
    """The ablations among them."""
    return [name for name in _conditions(case.choices) if name in replacement.ABLATIONS]


def _without_corrupted(case: Case) -> bool | str:
    asked = [name for name in _fills(case) if replacement.needs_corrupted(name)]
    if case.corrupts or not asked:
        return False
    return (
        f"ablation={asked[0]} needs corrupted prompts, and task {cut(case.task)} has none: choose mean, "
        "zero or resample"
    )


def _without_norms(case: Case) -> bool:
    frozen = any(condition_named(name).frozen for name in _conditions(case.choices))
    return frozen and (case.choices.grain == "edges" or case.config.norm == "none")


def _templates(case: Case) -> bool | str:
    trained = [name for name, _ in trained_under(case.choices) if condition_named(name).apart]
    asked = any(condition_named(name).apart for name in held_under(case.choices))
    if not trained and asked and case.templates < 2:
        return (
            f"task {cut(case.task)} has fewer than two templates: leave templates out of hold_under"
        )
    return bool(trained)


def _too_few(case: Case) -> bool | str:
    weights = [weight for _, weight in trained_under(case.choices)]
    items = case.batch_size // (2 if case.paired else 1)
    try:
        sizes = shares(weights, items)
    except ValueError as error:
        return str(error)
    names = [name for name, _ in trained_under(case.choices)]
    examples = dict(zip(names, sizes, strict=True))
    return examples.get("resample", 2) * (2 if case.paired else 1) < 2


def _larger(choices: Choices) -> bool:
    return choices.units != "channel" or choices.coarse != "none"


def _without_graph(case: Case) -> bool | str:
    if case.choices.grain == "edges":
        try:
            residual_graph(case.config)
        except ValueError as error:
            return str(error)
    return False


RULES: tuple[Rule, ...] = (
    Rule(
        "grain=edges of a model whose residual stream is not the plain sum of what its parts write",
        "what is written is not what is read: choose nodes or weights",
        _without_graph,
    ),
    Rule(
        "ablation=interchange for a task without corrupted prompts",
        "what a closed part held on the corrupted prompt replaces it: choose mean, zero or resample",
        _without_corrupted,
    ),
    Rule(
        "ranking=variance with grain weights or edges",
        "only nodes have an activation: choose attribution, integrated or random",
        lambda c: c.choices.ranking == "variance" and c.choices.grain != "nodes",
    ),
    Rule(
        "ranking (or warm_start)=eap_ig_inputs without residual edges under interchange",
        "it is about what edges carry on the corrupted prompt: choose grain=edges and "
        "ablation=interchange, or ranking=integrated",
        lambda c: (
            "eap_ig_inputs" in (c.choices.ranking, c.choices.warm_start)
            and (c.choices.grain, c.choices.ablation) != ("edges", "interchange")
        ),
    ),
    Rule(
        "ranking (or warm_start)=eap_ig_activations without residual edges",
        "it takes writers of the stream one depth at a time: choose grain=edges, or "
        "ranking=integrated",
        lambda c: (
            "eap_ig_activations" in (c.choices.ranking, c.choices.warm_start)
            and c.choices.grain != "edges"
        ),
    ),
    Rule(
        "ranking (or warm_start)=gim with grain weights",
        "its corrected gradient is of activations: choose attribution or integrated",
        lambda c: (
            "gim" in (c.choices.ranking, c.choices.warm_start) and c.choices.grain == "weights"
        ),
    ),
    Rule(
        "ranking=eliminated without a KL or a size as target, or under several conditions",
        "gates go by what that adds to one KL: choose target_kl or a size, and leave hold_under out",
        lambda c: (
            c.choices.ranking == "eliminated"
            and (c.selection.target == "loss" or len(held_under(c.choices)) > 1)
        ),
    ),
    Rule(
        "selection=greedy without residual edges",
        "only they are walked from the logits backwards: choose grain=edges or selection=top",
        lambda c: c.selection.order == "greedy" and c.choices.grain != "edges",
    ),
    Rule(
        "threshold=match_soft without hard-concrete gates that were trained",
        "only they expect a number of open gates: choose gate=hard_concrete and ranking=learned",
        lambda c: (
            c.selection.target == "match_soft"
            and (c.choices.gate != "hard_concrete" or c.choices.ranking != "learned")
        ),
    ),
    Rule(
        "eliminate with a size as target",
        "gates go until a loss or a KL is reached: choose target_loss or target_kl, or leave it out",
        lambda c: c.selection.eliminate and not c.selection.is_loss,
    ),
    Rule(
        "control=hold without a loss or a KL to hold",
        "it holds what the target is about: choose target_loss or target_kl",
        lambda c: (
            c.choices.control == "hold"
            and c.choices.ranking == "learned"
            and not c.selection.is_loss
        ),
    ),
    Rule(
        "calibration with loss=vocabulary",
        "a scale and a shift of two logits do not define one: choose calibrate=off",
        lambda c: c.choices.loss == "vocabulary" and c.paired and c.selection.calibrate != "off",
    ),
    Rule(
        "gates on owners with grain nodes",
        "a node is its own owner: leave node_gates out",
        lambda c: c.choices.owners and c.choices.grain == "nodes",
    ),
    Rule(
        "tie_qk with grain edges",
        "residual edges have no q and k channels: leave tie_qk out",
        lambda c: c.choices.tie_qk and c.choices.grain == "edges",
    ),
    Rule(
        "units (or coarse)=head or block with grain weights",
        "a weight lies between two nodes: choose grain=nodes or edges, or leave it out",
        lambda c: c.choices.grain == "weights" and _larger(c.choices),
    ),
    Rule(
        "coarse with units=head or block, or with gates on owners",
        "one gate beside the finest is all that is learned together: choose one of them",
        lambda c: c.choices.coarse != "none" and (c.choices.units != "channel" or c.choices.owners),
    ),
    Rule(
        "gates on owners with units=head or block",
        "an edge of a block has several writers: leave node_gates out",
        lambda c: c.choices.owners and c.choices.units != "channel",
    ),
    Rule(
        "tie_qk with units=head or block",
        "q and k of a head share a gate already: leave tie_qk out",
        lambda c: c.choices.tie_qk and c.choices.units != "channel" and c.choices.grain == "nodes",
    ),
    Rule(
        "ablation=resample with one example a step",
        "another prompt of the batch is needed: choose batch_size of at least 2",
        _too_few,
    ),
    Rule(
        "condition frozen_norms with grain edges, or of a model without norms",
        "there is no one norm to freeze: choose other conditions",
        _without_norms,
    ),
    Rule(
        "condition templates in train_under, or of a task with fewer than two",
        "it asks about templates that training never sees: name it in hold_under alone",
        _templates,
    ),
    Rule(
        "mean ablation of a model without activation means",
        "compute them with `python -m experiments.means`, or choose ablation=zero",
        lambda c: "mean" in _fills(c) and c.choices.grain != "edges" and not c.has_means,
    ),
)

#: Settings that only some answers read, as {setting: (question, those answers)}.
READ_BY: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "k_coef": ("control", ("count", "hold")),
        "aim": ("control", ("hold",)),
        "target_sparsity": ("control", ("lagrangian",)),
        "target_warmup_frac": ("control", ("lagrangian",)),
        "multiplier_lr": ("control", ("lagrangian",)),
        "heaviside_temp": ("gate", ("heaviside",)),
        "kl_weight": ("minimise", ("both",)),
        "sign": ("ranking", tuple(ATTRIBUTIONS)),
        "attribute_to": ("ranking", tuple(ATTRIBUTIONS)),
    }
)
#: What only training reads, beside all hyperparameters.
_TRAINING = (
    *("train_under", "steps"),
    "batch_size",
    "num_jobs",
    "gate",
    "control",
    "minimise",
    "node_gates",
    "warm_start",
    "eliminate",
)


def refuse_unused(choices: Choices, given: Iterable[str]) -> None:
    """Refuses settings that were given and would do nothing; names are those of the flags.

    Raises:
      ValueError: a setting that the answers do not read.
    """
    hypers = {field.name for field in dataclasses.fields(Hyper)}
    for name in given:
        if choices.ranking != "learned" and (name in hypers or name in _TRAINING):
            raise ValueError(f"{name} has no meaning with ranking={choices.ranking}: leave it out")
        question, readers = READ_BY.get(name, ("", ()))
        if name in ("sign", "attribute_to") and choices.warm_start in ATTRIBUTIONS:
            continue
        if question and getattr(choices, question) not in readers:
            raise ValueError(
                f"{name} has no meaning with {question}={getattr(choices, question)}: leave it out, "
                f"or choose {question}={' or '.join(readers)}"
            )


def refuse(
    choices: Choices,
    selection: SelectionConfig,
    config: TransformerConfig,
    task: Task | ContrastTask,
    *,
    has_means: bool = True,
    batch_size: int = 2,
) -> None:
    """Refuses what cannot be, in one line.

    Raises:
      ValueError: an unknown answer; a combination that a rule refuses.

    Examples:
      >>> choices = cj.Choices(grain="edges", ranking="variance")
      >>> cj.refuse(choices, cj.SelectionConfig(), model.config, task)
      Traceback (most recent call last):
      ValueError: ranking=variance with grain weights or edges cannot be: only nodes have an ...
    """
    for name, known in answers().items():
        if getattr(choices, name) not in known:
            raise ValueError(f"{name} is {cut(getattr(choices, name))}; choose one of {known}")
    paired = isinstance(task, Task)
    case = Case(
        choices,
        selection,
        config,
        task=task.name,
        paired=paired,
        corrupts=isinstance(task, Task) or task.corrupts,
        has_means=has_means,
        batch_size=batch_size * (2 if paired else 1),
        # Which templates a task makes of a tokenizer's words is known once the data are drawn.
        templates=2 if isinstance(task, ContrastTask) and task.fit else len(templates_of(task)),
    )
    for rule in RULES:
        reason = rule.holds(case)
        if isinstance(reason, str):
            raise ValueError(reason)
        if reason:
            raise ValueError(f"{rule.what} cannot be: {rule.why}")


def table() -> list[dict[str, Any]]:
    """Questions and answers, and the rules, as rows for `--helpfull`."""
    rows: list[dict[str, Any]] = [
        {"question": name, "answers": known} for name, known in answers().items()
    ]
    return rows + [{"refused": rule.what, "why": rule.why} for rule in RULES]


def table_text() -> str:
    """The table for a terminal."""
    lines = ["What can be chosen; all goes with all, but for what is refused below:"]
    for row in table():
        if "question" in row:
            lines.append(f"  --{row['question']}: {', '.join(row['answers'])}")
        else:
            lines.append(f"  refused: {row['refused']} ({row['why']})")
    return "\n".join(lines)
