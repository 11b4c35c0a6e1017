"""Rows of a batch over the devices."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from circuitjax.core.mesh import data_mesh, parse_mesh, replicated, shard_rows, spec_of


def test_rows_are_spread_in_order(rng):
    rows = rng.integers(0, 9, (24, 5))
    spread = shard_rows(data_mesh(), rows)
    np.testing.assert_array_equal(spread, rows)
    for shard in spread.addressable_shards:
        np.testing.assert_array_equal(shard.data, rows[shard.index])
        assert shard.data.shape == (24 // jax.device_count(), 5)


def test_replicated_is_whole_everywhere(rng):
    value = jax.device_put(rng.normal(size=3).astype(np.float32), replicated(data_mesh()))
    assert len(value.addressable_shards) == jax.device_count()
    assert all(shard.data.shape == (3,) for shard in value.addressable_shards)


def test_rows_that_do_not_divide_are_refused():
    count = jax.device_count()
    with pytest.raises(ValueError, match=f"{count + 1} rows does not divide by {count} devices"):
        shard_rows(data_mesh(), np.zeros((count + 1, 2)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows:8", "mesh names 'rows'"),
        ("data:2,data:4", "mesh names 'data'"),
        ("data:0,model:8", "mesh gives data '0' devices"),
        ("data:two", "mesh gives data 'two' devices"),
        ("data:2,model:2", "is of 4 devices, and there are 8"),
    ],
)
def test_meshes_that_cannot_be_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mesh(text, 8)


def test_all_devices_share_the_data_unless_told_otherwise():
    assert parse_mesh("", 8) == {"jobs": 1, "data": 8, "model": 1}
    assert parse_mesh("model:4,jobs:2", 8) == {"jobs": 2, "data": 1, "model": 4}


def test_parameters_are_cut_along_the_longest_axis_that_divides():
    assert spec_of((24, 2048, 5504), 8) == PartitionSpec(None, None, "model")
    assert spec_of((32000, 2048), 8) == PartitionSpec("model", None)
    assert spec_of((8, 3, 5), 8) == PartitionSpec()  # layers are not cut
    assert spec_of((32000, 2048), 1) == PartitionSpec()
