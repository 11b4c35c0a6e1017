"""What is refused before any work for want of memory, and how much a pass takes at a time."""

import dataclasses

import pytest

from circuitjax.gated.edges import EdgeGates, bytes_of_slope
from circuitjax.model.config import TransformerConfig
from circuitjax.prune import problem
from circuitjax.prune.problem import check_memory

SMALL = TransformerConfig(
    num_layers=2, d_model=16, num_heads=2, d_head=8, d_mlp=32, vocab_size=16, context_length=8
)
LARGE = dataclasses.replace(SMALL, num_layers=30, num_heads=9, d_model=576, num_kv_heads=3)


def test_edges_that_do_not_fit_are_one_line(monkeypatch):
    gated = EdgeGates(None, None, config=LARGE)
    monkeypatch.setattr(problem, "available_memory", lambda: 2 * 2**30)
    with pytest.raises(
        ValueError, match=r"^\d+ residual edges on 4 prompts of 64 tokens at a time "
    ):
        check_memory(gated, 64)
    check_memory(EdgeGates(None, None, config=SMALL), 64, unit=2)
    monkeypatch.setattr(problem, "available_memory", lambda: None)  # nobody says
    check_memory(gated, 64)


def test_a_large_model_takes_fewer_examples_at_a_time():
    """About 0.4 GiB for an example of 24 tokens were seen on a model of that size."""
    assert 0.3 < bytes_of_slope(LARGE, 24) / 2**30 < 0.6
    assert EdgeGates(None, None, config=LARGE).eval_items == 4
    assert EdgeGates(None, None, config=SMALL).eval_items == 16
    huge = dataclasses.replace(LARGE, num_layers=80, d_model=4096)
    assert EdgeGates(None, None, config=huge).eval_items == 1
