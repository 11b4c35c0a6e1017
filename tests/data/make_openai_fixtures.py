"""Turns tiny random checkpoints of the released weight-sparse format into fixtures without PyTorch.

    python tests/data/make_openai_fixtures.py --source=FOLDER [--out=tests/data/openai]

FOLDER holds one folder per model with `beeg_config.json`, `final_model.pt` (a PyTorch state dict)
and `reference.npz` (tokens, logits and node activations as the other implementation computed them).
Each becomes NAME.npz (`params/...` under slash-joined names, `reference/...`) and NAME.json (the
config). The tensors are mapped by hand here, independently of any importer of the package. Needs
PyTorch; the tests that read the fixtures do not.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
import torch

# The other implementation's names of the places where AbsTopK acts.
SITE_OF = {
    "attn_in": "attn.act_in",
    "attn_q": "attn.q",
    "attn_k": "attn.k",
    "attn_v": "attn.v",
    "attn_out": "attn.resid_delta",
    "mlp_in": "mlp.act_in",
    "mlp_neuron": "mlp.post_act",
    "mlp_out": "mlp.resid_delta",
    "resid_post_attn": "resid.post_attn",
    "resid_post_mlp": "resid.post_mlp",
}
# A corner of the reference is enough; the models are causal, so early positions stand alone.
SEQUENCES, POSITIONS = 2, 12


def read_config(source: dict[str, Any], state: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of a `TransformerConfig`."""
    width = source.get("d_pos_emb") or 0
    places = [place for place in source.get("afrac_loctypes", "").split(",") if place]
    return {
        "num_layers": source["n_layer"],
        "d_model": source["d_model"],
        "num_heads": source["n_head"],
        "d_head": source["d_head"],
        "d_mlp": source["d_mlp"],
        "vocab_size": source["vocab_size"],
        "context_length": source["block_size"],
        "norm": "rms" if source["rms_norm"] else "layer",
        "position": "concatenated" if width else "learned",
        "d_position": width,
        "tied_unembedding": source["tied_unembed"],
        "biases": source.get("bias", True),
        "attention_sinks": source.get("sink", False),
        "bigram": source["enable_bigram_table"],
        "final_bias": "final_logits_bias" in state,
        "abs_top_k_fraction": source.get("afrac"),
        "abs_top_k_sites": [SITE_OF[place] for place in places],
    }


def read_params(config: dict[str, Any], state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{slash-joined name: array}; PyTorch keeps linear maps as [outputs, inputs]."""

    def stack(name: str) -> np.ndarray:
        return np.stack([state[f"transformer.h.{i}.{name}"] for i in range(config["num_layers"])])

    params = {
        "embed": state["transformer.wte.weight"],
        "positions": state["transformer.wpe.weight"],
        "final_norm_scale": state["transformer.ln_f.weight"],
        "layers/attn_norm_scale": stack("ln_1.weight"),
        "layers/mlp_norm_scale": stack("ln_2.weight"),
        "layers/attn_out": stack("attn.c_proj.weight").swapaxes(1, 2),
        "layers/attn_out_bias": stack("attn.c_proj.bias"),
        "layers/mlp_in": stack("mlp.c_fc.weight").swapaxes(1, 2),
        "layers/mlp_in_bias": stack("mlp.c_fc.bias"),
        "layers/mlp_out": stack("mlp.c_proj.weight").swapaxes(1, 2),
        "layers/mlp_out_bias": stack("mlp.c_proj.bias"),
    }
    joined = np.split(stack("attn.c_attn.weight"), 3, axis=1)
    joined_bias = np.split(stack("attn.c_attn.bias"), 3, axis=1)
    for name, weight, bias in zip("qkv", joined, joined_bias, strict=True):
        params[f"layers/attn_{name}"] = weight.swapaxes(1, 2)
        params[f"layers/attn_{name}_bias"] = bias
    if config["norm"] == "layer":
        params["final_norm_bias"] = state["transformer.ln_f.bias"]
        params["layers/attn_norm_bias"] = stack("ln_1.bias")
        params["layers/mlp_norm_bias"] = stack("ln_2.bias")
    if config["position"] == "concatenated":
        params["layers/attn_position_norm_scale"] = stack("ln_p1.weight")
        params["layers/mlp_position_norm_scale"] = stack("ln_p2.weight")
    if config["attention_sinks"]:
        params["layers/attn_sink"] = stack("attn.attn_imp.sink_logit")
    if not config["tied_unembedding"]:
        params["unembed"] = state["lm_head.weight"].T
    if config["bigram"]:
        params["bigram"] = state["bigram_table"]
    if config["final_bias"]:
        params["final_bias"] = state["final_logits_bias"]
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/openai"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path.parent for path in options.source.glob("*/beeg_config.json")):
        tensors = torch.load(folder / "final_model.pt", weights_only=True)
        state = {name: tensor.numpy() for name, tensor in tensors.items()}
        config = read_config(json.loads((folder / "beeg_config.json").read_text()), state)
        arrays = {f"params/{k}": v for k, v in read_params(config, state).items()}
        with np.load(folder / "reference.npz") as reference:
            for name in reference.files:
                arrays[f"reference/{name}"] = reference[name][:SEQUENCES, :POSITIONS]
        np.savez_compressed(options.out / f"{folder.name}.npz", **arrays)
        (options.out / f"{folder.name}.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
