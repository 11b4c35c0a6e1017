"""`config.json` of a training run: what the directory is for, and which corpus it learns from.

The corpus belongs to the run as its recipe does: a run that went on with other text would be neither
the one nor the other, and fixed tables and means are counted on it. Runs of earlier versions name a
recipe alone.
"""

import pathlib

from circuitjax.core.checkpoints import latest_step
from circuitjax.core.files import read_object, write_json
from circuitjax.core.records import canonical, open_sealed, seal
from circuitjax.pretrain.config import PretrainConfig
from circuitjax.pretrain.packing import Corpus

__all__ = ["claim", "read_recipe", "require_corpus"]

_FILE, _FORMAT = "config.json", "circuitjax-pretrain-2"


def _read(root: pathlib.Path) -> tuple[dict[str, object], str | None]:
    """(recipe, digest of the corpus, if the record names one)."""
    path = root / _FILE
    if "format" not in (fields := read_object(path)):
        return fields, None
    record = open_sealed(path, _FORMAT)
    return record.object("recipe").to_dict(), record.text("corpus")


def read_recipe(root: pathlib.Path) -> PretrainConfig:
    """The recipe of a run.

    Raises:
      ValueError: no record there, or one that was changed.
    """
    return PretrainConfig.from_dict(_read(root)[0])


def require_corpus(root: pathlib.Path, corpus: Corpus) -> None:
    """Refuses another corpus than the one a run was begun with.

    Raises:
      ValueError: one line that names both places.
    """
    _, digest = _read(root)
    if digest not in (None, corpus.digest):
        raise ValueError(
            f"{root} was begun with another corpus than {corpus.directory}: give the --corpus it was "
            "begun with, or choose another directory"
        )


def claim(root: pathlib.Path, config: PretrainConfig, corpus: Corpus) -> None:
    """Notes what a directory is for, or checks that it is for this.

    Raises:
      ValueError: another run's directory, or a record that cannot be read.
    """
    if (root / _FILE).exists():
        try:
            found, _ = _read(root)
        except ValueError as error:
            raise ValueError(f"{error}; choose another directory") from error
        if canonical(found) != canonical(config.to_dict()):
            raise ValueError(f"{root} holds another run: choose another directory or remove it")
        require_corpus(root, corpus)
        return
    if latest_step(root / "checkpoints") is not None:
        raise ValueError(
            f"{root} holds checkpoints without their {_FILE}: put it back, or choose another directory"
        )
    record = {"format": _FORMAT, "recipe": config.to_dict(), "corpus": corpus.digest}
    write_json(root / _FILE, seal(record))
