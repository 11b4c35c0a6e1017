"""A whole audit: what can be asked of a circuit is asked, at every grain and for both kinds of tasks."""

import dataclasses
import json

import jsonschema
import numpy as np
import pytest

from circuitjax.audit.audit import AuditConfig, audit_circuit
from circuitjax.audit.record import AuditFigures
from circuitjax.circuit.circuit import Circuit
from circuitjax.gated.edges import EdgeGates
from circuitjax.prune.config import Hyper
from circuitjax.prune.defaults import Search, default_search
from circuitjax.tasks.contrast import ContrastTask, Example
from tests.audit.planted_audit import circuit_of, weights_of
from tests.prune.planted import LETTERS, PLANTED, SEARCH, TASK, planted_model

FEW = AuditConfig(pairs=32, search_pairs=24, sets=1, fractions=(0.5,), search_steps=2, steps=20)
SIZES = {"train": 64, "validation": 24, "test": 40, "chunk": 10, "steps": 20}
# The planted circuit's path through the residual stream.
PATH = ("embed->a0.h0<v>", "a0.h0->m1<in>", "m1->logits")
HYPER = Hyper(k_coef=0.01, init_noise_scale=0.05, lr=0.02)


def first_letter(rng) -> Example:
    noise = "".join(rng.choice(LETTERS) for _ in range(3))
    return Example(f"A-{noise}", f"B-{noise}", ("x",), ("y",))


CONTRAST = ContrastTask("first_letter_of_two", "the first letter decides", samplers=(first_letter,))


def edges_of(search: Search, **fields) -> Circuit:
    model = planted_model()
    names = EdgeGates(None, None, config=model.config).names()
    opened = {"kept": np.array([name in PATH for name in names])}
    facts = {"task": TASK.name, "search": search.to_dict()}
    return Circuit.of(
        model, "edges", opened, ablation=search.choices.ablation, provenance=facts, **fields
    )


def audit(circuit, task=TASK, config=FEW, **more):
    found = audit_circuit(planted_model(), task, circuit, config, hyper=HYPER, **more)
    fields = json.loads(json.dumps(found.figures.to_dict()))
    jsonschema.validate(fields, AuditFigures.schema())
    again = AuditFigures.from_dict(fields)
    assert json.loads(json.dumps(again.to_dict())) == fields
    return found, {check.name: check for check in found.figures.checks}


def test_the_planted_nodes():
    found, checks = audit(circuit_of(PLANTED))
    figures = found.figures
    assert (figures.unit, figures.size, figures.measure) == ("nodes", 7, "calibrated")
    assert checks["test loss"].passed
    assert checks["zero replacement"].passed
    assert checks["nodes that polish removes"].figure is not None
    assert {run.world for run in figures.runs} == {"task", "nonsense", "shuffled", "weights"}
    assert set(figures.skipped) == {"frozen norms", "templates"}
    assert found.polished is not None
    assert found.polished.num_nodes <= 7


@pytest.mark.slow
def test_the_planted_weights():
    search = default_search("weights", ablation="zero", batch_size=8, **SIZES)
    facts = {"task": TASK.name, "search": search.to_dict()}
    circuit = dataclasses.replace(weights_of(circuit_of(PLANTED)), provenance=facts)
    figures = audit(circuit)[0].figures
    assert (figures.unit, figures.size) == ("edges", 6)
    assert figures.agreement is not None
    assert len(figures.effects.nodes) == 7
    assert len(figures.effects.edges) == 6
    assert figures.supersets is not None
    assert {run.world for run in figures.runs} == {"task", "nonsense", "shuffled", "weights"}
    assert set(figures.skipped) == {"frozen norms", "templates"}


@pytest.mark.slow
def test_the_planted_edges():
    search = default_search("edges", target_kl=0.3, batch_size=4, **SIZES)
    found, checks = audit(edges_of(search))
    figures = found.figures
    assert (figures.unit, figures.size, figures.measure) == ("edges", 3, "kl")
    assert figures.evidence.loss_circuit < 0.1
    assert set(figures.sufficiency) == {"mean", "zero", "resample", "interchange"}
    assert figures.effects.nodes == {}
    assert {(a, b) for a, b, _ in figures.effects.edges} == {tuple(e.split("->")) for e in PATH}
    assert all(rise > 0.1 for _, _, rise in figures.effects.edges)
    assert {run.world for run in figures.runs} == {"task"}
    assert "a KL of 0 without a circuit" in figures.skipped["weights"]
    assert "no nodes of its own" in figures.skipped["agreement"]
    assert "reads no completions" in figures.skipped["nonsense"]
    assert checks["divergence of attention patterns"].passed is None


@pytest.mark.parametrize("grain", ["nodes", pytest.param("edges", marks=pytest.mark.slow)])
def test_a_task_without_pairs(grain):
    ablation = {"nodes": "zero", "edges": "interchange"}[grain]
    search = default_search(
        grain, paired=False, ablation=ablation, target_loss=0.15, batch_size=8, **SIZES
    )
    facts = {"task": CONTRAST.name, "search": search.to_dict()}
    circuit = circuit_of(PLANTED, provenance=facts) if grain == "nodes" else edges_of(search)
    figures = audit(circuit, CONTRAST, dataclasses.replace(FEW, search=False))[0].figures
    assert figures.measure == "task"
    assert figures.evidence.loss_circuit < 0.1
    assert figures.evidence.correlation_within is None
    assert figures.chance == figures.baseline.loss_empty
    assert figures.skipped["stability"] == "not asked for"
    assert "interchange" in figures.sufficiency


def test_what_cannot_be_audited_is_one_line():
    with pytest.raises(ValueError, match="there is nothing to audit"):
        audit(circuit_of(()))
    loss = dataclasses.replace(SEARCH.choices, loss="vocabulary")
    with pytest.raises(ValueError, match="an audit needs loss='binary'"):
        audit(circuit_of(PLANTED), search=dataclasses.replace(SEARCH, choices=loss))
    with pytest.raises(ValueError, match="does not say by what search"):
        audit(circuit_of(PLANTED, provenance={}))
