"""Does pruning find circuits that are known? The search on planted models and on compiled programs.

A planted model is pruned at any grain, under any ablation; a compiled program at that of residual edges.
What was found is compared with what is true, seed by seed. Nothing here knows the truth before it
compares.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.measure import Measure, counts_nodes, members
from circuitjax.audit.polish import polish
from circuitjax.benchmarks.gate_sets import GateSets
from circuitjax.benchmarks.ground_truth import GroundTruth, compare
from circuitjax.benchmarks.truth import Truth, Verdict, judge, truth_of
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.gated.replacement import is_per_prompt
from circuitjax.importers.tracr_program import TracrProgram
from circuitjax.prune.candidates import candidates_of, certified, empty_candidate, pick
from circuitjax.prune.defaults import Search, default_jobs, default_search
from circuitjax.prune.find import as_circuit
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.problem import Problem, assembled
from circuitjax.prune.rank import activation_moments
from circuitjax.prune.train import Job, MaskState
from circuitjax.zoo.planted.draft import Planted

__all__ = [
    "Recovery",
    "gate_sets",
    "jobs_of",
    "planted_problem",
    "planted_search",
    "program_problem",
    "program_search",
    "recover_planted",
    "recover_program",
    "trained_scores",
]

# Logits of a compiled program are 0 and 1: sharpened, so that the KL tells one answer from another.
_SHARPEN = 10.0
_SPARSITIES = (0.8, 0.9, 0.95)
# In a model of a few hundred nodes a k_coef of 18 / N outweighs the task, and gates that start alike
# close together: its first steps would leave nothing to learn from.
_SMALL = MappingProxyType(
    {"k_coef": 0.01, "lr": 0.01, "init_noise_scale": 0.1, "init_noise_bias": 0.3}
)
_PUBLISHED = ("nodes", "heaviside", "count")
# A compiled program with a part half closed says something else altogether: gates that start soft leave
# only noise to learn from. So they start open and almost without noise, and come down together under a
# weight that adapts; those that are needed are the ones that the KL pushes back. A decay of the scores
# would pull these, too, to where draws are soft again.
_PROGRAM = MappingProxyType({"init_noise_bias": 8.0, "lr": 0.2, "wd": 0.0})


@dataclasses.dataclass(frozen=True)
class Recovery:
    """One grain of one model under one ablation.

    Attributes:
      name, grain, ablation: what was pruned and how.
      seeds: of the runs.
      reached: whether each run met its target.
      truth: what is known of the model's circuits.
      verdicts: each seed's set, judged as a circuit.
      results: each seed's set against the smallest known one that is nearest to it, with the AUROC of
        the scores as they were before any elimination; None where the truth is empty or not unique.
      alone: each seed's set against the parts that are needed with all others open.
      seconds: CPU seconds of all seeds together, compilation included.
      seconds_truth: CPU seconds that deriving the truth took.
    """

    name: str
    grain: str
    ablation: str
    seeds: tuple[int, ...]
    reached: tuple[bool, ...]
    truth: Truth
    verdicts: tuple[Verdict, ...]
    results: tuple[GroundTruth, ...]
    alone: tuple[GroundTruth, ...]
    seconds: float
    seconds_truth: float

    @property
    def exact(self) -> int:
        """How many seeds found a circuit: sufficient, nothing to spare, no smaller one known."""
        return sum(verdict.exact for verdict in self.verdicts)

    @property
    def alike(self) -> int:
        """How many seeds found just the parts that are needed with all others open."""
        return sum(not (result.missing or result.extra) for result in self.alone)


def planted_search(grain: str, ablation: str) -> Search:
    """The search of a planted model: the grain's method, to a task loss of 0.1 nats.

    Uncalibrated: a calibration lets half of a circuit pass where the whole is known.
    """
    return default_search(
        grain,
        ablation=ablation,
        target_loss=0.1,
        calibrate="off",
        steps=200,
        batch_size=16 if grain == "edges" else 32,
        chunk=50,
        train=512,
        validation=128 if grain == "edges" else 256,
        test=128 if grain == "edges" else 256,
    )


def planted_problem(planted: Planted, search: Search) -> Problem:
    """A planted model and its own pairs under gates."""
    sizes = {split: getattr(search.data, split) for split in ("train", "validation", "test")}
    sets = {split: Examples.of_pairs(*planted.pairs(split, n)) for split, n in sizes.items()}
    return assembled(planted.model, search.choices, sets)


def jobs_of(search: Search, count: int, seeds: Sequence[int]) -> list[Job]:
    """Seeds times target sparsities where something is held at one, else seeds alone.

    Args:
      search: of a small model.
      count: gates that can matter.
      seeds: of gates and batches.
    """
    choices = search.choices
    if choices.control == "lagrangian":
        each = [default_jobs(search, count, seeds, target_sparsity=s) for s in _SPARSITIES]
        return [job for jobs in each for job in jobs]
    own: dict[str, Any] = (
        dict(_SMALL) if (choices.grain, choices.gate, choices.control) == _PUBLISHED else {}
    )
    if (choices.gate, choices.control) == ("hard_concrete", "hold"):
        own = dict(_PROGRAM)
    return default_jobs(search, count, seeds, **own)


def recover_planted(
    planted: Planted,
    grain: str,
    ablation: str,
    seeds: Sequence[int],
    search: Search | None = None,
) -> Recovery:
    """Pruning of a planted model, all seeds as jobs of one program.

    Circuits of nodes are polished: gates alone leave nodes whose removal costs nothing, as the
    published ones did. The scores are those of the gates.

    Args:
      planted: the model and its truth.
      grain: `nodes`, `weights` or `edges`. The planted nodes and weights are those under constants, the
        planted edges those under interchange: what is the same in both prompts, such as a position,
        carries nothing there. Under another ablation they are brought down to what suffices there, if
        they do.
      ablation: of closed parts.
      seeds: of gates and batches.
      search: None for `planted_search`; its grain and ablation are replaced.
    """
    search = search or planted_search(grain, ablation)
    choices = dataclasses.replace(search.choices, grain=grain, ablation=ablation)  # type: ignore[arg-type]
    search = dataclasses.replace(search, choices=choices)
    problem = planted_problem(planted, search)
    truths: dict[str, Sequence[Any]] = {
        "nodes": planted.nodes,
        "weights": planted.weights,
        "edges": planted.edges,
    }
    polished = polish if grain == "nodes" else None
    known = ["->".join(part) if grain == "weights" else part for part in truths[grain]]
    return _recover(planted.name, problem, search, seeds, known, polished)


def program_search(ablation: str, grain: str = "edges") -> Search:
    """The search of a compiled program: to a KL of 0.01 nats, without a sparsity that must be known."""
    return default_search(
        grain,
        gate="hard_concrete",
        control="hold",
        owners=False,
        minimise="kl",
        paired=False,
        ablation=ablation,
        target_kl=1e-2,
        steps=400,
        batch_size=32,
        chunk=100,
    )


def program_problem(program: TracrProgram, search: Search) -> Problem:
    """A compiled program on its recorded inputs, read at every position but BOS's.

    The corrupted inputs are the recorded ones in random order.
    """
    model, inputs = program.model, program.inputs
    assert inputs is not None, "programs are recovered on their recorded inputs"
    rng = np.random.default_rng(0)
    # Constants replace the same in every draw.
    several = is_per_prompt(search.choices.ablation)

    def examples(draws: int) -> Examples:
        draws = draws if several else 1
        clean = np.concatenate([inputs] * draws)
        other = np.concatenate([rng.permutation(inputs) for _ in range(draws)])
        places = np.broadcast_to(np.arange(1, inputs.shape[1]), (len(clean), inputs.shape[1] - 1))
        return Examples(
            tokens=jnp.asarray(np.stack([clean, other], axis=1)),
            positions=jnp.asarray(places),
            right=jnp.zeros((len(clean), 1), jnp.int32),
            wrong=jnp.ones((len(clean), 1), jnp.int32),
        )

    params = {**model.params, "unembed": np.asarray(model.params["unembed"]) * _SHARPEN}
    sets = {"train": examples(8), "validation": examples(4), "test": examples(4)}
    means, _ = activation_moments(model.config, params, sets["train"])
    sharpened = dataclasses.replace(model, params=params, means=means)
    return assembled(sharpened, search.choices, sets)


def recover_program(
    program: TracrProgram,
    ablation: str,
    seeds: Sequence[int],
    search: Search | None = None,
    grain: str = "edges",
) -> Recovery:
    """Pruning of a compiled program; what is true is derived, see `truth.truth_of`.

    The measure is that which pruning has: the KL, which also counts what flattens a distribution and
    leaves its largest output the largest.

    Args:
      program: with recorded inputs.
      ablation: of closed parts.
      seeds: of gates and batches.
      search: None for `program_search`; its grain and ablation are replaced.
      grain: `edges`, or another.
    """
    search = search or program_search(ablation, grain)
    choices = dataclasses.replace(search.choices, ablation=ablation, grain=grain)  # type: ignore[arg-type]
    search = dataclasses.replace(search, choices=choices)
    problem = program_problem(program, search)
    return _recover(program.model.name, problem, search, seeds, [])


def gate_sets(problem: Problem, search: Search) -> GateSets:
    """Sets of gates, judged on the validation items by what the search is cut to."""
    kind = "kl" if search.selection.target == "kl" else "task"
    return GateSets(problem, problem.validation, Measure(kind, search.selection.value))


def trained_scores(problem: Problem, search: Search, job: MaskState) -> np.ndarray:
    """Scores `[G]` of one trained job, as it was before elimination.

    A chance rises with its score and rounds to 1 before it: only where owners have gates too are chances
    what is compared.
    """
    objective = objective_of(problem, search)
    if not objective.owners:
        return np.asarray(job.tau["gates"])
    return np.asarray(objective.chances(job.tau, job.hyper, problem.whole))


def _recover(
    name: str,
    problem: Problem,
    search: Search,
    seeds: Sequence[int],
    known: Sequence[str],
    finish: Callable[[Problem, Search, Circuit], Circuit] | None = None,
) -> Recovery:
    """Trains all seeds, cuts each, and judges what it found and how it scored the parts."""
    started, whole = time.process_time(), problem.whole
    asked = gate_sets(problem, search)
    truth = truth_of(asked, asked.tolerance, [known] if known else [])
    derived = time.process_time()
    verdicts, results, alone, reached = [], [], [], []
    for found in _searched(problem, search, seeds, finish, trivial=not truth.least):
        parts = sorted(members(found.circuit))
        ranked = {n: float(s) for n, s in zip(whole.names(), found.scores, strict=True)}
        scores = {n: ranked[n] for n in asked.names} if truth.unique and len(ranked) else None
        results.append(compare(parts, truth.nearest(parts), asked.names, scores))
        alone.append(compare(parts, truth.alone, asked.names))
        verdicts.append(
            judge(_sets_of(problem, asked, found.circuit), parts, truth, asked.tolerance)
        )
        reached.append(found.reached)
    return Recovery(
        name=name,
        grain=search.choices.grain,
        ablation=search.choices.ablation,
        seeds=tuple(seeds),
        reached=tuple(reached),
        truth=truth,
        verdicts=tuple(verdicts),
        results=tuple(results),
        alone=tuple(alone),
        seconds=time.process_time() - started,
        seconds_truth=derived - started,
    )


class _Found(NamedTuple):
    """What one seed found: the circuit, whether it meets the target, the trained scores `[G]`."""

    circuit: Circuit
    reached: bool
    scores: np.ndarray


def _searched(
    problem: Problem,
    search: Search,
    seeds: Sequence[int],
    finish: Callable[[Problem, Search, Circuit], Circuit] | None,
    *,
    trivial: bool,
) -> Iterator[_Found]:
    """Each seed's circuit; where the empty one does, it is taken and nothing is trained."""
    jobs = jobs_of(search, int(problem.whole.exists().sum()), seeds)
    if trivial:
        for seed in seeds:
            job = next(job for job in jobs if job.seed == seed)
            empty = empty_candidate(problem, search, job)
            scores = np.zeros(problem.whole.num_gates)
            yield _Found(as_circuit(problem, empty, {}), empty.choice.reached, scores)
        return
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    found = candidates_of(problem, search, jobs, state)
    for seed in seeds:
        best = pick([one for one in found if one.job.seed == seed], search)
        place = found.index(best)
        best, _ = certified(problem, search, best)
        job_state = jax.tree.map(lambda leaf, i=place: leaf[i], state)
        circuit = as_circuit(problem, best, {})
        if finish is not None:
            circuit = finish(problem, search, circuit)
        yield _Found(circuit, best.choice.reached, trained_scores(problem, search, job_state))


def _sets_of(problem: Problem, asked: GateSets, circuit: Circuit) -> GateSets:
    """What to ask of a found circuit's parts: clean-up may have folded some into constants."""
    if not counts_nodes(circuit):
        return asked
    view = circuit.view(problem.model)
    return GateSets(problem, problem.validation, asked.measure, view)
