"""Ids that an array does not have: JAX would take its last row, and nobody would know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import circuitjax as cj
from circuitjax.circuit.circuit import Circuit
from circuitjax.model.record import read_config
from tests.audit.planted_audit import circuit_of, mask_of
from tests.prune.planted import PLANTED, planted_model

MODEL = planted_model()
TOKENS = np.zeros((2, 3), np.int32)
LAST = MODEL.config.vocab_size - 1
WRONG = {
    "beyond the rows": (LAST + 1, f"there is no token {LAST + 1}: the model's are 0 to {LAST}"),
    "negative": (-1, f"there is no token -1: the model's are 0 to {LAST}"),
}


CALLS = {
    "apply": lambda tokens: cj.apply(MODEL.config, MODEL.params, tokens),
    "circuit": lambda tokens: circuit_of(PLANTED).logits(MODEL, tokens),
    "compact": lambda tokens: cj.compact(
        MODEL, Circuit.of(MODEL, "nodes", {"mask": mask_of(PLANTED)}, held=MODEL.means)
    ).logits(tokens),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("call", CALLS)
def test_an_id_that_the_model_does_not_have_is_refused(call, wrong):
    value, message = WRONG[wrong]
    tokens = TOKENS.copy()
    CALLS[call](tokens)
    tokens[1, 2] = LAST
    CALLS[call](jnp.asarray(tokens))
    tokens[1, 1] = value
    for given in (tokens, jnp.asarray(tokens)):
        with pytest.raises(ValueError, match=message):
            CALLS[call](given)


def test_so_are_corrupted_prompts_and_positions():
    circuit = circuit_of(PLANTED)
    with pytest.raises(ValueError, match="there is no token"):
        circuit.logits(MODEL, TOKENS, corrupted=TOKENS - 1)
    with pytest.raises(ValueError, match="there is no position 3: the prompts' are 0 to 2"):
        circuit.logits(MODEL, TOKENS, positions=np.full((2, 1), 3))
    with pytest.raises(ValueError, match="the tokens are float32; they must be whole numbers"):
        cj.apply(MODEL.config, MODEL.params, TOKENS.astype(np.float32))


def test_sizes_that_are_too_large_together_are_refused_before_anything_is_made():
    fields = MODEL.config.to_dict()
    wide = {"d_model": 2**24, "d_mlp": 2**24, "num_layers": 2048, "d_position": 0}
    with pytest.raises(ValueError, match=r"it: sizes make up to .* parameters; at most 1e\+13"):
        read_config("it", fields | wide)
    assert read_config("it", fields) == MODEL.config


def test_a_function_that_is_compiled_sees_shapes_alone():
    logits = jax.jit(lambda tokens: cj.apply(MODEL.config, MODEL.params, tokens).logits)
    assert logits(TOKENS).shape == (2, 3, LAST + 1)
    with pytest.raises(ValueError, match="exceed the model's context length"):
        logits(np.zeros((1, MODEL.config.context_length + 1), np.int32))
