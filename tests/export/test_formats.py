"""Exports: other programs read them, what they read is the circuit, and no string breaks out."""

import itertools
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import jsonschema
import networkx as nx
import numpy as np
import pydot
import pytest
import tokenizers

from circuitjax.circuit.circuit import Circuit
from circuitjax.circuit.description import describe, json_schema
from circuitjax.export.formats import FORMATS, export_circuit
from circuitjax.export.graph_files import to_networkx, visible
from circuitjax.model.config import ALL_SITES
from circuitjax.model.families import FAMILIES
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import shapes
from circuitjax.tasks.tokenizer import BOS

HOSTILE = (
    *(BOS, "'\"", "</script><b>", "\x00\x1b[31m", "\x85\ufffe", "a&amp;b", "back\\slash\\n"),
    *("new\nline\r", "]]>{}|;", "日本🙂"),
)


@pytest.fixture(scope="module")
def model(draw):
    config = draw.config(attention_sinks=True)
    words = tokenizers.models.WordLevel({text: i for i, text in enumerate(HOSTILE)}, unk_token=BOS)
    made = tokenizers.Tokenizer(words)
    params = draw.params(config, np.random.default_rng(0))
    return Model('ti"ny</script>\x07', config, params, made.to_str())


@pytest.fixture(scope="module")
def circuits(draw, model):
    rng = np.random.default_rng(1)
    config = model.config
    mask, fills = draw.mask(config, rng, 0.6), draw.fills(config, rng)
    facts = {"task": "quotes \"'</script>\x00", "made": {"by": ["\ud800", None, 1.5]}}
    weights = {family.name: rng.random(family.shape(config)) < 0.8 for family in FAMILIES}
    kept = rng.random(residual_graph(config).num_edges) < 0.4
    common = {"scale": 1.5, "provenance": facts}
    return {
        "nodes": Circuit.of(model, "nodes", {"mask": mask}, held=fills, **common),
        "weights": Circuit.of(
            model, "weights", {"mask": mask, "weights": weights}, held=fills, **common
        ),
        "edges": Circuit.of(model, "edges", {"kept": kept}, ablation="interchange", **common),
    }


KINDS = pytest.mark.parametrize("kind", ["nodes", "weights", "edges"])


def names_of(circuit: Circuit) -> list[str]:
    """`writer->reader` of a circuit of residual edges."""
    return [f"{source}->{target}" for source, target, _ in circuit.edges()]


def links(circuit: Circuit) -> set[tuple[str, str]]:
    """(write, read) of a channel where the read comes later, by trying all pairs."""
    place = {name: i for i, name in enumerate(circuit.nodes())}
    return {
        (write, read)
        for write, read in itertools.product(place, place)
        if "resid_delta" in write
        and "act_in" in read
        and write.split(".")[-1] == read.split(".")[-1]
        and place[write] < place[read]
    }


@KINDS
def test_the_json_is_of_its_schema_and_says_what_the_circuit_is(circuits, model, tmp_path, kind):
    circuit = circuits[kind]
    jsonschema.Draft202012Validator.check_schema(json_schema())
    (path,) = export_circuit(circuit, model, ["json"], tmp_path)
    text = path.read_text("ascii")
    assert "<" not in text
    found = json.loads(text)
    jsonschema.validate(found, json_schema())
    assert (found["grain"], found["ablation"]) == (kind, circuit.ablation)
    assert found["model"]["name"] == model.name
    assert found["provenance"] == circuit.provenance
    assert found["task"] == circuit.provenance["task"]
    assert [node["id"] for node in found["nodes"]] == circuit.nodes()
    if kind == "edges":
        parts = [(e["source"], e["target"], e.get("reader")) for e in found["edges"]]
        named = [f"{s}->{t}<{r}>" if r else f"{s}->{t}" for s, t, r in parts]
        assert named == names_of(circuit)
        assert found["counts"]["edges"] == circuit.num_edges
        return
    weights = [e for e in found["edges"] if e["kind"] == "weight"]
    assert [(e["source"], e["target"], e["weight"]) for e in weights] == circuit.edges()
    assert found["counts"]["edges"] == len(weights) > 0
    streams = [(e["source"], e["target"]) for e in found["edges"] if e["kind"] == "residual"]
    assert len(streams) == len(set(streams)) > 0
    assert set(streams) == links(circuit)


def test_nearest_tokens_are_the_largest_weights_of_the_channel(circuits, model):
    embed, unembed = model.params["embed"], model.params["unembed"]
    seen = set()
    for node in describe(circuits["nodes"], model)["nodes"]:
        tokens = node["tokens"]
        if node["site"].endswith(("act_in", "resid_delta")):
            read = node["site"].endswith("act_in")
            column = embed[:, node["index"]] if read else unembed[node["index"]]
            weights = [abs(token["weight"]) for token in tokens]
            assert weights == sorted(weights, reverse=True)
            for token in tokens:
                assert token["weight"] == pytest.approx(float(column[token["id"]]))
                assert token["text"] == HOSTILE[token["id"]]
                seen.add(token["text"])
            known = np.abs(column[: len(HOSTILE)])
            left_out = np.delete(known, [token["id"] for token in tokens])
            assert len(tokens) == 5 or np.count_nonzero(left_out) == 0
            assert not weights or np.all(left_out <= weights[-1])
        else:
            assert tokens == []
    assert seen == set(HOSTILE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("counts"),
        lambda d: d["nodes"].clear(),
        lambda d: d["nodes"][0].update(colour="red"),
        lambda d: d["nodes"][0].update(site="mlp.resid"),
        lambda d: d["edges"][0].pop("weight"),
        lambda d: d["edges"][0].update(weight=0),
        lambda d: d["edges"][-1].update(weight=1.0),
        lambda d: d.update(grain="edges"),
        lambda d: d.update(ablation="noise"),
        lambda d: d.pop("ablation"),
        lambda d: d["calibration"].update(scale=-1),
        lambda d: d["model"].update(hash="0"),
    ],
)
def test_the_schema_refuses_another_document(circuits, model, spoil):
    document = json.loads(json.dumps(describe(circuits["nodes"], model)))
    jsonschema.validate(document, json_schema())
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema())


@KINDS
def test_networkx_reads_the_graphml(circuits, model, tmp_path, kind):
    (path,) = export_circuit(circuits[kind], model, ["graphml"], tmp_path)
    ElementTree.parse(path)  # no character that XML cannot hold
    found = nx.read_graphml(path, force_multigraph=True)
    expected = to_networkx(describe(circuits[kind], model))
    assert dict(found.nodes(data=True)) == dict(expected.nodes(data=True))
    assert sorted(map(repr, found.edges(data=True))) == sorted(map(repr, expected.edges(data=True)))
    assert found.graph["task"] == visible(circuits[kind].provenance["task"])
    assert found.graph["model"] == 'ti"ny</script>\\u0007'
    if kind == "nodes":
        # Every counted edge is there, and along weights and streams information only goes forward.
        weighted = [e for *_, e in found.edges(data=True) if e["kind"] == "weight"]
        assert len(weighted) == len(circuits[kind].edges())
        assert nx.is_directed_acyclic_graph(found)


def test_only_what_xml_cannot_hold_is_spelled_out():
    assert visible('plain 日本🙂 \t\n"<&>\\') == 'plain 日本🙂 \t\n"<&>\\'
    assert visible("\x00\x1b\r\x7f\x85") == "\\u0000\\u001b\\u000d\\u007f\\u0085"
    assert visible("\ud800\ufffe\uffff") == "\\ud800\\ufffe\\uffff"


@pytest.mark.filterwarnings("ignore:.*deprecated")  # pydot's own way of using its parser
@KINDS
def test_dot_is_read_back(circuits, model, tmp_path, kind):
    (path,) = export_circuit(circuits[kind], model, ["dot"], tmp_path)
    (graph,) = pydot.graph_from_dot_data(path.read_text("utf-8"))
    parts = [graph, *graph.get_subgraphs()]
    names = {
        node.get_name().strip('"')
        for part in parts
        for node in part.get_nodes()
        if node.get_name() not in ("node", '"\\n"')
    }
    assert names == set(circuits[kind].nodes())
    described = describe(circuits[kind], model)
    edges = sorted(
        (e.get_source().strip('"'), e.get_destination().strip('"')) for e in graph.get_edges()
    )
    assert edges == sorted((e["source"], e["target"]) for e in described["edges"])


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@KINDS
def test_graphviz_lays_it_out_and_shows_every_string(circuits, model, tmp_path, kind):
    (path,) = export_circuit(circuits[kind], model, ["dot"], tmp_path)
    command = ["dot", "-Tsvg", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    svg = ElementTree.fromstring(done.stdout)
    texts = {
        "".join(element.itertext()) for element in svg.iter("{http://www.w3.org/2000/svg}text")
    }
    assert set(circuits[kind].nodes()) <= texts
    task = visible(circuits[kind].provenance["task"])
    assert f"{task} on {visible(model.name)}" in texts
    assert not list(svg.iter("{http://www.w3.org/2000/svg}script"))
    if kind == "nodes":
        titles = {e.get("{http://www.w3.org/1999/xlink}title") or "" for e in svg.iter()}
        shown = " ".join(titles)
        for token in ("'\"", "</script><b>", "\\u0000\\u001b[31m", "a&amp;b", "日本🙂", "]]>{}|;"):
            assert token in shown


def test_the_benchmark_graph_of_residual_edges(circuits, model, tmp_path):
    circuit = circuits["edges"]
    (path,) = export_circuit(circuit, model, ["benchmark"], tmp_path)
    found = json.loads(path.read_text())
    config = model.config
    assert found["cfg"] == {
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "parallel_attn_mlp": False,
        "d_model": config.d_model,
    }
    kept = {e.replace("embed->", "input->").replace("pos->", "input->") for e in names_of(circuit)}
    kept = {e.replace("<in>", "") for e in kept}
    assert {name for name, edge in found["edges"].items() if edge["in_graph"]} == kept
    assert {name for name, edge in found["edges"].items() if edge["score"] > 0} == kept
    # Without position edges: 2 layers of 2 heads read 1 and then 4 writers, MLPs 3 and 6, logits 7.
    assert len(found["edges"]) == 3 * 2 * 1 + 3 + 3 * 2 * 4 + 6 + 7
    assert list(found["nodes"]) == [
        "input",
        "a0.h0",
        "a0.h1",
        "m0",
        "a1.h0",
        "a1.h1",
        "m1",
        "logits",
    ]


@pytest.mark.parametrize("kind", ["nodes", "weights"])
def test_the_benchmark_graph_sums_channels_up(circuits, model, tmp_path, kind):
    """By the list of edges: which component writes and reads which channel how strongly."""
    circuit = circuits[kind]
    (path,) = export_circuit(circuit, model, ["benchmark"], tmp_path)
    found = json.loads(path.read_text())["edges"]
    writes, reads = {}, {}
    for source, target, weight in circuit.edges():
        layer, block = source.split(".")[:2]
        if "resid_delta" in target:
            head = source.split(".")[3] if block == "attn" else ""
            writer = f"a{layer}.{head}" if head else f"m{layer}"
            key = (writer, int(target.split(".")[-1]))
            writes[key] = writes.get(key, 0) + weight**2
        else:
            head = f".{target.split('.')[3]}<{target.split('.')[2]}>" if block == "attn" else ""
            reader = f"a{layer}{head}" if head else f"m{layer}"
            key = (reader, int(source.split(".")[-1]))
            reads[key] = reads.get(key, 0) + weight**2
    channels, vocabulary = range(model.config.d_model), model.config.vocab_size
    embed, places = (np.asarray(model.params[name], np.float64) for name in ("embed", "positions"))
    for c in channels:
        mean = (embed[:, c] ** 2).mean() + (places[:, c] ** 2).mean()
        writes["input", c] = mean
        reads["logits", c] = (np.asarray(model.params["unembed"], float)[c] ** 2).sum() / vocabulary
    strong = 0
    for name, edge in found.items():
        writer, reader = name.split("->")
        score = sum(
            np.sqrt(writes.get((writer, c), 0)) * np.sqrt(reads.get((reader, c), 0))
            for c in channels
        )
        assert edge["score"] == pytest.approx(score, rel=1e-5)
        assert edge["in_graph"] == (score > 0 or name == "input->logits")
        strong += score > 0
    assert 7 < strong < len(found)


def test_what_cannot_be_exported_is_one_line_and_writes_nothing(circuits, model, tmp_path, draw):
    nodes, edges = circuits["nodes"], circuits["edges"]
    empty = {site: np.zeros(shape, bool) for site, shape in shapes(model.config).items()}
    resampled = nodes.changed(model, nodes.opened, ablation="resample", held=None)
    other = Model("other", model.config, draw.params(model.config, np.random.default_rng(9)))
    bad = [
        ((nodes, model, ["svg"]), "there is no format 'svg'; choose from json, graphml"),
        ((nodes, model, []), "no format is given"),
        ((nodes, other, ["json"]), "not of 'other' with hash"),
        ((edges, other, ["benchmark"]), "not of 'other' with hash"),
        ((edges, model, ["json", "viewer"]), "not of residual edges"),
        ((nodes.changed(model, {"mask": empty}), model, ["dot"]), "is empty"),
        (
            (edges.changed(model, {"kept": edges.opened["kept"] & False}), model, ["json"]),
            "is empty",
        ),
        ((resampled, model, ["viewer"]), "not for resample"),
    ]
    for arguments, message in bad:
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as raised:
            export_circuit(*arguments, tmp_path / "out")
        assert message in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_formats_are_those_of_the_documentation():
    assert FORMATS == ("json", "graphml", "dot", "benchmark", "viewer")
    assert len(ALL_SITES) == len(json_schema()["$defs"]["node"]["properties"]["site"]["enum"])
