"""How much an audit does."""

import dataclasses

from circuitjax.audit.polish import PolishAt
from circuitjax.audit.supersets import FRACTIONS
from circuitjax.core.statistics import require_share

__all__ = ["AuditConfig"]


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """How much an audit does; items are pairs, or examples of a contrast task.

    Attributes:
      seeds: of the stability test, counted from `seed`.
      batch_size: items per step of every search (seeds and controls); None: as the circuit's own.
      steps: of every search; None: as the circuit's own.
      pairs: test items, and validation items, of every figure but the headline's; each part's effect and
        agreement inside take half of them, the adversary searches on a quarter. Where a run of the grain
        costs more (residual edges), a quarter of all these.
      search_pairs: validation items that a search's k is chosen on, and test items it is judged by.
      fractions: of the rest that is left in by random supersets.
      sets: random supersets per fraction.
      search_steps: gradient steps of the adversarial superset, from each of five starts.
      search: run the searches at all.
      polish: polish at all.
      polish_at: see `polish`.
      polish_rounds: likewise.
      seed: of everything random.
      random_sets: of the test of necessity, at most.
      confidence: with which the test loss is asked to meet the target, in (0, 1); None: not asked.
      exhaustive: prompts of the whole held-out split that are run, at most; 0: none.
      sample: how many are drawn where it has more; None: as many as `exhaustive`.
    """

    seeds: int = 5
    batch_size: int | None = 8
    steps: int | None = None
    pairs: int = 128
    search_pairs: int = 64
    fractions: tuple[float, ...] = FRACTIONS
    sets: int = 4
    search_steps: int = 20
    search: bool = True
    polish: bool = True
    polish_at: PolishAt = "target"
    polish_rounds: int = 16
    seed: int = 0
    random_sets: int = 1000
    confidence: float | None = None
    exhaustive: int = 0
    sample: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 5:
            raise ValueError(f"seeds is {self.seeds}; it must be at least 5 to speak of stability")
        for name in (
            "batch_size",
            "steps",
            "pairs",
            "search_pairs",
            "sets",
            "search_steps",
            "polish_rounds",
            "random_sets",
            "sample",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not 0 <= self.seed < 2**32 - self.seeds:
            raise ValueError(f"seed is {self.seed}; it must be in [0, 2^32 - {self.seeds})")
        if self.confidence is not None:
            require_share("confidence", self.confidence)
        if self.exhaustive < 0:
            raise ValueError(f"exhaustive is {self.exhaustive}; it must be at least 0")
        if not self.fractions or not all(0 < value < 1 for value in self.fractions):
            raise ValueError(f"fractions are {self.fractions}; each must be in (0, 1)")
