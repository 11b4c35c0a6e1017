"""The ground-truth binary: bad input is one line; a program without a circuit is a row."""

import pytest

from tests.experiments.drive import drive

BAD = {
    "no seed": (["--num_seeds=0"], "--num_seeds=0 must be at least 1"),
    "model seed": (["--model_seed=-1"], "--model_seed=-1 must be at least 0"),
    "unknown program": (
        ["--programs=constant,no_such"],
        "--programs has 'no_such', which is no file",
    ),
    "unknown grain": (["--grains=atoms"], "--grains has 'atoms'; choose from"),
    "unknown ablation": (["--program_ablations=noise"], "--program_ablations has 'noise'"),
    "no grain": (["--grains="], "--grains is empty"),
    "no grain of programs": (["--programs=all", "--program_grains="], "--program_grains is empty"),
    "a place of a file": (["--out=%s/file/below"], "lies below a file"),
    "a stray word": (["constant"], "unexpected argument 'constant'"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    root = tmp_path_factory.mktemp("truth")
    (root / "file").write_text("")
    calls = [[word.replace("%s", str(root)) for word in words] for words, _ in BAD.values()]
    good = ["--planted=false", "--programs=constant", "--program_ablations=interchange"]
    calls.append([*good, "--num_seeds=2", f"--out={root}/table.md"])
    return dict(zip([*BAD, "good"], drive("ground_truth", calls, root), strict=True)), root


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(outcomes, name):
    code, _, err = outcomes[0][name]
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert BAD[name][1] in err


def test_a_program_without_a_circuit_is_a_row(outcomes):
    code, out, err = outcomes[0]["good"]
    assert code == 0, err
    text = (outcomes[1] / "table.md").read_text()
    assert text in out
    (row,) = [line for line in text.splitlines() if "constant" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:7] == ["constant", "edges", "interchange", "0", "23", "1", "2/2"]
    assert cells[9:12] == ["-", "-", "-"]
    assert cells[-1] == "nothing to find, found nothing"
