"""Compiled programs say what their meaning in plain Python says, and are read back from their files."""

import jax
import numpy as np
import pytest

from circuitjax.benchmarks.compiler import BOS, Compiler, write_source
from circuitjax.benchmarks.ground_truth import tracr_edges, tracr_runs
from circuitjax.benchmarks.programs import PROGRAMS, meanings
from circuitjax.importers.tracr import load_tracr
from circuitjax.model.transformer import apply

FASTEST = "neighbours"
NAMES = [pytest.param(name, marks=[] if name == FASTEST else pytest.mark.slow) for name in PROGRAMS]


def said(source):
    """Of every recorded input, what the network says and what the program means."""
    words = {index: word for word, index in source.fields["encoding"].items()}
    say = meanings()[source.fields["name"]]
    for row, decoded in zip(source.arrays["tokens"], source.fields["decoded"], strict=True):
        assert (words[int(row[0])], decoded[0]) == (BOS, BOS)
        yield decoded[1:], say([words[int(i)] for i in row[1:]])


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_network_says_is_what_its_program_means(name, seed):
    source = PROGRAMS[name](seed)
    assert source.arrays["tokens"].shape[0] == 64
    for found, meant in said(source):
        assert found == meant


def test_the_kinds_are_what_they_are_said_to_be():
    kinds = {
        name: {answer for row, _ in said(PROGRAMS[name](0)) for answer in row} for name in PROGRAMS
    }
    assert kinds["constant"] == {"yes"}
    assert kinds["brackets"] == {"no"}
    assert sum("hit" in row for row, _ in said(PROGRAMS["rare"](0))) == 3
    sizes = {name: PROGRAMS[name](0).fields for name in PROGRAMS}
    assert [sizes[name]["num_layers"] for name in ("brackets", "pointers", "parity")] == [8, 8, 6]
    assert [sizes[name]["num_heads"] for name in ("brackets", "rare", "neighbours")] == [2, 2, 4]


def test_a_seed_draws_inputs_and_nothing_else():
    one, same, other = (PROGRAMS["parity"](seed) for seed in (0, 0, 1))
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, same.arrays[name])
        if name not in ("tokens", "final_residual"):
            np.testing.assert_array_equal(array, other.arrays[name])
    assert not np.array_equal(one.arrays["tokens"], other.arrays["tokens"])


@pytest.mark.parametrize("name", NAMES)
def test_files_are_read_back_and_run_alike(tmp_path, name):
    source = PROGRAMS[name](0)
    path = write_source(source, tmp_path / name)
    assert path.stat().st_size + path.with_suffix(".json").stat().st_size < 200_000
    read, made = load_tracr(path), source.program()
    assert read.model.hash == made.model.hash
    assert read.true_edges == made.true_edges
    assert read.decoded == made.decoded
    config = read.model.config
    run = jax.jit(lambda p, t: apply(config, p, t, capture=("resid.post",)))
    found = run(read.model.params, read.inputs)
    last = np.asarray(found.captured["resid.post"][-1])
    np.testing.assert_allclose(last, read.final_residual, atol=1e-3)
    assert [list(row) for row in read.decoded] == read.decode(np.asarray(found.logits))


@pytest.mark.parametrize("ablation", ["zero", "interchange"])
@pytest.mark.parametrize("name", NAMES)
def test_silent_edges_may_all_be_closed(name, ablation):
    runs = tracr_runs(PROGRAMS[name](0).program(), ablation, draws=1)
    loud = runs.can_matter()
    assert 0 < loud.sum() < len(loud)
    assert runs.changes(loud[None])[0] <= (0 if runs.by == "answer" else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pointers", "parity"])
def test_of_a_chain_the_record_is_what_is_needed(name):
    program = PROGRAMS[name](0).program()
    recorded = set(tracr_edges(program))
    constant = {f"embed->m{layer}<in>" for layer in range(8)}
    needed = set(tracr_edges(program, "zero"))
    bos = {edge for edge in needed - recorded if edge.startswith("embed->")}
    assert recorded - needed == set()
    assert needed - recorded <= constant | bos


def test_an_unknown_word_is_one_clear_line():
    draft = Compiler("mine", ("a", "b"), 3, layers=1)
    same = draft.compute(0, [draft.tokens], lambda token: token, ("a", "b"), "same")
    with pytest.raises(ValueError, match="program 'mine' knows no word 'z'; its words are a, b"):
        draft.finish(same, [["a", "z", "b"]])
