"""Many jobs as one program: jobs on a leading axis, steps scanned in chunks.

On an accelerator the jobs run side by side (`vmap`) and fill the chip; on a CPU they run one after
another inside the same compiled program (`lax.map`), which keeps each one's arrays in cache. The
random key of step n is `fold_in(key, n)`, so chunks of any length give the same run.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from circuitjax.core import policy
from circuitjax.core.mesh import axis_name

__all__ = ["map_jobs", "scan_steps"]


def map_jobs(fn: Callable[..., Any], *, side_by_side: bool | None = None) -> Callable[..., Any]:
    """A function of one job to a function of J jobs stacked on axis 0 of every argument.

    Args:
      fn: pure function of pytrees.
      side_by_side: True for `vmap`, False for `lax.map`; None chooses by the backend.
    """

    def mapped(*args: Any) -> Any:
        together = policy.side_by_side() if side_by_side is None else side_by_side
        if together:
            return jax.vmap(fn, spmd_axis_name=axis_name("jobs"))(*args)
        return lax.map(lambda packed: fn(*packed), args)

    return mapped


def scan_steps(step: Callable[[Any], tuple[Any, Any]], state: Any, length: int) -> tuple[Any, Any]:
    """Applies `step` `length` times; the outputs are stacked on axis 0."""
    return lax.scan(lambda carry, _: step(carry), state, None, length=length)
