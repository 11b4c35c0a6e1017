"""A released model by path: imported, given means, pruned on a built-in task."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from circuitjax.pretrain.corpus import encode_documents
from circuitjax.pretrain.packing import SOURCES, SPLITS, stream_files
from circuitjax.tasks.tokenizer import Tokenizer
from circuitjax.zoo.load import load_model
from tests.experiments.drive import drive
from tests.importers import openai_reference as reference
from tests.importers.openai_files import write_folder, write_tokenizer

# Every kind of node and every variant at once, small.
FIELDS = {
    "block_size": 96,
    "vocab_size": 2048,
    "n_layer": 2,
    "n_head": 2,
    "d_head": 4,
    "d_model": 16,
    "d_mlp": 24,
    "rms_norm": True,
    "tied_unembed": False,
    "enable_bigram_table": True,
    "d_pos_emb": 4,
    "sink": True,
    "afrac": 0.5,
    "afrac_loctypes": "attn_in,attn_q,attn_k,attn_v,attn_out,mlp_in,mlp_neuron,mlp_out",
}
PRUNE = ("--model=model", "--steps=4", "--batch_size=4", "--target_loss=0.05")


def write_corpus(root: pathlib.Path, tokenizer) -> None:
    texts = [f"def f{n}(xs):\n    return [x + {n} for x in xs]\n" * 30 for n in range(20)]
    tokens, starts = encode_documents(tokenizer._rust, texts)
    root.mkdir()
    (root / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    (root / "manifest.json").write_text("{}")
    for source, split in itertools.product(SOURCES, SPLITS):
        for name, array in zip(stream_files(source, split), (tokens, starts), strict=True):
            np.save(root / name, array)


@pytest.mark.slow
def test_from_their_folder_to_a_circuit(tmp_path):
    built_in = Tokenizer.from_json(load_model("tiny-python").tokenizer_json)
    bpe = json.loads(built_in.json)["model"]
    write_tokenizer(tmp_path / "tinypython", bpe["vocab"], bpe["merges"])
    state = reference.random_state(FIELDS, np.random.default_rng(0))
    write_folder(tmp_path / "csp", FIELDS, state)
    write_corpus(tmp_path / "corpus", built_in)
    where = ["--from=openai", "--path=csp", "--tokenizer=tinypython", "--out=model"]
    ((code, out, err),) = drive("import_model", [where], tmp_path)
    assert (code, err) == (0, ""), err
    refused, *_ = drive("prune", [["--task=with_as", "--out=none", *PRUNE]], tmp_path)
    assert refused[0] == 2
    assert "no activation means" in refused[2]
    ((code, out, err),) = drive("means", [["--model=model"]], tmp_path)
    assert (code, err) == (0, ""), err
    assert "means over 2" in out
    pruned, *_ = drive("prune", [["--task=with_as", "--out=run", *PRUNE]], tmp_path)
    assert pruned[0] == 0, pruned[2]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["model_hash"] == load_model(tmp_path / "model").hash
    assert report["model"] == "csp"
