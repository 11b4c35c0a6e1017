"""Laws of the sampler: pure in (seed, step), rows that begin as promised, validation kept apart."""

import json
import pathlib

import numpy as np
import pytest

from circuitjax.pretrain import packing
from circuitjax.pretrain.packing import BOS, Corpus


def _write(root: pathlib.Path, lengths: dict[tuple[str, str], list[int]]) -> None:
    """Write streams whose tokens count on from their own base: a row tells its place."""
    for (source, split), sizes in lengths.items():
        pieces, starts, at = [], [], 0
        base = 100 * (1 + packing.SOURCES.index(source)) + 1000 * packing.SPLITS.index(split)
        for size in sizes:
            starts.append(at)
            pieces.append(np.r_[BOS, base + np.arange(size - 1) % 90])
            at += size
        tokens_name, starts_name = packing.stream_files(source, split)
        np.save(root / tokens_name, np.concatenate(pieces).astype(np.uint16))
        np.save(root / starts_name, np.asarray(starts, np.int64))
    (root / "manifest.json").write_text(json.dumps({"config": {}}))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    _write(
        tmp_path,
        {
            (source, split): [int(size) for size in rng.integers(4, 40, 60)]
            for source in packing.SOURCES
            for split in packing.SPLITS
        },
    )
    return tmp_path


def test_batch_is_a_function_of_seed_and_step(folder: pathlib.Path) -> None:
    forwards = Corpus.open(folder)
    drawn = {step: forwards.batch(step, 6, 16, seed=3) for step in range(8)}
    backwards = Corpus.open(folder)
    for step in reversed(range(8)):
        np.testing.assert_array_equal(backwards.batch(step, 6, 16, seed=3), drawn[step])
    assert len({batch.tobytes() for batch in drawn.values()}) == len(drawn)
    assert not np.array_equal(forwards.batch(0, 6, 16, seed=4), drawn[0])


def test_rows_are_contiguous_pieces_of_their_stream(folder: pathlib.Path) -> None:
    corpus = Corpus.open(folder)
    batch = corpus.batch(5, 32, 24, seed=0, idiom_fraction=0.5)
    assert batch.shape == (32, 25)
    assert batch.dtype == np.int32
    assert (batch[:, 0] == BOS).all()
    idioms, starts = corpus.stream("idioms", "train")
    places = {idioms[s : s + 25].tobytes() for s in starts if s + 25 <= len(idioms)}
    assert all(row.astype(np.uint16).tobytes() in places for row in batch[:16])
    code, _ = corpus.stream("code", "train")
    pieces = {code[s : s + 24].tobytes() for s in range(len(code) - 23)}
    assert all(row[1:].astype(np.uint16).tobytes() in pieces for row in batch[16:])


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.25, 2), (0.75, 6), (1.0, 8)])
def test_the_fraction_decides_how_many_rows_are_idioms(
    folder: pathlib.Path, fraction: float, expected: int
) -> None:
    batch = Corpus.open(folder).batch(0, 8, 12, seed=0, idiom_fraction=fraction)
    others = np.where(batch == BOS, 0, batch).max(axis=1)
    assert ((others > 0) & (others < 200)).sum() == expected


def test_starts_are_drawn_evenly(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, {(s, p): [8] * 11 for s in packing.SOURCES for p in packing.SPLITS})
    corpus = Corpus.open(tmp_path)
    tokens, _ = corpus.stream("idioms", "train")
    marked = np.array(tokens)
    marked[1::8] = np.arange(11)  # the document's number stands behind its start
    np.save(tmp_path / packing.stream_files("idioms", "train")[0], marked)
    drawn = Corpus.open(tmp_path).batch(0, 5000, 8, seed=1, idiom_fraction=1.0)[:, 1]
    counts = np.bincount(drawn, minlength=11)
    assert counts[10] == 0  # nine tokens do not fit behind the last start
    assert np.abs(counts[:10] - 500).max() < 5 * np.sqrt(500)


def test_validation_is_fixed_and_held_out(folder: pathlib.Path) -> None:
    corpus = Corpus.open(folder)
    rows = corpus.validation(16, 12)
    np.testing.assert_array_equal(rows, Corpus.open(folder).validation(16, 12))
    assert rows[rows != BOS].min() >= 1000
    assert not np.array_equal(rows, corpus.validation(16, 12, index=1))


def test_bad_input_is_named_in_one_line(folder: pathlib.Path) -> None:
    corpus = Corpus.open(folder)
    for arguments in (
        {"step": -1, "batch_size": 1, "length": 4, "seed": 0},
        {"step": 0, "batch_size": 0, "length": 4, "seed": 0},
        {"step": 0, "batch_size": 1, "length": 0, "seed": 0},
        {"step": 0, "batch_size": 1, "length": 10**6, "seed": 0},
        {"step": 0, "batch_size": 1, "length": 10**6, "seed": 0, "idiom_fraction": 0.0},
        {"step": 0, "batch_size": 1, "length": 4, "seed": 0, "idiom_fraction": 1.5},
    ):
        with pytest.raises(ValueError, match=r"must|does not fit") as caught:
            corpus.batch(**arguments)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no stream"):
        corpus.stream("prose", "train")


def test_an_unfinished_folder_is_refused(folder: pathlib.Path) -> None:
    (folder / packing.stream_files("code", "train")[0]).unlink()
    with pytest.raises(ValueError, match=r"code_train\.npy is missing"):
        Corpus.open(folder)
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        Corpus.open(folder / "nowhere")
