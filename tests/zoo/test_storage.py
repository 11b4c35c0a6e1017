"""Packed models: exact to the bit, refused in one line when they are not what they say."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest

from circuitjax.core.records import HASH, seal
from circuitjax.model.bigram import bigram_table
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params
from circuitjax.zoo import load
from circuitjax.zoo.storage import pack, unpack


@pytest.fixture
def counts(rng) -> np.ndarray:
    return rng.poisson(0.1, (24, 24))


@pytest.fixture
def model(tiny_model, counts, rng) -> Model:
    """Weight-sparse, with means, a tokenizer and the table of the counts."""
    params = jax.tree.map(
        lambda leaf: np.where(rng.random(leaf.shape) < 0.1, leaf, np.float32(0)),
        dict(tiny_model.params),
    )
    params["bigram"] = bigram_table(counts)
    params["embed"][0, :2] = -0.0, np.float32(1e-40)
    params["embed"][-1, -1] = 0.25
    params["unembed"][:] = 0
    means = {
        s: rng.normal(size=shape).astype(np.float32)
        for s, shape in shapes(tiny_model.config).items()
    }
    return Model("packed", tiny_model.config, params, '{"é": 1}', means, {"seed": 1})


def assert_bits(found: Model, expected: Model) -> None:
    for name in ("name", "config", "tokenizer_json", "provenance", "hash"):
        assert getattr(found, name) == getattr(expected, name)
    pairs = [(found.params, expected.params)]
    if expected.means is not None:
        pairs.append((found.means, expected.means))
    for a, b in pairs:
        assert jax.tree.structure(a) == jax.tree.structure(dict(b))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            assert x.tobytes() == y.tobytes()


def test_round_trip_to_the_bit(model, counts, tmp_path):
    size = pack(tmp_path / "sub" / "m.npz", model, counts=counts)
    assert size == (tmp_path / "sub" / "m.npz").stat().st_size
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["m.npz"]
    assert_bits(unpack(tmp_path / "sub" / "m.npz"), model)


def test_without_means_or_table(tiny_model, tmp_path):
    config = dataclasses.replace(tiny_model.config, bigram=False)
    params = {k: v for k, v in tiny_model.params.items() if k != "bigram"}
    model = Model("plain", config, params)
    pack(tmp_path / "m.npz", model)
    found = unpack(tmp_path / "m.npz")
    assert found.means is None
    assert_bits(found, model)


def test_long_gaps_are_escaped(tmp_path):
    config = TransformerConfig(
        num_layers=1, d_model=64, num_heads=1, d_head=4, d_mlp=4, vocab_size=8192,
        context_length=4, position="none",
    )  # fmt: skip
    shape = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    for where in ([], [65534], [0, 65535, 131070, 131071], [65536, 131073, 262142, 524287]):
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shape)
        params["embed"].flat[where] = np.arange(1, len(where) + 1)
        model = Model("gaps", config, params)
        pack(tmp_path / "m.npz", model)
        assert_bits(unpack(tmp_path / "m.npz"), model)


def test_the_table_must_be_the_counts_own(model, counts, tmp_path):
    for bad in (None, counts + 1, counts + 0.5):
        with pytest.raises(ValueError, match=r"bigram table|counts"):
            pack(tmp_path / "m.npz", model, counts=bad)
    with pytest.raises(ValueError, match="bigram table"):
        pack(tmp_path / "m.npz", model, counts=counts, smoothing=2.0)
    assert list(tmp_path.iterdir()) == []


def refusal(path) -> str:
    with pytest.raises(ValueError, match=str(path)) as caught:
        unpack(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_truncated_and_foreign_files(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    refusal(path)  # nothing there
    pack(path, model, counts=counts)
    raw = path.read_bytes()
    for length in (0, 1, 30, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        refusal(path)
    path.write_bytes(b"just some text\nover two lines\n")
    refusal(path)
    np.savez(path, weights=np.zeros(3))
    refusal(path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    refusal(path)
    np.savez(path, weights=np.array([object()], dtype=object), record=np.zeros(1, np.uint8))
    refusal(path)


def test_a_flipped_byte_is_refused(model, counts, tmp_path, rng):
    path = tmp_path / "m.npz"
    pack(path, model, counts=counts)
    raw = bytearray(path.read_bytes())
    refused = 0
    for place in rng.integers(0, len(raw), 40):
        damaged = raw.copy()
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            assert_bits(unpack(path), model)  # a byte that carries nothing (a date, a comment)
        except ValueError as error:
            refused += "\n" not in str(error)
    assert refused > 20


def test_content_that_is_not_its_hash(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    pack(path, model, counts=counts)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/embed/values"] = arrays["params/embed/values"] * 2
    np.savez(path, **arrays)
    assert "does not match its hash" in refusal(path)


def test_models_are_loaded_by_name_file_or_directory(model, counts, tmp_path, monkeypatch):
    pack(tmp_path / "m.npz", model, counts=counts)
    model.save(tmp_path / "folder")
    for place in (tmp_path / "m.npz", tmp_path / "folder", str(tmp_path / "folder")):
        assert_bits(load.load_model(place), model)
    name = load.BUILT_IN[0]
    monkeypatch.setattr(load, "_data", lambda name, file: tmp_path / "m.npz")
    assert load.load_model(name).hash == model.hash


@pytest.mark.parametrize(
    ("name", "near"),
    [("tiny-pyton", "tiny-python"), ("tiny-python-dens", "tiny-python-dense"), ("xyzzy", "tiny")],
)
def test_unknown_names_bring_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"no model '{name}'.*did you mean .*{near}") as caught:
        load.load_model(name)
    assert "\n" not in str(caught.value)


def test_unknown_cards_are_refused():
    with pytest.raises(ValueError, match="no built-in model 'x'; there are tiny-python"):
        load.model_card("x")


def repacked(path, fields=None, **arrays) -> None:
    """Changes arrays of a packed model, or fields of its record, whose seal is then made anew."""
    with np.load(path) as file:
        held = {name: file[name] for name in file.files} | arrays
    if fields is not None:
        sealed = seal(json.loads(held["record"].tobytes()) | fields)
        held["record"] = np.frombuffer(json.dumps(sealed).encode(), np.uint8)
    np.savez(path, **held)


def test_every_field_of_the_record_is_covered(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    pack(path, model, counts=counts)
    with np.load(path) as file:
        record = json.loads(file["record"].tobytes())
    for change in ({"name": "x"}, {"provenance": {}}, {"smoothing": 2.0}, {HASH: None}, {"x": 1}):
        text = json.dumps({**record, **change}).encode()
        repacked(path, record=np.frombuffer(text, np.uint8))
        assert "changed after it was written" in refusal(path)


def test_another_tokenizer_or_other_means_are_refused(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    for name in ("tokenizer", "means/attn.q/dense"):
        pack(path, model, counts=counts)
        with np.load(path) as file:
            changed = file[name].copy()
        changed.flat[-2] += 1
        repacked(path, **{name: changed})
        assert "tokenizer or means do not match" in refusal(path)


def test_files_of_earlier_versions_are_read(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    pack(path, model, counts=counts)
    with np.load(path) as file:
        record = json.loads(file["record"].tobytes())
    for new in ("format", "identity", "means_hash", HASH):
        del record[new]
    old = np.frombuffer(json.dumps(record).encode(), np.uint8)
    repacked(path, record=old)
    assert_bits(unpack(path), model)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"format": "circuitjax-packed-3"}, "newer than 'circuitjax-packed-2'"),
        ({"smoothing": True}, "smoothing is True; it must be a finite number"),
        ({"name": None}, "name is None; it must be text"),
    ],
)
def test_records_are_read_strictly(model, counts, tmp_path, record, words):
    pack(tmp_path / "m.npz", model, counts=counts)
    repacked(tmp_path / "m.npz", record)
    assert words in refusal(tmp_path / "m.npz")


def test_sizes_are_bounded_before_room_is_made(model, counts, tmp_path):
    path = tmp_path / "m.npz"
    pack(path, model, counts=counts)
    for shape in ([10**18], [2**20, 2**20], [-1], [2] * 9):
        repacked(path, **{"params/embed/shape": np.array(shape)})
        assert "an array is shaped" in refusal(path)
    config = {**model.config.to_dict(), "num_layers": 10**6}
    repacked(path, {"config": config})
    assert "num_layers is 1000000; it must be at most" in refusal(path)
