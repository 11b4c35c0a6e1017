"""The uniqueness binary: bad input is one line; a planted model is counted, and shown again."""

import pytest

from circuitjax.core.records import open_sealed
from tests.experiments.drive import drive

BAD = {
    "no task": ([], "--task is missing"),
    "unknown task": (["--task=no_such"], "there is no task 'no_such'"),
    "none": (["--planted=one_way", "--num_circuits=0"], "--num_circuits=0 must be from 1 to 16"),
    "many": (["--planted=one_way", "--num_circuits=17"], "--num_circuits=17 must be from 1 to 16"),
    "a task besides": (["--planted=one_way", "--task=with_as"], "--task has no meaning"),
    "settings besides": (["--planted=one_way", "--steps=5"], "--steps has no meaning"),
    "seeds": (["--task=with_as", "--num_seeds=3"], "--num_seeds has no meaning"),
    "a size": (["--task=with_as", "--target_nodes=9"], "compared at equal loss"),
    "no training": (["--task=with_as", "--ranking=random"], "--ranking=random trains nothing"),
    "out of range": (["--task=with_as", "--lr=-1"], "lr is -1; it must be in"),
    "a place of a file": (["--planted=one_way", "--out=%s/file/below"], "lies below a file"),
    "a stray word": (["two_ways"], "unexpected argument 'two_ways'"),
}


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    calls = [[word.replace("%s", str(tmp_path)) for word in words] for words, _ in BAD.values()]
    for name, (code, _, err) in zip(BAD, drive("uniqueness", calls, tmp_path), strict=True):
        assert code == 2, (name, err)
        assert err.startswith("error: "), name
        assert err.count("\n") == 1, name
        assert BAD[name][1] in err, (name, err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_planted_model_is_counted_once(tmp_path):
    asked = ["--planted=two_ways", "--grain=edges", f"--out={tmp_path}/out"]
    other = [*asked, "--num_circuits=3"]
    first, again, changed = drive("uniqueness", [asked, asked, other], tmp_path)
    assert (first[0], again[0], changed[0]) == (0, 0, 2)
    assert "Mutually different circuits found: **2**" in first[1]
    assert "already finished" in again[1]
    assert "holds a comparison of circuits with another num_circuits" in changed[2]
    path = tmp_path / "out" / "uniqueness.json"
    record = open_sealed(path, "circuitjax-uniqueness-2")
    assert (record["count"], record["target"]) == (2, 0.1)
    text = tmp_path / "out" / "uniqueness.md"
    written = text.read_text()
    text.write_text(written.replace("**2**", "**7**"))
    (third,) = drive("uniqueness", [asked], tmp_path)
    assert "found: **2**" in third[1]
    assert text.read_text() == written
    path.write_text(path.read_text().replace('"count": 2', '"count": 3'))
    (damaged,) = drive("uniqueness", [asked], tmp_path)
    assert damaged[0] == 2
    assert "was changed after it was written" in damaged[2]
    assert "--overwrite finds them anew" in damaged[2]
