"""Fixtures of families on disk, their references, and a folder to change them in."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

FIXTURES = pathlib.Path(__file__).parents[1] / "data" / "families"
NAMES = tuple(sorted(folder.name for folder in FIXTURES.iterdir() if folder.is_dir()))


def word_tokenizer(size: int = 61) -> str:
    """JSON of a tokenizer of words w1, w2, ..., that begins with `<|endoftext|>`, id 0."""
    words = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return str(tokenizer.to_str())


def snapshot(root: pathlib.Path, name: str, tensors: Any = None, **fields: Any) -> pathlib.Path:
    """A copy of a fixture with a tokenizer, its config and tensors changed; `...` removes a field."""
    folder = root / name
    shutil.copytree(FIXTURES / name, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(fields)
    config = {field: value for field, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(word_tokenizer())
    if tensors is not None:
        weights = load_file(folder / "model.safetensors")
        save_file(tensors(weights), folder / "model.safetensors")
    return folder


def reference(name: str) -> dict[str, np.ndarray]:
    """What the reference library computes."""
    with np.load(FIXTURES / name / "reference.npz") as file:
        return {key: file[key] for key in file.files}
