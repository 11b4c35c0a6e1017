"""Snapshot folders of any family that is known: config.json, weights, tokenizer.json.

The family is what config.json calls `model_type`; each has a file of its own beside this one.
"""

import os
import pathlib

from circuitjax.importers import gemma2, gemma3, gpt2, gpt_neox, llama, mistral, qwen2, qwen3
from circuitjax.importers.family import Family, read_params
from circuitjax.importers.fields import Fields
from circuitjax.importers.vocabulary import chat_facts, read_chat_template, read_tokenizer
from circuitjax.importers.weights import open_weights
from circuitjax.model.record import Model

__all__ = ["FAMILIES", "family_of", "import_snapshot"]

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY
    for module in (gpt2, gpt_neox, llama, mistral, qwen2, qwen3, gemma2, gemma3)
}


def family_of(fields: Fields) -> Family:
    """The family that a config belongs to; a ValueError names one that is not known."""
    name = fields.values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise fields.refuse("model_type", f"choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def import_snapshot(
    path: str | os.PathLike[str], name: str | None = None, bos: str | None = None
) -> Model:
    """Reads a snapshot folder.

    Weights of 16 bits become float32. `means` stays None: `experiments.means` computes them.

    Args:
      path: folder with config.json, weights (`open_weights`) and tokenizer.json.
      name: the model's; None means the folder's.
      bos: the token to begin texts with; None means as the tokenizer says.

    Raises:
      ValueError: a file or tensor that is missing, unreadable or misshapen, one too many, or a
        config that is not expressed exactly: one line that names it.
    """
    root = pathlib.Path(path)
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}: give a snapshot with config.json in it")
    fields = Fields.read(root / "config.json")
    family = family_of(fields)
    config = family.describe(fields)
    tokenizer = read_tokenizer(root, config, bos)
    with open_weights(root) as (weights, digest):
        params = read_params(family, fields, config, weights)
        types = sorted(weights.types)
    return Model(
        name=name or root.resolve().name,
        config=config,
        params=params,
        tokenizer_json=tokenizer,
        provenance={
            "imported_from": family.model_type,
            "weights_sha256": digest,
            "weights_types": types,
            **chat_facts(read_chat_template(root)),
        },
    )
