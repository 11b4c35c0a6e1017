"""How the benchmarks measure: repeats after a warm-up, one JSON line per measurement."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments.limits import check_numbers

__all__ = ["Timed", "check_repeats", "cores", "measured_line", "peak_memory", "print_line", "timed"]

_REPEATS = flags.DEFINE_integer("repeats", 5, "Repetitions after a warm-up, at least 5.")


def check_repeats() -> None:
    """Raises ValueError if --repeats is too few for a median."""
    check_numbers(_REPEATS, least=5)


class Timed(NamedTuple):
    """What calls took, in seconds.

    Attributes:
      times: by the clock, of each call.
      cpu: of processors, all threads together, of each call.
      cold: by the clock, of a first call before them.
    """

    times: list[float]
    cpu: list[float]
    cold: float

    @property
    def median(self) -> float:
        """Of the times by the clock."""
        return float(np.median(self.times))

    def per(self, count: int) -> "Timed":
        """Of one of so many things that a call does; the first call stays whole."""
        return Timed([t / count for t in self.times], [t / count for t in self.cpu], self.cold)


def measured_line(found: Timed, **fields: object) -> dict[str, object]:
    """The JSON line of a measurement: `fields`, then median, least and greatest time in seconds."""
    return {
        **fields,
        "seconds": found.median,
        "min": min(found.times),
        "max": max(found.times),
        "cpu_seconds": float(np.median(found.cpu)),
        "repeats": len(found.times),
    }


def cores() -> int:
    """Cores that this process may run on."""
    mine = getattr(os, "sched_getaffinity", None)  # Linux alone can say
    return len(mine(0)) if mine else os.cpu_count() or 1


def peak_memory() -> float:
    """Greatest resident memory of the process so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def timed(run: Callable[[], Any], wait: Callable[[Any], Any]) -> Timed:
    """What `--repeats` calls take, and a first one before them.

    Args:
      run: what is timed.
      wait: given what `run` returned, waits until the device has finished it.
    """
    times, cpu = [], []
    for _ in range(_REPEATS.value + 1):
        start, used = time.perf_counter(), time.process_time()
        wait(run())
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return Timed(times[1:], cpu[1:], times[0])


def print_line(device_memory: float | None, **fields: Any) -> None:
    """Prints a measurement as JSON, with the greatest memory so far of host and device in MiB."""
    memory = {"peak_memory_mib": peak_memory(), "device_peak_memory_mib": device_memory}
    print(json.dumps({**fields, **memory}), flush=True)
