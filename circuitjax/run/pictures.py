"""The pictures of a run: losses at every size, the training, the circuit."""

from collections.abc import Mapping, Sequence
from typing import Any

from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.grains import grain_named
from circuitjax.prune.candidates import Candidate
from circuitjax.prune.train import Job
from circuitjax.report.drawing import draw_circuit
from circuitjax.report.plots import plot_cut, plot_training
from circuitjax.run.search import PruneRun
from circuitjax.run.training import History

__all__ = ["draw_run"]


def _label(run: PruneRun, job: Job) -> str:
    """A job's name in a legend: its setting, and its seed where there are several."""
    if not run.steps:
        text = f"ranked by {run.search.choices.ranking}"
    elif run.search.choices.control == "lagrangian":
        text = f"sparsity {float(job.hyper.target_sparsity):.3f}"
    else:
        text = f"k_coef {float(job.hyper.k_coef):.2g}"
    several = len({other.seed for other in run.jobs}) > 1
    return f"seed {job.seed}, {text}" if several else text


def draw_run(
    run: PruneRun,
    circuit: Circuit,
    candidates: Sequence[Candidate],
    best: Candidate,
    base: Mapping[str, Any],
    history: History,
) -> None:
    """Writes `loss_vs_k.png`, `kl_vs_k.png` where it was measured, `training.png` and `circuit.png`."""
    selection, unit = run.search.selection, grain_named(run.search.choices.grain).unit
    title = f"{run.task.name} on {run.model.name}, {run.search.choices.ablation} ablation"
    labels = [_label(run, candidate.job) for candidate in candidates]
    curves = [candidate.choice.curve for candidate in candidates]
    for kind in ("loss", "kl"):
        if best.choice.curve[0].kl is None and kind == "kl":
            continue
        plot_cut(
            run.directory / f"{kind}_vs_k.png",
            curves,
            labels,
            kind=kind,
            chosen=(candidates.index(best), best.choice.selection.k),
            target=selection.value if selection.target == kind else None,
            title=f"{title}: validation",
            unpruned=base["loss_unpruned"] if kind == "loss" else None,
            unit=f"{unit} kept",
        )
    if history:
        plot_training(
            run.directory / "training.png",
            history,
            labels,
            target=selection.value if selection.target == "loss" else None,
            title=f"{title}: training of the gates",
            unit=f"open {unit}, expected",
        )
    size = f"{best.nodes} nodes, {best.edges} edges"
    draw_circuit(run.directory / "circuit.png", run.model, circuit, f"{title}: {size}")
