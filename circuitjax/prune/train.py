"""Training of gates: AdamW on the gate parameters of J jobs as one compiled program.

    state, metrics = train_chunk(state)      scan over steps, map over jobs, donated state

One step: draw a batch with `fold_in(key, step)`, differentiate what the objective minimises, clip the
gradient's RMS to 1, AdamW, and back within bounds (Gao et al. 2025, A.5). What the gates are, where
they sit and what is minimised is the objective's; the loop is the same for all of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from circuitjax.core.jobs import map_jobs, scan_steps
from circuitjax.core.mesh import place, spread
from circuitjax.core.policy import slices
from circuitjax.prune.config import stack_hypers

__all__ = [
    "Job",
    "MaskState",
    "OnChunk",
    "Trained",
    "finite_jobs",
    "init_jobs",
    "make_train_chunk",
    "run_chunks",
    "start_jobs",
]

Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class MaskState:
    """One job's state, or J jobs' with a leading axis on every leaf.

    Attributes:
      tau: gate parameters, a pytree of the objective's.
      adam: first and second moments.
      step: int32, steps taken.
      key: raw uint32 random key of the job; never advanced.
      hyper: the job's hyperparameters; it has `inv_beta2` and `wd`.
      multipliers: Lagrange multipliers, ascended; () where there are none.
    """

    tau: Any
    adam: Any
    step: jax.Array
    key: jax.Array
    hyper: Any
    multipliers: Any = ()


OnChunk = Callable[[MaskState, Mapping[str, np.ndarray]], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: a seed in [0, 2^32) and its hyperparameters, usually a `Hyper`."""

    seed: int
    hyper: Any

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must be in [0, 2^32)")


class Trained(Protocol):
    """What is trained: static and hashable, so that equal ones share a compiled program.

    `objective.Objective` is one; another may wrap it, and give each job data of its own.
    """

    def __hash__(self) -> int:
        """Equal objectives have equal hashes."""

    @property
    def steps(self) -> int:
        """Training steps in all."""

    @property
    def batch_size(self) -> int:
        """Items of the training data per step."""

    def separable(self, model: Any) -> bool:
        """Whether the loss is a mean over items, so that a batch may be taken apart."""

    def init(self, key: jax.Array, hyper: Any, data: Any) -> tuple[Any, Any]:
        """Gate parameters and multipliers before the first step."""

    def draw(self, items: Any, key: jax.Array) -> Any:
        """The items of one step."""

    def data_of(self, hyper: Any, data: Any) -> Any:
        """What of the data that all jobs share is a job's own: picked once, not in every step."""

    def loss(
        self,
        tau: Any,
        multipliers: Any,
        hyper: Any,
        at: tuple[jax.Array, jax.Array],
        model: Any,
        batch: Any,
    ) -> tuple[jax.Array, Metrics]:
        """What is minimised over tau and maximised over the multipliers, and figures to record.

        `at` is (random key of the step, step); `model` as from `data_of`, `batch` some training items.
        """

    def rate(self, hyper: Any, step: jax.Array) -> jax.Array:
        """Learning rate of tau at a step."""

    def project(self, tau: Any) -> Any:
        """Gate parameters back within their bounds."""

    def ascend(self, multipliers: Any, gradient: Any, hyper: Any) -> Any:
        """Multipliers after a step of gradient ascent."""


def _adam(hyper: Any) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=1 - hyper.inv_beta2, eps=1e-8)


def init_jobs(objective: Trained, seeds: jax.Array, hypers: Any, data: Any) -> MaskState:
    """States before the first step, from seeds uint32 `[J]` and hyperparameters `[J]`."""

    def one(seed: jax.Array, hyper: Any, data: Any) -> MaskState:
        key = jax.random.key(seed)
        own = objective.data_of(hyper, data)
        tau, multipliers = objective.init(jax.random.fold_in(key, 0), hyper, own)
        raw = jax.random.key_data(jax.random.fold_in(key, 1))
        step = jnp.zeros((), jnp.int32)
        return MaskState(tau, _adam(hyper).init(tau), step, raw, hyper, multipliers)

    every = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))
    return every(*place((jnp.asarray(seeds, jnp.uint32), hypers)), data)


def start_jobs(objective: Trained, jobs: Sequence[Job], data: Any) -> MaskState:
    """J jobs before their first step; `data` as in `make_train_chunk`."""
    seeds = jnp.asarray(np.array([job.seed for job in jobs], np.uint32))
    return init_jobs(objective, seeds, stack_hypers([job.hyper for job in jobs]), data)


def _mean_over_slices(loss_of: Callable[..., Any], trained: Any, batch: Any, count: int) -> Any:
    """Value and gradient of a mean over a batch, worked out so many slices of it one after another.

    A slice's activations stay in cache. On an accelerator, which wants large batches, there is one
    slice. Slices differ in rounding only.
    """
    differentiate = jax.value_and_grad(loss_of, has_aux=True)
    if count == 1:
        return differentiate(trained, batch)
    parted = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    parts = lax.map(lambda some: differentiate(trained, some), parted)
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), parts)


@functools.lru_cache(maxsize=16)
def make_train_chunk(objective: Trained) -> Callable[..., tuple[MaskState, Metrics]]:
    """Compiled `(state [J], length, data, items) -> (state [J], metrics [J, length])`.

    `length` is static; `data` (a pytree: parameters, replacement values) and the training items (with
    `draw`; what it draws has `slices`) are shared by all jobs. Metrics: `loss`, `gradient_rms` and the
    objective's own.
    The same objective gives the same compiled program, so a sweep over tasks compiles once.
    """

    def one_step(state: MaskState, data: Any, items: Any) -> tuple[MaskState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        batch = spread(objective.draw(items, key))
        at = (jax.random.fold_in(key, 1), state.step)
        count = slices(data.training_slices(batch)) if objective.separable(data) else 1

        def loss_of(trained: tuple[Any, Any], some: Any) -> tuple[jax.Array, Metrics]:
            return objective.loss(*trained, state.hyper, at, data, some)

        (loss, parts), (gradient, by_multipliers) = _mean_over_slices(
            loss_of, (state.tau, state.multipliers), batch, count
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(gradient))
        rms = optax.tree.norm(gradient) / size**0.5
        gradient = jax.tree.map(lambda g: g / jnp.maximum(rms, 1.0), gradient)
        updates, adam = _adam(state.hyper).update(gradient, state.adam)
        rate = objective.rate(state.hyper, state.step)
        tau = jax.tree.map(lambda t, u: t - rate * (u + state.hyper.wd * t), state.tau, updates)
        state = dataclasses.replace(
            state,
            tau=objective.project(tau),
            adam=adam,
            step=state.step + 1,
            multipliers=objective.ascend(state.multipliers, by_multipliers, state.hyper),
        )
        return state, {"loss": loss, **parts, "gradient_rms": rms}

    def chunk(state: MaskState, length: int, data: Any, items: Any) -> tuple[MaskState, Metrics]:
        def job(job_state: MaskState) -> tuple[MaskState, Metrics]:
            own = objective.data_of(job_state.hyper, data)
            return scan_steps(lambda s: one_step(s, own, items), job_state, length)

        return map_jobs(job)(state)

    return jax.jit(chunk, static_argnums=1, donate_argnums=0)


def finite_jobs(state: MaskState) -> np.ndarray:
    """bool `[J]`: the jobs whose gate parameters are finite numbers."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.tau)]
    return np.all([np.isfinite(x.reshape(len(x), -1)).all(axis=1) for x in leaves], axis=0)


def run_chunks(
    objective: Trained,
    state: MaskState,
    data: Any,
    items: Any,
    chunk: int,
    on_chunk: OnChunk = lambda state, metrics: None,
    *,
    spare: bool = False,
) -> MaskState:
    """Runs what is left of a training, in chunks.

    Args:
      objective: what is trained.
      state: J jobs, fresh or restored.
      data, items: see `make_train_chunk`.
      chunk: steps per call of the compiled program.
      on_chunk: called after each chunk with the state and the metrics `[J, chunk]`.
      spare: go on when a job diverges, for the sake of the others, as a tuner must;
        `finite_jobs` of the last state tells which did not.

    Raises:
      FloatingPointError: a loss, gradient or gate parameter that is not finite, with the step; the
        state handed to the last `on_chunk` is good.
    """
    train_chunk = make_train_chunk(objective)
    state = place(state)
    done = int(state.step[0])
    while done < objective.steps:
        length = min(chunk - done % chunk, objective.steps - done)
        state, metrics = train_chunk(state, length, data, items)
        values = {name: np.asarray(value) for name, value in metrics.items()}
        # A parameter that is NaN closes its gate and leaves the loss finite, so all three count.
        bad = ~(np.isfinite(values["loss"]) & np.isfinite(values["gradient_rms"]))
        bad[:, -1] |= ~finite_jobs(state)
        if bad.any() and not spare:
            job, step = (int(i) for i in np.argwhere(bad)[0])
            raise FloatingPointError(
                f"the pruning of job {job} diverged (not a finite number) at step {done + step}: "
                f"the last good state is that of step {done}; try a lower lr"
            )
        done += length
        on_chunk(state, values)
    return state
