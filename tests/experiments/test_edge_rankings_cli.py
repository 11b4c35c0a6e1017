"""The command that compares rankings of edges: bad input is one line, before any work."""

import json
import shutil

import numpy as np
import pytest

import circuitjax as cj
from circuitjax.export.benchmark_file import scores_graph
from circuitjax.gated.grains import grain_named
from circuitjax.report.rankings import draw_curves, rankings_table
from circuitjax.run.directory import RANKINGS, claim
from circuitjax.run.search import asked_of
from circuitjax.zoo.load import load_model
from tests.experiments.drive import drive

CURVE = {
    "fractions": [0.001, 0.5, 1.0],
    "edges": [0, 40, 100],
    "faithfulness": [0.0, 0.5, 1.0],
    "cpr": 0.5,
    "cmd": 0.4,
}
RECORDS = [
    {
        "ranking": "learned",
        "cpu_seconds": 61.7,
        "peak_gib": 2.04,
        "curves": [{**CURVE, "sign": ""}],
    },
    {
        "ranking": "eap",
        "cpu_seconds": 3.2,
        "peak_gib": 1.0,
        "curves": [{**CURVE, "sign": "absolute"}, {**CURVE, "sign": "signed"}],
    },
]


def test_bad_input_is_one_line(tmp_path):
    # Flags stay as the call before left them: each names all that others change.
    plain = {
        "task": "while_return_true", "out": str(tmp_path / "out"), "rankings": "random", "points": 5,
        "ablation": "interchange", "warm_start": "none", "target_kl": 0.1,
    }  # fmt: skip
    cases = [
        ({"rankings": "magic"}, "--rankings holds 'magic'; choose from learned, random"),
        ({"rankings": "absent.json"}, "there is no file absent.json"),
        ({"points": 0}, "--points=0 must be at least 1"),
        ({"task": "nothing"}, "there is no task 'nothing'"),
        ({"target_kl": 0}, "--target_kl=0 must be above 0"),
        (
            {"rankings": "learned", "warm_start": "eap_ig_inputs", "ablation": "mean"},
            "ranking (or warm_start)=eap_ig_inputs without",
        ),
        (
            {"rankings": "eap_ig_inputs", "ablation": "mean"},
            "ranking (or warm_start)=eap_ig_inputs",
        ),
        ({"rankings": "learned", "warm_start": "magic"}, "warm_start is 'magic'; choose one"),
        ({"rankings": ""}, f"{tmp_path / 'out'} holds no ranking yet"),
        ({"rankings": "gim.json"}, "would be shown as our ranking 'gim': rename it"),
        ({"rankings": "EAP-IG-inputs.json"}, "there is no file EAP-IG-inputs.json"),
        ({"rankings": "random.json"}, "would be shown as our ranking 'random': rename it"),
        (
            {"rankings": "", "out": str(tmp_path / "foreign")},
            "holds files that are no comparison of rankings of ours, such as 'eap.json'",
        ),
        (
            {"rankings": "", "out": str(tmp_path / "other")},
            "other holds a comparison of rankings with another task",
        ),
    ]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "eap.json").write_text("{}")
    model, task = load_model("tiny-python"), cj.tasks.get("with_as")
    claim(RANKINGS, tmp_path / "other", asked_of(model, task))
    calls = [[f"--{name}={value}" for name, value in (plain | own).items()] for own, _ in cases]
    found = drive("edge_rankings", calls, cwd=tmp_path)
    for (code, _, err), (_, message) in zip(found, cases, strict=True):
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_ranking_is_shown_for_its_own_scores_alone(tmp_path):
    scores = tmp_path / "mine.json"
    config = load_model("tiny-python").config
    count = grain_named("edges").opened(config)["kept"].shape[0]
    graph = scores_graph(config, np.linspace(1.0, 0.0, count))
    scores.write_text(json.dumps(graph))
    asked = [
        *("--task=while_return_true", f"--out={tmp_path}/out", f"--rankings=random,{scores}"),
        *("--train_examples=16", "--test_examples=16"),
    ]
    first, again = drive("edge_rankings", [asked, asked], cwd=tmp_path)
    assert (first[0], again[0]) == (0, 0), first[2]
    assert "CPU seconds" in first[1]
    assert "CPU seconds" not in again[1]
    assert "mine absolute" in again[1]
    scores.write_text(json.dumps(scores_graph(config, np.linspace(0.0, 1.0, count))))
    (changed,) = drive("edge_rankings", [asked], cwd=tmp_path)
    assert changed[0] == 2
    assert "has a ranking 'mine' of other scores than" in changed[2]
    rankings = tmp_path / "out" / "rankings"
    shutil.copy(rankings / "mine.json", rankings / "random.json")
    (copied,) = drive("edge_rankings", [[*asked, "--rankings="]], cwd=tmp_path)
    assert copied[0] == 2
    assert "random.json was made for something else: remove it" in copied[2]


def test_the_table_and_the_figure_have_every_curve(tmp_path):
    text = rankings_table(RECORDS)
    assert all(name in text for name in ("eap absolute", "eap signed", "learned "))
    assert text.count("\n") == 4
    draw_curves(RECORDS, tmp_path / "faithfulness.png")
    assert (tmp_path / "faithfulness.png").stat().st_size > 1000
