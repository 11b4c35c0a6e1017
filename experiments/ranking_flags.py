"""The flag that chooses between learned masks and rankings without training, and its runs."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from circuitjax.model.record import Model
from circuitjax.prune.baselines import RANKINGS, Baseline
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.train import Job
from circuitjax.report.baseline_run import BaselineRun
from circuitjax.tasks.base import Task

__all__ = ["baseline_run", "chosen_ranking", "suffix"]

_RANKING = flags.DEFINE_enum(
    "ranking",
    "learned",
    ["learned", *RANKINGS],
    "Method nodes: how nodes are ranked before the smallest circuit is cut. All but learned are "
    "baselines that train nothing: gradient attribution to the task loss, its integrated form, "
    "variance of the activations, at random.",
)


def chosen_ranking(method: str, chosen: str | None = None) -> str:
    """The ranking asked for, by a flag or by `chosen` instead of it.

    Raises:
      ValueError: no such ranking, or one without training for a method other than nodes.
    """
    ranking = str(_RANKING.value) if chosen is None else chosen
    if ranking not in ("learned", *RANKINGS):
        raise ValueError(
            f"there is no ranking {ranking!r}: choose of learned, {', '.join(RANKINGS)}"
        )
    if ranking != "learned" and method != "nodes":
        raise ValueError(f"--ranking={ranking} is for --method=nodes, not {method}")
    return ranking


def suffix(method: str) -> str:
    """What tells runs of a method and ranking from learned nodes' in a directory's name."""
    ranking = chosen_ranking(method)
    if ranking != "learned":
        return f"-{ranking}"
    return "" if method == "nodes" else f"-{method}"


def baseline_run(
    ranking: str,
    model: Model,
    task: Task,
    prune: PruneConfig,
    out: pathlib.Path,
    seeds: Sequence[int],
    trained: Mapping[str, Any],
) -> BaselineRun:
    """The run of a ranking without training.

    Args:
      ranking: other than learned.
      model, task, prune, out: of the run.
      seeds: one job each.
      trained: values of the flags that only training reads; None where they were not given.

    Raises:
      ValueError: one of them was given, or several seeds for a ranking that has no randomness.
    """
    for name, value in trained.items():
        if value is not None:
            raise ValueError(f"--{name} has no meaning with --ranking={ranking}: leave it out")
    if len(seeds) > 1 and ranking != "random":
        raise ValueError(
            f"--num_seeds={len(seeds)} has no meaning with --ranking={ranking}, which is the same "
            "for every seed: leave it out"
        )
    jobs = [Job(seed, Baseline(ranking)) for seed in seeds]  # type: ignore[arg-type]
    return BaselineRun(model, task, prune, jobs, out)
