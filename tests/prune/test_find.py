"""The whole search at every grain: planted circuits are found, whatever replaces the closed parts."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from circuitjax.circuit.circuit import load_circuit
from circuitjax.prune.candidates import candidates_of, empty_candidate, pick
from circuitjax.prune.config import Hyper, SelectionConfig
from circuitjax.prune.defaults import default_search
from circuitjax.prune.evaluate import answers
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.jobs import initial_state, train_gates
from circuitjax.prune.train import Job
from circuitjax.tasks.contrast import ContrastTask, Example
from tests.prune.planted import PLANTED, SEARCH, TASK, planted_model, planted_problem

SIZES = {"train": 64, "validation": 24, "test": 24, "steps": 100, "batch_size": 16}
# The residual edges of the planted circuit: token -> v of a head -> neurons -> logits.
EDGES = {"embed->a0.h0<v>", "a0.h0->m1<in>", "m1->logits"}
WEIGHTS = {
    "0.attn.act_in.0->0.attn.v.h0.c0",
    "0.attn.v.h0.c0->0.attn.resid_delta.1",
    "1.mlp.act_in.1->1.mlp.post_act.0",
    "1.mlp.act_in.1->1.mlp.post_act.1",
    "1.mlp.post_act.0->1.mlp.resid_delta.2",
    "1.mlp.post_act.1->1.mlp.resid_delta.2",
}


def found_parts(circuit) -> set[str]:
    return {f"{source}->{target}" for source, target, _ in circuit.edges()}


def is_the_planted_one(circuit) -> bool:
    """The circuit itself, or half of it: one of its two neurons tells the letters apart as well."""
    whole = {"nodes": WEIGHTS, "weights": WEIGHTS, "edges": EDGES}[circuit.grain]
    parts = found_parts(circuit)
    return parts <= whole and len(parts) >= (3 if circuit.grain == "edges" else 4)


CASES = [
    ("nodes", "zero"),
    ("weights", "mean"),
    ("edges", "interchange"),
    ("nodes", "interchange"),
]
MORE = [
    (grain, ablation)
    for grain in ("nodes", "weights", "edges")
    for ablation in ("mean", "zero", "resample", "interchange")
    if (grain, ablation) not in CASES
]


@pytest.mark.parametrize(
    ("grain", "ablation"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_the_planted_circuit_is_found(grain, ablation, tmp_path):
    changes = {"k_coef": 0.01, "init_noise_scale": 0.05, "lr": 0.02} if grain == "nodes" else {}
    settings = {} if grain == "nodes" else {"target_loss": 0.05}
    circuit = find_circuit(
        planted_model(), TASK, grain=grain, ablation=ablation, **SIZES, **settings, **changes
    )
    assert circuit.provenance["reached"]
    assert (circuit.grain, circuit.ablation) == (grain, ablation)
    assert is_the_planted_one(circuit), found_parts(circuit)
    circuit.save(tmp_path / "circuit", planted_model())
    again = load_circuit(tmp_path / "circuit")
    assert again.content_hash == circuit.content_hash
    assert found_parts(again) == found_parts(circuit)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["heaviside", "hard_concrete"])
@pytest.mark.parametrize("control", ["count", "lagrangian", "hold"])
@pytest.mark.parametrize("minimise", ["task", "kl", "both"])
@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
def test_every_gate_control_and_objective_finds_it(grain, minimise, control, gate):
    search = default_search(
        grain,
        gate=gate,
        control=control,
        minimise=minimise,
        ablation="interchange",
        target_loss=0.1,
        eliminate=True,
        **SIZES,
    )
    circuit = find_circuit(planted_model(), TASK, search=search)
    assert circuit.provenance["reached"]
    assert is_the_planted_one(circuit), found_parts(circuit)


@pytest.mark.parametrize("grain", ["nodes", "weights", "edges"])
def test_elimination_from_the_whole_model_finds_it_without_training(grain):
    told = []
    search = default_search(
        grain, ranking="eliminated", ablation="interchange", target_kl=0.1, **SIZES
    )
    circuit = find_circuit(planted_model(), TASK, search=search, on_chunk=told.append)
    assert not told
    assert circuit.provenance["reached"]
    assert is_the_planted_one(circuit), found_parts(circuit)


def test_hyperparameters_that_nothing_reads_are_refused():
    with pytest.raises(ValueError, match="lr has no meaning with ranking=random: leave it out"):
        find_circuit(planted_model(), TASK, ablation="zero", ranking="random", lr=0.1)


def test_nodes_by_interchange_keep_all_seven_where_nothing_is_calibrated():
    """Uncalibrated, one neuron alone misses the target: the circuit is the planted one, node by node."""
    circuit = find_circuit(
        planted_model(), TASK, ablation="interchange", calibrate="off", target_loss=0.1,
        k_coef=0.01, init_noise_scale=0.05, lr=0.02, **SIZES,
    )  # fmt: skip
    assert set(circuit.nodes()) == set(PLANTED)


def test_a_candidate_is_the_same_function_before_and_after_cleaning():
    problem = planted_problem()
    jobs = [Job(0, Hyper(0.01, init_noise_scale=0.05, lr=0.02))]
    state = train_gates(problem, SEARCH, initial_state(problem, SEARCH, jobs))
    (found,) = candidates_of(problem, SEARCH, jobs, state)
    whole = problem.whole
    mask = whole.flat(found.part.opened["mask"]).astype(bool)
    cleaned = dataclasses.replace(whole, held=found.part.held)
    before = answers(whole, problem.batches, problem.test, [found.choice.opened])
    after = answers(cleaned, problem.batches, problem.test, [mask])
    np.testing.assert_allclose(before.odds, after.odds, atol=1e-5)
    assert found.nodes == mask.sum()
    assert pick([found], SEARCH) is found


def candidate(edges, nodes=1, loss=0.1, reached=True, rough=False, kl=None):
    selection = SimpleNamespace(loss=loss)
    choice = SimpleNamespace(rough=rough, reached=reached, selection=selection, loss=loss, kl=kl)
    return SimpleNamespace(choice=choice, edges=edges, nodes=nodes)


def test_the_smallest_that_meets_the_target_is_picked():
    few, many, wide = candidate(3, 4), candidate(5, 2), candidate(3, 5, loss=0.01)
    missed = [candidate(1, loss=0.2, reached=False), candidate(1, loss=0.19, reached=False)]
    rough = candidate(1, loss=0.001, rough=True)
    assert pick([wide, many, rough, *missed, few], SEARCH) is few
    assert pick([rough, *missed], SEARCH) is missed[1]
    assert pick([rough], SEARCH) is rough


def test_of_a_given_size_the_lowest_loss_is_picked():
    search = dataclasses.replace(SEARCH, selection=SelectionConfig("edges", 5))
    assert pick([candidate(3, loss=0.2), best := candidate(5, loss=0.1)], search) is best
    by_kl = [candidate(5, loss=0.1, kl=0.3), candidate(5, loss=0.2, kl=0.2)]
    assert pick(by_kl, search) is by_kl[1]


def test_the_empty_circuit_is_a_candidate_of_a_trivial_task():
    problem = planted_problem()
    found = empty_candidate(problem, SEARCH, Job(0, Hyper()))
    assert (found.nodes, found.edges) == (0, 0)
    assert not found.choice.reached
    assert found.choice.loss == pytest.approx(np.log(2), abs=1e-3)


def test_a_contrast_task_is_searched_at_node_grain():
    letters = "abcdefgh"
    pool = tuple(
        Example(f"{x}-{a}{b}{c}", f"{y}-{a}{b}{c}", (right,), (wrong,))
        for a in letters for b in letters[:4] for c in letters[:3]
        for x, y, right, wrong in (("A", "B", "x", "y"), ("B", "A", "y", "x"))
    )  # fmt: skip
    task = ContrastTask("letters", "the first letter decides", pool=pool)
    circuit = find_circuit(
        planted_model(), task, ablation="interchange", target_loss=0.1,
        k_coef=0.01, init_noise_scale=0.05, lr=0.02, **SIZES,
    )  # fmt: skip
    assert circuit.provenance["reached"]
    assert set(circuit.nodes()) == set(PLANTED)


def test_weights_start_from_a_circuit_of_nodes():
    nodes = find_circuit(
        planted_model(), TASK, ablation="zero", k_coef=0.01, init_noise_scale=0.05, lr=0.02, **SIZES
    )
    circuit = find_circuit(
        planted_model(), TASK, grain="weights", ablation="zero", start=nodes, **SIZES
    )
    assert circuit.provenance["reached"]
    assert found_parts(circuit) <= found_parts(nodes)
    with pytest.raises(ValueError, match=r"^the circuit to start from is under zero ablation"):
        find_circuit(planted_model(), TASK, grain="weights", ablation="mean", start=nodes, **SIZES)
    with pytest.raises(ValueError, match=r"^grain edges cannot start from a circuit"):
        find_circuit(planted_model(), TASK, grain="edges", start=nodes, **SIZES)


def test_what_cannot_be_is_refused_before_any_work():
    model = planted_model()
    with pytest.raises(ValueError, match=r"^control=hold without a loss"):
        find_circuit(model, TASK, grain="weights", target_edges=4, control="hold")
    with pytest.raises(ValueError, match=r"^target_edges is 99999, but only \d+ can matter"):
        find_circuit(model, TASK, grain="edges", target_edges=99999, **SIZES)
    with pytest.raises(ValueError, match=r"^there is no setting 'colour'$"):
        find_circuit(model, TASK, colour="red")
    search = default_search("nodes", ablation="resample")
    with pytest.raises(ValueError, match=r"^grain and `search` are both given"):
        find_circuit(model, TASK, search=search, grain="edges")
    assert prepare(model, TASK, dataclasses.replace(SEARCH)).paired
