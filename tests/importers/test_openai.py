"""Released weight-sparse models: recorded ones, and every variant of the format against NumPy."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates
from circuitjax.importers.openai import import_openai
from circuitjax.importers.openai_config import read_config
from circuitjax.model.config import SITES, TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply, init_params
from circuitjax.prune.config import stack_hypers
from circuitjax.prune.defaults import Search, default_hyper
from circuitjax.prune.objective import Objective
from circuitjax.prune.train import init_jobs, make_train_chunk
from tests.importers import openai_reference as reference
from tests.importers.openai_files import write_folder

FIXTURES = pathlib.Path(__file__).parent / "openai"
RECORDED = pathlib.Path(__file__).parents[1] / "data" / "openai"
NAMES = ("abstopk", "catpos", "layernorm_tied", "plain", "sink")
ATTENTION = ("attn_in", "attn_q", "attn_k", "attn_v", "attn_out")
PLACES = (*ATTENTION, "mlp_in", "mlp_neuron", "mlp_out", "resid_post_attn", "resid_post_mlp")
SIZES = {"block_size": 14, "vocab_size": 30, "n_layer": 2, "n_head": 3, "d_model": 12}
RMS = {"rms_norm": True, "tied_unembed": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "all defaults": {},
    "nulls are defaults": {"d_head": None, "d_mlp": None, "afrac": None, "d_pos_emb": None},
    "untied": {"tied_unembed": False},
    "rms": RMS,
    "rms and tied": {"rms_norm": True},
    "rms, relu neurons": {**RMS, "activation_type": "relu"},
    "no biases": {**RMS, "bias": False},
    "no biases but those of the norms": {"bias": False},
    "layer norm without its bias": {"ln_bias": False},
    "no bias anywhere": {"bias": False, "ln_bias": False, "tied_unembed": False},
    "heads of another width": {**RMS, "d_head": 5, "n_head": 2},
    "few neurons": {**RMS, "d_mlp": 7},
    "few neurons, as older files say": {**RMS, "n_mlp": 7},
    "sinks": {**RMS, "sink": True},
    "sinks, layer norm": {"sink": True},
    "bigram": {**RMS, "enable_bigram_table": True, "learnable_bigram_table": True},
    "fixed bigram": {"enable_bigram_table": True, "learnable_bigram_table": False},
    "concatenated positions": {**RMS, "d_pos_emb": 5},
    "concatenated positions, layer norm": {"d_pos_emb": 5},
    "concatenated positions, layer norm without bias": {"d_pos_emb": 5, "ln_bias": False},
    "sinusoidal positions": {**RMS, "d_pos_emb": 6, "sinusoidal_cat_pos_emb": True},
    "relu stream": {**RMS, "residual_activation_type": "relu"},
    "relu stream, sparse": {
        "residual_activation_type": "relu",
        "afrac": 0.5,
        "afrac_loctypes": "resid_post_attn,resid_post_mlp",
    },
    "sparse at the usual places": {**RMS, "afrac": 0.34},
    "sparse at no place": {**RMS, "afrac": 0.34, "afrac_loctypes": ""},
    "sparse, everything kept": {**RMS, "afrac": 1},
    "sparse everywhere": {**RMS, "afrac": 0.4, "afrac_loctypes": ",".join(PLACES)},
    "as released": {
        **RMS,
        "d_head": 4,
        "d_mlp": 20,
        "d_pos_emb": 5,
        "sink": True,
        "enable_bigram_table": True,
        "learnable_bigram_table": True,
        "afrac": 0.3,
        "afrac_loctypes": "attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_v,attn_k,attn_q",
        "tokenizer_name": "tinypython_2k",
        "dropout": 0.1,
        "dropout_cat_pos_emb": True,
        "debug_nans": True,
        "grad_checkpointing": True,
        "flash": True,
        "enable_sparse_kernels": True,
        "use_tied_aux_matrix": False,
    },
    **{f"sparse {place}": {**RMS, "afrac": 0.3, "afrac_loctypes": place} for place in PLACES},
}
TOKENS = np.random.default_rng(3).integers(0, 30, (2, 14))  # as long as the context


@pytest.fixture(autouse=True)
def _no_compilation():
    """Dozens of programs run once each: what compiles for a second would run for a blink."""
    with jax.disable_jit():
        yield


def make(
    folder: pathlib.Path, changes: dict[str, Any], final_bias: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Writes a random model; returns its config and state dict."""
    fields = {**SIZES, **changes}
    rng = np.random.default_rng(len(json.dumps(changes)))
    state = reference.random_state(fields, rng, final_bias)
    if changes.get("sinusoidal_cat_pos_emb"):
        state["transformer.wpe.weight"] = reference.sinusoids(14, changes["d_pos_emb"])
    write_folder(folder, fields, state)
    return fields, state


def distance(model: Model, expected: dict[str, np.ndarray], tokens: np.ndarray) -> float:
    """The greatest difference of a logit or a node's activation."""
    output = apply(model.config, model.params, tokens, capture=SITES)
    apart = [np.abs(output.logits - expected["logits"]).max()]
    for layer in range(model.config.num_layers):
        for site in SITES:
            value = expected[f"{layer}.{site}"]
            assert output.captured[site][layer].shape == value.shape, site
            apart.append(np.abs(output.captured[site][layer] - value).max())
    return float(max(apart))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_the_formats_description(tmp_path, name):
    fields, state = make(tmp_path, VARIANTS[name])
    model = import_openai(tmp_path, name="mine")
    apart = distance(model, reference.run(fields, state, TOKENS), TOKENS)
    print(f"\n| {name} | {apart:.1e} |")  # pytest -s: the table of parity
    assert apart < 1e-4
    assert (model.name, model.means, model.tokenizer_json) == ("mine", None, "")
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {np.dtype(np.float32)}


def test_without_a_final_bias(tmp_path):
    fields, state = make(tmp_path, RMS, final_bias=False)
    model = import_openai(tmp_path)
    assert "final_bias" not in model.params
    assert distance(model, reference.run(fields, state, TOKENS), TOKENS) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_models(name):
    """Config and parameters are, to the bit, those that another conversion made of the same files.

    What the model computes with these is held to the recorded values in tests/model/test_reference.py.
    """
    model = import_openai(FIXTURES / name)
    with np.load(RECORDED / f"{name}.npz") as file:
        recorded = {key: file[key] for key in file.files}
    leaves = jax.tree_util.tree_flatten_with_path(model.params)[0]
    found = {"/".join(["params", *(str(p.key) for p in path)]): leaf for path, leaf in leaves}
    assert found.keys() == {key for key in recorded if key.startswith("params/")}
    for key, leaf in found.items():
        np.testing.assert_array_equal(leaf, recorded[key], err_msg=key)
    config = TransformerConfig.from_dict(json.loads((RECORDED / f"{name}.json").read_text()))
    assert model.config == config
    expected = {
        key.removeprefix("reference/"): value
        for key, value in recorded.items()
        if key.startswith("reference/")
    }
    tokens = expected.pop("tokens")
    fields = json.loads((FIXTURES / name / "beeg_config.json").read_text())
    assert model.provenance["config"] == fields
    assert model.provenance["weights_types"] == ["float32"]
    # The reference of the other tests is itself held to the recorded values.
    state = as_state(model)
    own = reference.run(fields, state, tokens)
    for key, value in expected.items():
        np.testing.assert_allclose(own[key], value, atol=1e-4, err_msg=key)


def as_state(model: Model) -> dict[str, np.ndarray]:
    """Our parameters under the format's names again."""
    p, layers = model.params, model.params["layers"]
    state = {"transformer.wte.weight": p["embed"], "transformer.wpe.weight": p["positions"]}
    plain = {"final_bias": "final_logits_bias", "bigram": "bigram_table"}
    state |= {theirs: p[ours] for ours, theirs in plain.items() if ours in p}
    if "unembed" in p:
        state["lm_head.weight"] = p["unembed"].T
    norms = {
        "attn_norm": "ln_1",
        "mlp_norm": "ln_2",
        "attn_position_norm": "ln_p1",
        "mlp_position_norm": "ln_p2",
    }
    maps = {"attn_out": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
    for end, word in (("scale", "weight"), ("bias", "bias")):
        if f"final_norm_{end}" in p:
            state[f"transformer.ln_f.{word}"] = p[f"final_norm_{end}"]
    for i in range(model.config.num_layers):
        start = f"transformer.h.{i}."
        for end, word in (("scale", "weight"), ("bias", "bias")):
            for ours, theirs in norms.items():
                if f"{ours}_{end}" in layers:
                    state[f"{start}{theirs}.{word}"] = layers[f"{ours}_{end}"][i]
        for end, word in (("", "weight"), ("_bias", "bias")):
            for ours, theirs in maps.items():
                state[f"{start}{theirs}.{word}"] = layers[ours + end][i].T
            joined = [layers[f"attn_{letter}{end}"][i].T for letter in "qkv"]
            state[f"{start}attn.c_attn.{word}"] = np.concatenate(joined)
        if "attn_sink" in layers:
            state[f"{start}attn.attn_imp.sink_logit"] = layers["attn_sink"][i]
    return state


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rms", {"norm_eps": 1e-3}),
        ("untied", {"norm_eps": 1e-3}),
        ("rms", {"activation": "gelu_tanh"}),
        ("relu stream", {"residual_activation": "identity"}),
        ("sparse everywhere", {"abs_top_k_fraction": 0.5}),
        ("sparse resid_post_mlp", {"abs_top_k_sites": ("resid.post_attn",)}),
        ("sinks", {"causal": False}),
    ],
)
def test_the_reference_would_show_a_wrong_config(tmp_path, name, change):
    fields, state = make(tmp_path, VARIANTS[name])
    model = import_openai(tmp_path)
    wrong = dataclasses.replace(model, config=dataclasses.replace(model.config, **change))
    assert distance(wrong, reference.run(fields, state, TOKENS), TOKENS) > 3e-4


def test_older_files_mean_the_same(tmp_path):
    """A tied head left out, half precision that loses nothing, the causal mask as a buffer."""
    fields, state = make(tmp_path / "new", {"d_mlp": 8})
    state = {name: value.astype(np.float16) for name, value in state.items()}
    state = {name: np.ascontiguousarray(value) for name, value in state.items()}
    full = {name: value.astype(np.float32) for name, value in state.items()}
    write_folder(tmp_path / "new", fields, full)
    del state["lm_head.weight"]
    for layer in range(2):
        state[f"transformer.h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 14, 14), np.float16))
    older = {**fields, "n_mlp": fields["d_mlp"], "flash": False, "use_tied_aux_matrix": False}
    del older["d_mlp"]
    write_folder(tmp_path / "old", older, state)
    old = import_openai(tmp_path / "old")
    assert old.hash == import_openai(tmp_path / "new").hash
    assert old.provenance["weights_types"] == ["float16"]
    assert old.name == "old"


def test_a_model_directory_keeps_it(tmp_path):
    model = import_openai(FIXTURES / "abstopk")
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert (again.hash, again.provenance) == (model.hash, model.provenance)


def test_a_model_of_475_million_parameters_by_its_shapes():
    """One pruning step at full size: a state of the same shapes, a gate for every node."""
    fields = {
        "vocab_size": 2048,
        "n_layer": 8,
        "n_head": 128,
        "d_head": 16,
        "d_model": 2048,
        "d_mlp": 8192,
        "d_pos_emb": 512,
        "rms_norm": True,
        "tied_unembed": False,
        "enable_bigram_table": True,
        "sink": True,
    }
    config = read_config("beeg_config.json", fields)
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), config))
    assert 474e6 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 476e6
    objective = Objective("heaviside", "task", "count", "binary", False, False, "loss", 1, 16)
    hypers = stack_hypers([default_hyper(Search(), config.num_nodes)])
    seeds = np.zeros(1, np.uint32)
    with jax.disable_jit(False):
        float32, int32 = np.dtype(np.float32), np.dtype(np.int32)
        fills = {k: jax.ShapeDtypeStruct(v, float32) for k, v in shapes(config).items()}
        gated = NodeGates(params, fills, config=config)
        state = jax.eval_shape(lambda gated: init_jobs(objective, seeds, hypers, gated), gated)
        ends = ((64, 2, 32), (64, 1), (64, 1), (64, 1))
        examples = Examples(*(jax.ShapeDtypeStruct(end, int32) for end in ends), paired=True)
        step = make_train_chunk(objective)
        after, metrics = step.eval_shape(state, 1, gated, examples)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert metrics["loss"].shape == (1, 1)
    assert sum(leaf.size for leaf in jax.tree.leaves(after.tau)) == config.num_nodes == 188416
