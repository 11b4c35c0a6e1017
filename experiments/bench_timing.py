"""How the benchmarks measure: repeats after a warm-up, one JSON line per measurement."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from experiments.limits import check_numbers

__all__ = ["check_repeats", "measured_line", "peak_memory", "print_line", "timed"]

_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions after a warm-up, at least 5.")


def check_repeats() -> None:
    """Raises ValueError if --repeats is too few for a median."""
    check_numbers(_REPEATS, least=5)


def measured_line(times: list[float], **fields: object) -> dict[str, object]:
    """The JSON line of a measurement: `fields`, then median, least and greatest time in seconds."""
    return {
        **fields,
        "seconds": float(np.median(times)),
        "min": min(times),
        "max": max(times),
        "repeats": len(times),
    }


def peak_memory() -> float:
    """Greatest resident memory of the process so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def timed(run: Callable[[], Any], wait: Callable[[Any], Any]) -> tuple[list[float], float]:
    """Wall-clock seconds of `--repeats` calls, and of a first one before them.

    Args:
      run: what is timed.
      wait: given what `run` returned, waits until the device has finished it.
    """
    times = []
    for _ in range(_REPEATS.value + 1):
        start = time.perf_counter()
        wait(run())
        times.append(time.perf_counter() - start)
    return times[1:], times[0]


def print_line(device_memory: float | None, **fields: Any) -> None:
    """Prints a measurement as JSON, with the greatest memory so far of host and device in MiB."""
    memory = {"peak_memory_mib": peak_memory(), "device_peak_memory_mib": device_memory}
    print(json.dumps({**fields, **memory}), flush=True)
