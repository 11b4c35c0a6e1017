"""The import binary: a model directory that loads, the same again, and nothing overwritten."""

import dataclasses
import pathlib

import numpy as np

from circuitjax.importers.openai import import_openai
from circuitjax.importers.snapshot import import_snapshot
from circuitjax.importers.tracr import load_tracr
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.zoo.load import load_model
from tests.experiments.drive import ROOT, drive

FIXTURES = ROOT / "tests" / "importers"
GPT2 = ["--from=gpt2", f"--path={FIXTURES / 'gpt2' / 'plain'}"]
OPENAI = ["--from=openai", f"--path={FIXTURES / 'openai' / 'sink'}"]
TRACR = ["--from=tracr", f"--path={FIXTURES / 'tracr' / 'reverse.npz'}"]

# name: (arguments, what the message says)
BAD = {
    "foreign folder": ([*GPT2, "--out=foreign"], "--out=%s/foreign holds something that is no"),
    "a file": ([*GPT2, "--out=foreign/notes.txt"], "notes.txt is a file: choose another --out"),
    "in a file": ([*GPT2, "--out=foreign/notes.txt/x"], "lies below a file"),
    "another model": ([*TRACR, "--out=mine"], "holds another model, 'mine'"),
    "another name": ([*GPT2, "--name=other", "--out=mine"], "holds another model, 'mine'"),
    "broken model": ([*GPT2, "--out=broken"], "holds no readable model"),
    "empty name": ([*GPT2, "--name=", "--out=x"], "--name is empty"),
    "no snapshot": (["--from=gpt2", "--path=none", "--out=x"], "there is no folder none"),
    "no program": (["--from=tracr", "--path=none.npz", "--out=x"], "there is no file none.json"),
    "no released model": (["--from=openai", "--path=none", "--out=x"], "there is no folder none"),
    "no tokenizer": (
        [*OPENAI, "--tokenizer=none", "--out=x"],
        "there is no file none/encoder.json",
    ),
    "no use": (
        [*GPT2, "--tokenizer=none", "--out=x"],
        "--tokenizer=none has no effect with --from=gpt2",
    ),
    "no bos": ([*TRACR, "--bos=x", "--out=x"], "--bos=x has no effect with --from=tracr"),
    "unknown bos": ([*GPT2, "--bos=<s>", "--out=x"], "has no token '<s>' to begin a text with"),
    "no gguf": (["--from=gguf", "--path=none", "--out=x"], "there is no file none"),
    "stray": ([*GPT2, "--out=x", "stray"], "unexpected argument 'stray'"),
}


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_import_again_and_leave_the_foreign_alone(tmp_path):
    means_of = import_snapshot(FIXTURES / "gpt2" / "plain", name="mine")
    means = {site: np.ones(shape, np.float32) for site, shape in shapes(means_of.config).items()}
    dataclasses.replace(means_of, means=means).save(tmp_path / "mine")
    for name in ("foreign", "broken", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "broken" / "model.json").write_text("{")
    (tmp_path / ".new.importing").mkdir()  # what an interrupted run leaves
    (tmp_path / ".new.importing" / "tokenizer.json").write_text("{")
    before = content(tmp_path)

    good = [
        [*GPT2, "--out=new/"],
        [*GPT2, "--out=new"],
        [*GPT2, "--name=mine", "--out=mine"],
        [*TRACR, "--out=empty"],
        [*TRACR, "--name=r", "--out=deep/down"],
        OPENAI,
        [*OPENAI, "--out=models/sink"],
    ]
    rows = drive("import_model", good + [arguments for arguments, _ in BAD.values()], tmp_path)
    outputs = [out for code, out, err in rows[: len(good)] if (code, err) == (0, "")]
    assert len(outputs) == len(good), rows
    for out in outputs:  # what was made, and what one may do with it
        said, *following = out.splitlines()
        assert not said.startswith("  next: ")
        assert [line.split()[:3] for line in following] == [
            ["next:", "circuitjax", "prune"],
            ["next:", "circuitjax", "means"],
        ]
    assert outputs[0].startswith(
        "new/: plain, 2 layers of 2 heads and 64 neurons, 16 channels, 284"
    )
    assert ["already there" in out for out in outputs] == [
        False,
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    for (code, out, err), (_, message) in zip(rows[len(good) :], BAD.values(), strict=True):
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert (message.replace("%s", str(tmp_path))) in err

    snapshot = import_snapshot(FIXTURES / "gpt2" / "plain")
    imported = load_model(tmp_path / "new")
    assert (imported.name, imported.hash) == ("plain", snapshot.hash)
    assert imported.tokenizer_json == snapshot.tokenizer_json
    assert (
        load_model(tmp_path / "empty").hash == load_tracr(FIXTURES / "tracr" / "reverse").model.hash
    )
    assert load_model(tmp_path / "deep" / "down").name == "r"
    released = import_openai(FIXTURES / "openai" / "sink")
    assert load_model(tmp_path / "models" / "sink").hash == released.hash
    assert Model.load(tmp_path / "mine").means is not None  # means computed later are kept
    after = content(tmp_path)
    kept = {name: text for name, text in before.items() if ".importing" not in name}
    assert {name: after[name] for name in kept} == kept
    assert not [name for name in after if ".importing" in name]
    assert not (tmp_path / "x").exists()


def test_an_unknown_kind_is_told_the_known_ones(tmp_path):
    ((code, _, err),) = drive("import_model", [["--from=bert", "--path=x", "--out=y"]], tmp_path)
    assert code == 2
    assert "value should be one of <snapshot|gguf|gpt2|" in err
