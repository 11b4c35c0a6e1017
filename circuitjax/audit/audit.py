"""How far to trust a circuit: every check on one circuit of any grain, in one call.

    evidence -> hypothesis tests -> other replacements, templates -> each part's effect -> polish
             -> supersets -> other seeds and controls (jobs of one program) -> named checks

The searches of the last stage share a budget that is smaller than the circuit's own by default, so that
an audit takes no longer than the search it judges; sizes are compared within that budget. What cannot be
asked of a circuit or of its task is skipped, with the reason in the figures.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from circuitjax.audit import replacement
from circuitjax.audit.agreement import agreement
from circuitjax.audit.checks import full_checks
from circuitjax.audit.config import AuditConfig
from circuitjax.audit.evidence import Compared, baseline, compare, evidence
from circuitjax.audit.exhaustive import exhaustive
from circuitjax.audit.hypotheses import hypotheses
from circuitjax.audit.measure import Measure, counts_nodes, measure_of, members, share_of
from circuitjax.audit.parts import Effects, effects
from circuitjax.audit.polish import polish
from circuitjax.audit.record import (
    FORMAT,
    AuditFigures,
    Baseline,
    CheckFigures,
    EffectFigures,
    Evidence,
    PolishFigures,
    RunFigures,
    Stability,
    Template,
)
from circuitjax.audit.reruns import run_worlds, stability
from circuitjax.audit.supersets import supersets
from circuitjax.audit.worlds import make_worlds
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import mean_bound
from circuitjax.model.record import Model
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_hyper
from circuitjax.prune.find import prepare
from circuitjax.prune.problem import Problem
from circuitjax.prune.provenance import hyper_of, search_of
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask
from circuitjax.tasks.templates import template_names, templates_of
from circuitjax.tasks.tokenizer import Tokenizer

__all__ = ["Audit", "AuditConfig", "audit_circuit"]

_SEARCHED = ("templates", "nonsense", "shuffled", "weights", "stability")


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
      figures: JSON-able by `to_dict`; `checks` among them is the verdict.
      polished: the smaller circuit; None where nothing was polished.
      odds: log odds `[M]` of the model and of the circuit on the test examples, nats.
      effects: what each part does.
    """

    figures: AuditFigures
    polished: Circuit | None
    odds: tuple[np.ndarray, np.ndarray]
    effects: Effects


class _Stages:
    """Seconds of each stage, and what was skipped."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}
        self.skipped: dict[str, str] = {}

    @contextmanager
    def __call__(self, name: str, line: str) -> Iterator[None]:
        self._say(line)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


def audit_circuit(
    model: Model,
    task: Task | ContrastTask,
    circuit: Circuit,
    config: AuditConfig | None = None,
    *,
    search: Search | None = None,
    hyper: Hyper | None = None,
    start: Circuit | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Audit:
    """Audits a circuit of any grain.

    Args:
      model: the circuit's own.
      task: what it was found for.
      circuit: to judge.
      config: how much to do; None for the defaults.
      search: that found it; None: as its record says.
      hyper: hyperparameters of the searches; None: as its record says, else the defaults.
      start: the circuit that the search of its weights started from, if there was one.
      say: called with a line at the start of each stage.

    Raises:
      ValueError: another model's circuit, an empty one, one whose search is unknown, a loss over the
        whole vocabulary, or a task that the model cannot be asked.
    """
    config = config or AuditConfig()
    circuit.check_model(model)
    if circuit.num_nodes == 0:
        raise ValueError("the circuit keeps no node: there is nothing to audit")
    search = search or search_of(circuit)
    if search.choices.loss != "binary":
        raise ValueError(
            f"an audit needs loss='binary'; the circuit was found with {search.choices.loss!r}"
        )
    choices = dataclasses.replace(
        search.choices,
        grain=circuit.grain,  # type: ignore[arg-type]
        ablation=circuit.ablation,
        # Other searches, and every figure but those by condition, are under the ablation alone.
        train_under="",
        hold_under="",
    )
    search = dataclasses.replace(search, choices=choices)
    stage = _Stages(say)
    with stage("data", "drawing the task's examples"):
        problem = prepare(model, task, search, start)
        tokenizer = Tokenizer.from_json(model.tokenizer_json)
        measure = measure_of(problem, search, circuit)
    if hyper is None:
        gates = int(problem.whole.exists().sum())
        hyper = hyper_of(circuit) or default_hyper(search, gates)

    def some(count: int, split: str = "validation") -> Any:
        return problem.batches.some(getattr(problem, split), share_of(problem.whole, count))

    test, few = some(config.pairs, "test"), some(config.pairs // 2)
    with stage("evidence", "sufficiency, necessity, faithfulness"):
        compared = compare(problem, circuit)
        base = Baseline(**baseline(problem, search, compared.model))
        facts = evidence(problem, search, circuit, config.seed, compared, sets=config.random_sets)
        figures = Evidence(**facts)
    with stage("tests", "equivalence, independence, minimality"):
        tests, small = hypotheses(
            problem, measure, circuit, compared, figures.necessity, test, config.seed
        )
        if isinstance(small, str):
            stage.skipped["minimality"] = small
        bound = None
        if config.confidence is not None:
            losses = measure.item_losses(
                compared.circuit, problem.test.unit, measure.stored(circuit)
            )
            bound = float(mean_bound(losses[0], config.confidence))
    chance = math.log(2) if problem.paired else base.loss_empty
    with stage("replacement", "other replacements, frozen norms, templates"):
        corrupted = isinstance(task, Task) or task.corrupts
        enough, reasons = replacement.sufficiency(
            problem, search, measure, circuit, test, corrupted=corrupted, seed=config.seed
        )
        stage.skipped |= reasons
        templates = _by_template(task, tokenizer, problem, measure, circuit, compared)
        if not templates:
            stage.skipped["loss by template"] = "the task has no templates"
        inside = agreement(problem, circuit, some(config.pairs // 2, "test"))
        if inside is None:
            stage.skipped["agreement"] = (
                f"a circuit of {circuit.grain} under {circuit.ablation} ablation has no nodes of its "
                "own whose values could be compared"
            )
    with stage("effects", "each node and edge by itself"):
        alone = effects(problem, measure, circuit, few)
    polished = None
    if config.polish:
        with stage("polish", "polishing"):
            at, rounds = config.polish_at, config.polish_rounds
            polished = polish(problem, search, circuit, at=at, rounds=rounds, alone=alone)
    else:
        stage.skipped["polish"] = "not asked for"
    with stage("supersets", "random and adversarial supersets"):
        around = supersets(
            problem,
            measure,
            circuit,
            test,
            some(config.pairs // 4),
            fractions=config.fractions,
            sets=config.sets,
            steps=config.search_steps,
            seed=config.seed,
        )
    runs: list[RunFigures] = []
    worlds: dict[str, str] = {}
    stable = None
    reason = "not asked for" if not config.search else None
    if search.choices.ranking != "learned":
        reason = reason or "the circuit was not found by trained gates"
    if reason is None:
        with stage("search", f"{config.seeds} seeds and the controls, jobs of one program"):
            runs, worlds, stable = _search(
                task, problem, search, measure, circuit, hyper, config, stage.skipped, say
            )
    else:
        stage.skipped |= dict.fromkeys(_SEARCHED, reason)
    nodes, edges = problem.whole.totals()
    by_nodes, size = counts_nodes(circuit), len(members(circuit))
    reached = [run.size for run in runs if run.world == "task" and run.reached]
    whole = None
    if config.exhaustive:
        with stage("exhaustive", "the whole held-out split"):
            whole = exhaustive(
                task, problem, search, measure, circuit, config.exhaustive, config.sample
            )
    removed = polished.provenance["polish"] if polished is not None else None
    found = AuditFigures(
        format=FORMAT,
        model=model.name,
        model_hash=model.hash,
        task=task.name,
        grain=circuit.grain,
        ablation=circuit.ablation,
        paired=problem.paired,
        unit="nodes" if by_nodes else "edges",
        measure=measure.kind,
        target=measure.target,
        chance=base.kl_empty if measure.full else chance,
        nodes=circuit.num_nodes,
        nodes_total=nodes,
        edges=circuit.num_edges,
        edges_total=edges,
        size=size,
        size_total=nodes if by_nodes else edges,
        own_size=float(np.median(reached)) if reached else float(size),
        baseline=base,
        evidence=figures,
        sufficiency=enough,
        templates=templates,
        agreement=inside,
        effects=_effect_figures(alone, measure.target),
        polish=None if removed is None else PolishFigures(**removed),
        supersets=around.figures(),
        runs=runs,
        worlds=worlds,
        stability=stable,
        skipped=stage.skipped,
        seconds=stage.seconds,
        settings={
            "audit": dataclasses.asdict(config),
            "search": search.to_dict(),
            "hyper": hyper.to_dict(),
        },
        checks=[],
        tests=tests,
        minimality=None if isinstance(small, str) else small,
        exhaustive=whole,
        bound=bound,
    )
    checks = [CheckFigures(**check.to_dict()) for check in full_checks(found)]
    odds = (compared.model.odds[0], compared.circuit.odds[0])
    return Audit(dataclasses.replace(found, checks=checks), polished, odds, alone)


def _by_template(
    task: Task | ContrastTask,
    tokenizer: Tokenizer,
    problem: Problem,
    measure: Measure,
    circuit: Circuit,
    compared: Compared,
) -> dict[str, Template]:
    """Task loss of each template's test items; empty where the task has no templates."""
    every = templates_of(task, tokenizer)
    if not any(every) or problem.test.template is None:
        return {}
    calibrated = circuit if measure.kind == "calibrated" else None
    names = template_names(every, np.asarray(problem.test.template))
    return replacement.by_template(compared.circuit.odds[0], names, calibrated, problem.test.unit)


def _search(
    task: Task | ContrastTask,
    problem: Problem,
    search: Search,
    measure: Measure,
    circuit: Circuit,
    hyper: Hyper,
    config: AuditConfig,
    skipped: dict[str, str],
    say: Callable[[str], None],
) -> tuple[list[RunFigures], dict[str, str], Stability]:
    """Figures of every run, notes on the worlds, and what the seeds share."""
    train = dataclasses.replace(
        search.train,
        batch_size=config.batch_size or search.train.batch_size,
        steps=config.steps or search.train.steps,
    )
    search = dataclasses.replace(search, train=train)
    # More than are looked at, so that they fill rows as the whole set does.
    items = 4 * config.search_pairs
    worlds, absent = make_worlds(task, problem, search, seed=config.seed, items=items)
    skipped |= absent
    seeds = range(config.seed, config.seed + config.seeds)
    runs = run_worlds(worlds, search, measure, hyper, seeds, items=config.search_pairs, say=say)
    mine = [run for run in runs if run.world == "task"]
    stable = stability(problem, measure, mine, members(circuit), items=config.pairs)
    notes = {world.name: world.note for world in worlds}
    return [run.figures() for run in runs], notes, stable


def _effect_figures(found: Effects, target: float) -> EffectFigures:
    """Effects for the record: a part is idle that costs under 1% of the target, or helps by leaving."""

    def idle(rises: Any) -> float | None:
        rises = np.array(list(rises))
        return float(np.mean(rises < 0.01 * target)) if len(rises) else None

    return EffectFigures(
        loss=found.loss,
        idle_nodes=idle(found.nodes.values()),
        idle_edges=idle(found.edges.values()),
        estimated_nodes=found.estimated_nodes,
        estimated_edges=found.estimated_edges,
        nodes={name: round(value, 6) for name, value in found.nodes.items()},
        edges=[(a, b, round(value, 6)) for (a, b), value in found.edges.items()],
    )
