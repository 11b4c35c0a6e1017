"""The tokenizer of a GGUF, from the tables it holds, in the JSON of `tokenizers`.

gpt2     bytes and merges; `tokenizer.ggml.pre` names how text is cut before
llama    pieces with `▁` for a space, and bytes where there is none (SentencePiece's BPE): merges follow
         from the scores, a pair's rank being that of what it becomes
"""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from circuitjax.core.files import cut as shown
from circuitjax.core.files import reason

__all__ = ["tokenizer_json"]

_UNKNOWN, _CONTROL, _USER = 2, 3, 4

# Cuts by the names that llama.cpp has for them. True: then as GPT-2 cuts; False: then only into bytes.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS: Mapping[str, tuple[str | None, bool]] = {
    "gpt-2": (None, True),
    "smollm": (r"\p{N}", True),
    "llama-bpe": (_CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST, False),
    "llama3": (_CONTRACTIONS + _WORDS + r"\p{N}{1,3}" + _REST, False),
    "qwen2": (_CONTRACTIONS + _WORDS + r"\p{N}" + _REST, False),
}
_BEGINS = (
    "llama-bpe",
    "llama3",
)  # cuts of models whose texts begin with a BOS unless the file says no


def tokenizer_json(values: Mapping[str, Any]) -> tuple[str, str | None]:
    """(JSON text, the token that begins a text or None) from a GGUF's fields.

    Raises:
      ValueError: a kind of tokenizer, or a cut, that is not known, or a table that is missing.
    """

    def own(key: str, default: Any = None) -> Any:
        return values.get(f"tokenizer.ggml.{key}", default)

    kind, tokens = own("model"), own("tokens")
    if kind not in ("gpt2", "llama"):
        raise ValueError(f"tokenizer.ggml.model is {shown(kind)}; choose one of gpt2, llama")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError("tokenizer.ggml.tokens is missing")
    types = own("token_type", [1] * len(tokens))
    if len(types) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens"
        )
    cut = own("pre", "gpt-2")
    if kind == "gpt2":
        rust = _byte_level(tokens, own("merges", []), cut)
    else:
        rust = _pieces(tokens, types, own("scores"), own("add_space_prefix", True))
    for token, type_ in zip(tokens, types, strict=True):
        if type_ in (_CONTROL, _USER) or (type_ == _UNKNOWN and kind == "llama"):
            special = type_ != _USER
            rust.add_tokens([AddedToken(token, normalized=False, special=special)])
    begins = own("add_bos_token", kind == "llama" or cut in _BEGINS)
    bos = own("bos_token_id")
    if not begins or bos is None:
        return str(rust.to_str()), None
    if not 0 <= int(bos) < len(tokens):
        raise ValueError(f"tokenizer.ggml.bos_token_id is {bos}, beyond its {len(tokens)} tokens")
    return str(rust.to_str()), str(tokens[int(bos)])


def _byte_level(tokens: list[str], merges: list[str], cut: str) -> tokenizers.Tokenizer:
    if cut not in _CUTS:
        raise ValueError(f"tokenizer.ggml.pre is {shown(cut)}; choose one of {', '.join(_CUTS)}")
    if any(merge.count(" ") != 1 for merge in merges):
        raise ValueError("tokenizer.ggml.merges holds what is no pair")
    pairs = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in merges]
    vocabulary = _numbered(tokens)
    try:
        rust = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    except Exception as error:  # the library raises the bare Exception
        raise ValueError(f"tokenizer.ggml.merges: {reason(error)}") from None
    pattern, as_gpt2 = _CUTS[cut]
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pattern is not None:
        steps.append(pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=as_gpt2))
    rust.pre_tokenizer = pre_tokenizers.Sequence(steps)
    rust.decoder = decoders.ByteLevel()
    return rust


def _pieces(tokens: list[str], types: list[int], scores: Any, prefix: bool) -> tokenizers.Tokenizer:
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ValueError("tokenizer.ggml.scores is missing, or not one for each token")
    vocabulary = _numbered(tokens)
    order = sorted(
        (i for i, type_ in enumerate(types) if type_ in (1, _USER)), key=lambda i: -scores[i]
    )
    merges = []
    for index in order:
        piece = tokens[index]
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [pair for pair in splits if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    unknown = next((tokens[i] for i, type_ in enumerate(types) if type_ == _UNKNOWN), None)
    rust = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    steps = [normalizers.Prepend("▁")] if prefix else []
    rust.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    backwards = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        backwards.append(decoders.Strip(" ", 1, 0))
    rust.decoder = decoders.Sequence(backwards)
    return rust


def _numbered(tokens: list[str]) -> dict[str, int]:
    """{token: id}; of tokens that are alike the first counts."""
    found: dict[str, int] = {}
    for index, token in enumerate(tokens):
        found.setdefault(token, index)
    return found
