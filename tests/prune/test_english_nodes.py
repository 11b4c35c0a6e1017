"""Nodes of an English task: of a small GPT-2-shaped network, from Python and by command."""

import jax
import numpy as np
import pytest

import circuitjax as cj
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import init_params
from circuitjax.run.report import read_report
from tests.experiments.drive import drive
from tests.tasks.test_english import byte_level, known_words

KL = 0.2
SIZES = {"train": 64, "validation": 32, "test": 32}


@pytest.fixture(scope="module")
def model():
    """Random weights, large enough for answers that differ from prompt to prompt."""
    tokenizer = byte_level(2, known_words())
    config = TransformerConfig(
        num_layers=2, d_model=32, num_heads=2, d_head=16, d_mlp=64, norm="layer",
        vocab_size=tokenizer.vocab_size, context_length=32, activation="gelu_tanh",
        position="learned", tied_unembedding=True,
    )  # fmt: skip
    params = jax.tree.map(lambda x: 3 * np.asarray(x), init_params(jax.random.key(0), config))
    return Model("tiny-gpt2", config, params, tokenizer.json)


@pytest.mark.parametrize("ranking", ["eliminated", pytest.param("learned", marks=pytest.mark.slow)])
def test_find_circuit_of_nodes_answers_as_the_model_does(model, ranking):
    training = {"steps": 60, "minimise": "kl"} if ranking == "learned" else {}
    circuit = cj.find_circuit(
        model, cj.tasks.get("ioi"), grain="nodes", ablation="interchange", target_kl=KL,
        ranking=ranking, **SIZES, **training,
    )  # fmt: skip
    assert circuit.provenance["reached"]
    assert circuit.grain == "nodes"
    assert 0 < circuit.num_nodes < 700


def test_prune_nodes_by_command(model, tmp_path):
    model.save(tmp_path / "tiny-gpt2")
    arguments = [
        "--model=tiny-gpt2", "--task=ioi", "--method=nodes", "--ablation=resample", "--out=run",
        "--ranking=eliminated", f"--target_kl={KL}", "--train_pairs=64", "--validation_pairs=32",
        "--test_pairs=32",
    ]  # fmt: skip
    ((code, _, errors),) = drive("prune", [arguments], tmp_path)
    assert code == 0, errors
    report = read_report(tmp_path / "run" / "report.json")
    assert (report.status, report.grain, report.ablation) == ("reached", "nodes", "resample")
    assert report.kl_validation <= KL
    assert report.kl_to_model < 2 * KL
