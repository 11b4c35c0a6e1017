"""The model record: exact round trips, a hash that sees every weight, refusals in one line."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from circuitjax.core.records import HASH, seal
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
    names = ("name", "config", "tokenizer_json", "provenance", "hash", "identity", "means_hash")
    for name in names:
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


def rewritten(root, **changes) -> None:
    """Changes fields of model.json and seals it again, as one would who means harm."""
    path = root / "model.json"
    path.write_text(json.dumps(seal({**json.loads(path.read_text()), **changes})))


def refused(root) -> str:
    with pytest.raises(ValueError, match=str(root)) as caught:
        Model.load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


EDITS = {
    "another name": {"name": "x"},
    "another provenance": {"provenance": {"seed": 4}},
    "not causal": ("causal", False),
    "another activation": ("activation", "relu"),
    "sparser": ("abs_top_k_fraction", 0.5),
    "no means": {"has_means": False},
    "one more field": {"more": 1},
    "no record hash": {HASH: None},
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_of_the_record_is_refused(model, tmp_path, edit):
    root = tmp_path / "m"
    model.save(root)
    change = EDITS[edit]
    record = json.loads((root / "model.json").read_text())
    if isinstance(change, tuple):
        change = {"config": {**record["config"], change[0]: change[1]}}
    (root / "model.json").write_text(json.dumps({**record, **change}))
    assert "changed after it was written" in refused(root)


def test_another_tokenizer_is_another_identity_and_the_same_hash(model, tmp_path):
    other = dataclasses.replace(model, tokenizer_json='{"é": 2}')
    assert other.hash == model.hash
    assert other.identity != model.identity
    assert dataclasses.replace(model, name="other", means=None).identity == model.identity
    model.save(tmp_path / "m")
    (tmp_path / "m/tokenizer.json").write_text('{"é": 2}', encoding="utf-8")
    assert "tokenizer.json is not the one" in refused(tmp_path / "m")


def test_other_means_have_another_hash(model, tiny_model):
    means = dict(model.means)
    means["attn.q"] = means["attn.q"] + np.float32(1)
    assert dataclasses.replace(model, means=means).means_hash != model.means_hash
    assert tiny_model.means_hash is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"has_means": 1}, "has_means is 1; it must be true or false"),
        ({"name": 3}, "name is 3; it must be text"),
        ({"provenance": [1]}, "provenance is [1]; it must be an object"),
        ({"arrays": "../elsewhere"}, "arrays is '../elsewhere'; it must be arrays or arrays.2"),
        ({"config": ("causal", 1)}, "causal is 1; it must be of type bool"),
        ({"config": ("num_layers", True)}, "num_layers is True; it must be of type int"),
        ({"config": ("num_layers", 10**6)}, "num_layers is 1000000; it must be at most"),
        ({"config": ("d_mlp", 10**18)}, "d_mlp is 1000000000000000000; it must be at most"),
        ({"config": ("num_heads", 10**4000)}, "num_heads is a whole number of 13288 bits"),
        ({"config": ("d_mlp", 2**24)}, "should be float32[2, 16777216]"),
        ({"format": "circuitjax-model-3"}, "newer than 'circuitjax-model-2'"),
        ({"means_hash": "0"}, "its means are not those"),
    ],
)
def test_wrong_types_and_sizes_are_named(model, tmp_path, changes, words):
    root = tmp_path / "m"
    model.save(root)
    if "config" in changes:
        field, value = changes["config"]
        record = json.loads((root / "model.json").read_text())
        changes = {"config": {**record["config"], field: value}}
    rewritten(root, **changes)
    assert words in refused(root)


def test_a_model_of_an_earlier_version_is_read_and_says_so(model, tmp_path, caplog):
    root = tmp_path / "m"
    model.save(root)
    record = json.loads((root / "model.json").read_text())
    new = ("identity", "tokenizer_sha256", "means_hash", "arrays", HASH)
    old = {k: v for k, v in record.items() if k not in new} | {"format": "circuitjax-model-1"}
    (root / "model.json").write_text(json.dumps(old))
    assert_same(Model.load(root), model)
    # The oldest Orbax warns on its own account.
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("circuitjax")]
    assert "written by an earlier version" in line
    old["config"]["activation"] = "relu"
    (root / "model.json").write_text(json.dumps(old))
    assert "its content is not what model.json's hash says" in refused(root)


def test_saving_over_a_model_is_all_or_nothing(model, tiny_model, tmp_path, monkeypatch):
    """Killed at any step, the directory holds the old model or the new one."""
    root = tmp_path / "m"
    model.save(root)
    seen = []

    def stop(path, value):
        seen.append(path.name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("circuitjax.model.record.write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            dataclasses.replace(model, means=None).save(root)
    assert seen == ["model.json"]
    assert_same(Model.load(root), model)
    tiny_model.save(root)
    assert_same(Model.load(root), tiny_model)
    assert sorted(p.name for p in root.iterdir()) == ["arrays.2", "model.json", "tokenizer.json"]
    model.save(root)
    assert_same(Model.load(root), model)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named_as_such(tiny_model, bad):
    embed = tiny_model.params["embed"].copy()
    embed[3, 2] = bad
    with pytest.raises(ValueError, match=r"parameter \['embed'\] holds values that are not finite"):
        dataclasses.replace(tiny_model, params={**tiny_model.params, "embed": embed})
