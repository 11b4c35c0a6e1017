"""How well rankings of residual edges tell the edges of a known circuit from all others: their AUROC.

The models are planted: their edges under interchange are known because they were put there. A ranking
that does not train says so of every edge; nothing is cut, so that no target and no size decide.
"""

import dataclasses

import numpy as np

from circuitjax.benchmarks.ground_truth import auroc
from circuitjax.benchmarks.recovery import planted_problem, planted_search
from circuitjax.prune.attribution import ATTRIBUTIONS, gains, signed
from circuitjax.prune.rank import Baseline, rank_scores, scores_without_training
from circuitjax.zoo.planted.draft import Planted

__all__ = ["RankingTruth", "truth_of_rankings"]


@dataclasses.dataclass(frozen=True)
class RankingTruth:
    """One ranking of one model's edges.

    Attributes:
      model, ranking, sign: what was ranked and how; no sign of a random ranking.
      auroc: chance that a true edge ranks before another.
      recall: share of the true edges among the first so many as there are true ones.
      num_true, num_all: counts of edges.
    """

    model: str
    ranking: str
    sign: str
    auroc: float
    recall: float
    num_true: int
    num_all: int


def truth_of_rankings(
    planted: Planted,
    rankings: tuple[str, ...] = (*ATTRIBUTIONS, "random"),
    *,
    items: int = 64,
    of: str = "odds",
    seed: int = 0,
) -> list[RankingTruth]:
    """Every ranking of a planted model's residual edges under interchange, absolute and signed.

    Args:
      planted: the model and its edges.
      rankings: without training.
      items: training pairs that gradients are of.
      of: see `attribution.gains`.
      seed: of the random ranking, and of ties.

    Examples:
      >>> from circuitjax.zoo.planted.models import neuron_copy
      >>> truth_of_rankings(neuron_copy(0), ("attribution",), items=8)[0].auroc > 0.9
      True
    """
    problem = planted_problem(planted, planted_search("edges", "interchange"))
    names, exists = problem.whole.names(), problem.whole.exists()
    known = set(planted.edges)
    found = []
    for ranking in rankings:
        scored: dict[str, np.ndarray] = {}
        if ranking == "random":
            scored[""] = scores_without_training(problem, Baseline("random"), seed)
        else:
            gain = gains(problem, problem.train.first(items), ranking, of=of)
            scored = {sign: signed(gain, sign) for sign in ("absolute", "signed")}
        for sign, scores in scored.items():
            ranks = rank_scores(problem, scores, seed).ranks
            first = {names[i] for i in np.flatnonzero(ranks < len(known))}
            by_name = {names[i]: float(scores[i]) for i in np.flatnonzero(exists)}
            area = auroc(by_name, known)
            recall = len(first & known) / len(known)
            row = (ranking, sign, area, recall, len(known), len(by_name))
            found.append(RankingTruth(planted.name, *row))
    return found
