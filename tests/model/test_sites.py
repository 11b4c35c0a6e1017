"""Addresses and flat order of nodes."""

import jax.numpy as jnp
import numpy as np
import pytest

from circuitjax.model import sites
from circuitjax.model.config import SITES


def every_node(config):
    for layer in range(config.num_layers):
        for site in SITES:
            for index in range(config.width(site)):
                yield layer, site, index


def test_addresses_are_distinct_and_parse_back(tiny_config):
    names = [sites.address(tiny_config, *node) for node in every_node(tiny_config)]
    assert len(set(names)) == tiny_config.num_nodes
    nodes = list(every_node(tiny_config))
    assert [sites.parse_address(tiny_config, name) for name in names] == nodes


def test_addresses_look_as_documented(tiny_config):
    assert sites.address(tiny_config, 1, "attn.q", 7) == "1.attn.q.h1.c3"
    assert sites.address(tiny_config, 0, "mlp.post_act", 12) == "0.mlp.post_act.12"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "attn.q.h0.c0",
        "2.mlp.post_act.0",
        "0.mlp.post_act.16",
        "0.mlp.post_act.h0.c1",
        "0.mlp.post_act.-1",
        "0.mlp.post_act.1\n",
        "0.attn.q.3",
        "0.attn.q.h2.c0",
        "0.attn.q.h0.c4",
        "0.attn.post_act.1",
        "0.mlp.q.h0.c0",
    ],
)
def test_what_names_no_node_is_refused(tiny_config, name):
    with pytest.raises(ValueError, match="names no node of this model") as caught:
        sites.parse_address(tiny_config, name)
    assert "\n" not in str(caught.value)


def test_flatten_and_unflatten_are_inverse(tiny_config, rng):
    flat = rng.normal(size=(3, tiny_config.num_nodes)).astype(np.float32)
    tree = sites.unflatten(tiny_config, flat)
    assert {k: v.shape[1:] for k, v in tree.items()} == sites.shapes(tiny_config)
    np.testing.assert_array_equal(sites.flatten(tree), flat)
    again = sites.unflatten(tiny_config, jnp.asarray(flat[0]))
    np.testing.assert_array_equal(again["mlp.act_in"], tree["mlp.act_in"][0])


def test_another_number_of_nodes_is_refused(tiny_config):
    for size in (tiny_config.num_nodes - 1, tiny_config.num_nodes + 1):
        with pytest.raises(ValueError, match=f"{size} .* {tiny_config.num_nodes}"):
            sites.unflatten(tiny_config, np.zeros(size))


def test_kept_addresses_come_in_forward_order(tiny_config):
    mask = {s: np.zeros(shape, bool) for s, shape in sites.shapes(tiny_config).items()}
    mask["mlp.post_act"][0, 3] = mask["attn.v"][1, 5] = mask["attn.act_in"][0, 11] = True
    found = sites.kept_addresses(tiny_config, mask)
    assert found == ["0.attn.act_in.11", "0.mlp.post_act.3", "1.attn.v.h1.c1"]
