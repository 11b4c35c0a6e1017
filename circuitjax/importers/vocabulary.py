"""The tokenizer of a snapshot, checked against its model's embedding.

An embedding may have more rows than there are tokens, as many are rounded up. Special tokens beyond
its rows (a pad token that nobody uses) are no mismatch either; ordinary ones are.
"""

import json
import pathlib
from typing import Any

from circuitjax.importers.jsonfile import read_object, read_text
from circuitjax.model.config import TransformerConfig
from circuitjax.tasks.chat import form_of
from circuitjax.tasks.tokenizer import Tokenizer, with_bos

__all__ = ["chat_facts", "check_tokenizer", "read_chat_template", "read_tokenizer"]


def read_tokenizer(root: pathlib.Path, config: TransformerConfig, bos: str | None = None) -> str:
    """The JSON text of a folder's tokenizer; BOS, if not given, as tokenizer_config.json says."""
    path = root / "tokenizer.json"
    text = read_text(path)
    beside = root / "tokenizer_config.json"
    if bos is None and beside.exists():
        fields = read_object(beside)
        if fields.get("add_bos_token") is True:
            token = fields.get("bos_token")
            bos = token.get("content") if isinstance(token, dict) else token
    try:
        return check_tokenizer(text, config, bos if isinstance(bos, str) else None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_chat_template(root: pathlib.Path) -> Any:
    """What a folder says of how its model was talked to: a text, a list of named ones, or None."""
    alone, beside = root / "chat_template.jinja", root / "tokenizer_config.json"
    if alone.exists():
        return read_text(alone)
    return read_object(beside).get("chat_template") if beside.exists() else None


def chat_facts(template: Any) -> dict[str, str]:
    """For a model's provenance: the form of its chat template, where it is a known one."""
    form = form_of(template)
    return {} if form is None else {"chat_form": form}


def check_tokenizer(text: str, config: TransformerConfig, bos: str | None = None) -> str:
    """The tokenizer's JSON, without what cuts or pads texts, and with its BOS written into it.

    Args:
      text: JSON of the `tokenizers` library.
      config: of the model that it belongs to.
      bos: the token that begins a text, where the tokenizer's own template does not say.

    Raises:
      ValueError: no tokenizer, one of another model, or one without any token to begin with.
    """
    if bos is not None:
        text = with_bos(text, bos)
    tokenizer = Tokenizer.from_json(text)
    fields = json.loads(text)
    added = {entry["id"] for entry in fields.get("added_tokens") or []}
    beyond = sorted(id for id in set(tokenizer.ids) - added if id >= config.vocab_size)
    if beyond:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, more than the vocab_size of "
            f"{config.vocab_size}: it belongs to another model"
        )
    if tokenizer.bos_id >= config.vocab_size:
        raise ValueError(
            f"its token {tokenizer.bos_id}, which begins a text, is beyond the vocab_size of "
            f"{config.vocab_size}: it belongs to another model"
        )
    # Some snapshots cut or pad texts to a length; tasks must see the tokens of the whole text.
    changes = {key: None for key in ("truncation", "padding") if fields.get(key) is not None}
    return json.dumps({**fields, **changes}, ensure_ascii=False) if changes else text
