"""10,000 generated inputs for each reader: a value or one line, soon, and in bounded memory.

What a reader says of bad input is a ValueError of one short line; anything else is a traceback for a
user. No input may run code (`open` of a pickle's choice would leave a file), take 20 s or 2 GB.
"""

import contextlib
import json
import pathlib
import pickle
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from circuitjax.core.files import write_bytes
from circuitjax.core.records import open_sealed, seal
from circuitjax.importers.openai_config import read_config
from circuitjax.importers.state_dict import open_state_dict
from circuitjax.importers.state_pickle import read_entries
from circuitjax.importers.tracr import load_tracr
from circuitjax.model.record import Model
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.packing import Corpus, stream_files
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.tune.records import CarbsConfig, State, from_json, to_json
from circuitjax.tune.space import Dimension, Space
from circuitjax.zoo.storage import pack, unpack
from tests.campaign import models, results
from tests.campaign.mutations import changed_bytes, changed_value, nasty, written
from tests.importers.openai_files import dictionary, pickled, tensor, write_archive

INPUTS, LONGEST = 10_000, 20
TRACR = pathlib.Path(__file__).parents[1] / "importers/tracr"
Feed = Callable[[random.Random], Callable[[], Any]]
warnings.filterwarnings("ignore", message="Duplicate name")


def _record(root: pathlib.Path, _: Model) -> Feed:
    path = root / "r.json"
    good = {"format": "circuitjax-thing-2", "name": "x", "config": {"a": [1, 2.5, None], "b": True}}

    def feed(rng: random.Random) -> Callable[[], Any]:
        value = changed_value(rng, good)
        if isinstance(value, dict) and rng.random() < 0.6:
            value = seal(value)
        path.write_bytes(written(rng, value))
        return lambda: open_sealed(path, "circuitjax-thing-2", older=("circuitjax-thing-1", None))

    return feed


def _model(root: pathlib.Path, model: Model) -> Feed:
    model.save(root / "m")
    good = json.loads((root / "m/model.json").read_text())

    def feed(rng: random.Random) -> Callable[[], Any]:
        value = changed_value(rng, good)
        if isinstance(value, dict) and rng.random() < 0.8:
            value = seal(value)
        (root / "m/model.json").write_bytes(written(rng, value))
        return lambda: Model.load(root / "m")

    return feed


def _packed(root: pathlib.Path, model: Model) -> Feed:
    params = {key: value for key, value in model.params.items() if key != "bigram"}
    config = json.loads(json.dumps(model.config.to_dict())) | {"bigram": False}
    from circuitjax.model.config import TransformerConfig

    pack(root / "m.npz", Model("m", TransformerConfig.from_dict(config), params))
    raw = (root / "m.npz").read_bytes()
    with np.load(root / "m.npz") as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(arrays["record"].tobytes())

    def feed(rng: random.Random) -> Callable[[], Any]:
        if rng.random() < 0.5:
            (root / "m.npz").write_bytes(changed_bytes(rng, raw))
        else:
            held = dict(arrays)
            name = rng.choice(list(held))
            if rng.random() < 0.6:
                value = changed_value(rng, record)
                text = json.dumps(seal(value) if isinstance(value, dict) else value)
                held["record"] = np.frombuffer(text.encode(), np.uint8)
            elif rng.random() < 0.3:
                held[name] = np.array(rng.choice((0, -1, 10**18, [2**20] * 2, [], [1.5], "x")))
            else:
                data = changed_bytes(rng, held[name].tobytes())
                size = held[name].dtype.itemsize
                held[name] = np.frombuffer(data[: len(data) // size * size], held[name].dtype)
            np.savez(root / "m.npz", **held)
        return lambda: unpack(root / "m.npz")

    return feed


def _pickle(root: pathlib.Path, _: Model) -> Feed:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    trace = root / "executed"
    goods = [
        pickled(dictionary({f"t{i}": tensor(str(i), array) for i in range(3)})),
        pickle.dumps({"a": 1, "b": (2, [3.5, None, "x" * 300]), "c": {1, 2}}, 4),
        b"cbuiltins\nopen\n(X" + len(str(trace)).to_bytes(4, "little") + str(trace).encode()
        + b"X\x01\x00\x00\x00wtR.",
    ]  # fmt: skip

    def feed(rng: random.Random) -> Callable[[], Any]:
        if rng.random() < 0.1:  # a tuple doubled again and again, somewhere
            doubled = b")" + b"2\x86" * rng.randrange(10, 70)
            place = rng.randrange(1, len(goods[0]))
            data = goods[0][:place] + doubled + goods[0][place:]
        else:
            data = changed_bytes(rng, rng.choice(goods))
        return lambda: read_entries(data)

    return feed


def _archive(root: pathlib.Path, _: Model) -> Feed:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = root / "s.pt"
    write_archive(path, pickled(dictionary({"t": tensor("0", array)})), {"0": array.tobytes()})
    raw = path.read_bytes()

    def read() -> None:
        with open_state_dict(path) as checkpoint:
            for name in checkpoint.entries:
                checkpoint.read(name)

    def feed(rng: random.Random) -> Callable[[], Any]:
        path.write_bytes(changed_bytes(rng, raw))
        return read

    return feed


def _beeg(root: pathlib.Path, _: Model) -> Feed:
    good = {"n_layer": 2, "n_head": 2, "d_model": 8, "d_mlp": 16, "vocab_size": 24, "block_size": 16,
            "afrac": 0.5, "afrac_loctypes": "attn_in,mlp_neuron", "bias": True, "rms_norm": True,
            "activation_type": "gelu", "d_pos_emb": 4, "dropout": 0.0}  # fmt: skip
    return lambda rng: lambda: read_config("file", _object(changed_value(rng, good)))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tracr(root: pathlib.Path, _: Model) -> Feed:
    stem = sorted(TRACR.glob("*.json"))[0].with_suffix("")
    good, arrays = json.loads(stem.with_suffix(".json").read_text()), stem.with_suffix(".npz")
    raw = arrays.read_bytes()

    def feed(rng: random.Random) -> Callable[[], Any]:
        of_arrays = rng.random() < 0.3
        text = json.dumps(good).encode() if of_arrays else written(rng, changed_value(rng, good))
        (root / "p.json").write_bytes(text)
        (root / "p.npz").write_bytes(changed_bytes(rng, raw) if of_arrays else raw)
        return lambda: load_tracr(root / "p.json")

    return feed


def _tokenizer(root: pathlib.Path, _: Model) -> Feed:
    from circuitjax.zoo.load import load_model

    good = json.loads(load_model("tiny-python").tokenizer_json)
    good["model"]["vocab"] = dict(list(good["model"]["vocab"].items())[:300])
    good["model"]["merges"] = [
        merge for merge in good["model"]["merges"][:60] if "".join(merge) in good["model"]["vocab"]
    ]
    texts = ["x = [1, 2", "é\n", "\ud83d", "a" * 500, "", "\x00", "<|endoftext|>"]

    def feed(rng: random.Random) -> Callable[[], Any]:
        data = written(rng, changed_value(rng, good))

        def read() -> None:
            write_bytes(root / "tokenizer.json", data)
            tokenizer = Tokenizer.from_file(root / "tokenizer.json")
            tokenizer.encode_batch(rng.sample(texts, 3))

        return read

    return feed


def _search(root: pathlib.Path, _: Model) -> Feed:
    space = Space((Dimension("lr", "log", 0.1, 1e-3, 1.0),))
    config = CarbsConfig()
    good = json.loads(to_json(State(config, space, 0)))
    good["suggestions"] = [{"id": 0, "params": {"lr": 0.1}, "origin": "centre"}]
    good["observations"] = [{"id": 0, "output": 0.5, "cost": 1.0, "failed": False}]

    def feed(rng: random.Random) -> Callable[[], Any]:
        text = written(rng, changed_value(rng, good)).decode("utf-8", "replace")
        return lambda: from_json(text, config, space)

    return feed


def _recipe(root: pathlib.Path, model: Model) -> Feed:
    good = json.loads(json.dumps(PretrainConfig(model.config, length=8).to_dict()))
    return lambda rng: lambda: PretrainConfig.from_dict(changed_value(rng, good))


def _corpus(root: pathlib.Path, _: Model) -> Feed:
    files = {"manifest.json": b'{"config": {"seed": 0}}'}
    for source in ("idioms", "code"):
        for split in ("train", "validation"):
            tokens, starts = stream_files(source, split)
            np.save(root / tokens, np.arange(50, dtype=np.uint16))
            np.save(root / starts, np.arange(0, 50, 10))
            files |= {name: (root / name).read_bytes() for name in (tokens, starts)}

    def feed(rng: random.Random) -> Callable[[], Any]:
        for name, data in files.items():
            (root / name).write_bytes(data)
        name = rng.choice(list(files))
        (root / name).write_bytes(changed_bytes(rng, files[name]))
        return lambda: Corpus.open(root).batch(0, 4, 8, 0)

    return feed


READERS = {
    reader.__name__[1:]: reader
    for reader in (_record, _model, _packed, _pickle, _archive, _beeg, _tracr, _tokenizer, _search,
                   _recipe, _corpus)
} | results.READERS | models.READERS  # fmt: skip


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """What takes longer ends in a TimeoutError, where it runs in Python."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def campaign(reader: str, inputs: int, root: pathlib.Path, model: Model, seed: int = 0) -> dict:
    """Counts of what came of the inputs, and the longest that one took."""
    feed, rng = READERS[reader](root, model), random.Random(seed)
    counts = {"read": 0, "refused": 0}
    slowest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(inputs):
        read = feed(rng)
        started = time.perf_counter()
        try:
            with time_limit(LONGEST):
                read()
            counts["read"] += 1
        except ValueError as error:
            text = str(error)
            if "\n" in text or not text or len(text) > 1500 + 3 * len(str(root)):
                raise AssertionError(f"input {number} of {reader}: {text[:3000]!r}") from error
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"input {number} of {reader} ends in {error!r}") from error
        slowest = max(slowest, time.perf_counter() - started)
    assert not (root / "executed").exists()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {**counts, "slowest": slowest, "grown": grown}


def judge(found: dict) -> None:
    assert found["refused"] > 0
    assert found["slowest"] < LONGEST
    assert found["grown"] < 2 * 2**20  # KiB more than before: other tests share the process


@pytest.mark.parametrize("reader", READERS)
def test_a_few_inputs(reader, tmp_path, tiny_model):
    judge(campaign(reader, 60, tmp_path, tiny_model, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_ten_thousand_inputs(reader, tmp_path, tiny_model):
    found = campaign(reader, INPUTS, tmp_path, tiny_model)
    print(f"{reader}: {found}")
    judge(found)


def test_the_campaign_would_notice(tmp_path, tiny_model, monkeypatch):
    """A reader with a fault fails it: one that loops over a size, and one with a bare KeyError."""
    monkeypatch.setitem(
        READERS, "bad", lambda root, model: lambda rng: lambda: {}[nasty(rng) is None]
    )
    with pytest.raises(AssertionError, match="input 0 of bad ends in KeyError"):
        campaign("bad", 3, tmp_path, tiny_model)
