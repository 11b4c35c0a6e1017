"""Checkpoints: exact round trips, one-line refusals, nothing half-written."""

import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from circuitjax.core import checkpoints
from circuitjax.core.host import NoDeviceError
from tests.campaign.states import Recorder

Struct = jax.ShapeDtypeStruct


def tree(scale: float = 1.0) -> dict:
    params = {
        "w": scale * jnp.arange(12, dtype=jnp.float32).reshape(3, 4),
        "b": jnp.array([-0.0, 1e-40, np.inf], jnp.float32),
        "half": jnp.array([0.1, 3.0], ml_dtypes.bfloat16),
    }
    adam = optax.chain(optax.scale_by_adam(), optax.identity()).init(params)
    return {"params": params, "adam": adam, "step": jnp.int32(7)}


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert a.dtype == b.dtype
        assert a.tobytes() == np.asarray(b).tobytes()


def refusal(directory: pathlib.Path, like) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        checkpoints.load_arrays(directory, like)
    message = str(caught.value)
    assert "\n" not in message
    assert str(directory) in message
    return message


def test_a_kill_at_any_file_event_leaves_the_old_or_the_new_and_its_hashes(tmp_path):
    """Of a checkpoint that is written where there was none, and of one that replaces another."""
    target = tmp_path / "at" / "x"
    recorder = Recorder(tmp_path / "at", tmp_path / "copies")
    with recorder.recording():
        checkpoints.save_arrays(target, tree(1.0))
        checkpoints.save_arrays(target, tree(2.0))
    assert len(recorder.states) > 10
    seen = []
    for state in recorder.states:
        if not (state / "x").exists() and not (state / ".x.old").exists():
            assert "no checkpoint at" in refusal(state / "x", tree())
            continue
        found = checkpoints.load_arrays(state / "x", tree())
        seen.append(float(found["params"]["w"][0, 1]))
        held = next(p for p in (state / "x", state / ".x.old") if p.exists())
        assert (held / "files.json").exists()
        checkpoints.save_arrays(state / "x", tree(3.0))  # goes on, and leaves nothing behind
        assert [path.name for path in state.iterdir()] == ["x"]
    assert seen == sorted(seen)
    assert set(seen) == {1.0, 2.0}


def test_round_trip_to_the_bit(tmp_path):
    checkpoints.save_arrays(tmp_path / "deep" / "er", tree())
    assert_same(checkpoints.load_arrays(tmp_path / "deep" / "er", tree()), tree())
    structs = jax.eval_shape(tree)
    assert_same(checkpoints.load_arrays(tmp_path / "deep" / "er", structs), tree())


def test_an_existing_one_is_replaced_and_nothing_is_left_over(tmp_path):
    for scale in (1.0, 2.0, 3.0):
        checkpoints.save_arrays(tmp_path / "a", tree(scale))
    assert_same(checkpoints.load_arrays(tmp_path / "a", tree()), tree(3.0))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    checkpoints.save_arrays(tmp_path / "a", tree(1.0))

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints.ocp, "save", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save_arrays(tmp_path / "a", tree(2.0))
    assert_same(checkpoints.load_arrays(tmp_path / "a", tree()), tree(1.0))


def test_nothing_there(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "nowhere", tree())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"w": Struct((4, 4), jnp.float32)}, "params.w"),
        ({"w": Struct((12,), jnp.float32)}, "params.w"),
        ({"w": Struct((3, 4), jnp.int32)}, "params.w"),
        ({"new": Struct((1,), jnp.float32)}, "params.new"),
        ({"b": None}, "do not match"),
    ],
)
def test_other_shapes_types_and_names_are_refused(tmp_path, change, named):
    checkpoints.save_arrays(tmp_path / "a", tree())
    like = jax.eval_shape(tree)
    like["params"].update(change)
    like["params"] = {k: v for k, v in like["params"].items() if v is not None}
    assert named in refusal(tmp_path / "a", like)


def test_foreign_content_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    refusal(tmp_path / "a", tree())
    (tmp_path / "a" / "weights.bin").write_bytes(b"hello")
    refusal(tmp_path / "a", tree())


def test_a_damaged_file_is_refused_or_was_not_needed(tmp_path, rng):
    # Large enough that values lie in files of their own.
    big = {"w": rng.normal(size=(64, 64)).astype(np.float32)}
    checkpoints.save_arrays(tmp_path / "a", big)
    refused = 0
    for path in sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) // 2])
        try:
            assert_same(checkpoints.load_arrays(tmp_path / "a", big), big)
        except ValueError as error:
            refused += "\n" not in str(error)
        path.write_bytes(raw)
    assert refused >= 3


def test_steps_keep_the_last_ones(tmp_path):
    assert checkpoints.latest_step(tmp_path / "run") is None
    for step in (1, 2, 9, 10, 11):
        checkpoints.save_step(tmp_path / "run", step, {"x": jnp.float32(step)}, keep=3)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["step_10", "step_11", "step_9"]
    assert checkpoints.latest_step(tmp_path / "run") == 11
    like = {"x": Struct((), jnp.float32)}
    assert float(checkpoints.load_step(tmp_path / "run", 10, like)["x"]) == 10


def test_half_written_steps_do_not_count(tmp_path):
    checkpoints.save_step(tmp_path, 3, {"x": jnp.float32(3)})
    (tmp_path / "step_4.orbax-checkpoint-tmp-1").mkdir()
    (tmp_path / ".step_5.new").mkdir()
    assert checkpoints.latest_step(tmp_path) == 3


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x" / "value.json"
    checkpoints.write_json(path, {"b": 1, "a": [1.5, None]})
    assert json.loads(path.read_text()) == {"b": 1, "a": [1.5, None]}
    for bad in ({"a": float("nan")}, {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            checkpoints.write_json(path, bad)
    assert json.loads(path.read_text()) == {"b": 1, "a": [1.5, None]}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_a_cut_file_is_told_before_anything_is_read(tmp_path, capfd):
    tree = {"a": np.arange(5000.0), "b": np.ones((3, 2), np.float32)}
    checkpoints.save_arrays(tmp_path / "c", tree)
    files = [path for path in (tmp_path / "c").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"is 100 bytes, .* bytes were written"):
        checkpoints.load_arrays(tmp_path / "c", tree)
    largest.unlink()
    with pytest.raises(ValueError, match=r"is missing, .* bytes were written"):
        checkpoints.load_arrays(tmp_path / "c", tree)
    assert capfd.readouterr().err == ""


def test_a_flipped_bit_is_named_and_costs_no_dump(tmp_path, rng):
    """Training state too: Orbax's own complaint is pages long, and of small arrays there is none."""
    big = {"w": rng.normal(size=(64, 64)).astype(np.float32), "adam": {"m": np.zeros((3, 2))}}
    checkpoints.save_step(tmp_path, 1, big)
    files = sorted(p for p in (tmp_path / "step_1").rglob("*") if p.is_file() and p.stat().st_size)
    for place in range(60):
        path = files[place % len(files)]
        raw = bytearray(path.read_bytes())
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        kept = path.read_bytes()
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="cannot read the checkpoint") as caught:
            checkpoints.load_step(tmp_path, 1, big)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300 + len(str(path))
        path.write_bytes(kept)


def test_a_checkpoint_of_an_earlier_version_is_read_by_its_sizes(tmp_path):
    checkpoints.save_arrays(tmp_path / "a", tree())
    noted = json.loads((tmp_path / "a/files.json").read_text())["files"]
    (tmp_path / "a/files.json").unlink()
    sizes = {name: file["bytes"] for name, file in noted.items()}
    (tmp_path / "a/sizes.json").write_text(json.dumps(sizes))
    assert_same(checkpoints.load_arrays(tmp_path / "a", tree()), tree())
    (tmp_path / "a/sizes.json").write_text(json.dumps({name: n + 1 for name, n in sizes.items()}))
    assert "bytes were written" in refusal(tmp_path / "a", tree())


def test_a_checkpoint_killed_between_two_renames_is_found(tmp_path):
    checkpoints.save_arrays(tmp_path / "a", tree(1.0))
    (tmp_path / "a").rename(tmp_path / ".a.old")
    assert_same(checkpoints.load_arrays(tmp_path / "a", tree()), tree(1.0))
    checkpoints.save_arrays(tmp_path / "a", tree(2.0))
    assert_same(checkpoints.load_arrays(tmp_path / "a", tree()), tree(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_device_is_not_the_checkpoints_fault(tmp_path, monkeypatch):
    checkpoints.save_arrays(tmp_path / "a", tree())

    def no_device():
        raise AssertionError  # what JAX raises for JAX_PLATFORMS=cuda where it has no such plugin

    monkeypatch.setattr(jax, "devices", no_device)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(NoDeviceError, match="no device for JAX_PLATFORMS=cuda"):
        checkpoints.load_arrays(tmp_path / "a", tree())
