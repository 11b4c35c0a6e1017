"""Devices, in one place: the rest of the package is blind to where arrays lie."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = ["data_mesh", "replicated", "shard_rows"]


def data_mesh() -> Mesh:
    """All devices on one axis, `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shard_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Spreads the first axis of a global batch, known to every process, over the devices.

    Raises:
      ValueError: the rows do not divide by the number of devices.
    """
    count = mesh.shape["data"]
    if rows.shape[0] % count:
        raise ValueError(
            f"a batch of {rows.shape[0]} rows does not divide by {count} devices: change batch_size"
        )
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])
