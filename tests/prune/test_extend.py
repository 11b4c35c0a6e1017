"""A gate and an ablation of one's own: one place each, and every grain has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated import replacement
from circuitjax.gated.replacement import Ablation, refer, shifted
from circuitjax.prune import opening
from circuitjax.prune.capabilities import answers
from circuitjax.prune.defaults import default_search
from circuitjax.prune.find import find_circuit, prepare
from circuitjax.prune.opening import Gate
from tests.prune.planted import TASK, planted_model

SIZES = {"train": 64, "validation": 24, "test": 24, "steps": 80, "batch_size": 16}


def before(batch, key, held):
    """What a part held one token earlier in the same prompt."""
    del key
    here = jnp.arange(batch.size)
    return shifted(held, here, jnp.full(batch.size, -1))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The one line of each table that a new answer takes."""
    soft = Gate(
        sample=lambda key, scores, hyper: jax.nn.sigmoid(4 * scores),
        chance=lambda scores, hyper: jax.nn.sigmoid(4 * scores),
        bound=2.0,
        closed_at=0.0,
        by_score=True,
    )
    monkeypatch.setattr(opening, "GATES", {**opening.GATES, "soft": soft})
    ablations = {**replacement.ABLATIONS, "before": Ablation(before)}
    monkeypatch.setattr(replacement, "ABLATIONS", ablations)


def test_the_table_of_capabilities_knows_them():
    known = answers()
    assert "soft" in known["gate"]
    assert "before" in known["ablation"]


@pytest.mark.parametrize("grain", ["nodes", "edges"])
def test_a_search_takes_them(grain):
    circuit = find_circuit(
        planted_model(), TASK, grain=grain, gate="soft", ablation="before", control="count",
        minimise="task", target_loss=0.1, k_coef=0.01, lr=0.05, init_noise_bias=0.5, **SIZES,
    )  # fmt: skip
    assert (circuit.ablation, circuit.grain) == ("before", grain)
    assert circuit.provenance["reached"]
    assert circuit.num_edges < 100


def test_closed_parts_hold_what_the_ablation_says():
    search = default_search("nodes", ablation="before", **SIZES)
    problem = prepare(planted_model(), TASK, search)
    batch = problem.test.first(3)
    held = refer(problem.whole, batch, jax.random.key(0), full=False).held
    own = problem.whole.observed(batch.tokens[:, 0], batch.positions)[1]
    for site, value in held.items():
        np.testing.assert_array_equal(value[:, :, 1:], own[site][:, :, :-1])
