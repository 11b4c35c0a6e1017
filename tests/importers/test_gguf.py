"""GGUF files, written here by the format's own package, against the snapshots of the same models."""

import json
import pathlib
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from circuitjax.importers.gguf_file import import_gguf
from circuitjax.importers.gguf_tokenizer import tokenizer_json
from circuitjax.importers.snapshot import import_snapshot
from circuitjax.tasks.tokenizer import Tokenizer
from tests.importers.families import FIXTURES, snapshot

gguf = pytest.importorskip("gguf")

WORDS = ["<|endoftext|>", *(f"w{i}" for i in range(1, 61))]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def in_pairs(value, heads):
    """Rows as llama.cpp turns them: channel i and i + C/2 of a head side by side."""
    by_head = value.reshape(heads, 2, -1, *value.shape[1:])
    return by_head.swapaxes(1, 2).reshape(value.shape)


def write(
    path: pathlib.Path, name: str, architecture: str, quant=None, metadata=()
) -> pathlib.Path:
    """The fixture `name` as a GGUF."""
    config = import_snapshot(snapshot(path.parent, name)).config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_layers)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_mlp)
    writer.add_context_length(config.context_length)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base((config.rotary).base)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] + [1] * 60)
    writer.add_token_merges([])
    for method, value in metadata:
        getattr(writer, method)(value)
    gemma = architecture.startswith("gemma")
    for full, value in load_file(FIXTURES / name / "model.safetensors").items():
        value = value.astype(np.float32)
        plain, kind = full.rsplit(".", 1)
        if plain.startswith("model.layers."):
            _, _, layer, part = plain.split(".", 3)
            new = f"blk.{layer}.{({**NAMES, **GEMMA} if gemma else NAMES)[part]}.{kind}"
            if architecture == "llama" and part[-6:] in ("q_proj", "k_proj"):
                value = in_pairs(value, config.num_heads if "q_" in part else config.kv_heads)
        else:
            new = f"{NAMES[plain]}.{kind}"
        if gemma and new.endswith("norm.weight"):
            value = value + 1
        if quant is not None and value.ndim == 2 and value.shape[-1] % 32 == 0:
            writer.add_tensor(new, gguf.quantize(value, quant), raw_dtype=quant)
        else:
            writer.add_tensor(new, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def close(one, other, atol):
    for name, value in other["layers"].items():
        np.testing.assert_allclose(one["layers"][name], value, atol=atol, rtol=0)
    for name in other.keys() - {"layers"}:
        np.testing.assert_allclose(one[name], other[name], atol=atol, rtol=0)


FILES = {
    "llama": ("llama", ()),
    "qwen2": ("qwen2", ()),
    "qwen3": ("qwen3", ()),
    "mistral_whole": ("llama", ()),
    "gemma2": (
        "gemma2",
        (
            ("add_sliding_window", 4),
            ("add_attn_logit_softcapping", 2.0),
            ("add_final_logit_softcapping", 3.0),
        ),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_gguf_is_the_snapshots_model(name, tmp_path):
    architecture, metadata = FILES[name]
    model = import_gguf(write(tmp_path / "m.gguf", name, architecture, metadata=metadata))
    expected = import_snapshot(tmp_path / name)
    changes = {"attention_scale", "norm_eps", "context_length"}
    one, other = model.config.to_dict(), expected.config.to_dict()
    assert {k: v for k, v in one.items() if k not in changes} == {
        k: v for k, v in other.items() if k not in changes
    }
    assert one["norm_eps"] == pytest.approx(other["norm_eps"])
    close(model.params, expected.params, 3e-7)
    assert model.provenance["quantised"] is False
    assert model.name == "m"


def test_quantised_weights_are_dequantised_and_said_to_be(tmp_path):
    path = write(
        tmp_path / "m.gguf", "gemma2", "gemma2", gguf.GGMLQuantizationType.Q8_0, FILES["gemma2"][1]
    )
    model = import_gguf(path)
    exact = import_snapshot(tmp_path / "gemma2")
    assert model.provenance["quantised"] is True
    assert "Q8_0" in model.provenance["weights_types"]
    close(model.params, exact.params, 0.02)


def test_llama3_frequencies_are_read_of_their_factors(tmp_path):
    path = write(tmp_path / "m.gguf", "llama", "llama")
    plain = import_gguf(path)
    assert plain.config.rotary.scaling == "none"
    with pytest.raises(ValueError, match=r"rope_freqs\.weight is not Llama 3's scaling"):
        import_gguf(with_tensor(tmp_path, "rope_freqs.weight", np.array([1, 2, 4], np.float32)))


def with_tensor(root, name, value):
    """A GGUF of `llama` with one more tensor."""
    original = gguf.GGUFWriter.write_header_to_file

    def more(self, *args, **kwargs):
        self.add_tensor(name, value)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "write_header_to_file", more)
        (root / "more").mkdir()
        return write(root / "more" / "m.gguf", "llama", "llama")


BAD = {
    "family": (("mamba", ()), "general.architecture is 'mamba'; choose one of llama, qwen2"),
    "experts": (("llama", (("add_expert_count", 8),)), "expert_count is 8"),
    "rope": (("llama", (("add_rope_dimension_count", 4),)), "rope.dimension_count is 4; only 6"),
    "yarn": (
        ("llama", (("add_rope_scaling_type", gguf.RopeScalingType.YARN),)),
        "rope_type is 'yarn'",
    ),
    "window": (("llama", (("add_sliding_window", 3),)), "sliding_window is not supported"),
    "cut": (("llama", (("add_tokenizer_pre", "viking"),)), "tokenizer.ggml.pre is 'viking'"),
    "tokenizer": (("llama", (("add_tokenizer_model", "rwkv"),)), "tokenizer.ggml.model is 'rwkv'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_gguf_cannot_have_is_refused_by_name(case, tmp_path, monkeypatch):
    (architecture, metadata), message = BAD[case]
    monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", overwrite)
    path = write(tmp_path / "m.gguf", "llama", architecture, metadata=metadata)
    with pytest.raises(ValueError, match=r"m\.gguf") as caught:
        import_gguf(path)
    assert message in str(caught.value)


def overwrite(self, key, val, vtype, sub_type=None):
    """As the writer's own, which refuses a key that is there already."""
    self.kv_data[0][key] = gguf.GGUFValue(value=val, type=vtype, sub_type=sub_type)


def test_a_cut_or_foreign_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        import_gguf(tmp_path / "none.gguf")
    content = write(tmp_path / "m.gguf", "llama", "llama").read_bytes()
    for size in (0, 3, 40, len(content) // 2):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cannot read .*cut\.gguf") as caught:
            import_gguf(tmp_path / "cut.gguf")
        assert "\n" not in str(caught.value)


TEXTS = ["the cat sat on the mat", "  two  spaces", "1943 or 12345", "café, naïve: 🙂\n\tx", "it's"]


def test_counts_beyond_the_file_are_refused_at_once(tmp_path):
    """An array said to have 2^60 items, where the file holds few: no loop over them."""
    file = write(tmp_path / "m.gguf", "llama", "llama")
    raw = file.read_bytes()
    place = raw.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    assert int.from_bytes(raw[place : place + 8], "little") == len(WORDS)
    for count in (2**20, 2**40, 2**60, 2**64 - 1):
        file.write_bytes(raw[:place] + count.to_bytes(8, "little") + raw[place + 8 :])
        started = time.perf_counter()
        with pytest.raises(ValueError, match=r"^cannot read .*m\.gguf") as caught:
            import_gguf(file)
        assert "\n" not in str(caught.value)
        assert time.perf_counter() - started < 5


def trained(kind):
    """A tokenizer as `tokenizers` trains it: bytes and merges, or pieces."""
    rust = Rust(
        models.BPE(byte_fallback=kind == "pieces", unk_token="<unk>" if kind == "pieces" else None)
    )
    special = ["<unk>", "<s>"] if kind == "pieces" else ["<|endoftext|>"]
    if kind == "pieces":
        rust.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        rust.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    else:
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + 60,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    rust.train_from_iterator(TEXTS * 3, trainer)
    return rust


def table(rust):
    vocabulary = rust.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def test_bytes_and_merges_are_read_of_the_tables():

    rust = trained("bytes")
    merges = [" ".join(pair) for pair in json.loads(rust.to_str())["model"]["merges"]]
    tokens = table(rust)
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }
    text, bos = tokenizer_json(values)
    assert bos == "<|endoftext|>"
    found = Tokenizer.from_json(text)
    for line in TEXTS:
        assert found.encode(line) == rust.encode(line).ids
        assert found.decode(found.encode(line)) == line


def test_pieces_and_scores_are_read_of_the_tables():
    """Merges follow from scores: those of a trained tokenizer rank its pieces as they were made."""
    rust = trained("pieces")
    tokens = table(rust)
    types = [2, 3] + [6] * 256 + [1] * (len(tokens) - 258)
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [-float(i) for i in range(len(tokens))],
        "tokenizer.ggml.bos_token_id": 1,
    }
    text, bos = tokenizer_json(values)
    assert bos == "<s>"
    found = Tokenizer.from_json(text)
    for line in TEXTS:
        assert found.encode(line) == rust.encode(line, add_special_tokens=False).ids
        assert found.decode(found.encode(line)) == line
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.scores is missing"):
        tokenizer_json({**values, "tokenizer.ggml.scores": None})


def test_the_form_of_a_chat_template_is_kept(tmp_path):
    said = (("add_chat_template", "{{ '<|im_start|>' + role }}"),)
    model = import_gguf(write(tmp_path / "m.gguf", "llama", "llama", metadata=said))
    assert model.provenance["chat_form"] == "chatml"
