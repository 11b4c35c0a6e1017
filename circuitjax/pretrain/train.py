"""The pretraining loop: one jitted step, exact resume, metrics as JSONL and TensorBoard events.

    batch (a pure function of seed and step) -> gradient -> optimiser -> projection -> parameters

Everything the loop needs to go on is in the checkpoint: parameters, optimiser state, step. A
resumed run therefore equals the uninterrupted one, bit for bit, on the same machine.
"""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from circuitjax.core import checkpoints
from circuitjax.core.files import write_bytes
from circuitjax.core.host import alone_in
from circuitjax.core.mesh import data_mesh, replicated, shard_rows
from circuitjax.core.records import seal
from circuitjax.model.bigram import bigram_table, count_bigrams
from circuitjax.model.transformer import Params, apply, init_params
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.directory import claim
from circuitjax.pretrain.optimizer import make_optimizer
from circuitjax.pretrain.packing import Corpus

__all__ = ["TrainState", "evaluate", "init_state", "make_step", "next_token_loss", "train"]


@flax.struct.dataclass
class TrainState:
    """All that a step changes.

    Attributes:
      params: trained parameters (the bigram table is fixed and not among them).
      optimizer: optax state.
      step: int32 scalar, steps taken.
    """

    params: Params
    optimizer: optax.OptState
    step: jax.Array


def next_token_loss(config: PretrainConfig, params: Params, rows: jax.Array) -> jax.Array:
    """Mean cross-entropy in nats over rows `[B, T + 1]`, each predicting its last T tokens."""
    logits = apply(config.model, params, rows[:, :-1]).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:]).mean()


def init_state(config: PretrainConfig) -> TrainState:
    """The state before the first step, from the config's seed."""
    params = dict(init_params(jax.random.key(config.seed), config.model))
    params.pop("bigram", None)
    for name in ("embed", "positions"):
        if name in params:
            params[name] = params[name] * 0.05
    return TrainState(params, make_optimizer(config).init(params), jnp.zeros((), jnp.int32))


def make_step(
    config: PretrainConfig, fixed: Params
) -> Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """One jitted step: (state, rows `[B, T + 1]`) -> (state, metrics); the state is donated.

    Args:
      config: static.
      fixed: parameters that are not trained (`bigram`, or nothing).
    """
    optimizer = make_optimizer(config)

    def step(
        state: TrainState, rows: jax.Array, fixed: Params
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def loss_of(params: Params) -> jax.Array:
            return next_token_loss(config, {**params, **fixed}, rows)

        loss, gradient = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(params, opt_state, state.step + 1), metrics

    jitted = jax.jit(step, donate_argnums=0)
    return lambda state, rows: jitted(state, rows, fixed)


def evaluate(config: PretrainConfig, params: Params, corpus: Corpus) -> dict[str, float]:
    """Held-out loss in nats per token, on idioms and on real code."""
    losses = {}
    score = _score(config)
    for source, fraction in (("idioms", 1.0), ("code", 0.0)):
        total = 0.0
        batches = max(1, config.eval_rows // 32)
        for index in range(batches):
            rows = corpus.validation(32, config.length, fraction, index)
            total += float(score(params, rows))
        losses[f"validation_{source}"] = total / batches
    return losses


@functools.lru_cache(maxsize=8)
def _score(config: PretrainConfig) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(next_token_loss, config))


def fixed_params(config: PretrainConfig, corpus: Corpus) -> dict[str, np.ndarray]:
    """The bigram table where the model has one: `{"bigram": [V, V]}`, else nothing."""
    if not config.model.bigram:
        return {}
    counts = bigram_counts(config, corpus)
    return {"bigram": bigram_table(counts, config.bigram_smoothing)}


def bigram_counts(config: PretrainConfig, corpus: Corpus) -> np.ndarray:
    """Counts `[V, V]` of the training streams, weighted as the batches mix them, as integers."""
    idioms, _ = corpus.stream("idioms", "train")
    code, _ = corpus.stream("code", "train")
    share = config.idiom_fraction
    weight = share / max(1 - share, 1e-9) * len(code) / len(idioms)
    streams = [(idioms, min(weight, 1.0)), (code, min(1 / max(weight, 1e-9), 1.0))]
    return np.rint(count_bigrams(streams, config.model.vocab_size))


def train(
    config: PretrainConfig,
    corpus: Corpus,
    directory: str | pathlib.Path,
    *,
    report: Callable[[int, dict[str, Any]], None] = lambda step, metrics: None,
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Trains, or goes on training, in a directory.

    Args:
      config: the run; a directory that holds another config, or was begun on another corpus, is refused.
      corpus: token streams.
      directory: holds `config.json`, `metrics.jsonl`, `events/`, `checkpoints/`.
      report: called with (step, metrics) after every step.
      stop_after: leave after this many steps in all, as a preemption would (for tests).

    Returns:
      All parameters, fixed ones included, as NumPy arrays.

    Raises:
      ValueError: another run's directory, one in which another process works, a damaged checkpoint,
        or a batch that does not divide by the devices.
      FloatingPointError: loss, gradient or parameters are not finite; the last good checkpoint
        stays.
    """
    root = pathlib.Path(directory)
    with alone_in(root) if jax.process_index() == 0 else contextlib.nullcontext():
        return _train(config, corpus, root, report, stop_after)


def _train(
    config: PretrainConfig,
    corpus: Corpus,
    root: pathlib.Path,
    report: Callable[[int, dict[str, Any]], None],
    stop_after: int | None,
) -> dict[str, Any]:
    claim(root, config, corpus)
    mesh = data_mesh()
    fixed = jax.device_put(fixed_params(config, corpus), replicated(mesh))
    state = init_state(config)
    done = checkpoints.latest_step(root / "checkpoints")
    if done is not None:
        try:
            state = checkpoints.load_step(root / "checkpoints", done, state)
        except ValueError as error:
            raise ValueError(f"{error}; remove it to go on from the checkpoint before") from error
    state = jax.device_put(state, replicated(mesh))
    step_fn = make_step(config, fixed)
    log = _MetricsLog(root, int(state.step))
    last = config.steps if stop_after is None else min(stop_after, config.steps)
    for step in range(int(state.step), last):
        started = time.perf_counter()
        rows = corpus.batch(
            step, config.batch_size, config.length, config.seed, config.idiom_fraction
        )
        state, metrics = step_fn(state, shard_rows(mesh, rows))
        values = {name: float(value) for name, value in metrics.items()}
        # A bad gradient counts too: it has already spoilt the parameters.
        if not np.isfinite([values["loss"], values["gradient_norm"]]).all():
            raise FloatingPointError(
                f"loss {values['loss']}, gradient norm {values['gradient_norm']} at step {step}; "
                f"the last good state is in {root / 'checkpoints'}: lower learning_rate"
            )
        values["seconds"] = time.perf_counter() - started
        finished = step + 1
        if finished % config.eval_every == 0 or finished == config.steps:
            values |= evaluate(config, {**state.params, **fixed}, corpus)
        log.write(finished, values)
        report(finished, values)
        if finished % config.checkpoint_every == 0 or finished == last:
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)):
                raise FloatingPointError(
                    f"parameters are not finite after step {step}; the last good state is in "
                    f"{root / 'checkpoints'}: lower learning_rate"
                )
            checkpoints.save_step(root / "checkpoints", finished, state)
    return jax.tree.map(np.asarray, {**state.params, **fixed})


class _MetricsLog:
    """Appends to metrics.jsonl and TensorBoard events; what lies beyond the step is dropped."""

    def __init__(self, root: pathlib.Path, step: int) -> None:
        self._path = root / "metrics.jsonl"
        if self._path.exists():
            # A line without its end was being written when the run was killed.
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(True)
            kept = "".join(x for x in lines if x.endswith("\n") and _step_of(x) <= step)
            write_bytes(self._path, kept.encode())
        try:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(root / "events"), purge_step=step or None)
        except ImportError:  # the `pretrain` extra is not installed: the JSONL has everything
            self._events = None

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(seal({"step": step, **values})) + "\n")
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)


def _step_of(line: str) -> float:
    """The step a line of metrics is of; infinity for a damaged line, which is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return float("inf")
