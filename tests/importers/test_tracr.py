"""Compiled programs: the compiler's own residual stream and outputs, and one line for bad files.

The three programs were compiled by the tracr library, which also recorded 64 inputs, the residual
stream after the last layer, and the decoded outputs.
"""

import dataclasses
import json
import pathlib
import types

import jax
import numpy as np
import pytest

from circuitjax.importers.tracr import TracrProgram, from_tracr_model, load_tracr
from circuitjax.model.record import Model
from circuitjax.model.transformer import Output, apply

FIXTURES = pathlib.Path(__file__).parent / "tracr"
PROGRAMS = ("reverse", "sort_unique", "xproportion")
CATEGORICAL = ("reverse", "sort_unique")


def run(program: TracrProgram, tokens: np.ndarray) -> Output:
    model = program.model
    forward = jax.jit(lambda p, t: apply(model.config, p, t, capture=("resid.post",)))
    return forward(model.params, tokens)


@pytest.mark.parametrize("name", PROGRAMS)
def test_residual_stream_and_outputs_are_the_compilers(name):
    program = load_tracr(FIXTURES / f"{name}.npz")
    assert program.inputs.shape[0] == 64
    output = run(program, program.inputs)
    # resid.post of the last layer is what the unembedding reads: there is no final norm.
    residual = np.asarray(output.captured["resid.post"][-1])
    np.testing.assert_allclose(residual, program.final_residual, atol=1e-4, rtol=0)
    places = [program.residual_labels.index(label) for label in program.output_directions]
    width = len(places)
    expected = program.final_residual[..., places]
    np.testing.assert_allclose(output.logits[..., :width], expected, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(output.logits[..., width:], 0)
    for found, recorded in zip(program.decode(output.logits), program.decoded, strict=True):
        if name in CATEGORICAL:
            assert found == list(recorded)
        else:
            assert found[0] == recorded[0] == program.bos
            np.testing.assert_allclose(found[1:], recorded[1:], atol=1e-6)


def test_the_programs_do_what_their_names_say():
    """On inputs of our own: nothing recorded enters."""
    reverse = load_tracr(FIXTURES / "reverse.json")
    words = ["3", "1", "2", "1", "2"]
    said = reverse.decode(run(reverse, reverse.encode(words)[None]).logits)
    assert said == [["BOS", *reversed(words)]]
    sort = load_tracr(FIXTURES / "sort_unique")
    said = sort.decode(run(sort, sort.encode(["4", "1", "3", "2"])[None]).logits)
    assert said == [["BOS", "1", "2", "3", "4"]]
    share = load_tracr(FIXTURES / "xproportion.npz")
    said = share.decode(run(share, share.encode(["x", "y", "x", "z"])[None]).logits)
    np.testing.assert_allclose(said[0][1:], [1, 1 / 2, 2 / 3, 1 / 2], atol=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_the_files_say_is_kept(name):
    program = load_tracr(FIXTURES / f"{name}.npz", name="mine")
    fields = json.loads((FIXTURES / f"{name}.json").read_text())
    config = program.model.config
    assert program.model.name == "mine"
    assert (config.norm, config.activation, config.causal) == ("none", "relu", False)
    assert (config.d_head, config.d_mlp) == (fields["key_size"], fields["mlp_hidden_size"])
    assert [list(edge) for edge in program.true_edges] == fields["true_edges"]
    assert program.nodes == tuple(fields["nodes"])
    assert program.encoding == fields["encoding"]
    assert program.inputs.dtype == np.int32


def test_a_model_directory_keeps_the_names(tmp_path):
    model = load_tracr(FIXTURES / "reverse.npz").model
    model.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.hash == model.hash
    fields = json.loads((FIXTURES / "reverse.json").read_text())
    for field in ("encoding", "bos", "residual_labels", "output_directions", "true_edges"):
        assert again.provenance[field] == fields[field]


def test_encode_refuses_what_the_program_cannot_take():
    program = load_tracr(FIXTURES / "reverse.npz")
    with pytest.raises(ValueError, match=r"unknown tokens \['7'\]"):
        program.encode(["1", "7"])
    with pytest.raises(ValueError, match="6 tokens are too many: the program takes 5"):
        program.encode(["1"] * 6)


def test_more_outputs_than_input_tokens(tmp_path):
    """The vocabulary is then as wide as the outputs, and the extra embedding rows are zero."""
    fields, arrays = files("sort_unique")
    fields["output_directions"] = fields["residual_labels"][:9]
    fields["output_encoder"] = {str(index): index for index in range(9)}
    fields["decoded"] = [["BOS", 0, 0, 0, 0]] * 64
    program = load_tracr(write(tmp_path, fields, arrays))
    assert program.model.config.vocab_size == 9
    assert not program.model.params["embed"][6:].any()
    logits = run(program, program.inputs).logits
    np.testing.assert_allclose(logits, program.final_residual[..., :9], atol=1e-4)


def files(name):
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads((FIXTURES / f"{name}.json").read_text()), arrays


def write(folder, fields, arrays):
    (folder / "program.json").write_text(json.dumps(fields))
    np.savez(folder / "program.npz", **arrays)
    return folder / "program.npz"


# What a bad pair of files says: changes to the JSON (... removes), to the arrays (None removes).
BAD = {
    "no field": ({"causal": ...}, {}, "program.json: causal must be of type bool"),
    "field of another type": ({"num_heads": "1"}, {}, "num_heads must be of type int"),
    "scale": ({"attention_scale": "1"}, {}, "attention_scale is '1'"),
    "layer norm": ({"layer_norm": True}, {}, "layer_norm is true"),
    "activation": ({"activation": "gelu"}, {}, "activation is 'gelu'; only 'relu'"),
    "labels": ({"residual_labels": ["one"]}, {}, "residual_labels must be 41 different names"),
    "directions": ({"output_directions": ["a", "b", "c"]}, {}, "not among residual_labels"),
    "encoder": ({"output_encoder": {"1": 0, "2": 1, "3": 3}}, {}, "does not number the 3"),
    "number with 3 columns": (
        {"output_encoder": None, "decoded": [["BOS", 0, 0, 0, 0, 0]] * 64},
        {},
        "does not number the 3",
    ),
    "no encoder": ({"output_encoder": ...}, {}, "output_encoder must be a dict, or null"),
    "encoding": ({"encoding": {"BOS": 0, "1": 2}}, {}, "encoding must number tokens from 0"),
    "bos": ({"bos": "GO", "decoded": []}, {}, "encoding must number tokens from 0, 'GO' with"),
    "edge": ({"true_edges": [["embed", "m0"]]}, {}, "true_edges holds ['embed', 'm0']"),
    "decoded": ({"decoded": [["BOS", 1, 2, 3, 1, 9]] * 64}, {}, "decoded holds 9"),
    "short row": ({"decoded": [["BOS", 1]] * 64}, {}, "not BOS and 5 outputs"),
    "fewer outputs": (
        {"decoded": [["BOS", 1, 1, 1, 1, 1]] * 63},
        {},
        "is shaped (64, 6, 41); it must be (63, 6, 41)",
    ),
    "no heads": ({"num_heads": 0}, {}, "num_heads is 0"),
    "another layer": ({"num_layers": 5}, {}, "lacks the array layer_4/attn/b_k, shaped (12,)"),
    "one layer fewer": ({"num_layers": 3}, {}, "no place in the program: layer_3/attn/b_k"),
    "no array": ({}, {"layer_1/mlp/w_in": None}, "lacks the array layer_1/mlp/w_in"),
    "no tokens": ({}, {"tokens": None}, "lacks the array tokens, shaped (64, 6)"),
    "misshapen": (
        {},
        {"token_embed": np.ones((4, 41), np.float32)},
        "array token_embed is shaped (4, 41); it must be (5, 41)",
    ),
    "extra": ({}, {"bonus": np.ones(3)}, "no place in the program: bonus"),
    "pickle": (
        {},
        {"pos_embed": np.array([["a", 1]], object)},
        "cannot read pos_embed of",
    ),
    "text": ({}, {"layer_0/attn/b_q": np.array(["a"] * 12)}, "b_q must hold finite numbers"),
    "nan": ({}, {"layer_0/attn/b_q": np.full(12, np.nan)}, "b_q must hold finite numbers"),
    "tokens beyond": ({}, {"tokens": np.full((64, 6), 5)}, "tokens must hold whole numbers from 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_clear_line(tmp_path, case):
    changed, replaced, message = BAD[case]
    fields, arrays = files("reverse")
    if case == "bos":
        arrays["tokens"], arrays["final_residual"] = (
            arrays["tokens"][:0],
            arrays["final_residual"][:0],
        )
    fields = {key: value for key, value in {**fields, **changed}.items() if value is not ...}
    arrays = {key: value for key, value in {**arrays, **replaced}.items() if value is not None}
    path = write(tmp_path, fields, arrays)
    with pytest.raises(ValueError, match="program") as caught:
        load_tracr(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["program.json", "program.npz"])
def test_a_missing_or_truncated_file_is_named(tmp_path, file):
    path = write(tmp_path, *files("sort_unique"))
    content = (tmp_path / file).read_bytes()
    for size in (0, 5, len(content) // 2, len(content) - 5):
        (tmp_path / file).write_bytes(content[:size])
        with pytest.raises(ValueError, match=file) as caught:
            load_tracr(path)
        assert "\n" not in str(caught.value)
    np.save(path, np.ones(3))
    (tmp_path / "program.npz.npy").replace(path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"there is no file .*{file}"):
        load_tracr(path)


# The library's names of one layer's modules, written down apart from the importer's.
MODULES = {
    "query": ("attn/w_q", "attn/b_q"),
    "key": ("attn/w_k", "attn/b_k"),
    "value": ("attn/w_v", "attn/b_v"),
    "linear": ("attn/w_o", "attn/b_o"),
    "linear_1": ("mlp/w_in", "mlp/b_in"),
    "linear_2": ("mlp/w_out", "mlp/b_out"),
}


def live(name, **changes):
    """A stand-in for the library's assembled model, with the attributes the importer reads."""
    fields, arrays = files(name)
    params = {
        "token_embed": {"embeddings": jax.numpy.asarray(arrays["token_embed"])},
        "pos_embed": {"embeddings": arrays["pos_embed"]},
    }
    for layer in range(fields["num_layers"]):
        for module, (weight, bias) in MODULES.items():
            block = "mlp" if module.startswith("linear_") else "attn"
            params[f"transformer/layer_{layer}/{block}/{module}"] = {
                "w": arrays[f"layer_{layer}/{weight}"],
                "b": arrays[f"layer_{layer}/{bias}"],
            }

    def typed(encoding):  # the live encoders hold values, not their text
        return {int(k) if k.isdigit() else k: v for k, v in encoding.items()}

    reader = types.SimpleNamespace(encoding_map=typed(fields["encoding"]), bos_token=fields["bos"])
    writer = types.SimpleNamespace()
    if fields["output_encoder"] is not None:
        writer.encoding_map = typed(fields["output_encoder"])
    config = types.SimpleNamespace(
        num_heads=fields["num_heads"],
        num_layers=fields["num_layers"],
        key_size=fields["key_size"],
        mlp_hidden_size=fields["mlp_hidden_size"],
        dropout_rate=0.0,
        activation_function=changes.pop("activation_function", jax.nn.relu),
        layer_norm=changes.pop("layer_norm", False),
        causal=fields["causal"],
    )
    params.update(changes.pop("params", {}))
    everything = {
        "params": {key: value for key, value in params.items() if value is not None},
        "model_config": config,
        "residual_labels": fields["residual_labels"],
        "input_encoder": reader,
        "output_encoder": writer,
    }
    return types.SimpleNamespace(**{**everything, **changes})


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("reverse", None),
        ("reverse", "reverse_1"),
        ("sort_unique", None),
        ("xproportion", "frac_prevs_7"),
    ],
)
def test_a_live_model_is_the_stored_one(name, output):
    found = from_tracr_model(live(name), name=name, output=output)
    stored = load_tracr(FIXTURES / f"{name}.npz")
    assert found.model.hash == stored.model.hash
    given = {"inputs", "final_residual", "decoded", "true_edges", "nodes", "model"}
    for field in dataclasses.fields(TracrProgram):
        expected = None if field.name in given else getattr(stored, field.name)
        assert field.name == "model" or getattr(found, field.name) == expected, field.name


BAD_LIVE = {
    "which number": ("xproportion", {}, None, "2 outputs fit output=None; name one of"),
    "unknown output": ("reverse", {}, "revers", "0 outputs fit output='revers'"),
    "wrong values": ("sort_unique", {}, "tokens_1", "0 outputs fit output='tokens_1'"),
    "layer norm": ("reverse", {"layer_norm": True}, None, "layer_norm is true"),
    "gelu": ("reverse", {"activation_function": jax.nn.gelu}, None, "activation is 'gelu'"),
    "no encoder": ("reverse", {"input_encoder": None}, None, "no assembled tracr model"),
    "no embedding": ("reverse", {"params": {"pos_embed": None}}, None, "pos_embed/embeddings"),
    "no module": (
        "reverse",
        {"params": {"transformer/layer_2/attn/key": None}},
        None,
        "lacks the array layer_2/attn/b_k",
    ),
    "extra module": (
        "reverse",
        {"params": {"transformer/layer_norm": {"scale": np.ones(41)}}},
        None,
        "no place in the program: transformer/layer_norm/scale",
    ),
}


@pytest.mark.parametrize("case", BAD_LIVE)
def test_a_live_model_that_does_not_fit(case):
    name, changes, output, message = BAD_LIVE[case]
    with pytest.raises(ValueError, match="model 'tracr'") as caught:
        from_tracr_model(live(name, **changes), output=output)
    assert message in str(caught.value)
