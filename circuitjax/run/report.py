"""`report.json`: what a run found, as a typed record with a version and a hash.

Losses are in nats: those named `validation` on the validation examples, where the circuit was cut, all
others on the test examples (see `audit.evidence`). A figure that a grain, a target or a ranking does not
have is null.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from circuitjax.audit.conditions import UnderFigures
from circuitjax.audit.record import CheckFigures, Hypothesis, Interval
from circuitjax.core.files import write_json
from circuitjax.core.records import seal
from circuitjax.core.schema import from_json, json_schema, read_record
from circuitjax.prune.certify import Certificate

__all__ = ["FORMAT", "JobReport", "PointReport", "Report", "read_report"]

FORMAT = "circuitjax-report-3"
OLDER = ("circuitjax-report-2",)  # without what has a default in `Report`


@dataclasses.dataclass(frozen=True)
class PointReport:
    """One k that was looked at.

    Attributes:
      k: gates of the ranking that were kept.
      parts: how many of them remain open once those on no path are closed.
      raw, loss: task loss, without and with its own best calibration.
      kl: KL(model || circuit).
      items: validation pairs, or examples, that all of it was measured on.
    """

    k: int
    parts: int
    raw: float | None
    loss: float | None
    kl: float | None
    items: int


@dataclasses.dataclass(frozen=True)
class JobReport:
    """What became of one job.

    Attributes:
      seed, hyper: of the job; for a ranking without training how it was taken.
      reached: whether its circuit meets the target on validation.
      rough: whether k was chosen on few validation items only, because other jobs promised more.
      nodes, edges: of its circuit.
      gates_before_cleanup: open gates, before what does nothing was removed.
      removed: how many parts were removed, by kind.
      k: where its ranking was cut.
      k_after_training: gates expected to be open at the end of training.
      k_inside, k_after: where it is cut if calibration acts inside the search for k, or after it.
      sparsity_after_training: share of the gates that training left closed.
      loss_validation, loss_validation_uncalibrated, kl_validation: of its circuit.
      curve: every k that was looked at.
    """

    seed: int
    hyper: dict[str, Any]
    reached: bool
    rough: bool
    nodes: int
    edges: int
    gates_before_cleanup: int
    removed: dict[str, int]
    k: int
    k_after_training: int | None
    k_inside: int | None
    k_after: int | None
    sparsity_after_training: float | None
    loss_validation: float | None
    loss_validation_uncalibrated: float | None
    kl_validation: float | None
    curve: list[PointReport]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the circuit's log odds are calibrated, and when that was fitted."""

    mode: str
    scale: float
    shift: float


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything a run says of its circuit.

    Attributes:
      format: of the record, with its version.
      identity: hash of the run's `run.json`.
      circuit: content hash of the circuit.
      status: `reached` and `not_reached` on validation; `trivial`: the empty circuit does the task.
      grain, gate, ablation, minimise, control, ranking: the choices of the search.
      model, model_hash, task, seed: what it is of; the seed is that of the job that became the circuit.
      target, target_value: what the cut aimed at.
      target_loss: the same where it is a task loss.
      started_from: nodes of the circuit that the search started from.
      nodes, edges, nodes_total, edges_total: of the circuit and of the whole model.
      gates_before_cleanup, k, k_after_training, k_inside, k_after, loss_validation, kl_validation: of
        the job that became the circuit, see `JobReport`.
      loss_unpruned, accuracy_unpruned, loss_empty, kl_empty: see `audit.evidence.baseline`.
      loss_circuit ... argmax_agreement, necessity: see `audit.evidence.evidence`.
      intervals: {figure: 95% interval over test items}.
      beats_model: whether the circuit's loss is below the whole model's.
      calibration: of the circuit.
      jobs: all of them.
      checks: the verdict in short.
      seconds: {stage: seconds}.
      config: what the run was asked for, as in `run.json`.
      versions: of what computed it.
      conditions: what the circuit does under every condition that it was cut under, and under
        resampling and supersets besides, with its own calibration.
      certificate: of minimality, where there is one.
    """

    format: str
    identity: str
    circuit: str
    status: Literal["reached", "not_reached", "trivial"]
    grain: str
    gate: str
    ablation: str
    minimise: str
    control: str
    ranking: str
    model: str
    model_hash: str
    task: str
    seed: int
    target: str
    target_value: float | None
    target_loss: float | None
    started_from: int | None
    nodes: int
    nodes_total: int
    edges: int
    edges_total: int
    gates_before_cleanup: int
    k: int
    k_after_training: int | None
    k_inside: int | None
    k_after: int | None
    loss_validation: float | None
    kl_validation: float | None
    loss_unpruned: float
    accuracy_unpruned: float
    loss_empty: float
    kl_empty: float | None
    loss_circuit: float
    loss_circuit_uncalibrated: float
    accuracy_circuit: float
    loss_without_circuit: float
    loss_without_random: list[float]
    necessity_percentile: float
    correlation: float | None
    correlation_within: float | None
    kl_to_model: float
    argmax_agreement: float
    beats_model: bool
    calibration: Calibration
    jobs: list[JobReport]
    checks: list[CheckFigures]
    seconds: dict[str, float]
    config: dict[str, Any]
    versions: dict[str, str]
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    necessity: Hypothesis | None = None
    conditions: dict[str, UnderFigures] = dataclasses.field(default_factory=dict)
    certificate: Certificate | None = None

    @staticmethod
    def schema() -> dict[str, Any]:
        """The JSON schema of report.json but for its hash."""
        return json_schema(Report)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "the report") -> "Report":
        """From `to_dict`; ValueError for a field that is missing, unknown or of another type."""
        return from_json(cls, fields, where)

    def write(self, path: pathlib.Path) -> None:
        """Writes the sealed record, atomically."""
        write_json(path, seal(self.to_dict()))


def read_report(path: pathlib.Path) -> Report:
    """Reads a `report.json` of this version or the one before, which has no intervals.

    Raises:
      ValueError: none there, one that was changed, or of another version: one line.
    """
    return read_record(Report, path, FORMAT, OLDER)
