"""The search once more: with other seeds, and in the worlds of the controls.

Every run is a job of one training program, with the hyperparameters of the audited circuit and a budget
they all share, the task's own seeds included; so a control's size is compared with that of the same
search on the task. Each ranking is cut at the smallest k that meets the target on validation items.
"""

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.measure import Measure, members
from circuitjax.audit.record import Interval, RunFigures, Stability
from circuitjax.audit.worlds import InWorld, World, WorldHyper, stack_worlds
from circuitjax.circuit.circuit import Circuit
from circuitjax.core.policy import side_by_side
from circuitjax.gated.examples import Examples
from circuitjax.model.widths import Widths, widest
from circuitjax.prune.candidates import rank_jobs
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import answers
from circuitjax.prune.jobs import objective_of
from circuitjax.prune.prober import Prober
from circuitjax.prune.problem import Problem
from circuitjax.prune.rank import Ranked
from circuitjax.prune.select import bisect
from circuitjax.prune.train import Job, MaskState, run_chunks, start_jobs

__all__ = ["Rerun", "jaccard", "run_worlds", "stability"]

# Two networks lie side by side on the device if they are no larger; else the random one has its own run.
_TOGETHER = 2**29


@dataclasses.dataclass(frozen=True, eq=False)
class Rerun:
    """One run's circuit.

    Attributes:
      world: where it was found.
      seed: of gates and batches.
      parts: names of its nodes, or of its edges, after clean-up; see `members`.
      nodes, edges: their numbers.
      reached: whether the target is met on the validation items.
      loss: the measure on the validation items, nats.
      loss_test, interval: on the test items, by the calibration of the former.
    """

    world: str
    seed: int
    parts: frozenset[str]
    nodes: int
    edges: int
    reached: bool
    loss: float
    loss_test: float
    interval: Interval | None = None

    def figures(self) -> RunFigures:
        """For the record; without the names."""
        names = ("world", "seed", "nodes", "edges", "reached", "loss", "loss_test", "interval")
        return RunFigures(size=len(self.parts), **{name: getattr(self, name) for name in names})


def run_worlds(
    worlds: Sequence[World],
    search: Search,
    measure: Measure,
    hyper: Hyper,
    seeds: Sequence[int],
    *,
    items: int = 128,
    together: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Rerun]:
    """Prunes the first world with every seed, every other one with the first seed.

    Args:
      worlds: of one search; the first is the task.
      search: settings of every run.
      measure: what every run is cut to.
      hyper: of every run.
      seeds: at least one.
      items: validation items to select on, and test items to judge by.
      together: whether all networks' runs are jobs of one program; None: if they are small.
      say: told how far they are.

    Returns:
      One per seed of the first world, then one per further world.
    """
    plan = [(0, seed) for seed in seeds] + [(i, seeds[0]) for i in range(1, len(worlds))]
    networks = sorted({world.network for world in worlds})
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(worlds[0].problem.trained))
    if together is None:
        together = len(networks) * size <= _TOGETHER
    groups = [networks] if together else [[network] for network in networks]
    found: dict[int, Rerun] = {}
    few = [_some(world.problem, items) for world in worlds]
    kept = dataclasses.replace(
        search.selection, target="kl" if measure.full else "loss", value=measure.target
    )
    cut = dataclasses.replace(search, selection=kept)
    for group in groups:
        mine = [n for n, (index, _) in enumerate(plan) if worlds[index].network in group]
        state = _train(worlds, group, [plan[n] for n in mine], search, hyper, say)
        ranked = []
        for job, number in enumerate(mine):
            index, seed = plan[number]
            own = jax.tree.map(lambda leaf, j=job: leaf[j : j + 1], state)
            ranked += rank_jobs(few[index], cut, [Job(seed, hyper)], _plain(own))
            say(f"searches: {len(ranked)} of {len(mine)} ranked")
        problems = [few[plan[n][0]] for n in mine]
        looking = _probers(problems, [one.ranks for one in ranked], full=measure.full)
        for number, one, problem, prober in zip(mine, ranked, problems, looking, strict=True):
            world = worlds[plan[number][0]].name
            found[number] = _cut(world, plan[number][1], problem, cut, measure, one, prober)
    return [found[number] for number in range(len(plan))]


def _some(problem: Problem, count: int) -> Problem:
    """The problem with so many validation and test items."""
    sets = {name: getattr(problem, name) for name in ("validation", "test")}
    return problem.with_sets({n: problem.batches.some(some, count) for n, some in sets.items()})


def _train(
    worlds: Sequence[World],
    networks: Sequence[int],
    plan: Sequence[tuple[int, int]],
    search: Search,
    hyper: Hyper,
    say: Callable[[str], None],
) -> MaskState:
    problems = [world.problem for world in worlds]
    objective = InWorld(objective_of(problems[0], search))
    jobs = [
        Job(seed, WorldHyper(hyper, index, networks.index(worlds[index].network)))
        for index, seed in plan
    ]
    owners = [next(w for w in worlds if w.network == network) for network in networks]
    data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(w.problem.trained for w in owners))
    items = stack_worlds(problems, search.train.batch_size)
    state, chunk = start_jobs(objective, jobs, data), search.train.chunk
    began = time.monotonic()

    def told(state: MaskState, metrics: Any) -> None:
        del metrics
        step, steps = int(state.step[0]), objective.steps
        left = (time.monotonic() - began) / step * (steps - step)
        say(f"searches: step {step} of {steps} of {len(jobs)} jobs, about {left:.0f} s left")

    # A control may well diverge: it then has no circuit, and the others go on.
    return run_chunks(objective, state, data, items, chunk, told, spare=True)


def _plain(state: MaskState) -> MaskState:
    """A world's jobs as those of the search itself; scores that diverged are the lowest."""
    tau = jax.tree.map(lambda leaf: jnp.nan_to_num(leaf, nan=-1.0), state.tau)
    return dataclasses.replace(state, tau=tau, hyper=state.hyper.hyper)


def _probers(
    problems: Sequence[Problem], rankings: Sequence[np.ndarray], *, full: bool
) -> list[Prober]:
    """A prober each, whose reduced models have one shape and so share their programs."""
    plain = [Prober(p, [r], full=full) for p, r in zip(problems, rankings, strict=True)]
    known: dict[int, Widths] = {}

    def room(size: int) -> Widths:
        if size not in known:
            known[size] = widest([prober.widths(size) for prober in plain])
        return known[size]

    return [Prober(p, [r], full=full, room=room) for p, r in zip(problems, rankings, strict=True)]


def _cut(
    world: str,
    seed: int,
    problem: Problem,
    search: Search,
    measure: Measure,
    ranked: Ranked,
    prober: Prober,
) -> Rerun:
    def loss_at(ks: np.ndarray) -> np.ndarray:
        return measure.losses(prober.answers(problem.validation, 0, [int(k) for k in ks]))

    in_turn = not side_by_side()
    chosen = bisect(
        loss_at,
        int(problem.whole.exists().sum()),
        measure.target,
        grid=search.selection.grid,
        extra=(ranked.trained,),
        refine=1 if in_turn else 4,
        upwards=in_turn,
    )
    part = problem.whole.clean(prober.opened(0, chosen.k))
    model, ablation = problem.model, problem.whole.ablation
    circuit = Circuit.of(model, problem.whole.grain, part.opened, ablation=ablation, held=part.held)
    fitted = measure.fit(prober.answers(problem.validation, 0, [chosen.k]))
    told = prober.answers(problem.test, 0, [chosen.k])
    tested = measure.losses(told, fitted)
    return Rerun(
        world=world,
        seed=seed,
        parts=members(circuit),
        nodes=circuit.num_nodes,
        edges=circuit.num_edges,
        reached=chosen.reached,
        loss=chosen.loss,
        loss_test=float(tested[0]),
        interval=measure.interval(told, problem.test.unit, fitted)[0],
    )


def jaccard(first: AbstractSet[Hashable], second: AbstractSet[Hashable]) -> float:
    """|A and B| / |A or B| of two sets; 1 for two empty ones."""
    union = len(first | second)
    return len(first & second) / union if union else 1.0


def stability(
    problem: Problem,
    measure: Measure,
    runs: Sequence[Rerun],
    circuit: frozenset[str],
    *,
    items: int = 128,
) -> Stability:
    """How much the circuits of several seeds share.

    Args:
      problem: the task in the model.
      measure: the loss.
      runs: of the task, one per seed.
      circuit: `members` of the audited one.
      items: validation items that the core is calibrated on, and test items of its loss.

    Returns:
      `seeds`; `jaccard`: the mean over pairs of seeds (None for fewer than two); `matrix`: of all pairs,
      the audited circuit first; `with_circuit`: mean of the seeds with it; `core`: parts that all seeds
      share, `core_share`: of the smallest circuit's, `core_in_circuit`: those the audited one has too;
      `core_loss`: of the core alone, nats.
    """
    sets = [run.parts for run in runs]
    every = [circuit, *sets]
    matrix = [[jaccard(a, b) for b in every] for a in every]
    between = [matrix[i][j] for i in range(1, len(every)) for j in range(1, i)]
    core = frozenset.intersection(*sets)
    smallest = min(len(one) for one in sets)
    few = _some(problem, items)
    fitted = measure.fit(_of_parts(few, measure, few.validation, core))
    told = _of_parts(few, measure, few.test, core)
    tested = measure.losses(told, fitted)
    return Stability(
        seeds=[run.seed for run in runs],
        jaccard=float(np.mean(between)) if between else None,
        matrix=matrix,
        with_circuit=float(np.mean(matrix[0][1:])),
        core=len(core),
        core_share=len(core) / smallest if smallest else 0.0,
        core_in_circuit=len(core & circuit),
        core_loss=float(tested[0]),
        core_interval=measure.interval(told, few.test.unit, fitted)[0],
    )


def _of_parts(problem: Problem, measure: Measure, examples: Examples, parts: frozenset[str]) -> Any:
    """What the whole model answers with just these parts open."""
    whole: Any = problem.whole
    if whole.tied:
        whole = dataclasses.replace(whole, tied=False)
    if whole.units != "channel":
        whole = dataclasses.replace(whole, units="channel")
    opened = np.array([name in parts for name in whole.names()])
    return answers(whole, problem.batches, examples, [opened], full=measure.full)
