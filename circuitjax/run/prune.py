"""A search for a circuit, of any grain, in a directory: resumable while it trains, done only once.

run.json             what the directory is for; written first
training/step_*      state of all jobs after each chunk
circuit/             the circuit
*.png                pictures
circuit.html         the circuit's page, once `experiments.view` has made it
report.json          every figure; written last, so its presence means "finished"

    data -> baseline -> training, or scores without training -> selection -> evidence -> writing
"""

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from circuitjax.audit.checks import short_checks
from circuitjax.audit.conditions import figures_under
from circuitjax.audit.evidence import baseline, evidence
from circuitjax.audit.record import CheckFigures
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.checkpoints import is_intact
from circuitjax.core.host import alone_in
from circuitjax.prune.candidates import Candidate, candidates_of, certified, empty_candidate, pick
from circuitjax.prune.conditions import unseen
from circuitjax.prune.find import as_circuit, facts_of
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import scores_without_training
from circuitjax.prune.train import MaskState
from circuitjax.run.directory import RUN, claim, digest_of, holds, stay_in, versions
from circuitjax.run.pictures import draw_run
from circuitjax.run.report import (
    FORMAT,
    Calibration,
    JobReport,
    PointReport,
    Report,
    read_report,
)
from circuitjax.run.search import PruneRun, is_trivial
from circuitjax.run.second_try import Trained, all_collapsed, kept_first, second_job
from circuitjax.run.shared import train_jobs
from circuitjax.run.training import History, Progress

__all__ = ["finished_report", "run_pruning"]


def finished_report(run: PruneRun) -> Report | None:
    """The report of a finished run, or None.

    Raises:
      ValueError: a report or a circuit there that is damaged or not of this run.
    """
    if not (run.directory / "report.json").exists():
        return None
    report = read_report(run.directory / "report.json")
    circuit = Circuit.load(run.directory / "circuit")
    digest = digest_of(RUN, run.identity())
    if (report.identity, report.circuit, circuit.provenance.get("run")) != (
        digest,
        circuit.content_hash,
        digest,
    ):
        raise ValueError(
            f"{run.directory} is damaged: its report.json and its circuit are not those of its "
            "run.json: choose another --out, or do the run again with --overwrite"
        )
    return report


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started, 2)


def _is_finished(run: PruneRun, overwrite: bool) -> tuple[bool, Report | None]:
    """Whether the directory holds this run, and its report if it is finished."""
    if not holds(RUN, run.directory, run.identity(), overwrite=overwrite):
        return False, None
    try:
        return True, finished_report(run)
    except ValueError as error:
        if not overwrite:
            mend = "" if "--overwrite" in str(error) else "; --overwrite does the run anew"
            raise ValueError(f"{error}{mend}") from None
        return False, None


def run_pruning(
    run: PruneRun,
    *,
    overwrite: bool = False,
    progress: Progress = lambda step, metrics: None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Does what is left of a run and returns its report.

    Args:
      run: what to do and where.
      overwrite: replace another run's directory, or one that was damaged.
      progress: called with (steps done, metrics `[J, chunk]`) while gates train.
      say: called with a line at the start of each stage.

    Raises:
      ValueError: a directory that holds something else, or in which another process works; a task that
        the model cannot be asked.
      FloatingPointError: the loss stopped being finite; the last good state is kept.
    """
    _, report = _is_finished(run, overwrite)
    if report is not None:
        return report
    seconds: dict[str, float] = {}
    with alone_in(run.directory):
        with _timed(seconds, "data"):
            problem = run.problem()
        resumed, report = _is_finished(run, overwrite)
        if report is not None:
            return report
        if not resumed or (overwrite and not is_intact(run.directory / "training")):
            claim(RUN, run.directory, run.identity())

        def kept(step: int, metrics: Mapping[str, np.ndarray]) -> None:
            stay_in(RUN, run.directory, run.identity())
            progress(step, metrics)

        return _run(run, problem, seconds, kept, say)


def _run(
    run: PruneRun,
    problem: Problem,
    seconds: dict[str, float],
    progress: Progress,
    say: Callable[[str], None],
) -> Report:
    search, shared = run.search, run.shared
    with _timed(seconds, "baseline"):
        base = (
            baseline(problem, search)
            if shared is None
            else shared.keep("baseline", lambda: baseline(problem, search))
        )
    history: History = {}
    if run.steps and unseen(search.choices):
        names = ", ".join(unseen(search.choices))
        say(f"warning: the circuit must hold under {names}, which training never sees")
    if is_trivial(search, base):
        say("the empty circuit meets the target: nothing to find")
        with _timed(seconds, "selection"):
            candidates = [empty_candidate(problem, search, run.jobs[0])]
    else:
        doing = (
            f"training {len(run.jobs)} set{'s' * (len(run.jobs) > 1)} of gates"
            if run.steps
            else "ranking"
        )
        say(
            f"whole model: {base['loss_unpruned']:.4f} nats; {doing}"
            + ("" if run.steps else " without training")
        )
        if problem.paired and base["loss_unpruned"] >= _CHANCE:
            say(
                f"warning: the whole model does not do this task (chance is {_CHANCE:.3f} nats): what "
                "is found is not how it does it"
            )
        with _timed(seconds, "training" if run.steps else "ranking"):
            state, history = _ranked(run, problem, progress)
        say("selecting and cleaning up")
        with _timed(seconds, "selection"):
            memory = None if shared is None else shared.memory
            candidates = candidates_of(problem, search, run.jobs, state, memory, tell=say)
    # A size that was asked for is kept whatever training did: nothing was reached by it.
    judged = history and search.selection.is_loss
    trained = Trained.of(run, candidates, history, base) if judged else []
    if all_collapsed(trained):
        say("training closed nearly everything: once more, with the next seed and default settings")
        with _timed(seconds, "second try"):
            more, again = _tried_again(run, problem, progress, say)
        history = {name: np.concatenate([rows, again[name]]) for name, rows in history.items()}
        trained += Trained.of(run, more, again, base)
        candidates = [*candidates, *more]
    best = pick(kept_first(trained) if trained else candidates, search)
    number = candidates.index(best)
    sound = [trained[number].check()] if trained else []
    with _timed(seconds, "certificate"):
        best, certificate = certified(problem, search, best, say)
    candidates[number] = best
    digest = digest_of(RUN, run.identity())
    facts = {**facts_of(run.task, search, best, certificate), "run": digest, "versions": versions()}
    circuit = as_circuit(problem, best, facts)
    say("testing the evidence")
    with _timed(seconds, "evidence"):
        found = evidence(problem, search, circuit, best.job.seed)
        figures = {**base, **found, "intervals": {**base["intervals"], **found["intervals"]}}
    with _timed(seconds, "conditions"):
        under = figures_under(problem, search, circuit)
    stay_in(RUN, run.directory, run.identity())
    with _timed(seconds, "writing"):
        circuit.save(run.directory / "circuit", run.model)
        draw_run(run, circuit, candidates, best, base, history)
    rows = [_job_report(found, index, history) for index, found in enumerate(candidates)]
    mine, selection = rows[candidates.index(best)], search.selection
    nodes_total, edges_total = problem.whole.totals()
    aimed = (selection.value, selection.target) if selection.is_loss else (None,)
    reached = "reached" if best.choice.reached else "not_reached"
    choices = search.choices
    report = Report(
        format=FORMAT,
        identity=digest,
        circuit=circuit.content_hash,
        status="trivial" if is_trivial(search, base) else reached,  # type: ignore[arg-type]
        **{name: getattr(choices, name) for name in _CHOICES},
        model=run.model.name,
        model_hash=run.model.hash,
        task=run.task.name,
        seed=best.job.seed,
        target=selection.target,
        target_value=None if selection.target == "match_soft" else selection.value,
        target_loss=selection.value if selection.target == "loss" else None,
        started_from=None if run.start is None else run.start.num_nodes,
        nodes=best.nodes,
        nodes_total=nodes_total,
        edges=best.edges,
        edges_total=edges_total,
        **{name: getattr(mine, name) for name in _OF_JOB},
        **figures,
        beats_model=figures["loss_circuit"] < base["loss_unpruned"],
        calibration=Calibration(selection.calibrate, best.choice.scale, best.choice.shift),
        jobs=rows,
        checks=[
            CheckFigures(**check.to_dict()) for check in [*short_checks(figures, *aimed), *sound]
        ],
        seconds=dict(seconds),
        config=run.identity(),
        versions=versions(),
        conditions=under,
        certificate=certificate,
    )
    report.write(run.directory / "report.json")
    shutil.rmtree(run.directory / "training", ignore_errors=True)
    return report


_CHANCE = math.log(2)  # of two completions, in nats
_CHOICES = ("grain", "gate", "ablation", "minimise", "control", "ranking")
_OF_JOB = (
    *("gates_before_cleanup", "k", "k_after_training", "k_inside", "k_after"),
    *("loss_validation", "kl_validation"),
)


def _ranked(
    run: PruneRun, problem: Problem, progress: Progress
) -> tuple[MaskState | np.ndarray, History]:
    """J trained jobs and their metrics `[J, steps]`; or scores `[J, G]` without training."""
    search, jobs, shared = run.search, run.jobs, run.shared
    if not run.steps:

        def scores() -> np.ndarray:
            loss = search.choices.loss
            found = [scores_without_training(problem, j.hyper, j.seed, loss) for j in jobs]
            return np.stack(found)

        return (scores() if shared is None else shared.keep(("scores", *jobs), scores)), {}
    if shared is None:
        return train_jobs(run.directory / "training", problem, search, jobs, progress)
    state, history = shared.trained(problem, search, jobs)
    progress(search.train.steps, history)
    return state, history


def _tried_again(
    run: PruneRun, problem: Problem, progress: Progress, say: Callable[[str], None]
) -> tuple[list[Candidate], History]:
    """One more job, and its metrics `[1, steps]`."""
    jobs = [second_job(run)]
    folder = run.directory / "training" / "again"
    state, history = train_jobs(folder, problem, run.search, jobs, progress)
    return candidates_of(problem, run.search, jobs, state, tell=say), history


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _job_report(found: Candidate, index: int, history: History) -> JobReport:
    choice = found.choice
    return JobReport(
        seed=found.job.seed,
        hyper=found.job.hyper.to_dict(),
        reached=choice.reached,
        rough=choice.rough,
        nodes=found.nodes,
        edges=found.edges,
        gates_before_cleanup=int(choice.opened.sum()),
        removed=dict(found.part.removed),
        k=int(choice.selection.k),
        k_after_training=round(float(history["k"][index, -1])) if history else None,
        k_inside=choice.k_inside,
        k_after=choice.k_after,
        sparsity_after_training=float(history["sparsity"][index, -1]) if history else None,
        loss_validation=_finite(choice.loss),
        loss_validation_uncalibrated=_finite(choice.loss_uncalibrated),
        kl_validation=_finite(choice.kl),
        curve=[
            PointReport(
                int(p.k), int(p.parts), _finite(p.raw), _finite(p.loss), _finite(p.kl), int(p.items)
            )
            for p in choice.curve
        ],
    )
