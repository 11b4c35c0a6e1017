"""Makes the circuits of the first version that `tests/circuit/test_record.py` loads.

    git worktree add ../old cebea1b && cd ../old && python <this file> <folder to write>

It needs the code of that version (`circuitjax-circuit-1`, `circuitjax-edge-circuit-1`), the last with
one class for each grain. For nodes, weights and residual edges it writes a circuit of a tiny random
model, and in expected.npz what it answered then: tokens, corrupted tokens, and logits of each grain;
expected.json holds the content hashes. (Circuits of residual edges had none then: that of their arrays.)
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from circuitjax.circuit.edge_circuit import EdgeCircuit
from circuitjax.prune.weight_gates import weight_index
from circuitjax.prune.weight_paths import kept_paths

from circuitjax.circuit.circuit import Circuit
from circuitjax.model.config import TransformerConfig
from circuitjax.model.record import Model
from circuitjax.model.residual_graph import residual_graph
from circuitjax.model.sites import shapes
from circuitjax.model.transformer import apply, init_params

CONFIG = TransformerConfig(
    num_layers=2,
    d_model=8,
    num_heads=2,
    d_head=3,
    d_mlp=10,
    vocab_size=11,
    context_length=6,
    attention_sinks=True,
)


def main(root: pathlib.Path) -> None:
    """Writes the model, three circuits and what they answer."""
    rng = np.random.default_rng(0)
    shaped = jax.eval_shape(lambda: init_params(jax.random.key(0), CONFIG))
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), dict(shaped))
    model = Model("tiny", CONFIG, params)
    model.save(root / "model")
    tokens, corrupted = rng.integers(0, CONFIG.vocab_size, (2, 4, 6)).astype(np.int32)
    common = (model.name, model.hash, CONFIG)
    mask = {site: rng.random(shape) < 0.6 for site, shape in shapes(CONFIG).items()}
    fills = {s: rng.normal(size=shape).astype(np.float32) for s, shape in shapes(CONFIG).items()}
    facts = {"task": "quotes", "prune": {"ablation": "mean", "train_pairs": 8}, "seed": 3}
    nodes = Circuit(*common, mask, fills, 1.5, -0.25, facts)
    # As a search leaves them: no weight that is on no complete path.
    index = weight_index(CONFIG, params)
    chosen = rng.random(index.total) < 0.7
    opened, entered = kept_paths(CONFIG, index, chosen, mask)
    single = Circuit(*common, entered, fills, 0.75, 0.5, facts, index.opened(CONFIG, opened))
    kept = rng.random(residual_graph(CONFIG).num_edges) < 0.5
    facts = {"task": "ioi", "config": {"ablation": "interchange"}}
    edges = EdgeCircuit(*common, kept, "interchange", None, 2.0, -0.5, facts)
    answers, hashes = {}, {}
    for name, circuit in (("nodes", nodes), ("weights", single)):
        config, gated = circuit.gated(model)
        gated = jax.tree.map(jnp.asarray, dict(gated))
        held = {site: jnp.asarray(fill) for site, fill in circuit.fills.items()}
        answers[name] = apply(config, gated, tokens, circuit.gates(), held).logits
        hashes[name] = circuit.content_hash
        circuit.save(root / name, model)
    everywhere = np.broadcast_to(np.arange(6), (4, 6))
    answers["edges"] = edges.logits(model, tokens, corrupted, everywhere)
    edges.save(root / "edges", model)
    hashes["edges"] = json.loads((root / "edges" / "circuit.json").read_text())["arrays_hash"]
    np.savez_compressed(root / "expected.npz", tokens=tokens, corrupted=corrupted, **answers)
    (root / "expected.json").write_text(json.dumps(hashes, indent=1) + "\n")
    for note in root.rglob("commit_success.txt"):  # it says where it was written
        note.write_text("")
        sizes = note.with_name("sizes.json")
        found = json.loads(sizes.read_text()) | {note.name: 0}
        sizes.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
