"""Every family against the reference library's logits and activations, and its switches.

The snapshots and their references were written by `transformers` (`tests/data/make_family_fixtures.py`).
"""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from circuitjax.importers.snapshot import import_snapshot
from circuitjax.model.record import Model
from circuitjax.model.rotary import Rotary
from circuitjax.model.transformer import apply
from tests.importers.families import NAMES, reference, snapshot

run = jax.jit(apply, static_argnums=0, static_argnames="capture")


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_nodes_are_the_reference_librarys(name, tmp_path):
    model, expected = import_snapshot(snapshot(tmp_path, name)), reference(name)
    sites = tuple(site for site in model.config.sites if site in expected)
    assert len(sites) == (5 if name.startswith("gpt_neox") else 10)
    found = run(model.config, model.params, expected["tokens"], capture=sites)
    np.testing.assert_allclose(found.logits, expected["logits"], atol=2e-5, rtol=0)
    for site in sites:
        np.testing.assert_allclose(found.captured[site], expected[site], atol=1e-4, rtol=1e-5)
    assert (
        model.provenance["imported_from"]
        == json.loads((tmp_path / name / "config.json").read_text())["model_type"]
    )


# Each switch of a config that changes the function, changed: the reference would show it.
CHANGES = [
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"hidden_act": "gelu_new"}),
    ("gpt_neox", {"layer_norm_eps": 1e-2}),
    ("gpt_neox", {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 10000.0}}),
    ("gpt_neox_serial", {"rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 100.0}}),
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"rms_norm_eps": 1e-2}),
    ("llama", {"rope_parameters": {"rope_theta": 500.0}}),
    ("llama3", {"rope_parameters": {"rope_theta": 500.0}}),
    ("llama_linear", {"rope_parameters": {"rope_theta": 900.0}}),
    ("mistral", {"sliding_window": 6}),
    ("mistral", {"sliding_window": None}),
    ("qwen2_window", {"sliding_window": 5}),
    ("qwen2_window", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("gemma2", {"query_pre_attn_scalar": 24}),
    ("gemma2", {"attn_logit_softcapping": 3.0}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma2", {"sliding_window": 5}),
    ("gemma3", {"sliding_window": 5}),
    ("gemma3", {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=lambda value: str(value)[:40])
def test_the_reference_would_show_a_wrong_switch(name, change, tmp_path):
    model, expected = import_snapshot(snapshot(tmp_path, name, **change)), reference(name)
    wrong = run(model.config, model.params, expected["tokens"]).logits
    assert np.abs(wrong - expected["logits"]).max() > 3e-4


OLD = {
    "gpt_neox": {"rope_parameters": ..., "rotary_pct": 0.25, "rotary_emb_base": 10000},
    "llama": {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None},
    "llama_linear": {
        "rope_parameters": ...,
        "rope_theta": 900.0,
        "rope_scaling": {"type": "linear", "factor": 3.0},
    },
    "llama3": {
        "rope_parameters": ...,
        "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2_window": {"layer_types": ..., "rope_parameters": ..., "rope_theta": 10000.0},
    "gemma2": {"layer_types": ..., "rope_parameters": ...},
    "gemma3": {
        "rope_parameters": ...,
        "rope_theta": 700.0,
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}


@pytest.mark.parametrize("name", OLD)
def test_configs_of_older_versions_mean_the_same(name, tmp_path):
    (tmp_path / "old").mkdir()
    new = import_snapshot(snapshot(tmp_path, name))
    old = import_snapshot(snapshot(tmp_path / "old", name, **OLD[name]))
    assert old.hash == new.hash


def test_what_a_config_leaves_out_is_as_the_reference_has_it(tmp_path):
    """Fields of the default value, gone from the file."""
    for name, fields in {
        "llama": (
            "hidden_act",
            "rms_norm_eps",
            "tie_word_embeddings",
            "attention_bias",
            "head_dim",
        ),
        "qwen2": ("use_sliding_window", "max_window_layers", "sliding_window", "hidden_act"),
        "gemma2_bare": ("sliding_window", "query_pre_attn_scalar", "attention_bias"),
        "gpt_neox": ("use_parallel_residual", "attention_bias", "hidden_act", "layer_norm_eps"),
    }.items():
        (tmp_path / "old").mkdir(exist_ok=True)
        whole = import_snapshot(snapshot(tmp_path, name))
        absent = import_snapshot(snapshot(tmp_path / "old", name, **dict.fromkeys(fields, ...)))
        assert absent.hash == whole.hash


def test_gemma3_repeats_its_pattern_of_windows(tmp_path):
    root = snapshot(tmp_path, "gemma3", layer_types=..., sliding_window_pattern=2)
    assert import_snapshot(root).config.windows == (4, 0, 4)


REFUSED = [
    ("llama", {"model_type": "mamba"}, "model_type is 'mamba'; choose one of gpt2, gpt_neox"),
    ("gemma3", {"model_type": "gemma3"}, "model_type is 'gemma3'"),
    ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp is 2; only 1 is supported"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ("llama", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; choose one of"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads is 3; it must divide"),
    ("llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0; it must be above 0"),
    ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'; choose one of"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "rope_type is 'dynamic'"),
    ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor is None; it must be above 0"),
    ("llama", {"rope_parameters": [1]}, "rope_parameters is [1]; it must be an object"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
    ("mistral", {"layer_types": ["full_attention"] * 2}, "layer_types is"),
    ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "sliding_window is None; layers of"),
    ("qwen2", {"layer_types": ["chunked_attention"] * 2}, "layer_types is"),
    ("qwen2", {"max_window_layers": "all"}, "max_window_layers is 'all'"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping is 5.0"),
    ("gemma3", {"rope_parameters": {"rope_theta": 1.0}}, "its keys must be of"),
    ("gpt_neox", {"num_attention_heads": 5}, "hidden_size is 32; num_attention_heads, 5"),
    ("gpt_neox", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("llama", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; it must be at most"),
    ("gemma2", {"num_hidden_layers": 10**12}, "it must be at most 2048"),
    ("llama", {"hidden_size": 10**18}, "hidden_size is 1000000000000000000; it must be at most"),
    ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps is a whole number of 1329 bits"),
    ("mistral", {"layer_types": [["full_attention"], {}]}, "layer_types is"),
    ("llama", {"num_hidden_layers": 3}, "lacks the tensor layers.2.input_layernorm.weight (and 8"),
    ("llama", {"attention_bias": True}, "lacks the tensor layers.0.self_attn.k_proj.bias (and 7"),
    ("qwen3_biased", {"attention_bias": False}, "no place for: layers.0.self_attn.k_proj.bias"),
    ("llama3", {"tie_word_embeddings": False}, "lacks the tensor lm_head.weight"),
    ("llama", {"vocab_size": 60}, "the tokenizer has 61 tokens, more than the vocab_size of 60"),
    ("llama", {"vocab_size": 64}, "is shaped (61, 24), the config asks for (64, 24)"),
]


@pytest.mark.parametrize(
    ("name", "change", "message"), REFUSED, ids=[f"{n} {m[:24]}" for n, _, m in REFUSED]
)
def test_what_is_not_expressed_exactly_is_refused_by_name(name, change, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        import_snapshot(snapshot(tmp_path, name, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen2", "gpt_neox_serial", "llama3"])
def test_a_tied_weight_lies_under_either_name_or_both(name, tmp_path):
    head = "embed_out.weight" if name.startswith("gpt_neox") else "lm_head.weight"
    expected = import_snapshot(snapshot(tmp_path, name)).hash

    def rename(tensors, keep=False):
        (embed,) = (full for full in tensors if "embed_" in full)
        table = tensors[embed] if keep else tensors.pop(embed)
        return {**tensors, head: table.copy()}

    for keep in (False, True):
        (tmp_path / str(keep)).mkdir()
        root = snapshot(tmp_path / str(keep), name, lambda t, keep=keep: rename(t, keep))
        assert import_snapshot(root).hash == expected
    (tmp_path / "other").mkdir()
    root = snapshot(tmp_path / "other", name, lambda t: {**t, head: rename(t, True)[head] + 1})
    with pytest.raises(ValueError, match=f"{head} is not embed"):
        import_snapshot(root)


def shard(folder, count=3):
    """Puts the weights of a snapshot into several files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    table = {}
    for index, name in enumerate(sorted(weights)):
        table[name] = f"model-{index % count + 1:05d}-of-{count:05d}.safetensors"
    for file in set(table.values()):
        part = {name: weights[name] for name, where in table.items() if where == file}
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_one_model(tmp_path):
    expected = import_snapshot(snapshot(tmp_path, "qwen3")).hash
    (tmp_path / "parts").mkdir()
    root = snapshot(tmp_path / "parts", "qwen3")
    shard(root)
    model = import_snapshot(root)
    assert model.hash == expected
    assert len(model.provenance["weights_sha256"]) == 64
    content = (root / "model-00002-of-00003.safetensors").read_bytes()
    (root / "model-00002-of-00003.safetensors").write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"cannot read .*model-00002-of-00003\.safetensors"):
        import_snapshot(root)
    (root / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"there is no file .*model-00002-of-00003\.safetensors, wh"
    ):
        import_snapshot(root)
    (root / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../y"}}')
    with pytest.raises(ValueError, match=r"'\.\./y' is no file of this folder"):
        import_snapshot(root)


def test_a_model_directory_keeps_every_feature(tmp_path):
    model = import_snapshot(snapshot(tmp_path, "gemma3"))
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.config.local_rotary == Rotary(8, 50.0)
    assert loaded.hash == model.hash


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_the_form_of_a_chat_template_is_kept(place, tmp_path):
    folder, template = snapshot(tmp_path, NAMES[0]), "{{ '<|im_start|>' + role }}"
    assert "chat_form" not in import_snapshot(folder).provenance
    said = json.dumps({"chat_template": template}) if place.endswith("json") else template
    (folder / place).write_text(said)
    assert import_snapshot(folder).provenance["chat_form"] == "chatml"
