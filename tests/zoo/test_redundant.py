"""Each planted way suffices, none of its nodes can go, and without all ways nothing is left."""

import numpy as np
import pytest

from circuitjax.model.sites import parse_address
from circuitjax.zoo.planted.redundant import redundant_models
from tests.zoo.test_planted import BREAKS, EMPTY, SUFFICES, WORKS, Bench

BUILD = {build.__name__: build for build in redundant_models()}
COUNTS = {"one_way": 1, "two_ways": 2, "three_ways": 3}
CASES = [
    pytest.param(name, seed, marks=[] if (name, seed) == ("three_ways", 1) else pytest.mark.slow)
    for name in BUILD
    for seed in range(4)
]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_each_way_is_a_circuit(name, seed):
    ways = BUILD[name](seed)
    assert len(ways) == COUNTS[name]
    benches = [Bench(way) for way in ways]
    assert benches[0].nodes(benches[0].whole) < WORKS
    rest = {site: np.ones_like(mask) for site, mask in benches[0].whole.items()}
    for bench in benches:
        assert len({way.model.hash for way in ways}) == 1
        assert bench.nodes(bench.true) < SUFFICES
        for node in bench.planted.nodes:
            assert bench.without_node(bench.true, node) > BREAKS, node
            layer, site, index = parse_address(bench.config, node)
            assert rest[site][layer, index], "two ways share a node"
            rest[site][layer, index] = False
    # Without the ways there is no other.
    assert benches[0].nodes(rest) > EMPTY
    # With two ways or more no node can be missed, one alone.
    spared = benches[0].without_node(benches[0].whole, ways[0].nodes[0])
    assert (spared < SUFFICES) == (len(ways) > 1)


def test_residual_edges_of_ways_are_disjoint():
    for build in redundant_models():
        ways = build(0)
        edges = [edge for way in ways for edge in way.edges]
        assert len(set(edges)) == len(edges) == 2 * len(ways)
