"""Folders that are no released model, or not quite: one clear line that names what is wrong."""

import json
import os
import pathlib
import pickle
import shutil
from typing import Any

import numpy as np
import pytest

from circuitjax.importers.openai import import_openai
from circuitjax.tasks.tokenizer import Tokenizer
from tests.importers import openai_reference as reference
from tests.importers.openai_files import write_archive, write_folder, write_state, write_tokenizer
from tests.importers.test_openai_tokenizer import byte_letters

FIXTURES = pathlib.Path(__file__).parent / "openai"
FIELDS = {
    "block_size": 6,
    "vocab_size": 257,
    "n_layer": 2,
    "n_head": 2,
    "d_model": 4,
    "tied_unembed": False,
    "rms_norm": True,
}


def state_of(fields: dict[str, Any]) -> dict[str, np.ndarray]:
    return reference.random_state(fields, np.random.default_rng(0))


def refused(folder: pathlib.Path, **options: Any) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        import_openai(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BAD_CONFIG = {
    "unknown": ({"n_experts": 4}, "unknown key 'n_experts'"),
    "unknown, of one line": ({"a\nb": 4}, r"unknown key 'a\nb'"),
    "tied aux": ({"use_tied_aux_matrix": True}, "use_tied_aux_matrix is true; only false"),
    "residual": ({"residual_activation_type": "gelu"}, "residual_activation_type is 'gelu'"),
    "activation": (
        {"activation_type": "silu"},
        "activation_type is 'silu'; it must be gelu or relu",
    ),
    "no bool": ({"sink": 1}, "sink is 1; it must be true or false"),
    "null bool": ({"bias": None}, "bias is None; it must be true or false"),
    "no layers": ({"n_layer": 0}, "n_layer is 0; it must be a whole number above 0"),
    "fraction": ({"n_head": 2.0}, "n_head is 2.0; it must be a whole number"),
    "true": ({"d_mlp": True}, "d_mlp is True; it must be a whole number"),
    "null": ({"d_model": None}, "d_model is None; it must be a whole number"),
    "heads": ({"n_head": 3}, "d_model is 4; n_head, 3, must divide it"),
    "two widths": ({"d_mlp": 16, "n_mlp": 8}, "d_mlp is 16 and n_mlp 8: keep one"),
    "positions": ({"d_pos_emb": 0}, "d_pos_emb is 0; it must be a whole number above 0"),
    "afrac 0": ({"afrac": 0}, "afrac is 0; it must be above 0 and at most 1"),
    "afrac 2": ({"afrac": 2.0}, "afrac is 2.0; it must be"),
    "afrac nan": ({"afrac": float("nan")}, "it holds NaN, which is no JSON number"),
    "afrac text": ({"afrac": "0.5"}, "afrac is '0.5'; it must be"),
    "place": (
        {"afrac_loctypes": "attn_in,attn_x"},
        "afrac_loctypes has 'attn_x'; known are attn_in",
    ),
    "blank": ({"afrac_loctypes": "attn_in, attn_q"}, "afrac_loctypes has ' attn_q'"),
    "places": ({"afrac_loctypes": ["attn_in"]}, "afrac_loctypes is ['attn_in']; it must be text"),
    "name": ({"tokenizer_name": None}, "tokenizer_name is None; it must be text"),
    "many layers": ({"n_layer": 10**12}, "n_layer is 1000000000000; it must be at most 2048"),
}


@pytest.mark.parametrize("case", BAD_CONFIG)
def test_a_config_that_is_not_understood_is_named(tmp_path, case):
    changes, message = BAD_CONFIG[case]
    write_folder(tmp_path, {**FIELDS, **changes}, state_of(FIELDS))
    assert message in refused(tmp_path)


EMBED, FC, HEAD = "transformer.wte.weight", "transformer.h.1.mlp.c_fc.weight", "lm_head.weight"
ODD = np.zeros((3, 2), np.float32)
# name: (changed config, changed tensors, what the message says)
BAD_TENSORS = {
    "missing": ({}, {FC: None}, f"lacks the tensor {FC}"),
    "missing layer": (
        {"n_layer": 3},
        {},
        "lacks the tensor transformer.h.2.attn.c_attn.bias (and 9",
    ),
    "extra layer": (
        {"n_layer": 1},
        {},
        "no place for: transformer.h.1.attn.c_attn.bias (and 9 more)",
    ),
    "extra": ({}, {"a\nscore": ODD}, "no place for: a score"),
    "misshapen": (
        {},
        {EMBED: ODD},
        f"tensor {EMBED} is shaped (3, 2), the config asks for (257, 4)",
    ),
    "transposed": ({}, {FC: np.zeros((4, 16), np.float32)}, "(4, 16), the config asks for (16, 4)"),
    "no sinks": (
        {"sink": True},
        {},
        "lacks the tensor transformer.h.0.attn.attn_imp.sink_logit (and",
    ),
    "no table": ({"enable_bigram_table": True}, {}, "lacks the tensor bigram_table"),
    "table": ({}, {"bigram_table": ODD}, "no place for: bigram_table"),
    "no norm bias": ({"rms_norm": False}, {}, "lacks the tensor transformer.h.0.ln_1.bias (and 4"),
    "biases": ({"bias": False}, {}, "no place for: transformer.h.0.attn.c_attn.bias (and 7 more)"),
    "positions": ({"d_pos_emb": 2}, {}, "lacks the tensor transformer.h.0.ln_p1.weight (and 3"),
    "final bias": ({}, {"final_logits_bias": ODD}, "final_logits_bias is shaped (3, 2)"),
    "mask": ({}, {"transformer.h.0.attn.bias": ODD}, "no place for: transformer.h.0.attn.bias"),
    "no head": ({}, {HEAD: None}, f"lacks the tensor {HEAD}"),
    "head not tied": ({"tied_unembed": True}, {}, f"{HEAD} is not {EMBED}, to which tied_unembed"),
    "integers": ({}, {FC: np.zeros((16, 4), np.int64)}, f"tensor {FC} is int64; only float32"),
    "doubles": ({}, {FC: np.zeros((16, 4))}, f"tensor {FC} is float64; only float32"),
    "nan": (
        {},
        {FC: np.full((16, 4), np.nan, np.float32)},
        f"tensor {FC} holds values that are not",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_named(tmp_path, case):
    fields, tensors, message = BAD_TENSORS[case]
    state = {**state_of(FIELDS), **tensors}
    state = {name: value for name, value in state.items() if value is not None}
    write_folder(tmp_path, {**FIELDS, **fields}, state)
    told = refused(tmp_path)
    assert message in told
    assert "final_model.pt" in told


def test_files_that_are_missing_broken_or_hostile(tmp_path):
    assert "there is no folder" in refused(tmp_path / "none")
    root = tmp_path / "model"
    shutil.copytree(FIXTURES / "plain", root)
    whole = (root / "final_model.pt").read_bytes()
    (root / "final_model.pt").write_bytes(whole[:-100])
    assert f"cannot read {root / 'final_model.pt'}: it is no complete zip" in refused(root)
    trace = tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    write_archive(root / "final_model.pt", pickle.dumps({"transformer": Hostile()}, 2), {})
    assert "it asks for 'posix.mkdir', which is no part of a tensor" in refused(root)
    assert not trace.exists()
    (root / "final_model.pt").unlink()
    assert f"there is no file {root / 'final_model.pt'}" in refused(root)
    (root / "beeg_config.json").write_text("[]")
    assert "beeg_config.json holds a JSON list" in refused(root)
    (root / "beeg_config.json").unlink()
    assert "there is no file" in refused(root)


def test_the_tokenizer_is_that_of_the_model(tmp_path):
    """Beside the model or elsewhere; both files, no more tokens than the model has, and known."""
    root, other = tmp_path / "model", tmp_path / "tokenizer"
    write_folder(root, FIELDS, state_of(FIELDS))
    write_tokenizer(other, {letter: byte for byte, letter in byte_letters().items()}, [])
    assert import_openai(root).tokenizer_json == ""
    text = import_openai(root, tokenizer=other).tokenizer_json
    assert Tokenizer.from_json(text).encode("a\u00e9") == [ord("a"), 0xC3, 0xA9]
    shutil.copy(other / "encoder.json", root)
    assert f"there is no file {root / 'vocab.bpe'}" in refused(root)
    shutil.copy(other / "vocab.bpe", root)
    assert import_openai(root).tokenizer_json == text
    (root / "beeg_config.json").write_text(json.dumps({**FIELDS, "tokenizer_name": "gpt2"}))
    assert "tokenizer_name is 'gpt2'; only 'tinypython_2k' can be read" in refused(root)
    small = {**FIELDS, "vocab_size": 256}
    write_folder(tmp_path / "small", small, state_of(small))
    told = refused(tmp_path / "small", tokenizer=other)
    assert "has 257 tokens, more than the vocab_size of 256" in told
    assert "there is no file" in refused(tmp_path / "small", tokenizer=tmp_path / "nowhere")


def test_nothing_is_read_of_tensors_that_do_not_fit(tmp_path):
    """A config of a terabyte is refused by its shapes alone."""
    state = state_of(FIELDS)
    write_folder(tmp_path, {**FIELDS, "d_model": 2**20, "d_mlp": 2**20}, state)
    assert "the config asks for" in refused(tmp_path)
    write_state(tmp_path / "final_model.pt", {EMBED: state[EMBED]})
    assert "too few for 2 layers" in refused(tmp_path)
