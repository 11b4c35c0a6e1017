"""`load_model`: a built-in model by name, or any model directory by path."""

import difflib
import importlib.resources
import os
import pathlib

from circuitjax.core.files import cut
from circuitjax.model.record import Model
from circuitjax.zoo.storage import unpack

__all__ = ["BUILT_IN", "load_model", "model_card"]

# Folders of circuitjax/zoo/data, each with weights.npz and CARD.md.
BUILT_IN = ("tiny-python", "tiny-python-dense")


def _data(name: str, file: str) -> pathlib.Path:
    return pathlib.Path(str(importlib.resources.files("circuitjax.zoo") / "data" / name / file))


def load_model(name: str | os.PathLike[str]) -> Model:
    """Loads a model.

    Args:
      name: one of `BUILT_IN`, the path of a model directory, or of a packed `.npz`.

    Raises:
      ValueError: no such model (with the nearest built-in names), or an unreadable one.

    Examples:
      >>> cj.load_model("tiny-python").config.num_layers
      3
    """
    text = os.fspath(name)
    if text in BUILT_IN:
        return unpack(_data(text, "weights.npz"))
    path = pathlib.Path(text)
    if path.is_file() and path.suffix == ".npz":
        return unpack(path)
    if path.is_dir():
        return Model.load(path)
    near = difflib.get_close_matches(text, BUILT_IN, n=3, cutoff=0.3) or list(BUILT_IN)
    raise ValueError(
        f"no model {cut(text)}: it is neither a file, a directory nor built in; "
        f"did you mean {', '.join(near)}?"
    )


def model_card(name: str) -> str:
    """The card of a built-in model, as Markdown.

    Examples:
      >>> cj.model_card("tiny-python").splitlines()[0]
      '# tiny-python'
    """
    if name not in BUILT_IN:
        raise ValueError(f"no built-in model {cut(name)}; there are {', '.join(BUILT_IN)}")
    return _data(name, "CARD.md").read_text(encoding="utf-8")
