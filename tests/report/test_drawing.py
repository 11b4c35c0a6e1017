"""The picture of a circuit: labels keep clear of nodes, and a large circuit is a table of counts."""

from collections import Counter

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.report import drawing
from circuitjax.report.circuit_summary import kept_table, stream_table
from circuitjax.report.drawing import circuit_figure, draw_circuit
from tests.audit.planted_audit import mask_of
from tests.prune.planted import CONFIG, planted_model
from tests.report.viewer_pages import planted_circuit


def random_circuit(share: float) -> Circuit:
    """Nodes of the planted model, each kept with a probability."""
    rng = np.random.default_rng(0)
    mask = {site: rng.random(m.shape) < share for site, m in mask_of(()).items()}
    return planted_circuit().changed(planted_model(), {"mask": mask})


def edges_circuit(share: float) -> Circuit:
    """Residual edges of the planted model, each kept with a probability."""
    kept = np.random.default_rng(0).random(residual_graph(CONFIG).num_edges) < share
    return Circuit.of(planted_model(), "edges", {"kept": kept}, ablation="interchange")


@pytest.mark.parametrize(("make", "share"), [(random_circuit, 0.4), (edges_circuit, 1.0)])
def test_labels_lie_on_no_node_and_on_no_other_label(make, share, monkeypatch):
    monkeypatch.setattr(drawing, "_LINES", 10**6)
    circuit = make(share)
    figure = circuit_figure(planted_model(), circuit)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    ends = np.array([line.get_xydata()[0] for line in axes.lines])
    assert len(ends) == circuit.num_nodes
    middles = axes.transData.transform(ends)
    half = 2 * figure.dpi / 72  # of a mark of four points
    boxes = np.array([text.get_window_extent(canvas.get_renderer()).extents for text in axes.texts])
    assert len(boxes) == len(ends)
    for i, (left, bottom, right, top) in enumerate(boxes):
        x, y = middles.T
        on = (x + half > left) & (x - half < right) & (y + half > bottom) & (y - half < top)
        assert not on.any()
        over = (boxes[:, 2] > left) & (boxes[:, 0] < right)
        over &= (boxes[:, 3] > bottom) & (boxes[:, 1] < top)
        assert np.flatnonzero(over).tolist() == [i]


def test_a_summary_counts_what_is_kept_by_layer_and_head():
    circuit = random_circuit(0.6)
    mask, per_head = circuit.opened["mask"], CONFIG.d_head
    rows, columns, counts = kept_table(CONFIG, describe(circuit, planted_model()))
    assert len(rows) == CONFIG.num_layers
    assert counts.sum() == circuit.num_nodes
    for layer in range(CONFIG.num_layers):
        for head in range(CONFIG.num_heads):
            own = slice(head * per_head, (head + 1) * per_head)
            want = sum(mask[f"attn.{name}"][layer, own].sum() for name in "qkv")
            assert counts[layer, columns.index(f"h{head}")] == want
        assert counts[layer, columns.index("neurons")] == mask["mlp.post_act"][layer].sum()
    stream = stream_table(CONFIG, describe(circuit, planted_model()))
    order = [(layer, kind) for layer in range(CONFIG.num_layers) for kind in ("attn", "mlp")]
    for i, (layer, kind) in enumerate(order):
        for j, (later, reader) in enumerate(order):
            both = mask[f"{kind}.resid_delta"][layer] & mask[f"{reader}.act_in"][later]
            assert stream.counts[i, j] == (both.sum() if j > i else 0)


def test_a_summary_of_residual_edges_counts_each_once_and_at_both_ends():
    circuit = edges_circuit(0.5)
    described = describe(circuit, planted_model())
    stream = stream_table(CONFIG, described)
    assert stream.counts.sum() == circuit.num_edges
    outside = stream.counts[0].sum() + stream.counts[:, -1].sum()
    assert kept_table(CONFIG, described).counts.sum() == 2 * circuit.num_edges - outside
    assert (np.tril(stream.counts[1:, :-1], -1) == 0).all()


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_an_edge_into_shared_keys_or_values_goes_to_each_of_their_query_heads(draw, share):
    config = draw.config(num_kv_heads=1)
    model = Model("shared", config, draw.params(config, np.random.default_rng(0)))
    graph = residual_graph(config)
    kept = np.random.default_rng(1).random(graph.num_edges) < share
    circuit = Circuit.of(model, "edges", {"kept": kept}, ablation="interchange")
    described = describe(circuit, model)
    expected: Counter = Counter()
    for name in np.array(graph.names)[circuit.opened["kept"]]:
        source, reader = name.split("->")
        part, _, port = reader.partition("<")
        layer = part.partition(".")[0]
        ends = [f"{layer}.h{h}" for h in range(config.num_heads)] if ".kv" in part else [part]
        expected.update((source, end, port.rstrip(">")) for end in ends)
    found = Counter((e["source"], e["target"], e.get("reader", "")) for e in described["edges"])
    assert found == expected
    names = {node["id"] for node in described["nodes"]}
    assert {end for edge in found for end in edge[:2]} <= names
    assert kept_table(config, described).counts.sum() > 0
    assert stream_table(config, described).counts.sum() == len(described["edges"])
    assert circuit_figure(model, circuit).axes


@pytest.mark.parametrize("make", [random_circuit, edges_circuit])
def test_a_large_circuit_is_drawn_as_its_summary(make, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "_NODES", 3)
    monkeypatch.setattr(drawing, "_LINES", 3)
    circuit = make(0.5)
    figure = circuit_figure(planted_model(), circuit, "a title")
    assert [len(axes.images) for axes in figure.axes] == [1, 1]
    numbers = sum(int(text.get_text()) for text in figure.axes[0].texts)
    assert numbers == kept_table(CONFIG, describe(circuit, planted_model())).counts.sum()
    draw_circuit(tmp_path / "circuit.png", planted_model(), circuit)
    assert [path.name for path in tmp_path.iterdir()] == ["circuit.png"]
