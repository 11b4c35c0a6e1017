"""Whether training found a circuit, or the order of its scores alone; and a second try where it did not.

A step too long, or a price too high, closes nearly everything: training ends at chance, with a few gates
open. A cut of the order in which they died may still meet the target, with far more gates than training
left open. Such a circuit does what its report says, but it is no result of training: a check says so,
and the run first tries the next seed with the default settings.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from circuitjax.audit.check import Check
from circuitjax.prune.candidates import Candidate
from circuitjax.prune.defaults import default_hyper, default_jobs
from circuitjax.prune.train import Job
from circuitjax.run.search import PruneRun, gates_of

__all__ = ["Trained", "all_collapsed", "kept_first", "second_job"]

_MOST = 3.0  # times the gates that training left open: elimination may begin from twice as many
_AT_CHANCE = 0.9  # of the loss of the empty circuit
_LAST = 10  # steps that the loss at the end of training is a mean of


@dataclasses.dataclass(frozen=True)
class Trained:
    """How the training of one job ended.

    Attributes:
      found: what became of the job.
      loss: at the end of training, nats: the KL where it is the aim, else the task loss.
      chance: the same loss of the empty circuit.
    """

    found: Candidate
    loss: float
    chance: float

    @classmethod
    def of(
        cls,
        run: PruneRun,
        candidates: Sequence[Candidate],
        history: Mapping[str, np.ndarray],
        base: Mapping[str, float],
    ) -> "list[Trained]":
        """Of every job, by its metrics `[J, steps]` and the figures of `audit.evidence.baseline`."""
        name = "kl" if run.search.selection.target == "kl" and "kl" in history else "task"
        ends = history[name][:, -_LAST:].mean(axis=1)
        chance = base["kl_empty" if name == "kl" else "loss_empty"]
        return [cls(one, float(end), chance) for one, end in zip(candidates, ends, strict=True)]

    @property
    def share(self) -> float:
        """Gates that the cut, or elimination, began from, for each one that training left open."""
        return self.found.started / max(self.found.trained, 1)

    @property
    def collapsed(self) -> bool:
        """Whether the target is met by far more gates than training left, and training failed."""
        failed = self.loss >= _AT_CHANCE * self.chance
        return self.found.choice.reached and self.share > _MOST and failed

    def check(self) -> Check:
        """The line of the verdict."""
        note = (
            f"{self.found.started} for {self.found.trained} open after training, which ended at "
            f"{self.loss:.3f} nats (empty circuit: {self.chance:.3f})"
        )
        if self.share > _MOST:
            note += "; the order of scores, not training, carried the circuit"
        name = "gates the cut began from, for each one that training left open"
        return Check("search", name, self.share, _MOST, unit="gates", note=note)


def all_collapsed(trained: Sequence[Trained]) -> bool:
    """Whether there are circuits that meet the target, all of them after a collapse."""
    reached = [one for one in trained if one.found.choice.reached]
    return bool(reached) and all(one.collapsed for one in reached)


def second_job(run: PruneRun) -> Job:
    """The next seed, with the settings that suit the grain."""
    count = gates_of(run.model, run.search, run.start)
    seed = max(job.seed for job in run.jobs) + 1
    if run.search.choices.control == "lagrangian":  # which closes what it is told to: the mildest
        return default_jobs(run.search, count, [seed], started=run.start is not None)[0]
    return Job(seed, default_hyper(run.search, count))


def kept_first(trained: Sequence[Trained]) -> list[Candidate]:
    """What to pick from: those that training carried, if any of them meets the target."""
    sound = [one.found for one in trained if not one.collapsed]
    if any(found.choice.reached for found in sound):
        return sound
    return [one.found for one in trained]
