"""The search once more: with other seeds, and in worlds where there is no such circuit to find.

Every run is a job of one training program, with the hyperparameters of the audited circuit and a budget
they all share, the task's own seeds included; so a control's size is compared with that of the same
search on the task. Each ranking is cut at the smallest k that meets the target on validation pairs.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.worlds import World, WorldHyper, WorldMasks, stack_worlds
from circuitjax.circuit.cleanup import cleanup
from circuitjax.model.sites import flatten, unflatten
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.config import Hyper
from circuitjax.prune.evaluate import Prober, answers, attribution, mean_binary_loss, probers
from circuitjax.prune.gates import flatten_units, gates_from_ranks, num_units
from circuitjax.prune.objective import Pairs, calibrated_differences
from circuitjax.prune.packing import some_of
from circuitjax.prune.problem import Problem
from circuitjax.prune.select import bisect, rank_nodes
from circuitjax.prune.train import Job, MaskState, run_chunks, start_jobs

__all__ = ["Rerun", "fitted_losses", "jaccard", "run_worlds", "stability"]

# Two networks lie side by side on the device if they are no larger; else the random one has its own run.
_TOGETHER = 2**29


@dataclasses.dataclass(frozen=True, eq=False)
class Rerun:
    """One run's circuit.

    Attributes:
      world: where it was found.
      seed: of masks and batches.
      mask: bool `[N]`, after clean-up.
      edges: their number.
      reached: whether the target is met on the validation pairs.
      loss: calibrated, on the validation pairs, nats.
      loss_test: on the test pairs, by that calibration.
    """

    world: str
    seed: int
    mask: np.ndarray
    edges: int
    reached: bool
    loss: float
    loss_test: float

    @property
    def nodes(self) -> int:
        """Their number."""
        return int(self.mask.sum())

    def to_dict(self) -> dict[str, Any]:
        """For the report; without the mask."""
        names = ("world", "seed", "nodes", "edges", "reached", "loss", "loss_test")
        return {name: getattr(self, name) for name in names}


def run_worlds(
    worlds: Sequence[World],
    hyper: Hyper,
    seeds: Sequence[int],
    *,
    pairs: int = 128,
    side_by_side: bool | None = None,
) -> list[Rerun]:
    """Prunes the first world with every seed, every other one with the first seed.

    Args:
      worlds: of equal settings; the first is the task.
      hyper: of every run.
      seeds: at least one.
      pairs: validation pairs to select on, and test pairs to judge by.
      side_by_side: whether all networks' runs are jobs of one program; None: if they are small.

    Returns:
      One per seed of the first world, then one per further world.
    """
    plan = [(0, seed) for seed in seeds] + [(i, seeds[0]) for i in range(1, len(worlds))]
    networks = sorted({world.network for world in worlds})
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(worlds[0].problem.params))
    if side_by_side is None:
        side_by_side = len(networks) * size <= _TOGETHER
    groups = [networks] if side_by_side else [[network] for network in networks]
    found: dict[int, Rerun] = {}
    for group in groups:
        mine = [n for n, (index, _) in enumerate(plan) if worlds[index].network in group]
        state = _train(worlds, group, [plan[n] for n in mine], hyper)
        inside = [worlds[plan[n][0]] for n in mine]
        ranked = [
            _ranked(world, jax.tree.map(lambda leaf, j=job: leaf[j], state), pairs)
            for job, world in enumerate(inside)
        ]
        looking = probers([world.problem for world in inside], [r.ranks for r in ranked])
        for number, world, ranking, prober in zip(mine, inside, ranked, looking, strict=True):
            found[number] = _cut(world, plan[number][1], ranking, prober, pairs)
    return [found[number] for number in range(len(plan))]


def _train(
    worlds: Sequence[World], networks: Sequence[int], plan: Sequence[tuple[int, int]], hyper: Hyper
) -> MaskState:
    first = worlds[0].problem
    objective = WorldMasks(first.config, first.prune)
    jobs = [
        Job(seed, WorldHyper(hyper, index, networks.index(worlds[index].network)))
        for index, seed in plan
    ]
    owners = [next(w for w in worlds if w.network == network) for network in networks]
    data = jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *((dict(w.problem.params), dict(w.problem.fills)) for w in owners),
    )
    items = stack_worlds(
        [world.problem.train for world in worlds], first.config.causal, first.prune.batch_size
    )
    # A control may well diverge: it then has no circuit, and the others go on.
    return run_chunks(
        objective, start_jobs(objective, jobs), data, items, first.prune.chunk, spare=True
    )


class _Ranking(NamedTuple):
    """Units by importance: `ranks` `[U]`, and how many the training left open."""

    ranks: np.ndarray
    trained: int


def _ranked(world: World, state: MaskState, count: int) -> _Ranking:
    validation = some_of(world.problem.validation, world.problem.config.causal, count)
    scores = np.nan_to_num(np.asarray(flatten_units(state.tau)), nan=-1.0)
    ranks = rank_nodes(scores, attribution(world.problem, state, validation))
    return _Ranking(ranks, int(np.sum(scores > 0)))


def _cut(world: World, seed: int, ranking: _Ranking, prober: Prober, count: int) -> Rerun:
    problem, config = world.problem, world.problem.config
    tied = problem.prune.tie_qk
    validation, test = (
        some_of(p, config.causal, count) for p in (problem.validation, problem.test)
    )

    def of(pairs: Pairs, ks: Any) -> np.ndarray:
        return prober.answers(pairs, 0, [int(k) for k in ks]).differences

    def loss_at(ks: np.ndarray) -> np.ndarray:
        return _fitted(problem, of(validation, ks))

    units = num_units(config, tied)
    target = problem.prune.target_loss
    in_turn = jax.default_backend() == "cpu"
    options: dict[str, Any] = {"refine": 1 if in_turn else 4, "upwards": in_turn}
    chosen = bisect(
        loss_at, units, target, grid=problem.prune.grid, extra=(ranking.trained,), **options
    )
    gates = gates_from_ranks(config, jnp.asarray(ranking.ranks), chosen.k, tied)
    mask = {site: np.asarray(m) > 0.5 for site, m in gates.items()}
    params = jax.tree.map(np.asarray, dict(problem.params))
    fills = {site: np.asarray(fill) for site, fill in problem.fills.items()}
    kept, _, report = cleanup(config, params, mask, fills)
    return Rerun(
        world=world.name,
        seed=seed,
        mask=np.asarray(flatten({site: jnp.asarray(m) for site, m in kept.items()})),
        edges=report.edges_after,
        reached=chosen.reached,
        loss=chosen.loss,
        loss_test=float(_fitted(problem, of(validation, [chosen.k]), of(test, [chosen.k]))[0]),
    )


def fitted_losses(
    problem: Problem, masks: Sequence[Any], fit_on: Pairs, test_on: Pairs | None = None
) -> np.ndarray:
    """Losses `[K]` of masks in nats, calibrated where the problem's settings calibrate.

    Args:
      problem: model, settings.
      masks: K gate trees.
      fit_on: pairs that each calibration is fitted to.
      test_on: pairs of the loss; None: the same.
    """
    fitted = answers(problem, fit_on, masks).differences
    if test_on is None:
        return _fitted(problem, fitted)
    return _fitted(problem, fitted, answers(problem, test_on, masks).differences)


def _fitted(problem: Problem, fit_on: np.ndarray, test_on: np.ndarray | None = None) -> np.ndarray:
    """As `fitted_losses`, from the differences `[K, M, 2]` themselves."""
    tested = fit_on if test_on is None else test_on
    if problem.prune.calibrate == "off":
        return mean_binary_loss(tested)
    fit = calibrate(fit_on)
    if test_on is None:
        return np.asarray(fit.loss)
    scale, shift = fit.scale[:, None, None], fit.shift[:, None, None]
    return mean_binary_loss(calibrated_differences(tested, scale, shift))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """|A and B| / |A or B| of two sets as bool `[N]`; 1 for two empty ones."""
    union = int(np.sum(first | second))
    return float(np.sum(first & second)) / union if union else 1.0


def stability(
    problem: Problem, runs: Sequence[Rerun], circuit: np.ndarray, *, pairs: int = 128
) -> dict[str, Any]:
    """How much the circuits of several seeds share.

    Args:
      problem: the task in the model.
      runs: of the task, one per seed.
      circuit: bool `[N]`, the audited one.
      pairs: validation pairs that the core is calibrated on, and test pairs of its loss.

    Returns:
      `seeds`; `jaccard`: the mean over pairs of seeds (None for fewer than two); `matrix`: of all pairs,
      the audited circuit first; `with_circuit`: mean of the seeds with it; `core`: nodes that all seeds
      share, `core_share`: of the smallest circuit's, `core_in_circuit`: those the audited one has too;
      `core_loss`: of the core alone, nats.
    """
    sets = [run.mask for run in runs]
    every = [circuit, *sets]
    matrix = [[jaccard(a, b) for b in every] for a in every]
    between = [matrix[i][j] for i in range(1, len(every)) for j in range(1, i)]
    core = np.logical_and.reduce(sets)
    validation, test = (
        some_of(p, problem.config.causal, pairs) for p in (problem.validation, problem.test)
    )
    smallest = min(int(s.sum()) for s in sets)
    return {
        "seeds": [run.seed for run in runs],
        "jaccard": float(np.mean(between)) if between else None,
        "matrix": matrix,
        "with_circuit": float(np.mean(matrix[0][1:])),
        "core": int(core.sum()),
        "core_share": float(core.sum() / smallest) if smallest else 0.0,
        "core_in_circuit": int(np.sum(core & circuit)),
        "core_loss": float(
            fitted_losses(problem, [unflatten(problem.config, core)], validation, test)[0]
        ),
    }
