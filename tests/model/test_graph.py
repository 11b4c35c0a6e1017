"""Edges against counts by hand and against a plain loop."""

import numpy as np
import pytest

from circuitjax.model.families import FAMILIES
from circuitjax.model.graph import (
    count_edges,
    count_outer_weights,
    edge_list,
    edge_masks,
    total_edges,
)
from circuitjax.model.sites import parse_address, shapes


def _nothing(config):
    return {site: np.zeros(shape, bool) for site, shape in shapes(config).items()}


def test_one_neuron_is_three_nodes_and_two_edges(draw):
    config = draw.config()
    params = draw.params(config, np.random.default_rng(0), density=1.0)
    mask = _nothing(config)
    mask["mlp.act_in"][1, 3] = mask["mlp.post_act"][1, 9] = mask["mlp.resid_delta"][1, 0] = True
    assert count_edges(config, params, mask) == 2
    assert edge_list(config, params, mask) == [
        ("1.mlp.act_in.3", "1.mlp.post_act.9", float(params["layers"]["mlp_in"][1, 3, 9])),
        ("1.mlp.post_act.9", "1.mlp.resid_delta.0", float(params["layers"]["mlp_out"][1, 9, 0])),
    ]
    # A weight of zero is no edge, nor is one between layers.
    params["layers"]["mlp_in"][1, 3, 9] = 0
    mask["mlp.resid_delta"][0, 0] = True
    assert count_edges(config, params, mask) == 1


def test_edges_are_the_nonzero_weights_between_kept_nodes(draw):
    config = draw.config(position="concatenated", d_position=3)
    rng = np.random.default_rng(1)
    params, mask = draw.params(config, rng), draw.mask(config, rng, 0.5)
    found = edge_list(config, params, mask)
    masks = edge_masks(config, params, mask)
    assert len(found) == len(set(found)) == count_edges(config, params, mask)
    assert len(found) == sum(int(m.sum()) for m in masks.values())
    kinds = {(family.source, family.target): family for family in FAMILIES}
    for source, target, weight in found:
        layer, site, i = parse_address(config, source)
        same_layer, target_site, j = parse_address(config, target)
        kernel = params["layers"][kinds[site, target_site].kernel]
        assert layer == same_layer
        assert mask[site][layer, i]
        assert mask[target_site][layer, j]
        assert weight == kernel[layer, i, j] != 0
    everything = {site: np.ones(shape, bool) for site, shape in shapes(config).items()}
    assert total_edges(config, params) == count_edges(config, params, everything) > len(found)


def test_outer_weights_are_counted_on_kept_channels(draw):
    config = draw.config(position="concatenated", d_position=3)
    params = draw.params(config, np.random.default_rng(2))
    mask = _nothing(config)
    assert count_outer_weights(config, params, mask) == {"embed": 0, "positions": 0, "unembed": 0}
    mask["attn.act_in"][0, 2] = mask["mlp.act_in"][1, 2] = True
    mask["mlp.act_in"][0, 8 + 1] = mask["attn.resid_delta"][1, 5] = True
    params["unembed"][5] = [0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4]
    assert count_outer_weights(config, params, mask) == {
        "embed": np.count_nonzero(params["embed"][:, 2]),
        "positions": np.count_nonzero(params["positions"][:, 1]),
        "unembed": 4,
    }


def test_a_mask_of_another_model_is_refused(draw):
    config = draw.config()
    mask = _nothing(config)
    params = draw.params(config, np.random.default_rng(3))
    with pytest.raises(ValueError, match=r"mlp.post_act is shaped None; this model's is \(2, 10\)"):
        edge_masks(config, params, {k: v for k, v in mask.items() if k != "mlp.post_act"})
    with pytest.raises(ValueError, match=r"unknown site .attn\.z."):
        edge_masks(config, params, mask | {"attn.z": np.ones((2, 8))})
