"""What closed parts hold: all open is the plain model, all closed the corrupted run, at every grain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.gated.edges import EdgeGates, fixed_writers
from circuitjax.gated.examples import Examples
from circuitjax.gated.nodes import NodeGates
from circuitjax.gated.replacement import (
    ABLATIONS,
    donors,
    is_per_prompt,
    needs_corrupted,
    refer,
    shifted,
)
from circuitjax.gated.weights import weight_gates
from circuitjax.model.transformer import apply

VARIANTS = {
    "learned positions, sinks": {"attention_sinks": True},
    "no norm, no biases": {"norm": "none", "biases": False, "position": "none"},
}
GRAINS = ("nodes", "weights", "edges")
run = jax.jit(apply, static_argnums=0)


def examples(paired, count=8, length=6, vocabulary=11, alike=True):
    """Prompts that end at the same place if they are `alike`."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, vocabulary, (count, 2, length)).astype(np.int32)
    last = np.full((count, 1), length - 1) if alike else rng.integers(2, length, (count, 1))
    if paired:
        return Examples.of_pairs(tokens[: count // 2], np.repeat(last[: count // 2], 2, axis=1),
                                 rng.integers(0, vocabulary, (count // 2, 2)))  # fmt: skip
    answers = rng.integers(0, vocabulary, (2, count, 1))
    arrays = (tokens, last, answers[0], answers[1])
    return Examples(*(jnp.asarray(x, jnp.int32) for x in arrays))


def gated(draw, grain, ablation, changes):
    config, rng = draw.config(**changes), np.random.default_rng(0)
    params = jax.tree.map(jnp.asarray, draw.params(config, rng, density=1.0))
    constant = not is_per_prompt(ablation)
    fills = draw.fills(config, rng) if constant else None
    held = None if fills is None else jax.tree.map(jnp.asarray, fills)
    if grain == "nodes":
        return NodeGates(params, held, config=config, ablation=ablation)
    if grain == "weights":
        return weight_gates(config, params, held, ablation)
    held = fixed_writers(config, params, ablation, examples(False)) if constant else None
    return EdgeGates(params, held, config=config, ablation=ablation)


def answered(model, gates, batch, seed=0):
    held = refer(model, batch, jax.random.key(seed), full=False).held
    return np.asarray(model.logits(jnp.asarray(gates, jnp.float32), batch, held))


def plain(model, tokens, positions):
    return np.asarray(run(model.config, model.params, tokens, positions=positions).logits)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_all_open_is_the_plain_model(draw, variant, grain, ablation):
    model, batch = gated(draw, grain, ablation, VARIANTS[variant]), examples(False)
    expected = plain(model, batch.tokens[:, 0], batch.positions)
    found = answered(model, np.ones(model.num_gates), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    reference = refer(model, batch, jax.random.key(0), full=True)
    np.testing.assert_allclose(reference.full, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("grain", GRAINS)
def test_all_closed_under_interchange_is_the_corrupted_run(draw, grain, paired):
    """Of the blocks: the stream begins with the clean embedding where it is no edge of its own."""
    model, batch = gated(draw, grain, "interchange", {"norm": "none"}), examples(paired)
    found = answered(model, np.zeros(model.num_gates), batch)
    corrupted = plain(model, batch.tokens[:, 1], batch.positions)
    if grain != "edges":
        embed, unembed = (np.asarray(model.params[name]) for name in ("embed", "unembed"))
        places = np.asarray(batch.positions)
        clean, other = (
            embed[np.take_along_axis(np.asarray(batch.tokens)[:, side], places, axis=1)]
            for side in (0, 1)
        )
        corrupted = corrupted + (clean - other) @ unembed
    np.testing.assert_allclose(found, corrupted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("grain", GRAINS)
def test_a_prompt_that_replaces_itself_changes_nothing(draw, grain):
    """Under interchange with corrupted = clean any set of gates answers as the model."""
    model, batch = gated(draw, grain, "interchange", {"attention_sinks": True}), examples(False)
    batch = batch.replace(tokens=batch.tokens[:, [0, 0]])
    gates = np.random.default_rng(4).random(model.num_gates) < 0.5
    expected = plain(model, batch.tokens[:, 0], batch.positions)
    np.testing.assert_allclose(answered(model, gates, batch), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("grain", GRAINS)
def test_resampling_is_interchange_with_the_donors(draw, grain):
    model, batch = gated(draw, grain, "resample", {"attention_sinks": True}), examples(False)
    key = jax.random.key(5)
    chosen = donors(key, batch.positions[:, -1])
    swapped = jnp.stack([batch.tokens[:, 0], batch.tokens[chosen, 0]], axis=1)
    gates = np.random.default_rng(4).random(model.num_gates) < 0.5
    found = answered(model, gates, batch, seed=5)
    other = model.replace(ablation="interchange")
    if grain == "edges":  # whose position edges are always open then
        gates = gates | ~other.exists()
        found = answered(model, gates, batch, seed=5)
    expected = answered(other, gates, batch.replace(tokens=swapped))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_donors_are_others_of_equal_length_where_there_are_any():
    last = jnp.array([3, 5, 3, 3, 7, 5, 3, 5])
    seen = set()
    for seed in range(30):
        chosen = np.asarray(donors(jax.random.key(seed), last))
        assert np.all(chosen != np.arange(8))
        shared = np.arange(8) != 4
        np.testing.assert_array_equal(last[chosen][shared], last[shared])
        seen |= set(enumerate(chosen.tolist()))
    # Every other prompt of the same length is drawn, and of the lonely one all others.
    lengths = np.asarray(last)
    same = {(i, j) for i in range(8) for j in range(8) if i != j and lengths[i] == lengths[j]}
    assert seen == same | {(4, j) for j in range(8) if j != 4 and (4, j) in seen}
    assert len({j for i, j in seen if i == 4}) > 4


def test_a_donor_is_aligned_at_the_last_token():
    length, last = 6, np.array([2, 4, 5, 3])
    held = {"a": jnp.arange(2 * 4 * length * 3, dtype=jnp.float32).reshape(2, 4, length, 3)}
    donor = np.array([1, 0, 3, 2])
    shift = last[donor] - last
    found = np.asarray(shifted(held, donor, shift)["a"])
    given = np.asarray(held["a"])
    for row in range(4):
        np.testing.assert_array_equal(
            found[:, row, last[row]], given[:, donor[row], last[donor[row]]]
        )
        for place in range(length):
            source = np.clip(place + shift[row], 0, length - 1)
            np.testing.assert_array_equal(found[:, row, place], given[:, donor[row], source])


def test_what_each_ablation_needs():
    assert [name for name in ABLATIONS if is_per_prompt(name)] == ["resample", "interchange"]
    assert [name for name in ABLATIONS if needs_corrupted(name)] == ["interchange"]
