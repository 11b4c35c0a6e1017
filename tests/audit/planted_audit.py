"""The planted circuit with and without distractors, and one that works only while others are closed."""

import dataclasses
import functools

import numpy as np

from circuitjax.audit.measure import Measure, measure_of
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.sites import parse_address, shapes
from circuitjax.prune.defaults import Search
from circuitjax.prune.problem import Problem, make_problem
from tests.prune.planted import CONFIG, SEARCH, TASK, planted_model, planted_problem

# A chain of weak noise that reaches the logits, and two nodes that reach nothing.
DISTRACTORS = (
    "0.attn.act_in.5",
    "0.attn.v.h0.c5",
    "0.attn.resid_delta.6",
    "1.mlp.act_in.6",
    "1.mlp.post_act.7",
)
PLAIN = dataclasses.replace(
    SEARCH, selection=dataclasses.replace(SEARCH.selection, calibrate="off")
)


def mask_of(names) -> dict[str, np.ndarray]:
    mask = {site: np.zeros(shape, bool) for site, shape in shapes(CONFIG).items()}
    for name in names:
        layer, site, index = parse_address(CONFIG, name)
        mask[site][layer, index] = True
    return mask


def whole_mask() -> dict[str, np.ndarray]:
    return {site: np.ones(shape, bool) for site, shape in shapes(CONFIG).items()}


def circuit_of(names, model: Model | None = None, search: Search = SEARCH, **fields) -> Circuit:
    """A circuit of nodes by their names, or by a mask."""
    mask = names if isinstance(names, dict) else mask_of(names)
    fills = {site: np.zeros(shape, np.float32) for site, shape in shapes(CONFIG).items()}
    provenance = {"task": TASK.name, "search": search.to_dict()}
    fields = {"provenance": provenance, "held": fills, "ablation": "zero", **fields}
    return Circuit.of(model or planted_model(), "nodes", {"mask": mask}, **fields)


def weights_of(circuit: Circuit) -> Circuit:
    """The same nodes as a circuit of weights, all of them open."""
    weights = {f.name: np.ones(f.shape(CONFIG), bool) for f in FAMILIES}
    fields = ("ablation", "held", "scale", "shift", "provenance")
    opened = {**circuit.opened, "weights": weights}
    return Circuit.of(
        planted_model(), "weights", opened, **{name: getattr(circuit, name) for name in fields}
    )


def measure(circuit: Circuit, search: Search = SEARCH) -> Measure:
    return measure_of(planted_problem(search), search, circuit)


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
    return make_problem(jammed_model(), TASK, SEARCH.choices, SEARCH.data)
