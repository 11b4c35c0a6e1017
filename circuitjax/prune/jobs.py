"""The jobs of a search: what their training minimises, their start, and the training itself."""

from collections.abc import Sequence

from circuitjax.prune.conditions import shares, trained_under
from circuitjax.prune.defaults import Search
from circuitjax.prune.objective import Objective
from circuitjax.prune.problem import Problem
from circuitjax.prune.train import Job, MaskState, OnChunk, run_chunks, start_jobs
from circuitjax.prune.warm_start import warmed

__all__ = ["initial_state", "objective_of", "train_gates"]


def objective_of(problem: Problem, search: Search) -> Objective:
    """What training minimises; it does not depend on the target, so that runs share programs."""
    choices, selection = search.choices, search.selection
    inside = selection.calibrate == "inside" and choices.loss == "binary"
    fits = choices.control == "hold" or choices.grain == "weights"
    holds = "kl" if selection.target == "kl" else "loss"
    if selection.kl is not None:
        holds = "both"
    return Objective(
        gate=choices.gate,
        minimise=choices.minimise,
        control=choices.control,
        task_loss=choices.loss,
        owners=choices.owners or choices.coarse != "none",
        calibrated=problem.paired and inside and fits and choices.minimise != "kl",
        holds=holds,
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
    objective = objective_of(problem, search)
    return run_chunks(
        objective,
        state,
        problem.data,
        problem.items(*objective.sizes),
        search.train.chunk,
        on_chunk,
        spare=spare,
    )
