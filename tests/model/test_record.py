"""The model record: exact round trips, a hash that sees every weight, refusals in one line."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from circuitjax.model.record import Model, content_hash
from circuitjax.model.sites import shapes


@pytest.fixture
def model(tiny_model, rng) -> Model:
    means = {
        s: rng.normal(size=shape).astype(np.float32)
        for s, shape in shapes(tiny_model.config).items()
    }
    provenance = {"seed": 3, "data": ["a", "b"]}
    return dataclasses.replace(
        tiny_model, means=means, tokenizer_json='{"é": 1}', provenance=provenance
    )


def assert_same(found: Model, expected: Model) -> None:
    for name in ("name", "config", "tokenizer_json", "provenance", "hash"):
        assert getattr(found, name) == getattr(expected, name)
    jax.tree.map(np.testing.assert_array_equal, found.params, dict(expected.params))
    assert (found.means is None) == (expected.means is None)
    if expected.means is not None:
        jax.tree.map(np.testing.assert_array_equal, found.means, dict(expected.means))


def test_round_trip(model, tiny_model, tmp_path):
    model.save(tmp_path / "with means")
    assert_same(Model.load(tmp_path / "with means"), model)
    tiny_model.save(tmp_path / "without")
    assert_same(Model.load(str(tmp_path / "without")), tiny_model)


def test_the_hash_changes_with_any_weight(tiny_model):
    leaves, structure = jax.tree.flatten(tiny_model.params)
    seen = {tiny_model.hash}
    for i in range(len(leaves)):
        changed = list(leaves)
        changed[i] = leaves[i].copy()
        changed[i].flat[-1] = np.nextafter(changed[i].flat[-1], np.float32(9))
        seen.add(content_hash(tiny_model.config, jax.tree.unflatten(structure, changed)))
    assert len(seen) == len(leaves) + 1


def test_the_hash_sees_the_config_and_not_the_name_or_the_order(tiny_model):
    other = dataclasses.replace(tiny_model.config, activation="relu")
    assert content_hash(other, tiny_model.params) != tiny_model.hash
    assert dataclasses.replace(tiny_model, name="other").hash == tiny_model.hash
    backwards = dict(reversed(tiny_model.params.items()))
    assert content_hash(tiny_model.config, backwards) == tiny_model.hash


def test_the_hash_takes_both_zeros_for_one(tiny_model):
    def with_zero(zero: float) -> str:
        embed = tiny_model.params["embed"].copy()
        embed[0, 0] = zero
        return content_hash(tiny_model.config, {**tiny_model.params, "embed": embed})

    assert with_zero(0.0) == with_zero(-0.0)


def test_nonzero_parameters_leave_out_the_bigram_table(tiny_model):
    sizes = {k: np.size(v) for k, v in tiny_model.params.items() if k not in ("layers", "bigram")}
    expected = sum(sizes.values()) + sum(v.size for v in tiny_model.params["layers"].values())
    assert tiny_model.num_nonzero == expected


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "means"])
def test_parameters_that_do_not_fit_are_named(tiny_model, change):
    params = dict(tiny_model.params)
    means = None
    if change == "missing":
        del params["unembed"]
    elif change == "extra":
        params["unembed_bias"] = np.zeros(24, np.float32)
    elif change == "shape":
        params["unembed"] = params["unembed"].T
    else:
        means = {"attn.q": np.zeros((2, 8), np.float32)}
    with pytest.raises(ValueError, match="means of" if means else "unembed"):
        Model(name="m", config=tiny_model.config, params=params, means=means)


def damage(root, how: str) -> None:
    path = root / "model.json"
    record = json.loads(path.read_text())
    if how == "no record":
        path.unlink()
    elif how == "truncated record":
        path.write_text(path.read_text()[:100])
    elif how == "binary record":
        path.write_bytes(b"\xff\xfe\x00")
    elif how == "a list":
        path.write_text("[1, 2]")
    elif how == "another format":
        path.write_text(json.dumps({**record, "format": "x-2"}))
    elif how == "config of a wrong type":
        path.write_text(json.dumps({**record, "config": 3}))
    elif how == "another config":
        config = {**record["config"], "d_mlp": 17}
        path.write_text(json.dumps({**record, "config": config}))
    elif how == "another activation":
        config = {**record["config"], "activation": "relu"}
        path.write_text(json.dumps({**record, "config": config}))
    elif how == "no tokenizer":
        (root / "tokenizer.json").unlink()
    elif how == "no arrays":
        (root / "arrays").rename(root / "elsewhere")


@pytest.mark.parametrize(
    "how",
    [
        "no record",
        "truncated record",
        "binary record",
        "a list",
        "another format",
        "config of a wrong type",
        "another config",
        "another activation",
        "no tokenizer",
        "no arrays",
    ],
)
def test_damaged_directories_are_refused_in_one_line(tiny_model, tmp_path, how):
    root = tmp_path / "m"
    tiny_model.save(root)
    damage(root, how)
    with pytest.raises(ValueError, match=str(root)) as caught:
        Model.load(root)
    assert "\n" not in str(caught.value)
