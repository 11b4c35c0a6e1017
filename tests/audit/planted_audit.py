"""The planted circuit with and without distractors, and one that works only while others are frozen."""

import dataclasses
import functools

import numpy as np

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address, shapes
from circuitjax.prune.problem import Problem, make_problem
from tests.prune.planted import CONFIG, PRUNE, TASK, planted_model

# A chain of weak noise that reaches the logits, and two nodes that reach nothing.
DISTRACTORS = (
    "0.attn.act_in.5",
    "0.attn.v.h0.c5",
    "0.attn.resid_delta.6",
    "1.mlp.act_in.6",
    "1.mlp.post_act.7",
)


def mask_of(names) -> dict[str, np.ndarray]:
    mask = {site: np.zeros(shape, bool) for site, shape in shapes(CONFIG).items()}
    for name in names:
        layer, site, index = parse_address(CONFIG, name)
        mask[site][layer, index] = True
    return mask


def circuit_of(names, model: Model | None = None, **fields) -> Circuit:
    model = model or planted_model()
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(CONFIG).items()}
    provenance = {"task": TASK.name, "prune": PRUNE.to_dict()}
    fields = {"provenance": provenance, **fields}
    return Circuit(model.name, model.hash, CONFIG, mask_of(names), fills, **fields)


@functools.lru_cache(maxsize=1)
def jammed_model() -> Model:
    """The planted model and a neuron beside it that drowns its answer in the letters' noise."""
    model = planted_model()
    params = dict(model.params)
    stack = {name: value.copy() for name, value in params["layers"].items()}
    embed = params["embed"].copy()
    embed[6:, 3] = np.where(np.arange(len(embed) - 6) % 2, 1.0, -1.0)
    # The noise of the last letter is read by a neuron of layer 0 and written where the answer is.
    stack["mlp_in"][0, 3, :2] = 1.0, -1.0
    stack["mlp_out"][0, :2, 2] = 8.0, -8.0
    params |= {"embed": embed, "layers": stack}
    return dataclasses.replace(model, name="jammed", params=params)


@functools.lru_cache(maxsize=1)
def jammed_problem() -> Problem:
    """The task on that model; pairs end alike, so the noise moves both prompts together."""
    return make_problem(jammed_model(), TASK, PRUNE)
