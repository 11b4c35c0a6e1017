"""Conditions that a circuit is asked to hold under, each a way to fill or to open what is closed.

    mean, zero, resample, interchange   closed parts hold what the ablation says
    supersets      a random share of the closed parts is left in, drawn once for a batch
    adversary      the worst part of them is left in or filled, one choice for a batch
    frozen_norms   every norm divides by what it divided by in the whole network on the same prompt
    templates      the prompts are of templates that training never saw

The last four fill what stays closed as the circuit's own ablation does. What is left in is a vector u
in [0, 1]^G: gates z become z + (1 - z) u, so that open parts stay open. It is one for a batch, not one
for each prompt: noise that differs from prompt to prompt could not be filtered by any circuit.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax
import jax.numpy as jnp

from circuitjax.gated.examples import Batch, picked
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import ABLATIONS, Reference, refer
from circuitjax.model.layers import norm_factors
from circuitjax.model.transformer import Norms, apply

__all__ = [
    "CONDITIONS",
    "Condition",
    "answers_under",
    "condition_named",
    "logits_under",
    "norms_of",
    "refer_under",
    "refills",
]

_STREAMS = ("resid.pre", "resid.mid", "resid.post")


@dataclasses.dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
      ablation: what fills closed parts; None for what the circuit's own ablation fills them with.
      leaves: what of the closed parts is left in: nothing, a random share, or the worst part.
      frozen: whether norms are those of the whole network's run.
      apart: whether only examples count whose templates training never sees.
    """

    ablation: str | None = None
    leaves: Literal["nothing", "share", "worst"] = "nothing"
    frozen: bool = False
    apart: bool = False


#: Every condition by name: each ablation, and what else can be asked.
CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        **{name: Condition(name) for name in ABLATIONS},
        "supersets": Condition(leaves="share"),
        "adversary": Condition(leaves="worst"),
        "frozen_norms": Condition(frozen=True),
        "templates": Condition(apart=True),
    }
)


def condition_named(name: str) -> Condition:
    """The condition of that name; an ablation that was added to its table is one too."""
    return CONDITIONS[name] if name in CONDITIONS else Condition(name)


def refills(name: str, ablation: str) -> bool:
    """Whether it fills or opens what is closed differently from an ablation.

    A closed part that is constant under the ablation may then be something else.
    """
    condition = condition_named(name)
    return condition.leaves != "nothing" or condition.ablation not in (None, ablation)


def refer_under(
    name: str, model: GatedModel, batch: Batch, key: jax.Array, *, full: bool
) -> Reference:
    """What a circuit is run with under a condition; see `replacement.refer`.

    Args:
      name: of the condition; of `adversary` what is left in is put in by the caller.
      model: whose ablation is the condition's.
      batch: M examples.
      key: of donors and of what is left in.
      full: whether the whole network's logits are wanted.
    """
    condition = condition_named(name)
    found = refer(model, batch, key, full=full)
    if condition.frozen:
        found = found._replace(norms=norms_of(model, batch))
    if condition.leaves == "share":
        draws, gates = jax.random.split(jax.random.fold_in(key, 1))
        share = jax.random.uniform(draws)
        left = jax.random.uniform(gates, (model.num_gates,)) < share
        found = found._replace(left=left.astype(jnp.float32))
    return found


def norms_of(model: Any, batch: Batch) -> Norms:
    """Factors of the whole network's norms on the clean prompts."""
    asked = batch.prompts
    found = apply(
        model.config, model.params, asked.tokens, capture=_STREAMS, layout=asked.layout
    ).captured
    return norm_factors(model.config, found)


def logits_under(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference
) -> jax.Array:
    """Logits `[M, P, V]` of gates `[G]`, run with a reference."""
    more = {} if reference.norms is None else {"norms": reference.norms}
    opened = _opened(gates, reference)
    found: jax.Array = model.logits(opened, batch, reference.held, **more)
    return found


def answers_under(
    model: GatedModel, gates: jax.Array, batch: Batch, reference: Reference
) -> jax.Array:
    """The same for the right and wrong completions alone, `[M, R + R']`."""
    if reference.norms is not None:
        return picked(logits_under(model, gates, batch, reference), batch)
    return model.answers(_opened(gates, reference), batch, reference.held)


def _opened(gates: jax.Array, reference: Reference) -> jax.Array:
    left = reference.left
    return gates if left is None else gates + (1 - gates) * left
