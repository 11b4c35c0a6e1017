"""A pruning run in a directory: resumable while it trains, idempotent once it is finished.

run.json             what the directory is for; written first
training/step_*      state of all jobs after each chunk
circuit/             the circuit
*.png                pictures
circuit.html         the circuit's page, once `experiments.view` has made it
report.json          every figure; written last, so its presence means "finished"

Every method of pruning goes through the same stages here; what happens in them is a `Work`'s.
"""

import importlib.metadata
import json
import pathlib
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import numpy as np

from circuitjax.audit.checks import short_checks
from circuitjax.core import checkpoints
from circuitjax.prune.train import MaskState, OnChunk

__all__ = ["Run", "Work", "claim", "finished_report", "run_pruning", "train_in", "versions"]

Progress = Callable[[int, Mapping[str, np.ndarray]], None]
History = Mapping[str, np.ndarray]

# What a run's directory may hold, also under a temporary name; anything else is somebody's.
_PICTURES = ("loss_vs_k.png", "kl_vs_edges.png", "training.png", "circuit.png")
_OURS = ("run.json", "report.json", "training", "circuit", "circuit.html", *_PICTURES)
_TEMPORARY = tuple(f".{name}." for name in _OURS)


class Run(Protocol):
    """What to do and where."""

    @property
    def directory(self) -> pathlib.Path:
        """Of the run."""

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run; JSON-able."""

    def begin(self) -> "Work":
        """Puts the data on the device; raises ValueError for a task the model cannot be asked."""


class Work(Protocol):
    """A run's stages, in the order they are called."""

    @property
    def jobs(self) -> int:
        """J."""

    @property
    def steps(self) -> int:
        """Training steps of each; 0 where gates are ranked without training."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names of the training metrics that are kept."""

    def baseline(self) -> dict[str, Any]:
        """Figures of the whole model and of the empty circuit."""

    def is_trivial(self, base: Mapping[str, Any]) -> bool:
        """Whether the empty circuit meets the target already."""

    def initial_state(self) -> MaskState:
        """J jobs before their first step."""

    def train(self, state: MaskState, on_chunk: OnChunk) -> MaskState:
        """Runs what is left of the training."""

    def select(self, state: MaskState | None) -> None:
        """Finds the circuit; None for a trivial task, whose circuit is empty."""

    def evidence(self) -> dict[str, Any]:
        """Figures of the circuit on the test split."""

    def write(self, directory: pathlib.Path, base: Mapping[str, Any], history: History) -> None:
        """Saves the circuit and the pictures."""

    def summary(self, base: Mapping[str, Any], history: History) -> dict[str, Any]:
        """The report's other fields: among them task, seed, nodes, edges, whether it `reached`."""


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


def _check(run: Run, overwrite: bool) -> bool:
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


def claim(run: Run) -> None:
    """Takes the directory, after `_check` has allowed it."""
    if run.directory.exists():
        shutil.rmtree(run.directory)
    checkpoints.write_json(run.directory / "run.json", run.identity())


def finished_report(run: Run) -> dict[str, Any] | None:
    """The report of a finished run, or None."""
    path = run.directory / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(seconds.get(name, 0.0) + time.perf_counter() - started, 2)


def run_pruning(
    run: Run,
    *,
    overwrite: bool = False,
    progress: Progress = lambda step, metrics: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Does what is left of a run and returns its report.

    Args:
      run: model, task, configuration, directory.
      overwrite: replace another run's directory.
      progress: called with (steps done, metrics `[J, chunk]`) while gates train.
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
        work = run.begin()
    if not resumed:
        claim(run)  # only now: a task that cannot be asked leaves nothing behind
    with _timed(seconds, "baseline"):
        base = work.baseline()
    trivial = work.is_trivial(base)
    history: dict[str, np.ndarray] = {}
    state = None
    if trivial:
        say("the empty circuit meets the target: nothing to find")
    else:
        doing = f"training {work.jobs} sets of gates" if work.steps else "ranking without training"
        say(f"whole model: {base['loss_unpruned']:.4f} nats; {doing}")
        with _timed(seconds, "training" if work.steps else "ranking"):
            state, history = _train(run, work, progress)
        say("selecting and cleaning up")
    with _timed(seconds, "selection"):
        work.select(state)
    say("testing the evidence")
    with _timed(seconds, "evidence"):
        figures = work.evidence()
    with _timed(seconds, "writing"):
        work.write(run.directory, base, history)
    fields = work.summary(base, history)
    target = fields["target_loss"] if fields.get("target", "loss") == "loss" else None
    status = "trivial" if trivial else "reached" if fields.pop("reached") else "not_reached"
    report = {
        "status": status,
        **fields,
        **base,
        **figures,
        "beats_model": figures["loss_circuit"] < base["loss_unpruned"],
        "checks": [check.to_dict() for check in short_checks({**base, **figures}, target)],
        "seconds": dict(seconds),
        "config": run.identity(),
        "versions": versions(),
    }
    checkpoints.write_json(run.directory / "report.json", report)
    shutil.rmtree(run.directory / "training", ignore_errors=True)
    return report


def _train(run: Run, work: Work, progress: Progress) -> tuple[MaskState, dict[str, np.ndarray]]:
    history = {name: np.zeros((work.jobs, work.steps), np.float32) for name in work.metrics}
    return train_in(run.directory / "training", work.initial_state(), history, work.train, progress)


def train_in(
    folder: pathlib.Path,
    state: MaskState,
    history: dict[str, np.ndarray],
    train: Callable[[MaskState, OnChunk], MaskState],
    progress: Progress = lambda step, metrics: None,
) -> tuple[MaskState, dict[str, np.ndarray]]:
    """Trains, or goes on training, and keeps the last chunk's state on disk.

    Args:
      folder: of the checkpoints.
      state: J jobs before their first step.
      history: metrics to keep, each `[J, steps]`.
      train: runs what is left, telling of every chunk.
      progress: called with (steps done, metrics `[J, chunk]`).

    Returns:
      The trained state and the filled history.
    """
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

    return train(state, on_chunk), history
