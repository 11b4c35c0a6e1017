"""Nodes of an English task: of a GPT-2-shaped network that was trained on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import circuitjax as cj
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.transformer import apply, init_params
from circuitjax.run.report import read_report
from circuitjax.tasks import english
from circuitjax.tasks.contrast import draw_encoded
from tests.experiments.drive import drive
from tests.tasks.test_english import byte_level, known_words

pytestmark = pytest.mark.slow

EXAMPLES, STEPS = 30_000, 6_000
SIZES = {"train": 256, "validation": 128, "test": 128}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of two layers that names indirect objects, and its directory."""
    tokenizer = byte_level(2, known_words())
    data = draw_encoded(english.get("ioi"), tokenizer, "train", EXAMPLES, 0)._replace(templates=())
    config = TransformerConfig(
        num_layers=2, d_model=64, num_heads=4, d_head=16, d_mlp=256, norm="layer",
        vocab_size=tokenizer.vocab_size, context_length=data.tokens.shape[-1], activation="gelu_tanh",
        position="learned", tied_unembedding=True,
    )  # fmt: skip
    params = init_params(jax.random.key(0), config)
    optimizer = optax.adamw(
        optax.warmup_cosine_decay_schedule(0, 3e-3, 100, STEPS), weight_decay=0.1
    )

    @jax.jit
    def step(params, state, rows):
        def loss(params):
            tokens, last = data.tokens[rows, 0], data.last[rows]
            logits = apply(config, params, tokens).logits
            right = jnp.asarray(data.right[:, 0])[rows]
            asked = jnp.take_along_axis(logits, last[:, None, None], axis=1)[:, 0]
            cost = optax.softmax_cross_entropy_with_integer_labels
            # Of the text before as well: to know a name again is learned there.
            return cost(asked, right).mean() + cost(logits[:, :-1], tokens[:, 1:]).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    data = jax.tree.map(jnp.asarray, data)
    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(STEPS):
        params, state, value = step(params, state, rng.integers(0, EXAMPLES, 64))
    model = Model("tiny-gpt2", config, jax.tree.map(np.asarray, params), tokenizer.json)
    directory = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    model.save(directory)
    print("loss", float(value))
    return model, directory


def test_find_circuit_of_indirect_objects_at_nodes(trained):
    model, _ = trained
    circuit = cj.find_circuit(
        model, cj.tasks.get("ioi"), grain="nodes", ablation="interchange", steps=200, **SIZES
    )
    print(
        "nodes",
        circuit.num_nodes,
        "edges",
        circuit.num_edges,
        circuit.provenance["validation_loss"],
    )
    assert circuit.provenance["reached"]
    assert 0 < circuit.num_nodes < 400


def test_prune_nodes_by_command(trained, tmp_path):
    _, directory = trained
    arguments = [
        f"--model={directory}", "--task=ioi", "--method=nodes", "--ablation=resample", "--steps=200",
        "--out=run", "--train_pairs=256", "--validation_pairs=128", "--test_pairs=128",
    ]  # fmt: skip
    ((code, out, errors),) = drive("prune", [arguments], tmp_path)
    print(out, errors)
    assert code == 0, errors
    report = read_report(tmp_path / "run" / "report.json")
    assert (report.status, report.grain, report.ablation) == ("reached", "nodes", "resample")
    assert report.loss_circuit < 0.3
