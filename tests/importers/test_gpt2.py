"""GPT-2 snapshots: the reference library's own logits, and one clear line for anything else.

The snapshots and their reference were written by `transformers` (`make_gpt2_fixtures.py`).
"""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from circuitjax.importers.snapshot import import_snapshot
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import apply
from circuitjax.tasks.tokenizer import BOS, Tokenizer

FIXTURES = pathlib.Path(__file__).parent / "gpt2"
NAMES = ("plain", "relu_bare", "gelu_untied")
BASE = TransformerConfig(
    num_layers=2,
    d_model=16,
    num_heads=2,
    d_head=8,
    d_mlp=64,
    vocab_size=284,
    context_length=24,
    norm="layer",
    norm_eps=1e-5,
    activation="gelu_tanh",
    tied_unembedding=True,
)
CONFIGS = {
    "plain": BASE,
    "relu_bare": dataclasses.replace(
        BASE, num_layers=3, d_mlp=24, activation="relu", norm_eps=0.05
    ),
    "gelu_untied": dataclasses.replace(
        BASE,
        num_heads=4,
        d_head=4,
        d_mlp=40,
        activation="gelu",
        norm_eps=1e-3,
        tied_unembedding=False,
    ),
}


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / name / "reference.npz") as file:
        return {key: file[key] for key in file.files}


def logits(config: TransformerConfig, model: Model, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda p, t: apply(config, p, t).logits)(model.params, tokens))


@pytest.fixture
def snapshot(tmp_path):
    """A function that copies a fixture, changes its config and tensors, and returns the folder."""

    def make(name="plain", tensors=None, **fields):
        root = tmp_path / "snapshot"
        shutil.copytree(FIXTURES / name, root)
        config = json.loads((root / "config.json").read_text())
        config.update(fields)
        config = {field: value for field, value in config.items() if value is not ...}
        (root / "config.json").write_text(json.dumps(config))
        if tensors is not None:
            weights = load_file(root / "model.safetensors")
            save_file(tensors(weights), root / "model.safetensors")
        return root

    return make


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_residual_stream_are_the_reference_librarys(name):
    model, expected = import_snapshot(FIXTURES / name), reference(name)
    assert model.config == CONFIGS[name]
    assert model.name == name
    assert model.means is None
    run = jax.jit(lambda p, t: apply(model.config, p, t, capture=("resid.pre",)))
    found = run(model.params, expected["tokens"])
    np.testing.assert_allclose(found.logits, expected["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.captured["resid.pre"], expected["residual"], atol=1e-4, rtol=0)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("plain", {"activation": "gelu"}),
        ("gelu_untied", {"activation": "gelu_tanh"}),
        ("plain", {"norm_eps": 1e-3}),
        ("gelu_untied", {"norm_eps": 1e-5}),
        ("relu_bare", {"causal": False}),
    ],
)
def test_the_reference_would_show_a_wrong_config(name, change):
    model, expected = import_snapshot(FIXTURES / name), reference(name)
    wrong = logits(dataclasses.replace(model.config, **change), model, expected["tokens"])
    assert np.abs(wrong - expected["logits"]).max() > 3e-4


def test_old_files_mean_the_same(snapshot):
    """As early snapshots are: no defaults in the config, no prefix, mask buffers, a tied head."""
    new = import_snapshot(FIXTURES / "plain")

    def age(tensors):
        old = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        for layer in range(2):
            old[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 24, 24), np.uint8))
            old[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
        old["lm_head.weight"] = old["wte.weight"]
        return old

    defaults = ("n_inner", "tie_word_embeddings", "scale_attn_weights", "add_cross_attention")
    more = ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "layer_norm_epsilon")
    absent = dict.fromkeys((*defaults, *more, "activation_function"), ...)
    old = import_snapshot(snapshot("plain", age, n_ctx=24, **absent), name="old")
    assert old.name == "old"
    assert old.hash == new.hash


def test_both_names_of_the_tanh_gelu_are_one(snapshot):
    model = import_snapshot(snapshot(activation_function="gelu_pytorch_tanh"))
    assert model.hash == import_snapshot(FIXTURES / "plain").hash


def test_a_model_directory_keeps_it(tmp_path):
    model = import_snapshot(FIXTURES / "gelu_untied")
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.hash == model.hash
    assert again.tokenizer_json == model.tokenizer_json
    assert again.provenance == model.provenance


def test_the_tokenizer_serves_tasks(snapshot):
    tokenizer = Tokenizer.from_json(import_snapshot(FIXTURES / "plain").tokenizer_json)
    text = "for é in names:\n\tprint('the cat')"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.bos_id == tokenizer.vocab_size - 1  # GPT-2's is the last one
    assert tokenizer.encode(BOS) == [tokenizer.bos_id]
    root = snapshot()
    fields = json.loads((root / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    fields["truncation"] = cut
    (root / "tokenizer.json").write_text(json.dumps(fields))
    uncut = Tokenizer.from_json(import_snapshot(root).tokenizer_json)
    assert uncut.encode(text) == tokenizer.encode(text)


BAD_CONFIG = {
    "model_type": ("bert", "model_type is 'bert'; choose one of gpt2, gpt_neox"),
    "activation_function": ("mish", "activation_function is 'mish'; choose one of gelu_new"),
    "scale_attn_weights": (2, "scale_attn_weights is 2; it must be true or false"),
    "scale_attn_by_inverse_layer_idx": (True, "scale_attn_by_inverse_layer_idx is True"),
    "reorder_and_upcast_attn": (True, "reorder_and_upcast_attn is True"),
    "add_cross_attention": (True, "add_cross_attention is True"),
    "quantization_config": ({"bits": 4}, "quantization_config is {'bits': 4}"),
    "tie_word_embeddings": (None, "tie_word_embeddings is None; it must be true or false"),
    "layer_norm_epsilon": (0, "layer_norm_epsilon is 0; it must be above 0"),
    "n_head": (3, "n_embd is 16; n_head, 3, must divide it"),
    "n_embd": ("16", "n_embd is '16'; it must be a whole number above 0"),
    "n_layer": (0, "n_layer is 0; it must be a whole number above 0"),
    "n_positions": (0, "n_positions is 0; it must be a whole number above 0"),
    "n_inner": (-4, "n_inner is -4; it must be a whole number above 0"),
    "vocab_size": (True, "vocab_size is True; it must be a whole number above 0"),
}


@pytest.mark.parametrize("field", BAD_CONFIG)
def test_a_config_that_cannot_be_expressed_is_named(snapshot, field):
    value, message = BAD_CONFIG[field]
    with pytest.raises(ValueError, match=r"config\.json: ") as caught:
        import_snapshot(snapshot(**{field: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def plus(name, value):
    return lambda tensors: {**tensors, name: value}


EMBED = "transformer.wte.weight"
BAD_TENSORS = {
    "missing": (without("transformer.h.1.mlp.c_fc.bias"), {}, "lacks the tensor h.1.mlp.c_fc.bias"),
    "missing layer": (
        lambda tensors: tensors,
        {"n_layer": 3},
        "lacks the tensor h.2.attn.c_attn.bias (and 11 more)",
    ),
    "extra layer": (
        lambda tensors: tensors,
        {"n_layer": 1},
        "no place for: h.1.attn.c_attn.bias (and 11 more)",
    ),
    "extra": (plus("score.weight", np.ones((2, 16), np.float32)), {}, "no place for: score.weight"),
    "both prefixes": (plus("wte.weight", np.ones((284, 16), np.float32)), {}, "holds both"),
    "misshapen": (
        plus(EMBED, np.ones((16, 284), np.float32)),
        {},
        f"tensor {EMBED} is shaped (16, 284), the config asks for (284, 16)",
    ),
    "other vocabulary": ({}, {"vocab_size": 300}, f"tensor {EMBED} is shaped (284, 16)"),
    "integers": (plus(EMBED, np.ones((284, 16), np.int8)), {}, f"tensor {EMBED} is I8"),
    "not finite": (
        plus(EMBED, np.full((284, 16), np.nan, np.float32)),
        {},
        f"tensor {EMBED} holds values that are not finite",
    ),
    "head not tied": (
        plus("lm_head.weight", np.ones((284, 16), np.float32)),
        {},
        "lm_head.weight is not wte.weight",
    ),
    "no head": (
        lambda tensors: tensors,
        {"tie_word_embeddings": False},
        "lacks the tensor lm_head.weight",
    ),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_named(snapshot, case):
    change, fields, message = BAD_TENSORS[case]
    root = snapshot("plain", change or None, **fields)
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        import_snapshot(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_truncated_file_is_named(snapshot, file):
    root = snapshot()
    content = (root / file).read_bytes()
    for size in (0, 5, len(content) // 2, len(content) - 3):
        (root / file).write_bytes(content[:size])
        with pytest.raises(ValueError, match=file) as caught:
            import_snapshot(root)
        assert "\n" not in str(caught.value)
    (root / file).unlink()
    with pytest.raises(ValueError, match=f"there is no file .*{file}"):
        import_snapshot(root)


def test_no_folder_and_foreign_json(tmp_path, snapshot):
    with pytest.raises(ValueError, match="there is no folder"):
        import_snapshot(tmp_path / "none")
    root = snapshot()
    (root / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds a JSON list; it must be an object"):
        import_snapshot(root)


def test_a_tokenizer_of_another_model_is_refused(snapshot):
    root = snapshot()
    text = (root / "tokenizer.json").read_text()
    fields = json.loads(text)
    fields["added_tokens"].append({**fields["added_tokens"][0], "id": 284, "content": "<|more|>"})
    (root / "tokenizer.json").write_text(json.dumps(fields))
    padded = import_snapshot(root)  # a pad token that nobody uses is no mismatch
    assert Tokenizer.from_json(padded.tokenizer_json).vocab_size == 285
    fields = json.loads(text)
    fields["model"]["vocab"]["zzz"] = 284
    (root / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="has 285 tokens, more than the vocab_size of 284"):
        import_snapshot(root)
    (root / "tokenizer.json").write_text(text.replace(BOS, "<|other|>"))
    with pytest.raises(ValueError, match=r"tokenizer\.json: the tokenizer has no token"):
        import_snapshot(root)
