"""How work is laid out on the backend at hand: asked here, and nowhere else.

On a CPU arithmetic is what costs: jobs, masks and fits follow one another, each in cache, and whatever
is closed is left out of the arithmetic. On an accelerator, and on several devices of any kind, they lie
side by side and fill the chips.
"""

import jax

from circuitjax.core.mesh import is_spread

__all__ = ["backend", "leaves_out_closed", "side_by_side", "slices"]


def backend() -> str:
    """Name of the backend: cpu, gpu, tpu."""
    return jax.default_backend()


def _one_cpu() -> bool:
    return backend() == "cpu" and not is_spread()


def side_by_side() -> bool:
    """Whether many small pieces of work are mapped, rather than looped over."""
    return not _one_cpu()


def leaves_out_closed() -> bool:
    """Whether a smaller model of its own is worth another program to compile."""
    return _one_cpu()


def slices(best: int) -> int:
    """In how many parts a batch is worked out, given how many suit a cache."""
    return best if _one_cpu() else 1
