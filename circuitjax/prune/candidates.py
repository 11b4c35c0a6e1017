"""What becomes of each job of a search: its ranking, its cut, its circuit, and which is kept."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from circuitjax.core.host import forget_programs
from circuitjax.gated.protocol import Part
from circuitjax.prune.answer_memory import AnswerMemory
from circuitjax.prune.certify import Certificate, certify
from circuitjax.prune.cut import Choice, Point, choose, is_large, scouts
from circuitjax.prune.defaults import Search
from circuitjax.prune.eliminate import BEYOND, PATIENCE, eliminate, enough, open_first
from circuitjax.prune.evaluate import answers
from circuitjax.prune.figures import compares, figures
from circuitjax.prune.jobs import objective_of
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Ranked, connected, learned_ranking, rank_scores
from circuitjax.prune.select import Selection
from circuitjax.prune.train import Job, MaskState
from circuitjax.prune.trial import GateTrial, trial_of_cut

__all__ = ["FAR", "Candidate", "candidates_of", "certified", "empty_candidate", "pick", "rank_jobs"]

Tell = Callable[[str], None]  # told of progress, a line at a time

FAR = 1.0  # nats: the KL up to which gates are eliminated where a size is the target
_LITTLE = 4  # patience of an elimination where every look is dear
_FEW_TIES = 32  # items that gates of one score are told apart on, where elimination follows


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A job's outcome.

    Attributes:
      job: what was run.
      choice: the cut; losses on validation examples.
      part: the circuit after cleanup; the same function.
      trained: gates that training left open; 0 without training.
      started: gates that the cut, or elimination before it, began from.
    """

    job: Job
    choice: Choice
    part: Part
    trained: int = 0
    started: int = 0

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.part.nodes

    @property
    def edges(self) -> int:
        """Number of edges."""
        return self.part.edges


def rank_jobs(
    problem: Problem,
    search: Search,
    jobs: Sequence[Job],
    state: MaskState | np.ndarray,
    tell: Tell = lambda line: None,
) -> list[Ranked]:
    """Ranks every job's gates, the open ones by backward elimination where the search says so.

    The ranking `eliminated` is nothing else, from the whole model on.

    Args:
      problem: model, task, data.
      search: the method.
      jobs: J of them.
      state: J trained jobs, or scores `[J, G]` of rankings without training.
      tell: told of the progress of elimination.

    Raises:
      FloatingPointError: a score that is not finite.
    """
    found = _ranked(problem, search, jobs, state, tell)
    if search.selection.order == "greedy":
        found = [connected(problem, one, job.seed) for one, job in zip(found, jobs, strict=True)]
    return found


def _ranked(
    problem: Problem,
    search: Search,
    jobs: Sequence[Job],
    state: MaskState | np.ndarray,
    tell: Tell,
) -> list[Ranked]:
    selection = search.selection
    if not isinstance(state, MaskState):
        found = [rank_scores(problem, row, job.seed) for job, row in zip(jobs, state, strict=True)]
        if search.choices.ranking != "eliminated":
            return found
        trial, exists = trial_of_cut(problem, search), problem.whole.exists()
        target = selection.value if selection.is_loss else FAR
        patience = _LITTLE if is_large(problem) else PATIENCE
        return [_eliminated(trial, one, exists, target, tell, patience) for one in found]
    objective, ties = objective_of(problem, search), scouts(problem, problem.judged)
    if search.selection.eliminate:  # it ranks what is open anew
        ties = problem.validation.first(_FEW_TIES)
    found = []
    aimed = selection.eliminate and selection.is_loss
    trained = trial_of_cut(problem, search) if aimed else None
    for number in range(len(jobs)):
        job = jax.tree.map(lambda leaf, i=number: leaf[i], state)
        ranked = learned_ranking(problem, objective, job, ties)
        if trained is not None:
            ranked = _eliminated(trained, ranked, ranked.opened, selection.value, tell)
        found.append(ranked)
    return found


def _eliminated(
    trial: GateTrial,
    ranked: Ranked,
    opened: np.ndarray,
    target: float,
    tell: Tell,
    patience: int = PATIENCE,
) -> Ranked:
    """The ranking with open gates ranked anew; more are opened if these miss the target."""
    opened = enough(trial, ranked.ranks, opened, target)
    every = not ranked.opened.any()
    # From the whole model on, circuits fit training items: others are past the target far earlier.
    beyond = 1.0 if every else BEYOND
    order = eliminate(trial, opened, target, tell, beyond=beyond, patience=patience)
    ranks = open_first(ranked.ranks, order.gates)
    trained = order.met if every else len(order.gates)
    return dataclasses.replace(ranked, ranks=ranks, trained=trained, eliminated=True)


def candidates_of(
    problem: Problem,
    search: Search,
    jobs: Sequence[Job],
    state: MaskState | np.ndarray,
    memory: AnswerMemory | None = None,
    *,
    brief: bool = False,
    tell: Tell = lambda line: None,
) -> list[Candidate]:
    """Ranks, cuts and cleans every job; see `rank_jobs`, and `cut.choose` for memory and brief."""
    forget_programs()  # of searches before
    ranked = rank_jobs(problem, search, jobs, state, tell)
    loss = search.choices.loss
    choices = choose(problem, search.selection, ranked, memory, loss=loss, brief=brief)
    return [
        Candidate(
            job,
            choice,
            problem.whole.clean(choice.opened),
            trained=int(one.opened.sum()),
            started=max(int(choice.selection.k), one.trained if one.eliminated else 0),
        )
        for job, choice, one in zip(jobs, choices, ranked, strict=True)
    ]


def empty_candidate(problem: Problem, search: Search, job: Job) -> Candidate:
    """The circuit that keeps nothing, calibrated where circuits are: it solves a trivial task."""
    closed = np.zeros(problem.whole.num_gates, bool)
    loss, selection = search.choices.loss, search.selection
    full = compares(problem, selection) or loss == "vocabulary"
    found = answers(problem.whole, problem.batches, problem.validation, [closed], full=full)
    (at,) = figures(problem, selection, found, loss, conditions=1)
    reached = not selection.is_loss or at.aim <= selection.value
    choice = Choice(
        opened=closed,
        selection=Selection(
            k=0, reached=reached, loss=at.aim if selection.is_loss else at.loss, curve=()
        ),
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
    problem: Problem, search: Search, found: Candidate, tell: Tell = lambda line: None
) -> tuple[Candidate, Certificate | None]:
    """The candidate without what can still go, and what is known of the rest; see `certify.certify`.

    A target that is missed, or is a size, leaves nothing to certify.
    """
    selection = search.selection
    if not (selection.certify and selection.is_loss and found.choice.reached and found.edges):
        return found, None
    choice, certificate = certify(problem, search, found.choice, tell=tell)
    part = problem.whole.clean(choice.opened)
    return dataclasses.replace(found, choice=choice, part=part), certificate
