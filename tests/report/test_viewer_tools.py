"""What a page says beside a circuit: another one, the reader's groups, scores taken apart by channel."""

import base64
import dataclasses
import json

import jax
import numpy as np
import pytest

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.rotary import Rotary
from circuitjax.model.transformer import init_params
from circuitjax.report.viewer.compare import compared
from circuitjax.report.viewer.groups import Group, read_groups, write_groups
from circuitjax.report.viewer.prompts import attention
from tests.audit.planted_audit import mask_of
from tests.prune.planted import CONFIG, PLANTED, planted_model, planted_problem
from tests.report.viewer_pages import EXTRA, planted_circuit


def test_two_circuits_share_what_both_keep():
    one, other = planted_circuit(), planted_circuit((*PLANTED[1:], "1.mlp.act_in.9"))
    found = compared(one, other)
    assert found["nodes"] == [len(PLANTED) - 1, 1 + len(EXTRA), 1]
    assert found["missing"] == ["1.mlp.act_in.9"]
    assert {one.nodes()[place] for place in found["shared"]} == set(PLANTED[1:])
    both = {edge[:2] for edge in one.edges()} & {edge[:2] for edge in other.edges()}
    assert found["edges"][0] == len(both)
    assert found["edges"][0] + found["edges"][1] == one.num_edges
    assert found["edges"][0] + found["edges"][2] == other.num_edges
    assert compared(one, one)["nodes"] == [one.num_nodes, 0, 0]


def test_circuits_that_cannot_be_compared_are_refused():
    foreign = Circuit.of(
        planted_model(2.0, "other"), "nodes", {"mask": mask_of(PLANTED)}, ablation="resample"
    )
    with pytest.raises(ValueError, match="compare circuits of one model"):
        compared(planted_circuit(), foreign)
    kept = np.ones(residual_graph(CONFIG).num_edges, bool)
    edges = Circuit.of(planted_model(), "edges", {"kept": kept}, ablation="interchange")
    with pytest.raises(ValueError, match="is of grain edges and this one of nodes"):
        compared(planted_circuit(), edges)


def test_groups_come_back(tmp_path):
    circuit, path = planted_circuit(), tmp_path / "groups.json"
    groups = (Group("reads", PLANTED[:2]), Group('a "b" <c>', PLANTED[3:4]))
    write_groups(path, circuit, groups)
    assert read_groups(path, circuit) == groups


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([], "holds a JSON list; it must be an object"),
        ({"format": "circuitjax-groups-9"}, "format is 'circuitjax-groups-9'; it must be"),
        ({"circuit": "0" * 64}, "save groups from this circuit's page"),
        ({"circuit": None}, "save groups from this circuit's page"),
        ({"groups": {}}, "groups must be a list of at most 200"),
        ({"groups": [{"name": "a", "nodes": []}] * 201}, "groups must be a list of at most 200"),
        ({"groups": [[]]}, r"groups\[0\] is \[\]; it must be an object of name and nodes"),
        ({"groups": [{"name": " ", "nodes": []}]}, "name is ' '; it must have 1 to 80 characters"),
        ({"groups": [{"name": "a" * 81, "nodes": []}]}, "it must have 1 to 80 characters"),
        ({"groups": [{"name": "a", "nodes": [7]}]}, "it must be a list of nodes' names"),
        ({"groups": [{"name": "a", "nodes": ["0.attn.q.h0.c0"]}]}, "is no node of this circuit"),
        ({"groups": [{"name": "a", "nodes": [PLANTED[0]] * 2}]}, "is named twice"),
    ],
)
def test_groups_that_cannot_be_are_refused_by_file(change, words, tmp_path):
    circuit, path = planted_circuit(), tmp_path / "groups.json"
    write_groups(path, circuit, ())
    fields = {**json.loads(path.read_text()), **change} if isinstance(change, dict) else change
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=words) as refused:
        read_groups(path, circuit)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def looked(**changes):
    """Attention of a random model, every head of it kept."""
    config = dataclasses.replace(CONFIG, **changes)
    params = init_params(jax.random.key(1), config)
    model = dataclasses.replace(planted_model(), config=config, params=params, means=None)
    mask = mask_of(()) | {"attn.q": np.ones((2, config.num_heads * config.d_head), bool)}
    width = config.kv_heads * config.d_head
    for site in ("attn.k", "attn.v"):
        mask[site] = np.zeros((2, width), bool)
    circuit = Circuit.of(model, "nodes", {"mask": mask}, ablation="resample")
    pairs = planted_problem().test.first(2).as_pairs().on_host()
    return attention(circuit, model, None, pairs, set())


def unpacked(packed):
    kinds = {"u1": np.uint8, "i1": np.int8}
    raw = np.frombuffer(base64.b64decode(packed["base64"]), kinds[packed["type"]])
    values = raw.reshape(packed["shape"]).astype(float)
    return (
        values * np.array(packed["scale"])[:, None, None, None] / 127
        if "scale" in packed
        else values
    )


@pytest.mark.parametrize("changes", [{}, {"num_kv_heads": 1}])
def test_products_of_channels_make_the_pattern(changes):
    """softmax over the keys seen of scale * sum_c q_c k_c is what each head looks at."""
    found = looked(**changes)
    products, pattern = found["products"], unpacked(found["model"]) / 255
    q, k = (unpacked(products["model"][name]) for name in "qk")
    assert q.shape == k.shape == (4, 2, len(found["tokens"][0]), CONFIG.d_head)
    scores = products["scale"] * np.einsum("hbqc,hbkc->hbqk", q, k)
    scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    want = weights / weights.sum(axis=-1, keepdims=True)
    assert np.ptp(pattern[..., -1, :]) > 0.2  # the heads do look somewhere
    np.testing.assert_allclose(pattern, want, atol=0.04)


def test_scores_that_are_no_sum_over_channels_are_not_taken_apart():
    found = looked(position="rotary", rotary=Rotary(8, 10000.0))
    assert found["products"] is None
    assert "positions turn its queries and keys" in found["why_no_products"]
