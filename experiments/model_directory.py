"""Writing a model directory from a binary: as a whole or not at all, and over nothing else."""

import pathlib
import shutil

import jax

from circuitjax.model.record import Model

__all__ = ["describe", "write_model"]


def write_model(model: Model, out: pathlib.Path) -> bool:
    """Saves a model as a whole or not at all; returns False if it is there already.

    Raises:
      ValueError: `out` is a file, or holds something else, or cannot be written.
    """
    new = out.with_name(f".{out.name}.importing")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            _require_same(model, out)
            return False
        if new.exists():  # of an interrupted run
            shutil.rmtree(new)
        model.save(new)
        new.replace(out)
    except OSError as error:
        raise ValueError(f"cannot write --out={out}: {error}") from None
    return True


def _require_same(model: Model, out: pathlib.Path) -> None:
    if not (out / "model.json").is_file():
        raise ValueError(f"--out={out} holds something that is no model: choose another directory")
    old = Model.load(out)
    # Means do not count: they are computed after the import, and stay.
    if (old.name, old.hash, old.tokenizer_json) != (model.name, model.hash, model.tokenizer_json):
        raise ValueError(f"--out={out} holds another model, {old.name!r}: choose another directory")


def describe(model: Model) -> str:
    """A model's name and sizes, in one line."""
    config = model.config
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    shared = "" if config.queries_per_kv == 1 else f" ({config.kv_heads} of keys and values)"
    return (
        f"{model.name}, {config.num_layers} layers of {config.num_heads} heads{shared} and "
        f"{config.d_mlp} neurons, {config.d_model} channels, {config.vocab_size} tokens, "
        f"{size} parameters"
    )
