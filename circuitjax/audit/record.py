"""`audit.json`: what an audit found, as typed records with a version.

Losses are in nats. "The measure" is what the circuit was cut to (see `measure.py`): the calibrated task
loss of pairs, the task loss, or the KL to the model. A size counts nodes for a circuit of nodes, edges
for the others. Intervals are of 95%, over the test items (pairs, not single prompts).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from circuitjax.audit.tested import Exhaustive, Hypothesis, Interval, Minimality, Worst
from circuitjax.core.schema import from_json, json_schema

__all__ = [
    "FORMAT",
    "OLDER",
    "Agreement",
    "AuditFigures",
    "Baseline",
    "CheckFigures",
    "EffectFigures",
    "Evidence",
    "Exhaustive",
    "Hypothesis",
    "Interval",
    "Minimality",
    "PolishFigures",
    "RunFigures",
    "Stability",
    "Sufficiency",
    "SupersetFigures",
    "Template",
    "Worst",
]

FORMAT = "circuitjax-audit-3"
OLDER = ("circuitjax-audit-2",)  # without tests, intervals and a run over the whole split


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The whole model and the empty circuit on the test examples; see `evidence.baseline`."""

    loss_unpruned: float
    loss_empty: float
    kl_empty: float
    accuracy_unpruned: float
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The circuit on the test examples; see `evidence.evidence`."""

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
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    necessity: Hypothesis | None = None


@dataclasses.dataclass(frozen=True)
class Sufficiency:
    """One replacement: the measure (under the best calibration on the same pairs), and the task loss."""

    loss: float
    loss_uncalibrated: float
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Template:
    """One template's test items: loss under the stored calibration, and how many items there are."""

    loss: float
    items: int
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Attention patterns and activations against the model's; see `agreement.agreement`."""

    heads: dict[str, float]
    divergence: float | None
    unexplained: list[float | None]


@dataclasses.dataclass(frozen=True)
class EffectFigures:
    """What each part does by itself.

    Attributes:
      loss: of the circuit, on the same examples.
      idle_nodes, idle_edges: share of them that cost under 1% of the target, or help by leaving; None
        where there is none.
      estimated_nodes, estimated_edges: how many are known to first order only.
      nodes: {address: effect}.
      edges: [source, target, effect].
    """

    loss: float
    idle_nodes: float | None
    idle_edges: float | None
    estimated_nodes: int
    estimated_edges: int
    nodes: dict[str, float]
    edges: list[tuple[str, str, float]]


@dataclasses.dataclass(frozen=True)
class PolishFigures:
    """What polish removed; losses are of the measure, before under the stored calibration on test.

    Attributes:
      target: what the validation loss was allowed to rise to.
      reached: whether the given circuit met it; if not, nothing was removed.
      finished: whether the search ended before the rounds did.
      removed: names of the nodes, or of the edges, that went.
    """

    nodes_before: int
    nodes_after: int
    edges_before: int
    edges_after: int
    size_before: int
    size_after: int
    loss_validation_before: float
    loss_validation_after: float
    loss_test_before: float
    loss_test_after: float
    target: float
    reached: bool
    finished: bool
    removed: list[str]
    loss_test_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class SupersetFigures:
    """The measure of supersets; see `supersets.Supersets`."""

    fractions: list[float]
    random: list[list[float]]
    adversarial: float
    adversarial_fraction: float
    adversarial_from: str
    search: list[list[float]]
    random_intervals: list[Interval | None] | None = None
    adversarial_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class RunFigures:
    """One search of the stability test or of a control; see `reruns.Rerun`."""

    world: str
    seed: int
    nodes: int
    edges: int
    size: int
    reached: bool
    loss: float
    loss_test: float
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Stability:
    """What circuits of several seeds share; see `reruns.stability`."""

    seeds: list[int]
    jaccard: float | None
    matrix: list[list[float]]
    with_circuit: float
    core: int
    core_share: float
    core_in_circuit: int
    core_loss: float
    core_interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class CheckFigures:
    """One line of the verdict; see `checks.Check`."""

    group: str
    name: str
    figure: float | None
    threshold: float
    at_most: bool
    unit: str
    note: str
    passed: bool | None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class AuditFigures:
    """Everything an audit found.

    Attributes:
      format: of the record, with its version.
      model, model_hash, task: what the circuit is of.
      grain, ablation: of the circuit.
      paired: whether the task's prompts come in pairs.
      unit: what its size counts, `nodes` or `edges`.
      measure: `calibrated`, `task` or `kl`; see `measure.py`.
      target: nats of the measure that the circuit is held to.
      chance: nats of the measure that a circuit which knows nothing has.
      nodes, edges, size: of the circuit.
      nodes_total, edges_total, size_total: of the model.
      own_size: median size of the searches of the same budget that reached the target; the circuit's
        own where there is none.
      baseline, evidence: on all test examples.
      sufficiency: {replacement: {`free` or `frozen` norms: figures}}.
      templates: {template: figures}; empty where a task has none.
      agreement, effects, polish, supersets, runs, stability: None or empty where `skipped` says why.
      worlds: {world: what was held out or drawn}.
      skipped: {what could not be asked: why}.
      seconds: {stage: seconds}.
      settings: `audit`, `search`, `hyper`: dictionaries of the settings.
      checks: the verdict.
      tests: hypothesis tests, with their p-values before and after correction for their number.
      minimality, exhaustive: None where `skipped` says why, or in an older audit.
      bound: what the measure's test loss is at most, at the confidence asked for; None: not asked for.
    """

    format: str
    model: str
    model_hash: str
    task: str
    grain: str
    ablation: str
    paired: bool
    unit: str
    measure: str
    target: float
    chance: float
    nodes: int
    nodes_total: int
    edges: int
    edges_total: int
    size: int
    size_total: int
    own_size: float
    baseline: Baseline
    evidence: Evidence
    sufficiency: dict[str, dict[str, Sufficiency]]
    templates: dict[str, Template]
    agreement: Agreement | None
    effects: EffectFigures
    polish: PolishFigures | None
    supersets: SupersetFigures | None
    runs: list[RunFigures]
    worlds: dict[str, str]
    stability: Stability | None
    skipped: dict[str, str]
    seconds: dict[str, float]
    settings: dict[str, Any]
    checks: list[CheckFigures]
    tests: list[Hypothesis] = dataclasses.field(default_factory=list)
    minimality: Minimality | None = None
    exhaustive: Exhaustive | None = None
    bound: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "audit.json") -> "AuditFigures":
        """From `to_dict` or its JSON.

        Raises:
          ValueError: a field that is missing, unknown or of another type: one line that names it.
        """
        return from_json(cls, fields, where)

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The JSON schema of `to_dict`."""
        return json_schema(cls)
