"""What an audit holds a circuit to: one loss, and a target for it.

    calibrated   task loss of pairs under a scale and a shift: the best ones, or those of the circuit
    task         task loss as it is, where nothing is calibrated
    kl           KL(whole model || circuit), for circuits that were cut to one

A circuit that was cut to a number of parts has no target of its own: it is held to its own loss on the
validation examples, or to 0.01 where it has less: a calibration can tell validation pairs apart to any
number of digits, and no other examples would hold to these. All losses are in nats.
"""

import dataclasses
import math

import numpy as np

from circuitjax.audit.record import Interval
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.statistics import mean_interval
from circuitjax.gated.examples import Examples
from circuitjax.gated.grains import grain_named
from circuitjax.gated.measures import calibrated_odds, mean_task_loss
from circuitjax.gated.protocol import GatedModel, View
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.prune.calibrate import Calibration, calibrate
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, Asked, answered, references, slopes
from circuitjax.prune.figures import calibrates
from circuitjax.prune.problem import Problem, batches_of

__all__ = [
    "Measure",
    "Variants",
    "counts_nodes",
    "intervals",
    "item_losses",
    "measure_of",
    "members",
    "per_item",
    "share_of",
]

_LEAST = 0.01  # nats: no circuit is held to less than this for its own loss's sake


@dataclasses.dataclass(frozen=True)
class Measure:
    """The loss that decides, and what it may be.

    Attributes:
      kind: see the module docstring.
      target: nats.
    """

    kind: str
    target: float

    @property
    def full(self) -> bool:
        """Whether the whole model has to be run beside the circuit."""
        return self.kind == "kl"

    def fit(self, found: Answers) -> Calibration:
        """The best calibration of each of K circuits' answers, and the loss `[K]` under it."""
        if self.kind == "calibrated":
            return calibrate(found.odds)
        losses = found.kl.mean(axis=1) if self.full else mean_task_loss(found.odds)
        return Calibration(np.ones_like(losses), np.zeros_like(losses), losses)

    def losses(self, found: Answers, by: Calibration | None = None) -> np.ndarray:
        """Losses `[K]`, under the calibrations `by` or, without these, under each one's own best."""
        if by is None or self.kind != "calibrated":
            return np.asarray(self.fit(found).loss)
        return mean_task_loss(calibrated_odds(found.odds, by.scale, by.shift))

    def item_losses(self, found: Answers, unit: int, by: Calibration | None = None) -> np.ndarray:
        """The same item by item, `[K, I]`: what an interval is over, since items are independent."""
        if self.full:
            return per_item(found.kl, unit)
        odds = found.odds
        if self.kind == "calibrated":
            by = self.fit(found) if by is None else by
            odds = calibrated_odds(odds, by.scale, by.shift)
        return item_losses(odds, unit)

    def interval(
        self, found: Answers, unit: int, by: Calibration | None = None
    ) -> list[Interval | None]:
        """Bootstrap interval of each of K losses over the items, the calibrations held fixed."""
        return intervals(self.item_losses(found, unit, by))

    def stored(self, circuit: Circuit) -> Calibration:
        """The calibration that a circuit has, as that of K = 1."""
        return Calibration(np.array([circuit.scale]), np.array([circuit.shift]), None)


def measure_of(problem: Problem, search: Search, circuit: Circuit) -> Measure:
    """What a circuit is held to by the search that found it."""
    selection = search.selection
    kind = "calibrated" if calibrates(problem, selection, search.choices.loss) else "task"
    by_size = not selection.is_loss and search.choices.minimise == "kl"
    if selection.target == "kl" or (by_size and not problem.paired):
        kind = "kl"
    if selection.is_loss:
        return Measure(kind, selection.value)
    own = Variants(problem, circuit.view(problem.model), kind)
    measure = Measure(kind, math.inf)
    found = own.answers(own.asked(problem.validation), own.gates[None])
    return Measure(kind, max(float(measure.losses(found, measure.stored(circuit))[0]), _LEAST))


class Variants:
    """A circuit as gates, and subsets of its open gates, run in the smallest model that can.

    Attributes:
      model: the network under gates.
      gates: bool `[G]`, those that are open.
    """

    def __init__(self, problem: Problem, view: View, kind: str) -> None:
        """Folds the circuit; `kind` is that of the measure."""
        self.model, self.gates = view
        self._small = self.model.reduced(self.gates, own_widths=True)
        self.batches, self._kind = batches_of(self.model), kind
        # What is closed in a circuit may be closed in its view's network: the KL is to the whole one.
        own = is_per_prompt(self.model.ablation)
        self._reference: GatedModel = self._small if own else problem.whole

    def asked(self, examples: Examples) -> Asked:
        """M examples, cut into batches once."""
        return Asked(self._reference, self.batches, examples, full=self._kind == "kl")

    def answers(self, asked: Asked, rows: np.ndarray) -> Answers:
        """Answers `[K, M]` of subsets bool `[K, G]` of the open gates."""
        return answered(self._small, asked, rows)

    def slopes(self, examples: Examples, row: np.ndarray) -> np.ndarray:
        """To first order, the rise in nats by closing each gate of a subset bool `[G]`: `[G]`."""
        rows = list(self.batches.uneven(examples))
        found, gates = np.zeros(self.gates.size), row.astype(np.float32)
        for batch, reference in references(self._reference, rows, full=self._kind == "kl"):
            slope = slopes(self._small, gates, batch, reference, kind=self._kind)
            found -= np.asarray(slope) * batch.size / examples.size
        return found


def per_item(values: np.ndarray, unit: int) -> np.ndarray:
    """Means `[..., I]` over the examples of each item, of values `[..., M]`."""
    values = np.asarray(values, float)
    return values.reshape(*values.shape[:-1], -1, unit).mean(axis=-1)


def item_losses(odds: np.ndarray, unit: int) -> np.ndarray:
    """Task losses `[..., I]` of items in nats, from the odds `[..., M]` of their examples."""
    odds = np.asarray(odds, float)
    return mean_task_loss(odds.reshape(*odds.shape[:-1], -1, unit))


def intervals(values: np.ndarray) -> list[Interval | None]:
    """Bootstrap intervals at 95% of means of values `[K, I]` over items; None for a single item."""
    if values.shape[-1] < 2:
        return [None] * len(values)
    low, high = mean_interval(values)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def counts_nodes(circuit: Circuit) -> bool:
    """Whether a circuit's size is its number of nodes, rather than of edges."""
    return grain_named(circuit.grain).unit == "nodes"


def share_of(model: GatedModel, count: int) -> int:
    """So many items, or fewer where a run of the grain costs more; at least one."""
    return max(1, count * model.eval_items // 64)


def members(circuit: Circuit) -> frozenset[str]:
    """Names of what a circuit's size counts: its nodes, or its edges `source->target`."""
    if counts_nodes(circuit):
        return frozenset(circuit.nodes())
    return frozenset(f"{source}->{target}" for source, target, _ in circuit.edges())
