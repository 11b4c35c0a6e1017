"""Rows of a batch over the devices."""

import jax
import numpy as np
import pytest

from circuitjax.core.mesh import data_mesh, replicated, shard_rows


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
