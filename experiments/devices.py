"""The flag that says how devices lie: binaries that search, measure or audit run within `laid_out`."""

import contextlib

from absl import flags

from circuitjax.core.mesh import on_devices

__all__ = ["laid_out"]

_MESH = flags.DEFINE_string(
    "mesh",
    "",
    "How several devices lie: jobs:2,data:2,model:2 (jobs side by side, rows of a batch, parts of the "
    "parameters). Default: all on data.",
)


def laid_out() -> contextlib.AbstractContextManager[None]:
    """All devices at hand, as --mesh says; of one device nothing changes."""
    return on_devices(_MESH.value)
