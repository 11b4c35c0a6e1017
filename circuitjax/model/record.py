"""The `Model` record: everything a frozen network is, on the host, with a content hash.

On disk a model is a directory: `model.json` (config, provenance, hash), `tokenizer.json`, and the
arrays (parameters, means) as an Orbax checkpoint.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from circuitjax.core.checkpoints import load_arrays, save_arrays, write_json
from circuitjax.model.config import TransformerConfig
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import init_params

__all__ = ["FORMAT", "Model", "content_hash"]

FORMAT = "circuitjax-model-1"


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
                    f"model {self.name!r}: parameter {name} has shape {found.get(name)}, "
                    f"the config asks for {expected.get(name)}"
                )
        if self.means is not None:
            for site, shape in shapes(self.config).items():
                if site not in self.means or np.shape(self.means[site]) != shape:
                    raise ValueError(f"model {self.name!r}: means of {site} must be shaped {shape}")

    @functools.cached_property
    def hash(self) -> str:
        """Content hash of config and parameters; means and names do not enter."""
        return content_hash(self.config, self.params)

    @property
    def num_nonzero(self) -> int:
        """Nonzero parameters, the fixed bigram table apart."""
        leaves = _leaves(self.params)
        return sum(int(np.count_nonzero(v)) for k, v in leaves.items() if k != "['bigram']")

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes a model directory; `model.json` last, so an interrupted write is no model."""
        root = pathlib.Path(directory)
        arrays = {"params": self.params}
        if self.means is not None:
            arrays["means"] = dict(self.means)
        save_arrays(root / "arrays", arrays)
        (root / "tokenizer.json").write_text(self.tokenizer_json, encoding="utf-8")
        record = {
            "format": FORMAT,
            "name": self.name,
            "hash": self.hash,
            "config": self.config.to_dict(),
            "has_means": self.means is not None,
            "provenance": dict(self.provenance),
        }
        write_json(root / "model.json", record)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Model":
        """Reads a model directory.

        Raises:
          ValueError: no model there, a foreign or truncated one, or content that is not what its
            hash says: one line.
        """
        root = pathlib.Path(directory)
        try:
            record = json.loads((root / "model.json").read_text(encoding="utf-8"))
            if record.get("format") != FORMAT:
                raise ValueError(f"its format is {record.get('format')!r}, not {FORMAT!r}")
            config = TransformerConfig.from_dict(record["config"])
            tokenizer_json = (root / "tokenizer.json").read_text(encoding="utf-8")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{root} holds no readable model: {error}") from error
        like: dict[str, Any] = {"params": _abstract(config)}
        if record.get("has_means"):
            like["means"] = {
                site: jax.ShapeDtypeStruct(shape, np.float32)
                for site, shape in shapes(config).items()
            }
        arrays = load_arrays(root / "arrays", like)
        model = cls(
            name=record.get("name", root.name),
            config=config,
            params=arrays["params"],
            tokenizer_json=tokenizer_json,
            means=arrays.get("means"),
            provenance=record.get("provenance", {}),
        )
        if model.hash != record.get("hash"):
            raise ValueError(f"{root} is damaged: its content is not what model.json's hash says")
        return model


def _abstract(config: TransformerConfig) -> Any:
    return jax.eval_shape(lambda: init_params(jax.random.key(0), config))


def _leaves(params: Mapping[str, Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in _leaves(_abstract(config)).items()}
