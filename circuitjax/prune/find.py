"""Finding a circuit at any grain: train gates, rank, cut, clean up, keep the smallest.

    problem -> train_gates (J jobs, one program) -> rank -> cut, per job -> clean -> best -> Circuit

Jobs are the product of seeds and settings. Rankings without training take the place of the first step.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.protocol import Part
from circuitjax.model.record import Model
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.capabilities import refuse
from circuitjax.prune.certify import Certificate, certify
from circuitjax.prune.conditions import shares, trained_under
from circuitjax.prune.config import Hyper
from circuitjax.prune.cut import Choice, Point, calibrates, choose, compares, figures, scouts
from circuitjax.prune.defaults import Search, default_jobs, default_search
from circuitjax.prune.eliminate import eliminate, enough, open_first
from circuitjax.prune.evaluate import answers
from circuitjax.prune.objective import Objective
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.rank import (
    Baseline,
    Ranked,
    connected,
    learned_ranking,
    rank_scores,
    scores_without_training,
)
from circuitjax.prune.select import Selection
from circuitjax.prune.train import Job, MaskState, OnChunk, run_chunks, start_jobs
from circuitjax.prune.trial import GateTrial
from circuitjax.prune.warm_start import warmed
from circuitjax.tasks.base import Task
from circuitjax.tasks.contrast import ContrastTask

__all__ = [
    "Candidate",
    "as_circuit",
    "candidates_of",
    "certified",
    "empty_candidate",
    "facts_of",
    "find_circuit",
    "initial_state",
    "objective_of",
    "pick",
    "prepare",
    "rank_jobs",
    "refuse_search",
    "train_gates",
]


_FEW_TIES = 32  # items that gates of one score are told apart on, where elimination follows


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A job's outcome.

    Attributes:
      job: what was run.
      choice: the cut; losses on validation examples.
      part: the circuit after cleanup; the same function.
    """

    job: Job
    choice: Choice
    part: Part

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.part.nodes

    @property
    def edges(self) -> int:
        """Number of edges."""
        return self.part.edges


def objective_of(problem: Problem, search: Search) -> Objective:
    """What training minimises; it does not depend on the target, so that runs share programs."""
    choices, selection = search.choices, search.selection
    inside = selection.calibrate == "inside" and choices.loss == "binary"
    fits = choices.control == "hold" or choices.grain == "weights"
    return Objective(
        gate=choices.gate,
        minimise=choices.minimise,
        control=choices.control,
        task_loss=choices.loss,
        owners=choices.owners,
        calibrated=problem.paired and inside and fits and choices.minimise != "kl",
        holds="kl" if selection.target == "kl" else "loss",
        steps=search.train.steps,
        batch_size=search.train.batch_size,
        under=_mix(problem, search),
    )


def _mix(problem: Problem, search: Search) -> tuple[tuple[str, int], ...]:
    """The items of a step that each condition of a mix gets."""
    if not problem.mixed:
        return ()
    weighted = trained_under(search.choices)
    sizes = shares([weight for _, weight in weighted], search.train.batch_size)
    return tuple((name, size) for (name, _), size in zip(weighted, sizes, strict=True))


def initial_state(problem: Problem, search: Search, jobs: Sequence[Job]) -> MaskState:
    """J jobs before their first step."""
    state = start_jobs(objective_of(problem, search), jobs, problem.data)
    return state if search.choices.warm_start == "none" else warmed(problem, search, state)


def train_gates(
    problem: Problem,
    search: Search,
    state: MaskState,
    on_chunk: OnChunk = lambda state, metrics: None,
    *,
    spare: bool = False,
) -> MaskState:
    """Runs what is left of the training, in chunks; see `train.run_chunks`."""
    return run_chunks(
        objective_of(problem, search),
        state,
        problem.data,
        problem.items(search.train.batch_size),
        search.train.chunk,
        on_chunk,
        spare=spare,
    )


def _loss_kind(problem: Problem, search: Search) -> str:
    """Which loss elimination looks at: that of the cut."""
    if search.selection.target == "kl":
        return "kl"
    inside = search.selection.calibrate == "inside"
    fits = calibrates(problem, search.selection, search.choices.loss)
    return "calibrated" if inside and fits else "task"


def rank_jobs(
    problem: Problem, search: Search, jobs: Sequence[Job], state: MaskState | np.ndarray
) -> list[Ranked]:
    """Ranks every job's gates, the open ones by backward elimination where the search says so.

    Args:
      problem: model, task, data.
      search: the method.
      jobs: J of them.
      state: J trained jobs, or scores `[J, G]` of rankings without training.

    Raises:
      FloatingPointError: a score that is not finite.
    """
    found = _ranked(problem, search, jobs, state)
    if search.selection.order == "greedy":
        found = [connected(problem, one, job.seed) for one, job in zip(found, jobs, strict=True)]
    return found


def _ranked(
    problem: Problem, search: Search, jobs: Sequence[Job], state: MaskState | np.ndarray
) -> list[Ranked]:
    if not isinstance(state, MaskState):
        return [rank_scores(problem, row, job.seed) for job, row in zip(jobs, state, strict=True)]
    objective, ties = objective_of(problem, search), scouts(problem, problem.validation)
    if search.selection.eliminate:  # it ranks what is open anew
        ties = problem.validation.first(_FEW_TIES)
    found = []
    trial = None
    if search.selection.eliminate and search.selection.is_loss:
        some = scouts(problem, problem.train)
        trial = GateTrial(problem, some, _loss_kind(problem, search), search.choices.loss)
    for number in range(len(jobs)):
        job = jax.tree.map(lambda leaf, i=number: leaf[i], state)
        ranked = learned_ranking(problem, objective, job, ties)
        if trial is not None:
            opened = enough(trial, ranked.ranks, ranked.opened, search.selection.value)
            order = eliminate(trial, opened, search.selection.value)
            ranked = dataclasses.replace(
                ranked,
                ranks=open_first(ranked.ranks, order),
                trained=len(order),
                eliminated=True,
            )
        found.append(ranked)
    return found


def candidates_of(
    problem: Problem,
    search: Search,
    jobs: Sequence[Job],
    state: MaskState | np.ndarray,
    memory: AnswerMemory | None = None,
    *,
    brief: bool = False,
) -> list[Candidate]:
    """Ranks, cuts and cleans every job; see `rank_jobs`, and `cut.choose` for memory and brief."""
    ranked = rank_jobs(problem, search, jobs, state)
    loss = search.choices.loss
    choices = choose(problem, search.selection, ranked, memory, loss=loss, brief=brief)
    return [
        Candidate(job, choice, problem.whole.clean(choice.opened))
        for job, choice in zip(jobs, choices, strict=True)
    ]


def empty_candidate(problem: Problem, search: Search, job: Job) -> Candidate:
    """The circuit that keeps nothing, calibrated where circuits are: it solves a trivial task."""
    closed = np.zeros(problem.whole.num_gates, bool)
    loss, selection = search.choices.loss, search.selection
    full = compares(problem, selection) or loss == "vocabulary"
    found = answers(problem.whole, problem.batches, problem.validation, [closed], full=full)
    fitted = calibrates(problem, selection, loss)
    (at,) = figures(found, fitted=fitted, loss=loss, full=full)
    aimed = at.kl if selection.target == "kl" else at.loss
    assert aimed is not None
    reached = not selection.is_loss or aimed <= selection.value
    choice = Choice(
        opened=closed,
        selection=Selection(k=0, reached=reached, loss=aimed, curve=()),
        scale=at.scale,
        shift=at.shift,
        loss=at.loss,
        loss_uncalibrated=at.raw,
        kl=at.kl,
        k_inside=0,
        k_after=0 if at.raw <= selection.value else None,
        soft=0.0,
        curve=(Point(0, 0, at.raw, at.loss, at.kl, problem.validation.items),),
    )
    return Candidate(job, choice, problem.whole.clean(closed))


def pick(candidates: Sequence[Candidate], search: Search) -> Candidate:
    """The fewest edges among those that meet the target; at a given size, the lowest loss.

    What was chosen on the first few items only is passed over.
    """

    def cost(found: Candidate) -> tuple[float, ...]:
        choice, aimed = found.choice, found.choice.selection.loss
        if choice.rough:
            return (2, aimed, found.edges)
        if not choice.reached:
            return (1, aimed, found.edges)
        if search.selection.is_loss:
            return (0, found.edges, found.nodes)
        return (0, choice.loss if choice.kl is None else choice.kl, found.edges)

    return min(candidates, key=cost)


def certified(
    problem: Problem, search: Search, found: Candidate
) -> tuple[Candidate, Certificate | None]:
    """The candidate without what can still go, and what is known of the rest; see `certify.certify`.

    A target that is missed, or is a size, leaves nothing to certify.
    """
    selection = search.selection
    if not (selection.certify and selection.is_loss and found.choice.reached and found.edges):
        return found, None
    choice, certificate = certify(problem, search, found.choice)
    part = problem.whole.clean(choice.opened)
    return dataclasses.replace(found, choice=choice, part=part), certificate


def as_circuit(problem: Problem, found: Candidate, provenance: Mapping[str, Any]) -> Circuit:
    """The candidate as a value that can be saved and run."""
    return Circuit.of(
        problem.model,
        problem.whole.grain,
        found.part.opened,
        ablation=problem.whole.ablation,
        held=found.part.held,
        scale=found.choice.scale,
        shift=found.choice.shift,
        provenance=dict(provenance),
    )


def facts_of(
    task: Task | ContrastTask,
    search: Search,
    found: Candidate,
    certificate: Certificate | None = None,
) -> dict[str, Any]:
    """What the record of a circuit says of how it was found."""
    loss = found.choice.loss
    known = {} if certificate is None else {"certificate": certificate.to_dict()}
    return {
        **known,
        "task": task.name,
        "search": search.to_dict(),
        "chosen": {"seed": found.job.seed, **found.job.hyper.to_dict()},
        "reached": found.choice.reached,
        "validation_loss": loss if math.isfinite(loss) else None,
    }


def refuse_search(model: Model, task: Task | ContrastTask, search: Search) -> None:
    """Refuses a search that cannot be made of this model and task; see `capabilities.refuse`."""
    refuse(
        search.choices,
        search.selection,
        model.config,
        task,
        has_means=model.means is not None,
        batch_size=search.train.batch_size,
    )


def prepare(
    model: Model, task: Task | ContrastTask, search: Search, start: Circuit | None = None
) -> Problem:
    """Checks the search against model and task, and draws the data.

    Raises:
      ValueError: a combination that the table of capabilities refuses; see also `make_problem`.

    Examples:
      >>> sizes = {"train": 64, "validation": 32, "test": 32}
      >>> problem = cj.prepare(model, task, cj.default_search("nodes", **sizes))
      >>> problem.test.tokens.shape[:2]  # two prompts of each pair, each with its corrupted one
      (64, 2)
    """
    refuse_search(model, task, search)
    problem = make_problem(model, task, search.choices, search.data, start=start)
    nodes, edges = problem.whole.totals()
    limit = {"edges": edges, "nodes": nodes}.get(search.selection.target)
    if limit is not None and search.selection.value > limit:
        raise ValueError(
            f"target_{search.selection.target} is {search.selection.value:g}, but only {limit} can "
            f"matter: ask for at most {limit}"
        )
    return problem


def find_circuit(
    model: Model,
    task: Task | ContrastTask,
    *,
    search: Search | None = None,
    start: Circuit | None = None,
    seed: int = 0,
    jobs: Sequence[Job] | None = None,
    on_chunk: OnChunk = lambda state, metrics: None,
    **settings: Any,
) -> Circuit:
    """Finds the smallest circuit of a task, in one call, at any grain.

    Args:
      model: the frozen network.
      task: a binary task, or one of clean and corrupted prompts.
      search: everything static at once; None makes it of `settings`.
      start: a circuit of nodes, whose weights are then pruned (grain weights).
      seed: of gates and batches; the data have their own fixed seed.
      jobs: runs to choose from; None for the defaults at `seed`.
      on_chunk: told of the training; see `train.run_chunks`.
      **settings: `grain`, `gate`, `ablation`, `minimise`, `control`, `ranking`, `target_loss` (or
        `target_kl`, `target_edges`, `target_nodes`), `steps`, `batch_size`, ...: fields of
        `Search`'s parts, and hyperparameters (fields of `Hyper`).

    Returns:
      The circuit; `provenance["reached"]` says whether it meets the target on validation.

    Raises:
      ValueError: a combination that cannot be, an unknown setting, or a task that the model cannot be
        asked.

    Examples:
      >>> import circuitjax as cj
      >>> model, task = cj.load_model("tiny-python"), cj.tasks.get("while_return_true")
      >>> circuit = cj.find_circuit(model, task, ranking="attribution", validation=64, test=64)
      >>> circuit.grain, circuit.provenance["reached"]
      ('nodes', True)
    """
    hypers = {field.name for field in dataclasses.fields(Hyper)}
    changes = {name: settings.pop(name) for name in list(settings) if name in hypers}
    if search is None:
        search = default_search(paired=isinstance(task, Task), **settings)
    elif settings:
        raise ValueError(f"{sorted(settings)[0]} and `search` are both given: choose one")
    problem = prepare(model, task, search, start)
    if search.choices.ranking != "learned":
        jobs = jobs or [Job(seed, Baseline.of(search.choices))]
        state: MaskState | np.ndarray = np.stack(
            [
                scores_without_training(problem, job.hyper, job.seed, search.choices.loss)
                for job in jobs
            ]
        )
    else:
        count = int(problem.whole.exists().sum())
        if search.choices.units != "channel":  # what is open is counted in nodes
            count = problem.whole.work()
        jobs = jobs or default_jobs(search, count, [seed], started=start is not None, **changes)
        state = train_gates(problem, search, initial_state(problem, search, jobs), on_chunk)
    found = pick(candidates_of(problem, search, jobs, state), search)
    found, certificate = certified(problem, search, found)
    return as_circuit(problem, found, facts_of(task, search, found, certificate))
