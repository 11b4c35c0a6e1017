"""A found circuit against a known one, and what a known one is under a given replacement.

    precision = right / found      recall = right / true      F1 = 2 right / (found + true)
    AUROC     = share of pairs (true, other) in which the true one scores higher, ties counted half

What is compared are names: residual edges (`a0.h1->logits`), node addresses, or pairs of either,
which stand for `source->target`.

For a compiled program the compiler tells the circuit (`tracr_edges` without an ablation), but what
is true depends on the replacement: a constant direction carries nothing under interchange and
everything under zero ablation. `tracr_edges` with an ablation derives it; see `truth.py`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from circuitjax.benchmarks.needed_edges import Ablation, EdgeRuns, edge_runs
from circuitjax.benchmarks.truth import needed_alone
from circuitjax.importers.tracr_program import TracrProgram
from circuitjax.model.residual_graph import residual_graph

__all__ = [
    "GroundTruth",
    "Part",
    "Scores",
    "auroc",
    "compare",
    "tracr_edges",
    "tracr_runs",
]

Part = str | tuple[str, str]
# A mapping's keys are invariant to a type checker: all three are meant.
Scores = Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[Part, float]


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """How a found circuit stands to the true one.

    Attributes:
      precision: right of found, 0 where nothing was found; None where nothing was to be found either.
      recall: right of true; None where nothing is true.
      f1: their harmonic mean; likewise.
      auroc: of the scores; None without scores, or where everything is true, or nothing.
      missing: true but not found, sorted.
      extra: found but not true, sorted.
      num_true, num_found, num_right, num_all: counts.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    num_true: int
    num_found: int
    num_right: int
    num_all: int


def _names(parts: Iterable[Part], what: str) -> set[str]:
    """Names of parts; a pair is `source->target`."""
    if isinstance(parts, str):
        raise ValueError(f"{what} is the single text {parts!r}; give a collection of names")
    names = set()
    for part in parts:
        if isinstance(part, str):
            names.add(part)
        elif isinstance(part, tuple) and [type(end) for end in part] == [str, str]:
            names.add("->".join(part))
        else:
            raise ValueError(f"{what} holds {part!r}; give names or (source, target) pairs of them")
    return names


def _scores(scores: Scores, what: str = "scores") -> dict[str, float]:
    named = {"->".join(k) if isinstance(k, tuple) else k: float(v) for k, v in scores.items()}
    for name, value in named.items():
        if np.isnan(value):
            raise ValueError(f"{what} give {name!r} the value nan; every score must be a number")
    return named


def _check_known(names: set[str], known: set[str], what: str) -> None:
    unknown = sorted(names - known)
    if unknown:
        raise ValueError(
            f"{what} holds {unknown[0]!r}, which is none of the {len(known)} that exist "
            f"({len(unknown)} such)"
        )


def auroc(scores: Scores, true: Iterable[Part]) -> float:
    """Probability that a true part scores higher than another one, ties counted half.

    From midranks (Mann-Whitney): exact, with no curve and no threshold.

    Args:
      scores: of every part that exists; infinite ones are fine.
      true: the known parts.

    Raises:
      ValueError: a true part without a score, a score that is nan, or nothing to tell apart.
    """
    named, known = _scores(scores), _names(true, "true")
    _check_known(known, set(named), "true")
    num_true, num_other = len(known), len(named) - len(known)
    if not num_true or not num_other:
        raise ValueError(
            f"AUROC of {num_true} true and {num_other} other parts is undefined; it needs both"
        )
    values = np.array(list(named.values()))
    is_true = np.array([name in known for name in named])
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    # Twice the midrank, so that everything stays a whole number until the one division.
    twice = 2 * np.cumsum(sizes) - sizes + 1
    wins = int(twice[group][is_true].sum()) - num_true * (num_true + 1)
    return wins / (2 * num_true * num_other)


def compare(
    found: Iterable[Part],
    true: Iterable[Part],
    all_edges: Iterable[Part],
    scores: Scores | None = None,
) -> GroundTruth:
    """A found circuit against the known one.

    Args:
      found: what was found: edge names, node addresses or (source, target) pairs.
      true: what is known to be the circuit.
      all_edges: everything that could have been found.
      scores: of everything in `all_edges`, for the AUROC.

    Raises:
      ValueError: a part that does not exist, or scores of other parts than those that exist.
    """
    chosen, known, every = _names(found, "found"), _names(true, "true"), _names(all_edges, "all")
    _check_known(known, every, "true")
    _check_known(chosen, every, "found")
    area = None
    if scores is not None:
        named = _scores(scores)
        _check_known(set(named), every, "scores")
        unscored = sorted(every - set(named))
        if unscored:
            raise ValueError(
                f"scores lack {unscored[0]!r} ({len(unscored)} such); give one to everything"
            )
        area = auroc(dict(named), known) if known and known != every else None
    right = len(chosen & known)
    return GroundTruth(
        precision=right / len(chosen) if chosen else 0.0 if known else None,
        recall=right / len(known) if known else None,
        f1=2 * right / (len(chosen) + len(known)) if known else None,
        auroc=area,
        missing=tuple(sorted(known - chosen)),
        extra=tuple(sorted(chosen - known)),
        num_true=len(known),
        num_found=len(chosen),
        num_right=right,
        num_all=len(every),
    )


def tracr_runs(
    program: TracrProgram,
    ablation: Ablation,
    *,
    length: int | None = None,
    draws: int = 4,
    seed: int = 0,
    by: Literal["answer", "logits"] | None = None,
) -> EdgeRuns:
    """A compiled program on its recorded inputs, read at every position but BOS's.

    Args:
      program: has recorded inputs.
      ablation: of closed edges. For `interchange` the corrupted inputs are the recorded ones in
        random order, `draws` times over.
      length: words per input; None means all that were recorded. A program may have reasons that
        only inputs of different lengths show.
      draws, seed: of the random orders.
      by: how outputs are compared; None means `answer` where the output is categorical.

    Raises:
      ValueError: no recorded inputs, or a length or number of draws out of range.
    """
    name, inputs = program.model.name, program.inputs
    if inputs is None:
        raise ValueError(f"program {name!r} has no recorded inputs; load it from its files")
    longest = inputs.shape[1] - 1
    length = longest if length is None else length
    if not 1 <= length <= longest:
        raise ValueError(f"length is {length}; inputs of {name!r} have from 1 to {longest} words")
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1")
    inputs, other = inputs[:, : length + 1], None
    if ablation == "interchange":
        rng = np.random.default_rng(seed)
        other = np.concatenate([rng.permutation(inputs) for _ in range(draws)])
        inputs = np.concatenate([inputs] * draws)
    places = np.broadcast_to(np.arange(1, length + 1), (len(inputs), length))
    return edge_runs(
        program.model.config,
        program.model.params,
        inputs,
        ablation,
        other,
        positions=places,
        num_outputs=len(program.output_directions),
        by=by or ("logits" if program.output_encoder is None else "answer"),
    )


def tracr_edges(
    program: TracrProgram,
    ablation: Ablation | None = None,
    *,
    lengths: Sequence[int] | None = None,
    tolerance: float | None = None,
) -> tuple[str, ...]:
    """A compiled program's circuit as names of residual edges, in the order of the graph.

    Args:
      program: the program.
      ablation: None means the compiler's own record, which counts no read of BOS or of the constant
        direction. Else the edges each of which is needed under this replacement.
      lengths: of inputs, in words: an edge is needed if it is at any of them. None means only those
        recorded.
      tolerance: a change of at most this much is none; None means 0 for answers, 1e-3 for numbers.

    Raises:
      ValueError: no record, an edge of it that the model does not have, or no inputs.
    """
    names = residual_graph(program.model.config).names
    if ablation is None:
        if program.true_edges is None:
            raise ValueError(
                f"program {program.model.name!r} has no recorded edges; give an ablation to derive "
                "them"
            )
        chosen = _names(program.true_edges, "true_edges")
        _check_known(chosen, set(names), "true_edges")
    else:
        chosen = set()
        for length in [None] if lengths is None else lengths:
            runs = tracr_runs(program, ablation, length=length)
            least = (0.0 if runs.by == "answer" else 1e-3) if tolerance is None else tolerance
            chosen |= set(needed_alone(runs, least))
    return tuple(name for name in names if name in chosen)
