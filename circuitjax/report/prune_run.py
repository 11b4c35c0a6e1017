"""A pruning run in a directory: resumable while it trains, idempotent once it is finished.

run.json             what the directory is for; written first
training/step_*      state of all jobs after each chunk
circuit/             the circuit
loss_vs_k.png, training.png
report.json          every figure; written last, so its presence means "finished"
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from circuitjax.audit.evidence import baseline, evidence
from circuitjax.circuit.find import (
    Candidate,
    Job,
    as_circuit,
    candidates_of,
    empty_candidate,
    initial_state,
    pick,
    train_masks,
)
from circuitjax.circuit.graph import total_edges
from circuitjax.core import checkpoints
from circuitjax.model.record import Model
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.problem import Problem, make_problem
from circuitjax.prune.train import MaskState
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.plots import plot_loss_vs_k, plot_training
from circuitjax.tasks.base import Pair, Task

__all__ = ["PruneRun", "finished_report", "run_pruning", "versions"]

Progress = Callable[[int, Mapping[str, np.ndarray]], None]

# What a run's directory may hold, also under a temporary name; anything else is somebody's.
_PICTURES = ("loss_vs_k.png", "training.png", "circuit.png")
_OURS = ("run.json", "report.json", "training", "circuit", *_PICTURES)
_TEMPORARY = tuple(f".{name}." for name in _OURS)


@dataclasses.dataclass(frozen=True, eq=False)
class PruneRun:
    """What to do and where.

    Attributes:
      model, task: the frozen network and the task.
      prune: static configuration.
      jobs: pruning runs to choose from (seeds times settings).
      directory: of the run.
    """

    model: Model
    task: Task
    prune: PruneConfig
    jobs: Sequence[Job]
    directory: pathlib.Path

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "model": self.model.name,
            "model_hash": self.model.hash,
            "task": self.task.name,
            "pairs": _digest(self.task.pool) if self.task.pool else None,
            "prune": self.prune.to_dict(),
            "jobs": [{"seed": job.seed, **job.hyper.to_dict()} for job in self.jobs],
        }


def _digest(pool: Sequence[Pair]) -> str:
    """Of a file's pairs: a task of that name with other pairs is another task."""
    return hashlib.sha256(json.dumps([list(pair) for pair in pool]).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computed a result, for its record."""
    found = {
        name: importlib.metadata.version(name)
        for name in ("circuitjax", "jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    }
    return {
        **found,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
    }


def _check(run: PruneRun, overwrite: bool) -> bool:
    """Whether the directory holds this very run; refuses what may not be replaced, changes nothing."""
    if not run.directory.exists():
        return False
    if not run.directory.is_dir():
        raise ValueError(f"{run.directory} is a file: choose another --out")
    names = [path.name for path in run.directory.iterdir()]
    foreign = sorted(n for n in names if n not in _OURS and not n.startswith(_TEMPORARY))
    try:
        held = json.loads((run.directory / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
        foreign = foreign or sorted(n for n in names if not n.startswith(_TEMPORARY))
    identity = json.loads(json.dumps(run.identity()))
    if held == identity:
        return True
    if foreign or not (held is None or (isinstance(held, dict) and held.keys() == identity.keys())):
        raise ValueError(
            f"{run.directory} holds files that are no run of ours, such as "
            f"{foreign[0] if foreign else 'run.json'!r}: even --overwrite leaves them alone; "
            "choose another --out"
        )
    if held is not None and not overwrite:
        raise ValueError(
            f"{run.directory} holds another run: choose another --out, or replace it with "
            "--overwrite"
        )
    return False


def _claim(run: PruneRun) -> None:
    """Takes the directory, after `_check` has allowed it."""
    if run.directory.exists():
        shutil.rmtree(run.directory)
    checkpoints.write_json(run.directory / "run.json", run.identity())


def finished_report(run: PruneRun) -> dict[str, Any] | None:
    """The report of a finished run, or None."""
    path = run.directory / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started, 2)


def run_pruning(
    run: PruneRun,
    *,
    overwrite: bool = False,
    progress: Progress = lambda step, metrics: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Does what is left of a run and returns its report.

    Args:
      run: model, task, configuration, directory.
      overwrite: replace another run's directory.
      progress: called with (steps done, metrics `[J, chunk]`) while masks train.
      say: called with a line at the start of each stage.

    Raises:
      ValueError: a directory that holds another run, or a task the model cannot be asked.
      FloatingPointError: the loss stopped being finite; the last good state is kept.
    """
    resumed = _check(run, overwrite)
    report = finished_report(run) if resumed else None
    if report is not None:
        return report
    seconds: dict[str, float] = {}
    with _timed(seconds, "data"):
        problem = make_problem(run.model, run.task, run.prune)
    if not resumed:
        _claim(run)  # only now: a task that cannot be asked leaves nothing behind
    with _timed(seconds, "baseline"):
        base = baseline(problem)
    trivial = base["loss_empty"] <= run.prune.target_loss
    history: dict[str, np.ndarray] = {}
    if trivial:
        say("the empty circuit meets the target: nothing to find")
        candidates = [empty_candidate(problem, run.jobs[0])]
    else:
        say(f"whole model: {base['loss_unpruned']:.4f} nats; training {len(run.jobs)} masks")
        with _timed(seconds, "training"):
            state, history = _train(run, problem, progress)
        say("selecting and cleaning up")
        with _timed(seconds, "selection"):
            candidates = candidates_of(problem, run.jobs, state)
    best = pick(candidates)
    circuit = as_circuit(run.model, best, {**run.identity(), "versions": versions()})
    say("testing the evidence")
    with _timed(seconds, "evidence"):
        figures = evidence(problem, circuit, best.job.seed)
    with _timed(seconds, "writing"):
        circuit.save(run.directory / "circuit", run.model)
        _draw(run, candidates, best, base, history)
        draw_circuit(
            run.directory / "circuit.png",
            run.model,
            circuit,
            f"{run.task.name} on {run.model.name}: {best.nodes} nodes, {best.edges} edges",
        )
    status = "trivial" if trivial else "reached" if best.choice.reached else "not_reached"
    report = _report(run, problem, status, base, figures, candidates, best, history, seconds)
    checkpoints.write_json(run.directory / "report.json", report)
    shutil.rmtree(run.directory / "training", ignore_errors=True)
    return report


def _train(
    run: PruneRun, problem: Problem, progress: Progress
) -> tuple[MaskState, dict[str, np.ndarray]]:
    """Trains, or goes on training, and keeps every chunk on disk."""
    state = initial_state(problem, run.jobs)
    shape = (len(run.jobs), run.prune.steps)
    history = {name: np.zeros(shape, np.float32) for name in ("loss", "task", "k", "gradient_rms")}
    folder = run.directory / "training"
    done = checkpoints.latest_step(folder)
    if done is not None:
        saved = checkpoints.load_step(folder, done, {"state": state, "history": history})
        state, history = jax.device_put(saved["state"]), saved["history"]
        progress(
            done, {name: values[:, max(done - 1, 0) : done] for name, values in history.items()}
        )

    def on_chunk(state: MaskState, metrics: Mapping[str, np.ndarray]) -> None:
        step = int(state.step[0])
        for name, values in metrics.items():
            history[name][:, step - values.shape[1] : step] = values
        checkpoints.save_step(folder, step, {"state": state, "history": history}, keep=1)
        progress(step, metrics)

    return train_masks(problem, state, on_chunk), history


def _label(run: PruneRun, job: Job) -> str:
    seeds = {j.seed for j in run.jobs}
    text = f"k_coef {float(job.hyper.k_coef):.2g}"
    return f"seed {job.seed}, {text}" if len(seeds) > 1 else text


def _draw(
    run: PruneRun,
    candidates: Sequence[Candidate],
    best: Candidate,
    base: Mapping[str, float],
    history: Mapping[str, np.ndarray],
) -> None:
    title = f"{run.task.name} on {run.model.name}"
    curves = [
        {"label": _label(run, c.job), "curve": c.choice.curve, "k": c.choice.selection.k}
        for c in candidates
    ]
    plot_loss_vs_k(
        run.directory / "loss_vs_k.png",
        curves,
        target=run.prune.target_loss,
        title=f"{title}: validation loss of the first k nodes",
        unpruned=base["loss_unpruned"],
        chosen=candidates.index(best),
    )
    if history:
        labels = [_label(run, job) for job in run.jobs]
        plot_training(
            run.directory / "training.png",
            history,
            labels,
            target=run.prune.target_loss,
            title=f"{title}: mask training",
        )


def _job_row(found: Candidate, k_trained: int) -> dict[str, Any]:
    choice = found.choice
    return {
        "seed": found.job.seed,
        "hyper": found.job.hyper.to_dict(),
        "reached": choice.reached,
        "nodes": found.nodes,
        "edges": found.edges,
        "nodes_before_cleanup": sum(int(m.sum()) for m in choice.mask.values()),
        "removed": dict(found.removed),
        "k_after_training": k_trained,
        "k_inside": choice.k_inside,
        "k_after": choice.k_after,
        "loss_validation": choice.loss,
        "loss_validation_uncalibrated": choice.loss_uncalibrated,
        "curve": [
            [value if np.isfinite(value) else None for value in point] for point in choice.curve
        ],
    }


def _report(
    run: PruneRun,
    problem: Problem,
    status: str,
    base: Mapping[str, float],
    figures: Mapping[str, Any],
    candidates: Sequence[Candidate],
    best: Candidate,
    history: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    trained = history["k"][:, -1] if history else np.zeros(len(candidates))
    rows = [_job_row(c, int(k)) for c, k in zip(candidates, trained, strict=True)]
    mine = rows[candidates.index(best)]
    params = jax.tree.map(np.asarray, dict(problem.params))
    return {
        "model": run.model.name,
        "model_hash": run.model.hash,
        "task": run.task.name,
        "seed": best.job.seed,
        "ablation": run.prune.ablation,
        "target_loss": run.prune.target_loss,
        "status": status,
        **base,
        **figures,
        "beats_model": figures["loss_circuit"] < base["loss_unpruned"],
        "nodes": best.nodes,
        "nodes_total": run.model.config.num_nodes,
        "edges": best.edges,
        "edges_total": total_edges(run.model.config, params),
        **{
            name: mine[name]
            for name in ("nodes_before_cleanup", "k_after_training", "k_inside", "k_after")
        },
        "calibration": {
            "mode": run.prune.calibrate,
            "scale": best.choice.scale,
            "shift": best.choice.shift,
        },
        "jobs": rows,
        "seconds": dict(seconds),
        "config": run.identity(),
        "versions": versions(),
    }
