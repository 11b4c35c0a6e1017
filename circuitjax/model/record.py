"""The `Model` record: everything a frozen network is, on the host, with a content hash.

On disk a model is a directory: `model.json` (config, provenance, hashes), `tokenizer.json`, and the
arrays (parameters, means) as an Orbax checkpoint. Three hashes tell models apart:

    hash        config and parameters: what the network computes; circuits name it
    identity    hash and tokenizer: what it computes of a text; runs name it
    means_hash  the means, which decide what a closed node is replaced with

`model.json` names them and is itself covered by a hash (`core/records.py`).
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from circuitjax.core.checkpoints import load_arrays, save_arrays
from circuitjax.core.files import clean_leftovers, cut, read_text, write_bytes, write_json
from circuitjax.core.records import check_types, open_sealed, seal
from circuitjax.model.bounds import check_parameters, check_sizes
from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params

__all__ = ["FORMAT", "Model", "content_hash", "read_config"]

FORMAT = "circuitjax-model-2"
# Its record had no hash of its own, and did not speak of tokenizer and means.
OLDER = ("circuitjax-model-1",)
# A model that replaces another is written beside it; `model.json` says which is which.
_PLACES = ("arrays", "arrays.2")
_log = logging.getLogger(__name__)


def read_config(where: str, fields: Mapping[str, Any]) -> TransformerConfig:
    """A config from JSON: types and sizes are checked before anything is made of them.

    Raises:
      ValueError: an unknown or missing field, a value of another type, a size out of bounds.
    """
    check_types(TransformerConfig, fields, where)
    check_sizes(where, fields)
    try:
        config = TransformerConfig.from_dict(dict(fields))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    check_parameters(where, config)
    return config


def content_hash(config: TransformerConfig, params: Mapping[str, Any]) -> str:
    """sha256 over the config and every parameter's name, shape and float32 bytes."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    for path, leaf in sorted(leaves, key=lambda item: jax.tree_util.keystr(item[0])):
        leaf = np.ascontiguousarray(leaf, np.float32) + np.float32(0)  # -0.0 and 0.0 are one
        digest.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A frozen network.

    Attributes:
      name: as users call it, e.g. `tiny-python`.
      config: static description.
      params: float32 NumPy arrays; see `transformer.init_params`.
      tokenizer_json: the tokenizer as JSON text (empty where there is none).
      means: {site: `[L, W]`} mean activations over pretraining tokens, or None if not computed.
      provenance: JSON-able facts: recipe, data, seeds, versions, how the means were taken.
    """

    name: str
    config: TransformerConfig
    params: Mapping[str, Any]
    tokenizer_json: str = ""
    means: Mapping[str, np.ndarray] | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = _shapes(self.config)
        found = {k: np.shape(v) for k, v in _leaves(self.params).items()}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ValueError(
                    f"model {cut(self.name)}: parameter {name} has shape {found.get(name)}, "
                    f"the config asks for {expected.get(name)}"
                )
        if self.means is not None:
            for site, shape in shapes(self.config).items():
                if site not in self.means or np.shape(self.means[site]) != shape:
                    raise ValueError(
                        f"model {cut(self.name)}: means of {site} must be shaped {shape}"
                    )
        for kind, tree in (("parameter", self.params), ("means", self.means or {})):
            for name, leaf in _leaves(tree).items():
                if not np.isfinite(np.asarray(leaf)).all():
                    raise ValueError(
                        f"model {cut(self.name)}: {kind} {name} holds values that are not finite (NaN "
                        "or infinite): the network itself is broken; train or import it again"
                    )

    @functools.cached_property
    def hash(self) -> str:
        """Content hash of config and parameters; means and names do not enter."""
        return content_hash(self.config, self.params)

    @functools.cached_property
    def tokenizer_hash(self) -> str:
        """sha256 of the tokenizer's text."""
        return _text_hash(self.tokenizer_json)

    @property
    def identity(self) -> str:
        """Hash of content and tokenizer: models that give every text the same logits."""
        return _joined(self.hash, self.tokenizer_hash)

    @functools.cached_property
    def means_hash(self) -> str | None:
        """Hash of the means, or None where there are none."""
        if self.means is None:
            return None
        parts = sorted(self.means)
        arrays = [np.ascontiguousarray(self.means[site], np.float32) for site in parts]
        return _joined(*parts, *(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays))

    @property
    def num_nonzero(self) -> int:
        """Nonzero parameters, the fixed bigram table apart."""
        leaves = _leaves(self.params)
        return sum(int(np.count_nonzero(v)) for k, v in leaves.items() if k != "['bigram']")

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes a model directory.

        `model.json` comes last and atomically: a killed writer leaves the model that was there, or
        none.
        """
        root = pathlib.Path(directory)
        arrays = {"params": self.params}
        if self.means is not None:
            arrays["means"] = dict(self.means)
        held = _place(root)
        place = next(name for name in _PLACES if name != held)
        clean_leftovers(root)
        save_arrays(root / place, arrays)
        record = {
            "format": FORMAT,
            "name": self.name,
            "hash": self.hash,
            "identity": self.identity,
            "tokenizer_sha256": self.tokenizer_hash,
            "means_hash": self.means_hash,
            "config": self.config.to_dict(),
            "has_means": self.means is not None,
            "arrays": place,
            "provenance": dict(self.provenance),
        }
        write_bytes(root / "tokenizer.json", self.tokenizer_json.encode("utf-8"))
        write_json(root / "model.json", seal(record))
        if held is not None:
            shutil.rmtree(root / held, ignore_errors=True)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Model":
        """Reads a model directory.

        A record of an earlier version is read as it was written: its content hash is checked, its
        name, provenance, tokenizer and means are not, and a warning says so.

        Raises:
          ValueError: no model there, a foreign or truncated one, a newer format, or content that is
            not what its hashes say: one line.
        """
        root = pathlib.Path(directory)
        if not root.is_dir():
            raise ValueError(f"{root} holds no readable model: it is no directory")
        try:
            record = open_sealed(root / "model.json", FORMAT, older=OLDER)
            expected = record.text("hash")
            place = record.one_of("arrays", *_PLACES) if record.sealed else _PLACES[0]
            has_means = record.truth("has_means")
            name, provenance = record.text("name"), record.object("provenance").to_dict()
            config = read_config("its config", record.object("config").to_dict())
            tokenizer_json = read_text(root / "tokenizer.json", keep_mark=True)
        except ValueError as error:
            raise ValueError(f"{root} holds no readable model: {error}") from error
        if record.sealed and _text_hash(tokenizer_json) != record.text("tokenizer_sha256"):
            raise ValueError(
                f"{root} is damaged: its tokenizer.json is not the one it was written with"
            )
        like: dict[str, Any] = {"params": _abstract(config)}
        if has_means:
            like["means"] = {
                site: jax.ShapeDtypeStruct(shape, np.float32)
                for site, shape in shapes(config).items()
            }
        arrays = load_arrays(root / place, like)
        model = cls(
            name=name,
            config=config,
            params=arrays["params"],
            tokenizer_json=tokenizer_json,
            means=arrays.get("means"),
            provenance=provenance,
        )
        if model.hash != expected:
            raise ValueError(f"{root} is damaged: its content is not what model.json's hash says")
        if not record.sealed:
            _log.warning(
                "%s was written by an earlier version: no hash covers its name, provenance, tokenizer "
                "and means; cj.load_model(path).save(path) adds it",
                root,
            )
        elif model.means_hash != record["means_hash"]:
            raise ValueError(f"{root} is damaged: its means are not those it was written with")
        return model


def _place(root: pathlib.Path) -> str | None:
    """Which of `_PLACES` holds the arrays of the model in a directory, if there is one."""
    try:
        record = open_sealed(root / "model.json", FORMAT, older=OLDER)
        return record.one_of("arrays", *_PLACES) if record.sealed else _PLACES[0]
    except ValueError:
        return None


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _joined(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.lru_cache(maxsize=64)  # to trace it takes longer than all else that makes a model
def _abstract(config: TransformerConfig) -> Any:
    made = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    # With JAX_ENABLE_X64 they would be float64; what is stored is not.
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), made)


def _leaves(params: Mapping[str, Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in _leaves(_abstract(config)).items()}
