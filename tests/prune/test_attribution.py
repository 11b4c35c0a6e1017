"""Rankings by gradients against numbers of the benchmark's own code, and against laws.

`tests/data/benchmark/attribution.json` holds a tiny model's scores, computed once by the public code
of the Mechanistic Interpretability Benchmark (EAP, EAP-IG) and of GIM; the weights are drawn here.
"""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.examples import Examples
from circuitjax.gated.protocol import GatedModel
from circuitjax.gated.replacement import refer
from circuitjax.model.config import TransformerConfig
from circuitjax.model.corrected import corrected
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph, run_graph
from circuitjax.prune.attribution import Place, _averaged, gains, signed
from circuitjax.prune.config import Choices
from circuitjax.prune.connected import connected_order
from circuitjax.prune.evaluate import answers
from circuitjax.prune.problem import Problem, batches_of, gated_model
from circuitjax.prune.rank import Baseline, connected, rank_scores

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "benchmark"
CONFIG = TransformerConfig(
    num_layers=2, d_model=12, num_heads=2, d_head=4, d_mlp=16, vocab_size=24, context_length=8,
    norm="layer", activation="gelu_tanh", final_bias=True,
)  # fmt: skip


@functools.cache
def reference() -> dict:
    return json.loads((DATA / "attribution.json").read_text())


def parameters() -> dict:
    """The model whose scores were taken: normal numbers in the order of the file's names."""
    rng = np.random.default_rng(1)
    drawn = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in reference()["order"]}

    def stacked(name, shape):
        return np.stack([drawn[f"blocks.{layer}.{name}"].reshape(shape) for layer in range(2)])

    def columns(name):  # [H, D, C] to [D, H C]
        return np.stack(
            [np.concatenate(list(drawn[f"blocks.{layer}.attn.{name}"]), axis=1) for layer in (0, 1)]
        )

    layers = {f"attn_{x}": columns(f"W_{x.upper()}") for x in "qkv"}
    layers |= {f"attn_{x}_bias": stacked(f"attn.b_{x.upper()}", (8,)) for x in "qkv"}
    layers |= {
        "attn_out": stacked("attn.W_O", (8, 12)),
        "attn_out_bias": stacked("attn.b_O", (12,)),
        "mlp_in": stacked("mlp.W_in", (12, 16)),
        "mlp_in_bias": stacked("mlp.b_in", (16,)),
        "mlp_out": stacked("mlp.W_out", (16, 12)),
        "mlp_out_bias": stacked("mlp.b_out", (12,)),
    }
    for block, name in (("attn", "ln1"), ("mlp", "ln2")):
        layers[f"{block}_norm_scale"] = stacked(f"{name}.w", (12,))
        layers[f"{block}_norm_bias"] = stacked(f"{name}.b", (12,))
    return {
        "embed": drawn["embed.W_E"],
        "positions": drawn["pos_embed.W_pos"],
        "unembed": drawn["unembed.W_U"],
        "final_bias": drawn["unembed.b_U"],
        "final_norm_scale": drawn["ln_final.w"],
        "final_norm_bias": drawn["ln_final.b"],
        "layers": layers,
    }


@functools.cache
def make(grain="edges", ablation="interchange") -> Problem:
    tokens = reference()["tokens"]
    examples = Examples(
        tokens=jnp.asarray(np.stack([tokens["clean"], tokens["corrupted"]], axis=1), jnp.int32),
        positions=jnp.full((3, 1), 6, jnp.int32),
        right=jnp.asarray(tokens["right"], jnp.int32)[:, None],
        wrong=jnp.asarray(tokens["wrong"], jnp.int32)[:, None],
    )
    model = Model("tiny", CONFIG, parameters())
    whole, _ = gated_model(model, Choices(grain=grain, ablation=ablation), examples)
    sets = dict.fromkeys(("train", "validation", "test"), examples)
    return Problem(model, whole, whole, batches=batches_of(whole), **sets)


def of_benchmark(problem: Problem, gain: np.ndarray) -> dict[str, float]:
    """Gains by the benchmark's names: its input is the token embedding."""
    found = {}
    for name, value in zip(problem.whole.names(), gain, strict=True):
        writer, reader = name.split("->")
        if writer != "pos":
            found[f"{writer.replace('embed', 'input')}->{reader.removesuffix('<in>')}"] = value
    return found


def assert_equal_to(name: str, gain: np.ndarray) -> None:
    expected = reference()[name]
    found = of_benchmark(make(), gain)
    assert set(found) == set(expected)
    scale = max(abs(value) for value in expected.values())
    for edge, value in expected.items():
        assert found[edge] == pytest.approx(value, rel=2e-3, abs=2e-5 * scale), edge


def test_the_model_is_that_of_the_reference():
    problem = make()
    logits = np.asarray(problem.whole.full(problem.test))[:, 0]
    np.testing.assert_allclose(logits, reference()["tokens"]["logits"], rtol=1e-4, atol=1e-4)


def test_attribution_of_residual_edges_is_edge_attribution_patching():
    assert_equal_to("eap", gains(make(), make().test, "attribution", of="odds"))


def test_integrated_inputs_are_those_of_the_reference_at_its_places():
    """Its four steps are at 0, 1/4, 1/2 and 3/4."""
    problem = make()
    graph = problem.whole.graph
    embedded = np.array([graph.writers[w] == "embed" for w in graph.sources])
    places = [Place(np.where(embedded, step / 4, 1).astype(np.float32), 0.25) for step in range(4)]
    found = _averaged(problem, problem.whole, problem.test, places, "odds", "binary", True)
    assert_equal_to("eap_ig_inputs", found)
    ours = gains(problem, problem.test, "eap_ig_inputs", points=8, of="odds")
    assert np.corrcoef(ours, found)[0, 1] > 0.8  # the same path, by another rule


def test_the_corrected_gradient_is_that_of_the_reference():
    assert_equal_to("gim", gains(make(), make().test, "gim", of="odds"))


def test_a_corrected_gradient_changes_no_answer():
    problem, whole = make(), make().whole
    other = dataclasses.replace(whole, config=corrected(CONFIG))
    gates = np.random.default_rng(0).uniform(size=(1, whole.num_gates)).astype(np.float32)
    one, two = (answers(m, problem.batches, problem.test, gates).odds for m in (whole, other))
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert corrected(CONFIG) != CONFIG  # another static key: a compiled program is not shared


def test_each_depth_is_complete_in_its_turn():
    """Gains of the edges from one depth add up to what closing all of them loses."""
    problem = make()
    found = gains(problem, problem.test, "eap_ig_activations", points=12, of="odds")
    graph = problem.whole.graph
    for writers in (["embed"], ["a0.h0", "a0.h1"], ["m0"], ["a1.h0", "a1.h1"], ["m1"]):
        own = np.array([graph.writers[w] in writers for w in graph.sources])
        sets = np.stack([np.ones(len(own)), ~own])
        full, closed = answers(problem.whole, problem.batches, problem.test, sets).odds.mean(axis=1)
        assert found[own].sum() == pytest.approx(full - closed, rel=2e-2, abs=2e-3)


def test_what_writers_write_within_a_circuit():
    """All open: clean against corrupted. All closed: only tokens, which read nothing, differ."""
    problem, size = make(), make().whole.num_gates
    whole: GatedModel = problem.whole
    held = refer(whole, problem.test, None, full=False).held
    asked = problem.test.prompts
    _, clean = whole.observed(asked.tokens, asked.positions)
    run = jax.jit(run_graph, static_argnums=0)
    for value in (1.0, 0.0):
        gates = jnp.full(size, value)
        _, found = run(CONFIG, whole.params, asked.tokens, gates, held, asked.positions)
        last = len(found.blocks()) - 2  # of the last layer only what the answer reads is known
        for number, own in enumerate(found.blocks()):
            apart = np.asarray(clean.blocks()[number] - held.blocks()[number])
            apart = apart * (value == 1 or number == 0)
            places = slice(6, 7) if number >= last else slice(None)
            np.testing.assert_allclose(own[:, :, places], apart[:, :, places], atol=2e-4)


def test_a_circuit_measures_what_it_does_in_the_reference():
    problem, circuit = make(), reference()["circuit"]
    kept = set(circuit["kept"])
    names = of_benchmark(problem, np.arange(problem.whole.num_gates))
    opened = np.isin(np.arange(problem.whole.num_gates), [names[name] for name in kept])
    odds = answers(problem.whole, problem.batches, problem.test, [opened]).odds
    assert odds.mean() == pytest.approx(circuit["value"], abs=1e-4)


def test_signs():
    gain = np.array([-2.0, 0.0, 1.0])
    assert [list(signed(gain, s)) for s in ("absolute", "signed", "positive")] == [
        [2, 0, 1], [-2, 0, 1], [0, 0, 1],
    ]  # fmt: skip


def test_synonyms_are_one_ranking():
    assert Baseline("eap") == Baseline("attribution")
    assert Choices(ranking="eap", warm_start="eap").to_dict()["ranking"] == "attribution"
    own = Baseline("eap_ig_inputs", sign="signed", attribute_to="odds").to_dict()
    assert own == {
        "ranking": "eap_ig_inputs", "items": 512, "points": 5, "sign": "signed",
        "attribute_to": "odds",
    }  # fmt: skip
    assert set(Baseline("gim").to_dict()) == {"ranking", "items"}


def test_nodes_have_corrected_gains_too():
    problem = make("nodes")
    found = gains(problem, problem.test, "gim")
    assert found.shape == (problem.whole.num_gates,)
    assert np.isfinite(found).all()
    assert not np.allclose(found, gains(problem, problem.test, "attribution"), rtol=1e-2)


def test_what_is_taken_from_the_logits_backwards_is_connected():
    problem = make()
    graph = residual_graph(CONFIG)
    scores = np.random.default_rng(5).normal(size=graph.num_edges)
    ranked = connected(problem, rank_scores(problem, scores, 0), 0)
    assert sorted(ranked.ranks) == list(range(graph.num_edges))
    exists = problem.whole.exists()
    assert ranked.ranks[exists].max() < exists.sum()  # what cannot matter comes last
    taken: set[str] = {"logits"}
    order = np.argsort(ranked.ranks)[: exists.sum()]
    for number, edge in enumerate(order):
        owners = [graph.writers[w] for w in graph.feeds[graph.targets[edge]]] or ["logits"]
        assert taken & set(owners)
        # Of all that could have been taken then, it is the best.
        later = [
            e for e in order[number:]
            if taken & set([graph.writers[w] for w in graph.feeds[graph.targets[e]]] or ["logits"])
        ]  # fmt: skip
        assert scores[edge] == max(scores[later])
        taken.add(graph.writers[graph.sources[edge]])


def test_edges_into_shared_keys_are_taken_once():
    """They come within reach with the first of the heads that share them."""
    shared = dataclasses.replace(CONFIG, num_heads=4, d_head=3, num_kv_heads=2)
    graph = residual_graph(shared)
    order = connected_order(graph, np.zeros(graph.num_edges), np.arange(graph.num_edges))
    assert sorted(order) == list(range(graph.num_edges))
    taken: set[int] = {len(graph.writers)}
    for edge in order:
        assert taken & set(graph.feeds[graph.targets[edge]] or [len(graph.writers)])
        taken.add(int(graph.sources[edge]))
