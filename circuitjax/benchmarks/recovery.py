"""Does pruning find circuits that are known? Each method on planted models and compiled programs.

A planted model is pruned at all three grains (nodes, weights, residual edges under interchange), a
compiled program at that of residual edges; what was found is compared with what is true, seed by
seed. Nothing here knows the truth before it compares.
"""

import dataclasses
import time
from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.ground_truth import GroundTruth, compare
from circuitjax.audit.polish import polish
from circuitjax.circuit.find import (
    as_circuit,
    candidates_of,
    default_jobs,
    initial_state,
    pick,
    train_masks,
)
from circuitjax.circuit.find_edges import (
    default_edge_jobs,
    edge_candidates,
    initial_edge_state,
    pick_edges,
    train_edges,
)
from circuitjax.circuit.find_weights import (
    as_weight_circuit,
    default_weight_jobs,
    initial_weights,
    train_weights,
    weight_candidates,
    weight_problem,
)
from circuitjax.circuit.graph import edge_list
from circuitjax.importers.tracr_program import TracrProgram
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import address, shapes
from circuitjax.prune.config import PruneConfig
from circuitjax.prune.gates import flatten_units
from circuitjax.prune.objective import Pairs
from circuitjax.prune.problem import Problem, fills_for
from circuitjax.prune.residual import EdgeConfig, Examples, ResidualMasks, active_edges
from circuitjax.prune.residual_problem import EdgeProblem, fixed_replacements
from circuitjax.prune.residual_select import edge_answers
from circuitjax.zoo.planted.draft import Planted

__all__ = [
    "PLANTED",
    "PROGRAM",
    "Recovery",
    "recover_edges",
    "recover_nodes",
    "recover_program",
    "recover_weights",
]

# Uncalibrated: a calibration lets half of a circuit pass where the whole is known.
PLANTED = PruneConfig(
    target_loss=0.1,
    steps=200,
    batch_size=32,
    calibrate="off",
    train_pairs=512,
    validation_pairs=256,
    test_pairs=256,
    chunk=50,
)
PROGRAM = EdgeConfig(
    steps=400, batch_size=32, chunk=100, target="kl", target_value=1e-2, calibrate=False
)
# In a model of a few hundred nodes a k_coef of 18 / N outweighs the task, and gates that start alike
# close together: its first steps would leave nothing to learn from.
_SMALL = MappingProxyType(
    {"k_coef": 0.01, "lr": 0.01, "init_noise_scale": 0.1, "init_noise_bias": 0.3}
)
_SPARSITIES = (0.8, 0.9, 0.95)
# Logits of a compiled program are 0 and 1: sharpened, so that the KL tells one answer from another.
_SHARPEN = 10.0


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


def _by_seed(found: Sequence, seeds: Sequence[int]) -> list[list]:
    return [[one for one in found if one.job.seed == seed] for seed in seeds]


def _planted_problem(planted: Planted, prune: PruneConfig) -> Problem:
    def pairs(split: str, count: int) -> Pairs:
        tokens, last, answers = map(jnp.asarray, planted.pairs(split, count))
        return Pairs(tokens, last, answers)

    fills = fills_for(planted.model, prune.ablation)
    return Problem(
        config=planted.model.config,
        prune=prune,
        params=jax.tree.map(jnp.asarray, dict(planted.model.params)),
        fills={site: jnp.asarray(fill) for site, fill in fills.items()},
        train=pairs("train", prune.train_pairs),
        validation=pairs("validation", prune.validation_pairs),
        test=pairs("test", prune.test_pairs),
    )


def recover_nodes(planted: Planted, seeds: Sequence[int], prune: PruneConfig = PLANTED) -> Recovery:
    """Node pruning of a planted model, all seeds as jobs of one program, each circuit polished.

    Masks alone leave nodes whose removal costs nothing, as the paper's did; the ranking is theirs.
    """
    started, problem = time.perf_counter(), _planted_problem(planted, prune)
    jobs = default_jobs(planted.model.config.num_nodes, seeds, **_SMALL)
    state = train_masks(problem, initial_state(problem, jobs))
    found = candidates_of(problem, jobs, state)
    every = _unit_order(planted.model)
    results, reached = [], []
    for own in _by_seed(found, seeds):
        best = pick(own)
        index = found.index(best)
        scores = np.asarray(flatten_units({s: t[index] for s, t in state.tau.items()}))
        ranked = dict(zip(every, scores.tolist(), strict=True))
        circuit = polish(problem, as_circuit(planted.model, best, {}))
        results.append(compare(circuit.nodes, planted.nodes, every, ranked))
        reached.append(best.choice.reached)
    return _recovery(planted.name, "nodes", prune.ablation, seeds, reached, results, started)


def _unit_order(model: Model) -> list[str]:
    """Addresses in the order of `flatten_units`."""
    return [
        address(model.config, layer, site, index)
        for site, (layers, width) in shapes(model.config).items()
        for layer in range(layers)
        for index in range(width)
    ]


def recover_weights(
    planted: Planted, seeds: Sequence[int], prune: PruneConfig = PLANTED
) -> Recovery:
    """Weight pruning of a whole planted model, all seeds as jobs of one program."""
    started, problem = time.perf_counter(), _planted_problem(planted, prune)
    work = weight_problem(problem)
    jobs = default_weight_jobs(work.num_weights, seeds)
    state = train_weights(work, initial_weights(work, jobs))
    found = weight_candidates(work, jobs, state)
    config, params = planted.model.config, planted.model.params
    whole = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
    every = [f"{source}->{target}" for source, target, _ in edge_list(config, params, whole)]
    results, reached = [], []
    for own in _by_seed(found, seeds):
        best = pick(own)
        circuit = as_weight_circuit(planted.model, best, {})
        chosen = [f"{source}->{target}" for source, target, _ in circuit.edges(planted.model)]
        results.append(compare(chosen, planted.weights, every))
        reached.append(best.choice.reached)
    return _recovery(planted.name, "weights", prune.ablation, seeds, reached, results, started)


def _examples(tokens: np.ndarray, last: np.ndarray, answers: np.ndarray) -> Examples:
    """Both prompts of each pair as clean ones, the other one corrupted."""
    count, _, length = tokens.shape
    both = np.stack([tokens, tokens[:, ::-1]], axis=1).reshape(2 * count, 2, length)
    wrong = np.ascontiguousarray(answers[:, ::-1]).reshape(2 * count, 1)
    return Examples(
        tokens=jnp.asarray(both),
        positions=jnp.asarray(last.reshape(2 * count, 1)),
        right=jnp.asarray(answers.reshape(2 * count, 1)),
        wrong=jnp.asarray(wrong),
    )


def recover_edges(planted: Planted, seeds: Sequence[int]) -> Recovery:
    """Residual-edge pruning of a planted model under interchange, to a task loss of 0.1 nats."""
    settings = EdgeConfig(
        steps=200,
        batch_size=32,
        chunk=50,
        target_value=0.1,
        calibrate=False,
        validation_examples=256,
    )
    sizes = {"train": 512, "validation": 128, "test": 128}
    sets = {split: _examples(*planted.pairs(split, size)) for split, size in sizes.items()}
    problem = EdgeProblem(
        config=planted.model.config,
        settings=settings,
        params=jax.tree.map(jnp.asarray, dict(planted.model.params)),
        fixed=None,
        paired=True,
        **sets,
    )
    return _edges(planted.name, problem, seeds, planted.edges)


def recover_program(
    program: TracrProgram,
    ablation: Literal["interchange", "zero"],
    seeds: Sequence[int],
    settings: EdgeConfig = PROGRAM,
) -> Recovery:
    """Residual-edge pruning of a compiled program, read at every position but BOS's.

    The truth is what single closings show to be needed by the measure that pruning has: an edge
    whose closing raises the KL above the target. It holds `ground_truth.tracr_edges`, which asks for
    other answers only; an edge may flatten a distribution and leave its largest output the largest.
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

    params = jax.tree.map(jnp.asarray, dict(model.params))
    params["unembed"] = params["unembed"] * _SHARPEN
    settings = dataclasses.replace(settings, ablation=ablation)
    train = examples(8)
    problem = EdgeProblem(
        config=model.config,
        settings=settings,
        params=params,
        fixed=fixed_replacements(model.config, params, ablation, train),
        train=train,
        validation=examples(4),
        test=examples(4),
        paired=False,
    )
    return _edges(model.name, problem, seeds, needed_by_kl(problem))


def needed_by_kl(problem: EdgeProblem) -> list[str]:
    """Edges whose closing, alone, raises the KL on validation above the target."""
    graph = residual_graph(problem.config)
    active = np.flatnonzero(active_edges(problem.config, problem.settings.ablation))
    masks = np.ones((len(active), graph.num_edges), bool)
    masks[np.arange(len(active)), active] = False
    kl = edge_answers(problem, problem.validation, masks).kl.mean(axis=1)
    return [graph.names[edge] for edge in active[kl > problem.settings.target_value]]


def _edges(name: str, problem: EdgeProblem, seeds: Sequence[int], true: Sequence[str]) -> Recovery:
    started = time.perf_counter()
    jobs = [
        job
        for sparsity in _SPARSITIES
        for job in default_edge_jobs(problem.settings, seeds, target_sparsity=sparsity)
    ]
    state = train_edges(problem, initial_edge_state(problem, jobs))
    found = edge_candidates(problem, jobs, state)
    graph = residual_graph(problem.config)
    active = active_edges(problem.config, problem.settings.ablation)
    every = [graph.names[edge] for edge in np.flatnonzero(active)]
    objective = ResidualMasks(problem.config, problem.settings)
    results, reached = [], []
    for own in _by_seed(found, seeds):
        best = pick_edges(problem, own)
        index = found.index(best)
        job = jax.tree.map(lambda leaf, i=index: leaf[i], state)
        chance = np.asarray(objective.open_probabilities(job.tau, job.hyper))
        scores = {graph.names[edge]: float(chance[edge]) for edge in np.flatnonzero(active)}
        chosen = [graph.names[edge] for edge in np.flatnonzero(best.choice.kept)]
        results.append(compare(chosen, true, every, scores))
        reached.append(best.choice.reached)
    ablation = problem.settings.ablation
    return _recovery(name, "edges", ablation, seeds, reached, results, started)


def _recovery(
    name: str,
    grain: str,
    ablation: str,
    seeds: Sequence[int],
    reached: Sequence[bool],
    results: Sequence[GroundTruth],
    started: float,
) -> Recovery:
    seconds = time.perf_counter() - started
    return Recovery(name, grain, ablation, tuple(seeds), tuple(reached), tuple(results), seconds)
