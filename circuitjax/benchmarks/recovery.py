"""Does pruning find circuits that are known? The search on planted models and on compiled programs.

A planted model is pruned at any grain, under any ablation; a compiled program at that of residual edges.
What was found is compared with what is true, seed by seed. Nothing here knows the truth before it
compares.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.measure import members
from circuitjax.audit.polish import polish
from circuitjax.benchmarks.ground_truth import GroundTruth, compare
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.examples import Examples
from circuitjax.importers.tracr_program import TracrProgram
from circuitjax.prune.candidates import candidates_of, pick
from circuitjax.prune.defaults import Search, default_jobs, default_search
from circuitjax.prune.evaluate import answers
from circuitjax.prune.find import as_circuit
from circuitjax.prune.jobs import initial_state, objective_of, train_gates
from circuitjax.prune.problem import Problem, assembled
from circuitjax.prune.train import Job
from circuitjax.zoo.planted.draft import Planted

__all__ = [
    "Recovery",
    "needed_alone",
    "planted_problem",
    "planted_search",
    "program_problem",
    "program_search",
    "recover_planted",
    "recover_program",
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


@dataclasses.dataclass(frozen=True)
class Recovery:
    """One grain of one model under one ablation.

    Attributes:
      name, grain, ablation: what was pruned and how.
      seeds: of the runs.
      reached: whether each run met its target.
      results: what each seed found, against the truth.
      seconds: of all seeds together, compilation included.
    """

    name: str
    grain: str
    ablation: str
    seeds: tuple[int, ...]
    reached: tuple[bool, ...]
    results: tuple[GroundTruth, ...]
    seconds: float

    @property
    def exact(self) -> int:
        """How many seeds found just the true circuit."""
        return sum(not (result.missing or result.extra) for result in self.results)


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


def _jobs(search: Search, count: int, seeds: Sequence[int]) -> list[Job]:
    """Seeds times target sparsities where something is held at one, else seeds alone."""
    choices = search.choices
    if choices.control == "lagrangian":
        each = [default_jobs(search, count, seeds, target_sparsity=s) for s in _SPARSITIES]
        return [job for jobs in each for job in jobs]
    own: dict[str, Any] = (
        dict(_SMALL) if (choices.grain, choices.gate, choices.control) == _PUBLISHED else {}
    )
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
        carries nothing there. Under another ablation a part is true whose closing, alone, loses the
        task (`needed_alone`).
      ablation: of closed parts.
      seeds: of gates and batches.
      search: None for `planted_search`; its grain and ablation are replaced.
    """
    search = search or planted_search(grain, ablation)
    choices = dataclasses.replace(search.choices, grain=grain, ablation=ablation)  # type: ignore[arg-type]
    search = dataclasses.replace(search, choices=choices)
    problem = planted_problem(planted, search)
    truths = {"nodes": planted.nodes, "weights": planted.weights, "edges": planted.edges}
    true: Sequence[Any] = truths[grain]
    known = ("interchange",) if grain == "edges" else ("mean", "zero")
    if ablation not in known:
        true = needed_alone(problem, search)
    polished = polish if grain == "nodes" else None
    return _recover(planted.name, problem, search, seeds, true, polished)


def program_search(ablation: str) -> Search:
    """The search of a compiled program's residual edges: to a KL of 0.01 nats."""
    return default_search(
        "edges",
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

    def examples(draws: int) -> Examples:
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
    return assembled(dataclasses.replace(model, params=params), search.choices, sets)


def recover_program(
    program: TracrProgram, ablation: str, seeds: Sequence[int], search: Search | None = None
) -> Recovery:
    """Residual-edge pruning of a compiled program.

    The truth is what single closings show to be needed by the measure that pruning has: an edge
    whose closing raises the KL above the target. It holds `ground_truth.tracr_edges`, which asks for
    other answers only; an edge may flatten a distribution and leave its largest output the largest.

    Args:
      program: with recorded inputs.
      ablation: of closed edges.
      seeds: of gates and batches.
      search: None for `program_search`; its ablation is replaced.
    """
    search = search or program_search(ablation)
    choices = dataclasses.replace(search.choices, ablation=ablation)
    search = dataclasses.replace(search, choices=choices)
    problem = program_problem(program, search)
    true = needed_alone(problem, search)
    return _recover(program.model.name, problem, search, seeds, true)


def needed_alone(problem: Problem, search: Search) -> list[str]:
    """Names of gates whose closing, alone, raises the loss or KL on validation above the target."""
    active, kl = np.flatnonzero(problem.whole.exists()), search.selection.target == "kl"
    rows = np.ones((len(active), problem.whole.num_gates), bool)
    rows[np.arange(len(active)), active] = False
    found = answers(problem.whole, problem.batches, problem.validation, rows, full=kl)
    losses = found.kl.mean(axis=1) if kl else found.losses(search.choices.loss)
    names = problem.whole.names()
    return [names[gate] for gate in active[losses > search.selection.value]]


def _recover(
    name: str,
    problem: Problem,
    search: Search,
    seeds: Sequence[int],
    true: Sequence[Any],
    finish: Callable[[Problem, Search, Circuit], Circuit] | None = None,
) -> Recovery:
    """Trains all seeds, cuts each, and compares what it found and how it scored the parts."""
    started, whole = time.perf_counter(), problem.whole
    exists = np.flatnonzero(whole.exists())
    jobs = _jobs(search, len(exists), seeds)
    state = train_gates(problem, search, initial_state(problem, search, jobs))
    found = candidates_of(problem, search, jobs, state)
    objective, names = objective_of(problem, search), whole.names()
    every = [names[gate] for gate in exists]
    results, reached = [], []
    for seed in seeds:
        best = pick([one for one in found if one.job.seed == seed], search)
        index = found.index(best)
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        by_score = search.choices.gate == "heaviside" and not objective.owners
        scores = np.asarray(
            job.tau["gates"] if by_score else objective.chances(job.tau, job.hyper, whole)
        )
        circuit = as_circuit(problem, best, {})
        if finish is not None:
            circuit = finish(problem, search, circuit)
        # Where a loss is held, scores hover about 0: elimination ranks, not they.
        ranked = {names[gate]: float(scores[gate]) for gate in exists}
        known = None if search.choices.control == "hold" else ranked
        results.append(compare(sorted(members(circuit)), true, every, known))
        reached.append(best.choice.reached)
    return Recovery(
        name=name,
        grain=search.choices.grain,
        ablation=search.choices.ablation,
        seeds=tuple(seeds),
        reached=tuple(reached),
        results=tuple(results),
        seconds=time.perf_counter() - started,
    )
