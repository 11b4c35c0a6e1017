"""Devices, in one place: how arrays lie on a mesh of them, and everything else is blind to it.

    jobs     runs that know nothing of each other
    data     the rows of a batch
    model    parts of the parameters, for networks larger than a device

The mesh is JAX's own ambient one (`jax.set_mesh`): inside `on_devices(...)` programs are partitioned by
XLA according to where their arguments lie; outside, everything is on one device as ever.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = [
    "AXES",
    "axis_name",
    "data_mesh",
    "is_spread",
    "on_devices",
    "params_sharding",
    "parse_mesh",
    "place",
    "placed_params",
    "replicated",
    "shard_rows",
    "spec_of",
    "spread",
]

AXES = ("jobs", "data", "model")


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """How many devices lie along each axis, from `jobs:2,data:4`; an axis left out has one.

    Args:
      text: names of `AXES` with sizes; empty puts all devices on `data`.
      devices: how many there are; the sizes must multiply to it.

    Raises:
      ValueError: another axis, one named twice, a size that is no whole number of at least 1, or sizes
        for another number of devices.

    Examples:
      >>> from circuitjax.core.mesh import parse_mesh
      >>> parse_mesh("jobs:2,data:4", 8)
      {'jobs': 2, 'data': 4, 'model': 1}
    """
    if not text:
        return {"jobs": 1, "data": devices, "model": 1}
    sizes = dict.fromkeys(AXES, 0)
    for part in text.split(","):
        name, _, number = part.strip().partition(":")
        if name not in sizes or sizes[name]:
            raise ValueError(f"mesh names {name!r}: name each of {', '.join(AXES)} once at most")
        if not number.isdecimal() or not 1 <= int(number) <= devices:
            raise ValueError(
                f"mesh gives {name} {number!r} devices: give a number from 1 to {devices}"
            )
        sizes[name] = int(number)
    sizes = {name: size or 1 for name, size in sizes.items()}
    if math.prod(sizes.values()) != devices:
        raise ValueError(
            f"mesh={text} is of {math.prod(sizes.values())} devices, and there are {devices}: the sizes "
            "must multiply to that"
        )
    return sizes


@contextlib.contextmanager
def on_devices(text: str = "") -> Iterator[None]:
    """Lays programs and parameters over all devices; of one device nothing changes.

    Args:
      text: see `parse_mesh`.

    Raises:
      ValueError: see `parse_mesh`.
    """
    count = jax.device_count()
    sizes = parse_mesh(text, count)
    if count == 1:
        yield
        return
    mesh = jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    with jax.set_mesh(mesh):
        yield


def _size(axis: str) -> int:
    """Devices along an axis of the ambient mesh; 1 where there is none."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)


def is_spread() -> bool:
    """Whether the ambient mesh has several devices."""
    return any(_size(axis) > 1 for axis in AXES)


def axis_name(axis: str) -> str | None:
    """The axis, where the ambient mesh has several devices along it."""
    return axis if _size(axis) > 1 else None


def spread(tree: Any, axis: str = "data") -> Any:
    """Within a program: the first axis of every leaf over the devices of an axis, where it divides."""
    size = _size(axis)
    if size == 1:
        return tree

    def one(leaf: jax.Array) -> jax.Array:
        divides = leaf.ndim and leaf.shape[0] % size == 0
        found: jax.Array = (
            jax.lax.with_sharding_constraint(leaf, PartitionSpec(axis)) if divides else leaf
        )
        return found

    return jax.tree.map(one, tree)


def place(tree: Any, axis: str = "jobs") -> Any:
    """Outside of programs: leaves over the devices of an axis, where they divide; else everywhere."""
    if not is_spread():
        return tree
    mesh = jax.sharding.get_mesh()
    size = mesh.shape[axis]

    def one(leaf: Any) -> jax.Array:
        shape = np.shape(leaf)
        spec = PartitionSpec(axis) if shape and shape[0] % size == 0 else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(one, tree)


def placed_params(params: Any) -> Any:
    """A network's parameters on the devices, each cut along its longest axis that `model` divides."""
    if not is_spread():
        return jax.tree.map(jnp.asarray, params)
    return jax.tree.map(lambda leaf: jax.device_put(leaf, params_sharding(np.shape(leaf))), params)


def params_sharding(shape: tuple[int, ...]) -> NamedSharding | None:
    """Where the ambient mesh has a parameter of a shape; None without a mesh."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else NamedSharding(mesh, spec_of(shape, mesh.shape["model"]))


def spec_of(shape: tuple[int, ...], size: int) -> PartitionSpec:
    """Cuts the longest axis that so many devices divide; none where there is no such axis.

    The first axis of stacked layers is never cut: each layer would have to be fetched.
    """
    fits = [n for n in range(len(shape)) if shape[n] % size == 0 and (n or len(shape) < 3)]
    if size == 1 or not fits:
        return PartitionSpec()
    longest = max(fits, key=lambda n: (shape[n], n))
    return PartitionSpec(*(["model" if n == longest else None for n in range(len(shape))]))


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
