"""PyTorch's files without PyTorch: the same numbers, and nothing that a file asks for is done."""

import contextlib
import os
import pathlib
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

from circuitjax.importers.state_dict import open_state_dict
from tests.importers import openai_files as by_hand
from tests.importers.openai_files import dictionary, number, pickled, several, tensor, text

FIXTURES = pathlib.Path(__file__).parent / "openai"
ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def read_all(path: pathlib.Path) -> dict[str, np.ndarray]:
    with open_state_dict(path) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.entries}


@pytest.mark.parametrize("name", ["odd", "odd4"])
def test_pytorchs_own_files(name):
    found = read_all(FIXTURES / f"{name}.pt")
    with np.load(FIXTURES / "odd.npz") as file:
        assert found.keys() == set(file.files)
        for key, value in found.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, file[key], err_msg=key)


def refused(path: pathlib.Path) -> str:
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hostile:
    """Pickled, it asks for a call that leaves a file behind."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(trace: pathlib.Path) -> dict[str, bytes]:
    """Pickles that create `trace` when they are loaded, and the word that names the culprit."""
    touch = f"open({str(trace)!r}, 'w').close()"
    state = {"a": 1, "b": Hostile(os.mkdir, str(trace))}
    return {
        "eval": pickle.dumps(Hostile(eval, touch), 2),
        "exec": pickle.dumps({"a": Hostile(exec, touch)}, 4),
        "system": pickle.dumps([Hostile(os.system, f"touch {trace}")], 2),
        "popen": pickle.dumps(Hostile(subprocess.getoutput, f"touch {trace}"), 5),
        "mkdir": pickle.dumps(state, 3),
        # By hand: the ways to a call that no pickler of today uses.
        "old": b"(S'" + str(trace).encode() + b"'\nios\nmkdir\n.",
        "object": b"(cos\nmkdir\nX"
        + len(str(trace)).to_bytes(4, "little")
        + str(trace).encode()
        + b"o.",
    }


KINDS = ("eval", "exec", "system", "popen", "mkdir", "old", "object")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_that_would_run_code_runs_none(tmp_path, kind):
    trace = tmp_path / "trace"
    data = hostile_pickles(trace)[kind]
    for at, shown in enumerate((data, b"\x80\x02" + data)):
        by_hand.write_archive(tmp_path / f"{at}.pt", shown, {})
        message = refused(tmp_path / f"{at}.pt")
        assert "which is no part of a tensor" in message or "which no state dict needs" in message
    (tmp_path / "bare.pt").write_bytes(data)
    assert "no complete zip archive" in refused(tmp_path / "bare.pt")
    assert not trace.exists()
    with contextlib.suppress(Exception):  # the same bytes, had they been trusted
        pickle.loads(data)
    assert trace.exists()


def test_the_name_that_was_asked_for_is_told(tmp_path):
    path = tmp_path / "x.pt"
    by_hand.write_archive(path, pickle.dumps(Hostile(os.system, "true"), 2), {})
    assert "it asks for 'posix.system'" in refused(path)
    unfit = b"ctorch._utils\n_rebuild_tensor_v3\n)R"
    by_hand.write_archive(path, pickled(dictionary({"a": unfit})), {})
    assert "it asks for 'torch._utils._rebuild_tensor_v3'" in refused(path)


GOOD = tensor("0", ARRAY)
BROKEN = {
    "empty": (b"", "broken"),
    "no pickle": (b"hello", "broken"),
    "no end": (b"\x80\x02}", "broken"),
    "empty stack": (b"\x80\x02.", "broken"),
    "no mark": (pickled(b"}u"), "broken"),
    "no mark for a tuple": (pickled(text("a") + b"t"), "broken"),
    "too few for a tuple": (pickled(b"}\x87"), "broken"),
    "unknown memo": (pickled(b"h\x07"), "broken"),
    "no such persistent id": (pickled(text("a") + b"Q"), "broken"),
    "a name without a value": (pickled(b"}(" + text("a") + b"u"), "a name without a value"),
    "a call without arguments": (pickled(b"ccollections\nOrderedDict\n}R"), "without arguments"),
    "a call with few": (pickled(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "a call of the name"),
    "a call of a storage": (pickled(b"ctorch\nFloatStorage\n)R"), "a call of the name"),
    "a call of a tensor": (pickled(GOOD + b")R"), "a call of a tensor"),
    "a negative offset": (pickled(dictionary({"a": tensor("0", ARRAY, offset=-1)})), "-1 where"),
    "strides": (pickled(dictionary({"a": tensor("0", ARRAY, strides=(1,))})), "axes than strides"),
    "an attribute of a tensor": (pickled(GOOD + b"}b"), "a tensor where a dict belongs"),
    "no name": (pickled(b"}(" + number(1) + GOOD + b"u"), "a int where a name belongs"),
    "not a dict": (pickled(several(GOOD)), "it holds a tuple; it must be a state dict"),
    "a tensor": (pickled(GOOD), "it holds a tensor; it must be a state dict"),
    "a nested dict": (pickled(dictionary({"model": dictionary({"a": GOOD})})), "'model' is a dict"),
    "a number": (pickled(dictionary({"a": GOOD, "step": number(3)})), "'step' is a int"),
    "a name": (
        pickled(dictionary({"a": b"ctorch\nFloatStorage\n"})),
        "the name torch FloatStorage",
    ),
    "a long number": (b"\x80\x02\x8b\xff\xff\xff\x00.", "broken"),
    "a list": (pickled(b"]"), "the instruction EMPTY_LIST"),
    "a class": (pickled(b"ccollections\nOrderedDict\n)\x81"), "the instruction NEWOBJ"),
    "a registered extension": (pickled(b"\x82\x01"), "the instruction EXT1"),
    "a huge memo": (pickled(b"}r\xff\xff\xff\x7f" + b"0" + b"}"), "the instruction POP"),
    "deep": (pickled(b")" + b"\x85" * 100_000), "it holds a tuple"),
    "a deep key": (pickled(b"})" + b"\x85" * 100_000 + GOOD + b"s"), "where a name belongs"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_pickle_that_is_no_state_dict_is_one_line(tmp_path, case):
    data, message = BROKEN[case]
    by_hand.write_archive(tmp_path / "x.pt", data, {"0": ARRAY.tobytes()})
    assert message in refused(tmp_path / "x.pt")


REACH = {
    "offset": {"offset": 1},
    "shape": {"shape": (3, 3)},
    "step": {"strides": (4, 1)},
    "repeated": {"shape": (9, 9), "strides": (0, 0)},
}


@pytest.mark.parametrize("case", REACH)
def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path, case):
    data = pickled(dictionary({"a": tensor("0", ARRAY, **REACH[case])}))
    by_hand.write_archive(tmp_path / "x.pt", data, {"0": ARRAY.tobytes()})
    assert "reaches beyond its storage" in refused(tmp_path / "x.pt")


def test_storages_that_are_missing_cut_or_of_another_type(tmp_path):
    path, good = tmp_path / "x.pt", pickled(dictionary({"a": GOOD}))
    by_hand.write_archive(path, good, {})
    assert "final_model/data/0" in refused(path)
    by_hand.write_archive(path, good, {"0": ARRAY.tobytes()[:-4]})
    assert "storage '0' has 20 bytes, 24 belong there" in refused(path)
    by_hand.write_archive(path, good, {"0": np.float32([0, 1, 2, np.nan, 4, 5]).tobytes()})
    assert "tensor a holds values that are not finite" in refused(path)
    for kind in (np.float64, np.int64, np.complex64):
        array = ARRAY.astype(kind)
        by_hand.write_state(path, {"a": array})
        assert f"tensor a is {array.dtype}; only float32, float16, bfloat16" in refused(path)


def test_archives_that_are_not_pytorchs(tmp_path):
    path, good, raw = tmp_path / "x.pt", pickled(dictionary({"a": GOOD})), {"0": ARRAY.tobytes()}
    assert "there is no file" in refused(path)
    by_hand.write_archive(path, good, raw, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refused(path)
    by_hand.write_archive(path, good, raw, root="a/b")
    assert "not laid out as torch.save does" in refused(path)
    by_hand.write_archive(path, good, raw)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("final_model/data/0", raw["0"])
    assert "not laid out as torch.save does" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", good)
        archive.writestr("m/byteorder", "big")
    assert "byte order is b'big'" in refused(path)


def test_a_file_that_was_cut_or_damaged_is_told(tmp_path):
    path, whole = tmp_path / "x.pt", (FIXTURES / "odd.pt").read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "no complete zip archive" in refused(path)
    stored = np.float32(2.5).tobytes()  # the number that the tensor "one number" is
    assert whole.count(stored) == 1
    path.write_bytes(whole.replace(stored, np.float32(2.25).tobytes()))
    assert "Bad CRC-32" in refused(path)
