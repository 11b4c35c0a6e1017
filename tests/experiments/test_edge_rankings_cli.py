"""The command that compares rankings of edges: bad input is one line, before any work."""

import json

from circuitjax.core.records import seal
from circuitjax.report.rankings import draw_curves, rankings_table
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
        "ablation": "interchange", "warm_start": "none",
    }  # fmt: skip
    cases = [
        ({"rankings": "magic"}, "--rankings holds 'magic'; choose from learned, random"),
        ({"rankings": "absent.json"}, "there is no file absent.json"),
        ({"points": 0}, "--points=0 must be at least 1"),
        ({"task": "nothing"}, "there is no task 'nothing'"),
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
        ({"rankings": "", "out": str(tmp_path / "list")}, "eap.json holds a JSON list"),
        ({"rankings": "", "out": str(tmp_path / "foreign")}, "eap.json: its format is None, not"),
        (
            {"rankings": "", "out": str(tmp_path / "other")},
            "eap.json is a ranking with another task",
        ),
    ]
    model = load_model("tiny-python").hash
    asked = {"model": model, "task": "another", "pool": None}
    record = {"format": "circuitjax-ranking-1", "identity": asked, **RECORDS[1]}
    for name, held in (("list", []), ("foreign", {}), ("other", seal(record))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "eap.json").write_text(json.dumps(held))
    calls = [[f"--{name}={value}" for name, value in (plain | own).items()] for own, _ in cases]
    found = drive("edge_rankings", calls, cwd=tmp_path)
    for (code, _, err), (_, message) in zip(found, cases, strict=True):
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_table_and_the_figure_have_every_curve(tmp_path):
    text = rankings_table(RECORDS)
    assert all(name in text for name in ("eap absolute", "eap signed", "learned "))
    assert text.count("\n") == 4
    draw_curves(RECORDS, tmp_path / "faithfulness.png")
    assert (tmp_path / "faithfulness.png").stat().st_size > 1000
