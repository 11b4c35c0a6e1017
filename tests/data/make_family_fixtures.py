"""Makes tiny random models of each family, and what the reference library computes on them.

    python tests/data/make_family_fixtures.py [--out=tests/data/families]

Each folder is a snapshot as `transformers` itself writes it (config.json, model.safetensors), and
reference.npz: tokens `[B, T]`, logits `[B, T, V]`, and what modules give, layer by layer, under the
names of our node sites `[L, B, T, W]`. Needs PyTorch and `transformers`; the tests that read the
fixtures do not.
"""

import argparse
import pathlib
from typing import Any

import numpy as np
import torch
import transformers

VOCABULARY, LENGTH = 61, 14
LLAMA = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
NEOX = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GEMMA = {**LLAMA, "head_dim": 8, "num_hidden_layers": 3}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
GLOBAL = {"rope_type": "linear", "factor": 8.0, "rope_theta": 700.0}
LOCAL = {"rope_type": "default", "rope_theta": 50.0}

# folder: (class of the config, its fields, type of the stored weights)
MODELS: dict[str, tuple[str, dict[str, Any], torch.dtype]] = {
    "gpt_neox": ("GPTNeoXConfig", NEOX, torch.float32),
    "gpt_neox_serial": (
        "GPTNeoXConfig",
        {
            **NEOX,
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "rotary_pct": 1.0,
            "rotary_emb_base": 300,
            "tie_word_embeddings": True,
            "layer_norm_eps": 1e-3,
        },
        torch.float32,
    ),
    "llama": ("LlamaConfig", LLAMA, torch.bfloat16),
    "llama3": (
        "LlamaConfig",
        {
            **LLAMA,
            "rope_parameters": LLAMA3,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 10,
            "rms_norm_eps": 1e-2,
        },
        torch.float32,
    ),
    "llama_linear": (
        "LlamaConfig",
        {
            **LLAMA,
            "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 900.0},
            "num_key_value_heads": 1,
            "hidden_act": "gelu",
        },
        torch.float16,
    ),
    "mistral": ("MistralConfig", {**LLAMA, "sliding_window": 5}, torch.float32),
    "mistral_whole": ("MistralConfig", {**LLAMA, "sliding_window": None}, torch.float32),
    "qwen2": ("Qwen2Config", {**LLAMA, "tie_word_embeddings": True}, torch.float32),
    "qwen2_window": (
        "Qwen2Config",
        {
            **LLAMA,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 4,
            "max_window_layers": 1,
        },
        torch.float32,
    ),
    "qwen3": ("Qwen3Config", {**LLAMA, "head_dim": 10}, torch.float32),
    "qwen3_biased": (
        "Qwen3Config",
        {**LLAMA, "head_dim": 8, "attention_bias": True, "tie_word_embeddings": True},
        torch.float32,
    ),
    "gemma2": (
        "Gemma2Config",
        {
            **GEMMA,
            "sliding_window": 4,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        torch.float32,
    ),
    "gemma2_bare": (
        "Gemma2Config",
        {
            **GEMMA,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": False,
            "hidden_activation": "gelu",
        },
        torch.float32,
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            **GEMMA,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {"full_attention": GLOBAL, "sliding_attention": LOCAL},
            "query_pre_attn_scalar": 5,
            "final_logit_softcapping": 3.0,
        },
        torch.float32,
    ),
}
# Our sites by the module whose output (">") or input ("<") they are.
SITES = {
    "attn.act_in": ">input_layernorm",
    "attn.q": ">self_attn.q_proj",
    "attn.k": ">self_attn.k_proj",
    "attn.v": ">self_attn.v_proj",
    "attn.resid_delta": ">self_attn.o_proj",
    "mlp.act_in": "<mlp.gate_proj",
    "mlp.gate": ">mlp.gate_proj",
    "mlp.up": ">mlp.up_proj",
    "mlp.post_act": "<mlp.down_proj",
    "mlp.resid_delta": ">mlp.down_proj",
}
NEOX_SITES = {
    "attn.act_in": ">input_layernorm",
    "attn.resid_delta": ">attention.dense",
    "mlp.act_in": ">post_attention_layernorm",
    "mlp.post_act": "<mlp.dense_4h_to_h",
    "mlp.resid_delta": ">mlp.dense_4h_to_h",
}


def listen(layers: Any, sites: dict[str, str]) -> dict[str, list[torch.Tensor]]:
    """Fills lists, layer by layer, as the model runs."""
    heard: dict[str, list[torch.Tensor]] = {site: [] for site in sites}
    for layer in layers:
        for site, where in sites.items():

            def hook(module: Any, inputs: Any, output: Any, site: str = site) -> None:
                heard[site].append(output if sites[site][0] == ">" else inputs[0])

            layer.get_submodule(where[1:]).register_forward_hook(hook)
    return heard


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default="tests/data/families")
    root = parser.parse_args().out
    for seed, (name, (kind, fields, stored)) in enumerate(MODELS.items()):
        config = getattr(transformers, kind)(
            vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0, **fields
        )
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():  # norms and biases too: none may stay 0 or 1
                weight.copy_(0.4 * torch.randn(weight.shape))
        model.to(stored).save_pretrained(root / name)
        (root / name / "generation_config.json").unlink(missing_ok=True)
        # Read back: a cast model would keep frequencies of 16 bits.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            root / name, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        neox = kind == "GPTNeoXConfig"
        stack = model.gpt_neox.layers if neox else model.model.layers
        heard = listen(stack, NEOX_SITES if neox else SITES)
        tokens = torch.randint(0, VOCABULARY, (2, LENGTH))
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits
        np.savez_compressed(
            root / name / "reference.npz",
            tokens=tokens.numpy().astype(np.int32),
            logits=logits.numpy(),
            **{site: torch.stack(values).numpy() for site, values in heard.items()},
        )


if __name__ == "__main__":
    main()
