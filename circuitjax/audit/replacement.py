"""Sufficiency, asked again: other replacements, frozen norms, and each template by itself.

    mean, zero     closed parts hold constants: the model's means, or 0
    resample       what they held on one other prompt of the batch; see `gated/replacement.py`
    interchange    what they held on the example's own corrupted prompt
    frozen         every norm divides by what it divided by in the whole model on the same prompt: then
                   what is closed cannot help by changing a scale

Constants that clean-up folded into the circuit are parts of it and stay under every replacement. A
loss is given raw, and by the audit's measure, calibrated on the same examples: the question is whether
the answer is still there. Fitted to a few others, a scale may run off where these are separable.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from circuitjax.audit.measure import Measure, intervals, item_losses, share_of
from circuitjax.audit.record import Sufficiency, Template
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.conditions import norms_of
from circuitjax.gated.examples import Examples
from circuitjax.gated.measures import calibrated_odds
from circuitjax.gated.protocol import GatedModel, Held
from circuitjax.gated.replacement import ABLATIONS, is_per_prompt, needs_corrupted, refer
from circuitjax.gated.rows import Batches
from circuitjax.model.transformer import Norms
from circuitjax.prune.defaults import Search
from circuitjax.prune.evaluate import Answers, beside
from circuitjax.prune.problem import Problem, gated_model

__all__ = ["by_template", "constants_of", "sufficiency", "with_folded"]

_ITEMS = 16  # of a forward pass that holds every activation of a batch; see `share_of`
_norms = jax.jit(norms_of)


@jax.jit
def _held(model: GatedModel, batch: Examples, key: jax.Array) -> tuple[jax.Array, Held]:
    """The whole network's logits, and what closed parts hold under the model's ablation."""
    reference = refer(model, batch, key, full=True)
    assert reference.full is not None
    return reference.full, reference.held


@jax.jit
def _answer(
    model: Any,
    gates: jax.Array,
    batch: Examples,
    full: jax.Array,
    held: Held,
    norms: Norms | None,
) -> tuple[jax.Array, ...]:
    more = {} if norms is None else {"norms": norms}
    return beside(model.logits(gates, batch, held, **more), full, batch)


def constants_of(problem: Problem, search: Search, ablation: str, own: Held) -> Held:
    """Constants of an ablation, with what clean-up has folded into the circuit's own."""
    if ablation == problem.whole.ablation:
        return own
    choices = dataclasses.replace(search.choices, ablation=ablation)
    plain = gated_model(problem.model, choices, problem.train)[0].held
    if own is None or problem.whole.held is None:
        return plain
    return jax.tree.map(
        lambda mine, before, other: jnp.where(mine != before, mine, other),
        own,
        problem.whole.held,
        plain,
    )


def with_folded(held: Held, own: Held, before: Held) -> Held:
    """What another run held `[., B, T, .]`, but for constants folded into the circuit's own."""
    if own is None or before is None or not isinstance(own, dict):
        return held
    folded = {
        site: jnp.where(
            (own[site] != before[site])[:, None, None], own[site][:, None, None], held[site]
        )
        for site in own
    }
    return {**held, **folded}


def sufficiency(
    problem: Problem,
    search: Search,
    measure: Measure,
    circuit: Circuit,
    test: Examples,
    *,
    corrupted: bool = True,
    seed: int = 0,
) -> tuple[dict[str, dict[str, Sufficiency]], dict[str, str]]:
    """Losses of the circuit under every replacement, norms free and frozen.

    Args:
      problem: the model.
      search: for the constants of other ablations.
      measure: the loss.
      circuit: of that model.
      test: examples to report on.
      corrupted: whether they have corrupted prompts.
      seed: of the prompts that activations are resampled from.

    Returns:
      {replacement: {`free` or `frozen`: figures}}, nats; and {what could not be asked: why}.
    """
    view = circuit.view(problem.model)
    model: Any = view.model
    gates = jnp.asarray(view.gates, jnp.float32)
    skipped: dict[str, str] = {}
    freezes = model.freezes_norms and model.config.norm != "none"
    if not freezes:
        skipped["frozen norms"] = (
            "the model has no norms"
            if model.freezes_norms
            else "gates on residual edges have no one stream to freeze"
        )
    constant: dict[str, Held] = {}
    for name in ABLATIONS:
        if needs_corrupted(name) and not corrupted:
            skipped[f"{name} replacement"] = "the task has no corrupted prompts"
        elif not is_per_prompt(name):
            try:
                constant[name] = constants_of(problem, search, name, model.held)
            except ValueError as error:
                skipped[f"{name} replacement"] = str(error)
    kinds = [
        name
        for name in ABLATIONS
        if name in constant or (is_per_prompt(name) and f"{name} replacement" not in skipped)
    ]
    batches, places = Batches(model.config.causal, packs=False, items=share_of(model, _ITEMS)).even(
        test
    )
    found: dict[tuple[str, str], list[tuple[np.ndarray, ...]]] = {}
    for number, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(seed), number)
        norms: dict[str, Norms | None] = {"free": None}
        if freezes:
            norms["frozen"] = _norms(model, batch)
        # What can be asked of every task, resampling, brings the whole model's logits along.
        full: Any = None
        for kind in sorted(kinds, key=is_per_prompt, reverse=True):
            held = constant.get(kind)
            if is_per_prompt(kind):
                full, held = _held(_under(model, kind), batch, key)
                held = with_folded(held, model.held, problem.whole.held)
            for name, factors in norms.items():
                found.setdefault((kind, name), []).append(
                    jax.device_get(_answer(model, gates, batch, full, held, factors))
                )
    figures: dict[str, dict[str, Sufficiency]] = {}
    for kind, name in sorted(found, key=lambda asked: kinds.index(asked[0])):
        parts = found[kind, name]
        answered = Answers(*(np.concatenate(p)[None, places] for p in zip(*parts, strict=True)))
        loss = float(measure.losses(answered)[0])
        raw = float(answered.losses("binary")[0])
        (interval,) = measure.interval(answered, test.unit)
        figures.setdefault(kind, {})[name] = Sufficiency(loss, raw, interval)
    return figures, skipped


def _under(model: Any, ablation: str) -> GatedModel:
    """The network under another ablation, for what closed parts then hold."""
    changed: GatedModel = dataclasses.replace(model, ablation=ablation)
    return changed


def by_template(
    odds: np.ndarray, templates: Sequence[str], circuit: Circuit | None, unit: int
) -> dict[str, Template]:
    """Task loss of each template's items under one calibration.

    Args:
      odds: `[M]` of the circuit.
      templates: the template of each example.
      circuit: whose stored calibration counts; None for none.
      unit: examples of an item.

    Returns:
      {template: figures}, in the order of the names.
    """
    if circuit is not None:
        odds = calibrated_odds(odds, circuit.scale, circuit.shift)
    found, names = {}, np.array(templates)
    for name in sorted(set(templates)):
        mine = names == name
        losses = item_losses(odds[mine], unit)
        (interval,) = intervals(losses[None])
        found[name] = Template(float(losses.mean()), len(losses), interval)
    return found
