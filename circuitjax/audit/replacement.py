"""Sufficiency, asked again: other replacements, frozen norms, and each template by itself.

    mean       closed nodes hold the circuit's own fills (means)
    zero       they hold 0
    resample   they hold what they were on another prompt of the task, at the same position: one of equal
               length, where there is one
    frozen     every norm divides by what it divided by in the whole model on the same prompt, so that
               what is closed cannot help by changing a scale

Constants that clean-up folded into the fills are parts of the circuit and stay under every replacement.
A loss is given raw, and under its own best calibration on the same pairs: asked is whether the answer is
still there. Fitted to a few other pairs, a scale may run off where these happen to be separable.
Axis letters: B sequences, T positions, M pairs.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from circuitjax.audit.evidence import gated_problem
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.transformer import Fills, Gates, Norms, Params, apply, norm_factors
from circuitjax.prune.calibrate import calibrate
from circuitjax.prune.evaluate import mean_binary_loss
from circuitjax.prune.objective import Pairs, calibrated_differences, logit_differences
from circuitjax.prune.problem import Problem

__all__ = ["REPLACEMENTS", "by_template", "donors", "sufficiency"]

REPLACEMENTS = ("mean", "zero", "resample")
_BATCH = 16  # pairs per forward pass: resampling holds every activation of a batch
_STREAMS = ("resid.pre", "resid.mid", "resid.post")


def donors(last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each sequence another one to take activations from.

    Args:
      last: int `[B]`, where each sequence ends.
      rng: of the choice.

    Returns:
      int `[B]`, a permutation without a fixed point where lengths are shared; a sequence that is the
      only one of its length takes from any other.
    """
    last = np.asarray(last)
    chosen = np.arange(len(last))
    for length in np.unique(last):
        group = rng.permutation(np.flatnonzero(last == length))
        chosen[group] = np.roll(group, 1)
    alone = np.flatnonzero(chosen == np.arange(len(last)))
    if len(last) > 1:
        chosen[alone] = (alone + rng.integers(1, len(last), len(alone))) % len(last)
    return chosen


def _in_batches(pairs: Pairs) -> list[Pairs]:
    """Batches of equal size; the last is filled up with the last pair, whose results are dropped."""
    size = min(_BATCH, pairs.size)
    starts = range(0, pairs.size, size)
    return [pairs.take(np.minimum(np.arange(s, s + size), pairs.size - 1)) for s in starts]


@functools.partial(jax.jit, static_argnums=0)
def _resampled(
    config: TransformerConfig,
    params: Params,
    tokens: jax.Array,
    chosen: jax.Array,
    folded: Mapping[str, jax.Array],
    own: Fills,
) -> tuple[dict[str, jax.Array], Norms]:
    """Fills `[L, B, T, W]`: what the whole model holds on the chosen prompts, but for what is folded.

    And the factors of its norms on the prompts themselves.
    """
    found = apply(config, params, tokens, capture=(*SITES, *_STREAMS)).captured
    fills = {
        site: jnp.where(
            folded[site][:, None, None], own[site][:, None, None], found[site][:, chosen]
        )
        for site in SITES
    }
    return fills, norm_factors(config, found)


@functools.partial(jax.jit, static_argnums=0)
def _differences(
    config: TransformerConfig,
    params: Params,
    batch: Pairs,
    gates: Gates,
    constant: Fills,
    per_token: Fills,
    norms: Norms | None,
) -> jax.Array:
    """Logit differences `[K + 1, B, 2]` of pairs: K fills `[K, L, W]`, then one `[L, 2 B, T, W]`."""
    size, _, length = batch.tokens.shape
    tokens, last = batch.tokens.reshape(size * 2, length), batch.last.reshape(size * 2, 1)
    count = len(next(iter(constant.values())))

    def one(kind: jax.Array) -> jax.Array:
        # One program for all kinds of fills costs less to compile than one for each.
        own = {
            site: jnp.where(
                kind < count, fill[jnp.minimum(kind, count - 1)][:, None, None], per_token[site]
            )
            for site, fill in constant.items()
        }
        logits = apply(config, params, tokens, gates, own, positions=last, norms=norms).logits
        return logit_differences(logits.reshape(size, 2, -1), batch.answers)

    return lax.map(one, jnp.arange(count + 1))


def sufficiency(
    problem: Problem,
    circuit: Circuit,
    test: Pairs,
    *,
    means: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Losses of the circuit under every replacement, norms free and frozen.

    Args:
      problem: the model.
      circuit: of that model.
      test: pairs to report on.
      means: {site: `[L, W]`} of the model, for a circuit found under zero ablation; None skips `mean`
        there.
      seed: of the prompts that activations are resampled from.

    Returns:
      {replacement: {`free` or `frozen`: {"loss", "loss_uncalibrated"}}}, nats.
    """
    gated, gates = gated_problem(problem, circuit), circuit.gates()
    own = {site: np.asarray(fill) for site, fill in circuit.fills.items()}
    folded = {site: own[site] != np.asarray(problem.fills[site]) for site in SITES}
    constant: dict[str, Mapping[str, Any]] = {}
    if problem.prune.ablation == "mean":
        constant["mean"] = own
    elif means is not None:
        constant["mean"] = {s: np.where(folded[s], own[s], means[s]) for s in SITES}
    constant["zero"] = {s: np.where(folded[s], own[s], 0.0).astype(np.float32) for s in SITES}

    kinds = (*constant, "resample")
    stacked = {s: np.stack([fills[s] for fills in constant.values()]) for s in SITES}

    rng = np.random.default_rng([seed, 0])
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for batch in _in_batches(test):
        tokens = batch.tokens.reshape(-1, batch.tokens.shape[-1])
        chosen = donors(np.asarray(batch.last).reshape(-1), rng)
        per_token, frozen = _resampled(problem.config, problem.params, tokens, chosen, folded, own)
        for name, norms in (("free", None), ("frozen", frozen)):
            rows = _differences(gated.config, gated.params, batch, gates, stacked, per_token, norms)
            for kind, values in zip(kinds, np.asarray(rows), strict=True):
                found.setdefault((kind, name), []).append(values)
    tested = {key: np.concatenate(parts)[: test.size] for key, parts in found.items()}
    losses = calibrate(np.stack(list(tested.values()))).loss
    figures: dict[str, Any] = {}
    for (kind, name), loss in zip(tested, losses, strict=True):
        raw = float(mean_binary_loss(tested[kind, name]))
        figures.setdefault(kind, {})[name] = {"loss": float(loss), "loss_uncalibrated": raw}
    return figures


def by_template(
    differences: np.ndarray, templates: Sequence[str], scale: float, shift: float
) -> dict[str, dict[str, float]]:
    """Loss of each template's pairs under one calibration.

    Args:
      differences: `[M, 2]` of the circuit.
      templates: the template of each pair.
      scale, shift: calibration.

    Returns:
      {template: {"loss" (nats), "pairs"}}, in the order of the names.
    """
    found = {}
    fitted = calibrated_differences(np.asarray(differences), scale, shift)
    for name in sorted(set(templates)):
        mine = np.array([template == name for template in templates])
        found[name] = {"loss": float(mean_binary_loss(fitted[mine])), "pairs": int(mine.sum())}
    return found
