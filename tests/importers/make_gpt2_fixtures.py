"""Makes tiny random GPT-2 snapshots, and what the reference library computes on them.

    python tests/importers/make_gpt2_fixtures.py [--out=tests/importers/gpt2]

Each folder is a snapshot as `transformers` itself writes it (config.json, model.safetensors), a
byte-level tokenizer.json as `tokenizers` trains it, and reference.npz: tokens `[B, T]`, logits
`[B, T, V]`, and the residual stream before each layer `[L, B, T, D]`. Needs PyTorch and
`transformers`; the tests that read the fixtures do not.
"""

import argparse
import pathlib
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

TEXT = [
    "def area(width, height):\n    return width * height\n",
    "for name in names:\n    print(name, len(name))\n",
    "The cat sat on the mat, and the dog sat on the cat.\n",
]
# name: (config, type of the stored weights, whether the model is saved without its head)
SNAPSHOTS: dict[str, tuple[dict[str, Any], torch.dtype, bool]] = {
    "plain": ({}, torch.float32, False),
    "relu_bare": (
        {
            "n_layer": 3,
            "n_inner": 24,
            "activation_function": "relu",
            "layer_norm_epsilon": 0.05,
        },
        torch.float16,
        True,
    ),
    "gelu_untied": (
        {
            "n_head": 4,
            "n_inner": 40,
            "activation_function": "gelu",
            "layer_norm_epsilon": 1e-3,
            "tie_word_embeddings": False,
        },
        torch.bfloat16,
        False,
    ),
}


def train_tokenizer() -> tokenizers.Tokenizer:
    """GPT-2's kind: bytes and merges, `<|endoftext|>` the last token."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=283, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default="tests/importers/gpt2")
    root = parser.parse_args().out
    tokenizer = train_tokenizer()
    for seed, (name, (changes, kind, bare)) in enumerate(SNAPSHOTS.items()):
        fields = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 24, **changes}
        config = transformers.GPT2Config(
            vocab_size=tokenizer.get_vocab_size(), bos_token_id=283, eos_token_id=283, **fields
        )
        torch.manual_seed(seed)
        model = transformers.GPT2LMHeadModel(config).eval()
        with torch.no_grad():
            for weight in model.parameters():  # norms and biases too: none may stay 0 or 1
                weight.copy_(0.4 * torch.randn(weight.shape))
        model = model.to(kind)
        (model.transformer if bare else model).save_pretrained(root / name)
        (root / name / "generation_config.json").unlink(missing_ok=True)
        (root / name / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        tokens = torch.randint(0, config.vocab_size, (2, 12))
        with torch.no_grad():
            output = model.float()(tokens, output_hidden_states=True)
        np.savez_compressed(
            root / name / "reference.npz",
            tokens=tokens.numpy().astype(np.int32),
            logits=output.logits.numpy(),
            residual=torch.stack(output.hidden_states[:-1]).numpy(),
        )


if __name__ == "__main__":
    main()
