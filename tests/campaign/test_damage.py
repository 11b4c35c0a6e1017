"""A model directory, and a packed model, flipped in 200 places: refused, or in a byte nothing reads."""

import json
import pathlib
import random

import jax
import numpy as np
import pytest

from circuitjax.core.checkpoints import load_step, save_step
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.zoo.storage import pack, unpack
from tests.campaign.flips import flip, is_refused

PLACES = 200


@pytest.fixture
def model(tiny_model, rng) -> Model:
    means = {s: rng.normal(size=n).astype(np.float32) for s, n in shapes(tiny_model.config).items()}
    params = {**tiny_model.params, "bigram": np.zeros((24, 24), np.float32)}
    text = json.dumps({"model": {"vocab": {"é": 1, "b": 2}}})
    return Model(
        "m", tiny_model.config, params, text, means, {"seed": 1, "lr": 1e-3, "data": ["a"]}
    )


def facts(model: Model) -> list:
    """Everything a model says, arrays to the bit."""
    leaves = jax.tree_util.tree_flatten_with_path((model.params, dict(model.means)))[0]
    arrays = [(jax.tree_util.keystr(path), np.asarray(leaf).tobytes()) for path, leaf in leaves]
    return [model.name, model.config, model.tokenizer_json, dict(model.provenance), arrays]


def flipped(files: list[pathlib.Path], read, places: int) -> tuple[int, list[str]]:
    """(how many flips were refused, files of those that changed nothing); any other way out fails."""
    rng = random.Random(0)
    expected, refused, unread = read(), 0, []
    sizes = [path.stat().st_size for path in files]
    for number in range(places):
        # Every file in turn, so that small ones are hit as often as large ones.
        path = files[number % len(files)] if number % 2 else rng.choices(files, sizes)[0]
        if not path.stat().st_size:
            continue
        with flip(path, rng) as where:
            if is_refused(read, expected, where):
                refused += 1
            else:
                unread.append(path.name)
    return refused, unread


@pytest.mark.slow
def test_a_model_directory(model, tmp_path):
    root = tmp_path / "m"
    model.save(root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    refused, unread = flipped(files, lambda: facts(Model.load(root)), PLACES)
    print(f"model directory: {refused} of {PLACES} refused, {len(unread)} in a byte nothing reads")
    assert refused > 0.9 * PLACES
    assert set(unread) <= {"model.json", "files.json"}  # between their values


@pytest.mark.slow
def test_a_packed_model(model, tmp_path):
    path = tmp_path / "m.npz"
    counts = np.zeros((24, 24), np.int32)
    from circuitjax.model.bigram import bigram_table

    own = Model("m", model.config, {**model.params, "bigram": bigram_table(counts)},
                model.tokenizer_json, model.means, model.provenance)  # fmt: skip
    pack(path, own, counts=counts)
    refused, _ = flipped([path], lambda: facts(unpack(path)), PLACES)
    print(f"packed model: {refused} of {PLACES} refused")  # a zip holds dates and such twice
    assert refused > 0.6 * PLACES


@pytest.mark.slow
def test_a_training_checkpoint(tmp_path, rng):
    state = {"params": {"w": rng.normal(size=(40, 30)).astype(np.float32)}, "step": np.int32(3)}
    save_step(tmp_path, 3, state)
    files = sorted(path for path in (tmp_path / "step_3").rglob("*") if path.is_file())

    def read() -> list[bytes]:
        return [
            np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(load_step(tmp_path, 3, state))
        ]

    refused, unread = flipped(files, read, PLACES)
    print(f"training checkpoint: {refused} of {PLACES} refused")
    assert set(unread) <= {"files.json"}
    assert refused > 0.9 * PLACES
